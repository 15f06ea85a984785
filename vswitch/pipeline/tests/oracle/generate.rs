//! Random frames: mostly valid ones over a small pool of interesting addresses, and then some
//! damage.
//!
//! All chance is drawn from a string of bytes, so that `proptest` can shrink a frame and a fuzzer
//! can steer it: where the bytes run out every choice is the first, which is the plainest.

pub(crate) mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use tenant_config::{Addresses, Multicast, PortConfig, SwitchConfig};

use super::frames::{self, *};
use super::{rows, tunnel_rows};

/// The chance that a case draws its frames from; on one line where it is shown.
#[derive(Clone)]
pub(crate) struct Chance(pub(crate) Vec<u8>);

impl Chance {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        prop::collection::vec(any::<u8>(), 0..400).prop_map(Self)
    }

    /// For a sequence of many events.
    pub(crate) fn long() -> impl Strategy<Value = Self> {
        prop::collection::vec(any::<u8>(), 0..1600).prop_map(Self)
    }
}

impl std::fmt::Debug for Chance {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&super::trial::hex(&self.0))
    }
}

/// The chance that is left.
#[derive(Debug)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.word()) % end
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()].clone()
    }

    /// True once in `times`, and never where chance has run out.
    pub(crate) fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    /// The first of `usual` nearly always, else one of `strange`.
    pub(crate) fn mostly<T: Clone>(&mut self, usual: &[T], strange: &[T]) -> T {
        if self.once_in(10) {
            self.pick(strange)
        } else {
            self.pick(usual)
        }
    }
}

/// One frame that a station sends.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) tag: Option<u16>,
    pub(crate) bytes: Vec<u8>,
}

/// Who sends: a port's VM, or the underlay's router.
struct Sender<'c> {
    config: &'c SwitchConfig,
    port: Option<&'c PortConfig>,
    mac: Mac,
    /// Its neighbour's: the gateway's or the uplink's.
    to: Mac,
    own4: Vec<Ipv4Addr>,
    own6: Vec<Ipv6Addr>,
    /// Everybody's.
    pool4: Vec<Ipv4Addr>,
    pool6: Vec<Ipv6Addr>,
    /// Its destination, unless it is a broadcast.
    peers4: Vec<Ipv4Addr>,
    peers6: Vec<Ipv6Addr>,
}

/// A frame from anywhere to anywhere.
pub(crate) fn frame(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let sides = config.ports.len() + usize::from(config.uplink.is_some());
    let from = choices.below(sides);
    let (tag, bytes) = Sender::new(config, from).frame(choices);
    Sent { from, tag, bytes }
}

/// What a prefix holds of interest: its ends and their neighbours outside.
fn ends(net: &IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .to_vec()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .to_vec()
        }
    }
}

fn prefixes(port: &PortConfig) -> Vec<IpNet> {
    let addresses = match &port.addresses {
        Addresses::Static(prefixes) => &prefixes[..],
        Addresses::Learned(_) => &[],
    };
    let shared: Vec<IpNet> = port.shared.iter().map(|ip| IpNet::from(*ip)).collect();
    [addresses, &port.routes, &shared].concat()
}

