//! `show`, `top` and `reload`: a running switch's control API, from the other side.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use vswitch_api::table::{Table, left, right};

use super::{CliError, ControlArgs, ReloadArgs, ShowArgs, TopArgs, What};
use crate::control::REQUEST_ID;
use crate::control::view::{Drop, Neighbour, Port, Ports, Route, Tunnel};

/// The preference `wait` (RFC 7240): how many seconds the client is there for the answer. A relay on the way waits as long.
pub(crate) const PREFER: &str = "prefer";
/// The longest answer that is read: more than the longest there is.
const ANSWER_MAX: usize = 64 << 20;

/// Why a running switch did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{socket}: {source}; is the switch running, and is this its control socket?", socket = socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(
        "{socket}: no answer in {timeout:?}; a switch on a slow machine may need a longer --timeout",
        socket = socket.display()
    )]
    Timeout { socket: PathBuf, timeout: Duration },
    #[error("{socket}: {error}; is this a switch's control socket?", socket = socket.display())]
    Protocol { socket: PathBuf, error: String },
    #[error("the switch refuses: {0}")]
    Refused(String),
}

/// One request of its own connection, which waits for the answer no longer than `timeout`.
pub(crate) fn request(
    socket: &Path,
    timeout: Duration,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Value, ClientError> {
    let protocol = |error: String| ClientError::Protocol {
        socket: socket.to_owned(),
        error,
    };
    let connect = |source| ClientError::Connect {
        socket: socket.to_owned(),
        source,
    };
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let id = format!(
        "{}-{}",
        std::process::id(),
        time.unwrap_or_default().as_nanos()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(connect)?;
    let answer = async {
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| protocol(error.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "vswitch")
            .header(REQUEST_ID, &id)
            .header(PREFER, format!("wait={}", timeout.as_secs()))
            .body(Full::new(body))
            .map_err(|error| protocol(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| protocol(error.to_string()))?;
        if response
            .headers()
            .get(REQUEST_ID)
            .is_some_and(|other| other != id.as_str())
        {
            return Err(protocol(
                "this is the answer to another's request".to_owned(),
            ));
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| protocol(error.to_string()))?;
        let value: Value = serde_json::from_slice(&body.to_bytes())
            .map_err(|error| protocol(error.to_string()))?;
        if status == StatusCode::OK {
            return Ok(value);
        }
        let error = value["error"].as_str().unwrap_or("it gives no reason");
        Err(ClientError::Refused(error.to_owned()))
    };
    runtime
        .block_on(async { tokio::time::timeout(timeout, answer).await })
        .unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                socket: socket.to_owned(),
                timeout,
            })
        })
}

/// Asks, and once more if what came back was not for this question.
fn get(switch: &ControlArgs, path: &str) -> Result<Value, ClientError> {
    let ask = || {
        let (socket, timeout) = (&switch.control, switch.timeout());
        request(socket, timeout, Method::GET, path, Bytes::new())
    };
    match ask() {
        Err(ClientError::Protocol { .. }) => ask(),
        answer => answer,
    }
}

fn read<T: DeserializeOwned>(socket: &Path, value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Protocol {
        socket: socket.to_owned(),
        error: error.to_string(),
    })
}

