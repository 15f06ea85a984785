//! Tunnel carriers: the outer headers around an Ethernet frame.
//!
//! [`Carrier`] is all that the switch knows of them: what they add ([`Carrier::overhead`]), which
//! packets are theirs ([`Carrier::takes`]), and how to write and read one ([`Carrier::seal`],
//! [`Carrier::open`]). Geneve (RFC 8926) and VXLAN (RFC 7348) over UDP are carriers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ecn::Ecn;
use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32, be128};
use super::flow::Inner;
use super::ipv6::traffic_class;
use super::packet::Ip;
use super::transport::Fragment;
use super::{checksum, ipv4, ipv6};
use crate::frame::Frame;
use crate::hash::Key;
use crate::number::{ethertype, port, protocol};
use crate::reason::DropReason;

/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Without options, the headers of both kinds have the same length.
pub(super) const TUNNEL_LEN: usize = 8;
/// What precedes an inner Ethernet frame.
const OUTER4_LEN: usize = ETHERNET_LEN + ipv4::HEADER_LEN + UDP_LEN + TUNNEL_LEN;
pub(super) const OUTER6_LEN: usize = ETHERNET_LEN + ipv6::HEADER_LEN + UDP_LEN + TUNNEL_LEN;
const _: () = assert!(
    OUTER6_LEN <= Frame::HEADROOM,
    "the outer headers must fit in front"
);

/// RFC 6335: the dynamic ports, of which a packet's flow chooses one.
pub(super) const FIRST_SOURCE_PORT: u16 = 0xc000;

/// RFC 7348, section 5: the VNI is valid.
const VXLAN_FLAG_I: u8 = 0x08;
/// RFC 8926, section 3.4.
const GENEVE_FLAG_O: u8 = 0x80;
const GENEVE_FLAG_C: u8 = 0x40;
/// RFC 8926, section 3.5.
const GENEVE_CRITICAL: u8 = 0x80;

/// The tunnel protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Geneve.
    Geneve,
    /// VXLAN.
    Vxlan,
}

/// How one side of a tunnel writes and reads outer headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    kind: Kind,
    vni: u32,
    /// Our own endpoint.
    pub(super) own: IpAddr,
    port: u16,
    pub(super) udp_checksum: bool,
    /// The outer TTL; `None` copies the inner one.
    pub(super) ttl: Option<u8>,
    /// The DSCP bits that the outer header copies from the inner one (with the ECN bits), and its
    /// fixed bits.
    tos: (u8, u8),
    /// The tunnel's header without options, as one number.
    plain_header: u64,
}

/// What makes a [`Carrier`].
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The tunnel protocol.
    pub kind: Kind,
    /// The virtual network, 24 bits.
    pub vni: u32,
    /// Our own endpoint.
    pub own: IpAddr,
    /// The UDP port of both endpoints.
    pub port: u16,
    /// Whether outgoing packets have a UDP checksum, and incoming ones over IPv6 need it.
    pub udp_checksum: bool,
    /// The outer TTL; `None` copies the inner one.
    pub ttl: Option<u8>,
    /// The outer DSCP; `None` copies the inner one.
    pub dscp: Option<u8>,
}

/// The outer headers of all packets to one endpoint; fields that differ between packets are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) bytes: [u8; OUTER6_LEN],
    /// Of the hash that makes a flow's source port.
    key: Key,
    /// The sum of the IPv4 header in `bytes`. Reading the header back right after writing it would
    /// stall the processor.
    sum4: u64,
}

impl Template {
    /// The UDP source port of the packets of a flow ([`Inner::flow`]).
    #[inline(always)]
    pub fn source_port(&self, flow: u64) -> u16 {
        FIRST_SOURCE_PORT | (self.key.hash(flow) >> 50) as u16
    }
}

/// A packet that may be the tunnel's, as far as [`Carrier::takes`] and [`Carrier::open`] need it.
#[derive(Debug, Clone, Copy)]
pub struct Outer {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// Its place among its fragments.
    pub fragment: Fragment,
    /// The protocol of the upper layer.
    pub upper: u8,
    /// UDP's ports: source, destination.
    pub udp: Option<(u16, u16)>,
    /// The offset of the transport header from the start of the IP header.
    pub upper_at: usize,
    /// Bytes from the start of the IP header.
    pub len: usize,
}

