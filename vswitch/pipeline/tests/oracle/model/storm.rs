//! The table of "Storm control".

use super::*;

/// A token bucket with a burst of one second. It counts billionths of a token to avoid rounding.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) per_second: u128,
    pub(super) nano_tokens: u128,
    pub(super) filled_ns: u64,
}

impl Bucket {
    pub(super) const NANO: u128 = 1_000_000_000;

    pub(super) fn new(per_second: u64) -> Self {
        Self {
            per_second: per_second.into(),
            nano_tokens: u128::from(per_second) * Self::NANO,
            filled_ns: 0,
        }
    }

    /// The port's buckets in the order of the page.
    pub(super) fn of_port(port: &PortConfig) -> [Option<Self>; 5] {
        let limits = &port.limits;
        [
            limits.arp_nd_pps.map(u64::from),
            limits.dhcp_pps.map(u64::from),
            limits.broadcast_pps.map(u64::from),
            limits.pps.map(u64::from),
            limits.bps,
        ]
        .map(|limit| limit.map(Self::new))
    }

    pub(super) fn take(&mut self, now_ns: u64, tokens: u64) -> bool {
        let elapsed = u128::from(now_ns - self.filled_ns);
        self.filled_ns = now_ns;
        self.nano_tokens =
            (self.nano_tokens + elapsed * self.per_second).min(self.per_second * Self::NANO);
        match self
            .nano_tokens
            .checked_sub(u128::from(tokens) * Self::NANO)
        {
            Some(rest) => {
                self.nano_tokens = rest;
                true
            }
            None => false,
        }
    }
}

impl Model {
    pub(super) fn admit(
        &mut self,
        now_ns: u64,
        from: usize,
        frame: &[u8],
        ethernet: &Ethernet<'_>,
        packet: Option<&Packet<'_>>,
    ) -> Result<(), DropReason> {
        let nd = packet.and_then(Packet::icmpv6_type).is_some_and(is_nd);
        let dhcp = packet
            .and_then(Packet::udp_ports)
            .is_some_and(|(_, to)| [67, 68, 546, 547].contains(&to));
        let bits = frame.len() as u64 * 8;
        let falls_under = [
            (packet.is_none() || nd, 1, RateArpNd),
            (dhcp, 1, RateDhcp),
            (is_group(ethernet.destination), 1, RateBroadcast),
            (true, 1, RatePps),
            (true, bits, RateBps),
        ];
        for (bucket, (falls, tokens, reason)) in self.buckets[from].iter_mut().zip(falls_under) {
            if let Some(bucket) = bucket
                && falls
                && !bucket.take(now_ns, tokens)
            {
                return Err(reason);
            }
        }
        // "A frame to a trunk port carries the VID with which its destination address last sent
        // ARP, IPv4 or IPv6 that passed the filter and storm control."
        let address = match ethernet.ethertype {
            ARP => Some(ipv4_at(ethernet.payload, 14).into()),
            _ => packet.map(|packet| packet.source),
        };
        if let Some(address) = address {
            self.tags.insert((from, address), ethernet.tag);
        }
        Ok(())
    }
}
