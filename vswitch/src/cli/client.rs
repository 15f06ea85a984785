//! `show`, `top` and `reload`: commands for a running switch, by its control API.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use vswitch_api::Endpoint;
use vswitch_api::client::{Client, ClientError};
use vswitch_api::endpoint::Form;
use vswitch_api::endpoint::config::Installed;
use vswitch_api::endpoint::drops::{self, Drop, Drops};
use vswitch_api::endpoint::ports::{Port, Ports};
use vswitch_api::plain::{self, PlainWriter};
use vswitch_api::table::{Table, left, right};

use super::{CliError, ControlArgs, ReloadArgs, ShowArgs, Shown, TopArgs};

fn client(switch: &ControlArgs) -> Client {
    Client::new(&switch.control, switch.timeout())
}

pub(super) fn show(args: &ShowArgs) -> Result<(), CliError> {
    let client = client(&args.switch);
    let Shown(endpoint, show) = args.what;
    let flags = endpoint.spec().get.flags;
    let all = args.all && flags.iter().any(|flag| flag.name == drops::ALL.name);
    let query = if all {
        format!("?{}=1", drops::ALL.name)
    } else {
        String::new()
    };
    let answer = client.get(endpoint, &query)?;
    let form = if args.json { Form::Json } else { Form::Table };
    let text = (show.print)(&answer, form).map_err(|error| client.protocol(error))?;
    PlainWriter(io::stdout().lock()).write_all(text.as_bytes())?;
    Ok(())
}

pub(super) fn reload(args: &ReloadArgs) -> Result<(), CliError> {
    // Checked here too, so that an error names the file.
    let config = super::config::load_switch(&args.config)?;
    let body = serde_json::to_vec(&config).map_err(io::Error::other)?;
    let client = client(&args.switch);
    let Installed { generation } = client.put(Endpoint::Config, body)?;
    writeln!(io::stdout(), "generation {generation} is in use")?;
    Ok(())
}

/// The counters at one moment.
struct Snapshot {
    at: Instant,
    ports: Ports,
    drops: Drops,
}

impl Snapshot {
    fn take(client: &Client) -> Result<Self, ClientError> {
        let ports = client.read(Endpoint::Ports)?;
        let drops = client.read(Endpoint::Drops)?;
        Ok(Self {
            at: Instant::now(),
            ports,
            drops,
        })
    }
}

pub(super) fn top(args: &TopArgs) -> Result<(), CliError> {
    let client = client(&args.switch);
    let mut out = io::stdout().lock();
    let clear = out.is_terminal() && !args.json;
    let mut before = Snapshot::take(&client)?;
    for _ in 0..args.count.unwrap_or(u64::MAX) {
        std::thread::sleep(Duration::from_secs_f64(args.interval));
        let now = Snapshot::take(&client)?;
        let tenant = &now.ports.tenant;
        let rates: Vec<Rates> = now
            .ports
            .ports
            .iter()
            .map(|port| Rates::of(port, &before, &now))
            .collect();
        if args.json {
            let seconds = (now.at - before.at).as_secs_f64();
            let line = Sample {
                tenant,
                seconds,
                ports: &rates,
            };
            writeln!(out, "{}", plain::json(&line).map_err(io::Error::from)?)?;
        } else {
            if clear {
                // Home, and erase to the end.
                write!(out, "\x1b[H\x1b[J")?;
            }
            let tenant = plain::quote(tenant);
            writeln!(out, "tenant {tenant}, every {} s\n", args.interval)?;
            write!(out, "{}", rate_table(&rates))?;
        }
        out.flush()?;
        before = now;
    }
    Ok(())
}

/// One line of `top --json`.
#[derive(Serialize)]
struct Sample<'a> {
    tenant: &'a str,
    seconds: f64,
    ports: &'a [Rates],
}

/// A port's traffic in one interval, per second.
#[derive(Serialize)]
struct Rates {
    #[serde(rename = "name")]
    port: String,
    rx_pps: f64,
    rx_bps: f64,
    tx_pps: f64,
    tx_bps: f64,
    drop_pps: f64,
    /// The reason for most drops of the interval.
    top_reason: Option<String>,
}

impl Rates {
    fn of(port: &Port, before: &Snapshot, now: &Snapshot) -> Self {
        let nothing = Port::default();
        let old = before.ports.ports.iter().find(|old| old.name == port.name);
        let old = old.unwrap_or(&nothing);
        let seconds = (now.at - before.at).as_secs_f64();
        // The counters of a restarted switch start at zero again.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let drops = now.drops.iter().filter(|drop| drop.port == port.name);
        let top = drops.map(|drop| {
            let same = |old: &&Drop| old.port == drop.port && old.number == drop.number;
            let before = before.drops.iter().find(same).map_or(0, |old| old.frames);
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
