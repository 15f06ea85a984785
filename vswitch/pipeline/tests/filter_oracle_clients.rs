//! Several DHCP clients, of which some lie, and servers that are not ideal: no port gets or keeps
//! an address or an identifier that is another's, whatever is said and whatever is reconfigured.

mod oracle;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use oracle::configs;
use oracle::frames::*;
use oracle::generate::{Chance, Choices};
use oracle::lease_story::{self, Dhcp, Event, LEARNERS, World, probe};
use oracle::rows::{IP1, IP2, VM1, inner, link_local};
use oracle::trial::{SECOND_NS, Switch, Trial};
use pipeline::{Client, Clients, DropReason, Family, Generation, PortId, Verdict};
use proptest::prelude::*;
use tenant_config::{Addresses, MacAddr, SwitchConfig};

const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LEASED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 51);

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// Options of a message.
const REQUESTED: u8 = 50;
const SERVER: u8 = 54;
const IDENTIFIER: u8 = 61;

/// Two clients of `vm2`: `vm4` is the victim, `vm5` the attacker; `vm6` may use tags.
const SERVER_PORT: usize = 1;
const VICTIM: usize = 3;
const ATTACKER: usize = 4;
const TAGGED: usize = 5;

const TO_SERVER: Verdict = Verdict::Forward(PortId(SERVER_PORT as u16));
const IDENTITY: Verdict = Verdict::Drop(DropReason::DhcpIdentity);

/// The victim's identifier: one that networkd writes.
const ITS_OWN: &[u8] = &[0xff, 1, 2, 3, 4, 0, 2, 0, 0, 0xab, 0x11, 9, 9];

/// A switch, and what its stations have said so far.
struct Story {
    switch: Switch,
    now_ns: u64,
}

impl Story {
    fn begin() -> Self {
        Self {
            switch: Switch::new(&configs::learners(), 0xee),
            now_ns: SECOND_NS,
        }
    }

    fn mac(&self, port: usize) -> Mac {
        self.switch.config.ports[port].mac.octets()
    }

    fn send(&mut self, from: usize, frame: &[u8]) -> Verdict {
        self.now_ns += 1_000_000;
        match self.switch.process(self.now_ns, from, frame, None).0 {
            // To both servers; the first of them answers here.
            Verdict::Copies => {
                let copies = self.switch.copies().iter();
                let to: Vec<usize> = copies.map(|(to, _)| *to).collect();
                assert_eq!(to, [SERVER_PORT, SERVER_PORT + 1]);
                TO_SERVER
            }
            verdict => verdict,
        }
    }

    fn wait_s(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
    }

    /// A message of a client, to be completed.
    fn message(&self, from: usize, kind: u8) -> Dhcp {
        Dhcp::client(kind, self.mac(from))
    }

    /// A client broadcasts.
    fn say(&mut self, from: usize, message: &Dhcp) -> Verdict {
        self.send(from, &message.frame(ZERO))
    }

    /// A client says something to the server, from the address that it has.
    fn tell(&mut self, from: usize, source: Ipv4Addr, message: &Dhcp) -> Verdict {
        self.send(from, &message.frame(source))
    }

    /// The server answers the port's last message.
    fn answer(&mut self, to: usize, kind: u8, address: Ipv4Addr, seconds: u32) {
        let message = Dhcp::server(kind, self.mac(to), address, seconds);
        self.server_says(to, &message);
    }

    fn server_says(&mut self, to: usize, message: &Dhcp) {
        let mut frame = message.frame(ZERO);
        frame[6..12].copy_from_slice(&self.mac(SERVER_PORT));
        let verdict = self.send(SERVER_PORT, &frame);
        assert_eq!(verdict, Verdict::Forward(PortId(to as u16)));
    }

    /// The port gets a lease, for an identifier or without one.
    fn lease(&mut self, to: usize, identifier: &[u8], address: Ipv4Addr, seconds: u32) {
        let mut request = self.message(to, REQUEST);
        if !identifier.is_empty() {
            request = request.with(IDENTIFIER, identifier);
        }
        assert_eq!(self.say(to, &request), TO_SERVER);
        self.answer(to, ACK, address, seconds);
        assert!(self.has(to, address));
    }

    /// Whether the port may send from the address.
    fn has(&mut self, port: usize, address: Ipv4Addr) -> bool {
        let to = if address == IP1 { IP2 } else { IP1 };
        let frame = probe(self.mac(port), address, to);
        match self.send(port, &frame) {
            Verdict::Forward(_) => true,
            Verdict::Drop(DropReason::Ipv4Source) => false,
            other => panic!("{port} from {address}: {other:?}"),
        }
    }

    fn configure(&mut self, change: impl FnOnce(&mut SwitchConfig)) {
        let mut config = configs::learners();
        change(&mut config);
        self.switch.configure(&config);
    }
}

