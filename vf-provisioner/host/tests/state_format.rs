//! The state of earlier versions: it must stay readable, and is written as before.

use std::collections::BTreeSet;
use std::fs;

use vf_host::resource::{Key, Resource};
use vf_host::state::{self, HostLock};

/// Written by version 0.1.0, with an object of each kind.
const STATE: &str = include_str!("golden/state.json");

#[test]
fn state_of_an_earlier_version_is_rewritten_unchanged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("state.json");
    fs::write(&file, STATE).expect("the file is written");
    let mut lock = HostLock::open(dir.path()).expect("the state is read");
    let tenants = lock.state().tenants.clone();
    lock.set_tenants(tenants).expect("the state is written");
    let kinds = |resource: &Resource| {
        let value = serde_json::to_value(resource).expect("it is data");
        value["kind"].as_str().map(str::to_owned)
    };
    let kinds: BTreeSet<_> = lock.state().owned.values().map(kinds).collect();
    assert_eq!(kinds.len(), 11, "an object of each kind");
    let written = fs::read_to_string(&file).expect("the file is there");
    assert_eq!(written, STATE);
}

#[test]
fn journal_of_an_earlier_version_is_replayed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let namespace = r#"{"kind":"namespace","name":"sw-red","adopt":false}"#;
    let function = r#"{"kind":"tap","end":{"namespace":"sw-red","interface":"vm-a","mtu":1500,
        "up":true,"arp":false,"ipv6":false,"offloads":false,"alias":"red/vm1 VM"},"owner":64000,
        "wire":"gw-a","needs":[{"kind":"pair","namespace":"sw-red","interface":"gw-a"}]}"#;
    let function = function
        .replace(['\n', ' '], "")
        .replace("red/vm1VM", "red/vm1 VM");
    let journal = format!(
        "{{\"intent\":{{\"do\":\"create\",\"resource\":{namespace}}}}}\n\
         {{\"intent\":{{\"do\":\"create\",\"resource\":{function}}}}}\n\
         {{\"intent\":{{\"do\":\"delete\",\"resource\":{namespace}}}}}\n\
         {{\"done\":{{\"do\":\"delete\",\"resource\":{namespace}}}}}\n"
    );
    fs::write(dir.path().join("journal"), journal).expect("the file is written");
    let state = state::read(dir.path()).expect("the journal is read");
    let keys: Vec<&Key> = state.owned.keys().collect();
    assert!(
        matches!(&keys[..], [Key::Tap { interface, .. }] if interface == "vm-a"),
        "{keys:?}"
    );
}
