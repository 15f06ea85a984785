//! Who has a function open that somebody else has set.
//!
//! A pool of another program (libvirt's networks of mode `hostdev`, a device plugin) may hand out a
//! function that is a tenant's, with its own MAC and VLAN. To set it back while it is open would
//! give the tenant's MAC and VLAN to whoever has it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;

use tenant_config::PciAddress;

use super::function::{Vf, VfSettings};
use super::{device, process, sysfs};
use crate::error::HostError;
use crate::resource::Resource;
use crate::state::Record;

/// Why the function must not be set now, if its MAC or VLAN are not as wanted: `open` has it.
pub fn refuse(wanted: &Vf, is: &VfSettings, open: &str) -> Option<String> {
    let set = &wanted.set;
    if (is.mac, is.vlan) == (set.mac, set.vlan) {
        return None;
    }
    let shown = |set: &VfSettings| {
        let mac = set
            .mac
            .map_or("no MAC".to_owned(), |mac| format!("MAC {mac}"));
        let vlan = set
            .vlan
            .map_or("no VLAN".to_owned(), |vlan| format!("VLAN {vlan}"));
        format!("{mac} and {vlan}")
    };
    Some(format!(
        "virtual function {} ({} VF {}) is open in {open}, with {} where {} are wanted: stop that \
         first; if a pool of another program hands the function out, take {} from the pool",
        wanted.address,
        device::label(wanted.pf),
        wanted.index,
        shown(is),
        shown(set),
        device::label(wanted.pf),
    ))
}

/// The settings of all functions of a PF, by number.
type Settings = BTreeMap<PciAddress, BTreeMap<u32, VfSettings>>;

/// Of each tenant, why one of its functions must not be set now. Each PF is read once.
pub(super) fn refusals(records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
    let mut seen = Settings::new();
    let all = records.iter();
    all.map(|record| refusal(record, &mut seen)).collect()
}

/// The first function of the tenant that is refused. The tenant's own switch may have its functions
/// open: it is restarted before they change.
fn refusal(record: &Record, seen: &mut Settings) -> Result<Option<String>, HostError> {
    for resource in &record.resources {
        let Resource::Vf(vf) = resource else { continue };
        let settings = match seen.entry(vf.pf) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(free) => free.insert(match device::interface_of(vf.pf) {
                Some(interface) => sysfs::vf_settings(&interface)?,
                None => BTreeMap::new(),
            }),
        };
        let Some(is) = settings.get(&vf.index) else {
            continue;
        };
        if (is.mac, is.vlan) == (vf.set.mac, vf.set.vlan) || !sysfs::is_at(vf) {
            continue;
        }
        let mut open = sysfs::open_in(&device::device(vf.address));
        open.retain(|process| user(*process).is_some_and(|user| user != record.uid));
        if open.is_empty() {
            continue;
        }
        let open: Vec<String> = open
            .iter()
            .map(|process| process::named(*process))
            .collect();
        if let Some(why) = refuse(vf, is, &open.join(", ")) {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// `None` if it has ended.
fn user(process: i32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{process}")).ok()?.uid())
}
