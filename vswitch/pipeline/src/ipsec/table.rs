//! The SAs of one worker: bounded, allocated with the generation, found in a few instructions.

use esp::{Phase, Suite};

use super::link::{Channel, Direction, Notice, Retired};
use super::request::Request;
use super::sa::{Common, InboundSa, OutboundSa};
use super::view::{EndpointCounters, Totals};
use crate::bucket::{Bucket, SECOND_NS};
use crate::ids::VtepId;

/// SAs of one endpoint and direction: two connections, each while it is renewed by both ends at
/// once, and as many again.
const PER_ENDPOINT: usize = 8;

/// What is remembered of one endpoint whose peers require IPsec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    /// The place of the SA that seals packets to it.
    current: Option<u16>,
    /// When it was last noticed that there is none.
    acquired_ns: Option<u64>,
    /// Limits its IKE datagrams.
    pub(crate) ike: Bucket,
    /// SAs of each direction.
    inbound: u8,
    outbound: u8,
    /// What SAs did that are gone.
    past_in: Totals,
    past_out: Totals,
    /// With those in use, and the place of the newest inbound one, while they are published.
    sum_in: Totals,
    sum_out: Totals,
    newest: Option<u16>,
}

impl Endpoint {
    const NEW: Self = Self {
        current: None,
        acquired_ns: None,
        ike: Bucket::FULL,
        inbound: 0,
        outbound: 0,
        past_in: Totals::NONE,
        past_out: Totals::NONE,
        sum_in: Totals::NONE,
        sum_out: Totals::NONE,
        newest: None,
    };

    /// Adds what an SA did to what is past.
    fn settle(&mut self, direction: Direction, common: &Common) {
        match direction {
            Direction::In => self.past_in.add(&common.counters),
            Direction::Out => self.past_out.add(&common.counters),
        }
    }
}

/// All SAs of a worker.
#[derive(Debug)]
pub(crate) struct SaTable {
    /// By SPI, with open addressing; never more than half full.
    inbound: Box<[Option<Box<InboundSa>>]>,
    /// In any order; [`Endpoint::current`] are places here.
    outbound: Box<[Option<Box<OutboundSa>>]>,
    pub(crate) endpoints: Box<[Endpoint]>,
}

impl SaTable {
    /// Room for the SAs of so many endpoints.
    pub(crate) fn new(endpoints: usize) -> Self {
        let all = endpoints * PER_ENDPOINT;
        let inbound = (2 * all).next_power_of_two();
        Self {
            inbound: std::iter::repeat_with(|| None).take(inbound).collect(),
            outbound: std::iter::repeat_with(|| None).take(all).collect(),
            endpoints: vec![Endpoint::NEW; endpoints].into(),
        }
    }

    #[inline(always)]
    fn home(&self, spi: u32) -> usize {
        // SPIs are random, but a multiplication costs nothing.
        let hash = spi.wrapping_mul(0x9e37_79b1) >> 8;
        hash as usize & (self.inbound.len() - 1)
    }

    /// The place of an inbound SA, or the free one where it would be.
    #[inline(always)]
    fn place(&self, spi: u32) -> usize {
        let mut at = self.home(spi);
        // Half of the places are free, so this ends.
        while let Some(sa) = &self.inbound[at] {
            if sa.esp.spi() == spi {
                break;
            }
            at = (at + 1) & (self.inbound.len() - 1);
        }
        at
    }

    /// The inbound SA of that SPI.
    #[inline(always)]
    pub(crate) fn inbound(&mut self, spi: u32) -> Option<&mut InboundSa> {
        let at = self.place(spi);
        self.inbound[at].as_deref_mut().filter(|sa| !sa.common.dead)
    }

    /// The SA that seals packets to that endpoint.
    #[inline(always)]
    pub(crate) fn current(&mut self, vtep: VtepId) -> Option<&mut OutboundSa> {
        let at = self.endpoints.get(vtep.index())?.current?;
        let sa = self.outbound.get_mut(usize::from(at))?.as_deref_mut();
        sa.filter(|sa| !sa.common.dead)
    }

    /// As [`Self::current`], to look at.
    #[inline(always)]
    pub(crate) fn peek(&self, vtep: VtepId) -> Option<&OutboundSa> {
        let at = self.endpoints.get(vtep.index())?.current?;
        self.outbound.get(usize::from(at))?.as_deref()
    }

