//! Coverage-guided fuzzing of the pipeline: `scripts/fuzz`. As an ordinary test, each target
//! replays its corpus in `__fuzz__`.
//!
//! Every frame goes to the fast path, to the general path and to the model, as in
//! `filter_oracle.rs`; what differs is who chooses.

mod oracle;

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use oracle::configs;
use oracle::dhcp_story;
use oracle::dhcp6_story;
use oracle::dns_story;
use oracle::frames;
use oracle::generate::{self, Choices};
use oracle::ipsec_frames::{IKE_PORT, IpsecPacket, NAT_PORT, Sa};
use oracle::ipsec_story::Story;
use oracle::model::ipsec::Told;
use oracle::resolver_story;
use oracle::trial::{SECOND_NS, Switch, Trial};
use oracle::tunnel_frames::{TunnelPacket, tunnel};
use pipeline::ipsec::{Direction, Order};
use pipeline::{PortId, Verdict};
use tenant_config::{Addresses, PeerConfig, Protection, SwitchConfig};

/// The configuration that `choice` picks, ready to be tried. Next hops are known on every other
/// choice.
fn trial(choice: u8) -> Trial {
    let configs: Vec<_> = configs::all()
        .into_iter()
        .chain(configs::tunnels())
        .chain(configs::grouped_tunnels())
        .collect();
    let (_, config) = &configs[usize::from(choice >> 1) % configs.len()];
    let mut trial = Trial::new(config);
    if choice & 1 != 0 {
        trial.resolve(0);
    }
    trial
}

/// One raw frame, from a VM, from the underlay or from a tunnel's peer: a byte for the
/// configuration, one for the side, for the tag that the NIC removed and for whether an IPv4
/// checksum is made right, and the frame.
#[test]
fn raw_frame_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let [choice, from, bytes @ ..] = input else {
                return;
            };
            let mut trial = trial(*choice);
            let config = trial.config();
            let sides = config.ports.len() + usize::from(config.uplink.is_some());
            let tag = (from & 0x80 != 0).then_some(u16::from(from & 0x70) >> 4);
            let mut bytes = bytes.to_vec();
            if from & 0x08 != 0 && bytes.len() >= 34 {
                frames::set_ipv4_checksum(&mut bytes[14..]);
            }
            let from = usize::from(from & 0x07) % sides;
            if let Err(disagreement) = trial.send(SECOND_NS, from, &bytes, tag) {
                panic!("{disagreement}");
            }
        });
}

/// Frames that are mostly valid, the clock, and restarts of the configuration: a byte for the
/// configuration, and chance.
#[test]
fn sequence_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, chance)) = input.split_first() else {
                return;
            };
            let mut trial = trial(*choice);
            let config = trial.config().clone();
            let mut choices = Choices::new(chance);
            let mut now_ns = 0;
            while !choices.is_spent() {
                now_ns += SECOND_NS * choices.pick(&[1, 1, 1, 1, 30, 600]);
                match choices.below(8) {
                    0 => {
                        drop(trial.poll(now_ns));
                        // The next hops answer what the clock asks them; the model has no such
                        // clock.
                        trial.resolve(now_ns);
                    }
                    1 => trial.reload(),
                    _ => {
                        let sent = generate::frame(&mut choices, &config);
                        if let Err(disagreement) =
                            trial.send(now_ns, sent.from, &sent.bytes, sent.tag)
                        {
                            panic!("{disagreement}");
                        }
                    }
                }
            }
        });
}

/// What stations report of groups: a byte for the configuration; then for each message a byte for
/// the port, the family and the time that passes before it, one for its length, and the message,
/// whose checksum is made right. After each, the next port sends to each group that it may name.
#[test]
fn reports_agree_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, mut rest)) = input.split_first() else {
                return;
            };
            let config = match choice & 1 {
                0 => configs::grouped(),
                _ => configs::any(),
            };
            let mut trial = Trial::new(&config);
            let mut now_ns = 0;
            while let [who, len, tail @ ..] = rest {
                let (message, after) = tail.split_at(usize::from(*len).min(tail.len()));
                rest = after;
                now_ns += SECOND_NS << (who >> 4);
                let from = usize::from(who & 3);
                let mut send = |from: usize, bytes: Vec<u8>| {
                    if let Err(disagreement) = trial.send(now_ns, from, &bytes, None) {
                        panic!("{disagreement}");
                    }
                };
                let is_ipv6 = who & 4 != 0;
                send(from, report(&config, from, is_ipv6, message));
                let next = (from + 1) % config.ports.len();
                for at in [4, 8, 12, 28] {
                    if let Some(packet) = to_group(&config, next, is_ipv6, message.get(at..)) {
                        send(next, packet);
                    }
                }
            }
        });
}

