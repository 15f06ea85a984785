//! The order of the stages.

use packet::wire::{Ip, Packet};
use packet::{DropReason, Frame, addr};

use crate::filter;
use crate::ids::VtepId;
use crate::pass::{Outcome, Pass, Side};
use crate::service::Served;
use crate::stage::{Notes, Stage};
use crate::storm;
use crate::tables::PortRules;

impl<'s, N: Notes> Pass<'s, N> {
    /// Decides on one frame: every stage, in order. A frame may leave at any of them. `rules` are
    /// those of the tenant's port that it came from; `None` for the uplink. `sealed_by` is the
    /// endpoint whose SA carried it, if it is opened already.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        rules: Option<&'s PortRules>,
        sealed_by: Option<VtepId>,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let received = frame.len();
        let mut packet = Packet::empty();
        let side = self.filter(rules, frame, &mut packet)?; // Stage::Filter
        self.limit(side, &packet, received)?; // Stage::Storm
        self.fit(side, &packet, received, frame)?; // Stage::Route
        let sealed_by = match sealed_by {
            Some(vtep) => Some(vtep),
            None => self.leave_ipsec(side, frame, &mut packet)?, // Stage::Ipsec
        };
        let side = self.leave_tunnel(side, sealed_by, frame, &mut packet)?; // Stage::Tunnel
        match &packet.ip {
            Ip::V4(ip) => {
                let ip = (side, &packet, ip);
                let target = match self.serve4(ip, frame)? {
                    Served::Unserved(target) => target,
                    Served::Answered(sent) => return Ok(sent), // Stage::Service
                };
                if self.is_to_group4(ip.2, target) {
                    return self.send_group4(ip, frame); // Stage::Route
                }
                let egress = self.route4(ip, target, frame)?; // Stage::Route
                self.send4(side, ip.2, egress, frame) // Stage::Rewrite or Stage::Tunnel
            }
            Ip::V6(ip) => {
                let ip = (side, &packet, ip);
                let target = match self.serve6(ip, frame)? {
                    Served::Unserved(target) => target,
                    Served::Answered(sent) => return Ok(sent),
                };
                if self.is_to_group6(ip.2) {
                    return self.send_group6(side, ip.2, frame);
                }
                let egress = self.route6(ip, target, frame)?;
                self.send6(side, ip.2, egress, frame)
            }
            Ip::Arp(arp) => self.serve_arp(side, &packet, arp, frame),
            Ip::Rarp => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    /// The spoof filter. Writes what it accepts to `packet`.
    #[inline(always)]
    fn filter(
        &mut self,
        rules: Option<&'s PortRules>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Outcome<Side<'s>> {
        let side = match (rules, &self.tables.uplink) {
            (Some(rules), _) => {
                let leased = if rules.learns {
                    self.state.lease(self.tables, rules.id).address(self.now_ns)
                } else {
                    None
                };
                let known = (self.tables, &*self.state, self.now_ns);
                match filter::from_port(known, (rules, leased), frame, packet) {
                    Ok(()) => Side::Port(rules),
                    Err(reason) => return self.refuse(Stage::Filter, reason),
                }
            }
            (None, Some(uplink)) => match filter::from_uplink(self.tables, uplink, frame, packet) {
                Ok(()) => Side::Uplink(uplink),
                Err(reason) => {
                    if reason == DropReason::IngressSource {
                        self.hear_refused6(frame);
                    }
                    return self.refuse(Stage::Filter, reason);
                }
            },
            (None, None) => return self.refuse(Stage::Filter, DropReason::RouteNone),
        };
        self.notes
            .note(Stage::Filter, format_args!("pass: {packet}"));
        Ok(side)
    }

    /// Storm control; then the tags of trunk ports and the claims of addresses, which only frames
    /// within the limits may change.
    #[inline(always)]
    fn limit(&mut self, side: Side<'_>, packet: &Packet, received: usize) -> Outcome<()> {
        let Side::Port(rules) = side else {
            return Ok(());
        };
        let port = &mut self.state.ports[rules.id.index()];
        if rules.limited {
            let admitted = storm::admit(
                &mut port.storm,
                &rules.limits,
                self.now_ns,
                packet,
                received,
            );
            if let Err(reason) = admitted {
                return self.refuse(Stage::Storm, reason);
            }
            self.notes
                .note(Stage::Storm, format_args!("pass: within the port's limits"));
        }
        if let Some(tags) = &mut port.tags {
            tags.learn(packet.ip.source(), packet.vid);
        }
        if let Ip::V6(ip) = &packet.ip
            && (addr::is_link_local6(ip.source) && ip.source != rules.link_local
                || rules.learns6 && self.tables.is_free6(ip.source))
        {
            // The filter has let pass what may be claimed.
            self.state.claim(rules.id, ip.source, self.now_ns);
        }
        Ok(())
    }
}
