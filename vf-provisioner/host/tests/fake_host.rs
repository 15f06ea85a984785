//! Plans, journals and roll-backs on a host that is only a table: no root, no clock, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;
use tenant_config::{Memory, Name, SwitchConfig, Tenant};
use vf_host::apply::{Applied, ApplyError, Change, apply, never, plan_change};
use vf_host::batch::{Outcome, Part, apply_each, plan_each};
use vf_host::error::HostError;
use vf_host::host::{FakeHost, Host};
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::parts::netns::Namespace;
use vf_host::nic::probe::Probe;
use vf_host::nic::veth::Veth;
use vf_host::object::Object;
use vf_host::plan::{Action, PlanError};
use vf_host::resource::{Key, Resource};
use vf_host::state::{self, HostLock, Record, State};
use vf_host::tenants::{Placement, PlacementError, Site, records};
use vf_host::verify::drift_of_all;

/// A tenant that differs from others by `number`, and from its previous version by `ports` and
/// `mtu`.
fn tenant(number: u8, ports: u8, mtu: u16, uplink: bool) -> Tenant {
    Tenant::parse("test", &tenant_text(number, ports, mtu, uplink)).expect("the text is a tenant")
}

fn tenant_text(number: u8, ports: u8, mtu: u16, uplink: bool) -> String {
    let mut text = format!(
        "name = \"t{number}\"\nvni = {}\n[gateway]\nipv4 = \"10.{number}.0.1/24\"\n",
        5000 + u32::from(number)
    );
    if uplink {
        text += &format!(
            "[uplink]\naddress = \"192.0.2.{}/24\"\nnext_hop = \"192.0.2.1\"\n",
            10 + number
        );
    }
    for port in 1..=ports {
        text += &format!(
            "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \
             \"52:54:00:00:{number:02x}:{port:02x}\"\nmtu = {mtu}\naddresses = \
             [\"10.{number}.0.{}\"]\n",
            10 + port
        );
    }
    text
}

fn name(number: u8) -> Name {
    format!("t{number}").parse().expect("a name")
}

fn process(cpu_percent: u32) -> Process {
    Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: "test".to_owned(),
        limits: Limits {
            cpu_percent,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    }
}

fn site() -> Site {
    Site {
        placement: Placement::Shared(0),
        uid_base: 64000,
        uids_in_use: BTreeSet::from([64001]),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    }
}

fn recorded(tenants: &[Tenant], state: &State) -> BTreeMap<Name, Record> {
    let veth = Veth::new("test", "test-br0");
    records(tenants, state, &site(), &veth, &process(100)).expect("the tenants fit")
}

fn set(tenants: &[Tenant], state: &State) -> Change {
    Change {
        set: recorded(tenants, state),
        ..Change::default()
    }
}

fn release(numbers: &[u8]) -> Change {
    Change {
        release: numbers.iter().copied().map(name).collect(),
        ..Change::default()
    }
}

struct World {
    dir: tempfile::TempDir,
    host: FakeHost,
}

impl World {
    fn new() -> Self {
        Self {
            // In memory if possible: every step is flushed.
            dir: tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a temporary directory"),
            host: FakeHost::default(),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn state(&self) -> State {
        state::read(self.path()).expect("the state reads")
    }

    fn apply(&mut self, change: &Change) -> Result<usize, ApplyError> {
        let mut store = HostLock::open(self.dir.path()).expect("the state directory opens");
        apply(&mut self.host, &mut store, change, &never()).map(|done| done.actions.len())
    }

    fn apply_killed_at(&mut self, change: &Change, moment: usize) -> Result<usize, ApplyError> {
        let mut store = HostLock::open(self.dir.path()).expect("the state directory opens");
        let passed = AtomicUsize::new(0);
        let crash = || passed.fetch_add(1, Ordering::Relaxed) >= moment;
        let done = apply_each(&mut self.host, &mut store, change, &crash, &|_| {});
        total(done)
    }

    /// Each tenant by itself.
    fn apply_each(&mut self, change: &Change) -> Vec<Outcome<Applied>> {
        let mut store = HostLock::open(self.dir.path()).expect("the state directory opens");
        apply_each(&mut self.host, &mut store, change, &never(), &|_| {})
    }
}

/// The number of actions, or the first error.
fn total(outcomes: Vec<Outcome<Applied>>) -> Result<usize, ApplyError> {
    let counts = outcomes.into_iter().map(|it| Ok(it.result?.actions.len()));
    counts.sum()
}

#[test]
fn tenant_is_made_once_and_released_completely() {
    let mut world = World::new();
    let red = set(&[tenant(1, 2, 1500, true)], &world.state());
    let record = &red.set[&name(1)];
    assert_eq!(record.uid, 64000);

    assert_eq!(world.apply(&red).expect("it applies"), 12);
    let made: Vec<&Resource> = world.host.objects.values().collect();
    let mut wanted: Vec<&Resource> = record.resources.iter().collect();
    wanted.sort_by_key(|resource| resource.key());
    assert_eq!(made, wanted);
    assert!(world.state().tenants[&name(1)].complete);

    let again = set(&[tenant(1, 2, 1500, true)], &world.state());
    assert_eq!(world.apply(&again).expect("it applies"), 0);

    assert_eq!(world.apply(&release(&[1])).expect("it releases"), 12);
    assert_eq!(world.host.objects, BTreeMap::new());
    assert_eq!(world.state(), State::default());
}

#[test]
fn plan_is_ordered_and_release_is_its_reverse() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, true)], &world.state());
    let state = world.state();
    let plan = plan_change(&world.host, &state, &change).expect("there is a plan");
    let forward: Vec<Key> = keys(&plan.actions);
    let mut sorted = forward.clone();
    sorted.sort();
    assert_eq!(forward, sorted);
    world.apply(&change).expect("it applies");
    let state = world.state();
    let plan = plan_change(&world.host, &state, &release(&[1])).expect("there is a plan");
    let mut backward = keys(&plan.actions);
    backward.reverse();
    assert_eq!(backward, forward);
}