/// An IGMP or MLD message of a port's, with a right checksum.
fn report(config: &SwitchConfig, from: usize, is_ipv6: bool, message: &[u8]) -> Vec<u8> {
    let mac = config.ports[from].mac;
    let mut message = message.to_vec();
    if is_ipv6 {
        let to = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
        message.resize(message.len().max(4), 0);
        let packet = frames::V6::icmp(mac.link_local(), to, message);
        let to_mac = frames::group_mac(to);
        return frames::ethernet(to_mac, mac.octets(), frames::IPV6, &packet.bytes());
    }
    if message.len() >= 4 {
        message[2..4].fill(0);
        let sum = frames::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let to = std::net::Ipv4Addr::new(224, 0, 0, 22);
    let own = std::net::Ipv4Addr::new(10, 0, 0, 11 + from as u8);
    let packet = frames::V4::new(own, to, 2, message);
    let to_mac = [1, 0, 0x5e, 0, 0, 22];
    frames::ethernet(to_mac, mac.octets(), frames::IPV4, &packet.bytes())
}

/// A packet of a port's to the group that `bytes` begin with, if they do.
fn to_group(
    config: &SwitchConfig,
    from: usize,
    is_ipv6: bool,
    bytes: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let mac = config.ports[from].mac;
    let payload = frames::udp(1000, 2000, b"hello");
    if is_ipv6 {
        let group = std::net::Ipv6Addr::from(*bytes?.first_chunk::<16>()?);
        let packet = frames::V6::new(mac.link_local(), group, 17, payload);
        let to_mac = frames::group_mac(group);
        let frame = frames::ethernet(to_mac, mac.octets(), frames::IPV6, &packet.bytes());
        return Some(frame);
    }
    let group = std::net::Ipv4Addr::from(*bytes?.first_chunk::<4>()?);
    let [_, b, c, d] = group.octets();
    let own = std::net::Ipv4Addr::new(10, 0, 0, 11 + from as u8);
    let packet = frames::V4::new(own, group, 17, payload);
    let to_mac = [1, 0, 0x5e, b & 0x7f, c, d];
    Some(frames::ethernet(
        to_mac,
        mac.octets(),
        frames::IPV4,
        &packet.bytes(),
    ))
}

/// What clients say to one of the gateway's services. `input` is a byte for the configuration, and
/// then chance for whole frames of `frame`; or, if that byte is odd, for each message a byte for
/// the port and what `raw` makes of it, one for its length in units of `unit`, and its bytes.
/// `check` receives the port and each frame of `raw`.
fn play_service(
    input: &[u8],
    configs: &[SwitchConfig],
    frame: impl Fn(&mut Choices<'_>, &SwitchConfig) -> generate::Sent,
    (unit, raw): (usize, impl Fn(&SwitchConfig, usize, u8, &[u8]) -> Vec<u8>),
    check: impl Fn(&SwitchConfig, &mut Switch, usize, &[u8]),
) {
    let Some((choice, mut rest)) = input.split_first() else {
        return;
    };
    let config = &configs[usize::from(choice >> 1) % configs.len()];
    let mut trial = Trial::new(config);
    trial.resolve(0);
    let mut now_ns = 0;
    let mut send = |from, bytes: &[u8], tag| {
        now_ns += SECOND_NS;
        if let Err(disagreement) = trial.send(now_ns, from, bytes, tag) {
            panic!("{disagreement}");
        }
    };
    if choice & 1 == 0 {
        let mut choices = Choices::new(rest);
        while !choices.is_spent() {
            let sent = frame(&mut choices, config);
            send(sent.from, &sent.bytes, sent.tag);
        }
        return;
    }
    let mut switch = Switch::new(config, 0xee);
    while let [who, length, more @ ..] = rest {
        let (message, more) = more.split_at(more.len().min(usize::from(*length) * unit));
        let from = usize::from(who & 0x0f) % config.ports.len();
        let bytes = raw(config, from, *who, message);
        send(from, &bytes, None);
        check(config, &mut switch, from, &bytes);
        rest = more;
    }
}

/// The gateway's own DHCP server: the byte for the port also says whence, and the bytes are the
/// options of a message.
#[test]
fn dhcp_service_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let (configs, raw) = (dhcp_story::switches(), (2, dhcp_story::raw));
            play_service(input, &configs, dhcp_story::frame, raw, |_, _, _, _| ());
        });
}

