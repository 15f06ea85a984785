//! The tunnel gateway against `docs/reference/tunnel.md`: by hand-made frames for each of its rows,
//! by frames with every bit of them wrong, and by random ones against the model of `oracle`.

mod oracle;

use std::collections::BTreeSet;
use std::net::IpAddr;

use oracle::configs;
use oracle::frames::*;
use oracle::generate::{self, Chance, Choices};
use oracle::rows::{self, Case, GATEWAY, GW, VM1, inner};
use oracle::trial::{SECOND_NS, Switch, Trial};
use oracle::tunnel_frames::*;
use oracle::tunnel_rows::{self, B, IP71, OUT, away, away6, home, home6};
use pipeline::DropReason;
use pipeline::{PortId, ShownUnreachable, Verdict};
use proptest::prelude::*;
use tenant_config::SwitchConfig;

#[test]
fn model_agrees_with_rows() {
    let wrong = rows::wrong(&tunnel_rows::cases(), |case| Ok(case.by_the_model()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each frame alone, at a fresh switch: the verdict is the table's, the bytes are the model's, and
/// of all counters nothing else has moved.
#[test]
fn switch_agrees_with_rows() {
    let wrong = rows::wrong(&tunnel_rows::cases(), Case::by_the_switch);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tunnel packets of every kind that gets somewhere.
fn honest(config: &SwitchConfig) -> Vec<TunnelPacket> {
    let mac = tunnel(config).peers[B].mac.octets();
    let ipv4 = |packet: &V4| inner_frame(config, B, IPV4, &packet.bytes());
    let ipv6 = |packet: &V6| inner_frame(config, B, IPV6, &packet.bytes());
    let request = Arp {
        opcode: 1,
        sender_mac: mac,
        sender: IP71,
        target_mac: [0; 6],
        target: GATEWAY,
    };
    let segment = tunnel_rows::syn(&[1, 3, 3, 7], 1460);
    let mut inners = vec![
        ipv4(&V4 { class: 2, ..home() }),
        ipv4(&V4 {
            protocol: 6,
            payload: segment.clone(),
            ..home()
        }),
        ipv4(&V4::new(IP71, GATEWAY, 1, icmp(8, 0, ECHO))),
        ethernet(BROADCAST, mac, ARP, &request.bytes()),
    ];
    if config.gateway.ipv6.is_some() {
        let solicitation = neighbor(135, 0, inner(1), &[link_layer(1, mac)]);
        inners.extend([
            ipv6(&V6 {
                class: 1,
                ..home6()
            }),
            ipv6(&V6 {
                upper: 6,
                payload: segment,
                ..home6().with(60, padding_options(0))
            }),
            ipv6(&V6::icmp(inner(0x71), inner(1), icmpv6(128, 0, ECHO))),
            ipv6(&V6::icmp(inner(0x71), inner(1), solicitation)),
        ]);
    }
    let packets = inners.into_iter().map(|inner| {
        let packet = TunnelPacket::new(config, B, inner);
        TunnelPacket { class: 1, ..packet }
    });
    packets.collect()
}

/// [`configs::tunnels`] of which peer B has the VMs of this file.
fn switches() -> Vec<(&'static str, SwitchConfig)> {
    let mut switches = configs::tunnels();
    for (name, config) in &mut switches {
        if *name == "only" {
            let tunnel = config.tunnel.as_mut().expect("a tunnel");
            tunnel.peers.swap(0, 1);
        }
    }
    switches
}

/// Whole tunnel packets with one bit wrong, with their checksums made right and as they are.
#[test]
fn tunnel_packets_with_a_flipped_bit_agree_with_model() {
    for (name, config) in switches() {
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        for packet in honest(&config) {
            let good = packet.frame();
            let inner_at = usize::from(tunnel(&config).overhead());
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut frame = good.clone();
                    frame[at] ^= 1 << bit;
                    let unmended = frame.clone();
                    generate::tunnel::mend(&mut frame, inner_at);
                    let frames = if bit == 0 {
                        vec![frame, unmended]
                    } else {
                        vec![frame]
                    };
                    for frame in frames {
                        now_ns += SECOND_NS;
                        let sent = trial.send(now_ns, OUT, &frame, None);
                        assert!(sent.is_ok(), "{name}, bit {bit} of byte {at}: {sent:?}");
                    }
                }
            }
        }
    }
}

/// Tunnel packets that end anywhere: as a frame, and as an inner frame whose outer headers are
/// right.
#[test]
fn truncated_tunnel_packets_agree_with_model() {
    for (name, config) in switches() {
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        for packet in honest(&config) {
            let good = packet.frame();
            let as_frames = (0..good.len()).map(|length| good[..length].to_vec());
            let inside = [&packet.header[..], &packet.inner].concat();
            let as_datagrams = (0..inside.len()).map(|length| {
                let cut = TunnelPacket {
                    header: Vec::new(),
                    inner: inside[..length].to_vec(),
                    ..packet.clone()
                };
                cut.frame()
            });
            for frame in as_frames.chain(as_datagrams) {
                now_ns += SECOND_NS;
                let sent = trial.send(now_ns, OUT, &frame, None);
                let length = frame.len();
                assert!(sent.is_ok(), "{name}, {length} bytes: {sent:?}");
            }
        }
    }
}

/// A packet of `length` bytes from `vm1` to an address behind a peer.
fn of_length(to: [u8; 4], length: u16) -> Vec<u8> {
    let packet = V4 {
        to: to.into(),
        payload: udp(1, 2, &vec![0; usize::from(length) - 28]),
        ..away()
    };
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// Behind peer B, and behind the two peers that share the VTEP of C.
const BEHIND_B: [u8; 4] = [10, 0, 0, 71];
const BEHIND_C: [[u8; 4]; 2] = [[10, 0, 0, 81], [10, 0, 0, 82]];

const ABSORBED: Result<Verdict, String> = Ok(Verdict::Drop(DropReason::Absorbed));
const REFUSED: Result<Verdict, String> = Ok(Verdict::Drop(DropReason::GatewayService));
const TO_UPLINK: Result<Verdict, String> = Ok(Verdict::Forward(PortId(OUT as u16)));

/// A switch whose tunnel leaves room for reports, its model, and a clock.
struct Underlay {
    config: SwitchConfig,
    trial: Trial,
    now_ns: u64,
}

impl Underlay {
    /// One for each tenant with the peers B and C and an MTU that a report may lower.
    fn all() -> Vec<(&'static str, Self)> {
        let mut configs = configs::tunnels();
        // The one has a single peer with other addresses, the others accept no smaller MTU.
        configs.retain(|(name, _)| !["only", "narrow", "cutting", "vxlan6"].contains(name));
        let start = |config: SwitchConfig| {
            let mut trial = Trial::new(&config);
            trial.resolve(0);
            let now_ns = 0;
            Self {
                config,
                trial,
                now_ns,
            }
        };
        let each = configs.into_iter();
        each.map(|(name, config)| (name, start(config))).collect()
    }

    /// The uplink's MTU.
    fn mtu(&self) -> u16 {
        self.config.uplink.as_ref().expect("an uplink").mtu
    }

    /// Advances the clock.
    fn wait(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
        self.trial.poll(self.now_ns);
        self.trial.resolve(self.now_ns);
    }

    fn send(&mut self, from: usize, frame: &[u8]) -> Result<Verdict, String> {
        self.now_ns += 1;
        self.trial.send(self.now_ns, from, frame, None)
    }

    /// Sends an outer packet of `mtu` bytes, and hands back what a router quotes of it.
    fn sent(&mut self, to: [u8; 4], mtu: u16) -> Vec<u8> {
        let inner = of_length(to, mtu - tunnel(&self.config).overhead());
        assert_eq!(self.send(0, &inner), TO_UPLINK);
        quote_of(&self.trial.last_left.take().expect("a frame left"))
    }

    /// A router's word about the packet that begins with `quote`.
    fn report(&mut self, router: u8, mtu: u16, quote: &[u8]) -> Result<Verdict, String> {
        let report = report(&self.config, router, mtu.into(), quote);
        self.send(OUT, &report)
    }

    /// Somebody's word that the packet that begins with `quote` did not arrive.
    fn unreachable(&mut self, from: IpAddr, code: u8, quote: &[u8]) -> Result<Verdict, String> {
        let report = unreachable(&self.config, from, code, quote);
        self.send(OUT, &report)
    }

    /// What is shown about the endpoint of that peer.
    fn shown(&mut self, peer: usize) -> Option<ShownUnreachable> {
        self.trial.poll(self.now_ns);
        let mut vteps = Vec::new();
        for peer in &tunnel(&self.config).peers {
            if !vteps.contains(&peer.vtep) {
                vteps.push(peer.vtep);
            }
        }
        let wanted = tunnel(&self.config).peers[peer].vtep;
        let place = vteps.iter().position(|vtep| *vtep == wanted);
        let place = place.expect("an endpoint");
        let both = self.trial.counters();
        let shown = both.map(|counters| counters.undelivered[place].get(self.now_ns));
        assert_eq!(shown[0], shown[1]);
        shown[0]
    }

    /// Checks that outer packets of `mtu` bytes leave for that address, and no larger ones.
    fn carries(&mut self, to: [u8; 4], mtu: u16) {
        let largest = mtu - tunnel(&self.config).overhead();
        assert_eq!(self.send(0, &of_length(to, largest)), TO_UPLINK, "{mtu}");
        if largest < self.config.ports[0].mtu {
            let too_large = self.send(0, &of_length(to, largest + 1));
            let error = Verdict::DropWithError(DropReason::Mtu);
            assert_eq!(too_large, Ok(error), "{mtu}");
        }
        self.now_ns += SECOND_NS;
    }
}

/// A path's MTU is believed for ten minutes, never grows by a message, and is of one VTEP.
#[test]
fn path_mtu_only_decreases_until_it_expires() {
    for (name, mut at) in Underlay::all() {
        let (uplink, least) = (at.mtu(), 1280 + tunnel(&at.config).overhead());
        // What is not believed.
        for mtu in [0, 68, 576, least - 1] {
            let quote = at.sent(BEHIND_B, uplink);
            assert_eq!(at.report(0, mtu, &quote), ABSORBED, "{name}: {mtu}");
            at.carries(BEHIND_B, uplink);
        }
        for mtu in [uplink, uplink + 1, 9000] {
            let quote = at.sent(BEHIND_B, uplink);
            assert_eq!(at.report(0, mtu, &quote), REFUSED, "{name}: {mtu}");
            at.carries(BEHIND_B, uplink);
        }
        // One VTEP's is not another's, and two peers with one VTEP share it.
        let quote = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, uplink - 20, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, uplink - 20);
        at.carries(BEHIND_C[0], uplink);
        let quote = at.sent(BEHIND_C[0], uplink);
        assert_eq!(at.report(0, uplink - 30, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, uplink - 20);
        for to in BEHIND_C {
            at.carries(to, uplink - 30);
        }
        // It goes down, but not up.
        let quote = at.sent(BEHIND_B, uplink - 20);
        assert_eq!(at.report(0, least, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, least);
        assert_eq!(at.report(0, uplink - 21, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, least);
        // Ten minutes after each was believed.
        at.wait(580);
        at.carries(BEHIND_B, least);
        at.carries(BEHIND_C[0], uplink - 30);
        at.wait(30);
        at.carries(BEHIND_B, uplink);
        at.carries(BEHIND_C[0], uplink);
        let quote = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, uplink - 1, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, uplink - 1);
    }
}

/// A router may say so from whatever address its link has: what it quotes is looked at.
#[test]
fn report_is_believed_from_a_router_of_any_address() {
    const INVALID: Result<Verdict, String> = Ok(Verdict::Drop(DropReason::IngressSource));
    for (name, mut at) in Underlay::all() {
        let mut mtu = at.mtu();
        for (router, may) in odd_routers(&at.config) {
            let quote = at.sent(BEHIND_B, mtu);
            let report = report_from(&at.config, router, u32::from(mtu) - 1, &quote);
            let expected = if may { ABSORBED } else { INVALID };
            mtu -= u16::from(may);
            assert_eq!(at.send(OUT, &report), expected, "{name}: {router}");
            at.carries(BEHIND_B, mtu);
        }
    }
}

/// Ten minutes are ten minutes: a report that is repeated all the time does not prolong them, since
/// no packet that large is sent any more.
#[test]
fn repeated_report_does_not_prolong_path_mtu() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let quote = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, smaller, &quote), ABSORBED, "{name}");
        for second in 1..600 {
            at.wait(1);
            let again = at.report(0, smaller, &quote);
            if second > 10 {
                assert_eq!(again, REFUSED, "{name}: second {second}");
            }
            let _ = at.sent(BEHIND_B, smaller);
        }
        at.wait(1);
        at.carries(BEHIND_B, uplink);
    }
}

