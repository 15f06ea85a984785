//! Every kind of error, one change of a valid file each, with its whole text.

use tenant_config::{Addresses6, ConfigErrors, Ipv6Autoconf, Tenant};

/// Valid, and small enough that a reader can count its lines.
const GREEN: &str = r#"name = "green"
vni = 7

[gateway]
ipv4 = "10.9.0.1/24"
ipv6 = "fd00:9::1/64"

[uplink]
address = "192.0.2.9/24"
next_hop = "192.0.2.1"
address6 = "2001:db8::9/64"
next_hop6 = "2001:db8::1"

[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11", "fd00:9::11"]

[[port]]
name = "two"
mac = "52:54:00:cc:00:02"
addresses = ["10.9.0.12"]
"#;

/// The part of [`GREEN`] that holds its ports.
const GREEN_PORTS: &str = r#"[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11", "fd00:9::11"]

[[port]]
name = "two"
mac = "52:54:00:cc:00:02"
addresses = ["10.9.0.12"]
"#;

#[test]
fn nothing_in_a_file_commands_a_terminal() {
    let hostile = "\\u001b[2J\\u009b2J\\u202e\\r";
    let plain = "\\u{1b}[2J\\u{9b}2J\\u{202e}\\r";
    for (old, new) in [
        ("vni = 7", format!("vni = 7\n\"a{hostile}\" = 1")),
        ("vni = 7", format!("vni = \"{hostile}\"")),
        ("name = \"one\"", format!("name = \"{hostile}\"")),
        (
            "mac = \"52:54:00:cc:00:01\"",
            format!("mac = \"{hostile}\""),
        ),
        ("10.9.0.11", hostile.to_owned()),
    ] {
        let text = GREEN.replacen(old, &new, 1);
        let said = Tenant::parse("green.toml", &text)
            .expect_err(&new)
            .to_string();
        let obeyed = |it: char| (it.is_control() && it != '\n') || it == '\u{202e}';
        assert!(!said.contains(obeyed), "{said:?}");
        assert!(said.contains(plain), "{said}");
    }
}

/// `count` ports that differ in everything that must differ.
fn ports(count: u32) -> String {
    (0..count)
        .map(|n| {
            let (hi, lo) = (n >> 8, n & 0xff);
            format!(
                "[[port]]\nname = \"p{n}\"\nmac = \"52:54:00:dd:{hi:02x}:{lo:02x}\"\n\
                 addresses = [\"fd00:9::1:{n:x}\"]\n"
            )
        })
        .collect()
}

fn many_addresses() -> String {
    let addresses: Vec<_> = (0..4097).map(|n| format!("\"fd00:9::1:{n:x}\"")).collect();
    format!("[{}]", addresses.join(", "))
}

/// The errors of `text`, as `KIND LINE`.
fn refusal(text: &str) -> Vec<String> {
    let errors: ConfigErrors = match Tenant::parse("green.toml", text) {
        Ok(tenant) => panic!("{tenant:?} was accepted"),
        Err(errors) => errors,
    };
    errors
        .as_slice()
        .iter()
        .map(|error| {
            let json = serde_json::to_value(error).expect("an error is JSON");
            assert_eq!(json["message"], error.problem().to_string());
            format!("{} {error}", json["kind"].as_str().expect("kind is text"))
        })
        .collect()
}

/// Tests that replace a part of [`GREEN`] that is there exactly once.
macro_rules! refused {
    ($($test:ident: $part:expr => $with:expr, [$($error:expr),* $(,)?];)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(GREEN.matches($part).count(), 1, "{:?} is not there once", $part);
            let text = GREEN.replace($part, $with.as_ref());
            assert_eq!(refusal(&text), [$($error),*] as [&str; _]);
        }
    )*};
}

#[test]
fn unchanged_file_accepted() {
    let green = Tenant::parse("green.toml", GREEN).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(green.ports().len(), 2);
}

