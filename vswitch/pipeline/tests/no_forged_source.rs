//! Properties of every frame that leaves, checked without the model: it has no source that its port
//! lacks, goes to the owner of its destination, and is the frame that came in. Headers are read
//! with `etherparse`, a parser that is not the switch's.

mod oracle;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Ethernet2Slice, Ipv4HeaderSlice, Ipv6HeaderSlice};
use ipnet::IpNet;
use oracle::answers::untagged;
use oracle::configs;
use oracle::generate::{self, Chance, Choices, Sent};
use oracle::lease_story::{Event, World};
use oracle::rows;
use oracle::trial::{SECOND_NS, Switch, hex};
use pipeline::{DropReason, PortId, Verdict};
use proptest::prelude::*;
use tenant_config::{Addresses, MacAddr, PortConfig, SwitchConfig, TunnelKind};

/// A frame as it lies on the wire: MACs, at most one 802.1Q tag, and the IP packet without padding.
#[derive(Debug)]
struct Wire {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    packet: Vec<u8>,
    /// What lies behind the packet.
    padding: usize,
}

/// Reads `bytes`; `None` where they hold no IP packet.
fn read(bytes: &[u8]) -> Option<Wire> {
    let untagged = oracle::answers::untagged(bytes);
    let ethernet = Ethernet2Slice::from_slice_without_fcs(&untagged).ok()?;
    let payload = ethernet.payload_slice();
    let (source, destination, hop_limit, length): (IpAddr, IpAddr, u8, usize) =
        match ethernet.ether_type().0 {
            0x0800 => {
                let ip = Ipv4HeaderSlice::from_slice(payload).ok()?;
                (
                    ip.source_addr().into(),
                    ip.destination_addr().into(),
                    ip.ttl(),
                    ip.total_len().into(),
                )
            }
            0x86dd => {
                let ip = Ipv6HeaderSlice::from_slice(payload).ok()?;
                (
                    ip.source_addr().into(),
                    ip.destination_addr().into(),
                    ip.hop_limit(),
                    40 + usize::from(ip.payload_length()),
                )
            }
            _ => return None,
        };
    Some(Wire {
        source_mac: ethernet.source(),
        destination_mac: ethernet.destination(),
        source,
        destination,
        hop_limit,
        packet: payload.get(..length)?.to_vec(),
        padding: payload.len() - length,
    })
}

impl Wire {
    /// The packet without what a router may change: hop limit and IPv4 header checksum.
    fn unchanging(&self) -> Vec<u8> {
        let mut packet = self.packet.clone();
        if self.source.is_ipv4() {
            packet[8] = 0;
            packet[10..12].fill(0);
        } else {
            packet[7] = 0;
        }
        packet
    }

    /// The same without what differs where a client asks DHCP servers: BOOTP's broadcast flag, and
    /// UDP's checksum.
    fn unasked(&self) -> Vec<u8> {
        let mut packet = self.unchanging();
        let udp = usize::from(packet[0] & 0x0f) * 4;
        if self.source.is_ipv4() && packet.get(udp..udp + 2) == Some(&[0, 68]) {
            packet[udp + 6..udp + 8].fill(0);
            packet[udp + 18] &= 0x7f;
        }
        packet
    }
}

/// Whether it is a fragment of what came, where the switch may fragment it.
fn is_fragment(config: &SwitchConfig, came: &Wire, leaves: &Wire) -> bool {
    let may = config.uplink.as_ref().is_some_and(|uplink| uplink.fragment);
    let (came, leaves) = (&came.packet, &leaves.packet);
    let is_ipv4 = came[0] >> 4 == 4 && leaves[0] >> 4 == 4;
    if !may || !is_ipv4 || came[6] & 0x40 != 0 || leaves.len() >= came.len() {
        return false;
    }
    let data = |packet: &[u8]| usize::from(packet[0] & 0x0f) * 4;
    let offset = |packet: &[u8]| usize::from(packet[6] & 0x1f) << 8 | usize::from(packet[7]);
    let Some(begin) = offset(leaves).checked_sub(offset(came)) else {
        return false;
    };
    let part = came[data(came)..].get(begin * 8..);
    let rest = leaves.get(data(leaves)..).unwrap_or_default();
    // The identification, the protocol and the addresses.
    [4..6, 9..10, 12..20]
        .into_iter()
        .all(|at| came[at.clone()] == leaves[at])
        && part.is_some_and(|part| part.starts_with(rest))
}