    /// Whether an acquire is due for that endpoint; then it counts as noticed.
    pub(crate) fn acquire_is_due(&mut self, vtep: VtepId, now_ns: u64) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(vtep.index()) else {
            return false;
        };
        let last = endpoint.acquired_ns;
        let due = last.is_none_or(|last| now_ns.saturating_sub(last) >= SECOND_NS);
        if due {
            endpoint.acquired_ns = Some(now_ns);
        }
        due
    }

    /// Installs an SA of an endpoint. Returns the one that it replaces, or itself if there is no
    /// room.
    pub(crate) fn install_inbound(
        &mut self,
        sa: Box<InboundSa>,
    ) -> Result<Option<Box<InboundSa>>, Box<InboundSa>> {
        let at = self.place(sa.esp.spi());
        if let Some(old) = &self.inbound[at] {
            let endpoint = old.common.vtep;
            if endpoint != sa.common.vtep {
                return Err(sa);
            }
            self.endpoints[endpoint.index()].settle(Direction::In, &old.common);
            return Ok(self.inbound[at].replace(sa));
        }
        let endpoint = &mut self.endpoints[sa.common.vtep.index()];
        if usize::from(endpoint.inbound) == PER_ENDPOINT {
            return Err(sa);
        }
        endpoint.inbound += 1;
        self.inbound[at] = Some(sa);
        Ok(None)
    }

    /// As [`Self::install_inbound`].
    pub(crate) fn install_outbound(
        &mut self,
        sa: Box<OutboundSa>,
    ) -> Result<Option<Box<OutboundSa>>, Box<OutboundSa>> {
        let vtep = sa.common.vtep;
        if let Some(at) = self.outbound_at(vtep, sa.esp.spi()) {
            let old = self.outbound[at].replace(sa);
            if let Some(old) = &old {
                self.endpoints[vtep.index()].settle(Direction::Out, &old.common);
            }
            return Ok(old);
        }
        let endpoint = &mut self.endpoints[vtep.index()];
        let free = self.outbound.iter().position(Option::is_none);
        let Some(at) = free.filter(|_| usize::from(endpoint.outbound) < PER_ENDPOINT) else {
            return Err(sa);
        };
        endpoint.outbound += 1;
        self.outbound[at] = Some(sa);
        Ok(None)
    }

    /// An SA that seals packets to that endpoint, or did.
    pub(crate) fn outbound(&self, vtep: VtepId, spi: u32) -> Option<&OutboundSa> {
        let sa = self.outbound[self.outbound_at(vtep, spi)?].as_deref();
        sa.filter(|sa| !sa.common.dead)
    }

    fn outbound_at(&self, vtep: VtepId, spi: u32) -> Option<usize> {
        self.outbound.iter().position(|sa| {
            let sa = sa.as_ref();
            sa.is_some_and(|sa| sa.common.vtep == vtep && sa.esp.spi() == spi)
        })
    }

    /// From now on that SA seals packets to its endpoint; false if there is none.
    pub(crate) fn choose(&mut self, vtep: VtepId, spi: u32) -> bool {
        let at = self.outbound_at(vtep, spi);
        let endpoint = self.endpoints.get_mut(vtep.index());
        match (endpoint, at) {
            (Some(endpoint), Some(at)) => {
                endpoint.current = Some(at as u16);
                // The next loss is another one.
                endpoint.acquired_ns = None;
                true
            }
            _ => false,
        }
    }

    /// What both directions have of an SA of that endpoint.
    pub(crate) fn common(
        &mut self,
        direction: Direction,
        vtep: VtepId,
        spi: u32,
    ) -> Option<&mut Common> {
        let common = match direction {
            Direction::In => {
                let at = self.place(spi);
                &mut self.inbound[at].as_mut()?.common
            }
            Direction::Out => {
                let at = self.outbound_at(vtep, spi)?;
                &mut self.outbound[at].as_mut()?.common
            }
        };
        (common.vtep == vtep).then_some(common)
    }

    /// Takes an SA out.
    pub(crate) fn remove(
        &mut self,
        direction: Direction,
        vtep: VtepId,
        spi: u32,
    ) -> Option<Retired> {
        self.common(direction, vtep, spi)?;
        match direction {
            Direction::In => self.end_inbound(self.place(spi)),
            Direction::Out => self.end_outbound(self.outbound_at(vtep, spi)?),
        }
    }

    /// Takes the SA at a place out for good.
    fn end_inbound(&mut self, at: usize) -> Option<Retired> {
        let sa = self.take_inbound(at)?;
        self.endpoints[sa.common.vtep.index()].settle(Direction::In, &sa.common);
        Some(Retired::In(sa))
    }

    /// As [`Self::end_inbound`].
    fn end_outbound(&mut self, at: usize) -> Option<Retired> {
        let sa = self.take_outbound(at)?;
        self.endpoints[sa.common.vtep.index()].settle(Direction::Out, &sa.common);
        Some(Retired::Out(sa))
    }

    /// Takes the SA at a place out, and closes the gap that it leaves.
    fn take_inbound(&mut self, at: usize) -> Option<Box<InboundSa>> {
        let taken = self.inbound[at].take()?;
        let counted = self.endpoints.get_mut(taken.common.vtep.index());
        counted.into_iter().for_each(|it| it.inbound -= 1);
        let mask = self.inbound.len() - 1;
        let (mut gap, mut next) = (at, (at + 1) & mask);
        while let Some(sa) = &self.inbound[next] {
            let home = self.home(sa.esp.spi());
            // Whether its home lies behind the gap, on the way to where it is.
            let stays = (next.wrapping_sub(home) & mask) < (next.wrapping_sub(gap) & mask);
            if !stays {
                self.inbound.swap(gap, next);
                gap = next;
            }
            next = (next + 1) & mask;
        }
        Some(taken)
    }

    fn take_outbound(&mut self, at: usize) -> Option<Box<OutboundSa>> {
        let taken = self.outbound[at].take()?;
        if let Some(endpoint) = self.endpoints.get_mut(taken.common.vtep.index()) {
            endpoint.outbound -= 1;
            if endpoint.current == Some(at as u16) {
                endpoint.current = None;
            }
        }
        Some(taken)
    }

    /// Every SA is used no more.
    pub(crate) fn kill_all(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.current = None;
        }
        let inbound = self.inbound.iter_mut().flatten().map(|sa| &mut sa.common);
        let outbound = self.outbound.iter_mut().flatten();
        for common in inbound.chain(outbound.map(|sa| &mut sa.common)) {
            (common.dead, common.silent) = (true, true);
        }
    }

    /// Ends SAs that are too old, notices those that should be replaced, and hands the dead ones
    /// back as far as there is room.
    pub(crate) fn poll(&mut self, channel: &Channel, now_ns: u64) {
        for at in 0..self.inbound.len() {
            // What closes the gap is looked at too.
            while let Some(sa) = &mut self.inbound[at] {
                if !has_ended(Direction::In, &mut sa.common, channel, now_ns) {
                    break;
                }
                let ended = self.end_inbound(at);
                ended.into_iter().for_each(|sa| channel.retire(sa));
            }
        }
        for at in 0..self.outbound.len() {
            let Some(sa) = &mut self.outbound[at] else {
                continue;
            };
            sa.common.dead |= !sa.esp.can_seal();
            if has_ended(Direction::Out, &mut sa.common, channel, now_ns) {
                let ended = self.end_outbound(at);
                ended.into_iter().for_each(|sa| channel.retire(sa));
            }
        }
    }

    /// Writes what is shown of each endpoint, in their order.
    pub(crate) fn publish<'c>(&mut self, shown: impl Iterator<Item = &'c EndpointCounters>) {
        for endpoint in &mut self.endpoints {
            (endpoint.sum_in, endpoint.sum_out) = (endpoint.past_in, endpoint.past_out);
            endpoint.newest = None;
        }
        for sa in self.outbound.iter().flatten() {
            let endpoint = &mut self.endpoints[sa.common.vtep.index()];
            endpoint.sum_out.add(&sa.common.counters);
        }
        let since = |sa: &InboundSa| sa.common.counters.since_ns.get();
        for (sa, at) in self.inbound.iter().zip(0..) {
            let Some(sa) = sa else { continue };
            let endpoint = &mut self.endpoints[sa.common.vtep.index()];
            endpoint.sum_in.add(&sa.common.counters);
            let newest = endpoint
                .newest
                .and_then(|at| self.inbound[usize::from(at)].as_ref());
            let serves = !sa.common.dead && sa.common.request.peer_port.is_none();
            if serves && newest.is_none_or(|newest| since(newest) <= since(sa)) {
                endpoint.newest = Some(at);
            }
        }
        for ((shown, endpoint), id) in shown.zip(&self.endpoints).zip(0..) {
            shown.set(endpoint.sum_out, endpoint.sum_in);
            let current = self.peek(VtepId(id)).filter(|sa| !sa.common.dead);
            let view = current.map(|sa| sa.common.shown(sa.esp.suite()));
            shown.outbound.set(view);
            let newest = endpoint
                .newest
                .and_then(|at| self.inbound[usize::from(at)].as_ref());
            let view = newest.map(|sa| sa.common.shown(sa.esp.suite()));
            shown.inbound.set(view);
        }
    }

    /// Counts what the SAs that are left here did as past.
    pub(crate) fn settle_all(&mut self) {
        for sa in self.inbound.iter().flatten() {
            self.endpoints[sa.common.vtep.index()].settle(Direction::In, &sa.common);
        }
        for sa in self.outbound.iter().flatten() {
            self.endpoints[sa.common.vtep.index()].settle(Direction::Out, &sa.common);
        }
    }

    /// Takes over what is past of an endpoint of the table before.
    pub(crate) fn keep_past(&mut self, vtep: VtepId, previous: &Self, known: VtepId) {
        let from = &previous.endpoints[known.index()];
        let to = &mut self.endpoints[vtep.index()];
        (to.past_in, to.past_out) = (from.past_in, from.past_out);
    }

    /// Takes over the SAs of the table before that are still allowed: `kept` gives the place of
    /// their endpoint. The others stay there, to be dropped with it.
    pub(crate) fn keep(
        &mut self,
        previous: &mut Self,
        channel: Option<&Channel>,
        kept: impl Fn(&Request, Suite) -> Option<VtepId>,
    ) {
        for at in 0..previous.inbound.len() {
            while let Some(sa) = &previous.inbound[at] {
                let kept = kept(&sa.common.request, sa.esp.suite());
                let Some(vtep) = kept.filter(|_| !sa.common.dead) else {
                    say_ended(Direction::In, &sa.common, channel);
                    break;
                };
                let Some(mut sa) = previous.take_inbound(at) else {
                    break;
                };
                sa.common.vtep = vtep;
                if let Err(sa) = self.install_inbound(sa) {
                    say_ended(Direction::In, &sa.common, channel);
                    previous.inbound[at] = Some(sa);
                    break;
                }
            }
        }
        for at in 0..previous.outbound.len() {
            let Some(sa) = &previous.outbound[at] else {
                continue;
            };
            let old = sa.common.vtep;
            let is_current = previous.endpoints[old.index()].current == Some(at as u16);
            let kept = kept(&sa.common.request, sa.esp.suite());
            let Some(vtep) = kept.filter(|_| !sa.common.dead) else {
                say_ended(Direction::Out, &sa.common, channel);
                continue;
            };
            let Some(mut sa) = previous.take_outbound(at) else {
                continue;
            };
            let spi = sa.esp.spi();
            sa.common.vtep = vtep;
            match self.install_outbound(sa) {
                Ok(_) if is_current => {
                    self.choose(vtep, spi);
                }
                Ok(_) => {}
                Err(sa) => {
                    say_ended(Direction::Out, &sa.common, channel);
                    previous.outbound[at] = Some(sa);
                }
            }
        }
    }
}

