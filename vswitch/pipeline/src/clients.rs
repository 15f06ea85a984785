//! The identifiers by which DHCP servers know the clients behind a port: what the worker remembers
//! of them, and what of that outlives a switch.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use packet::wire::dhcp6::{Association, MAX_ASSOCIATIONS};

use crate::bucket::SECOND_NS;

/// Leases that a port may have at one time, each for an identifier of its own; and addresses that
/// it may decline a day.
const MOST: usize = 4;
/// For so long an identifier is a port's from its last message on, if no lease follows. Servers
/// keep an offer for at most that long.
const ASKED_NS: u64 = 120 * SECOND_NS;
/// Servers that keep a declined address aside do so for a day at most.
const DECLINED_NS: u64 = 86_400 * SECOND_NS;
/// The length of an option's longest value.
const MAX_LEN: usize = 255;

/// Whose clients: DHCP's, or DHCPv6's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// DHCP.
    V4,
    /// DHCPv6.
    V6,
}

/// What is remembered of the clients behind one port, and outlives the switch. Times are of the
/// pipeline's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// The identifiers that the port uses.
    pub identifiers: Vec<Client>,
    /// When each of the last declines no longer counts.
    pub declined_until_ns: Vec<u64>,
}

/// An identifier that a port uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its bytes; none of a client that its server knows by its MAC.
    pub identifier: Vec<u8>,
    /// Until when no other port may use it.
    pub owned_until_ns: u64,
    /// Until when it counts among the port's.
    pub counted_until_ns: u64,
    /// The address that a server granted it last, of DHCP.
    pub address: Option<Ipv4Addr>,
    /// Of DHCPv6, the identity associations that it has asked for: each its option and its number.
    pub associations: Vec<(u16, u32)>,
}

impl Clients {
    /// Whether a port can have used all that.
    fn is_bounded(&self) -> bool {
        let is_bounded = |client: &Client| {
            client.identifier.len() <= MAX_LEN && client.associations.len() <= MAX_ASSOCIATIONS
        };
        let is_single = |at: usize| {
            let (before, client) = (&self.identifiers[..at], &self.identifiers[at]);
            before.iter().all(|it| it.identifier != client.identifier)
        };
        self.identifiers.len() <= MOST
            && self.declined_until_ns.len() <= MOST
            && self.identifiers.iter().all(is_bounded)
            && (0..self.identifiers.len()).all(is_single)
    }
}

/// What other threads see of a port's clients, of one family. The worker never waits for them.
#[derive(Debug, Default)]
pub struct PublishedClients {
    version: AtomicU64,
    claims: Mutex<Claims>,
}

impl PublishedClients {
    /// Differs from what it was if the clients have changed; 0 if there were never any.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What is remembered at that time; `None` while the worker writes it.
    pub fn get(&self, now_ns: u64) -> Option<Clients> {
        Some(self.claims.try_lock().ok()?.remembered(now_ns))
    }

    /// Publishes what has changed, or leaves it to the next call while somebody reads.
    #[inline]
    pub(crate) fn publish(&self, claims: Option<&Claims>) {
        let version = claims.map_or(0, |claims| claims.version);
        if version != self.version.load(Ordering::Relaxed) {
            self.replace(claims, version);
        }
    }

    #[cold]
    fn replace(&self, claims: Option<&Claims>, version: u64) {
        let Ok(mut published) = self.claims.try_lock() else {
            return;
        };
        match claims {
            Some(claims) => published.clone_from(claims),
            None => *published = Claims::default(),
        }
        self.version.store(version, Ordering::Release);
    }
}

/// What other threads see of the addresses that a port has claimed. The worker never waits for
/// them.
#[derive(Debug, Default)]
pub struct PublishedAddresses {
    version: AtomicU64,
    addresses: Mutex<[u128; Self::MOST]>,
}

impl PublishedAddresses {
    /// A port has so many at most.
    pub const MOST: usize = 12;

    /// Differs from what it was if the addresses have changed; 0 if there were never any.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The addresses; `None` while the worker writes them.
    pub fn get(&self) -> Option<Vec<Ipv6Addr>> {
        let addresses = self.addresses.try_lock().ok()?;
        let there = addresses.iter().filter(|address| **address != 0);
        Some(there.map(|address| Ipv6Addr::from_bits(*address)).collect())
    }

    /// Publishes the addresses if they have changed, or leaves it to the next call while somebody
    /// reads.
    #[inline]
    pub(crate) fn publish(&self, version: u64, addresses: impl Iterator<Item = u128>) {
        if version != self.version.load(Ordering::Relaxed)
            && let Ok(mut published) = self.addresses.try_lock()
        {
            *published = [0; Self::MOST];
            for (place, address) in published.iter_mut().zip(addresses) {
                *place = address;
            }
            self.version.store(version, Ordering::Release);
        }
    }
}

