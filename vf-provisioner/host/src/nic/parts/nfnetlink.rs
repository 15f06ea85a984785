//! nftables by netlink, for what Debian's `nft` cannot say: what others change, and who owns a
//! table.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_NONREC, NLM_F_REQUEST, NLMSG_ERROR,
    NetlinkHeader, NlasIterator,
};
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv, send};

use super::listener::{self, Listener, text};
use super::nft::Family;

/// The subsystem of nftables, in the upper byte of a message's type (linux/netfilter/nfnetlink.h).
const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// The group that hears of changes (NFNLGRP_NFTABLES, 7), as a bit.
const CHANGES: u32 = 1 << 6;
/// Messages of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_GENERATION: u16 = 15;
/// Attributes: the table of all these objects; the flags of a table; the name of a chain, and of a
/// rule's chain.
const TABLE: u16 = 1;
const FLAGS: u16 = 2;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
/// The table's owner alone changes it (Linux 5.12).
const OWNER: u32 = 2;
/// The table stays when its owner ends (Linux 6.9).
const PERSIST: u32 = 4;

const HEADER: usize = 16;
/// The header of nfnetlink: family, version, resource.
const GENERIC: usize = 4;

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Netdev => 5,
            Self::Bridge => 7,
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    listener::open(SockProtocol::NetlinkNetFilter, 0, SockFlag::empty())
}

/// What happened to an object of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A table was made, or its flags were changed.
    TableSet,
    TableGone,
    ChainSet,
    ChainGone,
    RuleMade,
    RuleGone,
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) happened: Happened,
    /// The family's number.
    pub(super) family: u8,
    pub(crate) table: String,
    /// Of a chain or a rule.
    pub(crate) chain: String,
}

impl Change {
    pub(crate) fn is_in(&self, family: Family) -> bool {
        self.family == family.number()
    }
}

/// Hears what others change in nftables.
pub(crate) struct Changes {
    listener: Listener,
    /// Of a transaction that is not complete.
    pending: Vec<Change>,
}

