//! Numbers that the IEEE and IANA assigned, and the one table of what the filter refuses for them.
//!
//! The filter, the fast path, the specification's pages and the benchmarks' rules are held against
//! [`REFUSED`] and against the lists of [`protocol`].

use crate::reason::DropReason;

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// RARP.
    pub const RARP: u16 = 0x8035;
    /// An 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Ethernet flow control.
    pub const PAUSE: u16 = 0x8808;
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// LLDP.
    pub const LLDP: u16 = 0x88cc;
    /// An outer tag as some switches wrote it before 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
    /// The smallest EtherType; smaller numbers are the lengths of 802.3 frames.
    pub const FIRST: u16 = 0x0600;
    /// Trans Ether Bridging: an Ethernet frame inside GRE or Geneve.
    pub const ETHERNET: u16 = 0x6558;

    /// Whether a tag follows.
    #[inline(always)]
    pub const fn is_tag(ethertype: u16) -> bool {
        matches!(ethertype, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN)
    }
}

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// The IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// The IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// RSVP.
    pub const RSVP: u8 = 46;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// The authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// OSPF.
    pub const OSPF: u8 = 89;
    /// Ethernet in IP.
    pub const ETHERIP: u8 = 97;
    /// PIM.
    pub const PIM: u8 = 103;
    /// IP payload compression.
    pub const IPCOMP: u8 = 108;
    /// VRRP.
    pub const VRRP: u8 = 112;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// The IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
    /// The host identity protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;

    /// The IPv6 extension headers that a chain may have.
    pub const EXTENSIONS: [u8; 8] = [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION_OPTIONS,
        MOBILITY,
        HIP,
        SHIM6,
    ];

    /// The upper layers that may end an IPv6 chain.
    pub const UPPER_LAYERS: [u8; 17] = [
        IPV4, TCP, UDP, DCCP, IPV6, RSVP, GRE, ESP, ICMPV6, NONE, OSPF, ETHERIP, PIM, IPCOMP, VRRP,
        SCTP, UDP_LITE,
    ];
}

/// UDP ports.
pub mod port {
    /// A DHCP server.
    pub const DHCP_SERVER: u16 = 67;
    /// A DHCP client.
    pub const DHCP_CLIENT: u16 = 68;
    /// A DHCPv6 client.
    pub const DHCPV6_CLIENT: u16 = 546;
    /// A DHCPv6 server.
    pub const DHCPV6_SERVER: u16 = 547;
    /// Teredo, which carries IPv6.
    pub const TEREDO: u16 = 3544;
    /// VXLAN.
    pub const VXLAN: u16 = 4789;
    /// Geneve.
    pub const GENEVE: u16 = 6081;

    /// Whether a datagram to that port counts as DHCP for storm control.
    #[inline(always)]
    pub const fn is_dhcp(to: u16) -> bool {
        matches!(
            to,
            DHCP_SERVER | DHCP_CLIENT | DHCPV6_CLIENT | DHCPV6_SERVER
        )
    }

    /// Whether a datagram from or to these ports may be a DHCPv6 server's.
    #[inline(always)]
    pub const fn is_dhcpv6_server(from: u16, to: u16) -> bool {
        from == DHCPV6_SERVER || to == DHCPV6_CLIENT
    }

    /// Whether a datagram from or to these ports carries another packet.
    #[inline(always)]
    pub const fn is_encapsulation(from: u16, to: u16) -> bool {
        from == TEREDO || to == TEREDO
    }

    /// Whether a datagram to that port is a tunnel packet by the usual ports.
    #[inline(always)]
    pub const fn is_tunnel(to: u16) -> bool {
        matches!(to, VXLAN | GENEVE)
    }
}

/// ICMP types (RFC 792, RFC 1256).
pub mod icmp {
    /// A reply to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// The destination is unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// A router names a better one.
    pub const REDIRECT: u8 = 5;
    /// An echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// A router announces itself.
    pub const ROUTER_ADVERTISEMENT: u8 = 9;
    /// The TTL is spent.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A header field is wrong.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether the message reports an error.
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// ICMPv6 types (RFC 4443, RFC 4861, RFC 2710, RFC 3810, RFC 2894, RFC 3122, RFC 4286).
pub mod icmpv6 {
    /// The destination is unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// The packet is larger than the next link's MTU.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// The hop limit is spent.
    pub const TIME_EXCEEDED: u8 = 3;
    /// An echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// A reply to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// MLD: a router asks for listeners.
    pub const MLD_QUERY: u8 = 130;
    /// MLD: a listener reports.
    pub const MLD_REPORT: u8 = 131;
    /// MLD: a listener leaves.
    pub const MLD_DONE: u8 = 132;
    /// A host asks for routers.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// A router announces itself.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// A station asks for a MAC address.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// A station announces its MAC address.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// A router names a better one.
    pub const REDIRECT: u8 = 137;
    /// Router renumbering.
    pub const ROUTER_RENUMBERING: u8 = 138;
    /// Inverse Neighbour Discovery: a question.
    pub const INVERSE_SOLICITATION: u8 = 141;
    /// Inverse Neighbour Discovery: an answer.
    pub const INVERSE_ADVERTISEMENT: u8 = 142;
    /// MLDv2: a listener reports.
    pub const MLD2_REPORT: u8 = 143;
    /// A multicast router announces itself.
    pub const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
    /// A multicast router withdraws.
    pub const MULTICAST_ROUTER_TERMINATION: u8 = 153;

