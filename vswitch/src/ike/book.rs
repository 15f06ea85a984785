//! What the switch knows of charon's SAs and policies, and the answers to its requests. There is
//! no input or output here.
//!
//! charon parses what anyone may send to the tunnel's endpoint, so it may be an attacker's. It gets
//! no further than the configuration: the peers, suites and selectors that [`Rules`] allow, and a
//! bounded number of everything. An SA that it makes opens and seals packets between the two
//! endpoints of a tunnel that the tenant has anyway.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeline::ipsec::{
    Direction, InboundSa, KeyError, Keys, Notice, Order, OutboundSa, Refused,
    Request as Negotiated, Rules, SaCounters, Suite, UdpPorts,
};

use super::message::{AddSa, Event, Policy, Request, SaName, Selector};

/// The protocol number of UDP.
const UDP: u8 = 17;
/// SAs of one endpoint and direction: two connections, each while both ends renew it at once, and
/// as many again. The worker has room for as many.
const SAS_PER_ENDPOINT: usize = 8;
/// SPIs of one endpoint that are given and not used yet.
const SPIS_PER_ENDPOINT: usize = 16;
/// Policies of one endpoint.
const POLICIES_PER_ENDPOINT: usize = 16;
/// A negotiation that takes longer has failed: charon gives up after 165 s.
const SPI_TIMEOUT: Duration = Duration::from_secs(180);
/// Reserved by IANA (RFC 4303, section 2.1).
const SPI_MIN: u32 = 256;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The configuration does not allow it.
    #[error(transparent)]
    Rules(#[from] Refused),
    /// The keys do not fit the suite.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// IPsec is off.
    #[error("the configuration has no IPsec")]
    Off,
    /// An endpoint has too many of something.
    #[error("{endpoint} has {most} {what} already")]
    TooMany {
        /// The endpoint.
        endpoint: IpAddr,
        /// Of what.
        what: &'static str,
        /// The upper bound.
        most: usize,
    },
    /// An inbound SA has an SPI that was not given for it.
    #[error("SPI {0:#010x} was not given by get_spi")]
    NotGiven(u32),
    /// There is such an SA.
    #[error("there is an SA of SPI {0:#010x} already")]
    Exists(u32),
    /// There is no such SA.
    #[error("there is no SA of SPI {0:#010x}")]
    Unknown(u32),
    /// Selectors that no tunnel has.
    #[error(
        "a selector is not UDP between the two endpoints, with all ports or the tunnel's alone"
    )]
    Selector,
    /// An SA would move.
    #[error("an SA keeps its addresses")]
    Moved,
    /// No random number was to be had.
    #[error("no random number for an SPI")]
    Random,
}

/// An SA of the worker's.
#[derive(Debug)]
struct Sa {
    direction: Direction,
    reqid: u32,
    negotiated: Negotiated,
    suite: Suite,
    counters: Arc<SaCounters>,
}

/// An SPI that was given to charon for an inbound SA.
#[derive(Debug)]
struct Given {
    peer: IpAddr,
    spi: u32,
    at: Instant,
}

/// A policy, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    peer: IpAddr,
    /// Selectors: `None` is all ports.
    own_port: Option<u16>,
    peer_port: Option<u16>,
    reqid: u32,
    /// 0 is a trap.
    spi: u32,
}

impl Way {
    /// Whether it is for packets of the tunnel: from any port of ours to the tunnel's.
    fn is_tunnel(&self, rules: &Rules) -> bool {
        self.own_port.is_none() && self.peer_port.is_none_or(|port| port == rules.port)
    }
}

/// What charon gets for a request.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// What follows `ok`.
    pub(super) values: Option<String>,
    /// What the worker must do first, in this order.
    pub(super) orders: Vec<Order>,
}

/// The SAs, SPIs and policies of one charon.
#[derive(Debug)]
pub(super) struct Book {
    rules: Option<Arc<Rules>>,
    sas: Vec<Sa>,
    given: Vec<Given>,
    ways: Vec<Way>,
    /// The SA that seals packets to an endpoint.
    in_use: Vec<(IpAddr, u32)>,
}

