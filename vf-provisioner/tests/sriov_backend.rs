//! The sriov backend on real functions of a real driver, `igb`, in the emulated machine. Elsewhere
//! each test prints that and passes. Tests run one at a time there, and leave the NICs as they
//! found them.

#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/libvirtd.rs"]
mod libvirtd;
#[path = "common/nic.rs"]
mod nic;
#[path = "common/output.rs"]
mod output;
#[path = "common/shell.rs"]
mod shell;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use libvirtd::Libvirtd;
use nic::{ON_PF0, PF, PROVISIONER, Settings, Site, ZERO, driver, functions, set};
use shell::sh;
use supervisor::Supervisor;

/// The functions of a NIC on which only the first tenant has functions: two ports and an uplink.
fn set_for_t1() -> [Settings; 7] {
    [
        set("52:54:00:00:01:01", 3000),
        set("06:e1:93:2c:e6:ce", 3000),
        set("52:54:00:00:01:02", 3001),
        set("06:93:c1:2c:21:82", 3001),
        set("0a:e2:f1:b1:b2:67", 0),
        set(ZERO, 0),
        set(ZERO, 0),
    ]
}

#[test]
fn tenant_on_igb_is_verified_and_released() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 2, true);
    site.onboard(&file);
    assert_eq!(functions("pf0"), set_for_t1());
    let drivers: Vec<String> = (0..7).map(driver).collect();
    assert_eq!(&drivers[..5], ["vfio-pci"; 5]);
    assert_eq!(&drivers[5..], ["none"; 2]);
    assert_eq!(site.drift(), Vec::<String>::new());
    // The NIC and the kind of guests are remembered.
    assert_eq!(
        site.good(&["apply", "--no-prove", &file]),
        "nothing to do\n"
    );
    let status: Value = serde_json::from_str(&site.good(&["--json", "status"])).expect("JSON");
    assert_eq!(status["tenants"][0]["functions"][1]["for"], "t1/t1-vm1 Gw");

    // There is room for a second tenant with one port, and not for a third.
    site.good(&["apply", "--no-prove", &site.tenant(2, 1, false)]);
    let text = site.bad(2, &["apply", "--no-prove", &site.tenant(3, 1, false)]);
    assert!(text.contains("need 2 more virtual functions"), "{text}");
    assert!(text.contains("and 0 are free (pf0 0)"), "{text}");
    site.good(&["release", "t1"]);
    assert_eq!(functions("pf0")[0], set(ZERO, 0));
    assert_eq!(driver(0), "none");
    assert_eq!(functions("pf0")[5], set("52:54:00:00:02:01", 3002));
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn drift_is_reported_counted_and_repaired() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 1, true);
    site.onboard(&file);

    // Settings changed by hand.
    sh(
        "ip link set pf0 vf 0 mac 52:54:00:99:99:99; ip link set pf0 vf 1 vlan 77
        ip link set pf0 vf 2 spoofchk off; ip link set pf0 vf 2 trust on",
    );
    assert_eq!(
        site.drift(),
        [
            "virtual function 0000:01:10.0: set.mac should be \"52:54:00:00:01:01\" and is \
             \"52:54:00:99:99:99\"",
            "virtual function 0000:01:10.2: set.vlan should be 3000 and is 77",
            "virtual function 0000:01:10.4: set.spoof_check should be true and is false; set.trust \
             should be false and is true",
            "switch of tenant t1 must be restarted: it depends on what must be recreated",
        ]
    );
    // The supervisor reports and counts it too.
    let metrics = site.dir.path().join("mts.prom");
    let options = ["--verify-every", "1", "--mend", "report", "--metrics"];
    let supervisor = Supervisor::start(
        site.command(),
        &[&options[..], &[metrics.to_str().expect("a path")]].concat(),
        &["t1"],
        site.dir.path(),
        Duration::from_secs(30),
    );
    let counted = |line: &str| {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&metrics).unwrap_or_default();
            if text.lines().any(|it| it == line) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    counted("vf_provisioner_drift 4");
    site.good(&["apply", "--no-prove", &file]);
    counted("vf_provisioner_drift 0");
    counted("vf_provisioner_switch_up{tenant=\"t1\"} 1");
    supervisor.stop();
    assert_eq!(site.drift(), Vec::<String>::new());

    // Another program takes a function.
    sh(&format!(
        "a=0000:01:10.2; echo $a > /sys/bus/pci/drivers/vfio-pci/unbind
         echo igbvf > {PF}/virtfn1/driver_override; echo $a > /sys/bus/pci/drivers_probe"
    ));
    let drift = site.drift();
    assert!(
        drift.contains(
            &"virtual function 0000:01:10.2: driver should be \"vfio-pci\" and is \"igbvf\""
                .to_owned()
        ),
        "{drift:?}"
    );
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!(driver(1), "vfio-pci");
    assert_eq!(site.drift(), Vec::<String>::new());

    // All settings are lost, as by a reset of the NIC.
    sh(&format!(
        "echo 0 > {PF}/sriov_numvfs; echo 7 > {PF}/sriov_numvfs; ip link set pf0 down"
    ));
    let drift = site.drift();
    let drifts = |what: &str| drift.iter().any(|line| line.contains(what));
    assert!(
        drifts("physical function 0000:01:00.0: set.up should be true and is false"),
        "{drift:?}"
    );
    assert!(
        drifts("virtual function 0000:01:10.0: driver should be \"vfio-pci\" and is null"),
        "{drift:?}"
    );
    assert!(
        drifts("set.mac should be \"0a:e2:f1:b1:b2:67\" and is null"),
        "{drift:?}"
    );
    assert!(drifts("switch of tenant t1 must be restarted"), "{drift:?}");
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!(site.drift(), Vec::<String>::new());
    sh(&format!("echo 0 > {PF}/sriov_numvfs"));
    let drift = site.drift();
    let drifts = |what: &str| drift.iter().any(|line| line.contains(what));
    assert!(drifts("set.vfs should be 7 and is 0"), "{drift:?}");
    assert!(
        drifts("virtual function 0000:01:10.0 is missing"),
        "{drift:?}"
    );
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!(site.drift(), Vec::<String>::new());
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn vanished_nic_is_reported_and_its_tenants_released() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 1, false);
    site.onboard(&file);
    sh("echo 0000:01:00.0 > /sys/bus/pci/drivers/igb/unbind");
    let drift = site.drift();
    assert!(
        drift.contains(&"physical function 0000:01:00.0 is missing".to_owned()),
        "{drift:?}"
    );
    assert!(
        drift.contains(&"virtual function 0000:01:10.0 is missing".to_owned()),
        "{drift:?}"
    );
    let text = site.bad(2, &["apply", "--no-prove", &file]);
    let words = "--pf 0000:01:00.0: it has no interface in this network namespace: bind its driver";
    assert!(text.contains(words), "{text}");
    site.good(&["release", "--all"]);
    sh("echo 0000:01:00.0 > /sys/bus/pci/drivers/igb/bind; sleep 1
        [ -e /sys/class/net/pf0 ] ||
             ip link set $(ls /sys/bus/pci/devices/0000:01:00.0/net) name pf0
        echo 1 > /sys/class/net/pf0/device/sriov_drivers_autoprobe");
    site.assert_as_found();
}