#[test]
fn sibling_cannot_release_or_take_a_lease_by_its_identifier() {
    for kind in [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] {
        let mut story = Story::begin();
        story.lease(VICTIM, ITS_OWN, LEASED, 3600);
        story.lease(ATTACKER, &[], OTHER, 3600);
        let forged = story.message(ATTACKER, kind).with(IDENTIFIER, ITS_OWN);
        assert_eq!(story.say(ATTACKER, &forged), IDENTITY, "{kind}");
        assert_eq!(story.tell(ATTACKER, OTHER, &forged), IDENTITY, "{kind}");
        assert!(story.has(VICTIM, LEASED));
        // Nor before the lease, once the victim has said who it is.
        let mut story = Story::begin();
        let asked = story.message(VICTIM, DISCOVER).with(IDENTIFIER, ITS_OWN);
        assert_eq!(story.say(VICTIM, &asked), TO_SERVER);
        assert_eq!(story.say(ATTACKER, &forged), IDENTITY, "{kind}");
    }
}

#[test]
fn sibling_cannot_name_a_learned_address() {
    for kind in [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] {
        let mut story = Story::begin();
        story.lease(VICTIM, ITS_OWN, LEASED, 3600);
        let wanted = story
            .message(ATTACKER, kind)
            .with(REQUESTED, &LEASED.octets());
        assert_eq!(story.say(ATTACKER, &wanted), IDENTITY, "{kind}");
        let claimed = Dhcp {
            ciaddr: LEASED,
            ..story.message(ATTACKER, kind)
        };
        assert_eq!(story.say(ATTACKER, &claimed), IDENTITY, "{kind}");
        // The victim itself may.
        let own = Dhcp {
            ciaddr: LEASED,
            ..story.message(VICTIM, INFORM)
        };
        assert_eq!(story.tell(VICTIM, LEASED, &own), TO_SERVER);
        // The address is anybody's when its lease is over.
        story.wait_s(3600);
        assert_eq!(story.say(ATTACKER, &wanted), TO_SERVER, "{kind}");
    }
}

#[test]
fn identifier_is_its_ports_until_its_lease_ends() {
    let taken = |story: &mut Story| {
        let other = story.message(ATTACKER, DISCOVER).with(IDENTIFIER, ITS_OWN);
        story.say(ATTACKER, &other) == IDENTITY
    };
    // An offer that is not taken is kept for two minutes.
    let mut story = Story::begin();
    let asked = story.message(VICTIM, DISCOVER).with(IDENTIFIER, ITS_OWN);
    assert_eq!(story.say(VICTIM, &asked), TO_SERVER);
    story.wait_s(119);
    assert!(taken(&mut story));
    story.wait_s(1);
    assert!(!taken(&mut story));
    assert_eq!(story.say(VICTIM, &asked), IDENTITY, "it is another's now");

    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 3600);
    story.wait_s(3598);
    assert!(taken(&mut story));
    story.wait_s(2);
    assert!(!taken(&mut story));

    // A port with a fixed address may have a reservation: its identifier is its own as well.
    let mut story = Story::begin();
    let request = story.message(0, REQUEST).with(IDENTIFIER, ITS_OWN);
    assert_eq!(story.say(0, &request), TO_SERVER);
    story.answer(0, ACK, IP1, 3600);
    story.wait_s(3500);
    assert!(taken(&mut story));
}

#[test]
fn identifier_is_free_after_release_but_counts_on() {
    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 3600);
    let release = Dhcp {
        ciaddr: LEASED,
        ..story.message(VICTIM, RELEASE).with(IDENTIFIER, ITS_OWN)
    };
    assert_eq!(story.tell(VICTIM, LEASED, &release), TO_SERVER);
    assert!(!story.has(VICTIM, LEASED));
    let other = story.message(ATTACKER, DISCOVER).with(IDENTIFIER, ITS_OWN);
    assert_eq!(story.say(ATTACKER, &other), TO_SERVER);
    // The server may not have honoured the release: three more are four.
    story.wait_s(121);
    for (number, verdict) in [
        (1, TO_SERVER),
        (2, TO_SERVER),
        (3, TO_SERVER),
        (4, IDENTITY),
    ] {
        let next = story.message(VICTIM, DISCOVER);
        let next = next.with(IDENTIFIER, &[0, number]);
        assert_eq!(story.say(VICTIM, &next), verdict, "{number}");
    }
}

#[test]
fn ten_identifiers_cannot_empty_the_pool() {
    let mut story = Story::begin();
    let mut leases = 0;
    for round in 0..10 {
        for number in 0..10 {
            let request = story.message(ATTACKER, REQUEST);
            let request = request.with(IDENTIFIER, &[7, number]);
            if story.say(ATTACKER, &request) == TO_SERVER && round == 0 {
                let address = Ipv4Addr::new(10, 0, 0, 100 + number);
                story.answer(ATTACKER, ACK, address, 3600);
                leases += 1;
            }
        }
        story.wait_s(121);
    }
    assert_eq!(leases, 4);
    // Nor can a client without one add to them, nor a renewed number of a transaction hide one.
    let without = story.message(ATTACKER, REQUEST);
    assert_eq!(story.say(ATTACKER, &without), IDENTITY);
    let known = story.message(ATTACKER, REQUEST).with(IDENTIFIER, &[7, 0]);
    assert_eq!(story.say(ATTACKER, &known), TO_SERVER);
}

