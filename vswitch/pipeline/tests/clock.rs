//! What the switch sends by the clock: solicitations of next hops, and Router Advertisements.

mod oracle;

use std::net::{Ipv4Addr, Ipv6Addr};

use oracle::configs;
use oracle::frames::*;
use oracle::rows::{
    EXTERNAL6, NEXT_HOP, NEXT_HOP6, ROUTER, UPLINK, UPLINK_IP, UPLINK6, VM1, inner, link_local,
    solicited_node,
};
use oracle::trial::{SECOND_NS, Switch};
use pipeline::{DropReason, PortId, Verdict};
use tenant_config::SwitchConfig;

/// The uplink's place among the ports of [`configs::three`].
const OUT: usize = 3;
/// Another station of the underlay.
const STRANGER: Mac = [2, 0, 0, 0, 0, 0xfd];
/// So many next hops are solicited at once.
const AT_ONCE: usize = 32;

/// An ARP request of the uplink's.
fn request(to: Mac, wanted: Ipv4Addr) -> Vec<u8> {
    let message = Arp {
        opcode: 1,
        sender_mac: UPLINK,
        sender: UPLINK_IP,
        target_mac: [0; 6],
        target: wanted,
    };
    ethernet(to, UPLINK, ARP, &message.bytes())
}

/// A Neighbor Solicitation of the uplink's.
fn solicitation(wanted: Ipv6Addr) -> Vec<u8> {
    let group = solicited_node(wanted);
    let message = neighbor(135, 0, wanted, &[link_layer(1, UPLINK)]);
    let packet = V6::icmp(UPLINK6, group, message);
    ethernet(group_mac(group), UPLINK, IPV6, &packet.bytes())
}

/// What leaves by port `port`.
fn sent(switch: &mut Switch, port: usize, now_ns: u64) -> Vec<Vec<u8>> {
    let sent = switch.poll(now_ns).into_iter();
    sent.filter(|(to, _)| *to == port)
        .map(|(_, bytes)| bytes)
        .collect()
}

/// A station says by ARP that it is the next hop.
fn claim(switch: &mut Switch, now_ns: u64, mac: Mac) {
    let message = Arp {
        opcode: 2,
        sender_mac: mac,
        sender: NEXT_HOP,
        target_mac: UPLINK,
        target: UPLINK_IP,
    };
    let frame = ethernet(UPLINK, mac, ARP, &message.bytes());
    let verdict = switch.process(now_ns, OUT, &frame, None).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
}

/// The same by Neighbour Discovery.
fn claim6(switch: &mut Switch, now_ns: u64, mac: Mac) {
    let message = neighbor(136, 0x60, NEXT_HOP6, &[link_layer(2, mac)]);
    let packet = V6::icmp(NEXT_HOP6, UPLINK6, message);
    let frame = ethernet(UPLINK, mac, IPV6, &packet.bytes());
    let verdict = switch.process(now_ns, OUT, &frame, None).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
}

/// Once a second while nothing is known, and from 30 seconds after the last word on; then to the
/// MAC that is known, as far as the protocol does so.
#[test]
fn unknown_next_hop_is_solicited_once_a_second() {
    let mut switch = Switch::new(&configs::three(), 0xee);
    let both = [request(BROADCAST, NEXT_HOP), solicitation(NEXT_HOP6)];
    assert_eq!(sent(&mut switch, OUT, 1), both);
    let none = Vec::<Vec<u8>>::new();
    assert_eq!(sent(&mut switch, OUT, SECOND_NS), none);
    assert_eq!(sent(&mut switch, OUT, 1 + SECOND_NS), both);
    let heard = 1 + SECOND_NS + SECOND_NS / 2;
    claim(&mut switch, heard, ROUTER);
    assert_eq!(sent(&mut switch, OUT, 1 + 2 * SECOND_NS), both[1..]);
    claim6(&mut switch, heard + SECOND_NS, ROUTER);
    assert_eq!(sent(&mut switch, OUT, heard + 30 * SECOND_NS - 1), none);
    let again = sent(&mut switch, OUT, heard + 30 * SECOND_NS);
    assert_eq!(again, [request(ROUTER, NEXT_HOP)]);
    let again = sent(&mut switch, OUT, heard + 31 * SECOND_NS);
    assert_eq!(again, [request(ROUTER, NEXT_HOP), solicitation(NEXT_HOP6)]);
}

