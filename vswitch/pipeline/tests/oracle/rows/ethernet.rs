//! The rows of "Ethernet".

use tenant_config::{Ipv6Use, TagId};

use super::*;

pub(super) fn add(rows: &mut Rows) {
    lengths_and_sources(rows);
    tags_on_access_port(rows);
    tags_on_trunk(rows);
    priority_tags(rows);
    no_ipv6(rows);
    link_local_protocols(rows);
    announces(rows);
    other_types(rows);
}

/// A frame around an IPv4 packet of `length` bytes.
fn of_length(length: usize) -> Vec<u8> {
    let mut packet = plain();
    packet.payload = udp(1000, 2000, &vec![0; length - 28]);
    v4(&packet)
}

/// The plain packet from `mac`.
fn from_mac(mac: Mac) -> Vec<u8> {
    ethernet(GW, mac, IPV4, &plain().bytes())
}

#[rustfmt::skip] // A table: one frame a statement.
fn lengths_and_sources(rows: &mut Rows) {
    let frame = v4(&plain());
    rows.on(configs::three(), 0);
    rows.row = "Ethernet 1";
    rows.drop(Malformed, "no byte at all", vec![]);
    rows.drop(Malformed, "thirteen bytes", frame[..13].to_vec());
    rows.forward(1, "as long as the MTU allows", of_length(1500));
    let mut padded = frame.clone();
    padded.resize(1515, 0);
    rows.forward(1, "padding beyond the MTU", padded);
    let mut padded = arp_frame(&arp(1, IP1, GATEWAY));
    padded.resize(1514, 0);
    rows.reply("ARP with padding to the MTU", padded.clone());
    padded.push(0);
    rows.drop(Malformed, "and beyond", padded);
    rows.on(configs::trunk(), 0);
    let tagged_arp = |length: usize| {
        let mut frame = ethernet(BROADCAST, VM1, 0x8100, &[0, 100, 8, 6]);
        frame.extend(arp(1, IP1, GATEWAY).bytes());
        frame.resize(length, 0);
        frame
    };
    rows.reply("tagged ARP with padding to the MTU", tagged_arp(1518));
    rows.drop(Malformed, "tagged ARP with padding beyond", tagged_arp(1519));
    rows.on(configs::three(), 0);
    rows.row = "Route 0";
    rows.error(DropReason::Mtu, "one byte longer", of_length(1501));
    rows.error(DropReason::Mtu, "one byte longer by IPv6",
        v6(&V6 { payload: udp(1, 2, &[0; 1501 - 48]), ..plain6() }));
    rows.drop(DropReason::Mtu, "the same to all stations", {
        let packet = V4 { payload: udp(1000, 2000, &[0; 1501 - 28]), ..plain() };
        broadcast(&packet)
    });
    rows.drop(Ipv4Source, "one byte longer, from another's address", {
        let packet = V4 { from: IP2, payload: udp(1000, 2000, &[0; 1501 - 28]), ..plain() };
        v4(&packet)
    });
    rows.error(DropReason::Mtu, "one byte longer, to the gateway",
        v4(&V4::new(IP1, GATEWAY, 1, icmp(8, 0, &[0; 1501 - 24]))));

    rows.row = "Ethernet 2";
    rows.drop(SrcMacGroup, "source zero", from_mac([0; 6]));
    rows.drop(SrcMacGroup, "source broadcast", from_mac(BROADCAST));
    rows.drop(SrcMacGroup, "the own MAC with the group bit", from_mac([0x53, 0x54, 0, 0xaa, 0, 1]));

    rows.row = "Ethernet 3";
    rows.drop(SrcMac, "the sibling's MAC", from_mac(VM2));
    rows.drop(SrcMac, "the gateway's MAC", from_mac(GW));
    rows.drop(SrcMac, "one bit beside the own MAC", from_mac([0x52, 0x54, 0, 0xaa, 0, 0x81]));
    rows.on(configs::three(), 1);
    let vrrp = [0, 0, 0x5e, 0, 1, 7];
    let of_vm2 = V4::new(IP2, IP1, 17, udp(1000, 2000, b"hello")).bytes();
    rows.forward(0, "one of the extra MACs", ethernet(GW, vrrp, IPV4, &of_vm2));
    rows.on(configs::three(), 0);
    rows.drop(SrcMac, "the extra MAC of another port", from_mac(vrrp));
}

