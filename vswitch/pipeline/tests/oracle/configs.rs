//! The switches that the frames are tried on.

use std::net::IpAddr;

use serde_json::{Value, json};
use tenant_config::{
    Addresses, Addresses6, Encapsulation, Inherit, IpsecConfig, IpsecSuite, Ipv6Autoconf, Ipv6Use,
    Protection, SwitchConfig, TagId, TunnelDscp, TunnelKind, TunnelTtl,
};

/// Each with the name that failures are reported under.
pub(crate) fn all() -> Vec<(&'static str, SwitchConfig)> {
    vec![
        ("three", three()),
        ("routed", routed()),
        ("sharing", sharing()),
        ("plain-old", plain_old()),
        ("trunk", trunk()),
        ("lone", lone()),
        ("inside", inside()),
        ("ipv4", ipv4()),
        ("ipv6", ipv6()),
        ("limited", limited()),
        ("served", served()),
        ("slaac", slaac()),
        ("named", named()),
        ("asking", asking()),
        ("cutting", cutting()),
        ("grouped", grouped()),
        ("any", any()),
        ("linked", linked()),
        ("clouds", clouds()),
    ]
}

/// What most rows are shown on. `vm1` is an ordinary VM; `vm2` has prefixes, further MACs and may
/// not encapsulate; `vm3` serves DHCP and takes only small packets. There is an uplink with a hole
/// in the underlay.
pub(crate) fn three() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] })),
            port("vm2", 2, json!({
                "addresses": ["10.0.0.12/32", "10.0.0.64/28", "172.16.0.0/16", "fd00:0:0:1::12/128",
                    "fd00:0:0:2::/112"],
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

/// [`three`] whose IPv6 router is known by its link-local address.
pub(crate) fn linked() -> SwitchConfig {
    let mut config = three();
    let uplink = config.uplink.as_mut().expect("an uplink");
    uplink.next_hops.ipv6 = Some("fe80::fe".parse().expect("an address"));
    config
}

/// Some groups and broadcasts are allowed; `vm3` takes only small packets, `vm4` may use tags.
pub(crate) fn grouped() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] })),
            port("vm2", 2, json!({ "addresses": ["10.0.0.12/32", "fd00:0:0:1::12/128"] })),
            port("vm3", 3, json!({
                "addresses": ["10.0.0.13/32", "fd00:0:0:1::13/128"],
                "mtu": 1300,
            })),
            port("vm4", 4, json!({
                "addresses": ["10.0.0.14/32", "fd00:0:0:1::14/128"],
                "trunk": [100, 200],
            })),
        ],
        "uplink": uplink(json!({ "driver": "offline" })),
        "multicast": {
            "groups": ["224.0.0.18/32", "239.192.0.0/16", "ff02::12/128", "ff05::/16"],
            "broadcast": "allow",
        },
    }))
}

/// As [`grouped`], with all groups, no broadcast, and two DHCP servers.
pub(crate) fn any() -> SwitchConfig {
    let mut config = grouped();
    config.multicast = serde_json::from_value(json!({ "groups": "any" })).expect("groups");
    config.ports[1].dhcp_server = true;
    config.ports[2].dhcp_server = true;
    config
}

/// `vm1` may use tags, `vm2` may announce itself by RARP, `vm3` has learned nothing yet. The
/// uplink's device does not filter MACs. No port serves DHCP.
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

/// `vm2` serves DHCP to `vm3`, which has what it learns: for tests of a sequence of messages.
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

/// Three ports learn from two servers, `vm2` and `vm3`; `vm6` may use tags.
pub(crate) fn learners() -> SwitchConfig {
    let learner = json!({ "addresses": "learn-dhcp" });
    let tagged = json!({ "addresses": "learn-dhcp", "trunk": [100, 200] });
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32"] })),
            port("vm2", 2, json!({ "addresses": ["10.0.0.12/32"], "dhcp_server": true })),
            port("vm3", 3, json!({ "addresses": ["10.0.0.16/32"], "dhcp_server": true })),
            port("vm4", 4, learner.clone()),
            port("vm5", 5, learner),
            port("vm6", 6, tagged),
        ],
    }))
}

