//! The MTU of the tunnel, and how VMs learn it.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{eventually, run};
use crate::capture::Capture;
use crate::linux::inner_pair;
use crate::site::{FAR, Family, Kind, Site, has};
use crate::udp;

/// The MTU that an ICMP error reports for an unfragmented packet of this size; `None` if it is
/// answered.
fn mtu_error(site: &Site, from: &str, to: IpAddr, size: u16) -> Option<u16> {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let payload = (size - headers).to_string();
    let mut ping = site.bed.command(from, "ping");
    ping.args([
        "-n",
        "-M",
        "do",
        "-c1",
        "-W2",
        "-s",
        &payload,
        &to.to_string(),
    ]);
    let output = ping.output().expect("ping runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if said.contains("1 received") {
        return None;
    }
    // "Frag needed and DF set (mtu = 1450)", "Packet too big: mtu=1450"
    let after = said.split("mtu").nth(1);
    let number: String = after
        .unwrap_or_else(|| panic!("{to}, {size} bytes: {said}"))
        .chars()
        .skip_while(|character| !character.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    Some(number.parse().expect("digits"))
}

/// The path MTU that a VM's kernel has learned.
fn path_mtu(site: &Site, from: &str, to: IpAddr) -> Value {
    let mut ip = site.bed.command(from, "ip");
    let shown = run(ip.args(["-j", "-d", "route", "get", &to.to_string()]));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    shown[0]["metrics"][0]["mtu"].clone()
}

#[test]
fn oversized_packet_gets_an_icmp_error_with_the_mtu() {
    for family in Family::BOTH {
        let test = "oversized_packet_gets_an_icmp_error_with_the_mtu";
        let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["far"]) else {
            return;
        };
        // It must learn from the error, not from the advertisement.
        site.bed.sysctl("vm1", "net.ipv6.conf.eth0.accept_ra=0");
        site.station("far", FAR.host);
        if !site.linux(test, &FAR) {
            return;
        }
        site.start(&site.config(&[FAR]), &[FAR]);
        let carries = 1500 - family.overhead();
        let before = site.switch().drops("red-vm1", "mtu");
        for inner in Family::BOTH {
            let far = inner.inner(FAR.inner);
            assert_eq!(
                mtu_error(&site, "vm1", far, 1500),
                Some(carries),
                "{inner:?} over {family:?}"
            );
            assert_eq!(
                path_mtu(&site, "vm1", far),
                carries,
                "{inner:?} over {family:?}"
            );
            assert_eq!(
                mtu_error(&site, "vm1", far, carries),
                None,
                "{inner:?} over {family:?}"
            );
            // The path to its neighbour on this host is unchanged.
            assert_eq!(
                mtu_error(&site, "vm1", inner.inner(12), 1500),
                None,
                "{inner:?}"
            );
        }
        assert_eq!(site.switch().drops("red-vm1", "mtu") - before, 2);
    }
}

