//! Row 6 of "IPv6", and what the gateway answers.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    malformed_messages(rows);
    routers_messages(rows);
    forged_messages(rows);
    absorbed_messages(rows);
    answers(rows);
    duplicates(rows);
    claims(rows);
}

const OWN: Ipv6Addr = inner(0x11);
const GATEWAY6: Ipv6Addr = inner(1);
const SIBLING: Ipv6Addr = inner(0x12);

/// The source-link-layer option of `vm1`.
fn source() -> Vec<u8> {
    link_layer(1, VM1)
}

/// The target-link-layer option of `vm1`.
fn target() -> Vec<u8> {
    link_layer(2, VM1)
}

/// A Neighbor Solicitation for the gateway.
fn ns(options: &[Vec<u8>]) -> Vec<u8> {
    neighbor(135, 0, GATEWAY6, options)
}

/// `message` from `vm1` to the group of the gateway's address.
fn solicit(message: Vec<u8>) -> V6 {
    V6::icmp(OWN, solicited_node(GATEWAY6), message)
}

fn good() -> V6 {
    solicit(ns(&[source()]))
}

fn to_all_nodes(message: Vec<u8>) -> Vec<u8> {
    v6_group(&V6::icmp(OWN, ALL_NODES, message))
}

/// Duplicate address detection of `target`, sent to `to`.
fn detect(target: Ipv6Addr, to: Ipv6Addr, options: &[Vec<u8>]) -> Vec<u8> {
    v6_group(&V6::icmp(ANY6, to, neighbor(135, 0, target, options)))
}

/// A Neighbor Advertisement of `address` to all nodes.
fn advertise(flags: u8, address: Ipv6Addr, options: &[Vec<u8>]) -> Vec<u8> {
    to_all_nodes(neighbor(136, flags, address, options))
}

/// A solicitation of `target` without options.
fn asks(target: Ipv6Addr) -> Vec<u8> {
    let message = neighbor(135, 0, target, &[]);
    v6_group(&V6::icmp(OWN, solicited_node(target), message))
}

