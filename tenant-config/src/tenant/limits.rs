//! `[port.limits]`: storm control.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::InvalidValue;
use crate::document::Section;
use crate::error::Report;
use crate::key::{At, KeyPath};

/// Storm control of one port: frames (or bits) per second, each with a burst of one second.
/// An absent key means no limit, but for `multicast_pps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Frames to a broadcast or multicast MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_pps: Option<u32>,
    /// Frames to groups and broadcasts that go to other ports, both those that the VM sends and
    /// those that it gets. Without it 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_pps: Option<u32>,
    /// ARP and Neighbour Discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp_nd_pps: Option<u32>,
    /// DHCP and DHCPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_pps: Option<u32>,
    /// All frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pps: Option<u32>,
    /// All bits of all frames, the Ethernet header included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<u64>,
}

impl Limits {
    /// The limits, and each that is there with its key.
    pub(super) fn read(mut section: Section<'_>) -> (Self, Vec<At<u64>>) {
        let mut all = Vec::new();
        let mut rate = |key, max: i64, expected| {
            let node = section.get(key)?;
            let limit = node.read(|node| {
                node.integer(|rate| match u64::try_from(rate) {
                    Ok(limit) if rate <= max => Ok(limit),
                    _ => Err(InvalidValue::new(rate, expected)),
                })
            })?;
            let rate = limit.value;
            all.push(limit);
            Some(rate)
        };
        let mut frames = |key| {
            let rate = rate(
                key,
                u32::MAX.into(),
                "a rate from 1 to 4294967295 frames a second",
            )?;
            u32::try_from(rate).ok()
        };
        let limits = Self {
            broadcast_pps: frames("broadcast_pps"),
            multicast_pps: frames("multicast_pps"),
            arp_nd_pps: frames("arp_nd_pps"),
            dhcp_pps: frames("dhcp_pps"),
            pps: frames("pps"),
            bps: rate("bps", i64::MAX, "a rate of at least 1 bit a second"),
        };
        section.finish();
        (limits, all)
    }

    /// The limits that are there, by the names of their keys.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("broadcast_pps", self.broadcast_pps.map(u64::from)),
            ("multicast_pps", self.multicast_pps.map(u64::from)),
            ("arp_nd_pps", self.arp_nd_pps.map(u64::from)),
            ("dhcp_pps", self.dhcp_pps.map(u64::from)),
            ("pps", self.pps.map(u64::from)),
            ("bps", self.bps),
        ]
        .into_iter()
        .filter_map(|(name, rate)| Some((name, rate?)))
    }

    pub(super) fn facts(&self, table: &KeyPath) -> Vec<At<u64>> {
        self.by_name()
            .map(|(name, rate)| At::new(table.key(name), rate))
            .collect()
    }
}

pub(super) fn check(limits: &[At<u64>], report: &Report) {
    for limit in limits.iter().filter(|limit| limit.value == 0) {
        report.add(&limit.key, LimitsProblem::ZeroLimit);
    }
}

/// An error in a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LimitsProblem {
    /// A limit of nothing.
    #[error(
        "a limit of 0 stops every such frame; write at least 1, or leave the key out for no limit"
    )]
    ZeroLimit,
}
