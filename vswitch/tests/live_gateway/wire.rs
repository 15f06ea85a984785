//! The switch's tunnel packets, as Wireshark dissects them.

use std::net::IpAddr;

use serde_json::json;

use crate::capture::{Capture, Captured};
use crate::linux::inner_pair;
use crate::ovs::open_vswitch;
use crate::site::{FAR, Family, Kind, Site, TUNNEL_MAC, UPLINK_MAC, VNI, has};
use crate::udp;

#[test]
fn wireshark_reads_vxlan() {
    for family in Family::BOTH {
        for checksum in [false, true] {
            dissects_without_complaint("wireshark_reads_vxlan", Kind::Vxlan, family, checksum);
        }
    }
}

#[test]
fn wireshark_reads_geneve() {
    for family in Family::BOTH {
        for checksum in [false, true] {
            dissects_without_complaint("wireshark_reads_geneve", Kind::Geneve, family, checksum);
        }
    }
}

/// Open vSwitch is the peer: it accepts both kinds with and without a checksum.
fn dissects_without_complaint(test: &str, kind: Kind, family: Family, checksum: bool) {
    if !has(test, "tshark") || !has(test, "ovs-vswitchd") {
        return;
    }
    let Some(mut site) = Site::new(test, kind, family, &["far", "vm7"]) else {
        return;
    };
    open_vswitch(&mut site);
    let mut config = site.config(&[FAR]);
    config["tunnel"]["udp_checksum"] = json!(checksum);
    let capture = Capture::start(&site.bed, "wire", "uplink");
    site.start(&config, &[FAR]);
    for inner in Family::BOTH {
        // Replies of the gateway too: to ARP, Neighbour Solicitations and echoes.
        for (from, to) in [("vm1", 71), ("vm7", 11), ("vm7", 1)] {
            site.echoes(from, inner.inner(to));
        }
        let (near, far) = inner_pair(inner);
        let near = udp::socket(&site.bed, "vm1", near);
        let far = udp::echo_socket(&site.bed, "vm7", far);
        udp::every_size_comes_back(&near, &far, 0..=64);
        let largest =
            1500 - usize::from(family.overhead()) - if inner == Family::V4 { 28 } else { 48 };
        udp::every_size_comes_back(&near, &far, largest - 16..=largest);
    }
    let what = format!("{} over {family:?}, checksum: {checksum}", kind.name());
    assert_dissection(&capture.finish(), &what, kind, family, checksum);
}

/// What is read of each tunnel packet; values of the outer headers come first.
fn fields(vni_field: &str) -> [&str; 17] {
    [
        "eth.dst",
        "eth.src",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "ip.checksum.status",
        "udp.checksum.status",
        vni_field,
        "udp.dstport",
        "udp.srcport",
        "ip.id",
        "ip.flags.df",
        "ip.ttl",
        "ipv6.hlim",
        "ipv6.flow",
        "frame.protocols",
    ]
}

fn assert_dissection(captured: &Captured, what: &str, kind: Kind, family: Family, checksum: bool) {
    let ours = format!("eth.src == {UPLINK_MAC}");
    assert_eq!(
        captured.complaints(&ours),
        "",
        "{what}: {}",
        captured.file().display()
    );

    let (kind_name, vni) = match kind {
        Kind::Vxlan => ("vxlan", VNI.to_string()),
        Kind::Geneve => ("geneve", format!("0x{VNI:06x}")),
    };
    let tunnel = format!("{ours} && {kind_name}");
    let outer = |host: u8| family.underlay(host).to_string();
    let mut seen = Vec::new();
    let vni_field = format!("{kind_name}.vni");
    let fields = fields(&vni_field);
    for row in captured.fields(&tunnel, &fields) {
        let [
            macs_to,
            macs_from,
            v4_from,
            v4_to,
            v6_from,
            v6_to,
            ip_sums,
            udp_sums,
            vnis,
            to,
            from,
            rest @ ..,
        ] = &row[..]
        else {
            panic!("{what}: {row:?}");
        };
        let [ids, dont_fragment, ttls, hops, labels, protocols] = rest else {
            panic!("{what}: {row:?}");
        };
        assert_eq!(macs_from[..], [UPLINK_MAC, TUNNEL_MAC], "{what}: {row:?}");
        assert_eq!(macs_to[0], "52:54:00:ff:00:66", "{what}: {row:?}");
        assert_eq!((vnis.len(), &vnis[0]), (1, &vni), "{what}: {row:?}");
        assert_eq!(to[0], kind.port().to_string(), "{what}: {row:?}");
        let port: u16 = from[0].parse().expect("a port");
        assert!(port >= 49_152, "{what}: {row:?}");
        let (outer_from, outer_to) = match family {
            Family::V4 => {
                assert_eq!(
                    (&*ids[0], &*dont_fragment[0], &*ttls[0]),
                    ("0x0000", "1", "64"),
                    "{what}: {row:?}"
                );
                (&v4_from[0], &v4_to[0])
            }
            Family::V6 => {
                assert_eq!(
                    (&*labels[0], &*hops[0]),
                    ("0x000000", "64"),
                    "{what}: {row:?}"
                );
                (&v6_from[0], &v6_to[0])
            }
        };
        assert_eq!(
            (outer_from, outer_to),
            (&outer(2), &outer(FAR.host)),
            "{what}: {row:?}"
        );
        // 1 is good, 3 is absent: the outer one is as configured, and all others are present and
        // good.
        assert!(
            ip_sums.iter().all(|sum| sum == "1" || sum.is_empty()),
            "{what}: {row:?}"
        );
        let (outer_sum, inner_sums) = udp_sums.split_first().expect("an outer one");
        assert_eq!(
            outer_sum,
            if checksum { "1" } else { "3" },
            "{what}: {row:?}"
        );
        assert!(inner_sums.iter().all(|sum| sum == "1"), "{what}: {row:?}");
        let last = |values: &[String]| values.last().cloned().unwrap_or_default();
        let inner = protocols[0]
            .rsplit("eth:ethertype:")
            .next()
            .expect("a last");
        let addresses = if inner.starts_with("ipv6") {
            (last(v6_from), last(v6_to))
        } else {
            (last(v4_from), last(v4_to))
        };
        if macs_to[1] == FAR.mac {
            seen.push((inner.to_owned(), addresses));
        }
    }
    assert_every_kind(&seen, what);
}

/// Every kind of inner packet occurs, with its addresses. `seen` has the protocols and addresses of
/// each.
fn assert_every_kind(seen: &[(String, (String, String))], what: &str) {
    let inner_kinds = [
        (Family::V4, "ip", "icmp"),
        (Family::V4, "ip", "udp"),
        (Family::V6, "ipv6", "icmpv6"),
        (Family::V6, "ipv6", "udp"),
    ];
    for (inner, network, transport) in inner_kinds {
        let (near, far) = inner_pair(inner);
        let of = |from: IpAddr| {
            let wanted = (from.to_string(), far.to_string());
            let found = seen.iter().any(|(protocols, addresses)| {
                protocols.starts_with(&format!("{network}:{transport}")) && *addresses == wanted
            });
            assert!(
                found,
                "{what}: {network}:{transport} of {wanted:?} in {seen:?}"
            );
        };
        of(near);
        if transport.starts_with("icmp") {
            of(inner.inner(1));
        }
    }
    let arp = seen.iter().any(|(protocols, _)| protocols == "arp");
    assert!(arp, "{what}: an answer to ARP in {seen:?}");
}
