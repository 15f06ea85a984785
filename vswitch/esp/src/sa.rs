//! Security associations, one a direction.

use std::fmt;

use crate::keys::Keys;
use crate::suite::Suite;
use crate::transform::{self, Numbers, Transform, Unsealed};
use crate::window::Window;
use crate::{HEADER_LEN, ICV_LEN, TRAILER_LEN};

/// The next header of a packet without payload (RFC 4303, section 2.6).
const NO_NEXT_HEADER: u8 = 59;

/// The padding of all lengths (RFC 4303, section 2.4).
const PADDING: [u8; 255] = {
    let mut bytes = [0; 255];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8 + 1;
        at += 1;
    }
    bytes
};

/// A packet that [`Outbound::stamp`] has given its number: it is still plain.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Stamp {
    sequence: u64,
}

/// An SA that seals packets. Sequence numbers begin with 1 and never repeat.
pub struct Outbound {
    spi: u32,
    suite: Suite,
    esn: bool,
    /// That of the last packet.
    sequence: u64,
    gains_by_company: bool,
    transform: Box<dyn Transform>,
}

/// All sequence numbers are used: the SA seals nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all sequence numbers of the SA are used")]
pub struct Exhausted;

impl Outbound {
    /// Packets that are sealed together at most.
    pub const TOGETHER: usize = 8;

    /// An SA for these keys; with `esn`, sequence numbers have 64 bits instead of 32.
    pub fn new(spi: u32, keys: &Keys, esn: bool) -> Self {
        let transform = transform::new(keys);
        Self {
            spi,
            suite: keys.suite(),
            esn,
            sequence: 0,
            gains_by_company: transform.gains_by_company(),
            transform,
        }
    }

    /// The SPI, which the receiver has chosen.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The suite.
    #[inline]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The sequence number of the last packet; 0 before the first.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether there is a sequence number for one more packet.
    #[inline]
    pub fn can_seal(&self) -> bool {
        let last = if self.esn { u64::MAX } else { u32::MAX.into() };
        self.sequence < last
    }

    /// Leaves out the sequence numbers up to this one. It never goes back.
    pub fn skip_to(&mut self, sequence: u64) {
        let last = if self.esn { u64::MAX } else { u32::MAX.into() };
        self.sequence = self.sequence.max(sequence.min(last));
    }

    /// Seals a payload of `payload` bytes that lies at [`Suite::payload_at`] of `packet`, whose
    /// length is [`Suite::sealed_len`]; every other byte of it is written.
    ///
    /// # Errors
    /// If no sequence number is left; the packet is unchanged.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    #[inline]
    pub fn seal(
        &mut self,
        packet: &mut [u8],
        payload: usize,
        next_header: u8,
    ) -> Result<(), Exhausted> {
        let stamp = self.stamp(packet, payload, next_header)?;
        self.transform.seal(self.numbers(stamp), packet);
        Ok(())
    }

    /// Whether packets are better sealed together: [`Self::stamp`] and [`Self::seal_together`].
    #[inline]
    pub fn gains_by_company(&self) -> bool {
        self.gains_by_company
    }

    /// Seals packets that were stamped by this SA, each once; the order does not matter. Returns
    /// their number: no more than [`Self::TOGETHER`], and others are left as they are.
    ///
    /// # Panics
    /// If a packet has another length than when it was stamped.
    pub fn seal_together<'p>(&self, packets: impl Iterator<Item = (Stamp, &'p mut [u8])>) -> usize {
        let mut all = [const { None }; Self::TOGETHER];
        let mut count = 0;
        for (place, (stamp, bytes)) in all.iter_mut().zip(packets) {
            let numbers = self.numbers(stamp);
            *place = Some(Unsealed { numbers, bytes });
            count += 1;
        }
        let mut together = all.map(|packet| packet.unwrap_or_default());
        self.transform.seal_together(&mut together[..count]);
        count
    }

    /// Does everything of [`Self::seal`] but the sealing: gives the packet its number, and writes
    /// header and padding.
    ///
    /// # Errors
    /// If no sequence number is left; the packet is unchanged.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    #[inline]
    pub fn stamp(
        &mut self,
        packet: &mut [u8],
        payload: usize,
        next_header: u8,
    ) -> Result<Stamp, Exhausted> {
        assert_eq!(
            packet.len(),
            self.suite.sealed_len(payload),
            "the packet's length"
        );
        if !self.can_seal() {
            return Err(Exhausted);
        }
        self.sequence += 1;
        packet[..4].copy_from_slice(&self.spi.to_be_bytes());
        packet[4..HEADER_LEN].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        let padding_at = self.suite.payload_at() + payload;
        let trailer_at = packet.len() - ICV_LEN - TRAILER_LEN;
        let padding = trailer_at - padding_at;
        packet[padding_at..trailer_at].copy_from_slice(&PADDING[..padding]);
        packet[trailer_at] = padding as u8;
        packet[trailer_at + 1] = next_header;
        Ok(Stamp {
            sequence: self.sequence,
        })
    }

    #[inline(always)]
    fn numbers(&self, Stamp { sequence }: Stamp) -> Numbers {
        Numbers {
            spi: self.spi,
            sequence,
            esn: self.esn,
        }
    }
}

