//! The mediation probe on any machine: Linux bridges in a network namespace, one for each VLAN,
//! stand in for an embedded switch that checks what its ports send. Without root each test says so
//! and passes.

#[path = "../../tests/common/output.rs"]
mod output;
#[path = "../../tests/common/shell.rs"]
mod shell;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use vf_host::nic::mediation::{
    Fabric, Kind, Options, Place, Report, Role, Row, Station, Verdict, Weakness, require, run,
};

use shell::sh;

type Function = (&'static str, Role, Option<&'static str>, Option<u16>);

const FUNCTIONS: [Function; 6] = [
    ("vm1 T", Role::Guest, Some("vm1"), Some(101)),
    ("vm1 Gw", Role::Gateway, Some("vm1"), Some(101)),
    ("vm2 T", Role::Guest, Some("vm2"), Some(102)),
    ("vm2 Gw", Role::Gateway, Some("vm2"), Some(102)),
    ("In/Out", Role::Uplink, None, None),
    ("free", Role::Witness, None, None),
];
const HOST_MAC: &str = "52:54:00:78:00:10";

fn mac(index: usize) -> String {
    format!("52:54:00:78:00:{index:02x}")
}

/// The bridge with its ports in one namespace, the functions in another, both of this test alone.
struct Veb {
    switch: String,
    functions: String,
}

impl Veb {
    /// Without root it prints that and is `None`.
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: {name} needs root");
            return None;
        }
        let unique = format!("lm{}-{name}", std::process::id());
        let it = Self {
            switch: format!("{unique}-veb"),
            functions: format!("{unique}-vfs"),
        };
        let (switch, functions) = (&it.switch, &it.functions);
        sh(&format!("ip netns add {switch}; ip netns add {functions}"));
        for bridge in ["none", "101", "102"] {
            sh(&format!(
                "ip -n {switch} link add name vlan-{bridge} type bridge mcast_snooping 0
                 ip -n {switch} link set vlan-{bridge} up"
            ));
        }
        sh(&format!(
            "ip -n {switch} link set vlan-none address {HOST_MAC}"
        ));
        for (index, (_, _, _, vlan)) in FUNCTIONS.into_iter().enumerate() {
            sh(&format!(
                "ip -n {switch} link add vf{index} type veth peer name vf{index} address {} netns \
                 {functions}
                 ip -n {functions} link set vf{index} up",
                mac(index)
            ));
            it.put_on(index, vlan);
        }
        sh(&format!(
            "nft='ip netns exec {switch} nft'
             $nft add table bridge veb
             $nft add chain bridge veb sources '{{ type filter hook prerouting priority -200; }}'
             $nft add chain bridge veb tags '{{ type filter hook prerouting priority -100; }}'
             $nft add rule bridge veb tags ether type 8021q drop"
        ));
        it.check_sources();
        Some(it)
    }

    fn put_on(&self, index: usize, vlan: Option<u16>) {
        let switch = &self.switch;
        let bridge = vlan.map_or("none".to_owned(), |vlan| vlan.to_string());
        sh(&format!(
            "ip -n {switch} link set vf{index} master vlan-{bridge} up
             bridge -n {switch} link set dev vf{index} learning off"
        ));
    }

    fn check_sources(&self) {
        for index in 0..FUNCTIONS.len() {
            sh(&format!(
                "ip netns exec {} nft add rule bridge veb sources iifname vf{index} ether saddr != \
                 {} drop",
                self.switch,
                mac(index)
            ));
        }
    }

    fn stations(&self) -> Vec<Station> {
        let station =
            |name: &str, role, mac: &str, namespace: &String, interface: String| Station {
                name: name.to_owned(),
                role,
                port: None,
                mac: mac.parse().expect("a MAC"),
                vlan: None,
                place: Place::Interface {
                    namespace: Some(namespace.clone()),
                    interface,
                },
                proven: false,
                quiet: false,
            };
        let functions = FUNCTIONS.into_iter().enumerate();
        let mut stations: Vec<Station> = functions
            .map(|(index, (name, role, port, vlan))| Station {
                port: port.map(str::to_owned),
                vlan,
                ..station(
                    name,
                    role,
                    &mac(index),
                    &self.functions,
                    format!("vf{index}"),
                )
            })
            .collect();
        let bridge = "vlan-none".to_owned();
        stations.push(station("host", Role::Host, HOST_MAC, &self.switch, bridge));
        stations
    }

    fn probe(&self, accepted: &[Weakness]) -> Report {
        let options = Options {
            accepted: accepted.iter().copied().collect(),
            ..Options::new(Fabric::Embedded)
        };
        let report = run(&self.stations(), &options).expect("the probe runs");
        println!("{report}");
        report
    }
}

