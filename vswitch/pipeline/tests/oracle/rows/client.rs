//! The rows of "DHCP clients".

use super::super::lease_story::Dhcp;
use super::*;

pub(super) fn add(rows: &mut Rows) {
    shape(rows);
    addresses(rows);
    identifiers(rows);
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
    rows.drop(DhcpClient, "a type of two bytes", sent(&Dhcp { kind: None, ..discover() }.with(53, &[1, 1])));
    rows.drop(DhcpClient, "two types", option(53, &[7]));
    rows.drop(DhcpClient, "a relay agent's information", option(82, &[1, 1, 9]));
    rows.drop(DhcpClient, "a subnet to select", option(118, &[10, 0, 0, 0]));
    rows.drop(DhcpClient, "options in the field of the file's name", option(52, &[1]));
    rows.drop(DhcpClient, "by way of a relay", sent(&Dhcp { giaddr: IP1, ..discover() }));
    rows.drop(DhcpClient, "an identifier of one byte", option(61, &[1]));
    rows.drop(DhcpClient, "an empty one", option(61, &[]));
    rows.drop(DhcpClient, "two identifiers", sent(&discover().with(61, &[0, 1]).with(61, &[0, 1])));
    rows.drop(DhcpClient, "two wanted addresses", sent(&discover().with(50, &[10, 0, 0, 50]).with(50, &[10, 0, 0, 12])));
    rows.drop(DhcpClient, "a wanted address of three bytes", option(50, &[10, 0, 0]));
    rows.drop(DhcpClient, "two servers", sent(&discover().with(54, &[10, 0, 0, 13]).with(54, &[10, 0, 0, 13])));
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
    rows.drop(DhcpClient, "the same to a server's address", Dhcp::client(7, VM1).with(82, &[1, 1, 9]).frame(IP1));
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
    rows.drop(DhcpNoServer, "a peer's, where nobody serves", wants([10, 0, 0, 71].into()));
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
