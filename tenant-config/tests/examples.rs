//! The files that operators start from.

use std::path::Path;

use tenant_config::{
    Addresses, Device, MacAddr, Protection, SwitchConfig, Tenant, TunnelDscp, TunnelTtl, load_all,
};

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn examples_valid_together() {
    let tenants = load_all(&[examples()]).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = tenants
        .iter()
        .map(|tenant| tenant.name().as_str())
        .collect();
    assert_eq!(names, ["blue", "red"]);
}

#[test]
fn guests_example_is_valid_beside_the_others() {
    let files = [examples(), examples().join("guests")];
    let tenants = load_all(&files).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(tenants.len(), 3);
}

/// The parts of a tenant that are the same on all its hosts.
fn shared(config: &SwitchConfig) -> impl PartialEq + std::fmt::Debug {
    let tunnel = config.tunnel.as_ref().expect("it has a tunnel");
    let (ipv4, ipv6) = (config.gateway.ipv4, config.gateway.ipv6);
    (
        (config.tenant.clone(), config.vni),
        (ipv4, ipv6),
        (tunnel.kind, tunnel.port),
    )
}

#[test]
fn host_b_examples_are_the_other_ends() {
    let host = |directory| load_all(&[directory]).unwrap_or_else(|errors| panic!("{errors}"));
    let (host_a, host_b) = (host(examples()), host(examples().join("host-b")));
    assert_eq!((host_a.len(), host_b.len()), (2, 2));
    for (a, b) in host_a.iter().zip(&host_b) {
        let (a, b) = (a.offline_config(), b.offline_config());
        assert_eq!(shared(&a), shared(&b));
        for (here, there, name) in [(&a, &b, "host-b"), (&b, &a, "host-a")] {
            let peers = &here.tunnel.as_ref().expect("it has a tunnel").peers;
            let mut peers = peers.iter().filter(|peer| peer.name.as_str() == name);
            let peer = peers.next().expect("it lists the other");
            let end = there.tunnel.as_ref().expect("it has a tunnel");
            let addresses = there.ports.iter().flat_map(|port| match &port.addresses {
                Addresses::Static(addresses) => addresses.clone(),
                Addresses::Learned(_) => Vec::new(),
            });
            let (mut addresses, mut prefixes) =
                (addresses.collect::<Vec<_>>(), peer.prefixes.clone());
            addresses.sort();
            prefixes.sort();
            assert_eq!(
                (peer.vtep, peer.mac, prefixes),
                (end.vtep, end.mac, addresses)
            );
        }
    }
}

#[test]
fn examples_with_ipsec_differ_from_the_plain_ones_by_it_alone() {
    for host in [examples(), examples().join("host-b")] {
        let inside = host.strip_prefix(examples()).expect("it is below");
        let protected = examples().join("ipsec").join(inside);
        let load = |folder: &Path| {
            let tenant = Tenant::load(&folder.join("red.toml"));
            tenant.unwrap_or_else(|errors| panic!("{errors}"))
        };
        let (plain, protected) = (load(&host), load(&protected));
        let (ike, none) = (protected.ike_config(), plain.ike_config());
        let ike = ike.expect("it has an IKE daemon");
        let peers: Vec<_> = ike.peers.iter().map(|peer| peer.name.as_str()).collect();
        let other = if host.ends_with("host-b") {
            "host-a"
        } else {
            "host-b"
        };
        assert_eq!((peers, none), (vec![other], None));
        let mut config = protected.offline_config();
        let tunnel = config.tunnel.as_mut().expect("it has a tunnel");
        assert!(tunnel.ipsec.take().is_some());
        for peer in &mut tunnel.peers {
            peer.ipsec = Protection::default();
        }
        assert_eq!(config, plain.offline_config());
    }
}

#[test]
fn red_switch_config_matches_its_file() {
    let red =
        Tenant::load(&examples().join("red.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let config = red.offline_config();
    let uplink = config.uplink.expect("red has an uplink");
    assert_eq!(config.tenant.as_str(), "red");
    assert_eq!(config.vni.get(), 5001);
    assert_eq!(config.gateway.ipv4.unwrap().to_string(), "10.0.0.1/24");
    assert_eq!(config.gateway.ipv6.unwrap().to_string(), "fd00:0:0:1::1/64");
    assert_eq!(uplink.device, Device::Offline);
    assert_eq!(
        uplink.mac,
        MacAddr::of_uplink(red.vni(), "192.0.2.2".parse().expect("an address"))
    );
    assert_eq!(uplink.ipv4.unwrap().to_string(), "192.0.2.2/24");
    assert_eq!(uplink.ipv6.unwrap().to_string(), "2001:db8::2/64");
    assert_eq!(uplink.next_hops.ipv4.unwrap().to_string(), "192.0.2.1");
    assert_eq!(uplink.next_hops.ipv6.unwrap().to_string(), "2001:db8::1");
    assert_eq!((uplink.allow, uplink.mtu), (vec![], 1600));
    let ports: Vec<_> = config
        .ports
        .iter()
        .map(|port| {
            (
                port.name.to_string(),
                port.mac.to_string(),
                port.gateway_mac.to_string(),
            )
        })
        .collect();
    let port = |name: &str, mac: &str, gateway: &str| (name.into(), mac.into(), gateway.into());
    assert_eq!(
        ports,
        [
            port("red-vm1", "52:54:00:aa:00:01", "06:f6:9e:f9:5f:6e"),
            port("red-vm2", "52:54:00:aa:00:02", "06:16:7c:b5:9c:9b"),
        ]
    );
}

#[test]
fn tunnel_page_shows_tunnel_of_red() {
    let red = std::fs::read_to_string(examples().join("red.toml")).expect("the example is there");
    let page = include_str!("../../docs/reference/tunnel.md");
    let (_, rest) = page.split_once("```toml\n").expect("a block of TOML");
    let (text, _) = rest.split_once("```").expect("the block's end");
    let (above, tunnel) = red.split_once("\n[tunnel]\n").expect("red has a tunnel");
    let (_, ports) = tunnel.split_once("\n[[port]]\n").expect("and ports");
    let text = format!("{above}\n[[port]]\n{ports}\n{text}");
    let red = Tenant::parse("tunnel.md", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let tunnel = red.tunnel().expect("it has one");
    let shown = red.offline_config().tunnel.expect("it has one");
    // The page shows some keys with their defaults.
    assert_eq!(
        (tunnel.vtep, tunnel.port),
        (Some(shown.vtep), Some(shown.kind.default_port()))
    );
    assert_eq!(
        (shown.ttl, shown.dscp),
        (TunnelTtl::default(), TunnelDscp::default())
    );
    let peer = &shown.peers[0];
    assert_eq!(peer.mac, MacAddr::of_vtep(red.vni(), peer.vtep));
}

#[test]
fn reference_begins_with_valid_file() {
    let reference = include_str!("../../docs/reference/tenant-file.md");
    let (_, rest) = reference.split_once("```toml\n").expect("a block of TOML");
    let (text, _) = rest.split_once("```").expect("the block's end");
    let tenant = Tenant::parse("tenant-file.md", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(tenant.ports()[0].limits.broadcast_pps, Some(100));
}
