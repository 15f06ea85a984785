//! Parse once: from bytes to a checked description of one packet.
//!
//! Everything that makes a packet malformed whatever its port is refused here, so that what comes
//! later reads fields and never lengths. Each function takes the bytes of its own layer and upwards.

use packet::DropReason;

pub(super) const ETHERNET_LEN: usize = 14;
pub(super) const TAG_LEN: usize = 4;
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_RARP: u16 = 0x8035;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// IANA protocol numbers.
pub(super) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NONE: u8 = 59;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const HIP: u8 = 139;
    pub(crate) const SHIM6: u8 = 140;
    /// The other upper layers that may end an IPv6 chain: RSVP, ESP, none, OSPF, EtherIP, PIM,
    /// IPComp, VRRP, SCTP, DCCP, UDP-Lite.
    pub(crate) const OTHER_UPPER: [u8; 11] = [46, 50, NONE, 89, 97, 103, 108, 112, 132, 33, 136];
}

/// Bytes that a reassembled packet may have.
const LONGEST_PACKET: usize = 65_535;

/// At most this many IPv6 extension headers.
const MAX_EXTENSION_HEADERS: usize = 8;

#[inline(always)]
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
pub(super) fn be128(bytes: &[u8], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(octets)
}

#[inline(always)]
pub(super) fn mac_at(bytes: &[u8], at: usize) -> [u8; 6] {
    let mut octets = [0; 6];
    octets.copy_from_slice(&bytes[at..at + 6]);
    octets
}

/// A frame that passed the Ethernet rows, and what it carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    /// The tag that was taken off, on a trunk port.
    pub(super) vid: Option<u16>,
    /// Whether the destination MAC has the group bit.
    pub(super) group: bool,
    pub(super) ip: Ip,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ip {
    Arp(Arp),
    /// An announce that the port may send; there is nothing to know of it.
    Rarp,
    V4(Ipv4),
    V6(Ipv6),
}

/// How a packet stands to its fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment {
    /// No fragment.
    Whole,
    /// IPv6 only: a fragment header, but offset 0 and no more to follow (RFC 6946).
    Atomic,
    /// Offset 0 and more to follow: it has the transport header.
    First,
    /// Another offset: nothing of the transport header is there.
    Later,
}

/// The part of the transport header that decisions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp {
        from: u16,
        to: u16,
    },
    Tcp,
    /// ICMP in IPv4 and ICMPv6 in IPv6.
    Icmp {
        kind: u8,
    },
    /// A protocol that is not read, or a fragment that has no transport header.
    Opaque,
}

impl Ip {
    /// The source address as a number; 0 where there is none.
    pub(super) fn source(&self) -> u128 {
        match self {
            Self::Arp(arp) => u128::from(arp.sender_ip),
            Self::Rarp => 0,
            Self::V4(ip) => u128::from(ip.source),
            Self::V6(ip) => ip.source,
        }
    }
}

/// ARP for Ethernet and IPv4 (RFC 826).
#[derive(Debug, Clone, Copy)]
pub(super) struct Arp {
    pub(super) request: bool,
    pub(super) sender_mac: [u8; 6],
    pub(super) sender_ip: u32,
    pub(super) target_ip: u32,
}

/// Bytes of an ARP packet.
pub(super) const ARP_LEN: usize = 28;

/// Rows "ARP 1": the fields that say what kind of packet this is.
pub(super) fn arp(bytes: &[u8]) -> Result<Arp, DropReason> {
    let head = bytes
        .first_chunk::<ARP_LEN>()
        .ok_or(DropReason::ArpMalformed)?;
    let opcode = be16(head, 6);
    if head[..6] != [0, 1, 8, 0, 6, 4] || !(1..=2).contains(&opcode) {
        return Err(DropReason::ArpMalformed);
    }
    Ok(Arp {
        request: opcode == 1,
        sender_mac: mac_at(head, 8),
        sender_ip: be32(head, 14),
        target_ip: be32(head, 24),
    })
}

/// An IPv4 packet whose header is sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv4 {
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) header_len: u8,
    pub(super) total_len: u16,
    pub(super) fragment: Fragment,
    pub(super) transport: Transport,
}

impl Ipv4 {
    /// UDP's ports: source, destination.
    #[inline(always)]
    pub(super) fn udp(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { from, to } => Some((from, to)),
            _ => None,
        }
    }

    /// The bytes behind the IP header.
    pub(super) fn payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet
            .get(usize::from(self.header_len)..usize::from(self.total_len))
            .unwrap_or_default()
    }
}

