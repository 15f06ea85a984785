//! Drops that the sender is informed of by ICMP.

use packet::wire::icmp::{self, IcmpError};
use packet::wire::{Ipv4, Ipv6, Packet};
use packet::{DropReason, Frame};

use super::reply::with_tag;
use super::{Outcome, Pass, Refusal, Side};
use crate::stage::{Notes, Stage};
use crate::tables::PortRules;

/// ICMP errors per second and port; the uplink with all peers is one.
const ICMP_ERRORS_PER_SECOND: u64 = 100;

/// Why a packet is dropped, and the error that its sender receives.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) reason: DropReason,
    pub(crate) error: Option<IcmpError>,
}

impl Refused {
    /// Without an error.
    #[inline(always)]
    pub(crate) const fn silently(reason: DropReason) -> Self {
        Self {
            reason,
            error: None,
        }
    }

    #[inline(always)]
    pub(crate) const fn with(reason: DropReason, error: IcmpError) -> Self {
        Self {
            reason,
            error: Some(error),
        }
    }
}

impl Refused {
    fn is_too_big(&self) -> bool {
        matches!(self.error, Some(IcmpError::TooBig { .. }))
    }
}

impl<N: Notes> Pass<'_, N> {
    /// Drops the packet and, where IP asks for it and the rate allows, informs its sender; senders
    /// outside only of packets that are too large.
    #[cold]
    pub(crate) fn report4<T>(
        &mut self,
        stage: Stage,
        (side, packet, ip): (Side<'_>, &Packet, &Ipv4),
        frame: &mut Frame<'_>,
        refused: Refused,
    ) -> Outcome<T> {
        let error = refused.error.filter(|_| icmp::may_be_reported4(ip));
        let Side::Port(rules) = side else {
            let build = error
                .zip(self.source_outside4(side, ip))
                .map(|(error, own)| {
                    let from = (side.own_mac(), own);
                    move |frame: &mut Frame<'_>| icmp::error4(frame, from, ip, error)
                });
            let build = build.filter(|_| refused.is_too_big());
            return self.report_outside(stage, (side, packet), frame, refused.reason, build);
        };
        let build = error.zip(self.tables.gateway4).map(|(error, gateway)| {
            let from = (rules.gateway_mac, gateway);
            move |frame: &mut Frame<'_>| icmp::error4(frame, from, ip, error)
        });
        self.report(stage, rules, packet, frame, refused.reason, build)
    }

    /// As [`Self::report4`].
    #[cold]
    pub(crate) fn report6<T>(
        &mut self,
        stage: Stage,
        (side, packet, ip): (Side<'_>, &Packet, &Ipv6),
        frame: &mut Frame<'_>,
        refused: Refused,
    ) -> Outcome<T> {
        let error = refused.error.filter(|_| icmp::may_be_reported6(ip));
        let Side::Port(rules) = side else {
            let build = error
                .zip(self.source_outside6(side, ip))
                .map(|(error, own)| {
                    let from = (side.own_mac(), own);
                    move |frame: &mut Frame<'_>| icmp::error6(frame, from, ip, error)
                });
            let build = build.filter(|_| refused.is_too_big());
            return self.report_outside(stage, (side, packet), frame, refused.reason, build);
        };
        let build = error.zip(self.tables.gateway6).map(|(error, gateway)| {
            let from = (rules.gateway_mac, gateway);
            move |frame: &mut Frame<'_>| icmp::error6(frame, from, ip, error)
        });
        self.report(stage, rules, packet, frame, refused.reason, build)
    }

    /// Whence an error goes to a sender outside. A peer's switch takes from us only what the
    /// tenant's ports have, and not its own gateway's address.
    fn source_outside4(&self, side: Side<'_>, ip: &Ipv4) -> Option<u32> {
        match side {
            Side::Peer(_) => Some(ip.destination),
            _ => self.tables.gateway4,
        }
    }

    /// As [`Self::source_outside4`].
    fn source_outside6(&self, side: Side<'_>, ip: &Ipv6) -> Option<u128> {
        match side {
            Side::Peer(_) => Some(ip.destination),
            _ => self.tables.gateway6,
        }
    }

    /// Drops the packet of a sender outside; `build` turns it into the ICMP error, if one is due.
    fn report_outside<T>(
        &mut self,
        stage: Stage,
        (side, packet): (Side<'_>, &Packet),
        frame: &mut Frame<'_>,
        reason: DropReason,
        build: Option<impl FnOnce(&mut Frame<'_>) -> Option<()>>,
    ) -> Outcome<T> {
        let errors = match side {
            Side::Peer(from) => &mut self.state.peer_errors[from.id.index()],
            _ => &mut self.state.uplink_errors,
        };
        let reported = match build {
            Some(build) if !packet.group && errors.take(self.now_ns, ICMP_ERRORS_PER_SECOND, 1) => {
                let built = build(frame);
                match side {
                    Side::Peer(from) if built.is_some() => self.send_back(from, frame).is_ok(),
                    _ => with_tag(built, packet.vid, frame).is_some(),
                }
            }
            _ => false,
        };
        self.note_drop(stage, reason, reported);
        Err(Refusal { reason, reported })
    }

    fn note_drop(&mut self, stage: Stage, reason: DropReason, reported: bool) {
        let informed = if reported {
            "; the sender is told by ICMP"
        } else {
            ""
        };
        self.notes.note(
            stage,
            format_args!("drop {reason}: {}{informed}", reason.help()),
        );
    }

    /// Drops the frame, which has become the advertisement that another station has the address
    /// that it claims.
    #[cold]
    pub(crate) fn refuse_with(
        &mut self,
        stage: Stage,
        reason: DropReason,
        packet: &Packet,
        built: Option<()>,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let reported = with_tag(built, packet.vid, frame).is_some();
        self.notes.note(
            stage,
            format_args!("drop {reason}: {}; the address is defended", reason.help()),
        );
        Err(Refusal { reason, reported })
    }

    /// Drops the packet; `build` turns it into the ICMP error, if one is due.
    fn report<T>(
        &mut self,
        stage: Stage,
        rules: &PortRules,
        packet: &Packet,
        frame: &mut Frame<'_>,
        reason: DropReason,
        build: Option<impl FnOnce(&mut Frame<'_>) -> Option<()>>,
    ) -> Outcome<T> {
        let errors = &mut self.state.port(rules.id).icmp_errors;
        let reported = match build {
            Some(build) if !packet.group && errors.take(self.now_ns, ICMP_ERRORS_PER_SECOND, 1) => {
                let built = build(frame);
                with_tag(built, packet.vid, frame).is_some()
            }
            _ => false,
        };
        self.note_drop(stage, reason, reported);
        Err(Refusal { reason, reported })
    }
}
