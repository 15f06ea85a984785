//! The express lane: what almost every frame is, in few instructions.
//!
//! It forwards a frame only if that is what the general path would do, byte for byte; of any other
//! frame it says nothing and leaves it as it was. So it holds no policy: whatever is unusual (a tag, an
//! option, a fragment, an extension header, ICMP, DHCP, limits, a drop of any kind) takes the general path.
//! The tests hold the two against each other.

use super::PortId;
use super::frame::Frame;
use super::state::State;
use super::tables::{Lead, PortRules, Tables};
use super::wire::{
    self, ETHERNET_LEN, be16, be32, be128, ipv4_sum_holds, is_unicast_destination4, protocol,
};

/// The longest prefix of a frame that the lane reads: Ethernet, IPv4, TCP's fixed part.
const HEAD4: usize = ETHERNET_LEN + 40;
/// Ethernet, IPv6, UDP.
const HEAD6: usize = ETHERNET_LEN + 48;

/// The source MAC and the EtherType of a frame, which lie side by side, as one number.
#[inline(always)]
fn sender_and_type(head: &[u8]) -> u64 {
    u64::from_ne_bytes([
        head[6], head[7], head[8], head[9], head[10], head[11], head[12], head[13],
    ])
}

/// What [`sender_and_type`] is for a port's MAC and an EtherType.
pub(super) fn key(mac: [u8; 6], ethertype: u16) -> u64 {
    let [a, b, c, d, e, f] = mac;
    let [hi, lo] = ethertype.to_be_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, hi, lo])
}

/// Where an ordinary frame goes, and how long it then is.
type Sent = Option<(PortId, usize)>;

/// Forwards the frame, if it is an ordinary one. `None`: the general path decides.
#[inline(always)]
pub(super) fn forward(
    tables: &Tables,
    state: &State,
    rules: &PortRules,
    frame: &mut Frame<'_>,
) -> Option<PortId> {
    if frame.stripped_tag().is_some() {
        return None;
    }
    let bytes = frame.bytes_mut();
    let room = bytes.len().wrapping_sub(ETHERNET_LEN);
    let head = bytes.first_chunk_mut::<HEAD4>()?;
    if room > usize::from(rules.mtu) {
        return None;
    }
    let sender = sender_and_type(head);
    let (to, len) = if sender == rules.express4 {
        ipv4(tables, state, rules, head, room)?
    } else if sender == rules.express6 {
        ipv6(tables, rules, bytes, room)?
    } else {
        return None;
    };
    frame.truncate(len);
    Some(to)
}

#[inline(always)]
fn ipv4(
    tables: &Tables,
    state: &State,
    rules: &PortRules,
    head: &mut [u8; HEAD4],
    room: usize,
) -> Sent {
    let total_len = be16(head, 16);
    let [first, group] = [head[14], head[0] & 1];
    let fragment = be16(head, 20) & 0x3fff;
    // One branch for four rare things.
    if (first ^ 0x45) | group != 0 || fragment != 0 || usize::from(total_len) > room {
        return None;
    }
    let (source, destination) = (be32(head, 26), be32(head, 30));
    match head[23] {
        protocol::UDP => udp(usize::from(total_len), 28, be16(head, 34), be16(head, 36))?,
        protocol::TCP => tcp(usize::from(total_len), 20, head[46])?,
        _ => return None,
    }
    let ip: &[u8; 20] = head[ETHERNET_LEN..].first_chunk()?;
    if !ipv4_sum_holds(ip) || tables.lead4(source) != Some(rules.lead) {
        return None;
    }
    let lead = tables.lead4(destination)?;
    let len = usize::from(total_len);
    if let Some(id) = lead.port() {
        return to_port(tables, rules, head, id, len);
    }
    let uplink = tables.uplink.as_ref().filter(|_| lead == Lead::UPLINK)?;
    let ttl = head[22];
    let next_hop = state.next_hop_mac(uplink.next_hop4)?;
    let routable = is_unicast_destination4(destination) && source >> 16 != 0xa9fe;
    if ttl <= 1 || total_len > uplink.mtu || !routable {
        return None;
    }
    wire::decrement_ttl(head, ttl);
    head[..6].copy_from_slice(&next_hop);
    head[6..12].copy_from_slice(&uplink.mac);
    Some((tables.uplink_id(), ETHERNET_LEN + len))
}

