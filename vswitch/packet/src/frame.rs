//! One frame in its buffer, and the few ways to change its length.

/// What holds a received frame. A pipeline changes the frame's bytes, and its place in the buffer.
pub trait Buffer: Sized {
    /// Whether frames of this kind can be copied.
    const COPIES: bool = false;

    /// Makes `count` other buffers with the same frame in the same place, and hands each over as it
    /// is made; `None` for one for which there is no room. Returns how many allocations that took.
    fn copies(&self, count: usize, mut each: impl FnMut(Option<Self>)) -> u64 {
        (0..count).for_each(|_| each(None));
        0
    }

    /// The frame's bytes, if they are in one piece and no tag was stripped from them.
    fn plain(&mut self) -> Option<&mut [u8]>;

    /// Reduces the frame that [`Self::plain`] returned to `len` of its bytes, from the one at
    /// `begin` on.
    fn keep(&mut self, begin: usize, len: usize);

    /// Lends the frame with the room around it to `change`, which may move it in the buffer. `None`
    /// if it is in several pieces; `change` is not called then.
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R>;

    /// Bytes of the frame, all pieces together.
    fn frame_len(&self) -> usize;
}

impl Buffer for Frame<'_> {
    #[inline(always)]
    fn plain(&mut self) -> Option<&mut [u8]> {
        match self.stripped_tag {
            None => Some(self.bytes_mut()),
            Some(_) => None,
        }
    }

    #[inline(always)]
    fn keep(&mut self, begin: usize, len: usize) {
        self.shrink_front(begin);
        self.truncate(len);
    }

    #[inline(always)]
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        Some(change(self))
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.len
    }
}

impl<B: Buffer> Buffer for &mut B {
    #[inline(always)]
    fn plain(&mut self) -> Option<&mut [u8]> {
        (**self).plain()
    }

    #[inline(always)]
    fn keep(&mut self, begin: usize, len: usize) {
        (**self).keep(begin, len);
    }

    #[inline(always)]
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        (**self).change(change)
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        (**self).frame_len()
    }
}

/// One frame in a buffer with room in front of it and behind it.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    len: usize,
    stripped_tag: Option<u16>,
}

impl<'a> Frame<'a> {
    /// The bytes in front of a frame with which every answer can be built in place. With fewer, an
    /// answer that does not fit is dropped as `no-buffer`.
    pub const HEADROOM: usize = 112;

    /// The bytes behind a frame with which it can be sealed in place: padding, trailer and check
    /// value, and what the longest headers take more than [`Self::HEADROOM`].
    const TAILROOM: usize = 64;

    /// The frame that is `len` bytes of `buffer` from `start` on. `stripped_tag` is the tag control
    /// information of a VLAN tag that the device has stripped.
    ///
    /// # Panics
    /// If the frame lies outside the buffer.
    #[inline]
    pub fn new(buffer: &'a mut [u8], start: usize, len: usize, stripped_tag: Option<u16>) -> Self {
        assert!(
            start <= buffer.len() && len <= buffer.len() - start,
            "frame outside its buffer"
        );
        Self {
            buffer,
            start,
            len,
            stripped_tag,
        }
    }

    /// The frame's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    /// Where the frame lies in its buffer: first byte and length.
    #[inline]
    pub fn position(&self) -> (usize, usize) {
        (self.start, self.len)
    }

    /// The tag control information of a tag that the device has stripped.
    #[inline]
    pub fn stripped_tag(&self) -> Option<u16> {
        self.stripped_tag
    }

    /// The frame's bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }

    /// The frame's length in bytes.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "no caller needs to know whether a frame is empty"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Removes the bytes behind the first `len`.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes the frame `len` bytes long; new bytes at its end are those that the buffer held.
    /// `None` if the buffer ends before.
    #[inline]
    pub fn resize(&mut self, len: usize) -> Option<()> {
        (len <= self.buffer.len() - self.start).then(|| self.len = len)
    }

    /// Adds `count` bytes in front. `None` if there is no room.
    #[inline]
    pub fn grow_front(&mut self, count: usize) -> Option<()> {
        self.start = self.start.checked_sub(count)?;
        self.len += count;
        Some(())
    }

    /// As [`Self::grow_front`]; if there is no room in front, the frame is moved back for it.
    #[inline]
    pub fn make_front(&mut self, count: usize) -> Option<()> {
        if let Some(missing) = count.checked_sub(self.start).filter(|missing| *missing > 0) {
            let (start, end) = (self.start, self.start + self.len);
            if end + missing > self.buffer.len() {
                return None;
            }
            self.buffer.copy_within(start..end, start + missing);
            self.start += missing;
        }
        self.grow_front(count)
    }

    /// Whether there is as much room in front as [`Self::HEADROOM`] promises.
    #[inline]
    pub fn has_headroom(&self) -> bool {
        self.start >= Self::HEADROOM
    }

    /// Whether there is as much room behind as ESP may need.
    #[inline]
    pub fn has_tailroom(&self) -> bool {
        self.buffer.len() - self.start - self.len >= Self::TAILROOM
    }

    /// Removes `count` bytes from its front, or all of them.
    #[inline]
    pub fn shrink_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.start += count;
        self.len -= count;
    }

    /// Writes the destination and source MAC.
    #[inline(always)]
    pub fn set_macs(&mut self, to: [u8; 6], from: [u8; 6]) {
        if let Some(macs) = self.bytes_mut().first_chunk_mut::<12>() {
            macs[..6].copy_from_slice(&to);
            macs[6..].copy_from_slice(&from);
        }
    }

    /// Removes the 4-byte tag behind the two MAC addresses.
    #[inline]
    pub fn remove_tag(&mut self) {
        debug_assert!(self.len >= 18);
        let start = self.start;
        self.buffer.copy_within(start..start + 12, start + 4);
        self.start += 4;
        self.len -= 4;
    }

    /// Inserts an 802.1Q tag with this VID behind the two MAC addresses. `None` if there is no
    /// room.
    #[inline]
    pub fn insert_tag(&mut self, vid: u16) -> Option<()> {
        self.grow_front(4)?;
        let start = self.start;
        self.buffer.copy_within(start + 4..start + 16, start);
        let [hi, lo] = vid.to_be_bytes();
        self.buffer[start + 12..start + 16].copy_from_slice(&[0x81, 0x00, hi, lo]);
        Some(())
    }
}
