//! The control API: HTTP/1.1 with JSON on a unix socket, for the operator and the provisioner.
//!
//! It runs on a thread of its own, on any CPU but by preference not the worker's, and shares with the worker
//! only counters that it reads and the [`Link`]. A new configuration is checked and compiled here; the worker
//! only swaps it in between two rounds, and hands the old one back to be freed here.
//!
//! Everything a client can make it do is bounded: connections, bytes of a head and of a body, and time.

mod metrics;
pub mod view;

pub(crate) use metrics::reference as metrics_reference;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use tenant_config::{Addresses, Device, LearnedFrom, MacAddr, SwitchConfig, UPLINK_NAME};
use tokio::sync::Semaphore;

use crate::worker::{Link, WAKE_BOUNDS_NS};
use pipeline::DropReason;
use pipeline::{Counters, Generation, NextHopView, Tables};

/// Connections served at a time; further ones wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 16;
/// The largest configuration that is taken: some 100,000 addresses.
const BODY_MAX: usize = 8 << 20;
/// The time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a connection may last in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The time the worker has for taking a new generation, and for showing that it goes round.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a request may bear, and its answer then bears too: on a VM's channel, clients share one stream.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The control socket. Dropping it removes its name.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why a socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("socket {path}: another process listens there; stop it, or give another path", path = .0.display())]
    InUse(PathBuf),
    /// A file of that name that is no socket.
    #[error("socket {path}: there is a file of that name that is no socket; remove it, or give another path", path = .0.display())]
    NoSocket(PathBuf),
    /// It cannot be made.
    #[error("socket {path}: {source}; its directory must exist and be writable", path = path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes way for a socket at `path`: removes the one that a killed process has left behind.
///
/// # Errors
/// If somebody listens there, or something else is there.
pub(crate) fn clear_stale(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(SocketError::NoSocket(path.to_owned()))
        }
        Ok(_) if UnixStream::connect(path).is_ok() => Err(SocketError::InUse(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(failed),
    }
}

impl Socket {
    /// Listens on `path`, for its owner and group. A socket that a killed switch has left behind is replaced.
    ///
    /// # Errors
    /// If somebody listens there, or something else is there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        clear_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // The path must name it still when the process has another working directory.
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { listener, path })
    }
}

impl Socket {
    /// The listening end, for [`Control::serve`].
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the API shows and changes.
#[derive(Debug)]
pub struct Control {
    config: RefCell<SwitchConfig>,
    /// What the generation in use counts, and where it sends.
    counters: RefCell<Arc<Counters>>,
    tables: RefCell<Arc<Tables>>,
    link: Arc<Link>,
    /// One configuration at a time.
    swap: tokio::sync::Mutex<()>,
}

impl Control {
    /// The API of a worker that runs `config`, with these counters and tables of its generation.
    pub fn new(
        config: SwitchConfig,
        (counters, tables): (Arc<Counters>, Arc<Tables>),
        link: Arc<Link>,
    ) -> Self {
        Self {
            config: RefCell::new(config),
            counters: RefCell::new(counters),
            tables: RefCell::new(tables),
            link,
            swap: tokio::sync::Mutex::new(()),
        }
    }

