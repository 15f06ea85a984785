//! Ends of daemons and switches: nothing passes, and all comes back.

use crate::bed::eventually;
use crate::charon::Proof;
use crate::pair::{A, B, BOTH, Pair};

#[test]
fn dead_daemon_wipes_its_sas_until_it_is_back() {
    let Some(mut pair) = Pair::with_charons("a dead daemon", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    let dropped = |pair: &Pair| pair.switch(A).drops("vm", "ipsec-no-sa");
    let before = dropped(&pair);
    pair.take_charon(A).kill();
    let watched = pair.watched(|| {
        eventually("the SAs are wiped", || {
            let _ = pair.pings(A);
            dropped(&pair) > before
        });
        assert!(!pair.pings(A));
    });
    watched.assert_no_plaintext();
    pair.start_charon(A, Proof::Psk);
    // The new daemon's first packet replaces what the other side has.
    pair.reaches(A);
    pair.reaches(B);
}

#[test]
fn daemon_without_its_switch_ends_and_says_so() {
    let Some(mut pair) = Pair::with_charons("no switch", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    pair.stop_switch(B);
    let mut charon = pair.take_charon(B);
    let mut status = None;
    eventually("charon ends", || {
        status = charon.child.try_wait().expect("it is ours");
        status.is_some()
    });
    assert_eq!(status.and_then(|it| it.code()), Some(4));
    pair.start_switch(B);
    pair.start_charon(B, Proof::Psk);
    // The side that knows nothing begins.
    pair.reaches(B);
    pair.reaches(A);
}

#[test]
fn orderly_end_of_a_daemon_ends_the_other_sides_sas() {
    let Some(mut pair) = Pair::with_charons("an orderly end", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    let mut charon = pair.take_charon(A);
    charon.signal(nix::sys::signal::Signal::SIGTERM);
    let status = charon.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    eventually("the other side has no SA", || {
        pair.charon(B).children().is_empty()
    });
    for side in BOTH {
        assert!(!pair.pings(side), "{side:?}");
    }
}

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.expect("the kernel says it").trim().to_owned()
}

#[test]
fn daemon_is_confined() {
    let Some(pair) = Pair::with_charons("a confined daemon", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    let pid = pair.charon(A).child.id();
    for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, field), "0000000000000000", "{field}");
    }
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    assert_eq!(status(pid, "Seccomp:"), "2", "of its main thread");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    for thread in threads.flatten() {
        let thread = thread
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        assert_eq!(status(thread, "Seccomp:"), "2", "thread {thread}");
    }
    // Sockets of UDP, TCP, packets and netlink: its network namespace has none at all.
    for table in ["udp", "udp6", "tcp", "raw", "packet"] {
        let path = format!("/proc/{pid}/net/{table}");
        let lines = std::fs::read_to_string(&path)
            .expect("it lives")
            .lines()
            .count();
        assert_eq!(lines, 1, "{path}");
    }
}

/// charon's formats of its most talkative log levels, which name keys.
#[test]
fn daemon_has_no_words_for_keys() {
    let Some(program) = crate::charon::program("words for keys") else {
        return;
    };
    let bytes = std::fs::read(program).expect("the program");
    let has = |text: &str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
    assert!(has("CHILD_SA"), "it is charon");
    for words in [
        "encryption initiator key",
        "Sk_d secret",
        "shared Diffie Hellman secret",
    ] {
        assert!(!has(words), "{words}");
    }
}

#[test]
fn switch_has_three_connections_to_its_daemon() {
    let Some(pair) = Pair::with_charons("connections", Proof::Psk) else {
        return;
    };
    let pid = pair.switch(A).child.id();
    let kinds = crate::descriptors::descriptors(pid, 0);
    assert_eq!(kinds["listener on ike-a.sock"], 2, "{kinds:?}");
    // They were made in the daemon's network namespace, so the switch's tables do not list them.
    let connections = kinds.keys().filter(|it| it.starts_with("another socket"));
    assert_eq!(connections.count(), 3, "{kinds:?}");
}
