//! Names that are not the tenant's: resolvers are asked in the VM's place, and their answers passed
//! on to it. `docs/reference/services.md` is the specification.

use std::net::{IpAddr, SocketAddr};

use packet::number::port;
use packet::wire::dns::MAX_RESPONSE;
use packet::wire::dns_forward::{Answer, Asked, MAX_QUERY};
use packet::wire::esp::{sound_datagram, write_datagram};
use packet::wire::tunnel::{Outer, UDP_LEN};
use packet::wire::{ETHERNET_LEN, Fragment, Packet, ipv4, ipv6};
use packet::{DropReason, Frame};
use tenant_config::MAX_RESOLVERS;

use crate::pass::{Outcome, Pass, Sent, Side};
use crate::stage::{Notes, Stage};
use crate::state::{Asker, Question};
use crate::tables::PortRules;

/// Queries a second that a port may have forwarded.
const QUERIES_PER_SECOND: u64 = 100;

impl<N: Notes> Pass<'_, N> {
    /// Turns the frame into a query to a resolver.
    #[inline(never)]
    pub(super) fn ask_resolver(
        &mut self,
        rules: &PortRules,
        asker: Asker,
        asked: Asked,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        match self.try_ask_resolver(rules, asker, asked, frame) {
            Ok(resolver) => {
                self.notes
                    .note(Stage::Service, format_args!("DNS: forwarded to {resolver}"));
                Ok(Sent::To(self.tables.uplink_id()))
            }
            Err(reason) => self.refuse(Stage::Service, reason),
        }
    }

    fn try_ask_resolver(
        &mut self,
        rules: &PortRules,
        asker: Asker,
        asked: Asked,
        frame: &mut Frame<'_>,
    ) -> Result<IpAddr, DropReason> {
        use DropReason::{DnsRate, NeighbourUnresolved, NoBuffer, RouteNone};
        let tables = self.tables;
        let uplink = tables.uplink.as_ref().ok_or(RouteNone)?;
        let port = self.state.port(rules.id);
        if !port.queries.take(self.now_ns, QUERIES_PER_SECOND, 1) {
            return Err(DnsRate);
        }
        let mut macs = [None; MAX_RESOLVERS];
        for (mac, resolver) in macs.iter_mut().zip(&tables.resolvers) {
            *mac = self.state.next_hop_mac(Some(resolver.next_hop));
        }
        let mac_at = |at: usize| macs.get(at).copied().flatten();
        let said = (&asker, &asked);
        let questions = &mut self.state.questions;
        let place = questions.place(rules.id, said, self.now_ns);
        let place = place.ok_or(DnsRate)?;
        let count = tables.resolvers.len();
        let at = questions.choose(&place, count, |at| mac_at(at).is_some());
        let reached = at.and_then(|at| Some((at, tables.resolvers.get(at)?, mac_at(at)?)));
        let (at, resolver, mac) = reached.ok_or(NeighbourUnresolved)?;
        let question = questions.note(tables, &place, (asker, asked), at, self.now_ns);
        let question = question.ok_or(DnsRate)?;
        let headers = header_len(resolver.address) + UDP_LEN;
        let room = usize::from(uplink.mtu).saturating_sub(headers);
        let mut message = [0; MAX_QUERY];
        let len = question.asked.write_query(question.id, room, &mut message);
        let ends = (
            SocketAddr::new(resolver.own, question.udp_port),
            SocketAddr::new(resolver.address, port::DNS),
        );
        if write(frame, ends, (mac, uplink.mac), &message[..len]).is_none() {
            questions.forget(&place);
            return Err(NoBuffer);
        }
        Ok(resolver.address)
    }

    /// Passes a resolver's answer on to the VM that asked. `None` for any other packet.
    #[inline(never)]
    pub(super) fn hear_resolver(
        &mut self,
        side: Side<'_>,
        packet: &Packet,
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        if self.tables.resolvers.is_empty() || !matches!(side, Side::Uplink(_)) {
            return None;
        }
        let outer = Outer::of(&packet.ip)?;
        let (port::DNS, udp_port) = outer.udp? else {
            return None;
        };
        Some(match self.try_hear(&outer, udp_port, frame) {
            Ok(sent) => Ok(sent),
            Err(reason) => self.refuse(Stage::Service, reason),
        })
    }

    fn try_hear(
        &mut self,
        outer: &Outer,
        udp_port: u16,
        frame: &mut Frame<'_>,
    ) -> Result<Sent, DropReason> {
        use DropReason::{DnsMalformed, DnsUnsolicited, NoBuffer};
        let bytes = frame.bytes().get(ETHERNET_LEN..ETHERNET_LEN + outer.len);
        let bytes = bytes.filter(|_| outer.fragment == Fragment::Whole);
        let message = bytes.and_then(|bytes| sound_datagram(bytes, outer.upper_at));
        let is_whole = |it: &&[u8]| outer.upper_at + UDP_LEN + it.len() == outer.len;
        let answer = message.filter(is_whole).and_then(Answer::parse);
        let answer = answer.ok_or(DnsMalformed)?;
        let mut resolvers = self.tables.resolvers.iter();
        let resolver = resolvers.position(|it| it.address == outer.source);
        let resolver = resolver.ok_or(DnsUnsolicited)?;
        let questions = &mut self.state.questions;
        let question = questions.take(udp_port, resolver, &answer, self.now_ns);
        let (id, Question { asker, asked, .. }) = question.ok_or(DnsUnsolicited)?;
        let rules = self.tables.port(id);
        let room = usize::from(rules.mtu) - header_len(asker.address) - UDP_LEN;
        let mut message = [0; MAX_RESPONSE];
        let len = asked.write_response(&answer, room, &mut message);
        let code = answer.code();
        let ends = (
            SocketAddr::new(asker.gateway, port::DNS),
            SocketAddr::new(asker.address, asker.udp_port),
        );
        let macs = (asker.mac, rules.gateway_mac);
        let written = write(frame, ends, macs, &message[..len]);
        let tagged = written.and_then(|()| match asker.vid {
            Some(vid) => frame.insert_tag(vid),
            None => Some(()),
        });
        tagged.ok_or(NoBuffer)?;
        let (from, name) = (outer.source, &self.tables.names[id.index()]);
        self.notes.note(
            Stage::Service,
            format_args!("DNS: answer {code} of {from} to port {name}"),
        );
        Ok(Sent::To(id))
    }
}

fn header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    }
}

/// Makes the frame one with that message. `None` if it does not fit.
fn write(
    frame: &mut Frame<'_>,
    ends: (SocketAddr, SocketAddr),
    (to, from): ([u8; 6], [u8; 6]),
    message: &[u8],
) -> Option<()> {
    let headers = ETHERNET_LEN + header_len(ends.1.ip()) + UDP_LEN;
    frame.resize(headers + message.len())?;
    write_datagram(frame.bytes_mut(), ends, false, message)?;
    frame.set_macs(to, from);
    Some(())
}