impl Book {
    /// An empty one; without rules everything is refused.
    pub(super) fn new(rules: Option<Arc<Rules>>) -> Self {
        Self {
            rules,
            sas: Vec::new(),
            given: Vec::new(),
            ways: Vec::new(),
            in_use: Vec::new(),
        }
    }

    /// Judges by other rules from now on; the orders remove what they do not allow.
    pub(super) fn set_rules(&mut self, rules: Option<Arc<Rules>>) -> Vec<Order> {
        self.rules = rules;
        let allowed = self.rules.clone();
        let is_allowed = |peer: &IpAddr| {
            let mut endpoints = allowed.iter().flat_map(|rules| &rules.endpoints);
            endpoints.any(|endpoint| endpoint == peer)
        };
        self.given.retain(|given| is_allowed(&given.peer));
        self.ways.retain(|way| is_allowed(&way.peer));
        let removed = self.sas.extract_if(.., |sa| {
            let keeps = allowed.as_ref().is_some_and(|rules| {
                rules.own == sa.negotiated.own
                    && rules.suites.contains(&sa.suite)
                    && (rules.esn || !sa.negotiated.esn)
            });
            !keeps || !is_allowed(&sa.negotiated.peer)
        });
        let mut orders: Vec<Order> = removed.map(|sa| sa.removal()).collect();
        self.choose(&mut orders);
        orders
    }

    /// Forgets everything, because charon is gone.
    pub(super) fn wipe(&mut self) -> Order {
        *self = Self::new(self.rules.take());
        Order::Wipe
    }

    /// How many SAs there are.
    pub(super) fn len(&self) -> usize {
        self.sas.len()
    }

    /// Answers a request. `now` is the time, and `now_ns` that of the counters' clock.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed.
    pub(super) fn answer(
        &mut self,
        request: Request,
        now: Instant,
        now_ns: u64,
        random: impl FnMut() -> Option<u32>,
    ) -> Result<Reply, Refusal> {
        match request {
            Request::GetSpi {
                source,
                destination,
            } => self.get_spi(source, destination, now, random),
            Request::AddSa(sa) => self.add_sa(&sa),
            Request::UpdateSa {
                name,
                source,
                destination,
                encapsulation,
            } => self.update_sa(name, (source, destination), encapsulation),
            Request::QuerySa(name) => self.query_sa(name, now_ns),
            Request::DelSa(name) => Ok(self.del_sa(name)),
            Request::FlushSas => Ok(self.flush_sas()),
            Request::FlushPolicies => {
                self.ways.clear();
                Ok(Reply::default())
            }
            Request::AddPolicy(policy) => self.add_policy(&policy),
            Request::DelPolicy(policy) => self.del_policy(&policy),
        }
    }

    /// What charon should hear of a notice of the worker's, which has forgotten an SA of its own
    /// if that has ended. IKE datagrams are no matter of this book.
    pub(super) fn notice(&mut self, notice: &Notice, orders: &mut Vec<Order>) -> Option<Event> {
        let rules = self.rules.as_ref()?;
        match *notice {
            Notice::Acquire { peer } => {
                let mut ways = self.ways.iter();
                let trap =
                    ways.find(|way| way.peer == peer && way.spi == 0 && way.is_tunnel(rules))?;
                Some(Event::Acquire { reqid: trap.reqid })
            }
            Notice::Soft {
                direction,
                peer,
                spi,
            } => {
                self.find(direction, peer, spi)?;
                let name = self.name(direction, peer, spi)?;
                Some(Event::Expire { name, hard: false })
            }
            Notice::Hard {
                direction,
                peer,
                spi,
            } => {
                let at = self.find(direction, peer, spi)?;
                let name = self.name(direction, peer, spi)?;
                self.sas.swap_remove(at);
                self.choose(orders);
                Some(Event::Expire { name, hard: true })
            }
            Notice::Ike(_) => None,
        }
    }

