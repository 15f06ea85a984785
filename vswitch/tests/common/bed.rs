//! Test beds of the live tests: network namespaces, veth pairs between them, and switches inside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use wait::eventually;

#[path = "wait.rs"]
mod wait;

pub(crate) const SWITCH: &str = env!("CARGO_BIN_EXE_vswitch");

/// Network namespaces of one test. Dropping it removes them.
pub(crate) struct Bed {
    /// A prefix of every namespace's name, unique to this bed.
    tag: String,
    directory: TempDir,
    names: Vec<&'static str>,
}

impl Bed {
    /// `None`, with a message, without root.
    pub(crate) fn new(test: &str, names: &[&'static str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        if !nix::unistd::geteuid().is_root() {
            println!("{test} is skipped: it makes network namespaces, and so needs root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let bed = Self {
            tag: format!("vst{}x{number}", std::process::id()),
            directory: TempDir::new().expect("a directory"),
            names: names.to_vec(),
        };
        for name in names {
            ip(&["netns", "add", &bed.netns(name)]);
            bed.inside(name, &["link", "set", "dev", "lo", "up"]);
        }
        Some(bed)
    }

    pub(crate) fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// A file or socket of this bed's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `ip` inside a namespace.
    pub(crate) fn inside(&self, name: &str, arguments: &[&str]) {
        let netns = self.netns(name);
        ip(&[&["-n", &netns], arguments].concat());
    }

    /// A program inside a namespace. `ip netns exec` executes it, so the child is the program.
    pub(crate) fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(name), program]);
        command
    }

    pub(crate) fn sysctl(&self, name: &str, setting: &str) {
        run(self.command(name, "sysctl").args(["-qw", setting]));
    }

    /// A veth pair, both ends up: `eth0` in the guest's namespace, and in `name` the end that is
    /// called `end`.
    pub(crate) fn pair(&self, (name, end): (&str, &str), guest: &str, mac: &str) {
        let (here, there) = (self.netns(name), self.netns(guest));
        ip(&[
            "link", "add", end, "netns", &here, "type", "veth", "peer", "name", "eth0", "address",
            mac, "netns", &there,
        ]);
        // This end is no station: the kernel's own neighbour discovery must not send frames here.
        self.sysctl(name, &format!("net.ipv6.conf.{end}.disable_ipv6=1"));
        self.inside(name, &["link", "set", "dev", end, "up"]);
        self.inside(guest, &["link", "set", "dev", "eth0", "up"]);
    }

    pub(crate) fn ping(&self, from: &str, arguments: &[&str]) -> Pings {
        let mut ping = self.command(from, "ping");
        let output = ping.args(["-n", "-q"]).args(arguments).output();
        Pings::parse(&output.expect("ping runs"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.netns(name)])
                .status();
        }
    }
}

/// A running switch. Dropping it kills it.
pub(crate) struct Switch {
    pub(crate) child: Child,
    socket: PathBuf,
}

impl Switch {
    /// Starts it in a namespace with this configuration, and waits until it is ready.
    pub(crate) fn start(bed: &Bed, name: &str, config: &Value, arguments: &[&str]) -> Self {
        let file = bed.path(&format!("{name}.json"));
        std::fs::write(&file, config.to_string()).expect("a file");
        let mut command = bed.command(name, SWITCH);
        let child = command
            .args(["run", "--config"])
            .arg(&file)
            .args(arguments)
            .spawn()
            .expect("the switch starts");
        let socket = config["control_socket"].as_str().expect("a socket").into();
        let switch = Self { child, socket };
        eventually("the switch is ready", || {
            http(&switch.socket, "GET", "/readyz", "").is_some_and(|(status, _)| status == 200)
        });
        switch
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = http(&self.socket, "GET", path, "").expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    pub(crate) fn put_config(&self, config: &Value) -> (u16, Value) {
        let (status, body) =
            http(&self.socket, "PUT", "/v1/config", &config.to_string()).expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// The output of a `vswitch` command about it.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(SWITCH);
        command.args(arguments).arg("--control").arg(&self.socket);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The dropped frames of a port, by reason.
    pub(crate) fn all_drops(&self, port: &str) -> BTreeMap<String, u64> {
        let drops = self.get("/v1/drops?all=1");
        let drops = drops.as_array().expect("an array").iter();
        drops
            .filter(|drop| drop["port"] == port)
            .map(|drop| {
                let reason = drop["reason"].as_str().expect("a name").to_owned();
                (reason, drop["frames"].as_u64().expect("a number"))
            })
            .collect()
    }

    pub(crate) fn drops(&self, port: &str, reason: &str) -> u64 {
        self.all_drops(port)[reason]
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The summary of `ping -q`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pings {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The line of round trip times.
    pub(crate) times: String,
}

impl Pings {
    pub(crate) fn parse(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let number_before = |word: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let at = words.windows(2).position(|pair| pair[1].starts_with(word));
            at.and_then(|at| words[at].parse().ok()).unwrap_or(0)
        };
        // "5 packets transmitted, 5 received, 0% packet loss"
        Self {
            sent: number_before("packets"),
            received: number_before("received"),
            times: text
                .lines()
                .find(|line| line.starts_with("rtt"))
                .unwrap_or("")
                .to_owned(),
        }
    }
}

#[track_caller]
pub(crate) fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// Runs a command, which must succeed; returns its standard output.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One request: status and body; `None` without an answer.
pub(crate) fn http(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
