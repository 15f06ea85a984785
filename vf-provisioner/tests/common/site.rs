//! One instance on this host's kernel: a network namespace of its own for a host, a state
//! directory, a range of users.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::output::written;

pub(crate) const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");

/// Runs a shell command, which may fail; returns its output.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output();
    String::from_utf8_lossy(&output.expect("sh starts").stdout).into_owned()
}

/// Everything is removed when this is dropped.
pub(crate) struct Site {
    pub(crate) instance: &'static str,
    uid_base: u32,
    pub(crate) dir: tempfile::TempDir,
    /// Further options of each of its provisioners.
    options: Vec<String>,
    /// The libvirt that they use, if not the host's.
    pub(crate) libvirt: Option<String>,
}

impl Site {
    /// Accessible to root only.
    pub(crate) fn new(instance: &'static str, uid_base: u32, options: Vec<String>) -> Self {
        // Removed by scripts/test.d/leftovers.py if this process is killed. Tests look for tenants
        // such as t1 in paths, so no letter stands before the number.
        let prefix = format!("vfs.{}-", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&prefix)
            .rand_bytes(3)
            .tempdir_in("/dev/shm");
        let site = Self {
            instance,
            uid_base,
            dir: dir.expect("a temporary directory"),
            options,
            libvirt: None,
        };
        site.note_release();
        sh(&format!("ip netns add {}", site.host()));
        assert_eq!(site.left(), site.nothing(), "left over by an earlier run");
        site
    }

    fn note_release(&self) {
        let mut command = self.command();
        command.args(["release", "--all"]);
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let words = words.map(|word| word.to_str().expect("it is ASCII"));
        let note = json!({"instance": self.instance, "release": words.collect::<Vec<_>>()});
        let file = self.dir.path().join("release.json");
        fs::write(file, note.to_string()).expect("the note is written");
    }

    /// The namespace that takes the place of the host's own.
    pub(crate) fn host(&self) -> String {
        format!("{}-host", self.instance)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.host()))
            .arg(PROVISIONER)
            .args(["--instance", self.instance])
            .arg("--state-dir")
            .arg(self.state_dir())
            .args(["--uid-base", &self.uid_base.to_string()])
            .args(&self.options)
            .envs(self.libvirt.iter().map(|uri| ("LIBVIRT_DEFAULT_URI", uri)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command().args(arguments).output();
        output.expect("the provisioner starts")
    }

    #[track_caller]
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        written(&self.run(arguments), arguments)
    }

    #[allow(dead_code)] // Not every test reads answers.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        // `status` shows also what is not up.
        let shown = arguments[0] == "status" && output.status.code() == Some(3);
        let text = match shown {
            true => String::from_utf8_lossy(&output.stdout).into_owned(),
            false => written(&output, arguments),
        };
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// The status of a tenant.
    #[allow(dead_code)]
    #[track_caller]
    pub(crate) fn status(&self, tenant: &str) -> Value {
        self.json(&["status", tenant])["tenants"][0].clone()
    }

    /// The process of a tenant's switch.
    #[allow(dead_code)]
    #[track_caller]
    pub(crate) fn pid(&self, tenant: &str) -> i32 {
        let pid = self.status(tenant)["switch"]["pid"].as_i64();
        pid.expect("its switch runs") as i32
    }

    /// All objects of this instance on the host.
    pub(crate) fn left(&self) -> BTreeSet<String> {
        let instance = self.instance;
        let mut left = BTreeSet::new();
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{instance}-")) {
                left.insert(format!("namespace {name}"));
            }
        }
        let host = self.host();
        for line in sh(&format!("ip -n {host} -o link")).lines() {
            let name = line.split(": ").nth(1).unwrap_or_default();
            left.insert(format!("link {name}"));
        }
        let rules = sh(&format!("nsenter --net=/run/netns/{host} nft list ruleset"));
        left.extend(rules.lines().map(|line| format!("nft {line}")));
        for path in sh(&format!(
            "find /sys/fs/cgroup -path '*/{instance}*' -type d"
        ))
        .lines()
        {
            left.insert(format!("cgroup {path}"));
        }
        for line in sh("ps -eo uid=,stat=").lines() {
            let mut fields = line.split_whitespace();
            let uid = fields.next().and_then(|uid| uid.parse::<u32>().ok());
            let is_ours = uid.is_some_and(|uid| (self.uid_base..self.uid_base + 40).contains(&uid));
            // A zombie holds nothing.
            if is_ours && !fields.any(|state| state.starts_with('Z')) {
                left.insert(format!("a process: {line}"));
            }
        }
        // The list of released users and the journal stay.
        for file in fs::read_dir(self.state_dir())
            .into_iter()
            .flatten()
            .flatten()
        {
            let stays = ["released-users.json", "history", "history.1"];
            if !stays.iter().any(|name| file.file_name() == *name) {
                left.insert(format!("state {}", file.path().display()));
            }
        }
        left
    }

    pub(crate) fn nothing(&self) -> BTreeSet<String> {
        BTreeSet::from([format!("namespace {}", self.host()), "link lo".to_owned()])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.run(&["release", "--all"]);
        sh(&format!("ip netns delete {}", self.host()));
    }
}
