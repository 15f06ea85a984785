//! The checks that every peer's rules share with the filter: the numbers of its table, and the
//! prefixes that no packet may be sent to.

use packet::DropReason;
use packet::encapsulation;
use packet::number::{icmpv6, is_upper_layer};
use packet::refused::{Field, REFUSED};

/// Addresses that are never routed: "this network", loopback, link-local, and everything from
/// multicast up.
pub(super) const MARTIANS: [&str; 4] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
/// The same for IPv6: IPv4-compatible and IPv4-mapped, link-local, multicast.
pub(super) const MARTIANS_IPV6: [&str; 4] = ["::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];

/// The numbers that the filter refuses in a field for a reason.
pub(super) fn refused(field: Field, reason: DropReason) -> impl Iterator<Item = u16> {
    REFUSED
        .iter()
        .filter(move |row| row.field == field && row.reason == reason)
        .map(|row| row.number)
}

/// UDP ports of encapsulations.
pub(super) fn encapsulation_ports() -> impl Iterator<Item = u16> {
    encapsulation::UDP_PORTS.into_iter()
}

/// Protocols that encapsulate. The filter also refuses those that it does not know.
pub(super) fn encapsulations() -> impl Iterator<Item = u16> {
    encapsulation::PROTOCOLS.into_iter()
}

/// Upper layers over IPv6 that encapsulate.
pub(super) fn encapsulations6() -> impl Iterator<Item = u16> {
    let is_layer = |number: &u16| u8::try_from(*number).is_ok_and(is_upper_layer);
    encapsulations().filter(is_layer)
}

/// The upper layers over IPv6 that are known to carry no packet. The filter also accepts those that
/// it does not know, where encapsulation is not denied.
pub(super) fn upper_layers() -> impl Iterator<Item = u16> {
    (0..=u8::MAX)
        .filter(|number| is_upper_layer(*number) && !encapsulation::is_protocol(*number))
        .map(u16::from)
}

/// ICMP types that neither VMs nor the underlay may send.
pub(super) fn refused_icmp() -> impl Iterator<Item = u16> {
    all_refused(Field::Icmp)
}

/// ICMPv6 types that neither VMs nor the underlay may send.
pub(super) fn refused_icmpv6() -> impl Iterator<Item = u16> {
    all_refused(Field::Icmpv6)
}

/// ICMPv6 types that a VM may send to the gateway, but nobody any further.
pub(super) fn gateway_icmpv6() -> impl Iterator<Item = u16> {
    (0..=u8::MAX)
        .filter(|kind| icmpv6::is_for_gateway(*kind))
        .map(u16::from)
}

/// ICMPv6 types that a VM may send from `::`.
pub(super) fn from_unspecified_icmpv6() -> impl Iterator<Item = u16> {
    (0..=u8::MAX)
        .filter(|kind| icmpv6::is_from_unspecified(*kind))
        .map(u16::from)
}

/// ICMPv6 types that are never forwarded.
pub(super) fn link_icmpv6() -> impl Iterator<Item = u16> {
    let mut kinds: Vec<u16> = refused_icmpv6().chain(gateway_icmpv6()).collect();
    kinds.sort_unstable();
    kinds.into_iter()
}

fn all_refused(field: Field) -> impl Iterator<Item = u16> {
    REFUSED
        .iter()
        .filter(move |row| row.field == field)
        .map(|row| row.number)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use ipnet::IpNet;
    use packet::addr::{is_routable4, is_routable6};

    use super::*;

    /// The fields and numbers that a peer's rules must drop: those of the filter's table, and the
    /// ICMPv6 types that are for the gateway alone.
    pub(crate) fn filter_numbers() -> BTreeSet<(String, u16)> {
        let table = REFUSED.iter().map(|row| (row.field, row.number));
        table
            // IGMP is for groups, which the peers' rules drop by their address.
            .filter(|(field, _)| !matches!(field, Field::EtherType | Field::Igmp))
            .chain(gateway_icmpv6().map(|kind| (Field::Icmpv6, kind)))
            .map(|(field, number)| (format!("{field:?}"), number))
            .chain(encapsulations().map(|number| ("Protocol".to_owned(), number)))
            .chain(encapsulation_ports().flat_map(|number| {
                [Field::UdpSource, Field::UdpDestination]
                    .map(|field| (format!("{field:?}"), number))
            }))
            .collect()
    }

    #[test]
    fn martians_are_exactly_the_unroutable_addresses() {
        let is_routable = |address: IpAddr| match address {
            IpAddr::V4(address) => is_routable4(address.to_bits()),
            IpAddr::V6(address) => is_routable6(address.to_bits()),
        };
        let nets: Vec<IpNet> = MARTIANS
            .iter()
            .chain(&MARTIANS_IPV6)
            .map(|net| net.parse().expect("a network"))
            .collect();
        let is_martian = |address: IpAddr| nets.iter().any(|net| net.contains(&address));
        for net in &nets {
            let inside = [net.network(), net.broadcast()];
            let outside = [before(net.network()), after(net.broadcast())];
            for address in inside.into_iter().chain(outside.into_iter().flatten()) {
                assert_eq!(is_martian(address), !is_routable(address), "{address}");
            }
        }
    }

    fn before(address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(address) => Some(IpAddr::V4(address.to_bits().checked_sub(1)?.into())),
            IpAddr::V6(address) => Some(IpAddr::V6(address.to_bits().checked_sub(1)?.into())),
        }
    }

    fn after(address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(address) => Some(IpAddr::V4(address.to_bits().checked_add(1)?.into())),
            IpAddr::V6(address) => Some(IpAddr::V6(address.to_bits().checked_add(1)?.into())),
        }
    }
}
