//! Which port holds a shared address.

use crate::bucket::SECOND_NS;
use crate::ids::PortId;

/// Who holds a shared address: the port that last announced it, and the MAC that it said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holder {
    held: Option<(PortId, [u8; 6])>,
    asked_ns: Option<u64>,
}

impl Holder {
    /// Every port that may hold the address is asked for it so often, while none is known to.
    const ASK_NS: u64 = SECOND_NS;

    /// The port and the MAC, if known.
    #[inline]
    pub(crate) fn held(&self) -> Option<(PortId, [u8; 6])> {
        self.held
    }

    /// The port, if known.
    #[inline]
    pub(crate) fn port(&self) -> Option<PortId> {
        self.held.map(|(port, _)| port)
    }

    /// The port says that it holds the address, by that MAC.
    pub(crate) fn announced(&mut self, port: PortId, mac: [u8; 6]) {
        self.held = Some((port, mac));
    }

    /// Whether to ask for the address now.
    pub(crate) fn wants_asking(&mut self, now_ns: u64) -> bool {
        let waiting = self
            .asked_ns
            .is_some_and(|asked_ns| now_ns.saturating_sub(asked_ns) < Self::ASK_NS);
        if self.held.is_some() || waiting {
            return false;
        }
        self.asked_ns = Some(now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_holder_is_asked_for_each_second() {
        let mut holder = Holder::default();
        assert!(holder.wants_asking(5));
        assert!(!holder.wants_asking(4 + SECOND_NS));
        assert!(holder.wants_asking(5 + SECOND_NS));
        holder.announced(PortId(1), [2; 6]);
        assert!(!holder.wants_asking(9 * SECOND_NS));
        assert_eq!(holder.held(), Some((PortId(1), [2; 6])));
        holder.announced(PortId(0), [4; 6]);
        assert_eq!(holder.port(), Some(PortId(0)), "the last one counts");
    }
}