/// Its DHCPv6 server, with whole messages. What it answers to those is also read by a reader of its
/// own: it gives the port's own address and no other.
#[test]
fn dhcp6_service_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let (configs, raw) = (dhcp6_story::switches(), (4, dhcp6_story::raw));
            play_service(
                input,
                &configs,
                dhcp6_story::frame,
                raw,
                |config, switch, from, bytes| {
                    let (verdict, became) = switch.process(0, from, bytes, None);
                    if verdict == Verdict::Reply {
                        // Ethernet, IPv6 and UDP.
                        gives_own_address(&config.ports[from], &became[14 + 40 + 8..]);
                    }
                },
            );
        });
}

/// A DHCPv6 server's answer gives no address that is not the port's.
fn gives_own_address(port: &tenant_config::PortConfig, answer: &[u8]) {
    let given = dhcp6_story::given(answer).unwrap_or_else(|what| panic!("{what}: {answer:02x?}"));
    assert!(given.len() <= 1, "{given:?}");
    for address in given {
        let owns = port.sources().any(|net| net.contains(&IpAddr::V6(address)));
        assert!(owns, "{address}");
    }
}

/// Its names, with whole queries; the byte for the port also says the family.
#[test]
fn name_service_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let raw = |config: &_, from, who, message: &_| {
                dns_story::raw(config, from, who & 0x80 != 0, message)
            };
            let configs = dns_story::switches();
            play_service(input, &configs, dns_story::frame, (2, raw), |_, _, _, _| ());
        });
}

/// Names that resolvers are asked for, by a byte for the configuration and then chance for whole
/// events; or, if that byte is odd, for each event a byte for what it is, one for its length, and
/// its bytes: a query of a VM, a resolver's message, whose ID and question are made right by other
/// bits, or time.
#[test]
fn resolvers_agree_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, mut rest)) = input.split_first() else {
                return;
            };
            let configs = resolver_story::switches();
            let config = &configs[usize::from(choice >> 2) % configs.len()];
            let mut story = resolver_story::Story::new(config, choice & 2 == 0);
            let agree = |outcome: Result<(), String>| {
                if let Err(disagreement) = outcome {
                    panic!("{disagreement}");
                }
            };
            if choice & 1 == 0 {
                let mut choices = Choices::new(rest);
                while !choices.is_spent() {
                    agree(story.step(&mut choices));
                }
                return;
            }
            while let [kind, length, more @ ..] = rest {
                let (message, more) = more.split_at(more.len().min(usize::from(*length)));
                agree(match kind & 3 {
                    0 => story.ask(usize::from(kind >> 3), kind & 4 != 0, message),
                    1 | 2 => story.hear(message, kind & 4 != 0, kind & 8 != 0),
                    _ => story.wait(SECOND_NS >> (kind >> 4)),
                });
                rest = more;
            }
        });
}

/// SAs that come and go, what they carry and what only looks like it: a byte for the configuration,
/// and chance.
#[test]
fn ipsec_sequence_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, chance)) = input.split_first() else {
                return;
            };
            let configs = configs::protected();
            let (_, config) = &configs[usize::from(*choice) % configs.len()];
            if let Err(disagreement) = Story::new(config).run(&mut Choices::new(chance)) {
                panic!("{disagreement}");
            }
        });
}

