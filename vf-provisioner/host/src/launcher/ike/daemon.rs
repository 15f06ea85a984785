//! A tenant's IKE daemon, as data, and what it says of its peers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::{IkeConfig, IkePeer, Name};

use crate::key::Key;
use crate::launcher::vm::machine::Accel;
use crate::object::Object;

/// How far the users of IKE daemons are from those of their switches.
const UIDS_APART: u32 = 1000;

/// The user of the IKE daemon beside a switch of that user.
pub const fn uid_beside(switch: u32) -> u32 {
    switch.saturating_add(UIDS_APART)
}

/// A tenant's IKE daemon, as data. It names files of secrets and holds none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ike {
    /// Whose.
    pub tenant: Name,
    /// Where it runs.
    #[serde(flatten)]
    pub place: Place,
    /// What it is configured from.
    pub config: IkeConfig,
    /// The switch: without it, and behind another one, it ends.
    pub needs: BTreeSet<Key>,
}

/// Where a daemon runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// As a process of this host.
    Process {
        /// The unprivileged user and group it runs as: not the switch's.
        uid: u32,
        /// Its control group.
        cgroup: String,
        /// The executable on the host.
        binary: PathBuf,
    },
    /// In the machine of its switch.
    Machine {
        /// The user of the machine on the host.
        machine_uid: u32,
        /// What executes it.
        accel: Accel,
    },
}

impl Place {
    /// Whether it is the place of a daemon beside a switch of that user.
    pub(crate) fn is_beside(&self, switch_uid: u32) -> bool {
        match self {
            Self::Process { uid, .. } => *uid == uid_beside(switch_uid),
            Self::Machine { machine_uid, .. } => *machine_uid == switch_uid,
        }
    }

    /// How long the daemon may take for what a process has `usual` for.
    pub(super) fn within(&self, usual: Duration) -> Duration {
        match self {
            Self::Process { .. } => usual,
            Self::Machine { accel, .. } => usual.max(accel.answers_within()),
        }
    }
}

impl Object for Ike {
    fn key(&self) -> Key {
        Key::Ike {
            tenant: self.tenant.clone(),
        }
    }

    fn needs(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.needs)
    }

    /// A running daemon takes other connections and keys, but is of one user and address for ever.
    fn changes_in_place(&self, wanted: &Self) -> bool {
        let rest = |it: &Self| (it.place.clone(), it.config.vtep);
        rest(self) == rest(wanted)
    }
}

impl Ike {
    /// A sentence for each peer that requires IPsec and has no association, by what the daemon
    /// says: nothing passes to or from it.
    pub fn not_in_force(&self, said: &Result<Vec<Association>, String>) -> Vec<String> {
        let peers = self.config.peers.iter();
        let sentence = |peer: &IkePeer| {
            let why = match said {
                Err(why) => why.as_str(),
                Ok(all) => {
                    let name = peer.name.as_str();
                    let found = all.iter().any(|it| it.peer == name && it.children > 0);
                    (!found).then_some("it has no association")?
                }
            };
            Some(format!(
                "tenant {}: peer {} ({}) requires IPsec, and nothing passes: {why}",
                self.tenant, peer.name, peer.vtep
            ))
        };
        peers.filter_map(sentence).collect()
    }
}

/// What a daemon says of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Association {
    /// The peer.
    pub peer: String,
    /// The state of IKE's own association.
    pub state: String,
    /// Who the peer has proven to be.
    pub identity: String,
    /// How many associations of ESP are in use.
    pub children: usize,
}