/// A claim of another station moves nothing; it is counted, and the known station is asked.
#[test]
fn contested_next_hop_is_counted_and_solicited() {
    let mut switch = Switch::new(&configs::three(), 0xee);
    for now_ns in [1, 2] {
        claim(&mut switch, now_ns, ROUTER);
        claim6(&mut switch, now_ns, ROUTER);
    }
    assert_eq!(switch.contested_next_hops(), 0);
    assert_eq!(sent(&mut switch, OUT, 3), Vec::<Vec<u8>>::new());
    claim(&mut switch, 4, STRANGER);
    assert_eq!(switch.contested_next_hops(), 1);
    assert_eq!(sent(&mut switch, OUT, 5), [request(ROUTER, NEXT_HOP)]);
    claim6(&mut switch, 6, STRANGER);
    assert_eq!(switch.contested_next_hops(), 2);
    assert_eq!(sent(&mut switch, OUT, 7), [solicitation(NEXT_HOP6)]);
}

/// Who contests a next hop is shown for two minutes, but not once the address is his.
#[test]
fn station_with_the_next_hops_address_is_shown() {
    let mut switch = Switch::new(&configs::three(), 0xee);
    claim(&mut switch, 1, ROUTER);
    claim(&mut switch, 2, STRANGER);
    claim(&mut switch, 3, ROUTER);
    let shown = |switch: &mut Switch, now_ns| {
        switch.poll(now_ns);
        switch.counters().next_hops[0].other.get(now_ns)
    };
    assert_eq!(shown(&mut switch, 4), Some((STRANGER, 0)));
    switch.reload(|_| {});
    let later = 119 * SECOND_NS;
    assert_eq!(shown(&mut switch, later), Some((STRANGER, 118)));
    assert_eq!(shown(&mut switch, later + SECOND_NS + 2), None);
    // The router is silent: the other one takes over.
    claim(&mut switch, later, STRANGER);
    for second in 0..5 {
        switch.poll(later + second * SECOND_NS);
    }
    claim(&mut switch, later + 5 * SECOND_NS, STRANGER);
    assert_eq!(shown(&mut switch, later + 5 * SECOND_NS), None);
}

/// Another station that claims the address of our endpoint is shown, and nothing else changes.
#[test]
fn station_with_the_vteps_address_is_shown() {
    let announcement = |sender: Ipv4Addr, opcode| {
        let message = Arp {
            opcode,
            sender_mac: STRANGER,
            sender,
            target_mac: [0; 6],
            target: NEXT_HOP,
        };
        ethernet(BROADCAST, STRANGER, ARP, &message.bytes())
    };
    let shown = |switch: &mut Switch, now_ns| {
        switch.poll(now_ns);
        let counters = switch.counters();
        (
            counters.vtep_conflict.get(now_ns),
            counters.vtep_conflicts.get(),
        )
    };
    let mut switch = Switch::new(&configs::geneve(), 0xee);
    let unknown = Verdict::Drop(DropReason::ArpUnknown);
    let out = configs::geneve().ports.len();
    for (now_ns, sender) in [(1, Ipv4Addr::UNSPECIFIED), (2, [192, 0, 2, 77].into())] {
        let got = switch
            .process(now_ns, out, &announcement(sender, 1), None)
            .0;
        assert_eq!((got, shown(&mut switch, now_ns)), (unknown, (None, 0)));
    }
    for (opcode, count) in [(1, 1), (2, 2)] {
        let got = switch
            .process(3, out, &announcement(UPLINK_IP, opcode), None)
            .0;
        assert_eq!(
            (got, shown(&mut switch, 4)),
            (unknown, (Some((STRANGER, 0)), count))
        );
    }
    switch.reload(|_| {});
    assert_eq!(shown(&mut switch, 5), (Some((STRANGER, 0)), 2));
    assert_eq!(shown(&mut switch, 121 * SECOND_NS), (None, 2));

    // By Neighbour Discovery: an advertisement, and the detection of duplicates before it.
    let own = solicited_node(UPLINK6);
    let reasons = [DropReason::IngressSource, DropReason::NdUnknown];
    let claims = [
        V6::icmp(
            UPLINK6,
            inner(1),
            neighbor(136, 0x20, UPLINK6, &[link_layer(2, STRANGER)]),
        ),
        V6::icmp(Ipv6Addr::UNSPECIFIED, own, neighbor(135, 0, UPLINK6, &[])),
    ];
    let mut switch = Switch::new(&configs::geneve6(), 0xee);
    for (at, claim) in (1..).zip(claims) {
        let to = group_mac(own);
        let frame = ethernet(to, STRANGER, IPV6, &claim.bytes());
        let got = switch.process(at, out, &frame, None).0;
        let expected = Verdict::Drop(reasons[at as usize - 1]);
        assert_eq!(
            (got, shown(&mut switch, at)),
            (expected, (Some((STRANGER, 0)), at))
        );
    }
}

