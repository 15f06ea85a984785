//! The rows of `docs/reference/services.md`: the gateway's own DHCPv6 server. The bytes of the
//! answers are the model's.

use tenant_config::{Addresses6, Ipv6Autoconf};

use super::super::dhcp6_story::{ALL_SERVERS, association_of, lease6, server_id};
use super::*;

pub(super) fn add(rows: &mut Rows) {
    addresses(rows);
    destinations(rows);
    servers(rows);
    messages(rows);
    associations(rows);
    options(rows);
    advertisements(rows);
}

fn duid() -> Vec<u8> {
    option6(1, &[0, 2, 0, 0, 0xab, 0x11, 7])
}

/// The identifier of the server.
fn ours() -> Vec<u8> {
    option6(2, &server_id(&configs::served()))
}

/// An IA_NA that names these addresses.
fn ia(id: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let leases: Vec<_> = addresses.iter().flat_map(|it| lease6(*it)).collect();
    association_of(3, id, &leases)
}

/// A message of the client `mac` to a server.
fn from_to(mac: Mac, to: Ipv6Addr, kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let options = [&[duid()], options].concat();
    let packet = V6::new(
        link_local(mac),
        to,
        17,
        udp(546, 547, &dhcp6(kind, 7, &options)),
    );
    let to_mac = if to.is_multicast() { group_mac(to) } else { GW };
    ethernet(to_mac, mac, IPV6, &packet.bytes())
}

/// A message of `vm1` to all servers.
fn says(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    from_to(VM1, ALL_SERVERS, kind, options)
}

const OWN: Ipv6Addr = inner(0x11);
const SIBLINGS: Ipv6Addr = inner(0x12);
/// Outside the gateway's subnet.
const FAR: Ipv6Addr = EXTERNAL6;