/// Whether a receiver would take another source or destination from the packet than its header's: a
/// source route, a routing header with segments left, a home address, or a protocol that binds
/// addresses.
fn has_second_address(wire: &Wire) -> bool {
    let packet = &wire.packet;
    if wire.source.is_ipv4() {
        let header = packet
            .first()
            .map_or(0, |first| usize::from(first & 0x0f) * 4);
        let mut options = packet.get(20..header).unwrap_or_default();
        while let [kind, rest @ ..] = options {
            if matches!(kind, 131 | 137) {
                return true;
            }
            let length = match kind {
                0 => return false,
                1 => 1,
                _ => usize::from(*rest.first().unwrap_or(&255)),
            };
            options = options.get(length.max(1)..).unwrap_or_default();
        }
        return matches!(packet.get(9), Some(135 | 139 | 140));
    }
    let (mut number, mut at) = (packet[6], 40);
    while let (0 | 43 | 44 | 51 | 60, Some([next, units, ..])) = (number, packet.get(at..)) {
        let length = match number {
            44 => 8,
            51 => (usize::from(*units) + 2) * 4,
            _ => (usize::from(*units) + 1) * 8,
        };
        let Some(header) = packet.get(at..at + length) else {
            return false;
        };
        let routed = number == 43 && header[3] > 0;
        let mut options = if matches!(number, 0 | 60) {
            &header[2..]
        } else {
            &[][..]
        };
        let mut home = false;
        while let [kind, rest @ ..] = options {
            home |= *kind == 201;
            let length = rest.first().map_or(0, |length| usize::from(*length) + 1);
            let length = if *kind == 0 { 0 } else { length };
            options = rest.get(length..).unwrap_or_default();
        }
        if routed || home {
            return true;
        }
        if number == 44 && u16::from_be_bytes([header[2], header[3]]) > 7 {
            return false;
        }
        (number, at) = (*next, at + length);
    }
    matches!(number, 135 | 139 | 140)
}

/// Whether a packet is UDP as a DHCPv6 server sends it to its clients.
fn is_dhcpv6_answer(wire: &Wire) -> bool {
    if wire.source.is_ipv4() {
        return false;
    }
    let upper = oracle::answers::behind_extensions(wire.packet[6], &wire.packet[40..]);
    let Some((17, [a, b, c, d, ..])) = upper else {
        return false;
    };
    u16::from_be_bytes([*a, *b]) == 547 || u16::from_be_bytes([*c, *d]) == 546
}

/// What the file gives a port: its addresses, and what is behind it.
fn nets_of(port: &PortConfig) -> impl Iterator<Item = &IpNet> {
    let prefixes = match &port.addresses {
        Addresses::Static(prefixes) => &prefixes[..],
        Addresses::Learned(_) => &[],
    };
    prefixes.iter().chain(&port.routes)
}

fn has(port: &PortConfig, address: IpAddr) -> bool {
    nets_of(port).any(|net| net.contains(&address)) || port.shared.contains(&address)
}

/// Checks each copy of what `sent` became.
fn check_copies(config: &SwitchConfig, sent: &Sent, switch: &Switch) -> Result<(), TestCaseError> {
    let mut receivers = std::collections::BTreeSet::new();
    for (to, left) in switch.copies() {
        prop_assert!(receivers.insert(*to), "two copies to {to}");
        check_forwarded(config, sent, *to, left)?;
    }
    prop_assert!(receivers.len() > 1);
    Ok(())
}

fn is_broadcast(config: &SwitchConfig, wire: &Wire) -> bool {
    let subnet = config.gateway.ipv4.map(|net| IpAddr::V4(net.broadcast()));
    wire.destination == Ipv4Addr::BROADCAST || Some(wire.destination) == subnet
}

/// Whether the file allows the group or broadcast that the packet goes to.
fn is_to_group(config: &SwitchConfig, wire: &Wire) -> bool {
    let mut groups = config.multicast.groups.prefixes().iter();
    let broadcasts = tenant_config::BroadcastUse::Allow;
    (wire.destination.is_multicast() && groups.any(|net| net.contains(&wire.destination)))
        || (is_broadcast(config, wire)
            && config.multicast.broadcast == broadcasts
            && wire.destination_mac == [0xff; 6])
}

/// Whether it is a client's packet to all servers.
fn is_to_servers(config: &SwitchConfig, wire: &Wire) -> bool {
    let all_agents: IpAddr = "ff02::1:2".parse().expect("an address");
    is_broadcast(config, wire) || wire.destination == all_agents
}

