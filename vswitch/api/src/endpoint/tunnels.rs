//! `GET /v1/tunnels`: the tenant's tunnel and its peers.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONFIG_MAX, Operation, PEERS_MAX, PREFIXES_MAX, Reply, Show, Spec, schema_of, show};
use crate::bounded::list;
use crate::plain::cut;
use crate::table::{CELL_MAX, Table, left, right};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/tunnels",
    get: Operation {
        summary: "The tenant's tunnel and its peers; `null` for a tenant without a tunnel",
        flags: &[],
        reply: Reply::Json(schema_of::<Option<Tunnel>>),
        answer_max: CONFIG_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "tunnels",
        help: "The tunnel's peers: frames, next hops, when each was last heard",
        print: |answer, form| show(answer, form, text),
    }),
};

/// The answer of `GET /v1/tunnels` for a tenant with a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    /// `geneve` or `vxlan`.
    pub kind: String,
    /// The tenant's virtual network.
    pub vni: u32,
    /// The switch's own endpoint.
    pub vtep: String,
    /// The UDP destination port.
    pub port: u16,
    /// The switch's MAC inside the tunnel.
    pub mac: String,
    /// The largest IP packet inside the tunnel, in bytes, by the uplink's MTU.
    pub mtu: u16,
    /// What became of routers' reports of a smaller path MTU.
    #[serde(default)]
    pub path_mtu: PathMtu,
    /// The peers in the order of the configuration.
    #[serde(deserialize_with = "list::<_, _, PEERS_MAX>")]
    pub peers: Vec<Peer>,
}

/// The most reasons for not believing a report.
const REJECTIONS_MAX: usize = 64;

/// Routers' reports of a smaller path MTU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMtu {
    /// Reports that lowered the path MTU to a peer.
    pub believed: u64,
    /// Reports that were not believed, by reason.
    #[serde(deserialize_with = "list::<_, _, REJECTIONS_MAX>")]
    pub rejected: Vec<Rejected>,
}

/// The reports that were not believed for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The reason's name.
    pub reason: String,
    /// How many there were.
    pub reports: u64,
    /// What the reason means.
    pub help: String,
}

/// A peer of the tunnel. Frames and bytes are those inside the tunnel, from the destination MAC on.
/// Dropped frames are among the drops of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its endpoint.
    pub vtep: String,
    /// The MAC that receives frames there.
    pub mac: String,
    /// The next hop towards the endpoint on the uplink.
    pub next_hop: String,
    /// The next hop's MAC; `null` while the switch solicits it.
    pub next_hop_mac: Option<String>,
    /// The next hop's state: `reachable` or `unresolved`. Only `last_seen_s` says whether the peer
    /// behind it is alive.
    pub state: String,
    /// The largest IP packet that reaches the peer, in bytes; smaller than the tunnel's after a
    /// router reported a smaller path MTU.
    pub mtu: u16,
    /// Frames sent to the peer.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames received from the peer that passed the filter.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Seconds since the last of them; `null` before the first.
    pub last_seen_s: Option<u64>,
    /// The prefixes behind the peer.
    #[serde(deserialize_with = "list::<_, _, PREFIXES_MAX>")]
    pub prefixes: Vec<String>,
}

fn text(tunnel: &Option<Tunnel>) -> String {
    let Some(tunnel) = tunnel else {
        return "The tenant has no tunnel.\n".to_owned();
    };
    let mut table = Table::new([
        left("PEER"),
        left("VTEP"),
        left("NEXT HOP"),
        left("STATE"),
        right("MTU"),
        right("TX"),
        right("TX BYTES"),
        right("RX"),
        right("RX BYTES"),
        right("LAST SEEN"),
        right("PREFIXES"),
    ]);
    for peer in &tunnel.peers {
        let seen = peer.last_seen_s.map(|seconds| format!("{seconds} s ago"));
        table.row([
            peer.name.clone(),
            peer.vtep.clone(),
            peer.next_hop.clone(),
            peer.state.clone(),
            peer.mtu.to_string(),
            peer.tx_frames.to_string(),
            peer.tx_bytes.to_string(),
            peer.rx_frames.to_string(),
            peer.rx_bytes.to_string(),
            seen.unwrap_or_else(|| "never".to_owned()),
            peer.prefixes.len().to_string(),
        ]);
    }
    let Tunnel {
        kind,
        vni,
        vtep,
        port,
        mac,
        mtu,
        path_mtu,
        ..
    } = tunnel;
    let [kind, vtep, mac] = [kind, vtep, mac].map(|text| cut(text, CELL_MAX));
    let head = format!("{kind}, VNI {vni}, from {vtep} port {port}, MAC {mac}");
    let mut reports = format!("path MTU reports: {} believed", path_mtu.believed);
    let rejected = path_mtu.rejected.iter().map(|why| why.reports);
    let all = rejected.fold(0, u64::saturating_add);
    let _ = write!(reports, ", {all} rejected");
    for Rejected {
        reason, reports: n, ..
    } in path_mtu.rejected.iter().filter(|why| why.reports > 0)
    {
        let _ = write!(reports, "; {} {n}", cut(reason, CELL_MAX));
    }
    format!("{head}, packets up to {mtu} bytes\n{reports}\n\n{table}")
}
