//! Plans, journals and roll-backs on a host that is only a table: no root, no clock, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::slice;

use proptest::prelude::*;
use tenant_config::{Memory, Name, SwitchConfig, Tenant};
use vf_host::apply::{ApplyError, Change, apply, never, plan_change};
use vf_host::host::{FakeHost, Host};
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::parts::netns::Namespace;
use vf_host::nic::veth::Veth;
use vf_host::plan::{Action, PlanError};
use vf_host::resource::{Key, Resource};
use vf_host::state::{self, HostLock, Record, State};
use vf_host::tenants::{Placement, PlacementError, Site, records};

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
        apply(&mut self.host, &mut store, change, &mut never()).map(|done| done.actions.len())
    }

    fn apply_killed_at(&mut self, change: &Change, moment: usize) -> Result<usize, ApplyError> {
        let mut store = HostLock::open(self.dir.path()).expect("the state directory opens");
        let mut passed = 0;
        let mut crash = || {
            passed += 1;
            passed > moment
        };
        apply(&mut self.host, &mut store, change, &mut crash).map(|done| done.actions.len())
    }
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
        let (objects, state) = (world.host.objects.clone(), world.state());
        // The second change adds a tenant, changes the first, and removes or keeps its uplink.
        let change = set(
            &[tenant(1, 2, 1400, uplink), tenant(2, 1, 1500, true)],
            &state,
        );
        let mut failing = 0;
        loop {
            world.host.changes = 0;
            world.host.fails_at = Some(failing);
            match world.apply(&change) {
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
                    let result = world.apply(&change);
                    let good = matches!(result, Ok(_) | Err(ApplyError::RolledBack { .. }));
                    prop_assert!(good, "{:?}", result);
                }
            }
        }
        world.host.fails_at = None;
        let all: Vec<Tenant> = (1..4).map(|number| tenant(number, ports, mtu, true)).collect();
        let change = set(&all, &world.state());
        world.apply(&change).expect("it applies");
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
        prop_assert_eq!(world.apply(&again).expect("it applies"), 0);
        world.apply(&release(&[1, 2, 3])).expect("it releases");
        prop_assert_eq!(&world.host.objects, &BTreeMap::new());
        prop_assert_eq!(world.state(), State::default());
    }
}

/// Whatever of the state cannot be written, and whenever: the host is as before.
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
    // What stands in the place of a file that is to be written.
    let in_the_way = world.path().join("state.new");
    let steps = plan_change(&world.host, &state, &other)
        .expect("a plan")
        .actions
        .len();
    for moment in [0, 7, 3 * steps] {
        let mut store = HostLock::open(world.path()).expect("the state directory opens");
        let mut passed = 0;
        let mut block = || {
            if passed == moment {
                std::fs::create_dir(&in_the_way).expect("a folder");
            }
            passed += 1;
            false
        };
        let error = apply(&mut world.host, &mut store, &other, &mut block)
            .expect_err("the state cannot be written");
        assert!(error.to_string().contains("state.json"), "{error}");
        assert_eq!(world.host.objects, objects, "{error}");
        std::fs::remove_dir(&in_the_way).expect("it is there");
        drop(store);
        // The record says at worst that an apply was interrupted.
        let back = Change {
            release: BTreeSet::from([name(2)]),
            ..one.clone()
        };
        world.apply(&back).expect("it is completed");
        assert_eq!(
            (&world.host.objects, world.state()),
            (&objects, state.clone())
        );
    }
}