/// The place of a claim among its port's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimId(usize);

/// An identifier that a port uses.
#[derive(Debug, Clone, Copy)]
struct Claim {
    len: u8,
    value: [u8; MAX_LEN],
    /// Until when no other port may use it.
    owned_until_ns: u64,
    /// Until when a server may hold an address for it. A server may not have honoured a release, so
    /// this may outlast the ownership.
    counted_until_ns: u64,
    /// The address that a server granted it last, of DHCP.
    address: Option<u32>,
    /// Of DHCPv6, the groups of addresses that it has asked for: each has leases of its own.
    associations: [Option<Association>; MAX_ASSOCIATIONS],
    /// Whether it was restored and no generation has been installed since.
    restored: bool,
}

impl Claim {
    const NONE: Self = Self {
        len: 0,
        value: [0; MAX_LEN],
        owned_until_ns: 0,
        counted_until_ns: 0,
        address: None,
        associations: [None; MAX_ASSOCIATIONS],
        restored: false,
    };

    /// As it was before a restart. Its lengths are within the bounds.
    fn restored(client: &Client) -> Self {
        let mut claim = Self {
            len: client.identifier.len() as u8,
            owned_until_ns: client.owned_until_ns.min(client.counted_until_ns),
            counted_until_ns: client.counted_until_ns,
            address: client.address.map(Ipv4Addr::to_bits),
            restored: true,
            ..Self::NONE
        };
        claim.value[..client.identifier.len()].copy_from_slice(&client.identifier);
        for (place, (kind, id)) in claim.associations.iter_mut().zip(&client.associations) {
            let (kind, id) = (*kind, *id);
            *place = Some(Association { kind, id });
        }
        claim
    }

    fn remembered(&self) -> Client {
        let associations = self.associations.iter().flatten();
        Client {
            identifier: self.value().to_vec(),
            owned_until_ns: self.owned_until_ns,
            counted_until_ns: self.counted_until_ns,
            address: self.address.map(Ipv4Addr::from_bits),
            associations: associations.map(|it| (it.kind, it.id)).collect(),
        }
    }

    fn value(&self) -> &[u8] {
        &self.value[..usize::from(self.len)]
    }

    fn extend(&mut self, until_ns: u64) {
        self.owned_until_ns = self.owned_until_ns.max(until_ns);
        self.counted_until_ns = self.counted_until_ns.max(until_ns);
    }
}

/// A client's exchange with its server.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    id: u32,
    claim: ClaimId,
    until_ns: u64,
}

/// The identifiers that one port uses, and its exchange with a server.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    /// Counts the changes of what outlives the switch.
    version: u64,
    claims: [Claim; MOST],
    transaction: Option<Transaction>,
    /// When each of the last declines no longer counts.
    declined_until_ns: [u64; MOST],
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            version: 0,
            claims: [Claim::NONE; MOST],
            transaction: None,
            declined_until_ns: [0; MOST],
        }
    }
}

impl Claims {
    /// Whether no other port may use that identifier.
    pub(crate) fn owns(&self, value: &[u8], now_ns: u64) -> bool {
        let mut claims = self.claims.iter();
        claims.any(|claim| now_ns < claim.owned_until_ns && claim.value() == value)
    }

    /// What outlives the switch.
    fn remembered(&self, now_ns: u64) -> Clients {
        let claims = self.claims.iter().filter(|it| now_ns < it.counted_until_ns);
        let declines = self.declined_until_ns.iter().copied();
        Clients {
            identifiers: claims.map(Claim::remembered).collect(),
            declined_until_ns: declines.filter(|until_ns| now_ns < *until_ns).collect(),
        }
    }

    /// Takes what the port's clients had before a restart, if a port can have used that.
    pub(crate) fn restore(&mut self, clients: &Clients) -> bool {
        if !clients.is_bounded() {
            return false;
        }
        for (place, client) in self.claims.iter_mut().zip(&clients.identifiers) {
            *place = Claim::restored(client);
        }
        let declines = self.declined_until_ns.iter_mut();
        for (place, until_ns) in declines.zip(&clients.declined_until_ns) {
            *place = *until_ns;
        }
        self.version += 1;
        true
    }

