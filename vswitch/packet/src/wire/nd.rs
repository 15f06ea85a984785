//! Neighbour Discovery's messages (RFC 4861): their form, and those that the gateway sends.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr,
    NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use super::ethernet::ETHERNET_LEN;
use super::field::{be128, dns_names, mac_at};
use super::icmp::HOPS;
use super::ipv6::Ipv6;
use super::transport::Fragment;
use super::{ethernet, ipv6};
use crate::addr;
use crate::frame::Frame;
use crate::number::{ethertype, icmpv6};
use crate::reason::DropReason;

/// The option that gives the source's MAC.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// The option that gives the target's MAC.
pub const TARGET_LINK_LAYER: u8 = 2;

/// An ND message whose form is sound.
#[derive(Debug)]
pub struct Message<'p> {
    body: &'p [u8],
    options_at: usize,
}

impl<'p> Message<'p> {
    /// Rows "IPv6 6", the first: everything about the form of types 133 to 137.
    pub fn parse(ip: &Ipv6, packet: &'p [u8]) -> Result<Self, DropReason> {
        use DropReason::NdMalformed;
        let body = ip.payload(packet);
        if ip.fragment != Fragment::Whole || ip.hop_limit != 255 || body.len() < 4 || body[1] != 0 {
            return Err(NdMalformed);
        }
        let options_at = match body[0] {
            icmpv6::ROUTER_SOLICITATION => 8,
            icmpv6::ROUTER_ADVERTISEMENT => 16,
            icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT => 24,
            _ => 40,
        };
        let mut options = body.get(options_at..).ok_or(NdMalformed)?;
        while let [kind, rest @ ..] = options {
            let len = usize::from(*rest.first().ok_or(NdMalformed)?) * 8;
            let link_layer = matches!(*kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER);
            if len == 0 || (link_layer && len != 8) {
                return Err(NdMalformed);
            }
            options = options.get(len..).ok_or(NdMalformed)?;
        }
        let message = Self { body, options_at };
        if options_at == 24 && addr::is_multicast6(message.target()) {
            return Err(NdMalformed);
        }
        let (source, destination) = (ip.source.into(), ip.destination.into());
        if !Icmpv6Packet::new_unchecked(body).verify_checksum(&source, &destination) {
            return Err(NdMalformed);
        }
        Ok(message)
    }

    /// The target of a solicitation or an advertisement of a neighbour.
    pub fn target(&self) -> u128 {
        be128(self.body, 8)
    }

    /// The addresses of every link-layer option of that kind.
    pub fn link_layer(&self, wanted: u8) -> impl Iterator<Item = [u8; 6]> + use<'p> {
        let mut options = self.body.get(self.options_at..).unwrap_or_default();
        std::iter::from_fn(move || {
            while let [kind, words, ..] = *options {
                let option = options;
                options = options
                    .get(usize::from(words).max(1) * 8..)
                    .unwrap_or_default();
                if kind == wanted && option.len() >= 8 {
                    return Some(mac_at(option, 2));
                }
            }
            None
        })
    }
}

/// The target of a well-formed Neighbor Solicitation or Neighbor Advertisement.
pub fn target(ip: &Ipv6, packet: &[u8]) -> Option<u128> {
    let body = ip.payload(packet);
    (body.len() >= 24).then(|| be128(body, 8))
}

/// Whether a well-formed Neighbor Advertisement replaces what is known of its target (RFC 4861,
/// section 4.4).
pub fn overrides(ip: &Ipv6, packet: &[u8]) -> bool {
    const OVERRIDE: u8 = 0x20;
    let flags = ip.payload(packet).get(4);
    flags.is_some_and(|flags| flags & OVERRIDE != 0)
}

/// The first target link-layer address of a well-formed Neighbor Advertisement.
pub fn target_link_layer(ip: &Ipv6, packet: &[u8]) -> Option<[u8; 6]> {
    first_link_layer(ip, packet, TARGET_LINK_LAYER)
}

/// The first source link-layer address of a well-formed Neighbor Solicitation.
pub fn source_link_layer(ip: &Ipv6, packet: &[u8]) -> Option<[u8; 6]> {
    first_link_layer(ip, packet, SOURCE_LINK_LAYER)
}