/// Addresses that the rows speak of, of both families.
fn pool(config: &SwitchConfig) -> Vec<IpAddr> {
    let mut pool: Vec<IpAddr> = Vec::new();
    for port in &config.ports {
        pool.extend(prefixes(port).iter().flat_map(ends));
        pool.push(port.mac.link_local().into());
        pool.push(port.gateway_mac.link_local().into());
    }
    let gateway = &config.gateway;
    for _ in 0..3 {
        pool.extend(gateway.ipv4.map(|net| IpAddr::V4(net.addr())));
        pool.extend(gateway.ipv6.map(|net| IpAddr::V6(net.addr())));
    }
    pool.extend(gateway.ipv4.iter().flat_map(|net| ends(&IpNet::V4(*net))));
    pool.extend(gateway.ipv6.iter().flat_map(|net| ends(&IpNet::V6(*net))));
    for peer in config.tunnel.iter().flat_map(|tunnel| &tunnel.peers) {
        pool.extend(peer.prefixes.iter().flat_map(ends));
        pool.extend([peer.vtep, peer.next_hop, peer.mac.link_local().into()]);
        pool.extend(&peer.sources);
    }
    if let Some(uplink) = &config.uplink {
        pool.extend(uplink.own_addresses());
        pool.extend(uplink.next_hops.ipv4.map(IpAddr::V4));
        pool.extend(uplink.next_hops.ipv6.map(IpAddr::V6));
        pool.push(uplink.mac.link_local().into());
        pool.extend(uplink.allow.iter().flat_map(ends));
        pool.push(uplink.mac.link_local().into());
    }
    if config.ports.iter().any(|port| port.metadata.is_some()) {
        for text in ["169.254.169.254", "fd00:ec2::254"] {
            pool.extend([text.parse::<IpAddr>().expect("an address"); 8]);
        }
    }
    for text in [
        "198.51.100.7",
        "198.51.100.7",
        "198.51.100.7",
        "203.0.113.1",
        "10.0.0.99",
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "169.255.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        "2001:db8:ffff::7",
        "2001:db8:ffff::7",
        "2001:db8:ffff::7",
        "2600::1",
        "fd00:ec2::254",
        "fd00:0:0:1::99",
        "::",
        "::1",
        "::ffff:10.0.0.12",
        "64:ff9b::a00:c",
        "64:ff9b::c633:6407",
        "64:ff9b:1:fffe::a00:c",
        "2002:c000:209::1",
        "2001::c000:209:0:0:1",
        "2001:db8:ffff:1:0:5efe:a00:c",
        "fe80::1",
        "fe80::8c2e:4f1b:77aa:9d03",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff02::2",
        "ff05::1:3",
    ] {
        pool.push(text.parse().expect("an address"));
    }
    pool
}

fn only4(addresses: &[IpAddr]) -> Vec<Ipv4Addr> {
    let only = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    only.collect()
}

fn only6(addresses: &[IpAddr]) -> Vec<Ipv6Addr> {
    let only = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    });
    only.collect()
}

/// `bytes`, cut off anywhere once in a while.
fn perhaps_cut(choices: &mut Choices<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    if choices.once_in(12) {
        let left = choices.below(bytes.len() + 1);
        bytes.truncate(left);
    }
    bytes
}

impl<'c> Sender<'c> {
    fn new(config: &'c SwitchConfig, from: usize) -> Self {
        let pool = pool(config);
        let of_the_world = Self {
            config,
            port: None,
            mac: rows::ROUTER,
            to: rows::UPLINK,
            own4: vec![rows::EXTERNAL, rows::NEXT_HOP],
            own6: vec![
                rows::EXTERNAL6,
                rows::NEXT_HOP6,
                "fe80::fe".parse().expect("an address"),
            ],
            pool4: only4(&pool),
            pool6: only6(&pool),
            peers4: Vec::new(),
            peers6: Vec::new(),
        };
        let Some(port) = config.ports.get(from) else {
            return of_the_world;
        };
        let own: Vec<IpAddr> = prefixes(port)
            .iter()
            .flat_map(|net| ends(net).into_iter().take(2))
            .collect();
        let mut own6 = only6(&own);
        own6.push(port.mac.link_local());
        let mut own4 = only4(&own);
        if own4.is_empty() {
            own4.push(rows::IP1);
        }
        Self {
            port: Some(port),
            mac: port.mac.octets(),
            to: port.gateway_mac.octets(),
            own4,
            own6,
            ..of_the_world
        }
    }

