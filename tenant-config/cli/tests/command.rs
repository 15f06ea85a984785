//! The command: what it prints, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tenant_config::{SwitchConfig, Tenant};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tenant-config"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"))
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

#[test]
fn check_of_valid_files_ends_with_0() {
    let output = run(&["check", "."]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (
            Some(0),
            "blue: valid, VNI 5002, 2 ports, an uplink, a vxlan tunnel to 1 peer\n\
             red: valid, VNI 5001, 2 ports, an uplink, a geneve tunnel to 2 peers\n",
            ""
        )
    );
    let output = run(&["check", "--json", "red.toml"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(report, json!({ "tenants": ["red"], "errors": [] }));
}

#[test]
fn peers_prints_what_other_hosts_write() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("green.toml");
    let text_of = |addresses: &str| {
        format!(
            "name = \"green\"\nvni = 7\n[gateway]\nipv4 = \"10.9.0.1/24\"\n[uplink]\naddress = \
             \"192.0.2.7/24\"\nnext_hop = \"192.0.2.1\"\n[tunnel]\nkind = \
             \"geneve\"\n[[port]]\nname = \"one\"\nmac = \"52:54:00:aa:00:01\"\naddresses = \
             {addresses}\nroutes = [\"10.244.1.0/24\"]\n[[port]]\nname = \"two\"\nmac = \
             \"52:54:00:aa:00:02\"\naddresses = [\"10.9.0.12\"]\ndhcp_server = true\n"
        )
    };
    std::fs::write(&file, text_of("[\"10.9.0.11\"]")).unwrap();
    let path = file.to_str().unwrap();
    let output = run(&["peers", "--name", "host-a", path]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert_eq!(
        text(&output.stdout),
        "[[tunnel.peer]]\nname     = \"host-a\"\nvtep     = \"192.0.2.7\"\nprefixes = [\n    \
         \"10.9.0.11\", # one\n    \"10.244.1.0/24\", # one\n    \"10.9.0.12\", # two\n]\n"
    );
    std::fs::write(&file, text_of("\"learn-dhcp\"")).unwrap();
    let output = run(&["peers", path]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("one learns its address"));
    assert!(text(&output.stdout).contains("\"10.244.1.0/24\", # one\n"));
    let without = text_of("[\"10.9.0.11\"]").replace("[tunnel]\nkind = \"geneve\"\n", "");
    std::fs::write(&file, without).unwrap();
    let output = run(&["peers", path]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("no [tunnel]"));
}

#[test]
fn check_and_switch_accept_every_key() {
    let directory = every_key();
    let file = directory.path().join("green.toml");
    let file = file.to_str().unwrap();
    let output = run(&["check", file]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (
            Some(0),
            "green: valid, VNI 7, 1 port, an uplink, a vxlan tunnel to 1 peer\n",
            ""
        )
    );
    let output = run(&["switch", file]);
    let config = SwitchConfig::from_json("-", text(&output.stdout));
    assert_eq!(config, Ok(load(&directory).offline_config()));
}

/// A directory with [`EVERY_KEY`] as `green.toml`, and with the files that it names.
fn every_key() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        ("green.toml", EVERY_KEY),
        ("one.user-data", "#!/bin/sh\n"),
        ("one.vendor-data", "#cloud-config\n"),
    ] {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

fn load(directory: &tempfile::TempDir) -> Tenant {
    let file = directory.path().join("green.toml");
    Tenant::load(&file).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn check_of_invalid_files_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("red.toml");
    let red = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/red.toml"),
    )
    .unwrap();
    std::fs::write(&file, red.replace("52:54:00:aa:00:02", "52:54:00:aa:00:01")).unwrap();
    let file = file.to_str().unwrap();
    let Err(errors) = Tenant::load(Path::new(file)) else {
        panic!("the file is valid")
    };

    let output = run(&["check", file]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (Some(1), "", &*format!("{errors}\n"))
    );

    let output = run(&["check", "--json", file]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let place = errors.as_slice()[0].place().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), ""));
    assert_eq!(
        report,
        json!({
            "tenants": [],
            "errors": [{
                "file": file,
                "line": place.line,
                "column": place.column,
                "key": "port[1].mac",
                "port": "red-vm2",
                "kind": "duplicate-mac",
                "message": "52:54:00:aa:00:01 is also port[0].mac; every MAC names one port",
                "mac": "52:54:00:aa:00:01",
                "other": "port[0].mac",
            }],
        })
    );
}

