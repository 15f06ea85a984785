//! Addresses that ports hold in turn: each frame goes to the switch and to the model, which must
//! agree, and the test says what must come of it.

mod oracle;

use std::net::{IpAddr, Ipv4Addr};

use oracle::configs;
use oracle::frames::*;
use oracle::rows::{EXTERNAL, GATEWAY, GW, IP1, IP2, IP3, ROUTER, UPLINK, VIRTUAL_ROUTER};
use oracle::rows::{VM1, VM2, VM3, inner, link_local};
use oracle::trial::{SECOND_NS, Switch, Trial};
use pipeline::{DropReason, PortId, Verdict};
use tenant_config::{MacAddr, SwitchConfig};

const SHARED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const MACS: [Mac; 3] = [VM1, VM2, VM3];
const OWN: [Ipv4Addr; 3] = [IP1, IP2, IP3];
const TO_UPLINK: usize = 3;

/// Gratuitous ARP by port `from`, of the request's kind or of the reply's.
fn announcement(opcode: u16, mac: Mac) -> Vec<u8> {
    let message = Arp {
        opcode,
        sender_mac: mac,
        sender: SHARED,
        target_mac: [0; 6],
        target: SHARED,
    };
    ethernet(BROADCAST, mac, ARP, &message.bytes())
}

/// An unsolicited Neighbor Advertisement of the shared address by port `from`.
fn advertisement(from: usize, flags: u8, mac: Option<Mac>) -> Vec<u8> {
    let options: Vec<_> = mac.iter().map(|mac| link_layer(2, *mac)).collect();
    let to = "ff02::1".parse().expect("an address");
    let source = link_local(MACS[from]);
    let message = neighbor(136, flags, inner(0x100), &options);
    let packet = V6 {
        hop_limit: 255,
        ..V6::icmp(source, to, message)
    };
    ethernet(
        group_mac(to),
        mac.unwrap_or(MACS[from]),
        IPV6,
        &packet.bytes(),
    )
}

struct Story(Trial);

impl Story {
    fn new() -> Self {
        let mut trial = Trial::new(&configs::sharing());
        trial.resolve(0);
        Self(trial)
    }

