//! The fast path against the general path.

use std::sync::{Arc, OnceLock};

use packet::wire::checksum;
use packet::{DropReason, Frame};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tenant_config::{MacAddr, SwitchConfig, Tenant};

use super::{Decision, Lane, enter_tunnel};
use crate::{Generation, Pipeline, PortId, Verdict};

const TENANT: &str = r#"
    name = "red"
    vni = 5001
    [gateway]
    ipv4 = "10.0.0.1/24"
    ipv6 = "fd00::1/64"
    [uplink]
    address = "192.0.2.2/24"
    next_hop = "192.0.2.1"
    address6 = "2001:db8::2/64"
    next_hop6 = "2001:db8::1"
    mtu = 1400
    [tunnel]
    kind = "vxlan"
    [[tunnel.peer]]
    name = "host-b"
    vtep = "192.0.2.66"
    prefixes = ["10.0.0.64/27", "fd00::60/123"]
    [[tunnel.peer]]
    name = "host-c"
    vtep = "192.0.2.67"
    prefixes = ["10.0.0.96/27", "fd00::80/123"]
    [[port]]
    name = "vm1"
    mac = "52:54:00:aa:00:01"
    extra_macs = ["52:54:00:aa:00:07"]
    addresses = ["10.0.0.11", "10.0.0.16/30", "fd00::11", "fd00::1:0/112"]
    encapsulation = "deny"
    limits = { broadcast_pps = 1, arp_nd_pps = 1, dhcp_pps = 1 }
    [[port]]
    name = "vm2"
    mac = "52:54:00:aa:00:02"
    addresses = ["10.0.0.12", "fd00::12"]
    mtu = 1280
    [[port]]
    name = "vm3"
    mac = "52:54:00:aa:00:03"
    addresses = ["10.0.0.13", "fd00::13"]
    trunk = [7]
"#;
/// The uplink's place.
const UPLINK: PortId = PortId(3);
/// Where a frame has its packet.
const IP_AT: usize = 14;

/// The tenants of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Without a tunnel.
    Alone,
    /// VXLAN over IPv4, without checksums.
    OverIpv4,
    /// Geneve over IPv6, with checksums; it carries tunnels, and lowers the segment size.
    OverIpv6,
    /// As [`Self::OverIpv4`], and nothing else is reached.
    Only,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Alone, Self::OverIpv4, Self::OverIpv6, Self::Only];
    const WITH_TUNNEL: [Self; 3] = [Self::OverIpv4, Self::OverIpv6, Self::Only];

    fn text(self) -> String {
        match self {
            Self::Alone => {
                let (head, rest) = TENANT.split_once("[tunnel]").expect("a tunnel");
                let (_, ports) = rest.split_once("[[port]]").expect("a port");
                format!("{head}[[port]]{ports}")
            }
            Self::OverIpv4 => TENANT.to_owned(),
            Self::OverIpv6 => TENANT
                .replace(
                    "kind = \"vxlan\"",
                    "kind = \"geneve\"\nvtep = \"2001:db8::2\"\nnested = \"allow\"\n\
                     mss_clamp = true",
                )
                .replace("vtep = \"192.0.2.66\"", "vtep = \"2001:db8::66\"")
                .replace("vtep = \"192.0.2.67\"", "vtep = \"2001:db8::67\""),
            Self::Only => TENANT.replace("kind = \"vxlan\"", "kind = \"vxlan\"\nonly = true"),
        }
    }

    fn config(self) -> &'static SwitchConfig {
        static CONFIGS: [OnceLock<SwitchConfig>; 4] = [const { OnceLock::new() }; 4];
        CONFIGS[self as usize].get_or_init(|| parse(&self.text()))
    }

    /// The configuration of host-b, whose vm1 is 10.0.0.70 and fd00::70.
    fn peers_config(self) -> &'static SwitchConfig {
        static CONFIGS: [OnceLock<SwitchConfig>; 4] = [const { OnceLock::new() }; 4];
        CONFIGS[self as usize].get_or_init(|| parse(&peers_side(&self.text())))
    }

    /// Whether the outer header is IPv6's.
    fn is_over_ipv6(self) -> bool {
        self == Self::OverIpv6
    }

    /// The offset of the inner frame in a tunnel packet without options.
    fn inner_at(self) -> usize {
        if self.is_over_ipv6() { 70 } else { 50 }
    }
}

fn parse(text: &str) -> SwitchConfig {
    let tenant = Tenant::parse("red.toml", text).expect("a tenant");
    tenant.offline_config()
}

