//! Storm control: the limits of a port.

use packet::DropReason;
use packet::number::{icmpv6, port};
use packet::wire::{Ip, Packet};
use tenant_config::Limits;

use crate::state::StormBuckets;

/// Takes the tokens of one frame of `len` bytes; the first bucket without one gives the reason.
pub(crate) fn admit(
    buckets: &mut StormBuckets,
    limits: &Limits,
    now_ns: u64,
    packet: &Packet,
    len: usize,
) -> Result<(), DropReason> {
    let bits = len as u64 * 8;
    let pps = |limit: Option<u32>| limit.map(u64::from);
    let checks = [
        (
            is_arp_nd(packet),
            &mut buckets.arp_nd,
            pps(limits.arp_nd_pps),
            1,
            DropReason::RateArpNd,
        ),
        (
            packet.ip.udp().is_some_and(|(_, to)| port::is_dhcp(to)),
            &mut buckets.dhcp,
            pps(limits.dhcp_pps),
            1,
            DropReason::RateDhcp,
        ),
        (
            packet.group,
            &mut buckets.broadcast,
            pps(limits.broadcast_pps),
            1,
            DropReason::RateBroadcast,
        ),
        (
            true,
            &mut buckets.frames,
            pps(limits.pps),
            1,
            DropReason::RatePps,
        ),
        (
            true,
            &mut buckets.bits,
            limits.bps,
            bits,
            DropReason::RateBps,
        ),
    ];
    for (applies, bucket, limit, tokens, reason) in checks {
        if let (true, Some(rate)) = (applies, limit)
            && !bucket.take(now_ns, rate, tokens)
        {
            return Err(reason);
        }
    }
    Ok(())
}

fn is_arp_nd(packet: &Packet) -> bool {
    match &packet.ip {
        Ip::Arp(_) | Ip::Rarp => true,
        Ip::V4(_) => false,
        Ip::V6(ip) => ip.icmp_type().is_some_and(icmpv6::is_nd),
    }
}