/// A quote with one thing wrong, each with what that is. `other` is a quote of another flow.
fn forged_quotes(genuine: &[u8], other: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let udp_at = if genuine[0] >> 4 == 4 { 20 } else { 40 };
    let inner_at = udp_at + 16;
    let port_of = |quote: &[u8]| [quote[udp_at], quote[udp_at + 1]];
    let with = |at: usize, bytes: &[u8]| {
        let mut quote = genuine.to_vec();
        quote[at..at + bytes.len()].copy_from_slice(bytes);
        if udp_at == 20 {
            set_ipv4_checksum(&mut quote[..20]);
        }
        quote
    };
    let changed = |at: usize, bit: u8| with(at, &[genuine[at] ^ bit]);
    let mut forged = vec![
        ("source port 1", with(udp_at, &[0, 1])),
        ("another flow's source port", with(udp_at, &port_of(other))),
        ("the next source port", changed(udp_at + 1, 1)),
        ("to another port", changed(udp_at + 3, 1)),
        ("another UDP length", changed(udp_at + 5, 1)),
        ("another VNI", changed(udp_at + 14, 1)),
        ("other flags of the tunnel", changed(udp_at + 8, 0x40)),
        ("the reserved byte", changed(udp_at + 15, 1)),
        ("to another MAC", changed(inner_at + 5, 1)),
        ("from another MAC", changed(inner_at + 11, 1)),
        ("another type inside", with(inner_at + 12, &[0x86, 0xdd])),
        ("another length inside", changed(inner_at + 17, 1)),
        ("from another VM", with(inner_at + 29, &[12])),
        ("from no VM", with(inner_at + 29, &[99])),
        ("from a peer's VM", with(inner_at + 29, &[72])),
        ("to another peer's VM", with(inner_at + 33, &[81])),
        ("another flow", with(inner_at + 34, &[9, 9])),
    ];
    let has_sum = genuine[udp_at + 6..udp_at + 8] != [0, 0];
    let sum: [u8; 2] = if has_sum { [0, 0] } else { [1, 2] };
    forged.push(("with or without a checksum", with(udp_at + 6, &sum)));
    let mut wrong_sum = genuine.to_vec();
    wrong_sum[10] ^= 1;
    match udp_at {
        20 => forged.extend([
            ("identification 7", with(4, &[0, 7])),
            ("no DF", with(6, &[0])),
            ("a fragment", with(6, &[0x60])),
            ("another protocol", with(9, &[6])),
            ("options", with(0, &[0x46])),
            ("TTL 0", with(8, &[0])),
            ("a TTL that grew", with(8, &[65])),
            ("another length", changed(3, 1)),
            ("a wrong header checksum", wrong_sum),
        ]),
        _ => forged.extend([
            ("a flow label", with(3, &[1])),
            ("another next header", with(6, &[6])),
            ("hop limit 0", with(7, &[0])),
            ("a hop limit that grew", with(7, &[65])),
            ("another length", changed(5, 1)),
        ]),
    }
    forged
}