pub(super) fn show(args: &ShowArgs) -> Result<(), CliError> {
    let socket = args.switch.control.as_path();
    let path = match args.what {
        What::Ports => "/v1/ports",
        What::Drops if args.all => "/v1/drops?all=1",
        What::Drops => "/v1/drops",
        What::Routes => "/v1/routes",
        What::Neighbours => "/v1/neighbours",
        What::Tunnels => "/v1/tunnels",
    };
    let value = get(&args.switch, path)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let table = match args.what {
        What::Ports => {
            let ports: Ports = read(socket, value)?;
            let mut text = port_table(&ports).to_string();
            let worker = &ports.worker;
            if let Some(cycles) = worker.cycles_per_frame {
                let frames = worker.busy_frames as f64 / worker.busy_rounds as f64;
                text +=
                    &format!("\n{cycles} cycles per frame in busy rounds of {frames:.1} frames\n");
            }
            text
        }
        What::Drops => drop_table(&read::<Vec<Drop>>(socket, value)?).to_string(),
        What::Routes => route_table(&read::<Vec<Route>>(socket, value)?).to_string(),
        What::Neighbours => neighbour_table(&read::<Vec<Neighbour>>(socket, value)?).to_string(),
        What::Tunnels => match read::<Option<Tunnel>>(socket, value)? {
            Some(tunnel) => tunnel_text(&tunnel),
            None => "The tenant has no tunnel.\n".to_owned(),
        },
    };
    out.write_all(table.as_bytes())?;
    Ok(())
}

fn port_table(ports: &Ports) -> Table {
    let mut table = Table::new([
        left("PORT"),
        left("DEVICE"),
        left("LINK"),
        right("RX"),
        right("MISSED"),
        right("RX BYTES"),
        right("TX"),
        right("TX BYTES"),
        right("FORWARDED"),
        right("ANSWERED"),
        right("DROPPED"),
    ]);
    for port in &ports.ports {
        table.row([
            port.name.clone(),
            port.device.clone(),
            if port.link_up { "up" } else { "down" }.to_owned(),
            port.rx_frames.to_string(),
            port.rx_missed.to_string(),
            port.rx_bytes.to_string(),
            port.tx_frames.to_string(),
            port.tx_bytes.to_string(),
            port.forwarded.to_string(),
            port.replies.to_string(),
            port.dropped.to_string(),
        ]);
    }
    table
}

fn drop_table(drops: &[Drop]) -> Table {
    let mut table = Table::new([
        left("PORT"),
        left("REASON"),
        right("FRAMES"),
        left("MEANING"),
    ]);
    for drop in drops {
        table.row([
            drop.port.clone(),
            drop.reason.clone(),
            drop.frames.to_string(),
            drop.help.clone(),
        ]);
    }
    table
}

fn route_table(routes: &[Route]) -> Table {
    let mut table = Table::new([left("PREFIX"), left("KIND"), left("TO")]);
    for route in routes {
        let to = route.port.as_ref().or(route.peer.as_ref());
        let to = to.map_or_else(|| "-".to_owned(), Clone::clone);
        table.row([route.prefix.clone(), route.kind.clone(), to]);
    }
    table
}

fn neighbour_table(neighbours: &[Neighbour]) -> Table {
    let mut table = Table::new([left("ADDRESS"), left("PORT"), left("MAC"), left("STATE")]);
    for neighbour in neighbours {
        table.row([
            neighbour.address.clone(),
            neighbour.port.clone(),
            neighbour.mac.clone().unwrap_or_else(|| "-".to_owned()),
            neighbour.state.clone(),
        ]);
    }
    table
}

fn tunnel_text(tunnel: &Tunnel) -> String {
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
        ..
    } = tunnel;
    format!(
        "{kind}, VNI {vni}, from {vtep} port {port}, MAC {mac}, packets up to {mtu} bytes\n\n{table}"
    )
}

pub(super) fn reload(args: &ReloadArgs) -> Result<(), CliError> {
    // Read here, so that an error names the file and no switch is bothered.
    let config = super::config::load_switch(&args.config)?;
    let body = serde_json::to_vec(&config).map_err(io::Error::other)?;
    let (socket, timeout) = (&args.switch.control, args.switch.timeout());
    let answer = request(socket, timeout, Method::PUT, "/v1/config", body.into())?;
    writeln!(
        io::stdout(),
        "generation {} is in use",
        answer["generation"]
    )?;
    Ok(())
}

