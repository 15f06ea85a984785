//! VMs ask for names that are not the tenant's, and resolvers answer, or somebody in their name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pipeline::{PortId, Verdict};
use tenant_config::SwitchConfig;

use super::configs;
use super::dns_story::{domain, name, opt, query, raw, reverse};
use super::frames::*;
use super::generate::{Choices, damage};
use super::rows::{GATEWAY, IP1, IP2, IP3, ROUTER, UPLINK, UPLINK_IP, UPLINK6, inner};
use super::trial::{SECOND_NS, Trial};

/// On the uplink's link.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// Behind the router.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// The same of IPv6.
pub(crate) const NEAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);

/// The switches whose gateway asks resolvers.
pub(crate) fn switches() -> [SwitchConfig; 2] {
    let mut one = configs::asking();
    one.gateway.dns.forward = vec![NEAR6.into()];
    one.ports[0].mtu = 1280;
    [configs::asking(), one]
}

/// What is asked in a query that left: the resolver, our UDP port, the ID and the question.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) resolver: IpAddr,
    pub(crate) udp_port: u16,
    pub(crate) id: u16,
    pub(crate) question: Vec<u8>,
}

impl Left {
    /// What is in the frame of a query.
    pub(crate) fn of(frame: &[u8]) -> Self {
        let (resolver, udp) = match frame[12..14] {
            [8, 0] => (
                IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).expect("four")),
                &frame[34..],
            ),
            _ => (
                IpAddr::from(<[u8; 16]>::try_from(&frame[38..54]).expect("sixteen")),
                &frame[54..],
            ),
        };
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let message = &udp[8..];
        let end = match message[11] {
            0 => message.len(),
            _ => message.len() - 11,
        };
        Self {
            resolver,
            udp_port: word(0),
            id: word(8),
            question: message[12..end].to_vec(),
        }
    }

    /// An answer with so many bytes of records.
    pub(crate) fn answer(&self, flags: u16, records: usize) -> Vec<u8> {
        let mut message = self.id.to_be_bytes().to_vec();
        message.extend(flags.to_be_bytes());
        message.extend([0, 1, 0, u8::from(records > 0), 0, 0, 0, 0]);
        message.extend(&self.question);
        message.extend((0..records).map(|at| at as u8));
        message
    }

    /// The frame of that message from the resolver.
    pub(crate) fn frame(&self, message: &[u8]) -> Vec<u8> {
        from_resolver(self.resolver, (53, self.udp_port), message)
    }
}

/// A datagram from a station to the uplink's address of its family.
pub(crate) fn from_resolver(from: IpAddr, ports: (u16, u16), message: &[u8]) -> Vec<u8> {
    let mut datagram = udp(ports.0, ports.1, message);
    match from {
        IpAddr::V4(from) => {
            sum(&[from.octets(), UPLINK_IP.octets()].concat(), &mut datagram);
            let packet = V4::new(from, UPLINK_IP, 17, datagram);
            ethernet(UPLINK, ROUTER, IPV4, &packet.bytes())
        }
        IpAddr::V6(from) => {
            sum(&[from.octets(), UPLINK6.octets()].concat(), &mut datagram);
            let packet = V6::new(from, UPLINK6, 17, datagram);
            ethernet(UPLINK, ROUTER, IPV6, &packet.bytes())
        }
    }
}

/// Makes a datagram's checksum right.
fn sum(addresses: &[u8], datagram: &mut [u8]) {
    let length = (datagram.len() as u16).to_be_bytes();
    let covered = [addresses, &[0, 17], &length, datagram].concat();
    let right = match checksum(&covered) {
        0 => 0xffff,
        right => right,
    };
    datagram[6..8].copy_from_slice(&right.to_be_bytes());
}

/// A switch, its model, and what has been asked.
pub(crate) struct Story {
    trial: Trial,
    now_ns: u64,
    /// The last frame of a VM, and its port.
    said: Option<(usize, Vec<u8>)>,
    left: Vec<Left>,
    /// How many answers have reached a VM.
    pub(crate) answered: usize,
}

impl Story {
    pub(crate) fn new(config: &SwitchConfig, resolved: bool) -> Self {
        let mut trial = Trial::new(config);
        if resolved {
            trial.resolve(0);
        }
        Self {
            trial,
            now_ns: 0,
            said: None,
            left: Vec::new(),
            answered: 0,
        }
    }

    /// One event.
    pub(crate) fn step(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        self.now_ns += choices.pick(&[0, 1_000_000, SECOND_NS / 10, SECOND_NS, 4 * SECOND_NS]);
        match choices.below(10) {
            0..=3 => {
                let (from, bytes) = asks(choices, &self.trial.config().clone());
                self.say(from, bytes)
            }
            4 => match self.said.clone() {
                Some((from, bytes)) => self.say(from, bytes),
                None => Ok(()),
            },
            5 => {
                self.trial.reload();
                Ok(())
            }
            _ => self.answer(choices),
        }
    }

    /// A VM's message to the gateway.
    pub(crate) fn ask(&mut self, from: usize, is_ipv6: bool, message: &[u8]) -> Result<(), String> {
        let config = self.trial.config().clone();
        let from = from % config.ports.len();
        let bytes = raw(&config, from, is_ipv6, message);
        self.say(from, bytes)
    }