    /// Serves `socket` until `end`, on a runtime of one thread with I/O and time.
    ///
    /// # Errors
    /// If the socket cannot be waited on.
    pub async fn serve(
        self,
        socket: UnixListener,
        end: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(socket)?;
        let control = Rc::new(self);
        let accept = async {
            let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            loop {
                let permit = Arc::clone(&free).acquire_owned().await;
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let control = Rc::clone(&control);
                        tokio::task::spawn_local(async move {
                            connection(control, stream).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors, as a rule: there will be some again.
                        tracing::warn!("control socket: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                tokio::select! {
                    () = accept => {}
                    () = end => {}
                }
            })
            .await;
        Ok(())
    }
}

async fn connection(control: Rc<Control>, stream: tokio::net::UnixStream) {
    let service = service_fn(move |request| {
        let control = Rc::clone(&control);
        async move { Ok::<_, Infallible>(control.respond(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("control connection: {error}"),
        Err(_) => tracing::debug!("control connection: closed, it took too long"),
    }
}

type Reply = Response<Full<Bytes>>;

/// A request that is not fulfilled, and why.
#[derive(Debug)]
struct Refusal(StatusCode, String);

const PATHS: &str = "/healthz /readyz /metrics /v1/ports /v1/drops /v1/routes /v1/neighbours /v1/tunnels /v1/worker /v1/config";

impl Control {
    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let id = request.headers().get(REQUEST_ID).cloned();
        let reply = match (&method, path.as_str()) {
            (&Method::PUT, "/v1/config") => self.configure(request.into_body()).await,
            (&Method::GET | &Method::HEAD, path) => {
                let query = request.uri().query().unwrap_or_default();
                let all = query
                    .split('&')
                    .any(|pair| matches!(pair, "all" | "all=1" | "all=true"));
                self.show(path, all).await
            }
            (_, path) if PATHS.split(' ').any(|known| known == path) => Err(Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not a method of {path}"),
            )),
            _ => Err(unknown_path(&path)),
        };
        let mut reply = reply.unwrap_or_else(|Refusal(status, error)| {
            let mut reply = json_reply(status, &json!({ "error": error }));
            if status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = match path.as_str() {
                    "/v1/config" => "GET, HEAD, PUT",
                    _ => "GET, HEAD",
                };
                reply
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allowed));
            }
            reply
        });
        if let Some(id) = id {
            reply.headers_mut().insert(REQUEST_ID, id);
        }
        reply
    }

    async fn show(&self, path: &str, all: bool) -> Result<Reply, Refusal> {
        let ok = StatusCode::OK;
        Ok(match path {
            "/healthz" => json_reply(ok, &json!({ "status": "ok" })),
            "/readyz" => {
                self.worker_goes_round().await?;
                json_reply(ok, &json!({ "status": "ready" }))
            }
            "/metrics" => {
                let text = self.metrics();
                let mut reply = Response::new(Full::from(text));
                let kind = HeaderValue::from_static(vswitch_api::metrics::CONTENT_TYPE);
                reply.headers_mut().insert(CONTENT_TYPE, kind);
                reply
            }
            "/v1/routes" => json_reply(ok, &self.routes()),
            "/v1/neighbours" => json_reply(ok, &self.neighbours()),
            "/v1/tunnels" => json_reply(ok, &self.tunnel()),
            "/v1/ports" => json_reply(ok, &self.ports()),
            "/v1/drops" => json_reply(ok, &self.drops(all)),
            "/v1/worker" => json_reply(ok, &self.worker()),
            "/v1/config" => json_reply(ok, &*self.config.borrow()),
            _ => return Err(unknown_path(path)),
        })
    }

    /// Ready is a worker that goes round: it does so at least every [`crate::worker::TIMER_INTERVAL`].
    async fn worker_goes_round(&self) -> Result<(), Refusal> {
        let rounds = || self.link.stats().rounds.load(Ordering::Relaxed);
        let before = rounds();
        within(WORKER_TIMEOUT, || rounds() != before)
            .await
            .then_some(())
            .ok_or_else(|| {
                Refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the worker does not go round".to_owned(),
                )
            })
    }

    async fn configure(&self, body: Incoming) -> Result<Reply, Refusal> {
        let body = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let error = format!("the body is larger than {BODY_MAX} bytes");
                    Refusal(StatusCode::PAYLOAD_TOO_LARGE, error)
                } else {
                    Refusal(StatusCode::BAD_REQUEST, format!("the body: {error}"))
                }
            })?;
        let invalid = |error: String| Refusal(StatusCode::UNPROCESSABLE_ENTITY, error);
        let bytes = body.to_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
        let new = SwitchConfig::from_json("the request's body", text)
            .map_err(|errors| invalid(errors.to_string()))?;
        // Only now: a client that is slow to send its body keeps nobody else waiting.
        let _one_at_a_time = self.swap.lock().await;
        let old = self.config.borrow().clone();
        if let Some(difference) = needs_restart(&old, &new) {
            return Err(Refusal(
                StatusCode::CONFLICT,
                format!("{difference}: that takes a restart of the switch"),
            ));
        }
        let stats = self.link.stats();
        let before = stats.generation.load(Ordering::Relaxed);
        let generation = Generation::build(&new, Some(&self.counters.borrow()));
        let (counters, tables) = (generation.counters(), generation.tables());
        let unavailable = |error: &str| Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_owned());
        // One that the worker gave back too late for the request it came with.
        drop(self.link.take_retired());
        self.link.install(generation).map_err(|_| {
            unavailable("the worker has not taken the configuration before this one")
        })?;
        // It is the next that the worker takes, so it is what is shown.
        self.counters.replace(counters);
        self.tables.replace(tables);
        self.config.replace(new);
        let taken = || stats.generation.load(Ordering::Relaxed) != before;
        if !within(WORKER_TIMEOUT, taken).await {
            return Err(unavailable(
                "the worker does not go round; the configuration will be in use when it does",
            ));
        }
        drop(self.link.take_retired());
        tracing::info!(generation = before + 1, "configuration in use");
        Ok(json_reply(
            StatusCode::OK,
            &json!({ "generation": before + 1 }),
        ))
    }
}

