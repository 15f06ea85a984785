//! The state of every version of the format: it stays readable, and is written in the current one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use vf_host::launcher::ike::Place;
use vf_host::launcher::vm::machine::Accel;
use vf_host::plan::Action;
use vf_host::resource::{Key, Resource};
use vf_host::state::{self, HostLock, Records, State, StateError, Written};

/// For each version a state with an object of each kind, and a journal.
const VERSIONS: [(&str, &str); 4] = [
    (
        include_str!("golden/state-1.json"),
        include_str!("golden/journal-1"),
    ),
    (
        include_str!("golden/state-2.json"),
        include_str!("golden/journal-2"),
    ),
    (
        include_str!("golden/state-3.json"),
        include_str!("golden/journal-3"),
    ),
    (
        include_str!("golden/state-4.json"),
        include_str!("golden/journal-4"),
    ),
];

fn write(dir: &Path, state: &str, journal: &str) {
    fs::write(dir.join("state.json"), state).expect("the file is written");
    fs::write(dir.join("journal"), journal).expect("the file is written");
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).expect("the file is there")
}

/// The last version's state as this program writes it.
fn current() -> String {
    let (state, _) = VERSIONS[VERSIONS.len() - 1];
    state.replace("0.1.0", env!("CARGO_PKG_VERSION"))
}

#[test]
fn state_of_every_version_is_read_alike_and_written_in_the_current_one() {
    for (number, (state, _)) in VERSIONS.into_iter().enumerate() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write(dir.path(), state, "");
        let unlocked = state::read(dir.path()).expect("the state is read");
        assert_eq!(
            read(dir.path(), "state.json"),
            state,
            "reading changes nothing"
        );
        let mut lock = HostLock::open(dir.path()).expect("the state is read");
        assert_eq!(lock.state(), &unlocked);
        if number + 1 < VERSIONS.len() {
            assert_eq!(read(dir.path(), "state.json"), current());
        }
        let tenants = lock.state().tenants.clone();
        lock.set_tenants(tenants).expect("the state is written");
        assert_eq!(read(dir.path(), "state.json"), current());
        let kinds = |resource: &Resource| {
            let value = serde_json::to_value(resource).expect("it is data");
            value["kind"].as_str().map(str::to_owned)
        };
        let kinds: BTreeSet<_> = lock.state().owned.values().map(kinds).collect();
        assert_eq!(kinds.len(), 11, "an object of each kind");
    }
}

/// From version 4 on.
#[test]
fn ike_daemon_of_the_state_is_read_and_written_alike() {
    let text = include_str!("golden/ike-4.json");
    let ike: Resource = serde_json::from_str(text).expect("it is read");
    let Resource::Ike(read) = &ike else {
        panic!("another kind");
    };
    let Place::Process { uid, .. } = read.place else {
        panic!("another place");
    };
    assert_eq!((uid, read.config.peers.len()), (67000, 3));
    let written = serde_json::to_string_pretty(&ike).expect("it is written");
    assert_eq!(written + "\n", text);

    let mut inside = read.clone();
    inside.place = Place::Machine {
        machine_uid: 66000,
        accel: Accel::Kvm,
    };
    let inside = Resource::Ike(inside);
    let written = serde_json::to_value(&inside).expect("it is written");
    assert_eq!(
        (&written["machine_uid"], &written["accel"]),
        (&json!(66000), &json!("kvm"))
    );
    assert!(written.get("uid").is_none());
    assert_eq!(
        serde_json::from_value::<Resource>(written).expect("it is read"),
        inside
    );
}

#[test]
fn journal_of_every_version_is_replayed() {
    for (state, journal) in VERSIONS {
        for cut_off in ["", "{\"intent\":{\"do\":\"cre"] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let whole = journal.to_owned();
            let journal = format!("{journal}{cut_off}");
            fs::write(dir.path().join("journal"), &journal).expect("the file is written");
            let alone = state::read(dir.path()).expect("the journal is read");
            let keys: Vec<&Key> = alone.owned.keys().collect();
            assert!(
                matches!(&keys[..], [Key::Tap { interface, .. }] if interface == "vm-a"),
                "{keys:?}"
            );
            write(dir.path(), state, &journal);
            let mut both: State = state::read(dir.path()).expect("both are read");
            let lock = HostLock::open(dir.path()).expect("both are read");
            assert_eq!(lock.state(), &both);
            // One of the current version stays, without what was cut off.
            let stays = state == VERSIONS[VERSIONS.len() - 1].0;
            let left = if stays { whole.as_str() } else { "" };
            assert_eq!(read(dir.path(), "journal"), left);
            both.owned.remove(keys[0]);
            write(dir.path(), state, "");
            assert_eq!(state::read(dir.path()).expect("it is read"), both);
        }
    }
}

#[test]
fn journal_is_written_in_the_current_version() {
    let (_, journal) = VERSIONS[VERSIONS.len() - 1];
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut lock = HostLock::open(dir.path()).expect("it is made");
    for line in journal.lines().skip(1) {
        let entry: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let action = |entry: &serde_json::Value| -> Action {
            serde_json::from_value(entry.clone()).expect("an action")
        };
        let written = match (entry.get("intent"), entry.get("done")) {
            (Some(intent), None) => lock.intend(&action(intent)).expect("it is written"),
            (None, Some(done)) => {
                lock.done(&action(done));
                None
            }
            _ => {
                let records = serde_json::from_value(entry["records"].clone());
                let set = lock.set_records(records.expect("records"));
                set.expect("they are written")
            }
        };
        written
            .map_or(Ok(()), Written::flush)
            .expect("it is flushed");
    }
    assert_eq!(read(dir.path(), "journal"), journal);
}