/// Checks what `sent` became and was given to port `to`.
fn check_forwarded(
    config: &SwitchConfig,
    sent: &Sent,
    to: usize,
    left: &[u8],
) -> Result<(), TestCaseError> {
    let came = read(&sent.bytes).ok_or_else(|| TestCaseError::fail("forwarded, but no IP"))?;
    let leaves = read(left).ok_or_else(|| TestCaseError::fail("no IP packet leaves"))?;
    let octets = |mac: &MacAddr| mac.octets();
    let from_port = config.ports.get(sent.from);
    let to_port = config.ports.get(to);
    let own_mac = oracle::answers::side(config, to);

    prop_assert_ne!(sent.from, to, "back to where it came from");
    if is_to_servers(config, &came) && to_port.is_some_and(|port| port.dhcp_server) {
        prop_assert_eq!(leaves.unasked(), came.unasked(), "another packet");
    } else if to_port.is_some() || !is_fragment(config, &came, &leaves) {
        prop_assert_eq!(leaves.unchanging(), came.unchanging(), "another packet");
    }
    prop_assert_eq!(leaves.padding, 0, "padding leaves");
    prop_assert!(!has_second_address(&leaves), "a second address leaves");
    prop_assert_eq!(
        leaves.source_mac,
        own_mac.octets(),
        "from a MAC that is not the switch's"
    );
    prop_assert_eq!(
        leaves.hop_limit,
        came.hop_limit - u8::from(to_port.is_none()),
        "a hop limit other than one less towards the uplink, and else the same"
    );
    if leaves.source.is_ipv4() {
        let header = usize::from(leaves.packet[0] & 0x0f) * 4;
        let sum = oracle::frames::checksum(&leaves.packet[..header]);
        prop_assert_eq!(sum, 0, "a wrong header checksum leaves");
    }

    // No forged source.
    let mut dhcp = false;
    match from_port {
        Some(port) => {
            let mut own_macs = port.extra_macs.iter().chain([&port.mac]).map(octets);
            prop_assert!(own_macs.any(|mac| mac == came.source_mac), "a forged MAC");
            let link_local = IpAddr::V6(port.mac.link_local());
            let own = has(port, leaves.source) || leaves.source == link_local;
            dhcp = leaves.source == Ipv4Addr::UNSPECIFIED
                && to_port.is_some_and(|server| server.dhcp_server)
                || port.dhcp_server && leaves.source.is_ipv4();
            prop_assert!(own || dhcp, "a forged source: {}", leaves.source);
        }
        None => {
            let gateway = &config.gateway;
            let inside = config.ports.iter().any(|port| has(port, leaves.source))
                || gateway.ipv4.is_some_and(|net| leaves.source == net.addr())
                || gateway.ipv6.is_some_and(|net| leaves.source == net.addr())
                || leaves.source.is_unspecified()
                || leaves.source.is_multicast()
                || leaves.source.is_loopback();
            prop_assert!(!inside, "from outside as one inside: {}", leaves.source);
        }
    }

    // To its owner only.
    match to_port {
        Some(port) => {
            if is_to_group(config, &leaves) {
                prop_assert_eq!(leaves.destination_mac, came.destination_mac);
                prop_assert_eq!(leaves.destination_mac[0] & 1, 1, "a group's MAC");
                prop_assert!(leaves.packet.len() <= usize::from(port.mtu), "too large");
                return Ok(());
            }
            let mut macs = vec![port.mac.octets()];
            if port.shared.contains(&leaves.destination) {
                macs.extend(port.extra_macs.iter().map(octets));
            }
            prop_assert!(macs.contains(&leaves.destination_mac), "to another's MAC");
            let to_servers = port.dhcp_server && is_to_servers(config, &leaves);
            let dhcp = dhcp || to_servers;
            let answered = from_port.is_some_and(|server| server.dhcp_server)
                && is_dhcpv6_answer(&leaves)
                && leaves.destination == IpAddr::V6(port.mac.link_local());
            let own = has(port, leaves.destination) || answered;
            prop_assert!(own || dhcp, "{} is not the port's", leaves.destination);
            prop_assert!(leaves.packet.len() <= usize::from(port.mtu), "too large");
        }
        None => {
            let underlay = config.uplink.as_ref().expect("an uplink");
            let on_underlay = underlay
                .ipv4
                .is_some_and(|net| net_has(net.into(), &leaves))
                || underlay
                    .ipv6
                    .is_some_and(|net| net_has(net.into(), &leaves));
            let allowed = underlay.allow.iter().any(|net| net_has(*net, &leaves));
            prop_assert!(
                !on_underlay || allowed,
                "{} is the underlay's",
                leaves.destination
            );
            prop_assert!(
                !leaves.destination.is_multicast(),
                "a group's packet leaves"
            );
            prop_assert!(
                leaves.packet.len() <= usize::from(underlay.mtu),
                "too large"
            );
        }
    }
    Ok(())
}

fn net_has(net: ipnet::IpNet, wire: &Wire) -> bool {
    net.contains(&wire.destination)
}

// # Through the tunnel

/// A tunnel packet: whom it is from and to on the underlay, and the frame inside.
#[derive(Debug)]
struct Tunnelled {
    from: IpAddr,
    to: IpAddr,
    inner: Vec<u8>,
}

