//! Sequences of DHCP: several clients, some of which lie, servers that are not ideal, data, new
//! configurations and the clock.

use std::net::Ipv4Addr;

use tenant_config::{Addresses, MacAddr, PortConfig, SwitchConfig};

use super::configs;
use super::frames::*;
use super::generate::Choices;
use super::rows::{GATEWAY, GW, IP1, IP2};
use super::trial::SECOND_NS;

/// One event of a sequence.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A port sends a frame.
    Frame { from: usize, bytes: Vec<u8> },
    /// The switch gets a new configuration, which has the same ports.
    Configure(Box<SwitchConfig>),
    /// Nothing happens for so long.
    Wait(u64),
}

/// What the stations of a sequence remember.
#[derive(Debug)]
pub(crate) struct World {
    config: SwitchConfig,
    /// By port, the transaction that it used last.
    transactions: Vec<u8>,
}

/// The ports of [`configs::learners`]: the first has an address, the next two serve, the others
/// learn.
pub(crate) const SERVERS: [usize; 2] = [1, 2];
pub(crate) const LEARNERS: [usize; 3] = [3, 4, 5];

/// Every address that somebody may want.
pub(crate) fn addresses() -> Vec<Ipv4Addr> {
    let last = [50, 51, 52, 11, 12, 1, 0, 255];
    let near = last.map(|last| Ipv4Addr::new(10, 0, 0, last));
    near.into_iter()
        .chain([Ipv4Addr::new(192, 168, 1, 9)])
        .collect()
}

/// The identifiers that clients try: any value, and those that name a MAC.
pub(crate) fn identifiers(config: &SwitchConfig) -> Vec<Vec<u8>> {
    let named = |port: &PortConfig| [&[1], &port.mac.octets()[..]].concat();
    let any = (0..6).map(|number| vec![0xff, 7, 7, number]);
    any.chain(config.ports.iter().map(named)).collect()
}

/// The configurations that may follow each other: a port gets another MAC, a fixed address, other
/// tags or no server.
fn reconfigured(choices: &mut Choices<'_>) -> SwitchConfig {
    let mut config = configs::learners();
    let learner = choices.pick(&LEARNERS);
    match choices.pick(&[0, 1, 2, 3, 4, 5]) {
        0 => {
            let mut mac = config.ports[learner].mac.octets();
            mac[4] = 9;
            config.ports[learner].mac = MacAddr::new(mac).expect("a station's MAC");
        }
        1 => {
            let address = Ipv4Addr::new(10, 0, 0, choices.pick(&[50, 51]));
            let net = ipnet::IpNet::from(std::net::IpAddr::from(address));
            config.ports[learner].addresses = Addresses::Static(vec![net]);
        }
        2 => {
            config.ports[5].trunk.pop();
        }
        3 => config.ports[2].dhcp_server = false,
        4 => config.ports[0].mtu = 1400,
        _ => {}
    }
    config
}

/// A DHCP message from its parts.
#[derive(Debug, Clone)]
pub(crate) struct Dhcp {
    pub(crate) op: u8,
    pub(crate) kind: Option<u8>,
    pub(crate) xid: u8,
    /// The broadcast flag.
    pub(crate) broadcast: bool,
    pub(crate) mac: Mac,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) yiaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    /// What lies behind the options.
    pub(crate) rest: Vec<u8>,
}

impl Dhcp {
    pub(crate) fn client(kind: u8, mac: Mac) -> Self {
        let zero = Ipv4Addr::UNSPECIFIED;
        Self {
            op: 1,
            kind: Some(kind),
            xid: 7,
            broadcast: false,
            mac,
            ciaddr: zero,
            yiaddr: zero,
            giaddr: zero,
            options: Vec::new(),
            rest: vec![255],
        }
    }

    pub(crate) fn server(kind: u8, mac: Mac, yiaddr: Ipv4Addr, seconds: u32) -> Self {
        let options = vec![
            (54, IP2.octets().into()),
            (51, seconds.to_be_bytes().into()),
        ];
        Self {
            op: 2,
            yiaddr,
            options,
            ..Self::client(kind, mac)
        }
    }

