//! `addresses = "learn-dhcp"`: a port has exactly what the tenant's DHCP server has acknowledged to
//! it, for as long as it was acknowledged, and nothing else makes an address its own.

mod oracle;

use std::net::{IpAddr, Ipv4Addr};

use oracle::configs;
use oracle::frames::*;
use oracle::rows::{EXTERNAL, GATEWAY, GW, IP1, IP2, VM1, VM2, VM3};
use oracle::trial::{SECOND_NS, Switch};
use pipeline::DropReason;
use pipeline::{Generation, PortId, Verdict};
use tenant_config::{Addresses, MacAddr, SwitchConfig};

const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// What the server gives to `vm3`.
const LEASED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const XID: u32 = 0x1234_5678;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// The ports of the switch: `vm1` has an address, `vm2` serves, `vm3` learns.
const CLIENT: usize = 2;
const SERVER: usize = 1;

/// A DHCP message (RFC 2131) with its type and, where it is the server's, a lease time.
#[derive(Clone)]
struct Message {
    kind: u8,
    xid: u32,
    client: Mac,
    yours: Ipv4Addr,
    lease_s: u32,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let from_server = matches!(self.kind, OFFER | ACK | NAK);
        let mut message = bootp(if from_server { 2 } else { 1 }, self.client);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        message[16..20].copy_from_slice(&self.yours.octets());
        message.extend([53, 1, self.kind]);
        if from_server {
            message.extend([54, 4]);
            message.extend(IP2.octets());
            message.extend([51, 4]);
            message.extend(self.lease_s.to_be_bytes());
        }
        message.push(255);
        message
    }
}

/// The acknowledgement that the story's request gets.
fn ack() -> Message {
    Message {
        kind: ACK,
        xid: XID,
        client: VM3,
        yours: LEASED,
        lease_s: 60,
    }
}

fn mac(octets: Mac) -> MacAddr {
    MacAddr::new(octets).expect("a station's MAC")
}

/// One switch, and what its stations have said so far.
struct Story {
    switch: Switch,
    now_ns: u64,
}

impl Story {
    fn begin() -> Self {
        Self {
            switch: Switch::new(&configs::learning(), 0xee),
            now_ns: SECOND_NS,
        }
    }

    fn send(&mut self, from: usize, frame: &[u8]) -> Verdict {
        self.now_ns += 1_000_000;
        self.switch.process(self.now_ns, from, frame, None).0
    }

    fn wait_s(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
    }

    /// `vm3` asks by broadcast, as before it has an address.
    fn ask(&mut self, kind: u8, xid: u32) {
        let message = Message { kind, xid, ..ack() };
        let message = Message {
            yours: ZERO,
            ..message
        };
        let packet = V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &message.bytes()));
        let verdict = self.send(CLIENT, &ethernet(BROADCAST, VM3, IPV4, &packet.bytes()));
        assert_eq!(verdict, Verdict::Forward(PortId(SERVER as u16)));
    }

    /// The server says `message`, by broadcast; its client alone is given it.
    fn answer(&mut self, message: &Message) {
        let packet = V4::new(IP2, Ipv4Addr::BROADCAST, 17, udp(67, 68, &message.bytes()));
        let verdict = self.send(SERVER, &ethernet(BROADCAST, VM2, IPV4, &packet.bytes()));
        let client = if message.client == VM1 { 0 } else { CLIENT };
        assert_eq!(verdict, Verdict::Forward(PortId(client as u16)));
    }

    /// What a packet of `vm3` from `source` to `vm1` gets.
    fn from(&mut self, source: Ipv4Addr) -> Verdict {
        let packet = V4::new(source, IP1, 17, udp(1000, 2000, b"hello"));
        self.send(CLIENT, &ethernet(GW, VM3, IPV4, &packet.bytes()))
    }

    /// What a packet of `vm1` to `destination` gets.
    fn to(&mut self, destination: Ipv4Addr) -> Verdict {
        let packet = V4::new(IP1, destination, 17, udp(2000, 1000, b"hello"));
        self.send(0, &ethernet(GW, VM1, IPV4, &packet.bytes()))
    }

    /// What `vm1`'s ARP request for `destination` gets.
    fn who_has(&mut self, destination: Ipv4Addr) -> Verdict {
        let message = Arp {
            opcode: 1,
            sender_mac: VM1,
            sender: IP1,
            target_mac: [0; 6],
            target: destination,
        };
        self.send(0, &ethernet(BROADCAST, VM1, ARP, &message.bytes()))
    }

    fn has_the_lease(&mut self) {
        let client = Verdict::Forward(PortId(CLIENT as u16));
        assert_eq!(self.from(LEASED), Verdict::Forward(PortId(0)));
        assert_eq!(self.to(LEASED), client);
        assert_eq!(self.who_has(LEASED), Verdict::Reply);
    }

    fn has_nothing(&mut self) {
        for source in [LEASED, IP1, IP2, GATEWAY, EXTERNAL] {
            assert_eq!(
                self.from(source),
                Verdict::Drop(DropReason::Ipv4Source),
                "{source}"
            );
        }
        assert_eq!(
            self.to(LEASED),
            Verdict::DropWithError(DropReason::RouteNone)
        );
        assert_eq!(self.who_has(LEASED), Verdict::Drop(DropReason::ArpUnknown));
    }
}

