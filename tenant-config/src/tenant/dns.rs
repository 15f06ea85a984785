//! `[gateway.dns]`: the names of the tenant's own ports, for which the gateway answers.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::DomainName;
use crate::document::Section;

/// Whether the gateway answers DNS queries for the names of the tenant's ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Dns {
    /// Whether the gateway answers.
    pub enabled: bool,
    /// The domain that the ports' names are in; by default the tenant's name and `internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
}

impl Dns {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let enabled = section.flag("enabled");
        let domain = section.get("domain");
        let domain = domain.and_then(|node| node.text(DomainName::from_str));
        section.finish();
        Self { enabled, domain }
    }
}