impl Changes {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            listener: Listener::open(SockProtocol::NetlinkNetFilter, CHANGES)?,
            pending: Vec::new(),
        })
    }

    /// The transactions since the last call; `None` if some were not heard.
    pub(crate) fn take(&mut self) -> io::Result<Option<Vec<Vec<Change>>>> {
        let mut transactions = Vec::new();
        let pending = &mut self.pending;
        let all = self
            .listener
            .each(|kind, payload| note(kind, payload, pending, &mut transactions))?;
        if !all {
            pending.clear();
        }
        Ok(all.then_some(transactions))
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Notes a message. The last one of each transaction is that of the new generation.
fn note(kind: u16, payload: &[u8], pending: &mut Vec<Change>, done: &mut Vec<Vec<Change>>) {
    if kind >> 8 != NFTABLES {
        return;
    }
    match kind & 0xff {
        NEW_GENERATION => done.push(std::mem::take(pending)),
        kind => pending.extend(change(kind, payload)),
    }
}

fn change(kind: u16, payload: &[u8]) -> Option<Change> {
    let (happened, chain_at) = match kind {
        NEW_TABLE => (Happened::TableSet, None),
        DELETE_TABLE => (Happened::TableGone, None),
        NEW_CHAIN => (Happened::ChainSet, Some(CHAIN_NAME)),
        DELETE_CHAIN => (Happened::ChainGone, Some(CHAIN_NAME)),
        NEW_RULE => (Happened::RuleMade, Some(RULE_CHAIN)),
        DELETE_RULE => (Happened::RuleGone, Some(RULE_CHAIN)),
        _ => return None,
    };
    let (head, attributes) = payload.split_at_checked(GENERIC)?;
    let mut change = Change {
        happened,
        family: *head.first()?,
        table: String::new(),
        chain: String::new(),
    };
    for attribute in NlasIterator::new(attributes).flatten() {
        if attribute.kind() == TABLE {
            change.table = text(attribute.value());
        } else if Some(attribute.kind()) == chain_at {
            change.chain = text(attribute.value());
        }
    }
    Some(change)
}

/// Owner of tables: while it lives, no other process changes them, and flushing the whole ruleset
/// leaves them alone. The kernel ends ownership with the socket; the tables stay.
#[derive(Debug)]
pub(crate) struct Owner {
    socket: OwnedFd,
}

impl Owner {
    pub(crate) fn new() -> io::Result<Self> {
        let socket = open()?;
        Ok(Self { socket })
    }

    /// Takes a table. False if it is missing, or where it does not persist, as on Linux before 6.9:
    /// with an owner alone it would end with that.
    pub(crate) fn take(&self, family: Family, table: &str) -> io::Result<bool> {
        let taken = table_message(family, table, OWNER | PERSIST);
        if !transact(&self.socket, &taken, &UNKNOWN)? {
            return Ok(false);
        }
        // The kernel makes one that is missing: an empty one goes again.
        let gone = message(
            NFTABLES << 8 | DELETE_TABLE,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_NONREC,
            family.number(),
            0,
            &[named(TABLE, table)],
        );
        transact(&self.socket, &gone, &[nix::Error::EBUSY]).map(|gone| !gone)
    }
}

/// Makes a plain table, or one that persists, so that an owner may take it later. False if the
/// kernel knows no such table.
pub(crate) fn make_table(family: Family, table: &str, persists: bool) -> io::Result<bool> {
    let flags = if persists { PERSIST } else { 0 };
    transact(&open()?, &table_message(family, table, flags), &UNKNOWN)
}

/// Of a kernel that does not know these flags, or cannot change them.
const UNKNOWN: [nix::Error; 2] = [nix::Error::EOPNOTSUPP, nix::Error::EINVAL];

fn named(attribute: u16, name: &str) -> DefaultNla {
    DefaultNla::new(attribute, [name.as_bytes(), &[0]].concat())
}

/// Makes a table, or sets its flags.
fn table_message(family: Family, table: &str, flags: u32) -> Vec<u8> {
    let flags = DefaultNla::new(FLAGS, flags.to_be_bytes().to_vec());
    message(
        NFTABLES << 8 | NEW_TABLE,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
        family.number(),
        0,
        &[named(TABLE, table), flags],
    )
}

/// Makes a change. False if the kernel refuses it for one of these reasons.
fn transact(socket: &OwnedFd, change: &[u8], reasons: &[nix::Error]) -> io::Result<bool> {
    let limit = |kind| message(kind, NLM_F_REQUEST, 0, NFTABLES, &[]);
    let batch = [&limit(BATCH_BEGIN), change, &limit(BATCH_END)].concat();
    send(socket.as_raw_fd(), &batch, MsgFlags::empty())?;
    // The kernel has queued its answer before `send` returns.
    let mut bytes = [0; 1 << 12];
    let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
    let mut code = None;
    let answer = bytes.get(..length).unwrap_or_default();
    listener::each(answer, &mut |kind, payload| {
        let answer = payload.first_chunk().copied().map(i32::from_ne_bytes);
        if kind == NLMSG_ERROR {
            code = answer;
        }
    });
    match code {
        Some(0) => Ok(true),
        Some(code) if reasons.iter().any(|it| -(*it as i32) == code) => Ok(false),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[DefaultNla]) -> Vec<u8> {
    let length = HEADER + GENERIC + attributes.buffer_len();
    let mut bytes = vec![0; length];
    let mut header = NetlinkHeader::default();
    header.length = length as u32;
    header.message_type = kind;
    header.flags = flags;
    let (head, body) = bytes.split_at_mut(HEADER);
    header.emit(head);
    body[0] = family;
    body[2..4].copy_from_slice(&resource.to_be_bytes());
    attributes.emit(&mut body[GENERIC..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(kind: u16, family: Family, attributes: &[(u16, &str)]) -> Vec<u8> {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(kind, text)| DefaultNla::new(*kind, format!("{text}\0").into_bytes()))
            .collect();
        message(NFTABLES << 8 | kind, 0, family.number(), 0, &attributes)
    }

    #[test]
    fn transaction_is_taken_when_it_is_complete() {
        let first = notification(DELETE_RULE, Family::Netdev, &[(1, "mts"), (2, "lock-a")]);
        let second = [
            notification(DELETE_CHAIN, Family::Netdev, &[(1, "mts"), (3, "lock-a")]),
            notification(DELETE_TABLE, Family::Bridge, &[(1, "mts")]),
            notification(9, Family::Bridge, &[(1, "mts")]),
            notification(NEW_GENERATION, Family::Bridge, &[]),
        ]
        .concat();
        let (mut pending, mut transactions) = (Vec::new(), Vec::new());
        let mut read = |bytes: &[u8]| {
            listener::each(bytes, &mut |kind, payload: &[u8]| {
                note(kind, payload, &mut pending, &mut transactions);
            });
            (pending.len(), transactions.len())
        };
        assert_eq!(read(&first), (1, 0));
        assert_eq!(read(&second), (0, 1));
        let change = |happened, family: Family, chain: &str| Change {
            happened,
            family: family.number(),
            table: "mts".to_owned(),
            chain: chain.to_owned(),
        };
        let wanted = [
            change(Happened::RuleGone, Family::Netdev, "lock-a"),
            change(Happened::ChainGone, Family::Netdev, "lock-a"),
            change(Happened::TableGone, Family::Bridge, ""),
        ];
        assert_eq!(transactions, [wanted]);
    }

    #[test]
    fn truncated_notification_is_no_change_and_no_panic() {
        let whole = notification(DELETE_RULE, Family::Netdev, &[(1, "mts"), (2, "lock-a")]);
        for length in 0..whole.len() {
            let (mut pending, mut transactions) = (Vec::new(), Vec::new());
            listener::each(&whole[..length], &mut |kind, payload: &[u8]| {
                note(kind, payload, &mut pending, &mut transactions);
            });
            assert_eq!((pending.len(), transactions.len()), (0, 0), "{length}");
        }
    }
}
