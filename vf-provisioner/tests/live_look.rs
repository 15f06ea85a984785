//! What the provisioner does to look at this host, as root. Without root, each test prints that and
//! passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use fake::site;
use site::{Site, sh};

/// The programs that a command starts, with how often.
fn programs(site: &Site, arguments: &[&str]) -> BTreeMap<String, usize> {
    let trace = site.dir.path().join("trace");
    let command = site.command();
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "-qq",
        "-e",
        "trace=execve",
        "-e",
        "status=successful",
        "-o",
    ]);
    traced
        .arg(&trace)
        .arg(command.get_program())
        .args(command.get_args());
    let output = traced
        .args(arguments)
        .output()
        .expect("strace is installed");
    assert!(output.status.success(), "{output:?}");
    let mut programs = BTreeMap::new();
    let text = fs::read_to_string(&trace).expect("it is written");
    // A call that another interrupted has a second line, without the path.
    for line in text.lines().filter(|line| line.contains("execve(")) {
        let path = line.split('"').nth(1).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        *programs.entry(name.to_owned()).or_default() += 1;
    }
    programs
}

#[test]
fn number_of_programs_does_not_depend_on_the_number_of_tenants() {
    let Some(site) = site("tla", 93000) else {
        return;
    };
    // Those of the command itself, and both tables as text and as JSON.
    let wanted = |nft| {
        BTreeMap::from([
            ("nsenter".to_owned(), 1),
            ("vf-provisioner".to_owned(), 1),
            ("nft".to_owned(), nft),
        ])
    };
    let files: Vec<String> = (1..=8).map(|number| site.tenant(number, 1)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for count in [6, 8] {
        let files = &files[..count];
        site.good(&[&["apply"], files].concat());
        assert_eq!(
            programs(&site, &[&["plan"], files].concat()),
            wanted(4),
            "{count} tenants"
        );
        assert_eq!(programs(&site, &["verify"]), wanted(4), "{count} tenants");
    }
    // Of one tenant beside others, only its own lock and what all share are read.
    assert_eq!(programs(&site, &["plan", files[3]]), wanted(6));
}

#[test]
fn offloads_are_off_for_ethtool_too_and_drift_is_seen_and_repaired() {
    let Some(site) = site("tlb", 93040) else {
        return;
    };
    let file = site.tenant(1, 1);
    site.good(&["apply", &file]);
    let on = || {
        let shown = sh("ip netns exec tlb-sw-t1 ethtool -k inout");
        assert!(shown.contains("rx-gro"), "{shown}");
        let names = ["tx-checksumming", "scatter-gather", "tcp-seg", "generic-"];
        let lines = shown
            .lines()
            .filter(|line| names.iter().any(|it| line.starts_with(it)));
        let on = lines.filter(|line| line.contains(": on"));
        on.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(on(), Vec::<String>::new());
    for feature in ["gro", "tx", "sg", "tso"] {
        sh(&format!(
            "ip netns exec tlb-sw-t1 ethtool -K inout {feature} on"
        ));
        if on().is_empty() {
            continue;
        }
        let verify = site.run(&["verify"]);
        let text = String::from_utf8_lossy(&verify.stdout).into_owned();
        assert_eq!(verify.status.code(), Some(3), "{feature}: {text}");
        let wanted = "switch.offloads should be false and is true";
        assert!(text.contains(wanted), "{feature}: {text}");
        site.good(&["apply", &file]);
        assert_eq!(on(), Vec::<String>::new(), "{feature}");
    }
    site.good(&["verify"]);
}