/// VMs form IPv6 addresses: `vm1` and `vm2`, which has further ones, may use them, `vm3` may not.
pub(crate) fn slaac() -> SwitchConfig {
    let mut config = three();
    config.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
    config.ports[0].addresses6 = Some(Addresses6::LearnNd);
    config.ports[1].addresses6 = Some(Addresses6::LearnNd);
    config.ports[0].addresses = Addresses::Static(vec!["10.0.0.11/32".parse().expect("a net")]);
    config.ports[2].dhcp_server = false;
    config
}

/// One port and nothing beyond.
pub(crate) fn lone() -> SwitchConfig {
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] }))],
    }))
}

/// [`three`], where prefixes are behind two of the VMs.
pub(crate) fn routed() -> SwitchConfig {
    let mut config = three();
    let net = |text: &str| text.parse().expect("a prefix");
    config.ports[0].routes = vec![net("10.244.1.0/24"), net("fd00:244:1::/64")];
    config.ports[2].routes = vec![net("10.244.3.7/32"), net("fd00:244:3::/48")];
    config
}

/// [`three`], where ports hold addresses in turn: one of each family `vm1` and `vm2`, by VRRP's MAC
/// as well, and another `vm2` and `vm3`.
pub(crate) fn sharing() -> SwitchConfig {
    let mut config = three();
    let of = |texts: &[&str]| {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.collect::<Vec<IpAddr>>()
    };
    config.ports[0].shared = of(&["10.0.0.100", "fd00:0:0:1::100"]);
    config.ports[1].shared = of(&["fd00:0:0:1::100", "10.0.0.101", "10.0.0.100"]);
    config.ports[2].shared = of(&["10.0.0.101"]);
    // VRRP's, of both families.
    let macs = ["00:00:5e:00:01:07", "00:00:5e:00:02:07"];
    for port in &mut config.ports[..2] {
        port.extra_macs = macs.map(|mac| mac.parse().expect("a MAC")).into();
    }
    config
}

/// [`trunk`], where one VM may use priority tags, and another no IPv6.
pub(crate) fn plain_old() -> SwitchConfig {
    let mut config = trunk();
    config.ports[0].trunk.push(TagId::new(0).expect("a tag"));
    config.ports[1].ipv6 = Ipv6Use::Deny;
    if let Addresses::Static(addresses) = &mut config.ports[1].addresses {
        addresses.retain(|net| net.addr().is_ipv4());
    }
    config
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
        multicast_pps: None,
        broadcast_pps: Some(4),
        arp_nd_pps: Some(2),
        dhcp_pps: Some(2),
        pps: Some(8),
        bps: Some(20_000),
    };
    config
}

/// [`three`], whose gateway answers for the ports' names.
pub(crate) fn named() -> SwitchConfig {
    let mut config = three();
    config.gateway.dns.enabled = true;
    config
}

/// [`named`], whose gateway asks resolvers for other names: one on the link, one behind the router,
/// one by IPv6. `vm2` may use tags.
pub(crate) fn asking() -> SwitchConfig {
    let mut config = named();
    let resolvers = ["192.0.2.53", "203.0.113.53", "2001:db8::53"];
    config.gateway.dns.forward = resolvers.map(|it| it.parse().expect("an address")).into();
    config.ports[1].trunk.push(TagId::new(100).expect("a tag"));
    config
}

/// [`three`], whose uplink takes only small packets, and fragments what is larger and has no DF.
/// `vm1` sends packets of 9,216 bytes.
pub(crate) fn cutting() -> SwitchConfig {
    let mut config = three();
    config.ports[0].mtu = 9216;
    let uplink = config.uplink.as_mut().expect("an uplink");
    uplink.mtu = 1400;
    uplink.fragment = true;
    config
}

/// [`narrow`] with the same.
pub(crate) fn cutting_tunnel() -> SwitchConfig {
    let mut config = narrow();
    config.ports[0].mtu = 9216;
    config.uplink.as_mut().expect("an uplink").fragment = true;
    config
}

