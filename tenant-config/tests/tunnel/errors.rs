//! Every kind of error of the tunnel, one change of a valid file each, with its whole text.

use tenant_config::{MAX_PEERS, MAX_PREFIXES};

use super::{BLUE, GREEN, UPLINK, green_with, refusal, tenant, tunnel};

/// Tests that replace a part of [`GREEN`] that is there exactly once.
macro_rules! refused {
    ($($test:ident: $part:expr => $with:expr, [$($error:expr),* $(,)?];)*) => {$(
        #[test]
        fn $test() {
            assert_eq!(refusal(&green_with($part, $with)), [$($error),*] as [&str; _]);
        }
    )*};
}

refused! {
    // The section's shape.
    kind_missing: "kind = \"geneve\"" => "",
        ["missing-key green.toml:12:1: tunnel.kind: missing; write the encapsulation, kind = \
          \"geneve\" or kind = \"vxlan\""];
    kind_unknown: "geneve" => "gre",
        [r#"invalid green.toml:13:8: tunnel.kind: "gre" is not "geneve" or "vxlan""#];
    unknown_key: "[tunnel]" => "[tunnel]\nvni = 5",
        ["unknown-key green.toml:13:1: tunnel.vni: no such key; the keys here are kind, vtep, \
          port, ttl, dscp, udp_checksum, mss_clamp, only, nested, ipsec, peer"];
    unknown_peer_key: "name = \"host-b\"" => "name = \"host-b\"\nprefix = []",
        ["unknown-key green.toml:17:1: tunnel.peer[0].prefix: no such key; did you mean \
          `prefixes`?"];
    empty_peer: "name = \"host-b\"\nvtep = \"192.0.2.66\"\nprefixes = [\"10.9.0.71\", \
                    \"fd00:9::71\", \"10.9.8.0/24\"]"
        => "",
        [
            "missing-key green.toml:15:1: tunnel.peer[0].name: missing; write the peer's name, as \
             in name = \"host-b\"",
            "missing-key green.toml:15:1: tunnel.peer[0].vtep: missing; write the peer's tunnel \
             endpoint, as in vtep = \"192.0.2.66\"",
            "missing-key green.toml:15:1: tunnel.peer[0].prefixes: missing; write the addresses \
             and prefixes behind the peer, as in prefixes = [\"10.0.0.71\", \"10.0.8.0/24\"]",
        ];
    invalid_values: "kind = \"geneve\""
        => "kind = 1\nvtep = \"192.0.2\"\nport = \"6081\"\nttl = \"inherits\"\ndscp = \
            true\nudp_checksum = 0\nnested = false\nmss_clamp = 1\nonly = \"no\"",
        [
            "wrong-type green.toml:13:8: tunnel.kind: this is the integer 1, but the key takes a \
             text in quotes",
            "invalid green.toml:14:8: tunnel.vtep: \"192.0.2\" is not an IP address, as in \
             192.0.2.1",
            "wrong-type green.toml:15:8: tunnel.port: this is the text \"6081\", but the key takes \
             an integer",
            "invalid green.toml:16:7: tunnel.ttl: \"inherits\" is not an integer from 1 to 255, or \
             \"inherit\"",
            "wrong-type green.toml:17:8: tunnel.dscp: this is true, but the key takes an integer",
            "wrong-type green.toml:18:16: tunnel.udp_checksum: this is the integer 0, but the key \
             takes true or false",
            "wrong-type green.toml:19:10: tunnel.nested: this is false, but the key takes a text \
             in quotes",
            "wrong-type green.toml:20:13: tunnel.mss_clamp: this is the integer 1, but the key \
             takes true or false",
            "wrong-type green.toml:21:8: tunnel.only: this is the text \"no\", but the key takes \
             true or false",
        ];
    invalid_peer_values: "vtep = \"192.0.2.66\""
        => "vtep = \"host-b\"\nmac = \"ff:ff:ff:ff:ff:ff\"\nnext_hop = \"router\"",
        [
            "invalid green.toml:17:8: tunnel.peer[0].vtep: \"host-b\" is not an IP address, as in \
             192.0.2.1",
            "invalid green.toml:18:7: tunnel.peer[0].mac: \"ff:ff:ff:ff:ff:ff\" is not a unicast \
             MAC address of six hexadecimal bytes, as in 52:54:00:aa:00:01",
            "invalid green.toml:19:12: tunnel.peer[0].next_hop: \"router\" is not an IP address, \
             as in 192.0.2.1",
        ];
    resolvers_at_peers: "[uplink]" => "[gateway.dns]\nenabled = true\n\
        forward = [\"192.0.2.66\", \"10.9.8.53\"]\n\n[uplink]",
        [
            "resolver-address green.toml:10:12: gateway.dns.forward[0]: 192.0.2.66 is a peer's \
             tunnel endpoint (tunnel.peer[0].vtep); a resolver is a station of the underlay or \
             beyond it",
            "resolver-address green.toml:10:26: gateway.dns.forward[1]: 10.9.8.53 is behind a peer \
             (tunnel.peer[0].prefixes[2]); a resolver is a station of the underlay or beyond it",
        ];
    resolvers_beside_only: "[tunnel]" => "[gateway.dns]\nenabled = true\n\
        forward = [\"192.0.2.53\"]\n\n[tunnel]\nonly = true",
        ["forward-only green.toml:14:12: gateway.dns.forward[0]: resolvers are asked by the \
          uplink, by which the tenant reaches nothing with tunnel.only = true; leave forward out"];
    dhcp_port: "kind = \"geneve\"" => "kind = \"geneve\"\nport = 546",
        ["invalid green.toml:14:8: tunnel.port: \"546\" is not a UDP port other than DHCP's (67, \
          68, 546 and 547)"];
    numbers_out_of_range: "kind = \"geneve\""
        => "kind = \"geneve\"\nport = 0\nttl = 256\ndscp = 64",
        [
            r#"invalid green.toml:14:8: tunnel.port: "0" is not a UDP port from 1 to 65535"#,
            "invalid green.toml:15:7: tunnel.ttl: \"256\" is not an integer from 1 to 255, or \
             \"inherit\"",
            "invalid green.toml:16:8: tunnel.dscp: \"64\" is not an integer from 0 to 63, or \
             \"inherit\"",
        ];
    numbers_far_out_of_range: "kind = \"geneve\""
        => "kind = \"geneve\"\nport = 65536\nttl = 0\ndscp = -1",
        [
            r#"invalid green.toml:14:8: tunnel.port: "65536" is not a UDP port from 1 to 65535"#,
            "invalid green.toml:15:7: tunnel.ttl: \"0\" is not an integer from 1 to 255, or \
             \"inherit\"",
            "invalid green.toml:16:8: tunnel.dscp: \"-1\" is not an integer from 0 to 63, or \
             \"inherit\"",
        ];

    // Our endpoint and the underlay.
    uplink_missing: UPLINK => "",
        ["tunnel-without-uplink green.toml:9:1: tunnel: the tunnel needs an underlay; add an \
          [uplink] with the address of this host's tunnel endpoint, or leave [tunnel] out"];
    vtep_not_on_uplink: "kind = \"geneve\"" => "kind = \"geneve\"\nvtep = \"192.0.2.10\"",
        ["vtep-not-own green.toml:14:8: tunnel.vtep: 192.0.2.10 is no address of the uplink's; \
          write 192.0.2.9, or leave the key out for the first of them"];
    vtep_of_absent_family: "kind = \"geneve\""
        => "kind = \"geneve\"\nvtep = \"2001:db8::9\"",
        [
            "vtep-not-own green.toml:14:8: tunnel.vtep: 2001:db8::9 is no address of the uplink's; \
             write 192.0.2.9, or leave the key out for the first of them",
            "peer-family green.toml:18:8: tunnel.peer[0].vtep: 192.0.2.66 and our own endpoint \
             2001:db8::9 are not of one family; write the peer's address of that family, or \
             another tunnel.vtep",
            "peer-family green.toml:23:8: tunnel.peer[1].vtep: 198.51.100.7 and our own endpoint \
             2001:db8::9 are not of one family; write the peer's address of that family, or \
             another tunnel.vtep",
        ];
    unreadable_address_hides_no_other_error: "192.0.2.9/24" => "192.0.2.9",
        ["invalid green.toml:9:11: uplink.address: \"192.0.2.9\" is not an address with its prefix \
          length, as in 192.0.2.2/24"];
    mtu_leaves_too_little_for_inner_ipv6: "next_hop = \"192.0.2.1\""
        => "next_hop = \"192.0.2.1\"\nmtu = 1329",
        ["tunnel-mtu green.toml:11:7: uplink.mtu: an MTU of 1329 leaves 1279 bytes for a packet \
          within the tunnel, which adds 50; write at least 1330 (IPv6 needs 1280, RFC 8200)"];
    invalid_mtu_reported_once: "next_hop = \"192.0.2.1\""
        => "next_hop = \"192.0.2.1\"\nmtu = 575",
        ["mtu-range green.toml:11:7: uplink.mtu: 575 is no MTU here; choose one from 576 to 9216"];

    unreadable_only_adds_no_error: "next_hop = \"192.0.2.1\"\n\n[tunnel]"
        => "allow = [\"192.0.2.53\"]\n\n[tunnel]\nonly = 1",
        ["wrong-type green.toml:13:8: tunnel.only: this is the integer 1, but the key takes true \
          or false"];
    allow_without_effect: "next_hop = \"192.0.2.1\"\n\n[tunnel]"
        => "next_hop = \"192.0.2.1\"\nallow = [\"192.0.2.53\"]\n\n[tunnel]\nonly = true",
        ["allow-only green.toml:11:10: uplink.allow[0]: 192.0.2.53/32 has no effect with \
          tunnel.only = true, as the tenant reaches nothing but its peers; leave it out"];

    // Peers.
    duplicate_peer_name: "name = \"host-c\"" => "name = \"host-b\"",
        ["duplicate-peer green.toml:21:8: tunnel.peer[1].name: tunnel.peer[0].name is \"host-b\" \
          already; names of peers are unique within a tenant"];
    peer_vtep_multicast: "198.51.100.7" => "239.1.1.1",
        ["not-unicast green.toml:22:8: tunnel.peer[1].vtep: 239.1.1.1 is a multicast address; \
          write a unicast address"];
    peer_vtep_inside_gateway_subnet: "198.51.100.7" => "10.9.0.200",
        ["peer-inside green.toml:22:8: tunnel.peer[1].vtep: 10.9.0.200 is within 10.9.0.0/24 of \
          gateway.ipv4, where the VMs are; a tunnel endpoint is on the underlay"];
    peer_vtep_broadcast: "198.51.100.7" => "192.0.2.255",
        ["reserved-address green.toml:22:8: tunnel.peer[1].vtep: 192.0.2.255 is the broadcast \
          address of 192.0.2.0/24; choose another"];
    peer_vtep_of_other_family: "198.51.100.7" => "2001:db8::7",
        ["peer-family green.toml:22:8: tunnel.peer[1].vtep: 2001:db8::7 and our own endpoint \
          192.0.2.9 are not of one family; write the peer's address of that family, or another \
          tunnel.vtep"];
    peer_vtep_is_own: "198.51.100.7" => "192.0.2.9",
        ["peer-self green.toml:22:8: tunnel.peer[1].vtep: 192.0.2.9 is this switch's own tunnel \
          endpoint; write the other host's"];
    peer_mac_of_own_tunnel_side: "name = \"host-c\""
        => "name = \"host-c\"\nmac = \"0e:38:ef:10:f9:d9\"",
        ["peer-mac-self green.toml:22:7: tunnel.peer[1].mac: 0e:38:ef:10:f9:d9 is a MAC of this \
          tenant's switch; write that of what takes frames at the peer, or leave the key out if it \
          is a switch of this kind"];
    peer_mac_of_own_function: "name = \"host-c\""
        => "name = \"host-c\"\nmac = \"06:aa:17:cc:5c:f8\"",
        ["peer-mac-self green.toml:22:7: tunnel.peer[1].mac: 06:aa:17:cc:5c:f8 is a MAC of this \
          tenant's switch; write that of what takes frames at the peer, or leave the key out if it \
          is a switch of this kind"];
    sources_are_as_endpoints: "name = \"host-c\""
        => "name = \"host-c\"\nsources = [\"203.0.113.7\", \"2001:db8::7\", \"10.9.0.99\", \
            \"192.0.2.9\", \"192.0.2.255\", \"224.0.0.1\", \"192.0.2.66\", \"203.0.113.7\"]",
        [
            "peer-family green.toml:22:27: tunnel.peer[1].sources[1]: 2001:db8::7 and our own \
             endpoint 192.0.2.9 are not of one family; write the peer's address of that family, \
             or another tunnel.vtep",
            "peer-inside green.toml:22:42: tunnel.peer[1].sources[2]: 10.9.0.99 is within \
             10.9.0.0/24 of gateway.ipv4, where the VMs are; a tunnel endpoint is on the \
             underlay",
            "peer-self green.toml:22:55: tunnel.peer[1].sources[3]: 192.0.2.9 is this switch's \
             own tunnel endpoint; write the other host's",
            "reserved-address green.toml:22:68: tunnel.peer[1].sources[4]: 192.0.2.255 is the \
             broadcast address of 192.0.2.0/24; choose another",
            "not-unicast green.toml:22:83: tunnel.peer[1].sources[5]: 224.0.0.1 is a multicast \
             address; write a unicast address",
            "source-repeated green.toml:22:96: tunnel.peer[1].sources[6]: 192.0.2.66 is already \
             tunnel.peer[0].vtep; an address is of one endpoint and written once",
            "source-repeated green.toml:22:110: tunnel.peer[1].sources[7]: 203.0.113.7 is \
             already tunnel.peer[1].sources[0]; an address is of one endpoint and written once",
        ];
    too_many_sources: "name = \"host-c\""
        => &format!("name = \"host-c\"\nsources = [{}]",
            (1..=17).map(|n| format!("\"203.0.113.{n}\", ")).collect::<String>()),
        ["too-many green.toml:22:259: tunnel.peer[1].sources[16]: there are 17 of them, and a \
          switch takes at most 16; split the tenant's file or merge entries"];
    source_under_ipsec: "kind = \"geneve\"\n\n[[tunnel.peer]]\nname = \"host-b\""
        => "kind = \"geneve\"\n[tunnel.ipsec]\nmode = \"required\"\npsk = \"/etc/psk\"\n\
            [[tunnel.peer]]\nsources = [\"203.0.113.7\"]\nname = \"host-b\"",
        ["source-under-ipsec green.toml:18:12: tunnel.peer[0].sources[0]: 203.0.113.7 would \
          speak for a peer that requires IPsec, whose packets come from its vtep only; leave \
          sources out, or write ipsec = \"off\" here"];
    peer_mtu_above_the_uplinks: "name = \"host-c\"" => "name = \"host-c\"\nmtu = 1501",
        ["peer-mtu green.toml:22:7: tunnel.peer[1].mtu: an MTU of 1501 is larger than that of \
          the uplink, 1500; write at most that, or leave the key out"];
    peer_mtu_leaves_too_little: "name = \"host-c\"" => "name = \"host-c\"\nmtu = 1329",
        ["tunnel-mtu green.toml:22:7: tunnel.peer[1].mtu: an MTU of 1329 leaves 1279 bytes for a \
          packet within the tunnel, which adds 50; write at least 1330 (IPv6 needs 1280, RFC \
          8200)"];
    peer_mtu_is_none: "name = \"host-c\"" => "name = \"host-c\"\nmtu = 100",
        ["mtu-range green.toml:22:7: tunnel.peer[1].mtu: 100 is no MTU here; choose one from 576 \
          to 9216"];
    peers_of_one_vtep_with_two_mtus: "[[tunnel.peer]]\nname = \"host-c\""
        => "[[tunnel.peer]]\nname = \"host-d\"\nvtep = \"198.51.100.7\"\nmtu = 1400\n\
            prefixes = []\n[[tunnel.peer]]\nname = \"host-c\"",
        ["peer-mtus green.toml:25:1: tunnel.peer[2].mtu: tunnel.peer[1] has the endpoint \
          198.51.100.7 too, but another mtu; write the same in both"];
    peer_next_hop_off_link: "name = \"host-c\""
        => "name = \"host-c\"\nnext_hop = \"198.51.100.1\"",
        ["next-hop-outside green.toml:22:12: tunnel.peer[1].next_hop: 198.51.100.1 is outside \
          192.0.2.0/24, the subnet of uplink.address; the next hop must be on the uplink's own \
          link"];
    peer_next_hop_is_own: "name = \"host-c\"" => "name = \"host-c\"\nnext_hop = \"192.0.2.9\"",
        ["next-hop-self green.toml:22:12: tunnel.peer[1].next_hop: 192.0.2.9 is the switch's own \
          address; write the router's"];
    peer_next_hop_is_network_address: "name = \"host-c\""
        => "name = \"host-c\"\nnext_hop = \"192.0.2.0\"",
        ["reserved-address green.toml:22:12: tunnel.peer[1].next_hop: 192.0.2.0 is the network \
          address of 192.0.2.0/24; choose another"];
    whole_subnet_behind_peer_of_learning_port: "name = \"one\"\nmac = \
        \"52:54:00:cc:00:01\"\naddresses = \
                                        [\"10.9.0.11\", \"10.9.0.64/30\", \"fd00:9::11\"]"
        => "name = \"one\"\nmac = \"52:54:00:cc:00:01\"\naddresses = \
            \"learn-dhcp\"\n[[port]]\nname = \"two\"\nmac = \"52:54:00:cc:00:02\"\naddresses = \
            [\"10.9.0.2\"]\ndhcp_server = true",
        ["prefix-of-learned green.toml:23:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is the \
          gateway's whole subnet, of which port[0].addresses learns an address; write the \
          parts that are behind the peer"];
    peers_of_one_vtep_with_two_next_hops: "[[tunnel.peer]]\nname = \"host-c\""
        => "[[tunnel.peer]]\nname = \"host-d\"\nvtep = \"198.51.100.7\"\nnext_hop = \
            \"192.0.2.254\"\nprefixes = []\n[[tunnel.peer]]\nname = \"host-c\"",
        ["peer-next-hops green.toml:25:1: tunnel.peer[2].next_hop: tunnel.peer[1] has the endpoint \
          198.51.100.7 too, but another next_hop; write the same in both"];
    peer_off_link_without_router_with_only: "next_hop = \"192.0.2.1\"\n\n[tunnel]"
        => "\n[tunnel]\nonly = true",
        ["peer-unreachable green.toml:20:1: tunnel.peer[1].next_hop: 198.51.100.7 is outside \
          192.0.2.0/24, the subnet of uplink.address, and no router towards it is known; write \
          next_hop here, or the uplink's"];
    next_hop_missing_without_only: "next_hop = \"192.0.2.1\"\n\n[tunnel]" => "\n[tunnel]",
        ["missing-key green.toml:8:1: uplink.next_hop: missing; write the underlay's router, as in \
          next_hop = \"192.0.2.1\""];
    next_hop_without_address: "address = \"192.0.2.9/24\"\nnext_hop = \
                                    \"192.0.2.1\"\n\n[tunnel]"
        => "next_hop = \"192.0.2.1\"\n\n[tunnel]\nonly = true",
        ["missing-key green.toml:8:1: uplink.address: missing; write the switch's own address on \
          the underlay with its prefix length, as in address = \"192.0.2.2/24\""];

    // Prefixes.
    prefix_with_host_bits: "10.9.8.0/24" => "10.9.8.1/24",
        ["host-bits green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.8.1/24 has bits set behind \
          its prefix length; write 10.9.8.0/24 for the prefix, or the address alone"];
    invalid_prefix: "10.9.8.0/24" => "10.9.8.0-10.9.8.9",
        ["invalid green.toml:18:40: tunnel.peer[0].prefixes[2]: \"10.9.8.0-10.9.8.9\" is not an IP \
          address or prefix, as in 10.0.0.11 or 10.0.0.16/28"];
    prefixes_not_unicast: "10.9.8.0/24"
        => "224.0.0.0/4\", \"0.0.0.0/1\", \"fe80::1\", \"127.0.0.1",
        [
            "not-unicast green.toml:18:40: tunnel.peer[0].prefixes[2]: 224.0.0.0/4 is a multicast \
             address; write a unicast address",
            "not-unicast green.toml:18:55: tunnel.peer[0].prefixes[3]: 0.0.0.0/1 is in 0.0.0.0/8, \
             which means this network; write a unicast address",
            "not-unicast green.toml:18:68: tunnel.peer[0].prefixes[4]: fe80::1 is a link-local \
             address; write a unicast address",
            "not-unicast green.toml:18:79: tunnel.peer[0].prefixes[5]: 127.0.0.1 is a loopback \
             address; write a unicast address",
        ];
    prefix_of_family_without_gateway: "ipv4 = \"10.9.0.1/24\"\n" => "",
        [
            "gateway-missing green.toml:17:13: tunnel.peer[0].prefixes[0]: 10.9.0.71 is IPv4, but \
             the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:17:40: tunnel.peer[0].prefixes[2]: 10.9.8.0/24 is IPv4, \
             but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:22:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is IPv4, \
             but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:27:14: port[0].addresses[0] (port \"one\"): 10.9.0.11 is \
             IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
            "gateway-missing green.toml:27:27: port[0].addresses[1] (port \"one\"): 10.9.0.64/30 \
             is IPv4, but the gateway has no IPv4 address; add gateway.ipv4",
        ];
    prefix_of_a_port: "10.9.8.0/24"
        => "10.9.0.11\", \"10.9.0.65\", \"10.9.0.66/31\", \"10.9.0.64/30\", \"10.9.0.64/29",
        [
            "prefix-at-port green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.0.11 belongs to \
             port \"one\", which has 10.9.0.11 (port[0].addresses[0]); an address is at a port or \
             behind a peer",
            "prefix-at-port green.toml:18:53: tunnel.peer[0].prefixes[3]: 10.9.0.65 belongs to \
             port \"one\", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port \
             or behind a peer",
            "prefix-at-port green.toml:18:66: tunnel.peer[0].prefixes[4]: 10.9.0.66/31 belongs to \
             port \"one\", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port \
             or behind a peer",
            "prefix-at-port green.toml:18:82: tunnel.peer[0].prefixes[5]: 10.9.0.64/30 belongs to \
             port \"one\", which has 10.9.0.64/30 (port[0].addresses[1]); an address is at a port \
             or behind a peer",
        ];
    prefix_of_the_gateway: "10.9.8.0/24"
        => "10.9.0.1\", \"10.9.0.0/31\", \"10.9.0.255\", \"fd00:9::1\", \"fd00:9::",
        [
            "reserved-address green.toml:18:40: tunnel.peer[0].prefixes[2]: 10.9.0.1 is the \
             address of the gateway of 10.9.0.0/24; choose another",
            "reserved-address green.toml:18:67: tunnel.peer[0].prefixes[4]: 10.9.0.255 is the \
             broadcast address of 10.9.0.0/24; choose another",
            "reserved-address green.toml:18:81: tunnel.peer[0].prefixes[5]: fd00:9::1 is the \
             address of the gateway of fd00:9::/64; choose another",
            "reserved-address green.toml:18:94: tunnel.peer[0].prefixes[6]: fd00:9:: is the \
             subnet-router anycast address (RFC 4291) of fd00:9::/64; choose another",
        ];
    prefix_of_the_underlay: "10.9.8.0/24" => "192.0.2.66\", \"192.0.0.0/16",
        [
            "subnet-overlap green.toml:18:40: tunnel.peer[0].prefixes[2]: 192.0.2.66/32 overlaps \
             192.0.2.0/24 of uplink.address: the switch routes between the two, so they must be \
             apart",
            "subnet-overlap green.toml:18:54: tunnel.peer[0].prefixes[3]: 192.0.0.0/16 overlaps \
             192.0.2.0/24 of uplink.address: the switch routes between the two, so they must be \
             apart",
        ];
    prefix_of_another_peer: "10.9.8.0/24" => "10.9.0.0/24\", \"10.9.0.71",
        [
            "prefix-repeated green.toml:18:55: tunnel.peer[0].prefixes[3]: 10.9.0.71 is already \
             tunnel.peer[0].prefixes[0]; a prefix is behind one peer and written once",
            "prefix-repeated green.toml:23:13: tunnel.peer[1].prefixes[0]: 10.9.0.0/24 is already \
             tunnel.peer[0].prefixes[2]; a prefix is behind one peer and written once",
        ];
    default_prefix_without_only: "10.9.8.0/24" => "0.0.0.0/0\", \"::/0",
        [
            "prefix-of-all green.toml:18:40: tunnel.peer[0].prefixes[2]: 0.0.0.0/0 is all there \
             is, but this tenant also reaches the world through the uplink; set tunnel.only = \
             true, or list narrower prefixes",
            "prefix-of-all green.toml:18:53: tunnel.peer[0].prefixes[3]: ::/0 is all there is, but \
             this tenant also reaches the world through the uplink; set tunnel.only = true, or \
             list narrower prefixes",
        ];
}

#[test]
fn mtu_leaves_too_little_for_inner_ipv4() {
    let text = BLUE
        .replace("vtep = \"2001:db8::9\"\n", "")
        .replace("address6 = \"2001:db8::9/64\"\n", "")
        .replace("2001:db8:1::66", "192.0.2.66")
        .replace("2001:db8::fe", "192.0.2.66");
    assert_eq!(
        refusal(&text.replace("mtu = 1280", "mtu = 625")),
        [
            "tunnel-mtu blue.toml:9:7: uplink.mtu: an MTU of 625 leaves 575 bytes for a packet \
             within the tunnel, which adds 50; write at least 626"
        ]
        .map(|error| error.replace("blue.toml", "green.toml"))
    );
    assert_eq!(
        tunnel(&text.replace("mtu = 1280", "mtu = 626")).overhead(),
        50
    );
}

#[test]
fn mtu_leaves_too_little_over_ipv6() {
    let text = BLUE.replace("[gateway]", "[gateway]\nipv6 = \"fd00:9::1/64\"");
    assert_eq!(
        refusal(&text.replace("mtu = 1280", "mtu = 1349")),
        [
            "tunnel-mtu green.toml:11:7: uplink.mtu: an MTU of 1349 leaves 1279 bytes for a packet \
             within the tunnel, which adds 70; write at least 1350 (IPv6 needs 1280, RFC 8200)"
        ]
    );
    assert_eq!(
        tunnel(&text.replace("mtu = 1280", "mtu = 1350")).overhead(),
        70
    );
}

/// `count` peers with these prefixes that differ in everything that must differ.
fn peers(count: usize, prefixes: impl Fn(usize) -> Vec<String>) -> String {
    let peer = |n: usize| {
        format!(
            "[[tunnel.peer]]\nname = \"p{n}\"\nvtep = \"198.51.{}.{}\"\nprefixes = {:?}\n",
            n >> 8,
            n & 255,
            prefixes(n)
        )
    };
    (0..count).map(peer).collect()
}

/// [`GREEN`] with `peers` for its own.
fn green_of(peers: &str) -> String {
    let (before, _) = GREEN.split_once("[[tunnel.peer]]").expect("a peer");
    let (_, ports) = GREEN.split_once("[[port]]").expect("a port");
    format!("{before}{peers}[[port]]{ports}")
}

/// The `n`th of many prefixes.
fn prefix(n: usize) -> String {
    format!("fd00:a::{:x}:{:x}", n >> 16, n & 0xffff)
}

#[test]
fn maximum_of_peers_and_prefixes_accepted() {
    let each = MAX_PREFIXES / MAX_PEERS;
    let text = green_of(&peers(MAX_PEERS, |peer| {
        (peer * each..(peer + 1) * each).map(prefix).collect()
    }));
    let config = tenant(&text).offline_config();
    assert_eq!(config.validate("green.json"), Ok(()));
    let peers = &config.tunnel.expect("there is one").peers;
    let prefixes: usize = peers.iter().map(|peer| peer.prefixes.len()).sum();
    assert_eq!((peers.len(), prefixes), (MAX_PEERS, MAX_PREFIXES));
}

#[test]
fn too_many_peers_or_prefixes_refused() {
    assert_eq!(
        refusal(&green_of(&peers(MAX_PEERS + 1, |_| Vec::new()))),
        [
            "too-many green.toml:15:1: tunnel.peer: there are 1025 of them, and a switch takes at \
             most 1024; split the tenant's file or merge entries"
        ]
    );
    let prefixes = |peer| match peer {
        0 => (0..MAX_PREFIXES).map(prefix).collect(),
        _ => vec!["10.9.8.0/24".to_owned()],
    };
    assert_eq!(
        refusal(&green_of(&peers(2, prefixes))),
        [
            "too-many-prefixes green.toml:15:1: tunnel.peer: there are 131073 prefixes behind all \
             peers together, and a switch takes at most 131072; merge neighbouring ones"
        ]
    );
}

#[test]
fn errors_bounded_at_1000() {
    let same = |_| vec!["10.9.8.0/24".to_owned(); 2000];
    assert_eq!(refusal(&green_of(&peers(1, same))).len(), 1000);
}
