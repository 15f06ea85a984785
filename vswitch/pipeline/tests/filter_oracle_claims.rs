//! Addresses that ports claim by Duplicate Address Detection: first come, first served, and none is
//! the gateway's or another port's, whatever is said and whatever is reconfigured.

mod oracle;

use std::net::Ipv6Addr;

use oracle::claim_story::{self, World, echo};
use oracle::configs;
use oracle::frames::*;
use oracle::generate::{Chance, Choices};
use oracle::lease_story::Event;
use oracle::rows::{EXTERNAL6, GW, STABLE, VM1, VM2, inner, link_local, solicited_node, stable};
use oracle::trial::{SECOND_NS, Switch, Trial};
use pipeline::{DropReason, PortId, Verdict};
use proptest::prelude::*;
use tenant_config::{Addresses, MacAddr, SwitchConfig};

const ABSORBED: Verdict = Verdict::Drop(DropReason::Absorbed);
const DEFENDED: Verdict = Verdict::DropWithError(DropReason::NdSpoof);
const NOBODY: [usize; 0] = [];
const NOT_ITS_OWN: Verdict = Verdict::Drop(DropReason::Ipv6Source);

/// A switch and its model, and what their stations have said so far.
struct Story {
    trial: Trial,
    now_ns: u64,
}

impl Story {
    fn begin() -> Self {
        Self::on(&configs::three())
    }

    fn on(config: &SwitchConfig) -> Self {
        let mut trial = Trial::new(config);
        trial.resolve(0);
        Self {
            trial,
            now_ns: SECOND_NS,
        }
    }