#[rustfmt::skip] // A table: one frame a statement.
fn malformed_messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 6, nd-malformed";
    rows.reply("a good solicitation", v6_group(&good()));
    rows.drop(NdMalformed, "in an atomic fragment",
        v6_group(&good().with(44, fragment_header(0, false))));
    rows.drop(NdMalformed, "in a first fragment",
        v6_group(&good().with(44, fragment_header(0, true))));
    rows.drop(NdMalformed, "over a router", v6_group(&V6 { hop_limit: 254, ..good() }));
    rows.reply("behind a hop-by-hop header", v6_group(&good().with(0, padding_options(0))));
    rows.drop(NdMalformed, "with a code", {
        let mut message = ns(&[]);
        message[1] = 1;
        v6_group(&solicit(message))
    });
    for (name, message, fixed) in [
        ("a cut-off Router Solicitation", router_solicitation(&[]), 8),
        (
            "a cut-off Router Advertisement",
            router_advertisement(&[]),
            16,
        ),
        ("a cut-off Neighbor Solicitation", ns(&[]), 24),
        (
            "a cut-off Neighbor Advertisement",
            neighbor(136, 0, OWN, &[]),
            24,
        ),
        ("a cut-off Redirect", redirect(OWN, OWN), 40),
    ] {
        assert_eq!(message.len(), fixed);
        for length in [4, fixed - 1] {
            rows.drop(NdMalformed, name, to_all_nodes(message[..length].to_vec()));
        }
    }
    rows.drop(NdMalformed, "an option of length 0",
        v6_group(&solicit(ns(&[vec![14, 0, 0, 0, 0, 0, 0, 0]]))));
    rows.drop(NdMalformed, "an option beyond the message",
        v6_group(&solicit(ns(&[vec![14, 2, 0, 0, 0, 0, 0, 0]]))));
    rows.drop(NdMalformed, "half an option's head", v6_group(&solicit(ns(&[vec![14]]))));
    rows.drop(NdMalformed, "a link-layer option of 16 bytes",
        v6_group(&solicit(ns(&[[&[1, 2], &VM1[..], &[0; 8]].concat()]))));
    rows.reply("an unknown option of 16 bytes",
        v6_group(&solicit(ns(&[[&[14, 2][..], &[7; 14]].concat(), source()]))));
    rows.drop(NdMalformed, "a solicitation for a group",
        to_all_nodes(neighbor(135, 0, ALL_NODES, &[])));
    rows.drop(NdMalformed, "an advertisement of a group",
        to_all_nodes(neighbor(136, 0, ALL_NODES, &[])));
    rows.drop(NdMalformed, "a wrong checksum", {
        let mut frame = v6_group(&good());
        frame[56] ^= 1;
        frame
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn routers_messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 6, router-advertisement and redirect";
    rows.drop(RouterAdvertisement, "a rogue router",
        to_all_nodes(router_advertisement(&[link_layer(1, VM1)])));
    rows.drop(RouterAdvertisement, "a rogue router from its link-local",
        v6_group(&V6::icmp(link_local(VM1), ALL_NODES, router_advertisement(&[]))));
    rows.drop(
        RouterAdvertisement,
        "a rogue router behind destination options",
        {
            let packet = V6::icmp(OWN, ALL_NODES, router_advertisement(&[]));
            v6_group(&packet.with(60, padding_options(0)))
        },
    );
    rows.drop(Redirect, "a redirect", to_all_nodes(redirect(OWN, inner(0x12))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn forged_messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 6, nd-spoof";
    rows.drop(NdSpoof, "a solicitation with the sibling's MAC",
        v6_group(&solicit(ns(&[link_layer(1, VM2)]))));
    rows.drop(NdSpoof, "a solicitation with the sibling's MAC second",
        v6_group(&solicit(ns(&[source(), link_layer(1, VM2)]))));
    rows.drop(NdSpoof, "duplicate detection to another group", detect(OWN, ALL_NODES, &[]));
    rows.drop(NdSpoof, "duplicate detection with a link-layer option",
        detect(OWN, solicited_node(OWN), &[source()]));
    rows.drop(NdSpoof, "an advertisement of the sibling's", advertise(0x20, SIBLING, &[]));
    rows.drop(NdSpoof, "an advertisement of the gateway's",
        advertise(0x20, GATEWAY6, &[target()]));
    rows.drop(NdSpoof, "an advertisement with the sibling's MAC",
        advertise(0x20, OWN, &[link_layer(2, VM2)]));
    rows.drop(NdSpoof, "a Router Solicitation with the sibling's MAC",
        v6_group(&V6::icmp(OWN, ALL_ROUTERS, router_solicitation(&[link_layer(1, VM2)]))));
    rows.drop(NdSpoof, "a Router Solicitation from :: with a MAC",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(&[source()]))));

    rows.row = "IPv6 6, mld-query";
    rows.drop(MldQuery, "a query", to_all_nodes(icmpv6(130, 0, &[0; 20])));
}

#[rustfmt::skip] // A table: one frame a statement.
fn absorbed_messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "ND service";
    rows.drop(Absorbed, "an advertisement of the own address",
        advertise(0x60, OWN, &[target()]));
    rows.drop(Absorbed, "an advertisement of a node that forwards",
        advertise(0xa0, OWN, &[target()]));
    rows.drop(Absorbed, "an advertisement of the own link-local",
        advertise(0x20, link_local(VM1), &[]));
    for kind in [131, 132, 143] {
        rows.drop(Absorbed, "an MLD report", to_all_nodes(icmpv6(kind, 0, &[0; 20])));
        rows.drop(Absorbed, "an MLD report from ::",
            v6_group(&V6::icmp(ANY6, MLD_ROUTERS, icmpv6(kind, 0, &[0; 20]))));
    }
    rows.drop(Absorbed, "duplicate detection", detect(OWN, solicited_node(OWN), &[]));
    rows.drop(Absorbed, "duplicate detection of the link-local",
        detect(link_local(VM1), solicited_node(link_local(VM1)), &[]));
    rows.drop(Absorbed, "a solicitation for the own address",
        v6_group(&V6::icmp(OWN, solicited_node(OWN), neighbor(135, 0, OWN, &[]))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn answers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "ND service";
    rows.reply("a solicitation for the gateway's link-local", asks(link_local(GW)));
    rows.reply("a solicitation for the sibling", asks(SIBLING));
    rows.reply("a solicitation for an external address", asks(EXTERNAL6));
    rows.drop(NdUnknown, "a solicitation for a free link-local", asks(STABLE));
    rows.reply("a solicitation to one station",
        v6(&V6::icmp(link_local(VM1), GATEWAY6, ns(&[source()]))));
    for message in [ns(&[source()]), router_solicitation(&[]), neighbor(136, 0, OWN, &[])] {
        rows.drop(DstMac, "to one station, in a group frame", {
            let packet = V6::icmp(OWN, GATEWAY6, message);
            ethernet(group_mac(ALL_NODES), VM1, IPV6, &packet.bytes())
        });
    }
    rows.drop(NdUnknown, "a solicitation for an unowned address of the subnet", asks(inner(0x99)));
    rows.drop(NdUnknown, "a solicitation for the underlay", asks(NEXT_HOP6));
    rows.drop(NdUnknown, "a solicitation for the sibling's link-local", asks(link_local(VM2)));
    rows.drop(NdUnknown, "a solicitation for ::", asks(ANY6));
    rows.drop(NdUnknown, "a solicitation for ::1", asks(Ipv6Addr::LOCALHOST));
    rows.reply("a Router Solicitation",
        v6_group(&V6::icmp(link_local(VM1), ALL_ROUTERS,
            router_solicitation(&[source()]))));
    rows.reply("a Router Solicitation from ::",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(&[]))));
    rows.on(configs::ipv4(), 0);
    rows.drop(Absorbed, "a Router Solicitation where there is no IPv6",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(&[]))));
}