#[test]
fn acknowledged_address_is_usable_until_lease_ends() {
    let mut story = Story::begin();
    story.has_nothing();
    story.ask(DISCOVER, XID);
    story.answer(&Message {
        kind: OFFER,
        ..ack()
    });
    story.has_nothing();
    story.ask(REQUEST, XID);
    story.has_nothing();
    story.answer(&ack());
    story.has_the_lease();
    assert_eq!(story.from(IP1), Verdict::Drop(DropReason::Ipv4Source));
    story.wait_s(50);
    story.has_the_lease();
    story.wait_s(10);
    story.has_nothing();
}

#[test]
fn renewal_prolongs_lease() {
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.answer(&ack());
    story.wait_s(30);
    // A renewing client asks its server directly, from the address it has (RFC 2131, 4.3.2).
    let request = Message {
        kind: REQUEST,
        xid: XID + 1,
        yours: ZERO,
        ..ack()
    };
    let packet = V4::new(LEASED, IP2, 17, udp(68, 67, &request.bytes()));
    let asked = story.send(CLIENT, &ethernet(GW, VM3, IPV4, &packet.bytes()));
    assert_eq!(asked, Verdict::Forward(PortId(SERVER as u16)));
    let packet = V4::new(
        IP2,
        LEASED,
        17,
        udp(
            67,
            68,
            &Message {
                xid: XID + 1,
                ..ack()
            }
            .bytes(),
        ),
    );
    let reported = story.send(SERVER, &ethernet(GW, VM2, IPV4, &packet.bytes()));
    assert_eq!(reported, Verdict::Forward(PortId(CLIENT as u16)));
    story.wait_s(50);
    story.has_the_lease();
    story.wait_s(11);
    story.has_nothing();
}

#[test]
fn other_messages_teach_no_address() {
    type Send = fn(&mut Story);
    let stories: [(&str, Send); 8] = [
        ("an acknowledgement of nothing", |story| {
            story.answer(&ack());
        }),
        ("of another transaction", |story| {
            story.ask(REQUEST, XID);
            story.answer(&Message {
                xid: XID + 1,
                ..ack()
            });
        }),
        ("of another client", |story| {
            story.ask(REQUEST, XID);
            story.answer(&Message {
                client: VM1,
                ..ack()
            });
        }),
        ("an offer", |story| {
            story.ask(REQUEST, XID);
            story.answer(&Message {
                kind: OFFER,
                ..ack()
            });
        }),
        ("a refusal", |story| {
            story.ask(REQUEST, XID);
            story.answer(&Message { kind: NAK, ..ack() });
        }),
        ("an acknowledgement of no time", |story| {
            story.ask(REQUEST, XID);
            story.answer(&Message {
                lease_s: 0,
                ..ack()
            });
        }),
        ("an acknowledgement by a port that is no server", |story| {
            story.ask(REQUEST, XID);
            let packet = V4::new(IP1, Ipv4Addr::BROADCAST, 17, udp(67, 68, &ack().bytes()));
            let verdict = story.send(0, &ethernet(BROADCAST, VM1, IPV4, &packet.bytes()));
            assert_eq!(verdict, Verdict::Drop(DropReason::DhcpServer));
        }),
        ("the client's own acknowledgement", |story| {
            story.ask(REQUEST, XID);
            let packet = V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(67, 68, &ack().bytes()));
            let verdict = story.send(CLIENT, &ethernet(BROADCAST, VM3, IPV4, &packet.bytes()));
            assert_eq!(verdict, Verdict::Drop(DropReason::DhcpClient));
        }),
    ];
    for (name, send) in stories {
        println!("{name}");
        let mut story = Story::begin();
        send(&mut story);
        story.has_nothing();
    }
}