fn keys(actions: &[Action]) -> Vec<Key> {
    actions
        .iter()
        .map(|action| action.resource().key())
        .collect()
}

#[test]
fn shared_objects_are_released_with_the_last_tenant() {
    let mut world = World::new();
    for number in [1, 2] {
        let change = set(&[tenant(number, 1, 1500, true)], &world.state());
        world.apply(&change).expect("it applies");
    }
    let bridge = Key::Bridge {
        interface: "test-br0".to_owned(),
    };
    world.apply(&release(&[1])).expect("it releases");
    assert!(world.host.objects.contains_key(&bridge));
    world.apply(&release(&[2])).expect("it releases");
    assert_eq!(world.host.objects, BTreeMap::new());
}

#[test]
fn existing_guest_is_used_and_left() {
    let mut world = World::new();
    let guest = Resource::Namespace(Namespace {
        name: "test-t1-vm1".to_owned(),
        adopt: true,
    });
    world.host.objects.insert(guest.key(), guest.clone());
    let before = world.host.objects.clone();
    let change = set(&[tenant(1, 1, 1500, false)], &world.state());
    world.apply(&change).expect("it applies");
    world.apply(&release(&[1])).expect("it releases");
    assert_eq!(world.host.objects, before);
}

#[test]
fn foreign_object_is_refused_before_any_change() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, true)], &world.state());
    let bridge = change.set[&name(1)]
        .resources
        .iter()
        .find(|resource| matches!(resource, Resource::Bridge(_)))
        .expect("there is a bridge")
        .clone();
    world.host.objects.insert(bridge.key(), bridge.clone());
    let before = world.host.objects.clone();
    match world.apply(&change) {
        Err(ApplyError::Plan(PlanError::Foreign(key, _))) => assert_eq!(key, bridge.key()),
        other => panic!("it was not refused: {other:?}"),
    }
    assert_eq!(world.host.objects, before);
    assert_eq!(world.state(), State::default());
}

#[test]
fn switch_is_restarted_if_its_device_is_recreated() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, false)], &world.state());
    world.apply(&change).expect("it applies");
    let pair = change.set[&name(1)]
        .resources
        .iter()
        .find(|resource| matches!(resource, Resource::Pair(_)))
        .expect("there is a pair")
        .key();
    world.host.objects.remove(&pair);
    let state = world.state();
    let again = set(&[tenant(1, 1, 1500, false)], &state);
    let plan = plan_change(&world.host, &state, &again).expect("there is a plan");
    let steps: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "delete switch of tenant t1".to_owned(),
            format!("create {pair}"),
            "create switch of tenant t1".to_owned(),
        ]
    );
}

#[test]
fn ike_daemon_is_restarted_with_its_switch() {
    let text = "name = 't1'\nvni = 1\n[gateway]\nipv4 = '10.0.0.1/24'\n[uplink]\naddress = \
                '192.0.2.2/24'\nnext_hop = '192.0.2.1'\n[tunnel]\nkind = \
                'geneve'\n[tunnel.ipsec]\nmode = 'required'\npsk = '/psk'\n[[tunnel.peer]]\nname = \
                'far'\nvtep = '192.0.2.3'\nprefixes = ['10.0.0.3']\n[[port]]\nname = 'vm1'\nmac = \
                '52:54:00:00:00:01'\naddresses = ['10.0.0.11']\n";
    let tenant = Tenant::parse("test", text).expect("the text is a tenant");
    let mut world = World::new();
    let change = set(std::slice::from_ref(&tenant), &world.state());
    world.apply(&change).expect("it applies");
    let ike = change.set[&name(1)].running_ike().expect("it has one");
    let (key, ends) = (ike.key(), "delete IKE daemon of tenant t1");
    let again = |world: &World| {
        let state = world.state();
        let again = Change {
            restart: BTreeSet::from([name(1)]),
            ..set(std::slice::from_ref(&tenant), &state)
        };
        let plan = plan_change(&world.host, &state, &again).expect("there is a plan");
        let steps = plan.actions.iter().map(ToString::to_string);
        steps.collect::<Vec<String>>()
    };
    let others = [
        "delete switch of tenant t1",
        "create switch of tenant t1",
        "create IKE daemon of tenant t1",
    ];
    assert_eq!(again(&world), [&[ends], &others[..]].concat());
    // One that has died comes behind the new switch.
    world.host.objects.remove(&key);
    assert_eq!(again(&world), others);
}

