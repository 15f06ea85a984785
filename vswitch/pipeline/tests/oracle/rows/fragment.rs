//! The rows of "Fragmentation", towards the uplink. The bytes are the model's.

use super::*;

/// A datagram of `vm1` to the outside, so many bytes long.
fn packet(len: usize, place: u16) -> V4 {
    let mut packet = V4::new(IP1, EXTERNAL, 17, udp(1000, 2000, &vec![7; len - 28]));
    packet.fragment = place;
    packet
}

fn sized(len: usize, place: u16) -> Vec<u8> {
    v4(&packet(len, place))
}

#[rustfmt::skip] // A table: one frame a statement.
pub(super) fn add(rows: &mut Rows) {
    rows.row = "Fragmentation";
    rows.on(configs::cutting(), 0);
    rows.forward(3, "what fits", sized(1400, 0));
    rows.copies(2, "a byte more", sized(1401, 0));
    rows.copies(3, "three", sized(4000, 0));
    rows.copies(7, "the longest", sized(9216, 0));
    rows.error(Mtu, "beyond the port's own link", sized(9217, 0));
    rows.error(Mtu, "with DF", sized(1401, DONT_FRAGMENT));
    rows.copies(3, "a first fragment", sized(4000, MORE_FRAGMENTS));
    rows.copies(3, "a later one", sized(4000, 0x2000 | 500));
    rows.drop(Mtu, "one beyond the longest packet", sized(4000, 7694));
    rows.error(Ttl, "that ends here", v4(&V4 { ttl: 1, ..packet(4000, 0) }));
    rows.error(Mtu, "by IPv6",
        v6(&V6::new(inner(0x11), EXTERNAL6, 17, udp(1000, 2000, &[7; 1400]))));
    rows.error(Mtu, "to another port",
        v4(&V4::new(IP1, IP3, 17, udp(1000, 2000, &[7; 1400]))));
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "to an unknown next hop", sized(4000, 0));
    rows.resolved = true;
    rows.before = vec![sized(1401, 0); 1000];
    rows.drop(FragmentRate, "one more in a second", sized(1401, 0));
    rows.forward(3, "what fits then", sized(1400, 0));
    rows.before = Vec::new();
    let mut small = configs::cutting();
    small.uplink.as_mut().expect("an uplink").ipv6 = None;
    small.uplink.as_mut().expect("an uplink").next_hops.ipv6 = None;
    small.uplink.as_mut().expect("an uplink").allow.truncate(1);
    small.uplink.as_mut().expect("an uplink").mtu = 576;
    rows.on(small, 0);
    rows.copies(17, "the most", sized(9216, 0));
    let mut whole = configs::cutting();
    whole.uplink.as_mut().expect("an uplink").fragment = false;
    rows.on(whole, 0);
    rows.error(Mtu, "where nothing is fragmented", sized(1401, 0));
}