fn pipeline_of(config: &SwitchConfig, resolved: bool) -> Pipeline {
    let mut pipeline = Pipeline::new(Generation::build(config, None));
    if resolved {
        pipeline.assume_next_hops(0, MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"));
    }
    pipeline
}

/// Swaps the two hosts' addresses, and takes the prefixes of the first.
fn peers_side(text: &str) -> String {
    let mut text = text.to_owned();
    for (here, there, spare) in [
        ("192.0.2.2", "192.0.2.66", "192.0.2.88"),
        ("2001:db8::2", "2001:db8::66", "2001:db8::88"),
    ] {
        for end in ["\"", "/"] {
            text = text.replace(&format!("{there}{end}"), &format!("{spare}{end}"));
            text = text.replace(&format!("{here}{end}"), &format!("{there}{end}"));
            text = text.replace(&format!("{spare}{end}"), &format!("{here}{end}"));
        }
    }
    let own = "\"10.0.0.11\", \"10.0.0.16/30\", \"fd00::11\", \"fd00::1:0/112\"";
    let text = text.replace(own, "\"10.0.0.70\", \"fd00::70\"");
    text.replace(
        "\"10.0.0.64/27\", \"fd00::60/123\"",
        "\"10.0.0.11\", \"fd00::11\"",
    )
}

/// What the upper layer of a common packet is.
#[derive(Debug, Clone, Copy)]
struct Upper {
    tcp: bool,
    ports: (u16, u16),
    payload: usize,
}

const USUAL_UPPER: Upper = Upper {
    tcp: false,
    ports: (53, 5353),
    payload: 40,
};

/// A common frame of vm1.
fn common4(source: [u8; 4], destination: [u8; 4], upper: Upper) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0xaa, 0, 1, 8, 0];
    let protocol = if upper.tcp { 6 } else { 17 };
    frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    extend_upper(&mut frame, upper);
    let len = (frame.len() - IP_AT) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    mend4(&mut frame, IP_AT);
    frame
}

/// As [`common4`].
fn common6(source: u128, destination: u128, upper: Upper) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0xaa, 0, 1, 0x86, 0xdd];
    let protocol = if upper.tcp { 6 } else { 17 };
    frame.extend([0x60, 0, 0, 0, 0, 0, protocol, 64]);
    frame.extend(source.to_be_bytes());
    frame.extend(destination.to_be_bytes());
    extend_upper(&mut frame, upper);
    let len = (frame.len() - IP_AT - 40) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

fn extend_upper(frame: &mut Vec<u8>, upper: Upper) {
    let size = if upper.tcp { 20 } else { 8 } + upper.payload;
    let mut bytes = vec![0; size.max(13)];
    bytes[..2].copy_from_slice(&upper.ports.0.to_be_bytes());
    bytes[2..4].copy_from_slice(&upper.ports.1.to_be_bytes());
    bytes[12] = 0x50;
    bytes.truncate(size);
    frame.extend(bytes);
}

