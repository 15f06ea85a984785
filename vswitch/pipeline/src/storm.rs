//! Storm control: token buckets in exact integers.

use tenant_config::Limits;

use super::wire::{Ip, Packet};
use packet::DropReason;

/// Parts of a token: one nanosecond at one token per second.
const PARTS: u128 = 1_000_000_000;

/// A bucket that holds one second's worth of tokens and starts full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// In parts of a token; more than the bucket holds means full.
    level: u128,
    filled_at_ns: u64,
}

impl Bucket {
    pub(super) const FULL: Self = Self {
        level: u128::MAX,
        filled_at_ns: 0,
    };

    /// Takes `tokens` if they are there. `rate` is in tokens per second.
    pub(super) fn take(&mut self, now_ns: u64, rate: u64, tokens: u64) -> bool {
        let capacity = u128::from(rate) * PARTS;
        let elapsed_ns = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = self.filled_at_ns.max(now_ns);
        let gained = u128::from(elapsed_ns) * u128::from(rate);
        self.level = self.level.saturating_add(gained).min(capacity);
        let wanted = u128::from(tokens) * PARTS;
        let there = self.level >= wanted;
        if there {
            self.level -= wanted;
        }
        there
    }
}

/// The buckets of one port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storm {
    arp_nd: Bucket,
    dhcp: Bucket,
    broadcast: Bucket,
    frames: Bucket,
    bits: Bucket,
}

impl Storm {
    pub(super) const fn new() -> Self {
        Self {
            arp_nd: Bucket::FULL,
            dhcp: Bucket::FULL,
            broadcast: Bucket::FULL,
            frames: Bucket::FULL,
            bits: Bucket::FULL,
        }
    }

    /// Takes the tokens of one frame of `len` bytes; the first bucket without one gives the reason.
    pub(super) fn admit(
        &mut self,
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
                &mut self.arp_nd,
                pps(limits.arp_nd_pps),
                1,
                DropReason::RateArpNd,
            ),
            (
                is_dhcp(packet),
                &mut self.dhcp,
                pps(limits.dhcp_pps),
                1,
                DropReason::RateDhcp,
            ),
            (
                packet.group,
                &mut self.broadcast,
                pps(limits.broadcast_pps),
                1,
                DropReason::RateBroadcast,
            ),
            (
                true,
                &mut self.frames,
                pps(limits.pps),
                1,
                DropReason::RatePps,
            ),
            (true, &mut self.bits, limits.bps, bits, DropReason::RateBps),
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
}

fn is_arp_nd(packet: &Packet) -> bool {
    match &packet.ip {
        Ip::Arp(_) | Ip::Rarp => true,
        Ip::V4(_) => false,
        Ip::V6(ip) => ip
            .icmp_type()
            .is_some_and(|kind| (133..=137).contains(&kind)),
    }
}

fn is_dhcp(packet: &Packet) -> bool {
    let udp = match &packet.ip {
        Ip::Arp(_) | Ip::Rarp => None,
        Ip::V4(ip) => ip.udp(),
        Ip::V6(ip) => ip.udp(),
    };
    udp.is_some_and(|(_, to)| matches!(to, 67 | 68 | 546 | 547))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_second_and_refills_exactly() {
        let mut bucket = Bucket::FULL;
        assert_eq!((0..10).filter(|_| bucket.take(5, 3, 1)).count(), 3);
        assert!(
            !bucket.take(333_333_337, 3, 1),
            "one part of a token is still missing"
        );
        assert!(bucket.take(333_333_339, 3, 1));
        assert!(!bucket.take(333_333_339, 3, 1));
        assert_eq!((0..10).filter(|_| bucket.take(u64::MAX, 3, 1)).count(), 3);
        assert!(
            !bucket.take(0, 3, 1),
            "a clock that runs backwards fills nothing"
        );
    }
}
