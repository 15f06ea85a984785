//! `docs/reference/spoof-filter.md` by example: for each of its rows, frames that fall under it and
//! frames that only just do not. This table is kept by hand; the model and the switch must both
//! agree with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use pipeline::DropReason::{self, *};
use pipeline::Verdict;
use tenant_config::SwitchConfig;

use super::configs;
use super::frames::*;
use super::model::{Model, Outcome};
use super::trial::Trial;

/// One frame and what it must get.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The page's row.
    pub(crate) row: &'static str,
    /// What the frame is.
    pub(crate) name: &'static str,
    pub(crate) config: SwitchConfig,
    pub(crate) from: usize,
    /// Whether the next hops of the uplink have answered before.
    pub(crate) resolved: bool,
    /// The control information of a tag that the device has taken out.
    pub(crate) tag: Option<u16>,
    pub(crate) frame: Vec<u8>,
    pub(crate) expect: Expect,
}

impl Case {
    /// What the model makes of it, in short.
    pub(crate) fn by_the_model(&self) -> Expect {
        let mut model = Model::new(&self.config);
        if self.resolved {
            model.teach_all(ROUTER);
        }
        match model.expect(0, self.from, &self.frame, self.tag) {
            Outcome::Forward { to, .. } => Expect::Forward(to),
            Outcome::Tunnel(_) => Expect::Forward(model.uplink()),
            Outcome::Reply(_) | Outcome::TunnelReply(_) => Expect::Reply,
            Outcome::Drop {
                reason,
                icmp_error: true,
                ..
            } => Expect::DropWithError(reason),
            Outcome::Drop { reason, .. } => Expect::Drop(reason),
        }
    }

    /// What a fresh switch makes of it, in short. The bytes must be the model's, and of all
    /// counters nothing else may have moved.
    ///
    /// # Errors
    /// Where switch and model disagree.
    pub(crate) fn by_the_switch(&self) -> Result<Expect, String> {
        let mut trial = Trial::new(&self.config);
        if self.resolved {
            trial.resolve(0);
        }
        let verdict = trial.send(0, self.from, &self.frame, self.tag)?;
        Ok(match verdict {
            Verdict::Forward(port) => Expect::Forward(port.0.into()),
            Verdict::Reply => Expect::Reply,
            Verdict::Drop(reason) => Expect::Drop(reason),
            Verdict::DropWithError(reason) => Expect::DropWithError(reason),
        })
    }
}

/// What does not get what the table says, each with its row; `found` says what it gets.
pub(crate) fn wrong(
    cases: &[Case],
    found: impl Fn(&Case) -> Result<Expect, String>,
) -> Vec<String> {
    let wrong = cases.iter().filter_map(|case| {
        let problem = match found(case) {
            Ok(got) if got == case.expect => return None,
            Ok(got) => format!("{got:?}, not {:?}", case.expect),
            Err(disagreement) => disagreement,
        };
        Some(format!("{}: {}: {problem}", case.row, case.name))
    });
    wrong.collect()
}

/// What a frame must get, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Drop(DropReason),
    DropWithError(DropReason),
    /// To that port; the number of ports is the uplink.
    Forward(usize),
    Reply,
}

pub(crate) const VM1: Mac = [0x52, 0x54, 0, 0xaa, 0, 1];
pub(crate) const VM2: Mac = [0x52, 0x54, 0, 0xaa, 0, 2];
pub(crate) const VM3: Mac = [0x52, 0x54, 0, 0xaa, 0, 3];
/// The gateway's side of `vm1`'s link.
pub(crate) const GW: Mac = [2, 0, 0x13, 0x89, 0, 1];
pub(crate) const UPLINK: Mac = [2, 0, 0x13, 0x89, 0, 0];
/// The router of the underlay.
pub(crate) const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];

pub(crate) const IP1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub(crate) const IP2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
pub(crate) const IP3: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const UNOWNED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
pub(crate) const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const UPLINK_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// `fd00:0:0:1::last`.
pub(crate) const fn inner(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, last)
}
pub(crate) const EXTERNAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7);
pub(crate) const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// The link-local address of one of this file's MACs.
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let mac = tenant_config::MacAddr::new(mac).expect("a station's MAC");
    mac.link_local()
}

/// The group that a solicitation for `target` goes to.
pub(crate) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let high = 0xff00 | u16::from(a);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, u16::from_be_bytes([b, c]))
}

/// Collects the cases of one row after the other.
pub(crate) struct Rows {
    cases: Vec<Case>,
    config: SwitchConfig,
    from: usize,
    pub(crate) resolved: bool,
    pub(crate) row: &'static str,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self {
            cases: Vec::new(),
            config: configs::three(),
            from: 0,
            resolved: true,
            row: "",
        }
    }

    pub(crate) fn cases(self) -> Vec<Case> {
        self.cases
    }

    /// What follows is sent by port `from` of `config`.
    pub(crate) fn on(&mut self, config: SwitchConfig, from: usize) {
        self.config = config;
        self.from = from;
    }

    fn add(&mut self, name: &'static str, tag: Option<u16>, frame: Vec<u8>, expect: Expect) {
        self.cases.push(Case {
            row: self.row,
            name,
            config: self.config.clone(),
            from: self.from,
            resolved: self.resolved,
            tag,
            frame,
            expect,
        });
    }

    pub(crate) fn drop(&mut self, reason: DropReason, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Drop(reason));
    }

    pub(crate) fn error(&mut self, reason: DropReason, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::DropWithError(reason));
    }

    pub(crate) fn forward(&mut self, to: usize, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Forward(to));
    }

    pub(crate) fn reply(&mut self, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Reply);
    }
}

