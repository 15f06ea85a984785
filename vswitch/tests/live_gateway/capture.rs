//! Captures of an interface, and what Wireshark reads in them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Bed, run};

/// Wireshark's checks that are off unless they are asked for; and that no checksum may be none over IPv6 too, in a
/// tunnel (RFC 6935).
const CHECKS: [&str; 4] = [
    "ip.check_checksum",
    "udp.check_checksum",
    "tcp.check_checksum",
    "udp.ignore_ipv6_zero_checksum",
];

/// A capture that runs.
pub(crate) struct Capture {
    dumpcap: Child,
    file: PathBuf,
}

impl Capture {
    /// Everything that a namespace's interface sends and receives, from now on.
    pub(crate) fn start(bed: &Bed, name: &str, interface: &str) -> Self {
        let file = bed.path(&format!("{name}-{interface}.pcap"));
        let mut dumpcap = bed
            .command(name, "dumpcap")
            .args(["-q", "-B", "16", "-P", "-i", interface, "-w"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("dumpcap runs");
        let said = BufReader::new(dumpcap.stderr.take().expect("a pipe"));
        let mut lines = said.lines().map_while(Result::ok);
        let begun = lines.any(|line| line.starts_with("File: "));
        assert!(begun, "dumpcap captures on {interface}");
        // What else it says is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { dumpcap, file }
    }

    /// Ends it; what was captured.
    pub(crate) fn finish(mut self) -> Captured {
        // What the kernel has for dumpcap, it reads every tenth of a second.
        std::thread::sleep(Duration::from_millis(300));
        kill(Pid::from_raw(self.dumpcap.id() as i32), Signal::SIGINT).expect("it lives");
        let status = self.dumpcap.wait().expect("it ends");
        assert!(status.success(), "dumpcap: {status}");
        Captured(self.file.clone())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.dumpcap.kill();
        let _ = self.dumpcap.wait();
    }
}

/// A file of frames.
pub(crate) struct Captured(PathBuf);

impl Captured {
    fn tshark(&self) -> Command {
        let mut command = Command::new("tshark");
        // Names are not looked up.
        command.args(["-n", "-r"]).arg(&self.0);
        for check in CHECKS {
            command.args(["-o", &format!("{check}:TRUE")]);
        }
        command
    }

    /// How often these bytes are in it.
    pub(crate) fn count(&self, bytes: &[u8]) -> usize {
        let all = std::fs::read(&self.0).expect("the capture");
        all.windows(bytes.len()).filter(|at| *at == bytes).count()
    }

    /// Fields of the frames that a display filter lets through: for each frame, for each field all its values.
    pub(crate) fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<Vec<String>>> {
        let mut command = self.tshark();
        command.args(["-Y", filter, "-T", "fields", "-E", "occurrence=a"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let values = |cell: &str| cell.split(',').map(str::to_owned).collect();
        run(&mut command)
            .lines()
            .map(|line| line.split('\t').map(values).collect())
            .collect()
    }

    /// Wireshark's warnings and errors about the frames that a display filter lets through.
    pub(crate) fn complaints(&self, filter: &str) -> String {
        let summary = format!("expert,warn,{filter}");
        run(self.tshark().args(["-q", "-z", &summary]))
            .trim()
            .to_owned()
    }

    pub(crate) fn file(&self) -> &Path {
        &self.0
    }
}
