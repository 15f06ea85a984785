//! What the control API says: one type per resource, written by the switch and read by `show` and
//! `top`. Fields are API: they are added, never renamed.

use serde::{Deserialize, Serialize};

/// `GET /v1/ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The tenant's name.
    pub tenant: String,
    /// The tenant's ports in the order of the configuration, then the uplink.
    pub ports: Vec<Port>,
    /// What the worker spent on them.
    pub worker: Worker,
}

/// One port's counters, from the switch's point of view: `rx` is what the VM sent. Every frame that came
/// in is in one of `forwarded`, `replies` and `dropped`; the last also has what could not go out (`tx-full`,
/// `no-buffer`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port's name; `uplink` is the In/Out side.
    pub name: String,
    /// What carries the port, as `af_packet:red-gw1`.
    pub device: String,
    /// Whether the device's link is up, a second ago or less.
    pub link_up: bool,
    /// Frames that the device lost before the switch saw them, because its ring was full.
    pub rx_missed: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, from the destination MAC on, without FCS.
    pub rx_bytes: u64,
    /// Of the received frames, those that went to another port.
    pub forwarded: u64,
    /// Of the received frames, those that the gateway answered.
    pub replies: u64,
    /// ICMP errors returned to the port; the frames they are about are dropped.
    pub icmp_errors: u64,
    /// Frames dropped, for whatever reason.
    pub dropped: u64,
    /// Frames for the port: forwarded, answers, errors and the gateway's own.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

/// `GET /v1/drops`: an array of these, those with no frames left out unless `?all=1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The port that the frames came from.
    pub port: String,
    /// The reason's name.
    pub reason: String,
    /// The reason's number.
    pub number: u8,
    /// How many frames.
    pub frames: u64,
    /// The reason in a sentence.
    pub help: String,
}

/// `GET /v1/routes`: an array of these, the longest prefix first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub prefix: String,
    /// What is there, as the route table calls it.
    pub kind: String,
    /// The port it leads to; none where it leads to none.
    pub port: Option<String>,
    /// The tunnel's peer that it leads to; absent where it leads to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// `GET /v1/neighbours`: an array of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: String,
    /// The port it is at.
    pub port: String,
    /// Its MAC; none while it is asked for.
    pub mac: Option<String>,
    /// `static` (from the configuration), `leased` (by DHCP), `reachable` or `unresolved` (a router).
    pub state: String,
}

/// `GET /v1/tunnels`: the tenant's tunnel, or `null` for a tenant without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// `geneve` or `vxlan`.
    pub kind: String,
    /// The tenant's virtual network.
    pub vni: u32,
    /// Our own endpoint.
    pub vtep: String,
    /// The UDP destination port.
    pub port: u16,
    /// The MAC of our side, inside the tunnel.
    pub mac: String,
    /// The largest IP packet that the tunnel carries, in bytes, as far as the uplink's MTU goes.
    pub mtu: u16,
    /// The other ends, in the order of the configuration.
    pub peers: Vec<Peer>,
}

/// One other end of the tunnel. Frames and bytes are those inside the tunnel, from the destination MAC on; what was
/// dropped is among the drops of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its endpoint.
    pub vtep: String,
    /// The MAC that takes frames there.
    pub mac: String,
    /// Who takes packets for the endpoint on our link of the underlay.
    pub next_hop: String,
    /// The next hop's MAC; none while it is asked for.
    pub next_hop_mac: Option<String>,
    /// `reachable` or `unresolved`: the next hop. What is beyond it is known by `last_seen_s` only.
    pub state: String,
    /// The largest IP packet that gets there, in bytes; smaller than the tunnel's if a router has said so.
    pub mtu: u16,
    /// Frames sent to it.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that came from it and passed the filter.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Seconds since the last of them; none if there was none.
    pub last_seen_s: Option<u64>,
    /// The prefixes behind it.
    pub prefixes: Vec<String>,
}

/// `GET /v1/worker`: what the worker did and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The configuration's generation, from 1.
    pub generation: u64,
    /// Rounds over all ports.
    pub rounds: u64,
    /// Rounds that found frames.
    pub busy_rounds: u64,
    /// Frames received in them.
    pub busy_frames: u64,
    /// Cycles of the time stamp counter spent in them, sending included.
    pub busy_cycles: u64,
    /// The time stamp counter's rate.
    pub cycles_per_second: u64,
    /// Busy cycles per frame; none before the first frame.
    pub cycles_per_frame: Option<u64>,
    /// Times the worker went to sleep for want of frames.
    pub sleeps: u64,
    /// Sleeps that ended because of frames.
    pub wakes: u64,
    /// All wakes together, from the wake to the last frame of its round being sent, in nanoseconds.
    pub wake_sum_ns: u64,
    /// The longest time from a wake to the last frame of its round being sent, in nanoseconds.
    pub wake_max_ns: u64,
    /// Wakes by that time: how many took at most so many nanoseconds, each bucket alone.
    pub wake_histogram: Vec<WakeBucket>,
}

/// One bucket of [`Worker::wake_histogram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeBucket {
    /// The bucket's upper bound; none in the last.
    pub at_most_ns: Option<u64>,
    /// How many wakes.
    pub wakes: u64,
}
