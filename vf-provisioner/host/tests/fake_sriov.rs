//! The sriov backend on a host that is only a table: allocations, refusals, and assignments after a
//! crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tenant_config::{Device, MacAddr, Memory, Name, NicAttribute, PciAddress, Tenant, VlanId};
use vf_host::apply::{ApplyError, Change, plan_change};
use vf_host::batch::apply_each;
use vf_host::host::{FakeHost, Host};
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::parts::names::Names;
use vf_host::nic::sriov::allocate::{Pool, allocate};
use vf_host::nic::sriov::function::{Side, Vf};
use vf_host::nic::sriov::inventory::{Interface, Inventory, User};
use vf_host::nic::sriov::refusal::AllocationError;
use vf_host::nic::sriov::{Guests, Sriov};
use vf_host::object::Object;
use vf_host::plan::{Action, PlanError};
use vf_host::resource::{Key, Resource};
use vf_host::state::{self, HostLock, Record, State};
use vf_host::tenants::{Placement, PlacementError, Site, records};
use vf_host::verify::drift;

fn text(number: u32, ports: u32, uplink: bool) -> String {
    let (hi, lo) = (number >> 8, number & 0xff);
    let mut text = format!(
        "name = \"t{number}\"\nvni = {}\n[gateway]\nipv4 = \"10.{hi}.{lo}.1/24\"\n",
        5000 + number
    );
    if uplink {
        text += &format!(
            "[uplink]\naddress = \"172.16.{}.{lo}/16\"\nnext_hop = \"172.16.255.1\"\n",
            hi + 1
        );
    }
    for port in 1..=ports {
        text += &format!(
            "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \
             \"52:54:00:{hi:02x}:{lo:02x}:{port:02x}\"\naddresses = [\"10.{hi}.{lo}.{}\"]\n",
            10 + port
        );
    }
    text
}

fn tenant(number: u32, ports: u32, uplink: bool) -> Tenant {
    Tenant::parse("test", &text(number, ports, uplink)).expect("the text is a tenant")
}

fn name(number: u32) -> Name {
    format!("t{number}").parse().expect("a name")
}

fn pool(pfs: u16, vlans: &str) -> Pool {
    Pool {
        pfs: (0..pfs).map(|number| format!("pf{number}")).collect(),
        inout: None,
        vlans: vlans.parse().expect("a range"),
        inout_vlan: None,
        keep_vlans: false,
        vfs: None,
        resize: false,
    }
}

fn launcher() -> Process {
    Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: "test".to_owned(),
        limits: Limits {
            cpu_percent: 100,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    }
}

fn site() -> Site {
    Site {
        placement: Placement::Shared(0),
        uid_base: 64000,
        uids_in_use: BTreeSet::new(),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    }
}

fn placed(
    tenants: &[Tenant],
    state: &State,
    inventory: &Inventory,
    pool: &Pool,
) -> Result<BTreeMap<Name, Record>, PlacementError> {
    let names = Names::new("test");
    let nic = Sriov::new(names, inventory.clone(), pool.clone(), Guests::Vfio, state);
    records(tenants, state, &site(), &nic, &launcher())
}

fn vfs(records: &BTreeMap<Name, Record>) -> Vec<&Vf> {
    let resources = records.values().flat_map(|record| &record.resources);
    let vfs = resources.filter_map(|resource| match resource {
        Resource::Vf(vf) => Some(&**vf),
        _ => None,
    });
    vfs.collect()
}

/// What must hold of any records: one owner per function and MAC, one port per VLAN, both functions
/// of a port on one physical function.
fn assert_sound(records: &BTreeMap<Name, Record>) {
    let all = vfs(records);
    let addresses: BTreeSet<PciAddress> = all.iter().map(|vf| vf.address).collect();
    assert_eq!(addresses.len(), all.len(), "a function is given twice");
    let macs: BTreeSet<MacAddr> = all.iter().filter_map(|vf| vf.set.mac).collect();
    assert_eq!(macs.len(), all.len(), "a MAC is given twice, or none");
    let mut ports: BTreeMap<VlanId, Vec<&Vf>> = BTreeMap::new();
    for vf in all {
        match vf.owner.side {
            Side::InOut => assert_eq!(vf.set.vlan, None),
            _ => ports
                .entry(vf.set.vlan.expect("a port has a VLAN"))
                .or_default()
                .push(vf),
        }
    }
    for (vlan, pair) in ports {
        let [one, other] = pair[..] else {
            panic!("VLAN {vlan} has {} functions", pair.len());
        };
        assert_eq!(one.pf, other.pf);
        assert_eq!(
            (&one.owner.tenant, &one.owner.port),
            (&other.owner.tenant, &other.owner.port)
        );
        assert_ne!(one.owner.side, other.owner.side);
    }
}

