//! Shows with real frames that the lock of an In/Out port holds on this kernel: in network
//! namespaces of its own, a stand-in for a taken-over switch sends forged frames, and neither the
//! wire nor the host receives one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use packet::addr::BROADCAST_MAC;
use rtnetlink::{LinkUnspec, LinkVeth};
use tenant_config::{Device, SwitchConfig, Tenant, UplinkConfig};

use super::Veth;
use crate::error::HostError;
use crate::nic::Assignment;
use crate::nic::parts::netlink::{index_of, refused, set_up, with_netlink};
use crate::nic::parts::netns::{Unnamed, inside};
use crate::nic::parts::packet_socket::PacketSocket;
use crate::object::{Context, Live};
use crate::resource::Resource;

const BRIDGE: &str = "check-br0";
/// A tenant whose file decides what is honest.
const TENANT: &str = "name = \"check\"\nvni = 1\n[gateway]\nipv4 = \"10.0.0.1/24\"\n[uplink]\n\
    address = \"192.0.2.9/24\"\nnext_hop = \"192.0.2.254\"\naddress6 = \"2001:db8::9/64\"\n\
    next_hop6 = \"2001:db8::1\"\n[[port]]\nname = \"vm\"\nmac = \"52:54:00:00:00:01\"\naddresses = \
    [\"10.0.0.11\"]\n";
/// An address of the host, which it has on the bridge, and a port on which it listens.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LISTENS: u16 = 4789;
/// Another station of the underlay.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const PATIENCE: Duration = Duration::from_secs(3);
/// Broadcasts at once, of which fewer than half may leave.
const STORM: usize = 2000;
/// Marks the frames, before a number.
const MARK: &[u8] = b"forged?";

/// A frame that a switch sends to the underlay.
struct Case {
    what: String,
    /// A switch that is not taken over sends it.
    honest: bool,
    frame: Vec<u8>,
}

impl Case {
    fn new(what: &str, honest: bool, frame: Vec<u8>) -> Self {
        Self {
            what: what.to_owned(),
            honest,
            frame,
        }
    }
}

/// Tries all of them.
pub(super) fn prove() -> Result<String, String> {
    let tried = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace: {error}"))?;
        let (forged, open) = run().map_err(|error| error.to_string())??;
        Ok(format!(
            "{forged} kinds of forged frames are stopped; without it {open} of them arrive"
        ))
    });
    tried
        .join()
        .unwrap_or_else(|_| Err("the trial ended early".to_owned()))
}

/// How many kinds of forged frames there are, and how many arrive without the lock. The inner error
/// is what the lock does wrong.
fn run() -> Result<Result<(usize, usize), String>, HostError> {
    let broken = |error: String| HostError::Program {
        program: "the lock's check",
        message: error,
    };
    let tenant = Tenant::parse("check", TENANT).map_err(|error| broken(error.to_string()))?;
    let config = tenant.offline_config();
    let uplink = config.uplink.as_ref();
    let uplink = uplink.ok_or_else(|| broken("no uplink".to_owned()))?;
    let bed = Bed::new(&config, uplink)?;
    let cases = cases(uplink, bed.bridge_mac);
    let open = bed.arrivals(&cases)?;
    bed.lock()?;
    let closed = bed.arrivals(&cases)?;
    for (number, case) in cases.iter().enumerate() {
        let at_host = closed.host.contains(&number);
        let at_wire = closed.wire.contains(&number);
        if at_host {
            return Ok(Err(format!("{} reaches the host", case.what)));
        }
        if at_wire != case.honest {
            let verb = match (at_wire, open.wire.contains(&number)) {
                (true, _) => "leaves",
                (false, true) => "is stopped",
                (false, false) => "does not leave, even without the lock",
            };
            return Ok(Err(format!("{} {verb}", case.what)));
        }
    }
    let storm = bed.storm(uplink)?;
    if storm > STORM / 2 {
        return Ok(Err(format!("{storm} of {STORM} broadcasts leave at once")));
    }
    let is_forged = |number: &&usize| cases.get(**number).is_some_and(|case| !case.honest);
    let arrived = open.wire.union(&open.host).filter(is_forged).count();
    if arrived == 0 {
        return Ok(Err("no forged frame arrives without it either".to_owned()));
    }
    let forged = cases.iter().filter(|case| !case.honest).count();
    Ok(Ok((forged, arrived)))
}

