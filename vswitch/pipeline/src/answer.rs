//! What the gateway says itself: answers built in place of the frame that asks, errors about a
//! frame, and its own solicitations and advertisements. `smoltcp` writes the formats.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use super::nd;
use super::wire::{
    ARP_LEN, Arp, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Ipv4,
    Ipv6, Transport, adjust_checksum, mac_at,
};
use packet::Frame;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const ICMP_HEADER_LEN: usize = 8;
/// TTL and hop limit of what the gateway sends itself.
const HOPS: u8 = 64;
/// RFC 1812, section 4.3.2.3: as much of the packet as fits in 576 bytes.
const ICMPV4_ERROR_LEN: usize = 576;
/// RFC 4443, section 2.4: as much as fits in the smallest IPv6 MTU.
const ICMPV6_ERROR_LEN: usize = 1280;

const ALL_NODES: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0001;
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The longest of the frames that the gateway sends of its own accord.
pub(super) const OWN_FRAME_LEN: usize = 128;

fn write_ethernet(bytes: &mut [u8], to: [u8; 6], from: [u8; 6], ethertype: u16) {
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&from);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// Turns an ARP request into the reply that `own_mac` has the target. `None` if it does not fit.
pub(super) fn arp_reply(frame: &mut Frame<'_>, own_mac: [u8; 6], request: &Arp) -> Option<()> {
    frame.resize(ETHERNET_LEN + ARP_LEN)?;
    write_arp(
        frame.bytes_mut(),
        request.sender_mac,
        &ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(own_mac),
            source_protocol_addr: request.target_ip.into(),
            target_hardware_addr: EthernetAddress(request.sender_mac),
            target_protocol_addr: request.sender_ip.into(),
        },
    );
    Some(())
}

fn write_arp(bytes: &mut [u8], to: [u8; 6], arp: &ArpRepr) {
    let ArpRepr::EthernetIpv4 {
        source_hardware_addr,
        ..
    } = arp
    else {
        return;
    };
    write_ethernet(bytes, to, source_hardware_addr.0, ETHERTYPE_ARP);
    arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET_LEN..]));
}

/// Writes an ARP request for `wanted`; returns the frame's length.
pub(super) fn arp_request(
    bytes: &mut [u8; OWN_FRAME_LEN],
    to: [u8; 6],
    own: ([u8; 6], u32),
    wanted: u32,
) -> usize {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(own.0),
        source_protocol_addr: own.1.into(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: wanted.into(),
    };
    write_arp(bytes, to, &request);
    ETHERNET_LEN + ARP_LEN
}

/// Ethernet and IPv6 addresses of a message: who to whom.
struct Envelope {
    to_mac: [u8; 6],
    from_mac: [u8; 6],
    from: u128,
    to: u128,
}

/// Writes an ND message with its headers; the buffer must be `nd_len(message)` bytes long.
fn write_nd(bytes: &mut [u8], envelope: &Envelope, message: NdiscRepr<'_>) {
    let icmp = Icmpv6Repr::Ndisc(message);
    write_ethernet(bytes, envelope.to_mac, envelope.from_mac, ETHERTYPE_IPV6);
    let (from, to) = (envelope.from.into(), envelope.to.into());
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 255,
    };
    // Reserved fields are not all written below, and the buffer may hold another frame's bytes.
    bytes[ETHERNET_LEN..].fill(0);
    let (head, body) = bytes[ETHERNET_LEN..].split_at_mut(IPV6_HEADER_LEN);
    header.emit(&mut Ipv6Packet::new_unchecked(head));
    let checksums = ChecksumCapabilities::default();
    icmp.emit(
        &from,
        &to,
        &mut Icmpv6Packet::new_unchecked(body),
        &checksums,
    );
}

fn nd_len(message: &NdiscRepr<'_>) -> usize {
    ETHERNET_LEN + IPV6_HEADER_LEN + message.buffer_len()
}

/// Turns a Neighbor Solicitation into the advertisement that `own_mac` has the target.
pub(super) fn neighbor_advertisement(
    frame: &mut Frame<'_>,
    own_mac: [u8; 6],
    ip: &Ipv6,
    target: u128,
    is_router: bool,
) -> Option<()> {
    let mut flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, is_router);
    let message = NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target.into(),
        lladdr: Some(EthernetAddress(own_mac).into()),
    };
    let to_mac = mac_at(frame.bytes(), 6);
    frame.resize(nd_len(&message))?;
    let envelope = Envelope {
        to_mac,
        from_mac: own_mac,
        from: target,
        to: ip.source,
    };
    write_nd(frame.bytes_mut(), &envelope, message);
    Some(())
}