fn mac_of(next_hop: &NextHopView) -> Option<String> {
    let mac = MacAddr::new(next_hop.mac()?).ok()?;
    Some(mac.to_string())
}

/// What a next hop is called whose MAC is known, or not.
fn state_of(mac: Option<&String>) -> String {
    let state = if mac.is_some() {
        "reachable"
    } else {
        "unresolved"
    };
    state.to_owned()
}

/// What the counters say, in the words of [`view`].
impl Control {
    fn ports(&self) -> view::Ports {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let devices = config.devices();
        let ports =
            counters
                .ports()
                .zip(devices)
                .zip(self.link.devices())
                .map(|((port, side), state)| view::Port {
                    name: port.name.clone(),
                    device: device_name(side.device),
                    link_up: state.link_up.load(Ordering::Relaxed),
                    rx_missed: state.rx_missed.load(Ordering::Relaxed),
                    rx_frames: port.rx_frames.get(),
                    rx_bytes: port.rx_bytes.get(),
                    forwarded: port.forwarded.get(),
                    replies: port.replies.get(),
                    icmp_errors: port.icmp_errors.get(),
                    dropped: port.dropped(),
                    tx_frames: port.tx_frames.get(),
                    tx_bytes: port.tx_bytes.get(),
                });
        view::Ports {
            tenant: config.tenant.to_string(),
            ports: ports.collect(),
            worker: self.worker(),
        }
    }

    fn drops(&self, all: bool) -> Vec<view::Drop> {
        let counters = self.counters.borrow();
        let each = counters.ports().flat_map(|port| {
            DropReason::ALL.iter().map(|reason| view::Drop {
                port: port.name.clone(),
                reason: reason.name().to_owned(),
                number: reason.number(),
                frames: port.drops(*reason).get(),
                help: reason.help().to_owned(),
            })
        });
        each.filter(|drop| all || drop.frames > 0).collect()
    }

    fn routes(&self) -> Vec<view::Route> {
        let routes = self.tables.borrow().routes();
        let routes = routes.into_iter().map(|route| view::Route {
            prefix: route.prefix,
            kind: route.kind.to_owned(),
            port: route.port,
            peer: route.peer,
        });
        routes.collect()
    }

    /// The tenant's VMs, which are known beforehand, and the routers of the underlay, which must answer.
    fn neighbours(&self) -> Vec<view::Neighbour> {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let mut neighbours = Vec::new();
        for (port, counters) in config.ports.iter().zip(counters.ports()) {
            let mut known = |address: String, state: &str| {
                neighbours.push(view::Neighbour {
                    address,
                    port: port.name.to_string(),
                    mac: Some(port.mac.to_string()),
                    state: state.to_owned(),
                });
            };
            match &port.addresses {
                Addresses::Static(addresses) => addresses.iter().for_each(|address| {
                    let host = address.prefix_len() == address.max_prefix_len();
                    let text = if host {
                        address.addr().to_string()
                    } else {
                        address.to_string()
                    };
                    known(text, "static");
                }),
                Addresses::Learned(LearnedFrom::Dhcp) => match counters.leased_ipv4.get() as u32 {
                    0 => {}
                    leased => known(Ipv4Addr::from_bits(leased).to_string(), "leased"),
                },
            }
            known(port.mac.link_local().to_string(), "static");
        }
        let tables = self.tables.borrow();
        for (address, next_hop) in tables.next_hops().iter().zip(&counters.next_hops) {
            let mac = mac_of(next_hop);
            neighbours.push(view::Neighbour {
                address: address.to_string(),
                port: UPLINK_NAME.to_owned(),
                state: state_of(mac.as_ref()),
                mac,
            });
        }
        neighbours
    }