#[test]
fn port_gets_two_functions_and_uplink_one() {
    let inventory = Inventory::simulated(1, 7);
    let state = State::default();
    let records = placed(
        &[tenant(1, 2, true)],
        &state,
        &inventory,
        &pool(1, "101-110"),
    );
    let records = records.expect("it fits");
    assert_sound(&records);
    let lines: Vec<String> = vfs(&records)
        .iter()
        .map(|vf| {
            let vlan = vf.set.vlan.map_or(0, VlanId::get);
            let mac = vf.set.mac.expect("it has a MAC");
            format!("{} {} {mac} {vlan}", vf.address, vf.owner)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "0000:01:10.0 t1/t1-vm1 T 52:54:00:00:01:01 101",
            "0000:01:10.2 t1/t1-vm1 Gw 06:e1:93:2c:e6:ce 101",
            "0000:01:10.4 t1/t1-vm2 T 52:54:00:00:01:02 102",
            "0000:01:10.6 t1/t1-vm2 Gw 06:93:c1:2c:21:82 102",
            "0000:01:11.0 t1 In/Out 0a:89:0a:37:3f:64 0",
        ]
    );
    let without = placed(
        &[tenant(1, 2, false)],
        &state,
        &inventory,
        &pool(1, "101-110"),
    );
    assert_eq!(vfs(&without.expect("it fits")).len(), 4);
}

#[test]
fn uplink_is_on_the_inout_pf() {
    let pool = Pool {
        inout: Some("pf1".to_owned()),
        ..pool(2, "101-110")
    };
    let inventory = Inventory::simulated(2, 7);
    let records = placed(&[tenant(1, 1, true)], &State::default(), &inventory, &pool);
    let records = records.expect("it fits");
    let pfs: Vec<String> = vfs(&records).iter().map(|vf| vf.pf.to_string()).collect();
    assert_eq!(pfs, ["0000:01:00.0", "0000:01:00.0", "0001:01:00.0"]);
}

#[test]
fn no_port_is_on_the_uplink_vlan() {
    let pool = Pool {
        inout_vlan: VlanId::new(101).ok(),
        ..pool(1, "101-110")
    };
    let inventory = Inventory::simulated(1, 7);
    let records = placed(&[tenant(1, 1, true)], &State::default(), &inventory, &pool);
    let records = records.expect("it fits");
    let vlans: Vec<u16> = vfs(&records)
        .iter()
        .filter_map(|vf| vf.set.vlan.map(VlanId::get))
        .collect();
    assert_eq!(vlans, [102, 102, 101]);
}

#[test]
fn new_uplink_joins_the_common_vlan() {
    let inventory = Inventory::simulated(2, 7);
    let on = |vlan: Option<u16>| Pool {
        inout_vlan: vlan.and_then(|vlan| VlanId::new(vlan).ok()),
        ..pool(2, "101-110")
    };
    let first = placed(
        &[tenant(1, 1, true)],
        &State::default(),
        &inventory,
        &on(Some(200)),
    );
    let state = State {
        tenants: first.expect("it fits"),
        ..State::default()
    };
    let second = placed(&[tenant(2, 1, true)], &state, &inventory, &on(None));
    let uplinks: Vec<Option<u16>> = vfs(&second.expect("it fits"))
        .iter()
        .filter(|vf| vf.owner.side == Side::InOut)
        .map(|vf| vf.set.vlan.map(VlanId::get))
        .collect();
    assert_eq!(uplinks, [Some(200)]);
    // The first tenant's port is on 101, and stays there.
    for tenants in [[tenant(1, 1, true)], [tenant(2, 1, true)]] {
        let refused = placed(&tenants, &state, &inventory, &on(Some(101)));
        let error = refused.expect_err("a port is there").to_string();
        let name = tenants[0].name();
        assert_eq!(
            error,
            format!(
                "tenant {name}: its In/Out function would be on VLAN 101, which is a port's: \
                 choose another --inout-vlan"
            )
        );
    }
}

#[test]
fn new_interrupted_or_moved_tenant_is_probed_before_start() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, true)]).expect("it fits");
    let all: BTreeSet<Key> = change.set[&name(1)]
        .resources
        .iter()
        .map(Resource::key)
        .filter(|key| matches!(key, Key::Vf { .. }))
        .collect();
    // Every function is set, and no switch exists yet.
    let mut moment = 0;
    while !all.iter().all(|key| world.host.objects.contains_key(key)) {
        world = World::new();
        let _ = world.apply(&change, moment);
        moment += 1;
    }
    assert_eq!(world.host.proven, Vec::<BTreeSet<Key>>::new());
    world.apply(&change, TO_THE_END).expect("it applies");
    assert_eq!(world.host.proven, std::slice::from_ref(&all));
    world.apply(&change, TO_THE_END).expect("nothing to do");
    assert_eq!(world.host.proven.len(), 1);
    // On other VLANs all ports are probed again; the In/Out function stays.
    let moved = placed(
        &[tenant(1, 1, true)],
        &world.state(),
        &world.inventory(),
        &pool(2, "111-120"),
    );
    let change = Change {
        set: moved.expect("it fits"),
        ..Change::default()
    };
    world.apply(&change, TO_THE_END).expect("it applies");
    assert_eq!(world.host.proven.len(), 2);
    assert_eq!(world.host.proven[1].len(), 2);
    assert!(world.host.proven[1].is_subset(&all));
}

#[test]
fn plan_of_500_tenants_is_fast_and_shares_nothing() {
    let files: Vec<Tenant> = (0..500).map(|number| tenant(number, 4, true)).collect();
    let state = State::default();
    let inventory = Inventory::simulated(36, 126);
    let started = Instant::now();
    let records = placed(&files, &state, &inventory, &pool(36, "1000-2999")).expect("they fit");
    let change = Change {
        set: records,
        ..Change::default()
    };
    let plan = plan_change(&FakeHost::default(), &state, &change).expect("there is a plan");
    // An optimised build takes a small part of this; quadratic time would fail.
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(vfs(&change.set).len(), 4500);
    assert_sound(&change.set);
    // For each tenant its functions, a namespace, a directory, a control group and a switch; and
    // the 36 PFs.
    assert_eq!(plan.actions.len(), 500 * (9 + 4) + 36);
}

