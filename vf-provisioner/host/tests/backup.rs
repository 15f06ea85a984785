//! Backups: consistent while others write, and refused where they do not belong.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tenant_config::{Memory, Name, Tenant};
use vf_host::apply::{Change, apply, never};
use vf_host::backup::{self, Backup, BackupError, Permitted, Request, Restored};
use vf_host::host::FakeHost;
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::veth::Veth;
use vf_host::state::{self, HostLock};
use vf_host::tenants::{Placement, Site, records};

const INSTANCE: &str = "test";

fn name(number: u8) -> Name {
    format!("t{number}").parse().expect("a name")
}

/// Onboards a tenant with so many ports.
fn onboard(dir: &Path, host: &mut FakeHost, number: u8, ports: u8) {
    let mut text =
        format!("name = \"t{number}\"\nvni = {number}\n[gateway]\nipv4 = \"10.{number}.0.1/24\"\n");
    for port in 1..=ports {
        text += &format!(
            "[[port]]\nname = \"t{number}-vm{port}\"\n\
             mac = \"52:54:00:00:{port:02x}:{number:02x}\"\n\
             addresses = [\"10.{number}.0.1{port}\"]\n"
        );
    }
    let tenant = Tenant::parse("test", &text).expect("the text is a tenant");
    let site = Site {
        placement: Placement::Shared(0),
        uid_base: 70_000,
        uids_in_use: BTreeSet::new(),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    };
    let process = Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: INSTANCE.to_owned(),
        limits: Limits {
            cpu_percent: 100,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    };
    let mut store = HostLock::open(dir).expect("the state is read");
    let veth = Veth::new(INSTANCE, "test-br0");
    let change = Change {
        set: records(&[tenant], store.state(), &site, &veth, &process).expect("it fits"),
        ..Change::default()
    };
    apply(host, &mut store, &change, &never()).expect("it is applied");
}

fn release(dir: &Path, host: &mut FakeHost, number: u8) {
    let mut store = HostLock::open(dir).expect("the state is read");
    let change = Change {
        release: BTreeSet::from([name(number)]),
        ..Change::default()
    };
    apply(host, &mut store, &change, &never()).expect("it is released");
}

fn request(file: &Path) -> Request<'_> {
    Request {
        file,
        instance: INSTANCE,
        permitted: Permitted::default(),
        dry_run: false,
    }
}

fn names(numbers: &[u8]) -> BTreeSet<Name> {
    numbers.iter().map(|number| name(*number)).collect()
}

#[test]
fn backup_of_a_state_is_the_state() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("state");
    let mut host = FakeHost::default();
    onboard(&dir, &mut host, 1, 2);
    onboard(&dir, &mut host, 2, 1);
    release(&dir, &mut host, 1);
    onboard(&dir, &mut host, 3, 1);
    let file = root.path().join("backup");
    let made = backup::make(&dir, INSTANCE).expect("it is made");
    made.save(&file).expect("it is written");
    assert_eq!(
        fs::metadata(&file).expect("a file").permissions().mode() & 0o777,
        0o600
    );
    let loaded = Backup::load(&file).expect("it is read");
    assert_eq!(loaded, made);
    let other = root.path().join("other");
    let dry = Request {
        dry_run: true,
        ..request(&file)
    };
    let restored = backup::restore(&other, &loaded, &dry).expect("it is possible");
    assert!(!other.exists());
    assert_eq!(
        (&restored.added, &restored.same),
        (&names(&[2, 3]), &names(&[]))
    );
    assert_eq!(
        backup::restore(&other, &loaded, &request(&file)).expect("it is done"),
        restored
    );
    let read = |dir: &Path| state::read(dir).expect("the state is read");
    assert_eq!(read(&other), read(&dir));
    // Once more: nothing is changed.
    let again = backup::restore(&other, &loaded, &request(&file)).expect("it is done");
    let same = Restored {
        made: restored.made.clone(),
        same: names(&[2, 3]),
        ..Restored::default()
    };
    assert_eq!(again, same);
}

#[test]
fn backup_is_consistent_while_others_write() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("state");
    let mut host = FakeHost::default();
    onboard(&dir, &mut host, 1, 1);
    let ended = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut host = host;
            for _ in 0..20 {
                onboard(&dir, &mut host, 2, 3);
                release(&dir, &mut host, 2);
            }
            ended.store(true, Ordering::Relaxed);
        });
        let mut taken = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            match backup::make(&dir, INSTANCE) {
                Ok(it) => taken.push(it),
                Err(BackupError::Restless) => {}
                Err(error) => panic!("{error}"),
            }
        }
        writer.join().expect("it writes");
        taken
    });
    assert!(taken.len() > 20, "{}", taken.len());
    let part = taken.len().div_ceil(30);
    for (number, made) in taken.iter().step_by(part).enumerate() {
        let dir = root.path().join(format!("restored-{number}"));
        backup::restore(&dir, made, &request(Path::new("-"))).expect("it is restored");
        let state = state::read(&dir).expect("the state is read");
        // Everything that was made is known: an object of the second tenant is its or left over.
        for (name, record) in &state.tenants {
            assert!(record.complete || record.resources.len() > 3, "{name}");
        }
        let of_first = state.tenants.get(&name(1)).expect("it is always there");
        let owned = of_first
            .resources
            .iter()
            .filter(|it| state.owned.contains_key(&it.key()));
        assert_eq!(owned.count(), of_first.resources.len());
    }
}

