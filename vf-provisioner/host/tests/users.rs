//! The users of switches: which ones new tenants get, and that released ones are not given again
//! at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tenant_config::{Memory, Name, Tenant};
use vf_host::apply::{Change, apply, never};
use vf_host::host::FakeHost;
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::veth::Veth;
use vf_host::state::{self, HostLock, State};
use vf_host::tenants::{DEFAULT_UID_BASE, Placement, PlacementError, Site, UIDS, records};

const BASE: u32 = 70_000;

fn tenant(number: u8) -> Tenant {
    let text = format!(
        "name = \"t{number}\"\nvni = {number}\n[gateway]\nipv4 = \"10.{number}.0.1/24\"\n\
         [[port]]\nname = \"t{number}-vm\"\nmac = \"52:54:00:00:00:{number:02x}\"\n\
         addresses = [\"10.{number}.0.11\"]\n"
    );
    Tenant::parse("test", &text).expect("the text is a tenant")
}

fn name(number: u8) -> Name {
    format!("t{number}").parse().expect("a name")
}

fn site() -> Site {
    Site {
        placement: Placement::Shared(0),
        uid_base: BASE,
        uids_in_use: BTreeSet::new(),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    }
}

fn change(number: u8, state: &State, site: &Site) -> Result<Change, PlacementError> {
    let process = Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: "test".to_owned(),
        limits: Limits {
            cpu_percent: 100,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    };
    let veth = Veth::new("test", "test-br0");
    Ok(Change {
        set: records(&[tenant(number)], state, site, &veth, &process)?,
        ..Change::default()
    })
}

/// The user that a new tenant gets on an empty host.
fn first_uid(site: &Site) -> Result<u32, String> {
    let change = change(1, &State::default(), site).map_err(|error| error.to_string())?;
    Ok(change.set[&name(1)].uid)
}

#[test]
fn default_range_is_left_alone_by_others() {
    // Debian's adduser and systemd's dynamic users end below, subordinate ids begin above.
    let unallocated = 65_536..100_000;
    assert!(unallocated.contains(&DEFAULT_UID_BASE));
    assert!(unallocated.contains(&(DEFAULT_UID_BASE + UIDS - 1)));
}

#[test]
fn accounts_are_skipped() {
    let site = Site {
        uids_in_use: BTreeSet::from([BASE + 1]),
        account_of: |uid| Ok((uid == BASE || uid == BASE + 2).then(|| "a user".to_owned())),
        ..site()
    };
    assert_eq!(first_uid(&site), Ok(BASE + 3));
}

#[test]
fn accounts_in_whole_range_are_refused_by_name() {
    let site = Site {
        account_of: |_| Ok(Some("the user \"libvirt-qemu\"".to_owned())),
        ..site()
    };
    assert_eq!(
        first_uid(&site),
        Err(
            "tenant t1: all 1000 users from 70000 on are taken (70000 is the user \
             \"libvirt-qemu\"): release a tenant, or give another --uid-base"
                .to_owned()
        )
    );
}

#[test]
fn unknown_accounts_are_refused() {
    let site = Site {
        account_of: |uid| Err(format!("cannot look up user {uid}: EIO")),
        ..site()
    };
    assert_eq!(
        first_uid(&site),
        Err(
            "tenant t1: cannot look up user 70000: EIO; no user can be given to its switch"
                .to_owned()
        )
    );
}

#[test]
fn onboarded_tenant_keeps_its_user() {
    let before = change(1, &State::default(), &site()).expect("it fits");
    let state = State {
        tenants: before.set,
        ..State::default()
    };
    // Another base, and an account that was made since.
    let site = Site {
        uid_base: 80_000,
        account_of: |_| Ok(Some("a user".to_owned())),
        ..site()
    };
    let after = change(1, &state, &site).expect("it has a user");
    assert_eq!(after.set[&name(1)].uid, BASE);
}

#[test]
fn least_recently_released_user_is_given_last() {
    let all_but = |unused: u32| {
        let later = (BASE..BASE + UIDS).filter(|uid| *uid != BASE + 7 && *uid != unused);
        [BASE + 7].into_iter().chain(later).collect()
    };
    let one_unused = Site {
        released_uids: all_but(BASE + 500),
        ..site()
    };
    assert_eq!(first_uid(&one_unused), Ok(BASE + 500));
    let none_unused = Site {
        released_uids: all_but(0),
        ..site()
    };
    assert_eq!(first_uid(&none_unused), Ok(BASE + 7));
}

/// Applies a change as the command does; the directory goes if nothing is in it.
fn run(dir: &Path, host: &mut FakeHost, change: &Change) -> bool {
    let mut store = HostLock::open(dir).expect("the state directory opens");
    let applied = apply(host, &mut store, change, &never()).is_ok();
    store.remove_if_empty().expect("it can be removed");
    applied
}

/// Onboards a tenant with the users that the directory knows; its user.
fn onboard(dir: &Path, host: &mut FakeHost, number: u8) -> u32 {
    let site = Site {
        released_uids: state::released_uids(dir),
        ..site()
    };
    let state = state::read(dir).expect("the state reads");
    let change = change(number, &state, &site).expect("it fits");
    assert!(run(dir, host, &change));
    change.set[&name(number)].uid
}

fn release(dir: &Path, host: &mut FakeHost, number: u8) {
    let change = Change {
        release: BTreeSet::from([name(number)]),
        ..Change::default()
    };
    assert!(run(dir, host, &change));
}

#[test]
fn released_user_is_not_given_at_once() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("state");
    let mut host = FakeHost::default();
    assert_eq!(onboard(&dir, &mut host, 1), BASE);
    assert_eq!(onboard(&dir, &mut host, 2), BASE + 1);
    release(&dir, &mut host, 1);
    assert_eq!(onboard(&dir, &mut host, 3), BASE + 2);
    // The list and the journal outlive the last tenant, and everything else goes.
    release(&dir, &mut host, 3);
    release(&dir, &mut host, 2);
    let files = std::fs::read_dir(&dir).expect("the directory is there");
    let files: BTreeSet<_> = files
        .map(|file| file.expect("it can be listed").file_name())
        .collect();
    let stay = ["history", "released-users.json"].map(Into::into);
    assert_eq!(files, BTreeSet::from(stay));
    assert_eq!(state::released_uids(&dir), [BASE, BASE + 2, BASE + 1]);
    assert_eq!(onboard(&dir, &mut host, 4), BASE + 3);
}

#[test]
fn user_of_rolled_back_tenant_counts_as_released() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("state");
    let mut host = FakeHost {
        fails_at: Some(3),
        ..FakeHost::default()
    };
    let change = change(1, &State::default(), &site()).expect("it fits");
    assert!(!run(&dir, &mut host, &change));
    assert_eq!(state::released_uids(&dir), [BASE]);
    host.fails_at = None;
    assert_eq!(onboard(&dir, &mut host, 1), BASE + 1);
}

#[test]
fn user_that_is_given_again_is_no_longer_released() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path();
    let mut host = FakeHost::default();
    onboard(dir, &mut host, 1);
    release(dir, &mut host, 1);
    // Without the list the lowest user is given.
    let change = change(2, &State::default(), &site()).expect("it fits");
    assert!(run(dir, &mut host, &change));
    assert_eq!(change.set[&name(2)].uid, BASE);
    assert_eq!(state::released_uids(dir), Vec::<u32>::new());
}