    fn send(&mut self, from: usize, packet: &V6) -> Verdict {
        self.now_ns += 1_000_000;
        let port = &self.trial.config().ports[from];
        let to = if packet.to.is_multicast() {
            group_mac(packet.to)
        } else {
            port.gateway_mac.octets()
        };
        let frame = ethernet(to, port.mac.octets(), IPV6, &packet.bytes());
        let sent = self.trial.send(self.now_ns, from, &frame, None);
        sent.unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn detect(&mut self, from: usize, address: Ipv6Addr) -> Verdict {
        let message = neighbor(135, 0, address, &[]);
        let packet = V6::icmp(Ipv6Addr::UNSPECIFIED, solicited_node(address), message);
        self.send(from, &packet)
    }

    /// Whether the port may send from the address.
    fn has(&mut self, from: usize, address: Ipv6Addr) -> bool {
        let verdict = self.send(from, &echo(address, inner(1)));
        assert!(matches!(verdict, Verdict::Reply | NOT_ITS_OWN));
        verdict == Verdict::Reply
    }

    fn wait_s(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
    }

    /// The ports that the clock has solicit.
    fn poll(&mut self) -> Vec<usize> {
        let sent = self.trial.poll(self.now_ns);
        let is_solicitation =
            |(port, frame): &(usize, Vec<u8>)| *port < 3 && frame.get(54) == Some(&135);
        let asked = sent.into_iter().filter(is_solicitation);
        asked.map(|(port, _)| port).collect()
    }
}

#[test]
fn station_configures_itself() {
    let mut story = Story::begin();
    assert!(!story.has(0, STABLE));
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let solicitation = router_solicitation(&[link_layer(1, VM1)]);
    let rs = V6::icmp(STABLE, all_routers, solicitation);
    assert_eq!(story.send(0, &rs), Verdict::Reply);
    let ns = neighbor(135, 0, inner(1), &[link_layer(1, VM1)]);
    let ns = V6::icmp(STABLE, solicited_node(inner(1)), ns);
    assert_eq!(story.send(0, &ns), Verdict::Reply);
    assert!(story.has(0, STABLE));
}

#[test]
fn claimed_address_is_defended_while_its_station_answers() {
    let mut story = Story::begin();
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    for _ in 0..9 {
        assert_eq!(story.detect(1, STABLE), DEFENDED);
        assert_eq!(story.poll().first(), Some(&0));
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let na = neighbor(136, 0x60, STABLE, &[link_layer(2, VM1)]);
        assert_eq!(story.send(0, &V6::icmp(STABLE, all_nodes, na)), ABSORBED);
        story.wait_s(4);
        assert_eq!(story.poll(), NOBODY);
        assert!(!story.has(1, STABLE));
    }
}

#[test]
fn address_of_a_station_that_is_gone_is_the_next_ones() {
    let mut story = Story::begin();
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    assert_eq!(story.detect(1, STABLE), DEFENDED);
    for _ in 0..3 {
        assert_eq!(story.poll(), [0]);
        assert_eq!(story.detect(1, STABLE), DEFENDED);
        assert_eq!(story.poll(), NOBODY);
        story.wait_s(1);
    }
    assert_eq!(story.poll(), NOBODY);
    assert_eq!(story.detect(1, STABLE), ABSORBED);
    assert!(story.has(1, STABLE) && !story.has(0, STABLE));
}

#[test]
fn silent_station_is_forgotten_after_five_minutes() {
    let mut story = Story::begin();
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    story.poll();
    story.wait_s(300);
    for _ in 0..3 {
        assert_eq!(story.poll(), [0]);
        story.wait_s(1);
    }
    assert_eq!(story.poll(), NOBODY);
    assert!(!story.has(0, STABLE));
}

#[test]
fn station_has_at_most_four_addresses() {
    let mut story = Story::begin();
    for last in 1..=4 {
        assert_eq!(story.detect(0, stable(last)), ABSORBED);
    }
    let limit = Verdict::Drop(DropReason::NdLimit);
    assert_eq!(story.detect(0, STABLE), limit);
    // Another port has room of its own.
    assert_eq!(story.detect(1, STABLE), ABSORBED);
    story.wait_s(60);
    assert!(story.has(0, stable(1)));
    assert_eq!(story.detect(0, stable(5)), ABSORBED);
    let its_own = [1, 2, 3, 4, 5].map(|last| story.has(0, stable(last)));
    assert_eq!(its_own, [true, false, true, true, true]);
}

#[test]
fn dhcp_server_reaches_a_client_at_its_claimed_address() {
    let mut story = Story::begin();
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    let server = story.trial.config().ports[2].mac.octets();
    let ns = neighbor(135, 0, STABLE, &[link_layer(1, server)]);
    let ns = V6::icmp(link_local(server), solicited_node(STABLE), ns);
    assert_eq!(story.send(2, &ns), Verdict::Reply);
    let reply = udp(547, 546, &dhcp6(7, 7, &[]));
    let reply = V6::new(link_local(server), STABLE, 17, reply);
    assert_eq!(story.send(2, &reply), Verdict::Forward(PortId(0)));
    let unclaimed = V6 {
        to: stable(1),
        ..reply
    };
    let refused = Verdict::Drop(DropReason::LinkLocalIp);
    assert_eq!(story.send(2, &unclaimed), refused);
}

/// The switch is a new one, which gets these addresses back for that port while it runs; whether it
/// takes them.
fn restore(switch: &mut Switch, port: &str, mac: Mac, addresses: &[Ipv6Addr]) -> bool {
    let mac = MacAddr::new(mac).expect("a station's MAC");
    let mut taken = false;
    switch.reload(|generation| {
        taken = generation.restore_claimed((port, mac), addresses, SECOND_NS);
    });
    taken
}

#[test]
fn restored_claims_are_their_ports() {
    let config = configs::slaac();
    let detect = |mac: Mac, address: Ipv6Addr| {
        let group = solicited_node(address);
        let message = neighbor(135, 0, address, &[]);
        let packet = V6::icmp(Ipv6Addr::UNSPECIFIED, group, message);
        ethernet(group_mac(group), mac, IPV6, &packet.bytes())
    };
    let mut switch = Switch::new(&config, 0xee);
    // Another port is faster than the supervisor, and so is the port itself.
    for (port, frame) in [(1, detect(VM2, STABLE)), (0, detect(VM1, stable(1)))] {
        assert_eq!(switch.process(1, port, &frame, None).0, ABSORBED);
    }
    assert!(restore(&mut switch, "vm1", VM1, &[STABLE, MADE]));
    assert_eq!(switch.claimed(0), [stable(1), STABLE, MADE]);
    assert!(switch.claimed(1).is_empty());
    let (verdict, _) = switch.process(2, 1, &detect(VM2, STABLE), None);
    assert_eq!(verdict, DEFENDED);
    // An ordinary reload changes nothing.
    switch.reload(|_| {});
    assert_eq!(switch.claimed(0), [stable(1), STABLE, MADE]);

    let too_many: Vec<_> = (1..6).map(stable).collect();
    for (port, mac, addresses) in [
        ("vm1", VM2, &[STABLE][..]),
        ("vm9", VM1, &[STABLE]),
        ("vm1", VM1, &[inner(1)]),
        ("vm1", VM1, &[inner(0x12)]),
        ("vm1", VM1, &[link_local(VM2)]),
        ("vm1", VM1, &[link_local(GW)]),
        ("vm1", VM1, &[EXTERNAL6]),
        ("vm1", VM1, &too_many),
    ] {
        let mut switch = Switch::new(&config, 0xee);
        assert!(!restore(&mut switch, port, mac, addresses), "{addresses:?}");
    }
}

/// What the two make of their prefix.
const MADE: Ipv6Addr = inner(0x50);

#[test]
fn made_address_is_routed_to_its_port() {
    let mut story = Story::on(&configs::slaac());
    let to = |to| V6::new(inner(0x12), to, 17, udp(1000, 2000, b"hello"));
    let nowhere = Verdict::DropWithError(DropReason::RouteNone);
    assert_eq!(story.send(1, &to(MADE)), nowhere);
    assert_eq!(story.detect(0, MADE), ABSORBED);
    assert_eq!(story.send(1, &to(MADE)), Verdict::Forward(PortId(0)));
    let ns = V6::icmp(
        inner(0x12),
        solicited_node(MADE),
        neighbor(135, 0, MADE, &[link_layer(1, VM2)]),
    );
    assert_eq!(story.send(1, &ns), Verdict::Reply);
    let back = V6::new(MADE, inner(0x12), 17, udp(2000, 1000, b"hello"));
    assert_eq!(story.send(0, &back), Verdict::Forward(PortId(1)));
    let out = V6 {
        to: EXTERNAL6,
        ..back.clone()
    };
    assert_eq!(story.send(0, &out), Verdict::Forward(PortId(3)));
    let inbound = V6::new(EXTERNAL6, MADE, 17, udp(2000, 1000, b"hello"));
    let uplink = oracle::rows::UPLINK;
    let frame = ethernet(uplink, oracle::rows::ROUTER, IPV6, &inbound.bytes());
    let came = story.trial.send(story.now_ns, 3, &frame, None);
    assert_eq!(came, Ok(Verdict::Forward(PortId(0))));
    // Not another's, whether it may make addresses or not.
    assert_eq!(story.detect(1, MADE), DEFENDED);
    assert_eq!(story.detect(2, MADE), DEFENDED);
    assert!(!story.has(1, MADE) && !story.has(2, MADE));
    let refused = Verdict::Drop(DropReason::NdSpoof);
    assert_eq!(story.detect(2, inner(0x51)), refused);
}

#[test]
fn addresses_of_others_are_not_made() {
    let mut story = Story::on(&configs::slaac());
    for (address, verdict) in [
        (inner(1), DEFENDED),
        (inner(0x12), DEFENDED),
        (inner(0x13), DEFENDED),
        (inner(0), Verdict::Drop(DropReason::NdSpoof)),
        (EXTERNAL6, Verdict::Drop(DropReason::NdSpoof)),
        (oracle::rows::UPLINK6, Verdict::Drop(DropReason::NdSpoof)),
        ("fd00:0:0:2::1".parse().expect("a prefix of vm2"), DEFENDED),
        (
            "fd00:0:0:3::1".parse().expect("of no subnet"),
            Verdict::Drop(DropReason::NdSpoof),
        ),
    ] {
        assert_eq!(story.detect(0, address), verdict, "{address}");
        assert!(!story.has(0, address), "{address}");
    }
}

#[test]
fn station_makes_at_most_eight_addresses() {
    let mut story = Story::on(&configs::slaac());
    for last in 0x50..0x58 {
        assert_eq!(story.detect(0, inner(last)), ABSORBED);
    }
    let limit = Verdict::Drop(DropReason::NdLimit);
    assert_eq!(story.detect(0, inner(0x58)), limit);
    // Link-local ones have room of their own.
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    for _ in 0..3 {
        story.wait_s(300);
        while story.poll() != NOBODY {
            story.wait_s(1);
        }
    }
    assert_eq!(story.detect(0, inner(0x58)), ABSORBED);
    assert!(!story.has(0, MADE) && story.has(0, inner(0x58)));
}

#[test]
fn made_address_ends_with_its_configuration() {
    let first = configs::slaac();
    let mut assigned = first.clone();
    if let Addresses::Static(nets) = &mut assigned.ports[1].addresses {
        nets.push(std::net::IpAddr::V6(MADE).into());
    }
    let mut no_longer = first.clone();
    no_longer.ports[0].addresses6 = None;
    for config in [&assigned, &no_longer] {
        let mut story = Story::on(&first);
        assert_eq!(story.detect(0, MADE), ABSORBED);
        story.trial.configure(&first);
        assert!(story.has(0, MADE));
        story.trial.configure(config);
        assert!(!story.has(0, MADE));
        story.trial.configure(&first);
        assert!(!story.has(0, MADE));
    }
}

#[test]
fn claims_stay_while_the_port_has_its_mac() {
    let mut story = Story::begin();
    let first = configs::three();
    let mut moved = first.clone();
    moved.ports[0].mtu = 1400;
    assert_eq!(story.detect(0, STABLE), ABSORBED);
    // A MAC makes this address another port's.
    let other = [0x52, 0x54, 0, 0xaa, 9, 2];
    assert_eq!(story.detect(0, link_local(other)), ABSORBED);
    for config in [&first, &moved] {
        story.trial.configure(config);
        assert!(story.has(0, STABLE) && story.has(0, link_local(other)));
    }
    let mac = |octets| MacAddr::new(octets).expect("a station's MAC");
    moved.ports[1].mac = mac(other);
    story.trial.configure(&moved);
    assert!(story.has(0, STABLE) && !story.has(0, link_local(other)));
    moved.ports[0].mac = mac([0x52, 0x54, 0, 0xaa, 9, 1]);
    story.trial.configure(&moved);
    assert!(!story.has(0, STABLE));
}

proptest! {
    #![proptest_config(oracle::cases(300))]

    /// Verdict, reason, bytes, counters and solicitations of random sequences are the model's.
    #[test]
    fn random_sequences_agree_with_model(
        which in any::<prop::sample::Index>(),
        chance in Chance::long(),
    ) {
        let configs = claim_story::switches();
        let config = which.get(&configs);
        let mut world = World::new(config);
        let mut trial = Trial::new(config);
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
            if choices.once_in(2) {
                trial.poll(now_ns);
            }
        }
    }

