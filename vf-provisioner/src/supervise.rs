//! Watches the switches: starts a dead one again, reports drift.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::pidfd_send_signal;
use serde::Serialize;
use tenant_config::Name;

use crate::apply::verify;
use crate::host::{HostError, RealHost};
use crate::launcher::Launcher;
use crate::resource::{Resource, Switch};
use crate::state::{self, State, StateError, Store};

/// How often the state directory is looked at for tenants that came or went.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a switch that is alive is asked whether it executes anything.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// The first restart is immediate; each further one within [`CALM`] waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(60);

/// Why supervision ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Signals or descriptors cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] nix::Error),
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What happened, one JSON object per line on standard output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Watching {
        tenant: &'a Name,
    },
    Down {
        tenant: &'a Name,
    },
    /// It is alive and executes nothing: it is ended, to be started again.
    Stuck {
        tenant: &'a Name,
        why: String,
    },
    Restarted {
        tenant: &'a Name,
        /// From its death being seen to its being ready again.
        outage_s: f64,
    },
    RestartFailed {
        tenant: &'a Name,
        error: String,
        next_try_s: f64,
    },
    Released {
        tenant: &'a Name,
    },
    Drift {
        found: Vec<String>,
    },
    VerifyFailed {
        error: String,
    },
    Stopped {
        signal: &'static str,
    },
}

fn since_epoch() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What the looks for drift have come to.
#[derive(Default)]
struct Seen {
    looks: u64,
    /// Seconds since the epoch.
    at: f64,
    /// How much was not as it was set, if it could be seen.
    drift: Option<usize>,
    written: String,
}

impl Seen {
    /// In Prometheus' text format.
    fn metrics(&self, state: &State, watched: &BTreeMap<Name, Watched>) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: Vec<(String, f64)>| {
            if !values.is_empty() {
                text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            for (labels, value) in values {
                text += &format!("{name}{labels} {value}\n");
            }
        };
        let one = |value: f64| vec![(String::new(), value)];
        metric(
            "vf_provisioner_verifications_total",
            "counter",
            "Looks for drift since the supervisor's start.",
            one(self.looks as f64),
        );
        if self.looks > 0 {
            metric(
                "vf_provisioner_verified_timestamp_seconds",
                "gauge",
                "When the last look for drift ended.",
                one(self.at),
            );
            metric(
                "vf_provisioner_verify_failed",
                "gauge",
                "1 if the last look for drift could not be made.",
                one(f64::from(u8::from(self.drift.is_none()))),
            );
        }
        if let Some(drift) = self.drift {
            metric(
                "vf_provisioner_drift",
                "gauge",
                "What was not as it was set, at the last look.",
                one(drift as f64),
            );
        }
        let tenants = watched.iter();
        let up = tenants.map(|(name, it)| {
            let up = f64::from(u8::from(it.down_since.is_none()));
            (format!("{{tenant=\"{name}\"}}"), up)
        });
        metric(
            "vf_provisioner_switch_up",
            "gauge",
            "1 while the tenant's switch runs.",
            up.collect(),
        );
        let accepted = state.tenants.iter().flat_map(|(name, record)| {
            record
                .accepted()
                .into_iter()
                .map(move |setting| (format!("{{tenant=\"{name}\",setting=\"{setting}\"}}"), 1.0))
        });
        metric(
            "vf_provisioner_nic_accepted",
            "gauge",
            "Settings of virtual functions that the tenant's file lets the NIC lack.",
            accepted.collect(),
        );
        text
    }
}

fn say(event: &Event<'_>) {
    let now = since_epoch();
    let mut line = serde_json::json!({ "time": now });
    if let (Some(line), Ok(serde_json::Value::Object(event))) =
        (line.as_object_mut(), serde_json::to_value(event))
    {
        line.extend(event);
    }
    let mut out = std::io::stdout().lock();
    // Where nobody reads, the switches are watched all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[derive(Default)]
struct Watched {
    /// Held while it is alive.
    pidfd: Option<OwnedFd>,
    /// When its death was seen.
    down_since: Option<Instant>,
    last_start: Option<Instant>,
    /// When it was last asked whether it executes anything.
    asked: Option<Instant>,
    wait: Duration,
    next_try: Option<Instant>,
}

/// Watches until SIGTERM or SIGINT.
pub fn run(
    dir: &Path,
    mut host: RealHost,
    mut launcher: impl Launcher,
    verify_every: Duration,
    metrics: Option<&Path>,
) -> Result<(), SuperviseError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let signal = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut watched: BTreeMap<Name, Watched> = BTreeMap::new();
    let mut verified = Instant::now();
    let mut seen = Seen::default();
    loop {
        let state = state::read(dir)?;
        let switches = switches(&state);
        watched.retain(|tenant, _| {
            let stays = switches.contains_key(tenant);
            if !stays {
                say(&Event::Released { tenant });
            }
            stays
        });
        for (tenant, switch) in &switches {
            if !watched.contains_key(tenant) {
                say(&Event::Watching { tenant });
            }
            let it = watched.entry(tenant.clone()).or_default();
            look(dir, &mut launcher, switch, it)?;
            // One tenant's log is no reason to leave the others unwatched.
            if let Err(error) = launcher.trim_log(tenant) {
                tracing::warn!(%tenant, %error, "the log stays as it is");
            }
        }
        let due = !verify_every.is_zero() && verified.elapsed() >= verify_every;
        if due && !state.tenants.is_empty() {
            // What an apply under way has not finished is no drift.
            let store = Store::open(dir)?;
            let result = verify(&mut host, store.state());
            store.remove_if_empty()?;
            verified = Instant::now();
            seen.looks += 1;
            seen.at = since_epoch();
            seen.drift = result.as_ref().ok().map(Vec::len);
            match result {
                Ok(found) if found.is_empty() => {}
                Ok(found) => say(&Event::Drift { found }),
                Err(error) => say(&Event::VerifyFailed {
                    error: error.to_string(),
                }),
            }
        }
        if let Some(file) = metrics {
            let text = seen.metrics(&state, &watched);
            if text != seen.written {
                // Whoever reads them sees by their age that they are no longer written.
                match state::replace(file, text.as_bytes(), 0o644) {
                    Ok(()) => seen.written = text,
                    Err(error) => tracing::warn!(file = %file.display(), %error, "no metrics"),
                }
            }
        }
        if let Some(signal) = wait(&signal, &watched)? {
            say(&Event::Stopped { signal });
            return Ok(());
        }
    }
}