#[test]
fn lock_is_recreated_with_its_port() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, true)], &world.state());
    world.apply(&change).expect("it applies");
    let resources = &change.set[&name(1)].resources;
    let lock = resources
        .iter()
        .find(|resource| matches!(resource, Resource::Lock(_)))
        .expect("there is a lock");
    let pair = lock.needs().and_then(BTreeSet::first).expect("its pair");
    // The lock seems right while the old port is being removed.
    world.host.objects.remove(pair);
    let state = world.state();
    let again = set(&[tenant(1, 1, 1500, true)], &state);
    let plan = plan_change(&world.host, &state, &again).expect("there is a plan");
    let steps: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "delete switch of tenant t1".to_owned(),
            format!("delete {}", lock.key()),
            format!("create {pair}"),
            format!("create {}", lock.key()),
            "create switch of tenant t1".to_owned(),
        ]
    );
}

#[test]
fn address_change_restarts_nothing() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, false)], &world.state());
    world.apply(&change).expect("it applies");
    let text = "name = \"t1\"\nvni = 5001\n[gateway]\nipv4 = \"10.1.0.1/24\"\n[[port]]\nname = \
                \"t1-vm1\"\nmac = \"52:54:00:00:01:01\"\naddresses = [\"10.1.0.99\"]\n";
    let state = world.state();
    let change = set(&[Tenant::parse("test", text).expect("a tenant")], &state);
    let plan = plan_change(&world.host, &state, &change).expect("there is a plan");
    let steps: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "change switch of tenant t1: config.ports.0.addresses.0 should be \"10.1.0.99/32\" and \
             is \"10.1.0.11/32\""
        ]
    );
}

#[test]
fn tenants_with_a_shared_identity_are_refused() {
    let state = State::default();
    let one = tenant(1, 1, 1500, false);
    let text = "name = \"other\"\nvni = 5001\n[gateway]\nipv4 = \"10.1.0.1/24\"\n[[port]]\nname = \
                \"other-vm1\"\nmac = \"52:54:00:00:77:01\"\naddresses = [\"10.1.0.99\"]\n";
    let other = Tenant::parse("test", text).expect("a tenant");
    let veth = Veth::new("test", "test-br0");
    let error = records(&[one, other], &state, &site(), &veth, &process(100));
    assert_eq!(
        error.expect_err("they share a VNI").to_string(),
        "tenants other and t1 both have VNI 5001: change one of them"
    );
}

#[test]
fn port_named_like_a_switch_namespace_is_refused() {
    let text = "name = \"other\"\nvni = 5002\n[gateway]\nipv4 = \"10.2.0.1/24\"\n[[port]]\nname = \
                \"sw-t1\"\nmac = \"52:54:00:00:77:01\"\naddresses = [\"10.2.0.99\"]\n";
    let intruder = Tenant::parse("test", text).expect("a tenant");
    let veth = Veth::new("test", "test-br0");
    // In either order; in one plan, the two would be a conflict of names.
    for (first, second) in [
        (tenant(1, 1, 1500, false), intruder.clone()),
        (intruder, tenant(1, 1, 1500, false)),
    ] {
        let mut world = World::new();
        let change = set(&[first], &world.state());
        world.apply(&change).expect("it applies");
        let error = records(&[second], &world.state(), &site(), &veth, &process(100));
        assert_eq!(
            error.expect_err("they share a namespace").to_string(),
            "tenants other and t1 both have network namespace test-sw-t1: change one of them"
        );
    }
}

#[test]
fn tenants_with_equal_bridge_port_names_are_refused() {
    let state = State::default();
    let mut both = recorded(&[tenant(1, 1, 1500, true)], &state);
    let locked = |record: &Record| {
        record.resources.iter().find_map(|resource| match resource {
            Resource::Lock(lock) => Some(lock.clone()),
            _ => None,
        })
    };
    let theirs = locked(&both[&name(1)]).expect("it has an uplink");
    // The digest is fixed, so a second tenant with the same one is made by hand.
    let mut other = recorded(&[tenant(2, 1, 1500, true)], &state);
    for resource in &mut other.get_mut(&name(2)).expect("it is there").resources {
        if let Resource::Lock(lock) = resource {
            lock.interface.clone_from(&theirs.interface);
        }
    }
    both.append(&mut other);
    let state = State {
        tenants: both,
        ..State::default()
    };
    let veth = Veth::new("test", "test-br0");
    let error = records(&[], &state, &site(), &veth, &process(100));
    assert_eq!(
        error.expect_err("they share a bridge port").to_string(),
        format!(
            "tenants t1 and t2 both have port lock of {}: change one of them",
            theirs.interface
        )
    );
}

/// The tenant's switch and the rules of its port lock, as text.
fn switch_and_lock(tenant: &Tenant) -> (SwitchConfig, String) {
    let records = recorded(slice::from_ref(tenant), &State::default());
    let resources = &records[tenant.name()].resources;
    let config = resources.iter().find_map(|resource| match resource {
        Resource::Switch(switch) => Some(switch.config.clone()),
        _ => None,
    });
    let lock = resources.iter().find_map(|resource| match resource {
        Resource::Lock(lock) => Some(serde_json::to_string(&lock.rules).expect("it is JSON")),
        _ => None,
    });
    (config.expect("a switch"), lock.expect("a lock"))
}