/// Whoever sees no packet of ours is not believed, whatever else of it he knows: not about a flow
/// whose ports he guesses, and not by quoting as little as IP allows.
#[test]
fn forged_quotes_are_not_believed() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let udp_at = if tunnel(&at.config).vtep.is_ipv4() {
            20
        } else {
            40
        };
        let least = udp_at + 8;
        let genuine = at.sent(BEHIND_B, uplink);
        let other = at.sent(BEHIND_C[0], uplink);
        let forged = forged_quotes(&genuine, &other);
        let all = forged.len() as u8;
        for ((what, quote), router) in forged.into_iter().zip(1..) {
            let got = at.report(router, smaller, &quote);
            assert_eq!(got, REFUSED, "{name}: {what}");
        }
        // The least that may be quoted, by somebody who has seen nothing.
        for port in [0xc000_u16, 0xc350, 0xffff] {
            let mut quote = genuine[..least].to_vec();
            quote[udp_at..udp_at + 2].copy_from_slice(&port.to_be_bytes());
            assert_eq!(
                at.report(all + 1, smaller, &quote),
                REFUSED,
                "{name}: {port}"
            );
        }
        assert_eq!(
            at.report(all + 2, smaller, &genuine[..least - 1]),
            REFUSED,
            "{name}"
        );
        at.carries(BEHIND_B, uplink);
        // Nobody of these was the router.
        assert_eq!(at.report(0, smaller, &genuine), ABSORBED, "{name}");
        at.carries(BEHIND_B, smaller);
        at.carries(BEHIND_C[0], uplink);
    }
}

