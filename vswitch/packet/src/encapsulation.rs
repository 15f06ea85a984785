//! The one table of what carries packets of its own, and what a port that denies encapsulation may
//! therefore not send.
//!
//! It is made from IANA's registries of protocol numbers and of service names and ports, and from
//! what is in use without an entry there. `docs/reference/encapsulations.md` is generated from it.

use crate::port_set::{PortSet, factor_of};

/// The number that a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The protocol of IPv4, the upper layer of IPv6.
    Protocol,
    /// A UDP port, of either end.
    Udp,
    /// A TCP port, of either end.
    Tcp,
}

/// Whether a port that denies encapsulation may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It may not: so this is carried.
    Refused(&'static str),
    /// It may, for this reason.
    Allowed(&'static str),
}

/// What is known of one number.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind of the number.
    pub kind: Kind,
    /// The number.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// Where it is specified.
    pub reference: &'static str,
    /// Whether it may be sent.
    pub judgement: Judgement,
}

const fn refused(
    kind: Kind,
    number: u16,
    name: &'static str,
    reference: &'static str,
    carries: &'static str,
) -> Row {
    let judgement = Judgement::Refused(carries);
    Row {
        kind,
        number,
        name,
        reference,
        judgement,
    }
}

const fn allowed(
    kind: Kind,
    number: u16,
    name: &'static str,
    reference: &'static str,
    reason: &'static str,
) -> Row {
    let judgement = Judgement::Allowed(reason);
    Row {
        kind,
        number,
        name,
        reference,
        judgement,
    }
}

const NO_PACKET: &str = "carries no packet";
const KEYED: &str = "a receiver opens it only with a key that it shares with the sender";
const NO_IP: &str = "what it carries is neither IP nor Ethernet";
const CONTROL: &str = "control only; the packets of its tunnels go by a number that is refused";

