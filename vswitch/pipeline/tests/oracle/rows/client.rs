//! The rows of "DHCP clients".

use super::super::lease_story::Dhcp;
use super::*;

pub(super) fn add(rows: &mut Rows) {
    shape(rows);
    addresses(rows);
    identifiers(rows);
    shape6(rows);
    groups6(rows);
    bindings6(rows);
}

/// A DISCOVER of `vm1`.
fn discover() -> Dhcp {
    Dhcp::client(1, VM1)
}

fn sent(message: &Dhcp) -> Vec<u8> {
    message.frame(ZERO)
}

#[rustfmt::skip] // A table: one frame a statement.
fn shape(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Client 1";
    let option = |code, value: &[u8]| sent(&discover().with(code, value));
    let behind = |rest: &[u8]| sent(&Dhcp { rest: rest.to_vec(), ..discover() });
    for kind in [1, 3, 4, 7, 8] {
        rows.forward(2, "a client's type", sent(&Dhcp { kind: Some(kind), ..discover() }));
    }
    for kind in [0, 2, 5, 6, 9, 10, 14] {
        rows.drop(DhcpClient, "another type", sent(&Dhcp { kind: Some(kind), ..discover() }));
    }
    rows.forward(2, "BOOTP, which has none", sent(&Dhcp { kind: None, ..discover() }));
    rows.drop(DhcpClient, "a type of two bytes",
        sent(&Dhcp { kind: None, ..discover() }.with(53, &[1, 1])));
    rows.drop(DhcpClient, "two types", option(53, &[7]));
    rows.drop(DhcpClient, "a relay agent's information", option(82, &[1, 1, 9]));
    rows.drop(DhcpClient, "a subnet to select", option(118, &[10, 0, 0, 0]));
    rows.drop(DhcpClient, "options in the field of the file's name", option(52, &[1]));
    rows.drop(DhcpClient, "by way of a relay", sent(&Dhcp { giaddr: IP1, ..discover() }));
    rows.drop(DhcpClient, "an identifier of one byte", option(61, &[1]));
    rows.drop(DhcpClient, "an empty one", option(61, &[]));
    rows.drop(DhcpClient, "two identifiers", sent(&discover().with(61, &[0, 1]).with(61, &[0, 1])));
    rows.drop(DhcpClient, "two wanted addresses",
        sent(&discover().with(50, &[10, 0, 0, 50]).with(50, &[10, 0, 0, 12])));
    rows.drop(DhcpClient, "a wanted address of three bytes", option(50, &[10, 0, 0]));
    rows.drop(DhcpClient, "two servers",
        sent(&discover().with(54, &[10, 0, 0, 13]).with(54, &[10, 0, 0, 13])));
    rows.drop(DhcpClient, "a server of five bytes", option(54, &[10, 0, 0, 13, 0]));
    rows.drop(DhcpClient, "an option that is cut off", behind(&[61, 9, 1]));
    rows.drop(DhcpClient, "one without its length", behind(&[12]));
    rows.drop(DhcpClient, "a relay agent's behind padding", behind(&[0, 0, 82, 1, 1, 255]));
    rows.forward(2, "one behind the end, which nobody reads", behind(&[255, 82, 1, 1]));
    rows.forward(2, "options without an end", behind(&[]));
    rows.forward(2, "others as often as it likes", sent(&discover().with(77, b"a").with(77, b"b")));
    for length in [7, 9] {
        let mut frame = sent(&discover());
        let real = be16(&frame, 38);
        frame[38..40].copy_from_slice(&(real + length - 8).to_be_bytes());
        rows.drop(DhcpClient, "a UDP length that is not the packet's", frame);
    }
    rows.drop(DhcpClient, "the same to a server's address",
        Dhcp::client(7, VM1).with(82, &[1, 1, 9]).frame(IP1));
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[rustfmt::skip] // A table: one frame a statement.
fn addresses(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Client 2";
    let wants = |address: Ipv4Addr| sent(&discover().with(50, &address.octets()));
    let has = |ciaddr| sent(&Dhcp { ciaddr, ..discover() });
    for (name, address) in [
        ("the sibling's", IP2),
        ("one of the sibling's prefix", [10, 0, 0, 70].into()),
        ("one of a prefix beside the subnet", [172, 16, 3, 3].into()),
        ("the server's", IP3),
        ("the gateway's", GATEWAY),
        ("the broadcast's", [10, 0, 0, 255].into()),
    ] {
        rows.drop(DhcpIdentity, name, wants(address));
        rows.drop(DhcpIdentity, name, has(address));
    }
    for (name, address) in [
        ("its own", IP1),
        ("nobody's", UNOWNED),
        ("none", ZERO),
        ("one of another network", EXTERNAL),
        ("the subnet's first", [10, 0, 0, 0].into()),
    ] {
        rows.forward(2, name, wants(address));
        rows.forward(2, name, has(address));
    }
    rows.drop(DhcpIdentity, "a release of the sibling's to the server",
        Dhcp { ciaddr: IP2, ..Dhcp::client(7, VM1) }.frame(IP1).to_server());
    rows.drop(DhcpIdentity, "a decline of the sibling's to the server",
        Dhcp::client(4, VM1).with(50, &IP2.octets()).frame(IP1).to_server());
    rows.on(configs::geneve(), 0);
    rows.reply("a peer's, where the gateway serves", wants([10, 0, 0, 71].into()));
    let mut config = configs::geneve();
    config.ports[1].dhcp_server = true;
    rows.on(config, 0);
    rows.drop(DhcpIdentity, "a peer's", wants([10, 0, 0, 71].into()));
    rows.forward(1, "behind a peer, beside the subnet", wants([172, 17, 0, 1].into()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn identifiers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Client 3";
    let called = |identifier: &[u8]| sent(&discover().with(61, identifier));
    let named = |mac: Mac| called(&[&[1], &mac[..]].concat());
    rows.drop(DhcpIdentity, "the sibling's MAC", named(VM2));
    rows.drop(DhcpIdentity, "the sibling's other MAC", named([0, 0, 0x5e, 0, 1, 7]));
    rows.forward(2, "its own MAC", named(VM1));
    rows.forward(2, "a MAC of no port", named(ROUTER));
    rows.forward(2, "any value", called(&[0xff, 1, 2, 3, 4]));
    rows.forward(2, "the sibling's MAC as another type", called(&[&[6], &VM2[..]].concat()));
    rows.forward(2, "the sibling's MAC and more", called(&[&[1], &VM2[..], &[0]].concat()));
    rows.forward(2, "a value as long as an option may be", called(&[7; 255]));
}

/// The same frame to the server's address.
trait ToServer {
    fn to_server(self) -> Vec<u8>;
}

impl ToServer for Vec<u8> {
    fn to_server(mut self) -> Vec<u8> {
        self[30..34].copy_from_slice(&IP3.octets());
        set_ipv4_checksum(&mut self[14..]);
        self
    }
}

/// A DHCPv6 message of `vm1` to the server.
fn to_server6(message: &[u8]) -> Vec<u8> {
    v6(&V6::new(
        inner(0x11),
        inner(0x13),
        17,
        udp(546, 547, message),
    ))
}

/// A DUID of any value.
fn duid() -> Vec<u8> {
    option6(1, &[0, 2, 0, 0, 0xab, 0x11, 1, 2, 3])
}

/// The same to all servers, from the client's link-local address.
fn to_all_servers(message: &[u8]) -> Vec<u8> {
    v6_group(&V6::new(
        link_local(VM1),
        ALL_DHCP_SERVERS,
        17,
        udp(546, 547, message),
    ))
}

const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

#[rustfmt::skip] // A table: one frame a statement.
fn groups6(rows: &mut Rows) {
    rows.row = "Route 1";
    let solicit = dhcp6(1, 7, &[duid()]);
    let of_vm1 = V6::new(link_local(VM1), ALL_DHCP_SERVERS, 17, udp(546, 547, &solicit));
    rows.on(configs::three(), 0);
    rows.forward(2, "to all DHCPv6 servers", to_all_servers(&solicit));
    rows.forward(2, "from another address", v6_group(&V6 { from: inner(0x11), ..of_vm1.clone() }));
    rows.forward(2, "in a unicast frame", v6(&of_vm1));
    rows.drop(DhcpIdentity, "in another's name",
        to_all_servers(&dhcp6(1, 7, &[option6(1, &[&[0, 3, 0, 1], &VM2[..]].concat())])));
    rows.drop(Dhcpv6Client, "a relay agent's", to_all_servers(&dhcp6(12, 7, &[duid()])));
    rows.drop(Multicast, "to all DHCPv6 servers of the site",
        v6_group(&V6 { to: Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3), ..of_vm1.clone() }));
    rows.drop(Multicast, "to another port",
        v6_group(&V6 { payload: udp(546, 548, &solicit), ..of_vm1.clone() }));
    rows.drop(Multicast, "to another group", v6_group(&V6 { to: ALL_NODES, ..of_vm1.clone() }));
    let mut small = configs::three();
    small.ports[2].mtu = 1280;
    rows.on(small, 0);
    let filled = |len: usize| dhcp6(1, 7, &[duid(), option6(16, &vec![0; len])]);
    let room = 1280 - 48 - filled(0).len();
    rows.forward(2, "as large as the server's MTU", to_all_servers(&filled(room)));
    rows.drop(Mtu, "larger", to_all_servers(&filled(room + 1)));
    let mut alone = configs::three();
    alone.ports[2].dhcp_server = false;
    alone.gateway.dhcp.enabled = false;
    rows.on(alone, 0);
    rows.drop(DhcpNoServer, "where there is no server", to_all_servers(&solicit));

    rows.on(configs::three(), 2);
    let server = configs::three().ports[2].clone();
    let (mac, gateway) = (server.mac.octets(), server.gateway_mac.octets());
    let reply = V6::new(link_local(mac), link_local(VM1), 17,
        udp(547, 546, &dhcp6(7, 7, &[duid()])));
    let of_server = |packet: &V6| ethernet(gateway, mac, IPV6, &packet.bytes());
    rows.forward(0, "a server's to a client's link-local address", of_server(&reply));
    rows.forward(1, "to another client's", of_server(&V6 { to: link_local(VM2), ..reply.clone() }));
    rows.drop(LinkLocalIp, "to nobody's",
        of_server(&V6 { to: link_local([2, 0, 0, 0, 9, 9]), ..reply.clone() }));
    rows.drop(LinkLocalIp, "to its own", of_server(&V6 { to: link_local(mac), ..reply.clone() }));
    rows.drop(LinkLocalIp, "of another protocol",
        of_server(&V6 { payload: udp(5, 6, b""), ..reply.clone() }));
    rows.row = "NS";
    let ns = |target| {
        let message = neighbor(135, 0, target, &[link_layer(1, mac)]);
        let packet = V6::icmp(link_local(mac), solicited_node(target), message);
        ethernet(gateway, mac, IPV6, &packet.bytes())
    };
    rows.reply("a server's for a client's link-local address", ns(link_local(VM1)));
    rows.drop(Absorbed, "for its own", ns(link_local(mac)));
    rows.drop(NdUnknown, "for nobody's", ns(link_local([2, 0, 0, 0, 9, 9])));
}

#[rustfmt::skip] // A table: one frame a statement.
fn shape6(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "DHCPv6 client 1";
    let solicit = |options: &[Vec<u8>]| to_server6(&dhcp6(1, 7, options));
    for kind in [1, 3, 4, 5, 6, 8, 9, 11] {
        rows.forward(2, "a client's type", to_server6(&dhcp6(kind, 7, &[duid()])));
    }
    for kind in [0, 2, 7, 10, 12, 13, 14, 36] {
        rows.drop(Dhcpv6Client, "another type, as a relay agent's",
            to_server6(&dhcp6(kind, 7, &[duid()])));
    }
    rows.forward(2, "from any port",
        v6(&V6::new(inner(0x11), inner(0x13), 17, udp(1000, 547, &dhcp6(1, 7, &[duid()])))));
    rows.forward(2, "a question without a DUID", to_server6(&dhcp6(11, 7, &[])));
    rows.drop(Dhcpv6Client, "any other without one", solicit(&[]));
    rows.drop(Dhcpv6Client, "two DUIDs", solicit(&[duid(), duid()]));
    rows.drop(Dhcpv6Client, "a DUID of two bytes", solicit(&[option6(1, &[0, 2])]));
    rows.forward(2, "a DUID of 130 bytes", solicit(&[option6(1, &[9; 130])]));
    rows.drop(Dhcpv6Client, "a DUID of 131 bytes", solicit(&[option6(1, &[9; 131])]));
    rows.drop(Dhcpv6Client, "two servers",
        solicit(&[duid(), option6(2, &[1; 9]), option6(2, &[1; 9])]));
    for code in [9, 18, 37, 38, 79] {
        rows.drop(Dhcpv6Client, "a relay agent's option",
            solicit(&[duid(), option6(code, &[0; 8])]));
    }
    rows.drop(Dhcpv6Client, "an option that is cut off", solicit(&[duid(), vec![0, 6, 0, 9, 1]]));
    rows.drop(Dhcpv6Client, "half an option", solicit(&[duid(), vec![0, 6]]));
    rows.drop(Dhcpv6Client, "an option in an association that is cut off",
        solicit(&[duid(), option6(3, &[&[0; 12][..], &[0, 5, 0, 24, 1]].concat())]));
    rows.drop(Dhcpv6Client, "an association that is cut off",
        solicit(&[duid(), option6(3, &[0; 11])]));
    rows.drop(Dhcpv6Client, "an address that is cut off",
        solicit(&[duid(), option6(3, &[&[0; 12][..], &option6(5, &[0; 23])].concat())]));
    let four: Vec<_> = (0..4).map(|id| association6(id, &[])).collect();
    rows.forward(2, "four associations", solicit(&[&[duid()], &four[..]].concat()));
    rows.drop(Dhcpv6Client, "five",
        solicit(&[&[duid()], &four[..], &[association6(4, &[])]].concat()));
    rows.drop(Dhcpv6Client, "too short", to_server6(&[1, 0, 0]));
    let message = udp(546, 547, &dhcp6(1, 7, &[duid()]));
    let plain = V6::new(inner(0x11), inner(0x13), 17, message);
    rows.drop(Dhcpv6Client, "a first fragment",
        v6(&plain.clone().with(44, fragment_header(0, true))));
    rows.drop(Dhcpv6Client, "an atomic fragment",
        v6(&plain.clone().with(44, fragment_header(0, false))));
    rows.forward(2, "a later fragment", v6(&plain.clone().with(44, fragment_header(9, false))));
    rows.forward(2, "behind another header", v6(&plain.clone().with(60, padding_options(0))));
    let mut longer = plain.clone();
    longer.payload.push(0);
    rows.drop(Dhcpv6Client, "a UDP length that is not the packet's", v6(&longer));
    rows.on(configs::three(), 2);
    let of_server = V6::new(inner(0x13), inner(0x11), 17, udp(547, 547, b""));
    rows.forward(0, "a server may send what it likes",
        ethernet(GW, VM3, IPV6, &of_server.bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn bindings6(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "DHCPv6 client 2";
    for kind in [3, 5, 8, 9] {
        let names = |address| {
            to_server6(&dhcp6(kind, 7, &[duid(), association6(1, &[(address, 0)])]))
        };
        rows.drop(DhcpIdentity, "the sibling's address", names(inner(0x12)));
        rows.drop(DhcpIdentity, "one of its prefix", names("fd00:0:0:2::77".parse().expect("one")));
        rows.drop(DhcpIdentity, "the gateway's", names(inner(1)));
        rows.forward(2, "its own", names(inner(0x11)));
        rows.forward(2, "nobody's", names(inner(0x99)));
        rows.forward(2, "one of another network", names(EXTERNAL6));
    }
    let prefix = |address: Ipv6Addr| {
        let lease = [&[0; 8][..], &[64], &address.octets()].concat();
        let value = [&[0; 12][..], &option6(26, &lease)].concat();
        to_server6(&dhcp6(1, 7, &[duid(), option6(25, &value)]))
    };
    rows.drop(DhcpIdentity, "the sibling's prefix", prefix("fd00:0:0:2::".parse().expect("one")));
    rows.forward(2, "any prefix", prefix(ANY6));
    rows.drop(DhcpIdentity, "behind nobody's", {
        let both = association6(1, &[(inner(0x99), 0), (inner(0x12), 0)]);
        to_server6(&dhcp6(8, 7, &[duid(), both]))
    });

    rows.row = "DHCPv6 client 3";
    let called = |value: &[u8]| to_server6(&dhcp6(1, 7, &[option6(1, value)]));
    let extra = [0, 0, 0x5e, 0, 1, 7];
    for (named, is_others) in [(VM2, true), (extra, true), (VM1, false), (ROUTER, false)] {
        let (with_time, alone) = ([0, 1, 0, 1, 9, 9, 9, 9], [0, 3, 0, 1]);
        for duid in [[&with_time[..], &named].concat(), [&alone[..], &named].concat()] {
            if is_others {
                rows.drop(DhcpIdentity, "another port's MAC", called(&duid));
            } else {
                rows.forward(2, "its own MAC, or no port's", called(&duid));
            }
        }
    }
    rows.forward(2, "the sibling's MAC of another hardware",
        called(&[&[0, 3, 0, 6], &VM2[..]].concat()));
}