#[test]
fn grant_of_a_forgotten_transaction_counts() {
    let mut story = Story::begin();
    for number in 0..4 {
        let request = story
            .message(ATTACKER, REQUEST)
            .with(IDENTIFIER, &[7, number]);
        assert_eq!(story.say(ATTACKER, &request), TO_SERVER);
        // The server ignores what follows, and answers the first.
        let forget = Dhcp {
            xid: 99,
            ..story
                .message(ATTACKER, REQUEST)
                .with(SERVER, &[10, 0, 0, 99])
                .with(IDENTIFIER, &[7, number])
        };
        assert_eq!(story.say(ATTACKER, &forget), TO_SERVER);
        story.answer(ATTACKER, ACK, Ipv4Addr::new(10, 0, 0, 100 + number), 3600);
    }
    story.wait_s(600);
    let fifth = story.message(ATTACKER, REQUEST).with(IDENTIFIER, &[7, 4]);
    assert_eq!(story.say(ATTACKER, &fifth), IDENTITY);
}

#[test]
fn declines_are_four_a_day() {
    let mut story = Story::begin();
    for number in 0..6 {
        let decline = story.message(ATTACKER, DECLINE);
        let decline = decline.with(REQUESTED, &[10, 0, 0, 100 + number]);
        let verdict = if number < 4 { TO_SERVER } else { IDENTITY };
        assert_eq!(story.say(ATTACKER, &decline), verdict, "{number}");
        story.wait_s(600);
    }
    story.wait_s(86_400 - 6 * 600);
    let decline = story
        .message(ATTACKER, DECLINE)
        .with(REQUESTED, &[10, 0, 0, 110]);
    assert_eq!(story.say(ATTACKER, &decline), TO_SERVER);
}

#[test]
fn client_that_gives_its_address_up_has_none() {
    type Change = fn(Dhcp) -> Dhcp;
    let cases: [(&str, u8, Change, bool); 9] = [
        (
            "a decline",
            DECLINE,
            |it| it.with(REQUESTED, &LEASED.octets()),
            false,
        ),
        (
            "of another address",
            DECLINE,
            |it| it.with(REQUESTED, &OTHER.octets()),
            true,
        ),
        ("of none", DECLINE, |it| it, false),
        (
            "a release",
            RELEASE,
            |it| Dhcp {
                ciaddr: LEASED,
                ..it
            },
            false,
        ),
        (
            "of another address",
            RELEASE,
            |it| Dhcp {
                ciaddr: OTHER,
                ..it
            },
            true,
        ),
        (
            "to another server, in another name",
            RELEASE,
            |it| {
                Dhcp {
                    ciaddr: LEASED,
                    ..it
                }
                .with(SERVER, &[9; 4])
                .with(IDENTIFIER, &[9; 4])
            },
            false,
        ),
        (
            "a request that selects another address",
            REQUEST,
            |it| {
                it.with(SERVER, &IP2.octets())
                    .with(REQUESTED, &OTHER.octets())
            },
            false,
        ),
        (
            "one that selects its own",
            REQUEST,
            |it| {
                it.with(SERVER, &IP2.octets())
                    .with(REQUESTED, &LEASED.octets())
            },
            true,
        ),
        (
            "a renewal",
            REQUEST,
            |it| Dhcp {
                ciaddr: LEASED,
                ..it
            },
            true,
        ),
    ];
    for (name, kind, change, remains) in cases {
        let mut story = Story::begin();
        story.lease(VICTIM, ITS_OWN, LEASED, 3600);
        let message = change(story.message(VICTIM, kind));
        assert_eq!(story.tell(VICTIM, LEASED, &message), TO_SERVER, "{name}");
        assert_eq!(story.has(VICTIM, LEASED), remains, "{kind}: {name}");
        // What the server says late to what was before does not bring it back.
        story.server_says(
            VICTIM,
            &Dhcp {
                xid: if kind == REQUEST { 99 } else { 7 },
                ..Dhcp::server(ACK, story.mac(VICTIM), LEASED, 3600)
            },
        );
        assert_eq!(story.has(VICTIM, LEASED), remains, "{kind}: {name}, late");
    }
}

#[test]
fn address_that_is_given_twice_stays_its_first_ports() {
    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 60);
    let request = story.message(ATTACKER, REQUEST);
    assert_eq!(story.say(ATTACKER, &request), TO_SERVER);
    story.answer(ATTACKER, ACK, LEASED, 3600);
    assert!(!story.has(ATTACKER, LEASED));
    assert!(story.has(VICTIM, LEASED));
    story.wait_s(60);
    assert!(
        !story.has(ATTACKER, LEASED),
        "what was refused is not learned later"
    );
    assert!(!story.has(VICTIM, LEASED));
}