fn first_link_layer(ip: &Ipv6, packet: &[u8], kind: u8) -> Option<[u8; 6]> {
    let message = Message {
        body: ip.payload(packet),
        options_at: 24,
    };
    message.link_layer(kind).next()
}

/// The Ethernet and IPv6 addresses of a message.
struct Envelope {
    to_mac: [u8; 6],
    from_mac: [u8; 6],
    from: u128,
    to: u128,
}

/// Writes an ND message with its headers; the buffer must be `len_of(message)` bytes long.
fn write(bytes: &mut [u8], envelope: &Envelope, message: NdiscRepr<'_>) {
    let icmp = Icmpv6Repr::Ndisc(message);
    ethernet::write(bytes, envelope.to_mac, envelope.from_mac, ethertype::IPV6);
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
    let (head, body) = bytes[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN);
    header.emit(&mut Ipv6Packet::new_unchecked(head));
    let checksums = ChecksumCapabilities::default();
    icmp.emit(
        &from,
        &to,
        &mut Icmpv6Packet::new_unchecked(body),
        &checksums,
    );
}

fn len_of(message: &NdiscRepr<'_>) -> usize {
    ETHERNET_LEN + ipv6::HEADER_LEN + message.buffer_len()
}

/// Turns a Neighbor Solicitation into the advertisement that `own_mac` has the target, to all nodes
/// if it came from `::`. `None` if it does not fit.
pub fn advertise(
    frame: &mut Frame<'_>,
    own_mac: [u8; 6],
    ip: &Ipv6,
    target: u128,
    is_router: bool,
) -> Option<()> {
    let probe = ip.source == 0;
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::SOLICITED, !probe);
    flags.set(NdiscNeighborFlags::ROUTER, is_router);
    let message = NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target.into(),
        lladdr: Some(EthernetAddress(own_mac).into()),
    };
    let (to_mac, to) = if probe {
        (addr::group_mac(addr::ALL_NODES), addr::ALL_NODES)
    } else {
        (mac_at(frame.bytes(), 6), ip.source)
    };
    frame.resize(len_of(&message))?;
    let envelope = Envelope {
        to_mac,
        from_mac: own_mac,
        from: target,
        to,
    };
    write(frame.bytes_mut(), &envelope, message);
    Some(())
}

/// Writes a Neighbor Solicitation for `wanted` from the station `own`; returns the frame's length.
///
/// # Panics
/// If `bytes` are fewer than the frame.
pub fn solicit(bytes: &mut [u8], own: ([u8; 6], u128), wanted: u128) -> usize {
    let group = addr::solicited_node(wanted);
    let message = NdiscRepr::NeighborSolicit {
        target_addr: wanted.into(),
        lladdr: Some(EthernetAddress(own.0).into()),
    };
    let len = len_of(&message);
    let envelope = Envelope {
        to_mac: addr::group_mac(group),
        from_mac: own.0,
        from: own.1,
        to: group,
    };
    write(&mut bytes[..len], &envelope, message);
    len
}

/// How hosts may come by their addresses, as a router tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Autoconf {
    /// From DHCPv6 (M).
    pub managed: bool,
    /// Everything else from DHCPv6 (O).
    pub other: bool,
    /// By forming them from the prefix (A).
    pub prefix: bool,
}

/// How long routers and resolvers are believed (RFC 4861, section 6.2.1: AdvDefaultLifetime).
const ROUTER_LIFETIME_S: u32 = 1800;
/// The option of DNS servers (RFC 8106, section 5.1).
const DNS_SERVERS: u8 = 25;
/// The option of the domains in which short names are looked up (RFC 8106, section 5.2).
const SEARCH_DOMAINS: u8 = 31;

/// The most bytes of both; a tenant's file has no more.
const MAX_RESOLVER_OPTIONS: usize = 512;
/// The longest frame of a Router Advertisement, without a tag.
pub const MAX_ADVERTISEMENT_LEN: usize =
    ETHERNET_LEN + ipv6::HEADER_LEN + 64 + MAX_RESOLVER_OPTIONS;

