//! Where a frame goes that several ports get, or that leaves in fragments.

use packet::wire::flow::Inner;
use packet::wire::fragmentation::Cut;

use crate::ids::{PeerId, PortId, VtepId};

/// A set of a tenant's ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ports([u64; Self::WORDS]);

impl Ports {
    /// As many as 256 ports need.
    const WORDS: usize = 4;

    pub(crate) fn insert(&mut self, id: PortId) {
        if let Some(word) = self.0.get_mut(id.index() / 64) {
            *word |= 1 << (id.index() % 64);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ports, in their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = PortId> {
        let mut left = self;
        std::iter::from_fn(move || left.take())
    }

    /// Takes the first port out.
    fn take(&mut self) -> Option<PortId> {
        let at = self.0.iter().position(|word| *word != 0)?;
        let bit = self.0[at].trailing_zeros();
        self.0[at] &= self.0[at] - 1;
        Some(PortId(at as u16 * 64 + bit as u16))
    }
}

/// The receivers of one frame that are left. A copy is made for each.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) ports: Ports,
    /// Never more than the tunnel has.
    pub(crate) vteps: Vec<VtepId>,
    pub(crate) packet: Copied,
    /// The fragments; then there are no other receivers.
    pub(crate) fragments: Option<Fragments>,
}

/// The fragments of a packet that are left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragments {
    pub(crate) cut: Cut,
    /// The peer that they go to; `None`: by the uplink in plain.
    pub(crate) peer: Option<PeerId>,
    /// The number of the next.
    pub(crate) next: u16,
}

impl Fragments {
    fn len(&self) -> usize {
        usize::from(self.cut.count().saturating_sub(self.next))
    }
}

/// What the copies of a frame have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    /// The group by which a tag is found, and to whose MAC they go; `None`: each goes to the MAC of
    /// the port's VM.
    pub(crate) group: Option<u128>,
    /// Bytes of the IP packet.
    pub(crate) len: usize,
    /// What outer headers take from it.
    pub(crate) inner: Option<Inner>,
}

/// A receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Port(PortId),
    /// Through the tunnel.
    Vtep(VtepId),
    /// The next link, of the fragment of that number.
    Fragment(u16),
}

impl Copies {
    pub(crate) fn with_room(vteps: usize) -> Self {
        Self {
            ports: Ports::default(),
            vteps: Vec::with_capacity(vteps),
            packet: Copied {
                group: None,
                len: 0,
                inner: None,
            },
            fragments: None,
        }
    }

    /// Begins with another frame.
    pub(crate) fn begin(&mut self, packet: Copied) {
        self.ports = Ports::default();
        self.vteps.clear();
        self.fragments = None;
        self.packet = packet;
    }

    /// Adds an endpoint, if there is room for it.
    pub(crate) fn add_vtep(&mut self, vtep: VtepId) {
        if self.vteps.len() < self.vteps.capacity() {
            self.vteps.push(vtep);
        }
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        let fragments = self.fragments.as_ref().map_or(0, Fragments::len);
        self.ports.len() + self.vteps.len() + fragments
    }

    /// Takes the next receiver out.
    pub(crate) fn take(&mut self) -> Option<Receiver> {
        let port = self.ports.take().map(Receiver::Port);
        let other = port.or_else(|| self.vteps.pop().map(Receiver::Vtep));
        other.or_else(|| self.take_fragment())
    }

    fn take_fragment(&mut self) -> Option<Receiver> {
        let fragments = self.fragments.as_mut().filter(|it| it.len() > 0)?;
        fragments.next += 1;
        Some(Receiver::Fragment(fragments.next - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receiver_is_taken_once() {
        let mut copies = Copies::with_room(2);
        let all = [0, 63, 64, 127, 200, 255];
        for id in all {
            copies.ports.insert(PortId(id));
            copies.ports.insert(PortId(id));
        }
        for vtep in 0..3 {
            copies.add_vtep(VtepId(vtep));
        }
        assert_eq!(copies.len(), all.len() + 2);
        let taken: Vec<_> = std::iter::from_fn(|| copies.take()).collect();
        let ports = all.map(|id| Receiver::Port(PortId(id)));
        assert_eq!(taken[..all.len()], ports);
        assert_eq!(copies.len(), 0);
    }
}