#[test]
fn tenants_that_do_not_fit_are_refused_with_numbers() {
    let files: Vec<Tenant> = (0..500).map(|number| tenant(number, 4, true)).collect();
    let state = State::default();
    let inventory = Inventory::simulated(16, 126);
    let error = placed(&files, &state, &inventory, &pool(16, "1000-2999"));
    assert_eq!(
        error.expect_err("they do not fit").to_string(),
        "tenant t224 does not fit: the 500 tenants need 4500 more virtual functions (2 for each \
         port, 1 for each uplink) and 2016 are free (pf0 126, pf1 126, pf2 126, pf3 126, pf4 126, \
         pf5 126, pf6 126, pf7 126 and 8 more); the first 224 fit: name more NICs in --pf, or \
         release tenants"
    );
    let fit = placed(&files[..224], &state, &inventory, &pool(16, "1000-2999"));
    assert_sound(&fit.expect("224 fit"));

    let error = placed(&files[..3], &state, &inventory, &pool(16, "1000-1009"));
    assert_eq!(
        error.expect_err("there are too few VLANs").to_string(),
        "tenant t2: its ports need 4 VLANs and 10 are free in --vlans 1000-1009 (0 are taken): \
         widen the range, and keep it off the adjacent switch's port"
    );
}

#[test]
fn unusable_nic_is_refused() {
    let place = |inventory: &Inventory, names: &[&str]| {
        let pool = Pool {
            pfs: names.iter().map(|name| (*name).to_owned()).collect(),
            ..pool(0, "101-110")
        };
        placed(&[tenant(1, 1, true)], &State::default(), inventory, &pool)
            .expect_err("it is refused")
            .to_string()
    };
    let inventory = Inventory::simulated(1, 7);
    assert_eq!(
        place(&inventory, &[]),
        "--nic sriov: name the physical functions in --pf; this host has pf0 (igb, 7 VFs)"
    );
    assert_eq!(
        place(&inventory, &["eth0"]),
        "--pf eth0: no such SR-IOV NIC; this host has pf0 (igb, 7 VFs). A NIC is listed once \
         SR-IOV is enabled in its firmware and its driver is loaded"
    );
    assert!(place(&Inventory::default(), &["pf0"]).contains("this host has none"));
    let mut other = inventory.clone();
    other.pfs[0].iommu = false;
    assert!(place(&other, &["pf0"]).contains("boot with intel_iommu=on"));
    other.pfs[0].interface = None;
    assert!(place(&other, &["0000:01:00.0"]).contains("bind its driver"));
}

#[test]
fn foreign_functions_are_not_assigned() {
    let mut inventory = Inventory::simulated(1, 7).with_vfs();
    let vfs_of = &mut inventory.pfs[0].vfs;
    let interface = |name: &str, busy| User::Interface {
        name: name.to_owned(),
        mac: "52:54:00:99:00:01".parse().ok(),
        busy,
    };
    // Up; in another namespace; open; with settings; and idle with a MAC that its driver chose.
    (vfs_of[0].driver, vfs_of[0].user) = (Some("igbvf".to_owned()), interface("eth7", true));
    (vfs_of[1].driver, vfs_of[1].user) = (Some("igbvf".to_owned()), User::Elsewhere);
    let processes = BTreeSet::from([77]);
    let who = BTreeMap::from([(77, "qemu-system-x86_64, domain web1".to_owned())]);
    (vfs_of[2].driver, vfs_of[2].user) = (
        Some("vfio-pci".to_owned()),
        User::Program { processes, who },
    );
    vfs_of[3].set.vlan = VlanId::new(101).ok();
    (vfs_of[4].driver, vfs_of[4].user) = (Some("igbvf".to_owned()), interface("eth8", false));
    vfs_of[4].set.mac = "52:54:00:99:00:01".parse().ok();
    let state = State::default();
    let records = placed(
        &[tenant(1, 1, true)],
        &state,
        &inventory,
        &pool(1, "101-110"),
    );
    let records = records.expect("three are free");
    let given: Vec<(u32, Option<&str>)> = vfs(&records)
        .iter()
        .map(|vf| (vf.index, vf.found_driver.as_deref()))
        .collect();
    assert_eq!(given, [(4, Some("igbvf")), (5, None), (6, None)]);
    // VLAN 101 is taken.
    assert_eq!(vfs(&records)[0].set.vlan, VlanId::new(102).ok());
    let error = placed(
        &[tenant(1, 2, true)],
        &state,
        &inventory,
        &pool(1, "101-110"),
    );
    assert_eq!(
        error.expect_err("three are too few").to_string(),
        "tenant t1 does not fit: the 1 tenants need 5 more virtual functions (2 for each port, 1 \
         for each uplink) and 3 are free (pf0 3); the first 0 fit; not free: pf0 VF 0 (interface \
         eth7 is in use), pf0 VF 1 (igbvf has it in another namespace), pf0 VF 2 (open in process \
         77 (qemu-system-x86_64, domain web1)), pf0 VF 3 (it has settings of another program): \
         name more NICs in --pf, or release tenants"
    );
}