/// A host with a bridge, a port and a wire, and a switch's namespace.
struct Bed {
    _namespace: Unnamed,
    host: UdpSocket,
    bridge_mac: [u8; 6],
    locks: Vec<Resource>,
    switch: PacketSocket,
    context: Context,
}

/// Which frames arrived where.
#[derive(Default)]
struct Arrivals {
    wire: BTreeSet<usize>,
    host: BTreeSet<usize>,
}

impl Bed {
    fn new(config: &SwitchConfig, uplink: &UplinkConfig) -> Result<Self, HostError> {
        let namespace = Unnamed::new()?;
        // It would cut the marks off. Without the module there is nothing to turn off.
        for tables in ["iptables", "ip6tables", "arptables"] {
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{tables}"), "0");
        }
        let context = Context {
            state_dir: PathBuf::from("/nonexistent"),
            instance: "check".to_owned(),
            cpu_percent: 0,
            memory_mib: 0,
            resize_pf: false,
        };
        let devices = Assignment {
            ports: Vec::new(),
            uplink: Some(Device::AfPacket {
                interface: "inout".to_owned(),
            }),
            guests: Vec::new(),
        };
        let veth = Veth::new("check", BRIDGE);
        let mut locks = Vec::new();
        for resource in veth.uplink(config, &devices).into_iter().flatten() {
            match resource {
                Resource::Bridge(bridge) => bridge.create(&context)?,
                Resource::Pair(mut pair) => {
                    pair.switch.namespace = Some(namespace.path.clone());
                    pair.create(&context)?;
                }
                lock => locks.push(lock),
            }
        }
        with_netlink(None, async |handle| {
            let failed = || refused("cannot make a wire".to_owned());
            let add = handle.link().add(LinkVeth::new("wire", "far").build());
            add.execute().await.map_err(failed())?;
            let bridge = index_of(&handle, BRIDGE).await?;
            for (interface, controller) in [("wire", Some(bridge)), ("far", None)] {
                let link = LinkUnspec::new_with_index(index_of(&handle, interface).await?).up();
                let link = match controller {
                    Some(bridge) => link.controller(bridge),
                    None => link,
                };
                let request = handle.link().change(link.build());
                request.execute().await.map_err(failed())?;
            }
            let address = handle.address().add(bridge, IpAddr::V4(HOST), 24);
            address.execute().await.map_err(failed())
        })?;
        let cannot = |what: &'static str| HostError::io(what);
        let switch = inside(Some(&namespace.path), || {
            PacketSocket::open("inout", false, &[]).map_err(HostError::io("cannot open inout"))
        })?;
        let host = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, LISTENS))
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(cannot("cannot listen"))?;
        let bridge_mac = mac_of_interface(BRIDGE)?;
        // Without a lock, for the control.
        set_up(&port_of(&locks), true)?;
        let bed = Self {
            _namespace: namespace,
            host,
            bridge_mac,
            locks,
            switch,
            context,
        };
        bed.wait_for_wire(uplink)?;
        Ok(bed)
    }

    /// Sends honest frames until one arrives: a port of a bridge forwards once it has a carrier.
    fn wait_for_wire(&self, uplink: &UplinkConfig) -> Result<(), HostError> {
        let case = || Case::new("", true, arp(uplink, uplink.mac.octets(), own4(uplink)));
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if !self.arrivals(&[case()])?.wire.is_empty() {
                return Ok(());
            }
        }
        Err(HostError::Program {
            program: "the lock's check",
            message: "no honest frame arrives".to_owned(),
        })
    }

    /// Puts the lock on.
    fn lock(&self) -> Result<(), HostError> {
        set_up(&port_of(&self.locks), false)?;
        for lock in &self.locks {
            match lock {
                Resource::Guard(guard) => guard.create(&self.context)?,
                Resource::Lock(lock) => lock.create(&self.context)?,
                _ => {}
            }
        }
        sleep(Duration::from_millis(100));
        Ok(())
    }

    /// Sends broadcasts as fast as it can. Returns how many leave.
    fn storm(&self, uplink: &UplinkConfig) -> Result<usize, HostError> {
        let frame = [
            &arp(uplink, uplink.mac.octets(), own4(uplink)),
            MARK,
            &[0, 0],
        ]
        .concat();
        let io = |what: &'static str| HostError::io(what);
        let mut far = PacketSocket::open("far", true, &[]).map_err(io("cannot open far"))?;
        for _ in 0..STORM {
            self.switch.send(&frame).map_err(io("cannot send"))?;
        }
        sleep(Duration::from_millis(100));
        let mut left = 0;
        while let Some(frame) = far.receive().map_err(io("cannot receive"))? {
            left += usize::from(number_of(frame.bytes).is_some());
        }
        Ok(left)
    }

    /// Sends all frames, and hears which arrive. They arrive at once or not at all.
    fn arrivals(&self, cases: &[Case]) -> Result<Arrivals, HostError> {
        let io = |what: &'static str| HostError::io(what);
        let mut far = PacketSocket::open("far", true, &[]).map_err(io("cannot open far"))?;
        for (number, case) in cases.iter().enumerate() {
            let mark = [MARK, &(number as u16).to_be_bytes()].concat();
            let frame = [&case.frame[..], &mark].concat();
            self.switch.send(&frame).map_err(io("cannot send"))?;
        }
        sleep(Duration::from_millis(100));
        let mut arrivals = Arrivals::default();
        while let Some(frame) = far.receive().map_err(io("cannot receive"))? {
            arrivals.wire.extend(number_of(frame.bytes));
        }
        let mut bytes = [0; 512];
        while let Ok((length, _)) = self.host.recv_from(&mut bytes) {
            arrivals
                .host
                .extend(number_of(bytes.get(..length).unwrap_or_default()));
        }
        Ok(arrivals)
    }
}

