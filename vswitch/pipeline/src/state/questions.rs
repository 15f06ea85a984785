//! What resolvers were asked in the name of VMs, and have not answered yet.

use std::net::IpAddr;
use std::sync::Arc;

use packet::wire::dns_forward::{Answer, Asked};
use tenant_config::MAX_RESOLVERS;

use crate::bucket::SECOND_NS;
use crate::ids::PortId;
use crate::ipsec::rules::NAT_T_PORT;
use crate::tables::Tables;

/// Unanswered queries of one port.
const PER_PORT: usize = 64;
/// How long an answer is waited for.
const TIMEOUT_NS: u64 = 5 * SECOND_NS;
/// How long a client waits at least before it repeats a query because there is no answer.
const PATIENCE_NS: u64 = SECOND_NS;
/// Answers with a wrong ID or question after which a query is given up: somebody guesses.
const MAX_WRONG: u8 = 3;
/// The first of the UDP ports by which resolvers are asked (RFC 5452, section 10).
const FIRST_PORT: u16 = 1024;

/// Who asked, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The VM's address.
    pub(crate) address: IpAddr,
    /// The VM's UDP port.
    pub(crate) udp_port: u16,
    /// The gateway's address that was asked.
    pub(crate) gateway: IpAddr,
    /// The source of the frame.
    pub(crate) mac: [u8; 6],
    /// The tag of the frame.
    pub(crate) vid: Option<u16>,
}

/// A query that a resolver has not answered.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) asker: Asker,
    pub(crate) asked: Asked,
    /// Its place among the resolvers.
    pub(crate) resolver: usize,
    /// Our UDP port; 0 if the place is free.
    pub(crate) udp_port: u16,
    pub(crate) id: u16,
    sent_ns: u64,
    wrong: u8,
}

impl Question {
    fn has_waited(&self, ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.sent_ns) >= ns
    }
}

/// The place of a query.
pub(crate) struct Place {
    at: usize,
    /// Which resolvers have failed, as far as the port's queries say.
    failed: [bool; MAX_RESOLVERS],
}

/// All unanswered queries: [`PER_PORT`] places for each port, in the order of the ports. There are
/// none without resolvers.
#[derive(Debug)]
pub(crate) struct Questions {
    places: Box<[Question]>,
    /// By our UDP port the place of its query, from 1; 0 if there is none.
    by_udp_port: Box<[u16]>,
    /// The resolver that is asked first.
    preferred: usize,
    /// When each resolver answered last.
    answered_ns: [Option<u64>; MAX_RESOLVERS],
    /// How often numbers were drawn. It never begins again, so that none come twice.
    draws: u64,
}

impl Questions {
    pub(super) fn new(tables: &Tables) -> Self {
        const FREE: Question = Question {
            asker: Asker {
                address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                udp_port: 0,
                gateway: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
                mac: [0; 6],
                vid: None,
            },
            asked: Asked::NONE,
            resolver: 0,
            udp_port: 0,
            id: 0,
            sent_ns: 0,
            wrong: 0,
        };
        let (places, ports) = match tables.resolvers.is_empty() {
            true => (0, 0),
            false => (tables.ports.len() * PER_PORT, 1 << 16),
        };
        Self {
            places: vec![FREE; places].into(),
            by_udp_port: vec![0; ports].into(),
            preferred: 0,
            answered_ns: [None; MAX_RESOLVERS],
            draws: 0,
        }
    }

    /// Keeps the queries if the ports and resolvers are the same; else clients ask again.
    pub(super) fn keep(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        let same_ports =
            Arc::ptr_eq(&tables.names, &old.names) && Arc::ptr_eq(&tables.ports, &old.ports);
        let mut pairs = tables.resolvers.iter().zip(&old.resolvers);
        let same_resolvers = tables.resolvers.len() == old.resolvers.len()
            && pairs.all(|(new, old)| new.is_same(old));
        if same_ports && same_resolvers {
            std::mem::swap(self, previous);
        } else {
            self.draws = previous.draws;
        }
    }