#[test]
fn tunnel_is_in_config_and_lock_allows_its_sources() {
    let tunnelled = |only: bool| {
        let tunnel = format!(
            "[tunnel]\nkind = \"geneve\"\nonly = {only}\n[[tunnel.peer]]\nname = \"b\"\n\
             vtep = \"192.0.2.66\"\nprefixes = [\"10.1.0.71\"]\n"
        );
        let text = tenant_text(1, 1, 1500, true) + &tunnel;
        Tenant::parse("test", &text).expect("the text is a tenant")
    };
    for (only, subnet_passes) in [(false, true), (true, false)] {
        let tenant = tunnelled(only);
        let (config, lock) = switch_and_lock(&tenant);
        assert_eq!(config.tunnel, tenant.offline_config().tunnel);
        assert!(config.tunnel.is_some_and(|tunnel| tunnel.only == only));
        assert_eq!(
            (lock.contains("192.0.2.11"), lock.contains("10.1.0.0")),
            (true, subnet_passes),
            "{lock}"
        );
    }
}

#[test]
fn isolated_cores_are_unique_and_limited() {
    let veth = Veth::new("test", "test-br0");
    let isolated = Site {
        placement: Placement::Isolated(vec![2, 3]),
        ..site()
    };
    let place = |count: u8| {
        let tenants: Vec<Tenant> = (1..=count)
            .map(|number| tenant(number, 1, 1500, false))
            .collect();
        records(&tenants, &State::default(), &isolated, &veth, &process(100))
    };
    let cores: Vec<Option<u32>> = place(2)
        .expect("two fit")
        .values()
        .flat_map(|record| &record.resources)
        .filter_map(|resource| match resource {
            Resource::Switch(switch) => Some(switch.cpu),
            _ => None,
        })
        .collect();
    assert_eq!(cores, [Some(2), Some(3)]);
    let error = place(3).expect_err("three do not fit");
    assert!(matches!(error, PlacementError::NoCore { .. }), "{error}");
}

#[test]
fn failure_at_any_change_is_rolled_back() {
    for uplink in [false, true] {
        let mut world = World::new();
        let first = set(&[tenant(1, 1, 1500, true)], &world.state());
        world.apply(&first).expect("it applies");
        let state = world.state();
        // The second change adds a tenant, changes the first, and removes or keeps its uplink.
        let change = set(
            &[tenant(1, 2, 1400, uplink), tenant(2, 1, 1500, true)],
            &state,
        );
        fails_at_every_step(&mut world, &change);
    }
}

/// Whatever fails of one tenant: the others are onboarded, and nothing of it is left.
#[test]
fn failing_tenant_takes_nothing_of_others_back() {
    let mut seen = BTreeSet::new();
    for failing in 0.. {
        let mut world = World::new();
        let first = set(&[tenant(1, 1, 1500, true)], &world.state());
        world.apply(&first).expect("it applies");
        let tenants = [
            tenant(1, 1, 1400, true),
            tenant(2, 1, 1500, true),
            tenant(3, 2, 1500, false),
        ];
        let change = set(&tenants, &world.state());
        world.host.changes = 0;
        world.host.fails_at = Some(failing);
        let mut good = change.set.clone();
        let mut failed = BTreeSet::new();
        for outcome in world.apply_each(&change) {
            match (outcome.part, outcome.result) {
                (_, Ok(_)) => {}
                (Part::Set(names), Err(ApplyError::RolledBack { .. })) => {
                    good.retain(|name, _| !names.contains(name));
                    failed.extend(names);
                }
                (part, Err(error)) => panic!("change {failing}: {part:?}: {error}"),
            }
        }
        if failed.contains(&name(1)) {
            good.insert(name(1), first.set[&name(1)].clone());
        }
        assert!(failed.len() <= 1, "change {failing}: {failed:?}");
        let wanted: BTreeMap<Key, Resource> = good
            .values()
            .flat_map(|record| &record.resources)
            .map(|resource| (resource.key(), resource.clone()))
            .collect();
        assert_eq!(world.host.objects, wanted, "change {failing}");
        for record in good.values_mut() {
            record.complete = true;
        }
        let state = State {
            tenants: good,
            owned: wanted,
        };
        assert_eq!(world.state(), state, "change {failing}");
        let done = world.host.changes <= failing;
        seen.extend(failed);
        if done {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from([name(1), name(2), name(3)]));
}

#[test]
fn tenants_that_exchange_something_are_one_part() {
    let mut world = World::new();
    let both = [tenant(1, 1, 1500, true), tenant(2, 1, 1500, true)];
    let change = set(
        &[&both[..], &[tenant(3, 1, 1500, true)]].concat(),
        &world.state(),
    );
    world.apply(&change).expect("it applies");
    // Each becomes what the other was, but for its name; the third gets longer frames.
    let exchanged = |number: u8, other: u8| {
        let text = tenant_text(other, 1, 1500, true);
        let own = format!("name = \"t{number}\"");
        let text = text.replacen(&format!("name = \"t{other}\""), &own, 1);
        Tenant::parse("test", &text).expect("a tenant")
    };
    let tenants = [exchanged(1, 2), exchanged(2, 1), tenant(3, 1, 1400, true)];
    let change = set(&tenants, &world.state());
    let parts = |outcomes: Vec<Outcome<_>>| -> Vec<Part> {
        outcomes.into_iter().map(|outcome| outcome.part).collect()
    };
    let wanted = [
        Part::Set(BTreeSet::from([name(1), name(2)])),
        Part::Set(BTreeSet::from([name(3)])),
    ];
    let planned = plan_each(&world.host, &world.state(), &change);
    let planned: Vec<Part> = planned.into_iter().map(|outcome| outcome.part).collect();
    assert_eq!(planned, wanted);
    let applied = world.apply_each(&change);
    assert!(applied.iter().all(|it| it.result.is_ok()), "{applied:?}");
    assert_eq!(parts(applied), wanted);
    let resources = change.set.values().flat_map(|record| &record.resources);
    let wanted: BTreeMap<Key, Resource> = resources.map(|it| (it.key(), it.clone())).collect();
    assert_eq!(world.host.objects, wanted);
}

/// An object that cannot be removed any more keeps no tenant away.
#[test]
fn left_over_that_stays_is_reported_and_tenants_are_applied() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, false)], &world.state());
    world.apply(&change).expect("it applies");
    // The release is killed behind its record.
    let mut store = HostLock::open(world.path()).expect("the state directory opens");
    store.set_tenants(BTreeMap::new()).expect("it is written");
    drop(store);
    world.host.changes = 0;
    world.host.fails_at = Some(0);
    let change = set(&[tenant(2, 1, 1500, false)], &world.state());
    let outcomes = world.apply_each(&change);
    let failed: Vec<&Part> = outcomes
        .iter()
        .filter_map(|it| it.result.is_err().then_some(&it.part))
        .collect();
    assert_eq!(failed, [&Part::LeftOver]);
    assert!(world.state().tenants[&name(2)].complete);
}

