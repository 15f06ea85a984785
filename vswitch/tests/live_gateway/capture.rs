//! Captures of an interface, and their dissection by Wireshark.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Bed, run};

/// Enables Wireshark's optional checks, and allows a zero UDP checksum over IPv6 in tunnels (RFC
/// 6935).
const CHECKS: [&str; 4] = [
    "ip.check_checksum",
    "udp.check_checksum",
    "tcp.check_checksum",
    "udp.ignore_ipv6_zero_checksum",
];

/// A running capture.
pub(crate) struct Capture {
    dumpcap: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures everything that a namespace's interface sends and receives from now on.
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
        // Reads its further output, so that the pipe never blocks it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { dumpcap, file }
    }

    /// Ends it; returns the captured frames.
    pub(crate) fn finish(mut self) -> Captured {
        // dumpcap reads the kernel's buffer every 0.1 s.
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
        // No name resolution.
        command.args(["-n", "-r"]).arg(&self.0);
        for check in CHECKS {
            command.args(["-o", &format!("{check}:TRUE")]);
        }
        command
    }

    /// How often the file contains these bytes.
    pub(crate) fn count(&self, bytes: &[u8]) -> usize {
        let all = std::fs::read(&self.0).expect("the capture");
        all.windows(bytes.len()).filter(|at| *at == bytes).count()
    }

    /// Fields of the frames that match a display filter: for each frame, the values of each field.
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

    /// Wireshark's warnings and errors about the frames that match a display filter.
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