#[test]
fn lease_of_owned_address_is_refused() {
    let mut learned = Vec::new();
    for (name, yours) in [
        ("the sibling's address", IP1),
        ("the server's own address", IP2),
        ("the gateway's address", GATEWAY),
        ("an unowned address", ZERO),
        ("the subnet's own address", Ipv4Addr::new(10, 0, 0, 0)),
        ("the subnet's broadcast", Ipv4Addr::new(10, 0, 0, 255)),
        ("an external one", EXTERNAL),
        ("the underlay's", Ipv4Addr::new(192, 0, 2, 1)),
        ("loopback", Ipv4Addr::LOCALHOST),
        ("a group", Ipv4Addr::new(224, 0, 0, 1)),
    ] {
        let mut story = Story::begin();
        story.ask(REQUEST, XID);
        story.answer(&Message { yours, ..ack() });
        let reaches_client = story.to(yours) == Verdict::Forward(PortId(CLIENT as u16));
        if matches!(story.from(yours), Verdict::Forward(_)) || reaches_client {
            learned.push(name);
        }
    }
    assert_eq!(learned, Vec::<&str>::new());
}

#[test]
fn nak_or_release_ends_lease() {
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.answer(&ack());
    story.has_the_lease();
    story.ask(REQUEST, XID + 1);
    story.answer(&Message {
        kind: NAK,
        xid: XID + 1,
        ..ack()
    });
    story.has_nothing();

    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.answer(&ack());
    let release = Message {
        kind: RELEASE,
        yours: ZERO,
        ..ack()
    };
    let packet = V4::new(LEASED, IP2, 17, udp(68, 67, &release.bytes()));
    let reported = story.send(CLIENT, &ethernet(GW, VM3, IPV4, &packet.bytes()));
    assert_eq!(reported, Verdict::Forward(PortId(SERVER as u16)));
    story.has_nothing();
}

impl Story {
    /// Restores a lease of a minute, as after a restart; whether the switch takes it.
    fn restore(&mut self, port: &str, address: Ipv4Addr) -> bool {
        let until_ns = self.now_ns + 60 * SECOND_NS;
        let mut taken = false;
        let ports = &self.switch.config.ports;
        let station = ports.iter().find(|known| known.name.as_str() == port);
        let station = station.map_or(mac(VM3), |port| port.mac);
        self.switch.reload(|generation| {
            taken = generation.restore_lease((port, station), address, until_ns);
        });
        taken
    }
}

#[test]
fn restored_lease_holds_until_it_ends() {
    let mut story = Story::begin();
    assert!(story.restore("vm3", LEASED));
    story.has_the_lease();
    story.switch.poll(story.now_ns);
    let leased = u64::from(LEASED.to_bits());
    assert_eq!(story.switch.lease(CLIENT), (leased, 61 * SECOND_NS));
    // It survives a new configuration as any other lease does.
    story.switch.reload(|_| {});
    story.wait_s(50);
    story.has_the_lease();
    story.wait_s(10);
    story.has_nothing();
    story.switch.poll(story.now_ns);
    assert_eq!(story.switch.lease(CLIENT), (0, 0));
}

#[test]
fn restored_lease_that_dhcp_could_not_have_given_is_refused() {
    for (port, address) in [
        ("vm1", LEASED),
        ("vm2", LEASED),
        ("uplink", LEASED),
        ("no-such-port", LEASED),
        ("vm3", IP1),
        ("vm3", IP2),
        ("vm3", GATEWAY),
        ("vm3", ZERO),
        ("vm3", Ipv4Addr::new(10, 0, 0, 0)),
        ("vm3", Ipv4Addr::new(10, 0, 0, 255)),
        ("vm3", EXTERNAL),
        ("vm3", Ipv4Addr::LOCALHOST),
    ] {
        let mut story = Story::begin();
        assert!(!story.restore(port, address), "{port} {address}");
        story.has_nothing();
    }
}