/// What happens to the host between two checks.
#[derive(Debug, Clone)]
enum Event {
    Apply {
        number: u8,
        ports: u8,
        mtu: u16,
        uplink: bool,
        killed_at: Option<usize>,
    },
    Release {
        number: u8,
        killed_at: Option<usize>,
    },
    /// Another program removes the object at this index.
    Vanish(prop::sample::Index),
    Fail {
        number: u8,
        at: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let killed = || prop::option::of(0..45_usize);
    prop_oneof![
        4 => (1..4_u8, 1..4_u8, prop::sample::select(vec![1400, 1500]), any::<bool>(), killed())
            .prop_map(|(number, ports, mtu, uplink, killed_at)| Event::Apply {
                number,
                ports,
                mtu,
                uplink,
                killed_at,
            }),
        2 => (1..4_u8, killed())
            .prop_map(|(number, killed_at)| Event::Release { number, killed_at }),
        1 => any::<prop::sample::Index>().prop_map(Event::Vanish),
        1 => (1..4_u8, 0..12_usize).prop_map(|(number, at)| Event::Fail { number, at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_of_events_converges_and_releases(
        events in prop::collection::vec(event(), 1..8),
        (ports, mtu) in (1..4_u8, prop::sample::select(vec![1400, 1500])),
    ) {
        let mut world = World::new();
        for event in events {
            world.host.fails_at = None;
            match event {
                Event::Apply { number, ports, mtu, uplink, killed_at } => {
                    let change = set(&[tenant(number, ports, mtu, uplink)], &world.state());
                    let result = world.apply_killed_at(&change, killed_at.unwrap_or(usize::MAX));
                    prop_assert!(matches!(result, Ok(_) | Err(ApplyError::Killed)), "{:?}", result);
                }
                Event::Release { number, killed_at } => {
                    let killed_at = killed_at.unwrap_or(usize::MAX);
                    let result = world.apply_killed_at(&release(&[number]), killed_at);
                    prop_assert!(matches!(result, Ok(_) | Err(ApplyError::Killed)), "{:?}", result);
                }
                Event::Vanish(index) => {
                    if !world.host.objects.is_empty() {
                        let keys: Vec<Key> = world.host.objects.keys().cloned().collect();
                        let key = index.get(&keys).clone();
                        world.host.objects.remove(&key);
                    }
                }
                Event::Fail { number, at } => {
                    world.host.changes = 0;
                    world.host.fails_at = Some(at);
                    let change = set(&[tenant(number, 2, 1500, true)], &world.state());
                    let result = total(world.apply_each(&change));
                    let good = matches!(result, Ok(_) | Err(ApplyError::RolledBack { .. }));
                    prop_assert!(good, "{:?}", result);
                }
            }
        }
        world.host.fails_at = None;
        let all: Vec<Tenant> = (1..4).map(|number| tenant(number, ports, mtu, true)).collect();
        let change = set(&all, &world.state());
        total(world.apply_each(&change)).expect("it applies");
        for record in change.set.values() {
            for resource in &record.resources {
                let is = world.host.observe(resource).expect("it can be observed");
                prop_assert_eq!(is.as_ref(), Some(resource));
            }
        }
        let resources = change.set.values().flat_map(|record| &record.resources);
        let wanted: BTreeSet<Key> = resources.map(Resource::key).collect();
        let there: BTreeSet<Key> = world.host.objects.keys().cloned().collect();
        prop_assert_eq!(there, wanted);
        let again = set(&all, &world.state());
        prop_assert_eq!(total(world.apply_each(&again)).expect("it applies"), 0);
        total(world.apply_each(&release(&[1, 2, 3]))).expect("it releases");
        prop_assert_eq!(&world.host.objects, &BTreeMap::new());
        prop_assert_eq!(world.state(), State::default());
    }
}

/// A journal that stops growing on demand, and a folder in the place of the whole state's file.
struct FullDisk {
    journal: std::fs::File,
    path: PathBuf,
    in_the_way: PathBuf,
}

impl FullDisk {
    fn at(dir: &Path) -> Self {
        let journal = memfd_create("journal", MFdFlags::MFD_ALLOW_SEALING).expect("a file");
        let path = dir.join("journal");
        let there = std::fs::read(&path).unwrap_or_default();
        std::fs::remove_file(&path).expect("it is there");
        let target = format!("/proc/self/fd/{}", journal.as_raw_fd());
        std::fs::write(&target, there).expect("it is written");
        std::os::unix::fs::symlink(target, &path).expect("a link");
        Self {
            journal: journal.into(),
            path,
            in_the_way: dir.join("state.new"),
        }
    }

    fn fill(&self) {
        let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW);
        fcntl(&self.journal, seal).expect("it is sealed");
        std::fs::create_dir(&self.in_the_way).expect("a folder");
    }

    /// There is space again.
    fn empty(self) {
        let text = std::fs::read(&self.path).expect("it is read");
        std::fs::remove_file(&self.path).expect("it is there");
        std::fs::write(&self.path, text).expect("it is written");
        std::fs::remove_dir(&self.in_the_way).expect("it is there");
    }
}

/// Whenever the state cannot be written: the host is as before.
#[test]
fn state_error_is_rolled_back() {
    let mut world = World::new();
    let one = set(&[tenant(1, 1, 1500, true)], &world.state());
    world.apply(&one).expect("it applies");
    let (objects, state) = (world.host.objects.clone(), world.state());
    let other = set(
        &[tenant(1, 2, 1400, true), tenant(2, 1, 1500, true)],
        &state,
    );
    let steps = plan_change(&world.host, &state, &other)
        .expect("a plan")
        .actions
        .len();
    for moment in [0, 7, 3 * steps] {
        let disk = FullDisk::at(world.path());
        let mut store = HostLock::open(world.path()).expect("the state directory opens");
        let passed = AtomicUsize::new(0);
        let block = || {
            if passed.fetch_add(1, Ordering::Relaxed) == moment {
                disk.fill();
            }
            false
        };
        let error = apply(&mut world.host, &mut store, &other, &block)
            .expect_err("the state cannot be written");
        assert!(error.to_string().contains("/journal"), "{error}");
        assert_eq!(world.host.objects, objects, "{error}");
        drop(store);
        disk.empty();
        // The record says at worst that an apply was interrupted.
        let back = Change {
            release: BTreeSet::from([name(2)]),
            ..one.clone()
        };
        world.apply(&back).expect("it is completed");
        assert_eq!(world.host.objects, objects);
        let now = world.state();
        assert_eq!(now.tenants, state.tenants);
        // How they were last set could not be recorded.
        assert!(now.owned.keys().eq(state.owned.keys()));
    }
}

/// A host on which several tenants are worked on at once.
#[derive(Clone, Default)]
struct Beside {
    host: Arc<Mutex<FakeHost>>,
    /// How many switches start now, and how many did so at most.
    starts: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Beside {
    fn locked(&self) -> MutexGuard<'_, FakeHost> {
        self.host.lock().expect("nobody panics")
    }

    /// Carries out a change with the host of `world`.
    fn apply(&self, world: &mut World, change: &Change, killed_at: usize) -> Vec<Outcome<Applied>> {
        *self.locked() = std::mem::take(&mut world.host);
        let mut store = HostLock::open(world.path()).expect("the state directory opens");
        let passed = AtomicUsize::new(0);
        let crash = || passed.fetch_add(1, Ordering::Relaxed) >= killed_at;
        let done = apply_each(&mut self.clone(), &mut store, change, &crash, &|_| {});
        world.host = std::mem::take(&mut *self.locked());
        done
    }
}

impl Host for Beside {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        self.locked().observe(wanted)
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        if matches!(resource, Resource::Switch(_)) {
            let (now, most) = &*self.starts;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::SeqCst);
        }
        self.locked().create(resource)
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        self.locked().update(from, to)
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.locked().delete(resource)
    }

    fn beside(&self) -> Option<Box<dyn Host + Send>> {
        Some(Box::new(self.clone()))
    }

    fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
        self.locked().probe(probe)
    }
}

