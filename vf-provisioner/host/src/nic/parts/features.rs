//! The offloads of interfaces, by ethtool's netlink (Linux 5.7): one question for all interfaces of
//! a namespace.

use std::collections::HashMap;
use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NlasIterator};
use nix::sys::socket::SockProtocol;

use super::listener::text;
use super::request::{Requests, Want};

/// Whether it is an offload that must be off because a switch would see frames that no wire
/// carries, as the kernel names them: transmit checksums, scatter-gather, TSO, GSO and GRO. Kernels
/// add kinds of them.
fn is_offload(name: &str) -> bool {
    let segments = name.starts_with("tx-tcp") && name.ends_with("-segmentation");
    segments
        || ["tx-checksum-", "tx-scatter-gather"]
            .iter()
            .any(|it| name.starts_with(it))
        || ["tx-generic-segmentation", "rx-gro"].contains(&name)
}

/// Of linux/genetlink.h: the controller's family, its command and its attributes.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of linux/ethtool_netlink.h.
const GET_FEATURES: u8 = 11;
const SET_FEATURES: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_CHANGEABLE: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_INDEX: u16 = 1;
const BITSET_BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;
const NESTED: u16 = 1 << 15;

const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Ethtool's netlink in the thread's network namespace.
pub(super) struct Features {
    requests: Requests,
    family: u16,
}

impl Features {
    /// # Errors
    /// If the kernel lacks it.
    pub(super) fn open() -> io::Result<Self> {
        let mut requests = Requests::open(SockProtocol::NetlinkGeneric)?;
        let name = DefaultNla::new(FAMILY_NAME, b"ethtool\0".to_vec());
        let body = body(GET_FAMILY, &[name]);
        let families = requests.ask(CONTROLLER, Want::One, &body, |message| {
            let id = attributes(payload(message)).find(|it| it.0 == FAMILY_ID)?;
            id.1.first_chunk().copied().map(u16::from_ne_bytes)
        })?;
        let family = *families.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { requests, family })
    }

    /// Whether any offload is on, by the interface's index.
    pub(super) fn all(&mut self) -> io::Result<HashMap<u32, bool>> {
        let header = DefaultNla::new(FEATURES_HEADER | NESTED, Vec::new());
        let body = body(GET_FEATURES, &[header]);
        let all = self.requests.ask(self.family, Want::All, &body, offloads)?;
        Ok(all.into_iter().map(|it| (it.index, it.is_on)).collect())
    }

    /// The offloads of one interface.
    pub(super) fn of(&mut self, index: u32) -> io::Result<Offloads> {
        let body = body(GET_FEATURES, &[named(index)]);
        let one = self.requests.ask(self.family, Want::One, &body, offloads)?;
        one.into_iter().next().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Sets all offloads that the interface can change, unless they are so.
    pub(super) fn set(&mut self, index: u32, on: bool) -> io::Result<()> {
        let is = self.of(index)?;
        if is.is_on == on {
            return Ok(());
        }
        let bits: Vec<DefaultNla> = is.changeable.iter().map(|name| bit(name, on)).collect();
        let wanted = DefaultNla::new(
            FEATURES_WANTED | NESTED,
            nested(&[DefaultNla::new(BITSET_BITS | NESTED, nested(&bits))]),
        );
        let body = body(SET_FEATURES, &[named(index), wanted]);
        let heard = self
            .requests
            .ask(self.family, Want::One, &body, |_| None::<()>);
        heard.map(drop)
    }
}

/// The offloads of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offloads {
    index: u32,
    /// Whether any is.
    pub(super) is_on: bool,
    changeable: Vec<String>,
}

fn named(index: u32) -> DefaultNla {
    let index = DefaultNla::new(HEADER_INDEX, index.to_ne_bytes().to_vec());
    DefaultNla::new(FEATURES_HEADER | NESTED, nested(&[index]))
}

