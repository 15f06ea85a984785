//! Who takes part in a probe, and how it is made.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::MacAddr;

use super::weakness::Weakness;
use crate::error::HostError;

/// What a station is to a tenant's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The T VF or whatever else is a VM's end of a port.
    Guest,
    /// The Gw VF: the switch's end of a port.
    Gateway,
    /// The In/Out VF.
    Uplink,
    /// A function that is nobody's.
    Witness,
    /// The physical function, or what else is the host's own interface.
    Host,
    /// An interface at the other end of the NIC's cable.
    Wire,
}

/// Where a station's frames are sent and seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// A network interface, which is up.
    Interface {
        /// Its network namespace; the provisioner's own where none is given.
        namespace: Option<String>,
        /// Its name there.
        interface: String,
    },
    /// A device that only a running switch has: it sends nothing, and hears as far as the switch
    /// counts what it drops.
    Switch {
        /// The switch's executable.
        program: PathBuf,
        /// Its control socket.
        control: PathBuf,
        /// The port's name, `uplink` for the In/Out side.
        port: String,
    },
}

/// One end of the embedded switch, of its cable, or of what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// As the report names it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// For [`Role::Guest`] and [`Role::Gateway`]: the port whose two ends they are.
    pub port: Option<String>,
    /// Its MAC address, as the NIC is to enforce it.
    pub mac: MacAddr,
    /// The VLAN it is put on by the NIC.
    pub vlan: Option<u16>,
    /// Where it is.
    pub place: Place,
    /// That it sends and hears was shown before, as by a gateway that answered.
    pub proven: bool,
    /// It only listens.
    pub quiet: bool,
}

/// What refuses a forged source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fabric {
    /// The NIC's embedded switch: nobody ever sees it.
    Embedded,
    /// The tenant's switch: a port is a mere pair of ends, and what one sends the other hears.
    Pair,
}

/// How a probe is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is between the stations.
    pub fabric: Fabric,
    /// How long links may take until frames pass that must.
    pub patience: Duration,
    /// How long a frame may take.
    pub settle: Duration,
    /// What the operator accepts of this NIC, by name.
    pub accepted: BTreeSet<Weakness>,
}

impl Options {
    /// With times that an emulated NIC on a slow machine keeps.
    pub fn new(fabric: Fabric) -> Self {
        Self {
            fabric,
            patience: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            accepted: BTreeSet::new(),
        }
    }
}

/// Kinds of frames. The source is the sender's own and there is no tag unless the kind says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// For the listener's MAC.
    Unicast,
    /// For another station's MAC, or one that nobody has.
    Elsewhere,
    /// For everybody.
    Broadcast,
    /// For groups that the listener has joined.
    Multicast,
    /// With the source of another station, or of none.
    Forged,
    /// With one 802.1Q tag.
    Tagged,
    /// With one 802.1ad tag.
    ServiceTagged,
    /// With an 802.1Q tag of VLAN 0.
    PriorityTagged,
    /// With two tags.
    DoubleTagged,
    /// All of these together, where a listener cannot tell them apart.
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
