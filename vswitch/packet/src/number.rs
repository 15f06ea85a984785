//! Numbers that the IEEE and IANA assigned.

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
    /// IGMP.
    pub const IGMP: u8 = 2;
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
    pub const EXTENSIONS: [u8; 5] = [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION_OPTIONS,
    ];

    /// Upper layers whose first four bytes tell one flow from another: their ports, and ESP's SPI.
    pub const FLOWS: [u8; 6] = [TCP, UDP, DCCP, ESP, SCTP, UDP_LITE];

    /// Headers that bind other addresses to the sender: a mobile node's, a host identity's, those
    /// of a site with several providers.
    pub const BINDINGS: [u8; 3] = [MOBILITY, HIP, SHIM6];

    /// The other extension headers of IANA's registry: those of experiments (RFC 4727), whose form
    /// nobody knows. ESP, which is registered too, ends a chain: nothing behind it is readable.
    pub const EXPERIMENTS: [u8; 2] = [253, 254];
}

/// Options of IPv6's hop-by-hop and destination options headers.
pub mod option6 {
    /// One byte of padding; it has no length.
    pub const PAD1: u8 = 0;
    /// Padding.
    pub const PADN: u8 = 1;
    /// Tunnel encapsulation limit (RFC 2473).
    pub const TUNNEL_ENCAPSULATION_LIMIT: u8 = 0x04;
    /// Router alert (RFC 2711), which MLD has.
    pub const ROUTER_ALERT: u8 = 0x05;
    /// Security labels (CALIPSO, RFC 5570).
    pub const CALIPSO: u8 = 0x07;
    /// Performance and diagnostic metrics (RFC 8250).
    pub const PDM: u8 = 0x0f;
    /// In situ OAM (RFC 9486), in either header.
    pub const IOAM: [u8; 2] = [0x11, 0x31];
    /// Alternate marking (RFC 9343), in either header.
    pub const ALTERNATE_MARKING: [u8; 2] = [0x12, 0x32];
    /// RPL (RFC 9008, RFC 6553).
    pub const RPL: [u8; 2] = [0x23, 0x63];
    /// Quick-Start (RFC 4782).
    pub const QUICK_START: u8 = 0x26;
    /// Minimum path MTU (RFC 9268).
    pub const MINIMUM_PATH_MTU: u8 = 0x30;
    /// Depth-first forwarding (RFC 6971).
    pub const DEPTH_FIRST_FORWARDING: u8 = 0xee;

    /// The options without an address. Every other may have one or is not known: among them are
    /// Home Address (0xc9), ILNP's nonce (0x8b), line and endpoint identification (0x8c, 0x8a),
    /// and the tags of SMF (0x08) and MPL (0x6d).
    pub const WITHOUT_ADDRESS: [u8; 15] = [
        PAD1,
        PADN,
        TUNNEL_ENCAPSULATION_LIMIT,
        ROUTER_ALERT,
        CALIPSO,
        PDM,
        IOAM[0],
        ALTERNATE_MARKING[0],
        RPL[0],
        QUICK_START,
        MINIMUM_PATH_MTU,
        IOAM[1],
        ALTERNATE_MARKING[1],
        RPL[1],
        DEPTH_FIRST_FORWARDING,
    ];
}

/// UDP ports.
pub mod port {
    /// A name server.
    pub const DNS: u16 = 53;
    /// A DHCP server.
    pub const DHCP_SERVER: u16 = 67;
    /// A DHCP client.
    pub const DHCP_CLIENT: u16 = 68;
    /// A server of boot files beside the DHCP server (PXE 2.1).
    pub const PROXY_DHCP: u16 = 4011;
    /// A DHCPv6 client.
    pub const DHCPV6_CLIENT: u16 = 546;
    /// A DHCPv6 server.
    pub const DHCPV6_SERVER: u16 = 547;
    /// VXLAN.
    pub const VXLAN: u16 = 4789;
    /// VXLAN-GPE.
    pub const VXLAN_GPE: u16 = 4790;
    /// VXLAN, as Linux has it by default.
    pub const VXLAN_OF_LINUX: u16 = 8472;
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

    /// Whether a datagram between these ports, from and to, may be DHCPv6.
    #[inline(always)]
    pub const fn is_dhcpv6((from, to): (u16, u16)) -> bool {
        to == DHCPV6_SERVER || is_dhcpv6_server(from, to)
    }