/// Every number that carries packets, and every one that is allowed although one might think so.
/// Protocols that are not here are refused: nothing says that they carry no packet. Ports that are
/// not here are allowed.
#[rustfmt::skip] // A table.
pub const TABLE: &[Row] = {
    use Kind::{Protocol, Tcp, Udp};
    &[
        refused(Protocol, 0, "HOPOPT", "RFC 8200",
            "what is behind an IPv6 header that has no place in IPv4"),
        allowed(Protocol, 1, "ICMP", "RFC 792",
            "its errors quote a packet, which no receiver takes as one"),
        allowed(Protocol, 2, "IGMP", "RFC 9776", NO_PACKET),
        refused(Protocol, 4, "IPv4 in IP", "RFC 2003", "IPv4"),
        refused(Protocol, 5, "ST", "RFC 1819", "streams of packets"),
        allowed(Protocol, 6, "TCP", "RFC 9293", NO_PACKET),
        refused(Protocol, 7, "CBT", "RFC 2189", "multicast IPv4"),
        allowed(Protocol, 17, "UDP", "RFC 768", "by its ports"),
        allowed(Protocol, 33, "DCCP", "RFC 4340", NO_PACKET),
        refused(Protocol, 41, "IPv6 in IP: 6in4, 6to4, 6rd, ISATAP", "RFC 4213", "IPv6"),
        refused(Protocol, 42, "SDRP", "RFC 1940", "IPv4, by a route of the sender's"),
        refused(Protocol, 43, "IPv6-Route", "RFC 8200",
            "what is behind an IPv6 header that has no place in IPv4"),
        refused(Protocol, 44, "IPv6-Frag", "RFC 8200",
            "what is behind an IPv6 header that has no place in IPv4"),
        allowed(Protocol, 46, "RSVP", "RFC 2205", NO_PACKET),
        refused(Protocol, 47, "GRE: also NVGRE, ERSPAN, EoIP, PPTP", "RFC 2784, RFC 7637",
            "IP or Ethernet"),
        allowed(Protocol, 50, "ESP", "RFC 4303", KEYED),
        allowed(Protocol, 51, "AH", "RFC 4302",
            "by what is behind it; in IPv4 only whole, and at most 8 in a row"),
        refused(Protocol, 53, "SWIPE", "IANA", "IPv4"),
        refused(Protocol, 55, "Min-IPv4", "RFC 2004", "IPv4 with other addresses"),
        refused(Protocol, 57, "SKIP", "IANA", "IPv4"),
        allowed(Protocol, 58, "ICMPv6", "RFC 4443",
            "its errors quote a packet, which no receiver takes as one"),
        allowed(Protocol, 59, "IPv6-NoNxt", "RFC 8200", NO_PACKET),
        refused(Protocol, 60, "IPv6-Opts", "RFC 8200",
            "what is behind an IPv6 header that has no place in IPv4"),
        refused(Protocol, 80, "ISO-IP", "RFC 1070", "CLNP"),
        allowed(Protocol, 88, "EIGRP", "RFC 7868", NO_PACKET),
        allowed(Protocol, 89, "OSPF", "RFC 2328", NO_PACKET),
        refused(Protocol, 93, "AX.25", "IANA", "frames of amateur radio, which carry IPv4"),
        refused(Protocol, 94, "IPIP", "IANA", "IPv4"),
        refused(Protocol, 95, "MICP", "IANA", "mobile hosts' packets"),
        refused(Protocol, 97, "EtherIP", "RFC 3378", "Ethernet"),
        refused(Protocol, 98, "ENCAP", "RFC 1241", "IPv4"),
        refused(Protocol, 99, "any private encryption scheme", "IANA", "unknown"),
        refused(Protocol, 103, "PIM", "RFC 7761", "multicast IP, in its Register messages"),
        refused(Protocol, 108, "IPComp", "RFC 3173", "IP, compressed and without a key"),
        allowed(Protocol, 112, "VRRP", "RFC 9568", NO_PACKET),
        refused(Protocol, 115, "L2TPv3", "RFC 3931", "Ethernet or PPP"),
        allowed(Protocol, 132, "SCTP", "RFC 9260", NO_PACKET),
        refused(Protocol, 133, "FC", "RFC 6172", "Fibre Channel"),
        allowed(Protocol, 136, "UDP-Lite", "RFC 3828",
            "no encapsulation in it is specified or in use"),
        refused(Protocol, 137, "MPLS-in-IP", "RFC 4023", "MPLS"),
        refused(Protocol, 141, "WESP", "RFC 5840", "IP, which may be in clear"),
        refused(Protocol, 142, "ROHC", "RFC 5858", "IP with compressed headers"),
        refused(Protocol, 143, "Ethernet", "RFC 8986", "Ethernet"),
        refused(Protocol, 144, "AGGFRAG", "RFC 9347", "several IP packets"),
        refused(Protocol, 145, "NSH", "RFC 9491", "IP or Ethernet"),
        allowed(Udp, 213, "IPX", "RFC 1234", NO_IP),
        allowed(Udp, 387, "AURP", "RFC 1504", NO_IP),
        refused(Udp, 434, "Mobile IP", "RFC 3519", "IP"),
        allowed(Udp, 500, "IKE", "RFC 7296", KEYED),
        allowed(Udp, 655, "tinc", "IANA", KEYED),
        allowed(Udp, 1194, "OpenVPN", "IANA", KEYED),
        refused(Udp, 1701, "L2TP, L2F", "RFC 2661, RFC 3931", "PPP or Ethernet"),
        refused(Udp, 2123, "GTP-C", "3GPP TS 29.274", "what opens the tunnels of GTP-U"),
        refused(Udp, 2152, "GTP-U", "3GPP TS 29.281", "IP or Ethernet"),
        refused(Udp, 2268, "AMT", "RFC 7450", "multicast IP"),
        refused(Udp, 3386, "GTP version 0", "GSM 09.60", "IP"),
        allowed(Udp, 3478, "TURN", "RFC 8656",
            "what it relays leaves from the relay's own address"),
        refused(Udp, 3544, "Teredo", "RFC 4380", "IPv6"),
        refused(Udp, 3653, "TSP", "RFC 5572", "IPv6"),
        refused(Udp, 4191, "DSMIPv6", "RFC 5555", "IP"),
        refused(Udp, 4341, "LISP", "RFC 9300", "IP"),
        refused(Udp, 4342, "LISP control", "RFC 9301", "IP, in its encapsulated messages"),
        allowed(Udp, 4500, "ESP in UDP", "RFC 3948", KEYED),
        refused(Udp, 4754, "GRE in UDP", "RFC 8086", "IP or Ethernet"),
        refused(Udp, 4755, "GRE in UDP, by DTLS", "RFC 8086", "IP or Ethernet"),
        refused(Udp, 4789, "VXLAN", "RFC 7348", "Ethernet"),
        refused(Udp, 4790, "VXLAN-GPE", "IANA", "IP or Ethernet"),
        allowed(Udp, 4791, "RoCEv2", "IANA", NO_IP),
        refused(Udp, 5072, "AYIYA", "IANA", "IP"),
        refused(Udp, 5246, "CAPWAP control", "RFC 5415", "what opens the tunnels of CAPWAP"),
        refused(Udp, 5247, "CAPWAP", "RFC 5415", "802.11 or Ethernet"),
        refused(Udp, 5436, "PMIPv6 control", "RFC 5844", "what opens the tunnels of PMIPv6"),
        refused(Udp, 5437, "PMIPv6", "RFC 5844", "IP"),
        refused(Udp, 6080, "GUE", "IANA", "IP"),
        refused(Udp, 6081, "Geneve", "RFC 8926", "Ethernet"),
        allowed(Udp, 6511, "DCCP in UDP", "RFC 6773", "it has no IP header inside"),
        refused(Udp, 6633, "vPath", "IANA", "Ethernet"),
        refused(Udp, 6635, "MPLS in UDP", "RFC 7510", "MPLS"),
        refused(Udp, 6636, "MPLS in UDP, by DTLS", "RFC 7510", "MPLS"),
        refused(Udp, 8060, "AERO", "RFC 6706", "IP"),
        refused(Udp, 8472, "OTV; VXLAN on Linux by default", "IANA", "Ethernet"),
        allowed(Udp, 8805, "PFCP", "3GPP TS 29.244", CONTROL),
        allowed(Udp, 9899, "SCTP in UDP", "RFC 6951", "it has no IP header inside"),
        allowed(Udp, 10500, "HIP in UDP", "RFC 9028", KEYED),
        allowed(Udp, 12000, "SNA (HPR)", "RFC 2353", NO_IP),
        refused(Udp, 12222, "LWAPP", "RFC 5412", "802.11"),
        refused(Udp, 12223, "LWAPP control", "RFC 5412", "what opens the tunnels of LWAPP"),
        refused(Udp, 17754, "ZEP", "IANA", "frames of 802.15.4, which carry IPv6"),
        allowed(Udp, 34980, "EtherCAT", "IANA", NO_IP),
        allowed(Udp, 51820, "WireGuard", "not registered", KEYED),
        allowed(Tcp, 443, "SSTP, MASQUE and other VPNs", "RFC 9484", KEYED),
        allowed(Tcp, 1080, "SOCKS", "RFC 1928",
            "what it relays leaves from the relay's own address"),
        allowed(Tcp, 1723, "PPTP", "RFC 2637", CONTROL),
        allowed(Tcp, 4500, "IKE and ESP in TCP", "RFC 9329", KEYED),
        refused(Tcp, 7471, "STT", "IANA", "Ethernet, without TCP's handshake"),
    ]
};

