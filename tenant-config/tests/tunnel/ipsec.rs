//! `[tunnel.ipsec]` and the peers' keys beside it.

use std::path::PathBuf;

use serde_json::json;
use tenant_config::{
    Authentication, IkeConfig, IpsecConfig, IpsecSuite, Lifetimes, Protection, SwitchConfig,
    TunnelConfig, TunnelKind, Vni,
};

use super::{GREEN, green_with, refusal, tenant, tunnel};

/// [`GREEN`] with this section, and these lines added to host-b.
fn green(section: &str, peer: &str) -> String {
    let text = green_with(
        "[tunnel]\nkind = \"geneve\"\n",
        &format!("[tunnel]\nkind = \"geneve\"\n\n[tunnel.ipsec]\n{section}\n"),
    );
    let vtep = "vtep = \"192.0.2.66\"\n";
    text.replace(vtep, &format!("{vtep}{peer}\n"))
}

fn ike(text: &str) -> IkeConfig {
    tenant(text).ike_config().expect("the file has IPsec")
}

/// The errors of [`green`], each as its kind, key and sentence.
fn refused(section: &str, peer: &str) -> Vec<String> {
    let errors = refusal(&green(section, peer));
    let short = |line: String| {
        let (kind, rest) = line.split_once(' ').expect("a kind and a line");
        let (_, rest) = rest.split_once(": ").expect("a place before the key");
        format!("{kind} {rest}")
    };
    errors.into_iter().map(short).collect()
}

#[test]
fn absent_section_is_no_ipsec() {
    assert_eq!(tunnel(GREEN).ipsec, None);
    assert_eq!(tenant(GREEN).ike_config(), None);
    let peers = tunnel(GREEN).peers;
    assert!(peers.iter().all(|peer| peer.ipsec == Protection::Off));
}

#[test]
fn pre_shared_key_of_the_section_is_every_peers() {
    let text = green("mode = \"required\"\npsk = \"/etc/psk\"", "");
    assert_eq!(tunnel(&text).ipsec, Some(IpsecConfig::default()));
    let config = serde_json::to_value(ike(&text)).expect("it is data");
    assert_eq!(
        config,
        json!({
            "vtep": "192.0.2.9",
            "port": 6081,
            "allowed": {"suites": ["aes256gcm16"], "esn": true, "replay_window": 1024},
            "lifetimes": {
                "rekey_time": 3600,
                "life_time": 3960,
                "rekey_packets": 3_000_000_000_u64,
                "life_packets": 4_000_000_000_u64,
            },
            "ca": [],
            "crl": [],
            "peers": [
                {"name": "host-b", "vtep": "192.0.2.66", "authentication": {"psk": ["/etc/psk"]}},
                {"name": "host-c", "vtep": "198.51.100.7", "authentication": {"psk": ["/etc/psk"]}},
            ],
        })
    );
}

#[test]
fn peers_override_mode_and_authentication() {
    let section = "mode = \"off\"\ncertificate = \"/k/own.pem\"\nkey = \"/k/own.key\"\n\
                   ca = \"/k/ca.pem\"\ncrl = [\"/k/a.crl\", \"/k/b.crl\"]\n\
                   identity = \"host-a.example\"";
    let peer = "ipsec = \"required\"\nidentity = \"host-b.example\"";
    let config = ike(&green(section, peer));
    let [only] = &config.peers[..] else {
        panic!("host-c is off: {config:?}");
    };
    assert_eq!(only.authentication, Authentication::Authority);
    assert_eq!(only.identity.as_deref(), Some("host-b.example"));
    assert_eq!(config.ca, [PathBuf::from("/k/ca.pem")]);
    let secrets: Vec<_> = config.secrets().collect();
    assert_eq!(secrets, [PathBuf::from("/k/own.key")]);
    let switch = tunnel(&green(section, peer));
    let modes: Vec<_> = switch.peers.iter().map(|peer| peer.ipsec).collect();
    assert_eq!(modes, [Protection::Required, Protection::Off]);
}