    fn name(&self, direction: Direction, peer: IpAddr, spi: u32) -> Option<SaName> {
        let destination = match direction {
            Direction::In => self.rules.as_ref()?.own,
            Direction::Out => peer,
        };
        Some(SaName { destination, spi })
    }

    fn rules(&self) -> Result<Arc<Rules>, Refusal> {
        self.rules.clone().ok_or(Refusal::Off)
    }

    fn find(&self, direction: Direction, peer: IpAddr, spi: u32) -> Option<usize> {
        self.sas.iter().position(|sa| {
            sa.direction == direction && sa.negotiated.peer == peer && sa.negotiated.spi == spi
        })
    }

    /// An SA by its name: inbound if packets come to us. SPIs of inbound SAs are unique.
    fn named(&self, name: SaName) -> Option<usize> {
        self.sas.iter().position(|sa| {
            sa.negotiated.spi == name.spi
                && match sa.direction {
                    Direction::In => sa.negotiated.own == name.destination,
                    Direction::Out => sa.negotiated.peer == name.destination,
                }
        })
    }

    fn get_spi(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        now: Instant,
        mut random: impl FnMut() -> Option<u32>,
    ) -> Result<Reply, Refusal> {
        let rules = self.rules()?;
        if destination != rules.own {
            return Err(Refused::Own(destination).into());
        }
        if !rules.endpoints.contains(&source) {
            return Err(Refused::Peer(source).into());
        }
        let is_old = |given: &Given| now.duration_since(given.at) > SPI_TIMEOUT;
        self.given.retain(|given| !is_old(given));
        let count = self.given.iter().filter(|it| it.peer == source).count();
        bounded(count, SPIS_PER_ENDPOINT, source, "SPIs without an SA")?;
        // Of 2³² numbers a few hundred are taken, so a second try is rare, and a third a fault.
        for _ in 0..8 {
            let spi = random().ok_or(Refusal::Random)?;
            let of_sa = |sa: &Sa| sa.direction == Direction::In && sa.negotiated.spi == spi;
            let is_taken = self.given.iter().any(|it| it.spi == spi) || self.sas.iter().any(of_sa);
            if spi >= SPI_MIN && !is_taken {
                let at = now;
                self.given.push(Given {
                    peer: source,
                    spi,
                    at,
                });
                return Ok(Reply {
                    values: Some(format!("{spi:08x}")),
                    orders: Vec::new(),
                });
            }
        }
        Err(Refusal::Random)
    }

    fn add_sa(&mut self, sa: &AddSa) -> Result<Reply, Refusal> {
        let rules = self.rules()?;
        let (own, peer) = match sa.direction {
            Direction::In => (sa.name.destination, sa.source),
            Direction::Out => (sa.source, sa.name.destination),
        };
        let (own_selector, peer_selector) = match sa.direction {
            Direction::In => (&sa.destination_selector, &sa.source_selector),
            Direction::Out => (&sa.source_selector, &sa.destination_selector),
        };
        let spi = sa.name.spi;
        let negotiated = Negotiated {
            spi,
            own,
            peer,
            mode: sa.mode,
            esn: sa.esn,
            encapsulation: udp_ports(sa.direction, sa.encapsulation),
            own_port: port(own_selector, own)?,
            peer_port: port(peer_selector, peer)?,
            lifetime: sa.lifetime,
        };
        let keys = Keys::new(sa.suite, &sa.key, &sa.integrity)?;
        if self.find(sa.direction, peer, spi).is_some() {
            return Err(Refusal::Exists(spi));
        }
        let of_endpoint = |it: &&Sa| it.direction == sa.direction && it.negotiated.peer == peer;
        let count = self.sas.iter().filter(of_endpoint).count();
        bounded(count, SAS_PER_ENDPOINT, peer, "SAs of that direction")?;
        let (order, counters) = match sa.direction {
            Direction::In => {
                // The rules speak first: they say more.
                let made = InboundSa::new(&rules, negotiated, &keys)?;
                let is_given = |it: &Given| it.spi == spi && it.peer == peer;
                let at = self.given.iter().position(is_given);
                self.given.swap_remove(at.ok_or(Refusal::NotGiven(spi))?);
                let counters = made.counters();
                (Order::InstallIn(made), counters)
            }
            Direction::Out => {
                let made = OutboundSa::new(&rules, negotiated, &keys)?;
                let counters = made.counters();
                (Order::InstallOut(made), counters)
            }
        };
        self.sas.push(Sa {
            direction: sa.direction,
            reqid: sa.reqid,
            negotiated,
            suite: sa.suite,
            counters,
        });
        tracing::info!(
            %peer, spi = format_args!("{spi:#010x}"), direction = ?sa.direction,
            suite = sa.suite.name(), reqid = sa.reqid, esn = sa.esn, "SA installed"
        );
        Ok(Reply {
            values: None,
            orders: vec![order],
        })
    }