/// Reads `bytes` as a packet of the tenant's tunnel; `None` where they are something else.
fn tunnelled(config: &SwitchConfig, bytes: &[u8]) -> Option<Tunnelled> {
    let tunnel = config.tunnel.as_ref()?;
    let outer = read(bytes)?;
    let (protocol, datagram) = match outer.source {
        IpAddr::V4(_) => {
            let header = usize::from(outer.packet[0] & 0x0f) * 4;
            (outer.packet[9], outer.packet.get(header..)?)
        }
        IpAddr::V6(_) => oracle::answers::behind_extensions(outer.packet[6], &outer.packet[40..])?,
    };
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *datagram.get(at)?,
            *datagram.get(at + 1)?,
        ]))
    };
    if protocol != 17 || word(2)? != tunnel.port {
        return None;
    }
    let datagram = datagram.get(..usize::from(word(4)?))?;
    let options = match tunnel.kind {
        TunnelKind::Vxlan => 0,
        TunnelKind::Geneve => usize::from(datagram.get(8)? & 0x3f) * 4,
    };
    Some(Tunnelled {
        from: outer.source,
        to: outer.destination,
        inner: datagram.get(16 + options..)?.to_vec(),
    })
}

/// Who has an address inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Port(usize),
    Peer(usize),
    None,
}

fn owner(config: &SwitchConfig, address: IpAddr) -> Owner {
    // Link-local addresses are behind no peer, even if it has ::/0.
    if matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return Owner::None;
    }
    let ports = config.ports.iter().enumerate();
    let ports =
        ports.flat_map(|(number, port)| nets_of(port).map(move |net| (net, Owner::Port(number))));
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let peers = peers.enumerate().flat_map(|(number, peer)| {
        let prefixes = peer.prefixes.iter();
        prefixes.map(move |net| (net, Owner::Peer(number)))
    });
    let has_it = ports.chain(peers).filter(|(net, _)| net.contains(&address));
    let longest = has_it.max_by_key(|(net, _)| net.prefix_len());
    longest.map_or(Owner::None, |(_, owner)| owner)
}

/// Whether both are one packet, but for a router's fields, ECN, and TCP's maximum segment size with
/// its checksum.
fn is_same(config: &SwitchConfig, came: &Wire, leaves: &Wire) -> bool {
    let (mut came, mut leaves) = (came.unchanging(), leaves.unchanging());
    for packet in [&mut came, &mut leaves] {
        let (at, ecn) = if packet[0] >> 4 == 4 {
            (1, 0x03)
        } else {
            (1, 0x30)
        };
        packet[at] &= !ecn;
    }
    let differ = came.iter().zip(&leaves).filter(|(a, b)| a != b).count();
    let clamped = config
        .tunnel
        .as_ref()
        .is_some_and(|tunnel| tunnel.mss_clamp);
    // Two such options at most are in these frames.
    came.len() == leaves.len() && differ <= if clamped { 6 } else { 0 }
}

/// Checks the outcome for a frame of a tenant with a tunnel.
fn check_with_tunnel(
    config: &SwitchConfig,
    sent: &Sent,
    verdict: Verdict,
    left: &[u8],
) -> Result<(), TestCaseError> {
    if let Verdict::Drop(_) = verdict {
        return Ok(());
    }
    let uplink = config.ports.len();
    let tunnel = config.tunnel.as_ref().expect("a tunnel");
    let came = tunnelled(config, &sent.bytes).filter(|came| came.to == tunnel.vtep);
    let enters = tunnelled(config, left).filter(|outer| outer.from == tunnel.vtep);
    match (verdict, came, enters) {
        (Verdict::Forward(to), Some(outer), _) if sent.from == uplink => {
            check_decapsulated(config, to, &outer, left)
        }
        (Verdict::Forward(to), _, Some(outer)) if to.index() == uplink => {
            check_encapsulated(config, sent, &outer, left)
        }
        (Verdict::Reply, Some(asked), _) if sent.from == uplink => {
            check_tunnel_answer(config, &asked, left)
        }
        (Verdict::Forward(to), ..) => check_beside_tunnel(config, sent, to, left),
        _ => check_back(config, sent.from, left),
    }
}

