//! The rows of "Metadata" in `docs/reference/services.md`.

use super::*;

/// Packets a second that a port may send there.
const PER_SECOND: u64 = 500;

/// "169.254.169.254 and fd00:ec2::254."
pub(super) fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip == Ipv4Addr::new(169, 254, 169, 254),
        IpAddr::V6(ip) => ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    }
}

impl Model {
    /// Whether the switch serves metadata at `address` to that port.
    pub(super) fn serves_metadata(&self, from: usize, address: IpAddr) -> bool {
        let port = self.config.ports.get(from);
        port.is_some_and(|port| port.metadata.is_some()) && is_metadata(address)
    }

    /// "In this order"; `None` for packets to other addresses.
    pub(super) fn metadata(
        &mut self,
        from: usize,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        if !self.serves_metadata(from, packet.destination) {
            return None;
        }
        // Metadata 1
        if is_group(ethernet.destination) {
            return Some(DstMac.into());
        }
        // Metadata 2
        let is_plain = match packet.source {
            IpAddr::V4(_) => true,
            IpAddr::V6(_) => packet.whole.len() == 40 + packet.payload.len(),
        };
        let to_http = packet.fragment == Fragment::No
            && packet.transport() == Some(TCP)
            && be16(packet.payload, 2) == 80;
        if !(to_http && is_plain && packet.whole.len() <= 1500) {
            return Some(GatewayService.into());
        }
        // Metadata 3
        let bucket = &mut self.metadata_buckets[from];
        if !bucket.take(self.now_ns, 1) {
            return Some(MetadataRate.into());
        }
        // Metadata 4
        self.passed.push((from, packet.whole.to_vec()));
        Some(Absorbed.into())
    }

    pub(super) fn metadata_bucket() -> Bucket {
        Bucket::new(PER_SECOND)
    }

    /// What was passed on to be served since it was asked last: the port and the packet.
    pub(crate) fn passed(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.passed)
    }
}