fn port_of(locks: &[Resource]) -> String {
    let port = locks.iter().find_map(|lock| match lock {
        Resource::Lock(lock) => Some(lock.interface.clone()),
        _ => None,
    });
    port.unwrap_or_default()
}

fn mac_of_interface(interface: &str) -> Result<[u8; 6], HostError> {
    let all = nix::ifaddrs::getifaddrs().map_err(HostError::sys("cannot list interfaces"))?;
    let mac = all
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr()?.addr());
    mac.ok_or_else(|| HostError::Io {
        what: format!("cannot find {interface}"),
        source: nix::Error::ENODEV.into(),
    })
}

fn number_of(frame: &[u8]) -> Option<usize> {
    let at = frame.windows(MARK.len()).position(|it| it == MARK)?;
    let number = frame.get(at + MARK.len()..)?.first_chunk()?;
    Some(u16::from_be_bytes(*number).into())
}

fn own4(uplink: &UplinkConfig) -> Ipv4Addr {
    uplink.ipv4.map_or(HOST, |net| net.addr())
}

fn own6(uplink: &UplinkConfig) -> Ipv6Addr {
    uplink.ipv6.map_or(OTHER6, |net| net.addr())
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// An ARP reply to everybody.
fn arp(uplink: &UplinkConfig, sender: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let target = [&[0; 6][..], &HOST.octets()].concat();
    let payload = [&head[..], &sender, &address.octets(), &target].concat();
    ethernet(BROADCAST_MAC, uplink.mac.octets(), 0x0806, &payload)
}

/// An IPv4 packet to the host; `fragment` is the word with the offset. It has room for a mark.
fn ipv4(protocol: u8, from: Ipv4Addr, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() + MARK.len() + 2) as u16;
    let mut head = vec![0x45, 0];
    head.extend(length.to_be_bytes());
    head.extend([0, 1]);
    head.extend(fragment.to_be_bytes());
    head.extend([64, protocol, 0, 0]);
    head.extend(from.octets());
    head.extend(HOST.octets());
    let (words, _) = head.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [&head[..], payload].concat()
}