fn say_ended(direction: Direction, common: &Common, channel: Option<&Channel>) {
    let (peer, spi) = (common.request.peer, common.request.spi);
    if let Some(channel) = channel.filter(|_| !common.silent) {
        channel.notify(Notice::Hard {
            direction,
            peer,
            spi,
        });
    }
}

/// Notices what is due of an SA. Whether it has ended, and is to be handed back now.
fn has_ended(direction: Direction, common: &mut Common, channel: &Channel, now_ns: u64) -> bool {
    let (peer, spi) = (common.request.peer, common.request.spi);
    let phase = common.phase(now_ns);
    common.dead |= phase == Phase::Expired;
    if common.dead {
        let hard = Notice::Hard {
            direction,
            peer,
            spi,
        };
        return channel.has_room_to_retire() && (common.silent || channel.notify(hard));
    }
    if phase == Phase::Soft && !common.softened {
        common.softened = channel.notify(Notice::Soft {
            direction,
            peer,
            spi,
        });
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use esp::{Keys, Lifetime};

    use super::*;
    use crate::ipsec::request::Mode;
    use crate::ipsec::rules::Rules;

    const ENDPOINTS: usize = 2;
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const SUITE: Suite = Suite::ChaCha20Poly1305;

    fn peer(vtep: VtepId) -> IpAddr {
        IpAddr::from([192, 0, 2, 10 + vtep.0 as u8])
    }

    fn rules() -> Rules {
        Rules {
            own: OWN,
            port: 6081,
            suites: vec![SUITE],
            esn: true,
            replay_window: 64,
            endpoints: (0..ENDPOINTS).map(|id| peer(VtepId(id as u16))).collect(),
        }
    }

    fn request(vtep: VtepId, spi: u32) -> Request {
        Request {
            spi,
            own: OWN,
            peer: peer(vtep),
            mode: Mode::Transport,
            esn: true,
            encapsulation: None,
            own_port: None,
            peer_port: None,
            lifetime: Lifetime::UNBOUNDED,
        }
    }

    fn keys() -> Keys {
        let (encryption, integrity) = (SUITE.encryption_key_len(), SUITE.integrity_key_len());
        Keys::new(SUITE, &vec![1; encryption], &vec![2; integrity]).expect("keys")
    }

    fn inbound(vtep: VtepId, spi: u32) -> Box<InboundSa> {
        let sa = InboundSa::new(&rules(), request(vtep, spi), &keys());
        let mut sa = sa.expect("an SA");
        sa.common.begin(vtep, 1);
        sa
    }

    fn outbound(vtep: VtepId, spi: u32) -> Box<OutboundSa> {
        let sa = OutboundSa::new(&rules(), request(vtep, spi), &keys());
        let mut sa = sa.expect("an SA");
        sa.common.begin(vtep, 1);
        sa
    }

    /// Numbers that look random.
    fn numbers() -> impl Iterator<Item = usize> {
        let mut state = 7_u32;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize
        })
    }

    /// What a table does with SAs of either direction, and what a list of SPIs does.
    #[test]
    fn table_agrees_with_list() {
        let mut numbers = numbers();
        let mut number = move || numbers.next().expect("without end");
        let spis: Vec<u32> = (0..48).map(|_| 256 + number() as u32).collect();
        let mut table = SaTable::new(ENDPOINTS);
        let mut known_in: BTreeMap<u32, VtepId> = BTreeMap::new();
        let mut known_out: BTreeSet<(u16, u32)> = BTreeSet::new();
        for step in 0..4_000 {
            let spi = spis[number() % spis.len()];
            let vtep = VtepId((number() % ENDPOINTS) as u16);
            let has_room_in = known_in.values().filter(|it| **it == vtep).count() < PER_ENDPOINT;
            let outbound_of = known_out.iter().filter(|it| it.0 == vtep.0);
            let has_room_out = outbound_of.count() < PER_ENDPOINT;
            match number() % 5 {
                0 | 1 => {
                    let replaces = known_in.get(&spi).map(|it| *it == vtep);
                    let got = table.install_inbound(inbound(vtep, spi));
                    let got = got.map(|old| old.is_some()).map_err(drop);
                    let expected = match replaces {
                        Some(true) => Ok(true),
                        None if has_room_in => Ok(false),
                        _ => Err(()),
                    };
                    assert_eq!(got, expected, "step {step}: inbound {spi:x}");
                    if expected == Ok(false) {
                        known_in.insert(spi, vtep);
                    }
                }
                2 | 3 => {
                    let replaces = known_out.contains(&(vtep.0, spi));
                    let got = table.install_outbound(outbound(vtep, spi));
                    let got = got.map(|old| old.is_some()).map_err(drop);
                    let expected = match replaces {
                        true => Ok(true),
                        false if has_room_out => Ok(false),
                        false => Err(()),
                    };
                    assert_eq!(got, expected, "step {step}: outbound {spi:x}");
                    if expected == Ok(false) {
                        known_out.insert((vtep.0, spi));
                    }
                }
                _ => {
                    let was = known_in.get(&spi) == Some(&vtep);
                    let removed = table.remove(Direction::In, vtep, spi).is_some();
                    assert_eq!(removed, was, "step {step}: inbound {spi:x}");
                    if was {
                        known_in.remove(&spi);
                    }
                    let was = known_out.remove(&(vtep.0, spi));
                    let removed = table.remove(Direction::Out, vtep, spi).is_some();
                    assert_eq!(removed, was, "step {step}: outbound {spi:x}");
                }
            }
            for spi in &spis {
                let found = table.inbound(*spi).map(|sa| sa.common.vtep);
                assert_eq!(found, known_in.get(spi).copied(), "step {step}: {spi:x}");
                for id in 0..ENDPOINTS as u16 {
                    let found = table.outbound(VtepId(id), *spi).is_some();
                    let known = known_out.contains(&(id, *spi));
                    assert_eq!(found, known, "step {step}: {spi:x}");
                }
            }
        }
    }
}
