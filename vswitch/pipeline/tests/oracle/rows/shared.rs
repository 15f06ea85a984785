//! The rows about addresses that ports hold in turn, where no port holds one yet. What follows an
//! announcement is in `tests/shared_addresses.rs`.

use super::*;

const SHARED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// Of `vm2` and `vm3`.
const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

#[rustfmt::skip] // A table: one frame a statement.
pub(super) fn add(rows: &mut Rows) {
    let neighbor_of = |kind, flags, target, options: &[Vec<u8>]| {
        let mut packet = V6::icmp(inner(0x11), ALL_NODES, neighbor(kind, flags, target, options));
        packet.hop_limit = 255;
        packet
    };
    let from_virtual = |packet: &V6| {
        ethernet(group_mac(packet.to), VIRTUAL_ROUTER, IPV6, &packet.bytes())
    };
    rows.on(configs::sharing(), 0);
    rows.row = "ARP 3";
    rows.drop(Absorbed, "an announcement of a shared address", arp_frame(&arp(1, SHARED, SHARED)));
    rows.drop(Absorbed, "the same as a reply", arp_frame(&arp(2, SHARED, SHARED)));
    rows.drop(Absorbed, "the same by the virtual MAC", {
        let message = Arp { sender_mac: VIRTUAL_ROUTER, ..arp(1, SHARED, SHARED) };
        ethernet(BROADCAST, VIRTUAL_ROUTER, ARP, &message.bytes())
    });
    rows.reply("a request from a shared address", arp_frame(&arp(1, SHARED, GATEWAY)));
    rows.drop(ArpSenderIp, "an announcement of what others share",
        arp_frame(&arp(1, OTHERS, OTHERS)));
    rows.row = "ARP service";
    rows.drop(Absorbed, "a probe for a shared address of the port",
        arp_frame(&arp(1, ZERO, SHARED)));
    rows.drop(ArpUnknown, "a request for what nobody holds", arp_frame(&arp(1, IP1, SHARED)));
    rows.drop(ArpUnknown, "a probe for what others share", arp_frame(&arp(1, ZERO, OTHERS)));

    rows.row = "IPv4 6";
    rows.forward(1, "from a shared address", v4(&V4 { from: SHARED, ..plain() }));
    rows.drop(Ipv4Source, "from an address that others share",
        v4(&V4 { from: OTHERS, ..plain() }));
    rows.row = "IPv6 3";
    rows.forward(1, "from a shared address", v6(&V6 { from: inner(0x100), ..plain6() }));

    rows.row = "IPv6 6";
    let own = |mac: Mac| link_layer(2, mac);
    let virtual_announcement = neighbor_of(136, 0x20, inner(0x100), &[own(VIRTUAL_ROUTER)]);
    rows.drop(Absorbed, "an announcement of a shared address",
        v6_group(&neighbor_of(136, 0x20, inner(0x100), &[own(VM1)])));
    rows.drop(Absorbed, "the same by the virtual MAC", from_virtual(&virtual_announcement));
    rows.drop(NdSpoof, "the same by a sibling's MAC",
        v6_group(&neighbor_of(136, 0x20, inner(0x100), &[own(VM2)])));
    rows.drop(Absorbed, "the own address by a further MAC",
        from_virtual(&neighbor_of(136, 0x20, inner(0x11), &[own(VIRTUAL_ROUTER)])));
    rows.drop(NdUnknown, "a solicitation for what nobody holds",
        v6_group(&neighbor_of(135, 0, inner(0x100), &[])));
    rows.drop(Absorbed, "a probe for a shared address of the port", {
        let probe = neighbor(135, 0, inner(0x100), &[]);
        v6_group(&V6 { hop_limit: 255, ..V6::icmp(ANY6, solicited_node(inner(0x100)), probe) })
    });
    rows.on(configs::three(), 0);
    rows.drop(NdSpoof, "the own address by a MAC that the port lacks",
        v6_group(&neighbor_of(136, 0x20, inner(0x11), &[own(VIRTUAL_ROUTER)])));

    rows.on(configs::sharing(), 0);
    rows.row = "Route 6";
    rows.drop(HolderUnknown, "to what nobody holds", v4(&V4 { to: OTHERS, ..plain() }));
    rows.drop(HolderUnknown, "the same by IPv6", v6(&V6 { to: inner(0x100), ..plain6() }));
    rows.on(configs::sharing(), 3);
    rows.drop(HolderUnknown, "the same from the uplink",
        ethernet(UPLINK, ROUTER, IPV4, &V4 { from: EXTERNAL, to: SHARED, ..plain() }.bytes()));
    rows.drop(IngressSource, "from the uplink as a shared address",
        ethernet(UPLINK, ROUTER, IPV4, &V4 { from: SHARED, to: IP1, ..plain() }.bytes()));
}