#[inline(always)]
fn ipv6(tables: &Tables, rules: &PortRules, bytes: &mut [u8], room: usize) -> Sent {
    let head = bytes.first_chunk::<HEAD6>()?;
    let total_len = 40 + usize::from(be16(head, 18));
    if (head[14] >> 4) ^ 6 | (head[0] & 1) != 0 || total_len > room {
        return None;
    }
    match head[20] {
        protocol::UDP => udp(total_len, 48, be16(head, 54), be16(head, 56))?,
        protocol::TCP => tcp(total_len, 40, *bytes.get(66)?)?,
        _ => return None,
    }
    if tables.lead6(be128(head, 22)) != Some(rules.lead) {
        return None;
    }
    let id = tables.lead6(be128(head, 38))?.port()?;
    to_port(tables, rules, bytes.first_chunk_mut()?, id, total_len)
}

/// Passes UDP whose header is whole and whose ports mean nothing to the filter.
#[inline(always)]
fn udp(total_len: usize, least: usize, from: u16, to: u16) -> Option<()> {
    // DHCP, DHCPv6 and Teredo. All are compared, without a branch: a vector comparison each.
    const FROM: [u16; 8] = [67, 547, 3544, 67, 547, 3544, 67, 547];
    const TO: [u16; 8] = [67, 68, 546, 547, 3544, 67, 68, 546];
    let mut ordinary = true;
    for lane in 0..8 {
        ordinary &= from != FROM[lane];
        ordinary &= to != TO[lane];
    }
    (ordinary && total_len >= least).then_some(())
}

/// Passes TCP whose header is whole.
#[inline(always)]
fn tcp(total_len: usize, header_len: usize, offset: u8) -> Option<()> {
    let words = usize::from(offset >> 4);
    (words >= 5 && header_len + words * 4 <= total_len).then_some(())
}