impl Outer {
    /// The outer packet; `None` if it is no IP packet.
    #[inline(always)]
    pub fn of(ip: &Ip) -> Option<Self> {
        match ip {
            Ip::V4(ip) => Some(Self {
                source: Ipv4Addr::from_bits(ip.source).into(),
                destination: Ipv4Addr::from_bits(ip.destination).into(),
                fragment: ip.fragment,
                upper: ip.protocol,
                udp: ip.udp(),
                upper_at: usize::from(ip.header_len),
                len: usize::from(ip.total_len),
            }),
            Ip::V6(ip) => Some(Self {
                source: Ipv6Addr::from_bits(ip.source).into(),
                destination: Ipv6Addr::from_bits(ip.destination).into(),
                fragment: ip.fragment,
                upper: ip.upper,
                udp: ip.udp(),
                upper_at: usize::from(ip.upper_at),
                len: ip.total_len,
            }),
            Ip::Arp(_) | Ip::Rarp => None,
        }
    }
}

/// A tunnel packet without anything rare, opened.
#[derive(Debug)]
pub struct Opened {
    /// The offset of the inner frame in the outer one.
    pub begin: usize,
    /// The offset of the byte behind the inner frame.
    pub end: usize,
    /// The [`number`] of the endpoint that sent it, which is of our own family.
    pub source: u128,
    ecn: Ecn,
}

impl Opened {
    /// Whether the packet leaves the tunnel with its ECN field unchanged.
    #[inline(always)]
    pub fn keeps_ecn(&self, packet: &[u8]) -> bool {
        let inner = Ecn::of(packet);
        Ecn::within(inner, self.ecn) == Some(inner)
    }
}

impl Carrier {
    /// The carrier with these settings.
    pub fn new(settings: Settings) -> Self {
        let Settings {
            kind,
            vni,
            own,
            port,
            udp_checksum,
            ttl,
            dscp,
        } = settings;
        let first = match kind {
            Kind::Vxlan => u32::from(VXLAN_FLAG_I) << 24,
            Kind::Geneve => u32::from(ethertype::ETHERNET),
        };
        Self {
            kind,
            vni,
            own,
            port,
            udp_checksum,
            ttl,
            tos: match dscp {
                None => (0xff, 0),
                Some(dscp) => (Ecn::MASK, dscp << 2),
            },
            plain_header: u64::from(first) << 32 | u64::from(vni) << 8,
        }
    }

    /// Our own endpoint.
    #[inline(always)]
    pub fn own(&self) -> IpAddr {
        self.own
    }

    /// The UDP port of both endpoints.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bytes by which the outer IP packet is larger than the inner one.
    pub fn overhead(&self) -> u16 {
        let outer = match self.own {
            IpAddr::V4(_) => OUTER4_LEN,
            IpAddr::V6(_) => OUTER6_LEN,
        };
        outer as u16
    }

    /// Whether the packet is the tunnel's.
    #[inline(always)]
    pub fn takes(&self, outer: &Outer) -> bool {
        outer.udp.is_some_and(|(_, to)| to == self.port) && self.own == outer.destination
    }

