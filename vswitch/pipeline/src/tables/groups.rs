//! The multicast groups that a switch must receive; a NIC filters all others.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use packet::addr::{self, ALL_DHCP_AGENTS, ALL_NODES, ALL_ROUTERS};
use tenant_config::{Addresses, SwitchConfig};

/// The groups of one side of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// These groups, as MACs; those without which nothing works come first.
    pub listed: Box<[[u8; 6]]>,
    /// Whether there are more groups than can be listed: those of a whole prefix of addresses.
    pub others: bool,
}

/// More than any NIC can list.
const LISTED_MAX: usize = 1024;

/// The groups of every side, in the order of [`crate::PortId`]: those in which a VM solicits its
/// neighbours and its router, those that `[multicast]` allows, and those in which routers of the
/// underlay solicit the switch.
pub(super) fn of(config: &SwitchConfig) -> Box<[Groups]> {
    let mut asked_for = Vec::new();
    // What a VM may have that makes its addresses by itself, nobody knows before.
    let mut others = config.ports.iter().any(|port| port.addresses6.is_some());
    let of_ports = config.ports.iter().flat_map(|port| match &port.addresses {
        Addresses::Static(nets) => &nets[..],
        Addresses::Learned(_) => &[],
    });
    // A VM solicits addresses behind a peer only if they are in the subnet of its own link.
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let subnet = config.gateway.ipv6.map(|net| net.trunc());
    let is_on_link = |net: &&IpNet| match (net, subnet) {
        (IpNet::V6(net), Some(subnet)) => subnet.contains(net) || net.contains(&subnet),
        _ => false,
    };
    let of_peers = peers.flat_map(|peer| &peer.prefixes).filter(is_on_link);
    for net in of_ports.chain(of_peers) {
        let IpNet::V6(net) = net else {
            continue;
        };
        if net.prefix_len() == 128 && asked_for.len() < LISTED_MAX {
            asked_for.push(net.addr());
        } else {
            others = true;
        }
    }
    let allowed = allowed(config);
    let port_groups = |own: Ipv6Addr| match config.gateway.ipv6 {
        None => allowed.clone(),
        Some(gateway) => Groups {
            listed: list_of(
                &[ALL_NODES, ALL_ROUTERS, ALL_DHCP_AGENTS],
                [gateway.addr(), own]
                    .into_iter()
                    .chain(asked_for.iter().copied()),
                &allowed.listed,
            ),
            others: others || allowed.others,
        },
    };
    let ports = config
        .ports
        .iter()
        .map(|port| port_groups(port.gateway_mac.link_local()));
    let uplink = config.uplink.iter().map(|uplink| match uplink.ipv6 {
        None => Groups::default(),
        Some(net) => Groups {
            listed: list_of(&[ALL_NODES], [net.addr(), uplink.mac.link_local()], &[]),
            others: false,
        },
    });
    ports.chain(uplink).collect()
}

/// The groups that `[multicast]` allows, and those by which members report.
fn allowed(config: &SwitchConfig) -> Groups {
    let (mut listed, mut others) = (Vec::new(), false);
    for net in config.multicast.groups.prefixes() {
        let is_one = net.prefix_len() == net.max_prefix_len();
        match net {
            IpNet::V4(net) if is_one => listed.push(addr::group_mac4(net.addr().to_bits())),
            IpNet::V6(net) if is_one => listed.push(addr::group_mac(net.addr().to_bits())),
            _ => others = true,
        }
    }
    if !listed.is_empty() || others {
        // Leaves of IGMPv2, reports of IGMPv3, and of MLDv2.
        listed.push(addr::group_mac4(addr::ALL_ROUTERS4));
        listed.push(addr::group_mac4(addr::ALL_IGMP_ROUTERS4));
        listed.push(addr::group_mac(addr::ALL_ROUTERS));
        listed.push(addr::group_mac(addr::ALL_MLD_ROUTERS));
    }
    Groups {
        listed: listed.into(),
        others,
    }
}

