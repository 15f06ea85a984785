//! Buffers that frames are copied into: a frame that several ports get takes one for each.

use std::cell::RefCell;

use packet::{Buffer, Frame};

use super::BUFFER;

/// Buffers that are not in use. None is freed, so a burst allocates only the first time.
#[derive(Default)]
pub(super) struct Spare(RefCell<Vec<Vec<u8>>>);

/// A frame in one of them, which goes back when this is dropped.
pub(super) struct Copied<'s> {
    spare: &'s Spare,
    buffer: Option<Vec<u8>>,
    start: usize,
    len: usize,
}

impl Spare {
    fn take(&self, start: usize, bytes: &[u8]) -> Copied<'_> {
        let buffer = self.0.borrow_mut().pop();
        let mut buffer = buffer.unwrap_or_else(|| vec![0; BUFFER]);
        buffer[start..start + bytes.len()].copy_from_slice(bytes);
        Copied {
            spare: self,
            buffer: Some(buffer),
            start,
            len: bytes.len(),
        }
    }

    /// A frame of these bytes.
    pub(super) fn fill(&self, bytes: &[u8]) -> Copied<'_> {
        self.take(Frame::HEADROOM, bytes)
    }
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        self.spare.0.borrow_mut().extend(self.buffer.take());
    }
}

impl Copied<'_> {
    fn bytes(&self) -> &[u8] {
        let buffer = self.buffer.as_deref().unwrap_or_default();
        &buffer[self.start..self.start + self.len]
    }
}

impl Buffer for Copied<'_> {
    const COPIES: bool = true;

    fn copies(&self, count: usize, mut each: impl FnMut(Option<Self>)) -> u64 {
        (0..count).for_each(|_| each(Some(self.spare.take(self.start, self.bytes()))));
        count as u64
    }

    #[inline(always)]
    fn plain(&mut self) -> Option<&mut [u8]> {
        let buffer = self.buffer.as_deref_mut()?;
        Some(&mut buffer[self.start..self.start + self.len])
    }

    #[inline(always)]
    fn keep(&mut self, begin: usize, len: usize) {
        (self.start, self.len) = (self.start + begin, len);
    }

    #[inline(always)]
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        let buffer = self.buffer.as_deref_mut()?;
        let mut frame = Frame::new(buffer, self.start, self.len, None);
        let result = change(&mut frame);
        (self.start, self.len) = frame.position();
        Some(result)
    }

    fn frame_len(&self) -> usize {
        self.len
    }
}
