//! The configuration of one switch: made from a tenant, written as JSON, read and checked again.

use serde_json::{Value, json};
use tenant_config::{Device, Devices, Memory, SwitchConfig, Tenant};

const GREEN: &str = r#"name = "green"
vni = 7
[gateway]
ipv4 = "10.9.0.1/24"
[uplink]
address = "192.0.2.9/24"
next_hop = "192.0.2.1"
[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11", "10.9.0.64/28"]
limits = { pps = 9 }
[[port]]
name = "two"
mac = "52:54:00:cc:00:02"
addresses = "learn-dhcp"
[[port]]
name = "dhcp"
mac = "52:54:00:cc:00:03"
addresses = ["10.9.0.2"]
dhcp_server = true
"#;

fn green() -> Tenant {
    Tenant::parse("green.toml", GREEN).unwrap_or_else(|errors| panic!("{errors}"))
}

fn interface(name: &str) -> Device {
    Device::AfPacket {
        interface: name.to_owned(),
    }
}

fn devices(ports: usize, uplink: bool) -> Devices {
    Devices {
        ports: (0..ports).map(|n| interface(&format!("gw{n}"))).collect(),
        uplink: uplink.then(|| interface("up0")),
        memory: Memory::default(),
        control_socket: Some("/run/green.sock".into()),
    }
}

/// The configuration of [`green`]'s switch as JSON.
fn green_json() -> Value {
    let config = green().switch_config(devices(3, true));
    serde_json::to_value(config.expect("the devices match")).expect("a configuration is JSON")
}

/// The errors after `change`.
fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut json = green_json();
    change(&mut json);
    match SwitchConfig::from_json("green.json", &json.to_string()) {
        Ok(config) => panic!("{config:?} was accepted"),
        Err(errors) => errors.to_string(),
    }
}