#[test]
fn damaged_backup_or_one_that_others_may_write_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("state");
    let mut host = FakeHost::default();
    onboard(&dir, &mut host, 1, 1);
    onboard(&dir, &mut host, 2, 1);
    let file = root.path().join("backup");
    backup::make(&dir, INSTANCE)
        .expect("it is made")
        .save(&file)
        .expect("it is written");
    let text = fs::read_to_string(&file).expect("it is there");
    let whole: Value = serde_json::from_str(&text).expect("it is JSON");
    let changed = |key: &str, value: Value| {
        let mut document = whole.clone();
        document[key] = value;
        document.to_string()
    };
    let load = |text: &str| {
        fs::write(&file, text).expect("it is written");
        Backup::load(&file).map_err(|error| error.to_string())
    };
    let shown = file.display();
    for (text, why) in [
        ("{".to_owned(), "it is no backup, or is damaged: EOF"),
        (
            "{}".to_owned(),
            "it is no backup, or is damaged: missing field",
        ),
        (
            changed("format", json!("tar")),
            "its format is \"tar\", not \"vf-provisioner backup\"",
        ),
        (
            changed("version", json!(2)),
            "it has version 2, and this program reads version 1",
        ),
        (
            changed("instance", json!("b")),
            "its content has another digest than it says",
        ),
        (
            text.replacen("10.1.0.11", "10.1.0.12", 1),
            "its content has another digest",
        ),
        (
            changed("more", json!(1)),
            "it is damaged: unknown field `more`",
        ),
    ] {
        let error = load(&text).expect_err(why);
        assert!(
            error.starts_with(&format!("{shown}: ")) && error.contains(why),
            "{error}"
        );
    }
    load(&text).expect("it is whole");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).expect("it is ours");
    let error = Backup::load(&file)
        .expect_err("others may write it")
        .to_string();
    assert!(
        error.contains("others may have written it (mode 620)"),
        "{error}"
    );
}

#[test]
fn backup_that_does_not_belong_is_refused_and_changes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("state");
    let mut host = FakeHost::default();
    onboard(&dir, &mut host, 1, 1);
    onboard(&dir, &mut host, 2, 1);
    let file = root.path().join("backup");
    let made = backup::make(&dir, INSTANCE).expect("it is made");
    let other = root.path().join("other");
    let refused = |request: &Request<'_>| {
        let error = backup::restore(&other, &made, request).expect_err("it is refused");
        assert!(matches!(error, BackupError::Refused { .. }), "{error}");
        error.to_string()
    };
    let elsewhere = Request {
        instance: "b",
        ..request(&file)
    };
    let error = refused(&elsewhere);
    assert!(error.contains("give --instance test"), "{error}");
    assert!(!other.exists());
    onboard(&other, &mut FakeHost::default(), 1, 3);
    onboard(&other, &mut FakeHost::default(), 4, 1);
    let before = state::read(&other).expect("the state is read");
    for dry_run in [true, false] {
        let error = refused(&Request {
            dry_run,
            ..request(&file)
        });
        assert!(error.contains("change or remove (t1, t4)") && error.contains("--replace"));
    }
    assert_eq!(state::read(&other).expect("the state is read"), before);
    let replace = Request {
        permitted: Permitted {
            replace: true,
            other_host: false,
        },
        ..request(&file)
    };
    let restored = backup::restore(&other, &made, &replace).expect("it is permitted");
    let wanted = Restored {
        made: restored.made.clone(),
        added: names(&[2]),
        changed: names(&[1]),
        removed: names(&[4]),
        same: names(&[]),
    };
    assert_eq!(restored, wanted);
    let state = state::read(&other).expect("the state is read");
    assert_eq!(
        state.tenants,
        state::read(&dir).expect("the state is read").tenants
    );
    // What the backup does not know is not forgotten: it is left over, and removed.
    let left = state.left_over();
    let of_gone = before.tenants[&name(4)].resources.iter();
    let of_gone = of_gone.filter(|it| !it.is_shared()).map(|it| it.key());
    assert!(of_gone.clone().count() > 3 && of_gone.clone().all(|key| left.contains(&key)));
}