/// Corrects the checksum of an IPv4 header at `at`.
fn mend4(frame: &mut [u8], at: usize) {
    if let Some(head) = frame.get_mut(at..at + 20) {
        head[10..12].fill(0);
        let sum = !checksum::folded(checksum::sum(head));
        head[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// Corrects the outer UDP checksum of a tunnel packet over IPv6.
fn mend_outer_udp(frame: &mut [u8]) {
    if frame.len() < 62 {
        return;
    }
    frame[60..62].fill(0);
    let datagram = (frame.len() - 54) as u16;
    let pseudo = u64::from(17u16.to_be()) + u64::from(datagram.to_be());
    let sum = !checksum::folded(checksum::sum(&frame[22..]) + pseudo);
    let sum = if sum == 0 { u16::MAX } else { sum };
    frame[60..62].copy_from_slice(&sum.to_ne_bytes());
}

/// A packet from host-b's vm1 to ours, as it arrives.
fn carried(kind: Kind, ipv6: bool, upper: Upper) -> Vec<u8> {
    let mut peer = pipeline_of(kind.peers_config(), true);
    let seal = |peer: &mut Pipeline, upper| {
        let inner = if ipv6 {
            common6(number6("fd00::70"), number6("fd00::11"), upper)
        } else {
            common4([10, 0, 0, 70], [10, 0, 0, 11], upper)
        };
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend(inner);
        let len = buffer.len() - Frame::HEADROOM;
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, len, None);
        let verdict = peer.process_traced(1, PortId(0), &mut frame, &mut |_, _| {});
        (verdict == Verdict::Forward(UPLINK)).then(|| frame.bytes().to_vec())
    };
    // The peer may refuse this upper layer, which is then written over another one.
    let mut bytes = seal(&mut peer, upper).unwrap_or_else(|| {
        let usual = Upper {
            ports: (53, 53),
            payload: upper.payload.min(1200),
            ..upper
        };
        let mut bytes = seal(&mut peer, usual).expect("it goes into the tunnel");
        let at = kind.inner_at() + if ipv6 { 54 } else { 34 };
        bytes[at..at + 2].copy_from_slice(&upper.ports.0.to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&upper.ports.1.to_be_bytes());
        bytes
    });
    let own = kind.config().uplink.as_ref().expect("an uplink").mac;
    bytes[..6].copy_from_slice(&own.octets());
    mend(kind, &mut bytes);
    bytes
}

/// Corrects every checksum of a tunnel packet.
fn mend(kind: Kind, bytes: &mut [u8]) {
    let inner = kind.inner_at();
    if bytes.get(inner + 12) == Some(&8) {
        mend4(bytes, inner + IP_AT);
    }
    if kind.is_over_ipv6() {
        mend_outer_udp(bytes);
    } else {
        mend4(bytes, IP_AT);
    }
}

fn number6(text: &str) -> u128 {
    let address: std::net::Ipv6Addr = text.parse().expect("an address");
    address.to_bits()
}

/// IPv4 addresses of every kind; the first three are the port's own.
fn address4() -> impl Strategy<Value = [u8; 4]> + Clone {
    const ALL: &[[u8; 4]] = &[
        [10, 0, 0, 11],
        [10, 0, 0, 17],
        [10, 0, 0, 19],
        [10, 0, 0, 20],
        [10, 0, 0, 12],
        [10, 0, 0, 13],
        [10, 0, 0, 70],
        [10, 0, 0, 100],
        [10, 0, 0, 1],
        [10, 0, 0, 0],
        [10, 0, 0, 255],
        [10, 0, 0, 99],
        [192, 0, 2, 9],
        [192, 0, 2, 2],
        [192, 0, 2, 66],
        [192, 0, 2, 255],
        [198, 51, 100, 1],
        [169, 1, 0, 1],
        [169, 254, 0, 9],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 9],
        [224, 0, 0, 5],
        [240, 1, 2, 3],
        [255; 4],
    ];
    prop_oneof![8 => prop::sample::select(ALL), 1 => any::<[u8; 4]>()]
}

/// As [`address4`].
fn address6() -> impl Strategy<Value = u128> + Clone {
    let all = [
        "fd00::11",
        "fd00::1:9",
        "fd00::2:9",
        "fd00::12",
        "fd00::13",
        "fd00::70",
        "fd00::90",
        "fd00::1",
        "fd00::",
        "fd00::99",
        "2001:db8::9",
        "2001:db8::2",
        "2001:db8:9::1",
        "64:ff9b::a00:b",
        "64:ff9b::c633:6401",
        "64:ff9b:1::1",
        "2002:a00:b::1",
        "2001:0:a00:b::1",
        "2001:db8:9::5efe:a00:b",
        "::ffff:10.0.0.11",
        "::198.51.100.1",
        "::",
        "::1",
        "fe80::5054:ff:feaa:1",
        "fe80::1",
        "ff02::1",
        "ff0e::1",
    ]
    .map(number6);
    prop_oneof![8 => prop::sample::select(all.to_vec()), 1 => any::<u128>()]
}

/// Ports that mean something, and others.
fn port() -> impl Strategy<Value = u16> {
    const SPECIAL: &[u16] = &[
        53, 67, 68, 69, 546, 547, 434, 3544, 4789, 6081, 7471, 8472, 0, 1, 65535,
    ];
    prop_oneof![1 => prop::sample::select(SPECIAL), 4 => Just(53), 1 => any::<u16>()]
}

/// Sizes of IP packets around every limit of the tenant: MTUs of ports, uplink and tunnels.
fn payload() -> impl Strategy<Value = usize> {
    let limits = prop::sample::select(&[1280usize, 1400, 1500, 1350, 1330, 1300][..]);
    let header = prop::sample::select(&[28usize, 40, 48, 60][..]);
    let around =
        (limits, header, 0..3usize).prop_map(|(limit, header, more)| limit + more - 1 - header);
    prop_oneof![4 => 0..64usize, 1 => around]
}

fn upper() -> impl Strategy<Value = Upper> {
    (any::<bool>(), (port(), port()), payload()).prop_map(|(tcp, ports, payload)| Upper {
        tcp,
        ports,
        payload,
    })
}

/// One change of a common frame.
#[derive(Debug, Clone)]
enum Twist {
    /// A byte at an offset from the Ethernet header.
    Byte(usize, u8),
    /// A MAC at that offset.
    Mac(usize, [u8; 6]),
    /// The IP packet's length field.
    Length(i16),
    /// Bytes of the frame at its end.
    Resize(isize),
    /// A tag that the device has stripped.
    Stripped(u16),
}

impl Twist {
    /// Applies it to the frame that begins at `at`. Returns the stripped tag.
    fn apply(&self, frame: &mut Vec<u8>, at: usize) -> Option<u16> {
        match *self {
            Self::Byte(offset, value) => {
                if let Some(byte) = frame.get_mut(at + offset) {
                    *byte = value;
                }
            }
            Self::Mac(offset, mac) => {
                if let Some(place) = frame.get_mut(at + offset..at + offset + 6) {
                    place.copy_from_slice(&mac);
                }
            }
            Self::Length(change) => {
                let ipv4 = frame.get(at + 12) == Some(&8);
                let field = at + if ipv4 { 16 } else { 18 };
                if let Some(place) = frame.get_mut(field..field + 2) {
                    let len = i16::from_be_bytes([place[0], place[1]]);
                    place.copy_from_slice(&len.wrapping_add(change).to_be_bytes());
                }
            }
            Self::Resize(change) => {
                frame.resize(frame.len().saturating_add_signed(change), 0xee);
            }
            Self::Stripped(tag) => return Some(tag),
        }
        None
    }
}

/// A change of a frame with headers of these lengths in front of its upper layer.
fn twist(ip_len: usize) -> impl Strategy<Value = Twist> {
    let (upper, fields) = (IP_AT + ip_len, 12..IP_AT + ip_len);
    let of_upper = [0, 1, 2, 3, 12, 13].map(|offset| upper + offset);
    let offset = prop_oneof![
        4 => fields,
        2 => prop::sample::select(of_upper.to_vec()),
        2 => prop::sample::select(&[14usize, 20, 21, 22, 23][..]),
        1 => 0..12usize,
        // The headers of a tunnel.
        1 => upper..upper + 20,
    ];
    const VALUES: &[u8] = &[
        0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 17, 18, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x44, 0x45, 0x46,
        0x4f, 0x50, 0x5f, 0x60, 0x65, 0x80, 0xdd, 0x86, 0xf0, 0xff,
    ];
    let value = prop_oneof![3 => prop::sample::select(VALUES), 1 => any::<u8>()];
    let own = Kind::Alone.config().uplink.as_ref().expect("an uplink").mac;
    let macs = [
        own.octets(),
        [0; 6],
        [0xff; 6],
        [0x52, 0x54, 0, 0xaa, 0, 1],
        [0x52, 0x54, 0, 0xaa, 0, 2],
        [0x52, 0x54, 0, 0xaa, 0, 7],
        [2, 0, 0, 0, 0, 1],
        [3, 0, 0, 0, 0, 1],
        inner_mac(Kind::OverIpv4),
        inner_mac(Kind::OverIpv6),
    ];
    let mac = prop::sample::select(macs.to_vec());
    let at = prop::sample::select(&[0usize, 6][..]);
    prop_oneof![
        8 => (offset, value).prop_map(|(offset, value)| Twist::Byte(offset, value)),
        2 => (at, mac).prop_map(|(at, mac)| Twist::Mac(at, mac)),
        1 => (-30..30i16).prop_map(Twist::Length),
        2 => (-40..30isize).prop_map(Twist::Resize),
        1 => (0..16u16).prop_map(Twist::Stripped),
    ]
    .boxed()
}

/// The MAC of our side inside the tunnel.
fn inner_mac(kind: Kind) -> [u8; 6] {
    let tunnel = kind.config().tunnel.as_ref();
    tunnel.expect("a tunnel").mac.octets()
}

/// A frame that comes in.
#[derive(Debug, Clone)]
struct Sent {
    kind: Kind,
    /// Whether the next hops answer.
    resolved: bool,
    from: PortId,
    bytes: Vec<u8>,
    tag: Option<u16>,
}

impl Sent {
    /// Applies the twists to the frame at `at`, and corrects the checksums if `mended`.
    fn twisted(mut self, at: usize, twists: &[Twist], mended: bool) -> Self {
        for twist in twists {
            self.tag = twist.apply(&mut self.bytes, at).or(self.tag);
        }
        if mended && at > 0 {
            mend(self.kind, &mut self.bytes);
        } else if mended && self.bytes.get(12) == Some(&8) {
            mend4(&mut self.bytes, IP_AT);
        }
        self
    }
}

fn kind_of(kinds: &'static [Kind]) -> impl Strategy<Value = (Kind, bool)> {
    (prop::sample::select(kinds), prop::bool::weighted(0.9))
}

/// Whether addresses, twists and checksums are as usual.
fn disturbance(ip_len: usize) -> impl Strategy<Value = (Vec<Twist>, bool)> {
    let twists = prop_oneof![
        3 => prop::collection::vec(twist(ip_len), 0..1),
        3 => prop::collection::vec(twist(ip_len), 1..2),
        1 => prop::collection::vec(twist(ip_len), 2..3),
    ];
    (twists, prop::bool::weighted(0.9))
}

/// Both ends of a packet: mostly usual ones, else one of them any, or both.
fn ends<T: Clone + std::fmt::Debug + 'static>(
    from: &[T],
    to: &[T],
    any: impl Strategy<Value = T> + Clone + 'static,
) -> BoxedStrategy<(T, T)> {
    let from = prop::sample::select(from.to_vec());
    let to = prop::sample::select(to.to_vec());
    prop_oneof![
        4 => (from.clone(), to.clone()),
        1 => (any.clone(), to),
        1 => (from, any.clone()),
        1 => (any.clone(), any),
    ]
    .boxed()
}

