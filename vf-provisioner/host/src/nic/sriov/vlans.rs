//! A range of VLANs, as operators write it.

use std::fmt;

use tenant_config::VlanId;

/// VLANs from the first to the last, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    first: VlanId,
    last: VlanId,
}

impl VlanRange {
    /// `None` if the last comes before the first.
    pub fn new(first: VlanId, last: VlanId) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `vlan` is one of them.
    pub fn contains(self, vlan: VlanId) -> bool {
        (self.first..=self.last).contains(&vlan)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = VlanId> {
        (self.first.get()..=self.last.get()).filter_map(|vlan| VlanId::new(vlan).ok())
    }
}

impl Default for VlanRange {
    /// 3000 to 3999, which few networks use.
    fn default() -> Self {
        let vlan = |number| VlanId::new(number).expect("it is a VLAN");
        Self {
            first: vlan(3000),
            last: vlan(3999),
        }
    }
}

impl std::str::FromStr for VlanRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let vlan = |text: &str| text.parse().ok().and_then(|vlan| VlanId::new(vlan).ok());
        text.split_once('-')
            .and_then(|(first, last)| Self::new(vlan(first)?, vlan(last)?))
            .ok_or_else(|| "not two VLANs from 1 to 4094, as in 3000-3999".to_owned())
    }
}

impl fmt::Display for VlanRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}
