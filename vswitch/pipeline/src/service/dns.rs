//! The names of the tenant's ports, for which the gateway answers. `docs/reference/services.md` is
//! the specification.

use packet::Frame;
use packet::number::port;
use packet::wire::dns::{Code, Query, Question, Response, kind};
use packet::wire::{ETHERNET_LEN, Fragment, Ipv4, Ipv6, Packet};

use crate::pass::{Outcome, Pass, Side};
use crate::stage::Notes;
use crate::tables::{Names, PortRules, Target};

impl<N: Notes> Pass<'_, N> {
    /// Answers a query to the gateway. `None` for any other packet.
    #[inline(never)]
    pub(super) fn serve_dns4(
        &mut self,
        side: Side<'_>,
        (packet, ip): (&Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let (rules, names) = self.asked_for_names(side, ip.udp(), ip.fragment)?;
        let query = Query::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let response = self.response(names, &query, usize::from(rules.mtu) - 20);
        let code = response.code();
        let built = response.replace4(frame, rules.gateway_mac, ip);
        let what = format_args!("DNS {}", code.name());
        Some(self.answer(side, built, packet.vid, frame, what))
    }

    /// As [`Self::serve_dns4`].
    #[inline(never)]
    pub(super) fn serve_dns6(
        &mut self,
        side: Side<'_>,
        (packet, ip): (&Packet, &Ipv6),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let (rules, names) = self.asked_for_names(side, ip.udp(), ip.fragment)?;
        let query = Query::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let response = self.response(names, &query, usize::from(rules.mtu) - 40);
        let code = response.code();
        let built = response.replace6(frame, rules.gateway_mac, ip);
        let what = format_args!("DNS {}", code.name());
        Some(self.answer(side, built, packet.vid, frame, what))
    }

    fn asked_for_names<'s>(
        &self,
        side: Side<'s>,
        udp: Option<(u16, u16)>,
        fragment: Fragment,
    ) -> Option<(&'s PortRules, &Names)> {
        let names = self.tables.names_of_ports.as_ref()?;
        match (side, udp) {
            (Side::Port(rules), Some((_, port::DNS))) if fragment == Fragment::Whole => {
                Some((rules, names))
            }
            _ => None,
        }
    }

    fn response(&self, names: &Names, query: &Query<'_>, room: usize) -> Response {
        let question = match query.question {
            Ok(question) if question.class == kind::INTERNET => question,
            Ok(_) => return Response::new(query, Code::Refused, false, room),
            Err(code) => return Response::new(query, code, false, room),
        };
        if let Some(labels) = question.within(&names.domain) {
            return forward(names, query, (&question, labels), room);
        }
        let target = match (question.reverse4(), question.reverse6()) {
            (Some(ip), _) if self.tables.is_near4(ip) => self.tables.route4(ip),
            (_, Some(ip)) if self.tables.is_near6(ip) => self.tables.route6(ip),
            _ => return Response::new(query, Code::Refused, false, room),
        };
        let name = match target {
            Some(Target::Port(id)) => names.of_port(id),
            _ => None,
        };
        let Some(name) = name else {
            return Response::new(query, Code::NoSuchName, true, room);
        };
        let mut response = Response::new(query, Code::NoError, true, room);
        if question.wants(kind::PTR) {
            response.add(kind::PTR, &name.name);
        }
        response
    }
}

/// The response to a question for a name in the domain, with these labels in front of it.
fn forward(
    names: &Names,
    query: &Query<'_>,
    (question, labels): (&Question<'_>, &[u8]),
    room: usize,
) -> Response {
    if labels.is_empty() {
        return Response::new(query, Code::NoError, true, room);
    }
    let (label, rest) = Question::split(labels);
    let Some(port) = names.by_label(label).filter(|_| rest.is_empty()) else {
        return Response::new(query, Code::NoSuchName, true, room);
    };
    let mut response = Response::new(query, Code::NoError, true, room);
    if question.wants(kind::A) {
        port.ipv4.iter().for_each(|ip| response.add(kind::A, ip));
    }
    if question.wants(kind::AAAA) {
        port.ipv6.iter().for_each(|ip| response.add(kind::AAAA, ip));
    }
    response
}