/// An SA that opens packets.
pub struct Inbound {
    spi: u32,
    suite: Suite,
    esn: bool,
    window: Window,
    transform: Box<dyn Transform>,
}

/// A payload, in the packet that carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The offset of its first byte.
    pub begin: usize,
    /// The offset of the byte behind it.
    pub end: usize,
    /// Its protocol.
    pub next_header: u8,
    /// The whole sequence number of the packet.
    pub sequence: u64,
}

/// Why a packet carries nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is too short, or its text is not aligned.
    #[error("it is cut off, or its length is none that the suite has")]
    Length,
    /// Its sequence number came before, is left of the window, or 0.
    #[error("its sequence number came before or is too old")]
    Replay,
    /// Its ICV is wrong.
    #[error("its integrity check value is wrong")]
    Icv,
    /// Its padding is not 1, 2, 3 … or longer than the packet.
    #[error("its padding is none that a sender may write")]
    Padding,
    /// It is a dummy (RFC 4303, section 2.6).
    #[error("it is a dummy without payload")]
    Dummy,
}

impl Inbound {
    /// An SA for these keys, with a window of so many packets ([`Window::new`]).
    pub fn new(spi: u32, keys: &Keys, esn: bool, window: u32) -> Self {
        Self {
            spi,
            suite: keys.suite(),
            esn,
            window: Window::new(window, esn),
            transform: transform::new(keys),
        }
    }

    /// The SPI, which the receiver has chosen.
    #[inline]
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The suite.
    #[inline]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The highest sequence number that came; 0 before the first.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.window.top()
    }

    /// As [`Window::skip_to`].
    pub fn skip_to(&mut self, sequence: u64) {
        self.window.skip_to(sequence);
    }

    /// Opens a whole ESP packet, whose SPI the caller has compared: the sequence number is looked
    /// up, the ICV verified, the text decrypted, the number taken note of, the padding checked, in
    /// this order.
    ///
    /// # Errors
    /// If it carries nothing; its text may then be destroyed. Only of a packet with a right ICV
    /// anything is remembered.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        let text_at = self.suite.payload_at();
        let text = packet.len().checked_sub(text_at + ICV_LEN);
        let text = text.ok_or(OpenError::Length)?;
        if text < TRAILER_LEN || !self.suite.is_aligned(text) {
            return Err(OpenError::Length);
        }
        let low: &[u8; 4] = packet[4..].first_chunk().ok_or(OpenError::Length)?;
        let sequence = self.window.find(u32::from_be_bytes(*low));
        let sequence = sequence.map_err(|_| OpenError::Replay)?;
        let numbers = Numbers {
            spi: self.spi,
            sequence,
            esn: self.esn,
        };
        let opened = self.transform.open(numbers, packet);
        opened.map_err(|_| OpenError::Icv)?;
        self.window.accept(sequence);
        let text = &packet[text_at..text_at + text];
        let [padding, next_header] = *text.last_chunk().ok_or(OpenError::Length)?;
        let payload = (text.len() - TRAILER_LEN).checked_sub(padding.into());
        let payload = payload.ok_or(OpenError::Padding)?;
        if text[payload..text.len() - TRAILER_LEN] != PADDING[..padding.into()] {
            return Err(OpenError::Padding);
        }
        if next_header == NO_NEXT_HEADER {
            return Err(OpenError::Dummy);
        }
        Ok(Opened {
            begin: text_at,
            end: text_at + payload,
            next_header,
            sequence,
        })
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Outbound")
            .field("spi", &format_args!("{:#010x}", self.spi))
            .field("suite", &self.suite)
            .field("esn", &self.esn)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Inbound")
            .field("spi", &format_args!("{:#010x}", self.spi))
            .field("suite", &self.suite)
            .field("esn", &self.esn)
            .field("sequence", &self.window.top())
            .finish_non_exhaustive()
    }
}