#[test]
fn apply_killed_at_any_step_converges() {
    let Some(site) = Site::new() else { return };
    let (one, two) = (site.tenant(1, 1, false), site.tenant(2, 1, false));
    let on = ON_PF0;
    let count = || sh(&format!("cat {PF}/sriov_numvfs")).trim().to_owned();
    let mut moment = 0;
    loop {
        if moment == 12 {
            // Each step so far set and restored the PF itself; with existing functions it is
            // faster.
            sh(&format!(
                "ip link set pf0 up; echo 0 > {PF}/sriov_drivers_autoprobe; echo 7 > \
                 {PF}/sriov_numvfs"
            ));
        }
        let at = moment.to_string();
        let output = site.run(&[&["--kill-at", &at], &on[..], &[&one]].concat());
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "moment {moment}: {output:?}");
        if moment % 3 == 0 {
            site.good(&[&on[..], &[&one]].concat());
            assert_eq!(
                functions("pf0")[1].0,
                "06:e1:93:2c:e6:ce",
                "moment {moment}"
            );
        }
        site.good(&["release", "--all"]);
        assert_eq!(
            count(),
            if moment < 12 { "0" } else { "7" },
            "moment {moment}"
        );
        assert!(
            functions("pf0").iter().all(|it| it.0 == ZERO && it.1 == 0),
            "moment {moment}"
        );
        moment += 1;
    }
    assert!(moment > 20, "only {moment} moments");
    // After a killed release, the next tenant gets cleaned functions.
    for at in ["1", "6", "11"] {
        let output = site.run(&["--kill-at", at, "release", "t1"]);
        assert_eq!(output.status.code(), None, "moment {at}: {output:?}");
        site.good(&[&on[..], &[&two]].concat());
        let macs: Vec<String> = functions("pf0").into_iter().map(|(mac, ..)| mac).collect();
        assert!(
            !macs.iter().any(|mac| mac == "52:54:00:00:01:01"),
            "{at}: {macs:?}"
        );
        assert_eq!(site.drift(), Vec::<String>::new(), "moment {at}");
        site.good(&["release", "t2"]);
        site.good(&[&on[..], &[&one]].concat());
    }
    site.good(&["release", "--all"]);
    sh(&format!(
        "echo 0 > {PF}/sriov_numvfs; ip link set pf0 down; echo 1 > {PF}/sriov_drivers_autoprobe"
    ));
    site.assert_as_found();
}