#[test]
fn larger_underlay_carries_packets_of_1500_bytes() {
    let test = "larger_underlay_carries_packets_of_1500_bytes";
    let Some(mut site) = Site::new(test, Kind::Vxlan, Family::V6, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    site.underlay_mtu(&["far"], 1570);
    if !site.linux(test, &FAR) {
        return;
    }
    site.bed
        .inside("far", &["link", "set", "dev", "tun0", "mtu", "1500"]);
    let mut config = site.config(&[FAR]);
    config["uplink"]["mtu"] = json!(1570);
    site.start(&config, &[FAR]);
    assert_eq!(site.shown("far")["mtu"], 1500);
    for inner in Family::BOTH {
        assert_eq!(mtu_error(&site, "vm1", inner.inner(FAR.inner), 1500), None);
        assert_eq!(mtu_error(&site, "far", inner.inner(11), 1500), None);
    }
}

/// Packets without DF: one that is cut in two, and those of a larger datagram, which the VM's
/// kernel has cut for its own link already. The peer's kernel joins them.
#[test]
fn packets_without_df_reach_the_peer_in_fragments() {
    for family in Family::BOTH {
        let test = "packets_without_df_reach_the_peer_in_fragments";
        let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["far"]) else {
            return;
        };
        site.bed.sysctl("vm1", "net.ipv6.conf.eth0.accept_ra=0");
        site.station("far", FAR.host);
        if !site.linux(test, &FAR) {
            return;
        }
        let mut config = site.config(&[FAR]);
        config["uplink"]["fragment"] = json!(true);
        site.start(&config, &[FAR]);
        let far = Family::V4.inner(FAR.inner).to_string();
        let all_answered = |size: &str| {
            let options = ["-M", "dont", "-c5", "-i0.2", "-W2", "-s", size, &far];
            let pinged = site.bed.ping("vm1", &options);
            assert_eq!((pinged.sent, pinged.received), (5, 5), "{size} bytes");
        };
        all_answered("1472");
        all_answered("4000");
        all_answered("20000");
        let switch = site.switch();
        for reason in ["mtu", "fragment-rate"] {
            assert_eq!(switch.drops("red-vm1", reason), 0, "{reason}");
        }
        // With DF it is as before.
        let carries = 1500 - family.overhead();
        let to = Family::V4.inner(FAR.inner);
        assert_eq!(mtu_error(&site, "vm1", to, 1500), Some(carries));
    }
}

#[test]
fn icmp_error_of_an_underlay_router_lowers_the_path_mtu() {
    for family in Family::BOTH {
        behind_a_router(
            "icmp_error_of_an_underlay_router_lowers_the_path_mtu",
            family,
        );
    }
}

fn behind_a_router(test: &str, family: Family) {
    let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["router", "far"]) else {
        return;
    };
    let (bed, length) = (&site.bed, if family == Family::V4 { 24 } else { 64 });
    let beyond = |host: u8| -> IpAddr {
        match family {
            Family::V4 => IpAddr::from([198, 51, 100, host]),
            Family::V6 => format!("2001:db8:2::{host}").parse().expect("an address"),
        }
    };
    site.station("router", 254);
    bed.pair(("router", "side"), "far", "52:54:00:ff:00:66");
    bed.sysctl("router", "net.ipv6.conf.side.disable_ipv6=0");
    site.address("router", "side", beyond(254));
    site.address("far", "eth0", beyond(66));
    site.no_offload("far", "eth0");
    bed.sysctl("router", "net.ipv4.ip_forward=1");
    bed.sysctl("router", "net.ipv6.conf.all.forwarding=1");
    let (default, router) = (beyond(254).to_string(), family.underlay(254));
    let option = if family == Family::V4 { "-4" } else { "-6" };
    bed.inside("far", &[option, "route", "add", "default", "via", &default]);
    bed.inside("router", &["link", "set", "dev", "side", "mtu", "1400"]);
    bed.inside("far", &["link", "set", "dev", "eth0", "mtu", "1400"]);
    bed.sysctl("vm1", "net.ipv6.conf.eth0.accept_ra=0");
    if !site.linux_at(test, &FAR, beyond(66)) {
        return;
    }
    let smaller = 1400 - family.overhead();
    let mtu = smaller.to_string();
    site.bed
        .inside("far", &["link", "set", "dev", "tun0", "mtu", &mtu]);
    let mut config = site.config(&[FAR]);
    config["tunnel"]["peers"][0]["vtep"] = json!(beyond(66));
    config["tunnel"]["peers"][0]["next_hop"] = json!(router);
    site.start(&config, &[FAR]);

    let carries = 1500 - family.overhead();
    let far = Family::V4.inner(FAR.inner);
    assert_eq!(site.shown("far")["mtu"], carries);
    // The first packet is dropped by the router, which reports its MTU.
    let payload = (carries - 28).to_string();
    let lost = site.bed.ping(
        "vm1",
        &["-M", "do", "-c1", "-W1", "-s", &payload, &far.to_string()],
    );
    assert_eq!((lost.sent, lost.received), (1, 0), "{length}");
    eventually("the router's word is heard", || {
        site.shown("far")["mtu"] == smaller
    });
    for inner in Family::BOTH {
        let far = inner.inner(FAR.inner);
        assert_eq!(
            mtu_error(&site, "vm1", far, carries),
            Some(smaller),
            "{inner:?} over {family:?}"
        );
        assert_eq!(
            mtu_error(&site, "vm1", far, smaller),
            None,
            "{inner:?} over {family:?}"
        );
    }
    // Datagrams up to that size pass, and the router fragments none.
    let (near, far) = inner_pair(Family::V4);
    let (near, far) = (
        udp::socket(&site.bed, "vm1", near),
        udp::socket(&site.bed, "far", far),
    );
    let largest = usize::from(smaller) - 28;
    udp::every_size_comes_back(&near, &far, largest - 64..=largest);
}