/// UDP without a checksum, with room for a mark.
fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() + MARK.len() + 2) as u16;
    let words = [from, to, length, 0].map(u16::to_be_bytes);
    [&words.concat()[..], payload].concat()
}

/// An IPv6 packet, with `room` for a mark in it or behind it.
fn ipv6(next: u8, from: Ipv6Addr, room: usize, payload: &[u8]) -> Vec<u8> {
    let length = ((payload.len() + room) as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    [&head[..], &from.octets(), &OTHER6.octets(), payload].concat()
}

/// A message about a neighbour, with one option that names a MAC.
fn nd(kind: u8, target: Ipv6Addr, option: u8, mac: [u8; 6]) -> Vec<u8> {
    let head = [kind, 0, 0, 0, 0x20, 0, 0, 0];
    [&head[..], &target.octets(), &[option, 1], &mac].concat()
}

fn cases(uplink: &UplinkConfig, bridge: [u8; 6]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: &str, honest, frame| cases.push(Case::new(what, honest, frame));
    let (mac, own, own6) = (uplink.mac.octets(), own4(uplink), own6(uplink));
    let to_host = |from| ipv4(17, from, 0, &udp(9, LISTENS, &[]));
    let to = |station, payload: &[u8]| ethernet(station, mac, 0x0800, payload);
    let to6 = |station, payload: &[u8]| ethernet(station, mac, 0x86dd, payload);
    let room = MARK.len() + 2;
    add("ARP", true, arp(uplink, mac, own));
    add("an IPv4 packet", true, to(OTHER_MAC, &to_host(own)));
    let fragment = ipv4(17, own, 100, &[0; 16]);
    add("a later fragment", true, to(OTHER_MAC, &fragment));
    let packet = ipv6(17, own6, room, &udp(9, 9, &[]));
    add("an IPv6 packet", true, to6(OTHER_MAC, &packet));
    let solicit = ipv6(58, own6, 0, &nd(135, OTHER6, 1, mac));
    let group = [0x33, 0x33, 0xff, 0, 0, 0x99];
    add("a Neighbour Solicitation", true, to6(group, &solicit));
    let advert = ipv6(58, own6, 0, &nd(136, own6, 2, mac));
    add("a Neighbour Advertisement", true, to6(OTHER_MAC, &advert));
    cases.extend(forged(uplink, bridge));
    cases.extend(hidden(uplink));
    cases
}

/// Frames that claim another source, or are for the host or everybody.
fn forged(uplink: &UplinkConfig, bridge: [u8; 6]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: &str, honest, frame| cases.push(Case::new(what, honest, frame));
    let (mac, own, own6) = (uplink.mac.octets(), own4(uplink), own6(uplink));
    let to_host = |from| ipv4(17, from, 0, &udp(9, LISTENS, &[]));
    let to = |station, payload: &[u8]| ethernet(station, mac, 0x0800, payload);
    let to6 = |station, payload: &[u8]| ethernet(station, mac, 0x86dd, payload);
    let room = MARK.len() + 2;
    for last in 0..16 {
        let group = [1, 0x80, 0xc2, 0, 0, last];
        let what = format!("IPv4 for the reserved group 01:80:c2:00:00:{last:02x}");
        add(&what, false, to(group, &to_host(OTHER)));
    }
    add(
        "IPv4 for the bridge's MAC",
        false,
        to(bridge, &to_host(OTHER)),
    );
    add(
        "IPv4 in a broadcast",
        false,
        to(BROADCAST_MAC, &to_host(OTHER)),
    );
    let other = ethernet(OTHER_MAC, OTHER_MAC, 0x0800, &to_host(own));
    add("another MAC", false, other);
    add("ARP for another address", false, arp(uplink, mac, OTHER));
    add("ARP for another MAC", false, arp(uplink, OTHER_MAC, own));
    add("another IPv4 source", false, to(OTHER_MAC, &to_host(OTHER)));
    let packet = ipv6(17, OTHER6, room, &udp(9, 9, &[]));
    add("another IPv6 source", false, to6(OTHER_MAC, &packet));
    for (kind, what) in [(0x8100, "a VLAN tag"), (0x88a8, "a service VLAN's tag")] {
        let inside = [&[0, 1, 8, 0][..], &to_host(own)].concat();
        add(what, false, ethernet(OTHER_MAC, mac, kind, &inside));
    }
    for (from, at, what) in [
        (67, 68, "a DHCP server's message"),
        (67, 67, "a DHCP server's message to a relay"),
        (9, 68, "UDP to DHCP clients"),
    ] {
        let packet = ipv4(17, own, 0, &udp(from, at, &[2]));
        add(what, false, to(OTHER_MAC, &packet));
    }
    for (from, at, what) in [
        (547, 546, "a DHCPv6 server's message"),
        (547, 547, "a DHCPv6 server's message to a relay"),
    ] {
        let packet = ipv6(17, own6, room, &udp(from, at, &[2]));
        add(what, false, to6(OTHER_MAC, &packet));
    }
    for (kind, what) in [(5, "an ICMP redirect"), (9, "an ICMP router advertisement")] {
        let packet = ipv4(1, own, 0, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        add(what, false, to(OTHER_MAC, &packet));
    }
    add(
        "an IGMP query",
        false,
        to(OTHER_MAC, &ipv4(2, own, 0, &[0x11, 0, 0, 0, 0, 0, 0, 0])),
    );
    for (kind, what) in [
        (0x88cc, "LLDP"),
        (0x8808, "a pause frame"),
        (0x8035, "RARP"),
    ] {
        add(what, false, ethernet(OTHER_MAC, mac, kind, &[0; 46]));
    }
    cases
}

/// Messages about routers and neighbours, also hidden.
fn hidden(uplink: &UplinkConfig) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: &str, honest, frame| cases.push(Case::new(what, honest, frame));
    let (mac, own6) = (uplink.mac.octets(), own6(uplink));
    let to6 = |station, payload: &[u8]| ethernet(station, mac, 0x86dd, payload);
    for (what, message) in [
        ("a Router Advertisement", nd(134, own6, 1, mac)),
        ("a redirect", nd(137, own6, 2, mac)),
        ("an MLD query", nd(130, own6, 1, mac)),
        ("an advertisement for another", nd(136, OTHER6, 2, mac)),
        (
            "an advertisement of another MAC",
            nd(136, own6, 2, OTHER_MAC),
        ),
        (
            "a solicitation with another MAC",
            nd(135, OTHER6, 1, OTHER_MAC),
        ),
    ] {
        add(what, false, to6(OTHER_MAC, &ipv6(58, own6, 0, &message)));
        // Behind headers of all kinds, and in fragments.
        let behind = |next: u8, header: &[u8], message: &[u8]| {
            ipv6(next, own6, 0, &[header, message].concat())
        };
        let options = [58, 0, 1, 4, 0, 0, 0, 0];
        for (next, name, header) in [
            (0, "hop-by-hop options", &options[..]),
            (60, "destination options", &options),
            (43, "a routing header", &[58, 0, 4, 0, 0, 0, 0, 0]),
            (44, "an atomic fragment header", &[58, 0, 0, 0, 0, 0, 0, 1]),
            (44, "a first fragment's header", &[58, 0, 0, 1, 0, 0, 0, 1]),
            (135, "a mobility header", &options),
            (139, "HIP", &options),
        ] {
            let what = format!("{what} behind {name}");
            add(
                &what,
                false,
                to6(OTHER_MAC, &behind(next, header, &message)),
            );
        }
    }
    // What must not be judged by what is not there.
    let cut = ipv6(
        44,
        own6,
        0,
        &[60, 0, 0, 1, 0, 0, 0, 1, 58, 0, 1, 4, 0, 0, 0, 0],
    );
    add(
        "a first fragment without its upper header",
        false,
        to6(OTHER_MAC, &cut),
    );
    add(
        "a chain that is cut off",
        false,
        to6(OTHER_MAC, &ipv6(0, own6, 0, &[60])),
    );
    cases
}