/// Duplicate address detection of `target`, to its group.
fn detects(target: Ipv6Addr) -> Vec<u8> {
    detect(target, solicited_node(target), &[])
}

#[rustfmt::skip] // A table: one frame a statement.
fn duplicates(rows: &mut Rows) {
    rows.row = "ND service, from ::";
    let gateway_of_sibling = link_local([2, 0, 0x13, 0x89, 0, 2]);
    for config in [configs::three(), configs::inside()] {
        rows.on(config, 0);
        rows.error(NdSpoof, "the sibling's", detects(SIBLING));
        rows.error(NdSpoof, "the sibling's link-local", detects(link_local(VM2)));
        rows.error(NdSpoof, "the gateway's", detects(GATEWAY6));
        rows.error(NdSpoof, "the gateway's link-local", detects(link_local(GW)));
        rows.error(NdSpoof, "the gateway's link-local at another port",
            detects(gateway_of_sibling));
        rows.drop(NdSpoof, "an unowned address of the subnet", detects(inner(0x99)));
        rows.drop(NdSpoof, "the subnet's own", detects(inner(0)));
        rows.drop(NdSpoof, "an external address", detects(EXTERNAL6));
        rows.drop(NdSpoof, "::", detects(ANY6));
        rows.drop(NdSpoof, "::1", detects(Ipv6Addr::LOCALHOST));
    }
    rows.on(configs::trunk(), 0);
    rows.error(NdSpoof, "behind a tag", tagged(&detects(SIBLING), 0x8100, 100));
}