/// Writes a Neighbor Solicitation for `wanted`; returns the frame's length.
pub(super) fn neighbor_solicitation(
    bytes: &mut [u8; OWN_FRAME_LEN],
    own: ([u8; 6], u128),
    wanted: u128,
) -> usize {
    let group = nd::solicited_node(wanted);
    let [a, b, c, d] = (group as u32).to_be_bytes();
    let message = NdiscRepr::NeighborSolicit {
        target_addr: wanted.into(),
        lladdr: Some(EthernetAddress(own.0).into()),
    };
    let len = nd_len(&message);
    let envelope = Envelope {
        to_mac: [0x33, 0x33, a, b, c, d],
        from_mac: own.0,
        from: own.1,
        to: group,
    };
    write_nd(&mut bytes[..len], &envelope, message);
    len
}

/// What a gateway tells of itself at one port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advertisement {
    pub(super) mac: [u8; 6],
    pub(super) link_local: u128,
    pub(super) gateway: u128,
    pub(super) prefix_len: u8,
    pub(super) mtu: u16,
}

impl Advertisement {
    /// RFC 4861, section 6.2.1: AdvDefaultLifetime and the prefix's lifetimes by their defaults. The
    /// prefix is on-link but not for autoconfiguration: a port has the addresses it was given.
    fn message(&self) -> NdiscRepr<'static> {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.prefix_len))
            .unwrap_or(0);
        NdiscRepr::RouterAdvert {
            hop_limit: HOPS,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: Duration::from_secs(1800),
            reachable_time: Duration::ZERO,
            retrans_time: Duration::ZERO,
            lladdr: Some(EthernetAddress(self.mac).into()),
            mtu: Some(u32::from(self.mtu)),
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: self.prefix_len,
                flags: NdiscPrefixInfoFlags::ON_LINK,
                valid_lifetime: Duration::from_secs(2_592_000),
                preferred_lifetime: Duration::from_secs(604_800),
                prefix: (self.gateway & mask).into(),
            }),
        }
    }

    fn write(&self, bytes: &mut [u8], to_mac: [u8; 6], to: u128) {
        let envelope = Envelope {
            to_mac,
            from_mac: self.mac,
            from: self.link_local,
            to,
        };
        write_nd(bytes, &envelope, self.message());
    }

    /// Turns a Router Solicitation into the answer.
    pub(super) fn answer(&self, frame: &mut Frame<'_>, solicitation: &Ipv6) -> Option<()> {
        let to_mac = mac_at(frame.bytes(), 6);
        let to = if solicitation.source == 0 {
            ALL_NODES
        } else {
            solicitation.source
        };
        frame.resize(nd_len(&self.message()))?;
        self.write(frame.bytes_mut(), to_mac, to);
        Some(())
    }

    /// Writes the unsolicited advertisement; returns the frame's length.
    pub(super) fn announce(&self, bytes: &mut [u8; OWN_FRAME_LEN]) -> usize {
        let len = nd_len(&self.message());
        self.write(&mut bytes[..len], ALL_NODES_MAC, ALL_NODES);
        len
    }
}

/// Whether a packet to the gateway's address is an echo request that is answered.
pub(super) fn is_echo_request4(ip: &Ipv4) -> bool {
    ip.fragment == Fragment::Whole && ip.transport == (Transport::Icmp { kind: 8 })
}

/// Whether a packet to the gateway's address is an echo request that is answered.
pub(super) fn is_echo_request6(ip: &Ipv6) -> bool {
    ip.fragment == Fragment::Whole && ip.icmp_type() == Some(128)
}

/// Turns an echo request into its reply.
pub(super) fn echo_reply4(frame: &mut Frame<'_>, own_mac: [u8; 6], ip: &Ipv4) -> Option<()> {
    frame.truncate(ETHERNET_LEN + usize::from(ip.total_len));
    let bytes = frame.bytes_mut();
    let to = mac_at(bytes, 6);
    write_ethernet(bytes, to, own_mac, ETHERTYPE_IPV4);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(usize::from(ip.header_len));
    let mut header = Ipv4Packet::new_unchecked(header);
    header.set_src_addr(ip.destination.into());
    header.set_dst_addr(ip.source.into());
    header.set_hop_limit(HOPS);
    header.fill_checksum();
    message[0] = 0;
    adjust_checksum(message, 2, 0x0800, 0);
    Some(())
}

