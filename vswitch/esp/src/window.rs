//! The anti-replay window (RFC 4303, section 3.4.3 and appendix A).

/// The smallest window, in packets.
pub const WINDOW_MIN: u32 = 64;
/// The largest window, in packets.
pub const WINDOW_MAX: u32 = 4096;

/// Which of the latest sequence numbers came.
///
/// Bits are kept in a ring of words, one more than the window takes (RFC 6479), so that moving the
/// window clears words instead of shifting bits. [`Self::find`] changes nothing: a packet counts by
/// [`Self::accept`], after its ICV was right.
#[derive(Debug, Clone)]
pub struct Window {
    /// The highest number accepted; 0 before the first.
    top: u64,
    /// Numbers at and below this one below the top are too old.
    size: u64,
    esn: bool,
    /// One more than the window takes, rounded up to a power of two.
    ring: Box<[u64]>,
}

/// A sequence number that came before, is left of the window, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

impl Window {
    /// A window of `size` packets, rounded into [`WINDOW_MIN`] and [`WINDOW_MAX`]; with `esn`,
    /// sequence numbers have 64 bits, of which 32 are sent.
    pub fn new(size: u32, esn: bool) -> Self {
        let size = size.clamp(WINDOW_MIN, WINDOW_MAX);
        let words = (size.div_ceil(64) as usize + 1).next_power_of_two();
        Self {
            top: 0,
            size: size.into(),
            esn,
            ring: vec![0; words].into(),
        }
    }

    /// The whole sequence number of a packet that carries `low`, if it may be new.
    ///
    /// # Errors
    /// If it came before or is too old. 0 is the number of no packet.
    #[inline]
    pub fn find(&self, low: u32) -> Result<u64, Stale> {
        let sequence = self.extend(low).ok_or(Stale)?;
        if sequence == 0 {
            return Err(Stale);
        }
        if sequence > self.top {
            return Ok(sequence);
        }
        if self.top - sequence >= self.size {
            return Err(Stale);
        }
        let (word, bit) = self.place(sequence);
        match self.ring[word] & bit {
            0 => Ok(sequence),
            _ => Err(Stale),
        }
    }

    /// Takes note of a packet that [`Self::find`] let through and whose ICV was right.
    #[inline]
    pub fn accept(&mut self, sequence: u64) {
        if sequence > self.top {
            let (before, now) = (self.top / 64, sequence / 64);
            let entered = (now - before).min(self.ring.len() as u64);
            for step in 1..=entered {
                let word = (before + step) as usize & (self.ring.len() - 1);
                self.ring[word] = 0;
            }
            self.top = sequence;
        }
        let (word, bit) = self.place(sequence);
        self.ring[word] |= bit;
    }

    /// Moves the window to the right, as if `sequence` had come: for an SA that begins in the
    /// middle. It never moves to the left.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence > self.top {
            self.accept(sequence);
        }
    }

    /// The highest number accepted; 0 before the first.
    pub fn top(&self) -> u64 {
        self.top
    }

    #[inline]
    fn place(&self, sequence: u64) -> (usize, u64) {
        let word = (sequence / 64) as usize & (self.ring.len() - 1);
        (word, 1 << (sequence % 64))
    }

    /// RFC 4303, appendix A2.2: the upper half is the one that puts the number nearest to the
    /// window. `None` if it would be below 0 or above 2^64.
    #[inline]
    fn extend(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(low.into());
        }
        let (top_high, top_low) = (self.top >> 32, self.top as u32);
        let bottom = top_low.wrapping_sub(self.size as u32 - 1);
        let spans = u64::from(top_low) < self.size - 1;
        let high = match spans {
            // The window lies within one subspace.
            false if low >= bottom => top_high,
            false => top_high.checked_add(1)?,
            // It reaches into the subspace before.
            true if low >= bottom => top_high.checked_sub(1)?,
            true => top_high,
        };
        (high <= u32::MAX.into()).then_some(high << 32 | u64::from(low))
    }
}