/// The switches that should run. One whose apply is under way is that apply's.
fn switches(state: &State) -> BTreeMap<Name, Switch> {
    let complete = state.tenants.iter().filter(|(_, record)| record.complete);
    complete
        .filter_map(|(name, record)| {
            record.resources.iter().find_map(|resource| match resource {
                Resource::Switch(switch) => Some((name.clone(), switch.clone())),
                _ => None,
            })
        })
        .collect()
}

fn look(
    dir: &Path,
    launcher: &mut impl Launcher,
    switch: &Switch,
    it: &mut Watched,
) -> Result<(), SuperviseError> {
    let tenant = &switch.tenant;
    if is_alive(it)? {
        let due = it.asked.is_none_or(|last| last.elapsed() > ASK_EVERY);
        if due && let Some(why) = launcher.stuck(switch) {
            say(&Event::Stuck { tenant, why });
            if let Some(pidfd) = &it.pidfd {
                // It may have ended meanwhile; its death is seen at the next look.
                let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            }
        }
        if due {
            it.asked = Some(Instant::now());
        }
        return Ok(());
    }
    it.pidfd = launcher.pidfd(tenant)?;
    if it.pidfd.is_some() {
        // It runs: seen for the first time, or started by an apply.
        it.down_since = None;
        it.last_start.get_or_insert_with(Instant::now);
        return Ok(());
    }
    let down_since = *it.down_since.get_or_insert_with(|| {
        say(&Event::Down { tenant });
        Instant::now()
    });
    let calm = it.last_start.is_none_or(|last| last.elapsed() > CALM);
    if it.next_try.is_none() && calm {
        it.wait = Duration::ZERO;
    }
    let next = *it.next_try.get_or_insert_with(|| Instant::now() + it.wait);
    if Instant::now() < next {
        return Ok(());
    }
    // Whoever applies or releases goes first; afterwards the switch may run or be gone.
    let store = Store::open(dir)?;
    if switches(store.state()).get(tenant) != Some(switch) || launcher.pidfd(tenant)?.is_some() {
        it.next_try = None;
        store.remove_if_empty()?;
        return Ok(());
    }
    it.wait = (it.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
    it.last_start = Some(Instant::now());
    it.next_try = None;
    match launcher.restart(switch) {
        Ok(()) => {
            it.down_since = None;
            it.pidfd = launcher.pidfd(tenant)?;
            say(&Event::Restarted {
                tenant,
                outage_s: down_since.elapsed().as_secs_f64(),
            });
        }
        Err(error) => say(&Event::RestartFailed {
            tenant,
            error: error.to_string(),
            next_try_s: it.wait.as_secs_f64(),
        }),
    }
    Ok(())
}

/// A pidfd is readable once its process has ended.
fn is_alive(it: &Watched) -> Result<bool, nix::Error> {
    let Some(pidfd) = &it.pidfd else {
        return Ok(false);
    };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? == 0)
}

/// Waits for a death, a signal, or the next look.
fn wait(
    signal: &SignalFd,
    watched: &BTreeMap<Name, Watched>,
) -> Result<Option<&'static str>, nix::Error> {
    let now = Instant::now();
    let next = watched
        .values()
        .filter_map(|it| it.next_try)
        .map(|next| next.saturating_duration_since(now))
        .fold(LOOK_EVERY, Duration::min);
    let mut fds = vec![PollFd::new(signal.as_fd(), PollFlags::POLLIN)];
    for pidfd in watched.values().filter_map(|it| it.pidfd.as_ref()) {
        fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
    }
    let next = PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, next) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    Ok(match signal.read_signal()? {
        Some(info) if info.ssi_signo == Signal::SIGINT as u32 => Some("SIGINT"),
        Some(_) => Some("SIGTERM"),
        None => None,
    })
}