    /// One frame of its, with the control information of a tag that lies beside it.
    fn frame(&self, choices: &mut Choices<'_>) -> (Option<u16>, Vec<u8>) {
        let mut bytes = match choices.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5, 6, 7])
        {
            0 => self.ipv4(choices),
            1 => self.ipv6(choices),
            2 => self.nd(choices),
            3 => self.arp(choices),
            4 => self.dhcp(choices),
            5 => self.rarp(choices),
            6 => self.dhcp6(choices),
            _ => self.other(choices),
        };
        if self.config.multicast != Multicast::default() && choices.pick(&[true, false]) {
            bytes = self.group(choices);
        }
        let tag = self.tags(choices, &mut bytes);
        if choices.once_in(8) {
            let padding = choices.pick(&[1, 6, 18, 46, 200, 1400]);
            bytes.resize(bytes.len() + padding, 0xa5);
        }
        if choices.once_in(4) {
            damage(choices, &mut bytes);
        }
        (tag, bytes)
    }

    /// MACs that it should not use.
    fn other_macs(&self) -> Vec<Mac> {
        let mut macs = vec![[0; 6], BROADCAST, [0x33, 0x33, 0, 0, 0, 1], rows::ROUTER];
        for port in &self.config.ports {
            macs.push(port.mac.octets());
            macs.push(port.gateway_mac.octets());
            macs.extend(port.extra_macs.iter().map(|mac| mac.octets()));
        }
        macs.push(rows::UPLINK);
        macs
    }

    fn source_mac(&self, choices: &mut Choices<'_>) -> Mac {
        let extra = self.port.into_iter().flat_map(|port| &port.extra_macs);
        let mut usual = vec![self.mac; 4];
        usual.extend(extra.map(|mac| mac.octets()));
        if choices.once_in(3) {
            choices.mostly(&usual, &self.other_macs())
        } else {
            self.mac
        }
    }

    fn ethernet(
        &self,
        choices: &mut Choices<'_>,
        to: Mac,
        ethertype: u16,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut strange = self.other_macs();
        for last in [0, 3, 0x0e, 0x0f, 0x10] {
            strange.push([1, 0x80, 0xc2, 0, 0, last]);
        }
        let to = choices.mostly(&[to], &strange);
        let from = self.source_mac(choices);
        frames::ethernet(to, from, ethertype, payload)
    }

    fn source4(&self, choices: &mut Choices<'_>) -> Ipv4Addr {
        choices.mostly(&self.own4, &self.pool4)
    }

    fn any4(&self, choices: &mut Choices<'_>) -> Ipv4Addr {
        if self.peers4.is_empty() {
            choices.pick(&self.pool4)
        } else {
            choices.mostly(&self.peers4, &self.pool4)
        }
    }

    fn source6(&self, choices: &mut Choices<'_>) -> Ipv6Addr {
        choices.mostly(&self.own6, &self.pool6)
    }

    fn any6(&self, choices: &mut Choices<'_>) -> Ipv6Addr {
        if self.peers6.is_empty() {
            choices.pick(&self.pool6)
        } else {
            choices.mostly(&self.peers6, &self.pool6)
        }
    }

    fn ipv4(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let protocol = choices.pick(&[
            17, 17, 17, 6, 6, 6, 1, 1, 2, 4, 41, 47, 51, 51, 58, 97, 132, 139, 253,
        ]);
        let payload = transport(choices, protocol, &self.client_macs());
        let mut packet = V4::new(self.source4(choices), self.any4(choices), protocol, payload);
        packet.ttl = choices.pick(&[64, 64, 64, 255, 2, 1, 0]);
        packet.class = choices.pick(&[0, 0, 1, 2, 3, 0xb8, 0xbb]);
        packet.fragment = choices.mostly(
            &[0, 0, DONT_FRAGMENT],
            &[
                MORE_FRAGMENTS,
                MORE_FRAGMENTS,
                1,
                MORE_FRAGMENTS | 1,
                2,
                185,
                0x1fff,
                0x8000,
            ],
        );
        if choices.once_in(5) {
            packet.options = ipv4_options(choices);
        }
        let to = if packet.to.is_broadcast() {
            BROADCAST
        } else {
            self.to
        };
        self.ethernet(choices, to, IPV4, &packet.bytes())
    }

    fn ipv6(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let upper = choices.mostly(
            &[17, 17, 6, 6, 58, 58, 41, 47, 4, 50, 59],
            &[
                132, 33, 136, 89, 103, 112, 46, 97, 108, 1, 2, 88, 115, 138, 143, 200, 253, 254,
                255, 0, 44,
            ],
        );
        let payload = transport(choices, upper, &self.client_macs());
        let (from, to) = (self.source6(choices), self.any6(choices));
        let mut packet = if upper == 58 {
            V6::icmp(from, to, payload)
        } else {
            V6::new(from, to, upper, payload)
        };
        packet.hop_limit = choices.pick(&[64, 64, 64, 255, 2, 1, 0]);
        packet.class = choices.pick(&[0, 0, 1, 2, 3, 0xb8, 0xbb]);
        packet.label = choices.pick(&[0, 0, 1, 0xf_ffff]);
        packet.extensions = extensions(choices);
        let to = if packet.to.is_multicast() {
            group_mac(packet.to)
        } else {
            self.to
        };
        self.ethernet(choices, to, IPV6, &packet.bytes())
    }

    fn nd(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let kind = choices.pick(&[
            135, 135, 135, 136, 136, 133, 133, 134, 137, 130, 131, 132, 143,
        ]);
        let own_or_any = [&self.own6, &self.pool6];
        let targets = choices.pick(&own_or_any);
        let target = choices.pick(targets);
        let options = nd_options(choices, self.mac);
        let mut message = match kind {
            135 | 136 => {
                let flags = choices.pick(&[0x20, 0x60, 0, 0x80, 0xa0, 0xe0]);
                neighbor(kind, flags, target, &options)
            }
            133 => router_solicitation(&options),
            134 => router_advertisement(&options),
            137 => {
                let mut message = redirect(target, self.any6(choices));
                message.extend(options.concat());
                message
            }
            _ => icmpv6(kind, 0, &[0; 20]),
        };
        if choices.once_in(16) {
            message[1] = choices.byte();
        }
        let message = perhaps_cut(choices, message);
        let mut from = self.source6(choices);
        if choices.once_in(3) {
            from = Ipv6Addr::UNSPECIFIED;
        }
        let to = match choices.pick(&[0, 0, 0, 1, 2, 3]) {
            0 => rows::solicited_node(target),
            1 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            2 => target,
            _ => self.any6(choices),
        };
        let mut packet = V6::icmp(from, to, message);
        packet.hop_limit = choices.mostly(&[255], &[254, 64, 1, 0]);
        if choices.once_in(8) {
            packet.extensions = extensions(choices);
        }
        let mac = if to.is_multicast() {
            group_mac(to)
        } else {
            self.to
        };
        self.ethernet(choices, mac, IPV6, &packet.bytes())
    }

    fn arp(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let opcode = choices.mostly(&[1, 1, 1, 2], &[0, 3, 4, 8, 257]);
        let from = self.source_mac(choices);
        let sender = if choices.once_in(5) {
            Ipv4Addr::UNSPECIFIED
        } else {
            self.source4(choices)
        };
        let target = if choices.once_in(6) {
            sender
        } else {
            self.any4(choices)
        };
        let message = Arp {
            opcode,
            sender_mac: choices.mostly(&[from], &self.other_macs()),
            sender,
            target_mac: choices.pick(&[[0; 6], BROADCAST, self.to]),
            target,
        };
        let to = choices.pick(&[BROADCAST, self.to]);
        frames::ethernet(to, from, ARP, &message.bytes())
    }

    /// To a group, a broadcast, or a report of groups.
    fn group(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let groups4 = [
            Ipv4Addr::new(239, 192, 1, 1),
            Ipv4Addr::new(239, 192, 129, 1),
            Ipv4Addr::new(224, 0, 0, 18),
            Ipv4Addr::new(239, 193, 0, 0),
            Ipv4Addr::new(224, 0, 0, 22),
            Ipv4Addr::new(224, 0, 0, 1),
            Ipv4Addr::new(224, 0, 1, 0),
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(10, 0, 0, 255),
        ];
        let groups6: [Ipv6Addr; 8] = [
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x100, 7),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16),
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3),
            Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7),
            Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 7),
        ];
        let (group4, group6) = (
            choices.mostly(&groups4[..3], &groups4),
            choices.mostly(&groups6[..3], &groups6),
        );
        match choices.below(5) {
            0 => {
                let protocol = choices.pick(&[17, 17, 89, 112, 2]);
                let payload = transport(choices, protocol, &self.client_macs());
                let mut packet = V4::new(self.source4(choices), group4, protocol, payload);
                packet.ttl = choices.pick(&[1, 64, 255]);
                self.ethernet(choices, mac_of4(group4), IPV4, &packet.bytes())
            }
            1 => {
                let payload = transport(choices, 17, &self.client_macs());
                let packet = V6::new(self.source6(choices), group6, 17, payload);
                self.ethernet(choices, group_mac(group6), IPV6, &packet.bytes())
            }
            2 => {
                let (kind, to) = choices.pick(&[
                    (0x16, group4),
                    (0x16, group4),
                    (0x17, Ipv4Addr::new(224, 0, 0, 2)),
                    (0x12, group4),
                ]);
                let mut message = vec![kind, 0, 0, 0];
                message.extend(group4.octets());
                self.igmp(choices, to, message)
            }
            3 => {
                let mut message = vec![0x22, 0, 0, 0, 0, 0];
                message.extend(records(choices, &group4.octets()));
                let to = Ipv4Addr::new(224, 0, 0, 22);
                self.igmp(choices, to, message)
            }
            _ => {
                let kind = choices.pick(&[131, 132, 143, 143]);
                let rest = match kind {
                    143 => [vec![0; 2], records(choices, &group6.octets())].concat(),
                    _ => [&[0; 4][..], &group6.octets()].concat(),
                };
                let message = perhaps_cut(choices, icmpv6(kind, 0, &rest));
                let to = match kind {
                    143 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16),
                    _ => group6,
                };
                let mut packet = V6::icmp(self.source6(choices), to, message);
                packet.hop_limit = 1;
                self.ethernet(choices, group_mac(to), IPV6, &packet.bytes())
            }
        }
    }

    fn igmp(&self, choices: &mut Choices<'_>, to: Ipv4Addr, message: Vec<u8>) -> Vec<u8> {
        let mut message = perhaps_cut(choices, message);
        if message.len() >= 4 {
            let sum = frames::checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let mut packet = V4::new(self.source4(choices), to, 2, message);
        packet.options = choices.pick(&[vec![0x94, 4, 0, 0], vec![]]);
        packet.ttl = 1;
        if self.port.is_none() && choices.pick(&[true, false]) {
            packet.from = Ipv4Addr::UNSPECIFIED;
        }
        self.ethernet(choices, mac_of4(to), IPV4, &packet.bytes())
    }

    fn rarp(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let message = Arp {
            opcode: choices.mostly(&[3], &[1, 2, 4]),
            sender_mac: choices.mostly(&[self.mac], &self.other_macs()),
            sender: choices.mostly(&[Ipv4Addr::UNSPECIFIED], &self.own4),
            target_mac: choices.mostly(&[self.mac], &self.other_macs()),
            target: choices.mostly(&[Ipv4Addr::UNSPECIFIED], &self.own4),
        };
        let bytes = perhaps_cut(choices, message.bytes());
        self.ethernet(choices, BROADCAST, RARP, &bytes)
    }

    fn client_macs(&self) -> Vec<Mac> {
        let ports = self.config.ports.iter();
        let mut macs: Vec<Mac> = ports.map(|port| port.mac.octets()).collect();
        macs.push(rows::ROUTER);
        macs
    }

    /// A client's message or a server's, each with something of its own changed once in a while.
    fn dhcp(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let server = choices.pick(&[false, true]);
        let client = choices.mostly(&[self.mac], &self.client_macs());
        let mut message = if server {
            bootp(2, choices.pick(&self.client_macs()))
        } else {
            bootp(1, client)
        };
        if choices.once_in(3) {
            let mac = choices.pick(&self.client_macs());
            let address = choices.pick(&self.pool4).octets();
            let kind = choices.pick(&[1, 3, 4, 7, 8, 2, 5]);
            for (code, value) in [
                (53, vec![kind]),
                (choices.pick(&[50, 54, 12]), address.to_vec()),
                (choices.pick(&[61, 12, 82, 52]), [&[1], &mac[..]].concat()),
            ] {
                message.extend([code, value.len() as u8]);
                message.extend(value);
            }
        }
        if choices.once_in(5) {
            let at = choices.pick(&[0, 1, 2, 3, 28, 33, 34, 236, 239]);
            message[at] = choices.byte();
        }
        let message = perhaps_cut(choices, message);
        let (from, to) = if server { (67, 68) } else { (68, 67) };
        let payload = udp(
            choices.mostly(&[from], &[67, 68, 9]),
            choices.mostly(&[to, to, 4011], &[67, 68, 9]),
            &message,
        );
        let source = if server {
            self.source4(choices)
        } else {
            let own = [&[Ipv4Addr::UNSPECIFIED; 2][..], &self.own4[..1]].concat();
            choices.mostly(&own, &self.own4)
        };
        let everyone = [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)];
        let target = choices.mostly(&everyone, &self.pool4);
        let mut packet = V4::new(source, target, 17, payload);
        packet.fragment = choices.mostly(&[0], &[MORE_FRAGMENTS, 1, 30, DONT_FRAGMENT]);
        self.ethernet(choices, BROADCAST, IPV4, &packet.bytes())
    }

    /// A DHCPv6 client's message, or a server's, once in a while with something strange.
    fn dhcp6(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let server = choices.once_in(4);
        let kind = if server {
            7
        } else {
            choices.mostly(&[1, 3, 5, 8, 9, 11], &[2, 7, 12, 13, 14])
        };
        let mac = choices.pick(&self.client_macs());
        let number = choices.pick(&[0, 1, 2, 3, 4, 5]);
        let duid = choices.pick(&[
            vec![0, 2, 0, 0, 0xab, 0x11, 7],
            [&[0, 3, 0, 1], &mac[..]].concat(),
            [&[0, 1, 0, 1, 9, 9, 9, 9], &mac[..]].concat(),
            vec![0, 4, number],
        ]);
        let lease = (choices.pick(&self.pool6), choices.pick(&[0, 30, 600]));
        let mut options = vec![
            option6(1, &duid),
            association6(choices.pick(&[1, 2, 3, 4, 5, 6]), &[lease]),
        ];
        if choices.once_in(6) {
            let code = choices.pick(&[1, 2, 6, 9, 18, 37, 38, 79]);
            options.push(option6(code, &[0; 8]));
        }
        if choices.once_in(6) {
            options.remove(0);
        }
        let message = dhcp6(kind, choices.pick(&[1, 2]), &options);
        let message = perhaps_cut(choices, message);
        let (from, to) = if server { (547, 546) } else { (546, 547) };
        let payload = udp(
            choices.mostly(&[from], &[546, 547, 9]),
            choices.mostly(&[to], &[546, 547, 9]),
            &message,
        );
        let source = self.source6(choices);
        let target = self.any6(choices);
        let packet = V6::new(source, target, 17, payload);
        self.ethernet(choices, self.to, IPV6, &packet.bytes())
    }

    fn other(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let ethertype = choices.pick(&[
            0x88cc, 0x8808, 0x8847, 0x888e, 0x0000, 0x0026, 0x05dc, 0x05ff, 0x0600, 0xffff,
        ]);
        let payload = choices.pick(&[vec![0x42, 0x42, 3, 0, 0, 0], vec![0; 46], vec![]]);
        self.ethernet(choices, self.to, ethertype, &payload)
    }

    /// Puts tags into the frame or beside it: listed ones where the port has any.
    fn tags(&self, choices: &mut Choices<'_>, bytes: &mut Vec<u8>) -> Option<u16> {
        let listed: Vec<u16> = self
            .port
            .into_iter()
            .flat_map(|port| port.trunk.iter().map(|vid| vid.get()))
            .collect();
        let often = if listed.is_empty() { 16 } else { 2 };
        if !choices.once_in(often) {
            return None;
        }
        let usual = if listed.is_empty() { vec![0] } else { listed };
        let control = choices.mostly(&usual, &[0, 1, 100, 0x0fff, 0x1064]);
        let control = control | choices.mostly(&[0], &[0x2000, 0xe000, 0x1000]);
        let protocol = choices.mostly(&[0x8100], &[0x88a8, 0x9100]);
        match choices.pick(&[0, 0, 0, 0, 1, 1, 2, 3]) {
            0 => *bytes = tagged(bytes, protocol, control),
            1 => return Some(control),
            2 => *bytes = tagged(&tagged(bytes, protocol, control), 0x8100, control),
            _ => {
                *bytes = tagged(bytes, protocol, control);
                return Some(control);
            }
        }
        None
    }
}

