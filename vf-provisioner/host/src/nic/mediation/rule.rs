//! Which frames must, may or must not arrive.

use super::station::{Fabric, Kind, Role, Station};
use super::weakness::Weakness;

/// Whether a frame must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Must,
    May,
    /// It may arrive, but only with its tag.
    MayTagged,
    MustNot,
    /// If it arrives, that is reported.
    Finding,
    /// It is ignored.
    Skip,
}

pub(super) fn rule(fabric: Fabric, from: &Station, to: &Station, kind: Kind) -> Rule {
    use Role::{Gateway, Guest, Host, Uplink, Wire, Witness};
    let tagged = matches!(
        kind,
        Kind::Tagged | Kind::ServiceTagged | Kind::PriorityTagged | Kind::DoubleTagged
    );
    let counterparts = from.port.is_some() && from.port == to.port;
    match (from.role, to.role) {
        (Host | Witness, _) => Rule::Skip,
        (Wire, Guest | Gateway) if fabric == Fabric::Embedded => Rule::Finding,
        (Wire, Guest | Gateway) => Rule::MustNot,
        (Wire, _) => Rule::Skip,
        (Guest, Gateway) | (Gateway, Guest) if counterparts => match kind {
            Kind::Unicast | Kind::Broadcast => Rule::Must,
            Kind::Forged if fabric == Fabric::Embedded => Rule::MustNot,
            _ if tagged => Rule::MayTagged,
            _ => Rule::May,
        },
        (_, Wire) if fabric == Fabric::Embedded && kind != Kind::Forged => Rule::Finding,
        (Guest | Gateway, _) => Rule::MustNot,
        (Uplink, Guest | Gateway) => Rule::MustNot,
        (Uplink, Witness) if to.vlan.is_some() => Rule::MustNot,
        (Uplink, _) if kind == Kind::Forged => Rule::MustNot,
        (Uplink, _) => Rule::Skip,
    }
}

/// The weakness that lets such a frame through, if it opens no way around a switch.
pub(super) fn weakness(from: &Station, to: &Station, kind: Kind) -> Option<Weakness> {
    use Role::{Gateway, Guest, Uplink, Wire};
    let inside = matches!(to.role, Guest | Gateway);
    let own = from.port.is_some() && from.port == to.port;
    match (from.role, kind) {
        (Guest | Gateway, Kind::Forged) if own || to.role == Wire => Some(Weakness::ForgedSource),
        (Uplink, Kind::Forged) if !inside => Some(Weakness::ForgedSource),
        (Uplink, Kind::Tagged | Kind::ServiceTagged | Kind::DoubleTagged) => {
            Some(Weakness::UplinkTag)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::COLUMNS;
    use super::super::station::tests::station;
    use super::*;

    /// All kinds that are sent.
    fn kinds() -> impl Iterator<Item = Kind> {
        COLUMNS.into_iter().filter(|kind| *kind != Kind::Any)
    }

    #[test]
    fn port_reaches_only_its_other_end() {
        let guest = station(Role::Guest, Some("a"), Some(101));
        let gateway = station(Role::Gateway, Some("a"), Some(101));
        let others = [
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("b"), Some(102)),
            station(Role::Uplink, None, None),
            station(Role::Witness, None, None),
            station(Role::Host, None, None),
        ];
        for fabric in [Fabric::Embedded, Fabric::Pair] {
            for kind in kinds() {
                for (one, counterpart) in [(&guest, &gateway), (&gateway, &guest)] {
                    let wanted = match kind {
                        Kind::Unicast | Kind::Broadcast => Rule::Must,
                        Kind::Elsewhere | Kind::Multicast => Rule::May,
                        Kind::Forged if fabric == Fabric::Embedded => Rule::MustNot,
                        Kind::Forged => Rule::May,
                        _ => Rule::MayTagged,
                    };
                    assert_eq!(rule(fabric, one, counterpart, kind), wanted, "{kind}");
                    for other in &others {
                        assert_eq!(rule(fabric, one, other, kind), Rule::MustNot, "{kind}");
                    }
                }
                for inside in [&guest, &gateway] {
                    let uplink = &others[2];
                    assert_eq!(rule(fabric, uplink, inside, kind), Rule::MustNot, "{kind}");
                }
            }
        }
    }

    #[test]
    fn bypass_of_a_switch_is_no_acceptable_weakness() {
        let guest = station(Role::Guest, Some("a"), Some(101));
        let others = [
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("b"), Some(102)),
            station(Role::Uplink, None, None),
            station(Role::Host, None, None),
        ];
        for other in &others {
            for kind in kinds() {
                assert_eq!(weakness(&guest, other, kind), None, "{kind}");
            }
        }
        let uplink = &others[2];
        for kind in [
            Kind::Unicast,
            Kind::Broadcast,
            Kind::Forged,
            Kind::PriorityTagged,
        ] {
            assert_eq!(weakness(uplink, &guest, kind), None, "{kind}");
        }
    }
}