/// A switch with a peer that requires IPsec, and what that peer holds; no model.
struct Encrypted {
    switch: Switch,
    config: SwitchConfig,
    now_ns: u64,
    /// The number of the peer.
    peer: usize,
    sa: Sa,
    sequence: u64,
    last: Vec<u8>,
    received: u64,
    messages: u64,
}

impl Encrypted {
    fn new(config: &SwitchConfig) -> Self {
        let mut switch = Switch::new(config, 0xee);
        switch.resolve(0);
        let required = |peer: &PeerConfig| peer.ipsec == Protection::Required;
        let peer = tunnel(config).peers.iter().position(required);
        let peer = peer.expect("a peer that requires IPsec");
        let mut encrypted = Self {
            switch,
            config: config.clone(),
            now_ns: SECOND_NS,
            peer,
            sa: Sa::new(config, peer, 0x100),
            sequence: 0,
            last: Vec::new(),
            received: 0,
            messages: 0,
        };
        encrypted.renew(0);
        encrypted
    }

    /// Puts new SAs in the place of the old ones, inbound first.
    fn renew(&mut self, choice: u8) {
        let (old, peer) = (self.sa.spi, self.sa.peer);
        let mut sa = Sa::new(&self.config, self.peer, old + 0x101);
        sa.whole = choice & 1 != 0;
        sa.in_udp = (choice & 2 != 0).then_some(NAT_PORT);
        sa.esn = choice & 4 != 0;
        self.switch.install(self.now_ns, Direction::In, &sa);
        (sa.own_port, sa.peer_port) = (None, sa.own_port);
        self.switch.install(self.now_ns, Direction::Out, &sa);
        for direction in [Direction::In, Direction::Out] {
            let spi = old;
            let order = Order::Remove {
                direction,
                peer,
                spi,
            };
            self.switch.order(self.now_ns, order);
        }
        (self.sa, self.sequence) = (sa, 0);
    }

    fn event(&mut self, kind: u8, bytes: &[u8]) {
        let uplink = self.config.ports.len();
        let outer = TunnelPacket::new(&self.config, self.peer, bytes.to_vec());
        match kind & 7 {
            from @ 0..=2 => {
                let mut frame = bytes.to_vec();
                if kind & 0x80 != 0 && frame.len() >= 34 {
                    frames::set_ipv4_checksum(&mut frame[14..]);
                }
                self.send(usize::from(from).min(uplink), &frame, false);
            }
            3 => {
                self.sequence += 1;
                let (_, next_header) = self.sa.payload(&outer);
                let text = self.sa.secret.text(bytes, next_header);
                self.last = IpsecPacket::of_text(&self.sa, self.sequence, &outer, &text).frame();
                self.send(uplink, &self.last.clone(), true);
            }
            4 => {
                self.sequence += 1;
                self.last = IpsecPacket::new(&self.sa, self.sequence, &outer).frame();
                self.send(uplink, &self.last.clone(), true);
            }
            5 => {
                let mut frame = self.last.clone();
                for (byte, change) in frame.iter_mut().rev().zip(bytes) {
                    *byte ^= change;
                }
                self.send(uplink, &frame, false);
            }
            6 => {
                let port = if kind & 8 != 0 { IKE_PORT } else { NAT_PORT };
                let packet = IpsecPacket::datagram(&outer, (port, port), bytes);
                self.send(uplink, &packet.frame(), false);
            }
            _ if kind & 8 != 0 => self.renew(kind >> 4),
            _ => {
                self.now_ns += SECOND_NS >> (kind >> 4);
                drop(self.switch.poll(self.now_ns));
                self.switch.resolve(self.now_ns);
            }
        }
    }

