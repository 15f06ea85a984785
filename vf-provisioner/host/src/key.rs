//! The names of objects.

use std::fmt;

use serde::{Deserialize, Serialize};
use tenant_config::{Name, PciAddress};

use crate::kinds::for_each_kind;

macro_rules! keys {
    ($(
        $(#[$doc:meta])* $kind:ident: $payload:ty {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),*
        } $text:literal,
    )*) => {
        /// Names one object. The order of the variants is the order in which objects are made.
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Key {
            $($(#[$doc])* $kind { $($(#[$field_doc])* $field: $type),* },)*
        }

        impl fmt::Display for Key {
            // Some messages leave out a part of the key.
            #[allow(unused_variables)]
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$kind { $($field),* } => write!(out, $text),)*
                }
            }
        }
    };
}

for_each_kind!(keys);
