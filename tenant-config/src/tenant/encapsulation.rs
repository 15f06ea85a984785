//! The word `"allow"` or `"deny"` for packets that carry other packets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::InvalidValue;

/// Whether a port may send tunnelled packets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// Forwarded like any payload: the outer header is checked as any.
    #[default]
    Allow,
    /// Dropped.
    Deny,
}

/// The default of a tunnel's key `nested`.
pub(super) const fn denied() -> Encapsulation {
    Encapsulation::Deny
}

pub(super) fn parse_encapsulation(text: &str) -> Result<Encapsulation, InvalidValue> {
    match text {
        "allow" => Ok(Encapsulation::Allow),
        "deny" => Ok(Encapsulation::Deny),
        _ => Err(InvalidValue::new(text, "\"allow\" or \"deny\"")),
    }
}
