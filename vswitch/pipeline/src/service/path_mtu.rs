//! Path MTU: what routers of the underlay report about packets of the tunnel.
//!
//! A report changes what the switch does, and anybody may send one: another tenant's VM too. So it
//! is believed only of a packet that was sent lately, and only if it shows the source port that
//! this packet had, which nobody knows who has not seen it.

use std::net::IpAddr;

use packet::wire::icmp::{self, NotTooBig, TooBig};
use packet::wire::quote::{Carried, Quoted};
use packet::wire::{ETHERNET_LEN, Ipv4, Ipv6};
use packet::{DropReason, Frame};

use crate::counters::PathMtuRejection as Rejection;
use crate::ids::VtepId;
use crate::pass::{Pass, Side};
use crate::stage::{Notes, Stage};
use crate::state::Reported;
use crate::tables::{Target, Tunnel};

impl<N: Notes> Pass<'_, N> {
    /// Judges a report of a router: "Path MTU" of "Beside the tunnel". Returns the reason of its
    /// drop; `None` if the packet is no report.
    #[cold]
    pub(super) fn judge_path_mtu4(
        &mut self,
        side: Side<'_>,
        ip: &Ipv4,
        frame: &Frame<'_>,
    ) -> Option<DropReason> {
        let report = icmp::too_big4(ip, frame.bytes().get(ETHERNET_LEN..)?);
        self.judge_path_mtu(side, u128::from(ip.source), report)
    }

    /// As [`Self::judge_path_mtu4`].
    #[cold]
    pub(super) fn judge_path_mtu6(
        &mut self,
        side: Side<'_>,
        ip: &Ipv6,
        frame: &Frame<'_>,
    ) -> Option<DropReason> {
        let report = icmp::too_big6(ip, frame.bytes().get(ETHERNET_LEN..)?);
        // Who has one address of a link has all of them.
        self.judge_path_mtu(side, ip.source >> 64, report)
    }

    fn judge_path_mtu(
        &mut self,
        side: Side<'_>,
        from: u128,
        report: Result<TooBig<'_>, NotTooBig>,
    ) -> Option<DropReason> {
        let (Side::Uplink(_), Some(tunnel)) = (side, &self.tables.tunnel) else {
            return None;
        };
        let judged = match report {
            Ok(report) => self.believe(tunnel, from, &report),
            Err(NotTooBig::Malformed) => Err(Rejection::Malformed),
            Err(NotTooBig::Other) => return None,
        };
        let counters = &self.counters.path_mtu;
        match judged {
            Ok(reported) => {
                if reported == Reported::Lowered {
                    counters.believed.add(1);
                }
                Some(DropReason::Absorbed)
            }
            Err(why) => {
                counters.rejected(why).add(1);
                self.notes.note(
                    Stage::Service,
                    format_args!("path MTU rejected: {}", why.help()),
                );
                // The router is right, and the switch does not follow.
                let genuine = why == Rejection::TooSmall;
                Some(match genuine {
                    true => DropReason::Absorbed,
                    false => DropReason::GatewayService,
                })
            }
        }
    }

    /// Believes a report, unless there is a reason against it.
    fn believe(
        &mut self,
        tunnel: &Tunnel,
        from: u128,
        report: &TooBig<'_>,
    ) -> Result<Reported, Rejection> {
        let carrier = &tunnel.carrier;
        let endpoint = carrier.quoted_endpoint(report).ok_or(Rejection::Quote)?;
        let vtep = tunnel.endpoint_at(endpoint).ok_or(Rejection::Quote)?;
        if tunnel.vtep(vtep).protected {
            return self.believe_esp((tunnel, vtep), from, report);
        }
        let template = &tunnel.vtep(vtep).template;
        let quoted = carrier.quoted(template, report.quote);
        let quoted = quoted.ok_or(Rejection::Quote)?;
        let carried = carrier.carried(template, &quoted);
        let carried = carried.map_err(|_| Rejection::Quote)?;
        let fits = usize::try_from(report.mtu).is_ok_and(|mtu| quoted.outer_len <= mtu);
        if fits || !self.sends(tunnel, vtep, &quoted, carried) {
            return Err(Rejection::Quote);
        }
        let path = &mut self.state.paths[vtep.index()];
        if !path.sent.reaches(quoted.len, self.now_ns) {
            return Err(Rejection::Unsent);
        }
        let guesses = &mut self.state.guesses;
        if guesses.distrusts(from, self.now_ns) {
            return Err(Rejection::Distrusted);
        }
        let right = match carried {
            Some(carried) => carried.source_port == quoted.source_port,
            None => path.sent.has(quoted.len, quoted.source_port, self.now_ns),
        };
        if !right {
            guesses.wrong(from, self.now_ns);
            return Err(Rejection::SourcePort);
        }
        match path.reported(tunnel, report.mtu, self.now_ns) {
            Reported::TooSmall => Err(Rejection::TooSmall),
            reported => Ok(reported),
        }
    }

    /// As [`Self::believe`], of a packet under IPsec: its SPI takes the place of the source port.
    fn believe_esp(
        &mut self,
        (tunnel, vtep): (&Tunnel, VtepId),
        from: u128,
        report: &TooBig<'_>,
    ) -> Result<Reported, Rejection> {
        let quoted = tunnel.carrier.quoted_esp(report.quote);
        let quoted = quoted.ok_or(Rejection::Quote)?;
        let sas = self.state.ipsec.sas.as_ref();
        let sa = sas.and_then(|sas| sas.outbound(vtep, quoted.spi));
        let Some(sa) = sa else {
            let guesses = &mut self.state.guesses;
            if guesses.distrusts(from, self.now_ns) {
                return Err(Rejection::Distrusted);
            }
            guesses.wrong(from, self.now_ns);
            return Err(Rejection::Spi);
        };
        let fits = usize::try_from(report.mtu).is_ok_and(|mtu| quoted.outer_len <= mtu);
        let least = sa.carried(tunnel.carrier.overhead(), &quoted);
        let least = least.filter(|_| !fits && sa.has_used(quoted.sequence));
        let least = least.ok_or(Rejection::Quote)?;
        let path = &mut self.state.paths[vtep.index()];
        if !path.sent.reaches(least, self.now_ns) {
            return Err(Rejection::Unsent);
        }
        if self.state.guesses.distrusts(from, self.now_ns) {
            return Err(Rejection::Distrusted);
        }
        match path.reported(tunnel, report.mtu, self.now_ns) {
            Reported::TooSmall => Err(Rejection::TooSmall),
            reported => Ok(reported),
        }
    }

    /// Whether the switch sends such a packet to that endpoint, as far as the quote shows it: from
    /// the tenant to a VM of that peer.
    fn sends(
        &mut self,
        tunnel: &Tunnel,
        vtep: VtepId,
        quoted: &Quoted<'_>,
        carried: Option<Carried>,
    ) -> bool {
        let to_peer = |mac: [u8; 6]| {
            let mut peers = tunnel.peers().iter();
            peers.any(|peer| peer.vtep == vtep && peer.mac == mac)
        };
        let between_tunnel_sides =
            |(to, from): ([u8; 6], [u8; 6])| from == tunnel.mac && to_peer(to);
        if !quoted.macs().is_none_or(between_tunnel_sides) {
            return false;
        }
        let Some(carried) = carried else {
            return true;
        };
        let (source, destination) = match (carried.source, carried.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (
                self.state.route4(self.tables, from.to_bits(), self.now_ns),
                self.tables.route4(to.to_bits()),
            ),
            (IpAddr::V6(from), IpAddr::V6(to)) => (
                self.state.route6(self.tables, from.to_bits()),
                self.tables.route6(to.to_bits()),
            ),
            _ => return false,
        };
        let ours = matches!(
            source,
            Some(Target::Port(_) | Target::Shared(_) | Target::Gateway)
        );
        let behind = |id| {
            let peer = tunnel.peer(id);
            peer.vtep == vtep && quoted.macs().is_some_and(|(to, _)| to == peer.mac)
        };
        ours && matches!(destination, Some(Target::Peer(id)) if behind(id))
    }
}