#[test]
fn pinned_certificates_and_several_keys_are_kept_in_order() {
    let own = "mode = \"off\"\ncertificate = \"/k/own.pem\"\nkey = \"/k/own.key\"";
    let pinned = "ipsec = \"required\"\ncertificate = [\"/k/new.pem\", \"/k/old.pem\"]";
    let files = vec!["/k/new.pem".into(), "/k/old.pem".into()];
    assert_eq!(
        ike(&green(own, pinned)).peers[0].authentication,
        Authentication::Pinned(files)
    );
    let psk = "ipsec = \"required\"\npsk = [\"/k/new\", \"/k/old\"]";
    let files = vec!["/k/new".into(), "/k/old".into()];
    assert_eq!(
        ike(&green("mode = \"off\"", psk)).peers[0].authentication,
        Authentication::Psk(files)
    );
}

#[test]
fn compatible_with_ovs_fixes_proposals() {
    let text = green(
        "mode = \"required\"\npsk = \"/k\"\ncompatible = \"ovs\"",
        "",
    );
    let fixed = IpsecConfig {
        esn: false,
        ..IpsecConfig::default()
    };
    assert_eq!(tunnel(&text).ipsec, Some(fixed));
    let both = "mode = \"required\"\npsk = \"/k\"\ncompatible = \"ovs\"\n\
                proposals = [\"aes128gcm16\"]\nesn = true";
    let sentence = "compatible = \"ovs\" decides this; leave one of the two keys out";
    assert_eq!(
        refused(both, ""),
        [
            format!("ipsec-fixed tunnel.ipsec.proposals: {sentence}"),
            format!("ipsec-fixed tunnel.ipsec.esn: {sentence}"),
        ]
    );
}

#[test]
fn lifetimes_follow_from_those_that_are_written() {
    let lifetimes = |keys: &str| {
        let section = format!("mode = \"required\"\npsk = \"/k\"\n{keys}");
        ike(&green(&section, "")).lifetimes
    };
    let default = Lifetimes::default();
    assert_eq!(lifetimes(""), default);
    let rekeyed = lifetimes("rekey_time = 60\nrekey_bytes = 1000");
    let expected = Lifetimes {
        rekey_time: 60,
        life_time: 66,
        rekey_bytes: Some(1000),
        life_bytes: Some(1100),
        ..default
    };
    assert_eq!(rekeyed, expected);
    let ended = lifetimes("life_time = 100\nlife_packets = 1000");
    let expected = Lifetimes {
        rekey_time: 90,
        life_time: 100,
        rekey_packets: 900,
        life_packets: 1000,
        ..default
    };
    assert_eq!(ended, expected);
}

#[test]
fn useless_authentication_is_refused() {
    let required = "mode = \"required\"";
    let own = "mode = \"required\"\npsk = \"/k\"\ncertificate = \"/c\"\nkey = \"/p\"";
    let psk = "mode = \"required\"\npsk = \"/k\"";
    let none = "this peer requires IPsec, but nothing says how it proves who it is; write psk, \
                certificate, or identity (with tunnel.ipsec.ca), or ipsec = \"off\"";
    let cases = [
        (
            required,
            "ipsec = \"off\"",
            format!("no-authentication tunnel.peer[1]: {none}"),
        ),
        (
            psk,
            "certificate = \"/c\"",
            "no-own-certificate tunnel.peer[0].certificate: with certificates both ends need one; \
             write tunnel.ipsec.certificate and .key"
                .to_owned(),
        ),
        (
            own,
            "psk = \"/k\"\ncertificate = \"/c\"",
            "two-authentications tunnel.peer[0].psk: a peer has either a pre-shared key or a \
             pinned certificate; leave one out"
                .to_owned(),
        ),
        (
            "mode = \"off\"",
            "ipsec = \"required\"\nidentity = \"b\"",
            "no-authority tunnel.peer[0].identity: an identity alone proves nothing; write \
             tunnel.ipsec.ca for the authority that signs it, or psk or certificate here"
                .to_owned(),
        ),
        (
            "mode = \"off\"\ncertificate = \"/c\"",
            "",
            "half-certificate tunnel.ipsec.certificate: a certificate of our own is two files; \
             write tunnel.ipsec.key too"
                .to_owned(),
        ),
    ];
    for (section, peer, expected) in cases {
        assert_eq!(refused(section, peer), [expected], "{section} {peer}");
    }
}

