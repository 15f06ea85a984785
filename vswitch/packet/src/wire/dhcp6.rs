//! DHCPv6's messages (RFC 8415), as far as decisions need them.

use super::field::{be16, be32, be128};

/// Message types.
pub mod kind {
    /// A client looks for servers.
    pub const SOLICIT: u8 = 1;
    /// A server offers.
    pub const ADVERTISE: u8 = 2;
    /// A client asks for what a server has advertised.
    pub const REQUEST: u8 = 3;
    /// A client asks whether its addresses fit its link.
    pub const CONFIRM: u8 = 4;
    /// A client asks its server for more time.
    pub const RENEW: u8 = 5;
    /// A client asks any server for more time.
    pub const REBIND: u8 = 6;
    /// A server's answer.
    pub const REPLY: u8 = 7;
    /// A client gives addresses up.
    pub const RELEASE: u8 = 8;
    /// A client refuses addresses that it was given.
    pub const DECLINE: u8 = 9;
    /// A client asks for everything but addresses.
    pub const INFORMATION_REQUEST: u8 = 11;
}

/// Options.
pub(super) mod option {
    pub(crate) const CLIENT: u16 = 1;
    pub(crate) const SERVER: u16 = 2;
    pub(crate) const ADDRESSES: u16 = 3;
    pub(crate) const TEMPORARY_ADDRESSES: u16 = 4;
    pub(crate) const ADDRESS: u16 = 5;
    pub(crate) const WANTED: u16 = 6;
    pub(crate) const PREFERENCE: u16 = 7;
    pub(crate) const RELAYED: u16 = 9;
    pub(crate) const STATUS: u16 = 13;
    pub(crate) const RAPID_COMMIT: u16 = 14;
    pub(crate) const INTERFACE: u16 = 18;
    pub(crate) const DNS: u16 = 23;
    pub(crate) const SEARCH: u16 = 24;
    pub(crate) const PREFIXES: u16 = 25;
    pub(crate) const PREFIX: u16 = 26;
    pub(crate) const SNTP: u16 = 31;
    pub(crate) const REFRESH_TIME: u16 = 32;
    pub(crate) const REMOTE: u16 = 37;
    pub(crate) const SUBSCRIBER: u16 = 38;
    pub(crate) const NTP: u16 = 56;
    /// A server's address, within the option above.
    pub(crate) const NTP_ADDRESS: u16 = 1;
    pub(crate) const CLIENT_LINK_LAYER: u16 = 79;
}

/// Status codes.
pub mod status {
    /// It is done.
    pub const SUCCESS: u16 = 0;
    /// There is no address for the client.
    pub const NO_ADDRESSES: u16 = 2;
    /// The server knows of no such lease.
    pub const NO_BINDING: u16 = 3;
    /// An address does not fit the link.
    pub const NOT_ON_LINK: u16 = 4;
    /// The client is to send to the group of all servers.
    pub const USE_MULTICAST: u16 = 5;
    /// There is no prefix for the client.
    pub const NO_PREFIXES: u16 = 6;
}

/// At most so many identity associations in a message.
pub const MAX_ASSOCIATIONS: usize = 4;

/// Takes an option off `bytes`.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::from(be16(head, 2)))?;
    Some((be16(head, 0), value, rest))
}

/// An identity association: a group of addresses or prefixes, each with a lease of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Association {
    /// The option that it is.
    pub kind: u16,
    /// The number by which its client knows it.
    pub id: u32,
}

/// An identity association in a message, with what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'p> {
    /// Which one it is.
    pub association: Association,
    options: &'p [u8],
}

impl Asked<'_> {
    /// Whether it is for addresses that are not temporary.
    pub fn is_for_addresses(&self) -> bool {
        self.association.kind == option::ADDRESSES
    }

    /// Whether it is for temporary addresses.
    pub fn is_for_temporary(&self) -> bool {
        self.association.kind == option::TEMPORARY_ADDRESSES
    }

    /// Calls `each` with every address, or first address of a prefix, that it names.
    pub fn each_address(&self, mut each: impl FnMut(u128)) {
        leases(self.options, &mut |address, _| each(address));
    }

    /// Whether it names such an address.
    pub fn names(&self, is_such: impl Fn(u128) -> bool) -> bool {
        let mut found = false;
        self.each_address(|address| found |= is_such(address));
        found
    }
}

/// Reads an identity association: what it is, and the options in it.
fn association(kind: u16, value: &[u8]) -> Option<Option<(Association, &[u8])>> {
    let fixed = match kind {
        option::ADDRESSES | option::PREFIXES => 12,
        option::TEMPORARY_ADDRESSES => 4,
        _ => return Some(None),
    };
    let (head, options) = value.split_at_checked(fixed)?;
    let id = be32(head, 0);
    Some(Some((Association { kind, id }, options)))
}

/// Calls `leased` with the address, or the first address of the prefix, and the valid lifetime of
/// each lease that is named in an identity association. `None` if an option is cut off.
fn leases(mut options: &[u8], leased: &mut impl FnMut(u128, u32)) -> Option<()> {
    while !options.is_empty() {
        let (kind, value, rest) = split(options)?;
        match kind {
            option::ADDRESS => {
                let head = value.first_chunk::<24>()?;
                leased(be128(head, 0), be32(head, 20));
            }
            option::PREFIX => {
                let head = value.first_chunk::<25>()?;
                leased(be128(head, 9), be32(head, 4));
            }
            _ => {}
        }
        options = rest;
    }
    Some(())
}