#[test]
fn nic_accept_and_rates_round_trip() {
    let text = GREEN.replace(
        "[uplink]",
        "[nic]\naccept = [\"min-rate\", \"link-state\"]\nlink_state = \"enable\"\n\n[uplink]",
    );
    let text = text.replace(
        "name = \"two\"",
        "name = \"two\"\nrate_mbit = 500\nmin_rate_mbit = 100",
    );
    let green = Tenant::parse("green.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let json = serde_json::to_value(&green).expect("it is data");
    assert_eq!(
        json["nic"],
        serde_json::json!({"accept": ["link-state", "min-rate"], "link_state": "enable"})
    );
    assert_eq!(
        (
            &json["port"][1]["rate_mbit"],
            &json["port"][1]["min_rate_mbit"]
        ),
        (&500.into(), &100.into())
    );
    assert_eq!(json["port"][0].get("rate_mbit"), None);
}

#[test]
fn autoconf_round_trips_and_a_port_needs_no_other_address() {
    let text = GREEN.replace("[gateway]", "[gateway]\nipv6_autoconf = \"slaac\"");
    let text = text.replace("[\"10.9.0.12\"]", "[]\naddresses6 = \"learn-nd\"");
    let green = Tenant::parse("green.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let config = green.offline_config();
    assert_eq!(config.gateway.ipv6_autoconf, Ipv6Autoconf::Slaac);
    assert_eq!(config.ports[0].addresses6, None);
    assert_eq!(config.ports[1].addresses6, Some(Addresses6::LearnNd));
    let json = serde_json::to_value(&config).expect("it is data");
    assert_eq!(json["ports"][1]["addresses6"], "learn-nd");
    assert_eq!(json["gateway"]["ipv6_autoconf"], "slaac");
}

#[test]
fn dns_settings_round_trip() {
    let text = GREEN.replace(
        "[uplink]",
        "[gateway.dns]\nenabled = true\ndomain = \"vms.example\"\n\
         forward = [\"192.0.2.53\", \"198.51.100.53\"]\n\n[uplink]",
    );
    let green = Tenant::parse("green.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let json = serde_json::to_value(&green).expect("it is data");
    let expected = serde_json::json!({
        "enabled": true,
        "domain": "vms.example",
        "forward": ["192.0.2.53", "198.51.100.53"],
    });
    assert_eq!(json["gateway"]["dns"], expected);
    let config = green.offline_config();
    let text = serde_json::to_string(&config).expect("it is data");
    let read = tenant_config::SwitchConfig::from_json("green.json", &text);
    assert_eq!(read.as_ref(), Ok(&config));
}

#[test]
fn dhcp_settings_round_trip() {
    let text = GREEN.replace(
        "[uplink]",
        "[gateway.dhcp]\ndns = [\"10.9.0.53\", \"fd00::53\"]\ndomain = \
         \"green.example\"\nsearch = \
         [\"green.example\"]\nntp = [\"10.9.0.54\"]\nroutes = [{ to = \"172.16.0.0/12\", via = \
         \"10.9.0.11\" }]\nlease_s = 10\ntftp_server = \"boot.example\"\nboot_file = \
         \"lpxelinux.0\"\nipxe_boot_file = \"http://boot.example/ipxe\"\n\n[uplink]",
    );
    let text = text.replace("name = \"two\"", "name = \"two\"\nhostname = \"Two-2\"");
    let green = Tenant::parse("green.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let json = serde_json::to_value(&green).expect("it is data");
    let expected = serde_json::json!({
        "enabled": true,
        "dns": ["10.9.0.53", "fd00::53"],
        "domain": "green.example",
        "search": ["green.example"],
        "ntp": ["10.9.0.54"],
        "routes": [{ "to": "172.16.0.0/12", "via": "10.9.0.11" }],
        "lease_s": 10,
        "tftp_server": "boot.example",
        "boot_file": "lpxelinux.0",
        "ipxe_boot_file": "http://boot.example/ipxe",
    });
    assert_eq!(json["gateway"]["dhcp"], expected);
    assert_eq!(json["port"][1]["hostname"], "Two-2");
    let config = green.offline_config();
    let text = serde_json::to_string(&config).expect("it is data");
    let read = tenant_config::SwitchConfig::from_json("green.json", &text);
    assert_eq!(read.as_ref(), Ok(&config));
}

refused! {
    // The file's shape.
    syntax: "vni = 7" => "vni = ",
        ["syntax green.toml:2:7: not TOML: string values must be quoted, expected literal string"];
    unknown_key_with_a_guess: "next_hop = " => "nexthop = \"192.0.2.1\"\nnext_hop = ",
        ["unknown-key green.toml:10:1: uplink.nexthop: no such key; did you mean `next_hop`?"];
    unknown_key_without_a_guess: "vni = 7" => "vni = 7\nfirewall = true",
        ["unknown-key green.toml:3:1: firewall: no such key; the keys here are name, vni, gateway, \
          uplink, tunnel, multicast, nic, port"];
    unknown_key_of_a_port: "name = \"two\"" => "name = \"two\"\nmacs = []",
        ["unknown-key green.toml:21:1: port[1].macs (port \"two\"): no such key; did you mean \
          `mac`?"];
    unknown_limit: "name = \"two\"" => "name = \"two\"\nlimits = { bcast_pps = 5 }",
        ["unknown-key green.toml:21:12: port[1].limits.bcast_pps (port \"two\"): no such key; did \
          you mean `broadcast_pps`?"];
    missing_name: "name = \"green\"" => "",
        ["missing-key green.toml:1:1: name: missing; write the tenant's name, as in name = \
          \"red\""];
    missing_key_of_a_port: "mac = \"52:54:00:cc:00:02\"\n" => "",
        ["missing-key green.toml:19:1: port[1].mac (port \"two\"): missing; write the VM's MAC, as \
          in mac = \"52:54:00:aa:00:01\""];
    missing_gateway: "[gateway]\nipv4 = \"10.9.0.1/24\"\nipv6 = \"fd00:9::1/64\"\n" => "",
        ["missing-key green.toml:1:1: gateway: missing; write a [gateway] table with ipv4, ipv6 or \
          both"];
    wrong_type: "vni = 7" => "vni = \"7\"",
        [r#"wrong-type green.toml:2:7: vni: this is the text "7", but the key takes an integer"#];
    wrong_type_of_a_list: "addresses = [\"10.9.0.12\"]" => "addresses = { ipv4 = \"10.9.0.12\" }",
        ["wrong-type green.toml:22:13: port[1].addresses (port \"two\"): this is a table, but the \
          key takes an array of addresses and prefixes, or \"learn-dhcp\""];
    port_as_one_table: GREEN_PORTS => "[port]\nname = \"one\"\n",
        ["wrong-type green.toml:14:1: port: this is a table, but the key takes an array of tables, \
          each under its own [[port]]"];
    bad_name: "name = \"green\"" => "name = \"Green!\"",
        ["invalid green.toml:1:8: name: \"Green!\" is not a name of 1 to 32 lower-case letters, \
          digits and hyphens that begins with a letter"];
    bad_mac: "52:54:00:cc:00:01" => "01:54:00:cc:00:01",
        ["invalid green.toml:16:7: port[0].mac (port \"one\"): \"01:54:00:cc:00:01\" is not a \
          unicast MAC address of six hexadecimal bytes, as in 52:54:00:aa:00:01"];
    bad_address: "10.9.0.12" => "10.9.0.256",
        ["invalid green.toml:22:14: port[1].addresses[0] (port \"two\"): \"10.9.0.256\" is not an \
          IP address or prefix, as in 10.0.0.11 or 10.0.0.16/28"];
    bad_addresses_word: "addresses = [\"10.9.0.12\"]" => "addresses = \"dhcp\"",
        ["invalid green.toml:22:13: port[1].addresses (port \"two\"): \"dhcp\" is not an array of \
          addresses and prefixes, or \"learn-dhcp\""];
    bad_encapsulation: "name = \"two\"" => "name = \"two\"\nencapsulation = \"no\"",
        ["invalid green.toml:21:17: port[1].encapsulation (port \"two\"): \"no\" is not \"allow\" \
          or \"deny\""];
    unknown_link_state: "[uplink]" => "[nic]\nlink_state = \"disable\"\n\n[uplink]",
        ["invalid green.toml:9:14: nic.link_state: \"disable\" is not one of auto and enable"];
    unknown_nic_setting: "[uplink]" => "[nic]\naccept = [\"trust\", \"mac\"]\n\n[uplink]",
        ["invalid green.toml:9:20: nic.accept[1]: \"mac\" is not one of vlan-protocol, \
          spoof-check, trust, link-state, min-rate and max-rate"];
    rate_zero: "name = \"two\"" => "name = \"two\"\nrate_mbit = 0",
        ["invalid green.toml:21:13: port[1].rate_mbit (port \"two\"): \"0\" is not a rate from 1 \
          to 4000000 Mbit a second"];
    min_rate_above_rate: "name = \"two\"" => "name = \"two\"\nrate_mbit = 5\nmin_rate_mbit = 6",
        ["invalid green.toml:22:17: port[1].min_rate_mbit (port \"two\"): \"6\" is not at most \
          rate_mbit"];
    integer_too_large: "vni = 7" => "vni = 99999999999999999999",
        [r#"invalid green.toml:2:7: vni: "99999999999999999999" is not an integer of 64 bits"#];

    // Ranges.
    vni_zero: "vni = 7" => "vni = 0",
        ["vni-range green.toml:2:7: vni: 0 is no VNI; choose one from 1 to 16777215 that no other \
          tenant has"];
    vni_beyond_24_bits: "vni = 7" => "vni = 16777216",
        ["vni-range green.toml:2:7: vni: 16777216 is no VNI; choose one from 1 to 16777215 that no \
          other tenant has"];
    vlan_out_of_range: "name = \"two\"" => "name = \"two\"\ntrunk = [1, -1, 0, 4094, 4095]",
        [
            "vlan-range green.toml:21:13: port[1].trunk[1] (port \"two\"): -1 is no VLAN \
             identifier; choose one from 1 to 4094, or 0 for priority tags",
            "vlan-range green.toml:21:26: port[1].trunk[4] (port \"two\"): 4095 is no VLAN \
             identifier; choose one from 1 to 4094, or 0 for priority tags",
        ];
    ipv6_of_a_port_without: "name = \"one\"" => "name = \"one\"\nipv6 = \"deny\"",
        ["ipv6-denied green.toml:18:27: port[0].addresses[1] (port \"one\"): fd00:9::11 is of \
          IPv6, and the port has ipv6 = \"deny\"; leave one of them out"];
    bad_ipv6: "name = \"two\"" => "name = \"two\"\nipv6 = \"no\"",
        ["invalid green.toml:21:8: port[1].ipv6 (port \"two\"): \"no\" is not \"allow\" or \
          \"deny\""];
    bad_autoconf: "[gateway]" => "[gateway]\nipv6_autoconf = \"stateless\"",
        ["invalid green.toml:5:17: gateway.ipv6_autoconf: \"stateless\" is not \"none\", \
          \"slaac\" or \"dhcpv6\""];
    slaac_of_another_length: "ipv6 = \"fd00:9::1/64\""
        => "ipv6 = \"fd00:9::1/80\"\nipv6_autoconf = \"slaac\"",
        ["slaac-subnet green.toml:7:17: gateway.ipv6_autoconf: VMs form addresses from prefixes of \
          64 bits only, and the gateway's subnet is fd00:9::/80; choose another gateway.ipv6, or \
          \"dhcpv6\" or \"none\""];
    bad_addresses6: "name = \"two\"" => "name = \"two\"\naddresses6 = [\"fd00:9::12\"]",
        ["wrong-type green.toml:21:14: port[1].addresses6 (port \"two\"): this is \
          an array, but the key takes a text in quotes"];
    learn_nd_without_slaac: "name = \"two\"" => "name = \"two\"\naddresses6 = \"learn-nd\"",
        ["no-slaac green.toml:21:14: port[1].addresses6 (port \"two\"): VMs form no addresses by \
          themselves unless the gateway tells them to; write gateway.ipv6_autoconf = \"slaac\", \
          or leave the key out"];
    vlan_twice: "name = \"two\"" => "name = \"two\"\ntrunk = [5, 6, 5]",
        ["duplicate-vlan green.toml:21:16: port[1].trunk[2] (port \"two\"): VLAN 5 is listed \
          twice; write it once"];
    mtu_too_small_for_ipv6: "name = \"two\"" => "name = \"two\"\nmtu = 1279",
        ["mtu-range green.toml:21:7: port[1].mtu (port \"two\"): 1279 is no MTU here; choose one \
          from 1280 to 9216 (IPv6 needs 1280, RFC 8200)"];
    mtu_too_large: "[uplink]" => "[uplink]\nmtu = 9217",
        ["mtu-range green.toml:9:7: uplink.mtu: 9217 is no MTU here; choose one from 1280 to 9216 \
          (IPv6 needs 1280, RFC 8200)"];
    mtu_too_small_for_ipv4: "ipv6 = \"fd00:9::1/64\"\n\n[uplink]\naddress = \
                             \"192.0.2.9/24\"\nnext_hop = \"192.0.2.1\"\naddress6 = \
                             \"2001:db8::9/64\"\nnext_hop6 = \"2001:db8::1\"\n\n[[port]]\nname = \
                             \"one\"\nmac = \"52:54:00:cc:00:01\"\naddresses = [\"10.9.0.11\", \
                             \"fd00:9::11\"]"
        => "[[port]]\nname = \"one\"\nmac = \"52:54:00:cc:00:01\"\naddresses = \
            [\"10.9.0.11\"]\nmtu = 575",
        ["mtu-range green.toml:10:7: port[0].mtu (port \"one\"): 575 is no MTU here; choose one \
          from 576 to 9216"];
    zero_limit: "name = \"two\"" => "name = \"two\"\nlimits = { pps = 0, bps = 1 }",
        ["zero-limit green.toml:21:18: port[1].limits.pps (port \"two\"): a limit of 0 stops every \
          such frame; write at least 1, or leave the key out for no limit"];
    limit_out_of_range: "name = \"two\""
        => "name = \"two\"\nlimits = { pps = 4294967296, bps = -1 }",
        [
            "invalid green.toml:21:18: port[1].limits.pps (port \"two\"): \"4294967296\" is not a \
             rate from 1 to 4294967295 frames a second",
            "invalid green.toml:21:36: port[1].limits.bps (port \"two\"): \"-1\" is not a rate of \
             at least 1 bit a second",
        ];

    // Ports and MACs.
    no_ports: GREEN_PORTS => "",
        ["no-ports green.toml:1:1: port: the tenant has no port; add a [[port]] table for each VM"];
    too_many_ports: GREEN_PORTS => ports(257),
        ["too-many green.toml:14:1: port: there are 257 of them, and a switch takes at most 256; \
          split the tenant's file or merge entries"];
    port_named_uplink: "name = \"two\"" => "name = \"uplink\"",
        ["reserved-port-name green.toml:20:8: port[1].name (port \"uplink\"): \"uplink\" is the \
          name of the In/Out side; give the port another name"];
    duplicate_port_name: "name = \"two\"" => "name = \"one\"",
        ["duplicate-port green.toml:20:8: port[1].name (port \"one\"): port[0].name is \"one\" \
          already; names are unique within a tenant"];
    duplicate_mac: "52:54:00:cc:00:02" => "52:54:00:CC:00:01",
        ["duplicate-mac green.toml:21:7: port[1].mac (port \"two\"): 52:54:00:cc:00:01 is also \
          port[0].mac; every MAC names one port"];
    extra_mac_of_another_port: "name = \"one\""
        => "name = \"one\"\nextra_macs = [\"52:54:00:cc:00:02\"]",
        ["duplicate-mac green.toml:16:15: port[0].extra_macs[0] (port \"one\"): 52:54:00:cc:00:02 \
          is also port[1].mac; every MAC names one port"];
    extra_mac_twice: "name = \"one\""
        => "name = \"one\"\nextra_macs = [\"00:00:5e:00:01:01\", \"00:00:5e:00:01:01\"]",
        ["duplicate-mac green.toml:16:36: port[0].extra_macs[1] (port \"one\"): 00:00:5e:00:01:01 \
          is also port[0].extra_macs[0]; every MAC names one port"];
    mac_of_the_switch: "52:54:00:cc:00:02" => "06:aa:17:cc:5c:f8",
        ["reserved-mac green.toml:21:7: port[1].mac (port \"two\"): 06:aa:17:cc:5c:f8 is the MAC \
          of this tenant's switch at the port of port[0].mac; give the port another"];
    extra_mac_of_the_switch: "name = \"two\""
        => "name = \"two\"\nextra_macs = [\"06:13:07:54:9a:a1\"]",
        ["reserved-mac green.toml:21:15: port[1].extra_macs[0] (port \"two\"): 06:13:07:54:9a:a1 \
          is the MAC of this tenant's switch at the port of port[1].mac; give the port another"];

    // The gateway and the addresses.
    gateway_empty: "ipv4 = \"10.9.0.1/24\"\nipv6 = \"fd00:9::1/64\"" => "",
        ["gateway-empty green.toml:4:1: gateway: the gateway has no address; write ipv4, ipv6 or \
          both, as in ipv4 = \"10.0.0.1/24\""];
    gateway_missing_for_ipv6: "ipv6 = \"fd00:9::1/64\"" => "",
        ["gateway-missing green.toml:17:27: port[0].addresses[1] (port \"one\"): fd00:9::11 is \
          IPv6, but the gateway has no IPv6 address; add gateway.ipv6"];
    gateway_unreadable_hides_nothing_else: "fd00:9::1/64" => "fd00:9::1",
        ["invalid green.toml:6:8: gateway.ipv6: \"fd00:9::1\" is not an IPv6 address with its \
          prefix length, as in fd00:0:0:1::1/64"];
    gateway_is_multicast: "10.9.0.1/24" => "224.0.0.1/24",
        [
            "not-unicast green.toml:5:8: gateway.ipv4: 224.0.0.1/24 is a multicast address; write \
             a unicast address",
            "outside-subnet green.toml:17:14: port[0].addresses[0] (port \"one\"): 10.9.0.11 is \
             outside the gateway's subnet 224.0.0.0/24; choose one inside, or change gateway.ipv4",
            "outside-subnet green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.12 is \
             outside the gateway's subnet 224.0.0.0/24; choose one inside, or change gateway.ipv4",
        ];
    gateway_is_the_network_address: "10.9.0.1/24" => "10.9.0.0/24",
        ["reserved-address green.toml:5:8: gateway.ipv4: 10.9.0.0 is the network address of \
          10.9.0.0/24; choose another"];
    gateway_subnet_of_one: "10.9.0.1/24" => "10.9.0.1/32",
        [
            "subnet-length green.toml:5:8: gateway.ipv4: /32 is no prefix length of a subnet here; \
             choose one from /8 to /31",
            "outside-subnet green.toml:17:14: port[0].addresses[0] (port \"one\"): 10.9.0.11 is \
             outside the gateway's subnet 10.9.0.1/32; choose one inside, or change gateway.ipv4",
            "outside-subnet green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.12 is \
             outside the gateway's subnet 10.9.0.1/32; choose one inside, or change gateway.ipv4",
        ];
    // The gateway's DHCP server.
    dhcp_values: "[uplink]" => "[gateway.dhcp]\nenabled = 1\n\
        dns = [\"10.9.0.53\", \"dns\"]\ndomain = \"a_b.example\"\n\
        search = [\"a..b\", \"10.9.0.1\"]\nlease_s = 9\ntftp_server = \"10.9.0.300\"\n\
        boot_file = \"a b\"\nipxe_boot_file = \"\"\nlease = 1\n\n[uplink]",
        [
            "wrong-type green.toml:9:11: gateway.dhcp.enabled: this is the integer 1, but the key \
             takes true or false",
            "invalid green.toml:10:21: gateway.dhcp.dns[1]: \"dns\" is not an IP address, as in \
             192.0.2.1",
            "invalid green.toml:11:10: gateway.dhcp.domain: \"a_b.example\" is not a DNS name \
             without a dot at its end, as in red.example",
            "invalid green.toml:12:11: gateway.dhcp.search[0]: \"a..b\" is not a DNS name without \
             a dot at its end, as in red.example",
            "invalid green.toml:12:19: gateway.dhcp.search[1]: \"10.9.0.1\" is not a DNS name \
             without a dot at its end, as in red.example",
            "invalid green.toml:13:11: gateway.dhcp.lease_s: \"9\" is not a duration from 10 to \
             604800 seconds",
            "invalid green.toml:14:15: gateway.dhcp.tftp_server: \"10.9.0.300\" is not an IPv4 \
             address or a DNS name",
            "invalid green.toml:15:13: gateway.dhcp.boot_file: \"a b\" is not a file's name or URL \
             of 1 to 127 printable ASCII characters without a space",
            "invalid green.toml:16:18: gateway.dhcp.ipxe_boot_file: \"\" is not a file's name or \
             URL of 1 to 127 printable ASCII characters without a space",
            "unknown-key green.toml:17:1: gateway.dhcp.lease: no such key; did you mean `lease_s`?",
        ];
    dns_values: "[uplink]" => "[gateway.dns]\nenabled = \"yes\"\ndomain = \"a..b\"\n\
        names = 1\n\n[uplink]",
        [
            "wrong-type green.toml:9:11: gateway.dns.enabled: this is the text \"yes\", but the \
             key takes true or false",
            "invalid green.toml:10:10: gateway.dns.domain: \"a..b\" is not a DNS name without a \
             dot at its end, as in red.example",
            "unknown-key green.toml:11:1: gateway.dns.names: no such key; the keys here are \
             enabled, domain, forward",
        ];
    dns_resolvers_that_cannot_be_asked: "[uplink]" => "[gateway.dns]\nenabled = true\n\
        forward = [\"224.0.0.1\", \"192.0.2.9\", \"10.9.0.53\", \"192.0.2.255\"]\n\n[uplink]",
        [
            "not-unicast green.toml:10:12: gateway.dns.forward[0]: 224.0.0.1 is a multicast \
             address; write a unicast address",
            "resolver-address green.toml:10:25: gateway.dns.forward[1]: 192.0.2.9 is the switch's \
             own address (uplink.address); a resolver is a station of the underlay or beyond it",
            "resolver-address green.toml:10:38: gateway.dns.forward[2]: 10.9.0.53 is in the \
             gateway's subnet (gateway.ipv4); a resolver is a station of the underlay or beyond it",
            "reserved-address green.toml:10:51: gateway.dns.forward[3]: 192.0.2.255 is the \
             broadcast address of 192.0.2.0/24; choose another",
        ];
    dns_resolvers_too_many: "[uplink]" => "[gateway.dns]\nenabled = true\n\
        forward = [\"192.0.2.53\", \"dns\", \"192.0.2.53\", \"192.0.2.54\", \"192.0.2.55\", \
        \"192.0.2.56\"]\n\n[uplink]",
        [
            "invalid green.toml:10:26: gateway.dns.forward[1]: \"dns\" is not an IP address, as in \
             192.0.2.1",
            "resolver-repeated green.toml:10:33: gateway.dns.forward[2]: 192.0.2.53 is \
             gateway.dns.forward[0] too; write it once",
            "too-many green.toml:10:75: gateway.dns.forward[5]: there are 5 of them, and a switch \
             takes at most 4; split the tenant's file or merge entries",
        ];
    dns_resolvers_disabled: "[uplink]" => "[gateway.dns]\nforward = [\"192.0.2.53\"]\n\n[uplink]",
        ["forward-disabled green.toml:9:12: gateway.dns.forward[0]: forward has no effect without \
          enabled = true; write that, or leave it out"];
    dns_resolvers_at_ports: "[uplink]" => "[gateway.dns]\nenabled = true\n\
        forward = [\"172.16.0.53\"]\n\n[[port]]\nname = \"three\"\nmac = \"52:54:00:cc:00:03\"\n\
        addresses = [\"10.9.0.13\"]\nroutes = [\"172.16.0.0/16\"]\n\n[uplink]",
        ["resolver-address green.toml:10:12: gateway.dns.forward[0]: 172.16.0.53 is at or behind a \
          port (port[0].routes[0]); a resolver is a station of the underlay or beyond it"];
    dhcp_routes: "[uplink]" => "[gateway.dhcp]\nroutes = [\n\
        { to = \"172.16.0.1/12\", via = \"10.9.0.11\" },\n\
        { to = \"172.16.0.0/12\", via = \"10.9.1.1\" },\n\
        { to = \"0.0.0.0/0\", via = \"10.9.0.255\" },\n\
        { to = \"fd00::/8\", by = \"10.9.0.11\" },\n\
        { to = \"192.0.2.9\", via = \"10.9.0.1\" },\n]\n\n[uplink]",
        [
            "host-bits green.toml:10:8: gateway.dhcp.routes[0].to: 172.16.0.1/12 has bits set \
             behind its prefix length; write 172.16.0.0/12 for the prefix, or the address alone",
            "outside-subnet green.toml:11:31: gateway.dhcp.routes[1].via: 10.9.1.1 is outside the \
             gateway's subnet 10.9.0.0/24; choose one inside, or change gateway.ipv4",
            "reserved-address green.toml:12:27: gateway.dhcp.routes[2].via: 10.9.0.255 is the \
             broadcast address of 10.9.0.0/24; choose another",
            "missing-key green.toml:13:1: gateway.dhcp.routes[3].via: missing; write the router, \
             as in via = \"10.0.0.11\"",
            "invalid green.toml:13:8: gateway.dhcp.routes[3].to: \"fd00::/8\" is not an IPv4 \
             address or prefix, as in 192.0.2.9 or 172.16.0.0/12",
            "unknown-key green.toml:13:20: gateway.dhcp.routes[3].by: no such key; the keys here \
             are to, via",
        ];
    dhcp_servers_that_no_station_can_be: "[uplink]" => "[gateway.dhcp]\ndns = [\"224.0.0.1\"]\n\
        ntp = [\"127.0.0.1\"]\ntftp_server = \"0.0.0.0\"\n\n[uplink]",
        [
            "not-unicast green.toml:9:8: gateway.dhcp.dns[0]: 224.0.0.1 is a multicast address; \
             write a unicast address",
            "not-unicast green.toml:10:8: gateway.dhcp.ntp[0]: 127.0.0.1 is a loopback address; \
             write a unicast address",
            "not-unicast green.toml:11:15: gateway.dhcp.tftp_server: 0.0.0.0 is in 0.0.0.0/8, \
             which means this network; write a unicast address",
        ];
    dhcp_lists_too_long: "[uplink]" => format!(
        "[gateway.dhcp]\ndns = [{}]\nroutes = [{}]\n\n[uplink]",
        "\"10.9.0.53\", ".repeat(9),
        "{ to = \"172.16.0.0/12\", via = \"10.9.0.11\" }, ".repeat(25)),
        [
            "too-many green.toml:9:112: gateway.dhcp.dns[8]: there are 9 of them, and a switch \
             takes at most 8; split the tenant's file or merge entries",
            "too-many green.toml:10:1098: gateway.dhcp.routes[24].to: there are 25 of them, and a \
             switch takes at most 24; split the tenant's file or merge entries",
        ];
    dhcp_search_too_long: "[uplink]" => format!("[gateway.dhcp]\nsearch = [{}]\n\n[uplink]",
        format!("\"{}.example\", ", "a".repeat(45)).repeat(5)),
        [
            "search-too-long green.toml:9:239: gateway.dhcp.search[4]: with this one, the domains \
             take more than the 255 bytes of a DHCP option; write fewer or shorter ones",
        ];
    dhcp_server_without_ipv6: "ipv6 = \"fd00:9::1/64\"" => "dhcp.dns = [\"10.9.0.53\", \
        \"fd00:9::53\"]\ndhcp.ntp = [\"fe80::1\"]",
        [
            "gateway-missing green.toml:6:26: gateway.dhcp.dns[1]: fd00:9::53 is IPv6, but the \
             gateway has no IPv6 address; add gateway.ipv6",
            "not-unicast green.toml:7:13: gateway.dhcp.ntp[0]: fe80::1 is a link-local address; \
             write a unicast address",
            "gateway-missing green.toml:18:27: port[0].addresses[1] (port \"one\"): fd00:9::11 is \
             IPv6, but the gateway has no IPv6 address; add gateway.ipv6",
        ];
    dhcp_server_without_ipv4: "ipv4 = \"10.9.0.1/24\"" => "dhcp.dns = [\"10.9.0.53\"]",
        [
            "gateway-missing green.toml:5:13: gateway.dhcp.dns[0]: 10.9.0.53 is IPv4, but the \
             gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:17:14: port[0].addresses[0] (port \"one\"): 10.9.0.11 is \
             IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.12 is \
             IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
        ];
    hostname_of_two_labels: "name = \"two\"" => "name = \"two\"\nhostname = \"two.example\"",
        ["invalid green.toml:21:12: port[1].hostname (port \"two\"): \"two.example\" is not a \
          host's name of 1 to 63 letters, digits and hyphens, without a hyphen at either end"];

    gateway_subnet_overlaps_the_uplink: "192.0.2.9/24" => "10.9.0.200/25",
        [
            "subnet-overlap green.toml:9:11: uplink.address: 10.9.0.128/25 overlaps 10.9.0.0/24 of \
             gateway.ipv4: the switch routes between the two, so they must be apart",
            "next-hop-outside green.toml:10:12: uplink.next_hop: 192.0.2.1 is outside \
             10.9.0.128/25, the subnet of uplink.address; the next hop must be on the uplink's own \
             link",
        ];
    no_address: "[\"10.9.0.12\"]" => "[]",
        ["no-address green.toml:22:13: port[1].addresses (port \"two\"): the port has no address, \
          so it could send nothing; list at least one, or write \"learn-dhcp\""];
    too_many_addresses: "[\"10.9.0.12\"]" => many_addresses(),
        ["too-many green.toml:22:13: port[1].addresses (port \"two\"): there are 4097 of them, and \
          a switch takes at most 4096; split the tenant's file or merge entries"];
    address_outside_the_subnet: "10.9.0.12" => "10.9.1.12",
        ["outside-subnet green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.1.12 is \
          outside the gateway's subnet 10.9.0.0/24; choose one inside, or change gateway.ipv4"];
    prefix_outside_the_subnet: "10.9.0.12" => "10.9.0.0/23",
        [
            "outside-subnet green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.0/23 is \
             outside the gateway's subnet 10.9.0.0/24; choose one inside, or change gateway.ipv4",
            "address-overlap green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.0/23 \
             overlaps 10.9.0.11 of port \"one\" (port[0].addresses[0]); every address belongs to \
             one port",
        ];
    address_of_the_gateway: "10.9.0.12" => "10.9.0.1",
        ["reserved-address green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.1 is the \
          address of the gateway of 10.9.0.0/24; choose another"];
    address_of_the_network: "10.9.0.12" => "10.9.0.0",
        ["reserved-address green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.0 is the \
          network address of 10.9.0.0/24; choose another"];
    address_of_the_broadcast: "10.9.0.12" => "10.9.0.255",
        ["reserved-address green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.255 is \
          the broadcast address of 10.9.0.0/24; choose another"];
    address_of_the_subnet_router: "fd00:9::11" => "fd00:9::",
        ["reserved-address green.toml:17:27: port[0].addresses[1] (port \"one\"): fd00:9:: is the \
          subnet-router anycast address (RFC 4291) of fd00:9::/64; choose another"];
    prefix_with_the_gateway: "10.9.0.12" => "10.9.0.0/29",
        ["contains-reserved green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.0/29 \
          contains 10.9.0.1, the address of the gateway of 10.9.0.0/24; write prefixes that leave \
          it out"];
    prefix_with_the_broadcast: "10.9.0.12" => "10.9.0.248/29",
        ["contains-reserved green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.248/29 \
          contains 10.9.0.255, the broadcast address of 10.9.0.0/24; write prefixes that leave it \
          out"];
    prefix_with_host_bits: "10.9.0.12" => "10.9.0.21/30",
        ["host-bits green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.21/30 has bits \
          set behind its prefix length; write 10.9.0.20/30 for the prefix, or the address alone"];
    multicast: "10.9.0.12" => "239.1.2.3",
        ["not-unicast green.toml:22:14: port[1].addresses[0] (port \"two\"): 239.1.2.3 is a \
          multicast address; write a unicast address"];
    loopback: "10.9.0.12" => "127.0.0.1",
        ["not-unicast green.toml:22:14: port[1].addresses[0] (port \"two\"): 127.0.0.1 is a \
          loopback address; write a unicast address"];
    link_local: "10.9.0.12" => "169.254.0.12",
        ["not-unicast green.toml:22:14: port[1].addresses[0] (port \"two\"): 169.254.0.12 is a \
          link-local address; write a unicast address"];
    link_local_ipv6: "fd00:9::11" => "fe80::11",
        ["not-unicast green.toml:17:27: port[0].addresses[1] (port \"one\"): fe80::11 is a \
          link-local address; write a unicast address"];
    unspecified: "fd00:9::11" => "::",
        ["not-unicast green.toml:17:27: port[0].addresses[1] (port \"one\"): :: is the unspecified \
          address; write a unicast address"];
    ipv4_mapped: "fd00:9::11" => "::ffff:10.9.0.11",
        ["not-unicast green.toml:17:27: port[0].addresses[1] (port \"one\"): ::ffff:10.9.0.11 is \
          in ::/8, which is reserved (RFC 4291); write a unicast address"];
    overlap_of_addresses: "10.9.0.12" => "10.9.0.11",
        ["address-overlap green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.11 \
          overlaps 10.9.0.11 of port \"one\" (port[0].addresses[0]); every address belongs to one \
          port"];
    overlap_of_a_prefix: "10.9.0.12" => "10.9.0.8/29",
        ["address-overlap green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.8/29 \
          overlaps 10.9.0.11 of port \"one\" (port[0].addresses[0]); every address belongs to one \
          port"];
    route_on_the_link_of_the_vms: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nroutes = [\"10.9.0.128/25\"]",
        ["route-on-link green.toml:23:11: port[1].routes[0] (port \"two\"): 10.9.0.128/25 overlaps \
          the gateway's subnet 10.9.0.0/24, which is the link of all VMs; write what the VM has \
          there in addresses"];
    route_on_the_underlay: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nroutes = [\"192.0.2.128/25\"]",
        ["subnet-overlap green.toml:23:11: port[1].routes[0] (port \"two\"): 192.0.2.128/25 \
          overlaps 192.0.2.0/24 of uplink.address: the switch routes between the two, so they must \
          be apart"];
    route_of_a_group: "[\"10.9.0.12\"]" => "[\"10.9.0.12\"]\nroutes = [\"239.1.0.0/16\"]",
        ["not-unicast green.toml:23:11: port[1].routes[0] (port \"two\"): 239.1.0.0/16 is a \
          multicast address; write a unicast address"];
    routes_that_overlap: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nroutes = [\"10.244.0.0/16\", \"10.244.1.0/24\"]",
        ["address-repeated green.toml:23:28: port[1].routes[1] (port \"two\"): 10.244.1.0/24 is \
          already in 10.244.0.0/16 of the same port (port[1].routes[0]); leave it out"];
    shared_address_of_another_port_alone: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nshared = [\"10.9.0.11\"]",
        ["address-overlap green.toml:23:11: port[1].shared[0] (port \"two\"): 10.9.0.11 overlaps \
          10.9.0.11 of port \"one\" (port[0].addresses[0]); every address belongs to one port"];
    shared_addresses_of_the_port_alone: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nshared = [\"10.9.0.12\", \"10.9.0.100\", \"10.9.0.100\"]",
        [
            "address-repeated green.toml:23:11: port[1].shared[0] (port \"two\"): 10.9.0.12 is \
             already in 10.9.0.12 of the same port (port[1].addresses[0]); leave it out",
            "address-repeated green.toml:23:38: port[1].shared[2] (port \"two\"): 10.9.0.100 is \
             already in 10.9.0.100 of the same port (port[1].shared[1]); leave it out",
        ];
    shared_addresses_that_no_port_may_have: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\"]\nshared = [\"10.9.1.1\", \"10.9.0.1\", \"224.0.0.18\", \
            \"10.9.0.64/28\"]",
        [
            "outside-subnet green.toml:23:11: port[1].shared[0] (port \"two\"): 10.9.1.1 is \
             outside the gateway's subnet 10.9.0.0/24; choose one inside, or change gateway.ipv4",
            "reserved-address green.toml:23:23: port[1].shared[1] (port \"two\"): 10.9.0.1 is the \
             address of the gateway of 10.9.0.0/24; choose another",
            "not-unicast green.toml:23:35: port[1].shared[2] (port \"two\"): 224.0.0.18 is a \
             multicast address; write a unicast address",
            "invalid green.toml:23:49: port[1].shared[3] (port \"two\"): \"10.9.0.64/28\" is not \
             an IP address, as in 192.0.2.1",
        ];
    address_listed_twice: "[\"10.9.0.12\"]"
        => "[\"10.9.0.12\", \"10.9.0.12/30\", \"10.9.0.12/32\"]",
        [
            "address-repeated green.toml:22:14: port[1].addresses[0] (port \"two\"): 10.9.0.12 is \
             already in 10.9.0.12/30 of the same port (port[1].addresses[1]); leave it out",
            "address-repeated green.toml:22:43: port[1].addresses[2] (port \"two\"): 10.9.0.12 is \
             already in 10.9.0.12 of the same port (port[1].addresses[0]); leave it out",
        ];

    // DHCP.
    learning_port_without_server: "[\"10.9.0.12\"]" => "\"learn-dhcp\"",
        ["no-dhcp-server green.toml:22:13: port[1].addresses (port \"two\"): no other port of the \
          tenant has dhcp_server = true, so there is nobody to learn from; set it, or list the \
          addresses"];
    dhcp_server_that_learns: "[\"10.9.0.12\"]" => "\"learn-dhcp\"\ndhcp_server = true",
        ["server-learns green.toml:22:13: port[1].addresses (port \"two\"): a DHCP server cannot \
          learn its own address; list its addresses"];

    // The uplink.
    empty_uplink: "address = \"192.0.2.9/24\"\nnext_hop = \"192.0.2.1\"\naddress6 = \
                              \"2001:db8::9/64\"\nnext_hop6 = \"2001:db8::1\""
        => "",
        [
            "missing-key green.toml:8:1: uplink.address: missing; write the switch's own address \
             on the underlay with its prefix length, as in address = \"192.0.2.2/24\"",
            "missing-key green.toml:8:1: uplink.next_hop: missing; write the underlay's router, as \
             in next_hop = \"192.0.2.1\"",
        ];
    uplink_without_its_next_hop6: "next_hop6 = \"2001:db8::1\"" => "",
        ["missing-key green.toml:8:1: uplink.next_hop6: missing; write the underlay's IPv6 router, \
          as in next_hop6 = \"2001:db8::1\""];
    uplink_with_a_misspelt_address6: "address6 = " => "adress6 = ",
        [
            "missing-key green.toml:8:1: uplink.address6: missing; write the switch's own IPv6 \
             address on the underlay with its prefix length, as in address6 = \"2001:db8::2/64\"",
            "unknown-key green.toml:11:1: uplink.adress6: no such key; did you mean `address6`?",
        ];
    uplink_with_ipv6_twice: "address = \"192.0.2.9/24\"\nnext_hop = \"192.0.2.1\""
        => "address = \"2001:db8:1::9/64\"\nnext_hop = \"2001:db8:1::1\"",
        ["second-ipv6 green.toml:11:12: uplink.address6: address is IPv6 already; write the IPv4 \
          address as address, or leave address6 out"];
    next_hop_outside: "192.0.2.1\"" => "198.51.100.1\"",
        ["next-hop-outside green.toml:10:12: uplink.next_hop: 198.51.100.1 is outside \
          192.0.2.0/24, the subnet of uplink.address; the next hop must be on the uplink's own \
          link"];
    next_hop_of_the_other_family: "192.0.2.1\"" => "2001:db8::1:1\"",
        ["next-hop-outside green.toml:10:12: uplink.next_hop: 2001:db8::1:1 is outside \
          192.0.2.0/24, the subnet of uplink.address; the next hop must be on the uplink's own \
          link"];
    next_hop_is_the_switch: "192.0.2.1\"" => "192.0.2.9\"",
        ["next-hop-self green.toml:10:12: uplink.next_hop: 192.0.2.9 is the switch's own address; \
          write the router's"];
    next_hop_is_the_broadcast_address: "192.0.2.1\"" => "192.0.2.255\"",
        ["reserved-address green.toml:10:12: uplink.next_hop: 192.0.2.255 is the broadcast address \
          of 192.0.2.0/24; choose another"];
    ipv4_next_hop_is_link_local: "192.0.2.1\"" => "169.254.0.1\"",
        ["not-unicast green.toml:10:12: uplink.next_hop: 169.254.0.1 is a link-local address; \
          write a unicast address"];
    next_hop_is_link_local_of_the_other_family: "192.0.2.1\"" => "fe80::1\"",
        ["not-unicast green.toml:10:12: uplink.next_hop: fe80::1 is a link-local address; write a \
          unicast address"];
    next_hop_is_the_switchs_link_local: "2001:db8::1\"" => "fe80::838:efff:fe10:f9d9\"",
        ["next-hop-self green.toml:12:13: uplink.next_hop6: fe80::838:efff:fe10:f9d9 is the \
          switch's own address; write the router's"];
    allow_outside: "[uplink]"
        => "[uplink]\nallow = [\"192.0.2.128/25\", \"2001:db8::53\", \"8.8.8.8\"]",
        ["allow-outside green.toml:9:44: uplink.allow[2]: 8.8.8.8/32 is not within a subnet of the \
          uplink, where alone allow has an effect; leave it out (the rest of the world is reached \
          by next_hop)"];
    group_is_unicast: "[uplink]"
        => "[multicast]\ngroups = [\"239.1.1.1\", \"10.0.0.1\"]\n[uplink]",
        ["not-multicast green.toml:9:24: multicast.groups[1]: 10.0.0.1 is no multicast group; \
          write addresses and prefixes within 224.0.0.0/4 and ff00::/8"];
    prefix_is_wider_than_groups: "[uplink]"
        => "[multicast]\ngroups = [\"192.0.0.0/2\"]\n[uplink]",
        ["not-multicast green.toml:9:11: multicast.groups[0]: 192.0.0.0/2 is no multicast group; \
          write addresses and prefixes within 224.0.0.0/4 and ff00::/8"];
    group_is_the_switchs: "[uplink]"
        => "[multicast]\ngroups = [\"224.0.0.22\", \"ff02::1\", \"ff02::1:ff00:11\", \
           \"ff01::/16\"]\n[uplink]",
        ["own-group green.toml:9:11: multicast.groups[0]: 224.0.0.22 is the switch's own: IGMPv3 \
          reports, which the switch takes; it is never forwarded, so leave it out",
         "own-group green.toml:9:25: multicast.groups[1]: ff02::1 is the switch's own: all nodes \
          of the link, by which the switch advertises and queries; it is never forwarded, so leave \
          it out",
         "own-group green.toml:9:36: multicast.groups[2]: ff02::1:ff00:11 is the switch's own: \
          solicited-node groups, in which the switch answers; it is never forwarded, so leave it \
          out",
         "own-group green.toml:9:55: multicast.groups[3]: ff01::/16 is the switch's own: the scope \
          of one interface; it is never forwarded, so leave it out"];
    group_is_listed_twice: "[uplink]"
        => "[multicast]\ngroups = [\"239.192.0.0/16\", \"239.192.1.1\"]\n[uplink]",
        ["duplicate-group green.toml:9:29: multicast.groups[1]: 239.192.1.1 is, or overlaps, \
          multicast.groups[0]; leave one out"];
    group_with_host_bits: "[uplink]"
        => "[multicast]\ngroups = [\"239.192.1.1/16\"]\n[uplink]",
        ["host-bits green.toml:9:11: multicast.groups[0]: 239.192.1.1/16 has bits set behind its \
          prefix length; write 239.192.0.0/16 for the prefix, or the address alone"];
    groups_are_another_word: "[uplink]" => "[multicast]\ngroups = \"all\"\n[uplink]",
        ["invalid green.toml:9:10: multicast.groups: \"all\" is not an array of multicast \
          addresses and prefixes, or \"any\""];
    broadcast_is_another_word: "[uplink]" => "[multicast]\nbroadcast = true\n[uplink]",
        ["wrong-type green.toml:9:13: multicast.broadcast: this is true, but the key takes a \
          text in quotes"];
    multicast_limit_of_nothing: "addresses = [\"10.9.0.12\"]"
        => "addresses = [\"10.9.0.12\"]\n[port.limits]\nmulticast_pps = 0",
        ["zero-limit green.toml:24:17: port[1].limits.multicast_pps (port \"two\"): a limit of 0 \
          stops every such frame; write at least 1, or leave the key out for no limit"];
    allow_with_host_bits: "[uplink]" => "[uplink]\nallow = [\"192.0.2.129/25\"]",
        ["host-bits green.toml:9:10: uplink.allow[0]: 192.0.2.129/25 has bits set behind its \
          prefix length; write 192.0.2.128/25 for the prefix, or the address alone"];
}

#[test]
fn multicast_round_trips() {
    for section in [
        "groups = [\"224.0.0.18\", \"239.192.0.0/16\", \"ff02::12\"]\nbroadcast = \"allow\"",
        "groups = \"any\"",
        "broadcast = \"deny\"",
    ] {
        let text = GREEN.replace("[uplink]", &format!("[multicast]\n{section}\n\n[uplink]"));
        let green = Tenant::parse("green.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let config = green.offline_config();
        assert_eq!(config.multicast, *green.multicast());
        let json = serde_json::to_string(&config).expect("plain values");
        let again = tenant_config::SwitchConfig::from_json("green", &json);
        assert_eq!(again.unwrap_or_else(|errors| panic!("{errors}")), config);
    }
}

/// Found by looking for two MACs of one digest with this VNI.
#[test]
fn ports_with_one_gateway_mac_refused() {
    let text = GREEN
        .replace("52:54:00:cc:00:01", "52:54:00:05:c3:df")
        .replace("52:54:00:cc:00:02", "52:54:00:10:2f:97");
    assert_eq!(
        refusal(&text),
        [
            "duplicate-gateway-mac green.toml:21:7: port[1].mac (port \"two\"): \
             06:4e:01:b0:b3:65, the switch's MAC at this port, is also its MAC at the port of \
             port[0].mac; it is a digest of the VNI and the port's mac: change this mac"
        ]
    );
    let other_vni = text.replace("vni = 7", "vni = 8");
    Tenant::parse("green.toml", &other_vni).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn all_errors_reported_at_once() {
    let text = r#"name = "Green"
vni = 0
colour = "green"
[gateway]
ipv4 = "10.9.0.1/24"
[uplink]
adress = "192.0.2.9/24"
[[port]]
name = "one"
mac = "52:54"
addresses = ["10.9.1.11", "10.9.0.300", "10.9.0.1"]
[port.limits]
pps = 0
[[port]]
name = "one"
mac = "52:54:00:cc:00:02"
addresses = []
mtu = 100
"#;
    assert_eq!(
        refusal(text),
        [
            "invalid green.toml:1:8: name: \"Green\" is not a name of 1 to 32 lower-case letters, \
             digits and hyphens that begins with a letter",
            "vni-range green.toml:2:7: vni: 0 is no VNI; choose one from 1 to 16777215 that no \
             other tenant has",
            "unknown-key green.toml:3:1: colour: no such key; the keys here are name, vni, \
             gateway, uplink, tunnel, multicast, nic, port",
            "missing-key green.toml:6:1: uplink.address: missing; write the switch's own address \
             on the underlay with its prefix length, as in address = \"192.0.2.2/24\"",
            "missing-key green.toml:6:1: uplink.next_hop: missing; write the underlay's router, as \
             in next_hop = \"192.0.2.1\"",
            "unknown-key green.toml:7:1: uplink.adress: no such key; did you mean `address`?",
            "invalid green.toml:10:7: port[0].mac (port \"one\"): \"52:54\" is not a unicast MAC \
             address of six hexadecimal bytes, as in 52:54:00:aa:00:01",
            "outside-subnet green.toml:11:14: port[0].addresses[0] (port \"one\"): 10.9.1.11 is \
             outside the gateway's subnet 10.9.0.0/24; choose one inside, or change gateway.ipv4",
            "invalid green.toml:11:27: port[0].addresses[1] (port \"one\"): \"10.9.0.300\" is not \
             an IP address or prefix, as in 10.0.0.11 or 10.0.0.16/28",
            "reserved-address green.toml:11:41: port[0].addresses[2] (port \"one\"): 10.9.0.1 is \
             the address of the gateway of 10.9.0.0/24; choose another",
            "zero-limit green.toml:13:7: port[0].limits.pps (port \"one\"): a limit of 0 stops \
             every such frame; write at least 1, or leave the key out for no limit",
            "duplicate-port green.toml:15:8: port[1].name (port \"one\"): port[0].name is \"one\" \
             already; names are unique within a tenant",
            "no-address green.toml:17:13: port[1].addresses (port \"one\"): the port has no \
             address, so it could send nothing; list at least one, or write \"learn-dhcp\"",
            "mtu-range green.toml:18:7: port[1].mtu (port \"one\"): 100 is no MTU here; choose one \
             from 576 to 9216",
        ]
    );
}

#[test]
fn learning_port_without_ipv4_gateway_refused() {
    let text = r#"name = "green"
vni = 7
[gateway]
ipv6 = "fd00:9::1/64"
[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["fd00:9::11"]
dhcp_server = true
[[port]]
name = "two"
mac = "52:54:00:cc:00:02"
addresses = "learn-dhcp"
"#;
    assert_eq!(
        refusal(text),
        [
            "gateway-missing green.toml:13:13: port[1].addresses (port \"two\"): what DHCP assigns \
             is IPv4, but the gateway has no IPv4 address; add gateway.ipv4"
        ],
    );
}

/// Resolvers that no uplink leads to.
#[test]
fn dns_resolvers_need_an_uplink_of_their_family() {
    let refused = |uplink: &str| {
        let dns = "[gateway.dns]\nenabled = true\nforward = [\"198.51.100.53\"]\n";
        let begin = GREEN.find("[uplink]").expect("an uplink");
        let end = GREEN.find("[[port]]").expect("ports");
        let text = format!("{}{dns}\n{uplink}\n{}", &GREEN[..begin], &GREEN[end..]);
        let errors = Tenant::parse("green.toml", &text).expect_err("it is refused");
        errors.to_string()
    };
    assert_eq!(
        refused(""),
        "green.toml:10:12: gateway.dns.forward[0]: resolvers are asked by the uplink, and there \
         is none; add [uplink], or leave it out"
    );
    assert_eq!(
        refused("[uplink]\naddress6 = \"2001:db8::9/64\"\nnext_hop6 = \"2001:db8::1\"\n"),
        "green.toml:10:12: gateway.dns.forward[0]: 198.51.100.53 is IPv4, but the uplink has no \
         IPv4 address to ask it from"
    );
}