    /// Adds what was restored into `self` to `current`, which has come since, and takes the sum. An
    /// identifier for which no place is left is forgotten.
    pub(crate) fn keep(&mut self, current: &mut Self) {
        std::mem::swap(self, current);
        let restored = current;
        let mut changed = false;
        for claim in restored.claims.iter().filter(|claim| claim.restored) {
            changed = true;
            let is_counted = |it: &Claim| it.counted_until_ns > 0;
            let mut claims = self.claims.iter();
            let known = claims.position(|it| is_counted(it) && it.value() == claim.value());
            let free = || self.claims.iter().position(|it| !is_counted(it));
            let Some(at) = known.or_else(free) else {
                continue;
            };
            let (owned_ns, counted_ns) = match known {
                Some(_) => (
                    self.claims[at].owned_until_ns,
                    self.claims[at].counted_until_ns,
                ),
                None => (0, 0),
            };
            let place = &mut self.claims[at];
            *place = *claim;
            place.owned_until_ns = place.owned_until_ns.max(owned_ns);
            place.counted_until_ns = place.counted_until_ns.max(counted_ns);
        }
        for until_ns in restored.declined_until_ns.iter().filter(|it| **it > 0) {
            changed = true;
            if let Some(least) = self.declined_until_ns.iter_mut().min() {
                *least = (*least).max(*until_ns);
            }
        }
        self.version += u64::from(changed);
    }