#[test]
fn invalid_values_are_refused_by_key() {
    let path = "the absolute path of a file, without .. in it";
    let cases = [
        ("psk = \"psk\"", format!("psk: \"psk\" is not {path}")),
        (
            "psk = \"/k/../psk\"",
            format!("psk: \"/k/../psk\" is not {path}"),
        ),
        (
            "psk = []",
            "psk: \"an array of 0\" is not a path or an array of 1 to 8 paths".to_owned(),
        ),
        (
            "proposals = [\"3des\"]",
            "proposals[0]: \"3des\" is not \"aes256gcm16\", \"aes128gcm16\", \
             \"chacha20poly1305\" or \"aes256-sha256\""
                .to_owned(),
        ),
        (
            "proposals = []",
            "proposals: \"[]\" is not an array of at least one proposal".to_owned(),
        ),
        (
            "proposals = [\"aes128gcm16\", \"aes128gcm16\"]",
            "proposals[1]: \"aes128gcm16\" is not a proposal listed once".to_owned(),
        ),
        (
            "replay_window = 32",
            "replay_window: \"32\" is not a replay window from 64 to 4096 packets".to_owned(),
        ),
        (
            "rekey_time = 9",
            "rekey_time: \"9\" is not a number of seconds from 10 to 604800".to_owned(),
        ),
        (
            "esn = false\nlife_packets = 5000000000",
            "life_packets: \"5000000000\" is not fewer than 2^32 packets, which the sequence \
             number of 32 bits allows"
                .to_owned(),
        ),
        (
            "compatible = \"libreswan\"",
            "compatible: \"libreswan\" is not \"ovs\"".to_owned(),
        ),
        (
            "identity = \"*\"",
            "identity: \"*\" is not an identity of IKE: an address, a DNS name, an e-mail address \
             or a distinguished name, without wildcards"
                .to_owned(),
        ),
    ];
    for (line, expected) in cases {
        let section = format!("mode = \"off\"\n{line}");
        let expected = format!("invalid tunnel.ipsec.{expected}");
        assert_eq!(refused(&section, ""), [expected], "{line}");
    }
    assert_eq!(
        refused("mode = \"off\"\nrekey_time = 100\nlife_time = 100", ""),
        [
            "rekey-after-life tunnel.ipsec.rekey_time: 100 is not less than the life_time of 100, \
          so traffic would stop at each rekey"
        ]
    );
}

#[test]
fn peer_without_section_and_ike_port_are_refused() {
    let vtep = "vtep = \"192.0.2.66\"\n";
    let without = refusal(&GREEN.replace(vtep, &format!("{vtep}ipsec = \"required\"\n")));
    assert_eq!(without.len(), 1, "{without:?}");
    assert!(without[0].starts_with("ipsec-missing "), "{without:?}");
    let text = green("mode = \"required\"\npsk = \"/k\"", "");
    let port = refusal(&text.replace("kind = \"geneve\"\n", "kind = \"geneve\"\nport = 4500\n"));
    let expected = "tunnel.port: \"4500\" is not a UDP port other than IKE's (500 and 4500) beside \
                    IPsec";
    assert!(port[0].contains(expected), "{port:?}");
}

