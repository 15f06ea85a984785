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
        section.finish();
        Self {
            accept: values(&accept).into_iter().collect(),
        }
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