    /// The identifiers that were restored; from then on they are like any others.
    pub(crate) fn take_restored(&mut self) -> impl Iterator<Item = (usize, [u8; MAX_LEN])> + '_ {
        self.claims.iter_mut().filter_map(|claim| {
            let is_owned = claim.owned_until_ns > 0 && claim.len > 0;
            let restored = std::mem::take(&mut claim.restored) && is_owned;
            restored.then_some((usize::from(claim.len), claim.value))
        })
    }

    /// Another port had the identifier before this one.
    pub(crate) fn disown(&mut self, value: &[u8]) {
        for claim in &mut self.claims {
            if claim.owned_until_ns > 0 && claim.value() == value {
                claim.owned_until_ns = 0;
                self.version += 1;
            }
        }
    }

    /// Takes the identifier for the port, if the port has not too many. Without one, which is empty
    /// here, servers know a client by its MAC: that counts too.
    pub(crate) fn claim(&mut self, value: &[u8], now_ns: u64) -> Option<ClaimId> {
        let counts = |claim: &Claim| now_ns < claim.counted_until_ns;
        let mut claims = self.claims.iter();
        let known = claims.position(|claim| counts(claim) && claim.value() == value);
        let free = || self.claims.iter().position(|claim| !counts(claim));
        let at = match known {
            Some(at) => at,
            None => {
                let at = free()?;
                let len = value.len().min(MAX_LEN);
                let claim = &mut self.claims[at];
                *claim = Claim::NONE;
                claim.len = len as u8;
                claim.value[..len].copy_from_slice(&value[..len]);
                at
            }
        };
        self.claims[at].extend(now_ns.saturating_add(ASKED_NS));
        self.version += 1;
        Some(ClaimId(at))
    }

    /// Whether the identifier may have that group of addresses as well.
    pub(crate) fn associate(&mut self, claim: ClaimId, association: Association) -> bool {
        let ClaimId(at) = claim;
        let associations = &mut self.claims[at].associations;
        let is_known = |known: &Option<Association>| known.is_none_or(|it| it == association);
        match associations.iter_mut().find(|known| is_known(known)) {
            Some(place) => {
                *place = Some(association);
                self.version += 1;
                true
            }
            None => false,
        }
    }

    /// Whether the port may decline one address more; if so, that counts.
    pub(crate) fn decline(&mut self, now_ns: u64) -> bool {
        let mut declines = self.declined_until_ns.iter_mut();
        let Some(free) = declines.find(|until_ns| **until_ns <= now_ns) else {
            return false;
        };
        *free = now_ns.saturating_add(DECLINED_NS);
        self.version += 1;
        true
    }

    /// The port's client began an exchange.
    pub(crate) fn begin(&mut self, id: u32, claim: ClaimId, now_ns: u64) {
        let until_ns = now_ns.saturating_add(ASKED_NS);
        self.transaction = Some(Transaction {
            id,
            claim,
            until_ns,
        });
    }

    /// Whether that is the exchange under way.
    pub(crate) fn is_under_way(&self, id: u32, now_ns: u64) -> bool {
        self.claim_of(id, now_ns).is_some()
    }

    fn claim_of(&self, id: u32, now_ns: u64) -> Option<ClaimId> {
        let transaction = self.transaction.filter(|last| last.id == id)?;
        (now_ns < transaction.until_ns).then_some(transaction.claim)
    }

    /// Ends the exchange under way.
    pub(crate) fn finish(&mut self) {
        self.transaction = None;
    }

    /// A server granted an address in that exchange, until then. A grant of another exchange may be
    /// for any of the port's identifiers.
    pub(crate) fn granted(&mut self, id: u32, address: Option<u32>, now_ns: u64, until_ns: u64) {
        self.version += 1;
        if let Some(ClaimId(at)) = self.claim_of(id, now_ns) {
            self.claims[at].extend(until_ns);
            self.claims[at].address = address;
            return;
        }
        for claim in &mut self.claims {
            if now_ns < claim.counted_until_ns {
                claim.counted_until_ns = claim.counted_until_ns.max(until_ns);
            }
            if now_ns < claim.owned_until_ns {
                claim.owned_until_ns = claim.owned_until_ns.max(until_ns);
            }
        }
    }

    /// The port's client gave up the address that it has for an identifier: another port may use
    /// it.
    pub(crate) fn gave_up(&mut self, claim: ClaimId, address: Option<u32>) {
        let ClaimId(at) = claim;
        let claim = &mut self.claims[at];
        if address.is_none_or(|address| claim.address == Some(address)) {
            claim.owned_until_ns = 0;
            self.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = &[1, 1];
    const TWO: &[u8] = &[2, 2];
    const ADDRESS: u32 = 0x0a00_0032;
    /// The end of what was asked for at time 0.
    const END_NS: u64 = ASKED_NS;

    /// Claims with one identifier, asked for at time 0.
    fn asked() -> (Claims, ClaimId) {
        let mut claims = Claims::default();
        let claim = claims.claim(ONE, 0).expect("room");
        (claims, claim)
    }

    /// What changes counts up, so that it is published and written down; what does not, does not.
    #[test]
    fn version_counts_changes() {
        let association = Association { kind: 3, id: 1 };
        type Change = fn(&mut Claims, ClaimId);
        let changes: [(&str, Change); 7] = [
            ("a claim", |claims, _| {
                assert!(claims.claim(TWO, 1).is_some())
            }),
            ("a known one", |claims, _| {
                assert!(claims.claim(ONE, 1).is_some())
            }),
            ("a decline", |claims, _| assert!(claims.decline(1))),
            ("a grant", |claims, _| {
                claims.granted(7, Some(ADDRESS), 1, 2);
            }),
            ("a release", |claims, claim| claims.gave_up(claim, None)),
            ("a loss", |claims, _| claims.disown(ONE)),
            ("a restart", |claims, _| {
                assert!(claims.restore(&Clients::default()));
            }),
        ];
        for (what, change) in changes {
            let (mut claims, claim) = asked();
            let before = claims.version;
            change(&mut claims, claim);
            assert_eq!(claims.version, before + 1, "{what}");
        }
        let (mut claims, claim) = asked();
        let before = claims.version;
        assert!(claims.associate(claim, association));
        assert_eq!(claims.version, before + 1);
        // Nothing is lost by whoever does not have it, nor twice.
        claims.disown(TWO);
        claims.disown(ONE);
        claims.disown(ONE);
        assert_eq!(claims.version, before + 2);
        assert!(!claims.owns(ONE, 1));
        // A new generation to which nothing was restored.
        let mut next = Claims::default();
        next.keep(&mut claims);
        assert_eq!(next.version, before + 2);
    }

    #[test]
    fn version_is_published() {
        let published = PublishedClients::default();
        assert_eq!(published.version(), 0);
        let (claims, _) = asked();
        published.publish(Some(&claims));
        assert_eq!(published.version(), claims.version);
        assert_eq!(published.get(0), Some(claims.remembered(0)));
        published.publish(None);
        assert_eq!(published.version(), 0);
        assert_eq!(published.get(0), Some(Clients::default()));
    }

    #[test]
    fn claim_ends_when_its_time_is_over() {
        let (mut claims, _) = asked();
        assert!(claims.owns(ONE, END_NS - 1) && !claims.owns(TWO, END_NS - 1));
        assert!(!claims.owns(ONE, END_NS));
        assert_eq!(claims.remembered(END_NS - 1).identifiers.len(), 1);
        assert_eq!(claims.remembered(END_NS).identifiers, []);
        // A grant of an unknown exchange prolongs what is not over, and nothing else.
        let mut prolonged = claims.clone();
        prolonged.granted(7, Some(ADDRESS), END_NS - 1, 9 * END_NS);
        assert!(prolonged.owns(ONE, 9 * END_NS - 1));
        claims.granted(7, Some(ADDRESS), END_NS, 9 * END_NS);
        assert!(!claims.owns(ONE, END_NS));
        assert_eq!(claims.remembered(END_NS).identifiers, []);
    }

    /// Of each identifier in one port's claims, at most four groups of addresses.
    #[test]
    fn fifth_association_is_refused() {
        let (mut claims, claim) = asked();
        let associate =
            |claims: &mut Claims, id| claims.associate(claim, Association { kind: 3, id });
        for id in 1..=4 {
            assert!(associate(&mut claims, id));
        }
        assert!(!associate(&mut claims, 5));
        assert!(associate(&mut claims, 4));
    }
}