#[rustfmt::skip] // A table: one frame a statement.
fn claims(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Claimed addresses";
    let from = |message: Vec<u8>| V6::icmp(STABLE, ALL_ROUTERS, message);
    let request = to_dhcp(STABLE);
    for before in [vec![], vec![detects(STABLE)]] {
        rows.before = before;
        rows.drop(Absorbed, "a detection", detects(STABLE));
        rows.drop(Absorbed, "the end of fe80::/10",
            detects("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address")));
        rows.reply("a Router Solicitation", v6_group(&from(router_solicitation(&[source()]))));
        rows.reply("a Router Solicitation without a MAC",
            v6_group(&from(router_solicitation(&[]))));
        rows.drop(NdSpoof, "a Router Solicitation with the sibling's MAC",
            v6_group(&from(router_solicitation(&[link_layer(1, VM2)]))));
        let solicitation = V6::icmp(STABLE, solicited_node(GATEWAY6), ns(&[source()]));
        rows.reply("a solicitation", v6_group(&solicitation));
        rows.drop(NdUnknown, "a solicitation for the sibling's link-local",
            v6_group(&V6::icmp(STABLE, solicited_node(link_local(VM2)),
                neighbor(135, 0, link_local(VM2), &[]))));
        rows.forward(2, "a DHCPv6 client's message", v6_group(&request));
        rows.drop(NdMalformed, "a malformed solicitation",
            v6_group(&V6 { hop_limit: 64, ..solicitation }));
    }
    let echo = |to| v6(&V6::icmp(STABLE, to, icmpv6(128, 0, ECHO)));
    let datagram = |to| v6(&V6 { from: STABLE, to, ..plain6() });
    let report = v6_group(&from(icmpv6(143, 0, &[0; 20])));
    let advertised = advertise(0x20, STABLE, &[target()]);
    rows.drop(Absorbed, "its advertisement", advertised.clone());
    rows.drop(Absorbed, "an MLD report from it", report.clone());
    rows.drop(Absorbed, "a solicitation for it", asks(STABLE));
    rows.reply("an echo request to the gateway", echo(GATEWAY6));
    rows.reply("an echo request to the gateway's link-local", echo(link_local(GW)));
    rows.drop(LinkLocalIp, "to the sibling", datagram(SIBLING));
    rows.drop(LinkLocalIp, "to the sibling's link-local", datagram(link_local(VM2)));
    rows.drop(LinkLocalIp, "to the uplink", datagram(EXTERNAL6));
    rows.drop(Multicast, "to a group", datagram(ALL_NODES));
    rows.drop(Ipv6Source, "from an address beside it",
        v6(&V6 { from: stable(0x9d04), ..plain6() }));
    rows.before = vec![];
    rows.drop(NdSpoof, "the advertisement of what is not claimed", advertised);
    rows.drop(Ipv6Source, "an MLD report from it", report);
    rows.drop(Ipv6Source, "an echo request from it", echo(GATEWAY6));
    rows.drop(Ipv6Source, "DHCPv6 from the sibling's link-local",
        v6_group(&to_dhcp(link_local(VM2))));
    rows.drop(Ipv6Source, "a Router Solicitation from the gateway's link-local",
        v6_group(&V6 { from: link_local(GW), ..from(router_solicitation(&[])) }));
    rows.drop(Ipv6Source, "a Router Solicitation from an unowned address",
        v6_group(&V6 { from: inner(0x99), ..from(router_solicitation(&[])) }));

    rows.before = (1..5).map(|last| detects(stable(last))).collect();
    rows.drop(NdLimit, "one more than there is room for", detects(STABLE));
    rows.drop(Ipv6Source, "a Router Solicitation from it",
        v6_group(&from(router_solicitation(&[]))));
    rows.drop(Absorbed, "one of those again", detects(stable(1)));
    rows.error(NdSpoof, "the sibling's link-local", detects(link_local(VM2)));
    rows.before = vec![];
    rows.on(configs::ipv4(), 0);
    rows.drop(Absorbed, "where the gateway has no IPv6", detects(STABLE));
    rows.on(configs::plain_old(), 1);
    rows.drop(EtherType, "where the port may use none", {
        let mut frame = detects(STABLE);
        frame[6..12].copy_from_slice(&VM2);
        frame
    });
}

/// A DHCPv6 client's message from that address to all servers.
fn to_dhcp(from: Ipv6Addr) -> V6 {
    let message = dhcp6(1, 7, &[option6(1, &[0, 2, 0, 0, 0xab, 0x11, 1, 2, 3])]);
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    V6::new(from, servers, 17, udp(546, 547, &message))
}