/// As MACs, in that order, without repetition.
fn list_of(
    fixed: &[u128],
    addresses: impl IntoIterator<Item = Ipv6Addr>,
    more: &[[u8; 6]],
) -> Box<[[u8; 6]]> {
    let asked = addresses
        .into_iter()
        .map(|address| addr::solicited_node(address.to_bits()));
    let mut seen = HashSet::new();
    let all = fixed.iter().copied().chain(asked).map(addr::group_mac);
    let all = all.chain(more.iter().copied());
    all.filter(|mac| seen.insert(*mac)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(addresses: &str, gateway: &str) -> SwitchConfig {
        let text = format!(
            r#"{{"tenant": "red", "vni": 5001, "gateway": {gateway},
                "ports": [
                    {{"name": "one", "device": {{"driver": "offline"}},
                      "gateway_mac": "02:00:00:00:00:01",
                      "mac": "52:54:00:00:00:01", "addresses": ["10.0.0.11/32", "fd00::11/128"]}},
                    {{"name": "two", "device": {{"driver": "offline"}},
                      "gateway_mac": "02:00:00:00:00:02",
                      "mac": "52:54:00:00:00:02", "addresses": {addresses}}}],
                "uplink": {{"device": {{"driver": "offline"}}, "mac": "02:00:00:00:00:00",
                    "ipv6": "2001:db8::2/64", "next_hops": {{"ipv6": "2001:db8::1"}}}}}}"#
        );
        SwitchConfig::from_json("test", &text).expect("it is a configuration")
    }

    #[test]
    fn groups_are_those_of_own_addresses() {
        let both = r#"{"ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64"}"#;
        let groups = of(&config(r#"["10.0.0.12/32", "fd00::ab:cdef/128"]"#, both));
        let these = |list: &[[u8; 6]]| Groups {
            listed: list.into(),
            others: false,
        };
        let port = |own: u8| {
            these(
                &[
                    [0x33, 0x33, 0, 0, 0, 1],
                    [0x33, 0x33, 0, 0, 0, 2],
                    [0x33, 0x33, 0, 1, 0, 2],
                    [0x33, 0x33, 0xff, 0, 0, 1],
                    [0x33, 0x33, 0xff, 0, 0, 0x11],
                    [0x33, 0x33, 0xff, 0xab, 0xcd, 0xef],
                ]
                .into_iter()
                .chain((own != 1).then_some([0x33, 0x33, 0xff, 0, 0, own]))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>(),
            )
        };
        let uplink = these(&[
            [0x33, 0x33, 0, 0, 0, 1],
            [0x33, 0x33, 0xff, 0, 0, 0],
            [0x33, 0x33, 0xff, 0, 0, 2],
        ]);
        // What nothing works without comes first.
        assert_eq!(
            groups[1].listed[3..5],
            [[0x33, 0x33, 0xff, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 2]]
        );
        let mut sorted = groups.to_vec();
        sorted
            .iter_mut()
            .for_each(|groups| groups.listed.sort_unstable());
        assert_eq!(sorted, [port(1), port(2), uplink]);
    }

    #[test]
    fn groups_include_on_link_addresses_behind_peers() {
        let both = r#"{"ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64"}"#;
        let with = |prefixes: &[&str]| {
            let mut config = config(r#"["10.0.0.12/32"]"#, both);
            let tunnel = serde_json::json!({
                "kind": "geneve", "vtep": "2001:db8::2", "port": 6081, "mac": "0e:00:00:00:00:01",
                "udp_checksum": true,
                "peers": [{"name": "b", "vtep": "2001:db8::66", "mac": "0e:00:00:00:00:02",
                    "next_hop": "2001:db8::66", "prefixes": prefixes}],
            });
            config.tunnel = serde_json::from_value(tunnel).expect("it is a tunnel");
            of(&config)[0].clone()
        };
        let asked = |groups: &Groups, group| groups.listed.contains(&group);
        let group = [0x33, 0x33, 0xff, 0, 0, 0x71];
        assert!(!asked(&with(&["10.0.0.71/32", "fd01::71/128"]), group));
        assert!(asked(&with(&["fd00::71/128"]), group));
        assert!(!with(&["fd00::71/128"]).others);
        // Groups that cannot be listed set `others`; the gateway is
        // never lost.
        for prefix in ["fd00::70/124", "fd00::/64"] {
            let groups = with(&[prefix]);
            assert!(
                groups.others && asked(&groups, [0x33, 0x33, 0xff, 0, 0, 1]),
                "{prefix}"
            );
        }
    }

    #[test]
    fn prefix_sets_others_and_no_ipv6_lists_no_group() {
        let both = r#"{"ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64"}"#;
        let groups = of(&config(r#"["10.0.0.12/32", "fd00:0:0:0:8000::/65"]"#, both));
        assert!(groups[..2].iter().all(|groups| groups.others));
        assert!(!groups[2].others);
        let mut without = config(r#"["10.0.0.12/32"]"#, both);
        without.gateway.ipv6 = None;
        assert_eq!(of(&without)[..2], [Groups::default(), Groups::default()]);
    }

    #[test]
    fn more_groups_than_a_nic_lists_set_others() {
        let both = r#"{"ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64"}"#;
        // The other port has one address.
        for (count, others) in [(LISTED_MAX - 1, false), (LISTED_MAX, true)] {
            let addresses = (0..count).map(|at| format!("fd00::1:{at:x}/128"));
            let addresses: Vec<_> = addresses.collect();
            let addresses = serde_json::json!(addresses).to_string();
            assert_eq!(of(&config(&addresses, both))[0].others, others, "{count}");
        }
    }

    #[test]
    fn tables_have_groups_and_names_of_their_configuration() {
        let both = r#"{"ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64"}"#;
        let config = config(r#"["10.0.0.12/32"]"#, both);
        let generation = crate::Generation::build(&config, None);
        assert_eq!(*generation.tables().groups(), *of(&config));
        assert_eq!(generation.tables().names(), ["one", "two", "uplink"]);
    }
}
