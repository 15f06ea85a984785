//! The path MTU to an endpoint of the tunnel.

use crate::tables::Tunnel;

/// The path MTU to one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathMtu {
    /// The largest IP packet that the tunnel carries there, in bytes.
    max_len: u16,
    /// When to try larger packets again.
    until_ns: u64,
}

impl PathMtu {
    /// RFC 1191, section 6.3, and RFC 8201, section 4.
    const VALID_NS: u64 = 600_000_000_000;

    pub(crate) fn new(tunnel: &Tunnel) -> Self {
        Self {
            max_len: tunnel.max_len,
            until_ns: u64::MAX,
        }
    }

    /// A router on the path reported that it carries at most `mtu` bytes.
    pub(crate) fn reported(&mut self, tunnel: &Tunnel, mtu: u32, now_ns: u64) {
        let carried = mtu.saturating_sub(u32::from(tunnel.carrier.overhead()));
        if mtu >= u32::from(tunnel.min_path_mtu) && carried <= u32::from(self.max_len) {
            self.max_len = carried as u16;
            self.until_ns = now_ns.saturating_add(Self::VALID_NS);
        }
    }

    /// Drops a report that is too old.
    pub(crate) fn poll(&mut self, tunnel: &Tunnel, now_ns: u64) {
        if now_ns >= self.until_ns {
            *self = Self::new(tunnel);
        }
    }

    /// Keeps what was known under the previous tables, if it is still valid.
    pub(crate) fn keep(&mut self, tunnel: &Tunnel, previous: Self) {
        let path = previous.max_len + tunnel.carrier.overhead();
        if previous.max_len < self.max_len && path >= tunnel.min_path_mtu {
            *self = previous;
        }
    }

    /// The largest IP packet that the tunnel carries there, in bytes.
    #[inline(always)]
    pub(crate) fn max_len(&self) -> u16 {
        self.max_len
    }
}
