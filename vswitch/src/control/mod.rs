//! The control API: HTTP/1.1 with JSON on a unix socket, for the operator and the provisioner.
//!
//! It has a thread of its own, if possible on another CPU than the worker's. The two share only
//! counters, which this thread reads, and the [`Link`]. This thread checks and builds a new
//! configuration; the worker swaps it in between two rounds and returns the old one, which this
//! thread frees.
//!
//! What a client can use is bounded: connections, bytes of a head and of a body, and time.
//!
//! [`Endpoint`] says which requests there are. `answer` builds the answers, `configure` installs a
//! configuration, `supervisor` serves the supervisor, `metrics` collects what the counters'
//! declarations say, `events` logs what an operator should hear of.

mod answer;
mod configure;
mod events;
mod metrics;
mod socket;
mod supervisor;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pipeline::{Counters, Tables};
use serde::Serialize;
use tenant_config::SwitchConfig;
use tokio::sync::Semaphore;
use vswitch_api::endpoint::healthz::Health;
use vswitch_api::endpoint::{Failure, drops};
use vswitch_api::metrics::CONTENT_TYPE as METRICS_TYPE;
use vswitch_api::{Endpoint, REQUEST_ID};

use crate::ike::Shared;
use crate::metadata;
use crate::worker::Link;

pub(crate) use metrics::reference as metrics_reference;
pub use socket::{Socket, SocketError};
pub(crate) use socket::{clear_stale, is_live_stream};
pub use supervisor::{ChannelListener, ChannelSocket};

/// Connections served at a time; further ones wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 16;
/// The time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The time within which the worker must make a round, or take a new generation.
const WORKER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the API shows and changes.
#[derive(Debug)]
pub struct Control {
    config: RefCell<SwitchConfig>,
    /// The counters and tables of the generation in use.
    counters: RefCell<Arc<Counters>>,
    tables: RefCell<Arc<Tables>>,
    link: Arc<Link>,
    started: Instant,
    /// The same by the wall clock, which may be set meanwhile.
    started_at: SystemTime,
    /// Held while a configuration is installed: one at a time.
    swap: tokio::sync::Mutex<()>,
    /// Where the supervisor connects, until it is served.
    channel: Option<ChannelListener>,
    /// What the thread that serves the IKE daemon goes by.
    ike: Option<Arc<Shared>>,
    /// What the thread that serves metadata goes by.
    metadata: Option<Arc<metadata::Shared>>,
}

