//! Whether frames still reach a switch on the virtual functions of a NIC, whatever runs it.
//!
//! A switch whose functions are dead is alive, answers, and shows links that are up. So each
//! function is sent a frame from its NIC, and the switch's counters must show that it came. What a
//! switch reports is no more than its word, but it can only deceive about itself.

use std::time::{Duration, Instant};

use vswitch_api::endpoint::ports::Ports;

use super::control;
use super::files::TenantFiles;
use super::switch::{Function, Switch};
use crate::nic::sriov::knock::{Knock, Presence, presence};

/// How long a frame may take to be counted, if the switch's launcher does not say.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The first pause before the counters are read again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Whether frames reach a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hearing {
    /// They reach each function whose NIC can send.
    Hears,
    /// No NIC can send, or the switch does not say what it has received, which is found elsewhere.
    Unknown,
    /// They do not; a sentence.
    Deaf(String),
}

impl Hearing {
    /// Why frames do not reach it.
    pub(super) fn why(self) -> Option<String> {
        match self {
            Self::Deaf(why) => Some(why),
            Self::Hears | Self::Unknown => None,
        }
    }
}

/// Sends a frame to each function of the switch. The wait is bounded.
pub(super) fn hearing(files: &TenantFiles, switch: &Switch) -> Hearing {
    let functions = switch.functions();
    let leaving = |it: &&Function| presence(it.address) == Presence::Leaving;
    if let Some(Function { port, address, .. }) = functions.iter().find(leaving) {
        return Hearing::Deaf(format!(
            "virtual function {address} of port {port} is gone, or the kernel removes it and waits \
             for the switch to close it"
        ));
    }
    let mut silent = Vec::new();
    for function in &functions {
        match Knock::open(function.address, function.mac, function.vlan) {
            Ok(Some(knock)) => silent.push((function, knock)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(function = %function.address, %error, "it cannot be sent a frame");
            }
        }
    }
    if silent.is_empty() {
        return match functions.is_empty() {
            true => Hearing::Hears,
            false => Hearing::Unknown,
        };
    }
    let Ok(before) = control::ports(files, switch) else {
        return Hearing::Unknown;
    };
    let until = Instant::now() + switch.answers_within().unwrap_or(PATIENCE);
    let mut pause = FIRST_PAUSE;
    loop {
        // One that its NIC does not take says nothing about the switch.
        silent.retain(|(_, knock)| knock.send().is_ok());
        std::thread::sleep(pause);
        pause = (pause * 2).min(MAX_PAUSE);
        let Ok(now) = control::ports(files, switch) else {
            return Hearing::Unknown;
        };
        silent.retain(|(function, _)| received(&before, function) == received(&now, function));
        let Some((Function { port, address, .. }, knock)) = silent.first() else {
            return Hearing::Hears;
        };
        if Instant::now() >= until {
            let pf = &knock.pf;
            return Hearing::Deaf(format!(
                "port {port} receives no frame that {pf} sends to its virtual function {address}, \
                 as after a reset of {pf}"
            ));
        }
    }
}

/// The frames that a function's port has received. The worker counts each, also one that it drops.
fn received(ports: &Ports, function: &Function) -> Option<u64> {
    let port = ports.ports.iter().find(|port| port.name == function.port);
    port.map(|port| port.rx_frames)
}
