//! Addresses that DHCP gave to ports.

use packet::wire::dhcp::{Bootp, option};

use crate::bucket::SECOND_NS;

/// A learning port's address: granted by an acknowledgement of the tenant's server that answers the
/// port's own transaction, for the time of the lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    transaction: Option<u32>,
    /// The address, and the end of the lease.
    lease: Option<(u32, u64)>,
}

impl LeaseState {
    /// The address, if the lease has not ended.
    #[inline(always)]
    pub(crate) fn address(&self, now_ns: u64) -> Option<u32> {
        self.current(now_ns).map(|(address, _)| address)
    }

    /// The address and the end of its lease, if the lease has not ended.
    #[inline(always)]
    pub(crate) fn current(&self, now_ns: u64) -> Option<(u32, u64)> {
        self.lease.filter(|(_, until_ns)| now_ns < *until_ns)
    }

    /// Takes over a lease that the port had before a restart.
    pub(crate) fn restore(&mut self, address: u32, until_ns: u64) {
        self.lease = Some((address, until_ns));
    }

    /// Keeps the lease of the previous generation, unless its address is no longer free. Without one, a
    /// restored lease stays.
    pub(crate) fn keep(&mut self, previous: &mut Self, is_free: impl FnOnce(u32) -> bool) {
        match previous.address(0) {
            Some(address) if is_free(address) => std::mem::swap(self, previous),
            Some(_) => {}
            None => self.transaction = previous.transaction,
        }
    }

    /// The port's VM sent this BOOTP payload.
    pub(crate) fn client_sent(&mut self, payload: &[u8]) {
        let Some(bootp) = Bootp::parse(payload).filter(|bootp| bootp.request) else {
            return;
        };
        match Bootp::option(payload, option::MESSAGE_TYPE) {
            Some(&[option::DISCOVER | option::REQUEST]) => self.transaction = Some(bootp.xid),
            Some(&[option::RELEASE]) => *self = Self::default(),
            _ => {}
        }
    }

    /// The tenant's server sent this BOOTP payload to the port's VM. `free` says whether the address
    /// is in the gateway's subnet and nobody else's.
    pub(crate) fn server_sent(&mut self, payload: &[u8], now_ns: u64, free: bool) {
        let Some(bootp) = Bootp::parse(payload) else {
            return;
        };
        if self.transaction != Some(bootp.xid) {
            return;
        }
        match Bootp::option(payload, option::MESSAGE_TYPE) {
            Some(&[option::ACK]) => {
                let Some(&[a, b, c, d]) = Bootp::option(payload, option::LEASE_TIME) else {
                    return;
                };
                let seconds = u32::from_be_bytes([a, b, c, d]);
                if free {
                    let until_ns = now_ns.saturating_add(u64::from(seconds) * SECOND_NS);
                    *self = Self {
                        transaction: None,
                        lease: Some((bootp.your_ip, until_ns)),
                    };
                }
            }
            Some(&[option::NAK]) => *self = Self::default(),
            _ => {}
        }
    }
}
