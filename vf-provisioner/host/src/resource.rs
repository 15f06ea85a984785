//! The objects of the host that the provisioner makes, each as plain data.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tenant_config::NicAttribute;

pub use crate::key::Key;
use crate::kinds::for_each_kind;
use crate::object::Object;

macro_rules! resources {
    ($(
        $(#[$doc:meta])* $kind:ident: $payload:ty {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),*
        } $text:literal,
    )*) => {
        /// One object with everything that is set on it. [`Object`] describes the functions.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Resource {
            $($(#[$doc])* $kind($payload),)*
        }

        impl Resource {
            /// See [`Object::key`].
            pub fn key(&self) -> Key {
                match self { $(Self::$kind(it) => it.key(),)* }
            }

            /// See [`Object::is_shared`].
            pub fn is_shared(&self) -> bool {
                match self { $(Self::$kind(it) => it.is_shared(),)* }
            }

            /// See [`Object::foreign`].
            pub fn foreign(&self) -> &'static str {
                match self { $(Self::$kind(it) => it.foreign(),)* }
            }

            /// See [`Object::adoptable`].
            pub fn adoptable(&self) -> bool {
                match self { $(Self::$kind(it) => it.adoptable(),)* }
            }

            /// See [`Object::idle`].
            pub fn idle_settings(&self) -> Option<Self> {
                match self { $(Self::$kind(it) => it.idle().map(|it| Self::$kind(it.into())),)* }
            }

            /// See [`Object::drained`].
            pub fn drained(&self) -> Option<Self> {
                match self { $(Self::$kind(it) => it.drained().map(|it| Self::$kind(it.into())),)* }
            }

            /// See [`Object::needs`].
            pub fn needs(&self) -> Option<&BTreeSet<Key>> {
                match self { $(Self::$kind(it) => it.needs(),)* }
            }

            /// See [`Object::carries_switch`].
            pub fn carries_switch(&self) -> bool {
                match self { $(Self::$kind(it) => it.carries_switch(),)* }
            }

            /// See [`Object::accepted`].
            pub fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
                match self { $(Self::$kind(it) => it.accepted(),)* }
            }

            /// See [`Object::status`].
            pub fn status(&self) -> Option<serde_json::Value> {
                match self { $(Self::$kind(it) => it.status(),)* }
            }

            /// See [`Object::joined`]. `None` for objects of two kinds.
            pub fn joined(&self, other: &Self) -> Option<Self> {
                match (self, other) {
                    $((Self::$kind(one), Self::$kind(other)) => {
                        one.joined(other).map(|it| Self::$kind(it.into()))
                    })*
                    _ => None,
                }
            }

            /// See [`Object::is_movable`].
            pub fn is_movable(&self) -> bool {
                match self { $(Self::$kind(it) => it.is_movable(),)* }
            }

            /// See [`Object::inside`].
            pub fn inside(&self) -> Option<Key> {
                match self { $(Self::$kind(it) => it.inside(),)* }
            }

            /// See [`Object::becomes`]. False for objects of two kinds.
            pub fn becomes(&self, wanted: &Self) -> bool {
                match (self, wanted) {
                    $((Self::$kind(is), Self::$kind(wanted)) => is.becomes(wanted),)*
                    _ => false,
                }
            }

            /// See [`Object::changes_owner`]. False for objects of two kinds.
            pub fn changes_owner(&self, wanted: &Self) -> bool {
                match (self, wanted) {
                    $((Self::$kind(is), Self::$kind(wanted)) => is.changes_owner(wanted),)*
                    _ => false,
                }
            }

            /// See [`Object::changes_in_place`].
            pub fn changes_in_place(&self, wanted: &Self) -> bool {
                match (self, wanted) {
                    $((Self::$kind(is), Self::$kind(wanted)) => is.changes_in_place(wanted),)*
                    _ => false,
                }
            }

            /// See [`Object::is_moved`].
            pub fn is_moved(&self, wanted: &Self) -> bool {
                match (self, wanted) {
                    $((Self::$kind(is), Self::$kind(wanted)) => is.is_moved(wanted),)*
                    _ => false,
                }
            }
        }
    };
}

for_each_kind!(resources);

impl Resource {
    /// Whether it is hardware that is not in use.
    pub fn is_idle(&self) -> bool {
        self.idle_settings().as_ref() == Some(self)
    }

    /// The values in which `self` and `observed` differ, as `path: wanted, is …`.
    pub fn differences(&self, observed: &Self) -> Vec<String> {
        let value = |resource| serde_json::to_value(resource).unwrap_or_default();
        let mut found = Vec::new();
        compare("", &value(self), &value(observed), &mut found);
        found
    }
}

fn compare(
    path: &str,
    wanted: &serde_json::Value,
    is: &serde_json::Value,
    found: &mut Vec<String>,
) {
    use serde_json::Value::{Array, Null, Object};
    if wanted == is {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (wanted, is) {
        (Object(wanted), Object(is)) => {
            let names: BTreeSet<&String> = wanted.keys().chain(is.keys()).collect();
            for name in names {
                let value = |of: &serde_json::Map<_, _>| of.get(name).cloned().unwrap_or(Null);
                compare(&below(name), &value(wanted), &value(is), found);
            }
        }
        (Array(wanted), Array(is)) if wanted.len() == is.len() => {
            for (place, (wanted, is)) in wanted.iter().zip(is).enumerate() {
                compare(&below(&place.to_string()), wanted, is, found);
            }
        }
        (Array(wanted), Array(is)) => found.push(format!(
            "{path} should have {} entries and has {}",
            wanted.len(),
            is.len()
        )),
        _ => found.push(format!("{path} should be {wanted} and is {is}")),
    }
}
