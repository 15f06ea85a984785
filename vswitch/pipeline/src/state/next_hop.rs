//! Neighbours on the underlay.

use crate::bucket::SECOND_NS;

/// A neighbour on the underlay: its MAC is known while it answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NextHop {
    mac: Option<[u8; 6]>,
    confirmed_ns: u64,
    solicited_ns: Option<u64>,
    unanswered: u32,
    /// Whether another station has claimed its address since it answered last.
    contested: bool,
    /// The other station that claimed it last, and when, in nanoseconds.
    other: Option<([u8; 6], u64)>,
}

impl NextHop {
    /// RFC 4861, section 10: REACHABLE_TIME, RETRANS_TIMER and MAX_UNICAST_SOLICIT.
    const REACHABLE_NS: u64 = 30 * SECOND_NS;
    const RETRANSMIT_NS: u64 = SECOND_NS;
    const MAX_UNANSWERED: u32 = 3;

    #[inline(always)]
    pub(crate) fn mac(&self) -> Option<[u8; 6]> {
        self.mac
    }

    /// A station says that it is the neighbour. Anybody on the link can say so; so one that answers
    /// is not replaced, but solicited at once. Returns false if it was another station's MAC.
    pub(crate) fn heard(&mut self, now_ns: u64, mac: [u8; 6]) -> bool {
        let contested = self.mac.is_some_and(|known| known != mac);
        if contested {
            self.contested = true;
            self.other = Some((mac, now_ns));
        } else {
            self.confirm(now_ns, mac);
        }
        !contested
    }

    /// The neighbour sent its MAC.
    pub(crate) fn confirm(&mut self, now_ns: u64, mac: [u8; 6]) {
        *self = Self {
            mac: Some(mac),
            confirmed_ns: now_ns,
            solicited_ns: None,
            unanswered: 0,
            contested: false,
            // Who has taken the address over is no other station.
            other: self.other.filter(|(other, _)| *other != mac),
        };
    }

    /// Another station that claimed the address while this one answered, and when, in nanoseconds.
    pub(crate) fn other(&self) -> Option<([u8; 6], u64)> {
        self.other
    }

    /// Forgets a MAC that is now the uplink's own.
    pub(crate) fn forget_if(&mut self, own: [u8; 6]) {
        if self.mac == Some(own) {
            *self = Self::default();
        }
    }

    /// Whether to solicit it now; its MAC is dropped after too many solicitations without an
    /// answer.
    pub(crate) fn wants_solicitation(&mut self, now_ns: u64) -> bool {
        let waiting = self
            .solicited_ns
            .is_some_and(|sent_ns| now_ns.saturating_sub(sent_ns) < Self::RETRANSMIT_NS);
        let fresh = now_ns.saturating_sub(self.confirmed_ns) < Self::REACHABLE_NS;
        if waiting || (self.mac.is_some() && fresh && !self.contested) {
            return false;
        }
        if self.unanswered >= Self::MAX_UNANSWERED {
            self.mac = None;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.solicited_ns = Some(now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answering_next_hop_is_not_replaced() {
        let second = |count: u64| count * SECOND_NS;
        let mut next_hop = NextHop::default();
        assert!(next_hop.heard(0, [2; 6]), "the first is believed");
        assert!(!next_hop.heard(1, [4; 6]));
        assert_eq!(next_hop.mac(), Some([2; 6]));
        assert_eq!(next_hop.other(), Some(([4; 6], 1)));
        assert!(next_hop.wants_solicitation(2) && !next_hop.wants_solicitation(3));
        assert!(next_hop.heard(4, [2; 6]), "it answers");
        assert_eq!(
            next_hop.other(),
            Some(([4; 6], 1)),
            "and so does the other one"
        );
        assert!(!next_hop.wants_solicitation(5));
        // It has moved: the old station is silent, and the new one is heard when that is known.
        for asked in 1..=3 {
            assert!(!next_hop.heard(second(asked), [4; 6]));
            assert!(next_hop.wants_solicitation(second(asked)));
        }
        assert!(!next_hop.heard(second(4) - 1, [4; 6]));
        assert!(next_hop.wants_solicitation(second(4)));
        assert!(next_hop.heard(second(4) + 1, [4; 6]));
        assert_eq!(next_hop.mac(), Some([4; 6]));
        assert_eq!(next_hop.other(), None);
    }

    #[test]
    fn next_hop_is_solicited_each_second_and_dropped_after_three() {
        let mut next_hop = NextHop::default();
        let second = |count: u64| count * SECOND_NS;
        assert!(next_hop.wants_solicitation(0));
        assert!(!next_hop.wants_solicitation(second(1) - 1));
        assert!(next_hop.wants_solicitation(second(1)));
        next_hop.confirm(second(1), [2; 6]);
        assert!(!next_hop.wants_solicitation(second(30)));
        for (sent, known) in [(31, true), (32, true), (33, true), (34, false), (35, false)] {
            assert!(next_hop.wants_solicitation(second(sent)));
            assert_eq!(next_hop.mac().is_some(), known, "at second {sent}");
        }
        next_hop.confirm(second(36), [4; 6]);
        assert_eq!(next_hop.mac(), Some([4; 6]));
        assert!(!next_hop.wants_solicitation(second(36)));
    }
}
