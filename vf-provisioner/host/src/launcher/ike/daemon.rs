//! A tenant's IKE daemon, as data, and what it says of its peers.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenant_config::{IkeConfig, IkePeer, Name};

use crate::key::Key;
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
    /// The unprivileged user and group it runs as: not the switch's.
    pub uid: u32,
    /// Its control group.
    pub cgroup: String,
    /// The executable on the host.
    pub binary: PathBuf,
    /// What it is configured from.
    pub config: IkeConfig,
    /// The switch: without it, and behind another one, it ends.
    pub needs: BTreeSet<Key>,
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
        let rest = |it: &Self| (it.uid, it.cgroup.clone(), it.binary.clone(), it.config.vtep);
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