#[test]
fn duplicate_mac_is_refused_with_both_owners() {
    let mac: MacAddr = "52:54:00:00:01:01".parse().expect("a MAC");
    let mut inventory = Inventory::simulated(1, 7).with_vfs();
    inventory.interfaces.push(Interface {
        name: "eth0".to_owned(),
        mac,
        device: None,
    });
    let refused = |inventory: &Inventory, tenants: &[Tenant]| {
        placed(tenants, &State::default(), inventory, &pool(1, "101-110"))
            .expect_err("it is refused")
            .to_string()
    };
    assert_eq!(
        refused(&inventory, &[tenant(1, 1, false)]),
        "MAC 52:54:00:00:01:01 is that of interface eth0 and of tenant t1/t1-vm1 T: change one of \
         them"
    );
    inventory.interfaces.clear();
    inventory.pfs[0].vfs[6].set.mac = Some(mac);
    assert_eq!(
        refused(&inventory, &[tenant(1, 1, false)]),
        "MAC 52:54:00:00:01:01 is that of pf0 VF 6 and of tenant t1/t1-vm1 T: change one of them"
    );
    // One tenant's VM has the MAC of the other's switch.
    let thief = text(2, 1, false).replace("52:54:00:00:02:01", "06:e1:93:2c:e6:ce");
    let thief = Tenant::parse("test", &thief).expect("a tenant");
    assert_eq!(
        refused(&Inventory::simulated(1, 7), &[tenant(1, 1, false), thief]),
        "MAC 06:e1:93:2c:e6:ce is that of tenant t1/t1-vm1 Gw and of tenant t2/t2-vm1 T: change \
         one of them"
    );
}

/// A host whose functions are those of the table of objects.
struct World {
    dir: tempfile::TempDir,
    host: FakeHost,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a temporary directory"),
            host: FakeHost::default(),
        }
    }

    fn state(&self) -> State {
        state::read(self.dir.path()).expect("the state reads")
    }

    /// The inventory of the existing objects.
    fn inventory(&self) -> Inventory {
        let pf = |key: &Key| matches!(key, Key::Pf { .. });
        let mut inventory = Inventory::simulated(2, 7);
        if !self.host.objects.keys().any(pf) {
            return inventory;
        }
        inventory = inventory.with_vfs();
        for object in self.host.objects.values() {
            let Resource::Vf(vf) = object else { continue };
            for seen in inventory.pfs.iter_mut().flat_map(|pf| &mut pf.vfs) {
                if seen.address == vf.address {
                    seen.set = vf.set.clone();
                    seen.driver.clone_from(&vf.driver);
                    seen.user = User::Program {
                        processes: BTreeSet::new(),
                        who: BTreeMap::new(),
                    };
                }
            }
        }
        inventory
    }

    fn set(&self, tenants: &[Tenant]) -> Result<Change, PlacementError> {
        let set = placed(
            tenants,
            &self.state(),
            &self.inventory(),
            &pool(2, "101-120"),
        )?;
        Ok(Change {
            set,
            ..Change::default()
        })
    }

    fn apply(&mut self, change: &Change, moment: usize) -> Result<Vec<Action>, ApplyError> {
        let mut store = HostLock::open(self.dir.path()).expect("the state directory opens");
        let passed = AtomicUsize::new(0);
        let crash = || passed.fetch_add(1, Ordering::Relaxed) >= moment;
        let outcomes = apply_each(&mut self.host, &mut store, change, &crash, &|_| {});
        let actions = outcomes.into_iter().map(|it| Ok(it.result?.actions));
        Ok(actions.collect::<Result<Vec<_>, ApplyError>>()?.concat())
    }
}

fn release(numbers: &[u32]) -> Change {
    Change {
        release: numbers.iter().copied().map(name).collect(),
        ..Change::default()
    }
}

const TO_THE_END: usize = usize::MAX;

#[test]
fn tenant_keeps_its_functions_while_others_change() {
    let mut world = World::new();
    for number in [1, 2, 3] {
        let change = world.set(&[tenant(number, 1, true)]).expect("it fits");
        world.apply(&change, TO_THE_END).expect("it applies");
    }
    let third = vfs(&world.state().tenants)
        .iter()
        .filter(|vf| vf.owner.tenant == name(3))
        .map(|vf| (vf.address, vf.set.vlan))
        .collect::<Vec<_>>();
    world
        .apply(&release(&[1]), TO_THE_END)
        .expect("it releases");
    let change = world.set(&[tenant(3, 2, true)]).expect("it fits");
    let kept: Vec<_> = vfs(&change.set)
        .iter()
        .map(|vf| (vf.address, vf.set.vlan))
        .filter(|place| third.contains(place))
        .collect();
    assert_eq!(kept.len(), 3);
    assert_sound(&change.set);
    // A switch whose function is recreated is restarted.
    let needs = change.set[&name(3)]
        .resources
        .iter()
        .find_map(|it| it.needs());
    let of_functions = needs
        .expect("it has a switch")
        .iter()
        .filter(|key| matches!(key, Key::Vf { .. }))
        .count();
    assert_eq!(of_functions, 3);
}

