//! Names that resolvers are asked for: conversations of several frames, each held against the model
//! of `oracle`.

mod oracle;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use oracle::configs;
use oracle::dns_story::{name, opt, query, raw};
use oracle::frames::*;
use oracle::generate::{Chance, Choices};
use oracle::resolver_story::{self, FAR, Left, NEAR, NEAR6, Story};
use oracle::rows::{GATEWAY, GW, IP1, IP2, VM1};
use oracle::trial::{SECOND_NS, Trial};
use pipeline::{DropReason, PortId, Verdict};
use proptest::prelude::*;

const UPLINK: usize = 3;
const TO_UPLINK: Verdict = Verdict::Forward(PortId(UPLINK as u16));
const UNSOLICITED: Verdict = Verdict::Drop(DropReason::DnsUnsolicited);
/// QR, RD and RA.
const ANSWER: u16 = 0x8180;

/// A switch that knows its next hops.
struct Bench {
    trial: Trial,
    now_ns: u64,
}

impl Bench {
    fn new() -> Self {
        let mut trial = Trial::new(&configs::asking());
        trial.resolve(0);
        Self { trial, now_ns: 0 }
    }

    fn send(&mut self, from: usize, frame: &[u8]) -> Verdict {
        let verdict = self.trial.send(self.now_ns, from, frame, None);
        verdict.unwrap_or_else(|disagreement| panic!("{disagreement}"))
    }

    /// A VM's query leaves.
    fn ask(&mut self, frame: &[u8]) -> Left {
        assert_eq!(self.send(0, frame), TO_UPLINK);
        Left::of(&self.trial.last_left.take().expect("a query"))
    }

    fn answer(&mut self, frame: &[u8]) -> Verdict {
        self.send(UPLINK, frame)
    }
}

/// A query of `vm1`.
fn asks(id: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = query(&name("www.Example.com"), 1, rest);
    message[1] = id;
    let packet = V4::new(IP1, GATEWAY, 17, udp(40_000, 53, &message));
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

#[test]
fn answer_reaches_who_asked_once() {
    let mut bench = Bench::new();
    let left = bench.ask(&asks(1, &[]));
    assert_eq!(left.resolver, NEAR);
    let answer = left.frame(&left.answer(ANSWER, 100));
    assert_eq!(bench.answer(&answer), Verdict::Forward(PortId(0)));
    assert_eq!(bench.answer(&answer), UNSOLICITED);
}

#[test]
fn answer_by_one_family_reaches_who_asked_by_the_other() {
    for (is_ipv6, resolver) in [(true, NEAR.into()), (false, NEAR6.into())] {
        let mut config = configs::asking();
        config.gateway.dns.forward = vec![resolver];
        let mut bench = Bench::new();
        bench.trial.configure(&config);
        bench.trial.resolve(0);
        let message = query(&name("example.com"), 28, &opt(1232, 0, &[]));
        let left = bench.ask(&raw(&config, 0, is_ipv6, &message));
        assert_eq!(left.resolver, resolver);
        let answer = left.frame(&left.answer(ANSWER, 1_100));
        assert_eq!(bench.answer(&answer), Verdict::Forward(PortId(0)));
    }
}

/// RFC 5452, sections 9.1 and 10: what must be as in the query.
#[test]
fn answer_that_differs_in_anything_is_refused() {
    let mut bench = Bench::new();
    let left = bench.ask(&asks(1, &[]));
    let changed = |change: &dyn Fn(&mut Left)| {
        let mut left = left.clone();
        change(&mut left);
        left.frame(&left.answer(ANSWER, 0))
    };
    for forged in [
        changed(&|it| it.resolver = FAR.into()),
        changed(&|it| it.udp_port ^= 1),
        changed(&|it| it.id ^= 1),
        changed(&|it| it.question[1] ^= 1),
    ] {
        assert_eq!(bench.answer(&forged), UNSOLICITED);
    }
    let right = changed(&|it| it.question.make_ascii_lowercase());
    assert_eq!(bench.answer(&right), Verdict::Forward(PortId(0)));
}

#[test]
fn query_is_given_up_after_three_wrong_answers() {
    let mut bench = Bench::new();
    let left = bench.ask(&asks(1, &[]));
    for guess in 1..=3 {
        let mut forged = left.clone();
        forged.id ^= guess;
        let forged = forged.frame(&forged.answer(ANSWER, 0));
        assert_eq!(bench.answer(&forged), UNSOLICITED);
    }
    let right = left.frame(&left.answer(ANSWER, 0));
    assert_eq!(bench.answer(&right), UNSOLICITED);
    let again = bench.ask(&asks(1, &[]));
    let right = again.frame(&again.answer(ANSWER, 0));
    assert_eq!(bench.answer(&right), Verdict::Forward(PortId(0)));
}

#[test]
fn answer_is_waited_for_five_seconds() {
    for (after_ns, expected) in [
        (5 * SECOND_NS - 1, Verdict::Forward(PortId(0))),
        (5 * SECOND_NS, UNSOLICITED),
    ] {
        let mut bench = Bench::new();
        let left = bench.ask(&asks(1, &[]));
        bench.now_ns = after_ns;
        let answer = left.frame(&left.answer(ANSWER, 0));
        assert_eq!(bench.answer(&answer), expected);
    }
}

#[test]
fn resolver_that_does_not_answer_is_passed_over() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(&asks(1, &[])).resolver, NEAR);
    assert_eq!(bench.ask(&asks(2, &[])).resolver, NEAR);
    // The client repeats the first, at once and later.
    assert_eq!(bench.ask(&asks(1, &[])).resolver, NEAR);
    bench.now_ns = SECOND_NS;
    assert_eq!(bench.ask(&asks(1, &[])).resolver, FAR);
    assert_eq!(bench.ask(&asks(3, &[])).resolver, FAR);
    bench.now_ns = 7 * SECOND_NS;
    assert_eq!(bench.ask(&asks(4, &[])).resolver, NEAR6);
    bench.now_ns = 8 * SECOND_NS;
    assert_eq!(bench.ask(&asks(4, &[])).resolver, NEAR);
}