#[test]
fn full_disk_keeps_files_of_an_earlier_version() {
    let (state, journal) = VERSIONS[0];
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path(), state, &format!("{journal}{{\"int"));
    // What stands in the place of the file that is to be written.
    fs::create_dir(dir.path().join("state.new")).expect("a folder");
    let both = state::read(dir.path()).expect("both are read");
    let mut lock = HostLock::open(dir.path()).expect("they are read");
    assert_eq!(read(dir.path(), "state.json"), state);
    assert_eq!(
        read(dir.path(), "journal"),
        journal,
        "without what was cut off"
    );
    // What is appended now is of another version than the lines before it.
    let resource = both.owned.values().next().expect("an object").clone();
    let done = Action::Delete { resource };
    lock.done(&done);
    let mut without = both;
    without.owned.remove(&done.resource().key());
    assert_eq!(lock.state(), &without);
    drop(lock);
    assert_eq!(state::read(dir.path()).expect("they are read"), without);
}

#[test]
fn later_version_is_refused_by_name_and_left_alone() {
    let later = r#"{"version": 9, "written_by": "7.1.0", "tenants": [], "owned": {}}"#;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = |dir: &Path| match HostLock::open(dir) {
        Err(error @ StateError::Newer { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    write(dir.path(), later, "{\"version\":8}\n");
    let rest = format!(
        "and vf-provisioner {} knows the versions up to {}: install the newer vf-provisioner \
         again; to go back to this one, let the newer one `release --all` first",
        env!("CARGO_PKG_VERSION"),
        VERSIONS.len()
    );
    let path = dir.path().display();
    assert_eq!(
        error(dir.path()),
        format!("{path}/journal has the format version 8, {rest}")
    );
    write(dir.path(), later, "");
    assert_eq!(
        error(dir.path()),
        format!("{path}/state.json has the format version 9 of vf-provisioner 7.1.0, {rest}")
    );
    assert_eq!(read(dir.path(), "state.json"), later);
}

#[test]
fn damaged_line_is_refused_and_not_taken_for_the_end() {
    let (state, journal) = VERSIONS[1];
    let dir = tempfile::tempdir().expect("a temporary directory");
    for bad in ["{\"intent\":{\"do\":\"explode\"}}", "{\"intent\""] {
        let lines: Vec<&str> = journal.lines().collect();
        let damaged = [&lines[..2], &[bad], &lines[2..], &[""]]
            .concat()
            .join("\n");
        write(dir.path(), state, &damaged);
        let error = state::read(dir.path()).expect_err("it is damaged");
        assert!(error.to_string().contains("/journal: "), "{error}");
    }
}

/// A record of the tenant `red` that differs from others by its user.
fn numbered(uid: u32) -> Records {
    let state: serde_json::Value = serde_json::from_str(&current()).expect("it is JSON");
    let mut record = state["tenants"]["red"].clone();
    record["uid"] = uid.into();
    let record = serde_json::from_value(record).expect("a record");
    Records::from([("red".parse().expect("a name"), Some(record))])
}

fn set(lock: &mut HostLock, records: &Records) {
    let written = lock.set_records(records.clone()).expect("they are written");
    written
        .map_or(Ok(()), Written::flush)
        .expect("they are flushed");
}

fn length(dir: &Path, file: &str) -> u64 {
    fs::metadata(dir.join(file)).map_or(0, |it| it.len())
}

#[test]
fn records_are_appended_and_the_whole_state_is_written_rarely() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut lock = HostLock::open(dir.path()).expect("it is made");
    let (mut compactions, mut longest, mut last) = (0, 0, 0);
    for uid in 0..300 {
        set(&mut lock, &numbered(uid));
        let journal = length(dir.path(), "journal");
        compactions += usize::from(journal < last);
        longest = longest.max(journal);
        last = journal;
        if uid % 50 == 0 || journal < 20_000 {
            assert_eq!(&state::read(dir.path()).expect("it is read"), lock.state());
        }
    }
    assert!((1..30).contains(&compactions), "{compactions}");
    assert!(longest < 300_000, "{longest}");
}

/// A crash between the two files: what the state has already is in the journal as well.
#[test]
fn journal_that_was_not_emptied_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_, journal) = VERSIONS[VERSIONS.len() - 1];
    write(dir.path(), &current(), journal);
    let mut lock = HostLock::open(dir.path()).expect("they are read");
    for uid in [1, 2] {
        set(&mut lock, &numbered(uid));
    }
    set(
        &mut lock,
        &numbered(3).into_keys().map(|name| (name, None)).collect(),
    );
    let journal = read(dir.path(), "journal");
    let tenants = lock.state().tenants.clone();
    lock.set_tenants(tenants).expect("the state is written");
    let wanted = lock.state().clone();
    drop(lock);
    fs::write(dir.path().join("journal"), journal).expect("the file is written");
    assert_eq!(state::read(dir.path()).expect("they are read"), wanted);
}

/// Who reads without the lock sees a state that was, and never an earlier one after a later one.
#[test]
fn reader_without_the_lock_never_goes_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut lock = HostLock::open(dir.path()).expect("it is made");
    set(&mut lock, &numbered(0));
    let (path, done) = (dir.path(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let state = state::read(path).expect("it is read");
                let uid = state.tenants.values().next().map_or(0, |it| it.uid);
                assert!(uid >= last, "{uid} after {last}");
                last = uid;
            }
            last
        });
        for uid in 1..400 {
            set(&mut lock, &numbered(uid));
            // Empties the journal each time.
            let tenants = lock.state().tenants.clone();
            lock.set_tenants(tenants).expect("the state is written");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("it reads") > 0);
    });
}
