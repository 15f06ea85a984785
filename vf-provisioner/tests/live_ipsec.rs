//! IPsec between two hosts. Without root, or before `scripts/build-ike` has built the daemon, each
//! test prints that and passes.

#[path = "common/output.rs"]
mod output;
#[path = "common/pair.rs"]
mod pair;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use pair::{
    answered, copy_key, daemon, eventually, join, key, make_key, part, places_of_key, tenant_with,
    two_hosts, with_key,
};
use site::Site;
use supervisor::Supervisor;

/// A tenant's file with a pre-shared key.
fn tenant(site: &Site, own: u8, mode: &str) -> String {
    tenant_with(site, own, &with_key(site, mode), "")
}

#[test]
fn tunnel_is_encrypted_and_its_key_is_nowhere() {
    let Some([a, b]) = two_hosts(["tia", "tib"], 94000) else {
        return;
    };
    make_key(&a);
    copy_key(&a, &b);
    let wire = join(
        &a,
        &b,
        &tenant(&a, 1, "required"),
        &tenant(&b, 2, "required"),
    );
    eventually("the VMs talk", || answered(&a));
    for site in [&a, &b] {
        site.good(&["verify"]);
        // It fails if a peer has no association.
        site.good(&["ipsec", "show"]);
    }
    // A request and its answer.
    assert!(wire.count("esp") >= 2, "{}", wire.count("esp"));

    let supervisor = ["--verify-every", "1"];
    let mut supervisor = Supervisor::start(
        a.command(),
        &supervisor,
        &["t1"],
        a.dir.path(),
        Duration::from_secs(30),
    );
    let mut daemons = vec![daemon(&a)];
    // The second one is alive, and does nothing any more.
    for (signal, seen) in [
        (Signal::SIGKILL, "ike_down"),
        (Signal::SIGSTOP, "ike_stuck"),
    ] {
        let (last, encrypted) = (daemon(&a), wire.count("esp"));
        kill(Pid::from_raw(last), signal).expect("it runs");
        supervisor.wait_for(seen, "t1");
        supervisor.wait_for("ike_restarted", "t1");
        let next = daemon(&a);
        assert!(!daemons.contains(&next));
        daemons.push(next);
        eventually("the VMs talk again", || answered(&a));
        a.good(&["ipsec", "show"]);
        assert!(wire.count("esp") >= encrypted + 2);
    }

    for site in [&a, &b] {
        let processes = [site.pid("t1"), daemon(site)];
        let places = places_of_key(site, &processes);
        assert_eq!(places, [key(site).display().to_string()]);
    }
    supervisor.stop();

    wire.assert_nothing_plain();
    // Were there plain frames, they would have been seen.
    a.good(&["apply", &tenant(&a, 1, "off")]);
    b.good(&["apply", &tenant(&b, 2, "off")]);
    eventually("the VMs talk without IPsec", || answered(&a));
    eventually("the frames are seen", || wire.count("geneve") >= 2);

    part(wire, &a, &b);
    for pid in daemons {
        // A zombie has none.
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(arguments.is_empty(), "{pid} runs");
    }
}

#[test]
fn wrong_key_lets_nothing_pass() {
    let Some([a, b]) = two_hosts(["tic", "tid"], 94200) else {
        return;
    };
    make_key(&a);
    make_key(&b);
    let wire = join(
        &a,
        &b,
        &tenant(&a, 1, "required"),
        &tenant(&b, 2, "required"),
    );
    eventually("the daemons talk", || wire.count("ike") >= 4);
    for _ in 0..5 {
        assert!(!answered(&a));
    }
    assert_eq!((wire.count("esp"), wire.count("geneve")), (0, 0));
    for (site, far) in [(&a, "192.0.2.12"), (&b, "192.0.2.11")] {
        let verify = site.run(&["verify"]);
        let text = String::from_utf8_lossy(&verify.stdout).into_owned();
        let sentence = format!(
            "tenant t1: peer far ({far}) requires IPsec, and nothing passes: it has no association"
        );
        let whole = format!(
            "{sentence}\n1 tenants: everything is as it was set, but 1 peer that requires IPsec \
             has none\n"
        );
        assert_eq!((verify.status.code(), text), (Some(3), whole));
        let verify = site.run(&["--json", "verify"]);
        let document: Value = serde_json::from_slice(&verify.stdout).expect("it is JSON");
        assert_eq!(
            (&document["drift"], &document["ipsec"]),
            (&json!([]), &json!([sentence]))
        );
        assert_eq!(verify.status.code(), Some(3));
        assert_eq!(site.status("t1")["ipsec"], json!([sentence]));
        assert_eq!(site.run(&["ipsec", "show"]).status.code(), Some(3));
    }
    part(wire, &a, &b);
}
