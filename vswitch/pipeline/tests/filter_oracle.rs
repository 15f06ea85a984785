//! The filter against `docs/reference/spoof-filter.md`: by hand-made frames for each of its rows,
//! and by random ones against the model of `oracle`.

mod oracle;

use std::collections::BTreeSet;

use oracle::configs;
use oracle::dhcp_story;
use oracle::dhcp6_story;
use oracle::dns_story;
use oracle::generate::{self, Chance, Choices, Sent};
use oracle::ipsec_rows;
use oracle::rows::{self, Case, Expect};
use oracle::trial::{SECOND_NS, Switch, Trial};
use oracle::tunnel_rows;
use pipeline::{DropReason, PortId, Verdict};
use proptest::prelude::*;
use tenant_config::{Limits, SwitchConfig};

#[test]
fn model_agrees_with_rows() {
    let wrong = rows::wrong(&rows::cases(), |case| Ok(case.by_the_model()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each frame alone, at a fresh switch: the verdict is the table's, the bytes are the model's, and
/// of all counters nothing else has moved.
#[test]
fn switch_agrees_with_rows() {
    let wrong = rows::wrong(&rows::cases(), Case::by_the_switch);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Routers that share an address (VRRP, CARP) say the virtual MAC in a frame from their own.
#[test]
fn virtual_router_is_reached_at_its_virtual_mac() {
    use oracle::frames::*;
    use oracle::rows::*;

    const OTHER_ROUTER: Mac = [2, 0, 0, 0, 0, 0xfd];
    let config = configs::three();
    let uplink = config.ports.len();
    let mut switch = Switch::new(&config, 0xee);
    let says = |opcode, target| Arp {
        opcode,
        sender_mac: VIRTUAL_ROUTER,
        sender: NEXT_HOP,
        target_mac: [0; 6],
        target,
    };
    let packet = V4::new(IP1, EXTERNAL, 17, udp(1, 2, b"hello"));
    for heard in [
        ethernet(UPLINK, ROUTER, ARP, &says(2, UPLINK_IP).bytes()),
        // The other router takes over.
        ethernet(BROADCAST, OTHER_ROUTER, ARP, &says(1, NEXT_HOP).bytes()),
    ] {
        let (verdict, _) = switch.process(1, uplink, &heard, None);
        assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
        let sent = ethernet(GW, VM1, IPV4, &packet.bytes());
        let (verdict, left) = switch.process(1, 0, &sent, None);
        assert_eq!(verdict, Verdict::Forward(PortId(uplink as u16)));
        assert_eq!(left[..6], VIRTUAL_ROUTER);
    }
}

/// A limit alone on `vm1`, a frame that falls under it, and the reason once its burst is spent.
fn limits() -> [(&'static str, Limits, Vec<u8>, DropReason); 8] {
    use oracle::frames::*;
    use oracle::rows::{GATEWAY, GW, IP1, IP2, VM1, inner};

    let none = Limits::default();
    let arp_nd = Limits {
        arp_nd_pps: Some(4),
        ..none
    };
    let dhcp = Limits {
        dhcp_pps: Some(4),
        ..none
    };
    let broadcast = Limits {
        broadcast_pps: Some(4),
        ..none
    };
    let pps = Limits {
        pps: Some(4),
        ..none
    };
    let request = Arp {
        opcode: 1,
        sender_mac: VM1,
        sender: IP1,
        target_mac: [0; 6],
        target: GATEWAY,
    };
    let solicitation = V6::icmp(inner(0x11), inner(1), neighbor(135, 0, inner(1), &[]));
    let datagram = |to_port, payload: &[u8]| {
        let packet = V4::new(IP1, IP2, 17, udp(1000, to_port, payload));
        ethernet(GW, VM1, IPV4, &packet.bytes())
    };
    let datagram6 = V6::new(inner(0x11), inner(0x12), 17, udp(546, 547, &[11, 0, 0, 1]));
    let plain = datagram(2000, b"hello");
    let mut to_all = plain.clone();
    to_all[..6].fill(0xff);
    let padded = [plain.clone(), vec![0; 100 - plain.len()]].concat();
    let bps = Limits {
        bps: Some(4 * 8 * 100),
        ..none
    };
    [
        (
            "ARP",
            arp_nd,
            ethernet(GW, VM1, ARP, &request.bytes()),
            DropReason::RateArpNd,
        ),
        (
            "ND",
            arp_nd,
            ethernet(GW, VM1, IPV6, &solicitation.bytes()),
            DropReason::RateArpNd,
        ),
        ("DHCP", dhcp, datagram(68, b""), DropReason::RateDhcp),
        (
            "DHCPv6",
            dhcp,
            ethernet(GW, VM1, IPV6, &datagram6.bytes()),
            DropReason::RateDhcp,
        ),
        ("broadcast", broadcast, to_all, DropReason::RateBroadcast),
        (
            "ARP's broadcast",
            Limits {
                arp_nd_pps: Some(9),
                ..broadcast
            },
            ethernet(BROADCAST, VM1, ARP, &request.bytes()),
            DropReason::RateBroadcast,
        ),
        ("frames", pps, plain, DropReason::RatePps),
        ("bits, with padding", bps, padded, DropReason::RateBps),
    ]
}

/// Four a second are four at once, and then one each quarter of a second. What the filter refuses
/// takes nothing, and a port's storm costs its neighbour nothing.
#[test]
fn spent_limit_drops_for_its_reason() {
    use oracle::frames::{IPV4, V4, ethernet, udp};
    use oracle::rows::{IP1, IP2, VM2};

    let of_sibling = V4::new(IP2, IP1, 17, udp(1000, 2000, b"hello"));
    let of_sibling = ethernet(rows::GW, VM2, IPV4, &of_sibling.bytes());
    for (name, limits, frame, reason) in limits() {
        let mut config = configs::three();
        config.ports[0].limits = limits;
        let mut trial = Trial::new(&config);
        let mut spent = |now_ns: u64, from: usize, bytes: &[u8]| {
            let verdict = trial.send(now_ns, from, bytes, None);
            verdict.expect(name) == Verdict::Drop(reason)
        };
        let mut refused = frame.clone();
        refused[6..12].copy_from_slice(&VM2);
        for _ in 0..9 {
            assert!(!spent(0, 0, &refused), "{name}");
        }
        for _ in 0..4 {
            assert!(!spent(0, 0, &frame), "{name}");
        }
        for _ in 0..3 {
            assert!(spent(0, 0, &frame), "{name}");
            assert!(!spent(0, 1, &of_sibling), "{name}");
        }
        assert!(spent(SECOND_NS / 4 - 1, 0, &frame), "{name}");
        assert!(!spent(SECOND_NS / 4, 0, &frame), "{name}");
        assert!(spent(SECOND_NS / 4, 0, &frame), "{name}");
        for _ in 0..4 {
            assert!(!spent(SECOND_NS * 99, 0, &frame), "{name}");
        }
        assert!(spent(SECOND_NS * 99, 0, &frame), "{name}");
    }
}

/// What the gateway's DHCP server tells is that of the configuration in use, and so is whether it
/// serves.
#[test]
fn reload_changes_what_the_gateway_tells() {
    use std::net::Ipv4Addr;

    use oracle::lease_story::Dhcp;
    use oracle::rows::VM1;

    let served = configs::served();
    let mut told = served.clone();
    told.gateway.dhcp.dns.clear();
    told.ports[0].hostname = None;
    told.ports[0].mtu = 1300;
    let mut off = served.clone();
    off.gateway.dhcp.enabled = false;
    let mut relayed = served.clone();
    relayed.ports[1].dhcp_server = true;
    let discover = Dhcp::client(1, VM1).frame_to(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let mut trial = Trial::new(&served);
    for (config, expected) in [
        (&served, Verdict::Reply),
        (&told, Verdict::Reply),
        (&off, Verdict::Drop(DropReason::DhcpNoServer)),
        (&served, Verdict::Reply),
        (&relayed, Verdict::Forward(PortId(1))),
        (&served, Verdict::Reply),
    ] {
        trial.configure(config);
        assert_eq!(trial.send(0, 0, &discover, None), Ok(expected));
    }
}

/// An answer leaves by the port that it is for, with that port's MACs and its VM's tag; nothing
/// else may come out of there.
#[test]
fn answers_of_metadata_leave_by_their_port() {
    use oracle::frames::*;
    use oracle::rows::{GW, IP1, VM1, VM3, inner};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
    const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let mut switch = Switch::new(&configs::clouds(), 0xee);
    let answer = V4::new(METADATA, IP1, 6, tcp(80, 40_000, 5, b"hello")).bytes();
    let answer6 = V6::new(METADATA6, inner(0x13), 6, tcp(80, 40_000, 5, b"hello")).bytes();
    let left = switch.answer(0, &answer);
    assert_eq!(left, [(0, ethernet(VM1, GW, IPV4, &answer))]);
    let gateway3 = [2, 0, 0x13, 0x89, 0, 3];
    let bare = ethernet(VM3, gateway3, IPV6, &answer6);
    assert_eq!(switch.answer(2, &answer6), [(2, bare.clone())]);
    // It has sent with a tag since.
    let said = V6::new(inner(0x13), METADATA6, 6, tcp(40_000, 80, 5, b""));
    let said = tagged(&ethernet(gateway3, VM3, IPV6, &said.bytes()), 0x8100, 100);
    let (verdict, _) = switch.process(0, 2, &said, None);
    assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
    assert_eq!(switch.passed().len(), 1);
    assert_eq!(
        switch.answer(2, &answer6),
        [(2, tagged(&bare, 0x8100, 100))]
    );
    let other = V4::new(IP1, IP1, 6, tcp(80, 40_000, 5, b"hello")).bytes();
    let long = V4::new(METADATA, IP1, 6, tcp(80, 40_000, 5, &[0; 1300])).bytes();
    for (port, packet) in [
        (1, &answer),
        (4, &answer),
        (9, &answer),
        (0, &other),
        (2, &long),
        (0, &answer[..19].to_vec()),
        (0, &answer6[..39].to_vec()),
        (0, &vec![]),
    ] {
        assert_eq!(switch.answer(port, packet), []);
    }
    let mut none = configs::clouds();
    none.ports[0].metadata = None;
    switch.configure(&none);
    assert_eq!(switch.answer(0, &answer), []);
    // The ports behind one that goes have other numbers; their answers are theirs all the same.
    let mut fewer = configs::clouds();
    fewer.ports.remove(0);
    switch.configure(&fewer);
    assert_eq!(switch.answer_to(VM1, &answer), []);
    assert_eq!(
        switch.answer_to(VM3, &answer6),
        [(1, tagged(&bare, 0x8100, 100))]
    );
}

#[test]
fn rows_have_a_frame_for_every_reason() {
    let shown: BTreeSet<DropReason> = rows::cases()
        .iter()
        .chain(&tunnel_rows::cases())
        .chain(&ipsec_rows::cases())
        .filter_map(|case| match case.expect {
            Expect::Drop(reason) | Expect::DropWithError(reason) => Some(reason),
            Expect::Forward(_) | Expect::Copies(_) | Expect::Reply => None,
        })
        .collect();
    // Storm control takes more than one frame (`spent_limit_drops_for_its_reason`), and the last
    // two are the devices', not the filter's.
    let elsewhere = [
        DropReason::RateBroadcast,
        DropReason::RateArpNd,
        DropReason::RateDhcp,
        DropReason::RatePps,
        DropReason::RateBps,
        DropReason::RateMulticast,
        DropReason::TxFull,
        DropReason::NoBuffer,
    ];
    let all: BTreeSet<DropReason> = DropReason::ALL.iter().copied().collect();
    let missing: Vec<_> = all
        .difference(&shown)
        .filter(|reason| !elsewhere.contains(reason))
        .collect();
    assert_eq!(missing, Vec::<&DropReason>::new());
}

/// What clients say to one of the gateway's services, a frame each second.
fn agrees_with_model(
    config: &SwitchConfig,
    chance: &Chance,
    frame: impl Fn(&mut Choices<'_>, &SwitchConfig) -> Sent,
) -> Result<(), TestCaseError> {
    let mut trial = Trial::new(config);
    trial.resolve(0);
    let mut choices = Choices::new(&chance.0);
    let mut now_ns = 0;
    while !choices.is_spent() {
        let sent = frame(&mut choices, config);
        now_ns += SECOND_NS;
        if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
            return Err(TestCaseError::fail(disagreement));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(oracle::cases(600))]

    /// Verdict, reason, bytes and counters of random frames are the model's. A second lies between
    /// two frames, so that neither storm control nor the rate of ICMP errors has a say.
    #[test]
    fn random_frames_agree_with_model(
        which in any::<prop::sample::Index>(),
        resolved: bool,
        chance in Chance::any(),
    ) {
        let configs = configs::all();
        let (name, config) = which.get(&configs);
        let mut trial = Trial::new(config);
        if resolved {
            trial.resolve(0);
        }
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = generate::frame(&mut choices, config);
            now_ns += SECOND_NS;
            if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                return Err(TestCaseError::fail(format!("{name}: {disagreement}")));
            }
        }
    }

    /// As above: what clients say to the gateway's own DHCP server.
    #[test]
    fn random_dhcp_agrees_with_model(
        which in any::<prop::sample::Index>(),
        chance in Chance::any(),
    ) {
        let configs = dhcp_story::switches();
        agrees_with_model(which.get(&configs), &chance, dhcp_story::frame)?;
    }

    /// The same of its DHCPv6 server.
    #[test]
    fn random_dhcp6_agrees_with_model(
        which in any::<prop::sample::Index>(),
        chance in Chance::any(),
    ) {
        let configs = dhcp6_story::switches();
        agrees_with_model(which.get(&configs), &chance, dhcp6_story::frame)?;
    }

    /// As above: queries for names.
    #[test]
    fn random_dns_agrees_with_model(
        which in any::<prop::sample::Index>(),
        chance in Chance::any(),
    ) {
        let configs = dns_story::switches();
        agrees_with_model(which.get(&configs), &chance, dns_story::frame)?;
    }

    /// As above, but within the limits of storm control and beyond them.
    #[test]
    fn random_storms_agree_with_model(chance in Chance::any()) {
        let config = configs::limited();
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        trial.errors_may_be_spent = true;
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = generate::frame(&mut choices, &config);
            now_ns += choices.pick(&[0, 0, 1, 125, 249, 250, 600]) * 1_000_000;
            for _ in 0..choices.pick(&[1, 1, 2, 9]) {
                if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                    return Err(TestCaseError::fail(disagreement));
                }
            }
        }
    }
}