/// A solicitation of the next hop teaches its MAC, as its ARP request does; an advertisement
/// without the override flag says nothing against what is known.
#[test]
fn next_hop_that_solicits_is_known() {
    let said = |switch: &mut Switch, now_ns, message: Vec<u8>| {
        let packet = V6::icmp(NEXT_HOP6, UPLINK6, message);
        let frame = ethernet(UPLINK, ROUTER, IPV6, &packet.bytes());
        switch.process(now_ns, OUT, &frame, None).0
    };
    let packet = V6::new(inner(0x11), EXTERNAL6, 17, udp(1, 2, b"hello"));
    let out = ethernet([2, 0, 0x13, 0x89, 0, 1], VM1, IPV6, &packet.bytes());
    let mut switch = Switch::new(&configs::three(), 0xee);
    let unknown = switch.process(1, 0, &out, None).0;
    assert_eq!(unknown, Verdict::Drop(DropReason::NeighbourUnresolved));
    let solicits = |mac| neighbor(135, 0, UPLINK6, &[link_layer(1, mac)]);
    assert_eq!(said(&mut switch, 2, solicits(ROUTER)), Verdict::Reply);
    let (verdict, left) = switch.process(3, 0, &out, None);
    assert_eq!(
        (verdict, &left[..6]),
        (Verdict::Forward(PortId(OUT as u16)), &ROUTER[..])
    );

    let advertises = |flags| neighbor(136, flags, NEXT_HOP6, &[link_layer(2, STRANGER)]);
    let absorbed = Verdict::Drop(DropReason::Absorbed);
    assert_eq!(said(&mut switch, 4, advertises(0x80)), absorbed);
    assert_eq!(switch.contested_next_hops(), 0);
    assert_eq!(said(&mut switch, 5, advertises(0xa0)), absorbed);
    assert_eq!(switch.contested_next_hops(), 1);
    assert_eq!(said(&mut switch, 6, solicits(STRANGER)), Verdict::Reply);
    assert_eq!(switch.contested_next_hops(), 2);
    assert_eq!(switch.process(7, 0, &out, None).1[..6], ROUTER);
}