#[test]
fn router_advertisement_has_the_tunnel_mtu() {
    let test = "router_advertisement_has_the_tunnel_mtu";
    let Some(mut site) = Site::new(test, Kind::Vxlan, Family::V6, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    site.start(&site.config(&[FAR]), &[FAR]);
    // It solicits when its link comes up.
    site.bed
        .sysctl("vm2", "net.ipv6.conf.eth0.router_solicitation_delay=0");
    site.bed
        .inside("vm2", &["link", "set", "dev", "eth0", "down"]);
    site.bed
        .inside("vm2", &["link", "set", "dev", "eth0", "up"]);
    let read = || {
        run(site
            .bed
            .command("vm2", "sysctl")
            .args(["-n", "net.ipv6.conf.eth0.mtu"]))
    };
    eventually("the VM has the tunnel's MTU", || read().trim() == "1430");
}

#[test]
fn clamped_mss_fits_the_tunnel() {
    let test = "clamped_mss_fits_the_tunnel";
    if !has(test, "tshark") {
        return;
    }
    let Some(mut site) = Site::new(test, Kind::Vxlan, Family::V4, &["far"]) else {
        return;
    };
    site.bed.sysctl("vm1", "net.ipv6.conf.eth0.accept_ra=0");
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    // A peer that does not know the MTU of its tunnel.
    site.bed
        .inside("far", &["link", "set", "dev", "tun0", "mtu", "1500"]);
    let mut config = site.config(&[FAR]);
    site.start(&config, &[FAR]);
    assert_eq!(handshake(&site), [("1460", "1460"), ("1440", "1440")]);
    config["tunnel"]["mss_clamp"] = json!(true);
    assert_eq!(site.switch().put_config(&config).0, 200);
    assert_eq!(handshake(&site), [("1410", "1410"), ("1390", "1390")]);
}

/// The MSS that the peer's VM and the VM receive, by IPv4 and by IPv6.
fn handshake(site: &Site) -> [(&'static str, &'static str); 2] {
    Family::BOTH.map(|inner| {
        let captures = [("far", "tun0"), ("vm1", "eth0")]
            .map(|(name, interface)| Capture::start(&site.bed, name, interface));
        let (_, far) = inner_pair(inner);
        let listener = udp::within(&site.bed, "far", move || TcpListener::bind((far, 0)));
        let to = listener.local_addr().expect("it is bound");
        udp::within(&site.bed, "vm1", move || {
            TcpStream::connect_timeout(&to, Duration::from_secs(5))
        });
        let [far, near] = captures.map(Capture::finish);
        let mss = |captured: &crate::capture::Captured, filter: &str| {
            let rows = captured.fields(filter, &["tcp.options.mss_val", "tcp.checksum.status"]);
            let [row] = &rows[..] else {
                panic!("{filter}: {rows:?}");
            };
            assert_eq!(row[1], ["1"], "the checksum after the change");
            let known = ["1460", "1440", "1410", "1390"];
            let said = known.into_iter().find(|known| row[0] == [*known]);
            said.unwrap_or_else(|| panic!("{rows:?}"))
        };
        (
            mss(&far, "tcp.flags.syn == 1 && tcp.flags.ack == 0"),
            mss(&near, "tcp.flags.syn == 1 && tcp.flags.ack == 1"),
        )
    })
}