    /// Without the model: no two ports may send from one address, none from the gateway's or one
    /// made from another's MAC, and each from at most four.
    #[test]
    fn no_port_gets_what_is_anothers(
        which in any::<prop::sample::Index>(),
        chance in Chance::long(),
    ) {
        let configs = claim_story::switches();
        let config = which.get(&configs);
        let mut world = World::new(config);
        let mut switch = Switch::new(config, 0xee);
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = SECOND_NS;
        while !choices.is_spent() {
            now_ns += 1_000_000;
            match world.next(&mut choices) {
                Event::Frame { from, bytes } => drop(switch.process(now_ns, from, &bytes, None)),
                Event::Configure(config) => switch.configure(&config),
                Event::Wait(time_ns) => now_ns += time_ns,
            }
            if choices.once_in(2) {
                switch.poll(now_ns);
            }
            if choices.once_in(8) {
                addresses_are_apart(&mut switch, now_ns)?;
            }
        }
        addresses_are_apart(&mut switch, now_ns)?;
    }
}

fn addresses_are_apart(switch: &mut Switch, now_ns: u64) -> Result<(), TestCaseError> {
    let config = switch.config.clone();
    let mut claimed = vec![[0; 2]; config.ports.len()];
    for address in claim_story::addresses(&config) {
        let mut owners = Vec::new();
        for (number, port) in config.ports.iter().enumerate() {
            let (mac, gateway) = (port.mac.octets(), port.gateway_mac.octets());
            let frame = ethernet(gateway, mac, IPV6, &echo(address, inner(1)).bytes());
            if let (Verdict::Reply, _) = switch.process(now_ns, number, &frame, None) {
                owners.push(number);
            }
        }
        prop_assert!(owners.len() <= 1, "{address} is of {owners:?}");
        let Some(owner) = owners.first().copied() else {
            continue;
        };
        let nobodys = [inner(1), inner(0), EXTERNAL6, link_local(GW)];
        let of_gateway = nobodys.contains(&address);
        prop_assert!(!of_gateway, "{address} is of {owner}");
        for (number, port) in config.ports.iter().enumerate() {
            let stranger = number != owner && port.mac.link_local() == address;
            prop_assert!(!stranger, "{address} is of {owner}, not {number}");
            prop_assert!(port.gateway_mac.link_local() != address);
        }
        let link_local = address.is_unicast_link_local();
        let is_claimed = address != config.ports[owner].mac.link_local();
        claimed[owner][usize::from(link_local)] += u32::from(is_claimed);
    }
    // Up to two are the port's by the configuration.
    let at_most = |[global, link_local]: &[u32; 2]| *global <= 10 && *link_local <= 4;
    prop_assert!(claimed.iter().all(at_most), "{claimed:?}");
    Ok(())
}

#[test]
fn addresses_of_the_stories_have_owners_of_their_own() {
    let config = configs::three();
    let addresses = claim_story::addresses(&config);
    assert!(
        [VM1, VM2]
            .map(link_local)
            .iter()
            .all(|own| addresses.contains(own))
    );
    let mut switch = Switch::new(&config, 0xee);
    addresses_are_apart(&mut switch, SECOND_NS).expect("nothing is claimed");
}