#[rustfmt::skip] // A table: one frame a statement.
fn tags_on_access_port(rows: &mut Rows) {
    let frame = v4(&plain());
    rows.on(configs::three(), 0);
    rows.row = "Ethernet 4";
    for protocol in [0x8100, 0x88a8, 0x9100] {
        rows.drop(VlanTag, "a tag", tagged(&frame, protocol, 100));
    }
    rows.drop(VlanTag, "a priority tag", tagged(&frame, 0x8100, 0));
    rows.drop(VlanTag, "a frame cut off inside its tag",
        tagged(&frame, 0x8100, 100)[..15].to_vec());
    rows.add("a tag in the metadata", Some(100), frame.clone(), Expect::Drop(VlanTag));
    rows.add("a priority tag in the metadata", Some(0), frame.clone(), Expect::Drop(VlanTag));
}

#[rustfmt::skip] // A table: one frame a statement.
fn tags_on_trunk(rows: &mut Rows) {
    let frame = v4(&plain());
    rows.row = "Ethernet 4";
    rows.on(configs::trunk(), 0);
    rows.forward(1, "trunk: a listed tag", tagged(&frame, 0x8100, 100));
    rows.forward(1, "trunk: a listed tag with priority", tagged(&frame, 0x8100, 0xe000 | 200));
    rows.forward(1, "trunk: no tag", frame.clone());
    rows.forward(1, "trunk: the longest frame with its tag", tagged(&of_length(1500), 0x8100, 100));
    rows.error(DropReason::Mtu, "trunk: one byte longer", tagged(&of_length(1501), 0x8100, 100));
    rows.drop(Malformed, "trunk: a tag that is not listed makes no room",
        tagged(&of_length(1500), 0x8100, 101));
    rows.error(DropReason::Mtu, "trunk: the tag's length without the tag", of_length(1504));
    rows.add("trunk: a listed tag in the metadata", Some(100), frame.clone(), Expect::Forward(1));
    rows.drop(VlanTag, "trunk: another VID", tagged(&frame, 0x8100, 101));
    rows.drop(VlanTag, "trunk: a priority tag", tagged(&frame, 0x8100, 0));
    rows.drop(VlanTag, "trunk: a service tag with a listed VID", tagged(&frame, 0x88a8, 100));
    rows.drop(VlanTag, "trunk: two tags", tagged(&tagged(&frame, 0x8100, 200), 0x8100, 100));
    rows.drop(VlanTag, "trunk: a service tag behind",
        tagged(&tagged(&frame, 0x88a8, 100), 0x8100, 100));
    rows.add("trunk: one tag in the metadata and one in the frame",
        Some(100), tagged(&frame, 0x8100, 100), Expect::Drop(VlanTag));
    rows.add("trunk: another VID in the metadata", Some(7), frame.clone(), Expect::Drop(VlanTag));
    for length in 14..18 {
        rows.drop(Malformed, "trunk: cut off inside its tag",
            tagged(&frame, 0x8100, 100)[..length].to_vec());
    }
    rows.drop(Ipv4Source, "trunk: a forged source behind a listed tag", {
        let forged = V4 {
            from: IP2,
            ..plain()
        };
        tagged(&v4(&forged), 0x8100, 100)
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn priority_tags(rows: &mut Rows) {
    let frame = v4(&plain());
    let mut config = configs::trunk();
    config.ports[0].trunk.push(TagId::new(0).expect("a tag"));
    rows.on(config, 0);
    rows.row = "Ethernet 4";
    rows.forward(1, "trunk with 0: a priority tag", tagged(&frame, 0x8100, 0xa000));
    rows.forward(1, "trunk with 0: a listed tag", tagged(&frame, 0x8100, 100));
    rows.add("trunk with 0: a priority tag in the metadata",
        Some(0xa000), frame.clone(), Expect::Forward(1));
    rows.drop(VlanTag, "trunk with 0: another VID", tagged(&frame, 0x8100, 101));
}

#[rustfmt::skip] // A table: one frame a statement.
fn no_ipv6(rows: &mut Rows) {
    let mut config = configs::three();
    config.ports[0].ipv6 = Ipv6Use::Deny;
    rows.on(config, 0);
    rows.row = "Ethernet 8";
    rows.drop(EtherType, "IPv6 of a port that denies it", v6(&plain6()));
    rows.drop(EtherType, "its Neighbour Discovery", v6(&V6::icmp(link_local(VM1), link_local(GW),
        icmpv6(135, 0, &[0; 20]))));
    rows.forward(1, "IPv4 of a port that denies IPv6", v4(&plain()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn link_local_protocols(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Ethernet 5";
    rows.drop(Llc, "a spanning tree's BPDU",
        ethernet([1, 0x80, 0xc2, 0, 0, 0], VM1, 38, &[0x42, 0x42, 3, 0, 0]));
    rows.drop(Llc, "IPv4 in SNAP", ethernet(GW, VM1, 36, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45]));
    rows.drop(Llc, "a length of zero", ethernet(GW, VM1, 0, &[]));
    rows.drop(Llc, "type 0x05ff, the last", ethernet(GW, VM1, 0x05ff, &[0; 46]));

    rows.row = "Ethernet 6";
    for last in [0, 3, 0x0e, 0x0f] {
        let group = [1, 0x80, 0xc2, 0, 0, last];
        rows.drop(LinkLocalL2, "to a bridge's group", ethernet(group, VM1, IPV4, &plain().bytes()));
    }
    rows.drop(DstMac, "to the group behind the bridges'",
        ethernet([1, 0x80, 0xc2, 0, 0, 0x10], VM1, IPV4, &plain().bytes()));
    rows.drop(LinkLocalL2, "LLDP to a unicast MAC", ethernet(GW, VM1, 0x88cc, &[0; 46]));
    rows.drop(LinkLocalL2, "a pause frame to a unicast MAC", ethernet(GW, VM1, 0x8808, &[0, 1]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn announces(rows: &mut Rows) {
    rows.row = "Ethernet 7";
    let announce = |opcode, sender_mac, target_mac| Arp {
        opcode,
        sender_mac,
        sender: ZERO,
        target_mac,
        target: ZERO,
    };
    let rarp = |to, message: &Arp| ethernet(to, VM2, RARP, &message.bytes());
    rows.on(configs::trunk(), 1);
    rows.drop(Absorbed, "the port's own announce", rarp(BROADCAST, &announce(3, VM2, VM2)));
    rows.drop(Rarp, "a reply", rarp(BROADCAST, &announce(4, VM2, VM2)));
    rows.drop(Rarp, "an announce of another sender", rarp(BROADCAST, &announce(3, VM1, VM2)));
    rows.drop(Rarp, "an announce of another target", rarp(BROADCAST, &announce(3, VM2, VM1)));
    rows.drop(Rarp, "an announce to one station", rarp(GW, &announce(3, VM2, VM2)));
    rows.drop(Rarp, "an announce with an address",
        rarp(BROADCAST, &Arp { target: IP2, ..announce(3, VM2, VM2) }));
    rows.drop(Rarp, "an announce with a sender's address",
        rarp(BROADCAST, &Arp { sender: IP2, ..announce(3, VM2, VM2) }));
    rows.drop(Rarp, "an announce cut off", rarp(BROADCAST, &announce(3, VM2, VM2))[..41].to_vec());
    rows.on(configs::trunk(), 0);
    rows.drop(Rarp, "an announce of a port that may not",
        ethernet(BROADCAST, VM1, RARP, &announce(3, VM1, VM1).bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn other_types(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Ethernet 8";
    for ethertype in [
        0x0600, 0x0801, 0x8847, 0x8863, 0x888e, 0x88e5, 0x88f7, 0xffff,
    ] {
        rows.drop(EtherType, "any other type", ethernet(GW, VM1, ethertype, &[0; 46]));
    }
}
