//! The mediation probe on the embedded switch of the emulated machine's NIC: with correct settings
//! it finds nothing, and with each wrong one it reports what leaks.

#[path = "../../tests/common/emulated.rs"]
mod emulated;
#[path = "../../tests/common/output.rs"]
mod output;
#[path = "../../tests/common/shell.rs"]
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use vf_host::nic::mediation::{
    Fabric, Kind, Options, Place, Report, Role, Row, Station, Verdict, Weakness, run,
};

use emulated::is_emulated;
use shell::sh;

const PF: &str = "pf0";
const NAMESPACE: &str = "probe-test";

/// A VF with correct settings: name, role, port, VLAN.
type Function = (&'static str, Role, Option<&'static str>, Option<u16>);

/// All seven: a tenant with two ports, and two unassigned ones.
const FUNCTIONS: [Function; 7] = [
    ("vm1 T", Role::Guest, Some("vm1"), Some(101)),
    ("vm1 Gw", Role::Gateway, Some("vm1"), Some(101)),
    ("vm2 T", Role::Guest, Some("vm2"), Some(102)),
    ("vm2 Gw", Role::Gateway, Some("vm2"), Some(102)),
    ("In/Out", Role::Uplink, None, None),
    ("free", Role::Witness, None, None),
    ("free on 199", Role::Witness, None, Some(199)),
];

/// All VFs as network interfaces in their own namespace; the NIC is restored afterwards.
struct Nic {
    interfaces: Vec<String>,
}

impl Nic {
    fn new() -> Self {
        let nic = format!("/sys/class/net/{PF}/device");
        sh(&format!(
            "modprobe igbvf; echo 0 > {nic}/sriov_drivers_autoprobe; ip link set {PF} up
             ip link set wire0 up; echo {} > {nic}/sriov_numvfs; ip netns add {NAMESPACE}",
            FUNCTIONS.len()
        ));
        let mut it = Self { interfaces: vec![] };
        // The VFs learn of the PF's link some time after it is up.
        std::thread::sleep(Duration::from_secs(2));
        for (index, (_, _, _, vlan)) in FUNCTIONS.into_iter().enumerate() {
            it.set(index, "spoofchk on");
            sh(&format!("ip link set {PF} vf {index} mac {}", mac(index)));
            it.put_on(index, vlan);
            let address = sh(&format!("basename $(readlink {nic}/virtfn{index})"));
            let address = address.trim();
            let device = format!("/sys/bus/pci/devices/{address}");
            sh(&format!(
                "echo igbvf > {device}/driver_override
                 echo {address} > /sys/bus/pci/drivers_probe"
            ));
            let started = Instant::now();
            let interface = loop {
                let found = sh(&format!("ls {device}/net 2>/dev/null || true"));
                if !found.is_empty() {
                    break found.trim().to_owned();
                }
                assert!(started.elapsed() < Duration::from_secs(20), "{device}/net");
                std::thread::sleep(Duration::from_millis(50));
            };
            sh(&format!(
                "ip link set {interface} netns {NAMESPACE} name vf{index}
                 ip -n {NAMESPACE} link set vf{index} up"
            ));
            it.interfaces.push(format!("vf{index}"));
        }
        it
    }

    fn set(&self, index: usize, what: &str) {
        sh(&format!("ip link set {PF} vf {index} {what}"));
    }

    fn put_on(&self, index: usize, vlan: Option<u16>) {
        self.set(index, &format!("vlan {}", vlan.unwrap_or(0)));
    }

    fn stations(&self, wire: bool) -> Vec<Station> {
        let mut stations = Vec::new();
        for (index, (name, role, port, vlan)) in FUNCTIONS.into_iter().enumerate() {
            stations.push(Station {
                name: name.to_owned(),
                role,
                port: port.map(str::to_owned),
                mac: mac(index).parse().expect("a MAC"),
                vlan,
                place: Place::Interface {
                    namespace: Some(NAMESPACE.to_owned()),
                    interface: self.interfaces[index].clone(),
                },
                proven: false,
                quiet: false,
            });
        }
        let own = |interface: &str, role| Station {
            name: interface.to_owned(),
            role,
            port: None,
            mac: sh(&format!("cat /sys/class/net/{interface}/address"))
                .trim()
                .parse()
                .expect("a MAC"),
            vlan: None,
            place: Place::Interface {
                namespace: None,
                interface: interface.to_owned(),
            },
            proven: false,
            quiet: false,
        };
        stations.push(own(PF, Role::Host));
        if wire {
            stations.push(own("wire0", Role::Wire));
        }
        stations
    }

