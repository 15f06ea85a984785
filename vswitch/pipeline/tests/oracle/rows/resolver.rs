//! The rows of `docs/reference/services.md`: what resolvers are asked, and what comes from them.

use super::super::dns_story::{name, opt, query, reverse};
use super::super::resolver_story::{FAR, NEAR, NEAR6, from_resolver};
use super::*;

pub(super) fn add(rows: &mut Rows) {
    asked(rows);
    limits(rows);
    answers(rows);
}

const UPLINK_PORT: usize = 3;

/// A message of `vm1` to the gateway.
fn asks(message: &[u8]) -> Vec<u8> {
    v4(&V4::new(IP1, GATEWAY, 17, udp(40_000, 53, message)))
}

/// The same, by that ID.
fn numbered(id: u8) -> Vec<u8> {
    let mut message = query(&name("example.com"), 1, &[]);
    message[1] = id;
    asks(&message)
}

#[rustfmt::skip] // A table: one frame a statement.
fn asked(rows: &mut Rows) {
    rows.row = "Service: DNS, resolvers";
    rows.on(configs::asking(), 0);
    let of = |text: &str, kind| query(&name(text), kind, &[]);
    for text in ["com", "vm1", "arpa"] {
        rows.reply("a short name", asks(&of(text, 28)));
        rows.forward(UPLINK_PORT, "no address of a short name", asks(&of(text, 2)));
    }
    for text in ["example.com", "", "a.internal", "x-red.internal", "0.10.in-addr.arpa",
        "in-addr.arpa", "1.0.99.172.in-addr.arpa", "x.0.10.in-addr.arpa", "d.f.ip6.arpa"] {
        rows.forward(UPLINK_PORT, "another name", asks(&of(text, 1)));
    }
    let datagram = || udp(40_000, 53, &of("example.com", 28));
    rows.forward(UPLINK_PORT, "by IPv6",
        v6(&V6::new(inner(0x11), inner(1), 17, datagram())));
    rows.forward(UPLINK_PORT, "at the link-local address",
        v6(&V6::new(link_local(VM1), link_local(GW), 17, datagram())));
    rows.forward(UPLINK_PORT, "with options",
        asks(&query(&name("example.com"), 1, &opt(4096, 0, &[0, 8, 0, 1, 7]))));
    for text in ["vm1.red.internal", "RED.internal", "x.vm1.red.internal", "0.0.10.in-addr.arpa",
        "x.0.0.10.in-addr.arpa", "x.11.0.0.10.in-addr.arpa", "_dns-sd._udp.0.0.0.10.in-addr.arpa",
        "011.0.0.10.in-addr.arpa"] {
        rows.reply("a name of the tenant's", asks(&of(text, 12)));
    }
    let whole = reverse(inner(0x11).into());
    rows.reply("an address of IPv6", asks(&of(&whole, 12)));
    rows.reply("a part of the subnet", asks(&of(&whole[32..], 12)));
    rows.reply("the subnet", asks(&of(&whole[whole.len() - 32 - 9..], 12)));
    rows.forward(UPLINK_PORT, "more than it", asks(&of(&whole[whole.len() - 30 - 9..], 12)));
    for kind in [41, 249, 252, 254] {
        rows.reply("between servers", asks(&of("example.com", kind)));
    }
    for kind in [40, 42, 248, 255, 256] {
        rows.forward(UPLINK_PORT, "records", asks(&of("example.com", kind)));
    }
    let mut routed = configs::asking();
    routed.ports[0].routes = vec!["10.244.1.0/24".parse().expect("a prefix")];
    rows.on(routed, 0);
    rows.reply("an address behind a VM", asks(&of("7.1.244.10.in-addr.arpa", 12)));
    rows.reply("one of a VM", asks(&of("1.0.16.172.in-addr.arpa", 12)));
    rows.forward(UPLINK_PORT, "another", asks(&of("7.2.244.10.in-addr.arpa", 12)));
    rows.on(configs::asking(), 0);
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "no resolver is reached", asks(&of("example.com", 1)));
    rows.reply("a name of the tenant's all the same", asks(&of("vm1.red.internal", 1)));
    rows.resolved = true;
    rows.drop(Underlay, "a VM that asks a resolver itself",
        v4(&V4::new(IP1, NEAR, 17, datagram())));
}