#[test]
fn ports_stay_together_on_one_of_two_nics() {
    let Some(site) = Site::new() else { return };
    if !Path::new("/sys/class/net/pf1").exists() {
        eprintln!("skipped: needs a machine with two NICs (scripts/vm --nics 2)");
        return;
    }
    let on_both = [
        "apply",
        "--no-prove",
        "--nic",
        "sriov",
        "--pf",
        "pf0,pf1",
        "--inout-pf",
        "pf1",
    ];
    let files = [site.tenant(1, 3, true), site.tenant(2, 2, true)];
    let arguments = [&on_both[..], &[&files[0], &files[1]]].concat();
    site.good(&arguments);
    let vlans = |pf| functions(pf).iter().map(|it| it.1).collect::<Vec<_>>();
    assert_eq!(vlans("pf0"), [3000, 3000, 3001, 3001, 3002, 3002, 0]);
    assert_eq!(vlans("pf1"), [0, 3003, 3003, 3004, 3004, 0, 0]);
    let macs = |pf| functions(pf).into_iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(macs("pf0")[6], ZERO);
    let mut uplinks = macs("pf1");
    uplinks.retain(|mac| mac.starts_with("0a:"));
    assert_eq!(uplinks, ["0a:e2:f1:b1:b2:67", "0a:d2:53:77:9e:a0"]);
    site.good(&["release", "t2"]);
    assert_eq!(site.drift(), Vec::<String>::new());
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn refused_setting_fails_unless_accepted() {
    let Some(site) = Site::new() else { return };
    let rates = "rate_mbit = 100\nmin_rate_mbit = 10\n";
    let file = site.tenant_with(1, 1, false, "", rates);
    let apply = [
        "apply",
        "--no-prove",
        "--nic",
        "sriov",
        "--pf",
        "pf0",
        &file,
    ];
    let text = site.bad(1, &apply);
    assert!(
        text.contains("the NIC's driver refuses at least 10 Mbit/s"),
        "{text}"
    );
    assert!(text.contains("[nic] accept = [\"min-rate\"]"), "{text}");
    assert!(
        text.contains("all completed steps were rolled back"),
        "{text}"
    );
    site.assert_as_found();
    site.tenant_with(1, 1, false, "[nic]\naccept = [\"min-rate\"]\n", rates);
    site.good(&apply);
    let shown = sh("ip -d link show pf0");
    assert!(shown.contains("max_tx_rate 100Mbps"), "{shown}");
    let verify = site.good(&["verify"]);
    assert!(
        verify.contains("tenant t1: accepted by its file, not checked: min-rate\n"),
        "{verify}"
    );
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn foreign_functions_are_left_alone_and_bad_input_changes_nothing() {
    let Some(mut site) = Site::new() else { return };
    let file = site.tenant(1, 2, true);
    let on = |pf: &'static str| ["apply", "--no-prove", "--nic", "sriov", "--pf", pf];
    let refuse = |site: &Site, arguments: &[&str], message: &str| {
        let text = site.bad(2, &[arguments, &[&file]].concat());
        assert!(text.contains(message), "{text}");
        site.assert_as_found();
    };
    refuse(&site, &on("eth9"), "this host has pf0 (igb, 7 VFs)");
    refuse(&site, &on("wire0"), "--pf wire0: no such SR-IOV NIC");
    refuse(
        &site,
        &[&on("pf0")[..], &["--vlans", "10-10"]].concat(),
        "1 are free in --vlans 10-10",
    );
    refuse(
        &site,
        &[&on("pf0")[..], &["--hugepages"]].concat(),
        "leave out --hugepages",
    );
    sh("ip link add twin address 52:54:00:00:01:02 type bridge");
    site.before = site.nics();
    refuse(
        &site,
        &on("pf0"),
        "that of interface twin and of tenant t1/t1-vm2 T",
    );
    sh("ip link del twin");

    let unprivileged = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", PROVISIONER])
        .args(on("pf0"))
        .arg(&file)
        .output()
        .expect("setpriv starts");
    assert_eq!(unprivileged.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unprivileged.stderr).contains("this needs root"));

    // An operator has made four functions; one is up, one has a MAC.
    sh(&format!(
        "echo 0 > {PF}/sriov_drivers_autoprobe; ip link set pf0 up
         echo 4 > {PF}/sriov_numvfs; sleep 1
         echo igbvf > {PF}/virtfn0/driver_override
         echo 0000:01:10.0 > /sys/bus/pci/drivers_probe; sleep 1
         ip link set $(ls {PF}/virtfn0/net) up; ip link set pf0 vf 3 mac 52:54:00:99:99:99"
    ));
    site.before = site.nics();
    let text = site.bad(2, &[&on("pf0")[..], &[&file]].concat());
    assert!(text.contains("and 2 are free (pf0 2)"), "{text}");
    assert!(
        text.contains("pf0 VF 3 (it has settings of another program)"),
        "{text}"
    );
    site.assert_as_found();
    // A tenant that fits gets none of these.
    site.good(&[&on("pf0")[..], &[&site.tenant(2, 1, false)]].concat());
    assert_eq!(driver(0), "igbvf");
    assert_eq!(functions("pf0")[3].0, "52:54:00:99:99:99");
    site.good(&["release", "--all"]);
    site.assert_as_found();
    // Only with --resize-pf the NIC gets more functions, and those in use are lost.
    site.good(&[&on("pf0")[..], &["--resize-pf", &file]].concat());
    assert_eq!(functions("pf0").len(), 7);
    site.good(&["release", "--all"]);
    assert_eq!(functions("pf0").len(), 4);
    sh(&format!(
        "echo 0 > {PF}/sriov_numvfs; ip link set pf0 down; echo 1 > {PF}/sriov_drivers_autoprobe"
    ));
}

#[test]
fn guests_in_namespaces_reach_only_their_switch() {
    let Some(mut site) = Site::new() else { return };
    let switch = Path::new(PROVISIONER).with_file_name("vswitch");
    if !switch.is_file() || !Path::new("/sys/class/net/pf1").exists() {
        eprintln!(
            "skipped: needs the switch's binary and a machine with two NICs (scripts/test sriov)"
        );
        return;
    }
    site.switch = switch;
    let files = [site.tenant(1, 2, true), site.tenant(2, 2, true)];
    let on = [
        "apply",
        "--no-prove",
        "--nic",
        "sriov",
        "--pf",
        "pf0,pf1",
        "--guest",
        "netns",
    ];
    let output = site.good(&[&on[..], &[&files[0], &files[1]]].concat());
    assert!(
        output.contains("; 4 gateways answered with real frames"),
        "{output}"
    );
    sh(
        "for n in 1 2; do for p in 1 2; do ip -n t$n-vm$p addr add 10.$n.0.1$p/24 dev eth0; done; \
         done",
    );
    let ping = |from: &str, to: &str| {
        let status = Command::new("ip")
            .args([
                "netns", "exec", from, "ping", "-q", "-c", "3", "-i", "0.3", "-W", "3", to,
            ])
            .stdout(Stdio::null())
            .status();
        status.expect("ping starts").success()
    };
    assert!(ping("t1-vm1", "10.1.0.1"), "the gateway");
    assert!(ping("t1-vm1", "10.1.0.12"), "a sibling, through the switch");
    sh("ip -n t1-vm1 route add 10.2.0.0/24 dev eth0");
    assert!(!ping("t1-vm1", "10.2.0.11"), "another tenant's VM");
    assert_eq!(site.drift(), Vec::<String>::new());
    // The driver's own view is read back as well.
    sh("ip -n t1-vm1 link set eth0 mtu 1400");
    assert_eq!(
        site.drift(),
        ["virtual function 0000:01:10.0: interface.mtu should be 1500 and is 1400"]
    );
    site.good(&["apply", "--no-prove", &files[0]]);
    assert_eq!(site.drift(), Vec::<String>::new());
    site.good(&["release", "--all"]);
    site.assert_as_found();
    assert_eq!(sh("ip netns list"), "");
}

#[test]
fn open_function_is_not_removed() {
    let Some(site) = Site::new() else { return };
    site.onboard(&site.tenant(1, 1, false));
    let group = sh(&format!("basename $(readlink {PF}/virtfn0/iommu_group)"));
    let node = format!("/dev/vfio/{}", group.trim());
    let mut vm = Command::new("sleep")
        .arg("600")
        .stdin(fs::File::open(&node).expect("nobody has it open"))
        .spawn()
        .expect("sleep starts");
    let text = site.bad(1, &["release", "t1"]);
    let message = format!("it is open in process {} (sleep): stop that first", vm.id());
    assert!(text.contains(&message), "{text}");
    let shown = site.good(&["nic"]);
    assert!(
        shown.contains(&format!("open in process {}", vm.id())),
        "{shown}"
    );
    assert_eq!(site.drift(), Vec::<String>::new());
    vm.kill().expect("it runs");
    vm.wait().expect("it ends");
    site.good(&["release", "t1"]);
    site.assert_as_found();
}

/// A domain with functions is started and destroyed by libvirt. Its guest need not boot: libvirt
/// sets functions when it starts a domain, and resets them when the domain ends.
#[test]
fn libvirt_keeps_settings_of_functions() {
    let Some(mut site) = Site::new() else { return };
    let image = Path::new(PROVISIONER).with_file_name("../switch-image");
    if !image.join("manifest.json").exists() {
        eprintln!(
            "skipped: needs {} (scripts/build-switch-image)",
            image.display()
        );
        return;
    }
    let Some(libvirtd) = Libvirtd::start(&site.dir.path().join("libvirt"), None) else {
        return;
    };
    site.libvirt = Some(libvirtd.uri());
    let messages = site.dir.path().join("messages");
    let mut apply = site
        .command()
        .args(["--launcher", "libvirt", "--accel", "tcg", "--vm-image"])
        .arg(&image)
        .args(ON_PF0)
        .arg(site.tenant(1, 2, true))
        .stdout(Stdio::null())
        .stderr(fs::File::create(&messages).expect("a file"))
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    while libvirtd.virsh(&["domstate", "mts-t1"]).as_deref() != Ok("running") {
        let output = || fs::read_to_string(&messages).unwrap_or_default();
        assert_eq!(apply.try_wait().expect("it is ours"), None, "{}", output());
        assert!(began.elapsed() < Duration::from_secs(180), "{}", output());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(functions("pf0"), set_for_t1());

    // QEMU runs as the tenant's user, and has only the switch's functions.
    let pid = fs::read_to_string(site.dir.path().join("libvirt/run/libvirt/qemu/mts-t1.pid"));
    let process = PathBuf::from("/proc").join(pid.expect("it runs").trim());
    assert_eq!(fs::metadata(&process).expect("it runs").uid(), 66000);
    let open = fs::read_dir(process.join("fd")).expect("it runs").flatten();
    let groups: BTreeSet<PathBuf> = open
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with("/dev/vfio") && !path.ends_with("vfio"))
        .collect();
    let group = |index: u32| {
        let link = fs::read_link(format!("{PF}/virtfn{index}/iommu_group")).expect("a group");
        Path::new("/dev/vfio").join(link.file_name().expect("its number"))
    };
    assert_eq!(groups, [1, 3, 4].map(group).into());
    // The machine's 160 MiB, QEMU's own memory, and memory that it maps and locks without using it.
    let bounds = libvirtd.virsh(&["memtune", "mts-t1"]).expect("it runs");
    assert!(
        bounds.contains(&format!("hard_limit     : {}", (160 + 128 + 192) << 10)),
        "{bounds}"
    );

    // The provisioner dies while it waits for the machine, which is then killed.
    apply.kill().expect("it runs");
    apply.wait().expect("it ends");
    libvirtd.virsh(&["destroy", "mts-t1"]).expect("it runs");
    assert_eq!(functions("pf0"), set_for_t1());
    assert_eq!(
        site.drift(),
        ["switch of tenant t1 does not run, or forwards nothing"]
    );
    site.good(&["release", "--all"]);
    assert_eq!(libvirtd.domains(), Vec::<String>::new());
    site.assert_as_found();
}

#[test]
fn leak_is_found_before_the_switch_starts() {
    let Some(mut site) = Site::new() else { return };
    let switch = Path::new(PROVISIONER).with_file_name("vswitch");
    if !switch.is_file() {
        eprintln!("skipped: needs the switch's binary (scripts/test sriov)");
        return;
    }
    site.switch = switch;
    let file = site.tenant(1, 2, true);
    let apply = [
        "apply",
        "--nic",
        "sriov",
        "--pf",
        "pf0",
        "--guest",
        "netns",
        "--inout-vlan",
        "200",
        &file,
    ];
    // This NIC reads back a source check that it does not make.
    let text = site.bad(1, &apply);
    assert!(text.contains("forged-source"), "{text}");
    assert!(
        text.contains("all completed steps were rolled back"),
        "{text}"
    );
    site.assert_as_found();
    site.tenant_with(1, 2, true, "[nic]\naccept = [\"spoof-check\"]\n", "");
    // Killed during the probe, it leaves functions that are interfaces in no named namespace.
    let mut killed = site.command().args(apply).spawn().expect("it starts");
    let asking = Instant::now();
    while driver(1) != "igbvf" && asking.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(driver(1), "igbvf");
    killed.kill().expect("it runs");
    killed.wait().expect("it ended");
    let output = site.good(&[&apply[..], &["--prove"]].concat());
    assert!(
        output.contains("no frame gets around their switches\n"),
        "{output}"
    );
    assert_eq!(
        (driver(0), driver(1)),
        ("igbvf".to_owned(), "vfio-pci".to_owned())
    );
    assert_eq!(functions("pf0")[4].1, 200);
    assert_eq!(site.good(&["apply", &file]), "nothing to do\n");
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn missing_iommu_is_reported() {
    let Some(site) = Site::new() else { return };
    if Path::new("/sys/bus/pci/devices/0000:01:00.0/iommu_group").exists() {
        eprintln!("skipped: needs a machine without an IOMMU (scripts/vm --no-iommu)");
        return;
    }
    let file = site.tenant(1, 1, false);
    let text = site.bad(2, &[&ON_PF0[..], &[&file]].concat());
    assert!(
        text.contains("--pf pf0: it is not behind an IOMMU"),
        "{text}"
    );
    site.assert_as_found();
    let check = site.run(&["check", "--nic", "sriov"]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(3), "{text}");
    assert!(text.contains("MISSING   IOMMU"), "{text}");
    assert!(text.contains("pf0 (7 of 7 VFs free, NO IOMMU)"), "{text}");
}