/// How many numbers of a kind are refused.
const fn count(kind: Kind) -> usize {
    let (mut count, mut at) = (0, 0);
    while at < TABLE.len() {
        let of_kind = TABLE[at].kind as u8 == kind as u8;
        if of_kind && matches!(TABLE[at].judgement, Judgement::Refused(_)) {
            count += 1;
        }
        at += 1;
    }
    count
}

/// The numbers of a kind that are refused; there must be `N`.
const fn numbers<const N: usize>(kind: Kind) -> [u16; N] {
    let mut numbers = [0; N];
    let (mut count, mut at) = (0, 0);
    while at < TABLE.len() {
        let of_kind = TABLE[at].kind as u8 == kind as u8;
        if of_kind && matches!(TABLE[at].judgement, Judgement::Refused(_)) {
            numbers[count] = TABLE[at].number;
            count += 1;
        }
        at += 1;
    }
    numbers
}

/// The UDP ports that are refused.
pub const UDP_PORTS: [u16; count(Kind::Udp)] = numbers(Kind::Udp);
/// The TCP ports that are refused.
pub const TCP_PORTS: [u16; count(Kind::Tcp)] = numbers(Kind::Tcp);
/// The protocols that the table refuses; those that it does not have are refused too.
pub const PROTOCOLS: [u16; count(Kind::Protocol)] = numbers(Kind::Protocol);

