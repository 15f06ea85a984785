//! Weaknesses of a NIC that open no way around a switch.

use serde::{Deserialize, Serialize};

/// A weakness that opens no way around a switch. An operator may accept it by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakness {
    /// A function may send with any source MAC within its own VLAN, where the switch refuses it.
    ForgedSource,
    /// An In/Out VF on no VLAN may choose one by a tag, and so reach every tenant's ports: a
    /// compromised switch could send to their VMs and switches.
    UplinkTag,
}

impl std::str::FromStr for Weakness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::ForgedSource, Self::UplinkTag];
        let found = all.into_iter().find(|known| known.name() == text);
        found.ok_or_else(|| format!("not {} or {}", all[0].name(), all[1].name()))
    }
}

impl Weakness {
    /// The name by which an operator accepts it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForgedSource => "forged-source",
            Self::UplinkTag => "uplink-tag",
        }
    }

    /// The problem, and what to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::ForgedSource => {
                "the NIC does not hold a function to its MAC, whatever its spoof check reads back \
                 as; only the switch does (a tenant's file accepts that: [nic] accept = \
                 [\"spoof-check\"])"
            }
            Self::UplinkTag => {
                "the NIC lets an In/Out VF choose its VLAN by a tag; put In/Out VFs on a VLAN of \
                 their own (--inout-vlan)"
            }
        }
    }
}
