//! The configuration of switches, for `--rules`.

use bench::network::{Topology, tenant};
use bench::site::{Cpus, Site, Wires};
use bench::switches::{Peer, PollMode, Switch, Vswitch};

/// The configuration of our switch and of peers, by name.
pub(super) fn all(topology: Topology, cpus: Cpus, peers: &[Peer]) -> Vec<(String, String)> {
    let ours = Vswitch {
        wires: Wires::Memif,
        poll: PollMode::Busy,
    };
    std::iter::once(("vswitch".to_owned(), of(topology, cpus, &ours)))
        .chain(
            peers
                .iter()
                .map(|peer| (peer.to_string(), of(topology, cpus, peer.switch().as_ref()))),
        )
        .map(|(name, rules)| (name, rules.unwrap_or_else(|error| format!("{error:#}"))))
        .collect()
}

/// The configuration of one switch.
pub(super) fn of(topology: Topology, cpus: Cpus, switch: &dyn Switch) -> anyhow::Result<String> {
    let site = Site::lay(switch.wires(), cpus, vec![tenant(0, topology.size())])?;
    Ok(switch.rules(&site))
}
