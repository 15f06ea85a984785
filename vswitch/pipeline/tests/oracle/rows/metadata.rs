//! The rows of "Metadata" in `docs/reference/services.md`. What is passed on is the model's.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    neighbours(rows);
    packets(rows);
    packets6(rows);
    without(rows);
}

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// A segment of `vm1` to HTTP's port.
fn segment() -> V4 {
    V4::new(IP1, METADATA, 6, tcp(40_000, 80, 5, b""))
}

/// The same by IPv6.
fn segment6() -> V6 {
    V6::new(inner(0x11), METADATA6, 6, tcp(40_000, 80, 5, b""))
}

fn solicitation(from: Ipv6Addr) -> Vec<u8> {
    let message = neighbor(135, 0, METADATA6, &[]);
    v6_group(&V6::icmp(from, solicited_node(METADATA6), message))
}

#[rustfmt::skip] // A table: one frame a statement.
fn neighbours(rows: &mut Rows) {
    rows.row = "Metadata: ARP and ND";
    rows.on(configs::clouds(), 0);
    rows.reply("ARP", arp_frame(&arp(1, IP1, METADATA)));
    rows.reply("ARP's probe", arp_frame(&arp(1, ZERO, METADATA)));
    rows.drop(ArpUnknown, "ARP for its neighbour",
        arp_frame(&arp(1, IP1, Ipv4Addr::new(169, 254, 169, 253))));
    rows.drop(ArpSenderIp, "ARP in its name", arp_frame(&arp(1, METADATA, IP1)));
    rows.reply("NS", solicitation(inner(0x11)));
    rows.drop(NdSpoof, "detection of its address", solicitation(ANY6));
    let mut closed = configs::clouds();
    closed.uplink = None;
    rows.on(closed.clone(), 0);
    rows.reply("NS without an uplink", solicitation(inner(0x11)));
    closed.ports[0].metadata = None;
    rows.on(closed, 0);
    rows.drop(NdUnknown, "NS without either", solicitation(inner(0x11)));
}

#[rustfmt::skip] // A table: one frame a statement.
fn packets(rows: &mut Rows) {
    rows.row = "Metadata 1";
    rows.on(configs::clouds(), 0);
    rows.drop(DstMac, "in a broadcast", broadcast(&segment()));

    rows.row = "Metadata 2";
    rows.drop(GatewayService, "another port",
        v4(&V4::new(IP1, METADATA, 6, tcp(40_000, 443, 5, b""))));
    rows.drop(GatewayService, "UDP", v4(&V4::new(IP1, METADATA, 17, udp(40_000, 80, b""))));
    rows.drop(GatewayService, "an echo request",
        v4(&V4::new(IP1, METADATA, 1, icmp(8, 0, ECHO))));
    rows.drop(GatewayService, "a first fragment", patched(&segment(), 6, &[0x20, 0]).frame());
    rows.drop(GatewayService, "a later fragment", patched(&segment(), 6, &[0, 8]).frame());

    rows.row = "Metadata 4";
    rows.drop(Absorbed, "a segment", v4(&segment()));
    rows.drop(Absorbed, "the longest",
        v4(&V4::new(IP1, METADATA, 6, tcp(40_000, 80, 5, &[b'x'; 1460]))));
    rows.drop(Absorbed, "of a prefix's address",
        v4(&V4 { from: Ipv4Addr::new(10, 0, 0, 70), ..segment() }));
    rows.drop(Ipv4Source, "of another port's address", v4(&V4 { from: IP2, ..segment() }));
    rows.drop(Ipv4Source, "of its own address", v4(&V4 { from: METADATA, ..segment() }));

    rows.row = "Metadata 2";
    rows.on(configs::clouds(), 3);
    let of_vm4 = |packet: V4| {
        ethernet(GW, [0x52, 0x54, 0, 0xaa, 0, 4], IPV4, &packet.bytes())
    };
    let from = Ipv4Addr::new(10, 0, 0, 14);
    rows.drop(Absorbed, "1,500 bytes of a larger MTU",
        of_vm4(V4::new(from, METADATA, 6, tcp(40_000, 80, 5, &[b'x'; 1460]))));
    rows.drop(GatewayService, "1,501 bytes",
        of_vm4(V4::new(from, METADATA, 6, tcp(40_000, 80, 5, &[b'x'; 1461]))));

    rows.row = "Metadata 3";
    rows.on(configs::clouds(), 0);
    rows.before = vec![v4(&segment()); 500];
    rows.drop(MetadataRate, "the 501st at once", v4(&segment()));
    rows.drop(GatewayService, "which is no segment",
        v4(&V4::new(IP1, METADATA, 17, udp(1, 2, b""))));
    rows.before.clear();
}

#[rustfmt::skip] // A table: one frame a statement.
fn packets6(rows: &mut Rows) {
    rows.row = "Metadata 1";
    rows.on(configs::clouds(), 0);
    rows.drop(DstMac, "in a broadcast, by IPv6",
        ethernet(BROADCAST, VM1, IPV6, &segment6().bytes()));

    rows.row = "Metadata 2";
    rows.drop(GatewayService, "another port, by IPv6",
        v6(&V6::new(inner(0x11), METADATA6, 6, tcp(40_000, 443, 5, b""))));
    rows.drop(GatewayService, "UDP, by IPv6",
        v6(&V6::new(inner(0x11), METADATA6, 17, udp(40_000, 80, b""))));
    rows.drop(GatewayService, "an echo request, by IPv6",
        v6(&V6::icmp(inner(0x11), METADATA6, icmpv6(128, 0, ECHO))));
    rows.drop(GatewayService, "behind a header",
        v6(&segment6().with(60, padding_options(0))));
    rows.drop(GatewayService, "an atomic fragment",
        v6(&segment6().with(44, fragment_header(0, false))));

    rows.row = "Metadata 4";
    rows.drop(Absorbed, "a segment, by IPv6", v6(&segment6()));
    rows.drop(Absorbed, "from its link-local address",
        v6(&V6 { from: link_local(VM1), ..segment6() }));
    rows.drop(Ipv6Source, "of another port's address, by IPv6",
        v6(&V6 { from: inner(0x12), ..segment6() }));
    rows.drop(Ipv6Source, "of its own address, by IPv6", v6(&V6 { from: METADATA6, ..segment6() }));
}

/// "Ports without the table."
#[rustfmt::skip] // A table: one frame a statement.
fn without(rows: &mut Rows) {
    rows.row = "Metadata: without it";
    rows.on(configs::clouds(), 1);
    let vm2 = |kind, packet: Vec<u8>| ethernet(GW, VM2, kind, &packet);
    rows.drop(LinkLocalIp, "a segment", vm2(IPV4, V4 { from: IP2, ..segment() }.bytes()));
    rows.forward(4, "a segment, by IPv6",
        vm2(IPV6, V6 { from: inner(0x12), ..segment6() }.bytes()));
    let asks = Arp { sender_mac: VM2, ..arp(1, IP2, METADATA) };
    rows.drop(ArpUnknown, "ARP", ethernet(BROADCAST, VM2, ARP, &asks.bytes()));
}
