//! Sets PFs and VFs and reads them back: drivers and numbers through sysfs, the rest through
//! rtnetlink.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netlink_packet_route::link::{
    VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoTxRate,
    VfInfoVlan, VfLinkState, VfVlan, VfVlanInfo, VlanProtocol,
};
use nix::errno::Errno;
use tenant_config::{PciAddress, VlanId};

use super::device::{self, device, link_name, number};
use super::function::{Pf, PfSettings, VFIO, Vf, VfInterface, VfSettings};
use super::setting::{self, Card, Setting};
use super::sysfs::{self, group_others, is_at, number_of_vfs};
use super::{netlink, process};
use crate::child;
use crate::deadline;
use crate::error::HostError;
use crate::nic::parts::netlink::{is_up, set_up};
use crate::object::{Context, Live};

/// How long a driver may take to make an interface, and a NIC to change its number of functions.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn failed(what: impl Into<String>, message: impl Into<String>) -> HostError {
    HostError::Io {
        what: what.into(),
        source: std::io::Error::other(message.into()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), HostError> {
    deadline::write(path, value).map_err(HostError::io(format!(
        "cannot write {value:?} to {}",
        path.display()
    )))
}

/// Waits until `done` returns a value.
fn wait<T>(mut done: impl FnMut() -> Result<Option<T>, HostError>) -> Result<Option<T>, HostError> {
    let started = Instant::now();
    loop {
        if let Some(it) = done()? {
            return Ok(Some(it));
        }
        if started.elapsed() > PATIENCE {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The driver of a PF.
pub(super) fn pf_driver(pf: PciAddress) -> Option<String> {
    link_name(&device(pf).join("driver"))
}

impl Live for Pf {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_pf(self)
    }

    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        Ok(device::interface_of(self.address).is_some())
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        set_pf(self, at_least(self), context.resize_pf)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        set_pf(self, at_least(self), context.resize_pf)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        release_pf(self, context.resize_pf)
    }

    fn stays(&self, context: &Context) -> Result<Option<String>, HostError> {
        stays(self, context.resize_pf)
    }
}

impl Live for Vf {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_vf(self)
    }

    /// One that was made again has lost its driver.
    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        let driver = link_name(&device(self.address).join("driver"));
        Ok(is_at(self) && driver == self.driver)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        create_vf(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        update_vf(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        scrub_vf(self)
    }
}

/// Reads the settings of a PF; `None` if it or its interface has vanished. More than the wanted MTU
/// reads as the wanted one: another tenant needs it.
fn observe_pf(wanted: &Pf) -> Result<Option<Pf>, HostError> {
    let path = device(wanted.address);
    let Some(interface) = device::interface_of(wanted.address) else {
        return Ok(None);
    };
    let vfs = number_of_vfs(&path);
    let Some(up) = is_up(&interface)? else {
        return Ok(None);
    };
    let mtu = wanted.set.mtu.and_then(|mtu| {
        let is = number(&path.join("net").join(&interface).join("mtu"))?;
        Some(is.min(mtu))
    });
    Ok(Some(Pf {
        set: PfSettings {
            autoprobe: number(&path.join("sriov_drivers_autoprobe")) != Some(0),
            vfs,
            up,
            mtu,
        },
        ..wanted.clone()
    }))
}

/// The wanted settings; a larger MTU stays, since another tenant may need it.
fn at_least(pf: &Pf) -> PfSettings {
    let is = || {
        number(
            &device(pf.address)
                .join("net")
                .join(device::interface_of(pf.address)?)
                .join("mtu"),
        )
    };
    let mtu = pf.set.mtu.map(|mtu| is().map_or(mtu, |is| is.max(mtu)));
    PfSettings { mtu, ..pf.set }
}

/// The VFs of a PF that are in use, and by whom.
fn in_use(pf: PciAddress) -> Result<Vec<String>, HostError> {
    let inventory = sysfs::read()?;
    let pf = inventory.pfs.iter().find(|it| it.address == pf);
    let vfs = pf.iter().flat_map(|pf| &pf.vfs);
    let used = vfs.filter_map(|vf| Some(format!("VF {}: {}", vf.index, vf.used()?)));
    Ok(used.collect())
}

/// Sets a PF. A change of its number of VFs goes through 0 and destroys them all, so it is made
/// only if no VF is in use or `resize` allows it.
fn set_pf(pf: &Pf, want: PfSettings, resize: bool) -> Result<(), HostError> {
    let path = device(pf.address);
    let what = format!("cannot set physical function {}", pf.address);
    let Some(interface) = device::interface_of(pf.address) else {
        return Err(failed(
            what,
            "it has no interface in this network namespace: was its driver unbound?",
        ));
    };
    let what = format!("{what} ({interface})");
    let is = number_of_vfs(&path);
    if is != 0 && is != want.vfs && !resize {
        let taken = in_use(pf.address)?;
        if !taken.is_empty() {
            return Err(failed(
                what,
                format!(
                    "it has {is} virtual functions, {} are wanted, and a change destroys those in \
                     use ({}): free them, or add --resize-pf",
                    want.vfs,
                    taken.join("; ")
                ),
            ));
        }
    }
    let autoprobe = if want.autoprobe { "1" } else { "0" };
    write(&path.join("sriov_drivers_autoprobe"), autoprobe)?;
    // Before there are VFs: some NICs reset themselves for it.
    if let Some(mtu) = want.mtu
        && number(&path.join("net").join(&interface).join("mtu")) != Some(mtu)
    {
        netlink::set_mtu(&interface, mtu)?;
    }
    // Some NICs set up their functions only while the link is up.
    set_up(&interface, want.up || want.vfs != 0)?;
    if is != want.vfs {
        if is != 0 {
            write_unless_busy(&path.join("sriov_numvfs"), "0")?;
        }
        if want.vfs != 0 {
            write_unless_busy(&path.join("sriov_numvfs"), &want.vfs.to_string())?;
        }
        let settled = wait(|| {
            let seen = sysfs::vf_settings(&interface)?;
            Ok((seen.len() == want.vfs as usize).then_some(()))
        })?;
        if settled.is_none() {
            return Err(failed(
                what,
                format!("its {} virtual functions did not appear", want.vfs),
            ));
        }
    }
    set_up(&interface, want.up)
}

/// Writes what a busy driver refuses for a moment.
fn write_unless_busy(path: &Path, value: &str) -> Result<(), HostError> {
    let mut last = Ok(());
    wait(|| {
        last = write(path, value);
        let busy = last.as_ref().err().and_then(HostError::errno);
        Ok((!matches!(busy, Some(Errno::EAGAIN | Errno::EBUSY))).then_some(()))
    })?;
    last
}

/// Why a PF that is not needed any more stays as it is: others use functions of it, which a change
/// of the number destroys, and which lose their link with the PF's.
fn stays(pf: &Pf, resize: bool) -> Result<Option<String>, HostError> {
    if resize || observe_pf(pf)?.is_none_or(|is| is.set == pf.found) {
        return Ok(None);
    }
    let used = in_use(pf.address)?;
    Ok((!used.is_empty()).then(|| {
        let (pf, used) = (device::label(pf.address), used.join("; "));
        format!("{pf} stays as it is: others use functions of it ({used})")
    }))
}

/// Restores the original settings of a PF. A PF that has vanished has none.
fn release_pf(pf: &Pf, resize: bool) -> Result<(), HostError> {
    if observe_pf(pf)?.is_none() {
        return Ok(());
    }
    if let Some(why) = stays(pf, resize)? {
        tracing::warn!("{why}");
        return Ok(());
    }
    set_pf(pf, pf.found, resize)
}

/// Reads a VF; `None` if it or its PF does not exist.
fn observe_vf(wanted: &Vf) -> Result<Option<Vf>, HostError> {
    let path = device(wanted.address);
    if !is_at(wanted) {
        return Ok(None);
    }
    let Some(pf) = device::interface_of(wanted.pf) else {
        return Ok(None);
    };
    let Some(mut set) = sysfs::vf_settings(&pf)?.remove(&wanted.index) else {
        return Ok(None);
    };
    for attribute in &wanted.accept {
        set.take(*attribute, &wanted.set);
    }
    let interface = match &wanted.interface {
        Some(interface) => netlink::observe_vf_interface(wanted.address, interface)?,
        None => None,
    };
    Ok(Some(Vf {
        set,
        driver: link_name(&path.join("driver")),
        alone: wanted.alone.map(|_| is_alone(&path)),
        interface,
        ..wanted.clone()
    }))
}

fn is_alone(path: &Path) -> bool {
    sysfs::group(path).is_some() && group_others(path).is_empty()
}

/// Sets up an unassigned VF for a tenant.
fn create_vf(vf: &Vf) -> Result<(), HostError> {
    let pf = device::label(vf.pf);
    let what = format!("cannot set up {} ({pf} VF {})", vf.address, vf.index);
    let path = device(vf.address);
    let its = wait(|| Ok(is_at(vf).then_some(())))?;
    if its.is_none() {
        return Err(failed(
            what,
            format!(
                "it is not VF {} of {pf}: `vf-provisioner nic` shows what is",
                vf.index
            ),
        ));
    }
    if vf.alone == Some(true) && !is_alone(&path) {
        let others = group_others(&path);
        let message = if others.is_empty() {
            "it is in no IOMMU group: enable the IOMMU in the firmware and boot with \
             intel_iommu=on or amd_iommu=on"
                .to_owned()
        } else {
            format!(
                "its IOMMU group also holds {}: put the NIC in a slot whose port has ACS, or the \
                 kernel cannot isolate them",
                others.join(", ")
            )
        };
        return Err(failed(what, message));
    }
    unbind(&path)?;
    set_vf(vf, &vf.set)?;
    let Some(driver) = &vf.driver else {
        return Ok(());
    };
    bind(vf.address, driver)?;
    match &vf.interface {
        Some(interface) => take_interface(vf, interface),
        None => Ok(()),
    }
}

/// Sets what differs at the PF.
fn set_vf(vf: &Vf, want: &VfSettings) -> Result<(), HostError> {
    let interface = device::interface_of(vf.pf).ok_or_else(|| {
        failed(
            format!("cannot set VF {} of {}", vf.index, vf.pf),
            "the PF has no interface: was its driver unbound?",
        )
    })?;
    setting::bring(&mut Driver { interface }, vf.index, want, &vf.accept)
}

/// A PF through rtnetlink.
struct Driver {
    interface: String,
}

impl Card for Driver {
    fn label(&self) -> String {
        self.interface.clone()
    }

    fn settings(&self, index: u32) -> Result<Option<VfSettings>, HostError> {
        Ok(sysfs::vf_settings(&self.interface)?.remove(&index))
    }

    fn set(&mut self, index: u32, setting: &Setting) -> Result<(), HostError> {
        if matches!(setting, Setting::MaxRate(_) | Setting::Rates(..)) {
            // A rate is a share of the link's speed, and the link may just be coming up. Some NICs
            // set it without a link.
            let carrier = format!("/sys/class/net/{}/carrier", self.interface);
            wait(|| Ok((number(Path::new(&carrier)) == Some(1)).then_some(())))?;
        }
        netlink::set_vf(&self.interface, request(index, setting))
    }
}

fn request(index: u32, setting: &Setting) -> VfInfo {
    let id = |vlan: &Option<VlanId>| vlan.map_or(0, |vlan| u32::from(vlan.get()));
    match setting {
        Setting::Mac(mac) => {
            let octets = mac.map_or([0; 6], |mac| mac.octets());
            VfInfo::Mac(VfInfoMac::new(index, &octets))
        }
        Setting::Vlan(vlan, qos) => VfInfo::Vlan(VfInfoVlan::new(index, id(vlan), *qos)),
        Setting::VlanProtocol(vlan, qos, protocol) => {
            let protocol = match protocol.as_str() {
                "802.1ad" => VlanProtocol::Ieee8021Ad,
                _ => VlanProtocol::Ieee8021Q,
            };
            let info = VfVlanInfo::new(index, id(vlan), *qos, protocol);
            VfInfo::VlanList(vec![VfVlan::Info(info)])
        }
        Setting::SpoofCheck(on) => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(index, *on)),
        Setting::Trust(on) => VfInfo::Trust(VfInfoTrust::new(index, *on)),
        Setting::LinkState(state) => {
            let state = match state.as_str() {
                "enable" => VfLinkState::Enable,
                "disable" => VfLinkState::Disable,
                _ => VfLinkState::Auto,
            };
            VfInfo::LinkState(VfInfoLinkState::new(index, state))
        }
        Setting::MaxRate(most) => VfInfo::TxRate(VfInfoTxRate::new(index, *most)),
        Setting::Rates(least, most) => VfInfo::Rate(VfInfoRate::new(index, *least, *most)),
    }
}

/// Turns a VF into a network interface for a probe.
pub(super) fn lend(vf: &Vf, driver: &str, interface: &VfInterface) -> Result<(), HostError> {
    unbind(&device(vf.address))?;
    bind(vf.address, driver)?;
    take_interface(vf, interface)
}

/// Returns a lent VF to its driver.
pub(super) fn return_vf(vf: &Vf) -> Result<(), HostError> {
    unbind(&device(vf.address))?;
    match &vf.driver {
        Some(driver) => bind(vf.address, driver),
        None => Ok(()),
    }
}

/// Changes a VF in place.
fn update_vf(vf: &Vf) -> Result<(), HostError> {
    set_vf(vf, &vf.set)?;
    match &vf.interface {
        Some(interface) => netlink::set_vf_interface(interface),
        None => Ok(()),
    }
}

/// Removes all settings of its owner from a VF, and returns it to its original driver.
fn scrub_vf(vf: &Vf) -> Result<(), HostError> {
    let path = device(vf.address);
    // If its PF is gone, so are the settings.
    if !path.exists() || !is_at(vf) {
        return Ok(());
    }
    unbind(&path)?;
    set_vf(vf, &VfSettings::default())?;
    match &vf.found_driver {
        Some(driver) => {
            bind(vf.address, driver)?;
            write(&path.join("driver_override"), "\n")
        }
        None => Ok(()),
    }
}

/// Unbinds a VF from its driver, and keeps other drivers from binding it.
fn unbind(path: &Path) -> Result<(), HostError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let what = format!("cannot take {} from its driver", name.unwrap_or_default());
    if link_name(&path.join("driver")).as_deref() == Some(VFIO) {
        // The kernel would wait for these processes forever.
        let closed = wait(|| Ok(sysfs::open_in(path).is_empty().then_some(())))?;
        if closed.is_none() {
            let open = sysfs::open_in(path);
            let names: Vec<String> = open.iter().map(|it| process::named(*it)).collect();
            return Err(failed(
                what,
                format!(
                    "it is open in {}: stop that first, for example the VM that it was given to",
                    names.join(", ")
                ),
            ));
        }
    }
    write(&path.join("driver_override"), "\n")?;
    match deadline::write(&path.join("driver/unbind"), name.unwrap_or_default()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HostError::io(what)(error))
        }
        _ => Ok(()),
    }
}