#[inline(always)]
fn to_port(
    tables: &Tables,
    rules: &PortRules,
    head: &mut [u8; HEAD4],
    id: u16,
    total_len: usize,
) -> Sent {
    let to = tables.egress.get(usize::from(id))?;
    if total_len > usize::from(to.longest) || id == rules.id {
        return None;
    }
    head[..12].copy_from_slice(&to.header);
    Some((PortId(id), ETHERNET_LEN + total_len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenant_config::{MacAddr, Tenant};

    use crate::pipeline::{Frame, Generation, Pipeline, PortId, Verdict};
    use crate::reason::DropReason;

    const TENANT: &str = r#"
        name = "red"
        vni = 5001
        [gateway]
        ipv4 = "10.0.0.1/24"
        ipv6 = "fd00::1/64"
        [uplink]
        address = "192.0.2.2/24"
        next_hop = "192.0.2.1"
        mtu = 1400
        [[port]]
        name = "vm1"
        mac = "52:54:00:aa:00:01"
        addresses = ["10.0.0.11", "fd00::11"]
        encapsulation = "deny"
        limits = { broadcast_pps = 1, arp_nd_pps = 1, dhcp_pps = 1 }
        [[port]]
        name = "vm2"
        mac = "52:54:00:aa:00:02"
        addresses = ["10.0.0.12", "fd00::12"]
        mtu = 1280
    "#;

    fn pipeline() -> Pipeline {
        let config = Tenant::parse("red.toml", TENANT)
            .expect("a tenant")
            .offline_config();
        let mut pipeline = Pipeline::new(Generation::build(&config, None));
        pipeline.assume_next_hops(0, MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"));
        pipeline
    }

    /// An ordinary frame of vm1: version, protocol, destination by its place, UDP ports, size.
    fn ordinary(
        (ipv6, tcp, destination): (bool, bool, usize),
        ports: (u16, u16),
        payload: usize,
    ) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0xaa, 0, 1];
        let protocol = if tcp { 6 } else { 17 };
        let size = if tcp { 20 } else { 8 } + payload;
        if ipv6 {
            let last = [0x12, 0x11, 0x99][destination];
            let [hi, lo] = (size as u16).to_be_bytes();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, hi, lo, protocol, 64]);
            for host in [0x11, last] {
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
        } else {
            let to = [[10, 0, 0, 12], [198, 51, 100, 1], [192, 0, 2, 9]][destination];
            let [hi, lo] = (20 + size as u16).to_be_bytes();
            let mut header = [
                0x45, 0, hi, lo, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 11,
            ];
            let words = header.chunks(2).chain(to.chunks(2));
            let sum: u32 = words
                .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                .sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(header);
            frame.extend(to);
        }
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50]);
        frame.resize(14 + if ipv6 { 40 } else { 20 } + size, 0);
        frame
    }

    /// Verdict, bytes and all counters of one frame's way.
    fn outcome(bytes: &[u8], express: bool) -> (Verdict, Vec<u8>, Vec<Vec<u64>>) {
        let mut pipeline = pipeline();
        let counters = pipeline.counters();
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend_from_slice(bytes);
        buffer.resize(buffer.len() + 256, 0);
        // Twice, so that a token which only one of the two takes is missed.
        let mut second = buffer.clone();
        let mut first = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let mut frame = Frame::new(&mut second, Frame::HEADROOM, bytes.len(), None);
        let mut decide = |frame: &mut Frame<'_>| {
            if express {
                pipeline.process(1, PortId(0), frame)
            } else {
                pipeline.process_traced(1, PortId(0), frame, &mut |_, _| {})
            }
        };
        let _ = decide(&mut first);
        let verdict = decide(&mut frame);
        let state = counters.ports().map(|port| {
            let drops = DropReason::ALL
                .iter()
                .map(|reason| port.drops(*reason).get());
            let totals = [
                &port.rx_frames,
                &port.rx_bytes,
                &port.forwarded,
                &port.replies,
            ];
            let sent = [&port.tx_frames, &port.tx_bytes, &port.icmp_errors];
            totals
                .iter()
                .chain(&sent)
                .map(|counter| counter.get())
                .chain(drops)
                .collect()
        });
        (verdict, frame.bytes().to_vec(), state.collect())
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let kind = (any::<bool>(), any::<bool>(), 0..3usize);
        let port = prop_oneof![
            Just(53u16),
            Just(67),
            Just(68),
            Just(68),
            Just(546),
            Just(547),
            Just(3544),
            any::<u16>()
        ];
        let edits = prop::collection::vec((0..80usize, any::<u8>()), 0..3);
        let size = prop_oneof![0..64usize, 1200..1500usize];
        (kind, (port.clone(), port), size, edits, -30..30isize).prop_map(
            |(kind, ports, payload, edits, change)| {
                let mut frame = ordinary(kind, ports, payload);
                // A change of length may leave padding, or cut off what the headers promise.
                if change.rem_euclid(3) == 0 {
                    frame.resize(frame.len().saturating_add_signed(change), 0xee);
                }
                for (at, value) in edits {
                    if let Some(byte) = frame.get_mut(at) {
                        *byte = value;
                    }
                }
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_express_lane_does_what_the_general_path_does(frame in frames()) {
            prop_assert_eq!(outcome(&frame, true), outcome(&frame, false));
        }
    }

    #[test]
    fn ordinary_frames_take_the_lane() {
        let taken = |kind| {
            let pipeline = pipeline();
            let mut bytes = ordinary(kind, (53, 5353), 40);
            let len = bytes.len();
            let mut frame = Frame::new(&mut bytes, 0, len, None);
            let rules = &pipeline.tables.ports[0];
            assert!(rules.express);
            super::forward(&pipeline.tables, &pipeline.state, rules, &mut frame)
        };
        let (vm2, uplink) = (Some(PortId(1)), Some(PortId(2)));
        for tcp in [false, true] {
            assert_eq!(taken((false, tcp, 0)), vm2);
            assert_eq!(taken((false, tcp, 1)), uplink);
            assert_eq!(taken((true, tcp, 0)), vm2);
        }
        assert_eq!(
            taken((false, false, 2)),
            None,
            "the underlay is refused elsewhere"
        );
    }
}