#[test]
fn switch_prints_config_that_a_switch_reads() {
    let output = run(&["switch", "blue.toml"]);
    let config = SwitchConfig::from_json("-", text(&output.stdout));
    let blue =
        Tenant::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/blue.toml"));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(config, Ok(blue.unwrap().offline_config()));

    let output = run(&["switch", "green.toml"]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (
            Some(1),
            "",
            "green.toml: cannot be read: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn wrong_command_line_ends_with_2() {
    assert_eq!(run(&["check"]).status.code(), Some(2));
    assert_eq!(run(&["schema", "host"]).status.code(), Some(2));
}

/// A tenant that writes every key there is.
const EVERY_KEY: &str = r#"name = "green"
vni = 7
[gateway]
ipv4 = "10.9.0.1/24"
ipv6 = "fd00:9::1/64"
ipv6_autoconf = "none"
[gateway.dhcp]
enabled = true
dns = ["10.9.0.53"]
domain = "green.example"
search = ["green.example"]
ntp = ["10.9.0.54"]
routes = [{ to = "172.16.0.0/12", via = "10.9.0.12" }]
lease_s = 600
tftp_server = "10.9.0.69"
boot_file = "lpxelinux.0"
ipxe_boot_file = "http://10.9.0.69/ipxe"
[gateway.dns]
enabled = true
domain = "green.example"
forward = ["192.0.2.53", "2001:db8:53::53"]
[uplink]
address = "192.0.2.9/24"
next_hop = "192.0.2.1"
address6 = "2001:db8::9/64"
next_hop6 = "2001:db8::1"
allow = ["192.0.2.53"]
mtu = 9000
fragment = true
[tunnel]
kind = "vxlan"
vtep = "2001:db8::9"
port = 8472
ttl = 255
dscp = 63
udp_checksum = false
nested = "allow"
mss_clamp = true
only = false
[tunnel.ipsec]
mode = "off"
proposals = ["aes128gcm16", "aes256-sha256"]
esn = false
replay_window = 64
rekey_time = 600
life_time = 700
rekey_packets = 1000000
life_packets = 2000000
rekey_bytes = 1000000000
life_bytes = 2000000000
psk = ["/etc/mts/ipsec/new.psk", "/etc/mts/ipsec/old.psk"]
certificate = "/etc/mts/ipsec/own.pem"
key = "/etc/mts/ipsec/own.key"
ca = "/etc/mts/ipsec/ca.pem"
crl = "/etc/mts/ipsec/ca.crl"
identity = "host-a.example"
[[tunnel.peer]]
name = "host-b"
vtep = "2001:db8:1::66"
mac = "52:54:00:00:00:66"
next_hop = "2001:db8::fe"
mtu = 8000
prefixes = ["10.9.0.71", "10.9.8.0/24", "fd00:9::71"]
ipsec = "required"
certificate = "/etc/mts/ipsec/host-b.pem"
identity = "host-b.example"
[nic]
accept = ["min-rate"]
link_state = "enable"
[multicast]
groups = ["239.9.0.0/16"]
broadcast = "allow"
[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
extra_macs = ["00:00:5e:00:01:01"]
addresses = ["10.9.0.11"]
routes = ["10.244.1.0/24"]
shared = ["10.9.0.100"]
trunk = [1, 4094]
hostname = "one"
dhcp_server = true
announce = true
encapsulation = "deny"
ipv6 = "deny"
mtu = 9000
rate_mbit = 500
min_rate_mbit = 100
limits = { broadcast_pps = 1, arp_nd_pps = 2, dhcp_pps = 3, pps = 4, bps = 5, multicast_pps = 6 }
[port.metadata]
instance_id = "i-1"
hostname = "one.green.example"
public_keys = ["ssh-ed25519 AAAA one"]
user_data = "one.user-data"
vendor_data = "one.vendor-data"
openstack = false
"#;

/// Keys that exclude one of [`EVERY_KEY`]: `compatible` goes without `proposals`, and a peer has a
/// key of its own or a certificate, and under IPsec one address. A port without IPv6 learns none.
const OTHER_WAYS: [(&str, &str); 4] = [
    ("proposals", "compatible"),
    ("ipsec", "sources"),
    ("certificate", "psk"),
    ("ipv6", "addresses6"),
];

/// Asserts that `schema` describes exactly the keys of `value`, and no others are accepted.
fn assert_same_keys(root: &Value, schema: &Value, value: &Value) {
    let schema = match schema["$ref"]
        .as_str()
        .or(schema["anyOf"][0]["$ref"].as_str())
    {
        Some(reference) => &root["$defs"][reference.rsplit('/').next().expect("a name")],
        None => schema,
    };
    match value {
        Value::Object(entries) => {
            let mut described: Vec<_> = schema["properties"]
                .as_object()
                .expect("a table")
                .keys()
                .collect();
            let mut written: Vec<_> = entries.keys().collect();
            described.retain(|key| {
                let other = OTHER_WAYS.iter().find(|(_, other)| key == other);
                !other.is_some_and(|(one, other)| {
                    entries.contains_key(*one) && !entries.contains_key(*other)
                })
            });
            described.sort();
            written.sort();
            assert_eq!(described, written, "{schema}");
            assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
            for (key, value) in entries {
                assert_same_keys(root, &schema["properties"][key], value);
            }
        }
        Value::Array(items) if schema.get("items").is_some() => {
            for item in items {
                assert_same_keys(root, &schema["items"], item);
            }
        }
        _ => {}
    }
}

#[test]
fn schemas_describe_every_key() {
    let schema = |subject| -> Value {
        let output = run(&["schema", subject]);
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let written: Value = toml::from_str(EVERY_KEY).unwrap();
    let tenant = schema("tenant");
    assert_same_keys(&tenant, &tenant, &written);
    assert_eq!(
        tenant["required"],
        json!(["name", "vni", "gateway", "port"])
    );
    assert_eq!(
        tenant["$defs"]["Port"]["required"],
        json!(["name", "mac", "addresses"])
    );
    assert_eq!(tenant["$defs"]["Uplink"].get("required"), None);
    assert_eq!(tenant["$defs"]["Tunnel"]["required"], json!(["kind"]));
    assert_eq!(
        tenant["$defs"]["Peer"]["required"],
        json!(["name", "vtep", "prefixes"])
    );

    let mut config = load(&every_key()).offline_config();
    config.control_socket = Some("/run/green.sock".into());
    // A device's keys depend on its driver; they are no part of this comparison.
    let mut given = serde_json::to_value(config).unwrap();
    given["uplink"]["device"] = json!("any");
    given["ports"][0]["device"] = json!("any");
    let switch = schema("switch");
    assert_same_keys(&switch, &switch, &given);
}
