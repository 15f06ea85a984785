//! `[nic]`: what the SR-IOV NIC's driver may lack.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::InvalidValue;
use crate::document::Section;
use crate::key::values;

/// Settings that the SR-IOV NIC's driver may lack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Nic {
    /// Settings of virtual functions that the driver may refuse or not report; the tenant is
    /// accepted anyway.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(default)]
    pub accept: BTreeSet<NicAttribute>,
    /// The link that the tenant's virtual functions see: the cable's, or one that is always up, so
    /// that the tenant's ports reach each other without the cable.
    #[serde(skip_serializing_if = "LinkState::is_auto")]
    #[schemars(default)]
    pub link_state: LinkState,
}

impl Nic {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let accept = section.get("accept").map_or_else(Vec::new, |node| {
            node.list("an array of names of settings", |item| {
                item.text(NicAttribute::from_str)
            })
        });
        let link_state = section
            .get("link_state")
            .and_then(|node| node.text(LinkState::from_str));
        section.finish();
        Self {
            link_state: link_state.unwrap_or_default(),
            accept: values(&accept).into_iter().collect(),
        }
    }
}

/// The link that a virtual function sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LinkState {
    /// The cable's.
    #[default]
    Auto,
    /// Always up.
    Enable,
}

impl LinkState {
    /// As a tenant's file and iproute2 name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
        }
    }

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl FromStr for LinkState {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let known = [Self::Auto, Self::Enable];
        let known = known.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| InvalidValue::new(text, "one of auto and enable"))
    }
}

/// A setting of a virtual function that not every driver has. MAC and VLAN are not among them:
/// isolation depends on both.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NicAttribute {
    /// The VLAN tag's protocol.
    VlanProtocol,
    /// Dropping frames with a forged source MAC.
    SpoofCheck,
    /// Not trusting the function.
    Trust,
    /// The function's link following the cable's.
    LinkState,
    /// The assured transmit rate.
    MinRate,
    /// The largest transmit rate.
    MaxRate,
}

impl NicAttribute {
    /// All of them, in the order of their names in messages.
    pub const ALL: [Self; 6] = [
        Self::VlanProtocol,
        Self::SpoofCheck,
        Self::Trust,
        Self::LinkState,
        Self::MinRate,
        Self::MaxRate,
    ];

    /// As a tenant's file names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VlanProtocol => "vlan-protocol",
            Self::SpoofCheck => "spoof-check",
            Self::Trust => "trust",
            Self::LinkState => "link-state",
            Self::MinRate => "min-rate",
            Self::MaxRate => "max-rate",
        }
    }
}

impl fmt::Display for NicAttribute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl FromStr for NicAttribute {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| {
            InvalidValue::new(
                text,
                "one of vlan-protocol, spoof-check, trust, link-state, min-rate and max-rate",
            )
        })
    }
}
