//! A test's own libvirtd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/test.d/libvirtd");

/// It ends when this is dropped.
pub(crate) struct Libvirtd {
    process: Child,
    socket: PathBuf,
}

impl Libvirtd {
    /// Starts one that writes below `dir`, in a named network namespace or in this one. If it is
    /// not installed, prints that and is `None`.
    pub(crate) fn start(dir: &Path, namespace: Option<&str>) -> Option<Self> {
        let there = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        };
        if !there("virsh") || !there("libvirtd") {
            eprintln!(
                "skipped: needs libvirtd and virsh (packages libvirt-daemon, \
                 libvirt-daemon-driver-qemu, libvirt-clients)"
            );
            return None;
        }
        fs::create_dir_all(dir).expect("a directory");
        let mut command = namespace.map_or_else(
            || Command::new(SCRIPT),
            |name| {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(SCRIPT);
                command
            },
        );
        let messages = dir.join("messages");
        let process = command
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&messages).expect("a file"))
            .spawn()
            .expect("it starts");
        let socket = dir.join("sock/libvirt-sock");
        let it = Self { process, socket };
        let began = Instant::now();
        while !it.socket.exists() {
            let output = || fs::read_to_string(&messages).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "{}", output());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(it)
    }

    /// The URI to connect to it.
    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket.display())
    }

    /// Its answer, or its error message.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("virsh")
            .args(["--quiet", "-c", &self.uri()])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .expect("virsh starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// The names of all defined domains.
    pub(crate) fn domains(&self) -> Vec<String> {
        let names = self.virsh(&["list", "--all", "--name"]);
        let names = names.expect("it lists");
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}