    /// Whether a datagram to that port is a packet of VXLAN or Geneve, by all the ports that the
    /// table of encapsulations has for them.
    #[inline(always)]
    pub const fn is_tunnel(to: u16) -> bool {
        matches!(to, VXLAN | VXLAN_GPE | GENEVE | VXLAN_OF_LINUX)
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
    /// A router names a better one to a mobile host (deprecated by RFC 6918).
    pub const MOBILE_REDIRECT: u8 = 32;

    /// Whether the message reports an error.
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// IGMP types (RFC 9776, RFC 4286).
pub mod igmp {
    /// A router asks for listeners.
    pub const QUERY: u8 = 0x11;
    /// A listener of IGMPv2 reports.
    pub const REPORT_V2: u8 = 0x16;
    /// A listener of IGMPv2 leaves.
    pub const LEAVE: u8 = 0x17;
    /// A listener of IGMPv3 reports.
    pub const REPORT_V3: u8 = 0x22;
    /// Routers of DVMRP among themselves (RFC 1075).
    pub const DVMRP: u8 = 0x13;
    /// Routers of PIM version 1 among themselves.
    pub const PIM: u8 = 0x14;
    /// A multicast router announces itself.
    pub const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 0x30;
    /// A multicast router withdraws.
    pub const MULTICAST_ROUTER_TERMINATION: u8 = 0x32;
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
    /// A mobile node is told of home agents (RFC 6275).
    pub const HOME_AGENT_REPLY: u8 = 145;
    /// A mobile node is told of its home's prefixes (RFC 6275).
    pub const MOBILE_PREFIX_ADVERTISEMENT: u8 = 147;
    /// A router shows its certificates (RFC 3971).
    pub const CERTIFICATION_PATH_ADVERTISEMENT: u8 = 149;
    /// A multicast router announces itself.
    pub const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
    /// A multicast router withdraws.
    pub const MULTICAST_ROUTER_TERMINATION: u8 = 153;
    /// Fast handovers, among them a router's advertisement by proxy (RFC 5568).
    pub const FAST_HANDOVER: u8 = 154;
    /// RPL: routes and prefixes of a lossy network (RFC 6550).
    pub const RPL: u8 = 155;
    /// ILNP: a node says that it is elsewhere (RFC 6743).
    pub const LOCATOR_UPDATE: u8 = 156;
    /// Duplicate address detection over several hops: a question (RFC 6775).
    pub const DUPLICATE_ADDRESS_REQUEST: u8 = 157;
    /// Duplicate address detection over several hops: an answer.
    pub const DUPLICATE_ADDRESS_CONFIRMATION: u8 = 158;

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
static UPPER_LAYERS: [bool; 256] = {
    let headers: [&[u8]; 3] = [
        &protocol::EXTENSIONS,
        &protocol::BINDINGS,
        &protocol::EXPERIMENTS,
    ];
    let mut layers = [true; 256];
    let mut list = 0;
    while list < headers.len() {
        let mut at = 0;
        while at < headers[list].len() {
            layers[headers[list][at] as usize] = false;
            at += 1;
        }
        list += 1;
    }
    layers
};
static FLOWS: [bool; 256] = set(&protocol::FLOWS);
static BINDINGS: [bool; 256] = set(&protocol::BINDINGS);
static WITHOUT_ADDRESS: [bool; 256] = set(&option6::WITHOUT_ADDRESS);

/// Whether an IPv6 chain may have that extension header.
#[inline(always)]
pub fn is_extension(header: u8) -> bool {
    EXTENSIONS[usize::from(header)]
}

/// Whether that number is an upper layer's, which ends an IPv6 chain: any that is not registered as
/// an extension header.
#[inline(always)]
pub fn is_upper_layer(header: u8) -> bool {
    UPPER_LAYERS[usize::from(header)]
}

/// Whether that IP protocol binds other addresses to the sender.
#[inline(always)]
pub fn is_binding(protocol: u8) -> bool {
    BINDINGS[usize::from(protocol)]
}

/// Whether the first four bytes of that upper layer tell one flow from another.
#[inline(always)]
pub fn has_flow(upper: u8) -> bool {
    FLOWS[usize::from(upper)]
}

/// Whether that option of an IPv6 header has no address.
#[inline(always)]
pub fn has_no_address(option: u8) -> bool {
    WITHOUT_ADDRESS[usize::from(option)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_agree_with_the_lists() {
        for number in 0..=255u8 {
            assert_eq!(is_extension(number), protocol::EXTENSIONS.contains(&number));
            assert_eq!(is_binding(number), protocol::BINDINGS.contains(&number));
            let is_header = is_extension(number) || is_binding(number);
            let is_header = is_header || protocol::EXPERIMENTS.contains(&number);
            assert_eq!(is_upper_layer(number), !is_header);
            let without = option6::WITHOUT_ADDRESS.contains(&number);
            assert_eq!(has_no_address(number), without);
        }
    }
}