    fn tunnel(&self) -> Option<view::Tunnel> {
        let config = self.config.borrow();
        let (counters, tables) = (self.counters.borrow(), self.tables.borrow());
        let (tunnel, uplink) = (config.tunnel.as_ref()?, config.uplink.as_ref()?);
        let peers = tunnel
            .peers
            .iter()
            .zip(counters.peers())
            .zip(tables.peers());
        let peers = peers.map(|((peer, counters_of_peer), (vtep, next_hop))| {
            let next_hop_mac = mac_of(&counters.next_hops[next_hop]);
            view::Peer {
                name: peer.name.to_string(),
                vtep: peer.vtep.to_string(),
                mac: peer.mac.to_string(),
                next_hop: peer.next_hop.to_string(),
                state: state_of(next_hop_mac.as_ref()),
                next_hop_mac,
                mtu: counters.longest[vtep].get() as u16,
                tx_frames: counters_of_peer.tx_frames.get(),
                tx_bytes: counters_of_peer.tx_bytes.get(),
                rx_frames: counters_of_peer.rx_frames.get(),
                rx_bytes: counters_of_peer.rx_bytes.get(),
                last_seen_s: counters.last_seen_s(counters_of_peer),
                prefixes: peer.prefixes.iter().map(ToString::to_string).collect(),
            }
        });
        Some(view::Tunnel {
            kind: tunnel.kind.as_str().to_owned(),
            vni: config.vni.get(),
            vtep: tunnel.vtep.to_string(),
            port: tunnel.port,
            mac: tunnel.mac.to_string(),
            mtu: uplink.mtu.saturating_sub(tunnel.overhead()),
            peers: peers.collect(),
        })
    }

    fn worker(&self) -> view::Worker {
        let stats = self.link.stats();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (busy_frames, busy_cycles) = (load(&stats.busy_frames), load(&stats.busy_cycles));
        let bounds = WAKE_BOUNDS_NS.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(&stats.wake_buckets);
        view::Worker {
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
                .map(|(at_most_ns, wakes)| view::WakeBucket {
                    at_most_ns,
                    wakes: load(wakes),
                })
                .collect(),
        }
    }
}

fn device_name(device: &Device) -> String {
    match device {
        Device::Offline => "offline".to_owned(),
        Device::AfPacket { interface } => format!("af_packet:{interface}"),
        Device::AfXdp { interface } => format!("af_xdp:{interface}"),
        Device::Memif { socket, id, .. } => format!("memif:{}:{id}", socket.display()),
        Device::Pci { address, .. } => format!("pci:{address}"),
    }
}

/// Whether `done` comes true in time.
async fn within(time: Duration, done: impl Fn() -> bool) -> bool {
    let poll = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(time, poll).await.is_ok()
}

fn unknown_path(path: &str) -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        format!("there is no {path}; there are {PATHS}"),
    )
}

fn json_reply(status: StatusCode, value: &impl Serialize) -> Reply {
    // The types have no maps with keys that are no text, which is all that could fail.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut reply = Response::new(Full::from(text));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// What differs between two configurations that a running switch cannot change: devices are opened, and
/// memory is taken, before the switch gives up the right to do so.
fn needs_restart(old: &SwitchConfig, new: &SwitchConfig) -> Option<String> {
    if old.tenant != new.tenant {
        return Some(format!("the tenant is {}, not {}", old.tenant, new.tenant));
    }
    if old.memory != new.memory {
        return Some("memory is another".to_owned());
    }
    if old.control_socket != new.control_socket {
        return Some("control_socket is another".to_owned());
    }
    if old.ports.len() != new.ports.len() {
        let (old, new) = (old.ports.len(), new.ports.len());
        return Some(format!("there are {new} ports instead of {old}"));
    }
    for (old, new) in old.ports.iter().zip(&new.ports) {
        let name = &old.name;
        if old.name != new.name {
            return Some(format!("port {name} is now {}", new.name));
        }
        if old.device != new.device {
            return Some(format!("port {name} has another device"));
        }
        if old.mtu != new.mtu {
            return Some(format!("port {name} has another mtu"));
        }
    }
    match (&old.uplink, &new.uplink) {
        (None, None) => None,
        (Some(old), Some(new)) if old.device != new.device => {
            Some("the uplink has another device".to_owned())
        }
        (Some(old), Some(new)) if old.mtu != new.mtu => {
            Some("the uplink has another mtu".to_owned())
        }
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some("there is no uplink any more".to_owned()),
        (None, Some(_)) => Some("there is an uplink now".to_owned()),
    }
}