pub(super) fn top(args: &TopArgs) -> Result<(), CliError> {
    use std::io::IsTerminal;
    let socket = args.switch.control.as_path();
    let look = || -> Result<(std::time::Instant, Ports, Vec<Drop>), ClientError> {
        let ports = read(socket, get(&args.switch, "/v1/ports")?)?;
        let drops = read(socket, get(&args.switch, "/v1/drops")?)?;
        Ok((std::time::Instant::now(), ports, drops))
    };
    let mut out = io::stdout().lock();
    let clear = out.is_terminal() && !args.json;
    let mut before = look()?;
    for _ in 0..args.count.unwrap_or(u64::MAX) {
        std::thread::sleep(Duration::from_secs_f64(args.interval));
        let now = look()?;
        let seconds = (now.0 - before.0).as_secs_f64();
        let rates: Vec<Rates> = now
            .1
            .ports
            .iter()
            .map(|port| Rates::of(port, &before, &now.2, seconds))
            .collect();
        if args.json {
            let ports: Vec<Value> = rates.iter().map(Rates::json).collect();
            let line = json!({ "tenant": now.1.tenant, "seconds": seconds, "ports": ports });
            writeln!(out, "{line}")?;
        } else {
            if clear {
                // Home, and erase to the end.
                write!(out, "\x1b[H\x1b[J")?;
            }
            writeln!(out, "tenant {}, every {} s\n", now.1.tenant, args.interval)?;
            write!(out, "{}", rate_table(&rates))?;
        }
        out.flush()?;
        before = now;
    }
    Ok(())
}

/// What a port did in one interval, per second.
struct Rates {
    port: String,
    rx_pps: f64,
    rx_bps: f64,
    tx_pps: f64,
    tx_bps: f64,
    drop_pps: f64,
    /// The reason that most frames were dropped for in the interval.
    top_reason: Option<String>,
}

impl Rates {
    fn of(
        port: &Port,
        (_, before, drops_before): &(std::time::Instant, Ports, Vec<Drop>),
        drops: &[Drop],
        seconds: f64,
    ) -> Self {
        let nothing = Port::default();
        let old = before
            .ports
            .iter()
            .find(|old| old.name == port.name)
            .unwrap_or(&nothing);
        // A restarted switch counts from zero again.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let top = drops
            .iter()
            .filter(|drop| drop.port == port.name)
            .map(|drop| {
                let same = |old: &&Drop| old.port == drop.port && old.number == drop.number;
                let before = drops_before.iter().find(same).map_or(0, |old| old.frames);
                (drop.frames.saturating_sub(before), &drop.reason)
            });
        Self {
            port: port.name.clone(),
            rx_pps: rate(port.rx_frames, old.rx_frames),
            rx_bps: rate(port.rx_bytes, old.rx_bytes) * 8.0,
            tx_pps: rate(port.tx_frames, old.tx_frames),
            tx_bps: rate(port.tx_bytes, old.tx_bytes) * 8.0,
            drop_pps: rate(port.dropped, old.dropped),
            top_reason: top
                .filter(|(frames, _)| *frames > 0)
                .max_by_key(|(frames, _)| *frames)
                .map(|(_, reason)| reason.clone()),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.port, "rx_pps": self.rx_pps, "rx_bps": self.rx_bps,
            "tx_pps": self.tx_pps, "tx_bps": self.tx_bps,
            "drop_pps": self.drop_pps, "top_reason": self.top_reason,
        })
    }
}

fn rate_table(rates: &[Rates]) -> Table {
    let mut table = Table::new([
        left("PORT"),
        right("RX /s"),
        right("RX Mbit/s"),
        right("TX /s"),
        right("TX Mbit/s"),
        right("DROPS /s"),
        left("MOSTLY"),
    ]);
    for rate in rates {
        table.row([
            rate.port.clone(),
            format!("{:.0}", rate.rx_pps),
            format!("{:.2}", rate.rx_bps / 1e6),
            format!("{:.0}", rate.tx_pps),
            format!("{:.2}", rate.tx_bps / 1e6),
            format!("{:.0}", rate.drop_pps),
            rate.top_reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}