    /// A place for a port's query. One that the client repeats gives up its place. `None` if too
    /// many of the port's are unanswered.
    pub(crate) fn place(
        &mut self,
        port: PortId,
        (asker, asked): (&Asker, &Asked),
        now_ns: u64,
    ) -> Option<Place> {
        let begin = port.index() * PER_PORT;
        let (mut free, mut repeated, mut failed) = (None, None, [false; MAX_RESOLVERS]);
        for at in begin..begin + PER_PORT {
            let question = self.places.get(at)?;
            let is_waiting = question.udp_port != 0;
            let is_over = is_waiting && question.has_waited(TIMEOUT_NS, now_ns);
            let is_repeated =
                is_waiting && question.asker == *asker && question.asked.is_repeated_by(asked);
            if is_over || is_repeated && question.has_waited(PATIENCE_NS, now_ns) {
                // One lost datagram, or a name whose own servers are silent, is no failure.
                let answered_ns = self.answered_ns.get(question.resolver)?;
                let has_answered = answered_ns.is_some_and(|at_ns| at_ns >= question.sent_ns);
                failed[question.resolver] |= !has_answered;
            }
            if is_over {
                self.free(at);
            } else if is_repeated {
                repeated = Some(at);
            }
            if self.places[at].udp_port == 0 {
                free = free.or(Some(at));
            }
        }
        let at = repeated.or(free)?;
        Some(Place { at, failed })
    }

    /// The resolver to ask among `count`: the first that is reached, from the preferred one on.
    /// While that has failed, the next is preferred.
    pub(crate) fn choose(
        &mut self,
        place: &Place,
        count: usize,
        is_reached: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let first_from = |preferred: usize| {
            let mut in_turn = (0..count).map(|step| (preferred + step) % count);
            in_turn.find(|at| is_reached(*at))
        };
        for _ in 0..count {
            let at = first_from(self.preferred)?;
            if !*place.failed.get(at)? {
                break;
            }
            self.preferred = (at + 1) % count;
        }
        first_from(self.preferred)
    }

    /// Takes back a query that did not leave.
    pub(crate) fn forget(&mut self, place: &Place) {
        self.free(place.at);
    }

    fn free(&mut self, at: usize) {
        let udp_port = std::mem::take(&mut self.places[at].udp_port);
        self.by_udp_port[usize::from(udp_port)] = 0;
    }

    /// Notes a query in its place. Returns it with the UDP port and ID by which the resolver is
    /// asked; `None` if no port was found, which does not happen in practice.
    pub(crate) fn note(
        &mut self,
        tables: &Tables,
        place: &Place,
        (asker, asked): (Asker, Asked),
        resolver: usize,
        now_ns: u64,
    ) -> Option<&Question> {
        let (udp_port, id) = self.draw(tables)?;
        if self.places.get(place.at)?.udp_port != 0 {
            self.free(place.at);
        }
        self.by_udp_port[usize::from(udp_port)] = place.at as u16 + 1;
        self.places[place.at] = Question {
            asker,
            asked,
            resolver,
            udp_port,
            id,
            sent_ns: now_ns,
            wrong: 0,
        };
        self.places.get(place.at)
    }

    /// A free UDP port and an ID. Of sixteen numbers one is almost always a free port.
    fn draw(&mut self, tables: &Tables) -> Option<(u16, u16)> {
        let [id, ports @ ..] = tables.secret.draw(self.draws);
        self.draws += 1;
        let taken = |port: u16| self.by_udp_port.get(usize::from(port)) != Some(&0);
        let tunnel = tables.tunnel.as_ref().map(|tunnel| tunnel.carrier.port());
        let is_usable =
            |port: &u16| *port >= FIRST_PORT && *port != NAT_T_PORT && Some(*port) != tunnel;
        let mut usable = ports.into_iter().filter(is_usable);
        Some((usable.find(|port| !taken(*port))?, id))
    }

    /// Takes out the query that is answered; `None` if there is none. `resolver` is the place of
    /// the answer's source among the resolvers.
    pub(crate) fn take(
        &mut self,
        udp_port: u16,
        resolver: usize,
        answer: &Answer<'_>,
        now_ns: u64,
    ) -> Option<(PortId, Question)> {
        let place = *self.by_udp_port.get(usize::from(udp_port))?;
        let at = usize::from(place).checked_sub(1)?;
        let question = self.places.get_mut(at)?;
        if question.has_waited(TIMEOUT_NS, now_ns) || question.resolver != resolver {
            return None;
        }
        if question.id != answer.id || !question.asked.has_question_of(answer) {
            question.wrong += 1;
            if question.wrong == MAX_WRONG {
                self.free(at);
            }
            return None;
        }
        let question = question.clone();
        self.free(at);
        *self.answered_ns.get_mut(resolver)? = Some(now_ns);
        Some((PortId((at / PER_PORT) as u16), question))
    }
}

#[cfg(test)]
mod tests {
    use crate::secret::FlowSecret;

    #[test]
    fn draws_differ_and_need_the_secret() {
        let (one, other) = (FlowSecret::new([1; 32]), FlowSecret::new([2; 32]));
        let mut all: Vec<[u16; 16]> = (0..100).map(|number| one.draw(number)).collect();
        all.extend((0..100).map(|number| other.draw(number)));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