/// The gateway serves DHCP and DHCPv6 with everything it can tell. `vm1` has a host name, `vm2` the
/// smallest MTU, tags and a prefix before its address, `vm3` no IPv4 address, `vm4` nothing of its
/// own.
pub(crate) fn served() -> SwitchConfig {
    switch(json!({
        "gateway": {
            "ipv4": "10.0.0.1/24",
            "ipv6": "fd00:0:0:1::1/64",
            "dhcp": {
                "dns": ["10.0.0.53", "fd00:0:0:1::53", "192.0.2.200", "2001:db8::53"],
                "domain": "red.example",
                "search": ["red.example", "a-longer-name.of-another-domain.example"],
                "ntp": ["fd00:0:0:1::54", "10.0.0.54", "2001:db8::54"],
                "routes": [
                    { "to": "172.16.0.0/12", "via": "10.0.0.11" },
                    { "to": "198.51.100.7/32", "via": "10.0.0.12" },
                ],
                "lease_s": 601,
                "tftp_server": "10.0.0.69",
                "boot_file": "lpxelinux.0",
                "ipxe_boot_file": format!("http://10.0.0.69/{}", "x".repeat(110)),
            },
        },
        "ports": [
            port("vm1", 1, json!({
                "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"],
                "hostname": "web-1",
            })),
            port("vm2", 2, json!({
                "addresses": ["fd00:0:0:1::12/128", "10.0.0.64/28", "10.0.0.12/32"],
                "trunk": [100],
                "mtu": 1280,
            })),
            port("vm3", 3, json!({ "addresses": ["fd00:0:0:1::13/128"] })),
            port("vm4", 4, json!({ "addresses": "learn-dhcp" })),
        ],
        "uplink": uplink(json!({ "driver": "offline" })),
    }))
}

/// Metadata is served to `vm1`; to `vm3`, which may use tags and takes only small packets; and to
/// `vm4`, which takes large ones.
pub(crate) fn clouds() -> SwitchConfig {
    let metadata = |name: &str| json!({ "instance_id": format!("i-{name}"), "hostname": name });
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({
                "addresses": ["10.0.0.11/32", "10.0.0.64/28", "fd00:0:0:1::11/128"],
                "metadata": metadata("vm1"),
            })),
            port("vm2", 2, json!({ "addresses": ["10.0.0.12/32", "fd00:0:0:1::12/128"] })),
            port("vm3", 3, json!({
                "addresses": ["10.0.0.13/32", "fd00:0:0:1::13/128"],
                "trunk": [100],
                "mtu": 1280,
                "metadata": metadata("vm3"),
            })),
            port("vm4", 4, json!({
                "addresses": ["10.0.0.14/32"],
                "mtu": 2000,
                "metadata": metadata("vm4"),
            })),
        ],
        "uplink": uplink(json!({ "driver": "offline" })),
    }))
}

/// The tenants with tunnels, each with the name that failures are reported under.
pub(crate) fn tunnels() -> Vec<(&'static str, SwitchConfig)> {
    vec![
        ("geneve", geneve()),
        ("vxlan", vxlan()),
        ("geneve6", geneve6()),
        ("vxlan6", vxlan6()),
        ("only", only()),
        ("narrow", narrow()),
        ("cutting", cutting_tunnel()),
    ]
}

/// What most of the tunnel's rows are shown on: Geneve over IPv4 with every default, on an underlay
/// that leaves 1,500 bytes. `vm2` has a prefix within one of host B's, a tag and a small MTU. Host
/// B is on our link; behind the VTEP of C are two peers, off-link, each with a MAC of its own.
pub(crate) fn geneve() -> SwitchConfig {
    with_sources(
        tunnel_switch(
            json!({ "ipv4": "192.0.2.2/24", "ipv6": "2001:db8::2/64", "mtu": 1550 }),
            json!({
                "kind": "geneve",
                "vtep": "192.0.2.2",
                "port": 6081,
                "udp_checksum": false,
                "peers": [
                    peer("host-b", "192.0.2.66", "192.0.2.66", 0x66, json!([
                        "10.0.0.71/32", "10.0.0.72/32", "10.0.8.0/24", "172.16.0.0/12",
                            "fd00:0:0:1::71/128", "fd00:0:0:8::/64",
                    ])),
                    peer("host-c1", "203.0.113.9", "192.0.2.254", 0x81, json!([
                        "10.0.0.81/32", "10.0.16.0/20", "fd00:0:0:1::81/128",
                    ])),
                    peer("host-c2", "203.0.113.9", "192.0.2.254", 0x82,
                        json!(["10.0.0.82/32", "fd00:0:0:1::82/128"])),
                ],
            }),
        ),
        B_SOURCES,
    )
}

/// [`geneve`] with two paths that carry less than the uplink: one leaves 1,400 bytes, the other
/// 1,280.
pub(crate) fn uneven() -> SwitchConfig {
    let mut config = geneve();
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    for (peer, mtu) in tunnel.peers.iter_mut().zip([1450, 1330, 1330]) {
        peer.mtu = Some(mtu);
    }
    config
}

