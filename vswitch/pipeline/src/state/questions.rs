//! What resolvers were asked in the name of VMs, and have not answered yet.

use std::net::IpAddr;
use std::sync::Arc;

use packet::wire::dns_forward::{Answer, Asked};

use crate::bucket::SECOND_NS;
use crate::ids::PortId;
use crate::ipsec::rules::NAT_T_PORT;
use crate::tables::Tables;

/// Unanswered queries of one port.
const PER_PORT: usize = 64;
/// How long an answer is waited for.
const TIMEOUT_NS: u64 = 5 * SECOND_NS;
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
    until_ns: u64,
    wrong: u8,
}

/// The place of a query, and the resolver to ask first.
pub(crate) struct Place {
    at: usize,
    pub(crate) first: usize,
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
            until_ns: 0,
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

    /// A place for a port's query. One that the client repeats gives up its place, and another
    /// resolver is asked. `None` if too many of the port's are unanswered.
    pub(crate) fn place(
        &mut self,
        tables: &Tables,
        port: PortId,
        (asker, asked): (&Asker, &Asked),
        now_ns: u64,
    ) -> Option<Place> {
        let begin = port.index() * PER_PORT;
        let (mut free, mut repeated, mut failed) = (None, None, false);
        for at in begin..begin + PER_PORT {
            let question = self.places.get(at)?;
            let is_waiting = question.udp_port != 0;
            let was_preferred = question.resolver == self.preferred;
            if is_waiting && now_ns >= question.until_ns {
                failed |= was_preferred;
                self.free(at);
            } else if is_waiting && question.asker == *asker && question.asked.is_repeated_by(asked)
            {
                failed |= was_preferred;
                repeated = Some(at);
            }
            if self.places[at].udp_port == 0 {
                free = free.or(Some(at));
            }
        }
        if failed {
            self.preferred = (self.preferred + 1) % tables.resolvers.len().max(1);
        }
        Some(Place {
            at: repeated.or(free)?,
            first: self.preferred,
        })
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
            until_ns: now_ns.saturating_add(TIMEOUT_NS),
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
        if now_ns >= question.until_ns || question.resolver != resolver {
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