fn many(count: u8) -> Vec<Tenant> {
    (1..=count).map(|it| tenant(it, 1, 1500, true)).collect()
}

#[test]
fn switches_start_beside_each_other_and_a_bounded_number_at_once() {
    let mut world = World::new();
    let host = Beside::default();
    let change = set(&many(24), &world.state());
    let done = host.apply(&mut world, &change, usize::MAX);
    assert!(done.iter().all(|it| it.result.is_ok()), "{done:?}");
    let tenants = done.iter().filter_map(|it| match &it.part {
        Part::Set(names) => names.first().cloned(),
        _ => None,
    });
    let tenants: Vec<Name> = tenants.collect();
    assert_eq!(tenants, change.set.keys().cloned().collect::<Vec<_>>());
    let most = host.starts.1.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most}");
    let wanted = change.set.values().flat_map(|record| &record.resources);
    let wanted: BTreeMap<Key, Resource> = wanted.map(|it| (it.key(), it.clone())).collect();
    assert_eq!(world.host.objects, wanted);
    let all: Vec<u8> = (1..=24).collect();
    total(host.apply(&mut world, &release(&all), usize::MAX)).expect("they are released");
    assert_eq!(world.host.objects, BTreeMap::new());
    assert_eq!(world.state(), State::default());
}

