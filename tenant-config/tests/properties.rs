//! What holds for all values.

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tenant_config::{MacAddr, Name, PciAddress, Problem, Tenant, VlanId, Vni};

/// A tenant whose ports have these addresses.
fn tenant(ports: &[Vec<IpNet>]) -> String {
    let mut text = "name = \"t\"\nvni = 1\ngateway = { ipv4 = \"10.0.0.1/24\" }\n".to_owned();
    for (index, addresses) in ports.iter().enumerate() {
        let addresses: Vec<_> = addresses.iter().map(|net| format!("\"{net}\"")).collect();
        text += &format!(
            "[[port]]\nname = \"p{index}\"\nmac = \"52:54:00:00:00:{index:02x}\"\naddresses = [{}]\n",
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

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(2019),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn newtypes_are_read_as_they_are_written(
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
    fn numbers_are_in_range_or_refused(number: u32) {
        prop_assert_eq!(Vni::new(number).is_ok(), (1..1 << 24).contains(&number));
        let short = number as u16;
        prop_assert_eq!(VlanId::new(short).is_ok(), (1..4095).contains(&short));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC*", cut in 0_usize..400) {
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
    fn addresses_overlap_exactly_if_a_pair_does(ports in vec(vec(prefix(), 1..5), 1..6)) {
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
                    Problem::AddressOverlap { .. } | Problem::AddressRepeated { .. }
                );
                assert!(errors.as_slice().iter().all(|error| overlap(error.problem())), "{errors}");
                errors.as_slice().len()
            },
            |_| 0,
        );
        prop_assert_eq!(reported > 0, overlapping > 0);
        prop_assert!(reported <= overlapping);
    }
}