/// Turns an echo request into its reply.
pub(super) fn echo_reply6(frame: &mut Frame<'_>, own_mac: [u8; 6], ip: &Ipv6) -> Option<()> {
    const REPLY: u8 = 129;
    frame.truncate(ETHERNET_LEN + ip.total_len);
    let bytes = frame.bytes_mut();
    let to = mac_at(bytes, 6);
    write_ethernet(bytes, to, own_mac, ETHERTYPE_IPV6);
    let (header, rest) = bytes[ETHERNET_LEN..].split_at_mut(IPV6_HEADER_LEN);
    let mut header = Ipv6Packet::new_unchecked(header);
    header.set_src_addr(ip.destination.into());
    header.set_dst_addr(ip.source.into());
    header.set_hop_limit(HOPS);
    let message = &mut rest[usize::from(ip.upper_at) - IPV6_HEADER_LEN..];
    message[0] = REPLY;
    adjust_checksum(message, 2, 0x8000, 0x8100);
    Some(())
}

/// Why a packet is returned to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IcmpError {
    NoRoute,
    HostUnreachable,
    PortUnreachable,
    TimeExceeded,
    TooBig { mtu: u16 },
}

impl IcmpError {
    /// Type, code and the second word (RFC 792, RFC 1191).
    fn ipv4(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::PortUnreachable => (3, 3, 0),
            Self::TimeExceeded => (11, 0, 0),
            Self::TooBig { mtu } => (3, 4, u32::from(mtu)),
        }
    }

    /// Type, code and the second word (RFC 4443).
    fn ipv6(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::TimeExceeded => (3, 0, 0),
            Self::TooBig { mtu } => (2, 0, u32::from(mtu)),
        }
    }
}

/// Whether an error may be sent about the packet (RFC 1122, section 3.2.2).
pub(super) fn may_be_reported4(ip: &Ipv4) -> bool {
    let about_error = matches!(
        ip.transport,
        Transport::Icmp {
            kind: 3 | 4 | 5 | 11 | 12
        }
    );
    ip.fragment != Fragment::Later && !about_error
}

/// Whether an error may be sent about the packet (RFC 4443, section 2.4).
pub(super) fn may_be_reported6(ip: &Ipv6) -> bool {
    ip.fragment != Fragment::Later && ip.icmp_type().is_none_or(|kind| kind >= 128)
}

/// Turns a packet into the ICMP error about it, from the gateway's address.
pub(super) fn icmp4_error(
    frame: &mut Frame<'_>,
    gateway: ([u8; 6], u32),
    ip: &Ipv4,
    error: IcmpError,
) -> Option<()> {
    const HEADERS: usize = IPV4_HEADER_LEN + ICMP_HEADER_LEN;
    let to = mac_at(frame.bytes(), 6);
    let quoted = usize::from(ip.total_len).min(ICMPV4_ERROR_LEN - HEADERS);
    frame.truncate(ETHERNET_LEN + quoted);
    frame.grow_front(HEADERS)?;
    let bytes = frame.bytes_mut();
    write_ethernet(bytes, to, gateway.0, ETHERTYPE_IPV4);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(IPV4_HEADER_LEN);
    Ipv4Repr {
        src_addr: gateway.1.into(),
        dst_addr: ip.source.into(),
        next_header: IpProtocol::Icmp,
        payload_len: ICMP_HEADER_LEN + quoted,
        hop_limit: HOPS,
    }
    .emit(
        &mut Ipv4Packet::new_unchecked(header),
        &ChecksumCapabilities::default(),
    );
    write_icmp_header(message, error.ipv4());
    Icmpv4Packet::new_unchecked(message).fill_checksum();
    Some(())
}

/// Turns a packet into the ICMPv6 error about it, from the gateway's address.
pub(super) fn icmp6_error(
    frame: &mut Frame<'_>,
    gateway: ([u8; 6], u128),
    ip: &Ipv6,
    error: IcmpError,
) -> Option<()> {
    const HEADERS: usize = IPV6_HEADER_LEN + ICMP_HEADER_LEN;
    let to = mac_at(frame.bytes(), 6);
    let quoted = ip.total_len.min(ICMPV6_ERROR_LEN - HEADERS);
    frame.truncate(ETHERNET_LEN + quoted);
    frame.grow_front(HEADERS)?;
    let bytes = frame.bytes_mut();
    write_ethernet(bytes, to, gateway.0, ETHERTYPE_IPV6);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(IPV6_HEADER_LEN);
    let (from, to) = (gateway.1.into(), ip.source.into());
    Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: ICMP_HEADER_LEN + quoted,
        hop_limit: HOPS,
    }
    .emit(&mut Ipv6Packet::new_unchecked(header));
    write_icmp_header(message, error.ipv6());
    Icmpv6Packet::new_unchecked(message).fill_checksum(&from, &to);
    Some(())
}

fn write_icmp_header(message: &mut [u8], (kind, code, word): (u8, u8, u32)) {
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&word.to_be_bytes());
}