/// The MAC of an IPv4 group, or of a broadcast.
fn mac_of4(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    match group.is_multicast() {
        true => [1, 0, 0x5e, b & 0x7f, c, d],
        false => BROADCAST,
    }
}

/// The number of records of a report, and those: mostly of one group.
fn records(choices: &mut Choices<'_>, group: &[u8]) -> Vec<u8> {
    let count: u16 = choices.pick(&[1, 1, 2, 3, 70, 0]);
    let mut bytes = choices
        .mostly(&[count], &[count + 1, 0xffff])
        .to_be_bytes()
        .to_vec();
    for nth in 0..count {
        let sources = choices.mostly(&[0], &[1, 2]);
        let auxiliary = choices.mostly(&[0], &[1, 200]);
        let kind = choices.mostly(&[4, 2, 3], &[1, 5, 6, 0, 7]);
        bytes.extend([kind, auxiliary, 0, sources]);
        let mut group = group.to_vec();
        if let Some(last) = group.last_mut() {
            *last = last.wrapping_add(nth as u8);
        }
        bytes.extend(&group);
        bytes.extend(group.repeat(sources.into()));
        bytes.extend(vec![0; usize::from(auxiliary % 200) * 4]);
    }
    bytes
}

/// A payload of that protocol.
fn transport(choices: &mut Choices<'_>, protocol: u8, clients: &[Mac]) -> Vec<u8> {
    // So much that the MTUs of links and tunnels, of 576, 1280, 1300, 1450 and 1500 bytes, are just
    // met or just missed.
    let size = choices.mostly(
        &[4, 4, 0, 1, 30],
        &[
            548, 549, 1402, 1403, 1422, 1423, 1212, 1213, 1220, 1232, 1233, 1240, 1252, 1253, 1260,
            1272, 1273, 1432, 1452, 1472, 1473,
        ],
    );
    let filler = vec![b'x'; size];
    let bytes = match protocol {
        17 => {
            let ports = [
                1000, 53, 67, 68, 546, 547, 3544, 4500, 4789, 6081, 7471, 8472, 16081,
            ];
            let usual = [1000, 2000];
            let from = choices.mostly(&usual, &ports);
            let to = choices.mostly(&[1000, 2000, 1000, 2000, 6081], &ports);
            let message = match choices.pick(&[0, 0, 1, 2, 3]) {
                0 => filler,
                1 => vec![2],
                2 => bootp(choices.pick(&[1, 2]), choices.pick(clients)),
                _ => vec![],
            };
            udp(from, to, &message)
        }
        6 if choices.once_in(2) => maximum_segment(choices),
        2 => {
            let kind = choices.pick(&[17, 18, 22, 34, 19, 20, 48, 49, 50]);
            [&[kind, 0, 0, 0][..], &filler].concat()
        }
        51 => {
            let next = choices.pick(&[17, 6, 4, 50, 51, 97, 1]);
            let behind = choices.pick(&[udp(1000, 4789, &filler), udp(1000, 9, &filler), filler]);
            [vec![next], authentication(), behind].concat()
        }
        6 if choices.once_in(8) => tcp(1000, 7471, 5, &filler),
        6 => tcp(1000, 80, choices.mostly(&[5, 8, 15], &[0, 4]), &filler),
        1 => {
            let kind = choices.pick(&[8, 8, 0, 3, 4, 5, 11, 12, 13]);
            icmp(kind, 0, &[ECHO, &filler].concat())
        }
        58 => {
            let kind =
                choices.pick(&[128, 128, 129, 1, 2, 3, 4, 100, 127, 138, 147, 156, 157, 200]);
            icmpv6(kind, 0, &[ECHO, &filler].concat())
        }
        _ => filler,
    };
    perhaps_cut(choices, bytes)
}