/// Rows "IPv4 1 to 4". `bytes` begin with the IP header and may end in padding.
#[inline(always)]
pub(super) fn ipv4(bytes: &[u8]) -> Result<Ipv4, DropReason> {
    use DropReason::Ipv4Malformed;
    let head = bytes.first_chunk::<20>().ok_or(Ipv4Malformed)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    let total_len = be16(head, 2);
    let whole = usize::from(total_len);
    if head[0] >> 4 != 4 || header_len < 20 || header_len > whole || whole > bytes.len() {
        return Err(Ipv4Malformed);
    }
    let (header, payload) = bytes[..whole].split_at(header_len);
    if !ipv4_checksum_holds(head, &header[20..]) {
        return Err(Ipv4Malformed);
    }
    let source_route = if header.len() > 20 {
        ipv4_options(&header[20..])?
    } else {
        false
    };
    let (source, destination) = (be32(head, 12), be32(head, 16));
    if is_martian(source, destination) {
        return Err(DropReason::Ipv4Martian);
    }
    if source_route {
        return Err(DropReason::Ipv4SourceRoute);
    }
    let protocol = head[9];
    let flags = be16(head, 6);
    let (offset, more) = (flags & 0x1fff, flags & 0x2000 != 0);
    let (fragment, transport) = if offset == 0 {
        let transport = match protocol {
            protocol::ICMP => transport_of::<8>(protocol, payload),
            _ => transport_of::<0>(protocol, payload),
        };
        match (transport, more) {
            (Some(transport), true) => (Fragment::First, transport),
            (Some(transport), false) => (Fragment::Whole, transport),
            (None, true) => return Err(DropReason::Ipv4Fragment),
            (None, false) => return Err(Ipv4Malformed),
        }
    } else if (protocol == protocol::TCP && offset == 1)
        || usize::from(offset) * 8 + payload.len() > LONGEST_PACKET
    {
        return Err(DropReason::Ipv4Fragment);
    } else {
        (Fragment::Later, Transport::Opaque)
    };
    Ok(Ipv4 {
        source,
        destination,
        ttl: head[8],
        protocol,
        header_len: header_len as u8,
        total_len,
        fragment,
        transport,
    })
}

/// The transport header, or `None` if it is cut off. `ICMP_LEN` is the shortest ICMP message, and 0
/// where this layer's ICMP has another protocol number.
#[inline(always)]
fn transport_of<const ICMP_LEN: usize>(protocol: u8, payload: &[u8]) -> Option<Transport> {
    match protocol {
        protocol::UDP => {
            let head = payload.first_chunk::<8>()?;
            Some(Transport::Udp {
                from: be16(head, 0),
                to: be16(head, 2),
            })
        }
        protocol::TCP => {
            let head = payload.first_chunk::<20>()?;
            let words = usize::from(head[12] >> 4);
            (words >= 5 && words * 4 <= payload.len()).then_some(Transport::Tcp)
        }
        _ if ICMP_LEN > 0 => {
            let head = payload.get(..ICMP_LEN)?;
            Some(Transport::Icmp { kind: head[0] })
        }
        _ => Some(Transport::Opaque),
    }
}

/// The one's complement sum over the header is all ones (RFC 1071).
fn ipv4_checksum_holds(head: &[u8; 20], options: &[u8]) -> bool {
    is_all_ones(ipv4_sum(head) + sum(options))
}

/// The same, of a header without options.
#[inline(always)]
pub(super) fn ipv4_sum_holds(head: &[u8; 20]) -> bool {
    is_all_ones(ipv4_sum(head))
}

/// The checksum of a header without options whose checksum field is zero, in memory's byte order.
#[cfg(test)]
pub(super) fn ipv4_header_sum(head: &[u8; 20]) -> u16 {
    !folded(ipv4_sum(head))
}

/// A sum folded to 16 bits, in memory's byte order.
#[inline(always)]
pub(super) fn folded(sum: u64) -> u16 {
    // After the first, 33 bits are left; then 18, 17 and 16.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum that a checksum is made of (RFC 1071), in memory's byte order; of an odd length, as if a zero byte
/// followed.
#[inline(always)]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_ne_bytes(last))
}

/// Sums do not care for byte order, so whole words are added as they lie in memory.
#[inline(always)]
fn ipv4_sum(head: &[u8; 20]) -> u64 {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            head[at],
            head[at + 1],
            head[at + 2],
            head[at + 3],
        ]))
    };
    word(0) + word(4) + word(8) + word(12) + word(16)
}

/// Whether the sum, folded to 16 bits, is all ones: folding keeps the remainder by 2^16 - 1, and of
/// the two numbers with remainder 0 the other is reached from a sum of 0 only, which no header has.
#[inline(always)]
fn is_all_ones(sum: u64) -> bool {
    sum.is_multiple_of(0xffff)
}

