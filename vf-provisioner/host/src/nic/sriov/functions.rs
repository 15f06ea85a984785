//! Sets PFs and VFs and reads them back: drivers and numbers through sysfs, the rest through
//! rtnetlink.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netlink_packet_route::link::{
    VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoTxRate,
    VfInfoVlan, VfLinkState, VfVlan, VfVlanInfo, VlanProtocol,
};
use tenant_config::{NicAttribute, PciAddress};

use super::function::{Pf, PfSettings, VFIO, Vf, VfInterface, VfSettings};
use super::netlink;
use super::sysfs::{self, group_others, link_name, number};
use crate::error::HostError;
use crate::nic::parts::netlink::{is_up, set_up};
use crate::object::{Context, Live};

const DEVICES: &str = "/sys/bus/pci/devices";
/// How long a driver may take to make an interface, and a NIC to change its number of functions.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn device(address: PciAddress) -> PathBuf {
    Path::new(DEVICES).join(address.to_string())
}

fn failed(what: impl Into<String>, message: impl Into<String>) -> HostError {
    HostError::Io {
        what: what.into(),
        source: std::io::Error::other(message.into()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), HostError> {
    fs::write(path, value).map_err(HostError::io(format!(
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

/// The driver of a PF, by its interface.
pub(super) fn pf_driver(interface: &str) -> Option<String> {
    link_name(
        &Path::new("/sys/class/net")
            .join(interface)
            .join("device/driver"),
    )
}

impl Live for Pf {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_pf(self)
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        set_pf(self, self.set, context.resize_pf)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        set_pf(self, self.set, context.resize_pf)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        release_pf(self, context.resize_pf)
    }
}

impl Live for Vf {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_vf(self)
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

/// Reads the settings of a PF; `None` if it or its interface has vanished.
fn observe_pf(wanted: &Pf) -> Result<Option<Pf>, HostError> {
    let path = device(wanted.address);
    let interface = path.join("net").join(&wanted.interface);
    if !interface.exists() {
        return Ok(None);
    }
    let Some(vfs) = number(&path.join("sriov_numvfs")) else {
        return Ok(None);
    };
    let Some(up) = is_up(&wanted.interface)? else {
        return Ok(None);
    };
    Ok(Some(Pf {
        set: PfSettings {
            autoprobe: number(&path.join("sriov_drivers_autoprobe")) != Some(0),
            vfs,
            up,
        },
        ..wanted.clone()
    }))
}

/// Sets a PF. A change of its number of VFs goes through 0 and destroys them all, so it is made
/// only if no VF is in use or `resize` allows it.
fn set_pf(pf: &Pf, want: PfSettings, resize: bool) -> Result<(), HostError> {
    let path = device(pf.address);
    let what = format!(
        "cannot set physical function {} ({})",
        pf.address, pf.interface
    );
    if !path.join("net").join(&pf.interface).exists() {
        return Err(failed(
            what,
            format!(
                "it has no interface {}: was its driver unbound?",
                pf.interface
            ),
        ));
    }
    let is = number(&path.join("sriov_numvfs")).unwrap_or(0);
    if is != 0 && is != want.vfs && !resize {
        let inventory = sysfs::read()?;
        let pf = inventory.pfs.iter().find(|it| it.address == pf.address);
        let taken: Vec<String> = pf
            .iter()
            .flat_map(|pf| &pf.vfs)
            .filter_map(|vf| Some(format!("VF {}: {}", vf.index, vf.taken()?)))
            .collect();
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
    // Some NICs set up their functions only while the link is up.
    set_up(&pf.interface, want.up || want.vfs != 0)?;
    if is != want.vfs {
        if is != 0 {
            write(&path.join("sriov_numvfs"), "0")?;
        }
        if want.vfs != 0 {
            write(&path.join("sriov_numvfs"), &want.vfs.to_string())?;
        }
        let settled = wait(|| {
            let seen = sysfs::vf_settings(&pf.interface)?;
            Ok((seen.len() == want.vfs as usize).then_some(()))
        })?;
        if settled.is_none() {
            return Err(failed(
                what,
                format!("its {} virtual functions did not appear", want.vfs),
            ));
        }
    }
    set_up(&pf.interface, want.up)
}

/// Restores the original settings of a PF. A PF that has vanished has none.
fn release_pf(pf: &Pf, resize: bool) -> Result<(), HostError> {
    if observe_pf(pf)?.is_none() {
        return Ok(());
    }
    set_pf(pf, pf.found, resize)
}

/// Reads a VF; `None` if it or its PF does not exist.
fn observe_vf(wanted: &Vf) -> Result<Option<Vf>, HostError> {
    let path = device(wanted.address);
    if !is_its(wanted) {
        return Ok(None);
    }
    let Some(mut set) = sysfs::vf_settings(&wanted.pf)?.remove(&wanted.index) else {
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

/// Whether the function at this address is still the VF of this number and PF.
fn is_its(vf: &Vf) -> bool {
    let link = device(vf.address).join(format!("physfn/virtfn{}", vf.index));
    link_name(&link).is_some_and(|name| name == vf.address.to_string())
}

fn is_alone(path: &Path) -> bool {
    sysfs::group(path).is_some() && group_others(path).is_empty()
}

/// Sets up an unassigned VF for a tenant.
fn create_vf(vf: &Vf) -> Result<(), HostError> {
    let what = format!("cannot set up {} ({} VF {})", vf.address, vf.pf, vf.index);
    let path = device(vf.address);
    let its = wait(|| Ok(is_its(vf).then_some(())))?;
    if its.is_none() {
        return Err(failed(
            what,
            format!(
                "it is not VF {} of {}: `vf-provisioner nic` shows what is",
                vf.index, vf.pf
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
    set_vf(vf)?;
    let Some(driver) = &vf.driver else {
        return Ok(());
    };
    bind(vf.address, driver)?;
    match &vf.interface {
        Some(interface) => take_interface(vf, interface),
        None => Ok(()),
    }
}

/// Sets the attributes that differ, one by one, so that a refusal names its attribute.
fn set_vf(vf: &Vf) -> Result<(), HostError> {
    let is = sysfs::vf_settings(&vf.pf)?
        .remove(&vf.index)
        .ok_or_else(|| {
            failed(
                format!("cannot set VF {} of {}", vf.index, vf.pf),
                "the driver does not show it",
            )
        })?;
    for (attribute, info, shown) in changes(vf.index, &is, &vf.set) {
        if matches!(info, VfInfo::TxRate(_) | VfInfo::Rate(_)) {
            // A rate is a share of the link's speed, and the link may just be coming up. Some NICs
            // set it without a link.
            let carrier = format!("/sys/class/net/{}/carrier", vf.pf);
            wait(|| Ok((number(Path::new(&carrier)) == Some(1)).then_some(())))?;
        }
        let Err(error) = netlink::set_vf(&vf.pf, info) else {
            continue;
        };
        match attribute {
            Some(attribute) if vf.accept.contains(&attribute) => {
                tracing::warn!(vf = %vf.address, %attribute, %error, "refused, and accepted so");
            }
            Some(attribute) => {
                return Err(failed(
                    format!(
                        "{} VF {}: the NIC's driver refuses {shown}",
                        vf.pf, vf.index
                    ),
                    format!(
                        "{error}; if the tenant does not need it, accept that in its file: \
                         [nic] accept = [\"{attribute}\"]"
                    ),
                ));
            }
            None => return Err(error),
        }
    }
    Ok(())
}

/// The requests to the PF that turn `is` into `want`.
fn changes(
    index: u32,
    is: &VfSettings,
    want: &VfSettings,
) -> Vec<(Option<NicAttribute>, VfInfo, String)> {
    let mut list = Vec::new();
    if is.mac != want.mac {
        let octets = want.mac.map_or([0; 6], |mac| mac.octets());
        let info = VfInfo::Mac(VfInfoMac::new(index, &octets));
        list.push((None, info, "the MAC".to_owned()));
    }
    let protocol = |text: &str| match text {
        "802.1ad" => VlanProtocol::Ieee8021Ad,
        _ => VlanProtocol::Ieee8021Q,
    };
    let vlan = want.vlan.map_or(0, |vlan| u32::from(vlan.get()));
    if (is.vlan, is.qos) != (want.vlan, want.qos) {
        let info = VfInfo::Vlan(VfInfoVlan::new(index, vlan, want.qos));
        list.push((None, info, "the VLAN".to_owned()));
    }
    if is.vlan_protocol != want.vlan_protocol {
        let info = VfVlanInfo::new(index, vlan, want.qos, protocol(&want.vlan_protocol));
        let info = VfInfo::VlanList(vec![VfVlan::Info(info)]);
        let shown = format!("VLAN protocol {}", want.vlan_protocol);
        list.push((Some(NicAttribute::VlanProtocol), info, shown));
    }
    if is.spoof_check != want.spoof_check {
        let info = VfInfo::SpoofCheck(VfInfoSpoofCheck::new(index, want.spoof_check));
        list.push((
            Some(NicAttribute::SpoofCheck),
            info,
            "the spoof check".to_owned(),
        ));
    }
    if is.trust != want.trust {
        let info = VfInfo::Trust(VfInfoTrust::new(index, want.trust));
        list.push((Some(NicAttribute::Trust), info, "no trust".to_owned()));
    }
    if is.link_state != want.link_state {
        let state = match want.link_state.as_str() {
            "enable" => VfLinkState::Enable,
            "disable" => VfLinkState::Disable,
            _ => VfLinkState::Auto,
        };
        let info = VfInfo::LinkState(VfInfoLinkState::new(index, state));
        let shown = format!("link state {}", want.link_state);
        list.push((Some(NicAttribute::LinkState), info, shown));
    }
    if is.max_rate_mbit != want.max_rate_mbit {
        let info = VfInfo::TxRate(VfInfoTxRate::new(index, want.max_rate_mbit));
        let shown = format!("at most {} Mbit/s", want.max_rate_mbit);
        list.push((Some(NicAttribute::MaxRate), info, shown));
    }
    if is.min_rate_mbit != want.min_rate_mbit {
        let info = VfInfoRate::new(index, want.min_rate_mbit, want.max_rate_mbit);
        let shown = format!("at least {} Mbit/s", want.min_rate_mbit);
        list.push((Some(NicAttribute::MinRate), VfInfo::Rate(info), shown));
    }
    list
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
    set_vf(vf)?;
    match &vf.interface {
        Some(interface) => netlink::set_vf_interface(interface),
        None => Ok(()),
    }
}

/// Removes all settings of its owner from a VF, and returns it to its original driver.
fn scrub_vf(vf: &Vf) -> Result<(), HostError> {
    let path = device(vf.address);
    // If its PF is gone, so are the settings.
    if !path.exists() || !is_its(vf) {
        return Ok(());
    }
    unbind(&path)?;
    set_vf(&Vf {
        set: VfSettings::default(),
        ..vf.clone()
    })?;
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
            let numbers: Vec<String> = open.iter().map(ToString::to_string).collect();
            return Err(failed(
                what,
                format!(
                    "it is open in process {}: stop that first, for example the VM that it was \
                     given to",
                    numbers.join(", ")
                ),
            ));
        }
    }
    write(&path.join("driver_override"), "\n")?;
    match fs::write(path.join("driver/unbind"), name.unwrap_or_default()) {
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
        let _ = Command::new("modprobe")
            .arg(driver)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
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
