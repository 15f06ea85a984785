//! A switch as a process on the virtual functions of an SR-IOV NIC: what it may access of the host,
//! and that this is revoked. Only in the emulated machine: `scripts/test sriov`.

#[path = "../../vswitch/tests/common/descriptors.rs"]
mod descriptors;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use descriptors::{BY_THE_PROVISIONER, descriptors, of_a_switch, on_functions};

const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/red.toml");
/// The default of --uid-base, and as many users as it has.
const USERS: std::ops::Range<u32> = 66_000..67_000;
/// The default of --packet-memory.
const PACKET_MEMORY_BYTES: u64 = 32 << 20;

fn provisioner(command: &mut Command, arguments: &[&str]) -> Output {
    command
        .args(["--nic", "sriov", "--pf", "pf0"])
        .args(arguments);
    command.output().expect("it runs")
}

/// The IOMMU groups that belong to another user than root.
fn groups_given_away() -> BTreeSet<String> {
    let nodes = fs::read_dir("/dev/vfio").expect("vfio is there").flatten();
    nodes
        .filter(|node| node.metadata().is_ok_and(|meta| meta.uid() != 0))
        .map(|node| node.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn switch_gets_only_its_own_functions() {
    if !Path::new("/run/emulated-machine").exists() {
        eprintln!("skipped: needs the emulated machine (scripts/test sriov)");
        return;
    }
    // A memlock limit that is too low is an error that leaves nothing behind.
    let mut bounded = Command::new("prlimit");
    bounded.args([
        "--memlock=1048576:1048576",
        "setpriv",
        "--bounding-set=-sys_resource",
    ]);
    bounded.args(["--inh-caps=-sys_resource", PROVISIONER]);
    let refused = provisioner(&mut bounded, &["apply", "--no-prove", EXAMPLE]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    let words = "cannot let the switch lock the 32768 KiB that its devices write to";
    assert!(error.contains(words), "{error}");
    assert_eq!(groups_given_away(), BTreeSet::new());

    let applied = provisioner(
        &mut Command::new(PROVISIONER),
        &["apply", "--no-prove", EXAMPLE],
    );
    assert!(
        applied.status.success(),
        "{}",
        String::from_utf8_lossy(&applied.stderr)
    );
    let note =
        fs::read_to_string("/var/lib/vf-provisioner/tenants/red/process.json").expect("its note");
    let note: serde_json::Value = serde_json::from_str(&note).expect("JSON");
    let pid = note["started"]["pid"].as_i64().expect("a number");

    // One for each of two ports, and the uplink's; root still owns the guests' functions.
    let given = groups_given_away();
    assert_eq!(given.len(), 3, "{given:?}");
    let inside = fs::read_dir(format!("/proc/{pid}/root/dev/vfio")).expect("it is shown");
    let inside: BTreeSet<String> = inside
        .flatten()
        .map(|node| node.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        inside,
        given.into_iter().chain(["vfio".to_owned()]).collect()
    );

    // Nothing inherited, and nothing that is not accounted for.
    let wanted = [&BY_THE_PROVISIONER[..], &on_functions(3)[..]].concat();
    let process = u32::try_from(pid).expect("a number");
    assert_eq!(descriptors(process, 0), of_a_switch(&wanted));

    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .expect("the field is there")
            .split_whitespace()
            .next()
            .expect("a value")
            .to_owned()
    };
    // Not the one that the refused switch had: a released user is given again last.
    let user = field("Uid");
    let number: u32 = user.parse().expect("a number");
    assert!(USERS.contains(&number) && number != USERS.start, "{user}");
    let none = "0000000000000000";
    assert_eq!(
        [
            "Uid",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "NoNewPrivs",
            "Seccomp",
            "VmLck"
        ]
        .map(field),
        [
            &user,
            none,
            none,
            none,
            "1",
            "2",
            &(PACKET_MEMORY_BYTES >> 10).to_string()
        ]
    );
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let locked = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .expect("a limit");
    let locked: Vec<&str> = locked.split_whitespace().collect();
    let bytes = PACKET_MEMORY_BYTES.to_string();
    assert_eq!(locked, [bytes.as_str(), bytes.as_str(), "bytes"]);

    let released = provisioner(&mut Command::new(PROVISIONER), &["release", "red"]);
    assert!(
        released.status.success(),
        "{}",
        String::from_utf8_lossy(&released.stderr)
    );
    assert_eq!(groups_given_away(), BTreeSet::new());
}