    /// What must hold of any frame. `sealed`: the peer has just sealed it.
    fn send(&mut self, from: usize, frame: &[u8], sealed: bool) {
        let uplink = self.config.ports.len();
        self.received += 1;
        let (verdict, became) = self.switch.process(self.now_ns, from, frame, None);
        let leaves = match verdict {
            Verdict::Forward(PortId(to)) => Some(usize::from(to)),
            Verdict::Reply | Verdict::DropWithError(_) => Some(from),
            Verdict::Drop(_) => None,
            Verdict::Copies => panic!("no group is allowed here"),
        };
        if leaves == Some(uplink) {
            self.is_not_plain(&became);
        }
        if from == uplink && leaves.is_some_and(|to| to < uplink) {
            let Some((source, ..)) = ends(&became) else {
                panic!("no IP packet: {became:02x?}");
            };
            self.is_not_forged(source, frame, sealed);
        }
        let counted = self.switch.counted();
        let done = counted.iter().map(|port| {
            assert_eq!(
                port.rx_frames,
                port.forwarded + port.replies + port.drops.values().sum::<u64>()
            );
            port.rx_frames
        });
        assert_eq!(done.sum::<u64>(), self.received);
        self.are_bounded_messages();
    }

    /// No tunnel packet to a peer that requires IPsec is readable.
    fn is_not_plain(&self, frame: &[u8]) {
        let port = tunnel(&self.config).port;
        if let Some((_, to, ports)) = ends(frame)
            && self.requires(to)
        {
            assert!(ports.is_none_or(|(_, to)| to != port), "a plain packet");
        }
    }

    /// A packet for a port is from nobody here, and from a peer's VM only if that peer sent it.
    fn is_not_forged(&self, source: IpAddr, frame: &[u8], sealed: bool) {
        let ports = self
            .config
            .ports
            .iter()
            .flat_map(|port| match &port.addresses {
                Addresses::Static(prefixes) => &prefixes[..],
                Addresses::Learned(_) => &[],
            });
        let ports = ports.map(|net| (net, None));
        let peers = tunnel(&self.config).peers.iter();
        let peers = peers.flat_map(|peer| peer.prefixes.iter().map(move |net| (net, Some(peer))));
        let all = ports.chain(peers);
        let holders = all.filter(|(net, _)| net.contains(&source));
        let holder = holders.max_by_key(|(net, _)| net.prefix_len());
        let Some((_, holder)) = holder else {
            return;
        };
        let peer = holder.expect("a source that no port has");
        match peer.ipsec {
            Protection::Required => assert!(
                sealed && peer.vtep == self.sa.peer,
                "{source}: a forged source of a peer that requires IPsec"
            ),
            Protection::Off => assert_eq!(ends(frame).map(|it| it.0), Some(peer.vtep)),
        }
    }

    /// The daemon gets what may be IKE, from peers that require IPsec, at most 50 a second.
    fn are_bounded_messages(&mut self) {
        for told in self.switch.told() {
            let Told::Ike { from, to, bytes } = told else {
                continue;
            };
            self.messages += 1;
            assert!(self.requires(from.ip()));
            assert_eq!(to.ip(), tunnel(&self.config).vtep);
            assert!((28..=2048).contains(&bytes.len()));
        }
        assert!(self.messages <= 50 * (1 + self.now_ns / SECOND_NS));
    }

    fn requires(&self, endpoint: IpAddr) -> bool {
        let mut peers = tunnel(&self.config).peers.iter();
        peers.any(|peer| peer.vtep == endpoint && peer.ipsec == Protection::Required)
    }
}

/// The source, the destination and the UDP ports of a packet.
type Ends = (IpAddr, IpAddr, Option<(u16, u16)>);

/// Those of a frame with an IP packet, by another parser. What is wrong behind the IP header, such
/// as the length of UDP, is the receiver's business.
fn ends(frame: &[u8]) -> Option<Ends> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = match packet.transport {
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    Some((from, to, ports))
}

/// Raw frames from every side, what a peer seals of raw bytes, IKE, the clock and renewals: a byte
/// for the configuration; then for each event its kind, the number of its bytes, and those.
#[test]
fn encrypted_tunnel_keeps_its_promises() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, mut events)) = input.split_first() else {
                return;
            };
            let configs = configs::protected();
            let (_, config) = &configs[usize::from(*choice) % configs.len()];
            let mut encrypted = Encrypted::new(config);
            while let [kind, length, rest @ ..] = events {
                let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
                encrypted.event(*kind, bytes);
                events = rest;
            }
        });
}
