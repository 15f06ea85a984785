//! The model of `docs/reference/tunnel.md`, row by row in the page's order. Here are the rows into
//! the tunnel; [`out`] has the rows out of it, [`path_mtu`] the promise about path MTUs.

mod out;
pub(crate) mod path_mtu;

use tenant_config::{PeerConfig, TunnelConfig, TunnelDscp, TunnelKind, TunnelTtl};

pub(super) use self::out::{combined_ecn, with_ecn};
use super::*;

/// The length of the tunnel's header, of either kind. The switch sends no options.
const GENEVE_OR_VXLAN: usize = 8;

/// An answer of the switch into the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TunnelReply {
    pub(crate) answer: Answer,
    /// The inner frame that is answered.
    pub(crate) asked: Vec<u8>,
    /// The peer's number.
    pub(crate) peer: usize,
}

/// An outer frame that must leave. The UDP source port, which the page leaves open, and both
/// checksums, which follow from the rest, are zero in `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outer {
    bytes: Vec<u8>,
    /// Where it goes.
    pub(crate) endpoint: IpAddr,
    udp_checksum: bool,
    /// The input of the source port's hash; `None` where the page does not specify it.
    pub(crate) flow: Option<Flow>,
}

/// "The inner addresses, the protocol, and, unless the packet is a fragment or lacks them, the
/// ports of TCP, UDP, SCTP, DCCP and UDP-Lite or the SPI of ESP. IPv6 packets without these have
/// their flow label instead; of fragments that replaces the protocol, too".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<u8>,
    /// Ports or SPI.
    ports: Option<(u16, u16)>,
    label: Option<u32>,
}

impl Flow {
    fn of(packet: &Packet<'_>) -> Self {
        let fragment = packet.fragment != Fragment::No;
        let has_ports = !fragment
            && matches!(packet.upper, Some(TCP | UDP | 132 | 33 | 136 | 50))
            && packet.payload.len() >= 4;
        let is_ipv6 = packet.source.is_ipv6();
        let low = u32::from(packet.whole[1] & 0x0f) << 16 | u32::from(be16(packet.whole, 2));
        Self {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.upper.filter(|_| !(fragment && is_ipv6)),
            ports: has_ports.then(|| (be16(packet.payload, 0), be16(packet.payload, 2))),
            label: (is_ipv6 && !has_ports).then_some(low),
        }
    }
}

impl Outer {
    /// Checks that `got` is this frame, with a source port within the range and right checksums.
    /// Returns the source port.
    pub(crate) fn check(&self, got: &[u8]) -> Result<u16, String> {
        if got.len() != self.bytes.len() {
            return Err(format!("{} bytes, not {}", got.len(), self.bytes.len()));
        }
        let mut blank = got.to_vec();
        let udp = match be16(&self.bytes, 12) {
            IPV4 => {
                if ones_complement_sum(&got[14..34]) != 0xffff {
                    return Err("a wrong outer header checksum".to_owned());
                }
                blank[24..26].fill(0);
                34
            }
            _ => 54,
        };
        let source_port = be16(got, udp);
        if source_port < 49152 {
            return Err(format!("the source port {source_port}"));
        }
        let (sum, datagram) = (be16(got, udp + 6), &got[udp..]);
        if self.udp_checksum && sum == 0 {
            return Err("no UDP checksum".to_owned());
        }
        let addresses = if udp == 34 {
            &got[26..34]
        } else {
            &got[22..54]
        };
        if self.udp_checksum && udp_sum(addresses, datagram) != 0xffff {
            return Err("a wrong UDP checksum".to_owned());
        }
        if !self.udp_checksum && sum != 0 {
            return Err("a UDP checksum".to_owned());
        }
        blank[udp..udp + 2].fill(0);
        blank[udp + 6..udp + 8].fill(0);
        if blank == self.bytes {
            return Ok(source_port);
        }
        let differs = blank.iter().zip(&self.bytes).position(|(a, b)| a != b);
        Err(format!("another outer packet, from byte {differs:?} on"))
    }

    /// The bytes, with zeros for the fields that are left open.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The sum over the pseudo-header (RFC 768, RFC 8200 8.1) and the datagram; 0xffff if the checksum
/// is right.
pub(super) fn udp_sum(addresses: &[u8], datagram: &[u8]) -> u16 {
    let mut covered = addresses.to_vec();
    covered.extend([0, UDP]);
    covered.extend((datagram.len() as u32).to_be_bytes());
    covered.extend(datagram);
    ones_complement_sum(&covered)
}

impl Model {
    pub(super) fn tunnel(&self) -> &TunnelConfig {
        let tunnel = self.config.tunnel.as_ref();
        tunnel.expect("a tunnel, where something is a tunnel's")
    }