/// Lays out what a router tells of name servers: an option of each kind of which there is any, in
/// units of 8 bytes. One that is too long is left out.
pub fn resolver_options(dns: &[Ipv6Addr], search: &[&str]) -> Box<[u8]> {
    let servers: Vec<u8> = dns.iter().flat_map(|ip| ip.octets()).collect();
    let values = [(DNS_SERVERS, servers), (SEARCH_DOMAINS, dns_names(search))];
    let mut options = Vec::new();
    for (kind, value) in values.iter().filter(|(_, value)| !value.is_empty()) {
        let units = 1 + value.len().div_ceil(8);
        let end = options.len() + units * 8;
        if end > MAX_RESOLVER_OPTIONS {
            continue;
        }
        options.extend([*kind, units as u8, 0, 0]);
        options.extend(ROUTER_LIFETIME_S.to_be_bytes());
        options.extend(value);
        options.resize(end, 0);
    }
    options.into()
}

/// What a gateway advertises of itself at one port.
#[derive(Debug, Clone, Copy)]
pub struct Advertisement<'o> {
    /// The gateway's MAC address there.
    pub mac: [u8; 6],
    /// The gateway's link-local address there.
    pub link_local: u128,
    /// The gateway's own address.
    pub gateway: u128,
    /// The length of its subnet's prefix.
    pub prefix_len: u8,
    /// The MTU of the port.
    pub mtu: u16,
    /// How the VM may come by its addresses.
    pub autoconf: Autoconf,
    /// Further options, as [`resolver_options`] lays them out.
    pub resolvers: &'o [u8],
}

impl Advertisement<'_> {
    /// RFC 4861, section 6.2.1: AdvDefaultLifetime and the prefix's lifetimes by their defaults.
    fn message(&self) -> NdiscRepr<'static> {
        let Autoconf {
            managed,
            other,
            prefix,
        } = self.autoconf;
        let mut flags = NdiscRouterFlags::empty();
        flags.set(NdiscRouterFlags::MANAGED, managed);
        flags.set(NdiscRouterFlags::OTHER, other);
        let mut of_prefix = NdiscPrefixInfoFlags::ON_LINK;
        of_prefix.set(NdiscPrefixInfoFlags::ADDRCONF, prefix);
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.prefix_len))
            .unwrap_or(0);
        NdiscRepr::RouterAdvert {
            hop_limit: HOPS,
            flags,
            router_lifetime: Duration::from_secs(ROUTER_LIFETIME_S.into()),
            reachable_time: Duration::ZERO,
            retrans_time: Duration::ZERO,
            lladdr: Some(EthernetAddress(self.mac).into()),
            mtu: Some(u32::from(self.mtu)),
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: self.prefix_len,
                flags: of_prefix,
                valid_lifetime: Duration::from_secs(2_592_000),
                preferred_lifetime: Duration::from_secs(604_800),
                prefix: (self.gateway & mask).into(),
            }),
        }
    }

    fn len(&self) -> usize {
        len_of(&self.message()) + self.resolvers.len()
    }

    /// Writes the whole; `bytes` are as long as it.
    fn write(&self, bytes: &mut [u8], to_mac: [u8; 6], to: u128) {
        let envelope = Envelope {
            to_mac,
            from_mac: self.mac,
            from: self.link_local,
            to,
        };
        let (packet, options) = bytes.split_at_mut(len_of(&self.message()));
        write(packet, &envelope, self.message());
        options.copy_from_slice(self.resolvers);
        let (header, body) = bytes[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN);
        Ipv6Packet::new_unchecked(header).set_payload_len(body.len() as u16);
        let (from, to) = (self.link_local.into(), to.into());
        Icmpv6Packet::new_unchecked(body).fill_checksum(&from, &to);
    }

    /// Turns a Router Solicitation into the advertisement. `None` if it does not fit.
    pub fn answer(&self, frame: &mut Frame<'_>, solicitation: &Ipv6) -> Option<()> {
        let to_mac = mac_at(frame.bytes(), 6);
        let to = if solicitation.source == 0 {
            addr::ALL_NODES
        } else {
            solicitation.source
        };
        frame.resize(self.len())?;
        self.write(frame.bytes_mut(), to_mac, to);
        Some(())
    }

    /// Writes the unsolicited advertisement; returns the frame's length.
    ///
    /// # Panics
    /// If `bytes` are fewer than the frame.
    pub fn announce(&self, bytes: &mut [u8]) -> usize {
        let len = self.len();
        let to = addr::ALL_NODES;
        self.write(&mut bytes[..len], addr::group_mac(to), to);
        len
    }
}
