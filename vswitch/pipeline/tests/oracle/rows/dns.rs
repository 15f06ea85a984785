//! The rows of `docs/reference/services.md`: the names of the tenant's ports. The bytes of the
//! responses are the model's.

use std::net::IpAddr;

use super::super::dns_story::{domain, long, name, opt, query, reverse};
use super::*;

pub(super) fn add(rows: &mut Rows) {
    queries(rows);
    faults(rows);
    names(rows);
    addresses(rows);
    sizes(rows);
}

/// A message of `vm1` to the gateway.
fn asks(message: &[u8]) -> Vec<u8> {
    v4(&V4::new(IP1, GATEWAY, 17, udp(40_000, 53, message)))
}

/// A question for the name, with type A.
fn of(text: &str) -> Vec<u8> {
    query(&name(text), 1, &[])
}

const OWN: &str = "vm1.red.internal";

#[rustfmt::skip] // A table: one frame a statement.
fn queries(rows: &mut Rows) {
    rows.row = "Service: DNS";
    rows.on(configs::named(), 0);
    let datagram = || udp(40_000, 53, &of(OWN));
    rows.reply("by IPv4", asks(&of(OWN)));
    rows.reply("by IPv6", v6(&V6::new(inner(0x11), inner(1), 17, datagram())));
    rows.reply("at the link-local address",
        v6(&V6::new(link_local(VM1), link_local(GW), 17, datagram())));
    let mut group = asks(&of(OWN));
    group[..6].copy_from_slice(&BROADCAST);
    rows.drop(DstMac, "in a group frame", group);
    let mut fragment = V4::new(IP1, GATEWAY, 17, datagram());
    fragment.fragment = MORE_FRAGMENTS;
    rows.error(GatewayService, "a fragment", v4(&fragment));
    rows.error(GatewayService, "to another port",
        v4(&V4::new(IP1, GATEWAY, 17, udp(40_000, 5353, &of(OWN)))));
    rows.drop(GatewayService, "by TCP",
        v4(&V4::new(IP1, GATEWAY, 6, tcp(40_000, 53, 5, &[]))));
    rows.error(GatewayService, "eleven bytes", asks(&of(OWN)[..11]));
    let mut response = of(OWN);
    response[2] |= 0x80;
    rows.error(GatewayService, "a response", asks(&response));
    let mut short = datagram();
    short[5] -= 1;
    rows.error(GatewayService, "another length of UDP", v4(&V4::new(IP1, GATEWAY, 17, short)));
    rows.forward(1, "a server among the ports", v4(&V4::new(IP1, IP2, 17, datagram())));
    rows.on(configs::three(), 0);
    rows.error(GatewayService, "where the gateway does not answer", asks(&of(OWN)));
}

#[rustfmt::skip] // A table: one frame a statement.
fn faults(rows: &mut Rows) {
    rows.row = "Service: DNS";
    rows.on(configs::named(), 0);
    let with = |at: usize, byte: u8| {
        let mut message = of(OWN);
        message[at] = byte;
        asks(&message)
    };
    rows.reply("another opcode", with(2, 0x28));
    rows.reply("no question", with(5, 0));
    rows.reply("two questions", with(5, 2));
    rows.reply("an answer", with(7, 1));
    rows.reply("an authority", with(9, 1));
    rows.reply("a header only", asks(&of(OWN)[..12]));
    rows.reply("cut off", asks(&of(OWN)[..20]));
    rows.reply("without its class", asks(&of(OWN)[..of(OWN).len() - 2]));
    rows.reply("a pointer", asks(&query(&[0xc0, 12], 1, &[])));
    let label = [&[64][..], &[b'a'; 64], &[0]].concat();
    rows.reply("a label of 64 bytes", asks(&query(&label, 1, &[])));
    let labels = |count: usize, last: usize| {
        name(&format!("{}{}", "abcdefghi.".repeat(count), "x".repeat(last)))
    };
    rows.reply("a name of 255 bytes", asks(&query(&labels(25, 3), 1, &[])));
    rows.reply("one of 256", asks(&query(&labels(25, 4), 1, &[])));
    rows.reply("another version of EDNS", asks(&query(&name(OWN), 1, &opt(1232, 1, &[]))));
    rows.reply("an option record that is cut off",
        asks(&query(&name(OWN), 1, &opt(1232, 0, &[1])[..11])));
    rows.reply("another additional record",
        asks(&query(&name(OWN), 1, &[0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0])));
    rows.reply("without recursion", with(2, 0));
    rows.reply("another class", with(of(OWN).len() - 1, 3));
}

