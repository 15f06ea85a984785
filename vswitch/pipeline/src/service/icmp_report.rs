//! What hosts and routers of the underlay report about packets of the tunnel: that one was too big,
//! or did not get there.
//!
//! Anybody may send a report: another tenant's VM too. So it is believed only of a packet that was
//! sent lately, and only if it shows the source port that this packet had, which nobody knows who
//! has not seen it. A smaller path MTU changes what the switch does; that an endpoint cannot be
//! reached is only shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::wire::icmp::{self, Report, Said, Unreachable};
use packet::wire::quote::{Carried, Quoted};
use packet::wire::{ETHERNET_LEN, Ipv4, Ipv6};
use packet::{DropReason, Frame};

use crate::counters::ReportRejection as Rejection;
use crate::ids::VtepId;
use crate::pass::{Pass, Side};
use crate::stage::{Notes, Stage};
use crate::state::Reported;
use crate::tables::{Target, Tunnel};
use crate::trouble::Undelivered;

impl<N: Notes> Pass<'_, N> {
    /// Judges a report: "Path MTU" and "Unreachable" of "Beside the tunnel". Returns the reason of
    /// its drop; `None` if the packet is no report.
    #[cold]
    pub(super) fn judge_report4(
        &mut self,
        side: Side<'_>,
        ip: &Ipv4,
        frame: &Frame<'_>,
    ) -> Option<DropReason> {
        let report = icmp::report4(ip, frame.bytes().get(ETHERNET_LEN..)?)?;
        self.judge_report(side, Ipv4Addr::from_bits(ip.source).into(), &report)
    }

    /// As [`Self::judge_report4`].
    #[cold]
    pub(super) fn judge_report6(
        &mut self,
        side: Side<'_>,
        ip: &Ipv6,
        frame: &Frame<'_>,
    ) -> Option<DropReason> {
        let report = icmp::report6(ip, frame.bytes().get(ETHERNET_LEN..)?)?;
        self.judge_report(side, Ipv6Addr::from_bits(ip.source).into(), &report)
    }

    fn judge_report(
        &mut self,
        side: Side<'_>,
        from: IpAddr,
        report: &Report<'_>,
    ) -> Option<DropReason> {
        let (Side::Uplink(_), Some(tunnel)) = (side, &self.tables.tunnel) else {
            return None;
        };
        let (counters, what) = match report.said {
            Said::TooBig { .. } => (&self.counters.path_mtu, "path MTU"),
            Said::Unreachable(_) => (&self.counters.unreachable, "unreachable"),
        };
        match self.believe(tunnel, from, report) {
            Ok(news) => {
                if news {
                    counters.believed.add(1);
                }
                Some(DropReason::Absorbed)
            }
            Err(why) => {
                counters.rejected(why).add(1);
                self.notes.note(
                    Stage::Service,
                    format_args!("{what} rejected: {}", why.help()),
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

    /// Believes a report, unless there is a reason against it. Returns whether it says anything
    /// new.
    fn believe(
        &mut self,
        tunnel: &Tunnel,
        from: IpAddr,
        report: &Report<'_>,
    ) -> Result<bool, Rejection> {
        let quote = report.quote.ok_or(Rejection::Malformed)?;
        let vtep = self.witnessed(tunnel, from, (report.said, quote))?;
        let path = &mut self.state.paths[vtep.index()];
        match report.said {
            Said::TooBig { mtu } => match path.reported(tunnel, mtu, self.now_ns) {
                Reported::TooSmall => Err(Rejection::TooSmall),
                reported => Ok(reported == Reported::Lowered),
            },
            Said::Unreachable(why) => {
                path.undelivered = Some(Undelivered {
                    why,
                    from,
                    at_ns: self.now_ns,
                });
                self.note_unreachable(why);
                Ok(true)
            }
        }
    }

    fn note_unreachable(&mut self, why: Unreachable) {
        self.notes.note(
            Stage::Service,
            format_args!("the endpoint is unreachable: {}", why.name()),
        );
    }

    /// The endpoint to which the quoted packet went, if the quote shows that its sender has seen
    /// the packet.
    fn witnessed(
        &mut self,
        tunnel: &Tunnel,
        from: IpAddr,
        (said, quote): (Said, &[u8]),
    ) -> Result<VtepId, Rejection> {
        let carrier = &tunnel.carrier;
        let endpoint = carrier.quoted_endpoint(quote).ok_or(Rejection::Quote)?;
        let vtep = tunnel.endpoint_at(endpoint).ok_or(Rejection::Quote)?;
        if tunnel.vtep(vtep).protected {
            return self.witnessed_esp((tunnel, vtep), from, (said, quote));
        }
        let template = &tunnel.vtep(vtep).template;
        let quoted = carrier.quoted(template, quote);
        let quoted = quoted.ok_or(Rejection::Quote)?;
        let carried = carrier.carried(template, &quoted);
        let carried = carried.map_err(|_| Rejection::Quote)?;
        // Of the source ports of small packets, none is remembered.
        let shows_nothing = carried.is_none() && matches!(said, Said::Unreachable(_));
        if shows_nothing
            || fits(said, quoted.outer_len)
            || !self.sends(tunnel, vtep, &quoted, carried)
        {
            return Err(Rejection::Quote);
        }
        let path = &mut self.state.paths[vtep.index()];
        let is_small = quoted.len <= usize::from(tunnel.min_len(false));
        if !may_be_small(said, is_small) && !path.sent.reaches(quoted.len, self.now_ns) {
            return Err(Rejection::Unsent);
        }
        let guesses = self.state.guesses.about(said);
        let source = guessing_source(from);
        if guesses.distrusts(source, self.now_ns) {
            return Err(Rejection::Distrusted);
        }
        let right = match carried {
            Some(carried) => carried.source_port == quoted.source_port,
            None => path.sent.has(quoted.len, quoted.source_port, self.now_ns),
        };
        if !right {
            guesses.wrong(source, self.now_ns);
            return Err(Rejection::SourcePort);
        }
        Ok(vtep)
    }

    /// As [`Self::witnessed`], of a packet under IPsec: its SPI takes the place of the source port.
    fn witnessed_esp(
        &mut self,
        (tunnel, vtep): (&Tunnel, VtepId),
        from: IpAddr,
        (said, quote): (Said, &[u8]),
    ) -> Result<VtepId, Rejection> {
        let quoted = tunnel.carrier.quoted_esp(quote);
        let quoted = quoted.ok_or(Rejection::Quote)?;
        let source = guessing_source(from);
        let guesses = self.state.guesses.about(said);
        let sas = self.state.ipsec.sas.as_ref();
        let sa = sas.and_then(|sas| sas.outbound(vtep, quoted.spi));
        let Some(sa) = sa else {
            if guesses.distrusts(source, self.now_ns) {
                return Err(Rejection::Distrusted);
            }
            guesses.wrong(source, self.now_ns);
            return Err(Rejection::Spi);
        };
        let least = sa.carried(tunnel.carrier.overhead(), &quoted);
        let fits = fits(said, quoted.outer_len);
        let least = least.filter(|_| !fits && sa.has_used(quoted.sequence));
        let least = least.ok_or(Rejection::Quote)?;
        let path = &mut self.state.paths[vtep.index()];
        let is_small = least <= usize::from(tunnel.min_len(true));
        if !may_be_small(said, is_small) && !path.sent.reaches(least, self.now_ns) {
            return Err(Rejection::Unsent);
        }
        if guesses.distrusts(source, self.now_ns) {
            return Err(Rejection::Distrusted);
        }
        Ok(vtep)
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

/// Whether nobody reports that of a packet of so many bytes.
fn fits(said: Said, outer_len: usize) -> bool {
    match said {
        Said::TooBig { mtu } => usize::try_from(mtu).is_ok_and(|mtu| outer_len <= mtu),
        Said::Unreachable(_) => false,
    }
}

/// Whether that may be said of a packet although it is not remembered when so small a one was sent.
fn may_be_small(said: Said, is_small: bool) -> bool {
    is_small && matches!(said, Said::Unreachable(_))
}

/// What guesses are counted for. Who has one address of an IPv6 link has all of them.
fn guessing_source(from: IpAddr) -> u128 {
    match from {
        IpAddr::V4(from) => from.to_bits().into(),
        IpAddr::V6(from) => from.to_bits() >> 64,
    }
}