#[test]
fn ports_with_one_transaction_number_get_each_their_own() {
    let mut story = Story::begin();
    for port in [VICTIM, ATTACKER] {
        let request = story.message(port, REQUEST);
        assert_eq!(story.say(port, &request), TO_SERVER);
    }
    story.answer(ATTACKER, ACK, OTHER, 60);
    assert!(!story.has(VICTIM, OTHER));
    story.answer(VICTIM, NAK, ZERO, 60);
    assert!(story.has(ATTACKER, OTHER));
    story.answer(VICTIM, ACK, LEASED, 60);
    assert!(!story.has(VICTIM, LEASED), "a refusal ends the transaction");
}

#[test]
fn late_acknowledgement_is_not_learned() {
    let mut story = Story::begin();
    let request = story.message(VICTIM, REQUEST);
    assert_eq!(story.say(VICTIM, &request), TO_SERVER);
    story.wait_s(120);
    story.answer(VICTIM, ACK, LEASED, 60);
    assert!(!story.has(VICTIM, LEASED));
}

#[test]
fn port_with_another_mac_loses_what_it_had() {
    let changed = |config: &mut SwitchConfig| {
        config.ports[VICTIM].mac = MacAddr::new([2, 0, 0, 0, 0, 9]).expect("a station's MAC");
    };
    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 3600);
    story.configure(changed);
    assert!(!story.has(VICTIM, LEASED));
    let other = story.message(ATTACKER, REQUEST).with(IDENTIFIER, ITS_OWN);
    assert_eq!(story.say(ATTACKER, &other), TO_SERVER);
    story.answer(ATTACKER, ACK, LEASED, 60);
    assert!(story.has(ATTACKER, LEASED));
    // The former MAC does not bring it back.
    story.configure(|_| {});
    assert!(!story.has(VICTIM, LEASED));

    // Nor does an answer to the former station's request.
    let mut story = Story::begin();
    let request = story.message(VICTIM, REQUEST);
    assert_eq!(story.say(VICTIM, &request), TO_SERVER);
    story.configure(changed);
    story.answer(VICTIM, ACK, LEASED, 60);
    assert!(!story.has(VICTIM, LEASED));

    // What is published is that of the new configuration at once, before the next poll.
    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 3600);
    story.switch.poll(story.now_ns);
    assert_eq!(story.switch.lease(VICTIM).0, u64::from(LEASED.to_bits()));
    story.configure(changed);
    assert_eq!(story.switch.lease(VICTIM), (0, 0));
}

#[test]
fn restored_lease_of_another_mac_is_refused() {
    let config = configs::learners();
    let mut generation = Generation::build(&config, None);
    let strange = MacAddr::new([2, 0, 0, 0, 0, 9]).expect("a station's MAC");
    assert!(!generation.restore_lease(("vm4", strange), LEASED, SECOND_NS));
    assert!(generation.restore_lease(("vm4", config.ports[VICTIM].mac), LEASED, SECOND_NS));
}

/// The same stations after a restart of their switch. What it knew of clients is restored when the
/// stations have said `meanwhile`.
fn restarted(mut story: Story, meanwhile: impl FnOnce(&mut Story)) -> Story {
    story.switch.poll(story.now_ns);
    let config = story.switch.config.clone();
    let known = |family| {
        let ports = 0..config.ports.len();
        let known = ports.map(|port| story.switch.clients(port, family, story.now_ns));
        known.collect::<Vec<_>>()
    };
    let known = [Family::V4, Family::V6].map(|family| (family, known(family)));
    let mut next = Story {
        switch: Switch::new(&config, 0xee),
        now_ns: story.now_ns,
    };
    meanwhile(&mut next);
    next.switch.reload(|generation| {
        for (family, known) in &known {
            for (port, clients) in config.ports.iter().zip(known) {
                let station = (port.name.as_str(), port.mac);
                assert!(generation.restore_clients(station, *family, clients));
            }
        }
    });
    next
}

#[test]
fn identifier_is_its_ports_after_a_restart() {
    let begin = || {
        let mut story = Story::begin();
        story.lease(VICTIM, ITS_OWN, LEASED, 3600);
        story
    };
    let release = |story: &Story| Dhcp {
        ciaddr: LEASED,
        ..story.message(ATTACKER, RELEASE).with(IDENTIFIER, ITS_OWN)
    };
    let mut story = restarted(begin(), |story| {
        // Without what was known, a sibling can release the lease.
        assert_eq!(story.say(ATTACKER, &release(story)), TO_SERVER);
    });
    // It was not the first to use the identifier.
    assert_eq!(story.say(ATTACKER, &release(&story)), IDENTITY);
    let mut story = restarted(begin(), |_| {});
    assert_eq!(story.say(ATTACKER, &release(&story)), IDENTITY);
    story.wait_s(3590);
    assert_eq!(story.say(ATTACKER, &release(&story)), IDENTITY);
    let mut story = restarted(story, |_| {});
    let own = story.message(VICTIM, REQUEST).with(IDENTIFIER, ITS_OWN);
    assert_eq!(story.say(VICTIM, &own), TO_SERVER);
    story.answer(VICTIM, ACK, LEASED, 3600);
    assert_eq!(story.say(ATTACKER, &release(&story)), IDENTITY);
    story.wait_s(3600);
    assert_eq!(story.say(ATTACKER, &release(&story)), TO_SERVER);

    // What its port has given up is free, after a restart too.
    let mut story = begin();
    let given_up = Dhcp {
        ciaddr: LEASED,
        ..story.message(VICTIM, RELEASE).with(IDENTIFIER, ITS_OWN)
    };
    assert_eq!(story.tell(VICTIM, LEASED, &given_up), TO_SERVER);
    let asked = |story: &Story| story.message(ATTACKER, DISCOVER).with(IDENTIFIER, ITS_OWN);
    let mut story = restarted(story, |story| {
        assert_eq!(story.say(ATTACKER, &asked(story)), TO_SERVER);
    });
    assert_eq!(story.say(ATTACKER, &asked(&story)), TO_SERVER);
}

