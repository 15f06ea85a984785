//! Builds the answers of the endpoints from the configuration, the tables and the counters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use hyper::StatusCode;
use pipeline::ipsec::{Mode, Rules, ShownSa};
use pipeline::{DropReason, HolderView, NextHopView, ReportCounters, ReportRejection};
use tenant_config::{Addresses, LearnedFrom, MacAddr, PortConfig, SwitchConfig, UPLINK_NAME};
use vswitch_api::endpoint::drops::Drop;
use vswitch_api::endpoint::ipsec::{self, Ipsec};
use vswitch_api::endpoint::neighbours::Neighbour;
use vswitch_api::endpoint::ports::{Port, Ports};
use vswitch_api::endpoint::routes::Route;
use vswitch_api::endpoint::switch::{PacketBuffers, Switch};
use vswitch_api::endpoint::tunnels::{OtherStation, Peer, Rejected, Reports, Tunnel, Unreachable};
use vswitch_api::endpoint::worker::{WakeBucket, Worker};

use super::{Control, HttpError, WORKER_TIMEOUT, within};
use crate::worker::{WAKE_BOUNDS_NS, load};

impl Control {
    /// Waits until the worker makes a round. A running worker makes one at least every
    /// [`crate::worker::TIMER_INTERVAL`].
    pub(super) async fn require_running_worker(&self) -> Result<(), HttpError> {
        let rounds = || load(&self.link.stats().rounds);
        let before = rounds();
        if within(WORKER_TIMEOUT, || rounds() != before).await {
            return Ok(());
        }
        let error = "the worker does not go round".to_owned();
        Err(HttpError(StatusCode::SERVICE_UNAVAILABLE, error))
    }

    pub(super) fn ports(&self) -> Ports {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let sides = config.devices().zip(self.link.devices());
        let ports = counters
            .ports()
            .zip(sides)
            .map(|(port, (side, state))| Port {
                name: port.name.clone(),
                device: side.device.to_string(),
                link_up: state.link_up.load(Ordering::Relaxed),
                rx_missed: load(&state.rx_missed),
                state: state.state().name().to_owned(),
                resets: load(&state.resets),
                reset_failures: load(&state.reset_failures),
                rx_frames: port.rx_frames.get(),
                rx_bytes: port.rx_bytes.get(),
                forwarded: port.forwarded.get(),
                replies: port.replies.get(),
                icmp_errors: port.icmp_errors.get(),
                dropped: port.dropped(),
                tx_frames: port.tx_frames.get(),
                tx_bytes: port.tx_bytes.get(),
                unsent: port.unsent.get(),
            });
        Ports {
            tenant: config.tenant.to_string(),
            ports: ports.collect(),
            worker: self.worker(),
        }
    }

    /// `all`: also reasons without frames.
    pub(super) fn drops(&self, all: bool) -> Vec<Drop> {
        let counters = self.counters.borrow();
        let each = counters.ports().flat_map(|port| {
            DropReason::ALL.iter().map(|reason| Drop {
                port: port.name.clone(),
                reason: reason.name().to_owned(),
                number: reason.number(),
                frames: port.drops(*reason).get(),
                help: reason.help().to_owned(),
            })
        });
        each.filter(|drop| all || drop.frames > 0).collect()
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        let routes = self.tables.borrow().routes();
        let routes = routes.into_iter().map(|route| Route {
            prefix: route.prefix,
            kind: route.kind.to_owned(),
            port: route.port,
            peer: route.peer,
        });
        routes.collect()
    }

    /// The tenant's VMs, whose MACs are configured, who holds shared addresses, and the underlay's
    /// next hops, whose MACs are solicited.
    pub(super) fn neighbours(&self) -> Vec<Neighbour> {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let ports = config.ports.iter().zip(counters.ports());
        let vms = ports.flat_map(|(port, counters)| {
            let leased = Some(counters.leased_ipv4.get() as u32).filter(|address| *address != 0);
            // While the worker writes them, they are those of the next answer.
            let claimed = counters.claimed.get().unwrap_or_default();
            vm_addresses(port, leased.map(Ipv4Addr::from_bits), &claimed)
        });
        let tables = self.tables.borrow();
        let shared = tables.shared_addresses().zip(&counters.holders);
        let shared = shared.flat_map(|(address, view)| shared_address(&config, address, view));
        let next_hops = tables.next_hops().iter().zip(&counters.next_hops);
        let next_hops = next_hops.map(|(address, next_hop)| {
            let mac = mac_of(next_hop);
            Neighbour {
                address: address.to_string(),
                port: UPLINK_NAME.to_owned(),
                state: state_of(mac.as_ref()),
                mac,
            }
        });
        vms.chain(shared).chain(next_hops).collect()
    }