#[test]
fn function_is_cleaned_between_owners() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, true)]).expect("it fits");
    world.apply(&change, TO_THE_END).expect("it applies");
    // A crash ends a release after the records are removed and before anything is deleted.
    match world.apply(&release(&[1]), 0) {
        Err(ApplyError::Killed) => {}
        other => panic!("it was not killed: {other:?}"),
    }
    let state = world.state();
    assert!(state.tenants.is_empty());
    let left: BTreeSet<PciAddress> = state
        .owned
        .values()
        .filter_map(|resource| match resource {
            Resource::Vf(vf) => Some(vf.address),
            _ => None,
        })
        .collect();
    assert_eq!(left.len(), 3);
    let change = world.set(&[tenant(2, 1, true)]).expect("it fits");
    let actions = world.apply(&change, TO_THE_END).expect("it applies");
    let mut cleaned = BTreeSet::new();
    for action in &actions {
        match action {
            Action::Delete {
                resource: Resource::Vf(vf),
            } => {
                cleaned.insert(vf.address);
            }
            Action::Create {
                resource: Resource::Vf(vf),
            } => assert!(!left.contains(&vf.address) || cleaned.contains(&vf.address)),
            Action::Update {
                to: Resource::Vf(vf),
                ..
            } => panic!("{} is handed on as it is", vf.address),
            _ => {}
        }
    }
    assert_eq!(cleaned, left);
}

#[test]
fn drift_is_reported_by_function_and_repaired() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, true)]).expect("it fits");
    world.apply(&change, TO_THE_END).expect("it applies");
    let keys: Vec<Key> = world.host.objects.keys().cloned().collect();
    let vf_keys: Vec<&Key> = keys
        .iter()
        .filter(|key| matches!(key, Key::Vf { .. }))
        .collect();
    let [guest, gateway, inout] = vf_keys[..] else {
        panic!("there are three functions");
    };
    let mut touch = |key: &Key, touch: &dyn Fn(&mut Vf)| match world.host.objects.get_mut(key) {
        Some(Resource::Vf(vf)) => touch(vf),
        other => panic!("no function: {other:?}"),
    };
    touch(guest, &|vf| vf.set.spoof_check = false);
    touch(gateway, &|vf| vf.driver = Some("igbvf".to_owned()));
    touch(inout, &|vf| vf.set = Default::default());
    let state = world.state();
    assert_eq!(
        drift(&mut world.host, &state, &state.tenants[&name(1)]),
        [
            "virtual function 0000:01:10.0: set.spoof_check should be true and is false",
            "virtual function 0000:01:10.2: driver should be \"vfio-pci\" and is \"igbvf\"",
            "virtual function 0000:01:10.4: set.mac should be \"0a:89:0a:37:3f:64\" and is null",
            "switch of tenant t1 must be restarted: it depends on what must be recreated",
        ]
    );
    let again = world.set(&[tenant(1, 1, true)]).expect("it fits");
    world.apply(&again, TO_THE_END).expect("it applies");
    let state = world.state();
    assert_eq!(
        drift(&mut world.host, &state, &state.tenants[&name(1)]),
        Vec::<String>::new()
    );
}

#[test]
fn function_in_use_is_foreign() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, false)]).expect("it fits");
    let mut theirs = vfs(&change.set)[0].clone();
    theirs.driver = Some("igbvf".to_owned());
    let theirs = Resource::Vf(Box::new(theirs));
    world.host.objects.insert(theirs.key(), theirs.clone());
    let before = world.host.objects.clone();
    match world.apply(&change, TO_THE_END) {
        Err(ApplyError::Plan(error @ PlanError::Foreign(..))) => {
            let text = error.to_string();
            assert!(
                text.contains("`vf-provisioner nic` shows by whom"),
                "{text}"
            );
        }
        other => panic!("it was not refused: {other:?}"),
    }
    assert_eq!(world.host.objects, before);
}

#[test]
fn accepted_attributes_and_rates_reach_the_functions() {
    let text = text(1, 1, true).replace(
        "[[port]]\n",
        "[nic]\naccept = [\"min-rate\"]\n[[port]]\nrate_mbit = 500\nmin_rate_mbit = 100\n",
    );
    let file = Tenant::parse("test", &text).expect("a tenant");
    let inventory = Inventory::simulated(1, 7);
    let records = placed(&[file], &State::default(), &inventory, &pool(1, "101-110"));
    let records = records.expect("it fits");
    let seen: Vec<(Side, u32, u32)> = vfs(&records)
        .iter()
        .map(|vf| (vf.owner.side, vf.set.min_rate_mbit, vf.set.max_rate_mbit))
        .collect();
    // The VM's rate does not limit the switch.
    assert_eq!(
        seen,
        [
            (Side::Guest, 100, 500),
            (Side::Gateway, 0, 0),
            (Side::InOut, 0, 0)
        ]
    );
    for vf in vfs(&records) {
        assert_eq!(vf.accept, BTreeSet::from([NicAttribute::MinRate]));
    }
}