#[test]
fn restored_lease_of_a_second_port_is_refused() {
    let mut config = configs::learning();
    config.ports[0].addresses = config.ports[2].addresses.clone();
    let mut generation = Generation::build(&config, None);
    assert!(generation.restore_lease(("vm1", mac(VM1)), LEASED, SECOND_NS));
    assert!(!generation.restore_lease(("vm3", mac(VM3)), LEASED, SECOND_NS));
}

#[test]
fn acknowledged_lease_wins_over_restored_one() {
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.answer(&ack());
    assert!(story.restore("vm3", Ipv4Addr::new(10, 0, 0, 51)));
    story.has_the_lease();

    // A request under way is answered after the restore, and its answer counts.
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    assert!(story.restore("vm3", Ipv4Addr::new(10, 0, 0, 51)));
    story.answer(&ack());
    story.has_the_lease();
}

#[test]
fn restored_lease_yields_to_one_acknowledged_at_another_port() {
    let mut story = leased_story();
    let mut config = configs::learning();
    config.ports[0].addresses = config.ports[CLIENT].addresses.clone();
    let until_ns = story.now_ns + 60 * SECOND_NS;
    story.switch.configure_with(&config, |generation| {
        assert!(generation.restore_lease(("vm1", mac(VM1)), LEASED, until_ns));
    });
    let packet = V4::new(LEASED, IP2, 17, udp(2000, 1000, b"hello"));
    let stolen = story.send(0, &ethernet(GW, VM1, IPV4, &packet.bytes()));
    assert_eq!(stolen, Verdict::Drop(DropReason::Ipv4Source));
    let own = story.send(CLIENT, &ethernet(GW, VM3, IPV4, &packet.bytes()));
    assert_eq!(own, Verdict::Forward(PortId(SERVER as u16)));
}

/// [`configs::learning`], of which another port has [`LEASED`].
fn assigned() -> SwitchConfig {
    let mut config = configs::learning();
    let leased = ipnet::IpNet::from(IpAddr::from(LEASED));
    config.ports[0].addresses =
        Addresses::Static(vec![ipnet::IpNet::from(IpAddr::from(IP1)), leased]);
    config
}

fn leased_story() -> Story {
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.answer(&ack());
    story.has_the_lease();
    story
}

#[test]
fn lease_survives_new_configuration() {
    let mut story = leased_story();
    let mut config = configs::learning();
    config.ports[0].mtu = 1400;
    story.switch.configure(&config);
    story.has_the_lease();
    story.switch.configure(&config);
    story.has_the_lease();
    story.wait_s(60);
    story.has_nothing();
}

#[test]
fn transaction_survives_new_configuration() {
    let mut story = Story::begin();
    story.ask(REQUEST, XID);
    story.switch.configure(&configs::learning());
    story.answer(&ack());
    story.has_the_lease();
}

#[test]
fn lease_ends_when_its_address_is_assigned() {
    for (polled, used) in [(false, false), (true, false), (false, true)] {
        let mut story = leased_story();
        story.switch.configure(&assigned());
        if polled {
            story.switch.poll(story.now_ns);
        }
        if used {
            let own = Verdict::DropWithError(DropReason::RouteNone);
            assert_eq!(story.to(LEASED), own);
        }
        // The address is free again and has no owner.
        story.switch.configure(&configs::learning());
        story.has_nothing();
    }
}

#[test]
fn lease_ends_when_its_port_no_longer_learns() {
    let mut story = leased_story();
    let mut config = configs::learning();
    let own = ipnet::IpNet::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, 13)));
    config.ports[CLIENT].addresses = Addresses::Static(vec![own]);
    story.switch.configure(&config);
    story.switch.configure(&configs::learning());
    story.has_nothing();
}

#[test]
fn restored_lease_replaces_one_whose_address_is_assigned() {
    let mut story = leased_story();
    let mut restored = Ipv4Addr::new(10, 0, 0, 51);
    let until_ns = story.now_ns + 60 * SECOND_NS;
    story.switch.configure_with(&assigned(), |generation| {
        assert!(generation.restore_lease(("vm3", mac(VM3)), restored, until_ns));
    });
    assert_eq!(story.from(restored), Verdict::Forward(PortId(0)));
    restored = LEASED;
    assert_eq!(story.from(restored), Verdict::Drop(DropReason::Ipv4Source));
}
