//! The row of "Into the tunnel", and what leaves by it.

use super::*;

#[rustfmt::skip] // A table: one frame a statement.
pub(super) fn add(rows: &mut Rows) {
    let packet = ethernet(GW, VM1, IPV4, &away().bytes());
    let to_c = ethernet(GW, VM1, IPV4, &V4 { to: [10, 0, 0, 81].into(), ..away() }.bytes());
    rows.row = "Into 5";
    for (name, config, peer) in tenants() {
        let (sealed, plain) = match peer {
            B => (packet.clone(), to_c.clone()),
            _ => (to_c.clone(), packet.clone()),
        };
        rows.on(config.clone(), 0);
        rows.drop(IpsecNoSa, name, sealed.clone());
        if name != "VXLAN over IPv6" {
            rows.forward(OUT, "to a peer that does not require it", plain);
        }
        rows.sas = vec![(Direction::In, Sa::new(&config, peer, SPI))];
        rows.drop(IpsecNoSa, "with an SA of the other direction", sealed.clone());
        rows.resolved = false;
        rows.drop(NeighbourUnresolved, "row 4 before row 5", sealed.clone());
        rows.resolved = true;
        for sa in styles(&config, peer) {
            rows.sas = vec![(Direction::Out, sa)];
            rows.forward(OUT, name, sealed.clone());
        }
        for (name, hard) in [
            ("no packet", Bounds { packets: 0, ..Bounds::NONE }),
            ("no byte", Bounds { bytes: 0, ..Bounds::NONE }),
            ("no time", Bounds { age_ns: 0, ..Bounds::NONE }),
        ] {
            rows.sas = vec![(Direction::Out, Sa { hard, ..Sa::new(&config, peer, SPI) })];
            rows.drop(IpsecNoSa, name, sealed.clone());
        }
        rows.sas = Vec::new();
    }
    sizes(rows);
}

/// The table of "MTU".
#[rustfmt::skip] // A table: one frame a statement.
fn sizes(rows: &mut Rows) {
    rows.row = "MTU";
    let sized = |length: usize| {
        let packet = V4 { payload: udp(1, 2, &vec![0; length - 28]), ..away() };
        ethernet(GW, VM1, IPV4, &packet.bytes())
    };
    for (ipv6, suite, whole, in_udp, carries) in [
        (false, IpsecSuite::Aes256Gcm16, false, None, 1416),
        (false, IpsecSuite::ChaCha20Poly1305, false, None, 1416),
        (false, IpsecSuite::Aes256Gcm16, false, Some(4500), 1408),
        (false, IpsecSuite::Aes256Sha256, false, None, 1408),
        (false, IpsecSuite::Aes256Sha256, false, Some(4500), 1392),
        (false, IpsecSuite::Aes256Gcm16, true, None, 1396),
        (true, IpsecSuite::Aes256Gcm16, false, None, 1396),
        (true, IpsecSuite::Aes256Sha256, false, None, 1376),
    ] {
        let mut config = if ipv6 { configs::sealed6() } else { configs::sealed() };
        config.uplink.as_mut().expect("an uplink").mtu = 1500;
        let tunnel = config.tunnel.as_mut().expect("a tunnel");
        tunnel.ipsec.as_mut().expect("IPsec").suites = vec![suite];
        rows.on(config.clone(), 0);
        let secret = Secret::new(suite, 1);
        let sa = Sa { secret, whole, in_udp, ..Sa::new(&config, B, SPI) };
        rows.sas = vec![(Direction::Out, sa)];
        rows.forward(OUT, suite.as_str(), sized(carries));
        rows.error(Mtu, suite.as_str(), sized(carries + 1));
        // Each fragment is sealed by itself.
        config.uplink.as_mut().expect("an uplink").fragment = true;
        rows.on(config, 0);
        rows.copies(2, suite.as_str(), sized(carries + 1));
        rows.sas = Vec::new();
        rows.drop(IpsecNoSa, "without an SA", sized(1_500));
    }
}
