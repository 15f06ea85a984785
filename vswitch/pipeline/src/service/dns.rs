//! The names of the tenant's ports, for which the gateway answers. `docs/reference/services.md` is
//! the specification.

use std::net::IpAddr;

use packet::Frame;
use packet::number::port;
use packet::wire::dns::{Code, Query, Question, Response, kind};
use packet::wire::dns_forward::Asked;
use packet::wire::{ETHERNET_LEN, Fragment, Ipv4, Ipv6, Packet, mac_at};

use crate::pass::{Outcome, Pass, Side};
use crate::stage::Notes;
use crate::state::Asker;
use crate::tables::{Names, PortRules, Target};

/// What becomes of a query.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one packet, for which nothing is allocated"
)]
enum Decision {
    Answer(Response),
    /// A resolver is asked.
    Forward(Asked),
}

impl<N: Notes> Pass<'_, N> {
    /// Answers a query to the gateway, or asks a resolver. `None` for any other packet.
    #[inline(never)]
    pub(super) fn serve_dns4(
        &mut self,
        side: Side<'_>,
        (packet, ip): (&Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let (rules, names, udp_port) = self.asked_for_names(side, ip.udp(), ip.fragment)?;
        let query = Query::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let response = match self.decide(names, &query, usize::from(rules.mtu) - 20) {
            Decision::Answer(response) => response,
            Decision::Forward(asked) => {
                let asker = Asker {
                    address: IpAddr::V4(ip.source.into()),
                    udp_port,
                    gateway: IpAddr::V4(ip.destination.into()),
                    mac: mac_at(frame.bytes(), 6),
                    vid: packet.vid,
                };
                return Some(self.ask_resolver(rules, asker, asked, frame));
            }
        };
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
        let (rules, names, udp_port) = self.asked_for_names(side, ip.udp(), ip.fragment)?;
        let query = Query::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let response = match self.decide(names, &query, usize::from(rules.mtu) - 40) {
            Decision::Answer(response) => response,
            Decision::Forward(asked) => {
                let asker = Asker {
                    address: IpAddr::V6(ip.source.into()),
                    udp_port,
                    gateway: IpAddr::V6(ip.destination.into()),
                    mac: mac_at(frame.bytes(), 6),
                    vid: packet.vid,
                };
                return Some(self.ask_resolver(rules, asker, asked, frame));
            }
        };
        let code = response.code();
        let built = response.replace6(frame, rules.gateway_mac, ip);
        let what = format_args!("DNS {}", code.name());
        Some(self.answer(side, built, packet.vid, frame, what))
    }

    /// The rules of the port that asks, the names, and the client's UDP port.
    fn asked_for_names<'s>(
        &self,
        side: Side<'s>,
        udp: Option<(u16, u16)>,
        fragment: Fragment,
    ) -> Option<(&'s PortRules, &Names, u16)> {
        let names = self.tables.names_of_ports.as_ref()?;
        match (side, udp) {
            (Side::Port(rules), Some((from, port::DNS))) if fragment == Fragment::Whole => {
                Some((rules, names, from))
            }
            _ => None,
        }
    }

    fn decide(&self, names: &Names, query: &Query<'_>, room: usize) -> Decision {
        let question = match query.question {
            Ok(question) if question.class == kind::INTERNET => question,
            Ok(_) => return Decision::Answer(Response::new(query, Code::Refused, false, room)),
            Err(code) => return Decision::Answer(Response::new(query, code, false, room)),
        };
        if let Some(labels) = question.within(&names.domain) {
            return Decision::Answer(in_domain(names, query, (&question, labels), room));
        }
        if let Some(response) = self.reverse(names, query, &question, room) {
            return Decision::Answer(response);
        }
        let goes_on = !self.tables.resolvers.is_empty() && !question.is_meta();
        let Some(asked) = Asked::of(query).filter(|_| goes_on) else {
            return Decision::Answer(Response::new(query, Code::Refused, false, room));
        };
        match question.is_short_name() || self.is_of_tenant(&question) {
            true => Decision::Answer(Response::new(query, Code::NoSuchName, false, room)),
            false => Decision::Forward(asked),
        }
    }

    /// Whether the name is that of an address which the tenant has, though not in the gateway's
    /// subnets.
    fn is_of_tenant(&self, question: &Question<'_>) -> bool {
        let is_inside = |target| {
            matches!(
                target,
                Target::Port(_) | Target::Shared(_) | Target::Peer(_)
            )
        };
        let ipv4 = question.reverse4().filter(|it| it.is_apex && it.len == 32);
        let ipv6 = question.reverse6().filter(|it| it.is_apex && it.len == 128);
        let target4 = ipv4.and_then(|name| self.tables.route4(name.first));
        let target6 = ipv6.and_then(|name| self.tables.route6(name.first));
        target4.or(target6).is_some_and(is_inside)
    }

    /// The response to a question in the reverse zones of the gateway's subnets; `None` for any
    /// other.
    fn reverse(
        &self,
        names: &Names,
        query: &Query<'_>,
        question: &Question<'_>,
        room: usize,
    ) -> Option<Response> {
        let (ipv4, ipv6) = (question.reverse4(), question.reverse6());
        let ipv4 = ipv4.filter(|name| self.tables.has_zone4(*name));
        let ipv6 = ipv6.filter(|name| self.tables.has_zone6(*name));
        let (is_apex, target) = match (ipv4, ipv6) {
            (Some(name), _) if name.len == 32 => (name.is_apex, self.tables.route4(name.first)),
            (_, Some(name)) if name.len == 128 => (name.is_apex, self.tables.route6(name.first)),
            (None, None) => return None,
            // A part of the subnet, or a name that is no address's.
            _ => {
                let is_part =
                    ipv4.is_some_and(|it| it.is_apex) || ipv6.is_some_and(|it| it.is_apex);
                let code = if is_part {
                    Code::NoError
                } else {
                    Code::NoSuchName
                };
                return Some(Response::new(query, code, true, room));
            }
        };
        let name = match target {
            Some(Target::Port(id)) if is_apex => names.of_port(id),
            _ => None,
        };
        let Some(name) = name else {
            return Some(Response::new(query, Code::NoSuchName, true, room));
        };
        let mut response = Response::new(query, Code::NoError, true, room);
        if question.wants(kind::PTR) {
            response.add(kind::PTR, &name.name);
        }
        Some(response)
    }
}

/// The response to a question for a name in the domain, with these labels in front of it.
fn in_domain(
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