/// An IPv4 packet from `vm1`'s MAC to the gateway's.
fn v4(packet: &V4) -> Vec<u8> {
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to the gateway's.
fn v6(packet: &V6) -> Vec<u8> {
    ethernet(GW, VM1, IPV6, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to its group's.
fn v6_group(packet: &V6) -> Vec<u8> {
    ethernet(group_mac(packet.to), VM1, IPV6, &packet.bytes())
}

/// `vm1` to `vm2` by UDP: the plainest packet there is.
fn plain() -> V4 {
    V4::new(IP1, IP2, 17, udp(1000, 2000, b"hello"))
}

/// The same by IPv6.
fn plain6() -> V6 {
    V6::new(inner(0x11), inner(0x12), 17, udp(1000, 2000, b"hello"))
}

/// `packet` with the bytes from `at` on replaced, and its header checksum made right again.
fn patched(packet: &V4, at: usize, bytes: &[u8]) -> V4Bytes {
    let mut raw = packet.bytes();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    set_ipv4_checksum(&mut raw);
    V4Bytes(raw)
}

struct V4Bytes(Vec<u8>);

impl V4Bytes {
    fn frame(&self) -> Vec<u8> {
        ethernet(GW, VM1, IPV4, &self.0)
    }
}

fn arp(opcode: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
    Arp {
        opcode,
        sender_mac: VM1,
        sender,
        target_mac: [0; 6],
        target,
    }
}

fn arp_frame(message: &Arp) -> Vec<u8> {
    ethernet(BROADCAST, VM1, ARP, &message.bytes())
}

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut rows = Rows::new();
    ethernet_rows(&mut rows);
    arp_rows(&mut rows);
    ipv4_rows(&mut rows);
    ipv6_rows(&mut rows);
    nd_rows(&mut rows);
    route_rows(&mut rows);
    uplink_rows(&mut rows);
    rows.cases()
}

#[rustfmt::skip] // A table: one frame a statement.
fn ethernet_rows(rows: &mut Rows) {
    let frame = v4(&plain());

    rows.on(configs::three(), 0);
    rows.row = "Ethernet 1";
    rows.drop(Malformed, "no byte at all", vec![]);
    rows.drop(Malformed, "thirteen bytes", frame[..13].to_vec());
    let of_length = |length: usize| {
        let mut packet = plain();
        packet.payload = udp(1000, 2000, &vec![0; length - 28]);
        v4(&packet)
    };
    rows.forward(1, "as long as the MTU allows", of_length(1500));
    rows.drop(Malformed, "one byte longer", of_length(1501));
    let mut padded = frame.clone();
    padded.resize(1515, 0);
    rows.drop(Malformed, "padding beyond the MTU", padded);

    rows.row = "Ethernet 2";
    let from_mac = |mac: Mac| ethernet(GW, mac, IPV4, &plain().bytes());
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

    rows.row = "Ethernet 4";
    for protocol in [0x8100, 0x88a8, 0x9100] {
        rows.drop(VlanTag, "a tag", tagged(&frame, protocol, 100));
    }
    rows.drop(VlanTag, "a priority tag", tagged(&frame, 0x8100, 0));
    rows.drop(VlanTag, "a frame cut off inside its tag",
        tagged(&frame, 0x8100, 100)[..15].to_vec());
    rows.add("a tag in the metadata", Some(100), frame.clone(), Expect::Drop(VlanTag));
    rows.add("a priority tag in the metadata", Some(0), frame.clone(), Expect::Drop(VlanTag));
    rows.on(configs::trunk(), 0);
    rows.forward(1, "trunk: a listed tag", tagged(&frame, 0x8100, 100));
    rows.forward(1, "trunk: a listed tag with priority", tagged(&frame, 0x8100, 0xe000 | 200));
    rows.forward(1, "trunk: no tag", frame.clone());
    rows.forward(1, "trunk: the longest frame with its tag", tagged(&of_length(1500), 0x8100, 100));
    rows.drop(Malformed, "trunk: one byte longer", tagged(&of_length(1501), 0x8100, 100));
    rows.drop(Malformed, "trunk: the tag's length without the tag", of_length(1504));
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

    rows.on(configs::three(), 0);
    rows.row = "Ethernet 8";
    for ethertype in [
        0x0600, 0x0801, 0x8847, 0x8863, 0x888e, 0x88e5, 0x88f7, 0xffff,
    ] {
        rows.drop(EtherType, "any other type", ethernet(GW, VM1, ethertype, &[0; 46]));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn arp_rows(rows: &mut Rows) {
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

    rows.on(configs::three(), 0);
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

#[rustfmt::skip] // A table: one frame a statement.
fn ipv4_rows(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 1";
    let good = v4(&plain());
    rows.drop(Ipv4Malformed, "no byte of it", good[..14].to_vec());
    rows.drop(Ipv4Malformed, "nineteen bytes", good[..33].to_vec());
    rows.drop(Ipv4Malformed, "version 6", patched(&plain(), 0, &[0x65]).frame());
    rows.drop(Ipv4Malformed, "a header of four words", patched(&plain(), 0, &[0x44]).frame());
    rows.drop(Ipv4Malformed, "a header beyond the total length",
        patched(&plain(), 0, &[0x4f]).frame());
    rows.drop(Ipv4Malformed, "a total length of 19", patched(&plain(), 2, &[0, 19]).frame());
    rows.drop(Ipv4Malformed, "a total length of 0", patched(&plain(), 2, &[0, 0]).frame());
    rows.drop(Ipv4Malformed, "one byte short of its total length", good[..good.len() - 1].to_vec());
    rows.drop(Ipv4Malformed, "a wrong checksum", {
        let mut frame = good.clone();
        frame[24] ^= 1;
        frame
    });
    rows.forward(1, "padding", [good.clone(), vec![0xaa; 13]].concat());
    let with_options = |options: &[u8]| V4 { options: options.to_vec(), ..plain() };
    rows.forward(1, "record route", v4(&with_options(&[7, 7, 4, 0, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option beyond the header",
        v4(&with_options(&[7, 9, 4, 0, 0, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option of length 0", v4(&with_options(&[7, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option of length 1", v4(&with_options(&[7, 1, 0, 0])));
    rows.drop(Ipv4Malformed, "an option without its length", v4(&with_options(&[1, 1, 1, 7])));

    rows.row = "IPv4 2";
    let from = |ip: [u8; 4]| { v4(&V4 { from: ip.into(), ..plain() }) };
    let to = |ip: [u8; 4]| { v4(&V4 { to: ip.into(), ..plain() }) };
    rows.drop(Ipv4Martian, "from loopback", from([127, 0, 0, 1]));
    rows.drop(Ipv4Martian, "from a group", from([224, 0, 0, 1]));
    rows.drop(Ipv4Martian, "from broadcast", from([255; 4]));
    rows.drop(Ipv4Martian, "to loopback", to([127, 255, 255, 255]));
    rows.drop(Ipv4Martian, "to 0.0.0.0", to([0; 4]));
    rows.drop(Ipv4Martian, "to 0.1.2.3", to([0, 1, 2, 3]));
    rows.drop(Ipv4Martian, "to class E", to([240, 0, 0, 1]));
    rows.drop(Ipv4Martian, "to 255.255.255.254", to([255, 255, 255, 254]));
    rows.drop(Ipv4Source, "from class E, which is reserved", from([240, 0, 0, 1]));

    rows.row = "IPv4 3";
    let loose = [131, 7, 4, 10, 0, 0, 12];
    let strict = [137, 7, 4, 10, 0, 0, 12];
    rows.drop(Ipv4SourceRoute, "loose", v4(&with_options(&loose)));
    rows.drop(Ipv4SourceRoute, "strict", v4(&with_options(&strict)));
    rows.drop(Ipv4SourceRoute, "behind other options",
        v4(&with_options(&[&[1, 148, 4, 0, 0], &loose[..]].concat())));
    rows.forward(1, "behind the end of the options",
        v4(&with_options(&[&[0], &loose[..]].concat())));
    rows.drop(Ipv4Malformed, "but an option behind it runs over",
        v4(&with_options(&[&loose[..], &[7, 9, 4, 0, 0]].concat())));

    rows.row = "IPv4 4";
    let fragment = |protocol, fragment, payload| V4 { protocol, fragment, payload, ..plain() };
    let segment = tcp(1, 2, 5, b"data");
    rows.drop(Ipv4Fragment, "TCP at offset 1", v4(&fragment(6, 1, segment.clone())));
    rows.drop(Ipv4Fragment, "TCP at offset 1, more to follow",
        v4(&fragment(6, MORE_FRAGMENTS | 1, segment.clone())));
    rows.forward(1, "TCP at offset 2", v4(&fragment(6, 2, segment.clone())));
    rows.forward(1, "UDP at offset 1", v4(&fragment(17, 1, vec![0; 3])));
    for length in [0, 13, 19] {
        let cut = segment[..length].to_vec();
        rows.drop(Ipv4Malformed, "TCP cut off", v4(&fragment(6, 0, cut.clone())));
        rows.drop(Ipv4Fragment, "TCP's first fragment cut off",
            v4(&fragment(6, MORE_FRAGMENTS, cut)));
    }
    rows.drop(Ipv4Malformed, "TCP whose options are cut off",
        v4(&fragment(6, 0, tcp(1, 2, 8, b"")[..28].to_vec())));
    rows.drop(Ipv4Fragment, "TCP's first fragment whose options are cut off",
        v4(&fragment(6, MORE_FRAGMENTS, tcp(1, 2, 8, b"")[..24].to_vec())));
    rows.drop(Ipv4Malformed, "TCP with a header of four words",
        v4(&fragment(6, 0, tcp(1, 2, 4, b"data"))));
    rows.forward(1, "TCP with options", v4(&fragment(6, DONT_FRAGMENT, tcp(1, 2, 8, b"data"))));
    rows.drop(Ipv4Malformed, "UDP cut off", v4(&fragment(17, 0, vec![0; 7])));
    rows.drop(Ipv4Fragment, "UDP's first fragment cut off",
        v4(&fragment(17, MORE_FRAGMENTS, vec![0; 7])));
    rows.drop(Ipv4Malformed, "ICMP cut off", v4(&fragment(1, 0, vec![8; 7])));
    rows.drop(Ipv4Fragment, "ICMP's first fragment cut off",
        v4(&fragment(1, MORE_FRAGMENTS, vec![8; 7])));
    rows.forward(1, "an unknown protocol without a byte", v4(&fragment(253, 0, vec![])));

    rows.drop(Ipv4Fragment, "one that ends beyond 65535 bytes",
        v4(&fragment(17, 8191, vec![0; 8])));
    rows.forward(1, "one that ends there", v4(&fragment(17, 8191, vec![0; 7])));

    rows.row = "IPv4 5";
    let dhcp = |message: Vec<u8>| V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &message));
    let broadcast = |packet: &V4| ethernet(BROADCAST, VM1, IPV4, &packet.bytes());
    let discover = dhcp(bootp(1, VM1));
    rows.forward(2, "a DHCP client's message", broadcast(&discover));
    rows.forward(2, "a DHCP client's message in an Ethernet unicast", v4(&discover));
    let changed = |at: usize, value: u8| {
        let mut message = bootp(1, VM1);
        message[at] = value;
        broadcast(&dhcp(message))
    };
    rows.drop(DhcpClient, "for the sibling's MAC", broadcast(&dhcp(bootp(1, VM2))));
    rows.drop(DhcpClient, "a reply", broadcast(&dhcp(bootp(2, VM1))));
    rows.drop(DhcpClient, "hardware type 6", changed(1, 6));
    rows.drop(DhcpClient, "hardware length 16", changed(2, 16));
    rows.drop(DhcpClient, "without the cookie", changed(239, 0));
    rows.drop(DhcpClient, "by way of a relay", changed(27, 9));
    rows.drop(DhcpClient, "of 239 bytes", broadcast(&dhcp(bootp(1, VM1)[..239].to_vec())));
    rows.drop(DhcpClient, "from another port", {
        let payload = udp(67, 67, &bootp(1, VM1));
        broadcast(&V4 {
            payload,
            ..discover.clone()
        })
    });
    rows.drop(DhcpClient, "to another port", {
        let payload = udp(68, 53, &bootp(1, VM1));
        broadcast(&V4 {
            payload,
            ..discover.clone()
        })
    });
    rows.drop(DhcpClient, "its first fragment",
        broadcast(&V4 { fragment: MORE_FRAGMENTS, ..discover.clone() }));
    rows.drop(DhcpClient, "a later fragment", broadcast(&V4 { fragment: 4, ..discover.clone() }));
    rows.drop(Ipv4Source, "0.0.0.0 to one station", v4(&V4 { to: IP2, ..discover.clone() }));
    rows.drop(Ipv4Source, "0.0.0.0 by TCP",
        broadcast(&V4 { protocol: 6, payload: tcp(1, 2, 5, b""), ..discover.clone() }));

    rows.row = "IPv4 6";
    rows.drop(Ipv4Source, "the sibling's", v4(&V4 { from: IP2, ..plain() }));
    rows.drop(Ipv4Source, "the gateway's", v4(&V4 { from: GATEWAY, ..plain() }));
    rows.drop(Ipv4Source, "an unowned address of the subnet", v4(&V4 { from: UNOWNED, ..plain() }));
    rows.drop(Ipv4Source, "an external one", v4(&V4 { from: EXTERNAL, ..plain() }));
    rows.drop(Ipv4Source, "a forged later fragment",
        v4(&V4 { from: IP2, fragment: 100, ..plain() }));
    rows.on(configs::three(), 1);
    let of_vm2 = |from: [u8; 4]| {
        let packet = V4::new(from.into(), IP1, 17, udp(1000, 2000, b"hello"));
        ethernet(GW, VM2, IPV4, &packet.bytes())
    };
    rows.forward(0, "the first of a prefix", of_vm2([10, 0, 0, 64]));
    rows.forward(0, "the last of a prefix", of_vm2([10, 0, 0, 79]));
    rows.drop(Ipv4Source, "one before the prefix", of_vm2([10, 0, 0, 63]));
    rows.drop(Ipv4Source, "one behind the prefix", of_vm2([10, 0, 0, 80]));
    rows.forward(0, "a prefix beside the gateway's subnet", of_vm2([172, 16, 255, 255]));

    rows.on(configs::three(), 0);
    rows.row = "IPv4 7";
    let datagram = |from, to, payload: &[u8]| V4 { payload: udp(from, to, payload), ..plain() };
    rows.drop(DhcpServer, "from port 67", v4(&datagram(67, 9, b"")));
    rows.drop(DhcpServer, "the first fragment from port 67",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(67, 9, b"") }));
    rows.drop(DhcpServer, "a BOOTREPLY to port 68", v4(&datagram(9, 68, &bootp(2, VM2))));
    rows.drop(DhcpServer, "a first fragment to port 68",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(9, 68, &[1; 8]) }));
    rows.forward(1, "a client's own message to one server", v4(&datagram(68, 67, &bootp(1, VM1))));
    rows.drop(DhcpClient, "the sibling's release", v4(&datagram(68, 67, &bootp(1, VM2))));
    rows.drop(DhcpClient, "to port 67 from another port", v4(&datagram(9, 67, &bootp(1, VM1))));
    rows.drop(DhcpClient, "a first fragment to port 67",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(68, 67, &bootp(1, VM1)) }));
    rows.forward(1, "no BOOTREPLY to port 68", v4(&datagram(9, 68, &[1, 2])));
    rows.forward(1, "nothing to port 68", v4(&datagram(9, 68, b"")));
    rows.forward(1, "a later fragment whose bytes look so",
        v4(&V4 { fragment: 8, ..datagram(67, 68, &[2]) }));
    rows.on(configs::three(), 2);
    rows.forward(0, "by the DHCP server", {
        let packet = V4::new(IP3, IP1, 17, udp(67, 68, &bootp(2, VM1)));
        ethernet(GW, VM3, IPV4, &packet.bytes())
    });

    rows.row = "IPv4 8";
    rows.on(configs::three(), 0);
    rows.drop(Redirect, "an ICMP redirect", v4(&V4::new(IP1, IP2, 1, icmp(5, 1, ECHO))));
    rows.drop(RouterAdvertisement, "an ICMP router advertisement",
        v4(&V4::new(IP1, IP2, 1, icmp(9, 0, ECHO))));

    rows.row = "IPv4 9";
    for protocol in [4, 41, 47] {
        rows.on(configs::three(), 1);
        let packet = V4::new(IP2, IP1, protocol, plain().bytes());
        rows.drop(DropReason::Encapsulation, "a tunnel", ethernet(GW, VM2, IPV4, &packet.bytes()));
        rows.drop(DropReason::Encapsulation, "a later fragment of a tunnel",
            ethernet(GW, VM2, IPV4, &V4 { fragment: 9, ..packet }.bytes()));
        rows.on(configs::three(), 0);
        rows.forward(1, "a tunnel that is not denied",
            v4(&V4 { protocol, payload: plain().bytes(), ..plain() }));
    }
    rows.on(configs::three(), 1);
    for (from, to) in [(3544, 9), (9, 3544)] {
        let packet = V4::new(IP2, IP1, 17, udp(from, to, b"teredo"));
        rows.drop(DropReason::Encapsulation, "Teredo", ethernet(GW, VM2, IPV4, &packet.bytes()));
        rows.forward(0, "a later fragment that looks like Teredo",
            ethernet(GW, VM2, IPV4, &V4 { fragment: 9, ..packet }.bytes()));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn ipv6_rows(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 1";
    let good = v6(&plain6());
    rows.forward(1, "a plain packet", good.clone());
    rows.drop(Ipv6Malformed, "no byte of it", good[..14].to_vec());
    rows.drop(Ipv6Malformed, "39 bytes", good[..53].to_vec());
    rows.drop(Ipv6Malformed, "version 4", {
        let mut frame = good.clone();
        frame[14] = 0x45;
        frame
    });
    rows.drop(Ipv6Malformed, "one byte short of its length", good[..good.len() - 1].to_vec());
    rows.forward(1, "padding", [good.clone(), vec![0xaa; 9]].concat());

    rows.row = "IPv6 2";
    let headers = |count: usize| (0..count).fold(plain6(), |packet,
        _| packet.with(60, padding_options(0)));
    rows.forward(1, "eight extension headers", v6(&headers(8)));
    rows.drop(Ipv6Chain, "a ninth", v6(&headers(9)));
    rows.forward(1, "one of each kind", {
        v6(&plain6()
            .with(0, padding_options(0))
            .with(60, padding_options(1))
            .with(43, routing(4))
            .with(44, fragment_header(0, false))
            .with(51, authentication())
            .with(135, padding_options(0))
            .with(139, padding_options(4))
            .with(140, padding_options(0)))
    });
    rows.drop(Ipv6Chain, "hop-by-hop behind another",
        v6(&plain6().with(60, padding_options(0)).with(0, padding_options(0))));
    rows.drop(Ipv6Chain, "two fragment headers",
        v6(&plain6().with(44, fragment_header(0, true)).with(44, fragment_header(0, false))));
    rows.drop(Ipv6Chain, "a routing header of type 0", v6(&plain6().with(43, routing(0))));
    rows.forward(1, "a routing header of type 2", v6(&plain6().with(43, routing(2))));
    for upper in [132, 33, 136, 50, 47, 4, 41, 89, 103, 112, 46, 97, 108, 59] {
        rows.forward(1, "an upper layer without a byte",
            v6(&V6 { upper, payload: vec![], ..plain6() }));
    }
    for upper in [1, 2, 3, 61, 138, 141, 200, 253, 255] {
        rows.drop(Ipv6Chain, "an unknown header", v6(&V6 { upper, ..plain6() }));
    }
    rows.drop(Ipv6Chain, "an unknown header behind others", v6(&V6 { upper: 253, ..headers(3) }));
    let cut = |packet: &V6, left: usize| {
        let mut packet = packet.clone();
        packet.payload.truncate(left);
        packet
    };
    let of_tcp = V6 { upper: 6, payload: tcp(1, 2, 8, b"data"), ..plain6() };
    let first = |packet: &V6| packet.clone().with(44, fragment_header(0, true));
    let atomic = |packet: &V6| packet.clone().with(44, fragment_header(0, false));
    for (name, packet) in [
        ("UDP cut off", cut(&plain6(), 7)),
        ("TCP cut off", cut(&of_tcp, 19)),
        ("TCP whose options are cut off", cut(&of_tcp, 31)),
        (
            "TCP with a header of four words",
            V6 {
                payload: tcp(1, 2, 4, b"data"),
                ..of_tcp.clone()
            },
        ),
        (
            "ICMPv6 cut off",
            V6 {
                upper: 58,
                payload: vec![128, 0, 0],
                ..plain6()
            },
        ),
        (
            "a cut-off header",
            V6 {
                upper: 60,
                payload: vec![17, 0, 1, 4, 0, 0, 0],
                ..plain6()
            },
        ),
        (
            "a header longer than the packet",
            V6 {
                upper: 60,
                payload: vec![17, 1, 1, 4, 0, 0, 0, 0],
                ..plain6()
            },
        ),
        (
            "a header that is announced only",
            V6 {
                upper: 60,
                payload: vec![],
                ..plain6()
            },
        ),
    ] {
        rows.drop(Ipv6Malformed, name, v6(&packet));
        rows.drop(Ipv6Malformed, name, v6(&atomic(&packet)));
        rows.drop(Ipv6Fragment, name, v6(&first(&packet)));
    }
    rows.drop(Ipv6Malformed, "a cut-off fragment header",
        v6(&V6 { upper: 44, payload: vec![17, 0, 0, 1, 0, 0, 0], ..plain6() }));
    rows.drop(Ipv6Malformed, "a length of zero", {
        let mut frame = good.clone();
        frame[18..20].fill(0);
        frame
    });
    rows.forward(1, "anything behind a fragment header with an offset",
        v6(&V6 { upper: 253, payload: vec![0; 3], ..plain6() }.with(44,
            fragment_header(1, false))));
    rows.forward(1, "a whole first fragment", v6(&first(&of_tcp)));

    rows.row = "IPv6 3";
    let from = |ip| { v6(&V6 { from: ip, ..plain6() }) };
    rows.drop(Ipv6Source, "the sibling's", from(inner(0x12)));
    rows.drop(Ipv6Source, "the gateway's", from(inner(1)));
    rows.drop(Ipv6Source, "the gateway's link-local", from(link_local(GW)));
    rows.drop(Ipv6Source, "the sibling's link-local", from(link_local(VM2)));
    rows.drop(Ipv6Source, "loopback", from(Ipv6Addr::LOCALHOST));
    rows.drop(Ipv6Source, "a group", from(ALL_NODES));
    rows.drop(Ipv6Source, "unspecified, by UDP", from(ANY6));
    rows.drop(Ipv6Source, "the own IPv4 address, mapped", from(IP1.to_ipv6_mapped()));
    rows.forward(1, "the own link-local", from(link_local(VM1)));
    rows.on(configs::three(), 1);
    rows.forward(0, "one of a prefix", {
        let packet = V6::new(
            "fd00:0:0:2::ffff".parse().expect("an address"),
            inner(0x11),
            59,
            vec![],
        );
        ethernet(GW, VM2, IPV6, &packet.bytes())
    });
    rows.on(configs::three(), 0);
    let report = icmpv6(143, 0, &[0, 0, 0, 0]);
    rows.drop(Ipv6Source, "unspecified, in a fragment",
        v6_group(&V6::icmp(ANY6, MLD_ROUTERS, report.clone()).with(44, fragment_header(0, false))));
    rows.drop(Ipv6Source, "unspecified, in an echo request",
        v6(&V6::icmp(ANY6, inner(1), icmpv6(128, 0, ECHO))));
    rows.drop(Ipv6Source, "unspecified, in an advertisement", {
        let na = neighbor(136, 0, inner(0x11), &[]);
        v6_group(&V6::icmp(ANY6, ALL_NODES, na))
    });

    rows.row = "IPv6 4";
    rows.drop(Dhcpv6Server, "from port 547", v6(&V6 { payload: udp(547, 546, b""), ..plain6() }));
    rows.drop(Dhcpv6Server, "to port 546", v6(&V6 { payload: udp(9, 546, b""), ..plain6() }));
    rows.drop(Dhcpv6Server, "from port 547, behind other headers",
        v6(&V6 { payload: udp(547, 546, b""), ..headers(2) }));
    rows.on(configs::three(), 2);
    rows.forward(0, "by the DHCP server", {
        let packet = V6::new(inner(0x13), inner(0x11), 17, udp(547, 546, b"reply"));
        ethernet(GW, VM3, IPV6, &packet.bytes())
    });

    rows.on(configs::three(), 0);
    rows.row = "IPv6 6";
    for kind in [138, 151, 153] {
        rows.drop(RouterAdvertisement, "another router's message",
            v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(kind, 0, &[0; 20]))));
    }
    for kind in [141, 142] {
        rows.drop(NdSpoof, "inverse ND",
            v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(kind, 0, &[0; 20]))));
    }

    rows.row = "IPv6 5";
    rows.on(configs::three(), 1);
    let of_vm2 = |packet: &V6| ethernet(GW, VM2, IPV6, &packet.bytes());
    let tunnel = |upper| V6::new(inner(0x12), inner(0x11), upper, plain().bytes());
    for upper in [4, 41, 47] {
        rows.drop(DropReason::Encapsulation, "a tunnel", of_vm2(&tunnel(upper)));
        rows.drop(DropReason::Encapsulation, "a tunnel behind other headers",
            of_vm2(&tunnel(upper).with(60, padding_options(0))));
    }
    for (from, to) in [(3544, 9), (9, 3544)] {
        let packet = V6::new(inner(0x12), inner(0x11), 17, udp(from, to, b""));
        rows.drop(DropReason::Encapsulation, "Teredo", of_vm2(&packet));
    }
    rows.on(configs::three(), 0);
    rows.forward(1, "a tunnel that is not denied", v6(&V6 { upper: 41, ..plain6() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn nd_rows(rows: &mut Rows) {
    let own = inner(0x11);
    let gateway = inner(1);
    let source = link_layer(1, VM1);
    let target = link_layer(2, VM1);
    let ns = |options: &[Vec<u8>]| neighbor(135, 0, gateway, options);
    let solicit = |message| V6::icmp(own, solicited_node(gateway), message);
    let good = solicit(ns(std::slice::from_ref(&source)));

    rows.on(configs::three(), 0);
    rows.row = "IPv6 6, nd-malformed";
    rows.reply("a good solicitation", v6_group(&good));
    rows.drop(NdMalformed, "in an atomic fragment",
        v6_group(&good.clone().with(44, fragment_header(0, false))));
    rows.drop(NdMalformed, "in a first fragment",
        v6_group(&good.clone().with(44, fragment_header(0, true))));
    rows.drop(NdMalformed, "over a router", v6_group(&V6 { hop_limit: 254, ..good.clone() }));
    rows.reply("behind a hop-by-hop header", v6_group(&good.clone().with(0, padding_options(0))));
    rows.drop(NdMalformed, "with a code", {
        let mut message = ns(&[]);
        message[1] = 1;
        v6_group(&solicit(message))
    });
    let of = |message| v6_group(&V6::icmp(own, ALL_NODES, message));
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
            neighbor(136, 0, own, &[]),
            24,
        ),
        ("a cut-off Redirect", redirect(own, own), 40),
    ] {
        assert_eq!(message.len(), fixed);
        for length in [4, fixed - 1] {
            rows.drop(NdMalformed, name, of(message[..length].to_vec()));
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
        v6_group(&solicit(ns(&[[&[14, 2][..], &[7; 14]].concat(), source.clone()]))));
    rows.drop(NdMalformed, "a solicitation for a group", of(neighbor(135, 0, ALL_NODES, &[])));
    rows.drop(NdMalformed, "an advertisement of a group", of(neighbor(136, 0, ALL_NODES, &[])));
    rows.drop(NdMalformed, "a wrong checksum", {
        let mut frame = v6_group(&good);
        frame[56] ^= 1;
        frame
    });

    rows.row = "IPv6 6, router-advertisement and redirect";
    rows.drop(RouterAdvertisement, "a rogue router",
        of(router_advertisement(&[link_layer(1, VM1)])));
    rows.drop(RouterAdvertisement, "a rogue router from its link-local",
        v6_group(&V6::icmp(link_local(VM1), ALL_NODES, router_advertisement(&[]))));
    rows.drop(
        RouterAdvertisement,
        "a rogue router behind destination options",
        {
            let packet = V6::icmp(own, ALL_NODES, router_advertisement(&[]));
            v6_group(&packet.with(60, padding_options(0)))
        },
    );
    rows.drop(Redirect, "a redirect", of(redirect(own, inner(0x12))));

    rows.row = "IPv6 6, nd-spoof";
    rows.drop(NdSpoof, "a solicitation with the sibling's MAC",
        v6_group(&solicit(ns(&[link_layer(1, VM2)]))));
    rows.drop(NdSpoof, "a solicitation with the sibling's MAC second",
        v6_group(&solicit(ns(&[source.clone(), link_layer(1, VM2)]))));
    let detect = |target: Ipv6Addr, to: Ipv6Addr, options: &[Vec<u8>]| {
        v6_group(&V6::icmp(ANY6, to, neighbor(135, 0, target, options)))
    };
    let sibling = inner(0x12);
    rows.drop(NdSpoof, "duplicate detection of the sibling's",
        detect(sibling, solicited_node(sibling), &[]));
    rows.drop(NdSpoof, "duplicate detection to another group", detect(own, ALL_NODES, &[]));
    rows.drop(NdSpoof, "duplicate detection with a link-layer option",
        detect(own, solicited_node(own), std::slice::from_ref(&source)));
    let advertise = |flags, address,
        options: &[Vec<u8>]| of(neighbor(136, flags, address, options));
    rows.drop(NdSpoof, "an advertisement of the sibling's", advertise(0x20, sibling, &[]));
    rows.drop(NdSpoof, "an advertisement of the gateway's",
        advertise(0x20, gateway, std::slice::from_ref(&target)));
    rows.drop(NdSpoof, "an advertisement with the sibling's MAC",
        advertise(0x20, own, &[link_layer(2, VM2)]));
    rows.drop(NdSpoof, "an advertisement as a router",
        advertise(0xa0, own, std::slice::from_ref(&target)));
    rows.drop(NdSpoof, "a Router Solicitation with the sibling's MAC",
        v6_group(&V6::icmp(own, ALL_ROUTERS, router_solicitation(&[link_layer(1, VM2)]))));
    rows.drop(NdSpoof, "a Router Solicitation from :: with a MAC",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(std::slice::from_ref(&source)))));

    rows.row = "IPv6 6, mld-query";
    rows.drop(MldQuery, "a query", of(icmpv6(130, 0, &[0; 20])));

    rows.row = "ND service";
    rows.drop(Absorbed, "an advertisement of the own address",
        advertise(0x60, own, std::slice::from_ref(&target)));
    rows.drop(Absorbed, "an advertisement of the own link-local",
        advertise(0x20, link_local(VM1), &[]));
    for kind in [131, 132, 143] {
        rows.drop(Absorbed, "an MLD report", of(icmpv6(kind, 0, &[0; 20])));
        rows.drop(Absorbed, "an MLD report from ::",
            v6_group(&V6::icmp(ANY6, MLD_ROUTERS, icmpv6(kind, 0, &[0; 20]))));
    }
    rows.drop(Absorbed, "duplicate detection", detect(own, solicited_node(own), &[]));
    rows.drop(Absorbed, "duplicate detection of the link-local",
        detect(link_local(VM1), solicited_node(link_local(VM1)), &[]));
    rows.drop(Absorbed, "a solicitation for the own address",
        v6_group(&V6::icmp(own, solicited_node(own), neighbor(135, 0, own, &[]))));
    let asks = |target| { v6_group(&V6::icmp(own, solicited_node(target),
        neighbor(135, 0, target, &[]))) };
    rows.reply("a solicitation for the gateway's link-local", asks(link_local(GW)));
    rows.reply("a solicitation for the sibling", asks(sibling));
    rows.reply("a solicitation for an external address", asks(EXTERNAL6));
    rows.reply("a solicitation to one station",
        v6(&V6::icmp(link_local(VM1), gateway, ns(std::slice::from_ref(&source)))));
    rows.drop(NdUnknown, "a solicitation for an unowned address of the subnet", asks(inner(0x99)));
    rows.drop(NdUnknown, "a solicitation for the underlay", asks(NEXT_HOP6));
    rows.drop(NdUnknown, "a solicitation for the sibling's link-local", asks(link_local(VM2)));
    rows.drop(NdUnknown, "a solicitation for ::", asks(ANY6));
    rows.drop(NdUnknown, "a solicitation for ::1", asks(Ipv6Addr::LOCALHOST));
    rows.reply("a Router Solicitation",
        v6_group(&V6::icmp(link_local(VM1), ALL_ROUTERS,
            router_solicitation(std::slice::from_ref(&source)))));
    rows.reply("a Router Solicitation from ::",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(&[]))));
    rows.on(configs::ipv4(), 0);
    rows.drop(Absorbed, "a Router Solicitation where there is no IPv6",
        v6_group(&V6::icmp(ANY6, ALL_ROUTERS, router_solicitation(&[]))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn route_rows(rows: &mut Rows) {
    let echo = |to| V4::new(IP1, to, 1, icmp(8, 0, ECHO));
    let echo6 = |to| V6::icmp(inner(0x11), to, icmpv6(128, 0, ECHO));
    let broadcast = |packet: &V4| ethernet(BROADCAST, VM1, IPV4, &packet.bytes());
    let discover = V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &bootp(1, VM1)));

    rows.row = "Route 1";
    rows.on(configs::lone(), 0);
    rows.drop(DhcpNoServer, "a client without a server", broadcast(&discover));
    rows.on(configs::inside(), 0);
    rows.forward(1, "a server as the client of the other", broadcast(&discover));
    rows.on(configs::three(), 2);
    let offer = |client| {
        let packet = V4::new(IP3, Ipv4Addr::BROADCAST, 17, udp(67, 68, &bootp(2, client)));
        ethernet(BROADCAST, VM3, IPV4, &packet.bytes())
    };
    rows.forward(1, "a server's broadcast goes to its client alone", offer(VM2));
    rows.drop(DhcpNoServer, "a server's reply to no port's MAC", offer(ROUTER));
    rows.drop(DhcpNoServer, "a server's reply to itself", offer(VM3));
    let from_server = |packet: V4| ethernet(GW, VM3, IPV4, &packet.bytes());
    rows.drop(DhcpNoServer, "a server's reply without the cookie",
        from_server(V4::new(IP3, IP2, 17, udp(67, 68, &bootp(2, VM2)[..236]))));
    let reply = V4::new(IP3, IP2, 17, udp(67, 68, &bootp(2, VM1)));
    rows.forward(0, "a server's reply goes by its chaddr", from_server(reply.clone()));
    rows.forward(1, "a fragment of it goes by its address",
        from_server(V4 { fragment: MORE_FRAGMENTS, ..reply }));
    rows.drop(Multicast, "from 67 to 68, but no BOOTREPLY", {
        let packet = V4::new(IP3, Ipv4Addr::BROADCAST, 17, udp(67, 68, &bootp(1, VM2)));
        ethernet(BROADCAST, VM3, IPV4, &packet.bytes())
    });

    rows.on(configs::three(), 0);
    rows.row = "Route 2";
    rows.reply("an echo request", v4(&echo(GATEWAY)));
    rows.reply("an echo request by IPv6", v6(&echo6(inner(1))));
    rows.reply("an echo request to the link-local address",
        v6(&V6::icmp(link_local(VM1), link_local(GW), icmpv6(128, 0, ECHO))));
    rows.drop(GatewayService, "a fragment of an echo request",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..echo(GATEWAY) }));
    rows.drop(GatewayService, "an echo reply",
        v4(&V4 { payload: icmp(0, 0, ECHO), ..echo(GATEWAY) }));
    rows.drop(GatewayService, "TCP", v4(&V4::new(IP1, GATEWAY, 6, tcp(1000, 22, 5, b""))));
    rows.error(GatewayService, "UDP", v4(&V4 { to: GATEWAY, ..plain() }));
    rows.error(GatewayService, "UDP by IPv6", v6(&V6 { to: inner(1), ..plain6() }));
    rows.drop(GatewayService, "a later fragment of UDP",
        v4(&V4 { to: GATEWAY, fragment: 7, ..plain() }));
    rows.drop(GatewayService, "UDP in an Ethernet broadcast",
        broadcast(&V4 { to: GATEWAY, ..plain() }));
    rows.drop(LinkLocalIp, "the link-local address at another port",
        v6(&echo6(link_local([2, 0, 0x13, 0x89, 0, 2]))));

    rows.row = "Route 3";
    rows.drop(Multicast, "mDNS", {
        let packet = V4 {
            to: [224, 0, 0, 251].into(),
            ..plain()
        };
        ethernet([1, 0, 0x5e, 0, 0, 0xfb], VM1, IPV4, &packet.bytes())
    });
    rows.drop(Multicast, "a group in an Ethernet unicast",
        v4(&V4 { to: [239, 1, 1, 1].into(), ..plain() }));
    rows.drop(Multicast, "broadcast", broadcast(&V4 { to: Ipv4Addr::BROADCAST, ..plain() }));
    rows.drop(Multicast, "the subnet's broadcast",
        broadcast(&V4 { to: [10, 0, 0, 255].into(), ..plain() }));
    rows.drop(Multicast, "an IPv6 group", v6_group(&V6 { to: ALL_NODES, ..plain6() }));

    rows.row = "Route 4";
    rows.drop(LinkLocalIp, "the metadata service's address",
        v4(&V4 { to: [169, 254, 169, 254].into(), ..plain() }));
    rows.drop(LinkLocalIp, "the sibling's link-local", v6(&V6 { to: link_local(VM2), ..plain6() }));
    rows.drop(LinkLocalIp, "the end of fe80::/10",
        v6(&V6 { to: Ipv6Addr::new(0xfebf, 0, 0, 0, 0, 0, 0, 1), ..plain6() }));
    rows.drop(RouteNone, "to ::", v6(&V6 { to: ANY6, ..plain6() }));
    rows.drop(RouteNone, "an IPv4 address as IPv6",
        v6(&V6 { to: EXTERNAL.to_ipv6_mapped(), ..plain6() }));
    rows.drop(RouteNone, "to ::1", v6(&V6 { to: Ipv6Addr::LOCALHOST, ..plain6() }));

    rows.row = "Route 5";
    rows.drop(DstMac, "the sibling's address in a broadcast", broadcast(&plain()));
    rows.drop(DstMac, "an external address in a group",
        ethernet(group_mac(ALL_NODES), VM1, IPV6, &V6 { to: EXTERNAL6, ..plain6() }.bytes()));

    rows.row = "Route 6";
    rows.error(RouteNone, "the own address", v4(&V4 { to: IP1, ..plain() }));
    rows.error(RouteNone, "an unowned address of the subnet", v4(&V4 { to: UNOWNED, ..plain() }));
    rows.error(RouteNone, "an unowned address of the IPv6 subnet",
        v6(&V6 { to: inner(0x99), ..plain6() }));
    rows.error(RouteNone, "the first fragment for an unowned address",
        v4(&V4 { to: UNOWNED, fragment: MORE_FRAGMENTS, ..plain() }));
    rows.drop(RouteNone, "a later fragment for an unowned address",
        v4(&V4 { to: UNOWNED, fragment: 9, ..plain() }));
    for kind in [3, 4, 11, 12] {
        rows.drop(RouteNone, "an ICMP error for an unowned address",
            v4(&V4 { payload: icmp(kind, 0, ECHO), ..echo(UNOWNED) }));
    }
    rows.drop(RouteNone, "an ICMPv6 error for an unowned address",
        v6(&V6::icmp(inner(0x11), inner(0x99), icmpv6(1, 0, ECHO))));
    rows.error(RouteNone, "an echo request for an unowned address", v4(&echo(UNOWNED)));
    rows.drop(Underlay, "the next hop", v4(&V4 { to: NEXT_HOP, ..plain() }));
    rows.drop(Underlay, "the uplink's own address", v4(&V4 { to: UPLINK_IP, ..plain() }));
    rows.drop(Underlay, "the underlay by IPv6", v6(&V6 { to: NEXT_HOP6, ..plain6() }));
    rows.forward(3, "the hole in the underlay", v4(&V4 { to: [192, 0, 2, 200].into(), ..plain() }));
    rows.forward(1, "within the sibling's prefix",
        v4(&V4 { to: [172, 16, 1, 1].into(), ..plain() }));
    rows.forward(3, "an external address", v4(&V4 { to: EXTERNAL, ..plain() }));
    rows.forward(3, "an external address by IPv6", v6(&V6 { to: EXTERNAL6, ..plain6() }));
    rows.on(configs::lone(), 0);
    rows.error(RouteNone, "an external address, without an uplink",
        v4(&V4 { to: EXTERNAL, ..plain() }));

    rows.on(configs::three(), 0);
    rows.row = "Route 7";
    rows.drop(LinkLocalIp, "a link-local source",
        v6(&V6 { from: link_local(VM1), to: EXTERNAL6, ..plain6() }));
    for ttl in [0, 1] {
        rows.error(DropReason::Ttl, "TTL spent", v4(&V4 { to: EXTERNAL, ttl, ..plain() }));
        rows.error(DropReason::Ttl, "hop limit spent",
            v6(&V6 { to: EXTERNAL6, hop_limit: ttl, ..plain6() }));
        rows.forward(1, "TTL between siblings", v4(&V4 { ttl, ..plain() }));
    }
    rows.forward(3, "TTL 2", v4(&V4 { to: EXTERNAL, ttl: 2, ..plain() }));

    rows.row = "Route 8";
    let sized = |to, length: usize| V4 { to, payload: udp(1, 2, &vec![0; length - 28]), ..plain() };
    rows.forward(2, "as large as the sibling's link", v4(&sized(IP3, 1300)));
    rows.error(DropReason::Mtu, "one byte larger", v4(&sized(IP3, 1301)));
    rows.error(DropReason::Mtu, "one byte larger by IPv6",
        v6(&V6 { to: inner(0x13), payload: udp(1, 2, &[0; 1301 - 48]), ..plain6() }));
    rows.forward(2, "as large, with padding beyond", [v4(&sized(IP3, 1300)), vec![0; 7]].concat());

    let discover = |length: usize| {
        let mut message = bootp(1, VM1);
        message.resize(length - 28, 0);
        broadcast(&V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &message)))
    };
    rows.forward(2, "a DHCP client's message as large as the server's link", discover(1300));
    rows.drop(DropReason::Mtu, "a DHCP client's message one byte larger", discover(1301));

    rows.row = "Route 9";
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "an external address", v4(&V4 { to: EXTERNAL, ..plain() }));
    rows.drop(NeighbourUnresolved, "an external address by IPv6",
        v6(&V6 { to: EXTERNAL6, ..plain6() }));
    rows.forward(1, "the sibling, all the same", v4(&plain()));
    rows.resolved = true;
}

