//! The stations and options of a probe.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::MacAddr;

use super::weakness::Weakness;
use crate::error::HostError;

/// The role of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The T VF, or another VM's end of a port.
    Guest,
    /// The Gw VF: the switch's end of a port.
    Gateway,
    /// The In/Out VF.
    Uplink,
    /// An unassigned function.
    Witness,
    /// The PF, or another interface of the host.
    Host,
    /// An interface at the other end of the NIC's cable.
    Wire,
}

/// Where a station sends and receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// A network interface, which is up.
    Interface {
        /// Its network namespace; `None` is the provisioner's own.
        namespace: Option<String>,
        /// Its name there.
        interface: String,
    },
    /// A device that is open in a running switch: it sends nothing, and received frames are known
    /// only from the switch's drop counters.
    Switch {
        /// The program that asks it; by default this one.
        program: Option<PathBuf>,
        /// Its control socket.
        control: PathBuf,
        /// Its user.
        uid: u32,
        /// The port's name, `uplink` for the In/Out side.
        port: String,
    },
}

/// One end of the embedded switch, of its cable, or of what replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its name in the report.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// For [`Role::Guest`] and [`Role::Gateway`]: the port whose two ends they are.
    pub port: Option<String>,
    /// The MAC address that the NIC should enforce.
    pub mac: MacAddr,
    /// The VLAN to which the NIC limits it.
    pub vlan: Option<u16>,
    /// Its place.
    pub place: Place,
    /// Whether it has already shown that it sends and receives, for example by an answer to ARP.
    pub proven: bool,
    /// Whether it only listens.
    pub quiet: bool,
}

/// What refuses a forged source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fabric {
    /// The NIC's embedded switch: no station receives the frame.
    Embedded,
    /// The tenant's switch: a port is a pair of ends, and each receives what the other sends.
    Pair,
}

/// The options of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What connects the stations.
    pub fabric: Fabric,
    /// How long links may take until frames that must pass do.
    pub patience: Duration,
    /// How long a frame may take to arrive.
    pub settle: Duration,
    /// The weaknesses of this NIC that the operator accepts.
    pub accepted: BTreeSet<Weakness>,
}

impl Options {
    /// Times that suit an emulated NIC on a slow machine.
    pub fn new(fabric: Fabric) -> Self {
        Self {
            fabric,
            patience: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            accepted: BTreeSet::new(),
        }
    }
}

/// Kinds of frames. Unless the kind says otherwise, the source is the sender's own and there is no
/// tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To the listener's MAC.
    Unicast,
    /// To another station's MAC, or an unused one.
    Elsewhere,
    /// To the broadcast address.
    Broadcast,
    /// To groups that the listener has joined.
    Multicast,
    /// With another station's source, or an unused one.
    Forged,
    /// With one 802.1Q tag.
    Tagged,
    /// With one 802.1ad tag.
    ServiceTagged,
    /// With an 802.1Q tag of VLAN 0.
    PriorityTagged,
    /// With two tags.
    DoubleTagged,
    /// All of these together, if the listener cannot distinguish them.
    Any,
}

pub(super) fn failed(message: String) -> HostError {
    HostError::Program {
        program: "the mediation probe",
        message,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::nic::mediation) fn station(
        role: Role,
        port: Option<&str>,
        vlan: Option<u16>,
    ) -> Station {
        Station {
            name: format!("{role:?} {}", port.unwrap_or_default()),
            role,
            port: port.map(str::to_owned),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"),
            vlan,
            place: Place::Interface {
                namespace: None,
                interface: "none".to_owned(),
            },
            proven: false,
            quiet: false,
        }
    }
}
