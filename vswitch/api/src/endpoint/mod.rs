//! The table of endpoints. Each is a file with its types, its table for people and its [`Spec`].

pub mod config;
pub mod drops;
pub mod healthz;
pub mod ipsec;
pub mod metrics;
pub mod neighbours;
pub mod ports;
pub mod readyz;
pub mod routes;
pub mod switch;
pub mod tunnels;
pub mod worker;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plain;

/// The largest answer, in bytes, that a client reads; [`Operation::answer_max`] has the exceptions,
/// which list what the configuration does.
pub const ANSWER_MAX: usize = 1 << 20;
/// The largest configuration, in bytes, that a switch reads: some 100,000 addresses.
pub const CONFIG_MAX: usize = 8 << 20;
/// The most ports that an answer lists: a tenant's, and the uplink.
pub const PORTS_MAX: usize = 257;
/// The most peers that an answer lists: a tunnel's.
pub const PEERS_MAX: usize = 1024;
/// The most prefixes that an answer lists: a tunnel's.
pub const PREFIXES_MAX: usize = 131_072;
/// The most routes or neighbours that an answer lists: twice as many as a tunnel has prefixes.
pub const ADDRESSES_MAX: usize = 2 * PREFIXES_MAX;

/// The endpoints in the order in which they are listed.
macro_rules! endpoints {
    ($($variant:ident $module:ident)*) => {
        /// An endpoint of the control API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $variant,)*
        }

        impl Endpoint {
            /// Every endpoint.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What the endpoint offers.
            pub const fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$variant => &$module::SPEC,)*
                }
            }
        }
    };
}

endpoints! {
    Healthz     healthz
    Readyz      readyz
    Metrics     metrics
    Ports       ports
    Drops       drops
    Routes      routes
    Neighbours  neighbours
    Tunnels     tunnels
    Ipsec       ipsec
    Worker      worker
    Switch      switch
    Config      config
}

/// What an endpoint offers.
#[derive(Debug)]
pub struct Spec {
    /// The path of its URL.
    pub path: &'static str,
    /// `GET`, which also answers `HEAD`.
    pub get: Operation,
    /// `PUT`, if the endpoint has it.
    pub put: Option<Put>,
    /// How `vswitch show` prints the answer, if it does.
    pub show: Option<Show>,
}

/// A method of an endpoint.
#[derive(Debug)]
pub struct Operation {
    /// One line on what it does.
    pub summary: &'static str,
    /// The flags that its query may have, as `?name=1`.
    pub flags: &'static [Flag],
    /// The answer of status 200.
    pub reply: Reply,
    /// The largest answer in bytes, of any status; a client reads no more.
    pub answer_max: usize,
    /// The other statuses that it may answer with, each with its reason. Their bodies are
    /// [`Failure`]s.
    pub failures: &'static [(u16, &'static str)],
}

/// `PUT` of an endpoint.
#[derive(Debug)]
pub struct Put {
    /// What it does and answers.
    pub operation: Operation,
    /// What its body must be.
    pub body: SchemaOf,
}

/// A flag of a query.
#[derive(Debug)]
pub struct Flag {
    /// Its name.
    pub name: &'static str,
    /// One line on what it does.
    pub help: &'static str,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Reply {
    /// JSON of this schema.
    Json(SchemaOf),
    /// Text of this content type.
    Text(&'static str),
}

/// The schema of a type, as a function so that constants can hold it.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The [`SchemaOf`] a type.
pub fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An answer for people and programs: a subcommand of `vswitch show`.
#[derive(Debug)]
pub struct Show {
    /// The subcommand.
    pub name: &'static str,
    /// One line on what it shows.
    pub help: &'static str,
    /// The bytes of an answer, read into its type and printed: text that ends with a newline, and
    /// that a terminal shows as it is.
    pub print: fn(&[u8], Form) -> serde_json::Result<String>,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a table.
    Table,
    /// As JSON on one line.
    Json,
}

/// Reads an answer, and prints it as JSON or with `text`: for [`Show::print`].
fn show<T: DeserializeOwned + Serialize>(
    answer: &[u8],
    form: Form,
    text: fn(&T) -> String,
) -> serde_json::Result<String> {
    let answer = serde_json::from_slice(answer)?;
    Ok(match form {
        Form::Table => text(&answer),
        Form::Json => plain::json(&answer)? + "\n",
    })
}

/// A cell for what may be absent.
fn or_dash(value: Option<&String>) -> String {
    value.map_or_else(|| "-".to_owned(), Clone::clone)
}

/// The body of every answer with a status other than 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What is wrong, as a sentence.
    pub error: String,
}

impl Endpoint {
    /// The endpoint of that path.
    pub fn find(path: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|endpoint| endpoint.spec().path == path)
    }

    /// The methods, as in the header `Allow`.
    pub const fn methods(self) -> &'static str {
        match self.spec().put {
            Some(_) => "GET, HEAD, PUT",
            None => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    /// A switch that was taken over sends as many elements as it likes, of any value.
    #[test]
    fn lists_are_read_bounded_and_sums_do_not_overflow() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/endpoint");
        let mut lists = 0;
        for file in std::fs::read_dir(folder).expect("the endpoints") {
            let path = file.expect("an endpoint").path();
            if path.ends_with("mod.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("its text");
            assert!(!text.contains(".sum()"), "{}", path.display());
            let mut before = "";
            for line in text.lines() {
                let is_list = line.trim_start().starts_with("pub ") && line.contains(": Vec<");
                lists += usize::from(is_list);
                let is_bounded = before.contains("deserialize_with = \"list::");
                assert!(!is_list || is_bounded, "{}: {line}", path.display());
                before = line;
            }
        }
        assert!(lists >= 5, "{lists}");
    }

    #[test]
    fn paths_and_subcommands_are_unique() {
        let mut paths = HashSet::new();
        for endpoint in Endpoint::ALL {
            let path = endpoint.spec().path;
            assert!(paths.insert(path), "{path}");
            assert_eq!(Endpoint::find(path), Some(*endpoint));
        }
        let mut names = HashSet::new();
        let specs = Endpoint::ALL.iter().map(|endpoint| endpoint.spec());
        for show in specs.filter_map(|spec| spec.show.as_ref()) {
            assert!(names.insert(show.name), "{}", show.name);
        }
        assert_eq!(Endpoint::find("/v1"), None);
    }
}
