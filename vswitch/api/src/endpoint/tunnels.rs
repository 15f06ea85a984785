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
    /// Another station that claimed the address of the switch's own endpoint by ARP or ND within
    /// two minutes; `null` if none did.
    #[serde(default)]
    pub vtep_conflict: Option<OtherStation>,
    /// What became of routers' reports of a smaller path MTU.
    #[serde(default)]
    pub path_mtu: Reports,
    /// What became of reports that a packet did not arrive.
    #[serde(default)]
    pub unreachable: Reports,
    /// The peers in the order of the configuration.
    #[serde(deserialize_with = "list::<_, _, PEERS_MAX>")]
    pub peers: Vec<Peer>,
}

/// The most reasons for not believing a report.
const REJECTIONS_MAX: usize = 64;

/// The most `sources` of a peer.
const SOURCES_MAX: usize = 16;

/// Reports of routers and hosts about packets to peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reports {
    /// Reports that lowered the path MTU to a peer, or that say that one cannot be reached.
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

/// A station that is not the one that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherStation {
    /// Its MAC.
    pub mac: String,
    /// Seconds since it was last seen.
    pub age_s: u64,
}

/// A believed report that packets to a peer do not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unreachable {
    /// What was said: `network`, `host`, `protocol`, `port` or `prohibited`.
    pub why: String,
    /// The source of the report.
    pub from: String,
    /// Seconds since the last one.
    pub age_s: u64,
}

/// A peer of the tunnel. Frames and bytes are those inside the tunnel, from the destination MAC on.
/// Dropped frames are among the drops of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its endpoint.
    pub vtep: String,
    /// Further addresses from which its packets come.
    #[serde(default, deserialize_with = "list::<_, _, SOURCES_MAX>")]
    pub sources: Vec<String>,
    /// The MAC that receives frames there.
    pub mac: String,
    /// The next hop towards the endpoint on the uplink.
    pub next_hop: String,
    /// The next hop's MAC; `null` while the switch solicits it.
    pub next_hop_mac: Option<String>,
    /// The next hop's state: `reachable` while it answers ARP or ND, otherwise `unresolved`. It
    /// says nothing of the peer behind it: `last_seen_s` says whether that is alive.
    pub state: String,
    /// Another MAC than `mac` from which frames of the peer came within two minutes; `null` if none
    /// did.
    #[serde(default)]
    pub other_mac: Option<OtherStation>,
    /// Who said within two minutes that packets to the endpoint do not arrive; `null` if nobody
    /// did.
    #[serde(default)]
    pub unreachable: Option<Unreachable>,
    /// Another station that claimed the next hop's address within two minutes, while the next hop
    /// answered; `null` if none did.
    #[serde(default)]
    pub next_hop_conflict: Option<OtherStation>,
    /// The largest IP packet that the underlay carries to the endpoint, in bytes, by the
    /// configuration: the peer's `mtu`, or the uplink's.
    #[serde(default)]
    pub underlay_mtu: u16,
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
        right("UNDERLAY MTU"),
        right("MTU"),
        right("TX"),
        right("TX BYTES"),
        right("RX"),
        right("RX BYTES"),
        right("LAST SEEN"),
        right("PREFIXES"),
        left("SOURCES"),
        left("TROUBLE"),
    ]);
    for peer in &tunnel.peers {
        let seen = peer.last_seen_s.map(|seconds| format!("{seconds} s ago"));
        table.row([
            peer.name.clone(),
            peer.vtep.clone(),
            peer.next_hop.clone(),
            peer.state.clone(),
            peer.underlay_mtu.to_string(),
            peer.mtu.to_string(),
            peer.tx_frames.to_string(),
            peer.tx_bytes.to_string(),
            peer.rx_frames.to_string(),
            peer.rx_bytes.to_string(),
            seen.unwrap_or_else(|| "never".to_owned()),
            peer.prefixes.len().to_string(),
            or_dash(peer.sources.join(" ")),
            or_dash(troubles(peer)),
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
        unreachable,
        vtep_conflict,
        ..
    } = tunnel;
    let [kind, vtep, mac] = [kind, vtep, mac].map(|text| cut(text, CELL_MAX));
    let head = format!("{kind}, VNI {vni}, from {vtep} port {port}, MAC {mac}");
    let mut text = format!("{head}, packets up to {mtu} bytes\n");
    text += &counts("path MTU reports", path_mtu);
    text += &counts("unreachable reports", unreachable);
    if let Some(OtherStation { mac, age_s }) = vtep_conflict {
        let mac = cut(mac, CELL_MAX);
        let _ = writeln!(text, "ANOTHER STATION HAS {vtep}: {mac}, {age_s} s ago");
    }
    format!("{text}\n{table}")
}

/// The line about reports of one kind.
fn counts(what: &str, reports: &Reports) -> String {
    let rejected = reports.rejected.iter().map(|why| why.reports);
    let all = rejected.fold(0, u64::saturating_add);
    let mut line = format!("{what}: {} believed, {all} rejected", reports.believed);
    for Rejected {
        reason, reports: n, ..
    } in reports.rejected.iter().filter(|why| why.reports > 0)
    {
        let _ = write!(line, "; {} {n}", cut(reason, CELL_MAX));
    }
    line + "\n"
}

/// What goes wrong with a peer, in a few words.
fn troubles(peer: &Peer) -> String {
    let mac = peer.other_mac.iter();
    let mac = mac.map(|it| format!("comes from MAC {}", it.mac));
    let unreachable = peer.unreachable.iter();
    let unreachable = unreachable.map(|it| format!("{} unreachable by {}", it.why, it.from));
    let next_hop = peer.next_hop_conflict.iter();
    let next_hop = next_hop.map(|it| format!("next hop also at {}", it.mac));
    let all: Vec<String> = mac.chain(unreachable).chain(next_hop).collect();
    all.join("; ")
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}