    /// Whether the message reports an error.
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }

    /// Neighbour Discovery: Router Solicitation to Redirect.
    #[inline(always)]
    pub const fn is_nd(kind: u8) -> bool {
        ROUTER_SOLICITATION <= kind && kind <= REDIRECT
    }

    /// Neighbour Discovery and MLD: protocols of one link, which link-local and unspecified sources
    /// may use.
    #[inline(always)]
    pub const fn is_on_link(kind: u8) -> bool {
        matches!(kind, MLD_QUERY..=REDIRECT | MLD2_REPORT)
    }

    /// What a host without an address may send: solicitations and MLD reports.
    #[inline(always)]
    pub const fn is_from_unspecified(kind: u8) -> bool {
        matches!(
            kind,
            MLD_REPORT | MLD_DONE | ROUTER_SOLICITATION | NEIGHBOR_SOLICITATION | MLD2_REPORT
        )
    }

    /// Whether a message that the filter accepts is for the gateway alone: ND and MLD reports.
    #[inline(always)]
    pub const fn is_for_gateway(kind: u8) -> bool {
        matches!(
            kind,
            MLD_REPORT
                | MLD_DONE
                | MLD2_REPORT
                | ROUTER_SOLICITATION
                | NEIGHBOR_SOLICITATION
                | NEIGHBOR_ADVERTISEMENT
        )
    }
}

/// A field of a frame that holds an assigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Ethernet's type.
    EtherType,
    /// The protocol of IPv4, the upper layer of IPv6.
    Protocol,
    /// UDP's source port.
    UdpSource,
    /// UDP's destination port.
    UdpDestination,
    /// The type of ICMP in IPv4.
    Icmp,
    /// The type of ICMPv6.
    Icmpv6,
}

/// The condition under which a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Always, from a port and from the underlay.
    Always,
    /// Unless the port may use this tag.
    NoTrunk,
    /// Unless the port is a DHCP server.
    NoDhcpServer,
    /// As [`Self::NoDhcpServer`], and only in a first fragment or a server's message.
    NoDhcpServerReply,
    /// Unless the port is a DHCP server, or it is a DHCP client's message of the port.
    NoDhcpClient,
    /// Where the port denies encapsulation.
    EncapsulationDenied,
}

/// A number that the filter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The field that holds the number.
    pub field: Field,
    /// The number.
    pub number: u16,
    /// The reason of the drop.
    pub reason: DropReason,
    /// When it is refused.
    pub condition: Condition,
}

/// One row of [`REFUSED`].
const fn row(field: Field, number: u16, reason: DropReason, condition: Condition) -> Refused {
    Refused {
        field,
        number,
        reason,
        condition,
    }
}