impl Drop for Veb {
    fn drop(&mut self) {
        for namespace in [&self.switch, &self.functions] {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

type Leak<'a> = (&'a str, &'a str, Kind);

fn wrong(report: &Report) -> BTreeSet<Leak<'_>> {
    let wrong = report.wrong();
    wrong
        .map(|row| (&row.from[..], &row.to[..], row.kind))
        .collect()
}

#[test]
fn missing_source_check_of_a_fabric_is_reported() {
    let Some(veb) = Veb::new("all") else {
        return;
    };
    let nothing = Vec::<&Row>::new();
    let report = veb.probe(&[]);
    assert_eq!(wrong(&report), BTreeSet::new());
    assert_eq!(report.of(Verdict::Inconclusive), nothing);
    for (from, to) in [("vm1 T", "vm1 Gw"), ("vm2 Gw", "vm2 T")] {
        for kind in [Kind::Unicast, Kind::Broadcast] {
            let row = report.row(from, to, kind).expect("it was probed");
            assert_eq!(
                (row.verdict, row.seen),
                (Verdict::Passed, row.sent.into()),
                "{row}"
            );
        }
        let row = report.row(from, to, Kind::Forged).expect("it was probed");
        assert_eq!((row.verdict, row.seen), (Verdict::Refused, 0), "{row}");
    }

    println!("no check of sources");
    sh(&format!(
        "ip netns exec {} nft flush chain bridge veb sources",
        veb.switch
    ));
    let report = veb.probe(&[]);
    let mut expected = BTreeSet::new();
    for (from, to) in [
        ("vm1 T", "vm1 Gw"),
        ("vm1 Gw", "vm1 T"),
        ("vm2 T", "vm2 Gw"),
        ("vm2 Gw", "vm2 T"),
        ("In/Out", "free"),
        ("In/Out", "host"),
    ] {
        expected.insert((from, to, Kind::Forged));
    }
    assert_eq!(wrong(&report), expected);
    let refused = require(&veb.stations(), &Options::new(Fabric::Embedded));
    let message = refused.expect_err("it leaks").to_string();
    for wanted in [
        "LEAK: vm1 Gw must not get frames of vm1 T: ",
        "forged-source: the NIC",
    ] {
        assert!(message.contains(wanted), "{message}");
    }
    let accepting = veb.probe(&[Weakness::ForgedSource]);
    assert_eq!(wrong(&accepting), BTreeSet::new());
    veb.check_sources();

    println!("two ports on one VLAN");
    veb.put_on(2, Some(101));
    veb.put_on(3, Some(101));
    let report = veb.probe(&[]);
    let wrong = wrong(&report);
    let pairs: BTreeSet<_> = wrong.iter().map(|(from, to, _)| (*from, *to)).collect();
    let mut expected = BTreeSet::new();
    for one in ["vm1 T", "vm1 Gw"] {
        for other in ["vm2 T", "vm2 Gw"] {
            expected.extend([(one, other), (other, one)]);
            for kind in [Kind::Unicast, Kind::Broadcast, Kind::Multicast] {
                assert!(wrong.contains(&(one, other, kind)), "{one} {other} {kind}");
            }
        }
    }
    assert_eq!(pairs, expected);
    assert_eq!(report.of(Verdict::Lost), nothing);
}

/// A program that in place of the provisioner's own answers with what `drops` prints, and counts
/// its calls.
fn counting(dir: &tempfile::TempDir, drops: &str) -> Place {
    let program = dir.path().join("switch");
    let calls = dir.path().join("calls");
    std::fs::write(
        &program,
        format!(
            "#!/bin/sh\necho >> {0}; n=$(wc -l < {0}); {drops}\n",
            calls.display()
        ),
    )
    .expect("it is written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it is executable");
    let control = dir.path().join("control.sock");
    // Without a socket the switch is not asked.
    std::os::unix::net::UnixListener::bind(&control).expect("a socket");
    Place::Switch {
        program: Some(program),
        control,
        uid: 0,
        port: "vm2".to_owned(),
    }
}

#[test]
fn counted_frames_are_a_leak_only_if_silence_counts_none() {
    let Some(veb) = Veb::new("count") else {
        return;
    };
    let verdict = |drops: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut stations = veb.stations();
        stations.truncate(3);
        stations.push(Station {
            name: "vm2 Gw".to_owned(),
            role: Role::Gateway,
            port: Some("vm2".to_owned()),
            mac: mac(3).parse().expect("a MAC"),
            vlan: Some(102),
            place: counting(&dir, drops),
            proven: true,
            quiet: false,
        });
        stations[2].proven = true;
        let report = run(&stations, &Options::new(Fabric::Embedded)).expect("the probe runs");
        println!("{report}");
        let row = report
            .row("vm1 T", "vm2 Gw", Kind::Any)
            .expect("it was probed");
        (row.verdict, row.seen)
    };
    let said = |frames: &str| {
        let drop = r#"{"port":"vm2","reason":"src-mac","number":1,"help":"","frames":"#;
        format!(r#"echo '{{"answer":{{"drops":[{drop}'{frames}'}}]}}}}'"#)
    };
    assert_eq!(verdict(&said("7")), (Verdict::Refused, 0));
    let none = r#"echo '{"answer":{"drops":[]}}'"#;
    assert_eq!(verdict(none), (Verdict::Refused, 0));
    // More in the first sender's window, and no more after that.
    let once = said("$((n > 1 ? 12 : 7))");
    assert_eq!(verdict(&once), (Verdict::Leak, 5));
    // A reason appears with the first frame that is counted.
    let appears = format!("[ $n -gt 1 ] || {{ {none}; exit; }}; {}", said("5"));
    assert_eq!(verdict(&appears), (Verdict::Leak, 5));
    let always = said("$n");
    assert_eq!(verdict(&always), (Verdict::Inconclusive, 1));
}

#[test]
fn station_that_cannot_be_probed_is_an_error() {
    let Some(veb) = Veb::new("bad") else {
        return;
    };
    let said = |stations: &[Station]| {
        let error = run(stations, &Options::new(Fabric::Embedded)).expect_err("it fails");
        error.to_string()
    };
    let mut stations = veb.stations();
    stations[1].place = Place::Interface {
        namespace: Some(veb.functions.clone()),
        interface: "missing".to_owned(),
    };
    let message = said(&stations);
    assert!(message.contains("missing (vm1 Gw)"), "{message}");
    sh(&format!("ip -n {} link set vf0 down", veb.functions));
    let message = said(&veb.stations());
    assert!(
        message.contains("vf0 (vm1 T) is down: set it up"),
        "{message}"
    );
}
