//! The identifiers by which DHCP servers know the clients behind a port.

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
}

impl Claim {
    const NONE: Self = Self {
        len: 0,
        value: [0; MAX_LEN],
        owned_until_ns: 0,
        counted_until_ns: 0,
        address: None,
        associations: [None; MAX_ASSOCIATIONS],
    };

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
#[derive(Debug)]
pub(crate) struct Claims {
    claims: [Claim; MOST],
    transaction: Option<Transaction>,
    /// When each of the last declines no longer counts.
    declined_until_ns: [u64; MOST],
}

impl Default for Claims {
    fn default() -> Self {
        Self {
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
                if self.transaction.is_some_and(|last| last.claim.0 == at) {
                    self.transaction = None;
                }
                at
            }
        };
        self.claims[at].extend(now_ns.saturating_add(ASKED_NS));
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
        }
    }
}