/// The first of the largest packets may be quoted as briefly as IP allows.
#[test]
fn short_quote_of_first_large_packet_is_believed() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let least = if tunnel(&at.config).vtep.is_ipv4() {
            28
        } else {
            48
        };
        let quote = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, smaller, &quote[..least]), ABSORBED, "{name}");
        at.carries(BEHIND_B, smaller);
    }
}

/// Who quotes a packet of ours is believed that it did not arrive, and nothing but what is shown
/// changes: not for smaller packets either, which no path MTU is about.
#[test]
fn unreachable_is_shown_and_changes_nothing() {
    use packet::wire::icmp::Unreachable::{Host, Network, Port, Prohibited, Protocol};
    for (name, mut at) in Underlay::all() {
        let uplink = at.mtu();
        let overhead = tunnel(&at.config).overhead();
        let vtep = tunnel(&at.config).peers[B].vtep;
        let codes: &[_] = match vtep {
            IpAddr::V4(_) => &[
                (0, Network),
                (1, Host),
                (2, Protocol),
                (3, Port),
                (9, Prohibited),
                (10, Prohibited),
                (13, Prohibited),
            ],
            IpAddr::V6(_) => &[
                (0, Network),
                (1, Prohibited),
                (2, Network),
                (3, Host),
                (4, Port),
                (5, Prohibited),
                (6, Prohibited),
            ],
        };
        assert_eq!(at.shown(B), None, "{name}");
        for (code, why) in codes {
            for len in [uplink, 120 + overhead] {
                let quote = at.sent(BEHIND_B, len);
                let got = at.unreachable(vtep, *code, &quote);
                assert_eq!(got, ABSORBED, "{name}: {code}, {len}");
                let shown = at.shown(B).expect("it is shown");
                let expected = (*why, vtep, 0);
                assert_eq!((shown.why, shown.from, shown.age_s), expected, "{name}");
                at.carries(BEHIND_B, uplink);
            }
        }
        assert_eq!(
            at.shown(tunnel_rows::C1),
            None,
            "{name}: of another endpoint"
        );
        at.trial.reload();
        // A second has passed since.
        at.wait(118);
        assert_eq!(at.shown(B).map(|shown| shown.age_s), Some(119), "{name}");
        at.wait(1);
        assert_eq!(at.shown(B), None, "{name}");
        let [counters, _] = at.trial.counters();
        assert_eq!(counters.unreachable.believed.get(), 14, "{name}");
        assert_eq!(counters.path_mtu.believed.get(), 0, "{name}");
    }
}

/// As with path MTUs, with guesses of their own: three of a source.
#[test]
fn forged_unreachables_are_not_shown() {
    for (name, mut at) in Underlay::all() {
        let overhead = tunnel(&at.config).overhead();
        let vtep = tunnel(&at.config).peers[B].vtep;
        let code = if vtep.is_ipv4() { 3 } else { 4 };
        let udp_at = if vtep.is_ipv4() { 20 } else { 40 };
        let genuine = at.sent(BEHIND_B, 120 + overhead);
        let other = at.sent(BEHIND_C[0], 120 + overhead);
        for ((what, quote), host) in forged_quotes(&genuine, &other).into_iter().zip(1..) {
            let from = match vtep {
                IpAddr::V4(_) => [203, 0, 113, host].into(),
                IpAddr::V6(_) => [0x2001, 0xdb8, 0xd, host.into(), 0, 0, 0, 1].into(),
            };
            assert_eq!(
                at.unreachable(from, code, &quote),
                REFUSED,
                "{name}: {what}"
            );
        }
        // So little shows no flow, and is no guess either.
        for length in [udp_at + 8, udp_at + 16, udp_at + 30] {
            for _ in 0..4 {
                let got = at.unreachable(vtep, code, &genuine[..length]);
                assert_eq!(got, REFUSED, "{name}: {length}");
            }
        }
        assert_eq!(at.shown(B), None, "{name}");
        assert_eq!(at.unreachable(vtep, code, &genuine), ABSORBED, "{name}");
        assert!(at.shown(B).is_some(), "{name}");
        let mut guess = genuine.clone();
        guess[udp_at + 1] ^= 1;
        for _ in 0..3 {
            assert_eq!(at.unreachable(vtep, code, &guess), REFUSED, "{name}");
        }
        assert_eq!(at.unreachable(vtep, code, &genuine), REFUSED, "{name}");
        let large = at.sent(BEHIND_B, at.mtu());
        let report = report_from(&at.config, vtep, u32::from(at.mtu()) - 1, &large);
        assert_eq!(at.send(OUT, &report), ABSORBED, "{name}: of a path MTU");
    }
}

/// What is too large for the tunnel leaves in fragments by every path: also if the fast path has
/// begun with it, which it does with UDP and TCP.
#[test]
fn fragments_leave_by_every_path() {
    for config in [configs::cutting(), configs::cutting_tunnel()] {
        let to = match config.tunnel {
            Some(_) => BEHIND_B.into(),
            None => rows::EXTERNAL,
        };
        let datagram = udp(1000, 2000, &[7; 1450]);
        let segment = [
            vec![4, 0, 8, 0],
            vec![0; 8],
            vec![0x50, 0x10],
            vec![9; 1400],
        ]
        .concat();
        for (protocol, payload) in [(17, datagram), (6, segment), (1, icmp(8, 0, &[5; 1450]))] {
            let packet = V4::new(rows::IP1, to, protocol, payload);
            let frame = ethernet(GW, VM1, IPV4, &packet.bytes());
            let mut one = Switch::new(&config, 0);
            one.resolve(0);
            assert_eq!(one.process(0, 0, &frame, None).0, Verdict::Copies);
            let expected = one.copies().to_vec();
            assert!(expected.len() > 1, "{} fragments", expected.len());
            let mut other = Switch::new(&config, 0);
            other.resolve(0);
            assert_eq!(other.work(0, 0, &[frame]), expected, "{protocol}");
        }
    }
}