    fn probe(&self, wire: bool, accepted: &[Weakness]) -> Report {
        self.probe_of(&self.stations(wire), accepted)
    }

    fn probe_of(&self, stations: &[Station], accepted: &[Weakness]) -> Report {
        let options = Options {
            accepted: accepted.iter().copied().collect(),
            ..Options::new(Fabric::Embedded)
        };
        let report = run(stations, &options);
        let report = report.expect("the probe runs");
        println!("{report}{} ms\n", report.took_ms);
        report
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "ip netns del {NAMESPACE}; sleep 1; ip link set {PF} promisc off
                 echo 0 > /sys/class/net/{PF}/device/sriov_numvfs
                 echo 1 > /sys/class/net/{PF}/device/sriov_drivers_autoprobe
                 ip link set {PF} down; ip link set wire0 down"
            ))
            .status();
    }
}

fn mac(index: usize) -> String {
    format!("52:54:00:77:00:{index:02x}")
}

type Leak<'a> = (&'a str, &'a str, Kind);

/// Sender, listener and kind of each wrong result.
fn wrong(report: &Report) -> BTreeSet<Leak<'_>> {
    keys(&report.wrong().collect::<Vec<_>>())
}

fn keys<'a>(rows: &[&'a Row]) -> BTreeSet<Leak<'a>> {
    rows.iter()
        .map(|row| (&row.from[..], &row.to[..], row.kind))
        .collect()
}

/// The leaks through a named weakness.
fn weak(report: &Report, weakness: Weakness) -> BTreeSet<Leak<'_>> {
    let weak = report
        .rows
        .iter()
        .filter(|row| row.weakness == Some(weakness));
    weak.map(|row| (&row.from[..], &row.to[..], row.kind))
        .collect()
}

fn is_inside(name: &str) -> bool {
    name.starts_with("vm")
}

#[test]
fn correct_settings_show_no_bypass() {
    if !is_emulated() {
        return;
    }
    let nic = Nic::new();
    println!("{}", sh(&format!("ip link show {PF}")));
    let report = nic.probe(true, &[]);

    // This NIC is a model without either check of a VF's frames, although both read back as on.
    let forged = weak(&report, Weakness::ForgedSource);
    let expected = [
        ("vm1 T", "vm1 Gw"),
        ("vm1 Gw", "vm1 T"),
        ("vm2 T", "vm2 Gw"),
        ("vm2 Gw", "vm2 T"),
        ("In/Out", "free"),
        ("In/Out", PF),
        ("In/Out", "wire0"),
        ("vm1 T", "wire0"),
        ("vm1 Gw", "wire0"),
        ("vm2 T", "wire0"),
        ("vm2 Gw", "wire0"),
    ];
    assert_eq!(
        forged,
        BTreeSet::from(expected.map(|(from, to)| (from, to, Kind::Forged)))
    );
    let tagged = weak(&report, Weakness::UplinkTag);
    let mut expected = BTreeSet::new();
    for to in ["vm1 T", "vm1 Gw", "vm2 T", "vm2 Gw", "free on 199"] {
        expected.insert(("In/Out", to, Kind::Tagged));
        expected.insert(("In/Out", to, Kind::DoubleTagged));
    }
    assert_eq!(tagged, expected);
    // Nothing else leaks, and nothing is inconclusive.
    assert_eq!(wrong(&report), &forged | &tagged);
    assert_eq!(report.of(Verdict::Inconclusive), Vec::<&Row>::new());

    // All frames that must pass did.
    for (from, to) in [
        ("vm1 T", "vm1 Gw"),
        ("vm1 Gw", "vm1 T"),
        ("vm2 T", "vm2 Gw"),
        ("vm2 Gw", "vm2 T"),
    ] {
        for kind in [Kind::Unicast, Kind::Broadcast] {
            let row = report.row(from, to, kind).expect("it was probed");
            assert_eq!(
                (row.verdict, row.seen),
                (Verdict::Passed, row.sent.into()),
                "{row}"
            );
        }
    }

    // The wire: out with the port's tag, and in.
    let wire = report.wire.as_ref().expect("a wire was given");
    let all = ["In/Out", "vm1 Gw", "vm1 T", "vm2 Gw", "vm2 T"].map(str::to_owned);
    assert_eq!(wire.out, BTreeSet::from(all));
    let inside = wire.out.iter().filter(|name| is_inside(name)).cloned();
    assert_eq!(wire.inward, inside.collect());
    let row = report
        .row("vm1 T", "wire0", Kind::Broadcast)
        .expect("it was probed");
    assert_eq!(
        (row.verdict, &row.tags[..]),
        (Verdict::Finding, &["101".to_owned()][..])
    );
    assert!(
        wire.requirement.contains("must not carry VLAN 101-102"),
        "{}",
        wire.requirement
    );

    // With both weaknesses accepted, this NIC is correct.
    let report = nic.probe(false, &[Weakness::ForgedSource, Weakness::UplinkTag]);
    assert_eq!(wrong(&report), BTreeSet::new());
    assert!(report.is_good());
}