    /// `prefixes`: with those behind the peers, which may be many.
    pub(super) fn tunnel(&self, prefixes: bool) -> Option<Tunnel> {
        let config = self.config.borrow();
        let (counters, tables) = (self.counters.borrow(), self.tables.borrow());
        let (tunnel, uplink) = (config.tunnel.as_ref()?, config.uplink.as_ref()?);
        let now_ns = counters.polled_ns.get();
        let peers = tunnel
            .peers
            .iter()
            .zip(counters.peers())
            .zip(tables.peers());
        let peers = peers.map(|((peer, traffic), (vtep, next_hop))| {
            let hop = &counters.next_hops[next_hop];
            let next_hop_mac = mac_of(hop);
            let unreachable = counters.undelivered[vtep].get(now_ns);
            Peer {
                name: peer.name.to_string(),
                vtep: peer.vtep.to_string(),
                sources: peer.sources.iter().map(ToString::to_string).collect(),
                mac: peer.mac.to_string(),
                next_hop: peer.next_hop.to_string(),
                state: state_of(next_hop_mac.as_ref()),
                next_hop_mac,
                other_mac: other_station(counters.other_mac(traffic, peer.mac.octets())),
                unreachable: unreachable.map(|it| Unreachable {
                    why: it.why.name().to_owned(),
                    from: it.from.to_string(),
                    age_s: it.age_s,
                }),
                next_hop_conflict: other_station(hop.other.get(now_ns)),
                underlay_mtu: peer.mtu.unwrap_or(uplink.mtu),
                mtu: counters.inner_mtu[vtep].get() as u16,
                tx_frames: traffic.tx_frames.get(),
                tx_bytes: traffic.tx_bytes.get(),
                rx_frames: traffic.rx_frames.get(),
                rx_bytes: traffic.rx_bytes.get(),
                last_seen_s: counters.last_seen_s(traffic),
                prefixes: match prefixes {
                    true => peer.prefixes.iter().map(ToString::to_string).collect(),
                    false => Vec::new(),
                },
            }
        });
        Some(Tunnel {
            kind: tunnel.kind.as_str().to_owned(),
            vni: config.vni.get(),
            vtep: tunnel.vtep.to_string(),
            port: tunnel.port,
            mac: tunnel.mac.to_string(),
            mtu: uplink.mtu.saturating_sub(tunnel.overhead()),
            vtep_conflict: other_station(counters.vtep_conflict.get(now_ns)),
            path_mtu: reports(&counters.path_mtu),
            unreachable: reports(&counters.unreachable),
            peers: peers.collect(),
        })
    }

    pub(super) fn ipsec(&self) -> Option<Ipsec> {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let tunnel = config.tunnel.as_ref()?;
        let rules = Rules::of(&config)?;
        let now_ns = counters.polled_ns.get();
        let endpoints = counters.endpoints().filter_map(|shown| {
            let vtep = shown.endpoint.parse().ok()?;
            rules.endpoints.contains(&vtep).then(|| {
                let peers = tunnel.peers.iter().filter(|peer| peer.vtep == vtep);
                let (outbound, inbound) = (shown.outbound.get(), shown.inbound.get());
                let state = match (&outbound, &inbound) {
                    (Some(_), Some(_)) => "up",
                    (Some(_), None) => "sending",
                    (None, Some(_)) => "receiving",
                    (None, None) => "down",
                };
                ipsec::Endpoint {
                    vtep: shown.endpoint.clone(),
                    peers: peers.map(|peer| peer.name.to_string()).collect(),
                    state: state.to_owned(),
                    outbound: outbound.map(|sa| shown_sa(&sa, now_ns)),
                    inbound: inbound.map(|sa| shown_sa(&sa, now_ns)),
                    tx_packets: shown.tx_packets.get(),
                    tx_bytes: shown.tx_bytes.get(),
                    rx_packets: shown.rx_packets.get(),
                    rx_bytes: shown.rx_bytes.get(),
                    replayed: shown.replayed.get(),
                    icv_failures: shown.forged.get(),
                }
            })
        });
        Some(Ipsec {
            suites: rules.suites.iter().map(ToString::to_string).collect(),
            esn: rules.esn,
            replay_window: rules.replay_window,
            endpoints: endpoints.collect(),
        })
    }

    /// When the switch started, in seconds since the Unix epoch; 0 if the clock was before it.
    pub(super) fn started_at(&self) -> u64 {
        let since_epoch = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        since_epoch.unwrap_or_default().as_secs()
    }

    pub(super) fn switch(&self) -> Switch {
        let stats = self.link.stats();
        Switch {
            tenant: self.config.borrow().tenant.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at(),
            uptime_s: self.started.elapsed().as_secs(),
            generation: load(&stats.generation),
            packet_buffers: PacketBuffers {
                total: load(&stats.buffers),
                in_use: load(&stats.buffers_in_use),
            },
        }
    }