/// Of a packet that not every path carries, it is known when one as large was sent.
#[test]
fn unreachable_about_large_packet_of_long_ago_is_refused() {
    for (name, mut at) in Underlay::all() {
        let vtep = tunnel(&at.config).peers[B].vtep;
        let code = if vtep.is_ipv4() { 3 } else { 4 };
        let quote = at.sent(BEHIND_B, at.mtu());
        at.wait(10);
        assert_eq!(at.unreachable(vtep, code, &quote), REFUSED, "{name}");
        assert_eq!(at.shown(B), None, "{name}");
        let _ = at.sent(BEHIND_B, at.mtu());
        assert_eq!(at.unreachable(vtep, code, &quote), ABSORBED, "{name}");
    }
}

/// Frames of a peer from another MAC than its own are forwarded as others, and the MAC is shown: by
/// the fast path and the general one, of the peer that has the source, and of no other.
#[test]
fn other_mac_of_a_peer_is_shown() {
    const OTHER: Mac = [0x52, 0x54, 0, 0xee, 0, 7];
    for (name, config) in configs::tunnels() {
        if name == "only" {
            continue;
        }
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let shown = |trial: &mut Trial, now_ns| {
            trial.poll(now_ns);
            let both = trial.counters().map(|counters| {
                let peers = counters.peers().zip(&tunnel(&config).peers);
                let shown = peers.map(|(it, peer)| counters.other_mac(it, peer.mac.octets()));
                shown.collect::<Vec<_>>()
            });
            assert_eq!(both[0], both[1], "{name}");
            both[0].clone()
        };
        let none = vec![None; tunnel(&config).peers.len()];
        let frame = inner_frame(&config, B, IPV4, &home().bytes());
        let from_other = [&frame[..6], &OTHER, &frame[12..]].concat();
        let usual = TunnelPacket::new(&config, B, frame).frame();
        let other = TunnelPacket::new(&config, B, from_other).frame();
        assert!(trial.send(1, OUT, &usual, None).is_ok(), "{name}");
        assert_eq!(shown(&mut trial, 2), none, "{name}");
        let verdict = trial.send(3, OUT, &other, None);
        assert_eq!(verdict, Ok(Verdict::Forward(PortId(0))), "{name}");
        let mut expected = none.clone();
        expected[B] = Some((OTHER, 0));
        assert_eq!(shown(&mut trial, 4), expected, "{name}");
        // A frame from the right one does not hide it, but time does.
        assert!(trial.send(5, OUT, &usual, None).is_ok(), "{name}");
        trial.reload();
        expected[B] = Some((OTHER, 119));
        assert_eq!(shown(&mut trial, 2 + 120 * SECOND_NS), expected, "{name}");
        assert_eq!(shown(&mut trial, 3 + 120 * SECOND_NS), none, "{name}");
        // What the file says meanwhile is the peer's own.
        let now_ns = 200 * SECOND_NS;
        assert!(trial.send(now_ns, OUT, &other, None).is_ok(), "{name}");
        let mut mended = config.clone();
        let peers = &mut mended.tunnel.as_mut().expect("a tunnel").peers;
        peers[B].mac = tenant_config::MacAddr::new(OTHER).expect("a station's");
        trial.configure(&mended);
        trial.poll(now_ns);
        let [counters, _] = trial.counters();
        for (peer, config) in counters.peers().zip(&tunnel(&mended).peers) {
            let other = counters.other_mac(peer, config.mac.octets());
            assert_eq!(other, None, "{name}");
        }
    }
}

/// A report about an IPv6 packet in the tunnel is believed as well.
#[test]
fn report_about_inner_ipv6_is_believed() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let room = uplink - tunnel(&at.config).overhead();
        let packet = V6 {
            payload: udp(1, 2, &vec![0; usize::from(room) - 48]),
            ..away6()
        };
        let frame = ethernet(GW, VM1, IPV6, &packet.bytes());
        assert_eq!(at.send(0, &frame), TO_UPLINK, "{name}");
        let quote = quote_of(&at.trial.last_left.take().expect("a frame left"));
        assert_eq!(at.report(0, smaller, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, smaller);
    }
}

/// A packet to one of two peers with one VTEP is not sent to the other's MAC.
#[test]
fn quote_with_the_mac_of_the_vteps_other_peer_is_refused() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let macs = [1, 2].map(|peer: usize| tunnel(&at.config).peers[peer].mac.octets());
        let genuine = at.sent(BEHIND_C[0], uplink);
        let inner_at = if tunnel(&at.config).vtep.is_ipv4() {
            36
        } else {
            56
        };
        assert_eq!(genuine[inner_at..inner_at + 6], macs[0], "{name}");
        let mut forged = genuine.clone();
        forged[inner_at..inner_at + 6].copy_from_slice(&macs[1]);
        assert_eq!(at.report(0, smaller, &forged), REFUSED, "{name}");
        at.carries(BEHIND_C[0], uplink);
        assert_eq!(at.report(0, smaller, &genuine), ABSORBED, "{name}");
        at.carries(BEHIND_C[0], smaller);
    }
}