#[rustfmt::skip] // A table: one frame a statement.
fn uplink_rows(rows: &mut Rows) {
    let from_router = |ethertype, payload: &[u8]| ethernet(UPLINK, ROUTER, ethertype, payload);
    let v4 = |packet: &V4| from_router(IPV4, &packet.bytes());
    let v6 = |packet: &V6| from_router(IPV6, &packet.bytes());
    let inbound = V4::new(EXTERNAL, IP1, 17, udp(53, 1000, b"answer"));
    let inbound6 = V6::new(EXTERNAL6, inner(0x11), 17, udp(53, 1000, b"answer"));

    rows.on(configs::three(), 3);
    rows.row = "Uplink 1";
    rows.forward(0, "an answer", v4(&inbound));
    rows.forward(0, "an answer by IPv6", v6(&inbound6));
    rows.drop(Malformed, "thirteen bytes", v4(&inbound)[..13].to_vec());
    rows.drop(Malformed, "too long", [v4(&inbound), vec![0; 1500]].concat());
    rows.drop(SrcMacGroup, "from a group", ethernet(UPLINK, BROADCAST, IPV4, &inbound.bytes()));
    rows.drop(VlanTag, "a tag", tagged(&v4(&inbound), 0x8100, 100));
    rows.add("a tag in the metadata", Some(100), v4(&inbound), Expect::Drop(VlanTag));
    rows.drop(Llc, "LLC", from_router(38, &[0x42, 0x42, 3]));
    rows.drop(LinkLocalL2, "LLDP", from_router(0x88cc, &[0; 46]));
    rows.drop(Rarp, "RARP", from_router(RARP, &arp(3, ZERO, ZERO).bytes()));
    rows.drop(EtherType, "MPLS", from_router(0x8847, &[0; 46]));
    rows.on(configs::trunk(), 3);
    rows.drop(DstMac, "another station's, where the device does not filter",
        ethernet(VM1, ROUTER, IPV4, &inbound.bytes()));
    rows.forward(0, "the own MAC, where the device does not filter", v4(&inbound));

    rows.on(configs::three(), 3);
    rows.row = "Uplink 2";
    let of_router = |opcode, sender,
        target| Arp { sender_mac: ROUTER, ..arp(opcode, sender, target) };
    rows.drop(ArpMalformed, "cut off",
        from_router(ARP, &of_router(1, NEXT_HOP, UPLINK_IP).bytes()[..27]));
    rows.drop(ArpSenderMac, "another's hardware address",
        from_router(ARP, &arp(2, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(Absorbed, "the next hop's reply",
        from_router(ARP, &of_router(2, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(Absorbed, "the next hop's announcement",
        from_router(ARP, &of_router(1, NEXT_HOP, NEXT_HOP).bytes()));
    rows.reply("a request for the uplink's address",
        from_router(ARP, &of_router(1, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "a stranger's announcement of the uplink's address",
        from_router(ARP, &of_router(1, UPLINK_IP, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "another's reply",
        from_router(ARP, &of_router(2, EXTERNAL, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "a request for a port's address",
        from_router(ARP, &of_router(1, NEXT_HOP, IP1).bytes()));

    rows.row = "Uplink 3";
    rows.drop(Ipv4Malformed, "a wrong checksum", {
        let mut frame = v4(&inbound);
        frame[24] ^= 1;
        frame
    });
    rows.drop(Ipv4Martian, "from loopback",
        v4(&V4 { from: Ipv4Addr::LOCALHOST, ..inbound.clone() }));
    rows.drop(Ipv4SourceRoute, "loose", v4(&V4 { options: vec![131, 3, 4], ..inbound.clone() }));
    rows.drop(Ipv4Fragment, "a first fragment cut off",
        v4(&V4 { fragment: MORE_FRAGMENTS, payload: vec![0; 4], ..inbound.clone() }));
    rows.drop(Ipv6Malformed, "cut off", v6(&inbound6)[..60].to_vec());
    rows.drop(Ipv6Chain, "a routing header of type 0", v6(&inbound6.clone().with(43, routing(0))));
    rows.drop(Ipv6Fragment, "an IPv6 first fragment cut off",
        v6(&V6 { payload: vec![], ..inbound6.clone() }.with(44, fragment_header(0, true))));

    rows.row = "Uplink 4";
    rows.drop(IngressSource, "a port's own address", v4(&V4 { from: IP2, ..inbound.clone() }));
    rows.drop(IngressSource, "of a port's prefix",
        v4(&V4 { from: [172, 16, 3, 3].into(), ..inbound.clone() }));
    rows.drop(IngressSource, "the gateway's address", v4(&V4 { from: GATEWAY, ..inbound.clone() }));
    rows.drop(IngressSource, "an unowned address of the gateway's subnet",
        v4(&V4 { from: UNOWNED, ..inbound.clone() }));
    rows.drop(IngressSource, "the uplink's own",
        v4(&V4::new(UPLINK_IP, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    rows.drop(IngressSource, "of 240.0.0.0/4",
        v4(&V4 { from: [240, 0, 0, 1].into(), ..inbound.clone() }));
    rows.drop(IngressSource, "of 0.0.0.0/8",
        v4(&V4 { from: [0, 0, 0, 9].into(), ..inbound.clone() }));
    rows.drop(IngressSource, "an IPv4 address as IPv6",
        v6(&V6 { from: IP2.to_ipv6_mapped(), ..inbound6.clone() }));
    rows.drop(IngressSource, "0.0.0.0", v4(&V4 { from: ZERO, ..inbound.clone() }));
    rows.drop(IngressSource, "a port's IPv6 address",
        v6(&V6 { from: inner(0x12), ..inbound6.clone() }));
    rows.drop(IngressSource, "the gateway's IPv6 address",
        v6(&V6 { from: inner(1), ..inbound6.clone() }));
    rows.drop(IngressSource, "::", v6(&V6 { from: ANY6, ..inbound6.clone() }));
    rows.drop(IngressSource, "::1", v6(&V6 { from: Ipv6Addr::LOCALHOST, ..inbound6.clone() }));
    rows.drop(IngressSource, "an IPv6 group", v6(&V6 { from: ALL_NODES, ..inbound6.clone() }));
    rows.drop(IngressSource, "an IPv4 link-local address",
        v4(&V4 { from: [169, 254, 1, 1].into(), ..inbound.clone() }));
    rows.drop(IngressSource, "an IPv6 link-local address",
        v6(&V6 { from: link_local(ROUTER), ..inbound6.clone() }));
    rows.drop(Absorbed, ":: in an MLD report, all the same",
        v6(&V6::icmp(ANY6, MLD_ROUTERS, icmpv6(143, 0, &[0; 4]))));

    rows.row = "Uplink 5";
    rows.drop(DhcpServer, "from port 67", v4(&V4 { payload: udp(67, 9, b""), ..inbound.clone() }));
    rows.drop(DhcpServer, "a BOOTREPLY",
        v4(&V4 { payload: udp(9, 68, &bootp(2, VM1)), ..inbound.clone() }));
    rows.drop(DhcpServer, "a first fragment to port 68",
        v4(&V4 { fragment: MORE_FRAGMENTS, payload: udp(9, 68, &[1; 8]), ..inbound.clone() }));
    rows.drop(Redirect, "an ICMP redirect",
        v4(&V4 { payload: icmp(5, 1, ECHO), protocol: 1, ..inbound.clone() }));
    rows.drop(Dhcpv6Server, "to port 546",
        v6(&V6 { payload: udp(9, 546, b""), ..inbound6.clone() }));
    rows.drop(Dhcpv6Server, "from port 547",
        v6(&V6 { payload: udp(547, 9, b""), ..inbound6.clone() }));

    rows.row = "Uplink 6";
    let to_all = |message| v6(&V6::icmp(NEXT_HOP6, ALL_NODES, message));
    rows.drop(MldQuery, "a query", to_all(icmpv6(130, 0, &[0; 20])));
    rows.drop(NdMalformed, "over a router",
        v6(&V6 { hop_limit: 64,
            ..V6::icmp(NEXT_HOP6, ALL_NODES, neighbor(135, 0, UPLINK6, &[])) }));
    rows.drop(RouterAdvertisement, "a Router Advertisement", to_all(router_advertisement(&[])));
    rows.drop(Redirect, "a Redirect", to_all(redirect(EXTERNAL6, EXTERNAL6)));
    rows.drop(Absorbed, "a Router Solicitation", to_all(router_solicitation(&[])));
    rows.drop(NdSpoof, "an inverse solicitation", to_all(icmpv6(141, 0, &[0; 20])));
    for kind in [131, 132, 143] {
        rows.drop(Absorbed, "an MLD report", to_all(icmpv6(kind, 0, &[0; 20])));
    }
    rows.drop(Absorbed, "the next hop's advertisement",
        to_all(neighbor(136, 0xa0, NEXT_HOP6, &[link_layer(2, ROUTER)])));
    rows.drop(NdUnknown, "another's advertisement", to_all(neighbor(136, 0xa0, EXTERNAL6, &[])));
    rows.reply("a solicitation for the uplink's address",
        to_all(neighbor(135, 0, UPLINK6, &[link_layer(1, ROUTER)])));
    rows.drop(NdUnknown, "a solicitation from ::",
        v6(&V6::icmp(ANY6, solicited_node(UPLINK6), neighbor(135, 0, UPLINK6, &[]))));
    rows.drop(NdUnknown, "a solicitation for a port's address",
        to_all(neighbor(135, 0, inner(0x11), &[])));

    rows.row = "Uplink 7";
    rows.reply("an echo request", v4(&V4::new(EXTERNAL, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    rows.reply("an echo request by IPv6", v6(&V6::icmp(EXTERNAL6, UPLINK6, icmpv6(128, 0, ECHO))));
    rows.drop(GatewayService, "TCP", v4(&V4::new(EXTERNAL, UPLINK_IP, 6, tcp(1, 22, 5, b""))));
    rows.drop(GatewayService, "UDP", v4(&V4 { to: UPLINK_IP, ..inbound.clone() }));

    rows.row = "Uplink 8";
    rows.drop(Multicast, "a group", v4(&V4 { to: [224, 0, 0, 5].into(), ..inbound.clone() }));
    rows.drop(LinkLocalIp, "a port's link-local address",
        v6(&V6 { to: link_local(VM1), ..inbound6.clone() }));
    rows.forward(0, "with a TTL of 1", v4(&V4 { ttl: 1, ..inbound.clone() }));
    rows.drop(NoTransit, "an external address",
        v4(&V4 { to: [203, 0, 113, 1].into(), ..inbound.clone() }));
    rows.drop(RouteNone, "an unowned address of the gateway's subnet",
        v4(&V4 { to: UNOWNED, ..inbound.clone() }));
    rows.drop(RouteNone, "the gateway's own address", v4(&V4 { to: GATEWAY, ..inbound.clone() }));
    rows.drop(DropReason::Mtu, "larger than the port's link",
        v4(&V4 { to: IP3, payload: udp(1, 2, &[0; 1301 - 28]), ..inbound.clone() }));
}
