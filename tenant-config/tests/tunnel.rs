//! The tunnel: what a tenant's file may say, what follows from the rest, and what a switch is given.

use serde_json::{Value, json};
use tenant_config::{
    Devices, Encapsulation, MAX_PEERS, MAX_PREFIXES, SwitchConfig, Tenant, TunnelConfig, TunnelTtl,
};

/// Valid, and small enough that a reader can count its lines.
const GREEN: &str = r#"name = "green"
vni = 7

[gateway]
ipv4 = "10.9.0.1/24"
ipv6 = "fd00:9::1/64"

[uplink]
address = "192.0.2.9/24"
next_hop = "192.0.2.1"

[tunnel]
kind = "geneve"

[[tunnel.peer]]
name = "host-b"
vtep = "192.0.2.66"
prefixes = ["10.9.0.71", "fd00:9::71", "10.9.8.0/24"]

[[tunnel.peer]]
name = "host-c"
vtep = "198.51.100.7"
prefixes = ["10.9.0.0/24", "fd00:9::/64"]

[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11", "10.9.0.64/30", "fd00:9::11"]
"#;

const UPLINK: &str = "[uplink]\naddress = \"192.0.2.9/24\"\nnext_hop = \"192.0.2.1\"\n";

fn tenant(text: &str) -> Tenant {
    Tenant::parse("green.toml", text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// What the switch of `text` is given of its tunnel.
fn tunnel(text: &str) -> TunnelConfig {
    let tunnel = tenant(text).offline_config().tunnel;
    tunnel.expect("the file has a [tunnel]")
}

/// [`GREEN`] with a part that is there exactly once replaced.
fn green_with(part: &str, with: &str) -> String {
    assert_eq!(GREEN.matches(part).count(), 1, "{part:?} is not there once");
    GREEN.replace(part, with)
}

/// The errors of `text`, as `KIND LINE`.
fn refusal(text: &str) -> Vec<String> {
    let Err(errors) = Tenant::parse("green.toml", text) else {
        panic!("this was accepted:\n{text}");
    };
    let line = |error| {
        let json = serde_json::to_value(error).expect("an error is JSON");
        format!("{} {error}", json["kind"].as_str().expect("kind is text"))
    };
    errors.as_slice().iter().map(line).collect()
}

/// Tests that replace a part of [`GREEN`] that is there exactly once.
macro_rules! refused {
    ($($test:ident: $part:expr => $with:expr, [$($error:expr),* $(,)?];)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(refusal(&green_with($part, $with)), [$($error),*] as [&str; _]);
        }
    )*};
}

#[test]
fn what_the_file_leaves_out_follows_from_the_rest() {
    let config = serde_json::to_value(tunnel(GREEN)).expect("it is data");
    assert_eq!(
        config,
        json!({
            "kind": "geneve",
            "vtep": "192.0.2.9",
            "port": 6081,
            "mac": "0e:38:ef:10:f9:d9",
            "ttl": 64,
            "dscp": "inherit",
            "udp_checksum": false,
            "nested": "deny",
            "mss_clamp": false,
            "only": false,
            "peers": [
                {
                    "name": "host-b",
                    "vtep": "192.0.2.66",
                    "mac": "0e:5f:80:aa:06:98",
                    "next_hop": "192.0.2.66",
                    "prefixes": ["10.9.0.71/32", "fd00:9::71/128", "10.9.8.0/24"],
                },
                {
                    "name": "host-c",
                    "vtep": "198.51.100.7",
                    "mac": "0e:e5:f4:9f:e0:2d",
                    "next_hop": "192.0.2.1",
                    "prefixes": ["10.9.0.0/24", "fd00:9::/64"],
                },
            ],
        })
    );
}

/// Everything that has a default, over IPv6.
const BLUE: &str = r#"name = "blue"
vni = 8

[gateway]
ipv4 = "10.9.0.1/24"

[uplink]
address = "192.0.2.9/24"
address6 = "2001:db8::9/64"
mtu = 1280

[tunnel]
kind = "vxlan"
vtep = "2001:db8::9"
port = 8472
ttl = "inherit"
dscp = 46
udp_checksum = false
nested = "allow"
mss_clamp = true
only = true

[[tunnel.peer]]
name = "host-b"
vtep = "2001:db8:1::66"
mac = "52:54:00:00:00:66"
next_hop = "2001:db8::fe"
prefixes = ["0.0.0.0/0"]

[[tunnel.peer]]
name = "host-b-2"
vtep = "2001:db8:1::66"
mac = "52:54:00:00:00:67"
next_hop = "2001:db8::fe"
prefixes = []

[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11"]
"#;

#[test]
fn what_the_file_says_is_what_the_switch_is_given() {
    let config = serde_json::to_value(tunnel(BLUE)).expect("it is data");
    assert_eq!(
        config,
        json!({
            "kind": "vxlan",
            "vtep": "2001:db8::9",
            "port": 8472,
            "mac": "0e:6b:a6:10:aa:bc",
            "ttl": "inherit",
            "dscp": 46,
            "udp_checksum": false,
            "nested": "allow",
            "mss_clamp": true,
            "only": true,
            "peers": [
                {
                    "name": "host-b",
                    "vtep": "2001:db8:1::66",
                    "mac": "52:54:00:00:00:66",
                    "next_hop": "2001:db8::fe",
                    "prefixes": ["0.0.0.0/0"],
                },
                {
                    "name": "host-b-2",
                    "vtep": "2001:db8:1::66",
                    "mac": "52:54:00:00:00:67",
                    "next_hop": "2001:db8::fe",
                    "prefixes": [],
                },
            ],
        })
    );
}

#[test]
fn a_tenant_serialises_to_the_form_it_was_read_from() {
    for text in [GREEN, BLUE] {
        let tenant = tenant(text);
        let again = toml::to_string(&tenant).expect("a tenant is TOML");
        assert_eq!(Tenant::parse("again.toml", &again), Ok(tenant), "{again}");
    }
    // What follows from other values is not written down.
    let green = tenant(GREEN);
    let tunnel = green.tunnel().expect("green has one");
    assert_eq!((tunnel.vtep, tunnel.port), (None, None));
    assert_eq!(tunnel.udp_checksum, None);
    assert_eq!(tunnel.nested, Encapsulation::Deny);
    assert_eq!(
        (tunnel.peers[0].mac, tunnel.peers[0].next_hop),
        (None, None)
    );
}

#[test]
fn over_ipv6_checksums_are_the_default_and_vxlan_has_its_own_port() {
    let ipv6 = GREEN
        .replace("192.0.2.9/24", "2001:db8::9/64")
        .replace("192.0.2.1\"", "2001:db8::1\"")
        .replace("192.0.2.66", "2001:db8::66")
        .replace("198.51.100.7", "2001:db8:1::7")
        .replace("geneve", "vxlan");
    let tunnel = tunnel(&ipv6);
    assert_eq!(tunnel.vtep.to_string(), "2001:db8::9");
    assert_eq!((tunnel.port, tunnel.udp_checksum), (4789, true));
    let hops: Vec<_> = tunnel
        .peers
        .iter()
        .map(|peer| peer.next_hop.to_string())
        .collect();
    assert_eq!(hops, ["2001:db8::66", "2001:db8::1"]);
}

#[test]
fn of_two_addresses_the_endpoint_is_the_ipv4_one() {
    let both = green_with(
        "[tunnel]",
        "address6 = \"2001:db8::9/64\"\nnext_hop6 = \"2001:db8::1\"\n\n[tunnel]",
    );
    assert_eq!(tunnel(&both).vtep.to_string(), "192.0.2.9");
}

#[test]
fn without_peers_a_tunnel_waits_for_some() {
    let (before, _) = GREEN.split_once("[[tunnel.peer]]").expect("a peer");
    let (_, ports) = GREEN.split_once("[[port]]").expect("a port");
    assert_eq!(tunnel(&format!("{before}[[port]]{ports}")).peers, []);
}

#[test]
fn with_only_the_uplink_needs_no_next_hop() {
    let text = green_with(
        "next_hop = \"192.0.2.1\"\n\n[tunnel]",
        "\n[tunnel]\nonly = true",
    );
    let text = text.replace("198.51.100.7", "192.0.2.67");
    let config = tenant(&text).offline_config();
    let uplink = config.uplink.expect("there is one");
    assert_eq!((uplink.next_hops.ipv4, uplink.next_hops.ipv6), (None, None));
    let peers = config.tunnel.expect("there is one").peers;
    assert_eq!(peers[1].next_hop, peers[1].vtep);
}

refused! {
    // The section's shape.
    no_kind: "kind = \"geneve\"" => "",
        [r#"missing-key green.toml:12:1: tunnel.kind: missing; write the encapsulation, kind = "geneve" or kind = "vxlan""#];
    another_kind: "geneve" => "gre",
        [r#"invalid green.toml:13:8: tunnel.kind: "gre" is not "geneve" or "vxlan""#];
    unknown_key: "[tunnel]" => "[tunnel]\nvni = 5",
        ["unknown-key green.toml:13:1: tunnel.vni: no such key; the keys here are kind, vtep, port, ttl, dscp, udp_checksum, mss_clamp, only, nested, peer"];
    unknown_key_of_a_peer: "name = \"host-b\"" => "name = \"host-b\"\nprefix = []",
        ["unknown-key green.toml:17:1: tunnel.peer[0].prefix: no such key; did you mean `prefixes`?"];
    an_empty_peer: "name = \"host-b\"\nvtep = \"192.0.2.66\"\nprefixes = [\"10.9.0.71\", \"fd00:9::71\", \"10.9.8.0/24\"]" => "",
        [
            r#"missing-key green.toml:15:1: tunnel.peer[0].name: missing; write the peer's name, as in name = "host-b""#,
            r#"missing-key green.toml:15:1: tunnel.peer[0].vtep: missing; write the peer's tunnel endpoint, as in vtep = "192.0.2.66""#,
            r#"missing-key green.toml:15:1: tunnel.peer[0].prefixes: missing; write the addresses and prefixes behind the peer, as in prefixes = ["10.0.0.71", "10.0.8.0/24"]"#,
        ];
    values_that_are_none: "kind = \"geneve\"" => "kind = 1\nvtep = \"192.0.2\"\nport = \"6081\"\nttl = \"inherits\"\ndscp = true\nudp_checksum = 0\nnested = false\nmss_clamp = 1\nonly = \"no\"",
        [
            "wrong-type green.toml:13:8: tunnel.kind: this is the integer 1, but the key takes a text in quotes",
            r#"invalid green.toml:14:8: tunnel.vtep: "192.0.2" is not an IP address, as in 192.0.2.1"#,
            r#"wrong-type green.toml:15:8: tunnel.port: this is the text "6081", but the key takes an integer"#,
            r#"invalid green.toml:16:7: tunnel.ttl: "inherits" is not an integer from 1 to 255, or "inherit""#,
            r#"wrong-type green.toml:17:8: tunnel.dscp: this is true, but the key takes an integer"#,
            "wrong-type green.toml:18:16: tunnel.udp_checksum: this is the integer 0, but the key takes true or false",
            "wrong-type green.toml:19:10: tunnel.nested: this is false, but the key takes a text in quotes",
            "wrong-type green.toml:20:13: tunnel.mss_clamp: this is the integer 1, but the key takes true or false",
            r#"wrong-type green.toml:21:8: tunnel.only: this is the text "no", but the key takes true or false"#,
        ];
    values_of_a_peer_that_are_none: "vtep = \"192.0.2.66\"" => "vtep = \"host-b\"\nmac = \"ff:ff:ff:ff:ff:ff\"\nnext_hop = \"router\"",
        [
            r#"invalid green.toml:17:8: tunnel.peer[0].vtep: "host-b" is not an IP address, as in 192.0.2.1"#,
            r#"invalid green.toml:18:7: tunnel.peer[0].mac: "ff:ff:ff:ff:ff:ff" is not a unicast MAC address of six hexadecimal bytes, as in 52:54:00:aa:00:01"#,
            r#"invalid green.toml:19:12: tunnel.peer[0].next_hop: "router" is not an IP address, as in 192.0.2.1"#,
        ];
    a_port_of_dhcps: "kind = \"geneve\"" => "kind = \"geneve\"\nport = 546",
        [r#"invalid green.toml:14:8: tunnel.port: "546" is not a UDP port other than DHCP's (67, 68, 546 and 547)"#];
    numbers_out_of_range: "kind = \"geneve\"" => "kind = \"geneve\"\nport = 0\nttl = 256\ndscp = 64",
        [
            r#"invalid green.toml:14:8: tunnel.port: "0" is not a UDP port from 1 to 65535"#,
            r#"invalid green.toml:15:7: tunnel.ttl: "256" is not an integer from 1 to 255, or "inherit""#,
            r#"invalid green.toml:16:8: tunnel.dscp: "64" is not an integer from 0 to 63, or "inherit""#,
        ];
    numbers_far_out_of_range: "kind = \"geneve\"" => "kind = \"geneve\"\nport = 65536\nttl = 0\ndscp = -1",
        [
            r#"invalid green.toml:14:8: tunnel.port: "65536" is not a UDP port from 1 to 65535"#,
            r#"invalid green.toml:15:7: tunnel.ttl: "0" is not an integer from 1 to 255, or "inherit""#,
            r#"invalid green.toml:16:8: tunnel.dscp: "-1" is not an integer from 0 to 63, or "inherit""#,
        ];

    // Our endpoint and the underlay.
    no_uplink: UPLINK => "",
        ["tunnel-without-uplink green.toml:9:1: tunnel: the tunnel needs an underlay; add an [uplink] with the address of this host's tunnel endpoint, or leave [tunnel] out"];
    an_endpoint_that_is_not_ours: "kind = \"geneve\"" => "kind = \"geneve\"\nvtep = \"192.0.2.10\"",
        ["vtep-not-own green.toml:14:8: tunnel.vtep: 192.0.2.10 is no address of the uplink's; write 192.0.2.9, or leave the key out for the first of them"];
    an_endpoint_of_a_family_that_is_not_there: "kind = \"geneve\"" => "kind = \"geneve\"\nvtep = \"2001:db8::9\"",
        [
            "vtep-not-own green.toml:14:8: tunnel.vtep: 2001:db8::9 is no address of the uplink's; write 192.0.2.9, or leave the key out for the first of them",
            "peer-family green.toml:18:8: tunnel.peer[0].vtep: 192.0.2.66 and our own endpoint 2001:db8::9 are not of one family; write the peer's address of that family, or another tunnel.vtep",
            "peer-family green.toml:23:8: tunnel.peer[1].vtep: 198.51.100.7 and our own endpoint 2001:db8::9 are not of one family; write the peer's address of that family, or another tunnel.vtep",
        ];
    an_unreadable_address_hides_nothing_else: "192.0.2.9/24" => "192.0.2.9",
        [r#"invalid green.toml:9:11: uplink.address: "192.0.2.9" is not an address with its prefix length, as in 192.0.2.2/24"#];
    too_little_left_for_ipv6: "next_hop = \"192.0.2.1\"" => "next_hop = \"192.0.2.1\"\nmtu = 1329",
        ["tunnel-mtu green.toml:11:7: uplink.mtu: an MTU of 1329 leaves 1279 bytes for a packet within the tunnel, which adds 50; write at least 1330 (IPv6 needs 1280, RFC 8200)"];
    an_mtu_of_no_link_is_told_of_once: "next_hop = \"192.0.2.1\"" => "next_hop = \"192.0.2.1\"\nmtu = 575",
        ["mtu-range green.toml:11:7: uplink.mtu: 575 is no MTU here; choose one from 576 to 9216"];

    an_unreadable_only_hides_nothing_and_adds_nothing: "next_hop = \"192.0.2.1\"\n\n[tunnel]" => "allow = [\"192.0.2.53\"]\n\n[tunnel]\nonly = 1",
        ["wrong-type green.toml:13:8: tunnel.only: this is the integer 1, but the key takes true or false"];
    an_exception_that_has_no_effect: "next_hop = \"192.0.2.1\"\n\n[tunnel]" => "next_hop = \"192.0.2.1\"\nallow = [\"192.0.2.53\"]\n\n[tunnel]\nonly = true",
        ["allow-only green.toml:11:10: uplink.allow[0]: 192.0.2.53/32 has no effect with tunnel.only = true, as the tenant reaches nothing but its peers; leave it out"];

    // Peers.
    peers_of_one_name: "name = \"host-c\"" => "name = \"host-b\"",
        [r#"duplicate-peer green.toml:21:8: tunnel.peer[1].name: tunnel.peer[0].name is "host-b" already; names of peers are unique within a tenant"#];
    a_peer_that_is_a_group: "198.51.100.7" => "239.1.1.1",
        ["not-unicast green.toml:22:8: tunnel.peer[1].vtep: 239.1.1.1 is a multicast address; write a unicast address"];
    a_peer_among_the_vms: "198.51.100.7" => "10.9.0.200",
        ["peer-inside green.toml:22:8: tunnel.peer[1].vtep: 10.9.0.200 is within 10.9.0.0/24 of gateway.ipv4, where the VMs are; a tunnel endpoint is on the underlay"];
    a_peer_that_is_everybody_on_the_link: "198.51.100.7" => "192.0.2.255",
        ["reserved-address green.toml:22:8: tunnel.peer[1].vtep: 192.0.2.255 is the broadcast address of 192.0.2.0/24; choose another"];
    a_peer_of_another_family: "198.51.100.7" => "2001:db8::7",
        ["peer-family green.toml:22:8: tunnel.peer[1].vtep: 2001:db8::7 and our own endpoint 192.0.2.9 are not of one family; write the peer's address of that family, or another tunnel.vtep"];
    a_peer_that_is_us: "198.51.100.7" => "192.0.2.9",
        ["peer-self green.toml:22:8: tunnel.peer[1].vtep: 192.0.2.9 is this switch's own tunnel endpoint; write the other host's"];
    a_peer_with_our_mac: "name = \"host-c\"" => "name = \"host-c\"\nmac = \"0e:38:ef:10:f9:d9\"",
        ["peer-mac-self green.toml:22:7: tunnel.peer[1].mac: 0e:38:ef:10:f9:d9 is a MAC of this tenant's switch; write that of what takes frames at the peer, or leave the key out if it is a switch of this kind"];
    a_peer_with_the_mac_of_a_function: "name = \"host-c\"" => "name = \"host-c\"\nmac = \"02:00:00:07:00:01\"",
        ["peer-mac-self green.toml:22:7: tunnel.peer[1].mac: 02:00:00:07:00:01 is a MAC of this tenant's switch; write that of what takes frames at the peer, or leave the key out if it is a switch of this kind"];
    a_next_hop_off_the_link: "name = \"host-c\"" => "name = \"host-c\"\nnext_hop = \"198.51.100.1\"",
        ["next-hop-outside green.toml:22:12: tunnel.peer[1].next_hop: 198.51.100.1 is outside 192.0.2.0/24, the subnet of uplink.address; the next hop must be on the uplink's own link"];
    a_next_hop_that_is_us: "name = \"host-c\"" => "name = \"host-c\"\nnext_hop = \"192.0.2.9\"",
        ["next-hop-self green.toml:22:12: tunnel.peer[1].next_hop: 192.0.2.9 is the switch's own address; write the router's"];
    a_next_hop_that_is_none: "name = \"host-c\"" => "name = \"host-c\"\nnext_hop = \"192.0.2.0\"",
        ["reserved-address green.toml:22:12: tunnel.peer[1].next_hop: 192.0.2.0 is the network address of 192.0.2.0/24; choose another"];
    a_learner_beside_the_whole_subnet: "name = \"one\"\nmac = \"52:54:00:cc:00:01\"\naddresses = [\"10.9.0.11\", \"10.9.0.64/30\", \"fd00:9::11\"]" => "name = \"one\"\nmac = \"52:54:00:cc:00:01\"\naddresses = \"learn-dhcp\"\n[[port]]\nname = \"two\"\nmac = \"52:54:00:cc:00:02\"\naddresses = [\"10.9.0.2\"]\ndhcp_server = true",
        ["prefix-of-learned green.toml:23:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is the gateway's whole subnet, of which port[0].addresses learns an address by DHCP; write the parts that are behind the peer"];
    two_ways_to_one_endpoint: "[[tunnel.peer]]\nname = \"host-c\"" => "[[tunnel.peer]]\nname = \"host-d\"\nvtep = \"198.51.100.7\"\nnext_hop = \"192.0.2.254\"\nprefixes = []\n[[tunnel.peer]]\nname = \"host-c\"",
        ["peer-next-hops green.toml:25:1: tunnel.peer[2].next_hop: tunnel.peer[1] has the endpoint 198.51.100.7 too, but another next_hop; write the same in both"];
    no_router_with_only: "next_hop = \"192.0.2.1\"\n\n[tunnel]" => "\n[tunnel]\nonly = true",
        ["peer-unreachable green.toml:20:1: tunnel.peer[1].next_hop: 198.51.100.7 is outside 192.0.2.0/24, the subnet of uplink.address, and no router towards it is known; write next_hop here, or the uplink's"];
    no_router_without_only: "next_hop = \"192.0.2.1\"\n\n[tunnel]" => "\n[tunnel]",
        [r#"missing-key green.toml:8:1: uplink.next_hop: missing; write the underlay's router, as in next_hop = "192.0.2.1""#];
    a_next_hop_without_an_address: "address = \"192.0.2.9/24\"\nnext_hop = \"192.0.2.1\"\n\n[tunnel]" => "next_hop = \"192.0.2.1\"\n\n[tunnel]\nonly = true",
        [r#"missing-key green.toml:8:1: uplink.address: missing; write the switch's own address on the underlay with its prefix length, as in address = "192.0.2.2/24""#];

    // Prefixes.
    a_prefix_with_host_bits: "10.9.8.0/24" => "10.9.8.1/24",
        ["host-bits green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.8.1/24 has bits set behind its prefix length; write 10.9.8.0/24 for the prefix, or the address alone"];
    a_prefix_that_is_none: "10.9.8.0/24" => "10.9.8.0-10.9.8.9",
        [r#"invalid green.toml:18:40: tunnel.peer[0].prefixes[2]: "10.9.8.0-10.9.8.9" is not an IP address or prefix, as in 10.0.0.11 or 10.0.0.16/28"#];
    prefixes_of_no_station: "10.9.8.0/24" => "224.0.0.0/4\", \"0.0.0.0/1\", \"fe80::1\", \"127.0.0.1",
        [
            "not-unicast green.toml:18:40: tunnel.peer[0].prefixes[2]: 224.0.0.0/4 is a multicast address; write a unicast address",
            "not-unicast green.toml:18:55: tunnel.peer[0].prefixes[3]: 0.0.0.0/1 is in 0.0.0.0/8, which means this network; write a unicast address",
            "not-unicast green.toml:18:68: tunnel.peer[0].prefixes[4]: fe80::1 is a link-local address; write a unicast address",
            "not-unicast green.toml:18:79: tunnel.peer[0].prefixes[5]: 127.0.0.1 is a loopback address; write a unicast address",
        ];
    a_prefix_of_a_family_that_the_gateway_lacks: "ipv4 = \"10.9.0.1/24\"\n" => "",
        [
            "gateway-missing green.toml:17:13: tunnel.peer[0].prefixes[0]: 10.9.0.71 is IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:17:40: tunnel.peer[0].prefixes[2]: 10.9.8.0/24 is IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:22:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
            r#"gateway-missing green.toml:27:14: port[0].addresses[0] (port "one"): 10.9.0.11 is IPv4, but the gateway has no IPv4 address; add gateway.ipv4"#,
            r#"gateway-missing green.toml:27:27: port[0].addresses[1] (port "one"): 10.9.0.64/30 is IPv4, but the gateway has no IPv4 address; add gateway.ipv4"#,
        ];
    what_a_port_has: "10.9.8.0/24" => "10.9.0.11\", \"10.9.0.65\", \"10.9.0.66/31\", \"10.9.0.64/30\", \"10.9.0.64/29",
        [
            r#"prefix-at-port green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.0.11 belongs to port "one", which has 10.9.0.11 (port[0].addresses[0]); an address is at a port or behind a peer"#,
            r#"prefix-at-port green.toml:18:53: tunnel.peer[0].prefixes[3]: 10.9.0.65 belongs to port "one", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port or behind a peer"#,
            r#"prefix-at-port green.toml:18:66: tunnel.peer[0].prefixes[4]: 10.9.0.66/31 belongs to port "one", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port or behind a peer"#,
            r#"prefix-at-port green.toml:18:82: tunnel.peer[0].prefixes[5]: 10.9.0.64/30 belongs to port "one", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port or behind a peer"#,
        ];
    what_the_gateway_has: "10.9.8.0/24" => "10.9.0.1\", \"10.9.0.0/31\", \"10.9.0.255\", \"fd00:9::1\", \"fd00:9::",
        [
            "reserved-address green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.0.1 is the address of the gateway of 10.9.0.0/24; choose another",
            "reserved-address green.toml:18:67: tunnel.peer[0].prefixes[4]: 10.9.0.255 is the broadcast address of 10.9.0.0/24; choose another",
            "reserved-address green.toml:18:81: tunnel.peer[0].prefixes[5]: fd00:9::1 is the address of the gateway of fd00:9::/64; choose another",
            "reserved-address green.toml:18:94: tunnel.peer[0].prefixes[6]: fd00:9:: is the subnet-router anycast address (RFC 4291) of fd00:9::/64; choose another",
        ];
    what_the_underlay_has: "10.9.8.0/24" => "192.0.2.66\", \"192.0.0.0/16",
        [
            "subnet-overlap green.toml:18:40: tunnel.peer[0].prefixes[2]: 192.0.2.66/32 overlaps 192.0.2.0/24 of uplink.address: the switch routes between the two, so they must be apart",
            "subnet-overlap green.toml:18:54: tunnel.peer[0].prefixes[3]: 192.0.0.0/16 overlaps 192.0.2.0/24 of uplink.address: the switch routes between the two, so they must be apart",
        ];
    what_another_peer_has: "10.9.8.0/24" => "10.9.0.0/24\", \"10.9.0.71",
        [
            "prefix-repeated green.toml:18:55: tunnel.peer[0].prefixes[3]: 10.9.0.71 is already tunnel.peer[0].prefixes[0]; a prefix is behind one peer and written once",
            "prefix-repeated green.toml:23:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is already tunnel.peer[0].prefixes[2]; a prefix is behind one peer and written once",
        ];
    all_there_is_without_only: "10.9.8.0/24" => "0.0.0.0/0\", \"::/0",
        [
            "prefix-of-all green.toml:18:40: tunnel.peer[0].prefixes[2]: 0.0.0.0/0 is all there is, but this tenant also reaches the world through the uplink; set tunnel.only = true, or list narrower prefixes",
            "prefix-of-all green.toml:18:53: tunnel.peer[0].prefixes[3]: ::/0 is all there is, but this tenant also reaches the world through the uplink; set tunnel.only = true, or list narrower prefixes",
        ];
}

#[test]
fn too_little_left_for_ipv4() {
    let text = BLUE
        .replace("vtep = \"2001:db8::9\"\n", "")
        .replace("address6 = \"2001:db8::9/64\"\n", "")
        .replace("2001:db8:1::66", "192.0.2.66")
        .replace("2001:db8::fe", "192.0.2.66");
    assert_eq!(
        refusal(&text.replace("mtu = 1280", "mtu = 625")),
        [
            "tunnel-mtu blue.toml:9:7: uplink.mtu: an MTU of 625 leaves 575 bytes for a packet within the tunnel, which adds 50; write at least 626"
        ]
        .map(|error| error.replace("blue.toml", "green.toml"))
    );
    assert_eq!(
        tunnel(&text.replace("mtu = 1280", "mtu = 626")).overhead(),
        50
    );
}

#[test]
fn too_little_left_over_ipv6() {
    let text = BLUE.replace("[gateway]", "[gateway]\nipv6 = \"fd00:9::1/64\"");
    assert_eq!(
        refusal(&text.replace("mtu = 1280", "mtu = 1349")),
        [
            "tunnel-mtu green.toml:11:7: uplink.mtu: an MTU of 1349 leaves 1279 bytes for a packet within the tunnel, which adds 70; write at least 1350 (IPv6 needs 1280, RFC 8200)"
        ]
    );
    assert_eq!(
        tunnel(&text.replace("mtu = 1280", "mtu = 1350")).overhead(),
        70
    );
}

#[test]
fn a_port_that_learns_may_get_what_is_behind_a_peer() {
    let text = green_with(
        "addresses = [\"10.9.0.11\", \"10.9.0.64/30\", \"fd00:9::11\"]",
        "addresses = [\"10.9.0.2\"]\ndhcp_server = true\n[[port]]\nname = \"two\"\nmac = \"52:54:00:cc:00:02\"\naddresses = \"learn-dhcp\"",
    );
    let text = text.replace("\"10.9.0.0/24\", ", "\"10.9.0.64/26\", ");
    assert_eq!(tunnel(&text).peers.len(), 2);
}

/// `count` peers with these prefixes, apart in everything that must be.
fn peers(count: usize, prefixes: impl Fn(usize) -> Vec<String>) -> String {
    let peer = |n: usize| {
        format!(
            "[[tunnel.peer]]\nname = \"p{n}\"\nvtep = \"198.51.{}.{}\"\nprefixes = {:?}\n",
            n >> 8,
            n & 255,
            prefixes(n)
        )
    };
    (0..count).map(peer).collect()
}

/// [`GREEN`] with `peers` for its own.
fn green_of(peers: &str) -> String {
    let (before, _) = GREEN.split_once("[[tunnel.peer]]").expect("a peer");
    let (_, ports) = GREEN.split_once("[[port]]").expect("a port");
    format!("{before}{peers}[[port]]{ports}")
}

/// The `n`th of many prefixes.
fn prefix(n: usize) -> String {
    format!("fd00:a::{:x}:{:x}", n >> 16, n & 0xffff)
}

#[test]
fn as_many_peers_and_prefixes_as_there_may_be_are_taken() {
    let each = MAX_PREFIXES / MAX_PEERS;
    let text = green_of(&peers(MAX_PEERS, |peer| {
        (peer * each..(peer + 1) * each).map(prefix).collect()
    }));
    let config = tenant(&text).offline_config();
    assert_eq!(config.validate("green.json"), Ok(()));
    let peers = &config.tunnel.expect("there is one").peers;
    let prefixes: usize = peers.iter().map(|peer| peer.prefixes.len()).sum();
    assert_eq!((peers.len(), prefixes), (MAX_PEERS, MAX_PREFIXES));
}

#[test]
fn more_peers_or_prefixes_are_refused() {
    assert_eq!(
        refusal(&green_of(&peers(MAX_PEERS + 1, |_| Vec::new()))),
        [
            "too-many green.toml:15:1: tunnel.peer: there are 1025 of them, and a switch takes at most 1024; split the tenant's file or merge entries"
        ]
    );
    let prefixes = |peer| match peer {
        0 => (0..MAX_PREFIXES).map(prefix).collect(),
        _ => vec!["10.9.8.0/24".to_owned()],
    };
    assert_eq!(
        refusal(&green_of(&peers(2, prefixes))),
        [
            "too-many-prefixes green.toml:15:1: tunnel.peer: there are 131073 prefixes behind all peers together, and a switch takes at most 131072; merge neighbouring ones"
        ]
    );
}

#[test]
fn a_thousand_errors_are_enough() {
    let same = |_| vec!["10.9.8.0/24".to_owned(); 2000];
    assert_eq!(refusal(&green_of(&peers(1, same))).len(), 1000);
}

/// What [`GREEN`]'s switch is given, as JSON.
fn green_json() -> Value {
    serde_json::to_value(tenant(GREEN).offline_config()).expect("a configuration is JSON")
}

fn read(json: &Value) -> Result<SwitchConfig, String> {
    SwitchConfig::from_json("green.json", &json.to_string()).map_err(|errors| errors.to_string())
}

/// The errors of a switch's configuration after `change`.
fn switch_refusal(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut json = green_json();
    change(&mut json);
    match read(&json) {
        Ok(config) => panic!("{config:?} was accepted"),
        Err(errors) => errors.lines().map(str::to_owned).collect(),
    }
}

#[test]
fn json_is_read_back_as_it_was_written() {
    for text in [GREEN, BLUE] {
        let config = tenant(text).offline_config();
        let json = serde_json::to_value(&config).expect("a configuration is JSON");
        assert_eq!(read(&json), Ok(config));
    }
}

#[test]
fn json_may_leave_out_what_has_a_default() {
    let mut json = green_json();
    let tunnel = json["tunnel"].as_object_mut().expect("a table");
    for key in ["ttl", "dscp", "nested", "mss_clamp", "only"] {
        assert!(tunnel.remove(key).is_some(), "{key} is written");
    }
    assert_eq!(read(&json), Ok(tenant(GREEN).offline_config()));
    json["tunnel"]
        .as_object_mut()
        .expect("a table")
        .remove("peers");
    let tunnel = read(&json)
        .expect("it is valid")
        .tunnel
        .expect("it is there");
    assert_eq!((tunnel.peers, tunnel.ttl), (vec![], TunnelTtl::Fixed(64)));
}

#[test]
fn json_of_a_wrong_value() {
    let at = |pointer: &'static str, value: Value| {
        let errors =
            switch_refusal(|json| *json.pointer_mut(pointer).expect("it is there") = value);
        let [error] = &errors[..] else {
            panic!("{errors:?}")
        };
        // A value of a wrong shape has its column, which tells of nothing but the length of what is before.
        error.split_once(": ").expect("a place").1.to_owned()
    };
    assert_eq!(
        [
            at("/tunnel/ttl", json!(0)),
            at("/tunnel/ttl", json!(256)),
            at("/tunnel/ttl", json!("copy")),
            at("/tunnel/dscp", json!(64)),
            at("/tunnel/dscp", json!(-1)),
            at("/tunnel/port", json!(0)),
            at("/tunnel/port", json!(65536)),
            at("/tunnel/kind", json!("gre")),
            at("/tunnel/mac", json!("01:00:00:00:00:00")),
            at("/tunnel/peers/1/next_hop", json!("198.51.100.1")),
            at("/tunnel/peers/1/mac", json!("0e:38:ef:10:f9:d9")),
        ],
        [
            r#"tunnel.ttl: "0" is not an integer from 1 to 255, or "inherit""#,
            r#"tunnel.ttl: the TTL is an integer from 1 to 255, or "inherit""#,
            r#"tunnel.ttl: the TTL is an integer from 1 to 255, or "inherit""#,
            r#"tunnel.dscp: "64" is not an integer from 0 to 63, or "inherit""#,
            r#"tunnel.dscp: the DSCP is an integer from 0 to 63, or "inherit""#,
            r#"tunnel.port: "0" is not a UDP port from 1 to 65535"#,
            "tunnel.port: invalid value: integer `65536`, expected u16",
            "tunnel.kind: unknown variant `gre`, expected `geneve` or `vxlan`",
            r#"tunnel.mac: "01:00:00:00:00:00" is not a unicast MAC address of six hexadecimal bytes, as in 52:54:00:aa:00:01"#,
            "tunnel.peers[1].next_hop: 198.51.100.1 is outside 192.0.2.0/24, the subnet of uplink.ipv4; the next hop must be on the uplink's own link",
            "tunnel.peers[1].mac: 0e:38:ef:10:f9:d9 is a MAC of this tenant's switch; write that of what takes frames at the peer, or leave the key out if it is a switch of this kind",
        ]
    );
}

#[test]
fn what_the_tables_rely_on_is_checked() {
    let errors = switch_refusal(|json| {
        json["uplink"]["mtu"] = json!(1300);
        json["tunnel"]["vtep"] = json!("192.0.2.10");
        json["tunnel"]["peers"][0]["vtep"] = json!("192.0.2.10");
        json["tunnel"]["peers"][1]["name"] = json!("host-b");
        json["tunnel"]["peers"][1]["next_hop"] = json!("192.0.2.9");
        json["tunnel"]["peers"][1]["prefixes"] = json!([
            "::/0",
            "10.9.8.0/24",
            "10.9.0.11/32",
            "10.9.0.1/32",
            "10.9.0.0/16",
            "10.9.0.1/16",
            "ff00::/8",
        ]);
    });
    assert_eq!(
        errors,
        [
            "tunnel.vtep: 192.0.2.10 is no address of the uplink's; write 192.0.2.9, or leave the key out for the first of them",
            "uplink.mtu: an MTU of 1300 leaves 1250 bytes for a packet within the tunnel, which adds 50; write at least 1330 (IPv6 needs 1280, RFC 8200)",
            "tunnel.peers[0].vtep: 192.0.2.10 is this switch's own tunnel endpoint; write the other host's",
            r#"tunnel.peers[1].name: tunnel.peers[0].name is "host-b" already; names of peers are unique within a tenant"#,
            "tunnel.peers[1].next_hop: 192.0.2.9 is the switch's own address; write the router's",
            "tunnel.peers[1].prefixes[0]: ::/0 is all there is, but this tenant also reaches the world through the uplink; set tunnel.only = true, or list narrower prefixes",
            "tunnel.peers[1].prefixes[3]: 10.9.0.1 is the address of the gateway of 10.9.0.0/24; choose another",
            "tunnel.peers[1].prefixes[5]: 10.9.0.1/16 has bits set behind its prefix length; write 10.9.0.0/16 for the prefix, or the address alone",
            "tunnel.peers[1].prefixes[6]: ff00::/8 is a multicast address; write a unicast address",
            r#"tunnel.peers[1].prefixes[2]: 10.9.0.11 belongs to port "one", which has 10.9.0.11 (ports[0].addresses[0]); an address is at a port or behind a peer"#,
            "tunnel.peers[1].prefixes[1]: 10.9.8.0/24 is already tunnel.peers[0].prefixes[2]; a prefix is behind one peer and written once",
        ]
        .map(|error| format!("green.json: {error}"))
    );
}

#[test]
fn a_tunnel_without_an_underlay_is_refused() {
    assert_eq!(
        switch_refusal(|json| drop(json.as_object_mut().expect("a table").remove("uplink"))),
        [
            "green.json: tunnel: the tunnel needs an underlay; add an [uplink] with the address of this host's tunnel endpoint, or leave [tunnel] out"
        ]
    );
}

#[test]
fn lists_without_end_are_refused_before_their_values_are_looked_at() {
    let peer = green_json()["tunnel"]["peers"][0].clone();
    assert_eq!(
        switch_refusal(|json| {
            let mut many = vec![peer; 2000];
            many[0]["prefixes"] = vec!["10.9.0.1/32"; MAX_PREFIXES].into();
            json["tunnel"]["peers"] = many.into();
        }),
        [
            "green.json: tunnel.peers: there are 2000 of them, and a switch takes at most 1024; split the tenant's file or merge entries",
            "green.json: tunnel.peers: there are 137069 prefixes behind all peers together, and a switch takes at most 131072; merge neighbouring ones",
        ]
    );
}

#[test]
fn devices_are_as_many_as_without_a_tunnel() {
    let devices = Devices {
        ports: vec![tenant_config::Device::Offline],
        uplink: Some(tenant_config::Device::Offline),
        memory: tenant_config::Memory::default(),
        control_socket: None,
    };
    let green = tenant(GREEN);
    assert_eq!(green.switch_config(devices), Ok(green.offline_config()));
}