    /// "The Router Advertisements of a tenant with a tunnel give the smaller of the port's MTU and
    /// what the tunnel carries."
    pub(super) fn advertised_mtu(&self, port: &PortConfig) -> Option<u16> {
        let uplink = self.config.uplink.as_ref()?;
        let tunnel = self.config.tunnel.as_ref()?;
        let peers = tunnel.peers.iter();
        // What it carries to every peer.
        let carried = peers.map(|peer| {
            let mtu = peer.mtu.unwrap_or(uplink.mtu);
            self.carries_over(peer.vtep, mtu, false)
        });
        let carried = carried.min().unwrap_or(uplink.mtu - overhead(tunnel));
        Some(port.mtu.min(carried))
    }

    /// "That is the peer's `mtu`, or the uplink's, or the path's where a router of the underlay has
    /// reported a smaller one, less 50 bytes over IPv4 and 70 over IPv6."
    pub(crate) fn carries(&self, peer: usize) -> u16 {
        let uplink = self.config.uplink.as_ref().expect("the tunnel's uplink");
        let peer = &self.tunnel().peers[peer];
        let configured = peer.mtu.unwrap_or(uplink.mtu);
        let path = self.path_mtu(peer.vtep).unwrap_or(configured);
        self.carries_over(peer.vtep, path.min(configured), true)
    }

    /// What a path of that MTU leaves, also "while an SA is in use".
    fn carries_over(&self, vtep: IpAddr, mtu: u16, in_use: bool) -> u16 {
        match self.requires_ipsec(vtep) {
            true => self.carries_sealed(vtep, mtu, in_use),
            false => mtu - overhead(self.tunnel()),
        }
    }

    pub(super) fn enter_tunnel(
        &self,
        number: usize,
        packet: &Packet<'_>,
        with_error: impl FnOnce(DropReason, Option<u16>) -> Outcome,
    ) -> Outcome {
        let to = self.tunnel().peers[number].mac.octets();
        // Into 1
        if is_link_local(packet.source) {
            return LinkLocalIp.into();
        }
        self.enter_tunnel_to(number, to, packet, with_error)
    }

    /// Into 2 to 5, with the MAC that the inner frame goes to.
    pub(super) fn enter_tunnel_to(
        &self,
        number: usize,
        to: [u8; 6],
        packet: &Packet<'_>,
        with_error: impl FnOnce(DropReason, Option<u16>) -> Outcome,
    ) -> Outcome {
        let peer = &self.tunnel().peers[number];
        // Into 2
        if is_nested(self.tunnel(), packet) {
            return with_error(TunnelNested, None);
        }
        // Into 3
        let carries = self.carries(number);
        if packet.whole.len() > usize::from(carries) {
            return with_error(Mtu, Some(carries));
        }
        // Into 4
        if !self.neighbours.contains_key(&peer.next_hop) {
            return NeighbourUnresolved.into();
        }
        // Into 5
        if let Err(reason) = self.may_enter(peer.vtep) {
            return reason.into();
        }
        let mut inner = Vec::new();
        inner.extend(to);
        inner.extend(self.tunnel().mac.octets());
        inner.extend(ethertype_of(packet).to_be_bytes());
        inner.extend(clamped(self.tunnel(), packet.whole, packet, carries));
        Outcome::Tunnel(self.encapsulated(number, &inner))
    }