/// Whoever has begun to use an identifier while its port's was not restored yet loses it.
#[test]
fn restored_identifier_is_taken_from_whoever_came_later() {
    let asks = |story: &mut Story, from: usize| {
        let asked = story.message(from, DISCOVER).with(IDENTIFIER, ITS_OWN);
        story.say(from, &asked)
    };
    // A port before its owner in the order of ports, and one behind.
    for other in [0, ATTACKER] {
        let mut story = Story::begin();
        story.lease(VICTIM, ITS_OWN, LEASED, 3600);
        let mut story = restarted(story, |story| {
            assert_eq!(asks(story, other), TO_SERVER);
            assert_eq!(asks(story, VICTIM), IDENTITY);
            // Another identifier of the same port's is not touched.
            let own = story.message(other, DISCOVER).with(IDENTIFIER, &[0, 7]);
            assert_eq!(story.say(other, &own), TO_SERVER);
        });
        assert_eq!(asks(&mut story, VICTIM), TO_SERVER, "{other}");
        assert_eq!(asks(&mut story, other), IDENTITY, "{other}");
        let taken = story.message(VICTIM, DISCOVER).with(IDENTIFIER, &[0, 7]);
        assert_eq!(story.say(VICTIM, &taken), IDENTITY, "{other}");
    }
    // What its port had given up before the restart takes nothing from anybody.
    let mut story = Story::begin();
    story.lease(VICTIM, ITS_OWN, LEASED, 3600);
    let release = Dhcp {
        ciaddr: LEASED,
        ..story.message(VICTIM, RELEASE).with(IDENTIFIER, ITS_OWN)
    };
    assert_eq!(story.tell(VICTIM, LEASED, &release), TO_SERVER);
    let mut story = restarted(story, |story| {
        assert_eq!(asks(story, ATTACKER), TO_SERVER);
    });
    assert_eq!(asks(&mut story, VICTIM), IDENTITY);
}

/// Clients without an identifier are known by their MACs, so they do not share one.
#[test]
fn restored_client_without_identifier_takes_nothing() {
    let mut story = Story::begin();
    story.lease(VICTIM, &[], LEASED, 3600);
    let mut asked_ns = 0;
    let mut story = restarted(story, |story| {
        let asked = story.message(ATTACKER, DISCOVER);
        assert_eq!(story.say(ATTACKER, &asked), TO_SERVER);
        asked_ns = story.now_ns;
    });
    story.switch.poll(story.now_ns);
    let clients = story.switch.clients(ATTACKER, Family::V4, story.now_ns);
    let until_ns = asked_ns + 120 * SECOND_NS;
    let owned = clients.identifiers.iter().map(|it| it.owned_until_ns);
    assert_eq!(owned.collect::<Vec<_>>(), [until_ns]);
}

/// The order of ports does not matter: what DHCP gave since the restart counts.
#[test]
fn restored_lease_behind_the_present_one_yields() {
    let mut story = Story::begin();
    story.lease(VICTIM, &[], LEASED, 3600);
    let (mac, until_ns) = (
        story.switch.config.ports[ATTACKER].mac,
        story.now_ns + 60 * SECOND_NS,
    );
    story.switch.reload(|generation| {
        assert!(generation.restore_lease(("vm5", mac), LEASED, until_ns));
    });
    assert!(story.has(VICTIM, LEASED));
    assert!(!story.has(ATTACKER, LEASED));
}

/// What is asked is published at once, and not only what is granted.
#[test]
fn identifier_is_published_when_it_is_asked_for() {
    let mut story = Story::begin();
    for number in 1..=3 {
        let asked = story.message(VICTIM, DISCOVER);
        let asked = asked.with(IDENTIFIER, &[0, number]);
        assert_eq!(story.say(VICTIM, &asked), TO_SERVER);
        story.switch.poll(story.now_ns);
        let clients = story.switch.clients(VICTIM, Family::V4, story.now_ns);
        assert_eq!(clients.identifiers.len(), usize::from(number));
    }
}

