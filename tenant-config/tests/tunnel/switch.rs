//! The tunnel in a switch's configuration.

use serde_json::{Value, json};
use tenant_config::{MAX_PREFIXES, SwitchConfig, TunnelTtl};

use super::{BLUE, GREEN, tenant};

/// The configuration of [`GREEN`]'s switch as JSON.
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
fn json_round_trip_is_equal() {
    for text in [GREEN, BLUE] {
        let config = tenant(text).offline_config();
        let json = serde_json::to_value(&config).expect("a configuration is JSON");
        assert_eq!(read(&json), Ok(config));
    }
}

#[test]
fn json_without_defaulted_keys_accepted() {
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
fn json_with_invalid_value_refused() {
    let at = |pointer: &'static str, value: Value| {
        let errors =
            switch_refusal(|json| *json.pointer_mut(pointer).expect("it is there") = value);
        let [error] = &errors[..] else {
            panic!("{errors:?}")
        };
        // The column of a value of wrong shape depends only on the length of the text before it.
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
            "tunnel.mac: \"01:00:00:00:00:00\" is not a unicast MAC address of six hexadecimal \
             bytes, as in 52:54:00:aa:00:01",
            "tunnel.peers[1].next_hop: 198.51.100.1 is outside 192.0.2.0/24, the subnet of \
             uplink.ipv4; the next hop must be on the uplink's own link",
            "tunnel.peers[1].mac: 0e:38:ef:10:f9:d9 is a MAC of this tenant's switch; write that \
             of what takes frames at the peer, or leave the key out if it is a switch of this kind",
        ]
    );
}

#[test]
fn json_breaking_rules_refused() {
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
            "tunnel.vtep: 192.0.2.10 is no address of the uplink's; write 192.0.2.9, or leave the \
             key out for the first of them",
            "uplink.mtu: an MTU of 1300 leaves 1250 bytes for a packet within the tunnel, which \
             adds 50; write at least 1330 (IPv6 needs 1280, RFC 8200)",
            "tunnel.peers[0].vtep: 192.0.2.10 is this switch's own tunnel endpoint; write the \
             other host's",
            "tunnel.peers[1].name: tunnel.peers[0].name is \"host-b\" already; names of peers are \
             unique within a tenant",
            "tunnel.peers[1].next_hop: 192.0.2.9 is the switch's own address; write the router's",
            "tunnel.peers[1].prefixes[0]: ::/0 is all there is, but this tenant also reaches the \
             world through the uplink; set tunnel.only = true, or list narrower prefixes",
            "tunnel.peers[1].prefixes[3]: 10.9.0.1 is the address of the gateway of 10.9.0.0/24; \
             choose another",
            "tunnel.peers[1].prefixes[5]: 10.9.0.1/16 has bits set behind its prefix length; write \
             10.9.0.0/16 for the prefix, or the address alone",
            "tunnel.peers[1].prefixes[6]: ff00::/8 is a multicast address; write a unicast address",
            "tunnel.peers[1].prefixes[2]: 10.9.0.11 belongs to port \"one\", which has 10.9.0.11 \
             (ports[0].addresses[0]); an address is at a port or behind a peer",
            "tunnel.peers[1].prefixes[1]: 10.9.8.0/24 is already tunnel.peers[0].prefixes[2]; a \
             prefix is behind one peer and written once",
        ]
        .map(|error| format!("green.json: {error}"))
    );
}

#[test]
fn json_tunnel_without_uplink_refused() {
    assert_eq!(
        switch_refusal(|json| drop(json.as_object_mut().expect("a table").remove("uplink"))),
        [
            "green.json: tunnel: the tunnel needs an underlay; add an [uplink] with the address of \
             this host's tunnel endpoint, or leave [tunnel] out"
        ]
    );
}

#[test]
fn oversized_list_rejected_before_its_values() {
    let peer = green_json()["tunnel"]["peers"][0].clone();
    assert_eq!(
        switch_refusal(|json| {
            let mut many = vec![peer; 2000];
            many[0]["prefixes"] = vec!["10.9.0.1/32"; MAX_PREFIXES].into();
            json["tunnel"]["peers"] = many.into();
        }),
        [
            "green.json: tunnel.peers: there are 2000 of them, and a switch takes at most 1024; \
             split the tenant's file or merge entries",
            "green.json: tunnel.peers: there are 137069 prefixes behind all peers together, and a \
             switch takes at most 131072; merge neighbouring ones",
        ]
    );
}