fn bind(address: PciAddress, driver: &str) -> Result<(), HostError> {
    let path = device(address);
    let what = format!("cannot bind {address} to {driver}");
    if !Path::new("/sys/bus/pci/drivers").join(driver).exists() {
        // A module's name has underscores where a driver's has hyphens; modprobe takes either.
        let _ = child::output(Command::new("modprobe").arg(driver), &[]);
        if !Path::new("/sys/bus/pci/drivers").join(driver).exists() {
            return Err(failed(
                what,
                format!("this kernel has no driver {driver}: `modprobe {driver}`, or install it"),
            ));
        }
    }
    write(&path.join("driver_override"), driver)?;
    write(
        Path::new("/sys/bus/pci/drivers_probe"),
        &address.to_string(),
    )?;
    let bound = wait(|| {
        let is = link_name(&path.join("driver"));
        Ok((is.as_deref() == Some(driver)).then_some(()))
    })?;
    bound.ok_or_else(|| {
        failed(
            what,
            format!(
                "the driver did not bind it within {} s; `dmesg` may say why",
                PATIENCE.as_secs()
            ),
        )
    })
}

/// Waits for the interface that the driver makes, and moves it to its namespace.
fn take_interface(vf: &Vf, wanted: &VfInterface) -> Result<(), HostError> {
    let path = device(vf.address).join("net");
    let made = wait(|| {
        let mut entries = fs::read_dir(&path).into_iter().flatten().flatten();
        Ok(entries.next().map(|entry| entry.file_name()))
    })?;
    let Some(made) = made.as_deref().and_then(|name| name.to_str()) else {
        return Err(failed(
            format!("cannot set up {}", vf.address),
            format!(
                "its driver made no interface within {} s",
                PATIENCE.as_secs()
            ),
        ));
    };
    netlink::take_vf_interface(made, wanted)?;
    netlink::set_vf_interface(wanted)
}