/// A link-local next hop is solicited from the uplink's link-local address, answers to that, and
/// may solicit it: then packets leave by it.
#[test]
fn link_local_next_hop_is_found_from_link_local_address() {
    let config = configs::linked();
    let router: Ipv6Addr = "fe80::fe".parse().expect("an address");
    let own = link_local(UPLINK);
    let mut switch = Switch::new(&config, 0xee);
    let group = solicited_node(router);
    let asks = neighbor(135, 0, router, &[link_layer(1, UPLINK)]);
    let asks = V6::icmp(own, group, asks).bytes();
    let asks = ethernet(group_mac(group), UPLINK, IPV6, &asks);
    assert!(sent(&mut switch, OUT, 1).contains(&asks), "no solicitation");
    let packet = V6::new(inner(0x11), EXTERNAL6, 17, udp(1, 2, b"hello"));
    let out = ethernet([2, 0, 0x13, 0x89, 0, 1], VM1, IPV6, &packet.bytes());
    let unknown = switch.process(2, 0, &out, None).0;
    assert_eq!(unknown, Verdict::Drop(DropReason::NeighbourUnresolved));
    let said = |to, message| {
        let packet = V6::icmp(router, to, message);
        ethernet(UPLINK, ROUTER, IPV6, &packet.bytes())
    };
    // It verifies that we are there before it answers, as routers may.
    let probe = said(own, neighbor(135, 0, own, &[]));
    let (verdict, left) = switch.process(3, OUT, &probe, None);
    assert_eq!(verdict, Verdict::Reply);
    let is = neighbor(136, 0x60, own, &[link_layer(2, UPLINK)]);
    let is = V6::icmp(own, router, is).bytes();
    // The router flag is the gateway's: it forwards.
    let flags = 14 + 40 + 4;
    assert_eq!(left[flags], 0xe0);
    assert_eq!(left[..14], ethernet(ROUTER, UPLINK, IPV6, &[])[..14]);
    assert_eq!((&left[22..54], &left[62..]), (&is[8..40], &is[48..]));
    let answer = said(own, neighbor(136, 0xe0, router, &[link_layer(2, ROUTER)]));
    let verdict = switch.process(4, OUT, &answer, None).0;
    assert_eq!(verdict, Verdict::Drop(DropReason::Absorbed));
    let (verdict, left) = switch.process(5, 0, &out, None);
    assert_eq!(
        (verdict, &left[..6]),
        (Verdict::Forward(PortId(OUT as u16)), &ROUTER[..])
    );
}

/// [`configs::geneve`] with so many more next hops, of IPv4.
fn with_next_hops(count: usize) -> SwitchConfig {
    let mut config = configs::geneve();
    let peers = &mut config.tunnel.as_mut().expect("a tunnel").peers;
    for number in 0..count as u8 {
        let mut peer = peers[0].clone();
        peer.vtep = [192, 0, 2, 100 + number].into();
        peer.next_hop = peer.vtep;
        peer.prefixes.clear();
        peers.push(peer);
    }
    config
}

/// Every next hop comes in its turn, though there are more than are solicited at once.
#[test]
fn next_hops_are_solicited_in_turn() {
    // With the uplink's two and the peers' two.
    let mut switch = Switch::new(&with_next_hops(AT_ONCE + 4), 0xee);
    let mut all = vec![NEXT_HOP, [192, 0, 2, 66].into()];
    all.extend((0..AT_ONCE as u8 + 4).map(|number| Ipv4Addr::new(192, 0, 2, 100 + number)));
    all.push([192, 0, 2, 254].into());
    let mut all: Vec<_> = all.iter().map(|ip| request(BROADCAST, *ip)).collect();
    all.push(solicitation(NEXT_HOP6));
    let uplink = 2;
    let (first, rest) = all.split_at(AT_ONCE);
    assert_eq!(sent(&mut switch, uplink, 1), first);
    assert_eq!(sent(&mut switch, uplink, 2), rest);
    assert_eq!(sent(&mut switch, uplink, 3), Vec::<Vec<u8>>::new());
    // From where the last turn ended.
    let again = sent(&mut switch, uplink, 2 + SECOND_NS);
    assert_eq!(again[..rest.len()], *rest);
    assert_eq!(again[rest.len()..], first[..AT_ONCE - rest.len()]);
    let again = sent(&mut switch, uplink, 3 + SECOND_NS);
    assert_eq!(again, first[AT_ONCE - rest.len()..]);
}

