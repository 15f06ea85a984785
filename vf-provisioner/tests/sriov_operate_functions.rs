//! Functions of a NIC that others use too, on a real driver, `igb`, in the emulated machine.
//! Elsewhere each test prints that and passes.

#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/nic.rs"]
mod nic;
#[path = "common/output.rs"]
mod output;
#[path = "common/shell.rs"]
mod shell;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use nic::{ON_PF0, PF, Settings, Site, ZERO, driver, functions, set};
use shell::sh;
use supervisor::Supervisor;

/// Functions 0 to 6 of a NIC on which only the first tenant has some: a port and an uplink.
fn set_for_t1() -> [Settings; 7] {
    [
        set("52:54:00:00:01:01", 3000),
        set("06:e1:93:2c:e6:ce", 3000),
        set("0a:e2:f1:b1:b2:67", 0),
        set(ZERO, 0),
        set(ZERO, 0),
        set(ZERO, 0),
        set(ZERO, 0),
    ]
}

#[test]
fn function_open_in_a_stranger_does_not_get_the_tenants_settings() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 1, true);
    site.onboard(&file);
    assert_eq!(functions("pf0"), set_for_t1());
    // As a domain of a libvirt network that hands out functions of the same PF.
    let group = sh(&format!("basename $(readlink {PF}/virtfn0/iommu_group)"));
    let node = fs::File::open(format!("/dev/vfio/{}", group.trim()));
    let mut qemu = Command::new("/usr/bin/python3")
        .args(["-c", "import time; time.sleep(600)"])
        .args(["-name", "guest=web1,debug-threads=on"])
        .stdin(node.expect("nobody has it open"))
        .spawn()
        .expect("it starts");
    // Open, and not moved: that may be the tenant's own virtual machine.
    assert_eq!(
        site.good(&["apply", "--no-prove", &file]),
        "nothing to do\n"
    );
    sh("ip link set pf0 vf 0 mac 52:54:00:99:99:99; ip link set pf0 vf 0 vlan 77");
    let strangers = functions("pf0");
    assert_eq!(strangers[0], set("52:54:00:99:99:99", 77));
    let text = site.bad(2, &["apply", "--no-prove", &file]);
    let words = format!(
        "tenant t1: virtual function 0000:01:10.0 (pf0 VF 0) is open in process {} (python3, \
         domain web1), with MAC 52:54:00:99:99:99 and VLAN 77 where MAC 52:54:00:00:01:01 and \
         VLAN 3000 are wanted: stop that first",
        qemu.id()
    );
    assert!(text.contains(&words), "{text}");
    assert_eq!(functions("pf0"), strangers);
    qemu.kill().expect("it runs");
    qemu.wait().expect("it ends");
    let plan = site.good(&["plan", &file]);
    assert!(
        plan.contains("create virtual function 0000:01:10.0"),
        "{plan}"
    );
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!(functions("pf0"), set_for_t1());
    assert_eq!(site.drift(), Vec::<String>::new());
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn renamed_pf_is_verified_applied_and_released() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 1, true);
    site.onboard(&file);
    let rename = |from: &str, to: &str| {
        sh(&format!(
            "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"
        ));
    };
    rename("pf0", "lan7");
    assert_eq!(site.drift(), Vec::<String>::new());
    assert_eq!(
        site.good(&["apply", "--no-prove", &file]),
        "nothing to do\n"
    );
    let status: Value = serde_json::from_str(&site.good(&["--json", "status"])).expect("JSON");
    assert_eq!(status["tenants"][0]["functions"][0]["pf"], "lan7");
    sh("ip link set lan7 vf 0 vlan 77");
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!(functions("lan7"), set_for_t1());
    assert_eq!(site.drift(), Vec::<String>::new());
    // The new name and the address mean the same NIC.
    for pf in ["lan7", "0000:01:00.0"] {
        let output = site.good(&["apply", "--no-prove", "--pf", pf, &file]);
        assert_eq!(output, "nothing to do\n", "{pf}");
    }
    site.good(&["release", "--all"]);
    sh("ip link set lan7 down; ip link set lan7 name pf0");
    site.assert_as_found();
}

