//! Ctrl-C and SIGTERM end a run cleanly.
//!
//! A run waits for the processes of switches and loads. A signal ends these processes, so the wait
//! fails, and the error unwinds through everything that cleans up when dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for signals.
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
            // The first signal terminates the child processes, each further one kills them.
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

/// Whether a signal has arrived.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// Fails after a signal; called before each new step.
///
/// # Errors
/// If a signal has arrived.
pub fn check() -> anyhow::Result<()> {
    if happened() {
        bail!("interrupted");
    }
    Ok(())
}

/// The children of this process.
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