    fn update_sa(
        &mut self,
        name: SaName,
        (source, destination): (IpAddr, IpAddr),
        encapsulation: Option<(u16, u16)>,
    ) -> Result<Reply, Refusal> {
        let at = self.named(name).ok_or(Refusal::Unknown(name.spi))?;
        let sa = &mut self.sas[at];
        let addresses = match sa.direction {
            Direction::In => (sa.negotiated.peer, sa.negotiated.own),
            Direction::Out => (sa.negotiated.own, sa.negotiated.peer),
        };
        if addresses != (source, destination) {
            return Err(Refusal::Moved);
        }
        let ports = udp_ports(sa.direction, encapsulation);
        if ports.is_some_and(|ports| ports.own != NAT_T_PORT) {
            return Err(Refused::Encapsulation.into());
        }
        sa.negotiated.encapsulation = ports;
        Ok(Reply {
            values: None,
            orders: vec![Order::Encapsulate {
                direction: sa.direction,
                peer: sa.negotiated.peer,
                spi: name.spi,
                ports,
            }],
        })
    }

    fn query_sa(&self, name: SaName, now_ns: u64) -> Result<Reply, Refusal> {
        const SECOND_NS: u64 = 1_000_000_000;
        let at = self.named(name).ok_or(Refusal::Unknown(name.spi))?;
        let counters = &self.sas[at].counters;
        let (bytes, packets) = (counters.bytes.get(), counters.packets.get());
        let ago_s = now_ns.saturating_sub(counters.used_ns.get()) / SECOND_NS;
        Ok(Reply {
            values: Some(format!("{bytes} {packets} {ago_s}")),
            orders: Vec::new(),
        })
    }

    /// An SA that has ended, or an SPI that was never used, may be forgotten too.
    fn del_sa(&mut self, name: SaName) -> Reply {
        let mut orders = Vec::new();
        if let Some(at) = self.named(name) {
            let sa = self.sas.swap_remove(at);
            tracing::info!(
                peer = %sa.negotiated.peer, spi = format_args!("{:#010x}", name.spi),
                direction = ?sa.direction, reqid = sa.reqid,
                packets = sa.counters.packets.get(), "SA removed"
            );
            // Its successor seals packets before it is gone.
            self.choose(&mut orders);
            orders.push(sa.removal());
        } else {
            self.given.retain(|given| given.spi != name.spi);
        }
        Reply {
            values: None,
            orders,
        }
    }

    fn flush_sas(&mut self) -> Reply {
        self.given.clear();
        self.in_use.clear();
        let orders = self.sas.drain(..).map(|sa| sa.removal()).collect();
        Reply {
            values: None,
            orders,
        }
    }

    fn add_policy(&mut self, policy: &Policy) -> Result<Reply, Refusal> {
        let way = self.way(policy)?;
        let of_endpoint = |it: &&Way| it.peer == way.peer;
        let count = self.ways.iter().filter(of_endpoint).count();
        bounded(count, POLICIES_PER_ENDPOINT, way.peer, "policies")?;
        if way.spi != 0 && self.find(Direction::Out, way.peer, way.spi).is_none() {
            return Err(Refusal::Unknown(way.spi));
        }
        self.ways.push(way);
        let mut reply = Reply::default();
        self.choose(&mut reply.orders);
        Ok(reply)
    }