/// Takes one off the TTL of the IPv4 packet in an Ethernet frame, and corrects the header checksum
/// (RFC 1624, equation 3).
#[inline(always)]
pub(super) fn decrement_ttl(frame: &mut [u8], ttl: u8) {
    const TTL_AT: usize = ETHERNET_LEN + 8;
    let Some(head) = frame.first_chunk_mut::<{ ETHERNET_LEN + 20 }>() else {
        return;
    };
    let old = be16(head, TTL_AT);
    head[TTL_AT] = ttl - 1;
    adjust_checksum(head, ETHERNET_LEN + 10, old, old - 0x0100);
}

/// Corrects the checksum at `at` for a 16-bit word that changed (RFC 1624, equation 3).
#[inline(always)]
pub(super) fn adjust_checksum(bytes: &mut [u8], at: usize, old: u16, new: u16) {
    let sum = u32::from(!be16(bytes, at)) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Walks the options; says whether one is a source route.
fn ipv4_options(mut options: &[u8]) -> Result<bool, DropReason> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let mut source_route = false;
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END => break,
            NO_OPERATION => rest,
            kind => {
                let len = usize::from(*rest.first().ok_or(DropReason::Ipv4Malformed)?);
                if len < 2 {
                    return Err(DropReason::Ipv4Malformed);
                }
                source_route |= matches!(kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE);
                options.get(len..).ok_or(DropReason::Ipv4Malformed)?
            }
        };
    }
    Ok(source_route)
}

/// Row "IPv4 2".
#[inline(always)]
fn is_martian(source: u32, destination: u32) -> bool {
    let loopback = |address: u32| address >> 24 == 127;
    loopback(source)
        || source >> 28 == 0xe
        || source == u32::MAX
        || loopback(destination)
        || destination >> 24 == 0
        || (destination >> 28 == 0xf && destination != u32::MAX)
}

/// ::/96 and ::ffff:0:0/96: IPv4 addresses as IPv6, `::` and `::1`; no packet on a wire may have one
/// (RFC 4291, sections 2.5.2, 2.5.3 and 2.5.5).
#[inline(always)]
pub(super) fn is_embedded4(address: u128) -> bool {
    matches!(address >> 32, 0 | 0xffff)
}

/// Whether packets to the address may be routed at all: no martian, group or link-local address.
pub(super) fn is_unicast_destination4(address: u32) -> bool {
    !is_martian(0, address) && address >> 28 < 0xe && address >> 16 != 0xa9fe
}

/// An IPv6 packet whose header chain is sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ipv6 {
    pub(super) source: u128,
    pub(super) destination: u128,
    pub(super) hop_limit: u8,
    /// The upper layer; none (59) behind a fragment header with another offset than 0.
    pub(super) upper: u8,
    /// Where the upper layer begins, from the IPv6 header on.
    pub(super) upper_at: u16,
    /// The packet's length, the IPv6 header included.
    pub(super) total_len: usize,
    pub(super) fragment: Fragment,
    pub(super) transport: Transport,
}

impl Ipv6 {
    /// UDP's ports: source, destination.
    #[inline(always)]
    pub(super) fn udp(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { from, to } => Some((from, to)),
            _ => None,
        }
    }

    /// The ICMPv6 type.
    #[inline(always)]
    pub(super) fn icmp_type(&self) -> Option<u8> {
        match self.transport {
            Transport::Icmp { kind } => Some(kind),
            _ => None,
        }
    }

    /// The bytes of the upper layer.
    pub(super) fn payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet
            .get(usize::from(self.upper_at)..self.total_len)
            .unwrap_or_default()
    }
}

/// Rows "IPv6 1 and 2". `bytes` begin with the IPv6 header and may end in padding.
#[inline(always)]
pub(super) fn ipv6(bytes: &[u8]) -> Result<Ipv6, DropReason> {
    let head = bytes.first_chunk::<40>().ok_or(DropReason::Ipv6Malformed)?;
    let total_len = 40 + usize::from(be16(head, 4));
    if head[0] >> 4 != 6 || total_len > bytes.len() {
        return Err(DropReason::Ipv6Malformed);
    }
    let packet = &bytes[..total_len];
    let chain = ipv6_chain(head[6], packet)?;
    let transport = if chain.fragment == Fragment::Later {
        Transport::Opaque
    } else {
        let payload = &packet[chain.upper_at..];
        let transport = match chain.upper {
            protocol::ICMPV6 => transport_of::<4>(chain.upper, payload),
            _ => transport_of::<0>(chain.upper, payload),
        };
        transport.ok_or_else(|| chain.fragment.cut_off())?
    };
    Ok(Ipv6 {
        source: be128(head, 8),
        destination: be128(head, 24),
        hop_limit: head[7],
        upper: chain.upper,
        upper_at: chain.upper_at as u16,
        total_len,
        fragment: chain.fragment,
        transport,
    })
}

