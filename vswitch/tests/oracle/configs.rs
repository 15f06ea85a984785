//! The switches that the frames are tried on.

use serde_json::{Value, json};
use tenant_config::SwitchConfig;

/// Each with the name that failures are reported under.
pub(crate) fn all() -> Vec<(&'static str, SwitchConfig)> {
    vec![
        ("three", three()),
        ("trunk", trunk()),
        ("lone", lone()),
        ("inside", inside()),
        ("ipv4", ipv4()),
        ("ipv6", ipv6()),
        ("limited", limited()),
    ]
}

/// What most rows are shown on. `vm1` is an ordinary VM; `vm2` has prefixes, further MACs and may not
/// encapsulate; `vm3` serves DHCP and takes only small packets. There is an uplink with a hole in the
/// underlay.
pub(crate) fn three() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] })),
            port("vm2", 2, json!({
                "addresses": ["10.0.0.12/32", "10.0.0.64/28", "172.16.0.0/16", "fd00:0:0:1::12/128", "fd00:0:0:2::/112"],
                "extra_macs": ["00:00:5e:00:01:07"],
                "encapsulation": "deny",
            })),
            port("vm3", 3, json!({
                "addresses": ["10.0.0.13/32", "fd00:0:0:1::13/128"],
                "dhcp_server": true,
                "mtu": 1300,
            })),
        ],
        "uplink": uplink(json!({ "driver": "offline" })),
    }))
}

/// `vm1` may use tags, `vm2` may announce itself by RARP, `vm3` has learned nothing yet. The uplink's
/// device does not filter MACs. Nobody serves DHCP.
pub(crate) fn trunk() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({
                "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"],
                "trunk": [100, 200],
            })),
            port("vm2", 2, json!({
                "addresses": ["10.0.0.12/32", "fd00:0:0:1::12/128"],
                "announce": true,
                "encapsulation": "deny",
            })),
            port("vm3", 3, json!({ "addresses": "learn-dhcp" })),
        ],
        "uplink": uplink(json!({ "driver": "af_packet", "interface": "up0" })),
    }))
}

/// `vm2` serves DHCP to `vm3`, which has what it learns. The model does not learn: this switch is for
/// tests that tell a story.
pub(crate) fn learning() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32"] })),
            port("vm2", 2, json!({ "addresses": ["10.0.0.12/32"], "dhcp_server": true })),
            port("vm3", 3, json!({ "addresses": "learn-dhcp" })),
        ],
        "uplink": {
            "device": { "driver": "offline" },
            "mac": "02:00:13:89:00:00",
            "ipv4": "192.0.2.2/24",
            "next_hops": { "ipv4": "192.0.2.1" },
        },
    }))
}

/// One port and nothing beyond.
pub(crate) fn lone() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] }))],
    }))
}

/// Two ports, one of them with two DHCP servers' worth of trust, and no uplink.
pub(crate) fn inside() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({
                "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"],
                "dhcp_server": true,
                "trunk": [5],
                "announce": true,
            })),
            port("vm2", 2, json!({
                "addresses": ["10.0.0.12/32", "fd00:0:0:1::12/128"],
                "dhcp_server": true,
                "mtu": 1280,
            })),
        ],
    }))
}

/// A tenant without IPv6.
pub(crate) fn ipv4() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32"] })),
            port("vm2", 2, json!({ "addresses": ["10.0.0.12/32"], "dhcp_server": true })),
        ],
        "uplink": {
            "device": { "driver": "offline" },
            "mac": "02:00:13:89:00:00",
            "ipv4": "192.0.2.2/24",
            "next_hops": { "ipv4": "192.0.2.1" },
        },
    }))
}

/// A tenant without IPv4.
pub(crate) fn ipv6() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["fd00:0:0:1::11/128"] })),
            port("vm2", 2, json!({ "addresses": ["fd00:0:0:1::12/128", "fd00:0:0:2::/112"] })),
        ],
        "uplink": {
            "device": { "driver": "offline" },
            "mac": "02:00:13:89:00:00",
            "ipv6": "2001:db8::2/64",
            "next_hops": { "ipv6": "2001:db8::1" },
        },
    }))
}

/// [`three`] with every limit on `vm1`, each within reach of a few frames.
pub(crate) fn limited() -> SwitchConfig {
    let mut config = three();
    config.ports[0].limits = tenant_config::Limits {
        broadcast_pps: Some(4),
        arp_nd_pps: Some(2),
        dhcp_pps: Some(2),
        pps: Some(8),
        bps: Some(20_000),
    };
    config
}

fn switch(mut rest: Value) -> SwitchConfig {
    rest["tenant"] = "red".into();
    rest["vni"] = 5001.into();
    serde_json::from_value(rest).expect("a switch's configuration")
}

fn port(name: &str, number: u8, mut rest: Value) -> Value {
    rest["name"] = name.into();
    rest["device"] = json!({ "driver": "offline" });
    rest["mac"] = format!("52:54:00:aa:00:{number:02x}").into();
    rest["gateway_mac"] = format!("02:00:13:89:00:{number:02x}").into();
    rest
}

fn uplink(device: Value) -> Value {
    json!({
        "device": device,
        "mac": "02:00:13:89:00:00",
        "ipv4": "192.0.2.2/24",
        "ipv6": "2001:db8::2/64",
        "next_hops": { "ipv4": "192.0.2.1", "ipv6": "2001:db8::1" },
        "allow": ["192.0.2.128/25", "2001:db8::8000/113"],
    })
}