/// Where packets of host B also come from: on our link and off it.
const B_SOURCES: [&str; 2] = ["192.0.2.67", "203.0.113.67"];
const B_SOURCES6: [&str; 2] = ["2001:db8::67", "2001:db8:c::67"];

/// `config` in which packets of the first peer also come from these addresses.
fn with_sources(mut config: SwitchConfig, sources: [&str; 2]) -> SwitchConfig {
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    let sources = sources.map(|source| source.parse().expect("an address"));
    tunnel.peers[0].sources = sources.to_vec();
    config
}

/// Tenants with tunnels that allow some groups and broadcasts.
pub(crate) fn grouped_tunnels() -> Vec<(&'static str, SwitchConfig)> {
    vec![
        ("grouped-geneve", grouped_tunnel(geneve())),
        ("grouped-vxlan6", grouped_tunnel(vxlan6())),
        ("grouped-only", grouped_tunnel(only())),
    ]
}

/// `config` in which some groups and broadcasts are allowed.
fn grouped_tunnel(mut config: SwitchConfig) -> SwitchConfig {
    config.multicast = grouped().multicast;
    config
}

/// VXLAN over IPv4 with checksums, the inner TTL, a fixed DSCP and a lowered MSS, on an ordinary
/// underlay.
pub(crate) fn vxlan() -> SwitchConfig {
    let mut config = geneve();
    config.uplink.as_mut().expect("an uplink").mtu = 1500;
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    tunnel.kind = TunnelKind::Vxlan;
    tunnel.port = 4789;
    tunnel.udp_checksum = true;
    tunnel.ttl = TunnelTtl::Inherit(Inherit::Inherit);
    tunnel.dscp = TunnelDscp::Fixed(46);
    tunnel.mss_clamp = true;
    config
}

/// Geneve over IPv6 at a port of its own; the VMs may have tunnels of theirs.
pub(crate) fn geneve6() -> SwitchConfig {
    with_sources(
        tunnel_switch(
            json!({ "ipv4": "192.0.2.2/24", "ipv6": "2001:db8::2/64", "mtu": 1570 }),
            json!({
                "kind": "geneve",
                "vtep": "2001:db8::2",
                "port": 16081,
                "udp_checksum": true,
                "nested": "allow",
                "peers": [
                    peer("host-b", "2001:db8::66", "2001:db8::66", 0x66, json!([
                        "10.0.0.71/32", "10.0.8.0/24", "172.16.0.0/12", "fd00:0:0:1::71/128",
                    ])),
                    peer("host-c1", "2001:db8:c::9", "2001:db8::fe", 0x81,
                        json!(["10.0.0.81/32", "fd00:0:0:1::81/128"])),
                    peer("host-c2", "2001:db8:c::9", "2001:db8::fe", 0x82,
                        json!(["10.0.0.82/32", "fd00:0:0:1::82/128"])),
                ],
            }),
        ),
        B_SOURCES6,
    )
}

/// VXLAN over IPv6 without checksums, on an underlay that leaves 1,280 bytes, with a link-local
/// router.
pub(crate) fn vxlan6() -> SwitchConfig {
    let mut config = geneve6();
    config.uplink.as_mut().expect("an uplink").mtu = 1350;
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    for peer in &mut tunnel.peers[1..] {
        peer.next_hop = "fe80::fe".parse().expect("an address");
    }
    tunnel.kind = TunnelKind::Vxlan;
    tunnel.port = 4789;
    tunnel.udp_checksum = false;
    tunnel.nested = Encapsulation::Deny;
    tunnel.ttl = TunnelTtl::Fixed(1);
    tunnel.mss_clamp = true;
    config
}

/// VXLAN, and the whole world is behind the tunnel; the underlay has the same world in plain.
pub(crate) fn only() -> SwitchConfig {
    tunnel_switch(
        json!({ "ipv4": "192.0.2.2/24", "ipv6": "2001:db8::2/64", "mtu": 1550,
            "allow": ["192.0.2.128/25"] }),
        json!({
            "kind": "vxlan",
            "vtep": "192.0.2.2",
            "port": 4789,
            "udp_checksum": false,
            "only": true,
            "peers": [
                peer("exit", "203.0.113.9", "192.0.2.254", 0x81, json!(["0.0.0.0/0", "::/0"])),
                peer("host-b", "192.0.2.66", "192.0.2.66", 0x66, json!([
                    "10.0.0.71/32", "198.51.100.0/24", "fd00:0:0:1::71/128",
                ])),
            ],
        }),
    )
}