/// A client's message, with everything by which a server decides whose lease it is about. As with
/// [`super::dhcp::ClientMessage`], one that two servers could read differently is none.
#[derive(Debug, Clone, Copy)]
pub struct ClientMessage<'p> {
    /// The message's type.
    pub kind: u8,
    /// The transaction.
    pub transaction: u32,
    /// The client's identifier (DUID); empty where a client asks for no address.
    pub identifier: &'p [u8],
    /// The server's identifier, if the message is for one server.
    pub server: Option<&'p [u8]>,
    /// Whether the client takes a lease without a second exchange (option 14).
    pub rapid: bool,
    /// The codes of the options that the client asks for, if it says so.
    pub wanted: Option<&'p [u8]>,
    options: &'p [u8],
}

impl<'p> ClientMessage<'p> {
    /// Reads a UDP datagram, from its header on. `None` if it is no client's message, or can be
    /// read in two ways.
    pub fn parse(datagram: &'p [u8]) -> Option<Self> {
        let (header, payload) = datagram.split_first_chunk::<8>()?;
        let (head, all) = payload.split_first_chunk::<4>()?;
        if usize::from(be16(header, 4)) != datagram.len() || !is_clients(head[0]) {
            return None;
        }
        let (mut identifier, mut server, mut associations) = (None, None, 0);
        let (mut rapid, mut wanted) = (false, None);
        let mut options = all;
        while !options.is_empty() {
            let (kind, value, rest) = split(options)?;
            match kind {
                // Section 11.1: a type and 1 to 128 bytes.
                option::CLIENT
                    if (3..=130).contains(&value.len()) && identifier.replace(value).is_none() => {}
                option::SERVER if server.replace(value).is_none() => {}
                option::CLIENT
                | option::SERVER
                | option::RELAYED
                | option::INTERFACE
                | option::REMOTE
                | option::SUBSCRIBER
                | option::CLIENT_LINK_LAYER => return None,
                option::RAPID_COMMIT => rapid = true,
                // Of several the first counts.
                option::WANTED => wanted = wanted.or(Some(value)),
                _ => {
                    if let Some((_, inner)) = association(kind, value)? {
                        associations += 1;
                        leases(inner, &mut |_, _| {})?;
                    }
                }
            }
            options = rest;
        }
        let may_be_nobody = head[0] == kind::INFORMATION_REQUEST;
        if associations > MAX_ASSOCIATIONS || (identifier.is_none() && !may_be_nobody) {
            return None;
        }
        Some(Self {
            kind: head[0],
            transaction: be32(head, 0) & 0x00ff_ffff,
            identifier: identifier.unwrap_or_default(),
            server,
            rapid,
            wanted,
            options: all,
        })
    }

    /// Whether one of the addresses that the message names is such.
    pub fn names(&self, mut is_such: impl FnMut(u128) -> bool) -> bool {
        let mut found = false;
        for_each_association(self.options, |_, inner| {
            leases(inner, &mut |address, _| found |= is_such(address))
        });
        found
    }

    /// Calls `each` with every identity association, in order.
    pub fn each_association(&self, mut each: impl FnMut(Asked<'p>)) {
        for_each_association(self.options, |association, options| {
            each(Asked {
                association,
                options,
            });
            Some(())
        });
    }

    /// Whether all identity associations are accepted.
    pub fn all_associations(&self, mut accept: impl FnMut(Association) -> bool) -> bool {
        let mut accepted = true;
        for_each_association(self.options, |association, _| {
            accepted &= accept(association);
            Some(())
        });
        accepted
    }
}

/// Whether only clients send messages of that type.
fn is_clients(kind: u8) -> bool {
    matches!(
        kind,
        kind::SOLICIT
            | kind::REQUEST
            | kind::CONFIRM
            | kind::RENEW
            | kind::REBIND
            | kind::RELEASE
            | kind::DECLINE
            | kind::INFORMATION_REQUEST
    )
}

/// Calls `each` with every identity association and its options, until it returns `None`.
fn for_each_association<'p>(
    mut options: &'p [u8],
    mut each: impl FnMut(Association, &'p [u8]) -> Option<()>,
) -> Option<()> {
    while !options.is_empty() {
        let (kind, value, rest) = split(options)?;
        if let Some((association, inner)) = association(kind, value)? {
            each(association, inner)?;
        }
        options = rest;
    }
    Some(())
}

/// What a server grants by its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The transaction.
    pub transaction: u32,
    /// The longest valid lifetime of a lease in seconds; 0 if it grants none.
    pub seconds: u32,
}

impl Grant {
    /// Reads a server's message without its UDP header. `None` if it is no reply, or cut off.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (head, options) = payload.split_first_chunk::<4>()?;
        if head[0] != kind::REPLY {
            return None;
        }
        let mut seconds = 0;
        for_each_association(options, |_, inner| {
            leases(inner, &mut |_, valid: u32| seconds = valid.max(seconds))
        })?;
        Some(Self {
            transaction: be32(head, 0) & 0x00ff_ffff,
            seconds,
        })
    }
}

/// The Ethernet address that an identifier names: types 1 and 3 (sections 11.2 and 11.4). Servers
/// take it for the client's where they know clients by MACs.
pub fn named_mac(identifier: &[u8]) -> Option<[u8; 6]> {
    match identifier {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac.try_into().ok(),
        _ => None,
    }
}