    /// A message of the resolver that was asked last, with the right ID and question if so said.
    pub(crate) fn hear(&mut self, message: &[u8], has_id: bool, asked: bool) -> Result<(), String> {
        let Some(left) = self.left.last().cloned() else {
            return Ok(());
        };
        let mut message = message.to_vec();
        if has_id && message.len() >= 2 {
            message[..2].copy_from_slice(&left.id.to_be_bytes());
        }
        if asked && message.len() >= 12 {
            message.splice(12..12, left.question.clone());
        }
        self.deliver(&left.frame(&message))
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, time_ns: u64) -> Result<(), String> {
        self.now_ns += time_ns;
        Ok(())
    }

    fn deliver(&mut self, frame: &[u8]) -> Result<(), String> {
        let uplink = self.trial.config().ports.len();
        let verdict = self.trial.send(self.now_ns, uplink, frame, None)?;
        self.answered += usize::from(matches!(verdict, Verdict::Forward(_)));
        Ok(())
    }

    fn say(&mut self, from: usize, bytes: Vec<u8>) -> Result<(), String> {
        let uplink = self.trial.config().ports.len();
        self.trial.errors_may_be_spent = true;
        let verdict = self.trial.send(self.now_ns, from, &bytes, None)?;
        if verdict == Verdict::Forward(PortId(uplink as u16))
            && let Some(frame) = self.trial.last_left.take()
        {
            self.left.push(Left::of(&frame));
        }
        self.said = Some((from, bytes));
        Ok(())
    }

    /// Somebody answers one of the last queries, mostly as it should be.
    fn answer(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let recent = self.left.len().min(4);
        if recent == 0 {
            return Ok(());
        }
        let mut left = self.left[self.left.len() - 1 - choices.below(recent)].clone();
        match choices.below(12) {
            0 => left.id ^= 1 << choices.below(16),
            1 => left.udp_port ^= 1 << choices.below(16),
            2 => left.resolver = choices.pick(&[NEAR.into(), FAR.into(), NEAR6.into()]),
            3 => left.question.make_ascii_uppercase(),
            4 => {
                let at = choices.below(left.question.len());
                left.question[at] ^= choices.pick(&[1, 0x20, 0x80]);
            }
            _ => {}
        }
        let flags = choices.mostly(
            &[0x8180, 0x8580, 0x81a0, 0x8190, 0x8183, 0x8380, 0x81c0],
            &[0x0180, 0xa980, 0xffff],
        );
        let records = choices.pick(&[0, 16, 300, 460, 512, 800, 1100, 1200, 1300]);
        let mut message = left.answer(flags, records);
        if choices.once_in(10) {
            message.truncate(choices.below(message.len() + 1));
        }
        let from = choices.mostly(&[53], &[54]);
        let mut frame = from_resolver(left.resolver, (from, left.udp_port), &message);
        if choices.once_in(10) {
            damage(choices, &mut frame);
        }
        self.deliver(&frame)
    }
}

/// A query of a VM behind any port.
fn asks(choices: &mut Choices<'_>, config: &SwitchConfig) -> (usize, Vec<u8>) {
    let from = choices.below(config.ports.len());
    let port = &config.ports[from];
    let own = domain(config);
    let outside = ["example.com", "www.Example.com", "com", "", "x.internal"];
    let inside = [
        format!("{}.{own}", port.name),
        format!("x{own}"),
        "0.0.10.in-addr.arpa".to_owned(),
        "10.in-addr.arpa".to_owned(),
        "_x.11.0.0.10.in-addr.arpa".to_owned(),
        "x.0.0.10.in-addr.arpa".to_owned(),
        "arpa".to_owned(),
        "in-addr.arpa".to_owned(),
        "0.0.d.f.ip6.arpa".to_owned(),
        format!("_x.{}", reverse(inner(0x11).into())),
        reverse(inner(0x11).into())[4..].to_owned(),
        reverse(Ipv4Addr::new(172, 16, 0, 1).into()),
    ];
    let outside = outside.map(str::to_owned);
    let text = choices.mostly(&outside, &inside);
    let rest = match choices.once_in(2) {
        true => Vec::new(),
        false => opt(choices.pick(&[0, 512, 700, 1232, 4096]), 0, &[]),
    };
    let kind = choices.mostly(&[1, 28, 255, 43], &[41, 248, 249, 252, 254]);
    let mut message = query(&name(&text), kind, &rest);
    message[1] = choices.pick(&[1, 2, 3]);
    message[2] = choices.mostly(&[1, 0], &[0x7f, 0x80, 3]);
    message[3] = choices.pick(&[0, 0x10, 0x20, 0x30, 0xff]);
    let payload = udp(choices.pick(&[53, 40_000]), 53, &message);
    let (mac, to) = (port.mac, port.gateway_mac);
    let mut bytes = match choices.once_in(2) {
        true => {
            let source = [IP1, IP2, IP3][from];
            let packet = V4::new(source, GATEWAY, 17, payload);
            ethernet(to.octets(), mac.octets(), IPV4, &packet.bytes())
        }
        false => {
            let gateway = choices.pick(&[inner(1), to.link_local()]);
            let packet = V6::new(mac.link_local(), gateway, 17, payload);
            ethernet(to.octets(), mac.octets(), IPV6, &packet.bytes())
        }
    };
    if !port.trunk.is_empty() && choices.once_in(2) {
        bytes = tagged(&bytes, 0x8100, port.trunk[0].get());
    }
    (from, bytes)
}
