//! Packets to the switch's own addresses: ICMP echo and DNS are answered, and nothing else is
//! served there.

use packet::number::icmpv6;
use packet::wire::icmp::{self, IcmpError};
use packet::wire::{ETHERNET_LEN, Ipv4, Ipv6, Packet};
use packet::{DropReason, Frame};

use super::Served;
use crate::pass::report::Refused;
use crate::pass::{Outcome, Pass, Side};
use crate::stage::{Notes, Stage};

impl<N: Notes> Pass<'_, N> {
    /// Serves an IPv4 packet, if it is for one of the services.
    #[inline(always)]
    pub(crate) fn serve4(
        &mut self,
        (side, packet, ip): (Side<'_>, &Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Outcome<Served> {
        if let Side::Port(rules) = side
            && let Some(outcome) = self
                .relay_dhcp(rules, (packet, ip), frame)
                .or_else(|| self.serve_metadata4(rules, (packet, ip), frame))
        {
            return outcome.map(Served::Answered);
        }
        let target = self.state.route4(self.tables, ip.destination, self.now_ns);
        if target != Some(side.own_target()) {
            return Ok(Served::Unserved(target));
        }
        if packet.group {
            return self.refuse(Stage::Service, DropReason::DstMac);
        }
        if icmp::is_echo_request4(ip, &frame.bytes()[ETHERNET_LEN..]) {
            let built = icmp::echo_reply4(frame, side.own_mac(), ip);
            let answered = self.answer(side, built, packet.vid, frame, format_args!("ICMP echo"));
            return answered.map(Served::Answered);
        }
        if let Some(reason) = self.judge_report4(side, ip, frame) {
            return self.refuse(Stage::Service, reason);
        }
        let served = self.serve_dns4(side, (packet, ip), frame);
        if let Some(outcome) = served.or_else(|| self.hear_resolver(side, packet, frame)) {
            return outcome.map(Served::Answered);
        }
        let refused = unserved(ip.udp());
        self.report4(Stage::Service, (side, packet, ip), frame, refused)
    }

    /// As [`Self::serve4`].
    #[inline(always)]
    pub(crate) fn serve6(
        &mut self,
        (side, packet, ip): (Side<'_>, &Packet, &Ipv6),
        frame: &mut Frame<'_>,
    ) -> Outcome<Served> {
        if let Some(kind) = ip.icmp_type().filter(|kind| icmpv6::is_for_gateway(*kind)) {
            let outcome = self.serve_nd(side, packet, ip, kind, frame);
            return outcome.map(Served::Answered);
        }
        if let Side::Port(rules) = side
            && let Some(outcome) = self
                .relay_dhcp6(rules, (packet, ip), frame)
                .or_else(|| self.serve_metadata6(rules, (packet, ip), frame))
        {
            return outcome.map(Served::Answered);
        }
        let target = self.state.route6(self.tables, ip.destination);
        let link_local = match side {
            Side::Port(rules) => ip.destination == rules.gateway_link_local,
            Side::Uplink(_) | Side::Peer(_) => false,
        };
        if target != Some(side.own_target()) && !link_local {
            return Ok(Served::Unserved(target));
        }
        if packet.group {
            return self.refuse(Stage::Service, DropReason::DstMac);
        }
        if icmp::is_echo_request6(ip, &frame.bytes()[ETHERNET_LEN..]) {
            let built = icmp::echo_reply6(frame, side.own_mac(), ip);
            let answered = self.answer(side, built, packet.vid, frame, format_args!("ICMPv6 echo"));
            return answered.map(Served::Answered);
        }
        if let Some(reason) = self.judge_report6(side, ip, frame) {
            return self.refuse(Stage::Service, reason);
        }
        let served = self.serve_dns6(side, (packet, ip), frame);
        if let Some(outcome) = served.or_else(|| self.hear_resolver(side, packet, frame)) {
            return outcome.map(Served::Answered);
        }
        let refused = unserved(ip.udp());
        self.report6(Stage::Service, (side, packet, ip), frame, refused)
    }
}

/// The drop of a packet to an address where nothing serves it.
fn unserved(udp: Option<(u16, u16)>) -> Refused {
    Refused {
        reason: DropReason::GatewayService,
        error: udp.map(|_| IcmpError::PortUnreachable),
    }
}
