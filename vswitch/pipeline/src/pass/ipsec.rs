//! IPsec: ESP is opened, and IKE passed on to whoever negotiates. `docs/reference/ipsec.md` has the
//! rows.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use esp::Phase;
use packet::number::protocol;
use packet::wire::ecn::Ecn;
use packet::wire::esp::{self as format, Marked};
use packet::wire::tunnel::{Outer, UDP_LEN};
use packet::wire::{ETHERNET_LEN, Fragment, Packet, be16, ipv4, ipv6};
use packet::{DropReason, Frame};

use super::{Outcome, Pass, Side};
use crate::filter;
use crate::ids::VtepId;
use crate::ipsec::link::DATAGRAM_MAX;
use crate::ipsec::request::Mode;
use crate::ipsec::rules::{IKE_PORT, NAT_T_PORT};
use crate::peer_route::PeerRoute;
use crate::stage::{Notes, Stage};
use crate::state::Ipsec;
use crate::tables::{Tunnel, UplinkRules};

/// IKE datagrams a second of one endpoint. A negotiation takes some ten, and a switch has few peers
/// that renew at once.
const IKE_PER_SECOND: u64 = 50;
/// Bytes of an IKE header (RFC 7296, section 3.1).
const IKE_HEADER_LEN: usize = 28;

impl<'s, N: Notes> Pass<'s, N> {
    /// Opens an ESP packet: `packet` and `frame` are then the tunnel packet that it carried, and
    /// the endpoint is returned whose SA did. IKE and what cannot be opened ends here. Any other
    /// packet stays as it is.
    #[inline(always)]
    pub(crate) fn leave_ipsec(
        &mut self,
        side: Side<'s>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Outcome<Option<VtepId>> {
        let (Side::Uplink(uplink), Some(tunnel)) = (side, &self.tables.tunnel) else {
            return Ok(None);
        };
        if tunnel.ipsec.is_none() {
            return Ok(None);
        }
        let Some(outer) = Outer::of(&packet.ip) else {
            return Ok(None);
        };
        if outer.destination != tunnel.carrier.own() {
            return Ok(None);
        }
        let port = match (outer.upper, outer.udp) {
            (protocol::ESP, _) => None,
            (_, Some((_, to @ (IKE_PORT | NAT_T_PORT)))) => Some(to),
            _ => return Ok(None),
        };
        if packet.group {
            return self.refuse(Stage::Ipsec, DropReason::DstMac);
        }
        if outer.fragment != Fragment::Whole {
            return self.refuse(Stage::Ipsec, DropReason::EspFragment);
        }
        let ends = (uplink, tunnel);
        let Some(port) = port else {
            return self.open_esp(ends, &outer, false, frame, packet);
        };
        let bytes = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        let payload = bytes.get(outer.upper_at + UDP_LEN..outer.len);
        match Marked::of(payload.unwrap_or_default()) {
            _ if port == IKE_PORT => self.punt(tunnel, &outer, 0, frame),
            Marked::Ike => self.punt(tunnel, &outer, Marked::MARKER_LEN, frame),
            Marked::Esp => self.open_esp(ends, &outer, true, frame, packet),
            Marked::Keepalive => self.refuse(Stage::Ipsec, DropReason::Absorbed),
            Marked::Nothing => self.refuse(Stage::Ipsec, DropReason::EspMalformed),
        }
    }