    pub(crate) fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut message = bootp(self.op, self.mac);
        message[7] = self.xid;
        message[10] = u8::from(self.broadcast) << 7;
        for (at, address) in [(12, self.ciaddr), (16, self.yiaddr), (24, self.giaddr)] {
            message[at..at + 4].copy_from_slice(&address.octets());
        }
        let kind = self.kind.iter().map(|kind| (53, vec![*kind]));
        for (code, value) in kind.chain(self.options.iter().cloned()) {
            message.extend([code, value.len() as u8]);
            message.extend(value);
        }
        message.extend(&self.rest);
        message
    }

    /// The frame that carries it: by broadcast from nowhere, or from an address to a server.
    pub(crate) fn frame(&self, source: Ipv4Addr) -> Vec<u8> {
        if self.op == 2 {
            let packet = V4::new(IP2, Ipv4Addr::BROADCAST, 17, udp(67, 68, &self.bytes()));
            return ethernet(BROADCAST, self.mac, IPV4, &packet.bytes());
        }
        let to = if source.is_unspecified() {
            Ipv4Addr::BROADCAST
        } else {
            IP2
        };
        self.frame_to(source, to)
    }

    /// The frame that carries a client's message to that address.
    pub(crate) fn frame_to(&self, source: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mac = if to.octets()[3] == 255 { BROADCAST } else { GW };
        let packet = V4::new(source, to, 17, udp(68, 67, &self.bytes()));
        ethernet(mac, self.mac, IPV4, &packet.bytes())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let config = configs::learners();
        Self {
            transactions: vec![0; config.ports.len()],
            config,
        }
    }

    pub(crate) fn config(&self) -> &SwitchConfig {
        &self.config
    }

    pub(crate) fn next(&mut self, choices: &mut Choices<'_>) -> Event {
        match choices.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 4, 4]) {
            0 => self.client(choices),
            1 => self.server(choices),
            2 => self.data(choices),
            3 => {
                self.config = reconfigured(choices);
                Event::Configure(Box::new(self.config.clone()))
            }
            _ => {
                let seconds = choices.pick(&[1, 29, 31, 61, 119, 121, 3601, 90_000]);
                Event::Wait(seconds * SECOND_NS)
            }
        }
    }

    fn mac(&self, port: usize) -> Mac {
        self.config.ports[port].mac.octets()
    }

    fn client(&mut self, choices: &mut Choices<'_>) -> Event {
        let from = choices.pick(&[3, 4, 5, 3, 4, 0]);
        let kind = choices.pick(&[1, 3, 3, 3, 7, 4, 8]);
        let mut message = Dhcp::client(kind, self.mac(from));
        // Two ports may use the same number.
        message.xid = choices.pick(&[1, 2, 3]);
        self.transactions[from] = message.xid;
        let addresses = addresses();
        if choices.once_in(3) {
            message.ciaddr = choices.pick(&addresses);
        }
        if choices.once_in(2) {
            let wanted = choices.pick(&addresses);
            message = message.with(50, &wanted.octets());
        }
        if choices.once_in(2) {
            message = message.with(54, &IP2.octets());
        }
        if choices.once_in(2) {
            let identifier = choices.pick(&identifiers(&self.config));
            message = message.with(61, &identifier);
        }
        if choices.once_in(8) {
            match choices.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8]) {
                0 => message.giaddr = GATEWAY,
                1 => message = message.with(82, &[1, 1, 1]),
                2 => message = message.with(52, &[3]),
                3 => message = message.with(61, &[1, 2, 3]).with(61, &[4, 5, 6]),
                4 => message = message.with(61, &[1]),
                5 => message.rest = vec![61, 200, 1],
                6 => message.rest = vec![255, 82, 1, 1],
                7 => message.kind = choices.pick(&[None, Some(2), Some(5), Some(10)]),
                _ => message.mac = self.mac(choices.pick(&[0, 3, 4, 5])),
            }
        }
        let source = if choices.once_in(3) {
            choices.pick(&addresses)
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let mut bytes = message.frame(source);
        bytes[6..12].copy_from_slice(&self.mac(from));
        Event::Frame { from, bytes }
    }

    /// A server's message: mostly the answer to a client's last one, with an address that may be
    /// anybody's.
    fn server(&mut self, choices: &mut Choices<'_>) -> Event {
        let from = choices.pick(&[SERVERS[0], SERVERS[0], SERVERS[1]]);
        let to = choices.pick(&[3, 4, 5, 3, 4, 0]);
        let kind = choices.pick(&[5, 5, 5, 2, 6]);
        let address = choices.pick(&addresses());
        let seconds = choices.pick(&[60, 30, 3600, 0, u32::MAX]);
        let mut message = Dhcp::server(kind, self.mac(to), address, seconds);
        message.xid = self.transactions[to];
        if choices.once_in(6) {
            message.xid = choices.pick(&[1, 2, 3]);
        }
        let mut bytes = message.frame(IP2);
        bytes[6..12].copy_from_slice(&self.mac(from));
        if from == SERVERS[1] {
            // It sends from its own address.
            let own = Ipv4Addr::new(10, 0, 0, 16);
            let packet = V4::new(own, Ipv4Addr::BROADCAST, 17, udp(67, 68, &message.bytes()));
            bytes = ethernet(BROADCAST, self.mac(from), IPV4, &packet.bytes());
        }
        Event::Frame { from, bytes }
    }

    fn data(&mut self, choices: &mut Choices<'_>) -> Event {
        let from = choices.pick(&[3, 4, 5, 0]);
        let (source, to) = (choices.pick(&addresses()), choices.pick(&addresses()));
        let mac = self.mac(from);
        let mut bytes = match choices.pick(&[0, 0, 1]) {
            0 => probe(mac, source, to),
            _ => {
                let message = Arp {
                    opcode: choices.pick(&[1, 2]),
                    sender_mac: mac,
                    sender: choices.pick(&[source, Ipv4Addr::UNSPECIFIED]),
                    target_mac: [0; 6],
                    target: to,
                };
                ethernet(BROADCAST, mac, ARP, &message.bytes())
            }
        };
        if from == 5 && choices.once_in(2) {
            bytes = tagged(&bytes, 0x8100, choices.pick(&[100, 200]));
        }
        Event::Frame { from, bytes }
    }
}

/// An ordinary packet from that source; to `vm1` where the destination does not matter.
pub(crate) fn probe(mac: Mac, source: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let packet = V4::new(source, to, 17, udp(1000, 2000, b"hello"));
    ethernet(GW, mac, IPV4, &packet.bytes())
}

/// The destination of probes.
pub(crate) const PROBED: Ipv4Addr = IP1;