/// Also a quote that ends behind the MACs must be of a packet to the peer.
#[test]
fn short_quote_with_another_mac_is_refused() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let inner_at = if tunnel(&at.config).vtep.is_ipv4() {
            36
        } else {
            56
        };
        let genuine = at.sent(BEHIND_B, uplink)[..inner_at + 14].to_vec();
        let mut forged = genuine.clone();
        forged[inner_at + 5] ^= 1;
        assert_eq!(at.report(0, smaller, &forged), REFUSED, "{name}");
        assert_eq!(at.report(0, smaller, &genuine), ABSORBED, "{name}");
    }
}

/// What every path must carry is not remembered as sent.
#[test]
fn report_about_packet_that_every_path_carries_is_refused() {
    for (name, mut at) in Underlay::all() {
        let least = (1280 + tunnel(&at.config).overhead()).max(1280);
        let quote = at.sent(BEHIND_B, least);
        assert_eq!(at.report(0, least - 1, &quote), REFUSED, "{name}");
        let quote = at.sent(BEHIND_B, least + 1);
        assert_eq!(at.report(0, least, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, least);
    }
}

/// Belief needs a packet of that size to that endpoint within the last seconds.
#[test]
fn report_about_packet_that_was_not_sent_lately_is_refused() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let quote = at.sent(BEHIND_B, uplink);
        at.wait(10);
        assert_eq!(at.report(0, smaller, &quote), REFUSED, "{name}");
        let _ = at.sent(BEHIND_B, uplink - 1);
        let _ = at.sent(BEHIND_C[0], uplink);
        assert_eq!(at.report(0, smaller, &quote), REFUSED, "{name}");
        at.carries(BEHIND_B, uplink);
        let _ = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, smaller, &quote), ABSORBED, "{name}");
        at.carries(BEHIND_B, smaller);
    }
}

/// Who guesses source ports gets three guesses in ten minutes, and all together a hundred.
#[test]
fn guessed_source_ports_are_limited() {
    for (name, mut at) in Underlay::all() {
        let (uplink, smaller) = (at.mtu(), at.mtu() - 20);
        let udp_at = if tunnel(&at.config).vtep.is_ipv4() {
            20
        } else {
            40
        };
        let genuine = at.sent(BEHIND_B, uplink);
        let guess = |number: u8| {
            let mut quote = genuine.clone();
            quote[udp_at + 1] ^= number;
            quote
        };
        for number in 1..=3 {
            assert_eq!(at.report(1, smaller, &guess(number)), REFUSED, "{name}");
        }
        // Even the right one is one too many; the router is heard all the same.
        assert_eq!(at.report(1, smaller, &genuine), REFUSED, "{name}");
        assert_eq!(at.report(0, uplink - 1, &genuine), ABSORBED, "{name}");
        for number in 4..101 {
            assert_eq!(
                at.report(number / 2, smaller, &guess(number)),
                REFUSED,
                "{name}"
            );
        }
        let genuine = at.sent(BEHIND_B, uplink - 1);
        assert_eq!(at.report(0, smaller, &genuine), REFUSED, "{name}");
        at.wait(600);
        let genuine = at.sent(BEHIND_B, uplink);
        assert_eq!(at.report(0, smaller, &genuine), ABSORBED, "{name}");
    }
}

/// Anybody on the link can claim a next hop's address; as long as that answers, nothing moves.
#[test]
fn claim_of_a_next_hop_moves_no_traffic() {
    const THIEF: Mac = [2, 0, 0, 0, 0, 0x99];
    for (name, mut at) in Underlay::all() {
        let hop = tunnel(&at.config).peers[B].next_hop;
        let claims = match hop {
            std::net::IpAddr::V4(hop) => {
                let claim = |opcode, target| Arp {
                    opcode,
                    sender_mac: THIEF,
                    sender: hop,
                    target_mac: [0; 6],
                    target,
                };
                let frame = |claim: Arp| ethernet(BROADCAST, THIEF, ARP, &claim.bytes());
                vec![frame(claim(2, hop)), frame(claim(1, hop))]
            }
            std::net::IpAddr::V6(hop) => {
                let claim = |flags| neighbor(136, flags, hop, &[link_layer(2, THIEF)]);
                let to = tunnel(&at.config).vtep;
                let std::net::IpAddr::V6(to) = to else {
                    panic!("a next hop of another family");
                };
                let frame = |flags| {
                    let packet = V6::icmp(hop, to, claim(flags));
                    ethernet(rows::UPLINK, THIEF, IPV6, &packet.bytes())
                };
                vec![frame(0x20), frame(0x60)]
            }
        };
        for claim in claims {
            assert_eq!(at.send(OUT, &claim), ABSORBED, "{name}");
            assert_eq!(at.send(0, &of_length(BEHIND_B, 100)), TO_UPLINK, "{name}");
            let left = at.trial.last_left.take().expect("a frame left");
            assert_eq!(left[..6], rows::ROUTER, "{name}");
        }
    }
}

/// A peer's own MTU is the most that its path carries: a router may report less, for ten minutes.
/// The paths of other peers have theirs.
#[test]
fn peers_mtu_limits_its_path() {
    let config = configs::uneven();
    let mut trial = Trial::new(&config);
    trial.resolve(0);
    let now_ns = 0;
    let mut at = Underlay {
        config,
        trial,
        now_ns,
    };
    at.carries(BEHIND_B, 1450);
    for to in BEHIND_C {
        at.carries(to, 1330);
    }
    let quote = at.sent(BEHIND_B, 1450);
    // No router says more than the path carries.
    assert_eq!(at.report(0, 1450, &quote), REFUSED);
    assert_eq!(at.report(0, 1400, &quote), ABSORBED);
    at.carries(BEHIND_B, 1400);
    at.wait(600);
    at.carries(BEHIND_B, 1450);
}

