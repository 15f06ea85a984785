//! DHCPv6's messages (RFC 8415), as far as decisions need them.

use super::field::{be16, be32, be128};

/// Message types.
pub mod kind {
    /// A client looks for servers.
    pub const SOLICIT: u8 = 1;
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
mod option {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const ADDRESSES: u16 = 3;
    pub(super) const TEMPORARY_ADDRESSES: u16 = 4;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const RELAYED: u16 = 9;
    pub(super) const INTERFACE: u16 = 18;
    pub(super) const PREFIXES: u16 = 25;
    pub(super) const PREFIX: u16 = 26;
    pub(super) const REMOTE: u16 = 37;
    pub(super) const SUBSCRIBER: u16 = 38;
    pub(super) const CLIENT_LINK_LAYER: u16 = 79;
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
        let (mut identifier, mut has_server, mut associations) = (None, false, 0);
        let mut options = all;
        while !options.is_empty() {
            let (kind, value, rest) = split(options)?;
            match kind {
                // Section 11.1: a type and 1 to 128 bytes.
                option::CLIENT
                    if (3..=130).contains(&value.len()) && identifier.replace(value).is_none() => {}
                option::SERVER if !std::mem::replace(&mut has_server, true) => {}
                option::CLIENT
                | option::SERVER
                | option::RELAYED
                | option::INTERFACE
                | option::REMOTE
                | option::SUBSCRIBER
                | option::CLIENT_LINK_LAYER => return None,
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
fn for_each_association(
    mut options: &[u8],
    mut each: impl FnMut(Association, &[u8]) -> Option<()>,
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