/// A lease of DHCPv6, which no port learns, holds the DUID all the same: to whichever address of
/// the client the server says so.
#[test]
fn duid_is_its_ports_until_its_lease_ends() {
    let config = configs::three();
    let server = config.ports[2].mac.octets();
    let duid = option6(1, &[0, 2, 0, 0, 0xab, 0x11, 1, 2, 3]);
    let solicits = |switch: &mut Switch, now_ns, from: usize| {
        let mac = config.ports[from].mac.octets();
        let message = udp(
            546,
            547,
            &dhcp6(1, 7, &[duid.clone(), association6(1, &[])]),
        );
        let source = inner(0x11 + from as u16);
        let frame = ethernet(
            config.ports[from].gateway_mac.octets(),
            mac,
            IPV6,
            &V6::new(source, inner(0x13), 17, message).bytes(),
        );
        switch.process(now_ns, from, &frame, None).0
    };
    let to_server = Verdict::Forward(PortId(2));
    for (to, seconds, holds) in [
        (inner(0x11), 3600, true),
        (link_local(VM1), 3600, true),
        (inner(0x11), 0, false),
    ] {
        let mut switch = Switch::new(&config, 0xee);
        assert_eq!(solicits(&mut switch, SECOND_NS, 0), to_server);
        let lease = association6(1, &[(inner(0x50), seconds)]);
        let message = udp(547, 546, &dhcp6(7, 7, &[duid.clone(), lease]));
        let source = match to.segments()[0] {
            0xfe80 => link_local(server),
            _ => inner(0x13),
        };
        let reply = ethernet(
            config.ports[2].gateway_mac.octets(),
            server,
            IPV6,
            &V6::new(source, to, 17, message).bytes(),
        );
        let sent = switch.process(2 * SECOND_NS, 2, &reply, None).0;
        assert_eq!(sent, Verdict::Forward(PortId(0)), "{to}");
        let taken = |switch: &mut Switch, now_ns| {
            solicits(switch, now_ns, 1) == Verdict::Drop(DropReason::DhcpIdentity)
        };
        assert_eq!(taken(&mut switch, 600 * SECOND_NS), holds, "{to} {seconds}");
        if holds {
            assert!(taken(&mut switch, 3602 * SECOND_NS - 1));
            assert!(!taken(&mut switch, 3602 * SECOND_NS));
        }
    }
}

#[test]
fn identifiers_and_declines_count_across_restarts() {
    let ask = |story: &mut Story, number: u8| {
        let asked = story.message(ATTACKER, DISCOVER);
        story.say(ATTACKER, &asked.with(IDENTIFIER, &[0, number]))
    };
    let decline = |story: &mut Story| {
        let declined = story.message(ATTACKER, DECLINE).with(IDENTIFIER, &[0, 1]);
        story.say(ATTACKER, &declined)
    };
    let mut story = Story::begin();
    for number in 1..=3 {
        assert_eq!(ask(&mut story, number), TO_SERVER);
        assert_eq!(decline(&mut story), TO_SERVER);
    }
    // One more before what was known is back, and then none.
    let mut story = restarted(story, |story| {
        assert_eq!(ask(story, 4), TO_SERVER);
        assert_eq!(ask(story, 1), TO_SERVER);
        assert_eq!(decline(story), TO_SERVER);
    });
    for number in 1..=4 {
        assert_eq!(ask(&mut story, number), TO_SERVER);
    }
    for number in 5..=8 {
        assert_eq!(ask(&mut story, number), IDENTITY);
    }
    assert_eq!(decline(&mut story), IDENTITY);
    let mut story = restarted(story, |_| {});
    assert_eq!(ask(&mut story, 5), IDENTITY);
    assert_eq!(decline(&mut story), IDENTITY);
    story.wait_s(86_400);
    let mut story = restarted(story, |_| {});
    assert_eq!(ask(&mut story, 5), TO_SERVER);
}

/// One identifier, owned for a minute.
fn known(identifier: &[u8]) -> Client {
    Client {
        identifier: identifier.to_vec(),
        owned_until_ns: 60 * SECOND_NS,
        counted_until_ns: 60 * SECOND_NS,
        address: Some(LEASED),
        associations: Vec::new(),
    }
}

fn all_known(identifiers: Vec<Client>) -> Clients {
    Clients {
        identifiers,
        declined_until_ns: Vec::new(),
    }
}

#[test]
fn restored_clients_are_published_as_they_were() {
    let clients = Clients {
        identifiers: vec![
            Client {
                associations: vec![(3, 7), (25, 8)],
                ..known(&[7; 255])
            },
            Client {
                owned_until_ns: 0,
                address: None,
                ..known(&[])
            },
        ],
        declined_until_ns: vec![59 * SECOND_NS],
    };
    for family in [Family::V4, Family::V6] {
        let mut switch = Switch::new(&configs::learners(), 0xee);
        let station = ("vm4", switch.config.ports[VICTIM].mac);
        switch.reload(|generation| {
            assert!(generation.restore_clients(station, family, &clients));
        });
        switch.poll(SECOND_NS);
        assert_eq!(switch.clients(VICTIM, family, SECOND_NS), clients);
        // Of what has ended nothing is said.
        assert_eq!(
            switch.clients(VICTIM, family, 60 * SECOND_NS),
            Clients::default()
        );
    }
}