/// As [`ends`], of addresses that are written.
fn ends6(from: &[&str], to: &[&str]) -> BoxedStrategy<(u128, u128)> {
    let numbers = |all: &[&str]| all.iter().map(|text| number6(text)).collect::<Vec<_>>();
    ends(&numbers(from), &numbers(to), address6())
}

/// vm1's addresses, of which the lane knows the first without a look-up.
const VM1: [[u8; 4]; 2] = [[10, 0, 0, 11], [10, 0, 0, 17]];
const VM1_6: [&str; 2] = ["fd00::11", "fd00::1:9"];

/// From vm1.
fn sent_by_vm() -> BoxedStrategy<Sent> {
    // To vm2, a peer, and beyond the underlay.
    let to = [[10, 0, 0, 12], [10, 0, 0, 70], [198, 51, 100, 1]];
    let ipv4 = (ends(&VM1, &to, address4()), upper(), disturbance(20));
    let ipv4 = ipv4.prop_map(|((from, to), upper, twists)| (common4(from, to, upper), twists));
    let to = ["fd00::12", "fd00::70", "2001:db8:9::1"];
    let ipv6 = (ends6(&VM1_6, &to), upper(), disturbance(40));
    let ipv6 = ipv6.prop_map(|((from, to), upper, twists)| (common6(from, to, upper), twists));
    let from = prop_oneof![8 => Just(0u16), 1 => 0..4u16];
    (kind_of(&Kind::ALL), from, prop_oneof![ipv4, ipv6])
        .prop_map(|((kind, resolved), from, (bytes, (twists, mended)))| {
            let sent = Sent {
                kind,
                resolved,
                from: PortId(from),
                bytes,
                tag: None,
            };
            sent.twisted(0, &twists, mended)
        })
        .boxed()
}

