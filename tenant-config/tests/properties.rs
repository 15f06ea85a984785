//! Properties that hold for all values.

use ipnet::{IpNet, Ipv4Net};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use tenant_config::{
    AddressProblem, ConfigError, MacAddr, Name, PciAddress, PrefixProblem, Problem, SwitchConfig,
    Tenant, VlanId, Vni,
};

/// A tenant whose ports have these addresses.
fn tenant(ports: &[Vec<IpNet>]) -> String {
    let mut text = "name = \"t\"\nvni = 1\ngateway = { ipv4 = \"10.0.0.1/24\" }\n".to_owned();
    for (index, addresses) in ports.iter().enumerate() {
        let addresses: Vec<_> = addresses.iter().map(|net| format!("\"{net}\"")).collect();
        text += &format!(
            "[[port]]\nname = \"p{index}\"\nmac = \"52:54:00:00:00:{index:02x}\"\naddresses = \
             [{}]\n",
            addresses.join(", ")
        );
    }
    text
}

/// Small prefixes within a small range, so that many overlap.
fn prefix() -> impl Strategy<Value = IpNet> {
    (64_u8..128, 28_u8..=32).prop_map(|(host, length)| {
        let net = IpNet::new([10, 0, 0, host].into(), length);
        net.expect("the length is one").trunc()
    })
}

/// A tenant with a port's addresses and peers' prefixes that are valid by themselves.
fn tunnelled(port: &[IpNet], peers: &[Vec<IpNet>]) -> String {
    let mut text = tenant(&[port.to_vec()]);
    text += "[uplink]\naddress = \"192.0.2.2/24\"\nnext_hop = \"192.0.2.1\"\n\
             [tunnel]\nkind = \"geneve\"\n";
    for (index, prefixes) in peers.iter().enumerate() {
        let prefixes: Vec<_> = prefixes.iter().map(|net| format!("\"{net}\"")).collect();
        text += &format!(
            "[[tunnel.peer]]\nname = \"p{index}\"\nvtep = \"192.0.2.{}\"\nprefixes = [{}]\n",
            10 + index,
            prefixes.join(", ")
        );
    }
    text
}