    pub(super) fn worker(&self) -> Worker {
        let stats = self.link.stats();
        let (busy_frames, busy_cycles) = (load(&stats.busy_frames), load(&stats.busy_cycles));
        let bounds = WAKE_BOUNDS_NS.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(&stats.wake_buckets);
        Worker {
            generation: load(&stats.generation),
            rounds: load(&stats.rounds),
            busy_rounds: load(&stats.busy_rounds),
            busy_frames,
            busy_cycles,
            cycles_per_second: load(&stats.cycles_per_second),
            cycles_per_frame: busy_cycles.checked_div(busy_frames),
            sleeps: load(&stats.sleeps),
            wakes: load(&stats.wakes),
            wake_sum_ns: load(&stats.wake_sum_ns),
            wake_max_ns: load(&stats.wake_max_ns),
            wake_histogram: buckets
                .map(|(at_most_ns, wakes)| WakeBucket {
                    at_most_ns,
                    wakes: load(wakes),
                })
                .collect(),
        }
    }
}

/// An SA as it was `now_ns` on the pipeline's clock.
fn shown_sa(sa: &ShownSa, now_ns: u64) -> ipsec::Sa {
    const SECOND_NS: u64 = 1_000_000_000;
    let mode = match sa.mode {
        Mode::Transport => "transport",
        Mode::Tunnel => "tunnel",
    };
    let left_s = |at: u64| at.saturating_sub(now_ns) / SECOND_NS;
    ipsec::Sa {
        spi: format!("{:08x}", sa.spi),
        suite: sa.suite.to_string(),
        esn: sa.esn,
        mode: mode.to_owned(),
        in_udp: sa.in_udp,
        age_s: now_ns.saturating_sub(sa.since_ns) / SECOND_NS,
        packets: sa.packets,
        bytes: sa.bytes,
        rekey_in_s: sa.soft_ns.map(left_s),
    }
}

fn reports(counters: &ReportCounters) -> Reports {
    let rejected = ReportRejection::ALL.iter().map(|why| Rejected {
        reason: why.name().to_owned(),
        reports: counters.rejected(*why).get(),
        help: why.help().to_owned(),
    });
    Reports {
        believed: counters.believed.get(),
        rejected: rejected.collect(),
    }
}

/// A port's addresses: the configured ones, or the one `leased` by DHCP; then its link-local one,
/// and those that it has `claimed`.
fn vm_addresses(
    port: &PortConfig,
    leased: Option<Ipv4Addr>,
    claimed: &[Ipv6Addr],
) -> Vec<Neighbour> {
    let known = |address: String, state: &str| Neighbour {
        address,
        port: port.name.to_string(),
        mac: Some(port.mac.to_string()),
        state: state.to_owned(),
    };
    let mut neighbours: Vec<Neighbour> = match &port.addresses {
        Addresses::Static(addresses) => addresses
            .iter()
            .map(|address| {
                let host = address.prefix_len() == address.max_prefix_len();
                let text = if host {
                    address.addr().to_string()
                } else {
                    address.to_string()
                };
                known(text, "static")
            })
            .collect(),
        Addresses::Learned(LearnedFrom::Dhcp) => leased
            .into_iter()
            .map(|leased| known(leased.to_string(), "leased"))
            .collect(),
    };
    neighbours.push(known(port.mac.link_local().to_string(), "static"));
    let claimed = claimed.iter();
    neighbours.extend(claimed.map(|address| known(address.to_string(), "claimed")));
    neighbours
}

/// The port that holds a shared address, or all that may.
fn shared_address(config: &SwitchConfig, address: IpAddr, view: &HolderView) -> Vec<Neighbour> {
    let held = view.get();
    let ports = config.ports.iter().zip(0..);
    let ports = ports.filter(|(port, id)| match held {
        Some((holder, _)) => *id == holder.index(),
        None => port.shared.contains(&address),
    });
    let mac = held.and_then(|(_, mac)| MacAddr::new(mac).ok());
    let neighbour = |(port, _): (&PortConfig, usize)| Neighbour {
        address: address.to_string(),
        port: port.name.to_string(),
        mac: mac.map(|mac| mac.to_string()),
        state: if held.is_some() { "held" } else { "sought" }.to_owned(),
    };
    ports.map(neighbour).collect()
}

fn other_station(seen: Option<([u8; 6], u64)>) -> Option<OtherStation> {
    let (mac, age_s) = seen?;
    let mac = MacAddr::new(mac).ok()?.to_string();
    Some(OtherStation { mac, age_s })
}

fn mac_of(next_hop: &NextHopView) -> Option<String> {
    let mac = MacAddr::new(next_hop.mac()?).ok()?;
    Some(mac.to_string())
}

/// The state of a next hop with that MAC.
fn state_of(mac: Option<&String>) -> String {
    let state = if mac.is_some() {
        "reachable"
    } else {
        "unresolved"
    };
    state.to_owned()
}