#[rustfmt::skip] // A table: one frame a statement.
fn names(rows: &mut Rows) {
    rows.row = "Service: DNS, names";
    rows.on(configs::named(), 0);
    for text in [OWN, "VM2.Red.Internal", "vm3.red.internal", "vm9.red.internal",
        "a.vm1.red.internal", "red.internal", "internal", "vm1.xred.internal", "vm1",
        "example.com", "", "vm1.red.internal.a"] {
        for kind in [1, 28, 255, 16] {
            rows.reply("of any kind", asks(&query(&name(text), kind, &[])));
        }
    }
    let mut config = configs::named();
    config.gateway.dns.domain = Some("VMs.Example".parse().expect("a domain"));
    rows.on(config, 0);
    rows.reply("in a domain of the file's", asks(&of("vm1.vms.example")));
    rows.reply("its address", asks(&query(&name(&reverse(IP2.into())), 12, &[])));
    rows.reply("not in the usual one", asks(&of(OWN)));
}

#[rustfmt::skip] // A table: one frame a statement.
fn addresses(rows: &mut Rows) {
    rows.row = "Service: DNS, addresses";
    rows.on(configs::named(), 0);
    let near = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    for address in [IP1.into(), near(64), near(70), near(99), near(1), near(0), near(255),
        EXTERNAL.into(), inner(0x11).into(), inner(0x99).into(), inner(1).into(),
        EXTERNAL6.into()] {
        for kind in [12, 255, 1] {
            rows.reply("of any kind", asks(&query(&name(&reverse(address)), kind, &[])));
        }
    }
    for text in ["11.0.0.10.in-addr.arpa.x", "011.0.0.10.in-addr.arpa", "0.0.10.in-addr.arpa",
        "1.11.0.0.10.in-addr.arpa", "256.0.0.10.in-addr.arpa", "a.0.0.10.in-addr.arpa",
        "in-addr.arpa", "ip6.arpa", "11.ip6.arpa", "11.0.0.10.IN-ADDR.Arpa"] {
        rows.reply("another name", asks(&query(&name(text), 12, &[])));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn sizes(rows: &mut Rows) {
    rows.row = "Service: DNS, sizes";
    let config = long();
    let vm1 = name(&format!("vm1.{}", domain(&config)));
    let third = name(&format!("a-name-that-is-too-long.{}", domain(&config)));
    rows.on(config, 0);
    let asks = |message: &[u8]| {
        v4(&V4::new(Ipv4Addr::new(10, 0, 0, 20), GATEWAY, 17, udp(40_000, 53, message)))
    };
    rows.reply("eight of many addresses", asks(&query(&vm1, 1, &[])));
    for size in [0, 511, 512, 513, 547, 548, 549, 1232, 65_535] {
        rows.reply("a client's size", asks(&query(&vm1, 255, &opt(size, 0, &[]))));
    }
    let address = reverse(Ipv4Addr::new(10, 0, 0, 21).into());
    rows.reply("a long name", asks(&query(&name(&address), 12, &[])));
    rows.reply("a name that is too long", asks(&query(&third, 1, &[])));
    rows.reply("its address", asks(&query(&name(&reverse(IP3.into())), 12, &[])));
}
