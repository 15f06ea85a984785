//! The files that operators start from.

use std::path::Path;

use tenant_config::{Device, MacAddr, Tenant, TunnelDscp, TunnelTtl, load_all};

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn the_examples_are_valid_together() {
    let tenants = load_all(&[examples()]).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = tenants
        .iter()
        .map(|tenant| tenant.name().as_str())
        .collect();
    assert_eq!(names, ["blue", "red"]);
}

#[test]
fn red_is_what_its_file_says() {
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
    assert_eq!((uplink.allow, uplink.mtu), (vec![], 1500));
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
            port("red-vm1", "52:54:00:aa:00:01", "02:00:13:89:00:01"),
            port("red-vm2", "52:54:00:aa:00:02", "02:00:13:89:00:02"),
        ]
    );
}

#[test]
fn the_tunnels_page_shows_a_tunnel_of_red() {
    let red = std::fs::read_to_string(examples().join("red.toml")).expect("the example is there");
    let page = include_str!("../../docs/tunnel.md");
    let (_, rest) = page.split_once("```toml\n").expect("a block of TOML");
    let (text, _) = rest.split_once("```").expect("the block's end");
    let text = format!("{red}\n{text}");
    let red = Tenant::parse("tunnel.md", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let tunnel = red.tunnel().expect("it has one");
    let shown = red.offline_config().tunnel.expect("it has one");
    // Where the page says what a default is, that is one.
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
fn the_reference_begins_with_a_valid_file() {
    let reference = include_str!("../../docs/tenant-file.md");
    let (_, rest) = reference.split_once("```toml\n").expect("a block of TOML");
    let (text, _) = rest.split_once("```").expect("the block's end");
    let tenant = Tenant::parse("tenant-file.md", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(tenant.ports()[0].limits.broadcast_pps, Some(100));
}
