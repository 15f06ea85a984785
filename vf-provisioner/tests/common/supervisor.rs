//! `supervise` and its events.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// It ends when this is dropped.
pub(crate) struct Supervisor {
    child: Child,
    log: PathBuf,
    patience: Duration,
    taken: BTreeSet<usize>,
}

impl Supervisor {
    /// Starts `provisioner supervise`, and waits until it watches the tenants. Its events go to a
    /// file in `dir`; the patience is per event.
    pub(crate) fn start(
        mut provisioner: Command,
        options: &[&str],
        tenants: &[&str],
        dir: &Path,
        patience: Duration,
    ) -> Self {
        let log = dir.join("events");
        let child = provisioner
            .arg("supervise")
            .args(options)
            .stdout(fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("the supervisor starts");
        let mut it = Self {
            child,
            log,
            patience,
            taken: BTreeSet::new(),
        };
        for tenant in tenants {
            it.wait_for("watching", tenant);
        }
        it
    }

    /// All events until now.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).expect("the events");
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let events = text[..whole].lines().map(serde_json::from_str);
        events.collect::<Result<_, _>>().expect("JSON lines")
    }

    /// The next such event that was not yet waited for, of that tenant or, if that is empty, of
    /// any.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, event: &str, tenant: &str) -> Value {
        let began = Instant::now();
        loop {
            let events = self.events();
            let found = events.iter().enumerate().find(|(at, it)| {
                !self.taken.contains(at)
                    && it["event"] == event
                    && (tenant.is_empty() || it["tenant"] == tenant)
            });
            if let Some((at, found)) = found {
                self.taken.insert(at);
                return found.clone();
            }
            assert!(began.elapsed() < self.patience, "no {event}: {events:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does that while the supervisor stands still, so that it sees all of it or nothing.
    #[allow(dead_code)] // Not every test changes several things at once.
    pub(crate) fn unseen<R>(&self, change: impl FnOnce() -> R) -> R {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, Signal::SIGSTOP).expect("it is there");
        let result = change();
        kill(pid, Signal::SIGCONT).expect("it is there");
        result
    }

    /// Sends SIGTERM, as systemd does.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it is there");
        assert!(self.child.wait().expect("it ends").success());
        self.wait_for("stopped", "");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // After a test that failed.
        if std::thread::panicking() {
            let events = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the supervisor's events:\n{events}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