/// From the underlay, without a tunnel around it.
fn sent_by_underlay() -> BoxedStrategy<Sent> {
    let from = [[198, 51, 100, 1], [192, 0, 2, 9]];
    let ipv4 = (ends(&from, &VM1, address4()), upper(), disturbance(20));
    let ipv4 = ipv4.prop_map(|((from, to), upper, twists)| (common4(from, to, upper), twists));
    let from = ["2001:db8:9::1", "2001:db8::9"];
    let ipv6 = (ends6(&from, &VM1_6), upper(), disturbance(40));
    let ipv6 = ipv6.prop_map(|((from, to), upper, twists)| (common6(from, to, upper), twists));
    (kind_of(&Kind::ALL), prop_oneof![ipv4, ipv6])
        .prop_map(|((kind, resolved), (mut bytes, (twists, mended)))| {
            let own = kind.config().uplink.as_ref().expect("an uplink").mac;
            bytes[..6].copy_from_slice(&own.octets());
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            let sent = Sent {
                kind,
                resolved,
                from: UPLINK,
                bytes,
                tag: None,
            };
            sent.twisted(0, &twists, mended)
        })
        .boxed()
}

/// From host-b through the tunnel. The twists are of the outer or of the inner frame.
fn sent_by_peer() -> BoxedStrategy<Sent> {
    let inner4 = ends(&[[10, 0, 0, 70]], &VM1, address4());
    let inner6 = ends6(&["fd00::70"], &VM1_6);
    let twists = (disturbance(20), disturbance(40), any::<bool>());
    let what = (kind_of(&Kind::WITH_TUNNEL), any::<bool>(), upper());
    (what, inner4, inner6, twists)
        .prop_map(|(what, inner4, inner6, (twists4, twists6, outer))| {
            let ((kind, resolved), ipv6, upper) = what;
            let mut bytes = carried(kind, ipv6, upper);
            let at = kind.inner_at();
            if ipv6 {
                bytes[at + 22..at + 38].copy_from_slice(&inner6.0.to_be_bytes());
                bytes[at + 38..at + 54].copy_from_slice(&inner6.1.to_be_bytes());
            } else {
                bytes[at + 26..at + 30].copy_from_slice(&inner4.0);
                bytes[at + 30..at + 34].copy_from_slice(&inner4.1);
            }
            mend(kind, &mut bytes);
            let sent = Sent {
                kind,
                resolved,
                from: UPLINK,
                bytes,
                tag: None,
            };
            let family6 = if outer { kind.is_over_ipv6() } else { ipv6 };
            let (twists, mended) = if family6 { twists6 } else { twists4 };
            let sent = sent.twisted(if outer { 0 } else { at }, &twists, mended);
            if outer && mended {
                let mut sent = sent;
                mend(kind, &mut sent.bytes);
                return sent;
            }
            sent
        })
        .boxed()
}

