//! The tunnel: the keys of a tenant file, the keys that follow from them, and the switch's part.

mod errors;
mod ipsec;
mod switch;

use serde_json::json;
use tenant_config::{Devices, Encapsulation, Tenant, TunnelConfig};

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

/// The tunnel of the switch of `text`.
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

#[test]
fn absent_keys_follow_from_the_others() {
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
fn written_keys_reach_the_switch() {
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
fn tenant_serialises_to_its_own_text() {
    for text in [GREEN, BLUE] {
        let tenant = tenant(text);
        let again = toml::to_string(&tenant).expect("a tenant is TOML");
        assert_eq!(Tenant::parse("again.toml", &again), Ok(tenant), "{again}");
    }
    // Values that follow from others are not serialised.
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
fn vxlan_over_ipv6_defaults_to_checksums_and_port_4789() {
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
fn vtep_defaults_to_ipv4_of_two_addresses() {
    let both = green_with(
        "[tunnel]",
        "address6 = \"2001:db8::9/64\"\nnext_hop6 = \"2001:db8::1\"\n\n[tunnel]",
    );
    assert_eq!(tunnel(&both).vtep.to_string(), "192.0.2.9");
}

#[test]
fn tunnel_without_peers_accepted() {
    let (before, _) = GREEN.split_once("[[tunnel.peer]]").expect("a peer");
    let (_, ports) = GREEN.split_once("[[port]]").expect("a port");
    assert_eq!(tunnel(&format!("{before}[[port]]{ports}")).peers, []);
}

#[test]
fn only_makes_next_hop_optional() {
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

#[test]
fn learning_port_beside_part_of_subnet_accepted() {
    let text = green_with(
        "addresses = [\"10.9.0.11\", \"10.9.0.64/30\", \"fd00:9::11\"]",
        "addresses = [\"10.9.0.2\"]\ndhcp_server = true\n[[port]]\nname = \"two\"\nmac = \
         \"52:54:00:cc:00:02\"\naddresses = \"learn-dhcp\"",
    );
    let text = text.replace("\"10.9.0.0/24\", ", "\"10.9.0.64/26\", ");
    assert_eq!(tunnel(&text).peers.len(), 2);
}

#[test]
fn tunnel_needs_no_device_of_its_own() {
    let devices = Devices {
        ports: vec![tenant_config::Device::Offline],
        uplink: Some(tenant_config::Device::Offline),
        memory: tenant_config::Memory::default(),
        control_socket: None,
    };
    let green = tenant(GREEN);
    assert_eq!(green.switch_config(devices), Ok(green.offline_config()));
}
