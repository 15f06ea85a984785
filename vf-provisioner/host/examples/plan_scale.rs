//! Prints what a plan on SR-IOV NICs costs per tenant as tenants grow: from parsed files to the
//! list of actions, on a simulated host. `cargo run --release -p vf-host --example
//! plan_scale`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use tenant_config::{Memory, Tenant};
use vf_host::apply::{Change, plan_change};
use vf_host::host::FakeHost;
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::parts::names::Names;
use vf_host::nic::sriov::allocate::Pool;
use vf_host::nic::sriov::inventory::Inventory;
use vf_host::nic::sriov::{Guests, Sriov};
use vf_host::state::State;
use vf_host::tenants::{Placement, Site, records};

const PORTS: u32 = 4;
const VFS: u32 = 126;

fn main() -> Result<(), Box<dyn Error>> {
    println!("tenants  ports  NICs of {VFS} VFs  actions  ms      us per tenant");
    for (tenants, nics) in [(10, 36), (50, 36), (100, 36), (224, 16), (500, 36)] {
        let files = (0..tenants).map(tenant).collect::<Result<Vec<_>, _>>()?;
        // The fastest of several runs: other load only adds.
        let mut best = f64::INFINITY;
        let mut actions = 0;
        for _ in 0..5 {
            let started = Instant::now();
            actions = plan(&files, nics)?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!(
            "{tenants:>7}  {PORTS:>5}  {nics:>15}  {actions:>7}  {:<6.1}  {:.1}",
            best * 1e3,
            best * 1e6 / f64::from(tenants),
        );
    }
    Ok(())
}

fn plan(files: &[Tenant], nics: u16) -> Result<usize, Box<dyn Error>> {
    let state = State::default();
    let pool = Pool {
        pfs: (0..nics).map(|number| format!("pf{number}")).collect(),
        inout: None,
        vlans: "1000-2999".parse()?,
        inout_vlan: None,
        keep_vlans: false,
        vfs: None,
        resize: false,
    };

    let nic = Sriov::new(
        Names::new("mts"),
        Inventory::simulated(nics, VFS),
        pool,
        Guests::Vfio,
        &state,
    );
    let launcher = Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: "mts".to_owned(),
        limits: Limits {
            cpu_percent: 100,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    };
    let site = Site {
        placement: Placement::Shared(0),
        uid_base: 64000,
        uids_in_use: Default::default(),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    };
    let change = Change {
        set: records(files, &state, &site, &nic, &launcher)?,
        ..Change::default()
    };
    let plan = plan_change(&FakeHost::default(), &state, &change)?;
    Ok(plan.actions.len())
}

fn tenant(number: u32) -> Result<Tenant, Box<dyn Error>> {
    let (hi, lo) = (number >> 8, number & 0xff);
    let mut text = format!(
        "name = \"t{number}\"\nvni = {}\n[gateway]\nipv4 = \"10.{hi}.{lo}.1/24\"\n[uplink]\n\
         address = \"172.16.{}.{lo}/16\"\nnext_hop = \"172.16.255.1\"\n",
        5000 + number,
        hi + 1,
    );
    for port in 1..=PORTS {
        text += &format!(
            "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \
             \"52:54:00:{hi:02x}:{lo:02x}:{port:02x}\"\naddresses = [\"10.{hi}.{lo}.{}\"]\n",
            10 + port
        );
    }
    Ok(Tenant::parse("test", &text)?)
}