/// What became of frames: verdicts, bytes, all counters.
type Outcome = (Vec<(Verdict, Vec<u8>)>, Vec<Vec<u64>>);

/// Sends the frames, which are of one tenant and one port, twice over: so a token that only one of
/// the paths takes shows in the second verdict.
fn outcome(all: &[Sent], express: bool) -> Outcome {
    let Sent {
        kind,
        resolved,
        from,
        ..
    } = all[0];
    let mut pipeline = pipeline_of(kind.config(), resolved);
    let counters = pipeline.counters();
    let mut verdicts = Vec::new();
    for _ in 0..2 {
        let mut buffers: Vec<Vec<u8>> = all
            .iter()
            .map(|sent| {
                let mut buffer = vec![0; Frame::HEADROOM];
                buffer.extend_from_slice(&sent.bytes);
                buffer.resize(buffer.len() + 256, 0);
                buffer
            })
            .collect();
        let frames = buffers
            .iter_mut()
            .zip(all)
            .map(|(buffer, sent)| Frame::new(buffer, Frame::HEADROOM, sent.bytes.len(), sent.tag));
        verdicts.clear();
        let mut done = |frame: Frame<'_>, verdict| verdicts.push((verdict, frame.bytes().to_vec()));
        if express {
            pipeline.burst(1, from).process_all(frames, done);
        } else {
            frames.for_each(|mut frame| {
                let verdict = pipeline.process_traced(1, from, &mut frame, &mut |_, _| {});
                done(frame, verdict);
            });
        }
    }
    let ports = counters.ports().map(|port| {
        let drops = DropReason::ALL.iter().map(|reason| port.drops(*reason));
        let totals = [
            &port.rx_frames,
            &port.rx_bytes,
            &port.forwarded,
            &port.replies,
            &port.tx_frames,
            &port.tx_bytes,
            &port.icmp_errors,
        ];
        let all = totals.into_iter().chain(drops);
        all.map(|counter| counter.get()).collect()
    });
    let peers = counters.peers().map(|peer| {
        let totals = [
            &peer.rx_frames,
            &peer.rx_bytes,
            &peer.tx_frames,
            &peer.tx_bytes,
            &peer.last_seen_ns,
        ];
        totals.map(|counter| counter.get()).to_vec()
    });
    (verdicts, ports.chain(peers).collect())
}