#[test]
fn existing_number_of_functions_is_kept() {
    let mut inventory = Inventory::simulated(1, 126);
    inventory.pfs[0].total_vfs = 4;
    inventory = inventory.with_vfs();
    inventory.pfs[0].total_vfs = 126;
    let tenants = [tenant(1, 2, true)];
    let state = State::default();
    let error = placed(&tenants, &state, &inventory, &pool(1, "101-110"));
    let error = error.expect_err("four are too few").to_string();
    assert!(error.contains("and 4 are free"), "{error}");
    let resize = Pool {
        resize: true,
        ..pool(1, "101-110")
    };
    let records = placed(&tenants, &state, &inventory, &resize).expect("it fits");
    let pf = records[&name(1)].resources.iter().find_map(|it| match it {
        Resource::Pf(pf) => Some(pf),
        _ => None,
    });
    let pf = pf.expect("it has a NIC");
    assert_eq!((pf.set.vfs, pf.found.vfs), (126, 4));
}

/// The tenant's file with this in its section `[nic]`.
fn tenant_with_nic(number: u32, nic: &str) -> Tenant {
    let text = text(number, 1, true).replacen("[[port]]\n", &format!("{nic}\n[[port]]\n"), 1);
    Tenant::parse("test", &text).expect("the text is a tenant")
}

#[test]
fn function_moved_by_a_stranger_is_refused_while_open_and_recreated_after() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, true)]).expect("it fits");
    world.apply(&change, TO_THE_END).expect("it applies");
    let guest = vfs(&change.set)[0].clone();
    let key = Resource::Vf(Box::new(guest.clone())).key();
    let strangers = |world: &mut World, touch: &dyn Fn(&mut Vf)| {
        let mut vf = guest.clone();
        touch(&mut vf);
        world
            .host
            .objects
            .insert(key.clone(), Resource::Vf(Box::new(vf)));
    };
    let qemu = "process 77 (qemu-system-x86_64, domain web1)";
    world.host.open.insert(key.clone(), qemu.to_owned());
    // The tenant's own virtual machine has it open, and nothing was changed.
    let again = world.set(&[tenant(1, 1, true)]).expect("it fits");
    assert_eq!(
        world.apply(&again, TO_THE_END).expect("it applies"),
        Vec::new()
    );
    type Touch = fn(&mut Vf);
    let touches: [(Touch, &str); 2] = [
        (
            |vf| vf.set.mac = "52:54:00:99:99:99".parse().ok(),
            "MAC 52:54:00:99:99:99 and VLAN 101",
        ),
        (|vf| vf.set.vlan = None, "MAC 52:54:00:00:01:01 and no VLAN"),
    ];
    for (touch, shown) in touches {
        strangers(&mut world, &touch);
        let before = world.host.objects.clone();
        let error = world.apply(&again, TO_THE_END).expect_err("it is refused");
        assert_eq!(
            error.to_string(),
            format!(
                "tenant t1: virtual function 0000:01:10.0 (0000:01:00.0 VF 0) is open in {qemu}, \
                 with {shown} where MAC 52:54:00:00:01:01 and VLAN 101 are wanted: stop that \
                 first; if a pool of another program hands the function out, take 0000:01:00.0 \
                 from the pool"
            )
        );
        assert_eq!(world.host.objects, before);
        // Once it is closed, it is cleaned, set and probed as a new one.
        world.host.open.clear();
        world.host.proven.clear();
        let actions = world.apply(&again, TO_THE_END).expect("it applies");
        let own = |action: &&Action| action.resource().key() == key;
        let done: Vec<String> = actions.iter().filter(own).map(Action::to_string).collect();
        let vf = "virtual function 0000:01:10.0";
        assert_eq!(done, [format!("delete {vf}"), format!("create {vf}")]);
        world.host.open.insert(key.clone(), qemu.to_owned());
    }
}

#[test]
fn pf_that_others_use_does_not_block_the_release() {
    let mut world = World::new();
    let change = world.set(&[tenant(1, 1, true)]).expect("it fits");
    world.apply(&change, TO_THE_END).expect("it applies");
    let pf = world
        .host
        .objects
        .keys()
        .find(|key| matches!(key, Key::Pf { .. }));
    let pf = pf.expect("there is one").clone();
    world.host.shared.insert(pf.clone());
    let actions = world
        .apply(&release(&[1]), TO_THE_END)
        .expect("it releases");
    assert!(actions.iter().any(|action| action.resource().key() == pf));
    assert_eq!(world.host.objects.keys().collect::<Vec<_>>(), [&pf]);
    assert_eq!(world.state(), State::default());
}

#[test]
fn functions_without_spoof_check_are_for_tenants_that_accept_it() {
    let mut inventory = Inventory::simulated(1, 7).with_vfs();
    for vf in &mut inventory.pfs[0].vfs {
        vf.set.spoof_check = false;
    }
    let place =
        |tenants: &[Tenant]| placed(tenants, &State::default(), &inventory, &pool(1, "101-110"));
    let error = place(&[tenant(1, 1, false)]).expect_err("it does not accept that");
    let error = error.to_string();
    let why = "pf0 VF 0 (its spoof check is off: only for tenants that accept spoof-check)";
    assert!(
        error.contains("and 0 are free (pf0 0)") && error.contains(why),
        "{error}"
    );
    let accepts = tenant_with_nic(1, "[nic]\naccept = [\"spoof-check\"]");
    let records = place(&[accepts]).expect("it fits");
    assert_sound(&records);
    for vf in vfs(&records) {
        assert_eq!((vf.set.spoof_check, vf.idle().is_some()), (true, true));
    }
    // Functions that have a spoof check are for all, and stay for those that need them.
    inventory.pfs[0].vfs[5].set.spoof_check = true;
    inventory.pfs[0].vfs[6].set.spoof_check = true;
    let records = placed(
        &[
            tenant(1, 1, false),
            tenant_with_nic(2, "[nic]\naccept = [\"spoof-check\"]"),
        ],
        &State::default(),
        &inventory,
        &pool(1, "101-110"),
    );
    let given: Vec<u32> = vfs(&records.expect("both fit"))
        .iter()
        .map(|vf| vf.index)
        .collect();
    assert_eq!(given, [5, 6, 0, 1, 2]);
}

