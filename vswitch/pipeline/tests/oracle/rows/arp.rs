//! The rows of "ARP", and what the gateway answers.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    messages(rows);
    service(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "ARP 1";
    let good = arp(1, IP1, GATEWAY);
    let mangled = |at: usize, value: u8| {
        let mut message = good.bytes();
        message[at] = value;
        ethernet(BROADCAST, VM1, ARP, &message)
    };
    rows.drop(ArpMalformed, "cut off after 27 bytes", arp_frame(&good)[..41].to_vec());
    rows.drop(ArpMalformed, "hardware type 6", mangled(1, 6));
    rows.drop(ArpMalformed, "protocol IPv6", {
        let mut message = good.bytes();
        message[2..4].copy_from_slice(&[0x86, 0xdd]);
        ethernet(BROADCAST, VM1, ARP, &message)
    });
    rows.drop(ArpMalformed, "hardware addresses of 8 bytes", mangled(4, 8));
    rows.drop(ArpMalformed, "protocol addresses of 16 bytes", mangled(5, 16));
    for opcode in [0, 3, 4, 8, 9] {
        rows.drop(ArpMalformed, "neither request nor reply", mangled(7, opcode));
    }
    rows.drop(ArpMalformed, "opcode 257", mangled(6, 1));

    rows.row = "ARP 2";
    rows.drop(ArpSenderMac, "the sibling's hardware address",
        arp_frame(&Arp { sender_mac: VM2, ..good.clone() }));
    rows.drop(ArpSenderMac, "an extra MAC in the Ethernet header alone", {
        let mut frame = arp_frame(&good);
        frame[22] ^= 1;
        frame
    });

    rows.row = "ARP 3";
    rows.drop(ArpSenderIp, "the sibling's address", arp_frame(&arp(1, IP2, IP3)));
    rows.drop(ArpSenderIp, "an announcement of the gateway's",
        arp_frame(&arp(1, GATEWAY, GATEWAY)));
    rows.drop(ArpSenderIp, "a reply as the gateway", arp_frame(&arp(2, GATEWAY, IP2)));
    rows.drop(ArpSenderIp, "a reply from 0.0.0.0", arp_frame(&arp(2, ZERO, IP2)));
    rows.on(configs::trunk(), 2);
    rows.drop(ArpSenderIp, "any address before one is learned", {
        let message = Arp {
            sender_mac: VM3,
            ..arp(1, IP3, GATEWAY)
        };
        ethernet(BROADCAST, VM3, ARP, &message.bytes())
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn service(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    let good = arp(1, IP1, GATEWAY);
    rows.row = "ARP service";
    rows.drop(Absorbed, "a reply", arp_frame(&arp(2, IP1, GATEWAY)));
    rows.drop(Absorbed, "an announcement", arp_frame(&arp(1, IP1, IP1)));
    rows.drop(Absorbed, "a probe for the own address", arp_frame(&arp(1, ZERO, IP1)));
    rows.reply("a request for the gateway", arp_frame(&good));
    rows.reply("a request for the sibling", arp_frame(&arp(1, IP1, IP2)));
    rows.reply("a request within the sibling's prefix",
        arp_frame(&arp(1, IP1, Ipv4Addr::new(10, 0, 0, 70))));
    rows.reply("a request for an external address", arp_frame(&arp(1, IP1, EXTERNAL)));
    rows.reply("a probe for the sibling's address", arp_frame(&arp(1, ZERO, IP2)));
    rows.reply("a request to one station", ethernet(GW, VM1, ARP, &good.bytes()));
    rows.reply("a request with padding",
        ethernet(BROADCAST, VM1, ARP, &[good.bytes(), vec![0; 18]].concat()));
    rows.drop(DstMac, "a request in a group frame",
        ethernet([1, 0, 0x5e, 0, 0, 1], VM1, ARP, &good.bytes()));
    rows.drop(DstMac, "a reply in a group frame",
        ethernet(group_mac(ALL_NODES), VM1, ARP, &arp(2, IP1, GATEWAY).bytes()));
    rows.drop(ArpUnknown, "a request for an unowned address of the subnet",
        arp_frame(&arp(1, IP1, UNOWNED)));
    rows.drop(ArpUnknown, "a request for the underlay", arp_frame(&arp(1, IP1, NEXT_HOP)));
    rows.drop(ArpUnknown, "a request for loopback", arp_frame(&arp(1, IP1, Ipv4Addr::LOCALHOST)));
    rows.drop(ArpUnknown, "a request for a group", arp_frame(&arp(1, IP1, [224, 0, 0, 1].into())));
    rows.drop(ArpUnknown, "a request for the subnet's broadcast",
        arp_frame(&arp(1, IP1, [10, 0, 0, 255].into())));
    rows.drop(ArpUnknown, "a request for a link-local address",
        arp_frame(&arp(1, IP1, Ipv4Addr::new(169, 254, 169, 254))));
    rows.on(configs::lone(), 0);
    rows.drop(ArpUnknown, "a request for an external address, without an uplink",
        arp_frame(&arp(1, IP1, EXTERNAL)));
    rows.on(configs::ipv6(), 0);
    rows.drop(ArpSenderIp, "a port without IPv4", arp_frame(&arp(1, IP1, GATEWAY)));
    rows.drop(ArpUnknown, "a probe at a port without IPv4", arp_frame(&arp(1, ZERO, GATEWAY)));
}