#[test]
fn peers_of_one_endpoint_are_protected_alike() {
    let text = green("mode = \"required\"\npsk = \"/k\"", "ipsec = \"off\"");
    let text = text.replace("198.51.100.7", "192.0.2.66");
    let errors = refusal(&text);
    let expected = "tunnel.peer[1].ipsec: tunnel.peer[0] has the endpoint 192.0.2.66 too, but is \
                    protected otherwise; write the same in both";
    assert!(
        errors.iter().any(|error| error.contains(expected)),
        "{errors:?}"
    );
}

/// The figures are the sums of RFC 4303's fields; Linux gives the same for GCM.
#[test]
fn inner_mtu_depends_on_transform_family_and_encapsulation() {
    let vni = Vni::new(7).expect("a VNI");
    let inner = |vtep: &str, suite, encapsulated| {
        let vtep = vtep.parse().expect("an address");
        let mut tunnel = TunnelConfig::new(TunnelKind::Geneve, vni, vtep);
        tunnel.ipsec = Some(IpsecConfig {
            suites: vec![suite],
            ..IpsecConfig::default()
        });
        assert_eq!(
            tunnel.inner_mtu(Protection::Off, 1500, false),
            1500 - tunnel.overhead()
        );
        tunnel.inner_mtu(Protection::Required, 1500, encapsulated)
    };
    for gcm in [
        IpsecSuite::Aes128Gcm16,
        IpsecSuite::Aes256Gcm16,
        IpsecSuite::ChaCha20Poly1305,
    ] {
        assert_eq!(inner("192.0.2.9", gcm, false), 1416);
        assert_eq!(inner("2001:db8::9", gcm, false), 1396);
        assert_eq!(inner("192.0.2.9", gcm, true), 1408);
    }
    let cbc = IpsecSuite::Aes256Sha256;
    assert_eq!(inner("192.0.2.9", cbc, false), 1408);
    assert_eq!(inner("2001:db8::9", cbc, false), 1376);
    assert_eq!(inner("192.0.2.9", cbc, true), 1392);
}

#[test]
fn uplink_mtu_leaves_room_for_esp() {
    // IPv6 inside needs 1280.
    let section = "mode = \"required\"\npsk = \"/k\"";
    let with = |mtu: u16| {
        let next_hop = "next_hop = \"192.0.2.1\"\n";
        green(section, "").replace(next_hop, &format!("{next_hop}mtu = {mtu}\n"))
    };
    let errors = refusal(&with(1363));
    let expected = "uplink.mtu: an MTU of 1363 leaves 1276 bytes for a packet within the tunnel, \
                    which adds 84; write at least 1364 (IPv6 needs 1280, RFC 8200)";
    assert!(errors[0].contains(expected), "{errors:?}");
    tenant(&with(1364));
}

#[test]
fn switch_refuses_protection_without_the_section() {
    let text = green("mode = \"required\"\npsk = \"/k\"", "");
    let mut config = tenant(&text).offline_config();
    config.validate("green.json").expect("it is valid");
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    tunnel.ipsec = None;
    let errors = config.validate("green.json").expect_err("no section");
    assert!(errors.to_string().contains("tunnel.peers[0].ipsec: "));
    let json = serde_json::to_string(&tenant(&text).offline_config()).expect("JSON");
    assert!(!json.contains("/k"), "{json}");
    let again = SwitchConfig::from_json("green.json", &json).expect("it is read");
    assert_eq!(again, tenant(&text).offline_config());
}

#[test]
fn ipsec_begins_and_ends_with_a_restart() {
    let with = tenant(&green("mode = \"off\"", "")).offline_config();
    let without = tenant(GREEN).offline_config();
    let says = |old: &SwitchConfig, new| old.needs_restart(new).expect("a restart");
    assert_eq!(says(&without, &with), "there is IPsec now");
    assert_eq!(says(&with, &without), "there is no IPsec any more");
    let required = tenant(&green("mode = \"required\"\npsk = \"/k\"", "")).offline_config();
    assert_eq!(with.needs_restart(&required), None);
}