#[test]
fn switch_functions_of_a_bifurcated_nic_keep_the_kernel_driver() {
    let mut inventory = Inventory::simulated(1, 7);
    inventory.pfs[0].driver = Some("mlx5_core".to_owned());
    let records = placed(
        &[tenant(1, 1, true)],
        &State::default(),
        &inventory,
        &pool(1, "101-110"),
    );
    let records = records.expect("it fits");
    let mlx5 = Some("mlx5_core");
    let seen: Vec<_> = vfs(&records)
        .iter()
        .map(|vf| {
            let interface = vf.interface.as_ref();
            let place = interface.map(|it| format!("{}/{}", it.namespace, it.name));
            (vf.owner.side, vf.driver.as_deref(), vf.alone, place)
        })
        .collect();
    let namespace = Names::new("test").switch_namespace(&name(1));
    assert_eq!(
        seen,
        [
            (Side::Guest, Some("vfio-pci"), Some(true), None),
            (
                Side::Gateway,
                mlx5,
                None,
                Some(format!("{namespace}/vf000001102"))
            ),
            (
                Side::InOut,
                mlx5,
                None,
                Some(format!("{namespace}/vf000001104"))
            ),
        ]
    );
    // The namespace is the switch's, and there before the functions.
    let keys: Vec<Key> = records[&name(1)]
        .resources
        .iter()
        .map(Resource::key)
        .collect();
    assert!(keys.contains(&Key::Namespace { name: namespace }));
    // An igb's are VFIO's.
    let records = placed(
        &[tenant(1, 1, true)],
        &State::default(),
        &Inventory::simulated(1, 7),
        &pool(1, "101-110"),
    );
    for vf in vfs(&records.expect("it fits")) {
        assert_eq!(
            (vf.driver.as_deref(), &vf.interface),
            (Some("vfio-pci"), &None)
        );
    }
}

#[test]
fn number_of_functions_is_as_the_operator_says() {
    let numbered = |vfs, resize| Pool {
        vfs: Some(vfs),
        resize,
        ..pool(1, "101-110")
    };
    let place = |inventory: &Inventory, state: &State, pool: &Pool| {
        let records = placed(&[tenant(1, 1, true)], state, inventory, pool);
        records.map_err(|error| error.to_string()).map(|records| {
            let mut pfs = records[&name(1)].resources.iter();
            let pf = pfs.find_map(|it| match it {
                Resource::Pf(pf) => Some(pf.set.vfs),
                _ => None,
            });
            (pf, records)
        })
    };
    let (none, empty) = (Inventory::simulated(1, 7), State::default());
    let (vfs, records) = place(&none, &empty, &numbered(4, false)).expect("it fits");
    assert_eq!(vfs, Some(4));
    let state = State {
        tenants: records,
        ..State::default()
    };
    // The number is remembered, also while the functions are gone.
    assert_eq!(
        place(&none, &state, &pool(1, "101-110"))
            .expect("it fits")
            .0,
        Some(4)
    );
    assert_eq!(
        place(&none, &state, &numbered(4, false))
            .expect("it fits")
            .0,
        Some(4)
    );
    let refused = |inventory: &Inventory, state: &State, vfs| {
        place(inventory, state, &numbered(vfs, false)).expect_err("it is refused")
    };
    for vfs in [0, 8] {
        assert_eq!(
            refused(&none, &empty, vfs),
            format!("--vfs {vfs}: pf0 can have 1 to 7 virtual functions")
        );
    }
    let other = |is| {
        format!(
            "--vfs 5: pf0 has {is} virtual functions, and a change destroys them: leave --vfs \
             out, or add --resize-pf"
        )
    };
    assert_eq!(refused(&none, &state, 5), other(4));
    let all = Inventory::simulated(1, 7).with_vfs();
    assert_eq!(refused(&all, &empty, 5), other(7));
    assert_eq!(
        place(&all, &empty, &numbered(5, true)).expect("it fits").0,
        Some(5)
    );
    let error = refused(&none, &empty, 2);
    assert!(error.contains("and 2 are free (pf0 2)"), "{error}");
}