/// Every assigned number that the filter refuses, and why.
pub const REFUSED: &[Refused] = {
    use Condition::*;
    use DropReason::*;
    use Field::{EtherType, Icmp, Icmpv6, Protocol, UdpDestination, UdpSource};
    &[
        row(EtherType, ethertype::VLAN, VlanTag, NoTrunk),
        row(EtherType, ethertype::SERVICE_VLAN, VlanTag, Always),
        row(EtherType, ethertype::OLD_SERVICE_VLAN, VlanTag, Always),
        row(EtherType, ethertype::LLDP, LinkLocalL2, Always),
        row(EtherType, ethertype::PAUSE, LinkLocalL2, Always),
        row(UdpSource, port::DHCP_SERVER, DhcpServer, NoDhcpServer),
        row(
            UdpDestination,
            port::DHCP_CLIENT,
            DhcpServer,
            NoDhcpServerReply,
        ),
        row(UdpDestination, port::DHCP_SERVER, DhcpClient, NoDhcpClient),
        row(UdpSource, port::DHCPV6_SERVER, Dhcpv6Server, NoDhcpServer),
        row(
            UdpDestination,
            port::DHCPV6_CLIENT,
            Dhcpv6Server,
            NoDhcpServer,
        ),
        row(UdpSource, port::TEREDO, Encapsulation, EncapsulationDenied),
        row(
            UdpDestination,
            port::TEREDO,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::IPV4 as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::IPV6 as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::GRE as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(Icmp, icmp::REDIRECT as u16, Redirect, Always),
        row(
            Icmp,
            icmp::ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::MLD_QUERY as u16, MldQuery, Always),
        row(
            Icmpv6,
            icmpv6::ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::REDIRECT as u16, Redirect, Always),
        row(
            Icmpv6,
            icmpv6::ROUTER_RENUMBERING as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::INVERSE_SOLICITATION as u16, NdSpoof, Always),
        row(
            Icmpv6,
            icmpv6::INVERSE_ADVERTISEMENT as u16,
            NdSpoof,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::MULTICAST_ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::MULTICAST_ROUTER_TERMINATION as u16,
            RouterAdvertisement,
            Always,
        ),
    ]
};

/// The reasons of [`REFUSED`] for a field of one byte, by its number.
const fn reasons_of(field: Field) -> [Option<DropReason>; 256] {
    let mut reasons = [None; 256];
    let mut at = 0;
    while at < REFUSED.len() {
        if REFUSED[at].field as u8 == field as u8 {
            reasons[REFUSED[at].number as usize] = Some(REFUSED[at].reason);
        }
        at += 1;
    }
    reasons
}

static REFUSED_PROTOCOLS: [Option<DropReason>; 256] = reasons_of(Field::Protocol);
static REFUSED_ICMP: [Option<DropReason>; 256] = reasons_of(Field::Icmp);
static REFUSED_ICMPV6: [Option<DropReason>; 256] = reasons_of(Field::Icmpv6);

/// Why a port that denies encapsulation may not send that protocol.
#[inline(always)]
pub fn refused_protocol(protocol: u8) -> Option<DropReason> {
    REFUSED_PROTOCOLS[usize::from(protocol)]
}

/// Why nobody may send that ICMP type.
#[inline(always)]
pub fn refused_icmp(kind: u8) -> Option<DropReason> {
    REFUSED_ICMP[usize::from(kind)]
}

/// Why nobody may send that ICMPv6 type.
#[inline(always)]
pub fn refused_icmpv6(kind: u8) -> Option<DropReason> {
    REFUSED_ICMPV6[usize::from(kind)]
}

/// A set of bytes, by their number.
const fn set(list: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut at = 0;
    while at < list.len() {
        set[list[at] as usize] = true;
        at += 1;
    }
    set
}

static EXTENSIONS: [bool; 256] = set(&protocol::EXTENSIONS);
static UPPER_LAYERS: [bool; 256] = set(&protocol::UPPER_LAYERS);

/// Whether an IPv6 chain may have that extension header.
#[inline(always)]
pub fn is_extension(header: u8) -> bool {
    EXTENSIONS[usize::from(header)]
}

/// Whether that upper layer may end an IPv6 chain.
#[inline(always)]
pub fn is_upper_layer(header: u8) -> bool {
    UPPER_LAYERS[usize::from(header)]
}

/// The UDP ports of one field that mean something to the filter or to storm control, which a fast
/// path must leave to the general one, repeated until there are eight.
pub const fn special_ports(field: Field) -> [u16; 8] {
    let mut ports = [0; 8];
    let mut count = 0;
    let mut at = 0;
    while at < REFUSED.len() {
        if REFUSED[at].field as u8 == field as u8 {
            ports[count] = REFUSED[at].number;
            count += 1;
        }
        at += 1;
    }
    if matches!(field, Field::UdpDestination) {
        // Not refused, but counted as DHCP.
        ports[count] = port::DHCPV6_SERVER;
        count += 1;
    }
    let mut copy = 0;
    while count + copy < ports.len() {
        ports[count + copy] = ports[copy];
        copy += 1;
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_number_appears_once() {
        let mut seen = std::collections::HashSet::new();
        for refused in REFUSED {
            assert!(seen.insert((refused.field, refused.number)), "{refused:?}");
        }
    }

    #[test]
    fn lookup_agrees_with_the_table() {
        for number in 0..=255u8 {
            let of = |field| {
                let mut rows = REFUSED.iter();
                rows.find(|row| row.field == field && row.number == u16::from(number))
                    .map(|row| row.reason)
            };
            assert_eq!(refused_protocol(number), of(Field::Protocol));
            assert_eq!(refused_icmp(number), of(Field::Icmp));
            assert_eq!(refused_icmpv6(number), of(Field::Icmpv6));
            let listed = protocol::EXTENSIONS.contains(&number);
            assert_eq!(is_extension(number), listed);
            let listed = protocol::UPPER_LAYERS.contains(&number);
            assert_eq!(is_upper_layer(number), listed);
        }
    }

    #[test]
    fn special_ports_cover_refusals_and_dhcp() {
        let from = special_ports(Field::UdpSource);
        let to = special_ports(Field::UdpDestination);
        for number in 0..=u16::MAX {
            let refused = |field| {
                let mut rows = REFUSED.iter();
                rows.any(|row| row.field == field && row.number == number)
            };
            let special = refused(Field::UdpSource);
            assert_eq!(from.contains(&number), special, "from {number}");
            let special = refused(Field::UdpDestination) || port::is_dhcp(number);
            assert_eq!(to.contains(&number), special, "to {number}");
        }
    }
}