/// A segment with a maximum segment size among other options.
fn maximum_segment(choices: &mut Choices<'_>) -> Vec<u8> {
    let front = choices.pick(&[
        vec![],
        vec![1],
        vec![1, 1],
        vec![4, 2],
        vec![3, 3, 7],
        vec![2, 4, 0xff, 0xff],
        vec![2, 3, 0xff],
        vec![0],
        vec![9, 0],
        vec![9, 1],
        vec![9, 30],
    ]);
    let mss = choices.pick(&[
        1460, 1440, 1410, 1411, 1390, 1391, 1240, 1241, 536, 537, 0, 0xffff,
    ]);
    let mut segment = tunnel_rows::syn(&front, mss);
    segment[13] = choices.pick(&[0x02, 0x02, 0x12, 0x10, 0xc2]);
    segment[16..18].copy_from_slice(&choices.word().to_be_bytes());
    segment
}

fn ipv4_options(choices: &mut Choices<'_>) -> Vec<u8> {
    let known = [
        vec![1],
        vec![7, 7, 4, 0, 0, 0, 0],
        vec![148, 4, 0, 0],
        vec![68, 8, 9, 0, 0, 0, 0, 0],
        vec![131, 7, 4, 10, 0, 0, 12],
        vec![137, 3, 4],
        vec![0],
        vec![7, 0],
        vec![7, 1],
        vec![130, 40, 0],
        vec![9],
    ];
    let mut options = Vec::new();
    for _ in 0..=choices.below(3) {
        options.extend(choices.pick(&known));
    }
    options.truncate(40);
    options
}