/// The port by which the lane alone forwards a frame.
fn taken(sent: &Sent) -> Option<PortId> {
    let mut pipeline = pipeline_of(sent.kind.config(), sent.resolved);
    let (tables, counters) = (Arc::clone(&pipeline.tables), pipeline.counters());
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend_from_slice(&sent.bytes);
    let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, sent.bytes.len(), sent.tag);
    let rules = tables.ports.get(sent.from.index());
    let bytes = frame.bytes_mut();
    let decision = match Lane::new(&tables, &counters, &pipeline.state, rules, 1) {
        Lane::General => None,
        Lane::Port(lane) => lane.forward::<false>(bytes),
        Lane::IntoTunnel(lane) | Lane::IntoProtectedTunnel(lane) => lane.forward::<true>(bytes),
        Lane::Plain(lane) => lane.deliver(bytes),
        Lane::OutOfTunnel(lane) => lane.deliver_or_open(bytes),
    };
    match decision? {
        Decision::Out { way, .. } => Some(way.to),
        Decision::IntoTunnel(into) => {
            let parts = (&*tables, &*counters, &mut *pipeline.state);
            enter_tunnel(parts, 1, into, &mut frame, None)
        }
    }
}

/// As many cases as `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig {
            cases: 1000,
            ..default
        },
    }
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn lane_from_port_agrees_with_general_path(sent in sent_by_vm()) {
        let all = [sent];
        prop_assert_eq!(outcome(&all, true), outcome(&all, false));
    }

    #[test]
    fn lane_from_underlay_agrees_with_general_path(sent in sent_by_underlay()) {
        let all = [sent];
        prop_assert_eq!(outcome(&all, true), outcome(&all, false));
    }

    #[test]
    fn lane_out_of_tunnel_agrees_with_general_path(sent in sent_by_peer()) {
        let all = [sent];
        prop_assert_eq!(outcome(&all, true), outcome(&all, false));
    }

    /// A burst is decided on as its frames are one by one.
    #[test]
    fn burst_agrees_with_single_frames(
        (kind, resolved) in kind_of(&Kind::ALL),
        vm in any::<bool>(),
        from_vm in prop::collection::vec(sent_by_vm(), 1..6),
        from_underlay in prop::collection::vec(sent_by_underlay(), 1..6),
    ) {
        let (mut all, from) = if vm { (from_vm, PortId(0)) } else { (from_underlay, UPLINK) };
        for sent in &mut all {
            (sent.kind, sent.resolved, sent.from) = (kind, resolved, from);
        }
        prop_assert_eq!(outcome(&all, true), outcome(&all, false));
    }
}

/// Prints, for each of many frames, whether the lane takes it. A mutant of the lane that takes no
/// frame which the lane itself does not take leaves more to the general path, and changes no
/// verdict: `scripts/mutants` compares what this prints.
#[test]
#[ignore = "scripts/mutants reads what it prints"]
fn frames_that_the_lane_takes() {
    let mut runner = TestRunner::deterministic();
    let mut frames = String::new();
    for strategy in [sent_by_vm(), sent_by_underlay(), sent_by_peer()] {
        for _ in 0..3000 {
            let sent = strategy.new_tree(&mut runner).expect("a frame").current();
            frames.push(if taken(&sent).is_some() { '1' } else { '0' });
        }
    }
    println!("taken {frames}");
}

/// `::192.0.2.66` is another address than 192.0.2.66, though both are one number.
#[test]
fn tunnel_over_ipv4_refuses_embedded_ipv6_endpoint() {
    let kind = Kind::OverIpv4;
    let mut bytes = carried(kind, false, USUAL_UPPER);
    let inner = bytes.split_off(34);
    let mut other = bytes[..12].to_vec();
    let [hi, lo] = (inner.len() as u16).to_be_bytes();
    other.extend([0x86, 0xdd, 0x60, 0, 0, 0, hi, lo, 17, 64]);
    for address in [&bytes[26..30], &bytes[30..34]] {
        other.extend([0; 12]);
        other.extend(address);
    }
    other.extend(inner);
    let sent = [from_underlay(kind, other)];
    let taken = outcome(&sent, true);
    assert_eq!(taken.0[0].0, Verdict::Drop(DropReason::IngressSource));
    assert_eq!(taken, outcome(&sent, false));
}