    /// Where a frame goes, and why it does not.
    fn send(&mut self, from: usize, frame: &[u8]) -> Verdict {
        let sent = self.0.send(SECOND_NS, from, frame, None);
        sent.unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn says(&mut self, from: usize, frame: &[u8]) {
        let verdict = self.send(from, frame);
        assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
    }

    /// What becomes of a packet of port `from` to the shared address of each family.
    fn reaches(&mut self, from: usize) -> [Verdict; 2] {
        let (source, gateway, own_mac) = match from {
            TO_UPLINK => (EXTERNAL, UPLINK, ROUTER),
            _ => (OWN[from], GW, MACS[from]),
        };
        let source6 = match from {
            TO_UPLINK => oracle::rows::EXTERNAL6,
            _ => inner(0x11 + from as u16),
        };
        let packet = V4::new(source, SHARED, 17, udp(1, 2, b"hello"));
        let packet6 = V6::new(source6, inner(0x100), 17, udp(1, 2, b"hello"));
        [
            self.send(from, &ethernet(gateway, own_mac, IPV4, &packet.bytes())),
            self.send(from, &ethernet(gateway, own_mac, IPV6, &packet6.bytes())),
        ]
    }
}

fn to(port: u16) -> Verdict {
    Verdict::Forward(PortId(port))
}

/// Either kind of gratuitous ARP moves an address, and so does a Neighbor Advertisement; traffic
/// goes to the MAC that was announced (the model compares the bytes).
#[test]
fn last_announcer_holds_address() {
    let unknown = Verdict::Drop(DropReason::HolderUnknown);
    for sender in [2, TO_UPLINK] {
        let mut story = Story::new();
        assert_eq!(story.reaches(sender), [unknown; 2]);
        for (holder, opcode, mac) in [
            (0, 1, VM1),
            (1, 2, VM2),
            (0, 2, VIRTUAL_ROUTER),
            (1, 1, VIRTUAL_ROUTER),
            (1, 1, VM2),
        ] {
            story.says(holder, &announcement(opcode, mac));
            story.says(holder, &advertisement(holder, 0x20, Some(mac)));
            let to_holder = to(holder as u16);
            assert_eq!(story.reaches(sender), [to_holder; 2], "{holder} {mac:x?}");
            // From the other port as well, but not from the holder itself.
            assert_eq!(story.reaches(1 - holder), [to_holder; 2]);
            let own = Verdict::DropWithError(DropReason::RouteNone);
            story.0.errors_may_be_spent = true;
            assert_eq!(story.reaches(holder)[0], own);
        }
    }
}

#[test]
fn who_does_not_list_address_cannot_take_it() {
    let mut story = Story::new();
    story.says(0, &announcement(1, VM1));
    for opcode in [1, 2] {
        let verdict = story.send(2, &announcement(opcode, VM3));
        assert_eq!(verdict, Verdict::Drop(DropReason::ArpSenderIp));
    }
    let verdict = story.send(2, &advertisement(2, 0x20, Some(VM3)));
    assert_eq!(verdict, Verdict::Drop(DropReason::NdSpoof));
    // The MAC must be the announcer's own.
    let verdict = story.send(1, &announcement(1, VM1));
    assert_eq!(verdict, Verdict::Drop(DropReason::SrcMac));
    assert_eq!(story.reaches(2)[0], to(0));
}

/// RFC 4861, 7.2.5: without the override flag, what is known stays.
#[test]
fn advertisement_without_override_replaces_no_holder() {
    let mut story = Story::new();
    story.says(1, &advertisement(1, 0, None));
    assert_eq!(story.reaches(2)[1], to(1), "nobody was known");
    story.says(0, &advertisement(0, 0x40, Some(VM1)));
    assert_eq!(story.reaches(2)[1], to(1));
    story.says(0, &advertisement(0, 0x20, None));
    assert_eq!(story.reaches(2)[1], to(0));
}

/// The gateway answers for the holder, but not to the holder, nor to a probe of who is about to
/// take the address over.
#[test]
fn gateway_answers_for_holder() {
    let mut story = Story::new();
    let asks = |from: usize, sender: Ipv4Addr| {
        let message = Arp {
            opcode: 1,
            sender_mac: MACS[from],
            sender,
            target_mac: [0; 6],
            target: SHARED,
        };
        ethernet(BROADCAST, MACS[from], ARP, &message.bytes())
    };
    let zero = Ipv4Addr::UNSPECIFIED;
    for (from, own) in OWN.into_iter().enumerate() {
        let unknown = Verdict::Drop(DropReason::ArpUnknown);
        assert_eq!(story.send(from, &asks(from, own)), unknown);
    }
    story.says(0, &announcement(1, VM1));
    assert_eq!(story.send(1, &asks(1, IP2)), Verdict::Reply);
    assert_eq!(story.send(2, &asks(2, IP3)), Verdict::Reply);
    assert_eq!(story.send(2, &asks(2, zero)), Verdict::Reply);
    story.says(0, &asks(0, IP1));
    story.says(1, &asks(1, zero));
    let reply = story.send(2, &asks(2, IP3));
    assert_eq!(reply, Verdict::Reply);
    assert_ne!(SHARED, GATEWAY);
}

/// Programs announce an address once. So a switch that knows no holder asks every port that lists
/// the address, once a second; an answer is an announcement.
#[test]
fn unknown_holder_is_asked_for() {
    let mut switch = Switch::new(&configs::sharing(), 0xee);
    let asked = |switch: &mut Switch, now_ns| {
        let sent = switch.poll(now_ns);
        let mut asked: Vec<(usize, IpAddr)> = Vec::new();
        for (port, bytes) in sent {
            let target = match bytes[12..14] {
                [8, 6] if port < TO_UPLINK => {
                    assert_eq!(bytes[28..32], GATEWAY.octets(), "who asks");
                    IpAddr::from(<[u8; 4]>::try_from(&bytes[38..42]).expect("four"))
                }
                [0x86, 0xdd] if port < TO_UPLINK && bytes[54] == 135 => {
                    IpAddr::from(<[u8; 16]>::try_from(&bytes[62..78]).expect("sixteen"))
                }
                _ => continue,
            };
            asked.push((port, target));
        }
        asked.sort_unstable();
        asked
    };
    let (first, second) = (IpAddr::V4(SHARED), IpAddr::from([10, 0, 0, 101]));
    let ipv6 = IpAddr::V6(inner(0x100));
    let mut all = vec![
        (0, first),
        (0, ipv6),
        (1, first),
        (1, second),
        (1, ipv6),
        (2, second),
    ];
    all.sort_unstable();
    assert_eq!(asked(&mut switch, 1), all);
    assert_eq!(asked(&mut switch, SECOND_NS), [], "within the second");
    let answer = Arp {
        opcode: 2,
        sender_mac: VM2,
        sender: SHARED,
        target_mac: GW,
        target: GATEWAY,
    };
    let answer = ethernet([2, 0, 0x13, 0x89, 0, 2], VM2, ARP, &answer.bytes());
    let (verdict, _) = switch.process(2, 1, &answer, None);
    assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
    let rest: Vec<_> = all.into_iter().filter(|(_, it)| *it != first).collect();
    assert_eq!(asked(&mut switch, 1 + SECOND_NS), rest);
}

/// What a reload does to the holder of the IPv4 address, `vm1` by the virtual MAC.
#[test]
fn holder_stays_while_its_port_may_hold_address() {
    let held = to(0);
    let unknown = Verdict::Drop(DropReason::HolderUnknown);
    type Change = fn(&mut SwitchConfig);
    let cases: [(&str, Change, Verdict); 5] = [
        ("nothing", |_| {}, held),
        (
            "an address elsewhere",
            |config| config.ports[2].mtu = 1400,
            held,
        ),
        (
            "not shared",
            |config| config.ports[0].shared.retain(IpAddr::is_ipv6),
            unknown,
        ),
        (
            "without that MAC",
            |config| config.ports[0].extra_macs.clear(),
            unknown,
        ),
        (
            "another station",
            |config| {
                config.ports[0].mac = MacAddr::new([0x52, 0x54, 0, 0xaa, 0, 9]).expect("a MAC");
            },
            unknown,
        ),
    ];
    for (what, change, expected) in cases {
        let mut story = Story::new();
        story.says(0, &announcement(1, VIRTUAL_ROUTER));
        let mut config = configs::sharing();
        change(&mut config);
        story.0.configure(&config);
        assert_eq!(story.reaches(2)[0], expected, "{what}");
    }
}

/// After a restart a holder is restored, if the configuration allows it; what was announced
/// meanwhile counts more.
#[test]
fn holder_is_restored() {
    let shared = IpAddr::V4(SHARED);
    let packet = V4::new(IP3, SHARED, 17, udp(1, 2, b"hello"));
    let frame = ethernet(GW, VM3, IPV4, &packet.bytes());
    let mac = |mac: Mac| MacAddr::new(mac).expect("a MAC");
    for (what, (port, of), address, restored) in [
        ("by its MAC", ("vm2", VM2), shared, true),
        ("by a further MAC", ("vm2", VIRTUAL_ROUTER), shared, true),
        ("another's MAC", ("vm2", VM1), shared, false),
        ("a port that does not list it", ("vm3", VM3), shared, false),
        ("no such port", ("vm9", VM2), shared, false),
        ("not shared at all", ("vm2", VM2), IpAddr::V4(IP2), false),
    ] {
        let mut switch = Switch::new(&configs::sharing(), 0xee);
        switch.reload(|generation| {
            let was = generation.restore_holder((port, mac(of)), address);
            assert_eq!(was, restored, "{what}");
        });
        let (verdict, left) = switch.process(1, 2, &frame, None);
        if restored {
            assert_eq!((verdict, &left[..6]), (to(1), &of[..]), "{what}");
        } else {
            assert_eq!(verdict, Verdict::Drop(DropReason::HolderUnknown), "{what}");
        }
    }
    let mut switch = Switch::new(&configs::sharing(), 0xee);
    let _ = switch.process(1, 0, &announcement(1, VM1), None);
    switch.reload(|generation| {
        assert!(generation.restore_holder(("vm2", mac(VM2)), shared));
    });
    assert_eq!(switch.process(1, 2, &frame, None).0, to(0));
}