/// A `[tunnel]` in every form, of an uplink that has both families.
fn tunnel() -> impl Strategy<Value = String> {
    let or_none = |text: &'static [&'static str]| proptest::option::of(select(text));
    let head = (
        select(&["geneve", "vxlan"][..]),
        or_none(&["\"192.0.2.2\"", "\"2001:db8::2\""]),
        proptest::option::of(1_u16..),
        proptest::option::of(1_u8..),
        proptest::option::of(0_u8..64),
        any::<[Option<bool>; 3]>(),
        proptest::option::of(any::<bool>()),
    );
    let peer = (
        any::<[Option<bool>; 2]>(),
        vec((any::<u16>(), 17_u8..=32), 0..4),
    );
    (head, vec(peer, 0..4)).prop_map(|((kind, vtep, port, ttl, dscp, flags, nested), peers)| {
        let mut text = format!("[tunnel]\nkind = \"{kind}\"\n");
        let mut key = |key: &str, value: Option<String>| {
            text += &value.map_or_else(String::new, |value| format!("{key} = {value}\n"));
        };
        let [udp_checksum, mss_clamp, only] = flags.map(|flag| flag.map(|flag| flag.to_string()));
        key("vtep", vtep.map(str::to_owned));
        key("port", port.map(|port| port.to_string()));
        // Every tenth is the word.
        let inherited = |number: u8| match number {
            number if number % 10 == 0 => "\"inherit\"".to_owned(),
            number => number.to_string(),
        };
        key("ttl", ttl.map(inherited));
        key("dscp", dscp.map(inherited));
        key("udp_checksum", udp_checksum);
        key("mss_clamp", mss_clamp);
        key("only", only);
        let word = |allow| if allow { "\"allow\"" } else { "\"deny\"" };
        key("nested", nested.map(|allow| word(allow).to_owned()));
        let ipv6 = vtep.is_some_and(|vtep| vtep.contains(':'));
        let underlay = if ipv6 { "2001:db8::" } else { "192.0.2." };
        for (index, ([mac, next_hop], prefixes)) in peers.iter().enumerate() {
            let host = 10 + index;
            text += &format!("[[tunnel.peer]]\nname = \"p{index}\"\nvtep = \"{underlay}{host}\"\n");
            if mac.is_some() {
                text += &format!("mac = \"52:54:00:01:00:{host:02x}\"\n");
            }
            if next_hop.is_some() {
                text += &format!("next_hop = \"{underlay}9\"\n");
            }
            // Each peer has a network of its own.
            let mut nets: Vec<_> = prefixes
                .iter()
                .map(|(host, length)| {
                    let [hi, lo] = host.to_be_bytes();
                    let second = 100 + u8::try_from(index).expect("there are few");
                    let net = Ipv4Net::new([10, second, hi, lo].into(), *length);
                    net.expect("the length is one").trunc().to_string()
                })
                .collect();
            nets.sort();
            nets.dedup();
            text += &format!("prefixes = {nets:?}\n");
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(2019),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn newtypes_round_trip(
        octets: [u8; 6],
        (domain, bus, device, function) in (any::<u16>(), any::<u8>(), 0_u8..32, 0_u8..8),
        name in "[a-z][a-z0-9-]{0,31}",
    ) {
        if let Ok(mac) = MacAddr::new(octets) {
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse(), Ok(mac));
        }
        let pci = format!("{domain:04x}:{bus:02x}:{device:02x}.{function}");
        prop_assert_eq!(pci.parse::<PciAddress>().unwrap().to_string(), pci);
        prop_assert_eq!(name.parse::<Name>().unwrap().to_string(), name);
    }

    #[test]
    fn numbers_out_of_range_refused(number: u32) {
        prop_assert_eq!(Vni::new(number).is_ok(), (1..1 << 24).contains(&number));
        let short = number as u16;
        prop_assert_eq!(VlanId::new(short).is_ok(), (1..4095).contains(&short));
    }

    #[test]
    fn any_text_read_or_refused_without_panic(text in "\\PC*", cut in 0_usize..400) {
        let _ = text.parse::<MacAddr>().is_ok() || text.parse::<PciAddress>().is_ok();
        let valid = tenant(&[vec!["10.0.0.2/32".parse().unwrap()]]);
        let cut = cut.min(valid.len());
        for text in [text.clone(), format!("{}{text}{}", &valid[..cut], &valid[cut..])] {
            if let Err(errors) = Tenant::parse("x.toml", &text) {
                prop_assert!(!errors.as_slice().is_empty());
            }
        }
    }

    /// The sweep over sorted prefixes against every pair.
    #[test]
    fn address_overlap_reported_iff_pair_overlaps(ports in vec(vec(prefix(), 1..5), 1..6)) {
        let all: Vec<IpNet> = ports.iter().flatten().copied().collect();
        let overlapping = all
            .iter()
            .enumerate()
            .filter(|(index, one)| {
                let mut others = all.iter().enumerate().filter(|(other, _)| other != index);
                others.any(|(_, other)| one.contains(other) || other.contains(*one))
            })
            .count();
        let reported = Tenant::parse("t.toml", &tenant(&ports)).map_or_else(
            |errors| {
                let overlap = |problem: &Problem| matches!(
                    problem,
                    Problem::Address(
                        AddressProblem::AddressOverlap { .. }
                            | AddressProblem::AddressRepeated { .. }
                    )
                );
                assert!(errors.as_slice().iter().all(|error| overlap(error.problem())), "{errors}");
                errors.as_slice().len()
            },
            |_| 0,
        );
        prop_assert_eq!(reported > 0, overlapping > 0);
        prop_assert!(reported <= overlapping);
    }

    /// The sweep over peers' and ports' prefixes against every pair.
    #[test]
    fn peer_prefix_refused_iff_port_or_earlier_peer_has_it(
        port in prefix(),
        peers in vec(vec(prefix(), 0..5), 0..5),
    ) {
        let all: Vec<IpNet> = peers.iter().flatten().copied().collect();
        let at_port = all.iter().filter(|prefix| port.contains(*prefix)).count();
        let repeated = all
            .iter()
            .enumerate()
            .filter(|(index, prefix)| !port.contains(*prefix) && all[..*index].contains(prefix))
            .count();
        let kinds = |error: &ConfigError| match error.problem() {
            Problem::Prefix(PrefixProblem::PrefixAtPort { .. }) => (1, 0),
            Problem::Prefix(PrefixProblem::PrefixRepeated { .. }) => (0, 1),
            _ => panic!("{error}"),
        };
        let reported = Tenant::parse("t.toml", &tunnelled(&[port], &peers)).map_or_else(
            |errors| {
                let kinds = errors.as_slice().iter().map(kinds);
                kinds.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            },
            |_| (0, 0),
        );
        prop_assert_eq!(reported, (at_port, repeated));
    }

    #[test]
    fn tunnels_round_trip(tunnel in tunnel()) {
        let uplink = "[uplink]\naddress = \"192.0.2.2/24\"\nnext_hop = \"192.0.2.1\"\n\
                      address6 = \"2001:db8::2/64\"\nnext_hop6 = \"2001:db8::1\"\n";
        let text = tenant(&[vec!["10.0.0.2/32".parse().unwrap()]]) + uplink + &tunnel;
        let tenant = Tenant::parse("t.toml", &text);
        let tenant = tenant.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let again = toml::to_string(&tenant).expect("a tenant is TOML");
        prop_assert_eq!(Tenant::parse("again.toml", &again), Ok(tenant.clone()), "{}", again);
        let config = tenant.offline_config();
        let json = serde_json::to_string(&config).expect("a configuration is JSON");
        prop_assert_eq!(SwitchConfig::from_json("t.json", &json), Ok(config));
    }
}
