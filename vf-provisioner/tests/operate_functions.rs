//! Virtual functions as an operator meets them, on NICs that are only a file.

use std::fs;
use std::process::{Command, Output};

use vf_host::nic::sriov::inventory::Inventory;

const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");
const RED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/red.toml");

/// Runs the provisioner on these NICs, with an empty state.
fn on(inventory: &Inventory, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nics = dir.path().join("nics.json");
    let json = serde_json::to_vec(inventory).expect("it is data");
    fs::write(&nics, json).expect("the file is written");
    let mut command = Command::new(PROVISIONER);
    command.arg("--state-dir").arg(dir.path().join("state"));
    command.arg("--fake-nic").arg(nics).args(arguments);
    command.output().expect("the provisioner starts")
}

#[test]
fn unknown_nic_is_refused_with_those_that_exist() {
    let inventory = Inventory::simulated(2, 7);
    let output = on(&inventory, &["plan", "--pf", "eth9", RED]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let words = "--pf eth9: no such SR-IOV NIC; this host has pf0 (igb, 7 VFs), pf1 (igb, 7 VFs)";
    assert!(text.contains(words), "{text}");
}