#[test]
fn pf_has_the_largest_mtu_of_its_tenants_and_at_least_its_own() {
    let with_mtu = |number, mtu: u32| {
        let text = text(number, 1, false) + &format!("mtu = {mtu}\n");
        Tenant::parse("test", &text).expect("the text is a tenant")
    };
    let mut world = World::new();
    let mtu = |world: &World| {
        let pf = world.host.objects.values().find_map(|it| match it {
            Resource::Pf(pf) => Some((pf.set.mtu, pf.found.mtu)),
            _ => None,
        });
        pf.expect("there is a NIC")
    };
    let change = world.set(&[with_mtu(1, 1400)]).expect("it fits");
    world.apply(&change, TO_THE_END).expect("it applies");
    assert_eq!(mtu(&world), (Some(1500), Some(1500)));
    let change = world
        .set(&[with_mtu(2, 9000), with_mtu(3, 4000)])
        .expect("they fit");
    world.apply(&change, TO_THE_END).expect("it applies");
    assert_eq!(mtu(&world), (Some(9000), Some(1500)));
    // The others are as they should be.
    let all = [with_mtu(1, 1400), with_mtu(2, 9000), with_mtu(3, 4000)];
    let again = world.set(&all).expect("they fit");
    assert_eq!(
        world.apply(&again, TO_THE_END).expect("it applies"),
        Vec::new()
    );
    let state = world.state();
    for number in 1..4 {
        let record = &state.tenants[&name(number)];
        let found = drift(&mut world.host, &state, record);
        assert_eq!(found, Vec::<String>::new(), "tenant {number}");
    }
}

#[test]
fn link_state_of_the_file_reaches_all_functions_and_none_that_is_released() {
    let enabled = tenant_with_nic(1, "[nic]\nlink_state = \"enable\"");
    let inventory = Inventory::simulated(1, 7);
    let records = placed(
        &[enabled],
        &State::default(),
        &inventory,
        &pool(1, "101-110"),
    );
    for vf in vfs(&records.expect("it fits")) {
        assert_eq!(vf.set.link_state, "enable");
        assert_eq!(vf.idle().expect("hardware").set.link_state, "auto");
    }
}

#[derive(Debug, Clone)]
enum Event {
    Apply(u32, u32, bool, Option<usize>),
    Release(u32, Option<usize>),
    Fail(u32, usize),
}

fn is_budget(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(AllocationError::Budget(_)))
}

fn event() -> impl Strategy<Value = Event> {
    let killed = || prop::option::of(0..45_usize);
    prop_oneof![
        4 => (1..4_u32, 1..3_u32, any::<bool>(), killed())
            .prop_map(|(n, p, u, k)| Event::Apply(n, p, u, k)),
        2 => (1..4_u32, killed()).prop_map(|(n, k)| Event::Release(n, k)),
        1 => (1..4_u32, 0..12_usize).prop_map(|(n, at)| Event::Fail(n, at)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn allocations_stay_sound_in_any_sequence_of_events(
        events in prop::collection::vec(event(), 1..8),
    ) {
        let mut world = World::new();
        for event in events {
            world.host.fails_at = None;
            match event {
                Event::Apply(number, ports, uplink, killed) => {
                    match world.set(&[tenant(number, ports, uplink)]) {
                        Ok(change) => {
                            let result = world.apply(&change, killed.unwrap_or(TO_THE_END));
                            let good = matches!(result, Ok(_) | Err(ApplyError::Killed));
                            prop_assert!(good, "{:?}", result);
                        }
                        Err(PlacementError::Allocation(error)) if is_budget(&*error) => {}
                        Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    }
                }
                Event::Release(number, killed) => {
                    let result = world.apply(&release(&[number]), killed.unwrap_or(TO_THE_END));
                    prop_assert!(matches!(result, Ok(_) | Err(ApplyError::Killed)), "{:?}", result);
                }
                Event::Fail(number, at) => {
                    world.host.changes = 0;
                    world.host.fails_at = Some(at);
                    if let Ok(change) = world.set(&[tenant(number, 1, true)]) {
                        let result = world.apply(&change, TO_THE_END);
                        let good = matches!(result, Ok(_) | Err(ApplyError::RolledBack { .. }));
                        prop_assert!(good, "{:?}", result);
                    }
                }
            }
            assert_sound(&world.state().tenants);
        }
        world.host.fails_at = None;
        let all: Vec<Tenant> = (1..4).map(|number| tenant(number, 1, true)).collect();
        world.apply(&release(&[1, 2, 3]), TO_THE_END).expect("it releases");
        prop_assert_eq!(&world.host.objects, &BTreeMap::new());
        let change = world.set(&all).expect("they fit");
        world.apply(&change, TO_THE_END).expect("it applies");
        for resource in change.set.values().flat_map(|record| &record.resources) {
            let is = world.host.observe(resource).expect("it can be observed");
            prop_assert_eq!(is.as_ref(), Some(resource));
        }
        let again = world.set(&all).expect("they fit");
        prop_assert_eq!(world.apply(&again, TO_THE_END).expect("it applies"), Vec::new());
        world.apply(&release(&[1, 2, 3]), TO_THE_END).expect("it releases");
        prop_assert_eq!(world.state(), State::default());
    }
}

#[test]
fn assignment_lists_the_guests() {
    let inventory = Inventory::simulated(1, 7);
    let pool = pool(1, "101-110");
    let given = allocate(&[tenant(1, 1, true)], &State::default(), &inventory, &pool);
    let given = given.expect("it fits");
    let device = |address: &str, vlan: Option<u16>| Device::Pci {
        address: address.parse().expect("an address"),
        vlan: vlan.and_then(|vlan| VlanId::new(vlan).ok()),
    };
    assert_eq!(given[0].guests, [device("0000:01:10.0", Some(101))]);
    assert_eq!(given[0].ports, [device("0000:01:10.2", Some(101))]);
    assert_eq!(given[0].uplink, Some(device("0000:01:10.4", None)));
}