/// The Router Advertisement of port number `port`: RFC 4861, section 4.2, with the source's MAC,
/// the MTU and the prefix, which is on-link. A port of the tenant serves DHCPv6: M and O are set.
fn advertisement(config: &SwitchConfig, port: usize) -> Vec<u8> {
    let port = &config.ports[port];
    let mac = port.gateway_mac.octets();
    let [high, low] = port.mtu.to_be_bytes();
    let seconds = |count: u32| count.to_be_bytes();
    let prefix = [
        &[3, 4, 64, 0x80][..],
        &seconds(30 * 86_400),
        &seconds(7 * 86_400),
        &[0; 4],
        &inner(0).octets(),
    ];
    let options = [
        link_layer(1, mac),
        vec![5, 1, 0, 0, 0, 0, high, low],
        prefix.concat(),
    ];
    let to = "ff02::1".parse().expect("an address");
    let fixed = [64, 0xc0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let message = icmpv6(134, 0, &[&fixed[..], &options.concat()].concat());
    let packet = V6::icmp(link_local(mac), to, message);
    ethernet(group_mac(to), mac, IPV6, &packet.bytes())
}

#[test]
fn routers_are_advertised_every_two_hundred_seconds() {
    let config = configs::three();
    let mut switch = Switch::new(&config, 0xee);
    let advertised = |switch: &mut Switch, now_ns: u64| -> Vec<(usize, Vec<u8>)> {
        let sent = switch.poll(now_ns).into_iter();
        sent.filter(|(port, _)| *port != OUT).collect()
    };
    let all: Vec<_> = (0..3).map(|at| (at, advertisement(&config, at))).collect();
    let none = Vec::<(usize, Vec<u8>)>::new();
    for turn in 0..3 {
        let due = 1 + turn * 200 * SECOND_NS;
        assert_eq!(advertised(&mut switch, due), all, "{turn}");
        assert_eq!(advertised(&mut switch, due + 1), none);
        let before = due + 200 * SECOND_NS - 1;
        assert_eq!(advertised(&mut switch, before), none);
    }
    // Without an IPv6 gateway there is none.
    let mut switch = Switch::new(&configs::ipv4(), 0xee);
    let sent = switch.poll(1).into_iter();
    let ports: Vec<_> = sent.map(|(port, _)| port).collect();
    assert_eq!(ports, [2], "the next hop is asked for");
}

/// Duplicate Address Detection of the first port's VM, for that address.
fn detect(switch: &mut Switch, now_ns: u64, address: Ipv6Addr) -> Verdict {
    let group = solicited_node(address);
    let message = neighbor(135, 0, address, &[]);
    let packet = V6::icmp(Ipv6Addr::UNSPECIFIED, group, message);
    let frame = ethernet(group_mac(group), VM1, IPV6, &packet.bytes());
    switch.process(now_ns, 0, &frame, None).0
}

#[test]
fn router_is_advertised_after_detection_of_a_link_local_address() {
    const AFTER_NS: u64 = 1_100_000_000;
    let config = configs::three();
    let mut switch = Switch::new(&config, 0xee);
    let absorbed = Verdict::Drop(DropReason::Absorbed);
    let mut now_ns = 1;
    let advertised = |switch: &mut Switch, now_ns: u64| -> Vec<(usize, Vec<u8>)> {
        let sent = switch.poll(now_ns).into_iter();
        let is_advertisement = |frame: &[u8]| frame.get(54) == Some(&134);
        sent.filter(|(_, frame)| is_advertisement(frame)).collect()
    };
    assert_eq!(advertised(&mut switch, now_ns).len(), 3, "at the start");
    let one = vec![(0, advertisement(&config, 0))];
    let random: Ipv6Addr = "fe80::1234".parse().expect("an address");
    for own in [link_local(VM1), random, random] {
        now_ns += SECOND_NS;
        assert_eq!(detect(&mut switch, now_ns, own), absorbed, "{own}");
        // Further words make no further one, and do not put it off.
        assert_eq!(detect(&mut switch, now_ns + SECOND_NS / 2, own), absorbed);
        assert_eq!(advertised(&mut switch, now_ns + AFTER_NS - 1), []);
        now_ns += AFTER_NS;
        assert_eq!(advertised(&mut switch, now_ns), one, "{own}");
        assert_eq!(advertised(&mut switch, now_ns + 10 * SECOND_NS), []);
    }
    // The address of another, and the port's own that is not link-local.
    let [others, global] = [link_local(config.ports[1].mac.octets()), inner(2)];
    now_ns += 20 * SECOND_NS;
    assert_ne!(detect(&mut switch, now_ns, others), absorbed);
    assert_ne!(detect(&mut switch, now_ns, global), Verdict::Reply);
    assert_eq!(advertised(&mut switch, now_ns + 5 * SECOND_NS), []);
    // Nothing is said where nothing may be.
    let mut config = configs::three();
    config.ports[0].ipv6 = tenant_config::Ipv6Use::Deny;
    let mut switch = Switch::new(&config, 0xee);
    drop(switch.poll(1));
    assert_ne!(detect(&mut switch, 2, random), absorbed);
    assert_eq!(advertised(&mut switch, 2 + 5 * SECOND_NS), []);
}
