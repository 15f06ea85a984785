//! Sequences of a tunnel with IPsec: SAs come and go, and everything that the underlay may send
//! about them arrives.

use std::net::IpAddr;

use pipeline::Verdict;
use pipeline::ipsec::{Bounds, Direction};
use tenant_config::{IpsecSuite, Protection, SwitchConfig};

use super::esp::Secret;
use super::frames::*;
use super::generate::{self, Choices};
use super::ipsec_frames::*;
use super::trial::{SECOND_NS, Trial};
use super::tunnel_frames::*;

/// An SA in the hands of its peer.
#[derive(Debug)]
struct Peers {
    number: usize,
    sa: Sa,
    /// The last sequence number.
    sequence: u64,
}

/// A switch, its model, and what its peers hold.
#[derive(Debug)]
pub(crate) struct Story {
    trial: Trial,
    config: SwitchConfig,
    now_ns: u64,
    inbound: Vec<Peers>,
    outbound: Vec<Sa>,
    next_spi: u32,
    /// Packets that were sealed lately, of which some did not arrive yet.
    sealed: Vec<IpsecPacket>,
}

/// So many packets are remembered to be sent again.
const LATELY: usize = 12;

impl Story {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        // Not from zero, which no clock of a switch shows: an SA has 0 there as long as it has not
        // begun.
        let now_ns = SECOND_NS;
        let mut trial = Trial::new(config);
        trial.resolve(now_ns);
        Self {
            trial,
            config: config.clone(),
            now_ns,
            inbound: Vec::new(),
            outbound: Vec::new(),
            next_spi: 0x100,
            sealed: Vec::new(),
        }
    }

    /// Everything that chance has.
    ///
    /// # Errors
    /// Where switch and model disagree.
    pub(crate) fn run(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        self.negotiate(choices);
        while !choices.is_spent() {
            self.now_ns += choices.pick(&[SECOND_NS, SECOND_NS, 1, SECOND_NS / 8, 9 * SECOND_NS]);
            match choices.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7]) {
                0 => self.esp(choices)?,
                1 => self.away(choices)?,
                2 => self.ike(choices)?,
                3 => self.negotiate(choices),
                4 => self.end(choices),
                5 => {
                    drop(self.trial.poll(self.now_ns));
                    self.trial.resolve(self.now_ns);
                }
                6 => self.trial.reload(),
                _ => {
                    let sent = generate::tunnel::frame(choices, &self.config);
                    let _: Verdict =
                        self.trial
                            .send(self.now_ns, sent.from, &sent.bytes, sent.tag)?;
                }
            }
        }
        Ok(())
    }

    /// The numbers of the peers that require IPsec.
    fn protected(&self) -> Vec<usize> {
        let peers = tunnel(&self.config).peers.iter().enumerate();
        peers
            .filter(|(_, peer)| peer.ipsec == Protection::Required)
            .map(|(number, _)| number)
            .collect()
    }

    /// One SA more, of any kind, in either direction or both.
    fn negotiate(&mut self, choices: &mut Choices<'_>) {
        let number = choices.pick(&self.protected());
        let port = tunnel(&self.config).port;
        let none = Bounds::NONE;
        let mut sa = Sa {
            secret: Secret::new(
                choices.pick(&[
                    IpsecSuite::Aes256Gcm16,
                    IpsecSuite::Aes128Gcm16,
                    IpsecSuite::ChaCha20Poly1305,
                    IpsecSuite::Aes256Sha256,
                ]),
                self.next_spi as u8,
            ),
            esn: choices.pick(&[true, false]),
            whole: choices.pick(&[false, false, true]),
            in_udp: choices.pick(&[None, None, Some(4500), Some(61_000)]),
            hard: choices.pick(&[
                none,
                none,
                Bounds { packets: 3, ..none },
                Bounds { bytes: 500, ..none },
                Bounds {
                    age_ns: 20 * SECOND_NS,
                    ..none
                },
            ]),
            ..Sa::new(&self.config, number, self.next_spi)
        };
        let directions = choices.pick(&[3, 3, 1, 2]);
        if directions & 1 != 0 {
            let ports = choices.pick(&[(Some(port), None), (None, Some(port)), (None, None)]);
            (sa.own_port, sa.peer_port) = ports;
            self.trial.install(self.now_ns, Direction::In, &sa);
            self.inbound.push(Peers {
                number,
                sa: sa.clone(),
                sequence: choices.pick(&[0, 0, 0xffff_ff00]),
            });
        }
        if directions & 2 != 0 {
            self.trial.install(self.now_ns, Direction::Out, &sa);
            self.outbound.push(sa);
        }
        self.next_spi += 0x0101;
    }

    /// One SA less, or all of them. Their peers keep them.
    fn end(&mut self, choices: &mut Choices<'_>) {
        match choices.pick(&[0, 1, 2]) {
            0 if !self.inbound.is_empty() => {
                let at = choices.below(self.inbound.len());
                let Sa { peer, spi, .. } = self.inbound[at].sa;
                self.trial.remove(self.now_ns, Direction::In, peer, spi);
            }
            1 if !self.outbound.is_empty() => {
                let Sa { peer, spi, .. } = choices.pick(&self.outbound);
                self.trial.remove(self.now_ns, Direction::Out, peer, spi);
            }
            2 if choices.once_in(3) => self.trial.wipe(self.now_ns),
            _ => {}
        }
    }

    fn arrives(&mut self, frame: &[u8]) -> Result<(), String> {
        let uplink = self.config.ports.len();
        self.trial.send(self.now_ns, uplink, frame, None).map(drop)
    }

    /// From a VM to one behind a peer that requires IPsec, or that does not.
    fn away(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let sent = generate::tunnel::away(choices, &self.config);
        self.trial
            .send(self.now_ns, sent.from, &sent.bytes, sent.tag)
            .map(drop)
    }

    /// A packet of an SA, or one that is like it.
    fn esp(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let packet = match choices.pick(&[0, 0, 0, 0, 0, 1]) {
            1 if !self.sealed.is_empty() => choices.pick(&self.sealed),
            _ => match self.seal(choices) {
                Some(packet) => packet,
                None => return Ok(()),
            },
        };
        // Some are under way for longer.
        if choices.once_in(8) {
            return Ok(());
        }
        let frame = match choices.once_in(3) {
            true => self.spoiled(choices, packet),
            false => packet.frame(),
        };
        self.arrives(&frame)
    }

    /// What a peer seals: mostly a tunnel packet.
    fn seal(&mut self, choices: &mut Choices<'_>) -> Option<IpsecPacket> {
        if self.inbound.is_empty() {
            return None;
        }
        let at = choices.below(self.inbound.len());
        let number = self.inbound[at].number;
        let inside = generate::tunnel::packet(choices, &self.config, number);
        let Peers { sa, sequence, .. } = &mut self.inbound[at];
        *sequence += choices.pick(&[1, 1, 1, 1, 2, 63, 64, 65]);
        let plain = TunnelPacket {
            from: sa.peer,
            ..TunnelPacket::new(&self.config, number, Vec::new())
        };
        let (payload, next_header) = sa.payload(&inside);
        let text = match choices.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4]) {
            1 => sa.secret.text(&payload, DUMMY),
            2 => sa.secret.text(&payload, choices.pick(&[4, 6, 17, 41])),
            3 => {
                let mut text = sa.secret.text(&payload, next_header);
                let last = text.len() - choices.pick(&[2, 3]);
                text[last] ^= choices.pick(&[1, 0x80]);
                text
            }
            4 => {
                let left = choices.below(payload.len() + 1);
                sa.secret.text(&payload[..left], next_header)
            }
            _ => sa.secret.text(&payload, next_header),
        };
        // In transport mode the IP header is the tunnel packet's own.
        let mut outer = if sa.whole { plain } else { inside };
        (outer.from, outer.to) = (sa.peer, tunnel(&self.config).vtep);
        (outer.options, outer.extensions) = (Vec::new(), Vec::new());
        outer.fragment = DONT_FRAGMENT;
        let packet = IpsecPacket::of_text(sa, *sequence, &outer, &text);
        self.sealed.insert(0, packet.clone());
        self.sealed.truncate(LATELY);
        Some(packet)
    }

    /// The packet as somebody on the way would change it.
    fn spoiled(&self, choices: &mut Choices<'_>, mut packet: IpsecPacket) -> Vec<u8> {
        match choices.pick(&[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
            0 => {
                let at = choices.below(packet.bytes.len());
                packet.bytes[at] ^= 1 << choices.below(8);
            }
            1 => {
                let left = choices.below(packet.bytes.len() + 1);
                packet.bytes.truncate(left);
            }
            2 => {
                let spi: u32 = choices.pick(&[0, 1, 0x100, 0x201, 0xffff_ffff, self.next_spi]);
                packet.bytes[..4].copy_from_slice(&spi.to_be_bytes());
            }
            3 => {
                let own = tunnel(&self.config).vtep;
                let peers = tunnel(&self.config).peers.iter().map(|peer| peer.vtep);
                let others: Vec<IpAddr> = peers.chain([own]).collect();
                packet.outer.from = choices.pick(&others);
            }
            4 => {
                packet.outer.fragment = choices.pick(&[MORE_FRAGMENTS, 1, 0x1fff]);
                packet.outer.extensions = vec![(44, fragment_header(0, choices.once_in(2)))];
            }
            5 => {
                packet.outer.options = vec![1; 4];
                packet.outer.extensions = vec![(60, padding_options(0))];
            }
            6 => packet.length = Some(choices.pick(&[0, 8, 20, 0xffff])),
            7 => {
                let ports = [(4500, 4500), (1, 4500), (4500, 500), (4500, 4501)];
                packet.udp = match packet.udp {
                    None => Some(choices.pick(&ports)),
                    Some(_) => None,
                };
            }
            8 => packet.outer.class = choices.pick(&[1, 2, 3, 0xff]),
            _ => packet.outer.mac_to = choices.pick(&[BROADCAST, [0x33, 0x33, 0, 0, 0, 1]]),
        }
        let mut frame = packet.frame();
        if choices.once_in(6) {
            generate::damage(choices, &mut frame);
        }
        frame
    }

    /// IKE, keepalives, and less than that.
    fn ike(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let number = choices.below(tunnel(&self.config).peers.len());
        let mut outer = TunnelPacket::new(&self.config, number, Vec::new());
        outer.fragment = choices.pick(&[DONT_FRAGMENT, 0, DONT_FRAGMENT, MORE_FRAGMENTS]);
        let ports = choices.pick(&[(500, 500), (4500, 4500), (1234, 500), (999, 4500)]);
        let length = choices.pick(&[28, 29, 200, 27, 5, 4, 3, 1, 0, 2044]);
        let mut bytes = vec![choices.pick(&[0, 0xff, 7]); length];
        if ports.1 == 4500 && choices.once_in(2) {
            bytes = [vec![0; 4], bytes].concat();
        }
        let mut packet = IpsecPacket::datagram(&outer, ports, &bytes);
        packet.sum = choices.pick(&[Sum::Right, Sum::Right, Sum::Right, Sum::Wrong, Sum::Zero]);
        if choices.once_in(6) {
            packet.length = Some(choices.pick(&[0, 8, 12, 36, 40, 0xffff]));
        }
        let frame = packet.frame();
        for _ in 0..choices.pick(&[1, 1, 1, 1, 1, 60]) {
            self.arrives(&frame)?;
        }
        Ok(())
    }
}