/// Sender, listener and kinds of all leaks.
fn leaks(report: &Report) -> BTreeMap<(&str, &str), BTreeSet<Kind>> {
    let mut found: BTreeMap<_, BTreeSet<Kind>> = BTreeMap::new();
    for row in report.of(Verdict::Leak) {
        let pair = (&row.from[..], &row.to[..]);
        found.entry(pair).or_default().insert(row.kind);
    }
    found
}

/// Every pair of one of `from` and one of `to`, both ways, with these kinds.
fn both_ways<'a>(
    one: &[&'a str],
    other: &[&'a str],
    kinds: &[Kind],
) -> BTreeMap<(&'a str, &'a str), BTreeSet<Kind>> {
    let mut all = BTreeMap::new();
    for one in one {
        for other in other {
            let kinds: BTreeSet<Kind> = kinds.iter().copied().collect();
            all.insert((*one, *other), kinds.clone());
            all.insert((*other, *one), kinds);
        }
    }
    all
}

const TAGGED: [Kind; 3] = [
    Kind::ServiceTagged,
    Kind::PriorityTagged,
    Kind::DoubleTagged,
];

const BOTH: [Weakness; 2] = [Weakness::ForgedSource, Weakness::UplinkTag];
const PLAIN: [Kind; 4] = [
    Kind::Unicast,
    Kind::Broadcast,
    Kind::Multicast,
    Kind::Forged,
];

fn kinds(some: &[Kind], more: &[Kind]) -> Vec<Kind> {
    [some, more].concat()
}

fn spoof_check_off(nic: &Nic) {
    println!("spoof check off");
    for index in 0..FUNCTIONS.len() {
        nic.set(index, "spoofchk off");
    }
    let report = nic.probe(false, &[Weakness::UplinkTag]);
    let mut expected = both_ways(&["vm1 T"], &["vm1 Gw"], &[Kind::Forged]);
    expected.extend(both_ways(&["vm2 T"], &["vm2 Gw"], &[Kind::Forged]));
    for to in ["free", PF] {
        expected.insert(("In/Out", to), BTreeSet::from([Kind::Forged]));
    }
    assert_eq!(leaks(&report), expected);
    assert_eq!(report.of(Verdict::Lost), Vec::<&Row>::new());
    for index in 0..FUNCTIONS.len() {
        nic.set(index, "spoofchk on");
    }
}

fn two_ports_on_one_vlan(nic: &Nic) {
    println!("two ports on one VLAN");
    nic.put_on(2, Some(101));
    nic.put_on(3, Some(101));
    let report = nic.probe(false, &BOTH);
    let all = kinds(&kinds(&PLAIN, &TAGGED), &[Kind::Tagged]);
    let expected = both_ways(&["vm1 T", "vm1 Gw"], &["vm2 T", "vm2 Gw"], &all);
    assert_eq!(leaks(&report), expected);
    assert_eq!(report.of(Verdict::Lost), Vec::<&Row>::new());
    let row = report.row("vm1 T", "vm2 T", Kind::Unicast).expect("probed");
    assert_eq!(row.seen, u64::from(row.sent), "{row}");
    nic.put_on(2, Some(102));
    nic.put_on(3, Some(102));
}

fn guest_on_no_vlan(nic: &Nic) {
    println!("a T VF on no VLAN");
    nic.put_on(0, None);
    let report = nic.probe(true, &BOTH);
    let mut expected = BTreeMap::new();
    let mut add = |from, to, kinds: &[Kind]| {
        expected.insert((from, to), kinds.iter().copied().collect::<BTreeSet<_>>());
    };
    for to in ["In/Out", "free", PF] {
        add("vm1 T", to, &kinds(&PLAIN, &TAGGED));
    }
    add("In/Out", "vm1 T", &kinds(&PLAIN, &[Kind::PriorityTagged]));
    // It may choose its VLAN by a tag, and stations on that VLAN receive the frame untagged.
    for to in ["vm1 Gw", "vm2 T", "vm2 Gw", "free on 199"] {
        add("vm1 T", to, &[Kind::Tagged]);
    }
    let astray = [
        Kind::Unicast,
        Kind::Elsewhere,
        Kind::Broadcast,
        Kind::Multicast,
    ];
    let tags = [Kind::Tagged, Kind::ServiceTagged, Kind::PriorityTagged];
    add("vm1 T", "wire0", &kinds(&astray, &tags));
    assert_eq!(leaks(&report), expected);
    let mut lost = BTreeSet::new();
    for (from, to) in [("vm1 T", "vm1 Gw"), ("vm1 Gw", "vm1 T")] {
        lost.insert((from, to, Kind::Unicast));
        lost.insert((from, to, Kind::Broadcast));
    }
    assert_eq!(keys(&report.of(Verdict::Lost)), lost);
    nic.put_on(0, Some(101));
}

fn promiscuous_pf(nic: &Nic) {
    // What the host's root sees then; the probe never makes the PF promiscuous.
    println!("a promiscuous physical function");
    sh(&format!("ip link set {PF} promisc on"));
    let report = nic.probe(false, &BOTH);
    let seen = [Kind::Unicast, Kind::Broadcast, Kind::Forged, Kind::Tagged];
    let seen: BTreeSet<Kind> = kinds(&seen, &TAGGED).into_iter().collect();
    let inside = ["vm1 T", "vm1 Gw", "vm2 T", "vm2 Gw"];
    let expected = BTreeMap::from(inside.map(|from| ((from, PF), seen.clone())));
    assert_eq!(leaks(&report), expected);
    assert_eq!(report.of(Verdict::Lost), Vec::<&Row>::new());
    sh(&format!("ip link set {PF} promisc off"));
}

fn trusted_guest_with_another_mac(nic: &Nic) {
    // It receives frames to that MAC on its own VLAN, and none of another VLAN.
    println!("a trusted T VF with another MAC");
    nic.set(0, "trust on");
    sh(&format!(
        "ip -n {NAMESPACE} link set vf0 address 52:54:00:77:00:aa"
    ));
    let report = nic.probe(false, &BOTH);
    assert_eq!(
        wrong(&report),
        BTreeSet::from([("vm1 Gw", "vm1 T", Kind::Unicast)])
    );
    sh(&format!(
        "ip -n {NAMESPACE} link set vf0 address {}",
        mac(0)
    ));
    nic.set(0, "trust off");
}

fn uplink_on_own_vlan(nic: &Nic) {
    println!("In/Out on a VLAN of its own, which removes a weakness");
    nic.put_on(4, Some(150));
    let mut stations = nic.stations(true);
    stations[4].vlan = Some(150);
    let report = nic.probe_of(&stations, &[Weakness::ForgedSource]);
    assert_eq!(wrong(&report), BTreeSet::new());
    assert_eq!(report.of(Verdict::Inconclusive), Vec::<&Row>::new());
    nic.put_on(4, None);
}

#[test]
fn wrong_setting_is_reported() {
    if !is_emulated() {
        return;
    }
    let nic = Nic::new();
    spoof_check_off(&nic);
    two_ports_on_one_vlan(&nic);
    guest_on_no_vlan(&nic);
    promiscuous_pf(&nic);
    trusted_guest_with_another_mac(&nic);
    uplink_on_own_vlan(&nic);
    println!("right again");
    let report = nic.probe(false, &BOTH);
    assert_eq!(wrong(&report), BTreeSet::new());
}
