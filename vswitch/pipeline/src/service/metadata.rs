//! Metadata for cloud images: a VM's TCP packets to its addresses are passed on to the thread that
//! serves it. `docs/reference/services.md` is the specification.

use packet::wire::{ETHERNET_LEN, Fragment, Ipv4, Ipv6, Packet, Transport, be16};
use packet::{DropReason, Frame, addr};

use crate::metadata::PACKET_MAX;
use crate::pass::{Outcome, Pass};
use crate::stage::{Notes, Stage};
use crate::tables::PortRules;

/// The TCP port of metadata.
const HTTP: u16 = 80;
/// Packets a second that a port may send to it. A boot takes some two hundred.
const PACKETS_PER_SECOND: u64 = 500;

impl<N: Notes> Pass<'_, N> {
    /// Takes a packet to the metadata's address; `None` for any other, and where the port has none.
    #[inline(always)]
    pub(super) fn serve_metadata4(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv4),
        frame: &Frame<'_>,
    ) -> Option<Outcome> {
        if !rules.metadata || ip.destination != addr::METADATA4 {
            return None;
        }
        let is_tcp = ip.transport == Transport::Tcp && ip.fragment == Fragment::Whole;
        let place = (usize::from(ip.header_len), usize::from(ip.total_len));
        let place = Some(place).filter(|_| is_tcp);
        Some(self.punt_metadata(rules, packet, place, frame))
    }

    /// As [`Self::serve_metadata4`].
    #[inline(always)]
    pub(super) fn serve_metadata6(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv6),
        frame: &Frame<'_>,
    ) -> Option<Outcome> {
        if !rules.metadata || ip.destination != addr::METADATA6 {
            return None;
        }
        // Without extension headers.
        let plain = usize::from(ip.upper_at) == packet::wire::ipv6::HEADER_LEN;
        let is_tcp = ip.transport == Transport::Tcp && plain;
        let place = Some((usize::from(ip.upper_at), ip.total_len)).filter(|_| is_tcp);
        Some(self.punt_metadata(rules, packet, place, frame))
    }

    /// Passes a packet on, if it is TCP to the port of HTTP. `place` says where a TCP header begins
    /// and how long the packet is.
    #[inline(never)]
    fn punt_metadata(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        place: Option<(usize, usize)>,
        frame: &Frame<'_>,
    ) -> Outcome {
        let reason = self.try_punt_metadata(rules, packet, place, frame);
        let reason = reason.err().unwrap_or(DropReason::Absorbed);
        if reason == DropReason::Absorbed {
            self.notes
                .note(Stage::Service, format_args!("metadata: passed on"));
        }
        self.refuse(Stage::Service, reason)
    }

    fn try_punt_metadata(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        place: Option<(usize, usize)>,
        frame: &Frame<'_>,
    ) -> Result<(), DropReason> {
        use DropReason::{DstMac, GatewayService, MetadataRate};
        if packet.group {
            return Err(DstMac);
        }
        let (tcp_at, len) = place.ok_or(GatewayService)?;
        let bytes = frame.bytes().get(ETHERNET_LEN..ETHERNET_LEN + len);
        let bytes = bytes.filter(|bytes| bytes.len() <= PACKET_MAX);
        let bytes = bytes.ok_or(GatewayService)?;
        let ports = bytes.get(tcp_at..tcp_at + 4).ok_or(GatewayService)?;
        if be16(ports.first_chunk::<4>().ok_or(GatewayService)?, 2) != HTTP {
            return Err(GatewayService);
        }
        let port = self.state.port(rules.id);
        if !port.metadata.take(self.now_ns, PACKETS_PER_SECOND, 1) {
            return Err(MetadataRate);
        }
        match &self.state.metadata {
            Some(channel) if channel.punt(rules.mac, bytes) => Ok(()),
            _ => Err(MetadataRate),
        }
    }
}
