//! Frames in buffers that can be copied, as those of a worker are. The rest of the tests lends
//! frames, whose copies are asked for.

use packet::{Buffer, Frame};

/// A frame in a buffer of its own.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl Owned {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut buffer = vec![0; Frame::HEADROOM + bytes.len().max(1514) + 128];
        buffer[Frame::HEADROOM..][..bytes.len()].copy_from_slice(bytes);
        Self {
            buffer,
            start: Frame::HEADROOM,
            len: bytes.len(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..][..self.len]
    }
}

impl Buffer for Owned {
    const COPIES: bool = true;

    fn copies(&self, count: usize, mut each: impl FnMut(Option<Self>)) -> u64 {
        (0..count).for_each(|_| each(Some(self.clone())));
        count as u64
    }

    fn plain(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.buffer[self.start..][..self.len])
    }

    fn keep(&mut self, begin: usize, len: usize) {
        (self.start, self.len) = (self.start + begin, len);
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        let mut frame = Frame::new(&mut self.buffer, self.start, self.len, None);
        let result = change(&mut frame);
        (self.start, self.len) = frame.position();
        Some(result)
    }

    fn frame_len(&self) -> usize {
        self.len
    }
}