    fn del_policy(&mut self, policy: &Policy) -> Result<Reply, Refusal> {
        let way = self.way(policy)?;
        if let Some(at) = self.ways.iter().position(|it| *it == way) {
            self.ways.remove(at);
        }
        let mut reply = Reply::default();
        self.choose(&mut reply.orders);
        Ok(reply)
    }

    fn way(&self, policy: &Policy) -> Result<Way, Refusal> {
        let rules = self.rules()?;
        let own = policy.source.address().ok_or(Refusal::Selector)?;
        let peer = policy.destination.address().ok_or(Refusal::Selector)?;
        if own != rules.own {
            return Err(Refused::Own(own).into());
        }
        if !rules.endpoints.contains(&peer) {
            return Err(Refused::Peer(peer).into());
        }
        Ok(Way {
            peer,
            own_port: port(&policy.source, own)?,
            peer_port: port(&policy.destination, peer)?,
            reqid: policy.reqid,
            spi: policy.spi,
        })
    }

    /// Has packets to each endpoint sealed with the SA of its newest policy that has one. As the
    /// responder of a rekey, charon installs the new SA first, and its policy when the other side
    /// has the new SA too.
    fn choose(&mut self, orders: &mut Vec<Order>) {
        let Some(rules) = self.rules.clone() else {
            return;
        };
        for &peer in &rules.endpoints {
            let is_usable = |way: &&Way| {
                way.peer == peer
                    && way.spi != 0
                    && way.is_tunnel(&rules)
                    && self.find(Direction::Out, peer, way.spi).is_some()
            };
            let newest = self.ways.iter().rev().find(is_usable).map(|way| way.spi);
            let used = self.in_use.iter().position(|(it, _)| *it == peer);
            match (used, newest) {
                (Some(at), Some(spi)) if self.in_use[at].1 != spi => self.in_use[at].1 = spi,
                (None, Some(spi)) => self.in_use.push((peer, spi)),
                (Some(at), None) => {
                    // Its removal is an order of its own.
                    self.in_use.swap_remove(at);
                    continue;
                }
                _ => continue,
            }
            if let Some(spi) = newest {
                orders.push(Order::Use { peer, spi });
            }
        }
    }
}

impl Sa {
    fn removal(&self) -> Order {
        Order::Remove {
            direction: self.direction,
            peer: self.negotiated.peer,
            spi: self.negotiated.spi,
        }
    }
}

/// RFC 3948.
const NAT_T_PORT: u16 = 4500;

fn bounded(count: usize, most: usize, endpoint: IpAddr, what: &'static str) -> Result<(), Refusal> {
    match count < most {
        true => Ok(()),
        false => Err(Refusal::TooMany {
            endpoint,
            what,
            most,
        }),
    }
}

/// The port of a selector for UDP at `address`; `None` is any.
fn port(selector: &Selector, address: IpAddr) -> Result<Option<u16>, Refusal> {
    let (first, last) = (*selector.ports.start(), *selector.ports.end());
    if selector.protocol != UDP || selector.address() != Some(address) {
        return Err(Refusal::Selector);
    }
    match (first, last) {
        (0, u16::MAX) => Ok(None),
        _ if first == last => Ok(Some(first)),
        _ => Err(Refusal::Selector),
    }
}

/// Source and destination port, as ours and the peer's.
fn udp_ports(direction: Direction, ports: Option<(u16, u16)>) -> Option<UdpPorts> {
    let (source, destination) = ports?;
    let (own, peer) = match direction {
        Direction::In => (destination, source),
        Direction::Out => (source, destination),
    };
    Some(UdpPorts { own, peer })
}

#[cfg(test)]
mod tests;