/// The words of this header carry into bit 64: the carry belongs to the sum.
#[test]
fn checksum_without_the_carry_of_its_sum_is_wrong() {
    let kind = Kind::Alone;
    let own = kind.config().uplink.as_ref().expect("an uplink").mac;
    let mut bytes = common4([198, 51, 200, 255], OWN[0].0, USUAL_UPPER);
    bytes[..6].copy_from_slice(&own.octets());
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    let sent = from_underlay(kind, bytes.clone());
    assert_eq!(taken(&sent), Some(PortId(0)));
    // The sum is all ones, or would be if the carry were left out.
    let right = u16::from_le_bytes([bytes[24], bytes[25]]);
    bytes[24..26].copy_from_slice(&(right + 1).to_le_bytes());
    let sent = [from_underlay(kind, bytes)];
    let express = outcome(&sent, true);
    assert_eq!(
        express.0[0].0,
        Verdict::Drop(DropReason::Ipv4Malformed),
        "{right:#06x}"
    );
    assert_eq!(express, outcome(&sent, false));
}

fn from_underlay(kind: Kind, bytes: Vec<u8>) -> Sent {
    Sent {
        kind,
        resolved: true,
        from: UPLINK,
        bytes,
        tag: None,
    }
}

/// Common packets of both families, with UDP and TCP, between these addresses.
fn common(source: ([u8; 4], &str), destination: ([u8; 4], &str)) -> Vec<Vec<u8>> {
    let both = [false, true].map(|tcp| Upper { tcp, ..USUAL_UPPER });
    let ends6 = (number6(source.1), number6(destination.1));
    let ipv4 = both
        .iter()
        .map(|upper| common4(source.0, destination.0, *upper));
    let ipv6 = both.iter().map(|upper| common6(ends6.0, ends6.1, *upper));
    ipv4.chain(ipv6).collect()
}

/// The two addresses of vm1 of which the lane knows one without a look-up, and the other not.
const OWN: [([u8; 4], &str); 2] = [(VM1[0], VM1_6[0]), (VM1[1], VM1_6[1])];
const EXTERNAL: ([u8; 4], &str) = ([198, 51, 100, 1], "2001:db8:9::1");

#[test]
fn common_frames_of_a_vm_take_the_lane() {
    for own in OWN {
        for (to, out) in [
            (([10, 0, 0, 12], "fd00::12"), Some(PortId(1))),
            (EXTERNAL, Some(UPLINK)),
            (([10, 0, 0, 70], "fd00::70"), Some(UPLINK)),
            (([169, 1, 0, 1], "2001:db8:9::1"), Some(UPLINK)),
            // The general path refuses the underlay, and inserts tags.
            (([192, 0, 2, 9], "2001:db8::9"), None),
            (([10, 0, 0, 13], "fd00::13"), None),
        ] {
            for bytes in common(own, to) {
                let sent = Sent {
                    from: PortId(0),
                    ..from_underlay(Kind::OverIpv4, bytes)
                };
                assert_eq!(taken(&sent), out, "{own:?} {to:?}");
            }
        }
    }
}

#[test]
fn common_frames_of_the_underlay_take_the_lane() {
    let own = Kind::Alone.config().uplink.as_ref().expect("an uplink").mac;
    for (kind, from, to, out) in [
        (Kind::Alone, EXTERNAL, OWN[0], Some(PortId(0))),
        (Kind::OverIpv4, EXTERNAL, OWN[1], Some(PortId(0))),
        (
            Kind::OverIpv6,
            EXTERNAL,
            ([10, 0, 0, 12], "fd00::12"),
            Some(PortId(1)),
        ),
        (
            Kind::Alone,
            ([192, 0, 2, 9], "2001:db8::9"),
            OWN[0],
            Some(PortId(0)),
        ),
        (Kind::Only, EXTERNAL, OWN[0], None),
        (Kind::Alone, ([10, 0, 0, 12], "fd00::12"), OWN[0], None),
        (Kind::Alone, EXTERNAL, ([10, 0, 0, 99], "fd00::99"), None),
    ] {
        for mut bytes in common(from, to) {
            bytes[..6].copy_from_slice(&own.octets());
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            let sent = from_underlay(kind, bytes);
            assert_eq!(taken(&sent), out, "{kind:?} {from:?} {to:?}");
        }
    }
}

#[test]
fn common_frames_out_of_the_tunnel_take_the_lane() {
    for kind in Kind::WITH_TUNNEL {
        for (ipv6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let upper = Upper { tcp, ..USUAL_UPPER };
            let sent = from_underlay(kind, carried(kind, ipv6, upper));
            assert_eq!(taken(&sent), Some(PortId(0)), "{kind:?} {ipv6} {tcp}");
        }
    }
}