/// Unsolicited Router Advertisements announce the smaller of the port's MTU and what the
/// tunnel carries, too.
#[test]
fn router_advertisement_announces_tunnel_mtu() {
    let uneven = ("uneven", configs::uneven());
    for (name, config) in configs::tunnels().into_iter().chain([uneven]) {
        let uplink = config.uplink.as_ref().expect("an uplink").mtu;
        let peers = tunnel(&config).peers.iter();
        let least = peers.map(|peer| peer.mtu.unwrap_or(uplink)).min();
        let carries = least.expect("a peer") - tunnel(&config).overhead();
        let mut said: BTreeSet<(usize, u16)> = BTreeSet::new();
        let mut trial = Trial::new(&config);
        for second in 0..1800 {
            for (port, frame) in trial.poll(second * SECOND_NS) {
                let is_advertisement = frame.get(20) == Some(&58) && frame.get(54) == Some(&134);
                if port != OUT && is_advertisement {
                    let mut options = frame[70..].chunks(8);
                    let mtu = options.find(|option| option[..2] == [5, 1]);
                    let mtu = mtu.expect("an MTU in an advertisement");
                    assert_eq!(mtu[2..6], [0; 4], "{name}");
                    said.insert((port, u16::from_be_bytes([mtu[6], mtu[7]])));
                }
            }
        }
        let ports = config.ports.iter().map(|port| port.mtu.min(carries));
        let expected = ports.enumerate();
        let expected: BTreeSet<_> = match config.gateway.ipv6 {
            Some(_) => expected.collect(),
            None => BTreeSet::new(),
        };
        assert_eq!(said, expected, "{name}");
    }
}

/// Many flows are spread over many source ports, and each keeps its own: the model's trial checks
/// that of equal flows, also that fragments of one packet stay together.
#[test]
fn flows_use_different_source_ports() {
    for (name, config) in configs::tunnels() {
        let with_ipv6 = config.gateway.ipv6.is_some();
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        let mut send = |trial: &mut Trial, frame: Vec<u8>| {
            now_ns += SECOND_NS;
            let sent = trial.send(now_ns, 0, &frame, None);
            assert!(matches!(sent, Ok(Verdict::Forward(_))), "{name}: {sent:?}");
        };
        for port in 1000..1200 {
            for protocol in [6, 17] {
                let payload = if protocol == 6 {
                    tcp(port, 80, 5, b"x")
                } else {
                    udp(port, 80, b"x")
                };
                for _ in 0..2 {
                    let packet = V4 {
                        protocol,
                        payload: payload.clone(),
                        ..away()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV4, &packet.bytes()));
                }
                if with_ipv6 {
                    let packet = V6 {
                        upper: protocol,
                        payload: payload.clone(),
                        ..away6()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV6, &packet.bytes()));
                }
                for (fragment, payload) in [
                    (MORE_FRAGMENTS, payload.clone()),
                    (MORE_FRAGMENTS | 3, b"in the middle".to_vec()),
                    (6, b"at the end".to_vec()),
                ] {
                    let packet = V4 {
                        protocol,
                        payload,
                        fragment,
                        ..away()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV4, &packet.bytes()));
                }
            }
        }
        let flows = trial.flows.len();
        let ports: BTreeSet<u16> = trial.flows.values().copied().collect();
        assert!(flows >= 400, "{flows} flows");
        // Of so few in 16,384, a good hash lets hardly any meet.
        let spread = ports.len();
        assert!(
            spread * 10 > flows * 9,
            "{name}: {spread} ports of {flows} flows"
        );
    }
}

/// Also flows of which the underlay's routers know nothing but the outer ports.
#[test]
fn flows_of_any_protocol_use_different_source_ports() {
    for (name, config) in configs::tunnels() {
        let with_ipv6 = config.gateway.ipv6.is_some();
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        let mut sent = 0;
        let mut send = |frame: Vec<u8>| {
            now_ns += SECOND_NS;
            sent += 1;
            let sent = trial.send(now_ns, 0, &frame, None);
            assert!(matches!(sent, Ok(Verdict::Forward(_))), "{name}: {sent:?}");
        };
        for flow in 1..=100_u32 {
            // The ports, or the SPI.
            let payload = (flow << 16 | 7).to_be_bytes().to_vec();
            for protocol in [132, 33, 136, 50] {
                let packet = V4 {
                    protocol,
                    payload: payload.clone(),
                    ..away()
                };
                send(ethernet(GW, VM1, IPV4, &packet.bytes()));
                if with_ipv6 {
                    let packet = V6 {
                        upper: protocol,
                        payload: payload.clone(),
                        // It has no say beside the ports.
                        label: 5,
                        ..away6()
                    };
                    send(ethernet(GW, VM1, IPV6, &packet.bytes()));
                }
            }
            let labelled = V6 {
                label: flow,
                ..away6()
            };
            let of_esp = V6 {
                upper: 50,
                payload: payload.clone(),
                ..labelled.clone()
            };
            let packets = [
                V6 {
                    upper: 47,
                    payload: vec![0; 8],
                    ..labelled.clone()
                },
                V6 {
                    upper: 59,
                    payload: Vec::new(),
                    ..labelled
                },
                // All fragments of a packet take one way: the trial compares the ports.
                of_esp.clone().with(44, fragment_header(0, true)),
                of_esp.with(44, fragment_header(1, false)),
            ];
            for packet in packets.iter().filter(|_| with_ipv6) {
                send(ethernet(GW, VM1, IPV6, &packet.bytes()));
            }
        }
        let flows = trial.flows.len();
        assert_eq!(flows, if with_ipv6 { 1100 } else { 400 }, "{name}");
        let ports: BTreeSet<u16> = trial.flows.values().copied().collect();
        let spread = ports.len();
        assert!(
            spread * 5 > flows * 4,
            "{name}: {spread} ports of {flows} flows"
        );
    }
}

