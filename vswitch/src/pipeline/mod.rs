//! What happens to one frame, from the port it came from to the port it leaves by.
//!
//! The pipeline knows nothing of DPDK: it is given bytes and a clock, rewrites the bytes in place, and
//! says where they go. The worker drives it with mbufs, `replay` with captures, the tests with both.

use tenant_config::SwitchConfig;

use crate::reason::DropReason;

/// A port's place in the switch: the tenant's ports in the order of their configuration, then the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// One frame in a buffer with room in front of it and behind it.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    len: usize,
    stripped_tag: Option<u16>,
}

impl<'a> Frame<'a> {
    /// The bytes an ICMP error needs in front of the frame it is about.
    pub const HEADROOM: usize = 64;

    /// The frame that is `len` bytes of `buffer` from `start` on. `stripped_tag` is the tag control
    /// information of a VLAN tag that the device has taken out of the bytes.
    ///
    /// # Panics
    /// If the frame lies outside the buffer.
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
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    /// Where the frame lies in its buffer: first byte and length.
    pub fn position(&self) -> (usize, usize) {
        (self.start, self.len)
    }
}

/// What becomes of a frame. The frame's bytes are then what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it out of that port.
    Forward(PortId),
    /// It has become the gateway's answer: send it back to where it came from.
    Reply,
    /// It goes nowhere.
    Drop(DropReason),
    /// It goes nowhere, and has become an ICMP error to send back to where it came from.
    DropWithError(DropReason),
}

/// A switch's whole packet processing and its state. One worker owns it.
#[derive(Debug)]
pub struct Pipeline {
    _todo: (),
}

impl Pipeline {
    /// Builds the tables for `config`.
    pub fn new(config: &SwitchConfig) -> Self {
        let _ = config;
        Self { _todo: () }
    }

    /// Decides on one frame that came from `port`, rewrites it, and counts it.
    /// `now_ns` is monotonic nanoseconds from any origin.
    pub fn process(&mut self, now_ns: u64, port: PortId, frame: &mut Frame<'_>) -> Verdict {
        let _ = (now_ns, port, frame);
        Verdict::Drop(DropReason::Malformed)
    }
}