#[test]
fn batch_that_is_killed_at_any_moment_is_completed() {
    for moment in (0..100).step_by(9) {
        let mut world = World::new();
        let host = Beside::default();
        let change = set(&many(4), &world.state());
        let killed = total(host.apply(&mut world, &change, moment));
        assert!(matches!(killed, Err(ApplyError::Killed)), "{killed:?}");
        let again = set(&many(4), &world.state());
        total(host.apply(&mut world, &again, usize::MAX)).expect("it is completed");
        let wanted = change.set.values().flat_map(|record| &record.resources);
        let wanted: BTreeMap<Key, Resource> = wanted.map(|it| (it.key(), it.clone())).collect();
        assert_eq!(world.host.objects, wanted, "killed at {moment}");
        assert!(world.state().tenants.values().all(|it| it.complete));
        let killed = total(host.apply(&mut world, &release(&[1, 2, 3, 4]), moment));
        assert!(matches!(killed, Err(ApplyError::Killed)), "{killed:?}");
        total(host.apply(&mut world, &release(&[1, 2, 3, 4]), usize::MAX)).expect("it releases");
        assert_eq!(world.host.objects, BTreeMap::new(), "killed at {moment}");
        assert_eq!(world.state(), State::default());
    }
}

#[test]
fn failing_tenant_takes_nothing_of_those_back_that_are_made_beside_it() {
    for failing in 0..40 {
        let mut world = World::new();
        world.host.fails_at = Some(failing);
        let host = Beside::default();
        let change = set(&many(3), &world.state());
        let mut good = change.set.clone();
        for outcome in host.apply(&mut world, &change, usize::MAX) {
            match (outcome.part, outcome.result) {
                (_, Ok(_)) => {}
                (Part::Set(names), Err(ApplyError::RolledBack { .. })) => {
                    good.retain(|name, _| !names.contains(name));
                }
                (part, Err(error)) => panic!("change {failing}: {part:?}: {error}"),
            }
        }
        assert!(good.len() >= 2, "change {failing}");
        let wanted = good.values().flat_map(|record| &record.resources);
        let wanted: BTreeMap<Key, Resource> = wanted.map(|it| (it.key(), it.clone())).collect();
        assert_eq!(world.host.objects, wanted, "change {failing}");
        assert_eq!(world.state().owned, wanted, "change {failing}");
    }
}

/// Gives tenant 1 another name, as `rename` does.
fn rename(state: &State, new: &str) -> Change {
    let new: Name = new.parse().expect("a name");
    let text = tenant_text(1, 1, 1500, true).replacen("\"t1\"", &format!("\"{new}\""), 1);
    let tenant = Tenant::parse("test", &text).expect("the text is a tenant");
    let mut state = state.clone();
    let record = state.tenants.remove(&name(1)).expect("it is onboarded");
    state.tenants.insert(new.clone(), record);
    Change {
        release: BTreeSet::from([name(1)]),
        renamed: BTreeMap::from([(new, name(1))]),
        ..set(&[tenant], &state)
    }
}

fn objects(change: &Change) -> BTreeMap<Key, Resource> {
    let all = change.set.values().flat_map(|record| &record.resources);
    all.map(|it| (it.key(), it.clone())).collect()
}