fn bit(name: &str, on: bool) -> DefaultNla {
    let mut parts = vec![DefaultNla::new(BIT_NAME, format!("{name}\0").into_bytes())];
    if on {
        parts.push(DefaultNla::new(BIT_VALUE, Vec::new()));
    }
    DefaultNla::new(BIT | NESTED, nested(&parts))
}

fn nested(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn body(command: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![command, 1, 0, 0];
    bytes.extend(nested(attributes));
    bytes
}

fn payload(message: &[u8]) -> &[u8] {
    message
        .get(MESSAGE_HEADER + GENERIC_HEADER..)
        .unwrap_or_default()
}

/// Kinds and values, without flags.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).flatten().map(|it| {
        let (kind, length) = (it.kind() & !NESTED, usize::from(it.length()));
        let whole = it.into_inner();
        (
            kind,
            whole.get(ATTRIBUTE_HEADER..length).unwrap_or_default(),
        )
    })
}

fn offloads(message: &[u8]) -> Option<Offloads> {
    let mut seen = Offloads::default();
    let mut index = None;
    for (kind, value) in attributes(payload(message)) {
        match kind {
            FEATURES_HEADER => {
                let found = attributes(value).find(|it| it.0 == HEADER_INDEX)?;
                index = found.1.first_chunk().copied().map(u32::from_ne_bytes);
            }
            FEATURES_CHANGEABLE => seen.changeable = offloads_among(value).collect(),
            FEATURES_ACTIVE => seen.is_on = offloads_among(value).next().is_some(),
            _ => {}
        }
    }
    seen.index = index?;
    Some(seen)
}

/// The names of the offloads in a set.
fn offloads_among(set: &[u8]) -> impl Iterator<Item = String> {
    let bits = attributes(set).filter(|it| it.0 == BITSET_BITS);
    let bits = bits.flat_map(|it| attributes(it.1));
    let names = bits.flat_map(|it| attributes(it.1).filter(|it| it.0 == BIT_NAME));
    names.map(|it| text(it.1)).filter(|name| is_offload(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(changeable: &[&str], active: &[&str]) -> Vec<u8> {
        let set = |kind, names: &[&str]| {
            let bits: Vec<DefaultNla> = names.iter().map(|name| bit(name, false)).collect();
            let bits = DefaultNla::new(BITSET_BITS | NESTED, nested(&bits));
            DefaultNla::new(kind | NESTED, nested(&[bits]))
        };
        let sets = [
            named(7),
            set(FEATURES_CHANGEABLE, changeable),
            set(FEATURES_ACTIVE, active),
        ];
        [vec![0; MESSAGE_HEADER], body(GET_FEATURES, &sets)].concat()
    }

    fn seen(is_on: bool, changeable: &[&str]) -> Option<Offloads> {
        Some(Offloads {
            index: 7,
            is_on,
            changeable: changeable.iter().map(|&it| it.to_owned()).collect(),
        })
    }

    #[test]
    fn offloads_of_all_kernels_count_and_other_features_do_not() {
        let others = [
            "highdma",
            "rx-gro-hw",
            "rx-gro-list",
            "tx-udp-segmentation",
            "tx-lockless",
        ];
        assert_eq!(offloads(&answer(&others, &others)), seen(false, &[]));
        for name in [
            "tx-checksum-ip-generic",
            "tx-scatter-gather-fraglist",
            "tx-tcp6-segmentation",
            // Linux 6.16.
            "tx-tcp-accecn-segmentation",
            "tx-generic-segmentation",
            "rx-gro",
        ] {
            let all = [&others[..], &[name]].concat();
            assert_eq!(offloads(&answer(&all, &others)), seen(false, &[name]));
            assert_eq!(offloads(&answer(&others, &all)), seen(true, &[]));
        }
    }

    #[test]
    fn truncated_answer_is_no_panic() {
        let whole = answer(&["rx-gro"], &["rx-gro"]);
        for length in 0..whole.len() {
            let seen = offloads(&whole[..length]);
            assert!(seen.is_none_or(|seen| seen.index == 7), "{length}");
        }
    }
}
