//! Brings the settings of one VF to what is wanted, one by one, so that a refusal names its
//! setting. Drivers differ in what they refuse and when: [`Card`] is the line between the two.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use tenant_config::{MacAddr, NicAttribute, VlanId};

use super::function::{VfSettings, parked_mac};
use crate::error::HostError;

/// How long a busy driver is asked again: a VF in reset refuses every setting.
pub const BUSY_FOR: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One request to a PF's driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// `None` is all zero.
    Mac(Option<MacAddr>),
    /// The VLAN, none if `None`, and its priority.
    Vlan(Option<VlanId>, u32),
    /// The same with the tag's protocol.
    VlanProtocol(Option<VlanId>, u32, String),
    /// Frames with another source MAC are dropped.
    SpoofCheck(bool),
    /// The function may change its MAC and be promiscuous.
    Trust(bool),
    /// `auto`, `enable` or `disable`.
    LinkState(String),
    /// The largest rate in Mbit/s; 0 is none.
    MaxRate(u32),
    /// The least and the largest rate in Mbit/s; 0 is none.
    Rates(u32, u32),
}

impl Setting {
    /// The attribute that a tenant's file may accept the lack of; isolation depends on the others.
    pub fn attribute(&self) -> Option<NicAttribute> {
        Some(match self {
            Self::Mac(_) | Self::Vlan(..) => return None,
            Self::VlanProtocol(..) => NicAttribute::VlanProtocol,
            Self::SpoofCheck(_) => NicAttribute::SpoofCheck,
            Self::Trust(_) => NicAttribute::Trust,
            Self::LinkState(_) => NicAttribute::LinkState,
            Self::MaxRate(_) => NicAttribute::MaxRate,
            Self::Rates(..) => NicAttribute::MinRate,
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(Some(mac)) => write!(out, "the MAC {mac}"),
            Self::Mac(None) => out.write_str("the MAC zero"),
            Self::Vlan(Some(vlan), _) => write!(out, "the VLAN {vlan}"),
            Self::Vlan(None, _) => out.write_str("no VLAN"),
            Self::VlanProtocol(.., protocol) => write!(out, "VLAN protocol {protocol}"),
            Self::SpoofCheck(_) => out.write_str("the spoof check"),
            Self::Trust(true) => out.write_str("trust"),
            Self::Trust(false) => out.write_str("no trust"),
            Self::LinkState(state) => write!(out, "link state {state}"),
            Self::MaxRate(rate) => write!(out, "at most {rate} Mbit/s"),
            Self::Rates(rate, _) => write!(out, "at least {rate} Mbit/s"),
        }
    }
}

/// A PF as its driver shows it.
pub trait Card {
    /// Its name in messages.
    fn label(&self) -> String;
    /// The settings of a VF; `None` if the driver does not show it.
    ///
    /// # Errors
    /// If the PF cannot be read.
    fn settings(&self, index: u32) -> Result<Option<VfSettings>, HostError>;
    /// Sets one of them.
    ///
    /// # Errors
    /// What the driver refuses, with its error number.
    fn set(&mut self, index: u32, setting: &Setting) -> Result<(), HostError>;
    /// Waits before a busy driver is asked again.
    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }
}

/// Sets what differs from `want`. A busy driver is asked again for [`BUSY_FOR`]. A refusal of a
/// setting in `accept` is logged only. A driver that refuses MAC zero gets a random one instead.
///
/// # Errors
/// A refusal, with the function and the setting.
pub fn bring(
    card: &mut dyn Card,
    index: u32,
    want: &VfSettings,
    accept: &BTreeSet<NicAttribute>,
) -> Result<(), HostError> {
    let label = format!("{} VF {index}", card.label());
    let is = card.settings(index)?.ok_or_else(|| {
        failed(
            format!("cannot set {label}"),
            "the driver does not show it".to_owned(),
        )
    })?;
    for setting in changes(&is, want) {
        let mut asked = ask(card, index, &setting);
        if setting == Setting::Mac(None) && asked.as_ref().is_err_and(|error| !is_busy(error)) {
            let random = parked_mac().map_err(HostError::io("cannot choose a random MAC"))?;
            tracing::info!(vf = %label, mac = %random, "the driver refuses MAC zero");
            asked = ask(card, index, &Setting::Mac(Some(random)));
        }
        let Err(error) = asked else { continue };
        let attribute = setting.attribute();
        if attribute.is_some_and(|attribute| accept.contains(&attribute)) {
            tracing::warn!(vf = %label, %setting, %error, "refused, and accepted so");
            continue;
        }
        if is_busy(&error) {
            let what = format!("{label}: the NIC's driver is busy and does not take {setting}");
            let seconds = BUSY_FOR.as_secs();
            return Err(failed(
                what,
                format!("{error}, for {seconds} s: the function may hang in a reset"),
            ));
        }
        let what = format!("{label}: the NIC's driver refuses {setting}");
        return Err(failed(
            what,
            match attribute {
                Some(attribute) => format!(
                    "{error}; if the tenant does not need it, accept that in its file: [nic] \
                     accept = [\"{attribute}\"]"
                ),
                None => error.to_string(),
            },
        ));
    }
    Ok(())
}

fn failed(what: String, message: String) -> HostError {
    HostError::Io {
        what,
        source: std::io::Error::other(message),
    }
}

fn is_busy(error: &HostError) -> bool {
    matches!(error.errno(), Some(Errno::EAGAIN | Errno::EBUSY))
}

/// Asks until the driver is not busy, or for too long.
fn ask(card: &mut dyn Card, index: u32, setting: &Setting) -> Result<(), HostError> {
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_PAUSE);
    loop {
        match card.set(index, setting) {
            Err(error) if is_busy(&error) && waited < BUSY_FOR => {
                card.pause(pause);
                waited += pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The requests that turn `is` into `want`.
fn changes(is: &VfSettings, want: &VfSettings) -> Vec<Setting> {
    let mut list = Vec::new();
    let mut note = |differs: bool, setting: Setting| {
        if differs {
            list.push(setting);
        }
    };
    note(is.mac != want.mac, Setting::Mac(want.mac));
    note(
        (is.vlan, is.qos) != (want.vlan, want.qos),
        Setting::Vlan(want.vlan, want.qos),
    );
    note(
        is.vlan_protocol != want.vlan_protocol,
        Setting::VlanProtocol(want.vlan, want.qos, want.vlan_protocol.clone()),
    );
    note(
        is.spoof_check != want.spoof_check,
        Setting::SpoofCheck(want.spoof_check),
    );
    note(is.trust != want.trust, Setting::Trust(want.trust));
    note(
        is.link_state != want.link_state,
        Setting::LinkState(want.link_state.clone()),
    );
    note(
        is.max_rate_mbit != want.max_rate_mbit,
        Setting::MaxRate(want.max_rate_mbit),
    );
    note(
        is.min_rate_mbit != want.min_rate_mbit,
        Setting::Rates(want.min_rate_mbit, want.max_rate_mbit),
    );
    list
}