/// Checks what left the tunnel for port `to`.
fn check_decapsulated(
    config: &SwitchConfig,
    to: PortId,
    outer: &Tunnelled,
    left: &[u8],
) -> Result<(), TestCaseError> {
    let uplink = config.ports.len();
    let tunnel = config.tunnel.as_ref().expect("a tunnel");
    prop_assert!(
        to.index() < uplink,
        "what came from the uplink leaves by it"
    );
    let inner = read(&outer.inner).ok_or_else(|| TestCaseError::fail("no IP inside"))?;
    let leaves = read(left).ok_or_else(|| TestCaseError::fail("no IP packet leaves"))?;
    prop_assert!(is_same(config, &inner, &leaves), "another packet");
    prop_assert!(!has_second_address(&leaves), "a second address comes out");
    prop_assert_eq!(inner.hop_limit, leaves.hop_limit);
    prop_assert_eq!(leaves.padding, 0, "padding leaves");
    let to_group = leaves.destination.is_multicast() && is_to_group(config, &leaves);
    match owner(config, leaves.source) {
        Owner::Peer(peer) => {
            let peer = &tunnel.peers[peer];
            let is_its = peer.vtep == outer.from || peer.sources.contains(&outer.from);
            prop_assert!(is_its, "another peer's source");
        }
        _ => {
            let on_link = matches!(leaves.source, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let mut peers = tunnel.peers.iter();
            let is_peers =
                peers.any(|it| it.vtep == outer.from || it.sources.contains(&outer.from));
            prop_assert!(to_group && on_link && is_peers, "a source that no peer has");
        }
    }
    let port = &config.ports[to.index()];
    if to_group {
        prop_assert_eq!(leaves.destination_mac, inner.destination_mac);
    } else {
        prop_assert_eq!(owner(config, leaves.destination), Owner::Port(to.index()));
        prop_assert_eq!(leaves.destination_mac, port.mac.octets());
    }
    prop_assert_eq!(leaves.source_mac, port.gateway_mac.octets());
    prop_assert!(leaves.packet.len() <= usize::from(port.mtu), "too large");
    Ok(())
}

/// Checks what a port sent into the tunnel.
fn check_encapsulated(
    config: &SwitchConfig,
    sent: &Sent,
    outer: &Tunnelled,
    left: &[u8],
) -> Result<(), TestCaseError> {
    let uplink = config.ports.len();
    let tunnel = config.tunnel.as_ref().expect("a tunnel");
    prop_assert!(sent.from < uplink, "what came from the uplink leaves by it");
    let whole = read(left).expect("a packet of the tunnel");
    let mtu = config.uplink.as_ref().expect("an uplink").mtu;
    prop_assert!(whole.packet.len() <= usize::from(mtu), "too large");
    prop_assert_eq!(whole.padding, 0);
    let came = read(&sent.bytes).ok_or_else(|| TestCaseError::fail("forwarded, but no IP"))?;
    let inner = read(&outer.inner).ok_or_else(|| TestCaseError::fail("no IP inside"))?;
    let is_part = is_fragment(config, &came, &inner);
    prop_assert!(is_part || is_same(config, &came, &inner), "another packet");
    prop_assert!(!has_second_address(&inner), "a second address goes in");
    prop_assert_eq!(came.hop_limit, inner.hop_limit);
    prop_assert_eq!(inner.padding, 0, "padding leaves");
    let port = &config.ports[sent.from];
    prop_assert_eq!(inner.source_mac, tunnel.mac.octets());
    if inner.destination.is_multicast() && is_to_group(config, &inner) {
        let link_local = IpAddr::V6(port.mac.link_local());
        let own = has(port, inner.source) || inner.source == link_local;
        prop_assert!(own, "a forged source to a group");
        prop_assert_eq!(inner.destination_mac, came.destination_mac);
        return Ok(());
    }
    prop_assert!(has(port, inner.source), "a forged source");
    let Owner::Peer(peer) = owner(config, inner.destination) else {
        return Err(TestCaseError::fail("to an unowned address behind a peer"));
    };
    let peer = &tunnel.peers[peer];
    prop_assert_eq!(outer.to, peer.vtep, "to another peer");
    prop_assert_eq!(inner.destination_mac, peer.mac.octets());
    Ok(())
}

/// Checks an answer to a frame that came through the tunnel.
fn check_tunnel_answer(
    config: &SwitchConfig,
    asked: &Tunnelled,
    left: &[u8],
) -> Result<(), TestCaseError> {
    let tunnel = config.tunnel.as_ref().expect("a tunnel");
    let outer = tunnelled(config, left);
    let outer = outer.ok_or_else(|| TestCaseError::fail("an answer beside the tunnel"))?;
    prop_assert_eq!(outer.from, asked.to);
    let mut peers = tunnel.peers.iter();
    let to_sender = peers.any(|it| {
        it.vtep == outer.to && (it.vtep == asked.from || it.sources.contains(&asked.from))
    });
    prop_assert!(to_sender, "an answer to another endpoint");
    prop_assert_eq!(&outer.inner[..6], &asked.inner[6..12], "not to the sender");
    prop_assert_eq!(&outer.inner[6..12], &tunnel.mac.octets());
    let gateway = &config.gateway;
    let own = [
        gateway.ipv4.map(|net| IpAddr::V4(net.addr())),
        gateway.ipv6.map(|net| IpAddr::V6(net.addr())),
    ];
    if let Some(answer) = read(&outer.inner) {
        let advertised = IpAddr::V6(tunnel.mac.link_local());
        let solicited = read(&asked.inner).map(|asked| asked.source);
        prop_assert!(
            solicited == Some(answer.destination),
            "to {}",
            answer.destination
        );
        let target = answer.packet.get(48..64).filter(|_| answer.packet[6] == 58);
        let target = target.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        prop_assert!(
            own.contains(&Some(answer.source))
                || answer.source == advertised
                || target.is_some_and(|target| answer.source == IpAddr::from(target)),
            "an answer from {}",
            answer.source
        );
    } else {
        // ARP: a reply of the gateway's or a port's address.
        prop_assert_eq!(&outer.inner[12..22], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        let reported: [u8; 4] = outer.inner[28..32].try_into().expect("four bytes");
        let reported = IpAddr::from(reported);
        let port = matches!(owner(config, reported), Owner::Port(_));
        prop_assert!(port || own.contains(&Some(reported)), "ARP for {reported}");
    }
    Ok(())
}

/// Checks what a tenant with a tunnel forwards outside it.
fn check_beside_tunnel(
    config: &SwitchConfig,
    sent: &Sent,
    to: PortId,
    left: &[u8],
) -> Result<(), TestCaseError> {
    let uplink = config.ports.len();
    let tunnel = config.tunnel.as_ref().expect("a tunnel");
    let leaves = read(left).ok_or_else(|| TestCaseError::fail("no IP packet leaves"))?;
    let plain = sent.from == uplink || to.index() == uplink;
    prop_assert!(!(plain && tunnel.only), "in plain, with only");
    let to_group = is_to_group(config, &leaves);
    let destination = Some(leaves.destination).filter(|_| !to_group);
    for address in [Some(leaves.source), destination].into_iter().flatten() {
        let behind = matches!(owner(config, address), Owner::Peer(_));
        prop_assert!(!behind, "{address} is behind a peer");
    }
    check_forwarded(config, sent, to.index(), left)
}

/// Checks an answer or ICMP error that goes back to port `from`.
fn check_back(config: &SwitchConfig, from: usize, back: &[u8]) -> Result<(), TestCaseError> {
    let own_mac = oracle::answers::side(config, from);
    prop_assert_eq!(&back[6..12], own_mac.octets(), "an answer from another MAC");
    let Some(answer) = read(back) else {
        return Ok(()); // ARP: its sender is checked where answers are.
    };
    prop_assert!(!answer.source.is_unspecified() && !answer.source.is_multicast());
    let other = config.ports.iter().enumerate().any(|(number, port)| {
        number != from && answer.destination == IpAddr::V6(port.mac.link_local())
    });
    prop_assert!(!other, "an answer to another port's station");
    prop_assert_eq!(answer.padding, 0, "something lies behind the answer");
    prop_assert!(!has_second_address(&answer), "a second address goes back");
    Ok(())
}

/// What servers have granted to ports, by their frames alone: for each port and address, until
/// when.
#[derive(Default)]
struct Granted(BTreeMap<(usize, Ipv4Addr), u64>);

impl Granted {
    /// Notes a server's acknowledgement that left for port `to`: BOOTREPLY, option 53 = 5, and the
    /// time of option 51, which this file's servers write in that order.
    fn note(&mut self, config: &SwitchConfig, to: usize, left: &[u8], now_ns: u64) {
        let left = untagged(left);
        let Some(message) = left.get(42..).filter(|_| left[34..38] == [0, 67, 0, 68]) else {
            return;
        };
        let [53, 1, 5, 54, 4, _, _, _, _, 51, 4, a, b, c, d, ..] = message[240..] else {
            return;
        };
        let learns = matches!(config.ports[to].addresses, Addresses::Learned(_));
        if message[0] == 2 && learns {
            let yours = <[u8; 4]>::try_from(&message[16..20]).expect("four bytes");
            let seconds = u32::from_be_bytes([a, b, c, d]);
            let until_ns = now_ns + u64::from(seconds) * SECOND_NS;
            let ends = self.0.entry((to, yours.into())).or_default();
            *ends = until_ns.max(*ends);
        }
    }

    /// Forgets what ports had that have another MAC or no longer learn.
    fn keep(&mut self, old: &SwitchConfig, new: &SwitchConfig) {
        let learns = |port: usize| matches!(new.ports[port].addresses, Addresses::Learned(_));
        let same = |port: usize| old.ports[port].mac == new.ports[port].mac;
        self.0.retain(|(port, _), _| learns(*port) && same(*port));
    }

    /// The configuration in which a learning port has what it was granted.
    fn known(&self, config: &SwitchConfig, now_ns: u64) -> SwitchConfig {
        let mut config = config.clone();
        for (number, port) in config.ports.iter_mut().enumerate() {
            if let Addresses::Learned(_) = port.addresses {
                let mine = self
                    .0
                    .iter()
                    .filter(|((port, _), until_ns)| *port == number && now_ns < **until_ns);
                let nets = mine.map(|((_, address), _)| IpAddr::from(*address).into());
                port.addresses = Addresses::Static(nets.collect());
            }
        }
        config
    }
}

/// What ports have claimed, by their frames alone: the first that detects a free address has it, or
/// that sends RS, NS or DHCPv6 from it. Nobody falls silent here for long enough to lose one.
#[derive(Default)]
struct Claimed(BTreeMap<Ipv6Addr, usize>);

impl Claimed {
    /// Notes a frame that the switch did not refuse.
    fn note(&mut self, config: &SwitchConfig, sent: &Sent, verdict: Verdict) {
        let (Some(port), Some(wire)) = (config.ports.get(sent.from), read(&sent.bytes)) else {
            return;
        };
        use DropReason::*;
        // Refused behind the filter and storm control.
        let accepted = match verdict {
            Verdict::Drop(reason) => matches!(
                reason,
                Absorbed
                    | NdUnknown
                    | DstMac
                    | DhcpNoServer
                    | DhcpIdentity
                    | Multicast
                    | LinkLocalIp
                    | RouteNone
                    | Underlay
                    | Mtu
                    | HolderUnknown
                    | RateMulticast
                    | NoMember
            ),
            Verdict::DropWithError(reason) => reason != NdSpoof,
            Verdict::Forward(_) | Verdict::Copies | Verdict::Reply => true,
        };
        let IpAddr::V6(source) = wire.source else {
            return;
        };
        let packet = &wire.packet;
        let address = match oracle::answers::behind_extensions(packet[6], &packet[40..]) {
            Some((58, [135, _, _, _, _, _, _, _, target @ ..])) if source.is_unspecified() => {
                let target = target
                    .get(..16)
                    .and_then(|it| <[u8; 16]>::try_from(it).ok());
                target.map(Ipv6Addr::from)
            }
            Some((58, [133 | 135, ..])) => Some(source),
            Some((17, [_, _, 2, 35, ..])) => Some(source),
            _ => None,
        };
        let Some(address) = address.filter(|it| accepted && !it.is_unspecified()) else {
            return;
        };
        let of_a_port = config.ports.iter().any(|port| {
            let (own, gateway) = (port.mac.link_local(), port.gateway_mac.link_local());
            has(port, address.into()) || address == own || address == gateway
        });
        let gateway = config.gateway.ipv6;
        let near = gateway.is_some_and(|net| {
            net.contains(&address) && net.addr() != address && net.network() != address
        });
        let may = address.is_unicast_link_local() || (near && port.addresses6.is_some());
        if may && !of_a_port {
            self.0.entry(address).or_insert(sent.from);
        }
    }

    /// The configuration in which each port has what it has claimed.
    fn known(&self, config: &SwitchConfig) -> SwitchConfig {
        let mut config = config.clone();
        for (address, port) in &self.0 {
            let net = IpNet::from(IpAddr::V6(*address));
            match &mut config.ports[*port].addresses {
                Addresses::Static(nets) => nets.push(net),
                learned => *learned = Addresses::Static(vec![net]),
            }
        }
        config
    }
}

proptest! {
    #![proptest_config(oracle::cases(800))]

    /// No panic on any frame, and of every frame that leaves: no forged source.
    #[test]
    fn forged_source_never_leaves(which in any::<prop::sample::Index>(), chance in Chance::any()) {
        let configs = configs::all();
        let (name, config) = which.get(&configs);
        let mut switch = Switch::new(config, 0xee);
        switch.resolve(0);
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        let mut claimed = Claimed::default();
        while !choices.is_spent() {
            let sent = generate::frame(&mut choices, config);
            now_ns += SECOND_NS / 4;
            let (verdict, left) = switch.process(now_ns, sent.from, &sent.bytes, sent.tag);
            claimed.note(config, &sent, verdict);
            let known = claimed.known(config);
            let checked = match verdict {
                Verdict::Forward(to) => check_forwarded(&known, &sent, to.index(), &left),
                Verdict::Copies => check_copies(&known, &sent, &switch),
                Verdict::Reply | Verdict::DropWithError(_) => check_back(&known, sent.from, &left),
                Verdict::Drop(_) => Ok(()),
            };
            if let Err(wrong) = checked {
                let (came, left) = (hex(&sent.bytes), hex(&left));
                let from = sent.from;
                let found = format!("{verdict:?}: {left}");
                let sent = format!("from port {from}: {came}");
                return Err(TestCaseError::fail(format!("{name}: {wrong}\n  {sent}\n  {found}")));
            }
        }
    }

    /// The same of a tenant with a tunnel: what leaves through it has a source of its sender, what
    /// comes out of it one that is behind the peer that sent it, and nothing that came from the
    /// uplink leaves by it but the gateway's own answers.
    #[test]
    fn forged_source_never_passes_a_tunnel(
        which in any::<prop::sample::Index>(),
        chance in Chance::any(),
    ) {
        let configs = [configs::tunnels(), configs::grouped_tunnels()].concat();
        let (name, config) = which.get(&configs);
        let mut switch = Switch::new(config, 0xee);
        switch.resolve(0);
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        let mut claimed = Claimed::default();
        while !choices.is_spent() {
            let sent = generate::tunnel::frame(&mut choices, config);
            now_ns += SECOND_NS / 4;
            let (verdict, left) = switch.process(now_ns, sent.from, &sent.bytes, sent.tag);
            claimed.note(config, &sent, verdict);
            let known = claimed.known(config);
            let checked = match verdict {
                Verdict::Copies => switch.copies().iter().try_for_each(|(to, left)| {
                    let forward = Verdict::Forward(PortId(*to as u16));
                    check_with_tunnel(&known, &sent, forward, left)
                }),
                verdict => check_with_tunnel(&known, &sent, verdict, &left),
            };
            if let Err(wrong) = checked {
                let (came, left) = (hex(&sent.bytes), hex(&left));
                let from = sent.from;
                let found = format!("{verdict:?}: {left}");
                let sent = format!("from port {from}: {came}");
                return Err(TestCaseError::fail(format!("{name}: {wrong}\n  {sent}\n  {found}")));
            }
        }
    }

    /// The same where ports learn: a learning port sends from, and gets what is for, only what a
    /// server has granted it, for as long as it was granted and the port has its MAC.
    #[test]
    fn forged_source_never_leaves_a_learning_port(chance in Chance::long()) {
        let mut world = World::new();
        let mut switch = Switch::new(world.config(), 0xee);
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = SECOND_NS;
        let mut granted = Granted::default();
        while !choices.is_spent() {
            now_ns += SECOND_NS / 4;
            let (from, bytes) = match world.next(&mut choices) {
                Event::Frame { from, bytes } => (from, bytes),
                Event::Configure(config) => {
                    granted.keep(&switch.config, &config);
                    switch.configure(&config);
                    continue;
                }
                Event::Wait(time_ns) => {
                    now_ns += time_ns;
                    continue;
                }
            };
            let config = granted.known(&switch.config, now_ns);
            let (verdict, left) = switch.process(now_ns, from, &bytes, None);
            let sent = Sent { from, tag: None, bytes: untagged(&bytes) };
            let checked = match verdict {
                Verdict::Forward(to) => {
                    granted.note(&switch.config, to.index(), &left, now_ns);
                    check_forwarded(&config, &sent, to.index(), &left)
                }
                Verdict::Copies => check_copies(&config, &sent, &switch),
                Verdict::Reply | Verdict::DropWithError(_) => check_back(&config, from, &left),
                Verdict::Drop(_) => Ok(()),
            };
            if let Err(wrong) = checked {
                let (came, left) = (hex(&bytes), hex(&left));
                let found = format!("{verdict:?}: {left}");
                return Err(TestCaseError::fail(format!("{wrong}\n  {from}: {came}\n  {found}")));
            }
        }
    }

    /// No panic on bytes that are no frame at all, and nothing of them leaves.
    #[test]
    fn random_bytes_are_dropped(
        bytes in prop::collection::vec(any::<u8>(), 0..1600),
        tag in any::<Option<u16>>(),
        from in 0_usize..4,
    ) {
        let mut switch = Switch::new(&configs::three(), 0xee);
        let (verdict, _) = switch.process(0, from, &bytes, tag);
        prop_assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
    }
}

/// Every frame of the table, cut off at every length: no panic, and what leaves is not forged.
#[test]
fn truncated_frames_leave_nothing_forged() {
    for case in rows::cases() {
        let mut switch = Switch::new(&case.config, 0xee);
        switch.resolve(0);
        for length in 0..case.frame.len().min(120) {
            let sent = Sent {
                from: case.from,
                tag: case.tag,
                bytes: case.frame[..length].to_vec(),
            };
            let now_ns = SECOND_NS * length as u64;
            let (verdict, left) = switch.process(now_ns, sent.from, &sent.bytes, sent.tag);
            let checked = match verdict {
                Verdict::Forward(to) => check_forwarded(&case.config, &sent, to.index(), &left),
                Verdict::Copies => check_copies(&case.config, &sent, &switch),
                Verdict::Reply | Verdict::DropWithError(_) => {
                    check_back(&case.config, sent.from, &left)
                }
                Verdict::Drop(_) => Ok(()),
            };
            assert!(
                checked.is_ok(),
                "{}, cut to {length}: {checked:?}",
                case.name
            );
        }
    }
}

#[test]
fn truncated_extension_header_has_no_upper_layer() {
    let udp = [0x12, 0x34, 0x17, 0xc1, 0, 8, 0, 0];
    let whole = [&[17, 0, 0, 0, 0, 0, 0, 0], &udp[..]].concat();
    let upper = |bytes| oracle::answers::behind_extensions(60, bytes);
    assert_eq!(upper(&whole), Some((17, &udp[..])));
    for truncated in [&[][..], &[17], &[17, 120, 0, 0], &[17, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(upper(truncated), None, "{truncated:?}");
    }
}

/// The property's own reader of second addresses knows each of them, and no other frame of the
/// table that is forwarded has one.
#[test]
fn second_addresses_are_recognised() {
    for case in rows::cases() {
        let second = read(&case.frame).is_some_and(|wire| has_second_address(&wire));
        match case.expect {
            rows::Expect::Forward(_) | rows::Expect::Reply => {
                assert!(!second, "{}: {}", case.row, case.name);
            }
            rows::Expect::Drop(pipeline::DropReason::Ipv4SourceRoute) => {
                assert!(second, "{}: {}", case.row, case.name);
            }
            _ => {}
        }
    }
}