#[test]
fn function_of_another_user_does_not_block_the_release() {
    let Some(site) = Site::new() else { return };
    let file = site.tenant(1, 1, false);
    let text = site.bad(2, &[&ON_PF0[..], &["--vfs", "8", &file]].concat());
    assert!(
        text.contains("--vfs 8: pf0 can have 1 to 7 virtual functions"),
        "{text}"
    );
    site.good(&[&ON_PF0[..], &["--vfs", "4", &file]].concat());
    assert_eq!(
        functions("pf0"),
        set_for_t1()[..2]
            .iter()
            .cloned()
            .chain([set(ZERO, 0), set(ZERO, 0),])
            .collect::<Vec<_>>()
    );
    assert_eq!(site.drift(), Vec::<String>::new());
    let used = sh(&format!(
        "echo igbvf > {PF}/virtfn3/driver_override; echo 0000:01:10.6 > /sys/bus/pci/drivers_probe
         for n in $(seq 100); do [ -e {PF}/virtfn3/net ] && break; sleep 0.1; done
         name=$(ls {PF}/virtfn3/net); ip link set $name up; echo $name"
    ));
    assert_eq!(driver(3), "igbvf");
    let output = site.run(&["release", "--all"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let words = format!(
        "pf0 stays as it is: others use functions of it (VF 3: interface {} is in use)",
        used.trim()
    );
    assert!(text.contains(&words), "{text}");
    assert_eq!((functions("pf0").len(), driver(3)), (4, "igbvf".to_owned()));
    assert_eq!(functions("pf0")[..2], [set(ZERO, 0), set(ZERO, 0)]);
    assert!(!site.dir.path().join("state/state.json").exists());
    // The next tenant gets the others, and leaves the PF as it found it.
    site.good(&[&ON_PF0[..], &[&file]].concat());
    site.good(&["release", "--all"]);
    assert_eq!((functions("pf0").len(), driver(3)), (4, "igbvf".to_owned()));
    sh(&format!(
        "echo 0 > {PF}/sriov_numvfs; ip link set pf0 down; echo 1 > {PF}/sriov_drivers_autoprobe"
    ));
    site.assert_as_found();
}

#[test]
fn mtu_and_link_state_are_set_and_compared() {
    let Some(site) = Site::new() else { return };
    let mtu = || fs::read_to_string("/sys/class/net/pf0/mtu").expect("it has one");
    let file = site.tenant_with(1, 1, false, "", "mtu = 4000\n");
    site.onboard(&file);
    assert_eq!(mtu(), "4000\n");
    assert_eq!(site.drift(), Vec::<String>::new());
    sh("ip link set pf0 mtu 1500");
    assert_eq!(
        site.drift(),
        ["physical function 0000:01:00.0: set.mtu should be 4000 and is 1500"]
    );
    site.good(&["apply", "--no-prove", &file]);
    assert_eq!((mtu(), site.drift()), ("4000\n".to_owned(), Vec::new()));
    site.good(&["release", "--all"]);
    assert_eq!(mtu(), "1500\n");
    site.assert_as_found();

    // This driver has no link states.
    let enable = "link_state = \"enable\"\n";
    let file = site.tenant_with(1, 1, false, &format!("[nic]\n{enable}"), "");
    let text = site.bad(1, &[&ON_PF0[..], &[&file]].concat());
    let words = "pf0 VF 0: the NIC's driver refuses link state enable";
    assert!(text.contains(words), "{text}");
    site.assert_as_found();
    let accept = format!("[nic]\naccept = [\"link-state\"]\n{enable}");
    site.tenant_with(1, 1, false, &accept, "");
    site.onboard(&file);
    let verify = site.good(&["verify"]);
    let words = "tenant t1: accepted by its file, not checked: link-state\n";
    assert!(verify.contains(words), "{verify}");
    site.good(&["release", "--all"]);
    site.assert_as_found();
}

#[test]
fn carrier_is_shown_counted_and_reported() {
    let Some(site) = Site::new() else { return };
    site.onboard(&site.tenant(1, 1, false));
    let with_link = "for n in $(seq 300); do [ \"$(cat /sys/class/net/pf0/carrier)\" = 1 ] && \
                     break; sleep 0.1; done";
    sh(with_link);
    let shown = || {
        let status = site.good(&["--json", "status"]);
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let function = &status["tenants"][0]["functions"][0];
        (function["carrier"].clone(), function["link_state"].clone())
    };
    assert_eq!(shown(), (Value::Bool(true), Value::from("auto")));
    let metrics = site.dir.path().join("mts.prom");
    let path = metrics.to_str().expect("a path");
    let mut supervisor = Supervisor::start(
        site.command(),
        &["--verify-every", "3600", "--metrics", path],
        &["t1"],
        site.dir.path(),
        Duration::from_secs(30),
    );
    for (state, carrier) in [("down", false), ("up", true)] {
        sh(&format!("ip link set pf0 {state}"));
        let mut event = supervisor.wait_for("carrier", "");
        let time = event.as_object_mut().and_then(|event| event.remove("time"));
        assert!(time.is_some_and(|time| time.is_f64()));
        let wanted = serde_json::json!({"event": "carrier", "pf": "pf0",
            "address": "0000:01:00.0", "carrier": carrier, "tenants": ["t1"]});
        assert_eq!(event, wanted);
        let line = format!(
            "vf_provisioner_pf_carrier{{pf=\"pf0\",address=\"0000:01:00.0\"}} {}\n",
            u8::from(carrier)
        );
        let text = sh(&format!(
            "for n in $(seq 100); do grep -qF '{}' {path} && break; sleep 0.1; done; cat {path}",
            line.trim()
        ));
        assert!(text.contains(&line), "{text}");
        assert_eq!(shown().0, Value::Bool(carrier));
    }
    supervisor.stop();
    site.good(&["release", "--all"]);
    site.assert_as_found();
}