impl Control {
    /// The API of a worker that runs `config`, with the counters and tables of its generation.
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
            started: Instant::now(),
            started_at: SystemTime::now(),
            swap: tokio::sync::Mutex::new(()),
            channel: None,
            ike: None,
            metadata: None,
        }
    }

    /// The same with a channel for the supervisor.
    pub fn with_channel(self, channel: Option<ChannelListener>) -> Self {
        Self { channel, ..self }
    }

    /// The same with an IKE thread, which goes by each new configuration.
    pub fn with_ike(self, ike: Arc<Shared>) -> Self {
        let ike = Some(ike);
        Self { ike, ..self }
    }

    /// The same with a thread that serves metadata, which goes by each new configuration.
    pub fn with_metadata(self, metadata: Arc<metadata::Shared>) -> Self {
        let metadata = Some(metadata);
        Self { metadata, ..self }
    }

    /// Serves `socket` until `end`, on a runtime of one thread with I/O and time.
    ///
    /// # Errors
    /// If the socket cannot be registered with the runtime.
    pub async fn serve(
        mut self,
        socket: UnixListener,
        end: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(socket)?;
        let channel = self.channel.take();
        let control = Rc::new(self);
        let supervised = async {
            match channel {
                Some(channel) => control.serve_supervisor(channel).await,
                None => std::future::pending().await,
            }
        };
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
                        // Usually no descriptor is left: wait until connections have closed.
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
                    () = accept => Ok(()),
                    failed = supervised => failed,
                    never = control.log_events() => match never {},
                    () = end => Ok(()),
                }
            })
            .await
    }

    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let id = request.headers().get(REQUEST_ID).cloned();
        let endpoint = Endpoint::find(&path);
        let reply = match (endpoint, request.method()) {
            (None, _) => Err(unknown_path(&path)),
            (Some(endpoint), &Method::GET | &Method::HEAD) => {
                self.get(endpoint, request.uri().query().unwrap_or_default())
                    .await
            }
            (Some(Endpoint::Config), &Method::PUT) => self.configure(request.into_body()).await,
            (Some(_), method) => Err(HttpError(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not a method of {path}"),
            )),
        };
        let mut reply = reply.unwrap_or_else(|HttpError(status, error)| {
            let mut reply = json_reply(&Failure { error });
            *reply.status_mut() = status;
            reply
        });
        if let (StatusCode::METHOD_NOT_ALLOWED, Some(endpoint)) = (reply.status(), endpoint) {
            let allowed = HeaderValue::from_static(endpoint.methods());
            reply.headers_mut().insert(ALLOW, allowed);
        }
        if let Some(id) = id {
            reply.headers_mut().insert(REQUEST_ID, id);
        }
        reply
    }

    /// The answer of each endpoint to `GET`.
    async fn get(&self, endpoint: Endpoint, query: &str) -> Result<Reply, HttpError> {
        let health = |status: &str| Health {
            status: status.to_owned(),
        };
        Ok(match endpoint {
            Endpoint::Healthz => json_reply(&health("ok")),
            Endpoint::Readyz => {
                self.require_running_worker().await?;
                json_reply(&health("ready"))
            }
            Endpoint::Metrics => text_reply(METRICS_TYPE, self.metrics()),
            Endpoint::Ports => json_reply(&self.ports()),
            Endpoint::Drops => json_reply(&self.drops(has_flag(query, drops::ALL.name))),
            Endpoint::Routes => json_reply(&self.routes()),
            Endpoint::Neighbours => json_reply(&self.neighbours()),
            Endpoint::Tunnels => json_reply(&self.tunnel(true)),
            Endpoint::Ipsec => json_reply(&self.ipsec()),
            Endpoint::Worker => json_reply(&self.worker()),
            Endpoint::Switch => json_reply(&self.switch()),
            Endpoint::Config => json_reply(&*self.config.borrow()),
        })
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

/// An answer other than 200: its status, and the sentence in its [`Failure`].
#[derive(Debug)]
struct HttpError(StatusCode, String);

fn unknown_path(path: &str) -> HttpError {
    let paths: Vec<&str> = Endpoint::ALL
        .iter()
        .map(|endpoint| endpoint.spec().path)
        .collect();
    HttpError(
        StatusCode::NOT_FOUND,
        format!("there is no {path}; there are {}", paths.join(" ")),
    )
}

/// Whether the query sets a flag: `name`, `name=1` or `name=true`.
fn has_flag(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| {
        pair.strip_prefix(name)
            .is_some_and(|value| matches!(value, "" | "=1" | "=true"))
    })
}

/// Waits until `done`, at most for `time`; says whether it came true.
async fn within(time: Duration, done: impl Fn() -> bool) -> bool {
    let poll = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(time, poll).await.is_ok()
}

fn json_reply(value: &impl Serialize) -> Reply {
    // Only a map with keys that are not strings could fail; no answer has one.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text_reply("application/json", text)
}

fn text_reply(content_type: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(text.into()));
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use pipeline::Generation;
    use tenant_config::Tenant;

    use super::*;

    const TENANT: &str = r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[uplink]
address = "192.0.2.9/24"
next_hop = "192.0.2.1"
[[port]]
name = "red-vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11", "fd00:0:0:1::11"]
"#;

    /// Coverage-guided by `scripts/fuzz`; as an ordinary test it replays its corpus. Any bytes that
    /// a client sends are answered with a status, or not at all, and the connection ends.
    #[test]
    fn request_is_answered_or_refused() {
        let config = Tenant::parse("red.toml", TENANT)
            .expect("a tenant")
            .offline_config();
        // The clock goes on by itself while nothing is to do: no wait takes its time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        bolero::check!()
            .with_iterations(0)
            .for_each(|input: &[u8]| {
                let (server, mut client) = std::os::unix::net::UnixStream::pair().expect("a pair");
                // So few bytes fit into the socket.
                client.write_all(input).expect("it is sent");
                client.shutdown(Shutdown::Write).expect("it ends");
                runtime.block_on(async {
                    let generation = Generation::build(&config, None);
                    let parts = (generation.counters(), generation.tables());
                    let link = Link::new(config.ports.len() + 1).expect("a descriptor");
                    let control = Rc::new(Control::new(config.clone(), parts, link));
                    server.set_nonblocking(true).expect("a socket");
                    let stream = tokio::net::UnixStream::from_std(server).expect("a socket");
                    connection(control, stream).await;
                });
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).expect("it is closed");
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
            });
    }
}