/// Options, most of them without an address.
fn options6(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.pick(&[0, 0, 0, 0, 0, 1, 2, 3]) {
        0 => padding_options(choices.mostly(&[0], &[1, 2, 31])),
        1 => one_option(&home_address(
            choices.pick(&[rows::inner(0x12), rows::EXTERNAL6]),
        )),
        2 => {
            let kind = choices.byte();
            one_option(&[kind, choices.pick(&[0, 1, 2, 3, 5])])
        }
        _ => one_option(&[5, 2, 0, 0]),
    }
}

fn extensions(choices: &mut Choices<'_>) -> Vec<(u8, Vec<u8>)> {
    let count = choices.pick(&[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 7, 8, 9]);
    let mut headers = Vec::new();
    for index in 0..count {
        let number = if index == 0 {
            choices.pick(&[0, 60, 60, 44, 44, 44, 43, 43, 51])
        } else {
            choices.mostly(&[60, 60, 43, 51], &[0, 44, 44, 44, 135, 139, 140])
        };
        let body = match number {
            43 => {
                let kind = choices.mostly(&[4, 2, 3], &[0, 253]);
                routing_by(kind, choices.pick(&[0, 0, 0, 1, 255]), rows::inner(0x12))
            }
            44 => fragment_header(
                choices.mostly(&[0], &[1, 2, 185, 0x1fff]),
                choices.once_in(2),
            ),
            51 => authentication(),
            _ => options6(choices),
        };
        headers.push((number, body));
    }
    headers
}