#[rustfmt::skip] // A table: one frame a statement.
fn addresses(rows: &mut Rows) {
    rows.row = "Service: DHCPv6";
    rows.on(configs::served(), 0);
    rows.reply("the port's one address", says(1, &[ia(1, &[])]));
    let vm4 = [0x52, 0x54, 0, 0xaa, 0, 4];
    rows.on(configs::served(), 3);
    rows.reply("a port without an address", from_to(vm4, ALL_SERVERS, 1, &[ia(1, &[])]));
    rows.reply("that informs itself", from_to(vm4, ALL_SERVERS, 11, &[]));
    rows.on(configs::lone(), 0);
    rows.reply("without a table", says(1, &[ia(1, &[])]));
    let of = |text: &str| {
        let mut config = configs::lone();
        let net = text.parse().expect("a prefix");
        config.ports[0].addresses = tenant_config::Addresses::Static(vec![net]);
        config
    };
    let single = ["fd00:0:0:1::10/127", "fd00:0:0:1::11/128", "10.0.0.11/32"];
    for prefix in ["fd00:0:0:1:8000::/80"].into_iter().chain(single) {
        rows.on(of(prefix), 0);
        rows.reply("an entry", says(1, &[ia(1, &[])]));
    }
    let mut slaac = configs::served();
    slaac.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
    rows.on(slaac.clone(), 0);
    rows.reply("a VM that may form none", says(1, &[ia(1, &[])]));
    slaac.ports[0].addresses6 = Some(Addresses6::LearnNd);
    rows.on(slaac, 0);
    rows.drop(DhcpNoServer, "where the VM forms its own", says(1, &[ia(1, &[])]));
    rows.reply("which informs itself", says(11, &[]));
    let mut none = configs::served();
    none.gateway.ipv6_autoconf = Ipv6Autoconf::None;
    rows.on(none, 0);
    rows.drop(DhcpNoServer, "where none are given", says(11, &[]));
    let mut off = configs::served();
    off.gateway.dhcp.enabled = false;
    rows.on(off, 0);
    rows.drop(DhcpNoServer, "a gateway that does not serve", says(1, &[ia(1, &[])]));
    rows.error(GatewayService, "and is asked at its address",
        from_to(VM1, inner(1), 3, &[ours(), ia(1, &[])]));
    let mut alone = configs::served();
    alone.gateway.ipv6 = None;
    rows.on(alone, 0);
    rows.drop(DhcpNoServer, "a gateway without IPv6", says(1, &[ia(1, &[])]));
    rows.on(configs::three(), 0);
    rows.forward(2, "beside a port that serves", says(1, &[ia(1, &[])]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn destinations(rows: &mut Rows) {
    rows.row = "Service: which DHCPv6 messages";
    rows.on(configs::served(), 0);
    let renews = |to| from_to(VM1, to, 5, &[ours(), ia(1, &[OWN])]);
    rows.reply("at the gateway's address", renews(inner(1)));
    rows.reply("at its link-local address", renews(link_local(GW)));
    let mut group = renews(inner(1));
    group[..6].copy_from_slice(&group_mac(ALL_SERVERS));
    rows.drop(DstMac, "in a group frame", group);
    let mut unicast = renews(ALL_SERVERS);
    unicast[..6].copy_from_slice(&GW);
    rows.reply("all servers in a frame to the gateway", unicast);
    rows.forward(4, "a server outside", {
        let message = dhcp6(5, 7, &[duid(), ours(), ia(1, &[OWN])]);
        v6(&V6::new(OWN, EXTERNAL6, 17, udp(546, 547, &message)))
    });
    let all = "ff05::1:3".parse().expect("a group");
    rows.drop(Multicast, "the servers of the site", from_to(VM1, all, 1, &[ia(1, &[])]));
    rows.drop(Absorbed, "a solicit to the gateway", from_to(VM1, inner(1), 1, &[ia(1, &[])]));
    rows.drop(Absorbed, "a confirm", from_to(VM1, inner(1), 4, &[ia(1, &[OWN])]));
    rows.drop(Absorbed, "a rebind", from_to(VM1, inner(1), 6, &[ia(1, &[OWN])]));
    rows.drop(Absorbed, "a question", from_to(VM1, inner(1), 11, &[]));
    rows.reply("from another port and address", {
        let message = dhcp6(1, 7, &[duid(), ia(1, &[])]);
        v6_group(&V6::new(OWN, ALL_SERVERS, 17, udp(9, 547, &message)))
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn servers(rows: &mut Rows) {
    rows.row = "Service: which DHCPv6 messages";
    rows.on(configs::served(), 0);
    let others = || option6(2, &[0, 3, 0, 1, 2, 0, 0x13, 0x89, 0, 1]);
    for kind in [3, 5, 8, 9] {
        rows.reply("for this server", says(kind, &[ours(), ia(1, &[OWN])]));
        rows.drop(Absorbed, "for another", says(kind, &[others(), ia(1, &[OWN])]));
        rows.drop(Absorbed, "for none", says(kind, &[ia(1, &[OWN])]));
    }
    for kind in [1, 4, 6] {
        rows.reply("for any", says(kind, &[ia(1, &[OWN])]));
        rows.drop(Absorbed, "for one", says(kind, &[ours(), ia(1, &[OWN])]));
    }
    rows.reply("a question to this server", says(11, &[ours()]));
    rows.drop(Absorbed, "a question to another", says(11, &[others()]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn messages(rows: &mut Rows) {
    rows.row = "Service: which DHCPv6 messages";
    rows.on(configs::served(), 0);
    let rapid = || option6(14, &[]);
    rows.reply("a rapid commit", says(1, &[rapid(), ia(1, &[])]));
    rows.reply("of nothing", says(1, &[rapid()]));
    rows.reply("of a prefix", says(1, &[rapid(), association_of(25, 1, &[])]));
    rows.reply("a rapid request", says(3, &[rapid(), ours(), ia(1, &[])]));
    rows.reply("has its address", says(4, &[ia(1, &[OWN])]));
    rows.reply("has another's", says(4, &[ia(1, &[OWN, SIBLINGS])]));
    rows.reply("comes from elsewhere", says(4, &[ia(1, &[FAR])]));
    rows.drop(Absorbed, "has none", says(4, &[ia(1, &[])]));
    rows.drop(Absorbed, "has no association", says(4, &[]));
    rows.drop(Absorbed, "a question with an association", says(11, &[ia(1, &[])]));
    rows.reply("a question without a name", {
        v6_group(&V6::new(link_local(VM1), ALL_SERVERS, 17, udp(546, 547, &dhcp6(11, 7, &[]))))
    });
    rows.on(configs::served(), 3);
    let vm4 = [0x52, 0x54, 0, 0xaa, 0, 4];
    rows.reply("a rapid commit without an address",
        from_to(vm4, ALL_SERVERS, 1, &[rapid(), ia(1, &[])]));
    rows.reply("a confirm of what the port has not",
        from_to(vm4, ALL_SERVERS, 4, &[ia(1, &[OWN])]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn associations(rows: &mut Rows) {
    rows.row = "Service: the answer of DHCPv6";
    rows.on(configs::served(), 0);
    let temporary = || association_of(4, 9, &[]);
    let prefix = || association_of(25, 8, &option6(26, &[0; 25]));
    for (kind, server) in [(1, vec![]), (3, vec![ours()]), (5, vec![ours()]), (6, vec![])] {
        let asks = |options: &[Vec<u8>]| says(kind, &[&server[..], options].concat());
        rows.reply("none", asks(&[]));
        rows.reply("one", asks(&[ia(1, &[])]));
        rows.reply("one with the address", asks(&[ia(1, &[OWN])]));
        rows.reply("one with another's", asks(&[ia(1, &[SIBLINGS])]));
        rows.reply("one with both", asks(&[ia(1, &[SIBLINGS, OWN])]));
        rows.reply("one with a far one", asks(&[ia(1, &[FAR, OWN])]));
        rows.reply("two", asks(&[ia(1, &[]), ia(2, &[])]));
        rows.reply("two, of which the second has it", asks(&[ia(1, &[SIBLINGS]), ia(2, &[OWN])]));
        rows.reply("two that have it", asks(&[ia(1, &[OWN]), ia(2, &[OWN])]));
        rows.reply("other kinds first", asks(&[temporary(), prefix(), ia(1, &[])]));
        rows.reply("a far temporary one", asks(&[association_of(4, 9, &lease6(FAR)), ia(1, &[])]));
        rows.reply("more than there is room for", asks(&[ia(1, &[SIBLINGS; 40])]));
    }
    for kind in [8, 9] {
        let ends = |options: &[Vec<u8>]| says(kind, &[&[ours()], options].concat());
        rows.reply("what it has", ends(&[ia(1, &[OWN])]));
        rows.reply("what it has not",
            ends(&[ia(1, &[SIBLINGS]), temporary(), prefix(), ia(2, &[OWN])]));
        rows.reply("nothing", ends(&[]));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn options(rows: &mut Rows) {
    rows.row = "Service: the answer of DHCPv6";
    rows.on(configs::served(), 0);
    let wants = |codes: &[u16]| {
        let codes: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        option6(6, &codes)
    };
    rows.reply("in the client's order, once",
        says(1, &[wants(&[56, 24, 24, 31, 23, 9, 56]), ia(1, &[])]));
    rows.reply("nothing that there is", says(11, &[wants(&[21, 82, 0xff17])]));
    rows.reply("an empty list", says(11, &[wants(&[])]));
    rows.reply("two lists", says(11, &[wants(&[23]), wants(&[24])]));
    rows.reply("half a code", says(11, &[option6(6, &[0, 23, 0])]));
    rows.reply("a refresh time", says(11, &[wants(&[32])]));
    rows.reply("which leases have not", says(1, &[wants(&[32]), ia(1, &[])]));
    let mut long = configs::served();
    long.gateway.dhcp.lease_s = tenant_config::LeaseSeconds::new(599).expect("seconds");
    long.gateway.dhcp.search.clear();
    rows.on(long, 0);
    rows.reply("the shortest refresh time, and the domain", says(11, &[]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn advertisements(rows: &mut Rows) {
    rows.row = "Service: Router Advertisements";
    let asks = |mac: Mac| {
        let packet = V6::icmp(link_local(mac), ALL_ROUTERS, icmpv6(133, 0, &[0; 4]));
        ethernet(group_mac(ALL_ROUTERS), mac, IPV6, &packet.bytes())
    };
    rows.on(configs::served(), 0);
    rows.reply("an address and name servers", asks(VM1));
    rows.on(configs::served(), 3);
    rows.reply("name servers only", asks([0x52, 0x54, 0, 0xaa, 0, 4]));
    for autoconf in [Ipv6Autoconf::Slaac, Ipv6Autoconf::None] {
        let mut config = configs::served();
        config.gateway.ipv6_autoconf = autoconf;
        rows.on(config, 0);
        rows.reply("an address where the VM may form none, or name servers alone", asks(VM1));
    }
    let mut slaac = configs::served();
    slaac.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
    slaac.ports[0].addresses6 = Some(Addresses6::LearnNd);
    rows.on(slaac, 0);
    rows.reply("name servers beside SLAAC", asks(VM1));
    let mut off = configs::served();
    off.gateway.dhcp.enabled = false;
    rows.on(off, 0);
    rows.reply("nothing, where the gateway does not serve", asks(VM1));
    let mut relayed = configs::served();
    relayed.ports[1].dhcp_server = true;
    rows.on(relayed, 0);
    rows.reply("nothing, where a port serves", asks(VM1));
}
