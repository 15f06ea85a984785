//! An end before the time: Ctrl-C and SIGTERM end a run in good order.
//!
//! Whoever waits for a switch or a load waits for a process. So on a signal the processes are ended, the waiting fails, and the
//! error takes its ordinary way past everything that cleans up when it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Listens from now on.
///
/// # Errors
/// If the kernel refuses.
pub fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot listen for signals")?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            // The first asks our processes to end, each further one ends them.
            let mut how = Signal::SIGTERM;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                HAPPENED.store(true, Ordering::Relaxed);
                for child in children() {
                    let _ = kill(child, how);
                }
                how = Signal::SIGKILL;
            }
        });
    });
    Ok(())
}

/// Whether a signal has come.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// To be asked before something new is begun.
///
/// # Errors
/// If a signal has come.
pub fn check() -> anyhow::Result<()> {
    if happened() {
        bail!("interrupted");
    }
    Ok(())
}

/// This process's own.
fn children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let parent = |number: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1).map(str::to_owned)
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|number| parent(number).as_ref() == Some(&own))
        .filter_map(|number| number.parse().ok().map(Pid::from_raw))
        .collect()
}