    /// The outer packet, by its table.
    pub(crate) fn encapsulated(&self, peer: usize, inner: &[u8]) -> Outer {
        let tunnel = self.tunnel();
        let peer = &tunnel.peers[peer];
        let uplink = self.config.uplink.as_ref().expect("the tunnel's uplink");
        // An ARP answer has neither TTL nor traffic class to inherit.
        let (mut hop_limit, mut class, mut flow) = (64, 0, None);
        if let Some(packet) = packet_in(inner) {
            hop_limit = packet.hop_limit;
            class = traffic_class(packet.whole);
            flow = Some(Flow::of(&packet));
        }
        let ecn = class & 3;
        let dscp = match tunnel.dscp {
            TunnelDscp::Fixed(dscp) => dscp,
            TunnelDscp::Inherit(_) => class >> 2,
        };
        let class = dscp << 2 | ecn;
        let hop_limit = match tunnel.ttl {
            TunnelTtl::Fixed(ttl) => ttl,
            // RFC 1122 3.2.1.7: a TTL of 0 is never sent.
            TunnelTtl::Inherit(_) => hop_limit.max(1),
        };
        let length = (8 + GENEVE_OR_VXLAN + inner.len()) as u16;

        let mut bytes = Vec::new();
        bytes.extend(self.neighbours[&peer.next_hop]);
        bytes.extend(uplink.mac.octets());
        match (tunnel.vtep, peer.vtep) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend(IPV4.to_be_bytes());
                bytes.extend([0x45, class]);
                bytes.extend((20 + length).to_be_bytes());
                bytes.extend([0, 0, 0x40, 0, hop_limit, UDP, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend(IPV6.to_be_bytes());
                bytes.extend([0x60 | class >> 4, class << 4, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([UDP, hop_limit]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            _ => panic!("a peer of another family"),
        }
        bytes.extend([0, 0]);
        bytes.extend(tunnel.port.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        match tunnel.kind {
            TunnelKind::Vxlan => bytes.extend([8, 0, 0, 0]),
            TunnelKind::Geneve => bytes.extend([0, 0, 0x65, 0x58]),
        }
        bytes.extend((self.config.vni.get() << 8).to_be_bytes());
        bytes.extend(inner);
        Outer {
            bytes,
            endpoint: peer.vtep,
            udp_checksum: tunnel.udp_checksum,
            flow,
        }
    }
}

/// "Outer IP header, UDP 8, tunnel 8, inner Ethernet 14."
fn overhead(tunnel: &TunnelConfig) -> u16 {
    match tunnel.vtep {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// Into 2 and out 12.
pub(super) fn is_nested(tunnel: &TunnelConfig, packet: &Packet<'_>) -> bool {
    tunnel.nested == Encapsulation::Deny
        && packet
            .udp_ports()
            .is_some_and(|(_, to)| [4789, 4790, 6081, 8472, tunnel.port].contains(&to))
}

/// The ECN field.
pub(super) fn ecn(packet: &[u8]) -> u8 {
    traffic_class(packet) & 3
}

/// TOS or traffic class.
fn traffic_class(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1],
        _ => packet[0] << 4 | packet[1] >> 4,
    }
}

/// "A TCP SYN whose MSS option is larger than what the tunnel carries, less 40 bytes (IPv4) or 60
/// (IPv6), has it lowered." `whole` is `packet`'s bytes with
/// the earlier changes.
pub(super) fn clamped(
    tunnel: &TunnelConfig,
    whole: &[u8],
    packet: &Packet<'_>,
    carries: u16,
) -> Vec<u8> {
    let mut whole = whole.to_vec();
    let is_syn = packet.transport() == Some(TCP) && packet.payload[13] & 2 != 0;
    if !tunnel.mss_clamp || !is_syn {
        return whole;
    }
    let most = match packet.source {
        IpAddr::V4(_) => carries - 40,
        IpAddr::V6(_) => carries - 60,
    };
    let tcp_at = whole.len() - packet.payload.len();
    let header = usize::from(packet.payload[12] >> 4) * 4;
    let header = &mut whole[tcp_at..tcp_at + header];
    let before = header.to_vec();
    let mut at = 20;
    while at < header.len() {
        let length = match header[at] {
            0 => break,
            1 => 1,
            _ => usize::from(*header.get(at + 1).unwrap_or(&0)),
        };
        if length == 0 || (length == 1 && header[at] != 1) || at + length > header.len() {
            break;
        }
        if header[at] == 2 && length == 4 && be16(header, at + 2) > most {
            header[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
        }
        at += length;
    }
    if header != before {
        // RFC 1624, equation 3: a checksum that was wrong stays wrong.
        let mut covered = (!be16(&before, 16)).to_be_bytes().to_vec();
        let without_checksum = [&before[..16], &before[18..]].concat();
        covered.extend(without_checksum.iter().map(|byte| !byte));
        covered.extend(&header[..16]);
        covered.extend(&header[18..]);
        let sum = !ones_complement_sum(&covered);
        header[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    whole
}

fn ethertype_of(packet: &Packet<'_>) -> u16 {
    match packet.source {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    }
}

/// The IP packet of an inner frame that the switch sends; `None` for ARP.
fn packet_in(frame: &[u8]) -> Option<Packet<'_>> {
    match be16(frame.get(..14)?, 12) {
        IPV4 => ipv4(&frame[14..]).ok(),
        IPV6 => ipv6(&frame[14..]).ok(),
        _ => None,
    }
}