fn nd_options(choices: &mut Choices<'_>, own: Mac) -> Vec<Vec<u8>> {
    let known = [
        link_layer(1, own),
        link_layer(2, own),
        link_layer(1, own),
        link_layer(2, own),
        link_layer(1, rows::VM2),
        link_layer(2, rows::VM2),
        vec![14, 1, 1, 2, 3, 4, 5, 6],
        [&[14, 2][..], &[7; 14]].concat(),
        vec![14, 0, 0, 0, 0, 0, 0, 0],
        [&[1, 2], &own[..], &[0; 8]].concat(),
        vec![25, 3, 0, 0, 0, 0, 0, 0],
        vec![1],
    ];
    let count = choices.pick(&[0, 1, 1, 1, 2, 3]);
    (0..count).map(|_| choices.pick(&known)).collect()
}

/// Changes a frame without regard to what it is: bytes, lengths, ends. Checksums are then made
/// right again more often than not, so that the rows behind them are reached.
pub(crate) fn damage(choices: &mut Choices<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..=choices.below(2) {
        match choices.pick(&[0, 0, 0, 1, 2, 3]) {
            _ if bytes.is_empty() => {}
            0 => {
                let reach = bytes.len().min(choices.pick(&[14, 34, 60, 100]));
                let at = choices.below(reach);
                bytes[at] = choices.pick(&[0, 0xff, 1, 0x80, choices.0.len() as u8]);
            }
            1 => {
                let reach = bytes.len().min(80);
                let at = choices.below(reach);
                bytes[at] ^= 1 << (choices.byte() % 8);
            }
            2 => {
                let left = choices.below(bytes.len() + 1);
                bytes.truncate(left);
            }
            _ => {
                let more = choices.pick(&[1, 4, 60, 1500]);
                bytes.resize(bytes.len() + more, 0);
            }
        }
    }
    if choices.once_in(4) {
        return;
    }
    match bytes.get(12..14) {
        Some([0x08, 0x00]) if bytes.len() >= 34 => set_ipv4_checksum(&mut bytes[14..]),
        Some([0x86, 0xdd]) if bytes.len() > 58 && bytes[20] == 58 => {
            let end = bytes
                .len()
                .min(54 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]])));
            let address = |at: usize| {
                let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
                Ipv6Addr::from(octets)
            };
            let (from, to) = (address(22), address(38));
            set_icmpv6_checksum(from, to, &mut bytes[54..end.max(54)]);
        }
        _ => {}
    }
}
