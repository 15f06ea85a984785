//! What goes wrong on the underlay, as far as the switch sees it. None of it changes where a frame
//! goes: it is shown, counted and logged.

use std::net::{IpAddr, Ipv6Addr};

use packet::wire::icmp::Unreachable;

use crate::counter::{Counter, PublishedMac};

/// How long a sign is shown after it was last seen, in nanoseconds.
const SHOWN_NS: u64 = 120_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What may be wrong with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Its frames come from another MAC than the one that ours are sent to.
    Mac,
    /// Somebody on the path says that our packets do not arrive.
    Unreachable,
    /// Another station claims the address of its next hop.
    NextHop,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mac, Self::Unreachable, Self::NextHop];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Unreachable => "unreachable",
            Self::NextHop => "next-hop",
        }
    }
}

/// The age of a sign in seconds, while it is shown. Times are those of the pipeline's clock, in
/// nanoseconds; `at_ns` is 0 if there was none.
fn age_s(at_ns: u64, now_ns: u64) -> Option<u64> {
    let age_ns = now_ns.saturating_sub(at_ns);
    (at_ns > 0 && age_ns < SHOWN_NS).then_some(age_ns / SECOND_NS)
}

/// A MAC of another station than expected, and when it was seen last. One thread sets it, others
/// read.
#[derive(Debug, Default)]
pub struct OtherMac {
    mac: PublishedMac,
    at_ns: Counter,
}

impl OtherMac {
    /// The MAC, and how many seconds before `now_ns` it was seen; `None` if that was long ago.
    pub fn get(&self, now_ns: u64) -> Option<([u8; 6], u64)> {
        Some((self.mac.get()?, age_s(self.at_ns.get(), now_ns)?))
    }

    #[inline]
    pub(crate) fn set(&self, mac: [u8; 6], now_ns: u64) {
        self.mac.set(Some(mac));
        self.at_ns.set(now_ns.max(1));
    }

    pub(crate) fn publish(&self, seen: Option<([u8; 6], u64)>) {
        match seen {
            Some((mac, at_ns)) => self.set(mac, at_ns),
            None => self.at_ns.set(0),
        }
    }
}

/// A report that a packet of ours did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undelivered {
    pub(crate) why: Unreachable,
    /// Who says so.
    pub(crate) from: IpAddr,
    /// When, in nanoseconds.
    pub(crate) at_ns: u64,
}

/// The last believed report that an endpoint cannot be reached. One thread sets it, others read.
#[derive(Debug, Default)]
pub struct UnreachableView {
    /// The place in [`Unreachable::ALL`].
    why: Counter,
    /// Who says so: the halves of an address of IPv6, or of IPv4 mapped into it.
    from: [Counter; 2],
    at_ns: Counter,
}

/// What an [`UnreachableView`] showed a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownUnreachable {
    /// What was said.
    pub why: Unreachable,
    /// By whom.
    pub from: IpAddr,
    /// How many seconds ago.
    pub age_s: u64,
}

impl UnreachableView {
    /// The report; `None` if there was none for long before `now_ns`.
    pub fn get(&self, now_ns: u64) -> Option<ShownUnreachable> {
        let [upper, lower] = &self.from;
        let from = u128::from(upper.get()) << 64 | u128::from(lower.get());
        Some(ShownUnreachable {
            age_s: age_s(self.at_ns.get(), now_ns)?,
            why: *Unreachable::ALL.get(self.why.get() as usize)?,
            from: Ipv6Addr::from_bits(from).to_canonical(),
        })
    }

    pub(crate) fn publish(&self, said: Option<Undelivered>) {
        let Some(Undelivered { why, from, at_ns }) = said else {
            return self.at_ns.set(0);
        };
        let from = match from {
            IpAddr::V4(from) => from.to_ipv6_mapped(),
            IpAddr::V6(from) => from,
        };
        let place = Unreachable::ALL.iter().position(|each| *each == why);
        self.why.set(place.unwrap_or_default() as u64);
        let [upper, lower] = &self.from;
        upper.set((from.to_bits() >> 64) as u64);
        lower.set(from.to_bits() as u64);
        self.at_ns.set(at_ns.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_mac_is_shown_for_two_minutes() {
        let other = OtherMac::default();
        assert_eq!(other.get(5), None);
        other.set([2; 6], 0);
        assert_eq!(other.get(SECOND_NS + 1), Some(([2; 6], 1)));
        assert_eq!(other.get(SHOWN_NS), Some(([2; 6], 119)));
        assert_eq!(other.get(SHOWN_NS + 1), None);
        other.publish(Some(([4; 6], SHOWN_NS)));
        assert_eq!(other.get(SHOWN_NS + 1), Some(([4; 6], 0)));
        other.publish(None);
        assert_eq!(other.get(SHOWN_NS + 1), None);
    }

    #[test]
    fn report_is_shown_as_it_was_said() {
        let view = UnreachableView::default();
        assert_eq!(view.get(5), None);
        let sources: [IpAddr; 2] = [
            [192, 0, 2, 66].into(),
            [0x2001, 0xdb8, 1, 2, 3, 4, 5, 6].into(),
        ];
        for why in Unreachable::ALL {
            for from in sources {
                let at_ns = 7;
                view.publish(Some(Undelivered { why, from, at_ns }));
                let age_s = 2;
                let shown = ShownUnreachable { why, from, age_s };
                assert_eq!(view.get(2 * SECOND_NS + 7), Some(shown));
            }
        }
        assert_eq!(view.get(SHOWN_NS + 7), None);
        view.publish(None);
        assert_eq!(view.get(8), None);
    }
}