impl Fragment {
    /// The reason where an IPv6 header is cut off.
    fn cut_off(self) -> DropReason {
        match self {
            Self::First => DropReason::Ipv6Fragment,
            _ => DropReason::Ipv6Malformed,
        }
    }
}

struct Chain {
    upper: u8,
    upper_at: usize,
    fragment: Fragment,
}

/// Walks the extension headers of `packet` (RFC 8200, section 4), of which `next` is the first.
#[inline(always)]
fn ipv6_chain(mut next: u8, packet: &[u8]) -> Result<Chain, DropReason> {
    let mut at = 40;
    let mut fragment = Fragment::Whole;
    for header in 0..=MAX_EXTENSION_HEADERS {
        match next {
            protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
                return Ok(Chain {
                    upper: next,
                    upper_at: at,
                    fragment,
                });
            }
            protocol::IPV4 | protocol::IPV6 | protocol::GRE => {
                return Ok(Chain {
                    upper: next,
                    upper_at: at,
                    fragment,
                });
            }
            upper if protocol::OTHER_UPPER.contains(&upper) => {
                return Ok(Chain {
                    upper,
                    upper_at: at,
                    fragment,
                });
            }
            protocol::HOP_BY_HOP if header != 0 => return Err(DropReason::Ipv6Chain),
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
            | protocol::AUTHENTICATION
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6 => {}
            _ => return Err(DropReason::Ipv6Chain),
        }
        if header == MAX_EXTENSION_HEADERS {
            break;
        }
        if next == protocol::FRAGMENT && fragment != Fragment::Whole {
            return Err(DropReason::Ipv6Chain);
        }
        let head = packet[at..]
            .first_chunk::<8>()
            .ok_or_else(|| fragment.cut_off())?;
        let len = match next {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        if packet.len() - at < len {
            return Err(fragment.cut_off());
        }
        match next {
            protocol::ROUTING if head[2] == 0 => return Err(DropReason::Ipv6Chain),
            protocol::FRAGMENT => {
                let field = be16(head, 2);
                if usize::from(field & !7) + (packet.len() - at - len) > LONGEST_PACKET {
                    return Err(DropReason::Ipv6Fragment);
                }
                fragment = match (field >> 3, field & 1) {
                    (0, 0) => Fragment::Atomic,
                    (0, _) => Fragment::First,
                    _ => {
                        let fragment = Fragment::Later;
                        return Ok(Chain {
                            upper: protocol::NONE,
                            upper_at: at + len,
                            fragment,
                        });
                    }
                };
            }
            _ => {}
        }
        next = head[0];
        at += len;
    }
    Err(DropReason::Ipv6Chain)
}

/// BOOTP's fixed part with the magic cookie (RFC 2131), as far as decisions need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bootp {
    pub(super) request: bool,
    pub(super) xid: u32,
    /// The relay agent's address (`giaddr`).
    pub(super) relay: u32,
    pub(super) your_ip: u32,
    pub(super) client_mac: [u8; 6],
}

impl Bootp {
    /// Bytes up to and with the magic cookie.
    pub(super) const LEN: usize = 240;

    /// Reads the UDP payload of a DHCP message for an Ethernet client.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let head = payload.first_chunk::<{ Self::LEN }>()?;
        let ethernet = head[1] == 1 && head[2] == 6;
        let cookie = head[236..240] == [0x63, 0x82, 0x53, 0x63];
        ((1..=2).contains(&head[0]) && ethernet && cookie).then(|| Self {
            request: head[0] == 1,
            xid: be32(head, 4),
            relay: be32(head, 24),
            your_ip: be32(head, 16),
            client_mac: mac_at(head, 28),
        })
    }

    /// The value of a DHCP option behind the cookie; the walk ends at the packet's end.
    pub(super) fn option(payload: &[u8], wanted: u8) -> Option<&[u8]> {
        let mut options = payload.get(Self::LEN..)?;
        loop {
            options = match options {
                [0, rest @ ..] => rest,
                [255, ..] | [] => return None,
                [kind, len, rest @ ..] => {
                    let value = rest.get(..usize::from(*len))?;
                    if *kind == wanted {
                        return Some(value);
                    }
                    &rest[usize::from(*len)..]
                }
                [_] => return None,
            };
        }
    }
}
