//! Addresses that DHCP gave to ports.

/// A learning port's address: granted by an acknowledgement of the tenant's server that answers the
/// port's own transaction, for the time of the lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    /// The address, and the end of the lease.
    lease: Option<(u32, u64)>,
    /// The generation for which the lease was last checked.
    generation: u64,
    /// Whether the lease was restored and no generation has been installed since.
    restored: bool,
}

impl LeaseState {
    /// Ends the lease if the tables of a new generation assign its address; to be called before
    /// every use.
    #[inline]
    pub(super) fn revalidate(&mut self, generation: u64, is_free: impl FnOnce(u32) -> bool) {
        if self.generation == generation {
            return;
        }
        if self.lease.is_some_and(|(address, _)| !is_free(address)) {
            *self = Self::default();
        }
        self.generation = generation;
    }

    /// Forgets the lease.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            generation: self.generation,
            ..Self::default()
        };
    }

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

    /// Restores a lease that the port had before a restart.
    pub(super) fn restore(&mut self, address: u32, until_ns: u64) {
        self.lease = Some((address, until_ns));
        self.restored = true;
    }

    /// Whether the lease was restored; from then on it is a lease like any other.
    pub(super) fn take_restored(&mut self) -> bool {
        std::mem::take(&mut self.restored)
    }

    /// Keeps the lease of the previous generation, to be checked when it is used. A restored lease
    /// stays if there is no previous one, or if its address is not free.
    pub(super) fn keep(&mut self, previous: &mut Self, is_free: impl FnOnce(u32) -> bool) {
        match (self.lease, previous.lease) {
            (Some(_), None) => {}
            (Some(_), Some((address, _))) if !is_free(address) => {}
            _ => std::mem::swap(self, previous),
        }
    }

    /// The tenant's server granted the address.
    pub(crate) fn grant(&mut self, address: u32, until_ns: u64) {
        self.lease = Some((address, until_ns));
    }

    /// The port's VM gave up the address, or one that it did not name.
    pub(crate) fn gave_up(&mut self, address: Option<u32>) {
        let has = |address| self.lease.is_some_and(|(leased, _)| leased == address);
        if address.is_none_or(has) {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_ends_when_its_time_is_over() {
        let mut lease = LeaseState::default();
        lease.grant(7, 60);
        assert_eq!(lease.current(59), Some((7, 60)));
        assert_eq!(lease.current(60), None);
        assert_eq!((lease.address(59), lease.address(60)), (Some(7), None));
    }

    #[test]
    fn lease_is_taken_as_restored_once() {
        let mut lease = LeaseState::default();
        lease.grant(7, 60);
        assert!(!lease.take_restored());
        lease.restore(7, 60);
        assert!(lease.take_restored());
        assert!(!lease.take_restored());
    }
}