/// Geneve that leaves 576 bytes, for a tenant without IPv6; the device does not filter MACs, and
/// the gateway's subnet is behind a peer but for what the ports have.
pub(crate) fn narrow() -> SwitchConfig {
    let mut config = tunnel_switch(
        json!({ "ipv4": "192.0.2.2/24", "mtu": 626,
            "device": { "driver": "af_packet", "interface": "up0" } }),
        json!({
            "kind": "geneve",
            "vtep": "192.0.2.2",
            "port": 6081,
            "udp_checksum": true,
            "mss_clamp": true,
            "peers": [peer("host-b", "192.0.2.66", "192.0.2.66", 0x66,
                json!(["10.0.0.0/24", "172.16.0.0/16"]))],
        }),
    );
    config.gateway.ipv6 = None;
    for port in &mut config.ports {
        if let Addresses::Static(addresses) = &mut port.addresses {
            addresses.retain(|net| net.addr().is_ipv4());
        }
    }
    config
}

/// The tenants whose tunnels have IPsec, each with the name that failures are reported under.
pub(crate) fn protected() -> Vec<(&'static str, SwitchConfig)> {
    vec![
        ("sealed", sealed()),
        ("sealed6", sealed6()),
        ("sealed-vxlan", sealed_vxlan()),
    ]
}

/// [`geneve`], where host B requires IPsec with any suite, and C does not.
pub(crate) fn sealed() -> SwitchConfig {
    protect(geneve(), &["host-b"])
}

/// [`vxlan6`] on an underlay that leaves enough, where all peers require IPsec.
pub(crate) fn sealed6() -> SwitchConfig {
    let mut config = protect(vxlan6(), &["host-b", "host-c1", "host-c2"]);
    config.uplink.as_mut().expect("an uplink").mtu = 1450;
    config
}

/// [`vxlan`], where both peers behind the VTEP of C require IPsec, and B does not.
pub(crate) fn sealed_vxlan() -> SwitchConfig {
    protect(vxlan(), &["host-c1", "host-c2"])
}

/// `config`, where these peers require IPsec. The replay window is the smallest.
fn protect(mut config: SwitchConfig, names: &[&str]) -> SwitchConfig {
    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    for peer in &mut tunnel.peers {
        peer.sources.clear();
    }

    let tunnel = config.tunnel.as_mut().expect("a tunnel");
    tunnel.ipsec = Some(IpsecConfig {
        suites: vec![
            IpsecSuite::Aes128Gcm16,
            IpsecSuite::Aes256Gcm16,
            IpsecSuite::ChaCha20Poly1305,
            IpsecSuite::Aes256Sha256,
        ],
        esn: true,
        replay_window: 64,
    });
    for peer in &mut tunnel.peers {
        if names.contains(&peer.name.as_str()) {
            peer.ipsec = Protection::Required;
        }
    }
    config
}

fn tunnel_switch(mut link: Value, mut tunnel: Value) -> SwitchConfig {
    let missing = |key: &str| link.get(key).is_none();
    let (no_device, has_ipv6) = (missing("device"), !missing("ipv6"));
    if no_device {
        link["device"] = json!({ "driver": "offline" });
    }
    link["mac"] = "02:00:13:89:00:00".into();
    link["next_hops"] = json!({ "ipv4": "192.0.2.1" });
    if has_ipv6 {
        link["next_hops"]["ipv6"] = "2001:db8::1".into();
    }
    tunnel["mac"] = "0e:00:00:00:00:02".into();
    switch(json!({
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [
            port("vm1", 1, json!({ "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"] })),
            port("vm2", 2, json!({
                "addresses": ["10.0.0.12/32", "172.16.0.0/24", "fd00:0:0:1::12/128"],
                "trunk": [100],
                "mtu": 1300,
            })),
        ],
        "uplink": link,
        "tunnel": tunnel,
    }))
}

/// A peer whose MAC ends in `number`.
fn peer(name: &str, vtep: &str, next_hop: &str, number: u8, prefixes: Value) -> Value {
    json!({
        "name": name,
        "vtep": vtep,
        "next_hop": next_hop,
        "mac": format!("0e:00:00:00:00:{number:02x}"),
        "prefixes": prefixes,
    })
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