    #[inline(never)]
    fn open_esp(
        &mut self,
        ends: (&UplinkRules, &Tunnel),
        outer: &Outer,
        in_udp: bool,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Outcome<Option<VtepId>> {
        match self.try_open(ends, outer, in_udp, frame, packet) {
            Ok(vtep) => Ok(Some(vtep)),
            Err(reason) => self.refuse(Stage::Ipsec, reason),
        }
    }

    /// Rows 2 to 10 of "ESP".
    fn try_open(
        &mut self,
        (uplink, tunnel): (&UplinkRules, &Tunnel),
        outer: &Outer,
        in_udp: bool,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Result<VtepId, DropReason> {
        use DropReason::{EspExpired, EspMalformed, EspPeer, EspSelector, EspSpi};
        let place = place(outer, in_udp, frame.bytes()).ok_or(EspMalformed)?;
        let ecn = Ecn::of(&frame.bytes()[ETHERNET_LEN..]);
        let bytes = frame
            .bytes_mut()
            .get_mut(place.clone())
            .ok_or(EspMalformed)?;
        let spi = esp::spi(bytes).ok_or(EspMalformed)?;
        let sas = self.state.ipsec.sas.as_mut().ok_or(EspSpi)?;
        let sa = sas.inbound(spi).ok_or(EspSpi)?;
        let (request, vtep) = (sa.common.request, sa.common.vtep);
        if request.peer != outer.source {
            return Err(EspPeer);
        }
        if sa.common.phase(self.now_ns) == Phase::Expired {
            return Err(EspExpired);
        }
        let opened = sa.open(bytes, self.now_ns)?;
        let selected = request
            .ports()
            .select_datagram(&bytes[opened.begin..opened.end]);
        let suite = sa.esp.suite();
        self.notes.note(
            Stage::Ipsec,
            format_args!(
                "out of ESP: SPI {spi:#010x}, {suite}, sequence number {}, {} bytes",
                opened.sequence,
                opened.end - opened.begin
            ),
        );
        let payload = place.start + opened.begin..place.start + opened.end;
        let family = match outer.source {
            IpAddr::V4(_) => protocol::IPV4,
            IpAddr::V6(_) => protocol::IPV6,
        };
        match (request.mode, opened.next_header) {
            (Mode::Transport, protocol::UDP) if selected => {
                format::unwrap_transport(frame, outer.upper_at, payload);
                if in_udp {
                    format::renew_udp_checksum(frame, outer.upper_at);
                }
            }
            (Mode::Tunnel, inside) if inside == family => format::unwrap_tunnel(frame, payload),
            _ => return Err(EspSelector),
        }
        filter::from_uplink(self.tables, uplink, frame, packet)?;
        let inside = Outer::of(&packet.ip).ok_or(EspSelector)?;
        if !request.selects(tunnel.carrier.own(), &inside) {
            return Err(EspSelector);
        }
        if request.mode == Mode::Tunnel {
            let packet = &mut frame.bytes_mut()[ETHERNET_LEN..];
            let combined = Ecn::within(Ecn::of(packet), ecn);
            combined.ok_or(DropReason::TunnelEcn)?.write(packet);
        }
        Ok(vtep)
    }

    /// Passes an IKE datagram on; `marker` is what lies in front of it.
    #[inline(never)]
    fn punt(
        &mut self,
        tunnel: &Tunnel,
        outer: &Outer,
        marker: usize,
        frame: &Frame<'_>,
    ) -> Outcome<Option<VtepId>> {
        let reason = self.try_punt(tunnel, outer, marker, frame);
        let reason = reason.err().unwrap_or(DropReason::Absorbed);
        if reason == DropReason::Absorbed {
            self.notes
                .note(Stage::Ipsec, format_args!("IKE: passed on"));
        }
        self.refuse(Stage::Ipsec, reason)
    }

    /// The rows of "IKE".
    fn try_punt(
        &mut self,
        tunnel: &Tunnel,
        outer: &Outer,
        marker: usize,
        frame: &Frame<'_>,
    ) -> Result<(), DropReason> {
        use DropReason::{IkeMalformed, IkePeer, IkeRate};
        let vtep = tunnel.endpoint_at(outer.source).ok_or(IkePeer)?;
        if !tunnel.vtep(vtep).protected {
            return Err(IkePeer);
        }
        let packet = frame.bytes().get(ETHERNET_LEN..ETHERNET_LEN + outer.len);
        let datagram = format::sound_datagram(packet.ok_or(IkeMalformed)?, outer.upper_at);
        let message = datagram.and_then(|datagram| datagram.get(marker..));
        let message = message.ok_or(IkeMalformed)?;
        if !(IKE_HEADER_LEN..=DATAGRAM_MAX).contains(&message.len()) {
            return Err(IkeMalformed);
        }
        let Ipsec {
            sas: Some(sas),
            channel: Some(channel),
        } = &mut *self.state.ipsec
        else {
            return Err(IkeRate);
        };
        let endpoint = sas.endpoints.get_mut(vtep.index()).ok_or(IkePeer)?;
        if !endpoint.ike.take(self.now_ns, IKE_PER_SECOND, 1) {
            return Err(IkeRate);
        }
        let (from, to) = outer.udp.ok_or(IkeMalformed)?;
        let from = SocketAddr::new(outer.source, from);
        let to = SocketAddr::new(outer.destination, to);
        match channel.punt(from, to, message) {
            true => Ok(()),
            false => Err(IkeRate),
        }
    }

    /// Notices that an endpoint has no SA.
    #[cold]
    pub(super) fn acquire(&mut self, tunnel: &Tunnel, vtep: VtepId) {
        let peer = tunnel.vtep(vtep).address;
        self.state.ipsec.acquire(vtep, peer, self.now_ns);
    }

    /// Says by which SA a packet was sealed.
    #[inline(always)]
    pub(super) fn note_sealed(&mut self, route: &PeerRoute<'_>) {
        let Some(vtep) = route.sealed else {
            return;
        };
        if let Some(sa) = self.state.ipsec.sas.as_ref().and_then(|sas| sas.peek(vtep)) {
            let (spi, suite, sequence) = (sa.esp.spi(), sa.esp.suite(), sa.esp.sequence());
            self.notes.note(
                Stage::Ipsec,
                format_args!("into ESP: SPI {spi:#010x}, {suite}, sequence number {sequence}"),
            );
        }
    }
}

/// The place of an ESP packet in the frame. `None` if it is behind options or extension headers, or
/// UDP has another length than IP.
#[inline]
fn place(outer: &Outer, in_udp: bool, frame: &[u8]) -> Option<Range<usize>> {
    let plain = match outer.source {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    if outer.upper_at != plain {
        return None;
    }
    let (mut begin, end) = (ETHERNET_LEN + plain, ETHERNET_LEN + outer.len);
    if in_udp {
        let udp = frame.get(begin..end)?;
        if usize::from(be16(udp.first_chunk::<UDP_LEN>()?, 4)) != udp.len() {
            return None;
        }
        begin += UDP_LEN;
    }
    Some(begin..end)
}