    /// The headers of packets from the station `own_mac` to the endpoint `peer`. Who sees these
    /// packets learns the source ports that `key` makes, so each endpoint has a key of its own.
    pub fn template(&self, own_mac: [u8; 6], peer: IpAddr, key: Key) -> Template {
        let ttl = self.ttl.unwrap_or(0);
        let mut outer = vec![0; 6];
        outer.extend(own_mac);
        let dont_fragment = [0x40, 0];
        match (self.own, peer) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                outer.extend(ethertype::IPV4.to_be_bytes());
                outer.extend([0x45, 0, 0, 0, 0, 0]);
                outer.extend(dont_fragment);
                outer.extend([ttl, protocol::UDP, 0, 0]);
                outer.extend(own.octets());
                outer.extend(peer.octets());
            }
            (own, peer) => {
                outer.extend(ethertype::IPV6.to_be_bytes());
                outer.extend([0x60, 0, 0, 0, 0, 0, protocol::UDP, ttl]);
                outer.extend(number(own).to_be_bytes());
                outer.extend(number(peer).to_be_bytes());
            }
        }
        outer.extend([0, 0]);
        outer.extend(self.port.to_be_bytes());
        outer.extend([0; 4]);
        outer.extend(self.plain_header.to_be_bytes());
        outer.resize(OUTER6_LEN, 0);
        let mut bytes = [0; OUTER6_LEN];
        bytes.copy_from_slice(&outer);
        let sum4 = checksum::sum(&bytes[ETHERNET_LEN..ETHERNET_LEN + ipv4::HEADER_LEN]);
        Template { bytes, key, sum4 }
    }

    /// Puts the outer headers in front of an Ethernet frame. `None` if there is no room.
    #[inline(always)]
    pub fn seal(
        &self,
        template: &Template,
        next_hop: [u8; 6],
        inner: Inner,
        frame: &mut Frame<'_>,
    ) -> Option<()> {
        let carried = frame.len();
        let udp_len = (UDP_LEN + TUNNEL_LEN + carried) as u16;
        let source_port = template.source_port(inner.flow);
        let (copied, fixed) = self.tos;
        let tos = inner.tos & copied | fixed;
        let udp_at = match self.own {
            IpAddr::V4(_) => {
                frame.grow_front(OUTER4_LEN)?;
                let outer: &mut [u8; OUTER4_LEN] = frame.bytes_mut().first_chunk_mut()?;
                outer.copy_from_slice(&template.bytes[..OUTER4_LEN]);
                let [hi, lo] = (udp_len + 20).to_be_bytes();
                let ttl = if self.ttl.is_none() {
                    inner.ttl.max(1)
                } else {
                    0
                };
                outer[15] = tos;
                outer[16..18].copy_from_slice(&[hi, lo]);
                outer[22] |= ttl;
                let own = u64::from(u32::from_ne_bytes([0, tos, hi, lo]))
                    + u64::from(u32::from_ne_bytes([ttl, 0, 0, 0]));
                let sum = !checksum::folded(template.sum4 + own);
                outer[24..26].copy_from_slice(&sum.to_ne_bytes());
                ETHERNET_LEN + ipv4::HEADER_LEN
            }
            IpAddr::V6(_) => {
                frame.grow_front(OUTER6_LEN)?;
                let outer: &mut [u8; OUTER6_LEN] = frame.bytes_mut().first_chunk_mut()?;
                *outer = template.bytes;
                outer[14] |= tos >> 4;
                outer[15] = tos << 4;
                outer[18..20].copy_from_slice(&udp_len.to_be_bytes());
                if self.ttl.is_none() {
                    outer[21] = inner.ttl.max(1);
                }
                ETHERNET_LEN + ipv6::HEADER_LEN
            }
        };
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&next_hop);
        let udp: &mut [u8; UDP_LEN] = bytes[udp_at..].first_chunk_mut()?;
        udp[..2].copy_from_slice(&source_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        if self.udp_checksum {
            let sum = !checksum::folded(udp_sum(&bytes[ETHERNET_LEN..], udp_at - ETHERNET_LEN));
            // RFC 768: a sum of zero is sent as all ones.
            let sum = if sum == 0 { u16::MAX } else { sum };
            bytes[udp_at + 6..udp_at + 8].copy_from_slice(&sum.to_ne_bytes());
        }
        Some(())
    }

    /// Whether the UDP checksum of a packet that ends with its datagram at `udp_at` is right, or
    /// rightly absent.
    #[inline(always)]
    fn checksum_holds(&self, packet: &[u8], udp_at: usize) -> bool {
        let udp = packet.get(udp_at..);
        match udp.and_then(|udp| udp.first_chunk::<UDP_LEN>()) {
            Some(udp) if be16(udp, 6) == 0 => !(self.udp_checksum && self.own.is_ipv6()),
            Some(_) => checksum::folded(udp_sum(packet, udp_at)) == u16::MAX,
            None => false,
        }
    }

    /// The place of the inner frame in a packet that [`Self::takes`] accepted: the offset of its
    /// first byte, and of the byte behind it. Rows 3 to 6 of "Out of the tunnel". `packet` begins
    /// with the IP header.
    #[inline(always)]
    pub fn open(&self, outer: &Outer, packet: &[u8]) -> Result<(usize, usize), DropReason> {
        let truncated = DropReason::TunnelTruncated;
        let packet = packet.get(..outer.len).ok_or(truncated)?;
        let udp_at = outer.upper_at;
        let udp = packet.get(udp_at..).ok_or(truncated)?;
        let len = usize::from(be16(udp.first_chunk::<UDP_LEN>().ok_or(truncated)?, 4));
        if len < UDP_LEN {
            return Err(truncated);
        }
        let datagram = udp.get(..len).ok_or(truncated)?;
        let whole = &packet[..udp_at + len];
        if !self.checksum_holds(whole, udp_at) {
            return Err(DropReason::TunnelChecksum);
        }
        let tunnel = &datagram[UDP_LEN..];
        let head = tunnel.first_chunk::<TUNNEL_LEN>().ok_or(truncated)?;
        let options_len = match self.kind {
            Kind::Vxlan if head[0] & VXLAN_FLAG_I != 0 => 0,
            Kind::Geneve
                if head[0] >> 6 == 0
                    && head[1] & GENEVE_FLAG_O == 0
                    && be16(head, 2) == ethertype::ETHERNET =>
            {
                usize::from(head[0] & 0x3f) * 4
            }
            _ => return Err(DropReason::TunnelMalformed),
        };
        if be32(head, 4) >> 8 != self.vni {
            return Err(DropReason::TunnelVni);
        }
        if self.kind == Kind::Geneve {
            let options = tunnel.get(TUNNEL_LEN..TUNNEL_LEN + options_len);
            let critical = has_critical_option(options.ok_or(truncated)?).ok_or(truncated)?;
            if critical || head[1] & GENEVE_FLAG_C != 0 {
                return Err(DropReason::TunnelOption);
            }
        }
        Ok((udp_at + UDP_LEN + TUNNEL_LEN + options_len, udp_at + len))
    }

    /// As [`Self::takes`] and [`Self::open`] after the filter, for a frame whose Ethernet header is
    /// sound, if nothing about the outer packet is rare. Else `None`, and the general path decides.
    #[inline(always)]
    pub fn open_plain(&self, bytes: &[u8]) -> Option<Opened> {
        match (self.own, be16(bytes.first_chunk::<ETHERNET_LEN>()?, 12)) {
            (IpAddr::V4(own), ethertype::IPV4) => self.open_plain4(own.to_bits(), bytes),
            (IpAddr::V6(own), ethertype::IPV6) => self.open_plain6(own.to_bits(), bytes),
            _ => None,
        }
    }

    #[inline(always)]
    fn open_plain4(&self, own: u32, bytes: &[u8]) -> Option<Opened> {
        const UDP_AT: usize = ETHERNET_LEN + ipv4::HEADER_LEN;
        let head = bytes.first_chunk::<UDP_AT>()?;
        let end = ETHERNET_LEN + usize::from(be16(head, 16));
        let plain = head[14] == 0x45
            && be16(head, 20) & 0x3fff == 0
            && head[23] == protocol::UDP
            && be32(head, 30) == own;
        let ip: &[u8; ipv4::HEADER_LEN] = head[ETHERNET_LEN..].first_chunk()?;
        if !plain || !ipv4::plain_checksum_holds(ip) {
            return None;
        }
        Some(Opened {
            begin: self.open_plain_datagram(bytes.get(..end)?, UDP_AT)?,
            end,
            source: u128::from(be32(head, 26)),
            ecn: Ecn::of_class(head[15]),
        })
    }

    #[inline(always)]
    fn open_plain6(&self, own: u128, bytes: &[u8]) -> Option<Opened> {
        const UDP_AT: usize = ETHERNET_LEN + ipv6::HEADER_LEN;
        let head = bytes.first_chunk::<UDP_AT>()?;
        let end = UDP_AT + usize::from(be16(head, 18));
        if head[14] >> 4 != 6 || head[20] != protocol::UDP || be128(head, 38) != own {
            return None;
        }
        Some(Opened {
            begin: self.open_plain_datagram(bytes.get(..end)?, UDP_AT)?,
            end,
            source: be128(head, 22),
            ecn: Ecn::of_class(traffic_class(&head[ETHERNET_LEN..])),
        })
    }

    /// The offset of the inner frame in a frame that ends with a datagram without anything rare.
    #[inline(always)]
    fn open_plain_datagram(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let udp = bytes.get(at..)?.first_chunk::<{ UDP_LEN + TUNNEL_LEN }>()?;
        let header = u64::from(be32(udp, 8)) << 32 | u64::from(be32(udp, 12));
        // The filter refuses these source ports.
        let from_server = matches!(be16(udp, 0), port::DHCP_SERVER | port::DHCPV6_SERVER);
        let plain = !from_server
            && be16(udp, 2) == self.port
            && usize::from(be16(udp, 4)) == bytes.len() - at
            && header == self.plain_header;
        let holds = || self.checksum_holds(&bytes[ETHERNET_LEN..], at - ETHERNET_LEN);
        (plain && holds()).then_some(at + UDP_LEN + TUNNEL_LEN)
    }
}

/// An address of either family as a number; a tunnel's endpoints are of one family.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Whether an option is critical; `None` if one is cut off (RFC 8926, section 3.5).
fn has_critical_option(mut options: &[u8]) -> Option<bool> {
    let mut critical = false;
    while !options.is_empty() {
        let head = options.first_chunk::<4>()?;
        critical |= head[2] & GENEVE_CRITICAL != 0;
        options = options.get(4 + usize::from(head[3] & 0x1f) * 4..)?;
    }
    Some(critical)
}

/// The sum that a UDP checksum is made of, of the datagram at `udp_at` of an IP packet which ends
/// with it.
#[inline]
pub(super) fn udp_sum(packet: &[u8], udp_at: usize) -> u64 {
    let datagram = packet.get(udp_at..).unwrap_or_default();
    // The addresses end a header without options in both families; options are no part of the sum.
    let addresses = match packet.first().map_or(0, |first| first >> 4) {
        4 => packet.get(12..20),
        _ => packet.get(8..40),
    };
    let pseudo =
        u64::from(u16::from(protocol::UDP).to_be()) + u64::from((datagram.len() as u16).to_be());
    checksum::sum(addresses.unwrap_or_default()) + pseudo + checksum::sum(datagram)
}