static UDP: PortSet<{ factor_of(&UDP_PORTS) }> = PortSet::new(&UDP_PORTS);
static ALLOWED_PROTOCOLS: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut at = 0;
    while at < TABLE.len() {
        let row = &TABLE[at];
        if matches!(row.kind, Kind::Protocol) && matches!(row.judgement, Judgement::Allowed(_)) {
            allowed[row.number as usize] = true;
        }
        at += 1;
    }
    allowed
};

/// Whether the protocol carries packets, as far as is known.
#[inline(always)]
pub fn is_protocol(protocol: u8) -> bool {
    !ALLOWED_PROTOCOLS[usize::from(protocol)]
}

/// Whether a datagram from or to these ports carries packets.
#[inline(always)]
pub fn is_udp(ports: (u16, u16)) -> bool {
    UDP.has_any(ports)
}

/// Whether a segment from or to these ports carries packets.
#[inline(always)]
pub const fn is_tcp((from, to): (u16, u16)) -> bool {
    let mut at = 0;
    while at < TCP_PORTS.len() {
        if from == TCP_PORTS[at] || to == TCP_PORTS[at] {
            return true;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_has_each_number_once() {
        let key = |row: &Row| (row.kind as u8, row.number);
        assert!(TABLE.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
    }

    #[test]
    fn tunnel_ports_are_those_of_vxlan_and_geneve() {
        for number in 0..=u16::MAX {
            let mut rows = TABLE.iter().filter(|row| row.kind == Kind::Udp);
            let row = rows.find(|row| row.number == number);
            let expected =
                row.is_some_and(|row| row.name.contains("VXLAN") || row.name.contains("Geneve"));
            assert_eq!(crate::number::port::is_tunnel(number), expected, "{number}");
        }
    }

    #[test]
    fn lookups_agree_with_the_table() {
        let judged = |kind, number| {
            let row = TABLE
                .iter()
                .find(|row| (row.kind, row.number) == (kind, number));
            row.map(|row| matches!(row.judgement, Judgement::Refused(_)))
        };
        for number in 0..=u16::MAX {
            let of = |kind| judged(kind, number).unwrap_or(false);
            assert_eq!(is_udp((number, 0)), of(Kind::Udp), "UDP {number}");
            assert_eq!(is_udp((0, number)), of(Kind::Udp), "UDP {number}");
            assert_eq!(is_tcp((number, 0)), of(Kind::Tcp), "TCP {number}");
            assert_eq!(is_tcp((0, number)), of(Kind::Tcp), "TCP {number}");
        }
        for number in 0..=u8::MAX {
            let expected = judged(Kind::Protocol, number.into()).unwrap_or(true);
            assert_eq!(is_protocol(number), expected, "protocol {number}");
        }
    }
}