#[test]
fn clients_that_cannot_have_been_are_not_restored() {
    let config = configs::learners();
    let (own, others) = (config.ports[VICTIM].mac, config.ports[ATTACKER].mac);
    let named = |kind: &[u8]| all_known(vec![known(&[kind, &others.octets()].concat())]);
    let good = || all_known(vec![known(ITS_OWN)]);
    let numbered = |count: u8| all_known((0..count).map(|it| known(&[0, it])).collect());
    let refused = [
        ("another MAC", ("vm4", others), good()),
        ("an unknown port", ("vm9", own), good()),
        ("five identifiers", ("vm4", own), numbered(5)),
        (
            "a long identifier",
            ("vm4", own),
            all_known(vec![known(&[7; 256])]),
        ),
        (
            "one twice",
            ("vm4", own),
            all_known(vec![known(&[7]), known(&[7])]),
        ),
        (
            "five declines",
            ("vm4", own),
            Clients {
                identifiers: Vec::new(),
                declined_until_ns: vec![60 * SECOND_NS; 5],
            },
        ),
        (
            "five associations",
            ("vm4", own),
            all_known(vec![Client {
                associations: vec![(3, 1), (3, 2), (3, 3), (3, 4), (3, 5)],
                ..known(ITS_OWN)
            }]),
        ),
        ("what vm5 owns", ("vm4", own), all_known(vec![known(&[5])])),
    ];
    // Type 1 and the MAC; a DUID of the MAC.
    let names = [
        (Family::V4, named(&[1])),
        (Family::V6, named(&[0, 3, 0, 1])),
    ];
    for family in [Family::V4, Family::V6] {
        let mut generation = Generation::build(&config, None);
        let theirs = all_known(vec![known(&[5])]);
        assert!(generation.restore_clients(("vm5", others), family, &theirs));
        for (what, station, clients) in &refused {
            assert!(
                !generation.restore_clients(*station, family, clients),
                "{what}"
            );
        }
        for (_, clients) in names.iter().filter(|(of, _)| *of == family) {
            assert!(!generation.restore_clients(("vm4", own), family, clients));
        }
        assert!(generation.restore_clients(("vm4", own), family, &numbered(4)));
        // Where nobody serves DHCP, nobody has clients.
        let mut config = config.clone();
        for port in &mut config.ports {
            port.dhcp_server = false;
        }
        let mut generation = Generation::build(&config, None);
        assert!(!generation.restore_clients(("vm4", own), family, &good()));
    }
}

#[test]
fn identifier_that_names_a_new_ports_mac_is_that_ports() {
    let mut story = Story::begin();
    let new = [2, 0, 0, 0, 0, 9];
    let named = [&[1], &new[..]].concat();
    story.lease(ATTACKER, &named, OTHER, 3600);
    story.configure(|config| {
        config.ports[VICTIM].mac = MacAddr::new(new).expect("a station's MAC");
    });
    let own = story.message(VICTIM, DISCOVER).with(IDENTIFIER, &named);
    assert_eq!(story.say(VICTIM, &own), TO_SERVER);
    let renewal = story.message(ATTACKER, REQUEST).with(IDENTIFIER, &named);
    assert_eq!(story.say(ATTACKER, &renewal), IDENTITY);
}

