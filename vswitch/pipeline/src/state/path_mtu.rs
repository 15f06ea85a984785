//! The path to an endpoint of the tunnel: its MTU, what was sent there lately, and whether that
//! arrives.

use crate::tables::{Tunnel, Vtep};
use crate::trouble::Undelivered;

/// The path MTU to one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathMtu {
    /// The largest IP packet that the tunnel carries there, in bytes.
    max_len: u16,
    /// What the path carries, in bytes.
    mtu: u16,
    /// What it carries by the configuration.
    configured: u16,
    /// When to try larger packets again.
    until_ns: u64,
    /// What is sent there is under IPsec.
    protected: bool,
    /// The bytes that the SA in use adds to what ESP adds at least.
    extra: u16,
    /// The packets that a router can have seen.
    pub(crate) sent: SentLately,
    /// What was reported last of a packet that did not arrive.
    pub(crate) undelivered: Option<Undelivered>,
}

/// What became of a report that is no forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// The path MTU is lower now.
    Lowered,
    /// It was as low before.
    Known,
    /// No link may have so small an MTU.
    TooSmall,
}

impl PathMtu {
    /// RFC 1191, section 6.3, and RFC 8201, section 4.
    const VALID_NS: u64 = 600_000_000_000;

    pub(crate) fn new(tunnel: &Tunnel, vtep: &Vtep) -> Self {
        Self {
            max_len: tunnel.carried(vtep.protected, vtep.mtu, 0),
            mtu: vtep.mtu,
            configured: vtep.mtu,
            until_ns: u64::MAX,
            protected: vtep.protected,
            extra: 0,
            sent: SentLately::default(),
            undelivered: None,
        }
    }

    /// A router on the path reported that it carries at most `mtu` bytes.
    pub(crate) fn reported(&mut self, tunnel: &Tunnel, mtu: u32, now_ns: u64) -> Reported {
        if mtu < u32::from(tunnel.min_path_mtu(self.protected, self.extra)) {
            return Reported::TooSmall;
        }
        if mtu >= u32::from(self.mtu) {
            return Reported::Known;
        }
        self.set(tunnel, mtu as u16);
        self.until_ns = now_ns.saturating_add(Self::VALID_NS);
        Reported::Lowered
    }

    /// The SA in use adds so many bytes from now on.
    pub(crate) fn set_extra(&mut self, tunnel: &Tunnel, extra: u16) {
        self.extra = extra;
        self.set(tunnel, self.mtu);
    }

    fn set(&mut self, tunnel: &Tunnel, mtu: u16) {
        self.mtu = mtu;
        self.max_len = tunnel.carried(self.protected, mtu, self.extra);
    }

    /// Drops a report that is too old.
    pub(crate) fn poll(&mut self, tunnel: &Tunnel, now_ns: u64) {
        if now_ns >= self.until_ns {
            self.set(tunnel, self.configured);
            self.until_ns = u64::MAX;
        }
    }

    /// Keeps what was known under the previous tables, if it is still valid.
    pub(crate) fn keep(&mut self, tunnel: &Tunnel, previous: Self) {
        self.sent = previous.sent;
        self.undelivered = previous.undelivered;
        if self.protected {
            self.set_extra(tunnel, previous.extra);
        }
        let least = tunnel.min_path_mtu(self.protected, self.extra);
        // What the file said before is no report.
        let was_reported = previous.mtu < previous.configured;
        if was_reported && previous.mtu < self.mtu && previous.mtu >= least {
            self.set(tunnel, previous.mtu);
            self.until_ns = previous.until_ns;
        }
    }

    /// The largest IP packet that the tunnel carries there, in bytes.
    #[inline(always)]
    pub(crate) fn max_len(&self) -> u16 {
        self.max_len
    }
}

/// The largest packet of the present period and of the one before. Only packets count that are
/// larger than any path must carry: of others no report is believed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SentLately {
    /// The number of the present period.
    period: u32,
    now: Largest,
    before: Largest,
}

/// The first of the largest packets of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Largest {
    /// Bytes of the IP packet in the tunnel; 0 if there was none.
    len: u16,
    /// The UDP source port of the outer packet.
    source_port: u16,
}

impl SentLately {
    /// A period is so many nanoseconds as a power of two: 4.3 seconds. A router's answer comes
    /// within less, and nothing older than two periods counts.
    const PERIOD_BITS: u32 = 32;

    /// Whether a packet of that length changes nothing: one as large has left in this period.
    #[inline(always)]
    pub(crate) fn is_noted(&self, len: u16, now_ns: u64) -> bool {
        len <= self.now.len && (now_ns >> Self::PERIOD_BITS) as u32 == self.period
    }

    /// A packet leaves.
    pub(crate) fn note(&mut self, len: u16, source_port: u16, now_ns: u64) {
        self.turn(now_ns);
        if len > self.now.len {
            self.now = Largest { len, source_port };
        }
    }

    /// Begins the period of that time, if it is another one.
    fn turn(&mut self, now_ns: u64) {
        let period = (now_ns >> Self::PERIOD_BITS) as u32;
        if period == self.period {
            return;
        }
        self.before = match period == self.period.wrapping_add(1) {
            true => self.now,
            false => Largest::default(),
        };
        self.now = Largest::default();
        self.period = period;
    }

    /// Whether a packet of at least that length was sent lately.
    pub(crate) fn reaches(&mut self, len: usize, now_ns: u64) -> bool {
        self.turn(now_ns);
        usize::from(self.now.len.max(self.before.len)) >= len
    }

    /// Whether the first of the largest packets, now or in the period before, has that length and
    /// source port.
    pub(crate) fn has(&mut self, len: usize, source_port: u16, now_ns: u64) -> bool {
        self.turn(now_ns);
        [self.now, self.before]
            .iter()
            .any(|sent| usize::from(sent.len) == len && sent.source_port == source_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 1 << SentLately::PERIOD_BITS;

    #[test]
    fn sent_packet_counts_for_one_to_two_periods() {
        let mut sent = SentLately::default();
        assert!(!sent.reaches(1, 5));
        sent.note(1400, 50_000, PERIOD);
        sent.note(1450, 50_001, PERIOD + 1);
        sent.note(1450, 50_002, PERIOD + 2);
        sent.note(1300, 50_003, 2 * PERIOD);
        for at in [2 * PERIOD, 3 * PERIOD - 1] {
            assert!(sent.reaches(1450, at) && !sent.reaches(1451, at));
            assert!(sent.has(1450, 50_001, at) && sent.has(1300, 50_003, at));
            assert!(!sent.has(1450, 50_002, at) && !sent.has(1400, 50_000, at));
        }
        assert!(sent.reaches(1300, 3 * PERIOD) && !sent.reaches(1301, 3 * PERIOD));
        assert!(!sent.reaches(1, 5 * PERIOD));
        sent.note(1400, 50_000, 9 * PERIOD);
        assert!(!sent.reaches(1, 11 * PERIOD), "a period was skipped");
    }
}