/// A name whose own servers are silent, or a lost datagram, says nothing against a resolver that
/// answers others meanwhile.
#[test]
fn resolver_that_answers_others_stays() {
    let mut bench = Bench::new();
    bench.ask(&asks(1, &[]));
    let other = bench.ask(&asks(2, &[]));
    bench.now_ns = SECOND_NS;
    let answer = other.frame(&other.answer(ANSWER, 100));
    assert_eq!(bench.answer(&answer), Verdict::Forward(PortId(0)));
    bench.now_ns = 2 * SECOND_NS;
    assert_eq!(bench.ask(&asks(1, &[])).resolver, NEAR);
    bench.now_ns = 8 * SECOND_NS;
    assert_eq!(bench.ask(&asks(3, &[])).resolver, FAR);
}

/// Over many queries neither port nor ID is one of few.
#[test]
fn ports_and_ids_are_spread() {
    let mut bench = Bench::new();
    let (mut ports, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for turn in 0..4_000_u64 {
        bench.now_ns = turn * SECOND_NS / 50;
        let left = bench.ask(&asks(turn as u8, &[]));
        ports.insert(left.udp_port);
        ids.insert(left.id);
        let answer = left.frame(&left.answer(ANSWER, 0));
        assert_eq!(bench.answer(&answer), Verdict::Forward(PortId(0)));
    }
    // Of 4,000 out of 64,512 and 65,536, about 3,880 are different.
    assert!(ports.len() > 3_800, "{} ports", ports.len());
    assert!(ids.len() > 3_800, "{} IDs", ids.len());
    assert!(ports.range(..20_000).count() > 1_000 && ports.range(50_000..).count() > 700);
}

/// The ports and IDs of a generation are not those of the one before, even if resolvers were away
/// meanwhile.
#[test]
fn reload_keeps_queries_and_never_draws_twice() {
    let mut bench = Bench::new();
    let before = bench.ask(&asks(1, &[]));
    bench.trial.reload();
    let answer = before.frame(&before.answer(ANSWER, 0));
    assert_eq!(bench.answer(&answer), Verdict::Forward(PortId(0)));
    let before = bench.ask(&asks(2, &[]));
    bench.trial.configure(&configs::named());
    let answer = before.frame(&before.answer(ANSWER, 0));
    let served = bench.answer(&answer);
    assert_eq!(served, Verdict::Drop(DropReason::GatewayService));
    bench.trial.configure(&configs::asking());
    bench.trial.resolve(0);
    assert_eq!(bench.answer(&answer), UNSOLICITED);
    let after = bench.ask(&asks(2, &[]));
    assert_ne!((after.udp_port, after.id), (before.udp_port, before.id));
}

/// Of a port that is gone, the answer goes to nobody.
#[test]
fn answer_to_a_port_that_is_gone_is_dropped() {
    let mut bench = Bench::new();
    let left = bench.ask(&asks(1, &[]));
    let mut config = configs::asking();
    config.ports[0].mac = "52:54:00:aa:00:41".parse().expect("a MAC");
    bench.trial.configure(&config);
    let answer = left.frame(&left.answer(ANSWER, 0));
    assert_eq!(bench.answer(&answer), UNSOLICITED);
}

/// One port's unanswered queries cost another nothing.
#[test]
fn limits_are_of_each_port() {
    let mut bench = Bench::new();
    for id in 0..64 {
        bench.ask(&asks(id, &[]));
    }
    assert_eq!(
        bench.send(0, &asks(64, &[])),
        Verdict::Drop(DropReason::DnsRate)
    );
    let config = configs::asking();
    let port = &config.ports[1];
    let message = query(&name("example.com"), 1, &[]);
    let packet = V4::new(IP2, GATEWAY, 17, udp(40_000, 53, &message));
    let (to, from) = (port.gateway_mac.octets(), port.mac.octets());
    let frame = ethernet(to, from, IPV4, &packet.bytes());
    assert_eq!(bench.send(1, &frame), TO_UPLINK);
}

/// The resolver on the link is reached at its own MAC; that which is not known is skipped.
#[test]
fn resolver_whose_next_hop_is_silent_is_skipped() {
    const RESOLVER: Mac = [2, 0, 0, 0, 0, 0x53];
    let heard = |mac: Mac, sender: Ipv4Addr| {
        let arp = Arp {
            opcode: 2,
            sender_mac: mac,
            sender,
            target_mac: oracle::rows::UPLINK,
            target: oracle::rows::UPLINK_IP,
        };
        ethernet(oracle::rows::UPLINK, mac, ARP, &arp.bytes())
    };
    let mut trial = Trial::new(&configs::asking());
    let mut send = |from: usize, frame: &[u8]| {
        let verdict = trial.send(0, from, frame, None).expect("agreement");
        (verdict, trial.last_left.take())
    };
    let absorbed = Verdict::Drop(DropReason::Absorbed);
    let unresolved = Verdict::Drop(DropReason::NeighbourUnresolved);
    assert_eq!(send(0, &asks(1, &[])).0, unresolved);
    let router = heard(oracle::rows::ROUTER, oracle::rows::NEXT_HOP);
    assert_eq!(send(UPLINK, &router).0, absorbed);
    let (_, left) = send(0, &asks(2, &[]));
    let left = left.expect("a query");
    assert_eq!(Left::of(&left).resolver, FAR);
    assert_eq!(left[..6], oracle::rows::ROUTER);
    assert_eq!(send(UPLINK, &heard(RESOLVER, NEAR)).0, absorbed);
    let (_, left) = send(0, &asks(3, &[]));
    let left = left.expect("a query");
    assert_eq!(Left::of(&left).resolver, NEAR);
    assert_eq!(left[..6], RESOLVER);
}

/// With the first unreachable and the second silent, the third is asked.
#[test]
fn resolver_behind_one_that_is_skipped_is_reached() {
    let mut bench = Bench {
        trial: Trial::new(&configs::asking()),
        now_ns: 0,
    };
    let arp = Arp {
        opcode: 2,
        sender_mac: oracle::rows::ROUTER,
        sender: oracle::rows::NEXT_HOP,
        target_mac: oracle::rows::UPLINK,
        target: oracle::rows::UPLINK_IP,
    };
    let router = ethernet(
        oracle::rows::UPLINK,
        oracle::rows::ROUTER,
        ARP,
        &arp.bytes(),
    );
    let absorbed = Verdict::Drop(DropReason::Absorbed);
    let mut config = configs::asking();
    let behind = Ipv4Addr::new(203, 0, 113, 54);
    config.gateway.dns.forward = vec![NEAR.into(), FAR.into(), behind.into()];
    bench.trial.configure(&config);
    assert_eq!(bench.answer(&router), absorbed);
    assert_eq!(bench.ask(&asks(1, &[])).resolver, FAR);
    bench.now_ns = 2 * SECOND_NS;
    assert_eq!(bench.ask(&asks(1, &[])).resolver, behind);
    assert_eq!(bench.ask(&asks(2, &[])).resolver, behind);
}

/// The random conversations below are also of answers that arrive.
#[test]
fn random_conversations_have_answers() {
    let mut story = Story::new(&configs::asking(), true);
    let chance: Vec<u8> = (0..20_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut choices = Choices::new(&chance);
    while !choices.is_spent() {
        story.step(&mut choices).expect("agreement");
    }
    assert!(story.answered > 50, "{} answers", story.answered);
}

proptest! {
    #![proptest_config(oracle::cases(400))]

    /// Queries, answers and forged answers, the clock and reloads.
    #[test]
    fn random_conversations_agree_with_model(
        which in any::<prop::sample::Index>(),
        resolved: bool,
        chance in Chance::any(),
    ) {
        let configs = resolver_story::switches();
        let mut story = Story::new(which.get(&configs), resolved);
        let mut choices = Choices::new(&chance.0);
        while !choices.is_spent() {
            if let Err(disagreement) = story.step(&mut choices) {
                return Err(TestCaseError::fail(disagreement));
            }
        }
    }
}
