//! Which port has an address that ports come by at run time, found without a look at every port.

use std::collections::HashMap;
use std::hash::Hash;

use crate::ids::PortId;

/// Remembers which port came by an address last. What a port has given up stays until there is no
/// room for another address: whoever asks looks whether the port still has it. None that a port has
/// is missing.
#[derive(Debug)]
pub(super) struct Owners<A> {
    known: HashMap<A, PortId>,
    room: usize,
}

impl<A: Copy + Eq + Hash> Owners<A> {
    /// For so many addresses at one time.
    pub(super) fn new(addresses: usize) -> Self {
        // At least half is there to be cleared when there is no room, so that clearing is rare.
        let room = 2 * addresses;
        Self {
            // Up to half of its capacity, the map does not grow, whatever was removed from it.
            known: HashMap::with_capacity(2 * room),
            room,
        }
    }

    /// The port has come by the address. `has` says whether a port still has another.
    pub(super) fn note(&mut self, address: A, id: PortId, has: impl Fn(PortId, A) -> bool) {
        if self.known.len() >= self.room && !self.known.contains_key(&address) {
            self.known.retain(|address, id| has(*id, *address));
        }
        self.known.insert(address, id);
    }

    /// The port that came by the address last, and may have given it up.
    #[inline]
    pub(super) fn last(&self, address: A) -> Option<PortId> {
        self.known.get(&address).copied()
    }

    /// Starts anew with these.
    pub(super) fn rebuild(&mut self, all: impl Iterator<Item = (A, PortId)>) {
        self.known.clear();
        self.known.extend(all);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bindings::{Bindings, MAX};
    use super::*;

    /// A VM that claims one address after the other neither fills the memory nor hides a claim.
    #[test]
    fn what_was_given_up_makes_room() {
        const MINUTE_NS: u64 = 60 * crate::bucket::SECOND_NS;
        let mut ports = [Bindings::default(), Bindings::default()];
        let mut owners = Owners::new(MAX * ports.len());
        let capacity = owners.known.capacity();
        let address = |nth: u128| 0xfd00 << 112 | nth;
        for nth in 0..1000 {
            // One more every minute: the oldest of the port's addresses makes way for it.
            let now_ns = u64::try_from(nth).expect("few") * MINUTE_NS;
            let at = usize::from(nth % 3 == 0);
            let id = PortId(at as u16);
            assert!(ports[at].claim(address(nth), now_ns));
            owners.note(address(nth), id, |id, other| ports[id.index()].has(other));
            assert_eq!(owners.last(address(nth)), Some(id));
            assert!(owners.known.len() <= 2 * MAX * ports.len());
        }
        assert!(owners.known.capacity() <= capacity, "it grew");
        let all = |(at, port): (usize, &Bindings)| {
            let owned: Vec<_> = port.addresses().collect();
            let id = PortId(at as u16);
            owned.into_iter().map(move |address| (address, id))
        };
        let all: Vec<_> = ports.iter().enumerate().flat_map(all).collect();
        assert_eq!(all.len(), 16);
        for (address, id) in &all {
            assert_eq!(owners.last(*address), Some(*id));
        }
        owners.rebuild(all.iter().copied());
        assert_eq!(owners.known.len(), all.len());
        assert_eq!(owners.last(address(1)), None);
    }
}