#[test]
fn renamed_tenant_keeps_its_guests_pairs_its_directory_and_its_user() {
    let mut world = World::new();
    let change = set(&[tenant(1, 1, 1500, true)], &world.state());
    world.apply(&change).expect("it applies");
    let change = rename(&world.state(), "crimson");
    let plan = plan_change(&world.host, &world.state(), &change).expect("there is a plan");
    let steps = plan.actions.iter().map(|it| it.to_string());
    // Without the digests in the names of interfaces.
    let steps: Vec<String> = steps
        .map(|step| {
            let words = step.split(' ').map(|word| match word.split_once("-io") {
                Some((before, _)) => before.to_owned(),
                None => word.split_once("gw-").map_or(word, |it| it.0).to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        steps,
        [
            "delete switch of tenant t1",
            "delete control group test/t1",
            "delete port lock of test",
            "delete veth pair test-sw-t1/inout",
            "create network namespace test-sw-crimson",
            "move veth pair test-sw-t1/ to veth pair test-sw-crimson/",
            "create veth pair test-sw-crimson/inout",
            "create port lock of test",
            "move directory of tenant t1 to directory of tenant crimson",
            "create control group test/crimson",
            "create switch of tenant crimson",
            "delete network namespace test-sw-t1",
        ]
    );
    let uid = world.state().tenants[&name(1)].uid;
    world.apply(&change).expect("it is renamed");
    assert_eq!(world.host.objects, objects(&change));
    let state = world.state();
    let records: Vec<_> = state.tenants.iter().collect();
    let [(new, record)] = records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        (new.as_str(), record.uid, record.complete),
        ("crimson", uid, true)
    );
    assert_eq!(record.formerly, Some(name(1)));
    assert_eq!(state.owned, objects(&change));
    assert_eq!(state::released_uids(world.path()), Vec::<u32>::new());
}

/// Lets each step of `change` fail, one after the other: every time all is as before. Then it
/// succeeds.
fn fails_at_every_step(world: &mut World, change: &Change) {
    let (objects, state) = (world.host.objects.clone(), world.state());
    let mut failing = 0;
    loop {
        world.host.changes = 0;
        world.host.fails_at = Some(failing);
        match world.apply(change) {
            Ok(_) => break,
            Err(ApplyError::RolledBack { .. }) => {}
            Err(other) => panic!("change {failing}: {other}"),
        }
        assert_eq!(world.host.objects, objects, "after change {failing}");
        assert_eq!(world.state(), state, "after change {failing}");
        failing += 1;
    }
    assert!(failing > 10, "only {failing} changes failed");
}

#[test]
fn rename_that_fails_or_is_killed_is_undone_or_completed() {
    let mut world = World::new();
    let first = set(&[tenant(1, 1, 1500, true)], &world.state());
    world.apply(&first).expect("it applies");
    let (there, state) = (world.host.objects.clone(), world.state());
    let change = rename(&state, "crimson");
    fails_at_every_step(&mut world, &change);
    for moment in 0..36 {
        let mut world = World::new();
        world.apply(&first).expect("it applies");
        let passed = AtomicUsize::new(0);
        let crash = || passed.fetch_add(1, Ordering::Relaxed) >= moment;
        let mut store = HostLock::open(world.path()).expect("the state directory opens");
        let killed = apply(&mut world.host, &mut store, &change, &crash);
        assert!(matches!(killed, Err(ApplyError::Killed)), "{killed:?}");
        drop(store);
        // As the supervisor does.
        let state = world.state();
        let crimson = state.tenants.iter().next().expect("it is recorded");
        assert_eq!((crimson.0.as_str(), crimson.1.complete), ("crimson", false));
        let again = Change {
            set: BTreeMap::from([(crimson.0.clone(), crimson.1.clone())]),
            ..Change::default()
        };
        world.apply(&again).expect("it is completed");
        assert_eq!(world.host.objects, objects(&change), "killed at {moment}");
        assert_eq!(world.state().owned, objects(&change), "killed at {moment}");
        // Or back to what it was.
        let back = Change {
            set: first.set.clone(),
            release: crimson
                .1
                .formerly
                .iter()
                .map(|_| crimson.0.clone())
                .collect(),
            renamed: BTreeMap::from([(name(1), crimson.0.clone())]),
            ..Change::default()
        };
        world.apply(&back).expect("it has its former name");
        assert_eq!(world.host.objects, there, "killed at {moment}");
    }
}

/// Counts what is asked of a host.
#[derive(Default)]
struct Counted {
    host: FakeHost,
    objects: AtomicUsize,
    looks: AtomicUsize,
    probes: usize,
}

impl Host for Counted {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.host.observe(wanted)
    }

    fn observe_all(&self, wanted: &[&Resource]) -> Vec<Result<Option<Resource>, HostError>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.objects.fetch_add(wanted.len(), Ordering::Relaxed);
        self.host.observe_all(wanted)
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.host.create(resource)
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        self.host.update(from, to)
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.host.delete(resource)
    }

    fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
        self.host.probe(probe)
    }

    fn probe_all(&mut self, probes: &[Probe]) -> Vec<Result<(), HostError>> {
        self.probes += probes.len();
        self.host.probe_all(probes)
    }
}

/// The looks of a plan and of a verification of so many tenants with nothing to do, the objects
/// looked at, and the probes.
fn looks(count: u8) -> [usize; 3] {
    let tenants: Vec<Tenant> = (1..=count).map(|it| tenant(it, 2, 1500, true)).collect();
    let mut world = World::new();
    let change = set(&tenants, &State::default());
    let mut store = HostLock::open(world.path()).expect("it opens");
    apply(&mut world.host, &mut store, &change, &never()).expect("it applies");
    let state = store.state().clone();
    let mut host = Counted {
        host: world.host,
        ..Counted::default()
    };
    let plans = plan_each(&host, &state, &set(&tenants, &state));
    assert!(
        plans
            .iter()
            .all(|it| matches!(&it.result, Ok(plan) if plan.is_empty()))
    );
    let records: Vec<&Record> = state.tenants.values().collect();
    let drift = drift_of_all(&mut host, &state, &records);
    assert_eq!(drift, vec![Vec::<String>::new(); count.into()]);
    [
        host.looks.into_inner(),
        host.objects.into_inner(),
        host.probes,
    ]
}

#[test]
fn looks_are_two_and_objects_grow_linearly_with_the_tenants() {
    let [ten, twenty, forty] = [10, 20, 40].map(looks);
    assert_eq!([ten[0], twenty[0], forty[0]], [2, 2, 2]);
    assert_eq!(forty[1] - twenty[1], 2 * (twenty[1] - ten[1]));
    assert_eq!([ten[2], twenty[2], forty[2]], [20, 40, 80]);
}
