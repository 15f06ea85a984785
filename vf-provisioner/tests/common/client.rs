//! Clients of DHCP and DHCPv6 in guests, and what they note of their leases.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::guest::{Guest, command};
use crate::site::Site;

/// A client in a guest.
pub(crate) struct Client {
    #[allow(dead_code)] // Not every test signals it.
    pub(crate) program: Guest,
    guest: &'static str,
    log: PathBuf,
    errors: PathBuf,
}

/// One event that a client reported, with its variables.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    variables: BTreeMap<String, String>,
}

impl Client {
    /// `script` makes the script that the client runs at each event, which adds to that log.
    pub(crate) fn start(
        site: &Site,
        guest: &'static str,
        script: impl FnOnce(&Path) -> String,
        arguments: impl FnOnce(&str) -> Vec<String>,
    ) -> Self {
        let dir = site.dir.path();
        let log = dir.join(format!("{guest}.log"));
        let errors = dir.join(format!("{guest}.errors"));
        let path = dir.join(format!("{guest}.script"));
        fs::write(&path, script(&log)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        let arguments = arguments(path.to_str().expect("UTF-8"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut program = command(site, guest, &arguments);
        let written = File::create(&errors).expect("a file");
        program.stdin(Stdio::null()).stderr(written);
        Self {
            program: Guest(program.spawn().expect("the client starts")),
            guest,
            log,
            errors,
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last one may be half written.
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let events = whole.split("=> ").skip(1).map(|event| {
            let mut lines = event.lines();
            Event::new(lines.next().unwrap_or_default(), lines)
        });
        events.collect()
    }

    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until the client reports such an event.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str) -> Event {
        let began = Instant::now();
        loop {
            let mut events = self.events().into_iter();
            if let Some(event) = events.find(|event| event.name == name) {
                return event;
            }
            let seen: Vec<_> = self.events().into_iter().map(|event| event.name).collect();
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "no {name} at {}, but {seen:?}: {}",
                self.guest,
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Event {
    pub(crate) fn new<'l>(name: &str, lines: impl Iterator<Item = &'l str>) -> Self {
        let variable = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Self {
            name: name.to_owned(),
            variables: lines.filter_map(variable).collect(),
        }
    }

    #[track_caller]
    pub(crate) fn has(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            let found = self.variables.get(*name).map(String::as_str);
            assert_eq!(found, Some(*value), "{name} of {self:?}");
        }
    }
}

/// The words of a command.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// systemd's network daemon, with a `/run/systemd` of its own. Where `/sys` is read-only, it does
/// not wait for udev.
pub(crate) struct Networkd {
    _program: Guest,
    pub(crate) run: PathBuf,
    pub(crate) log: PathBuf,
}

impl Networkd {
    pub(crate) const PROGRAM: &str = "/lib/systemd/systemd-networkd";

    /// With these settings of its one link.
    pub(crate) fn start(site: &Site, guest: &str, settings: &str) -> Self {
        let (run, log) = (
            site.dir.path().join("run"),
            site.dir.path().join("networkd.log"),
        );
        for dir in ["network", "netif/links", "netif/leases", "netif/lldp"] {
            fs::create_dir_all(run.join(dir)).expect("a directory");
        }
        let text = format!("[Match]\nName=eth0\n{settings}");
        fs::write(run.join("network/eth0.network"), text).expect("a file");
        let program = format!(
            "mkdir -p /run/systemd && mount --bind {} /run/systemd && \
             chown -R systemd-network: /run/systemd && \
             mount -o remount,ro,bind /sys && exec {}",
            run.display(),
            Self::PROGRAM
        );
        let mut program = command(site, guest, &["sh", "-c", &program]);
        let written = File::create(&log).expect("a file");
        program.stdin(Stdio::null()).stderr(written);
        program.env("SYSTEMD_LOG_TARGET", "console");
        Self {
            _program: Guest(program.spawn().expect("the client starts")),
            run,
            log,
        }
    }

    /// What it notes of its lease, once it has one.
    #[track_caller]
    pub(crate) fn lease(&self) -> Event {
        let began = Instant::now();
        loop {
            let mut leases = fs::read_dir(self.run.join("netif/leases"))
                .expect("a directory")
                .flatten();
            let text = leases
                .next()
                .and_then(|lease| fs::read_to_string(lease.path()).ok());
            if let Some(text) = text {
                return Event::new("lease", text.lines());
            }
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "no lease: {}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