#[rustfmt::skip] // A table: one frame a statement.
fn limits(rows: &mut Rows) {
    rows.row = "Service: DNS, resolvers 1";
    rows.on(configs::asking(), 0);
    rows.before = (0..63).map(numbered).collect();
    rows.forward(UPLINK_PORT, "the last without an answer", numbered(63));
    rows.before = (0..64).map(numbered).collect();
    rows.drop(DnsRate, "one more", numbered(64));
    rows.forward(UPLINK_PORT, "a repeated one", numbered(7));
    rows.reply("a name of the tenant's", asks(&query(&name("vm1.red.internal"), 1, &[])));
    rows.before = vec![numbered(1); 99];
    rows.forward(UPLINK_PORT, "the last of a second", numbered(1));
    rows.before = vec![numbered(1); 100];
    rows.drop(DnsRate, "one more in a second", numbered(1));
    rows.before = Vec::new();
}

#[rustfmt::skip] // A table: one frame a statement.
fn answers(rows: &mut Rows) {
    rows.row = "Service: DNS, from resolvers";
    rows.on(configs::asking(), UPLINK_PORT);
    let mut answer = query(&name("example.com"), 1, &[]);
    answer[2] |= 0x80;
    let with = |at: usize, byte: u8| {
        let mut answer = answer.clone();
        answer[at] = byte;
        from_resolver(NEAR.into(), (53, 5000), &answer)
    };
    let usual = from_resolver(NEAR.into(), (53, 5000), &answer);
    rows.drop(DnsUnsolicited, "to no query", usual.clone());
    rows.drop(DnsUnsolicited, "by IPv6", from_resolver(NEAR6.into(), (53, 5000), &answer));
    rows.drop(DnsUnsolicited, "from another station",
        from_resolver(EXTERNAL.into(), (53, 5000), &answer));
    rows.drop(GatewayService, "from another port",
        from_resolver(FAR.into(), (54, 5000), &answer));
    rows.drop(DnsMalformed, "a query", with(2, 1));
    rows.drop(DnsMalformed, "another opcode", with(2, 0xa1));
    rows.drop(DnsMalformed, "no question", with(5, 0));
    rows.drop(DnsMalformed, "two questions", with(5, 2));
    rows.drop(DnsMalformed, "256 questions", with(4, 1));
    rows.drop(DnsMalformed, "a pointer", with(12, 0xc0));
    rows.drop(DnsMalformed, "eleven bytes",
        from_resolver(NEAR.into(), (53, 5000), &answer[..11]));
    rows.drop(DnsMalformed, "a header only",
        from_resolver(NEAR.into(), (53, 5000), &answer[..12]));
    rows.drop(DnsMalformed, "without its class",
        from_resolver(NEAR.into(), (53, 5000), &answer[..answer.len() - 2]));
    let mut wrong = usual.clone();
    wrong[40] ^= 1;
    rows.drop(DnsMalformed, "a wrong checksum", wrong);
    let mut none = usual.clone();
    none[40..42].fill(0);
    rows.drop(DnsUnsolicited, "no checksum", none);
    let mut none = from_resolver(NEAR6.into(), (53, 5000), &answer);
    none[60..62].fill(0);
    rows.drop(DnsMalformed, "none over IPv6", none);
    let padded = V4::new(NEAR, UPLINK_IP, 17, [udp(53, 5000, &answer), vec![0]].concat());
    rows.drop(DnsMalformed, "another length of UDP",
        ethernet(UPLINK, ROUTER, IPV4, &padded.bytes()));
    let mut fragment = V4::new(NEAR, UPLINK_IP, 17, udp(53, 5000, &answer));
    fragment.fragment = MORE_FRAGMENTS;
    rows.drop(DnsMalformed, "a fragment", ethernet(UPLINK, ROUTER, IPV4, &fragment.bytes()));
    let mut group = usual.clone();
    group[..6].copy_from_slice(&BROADCAST);
    rows.drop(DstMac, "in a group frame", group);
    rows.on(configs::named(), 3);
    rows.drop(GatewayService, "where there is no resolver", usual);
}