/// The tag, if any, with which a packet to the address leaves.
fn tag_to(story: &mut Story, address: Ipv4Addr) -> Option<u16> {
    let frame = probe(story.mac(0), IP1, address);
    let (verdict, bytes) = story.switch.process(story.now_ns, 0, &frame, None);
    assert_eq!(verdict, Verdict::Forward(PortId(TAGGED as u16)));
    (bytes[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([bytes[14], bytes[15]]))
}

#[test]
fn tag_that_is_no_longer_listed_is_not_sent() {
    let with_address = |config: &mut SwitchConfig| {
        let net = ipnet::IpNet::from(IpAddr::from(LEASED));
        config.ports[TAGGED].addresses = Addresses::Static(vec![net]);
    };
    for (removed, sent, left) in [(200, 200, None), (200, 100, Some(100)), (100, 100, None)] {
        let mut story = Story::begin();
        story.configure(with_address);
        let frame = tagged(&probe(story.mac(TAGGED), LEASED, IP1), 0x8100, sent);
        assert_eq!(story.send(TAGGED, &frame), Verdict::Forward(PortId(0)));
        assert_eq!(tag_to(&mut story, LEASED), Some(sent));
        story.configure(|config| {
            with_address(config);
            config.ports[TAGGED]
                .trunk
                .retain(|vid| vid.get() != removed);
        });
        assert_eq!(tag_to(&mut story, LEASED), left, "{removed} {sent}");
        // It is not remembered either.
        story.configure(with_address);
        assert_eq!(tag_to(&mut story, LEASED), left, "{removed} {sent}");
        let refused = story.send(TAGGED, &tagged(&frame[..12], 0x8100, sent));
        assert!(matches!(refused, Verdict::Drop(_)));
    }
}

/// What the property below knows without the model: who said which identifier when.
#[derive(Default)]
struct Said(BTreeMap<Vec<u8>, (usize, u64)>);

impl Said {
    /// Notes a client's frame that reached a server. An identifier that another port used within
    /// two minutes, and has not given up since, is its own.
    fn note(&mut self, now_ns: u64, from: usize, frame: &[u8]) -> Result<(), TestCaseError> {
        let Some((kind, identifier)) = client_of(frame) else {
            return Ok(());
        };
        if let Some((other, until_ns)) = self.0.get(&identifier) {
            let foreign = *other != from && now_ns < *until_ns;
            prop_assert!(!foreign, "{from} uses an identifier of {other}");
        }
        match kind {
            DECLINE | RELEASE => self.0.remove(&identifier),
            _ => self.0.insert(identifier, (from, now_ns + 120 * SECOND_NS)),
        };
        Ok(())
    }
}

/// The type and identifier of a client's message.
fn client_of(frame: &[u8]) -> Option<(u8, Vec<u8>)> {
    let message = frame
        .get(42..)
        .filter(|_| frame[34..38] == [0, 68, 0, 67])?;
    let (mut kind, mut identifier, mut at) = (None, None, 240);
    while at < message.len() && message[at] != 255 {
        let end = at + 2 + usize::from(*message.get(at + 1)?);
        let value = message.get(at + 2..end)?;
        match message[at] {
            53 => kind = value.first().copied(),
            61 => identifier = Some(value.to_vec()),
            _ => {}
        }
        at = end;
    }
    Some((kind?, identifier?))
}

/// At most one port may send from each address; the owner alone, if it is assigned.
fn addresses_are_apart(switch: &mut Switch, now_ns: u64) -> Result<(), TestCaseError> {
    let config = switch.config.clone();
    for address in lease_story::addresses() {
        let to = if address == IP1 { IP2 } else { IP1 };
        let mut users = Vec::new();
        for (number, port) in config.ports.iter().enumerate() {
            let frame = probe(port.mac.octets(), address, to);
            let verdict = switch.process(now_ns, number, &frame, None).0;
            if !matches!(verdict, Verdict::Drop(_)) {
                users.push(number);
            }
        }
        let owner = config.ports.iter().position(|port| match &port.addresses {
            Addresses::Static(nets) => nets.iter().any(|net| net.contains(&IpAddr::from(address))),
            Addresses::Learned(_) => false,
        });
        match owner {
            Some(owner) => prop_assert_eq!(users, vec![owner], "{}", address),
            None => prop_assert!(
                users.len() < 2 && users.iter().all(|port| LEARNERS.contains(port)),
                "{} is used by {:?}",
                address,
                users
            ),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(oracle::cases(300))]

    /// Verdict, reason, bytes and counters of random sequences are the model's.
    #[test]
    fn random_sequences_agree_with_model(chance in Chance::long()) {
        let mut world = World::new();
        let mut trial = Trial::new(world.config());
        trial.errors_may_be_spent = true;
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = SECOND_NS;
        let mut story = String::new();
        while !choices.is_spent() {
            now_ns += 1_000_000;
            let event = world.next(&mut choices);
            story += &format!("  {event:?}\n");
            match event {
                Event::Frame { from, bytes } => {
                    if let Err(disagreement) = trial.send(now_ns, from, &bytes, None) {
                        return Err(TestCaseError::fail(format!("{disagreement}\n{story}")));
                    }
                }
                Event::Configure(config) => trial.configure(&config),
                Event::Wait(time_ns) => now_ns += time_ns,
            }
            if choices.once_in(4) {
                trial.poll(now_ns);
            }
        }
    }

    /// Without the model: after each event, no two ports may send from one address, and none from
    /// another's; and no client's message that reaches a server has another port's identifier.
    #[test]
    fn no_port_gets_what_is_anothers(chance in Chance::long()) {
        let mut world = World::new();
        let mut switch = Switch::new(world.config(), 0xee);
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = SECOND_NS;
        let mut said = Said::default();
        while !choices.is_spent() {
            now_ns += 1_000_000;
            match world.next(&mut choices) {
                Event::Frame { from, bytes } => {
                    let (verdict, _) = switch.process(now_ns, from, &bytes, None);
                    if let Verdict::Forward(_) | Verdict::Copies = verdict {
                        said.note(now_ns, from, &bytes)?;
                    }
                }
                Event::Configure(config) => {
                    // A port with another MAC is another station.
                    let changed = |port: usize| {
                        config.ports[port].mac != switch.config.ports[port].mac
                    };
                    said.0.retain(|_, (port, _)| !changed(*port));
                    switch.configure(&config);
                }
                Event::Wait(time_ns) => now_ns += time_ns,
            }
            addresses_are_apart(&mut switch, now_ns)?;
        }
    }
}