/// A router's report about a packet without TCP or UDP shows its source port as well.
#[test]
fn report_about_other_protocols_is_believed() {
    for (name, mut at) in Underlay::all() {
        let mut mtu = at.mtu();
        let overhead = tunnel(&at.config).overhead();
        let room = |mtu: u16| usize::from(mtu - overhead);
        let frames = |mtu: u16| {
            let (room4, room6) = (room(mtu) - 20, room(mtu) - 40);
            let mut frames = Vec::new();
            for protocol in [132, 33, 136, 50, 47] {
                let packet = V4 {
                    protocol,
                    payload: vec![protocol; room4],
                    ..away()
                };
                frames.push(ethernet(GW, VM1, IPV4, &packet.bytes()));
                let packet = V6 {
                    upper: protocol,
                    payload: vec![protocol; room6],
                    label: 0x4_5678,
                    ..away6()
                };
                frames.push(ethernet(GW, VM1, IPV6, &packet.bytes()));
            }
            frames
        };
        for number in 0..frames(mtu).len() {
            // Behind another packet, which is then the first of the largest.
            at.now_ns += 10 * SECOND_NS;
            let _ = at.sent(BEHIND_B, mtu);
            let frame = frames(mtu)[number].clone();
            assert_eq!(at.send(0, &frame), TO_UPLINK, "{name}: {number}");
            let quote = quote_of(&at.trial.last_left.take().expect("a frame left"));
            mtu -= 4;
            assert_eq!(at.report(0, mtu, &quote), ABSORBED, "{name}: {number}");
            at.carries(BEHIND_B, mtu);
        }
    }
}

/// As the page shows it, the trace names the peer, in both directions.
#[test]
fn trace_names_the_peer() {
    let config = configs::geneve();
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    let sent = ethernet(GW, VM1, IPV4, &away().bytes());
    let said = switch.trace(1, 0, &sent);
    assert!(
        said.contains(&"into the tunnel to peer host-b".to_owned()),
        "{said:?}"
    );
    let inner = inner_frame(&config, B, IPV4, &home().bytes());
    let came = TunnelPacket::new(&config, B, inner).frame();
    let said = switch.trace(1, OUT, &came);
    assert!(said.contains(&"from peer host-b".to_owned()), "{said:?}");
}

/// What the page's table of the outer packet says, byte by byte and not by the model.
#[test]
fn outer_packets_have_expected_bytes() {
    let inner_packet = away().bytes();
    let sent = ethernet(GW, VM1, IPV4, &inner_packet);
    for (name, config, outer) in [
        (
            "geneve",
            configs::geneve(),
            // DF, identification 0, TTL 64, no checksum.
            "0200000000fe 020013890000 0800 4500 0053 0000 4000 40 11 b655 c0000202 \
             c0000242 .... 17c1 003f 0000 00006558 00138900",
        ),
        (
            "vxlan",
            configs::vxlan(),
            // The inner TTL, DSCP 46, and a checksum.
            "0200000000fe 020013890000 0800 45b8 0053 0000 4000 40 11 b59d c0000202 \
             c0000242 .... 12b5 003f .... 08000000 00138900",
        ),
        (
            "geneve6",
            configs::geneve6(),
            "0200000000fe 020013890000 86dd 60000000 003f 11 40 \
             20010db8000000000000000000000002 20010db8000000000000000000000066 .... 3ed1 \
             003f .... 00006558 00138900",
        ),
        (
            "vxlan6",
            configs::vxlan6(),
            "0200000000fe 020013890000 86dd 60000000 003f 11 01 \
             20010db8000000000000000000000002 20010db8000000000000000000000066 .... 12b5 \
             003f 0000 08000000 00138900",
        ),
    ] {
        let mut switch = oracle::trial::Switch::new(&config, 0xee);
        switch.resolve(0);
        let (verdict, left) = switch.process(0, 0, &sent, None);
        assert_eq!(verdict, Verdict::Forward(PortId(OUT as u16)), "{name}");
        let inner_ethernet = "0e0000000066 0e0000000002 0800";
        let expected = format!(
            "{outer}{inner_ethernet}{}",
            oracle::trial::hex(&inner_packet)
        );
        let expected: String = expected.split_whitespace().collect();
        let left = oracle::trial::hex(&left);
        let same = expected.len() == left.len()
            && expected
                .chars()
                .zip(left.chars())
                .all(|(a, b)| a == '.' || a == b);
        assert!(same, "{name}:\n{left}, not\n{expected}");
    }
}

proptest! {
    #![proptest_config(oracle::cases(1000))]

    /// Verdict, reason, bytes and counters of random frames are the model's. A second lies between
    /// two frames, so that the rate of ICMP errors has no say; now and then it is ten minutes.
    #[test]
    fn random_frames_agree_with_model(
        which in any::<prop::sample::Index>(),
        resolved: bool,
        chance in Chance::any(),
    ) {
        let uneven = vec![("uneven", configs::uneven())];
        let configs = [configs::tunnels(), configs::grouped_tunnels(), uneven].concat();
        let (name, config) = which.get(&configs);
        let mut trial = Trial::new(config);
        if resolved {
            trial.resolve(0);
        }
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = match &trial.last_left {
                Some(left) if choices.once_in(6) => {
                    generate::tunnel::report_about(&mut choices, config, left)
                }
                _ => generate::tunnel::frame(&mut choices, config),
            };
            now_ns += SECOND_NS;
            if resolved && choices.once_in(12) {
                now_ns += choices.pick(&[590, 300, 599]) * SECOND_NS;
                trial.poll(now_ns);
                trial.resolve(now_ns);
            }
            if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                return Err(TestCaseError::fail(format!("{name}: {disagreement}")));
            }
        }
    }
}
