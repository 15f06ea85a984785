//! What the commands print.

use std::io::Write;

use serde_json::Value;
use tenant_config::Name;
use vf_host::state::{Record, State};
use vswitch_api::plain::{self, PlainWriter};

use super::CliError;
use super::wanted::Wanted;

/// What is printed may quote a switch, a log or a file, so a terminal must not obey it. A closed
/// standard output is no failure.
pub(super) fn print(text: &str) {
    let _ = PlainWriter(std::io::stdout()).write_all(text.as_bytes());
}

pub(super) fn complain(text: &str) {
    let _ = writeln!(PlainWriter(std::io::stderr()), "{text}");
}

pub(super) fn print_json(value: &Value) {
    // Every value can be written.
    print(&plain::json_pretty(value).unwrap_or_default());
    print("\n");
}

/// The settings that a tenant's file allows its NIC to lack, as a line.
pub(super) fn accepted(name: &Name, record: &Record) -> Option<String> {
    let names: Vec<_> = record.accepted().iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| {
        format!(
            "tenant {name}: accepted by its file, not checked: {}\n",
            names.join(", ")
        )
    })
}

/// A line about each tenant with a file that an operator has stopped or drained.
pub(super) fn paused_lines(state: &State, wanted: &Wanted) -> String {
    let paused = wanted.files.keys().filter_map(|name| {
        let paused = state.tenants.get(name)?.paused.as_ref()?;
        let word = paused.mode.word();
        Some(format!(
            "tenant {name} is {word}: `start {name}` starts it\n"
        ))
    });
    paused.collect()
}

/// No tenant of this host has the name.
pub(super) fn unknown(name: &Name, state: &State) -> CliError {
    let known: Vec<&str> = state.tenants.keys().map(Name::as_str).collect();
    let known = if known.is_empty() {
        "none is".to_owned()
    } else {
        known.join(", ")
    };
    CliError::Usage(format!(
        "tenant {name} is not onboarded (onboarded: {known})"
    ))
}
