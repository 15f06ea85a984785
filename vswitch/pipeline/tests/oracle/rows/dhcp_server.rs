//! The rows of `docs/reference/services.md`: the gateway's own DHCP server. The bytes of the
//! answers are the model's.

use super::super::lease_story::Dhcp;
use super::*;

pub(super) fn add(rows: &mut Rows) {
    addresses(rows);
    requests(rows);
    others(rows);
    destinations(rows);
    answers(rows);
}

const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;

/// A message of a client that has no address yet.
fn boots(message: &Dhcp) -> Vec<u8> {
    message.frame_to(ZERO, ALL)
}

/// A DISCOVER of `vm1`.
fn discover() -> Dhcp {
    Dhcp::client(1, VM1)
}

/// A REQUEST of `vm1`.
fn request() -> Dhcp {
    Dhcp::client(3, VM1)
}

#[rustfmt::skip] // A table: one frame a statement.
fn addresses(rows: &mut Rows) {
    rows.row = "Service: which address";
    rows.on(configs::served(), 0);
    rows.reply("to the port's one address", boots(&discover()));
    rows.on(configs::served(), 1);
    rows.reply("to the first host of its prefix", boots(&Dhcp::client(1, VM2)));
    rows.on(configs::served(), 2);
    rows.drop(DhcpNoServer, "a port without IPv4", boots(&Dhcp::client(1, VM3)));
    rows.on(configs::served(), 3);
    let vm4 = [0x52, 0x54, 0, 0xaa, 0, 4];
    rows.drop(DhcpNoServer, "a port that learns", boots(&Dhcp::client(1, vm4)));
    rows.on(configs::ipv6(), 0);
    rows.drop(DhcpNoServer, "a gateway without IPv4", boots(&discover()));
    let mut off = configs::served();
    off.gateway.dhcp.enabled = false;
    rows.on(off.clone(), 0);
    rows.drop(DhcpNoServer, "a gateway that does not serve", boots(&discover()));
    rows.error(GatewayService, "and is asked at its address",
        Dhcp { ciaddr: IP1, ..request() }.frame_to(IP1, GATEWAY));
    rows.drop(Multicast, "or by a client with an address",
        Dhcp { ciaddr: IP1, ..request() }.frame_to(IP1, ALL));
    rows.on(configs::three(), 0);
    rows.forward(2, "beside a port that serves", boots(&discover()));
    rows.on(configs::lone(), 0);
    rows.reply("without a table of its own", boots(&discover()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn requests(rows: &mut Rows) {
    rows.row = "Service: which messages";
    rows.on(configs::served(), 0);
    let own = |message: Dhcp| message.with(54, &GATEWAY.octets());
    rows.reply("selects the offer", boots(&own(request()).with(50, &IP1.octets())));
    rows.reply("selects another address", boots(&own(request()).with(50, &IP2.octets())));
    rows.reply("selects none", boots(&own(request())));
    rows.drop(Absorbed, "selects another server's offer",
        boots(&request().with(54, &IP2.octets()).with(50, &IP1.octets())));
    rows.reply("reboots", boots(&request().with(50, &IP1.octets())));
    rows.reply("reboots from another subnet", boots(&request().with(50, &[192, 168, 1, 9])));
    let has = |ciaddr| Dhcp { ciaddr, ..request() };
    rows.reply("renews", has(IP1).frame_to(IP1, GATEWAY));
    rows.reply("rebinds", has(IP1).frame_to(IP1, ALL));
    rows.reply("rebinds at the subnet's broadcast address",
        has(IP1).frame_to(IP1, Ipv4Addr::new(10, 0, 0, 255)));
    rows.reply("renews another address", has(IP2).frame_to(IP1, GATEWAY));
    rows.reply("has one address and wants another", boots(&has(IP1).with(50, &IP2.octets())));
    rows.on(configs::served(), 1);
    let second = Dhcp { ciaddr: IP2, ..Dhcp::client(3, VM2) };
    rows.reply("renews its port's other address", second.frame_to(IP2, GATEWAY));
}

#[rustfmt::skip] // A table: one frame a statement.
fn others(rows: &mut Rows) {
    rows.row = "Service: which messages";
    rows.on(configs::served(), 0);
    let of = |kind| Dhcp::client(kind, VM1).with(54, &GATEWAY.octets());
    rows.drop(Absorbed, "a decline", boots(&of(4).with(50, &IP1.octets())));
    rows.drop(Absorbed, "a release", Dhcp { ciaddr: IP1, ..of(7) }.frame_to(IP1, GATEWAY));
    let informs = |ciaddr| Dhcp { ciaddr, ..Dhcp::client(8, VM1) };
    rows.reply("informs itself", informs(IP1).frame_to(IP1, ALL));
    rows.reply("informs itself at the gateway", informs(IP1).frame_to(IP1, GATEWAY));
    rows.reply("with its address as the source only", informs(ZERO).frame_to(IP1, GATEWAY));
    rows.drop(DhcpIdentity, "in another's name", informs(IP2).frame_to(IP1, ALL));
    rows.drop(DhcpIdentity, "without an address", boots(&informs(ZERO)));
    rows.on(configs::served(), 1);
    rows.reply("by its port's other address",
        Dhcp { ciaddr: IP2, ..Dhcp::client(8, VM2) }.frame_to(IP2, GATEWAY));
    rows.on(configs::served(), 0);
    rows.reply("BOOTP", boots(&Dhcp { kind: None, ..discover() }));
    let long = Dhcp { kind: None, rest: vec![0; 200], ..discover() };
    rows.reply("BOOTP with more room", boots(&long));
    rows.drop(DhcpClient, "another's chaddr", {
        let mut frame = boots(&Dhcp::client(1, VM2));
        frame[6..12].copy_from_slice(&VM1);
        frame
    });
    rows.drop(DhcpClient, "by way of a relay", boots(&Dhcp { giaddr: IP1, ..discover() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn destinations(rows: &mut Rows) {
    rows.row = "Service: which messages";
    rows.on(configs::served(), 0);
    let renews = Dhcp { ciaddr: IP1, ..request() };
    let mut group = renews.frame_to(IP1, GATEWAY);
    group[..6].copy_from_slice(&BROADCAST);
    rows.drop(DstMac, "the gateway's address in a group frame", group);
    let mut unicast = renews.frame_to(IP1, ALL);
    unicast[..6].copy_from_slice(&GW);
    rows.reply("everybody in a frame to the gateway", unicast);
    rows.forward(4, "a server outside", renews.frame_to(IP1, EXTERNAL));
    rows.error(RouteNone, "nobody", renews.frame_to(IP1, UNOWNED));
    let mut narrow = configs::lone();
    narrow.gateway.ipv4 = Some("10.0.0.10/31".parse().expect("a subnet"));
    rows.on(narrow, 0);
    rows.reply("in a subnet of two addresses", boots(&discover()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn answers(rows: &mut Rows) {
    rows.row = "Service: the answer";
    rows.on(configs::served(), 0);
    rows.reply("to a broadcast flag", boots(&Dhcp { broadcast: true, ..discover() }));
    let bound = Dhcp { broadcast: true, ciaddr: IP1, ..request() };
    rows.reply("to the address that it has, in spite of it", bound.frame_to(IP1, ALL));
    rows.row = "Service: options";
    let asks = |codes: &[u8]| boots(&discover().with(55, codes));
    rows.reply("in the client's order, once", asks(&[121, 26, 26, 6, 3, 255, 0, 121]));
    rows.reply("nothing that there is", asks(&[2, 44, 252]));
    rows.reply("an empty list", asks(&[]));
    rows.reply("two lists", boots(&discover().with(55, &[3]).with(55, &[6])));
    rows.reply("its identifier", boots(&discover().with(61, &[7; 255])));
    rows.reply("its identifier, refused", boots(&request().with(61, &[0, 9, 9])));
    for longest in [0_u16, 575, 576, 700, 1500, 65_535] {
        let message = discover().with(61, &[7; 255]).with(57, &longest.to_be_bytes());
        rows.reply("the longest that it takes", boots(&message));
    }
    let odd = discover().with(57, &[9]).with(57, &700_u16.to_be_bytes());
    rows.reply("a longest of one byte, and another", boots(&odd));
    rows.reply("iPXE", boots(&discover().with(77, b"iPXE")));
    rows.reply("iPXE that asks for a file", boots(&discover().with(77, b"iPXE").with(55, &[67])));
    rows.reply("another class", boots(&discover().with(77, b"iPXE2")));
    let mut small = configs::served();
    small.gateway.ipv6 = None;
    small.ports[0].mtu = 576;
    rows.on(small, 0);
    rows.reply("the link's MTU",
        boots(&discover().with(61, &[7; 255]).with(57, &1500_u16.to_be_bytes())));
    let mut named = configs::served();
    let dhcp = &mut named.gateway.dhcp;
    dhcp.tftp_server = Some("boot.red.example".parse().expect("a name"));
    dhcp.boot_file = None;
    dhcp.routes[0].to = "0.0.0.0/0".parse().expect("a prefix");
    rows.on(named, 0);
    rows.reply("a TFTP server by name, and a default route of the tenant's", boots(&discover()));
    rows.reply("iPXE, which alone boots", boots(&discover().with(77, b"iPXE")));
}