/// What a VM has learned of its gateway does not depend on the ports beside it.
#[test]
fn gateway_macs_stay_when_other_ports_go() {
    let macs = |tenant: &Tenant| {
        let config = tenant.offline_config();
        let ports = config.ports.iter();
        ports
            .map(|port| (port.name.to_string(), port.gateway_mac))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let (head, ports) = GREEN.split_once("[[port]]").expect("a port");
    let (_first, others) = ports.split_once("[[port]]").expect("two ports");
    let fewer = format!("{head}[[port]]{others}");
    let fewer = Tenant::parse("fewer.toml", &fewer).expect("a tenant");
    let (all, left) = (macs(&green()), macs(&fewer));
    assert_eq!((all.len(), left.len()), (3, 2));
    assert!(left.iter().all(|(name, mac)| all[name] == *mac), "{left:?}");
}

#[test]
fn switch_config_has_tenant_and_devices() {
    let expected = json!({
        "tenant": "green",
        "vni": 7,
        "gateway": { "ipv4": "10.9.0.1/24" },
        "ports": [
            {
                "name": "one",
                "device": { "driver": "af_packet", "interface": "gw0" },
                "gateway_mac": "06:aa:17:cc:5c:f8",
                "mac": "52:54:00:cc:00:01",
                "addresses": ["10.9.0.11/32", "10.9.0.64/28"],
                "dhcp_server": false,
                "announce": false,
                "encapsulation": "allow",
                "mtu": 1500,
                "limits": { "pps": 9 },
            },
            {
                "name": "two",
                "device": { "driver": "af_packet", "interface": "gw1" },
                "gateway_mac": "06:13:07:54:9a:a1",
                "mac": "52:54:00:cc:00:02",
                "addresses": "learn-dhcp",
                "dhcp_server": false,
                "announce": false,
                "encapsulation": "allow",
                "mtu": 1500,
                "limits": {},
            },
            {
                "name": "dhcp",
                "device": { "driver": "af_packet", "interface": "gw2" },
                "gateway_mac": "06:d0:c9:cf:98:f3",
                "mac": "52:54:00:cc:00:03",
                "addresses": ["10.9.0.2/32"],
                "dhcp_server": true,
                "announce": false,
                "encapsulation": "allow",
                "mtu": 1500,
                "limits": {},
            },
        ],
        "uplink": {
            "device": { "driver": "af_packet", "interface": "up0" },
            "mac": "0a:38:ef:10:f9:d9",
            "ipv4": "192.0.2.9/24",
            "next_hops": { "ipv4": "192.0.2.1" },
            "mtu": 1500,
        },
        "memory": { "mib": 32, "hugepages": false },
        "control_socket": "/run/green.sock",
    });
    assert_eq!(green_json(), expected);
}

#[test]
fn json_round_trip_is_equal() {
    for config in [
        green().offline_config(),
        green().switch_config(devices(3, true)).unwrap(),
    ] {
        let text = serde_json::to_string_pretty(&config).unwrap();
        assert_eq!(SwitchConfig::from_json("green.json", &text), Ok(config));
    }
}

#[test]
fn device_counts_must_match_tenant() {
    let mismatch = |ports, uplink| {
        let result = green().switch_config(devices(ports, uplink));
        result.expect_err("the devices do not match").to_string()
    };
    assert_eq!(
        mismatch(2, true),
        "tenant green has 3 ports, but 2 port devices were given"
    );
    assert_eq!(
        mismatch(3, false),
        "tenant green has an uplink, but no device for it was given"
    );
}

#[test]
fn device_for_absent_uplink_refused() {
    let text = "name = \"a\"\nvni = 1\ngateway.ipv4 = \"10.0.0.1/24\"\n[[port]]\nname = \"b\"\n\
                mac = \"52:54:00:00:00:01\"\naddresses = [\"10.0.0.2\"]\n";
    let tenant = Tenant::parse("a.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    let error = tenant.switch_config(devices(1, true)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tenant a has no uplink, but a device for one was given"
    );
}

#[test]
fn json_of_wrong_shape_refused() {
    let refused = |text: &str| {
        SwitchConfig::from_json("x.json", text)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        [
            refused("{\n  \"tenant\": \"a\",\n"),
            refused("{\"tenant\": \"a\", \"color\": 1}"),
            refused("{\"tenant\": \"a\"}"),
            refused(&format!("{:#} {{}}", green_json())),
        ],
        [
            "x.json:3:0: EOF while parsing a value",
            "x.json:1:23: color: unknown field `color`, expected one of `tenant`, `vni`, \
             `gateway`, `ports`, `uplink`, `tunnel`, `multicast`, `memory`, `control_socket`",
            "x.json:1:15: missing field `vni`",
            "x.json:78:3: trailing characters",
        ]
    );
}

#[test]
fn json_with_invalid_value_refused() {
    let at = |pointer: &'static str, value: Value| {
        let error = refusal(|json| *json.pointer_mut(pointer).expect("it is there") = value);
        // The column is the length of all that comes before it in one line.
        error.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(
        [
            at("/ports/1/mac", json!("ff:ff:ff:ff:ff:ff")),
            at("/ports/0/addresses/1", json!("10.9.0.300/28")),
            at("/ports/0/addresses", json!("dhcp")),
            at("/ports/0/addresses", json!({})),
            at("/vni", json!(0)),
            at("/ports/0/device/driver", json!("afpacket")),
            at("/ports/0/limits", json!({ "qps": 1 })),
            at("/gateway", json!({ "dhcp": { "lease_s": 9 } })),
        ],
        [
            "ports[1].mac: \"ff:ff:ff:ff:ff:ff\" is not a unicast MAC address of six hexadecimal \
             bytes, as in 52:54:00:aa:00:01",
            "ports[0].addresses[1]: invalid IP address syntax",
            "ports[0].addresses: invalid value: string \"dhcp\", expected an array of addresses \
             with prefix length, or \"learn-dhcp\"",
            "ports[0].addresses: invalid type: map, expected an array of addresses with prefix \
             length, or \"learn-dhcp\"",
            r#"vni: "0" is not a VNI from 1 to 16777215"#,
            "ports[0].device.driver: unknown variant `afpacket`, expected one of `offline`, \
             `af_packet`, `af_xdp`, `memif`, `pci`",
            "ports[0].limits.qps: unknown field `qps`, expected one of `broadcast_pps`, \
             `multicast_pps`, `arp_nd_pps`, `dhcp_pps`, `pps`, `bps`",
            r#"gateway.dhcp.lease_s: "9" is not a duration from 10 to 604800 seconds"#,
        ]
    );
}

#[test]
fn json_breaking_rules_refused() {
    let errors = refusal(|json| {
        json["ports"][0]["name"] = json!("uplink");
        json["ports"][0]["addresses"] = json!(["10.9.0.1/32", "10.9.0.64/27", "10.9.0.65/27"]);
        json["ports"][0]["limits"]["pps"] = json!(0);
        json["ports"][1]["mac"] = json!("52:54:00:cc:00:01");
        json["ports"][1]["device"] = json["ports"][0]["device"].clone();
        json["ports"][2]["name"] = json!("two");
        json["ports"][2]["addresses"] = json!(["10.9.0.80/32"]);
        json["ports"][2]["dhcp_server"] = json!(false);
        json["ports"][2]["gateway_mac"] = json!("52:54:00:cc:00:01");
        json["uplink"]["next_hops"] = json!({ "ipv4": "192.0.3.1", "ipv6": "2001:db8::1" });
        json["uplink"]["mtu"] = json!(100);
        json["memory"]["mib"] = json!(0);
    });
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(
        lines,
        [
            "green.json: uplink.ipv6: missing; write the switch's own address of that family, with \
             its prefix length",
            "green.json: uplink.next_hops.ipv4: 192.0.3.1 is outside 192.0.2.0/24, the subnet of \
             uplink.ipv4; the next hop must be on the uplink's own link",
            "green.json: uplink.mtu: 100 is no MTU here; choose one from 576 to 9216",
            "green.json: ports[0].name (port \"uplink\"): \"uplink\" is the name of the In/Out \
             side; give the port another name",
            "green.json: ports[2].name (port \"two\"): ports[1].name is \"two\" already; names are \
             unique within a tenant",
            "green.json: ports[1].mac (port \"two\"): 52:54:00:cc:00:01 is also ports[0].mac; \
             every MAC names one port",
            "green.json: ports[0].addresses[0] (port \"uplink\"): 10.9.0.1 is the address of the \
             gateway of 10.9.0.0/24; choose another",
            "green.json: ports[0].addresses[2] (port \"uplink\"): 10.9.0.65/27 has bits set behind \
             its prefix length; write 10.9.0.64/27 for the prefix, or the address alone",
            "green.json: ports[0].addresses[2] (port \"uplink\"): 10.9.0.65/27 is already in \
             10.9.0.64/27 of the same port (ports[0].addresses[1]); leave it out",
            "green.json: ports[2].addresses[0] (port \"two\"): 10.9.0.80 overlaps 10.9.0.65/27 of \
             port \"uplink\" (ports[0].addresses[2]); every address belongs to one port",
            "green.json: ports[1].addresses (port \"two\"): no other port of the tenant has \
             dhcp_server = true, so there is nobody to learn from; set it, or list the addresses",
            "green.json: ports[0].limits.pps (port \"uplink\"): a limit of 0 stops every such \
             frame; write at least 1, or leave the key out for no limit",
            "green.json: ports[1].device (port \"two\"): this device also carries ports[0]; every \
             port has its own",
            "green.json: ports[2].gateway_mac (port \"two\"): 52:54:00:cc:00:01 is also \
             ports[1].mac; every MAC names one port",
            r#"green.json: memory.mib: "0" is not a size in MiB of at least 1"#,
        ]
    );
}

#[test]
fn memif_without_trusted_peer_refused() {
    let memif = |trusted: Option<bool>| {
        let mut device = json!({
            "driver": "memif", "socket": "/run/wire", "id": 0, "server": true,
        });
        if let Some(trusted) = trusted {
            device["trusted_peer"] = trusted.into();
        }
        move |json: &mut Value| {
            json["ports"][1]["device"] = device.clone();
            json["uplink"]["device"] = device;
            json["uplink"]["device"]["id"] = json!(1);
        }
    };
    for trusted in [None, Some(false)] {
        let errors = refusal(memif(trusted));
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{errors}");
        for (line, key) in lines.into_iter().zip([
            "ports[1].device.trusted_peer (port \"two\")",
            "uplink.device.trusted_peer",
        ]) {
            let start = format!("green.json: {key}: missing or false; the peer of a memif shares");
            assert!(line.starts_with(&start), "{line}");
        }
    }
    let mut json = green_json();
    memif(Some(true))(&mut json);
    SwitchConfig::from_json("green.json", &json.to_string()).expect("both peers are trusted");
}

#[test]
fn gateway_mac_among_extra_macs_refused() {
    let errors = refusal(|json| {
        json["ports"][0]["extra_macs"] = json!(["00:00:5e:00:01:07"]);
        json["ports"][1]["gateway_mac"] = json!("00:00:5e:00:01:07");
    });
    assert_eq!(
        errors,
        "green.json: ports[1].gateway_mac (port \"two\"): 00:00:5e:00:01:07 is also \
         ports[0].extra_macs[0]; every MAC names one port"
    );
}

#[test]
fn json_without_ports_or_addresses_refused() {
    let errors = refusal(|json| {
        json["ports"] = json!([]);
        json["gateway"] = json!({});
        json["uplink"].as_object_mut().unwrap().remove("ipv4");
    });
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(
        lines,
        [
            "green.json: uplink.ipv4: missing; write the switch's own address of that family, with \
             its prefix length",
            "green.json: gateway: the gateway has no address; write ipv4, ipv6 or both, as in ipv4 \
             = \"10.0.0.1/24\"",
            "green.json: ports: the tenant has no port; add a [[port]] table for each VM",
        ]
    );
}

#[test]
fn oversized_list_rejected_before_its_values() {
    // A running switch has little memory, and a client of its socket may send up to 8 MiB.
    let macs: Vec<String> = (0..100_000)
        .map(|n| {
            format!(
                "02:77:00:{:02x}:{:02x}:{:02x}",
                n >> 16,
                n >> 8 & 255,
                n & 255
            )
        })
        .collect();
    assert_eq!(
        refusal(|json| {
            json["ports"][0]["addresses"] = vec!["10.9.0.11/32"; 100_000].into();
            json["ports"][1]["extra_macs"] = macs.into();
            json["ports"][2]["trunk"] = vec![7; 600_000].into();
            json["uplink"]["allow"] = vec!["192.0.2.8/32"; 5_000].into();
            json["gateway"]["dns"] = json!({ "enabled": true, "forward": vec!["192.0.2.53"; 5] });
            json["gateway"]["dhcp"] = json!({
                "dns": vec!["10.9.0.53"; 9],
                "search": vec!["green.example"; 100_000],
                "routes": vec![json!({ "to": "172.16.0.0/12", "via": "10.9.0.11" }); 25],
            });
        }),
        [
            ("gateway.dhcp.dns", 9, 8),
            ("gateway.dhcp.search", 100_000, 8),
            ("gateway.dhcp.routes", 25, 24),
            ("gateway.dns.forward", 5, 4),
            ("ports[0].addresses (port \"one\")", 100_000, 4096),
            ("ports[1].extra_macs (port \"two\")", 100_000, 256),
            ("ports[2].trunk (port \"dhcp\")", 600_000, 4095),
            ("uplink.allow", 5_000, 4096),
        ]
        .map(|(key, count, max)| format!(
            "green.json: {key}: there are {count} of them, and a switch takes at most {max}; split \
             the tenant's file or merge entries"
        ))
        .join("\n")
    );
}

#[test]
fn errors_bounded_at_1000() {
    let errors = refusal(|json| json["ports"][0]["trunk"] = vec![7; 4094].into());
    assert_eq!(errors.lines().count(), 1000);
}
