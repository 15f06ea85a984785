//! `check-sandbox`: attempts, on the running kernel, what a switch must not be able to do.
//!
//! Each attempt is made by a process of its own, which first becomes a switch: it opens two ports
//! on packet sockets, its control socket and its channel, and confines itself, as `run` does. If
//! the kernel kills the process or returns an error, the attempt was refused; if it succeeds, the
//! status is 0. The ports are on the loopback interface of a network namespace of its own.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use dpdk::attempt::{ATTEMPTS, Targets};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tenant_config::{Device, Memory, SwitchConfig, Tenant};

use super::run::start;
use super::{CliError, RunArgs};
use crate::sandbox::{self, LandlockLevel, Needs};
use crate::worker::PollMode;

/// The status of a refused attempt.
const REFUSED: u8 = 10;
/// The status if the switch could not be started.
const NO_SWITCH: u8 = 11;

/// The switch that makes the attempts.
const TENANT: &str = r#"
name = "check"
vni = 1
[gateway]
ipv4 = "10.0.0.1/24"
[[port]]
name = "vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
[[port]]
name = "vm2"
mac = "52:54:00:aa:00:02"
addresses = ["10.0.0.12"]
"#;

/// An attempt through the standard library: its name, and the function, which may remove or change
/// the given file.
type Probe = (&'static str, fn(&Path) -> io::Result<()>);

/// The first must succeed: it shows that the others are refused for what they do.
const PROBES: &[Probe] = &[
    ("write a line to the log", |_| {
        writeln!(io::stderr(), "still here")
    }),
    ("read /etc/passwd", |_| {
        std::fs::read("/etc/passwd").map(drop)
    }),
    ("list /proc", |_| std::fs::read_dir("/proc").map(drop)),
    ("write a file", |bait| std::fs::write(bait, "x")),
    ("remove a file", |bait| std::fs::remove_file(bait)),
    ("start a thread", |_| {
        std::thread::Builder::new().spawn(|| ()).map(drop)
    }),
];

/// The names of all attempts: [`PROBES`], then [`ATTEMPTS`].
fn names() -> impl Iterator<Item = &'static str> {
    let calls = ATTEMPTS.iter().map(|attempt| attempt.name);
    PROBES.iter().map(|(name, _)| *name).chain(calls)
}

/// How many attempts are made at a time: a switch mostly waits while it starts.
const AT_A_TIME: usize = 8;

/// Makes attempt `number` in a switch, and ends the process.
pub(super) fn probe(number: usize, directory: &Path) -> ExitCode {
    let failed = |problem: String| {
        let _ = writeln!(io::stderr(), "{problem}");
        ExitCode::from(NO_SWITCH)
    };
    let bait = directory.join("bait");
    let (args, config) = match prepare(directory, &bait) {
        Ok(prepared) => prepared,
        Err(problem) => return failed(problem),
    };
    let _switch = match start(&args, config) {
        Ok(switch) => switch,
        Err(error) => return failed(error.to_string()),
    };
    let targets = Targets::find();
    if !targets.are_there() {
        return failed("its sockets are not open".to_owned());
    }
    let done = match (PROBES.get(number), number.checked_sub(PROBES.len())) {
        (Some((_, probe)), _) => probe(&bait),
        (None, call) => match call.and_then(|call| ATTEMPTS.get(call)) {
            Some(attempt) => attempt.make(&targets),
            None => return failed("no such attempt".to_owned()),
        },
    };
    // Without the destructors, which close the devices.
    std::process::exit(match done {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => REFUSED.into(),
        _ => 0,
    })
}

/// The arguments and the configuration of the switch, in a namespace of its own. Makes the bait,
/// and the directory of its sockets.
fn prepare(directory: &Path, bait: &Path) -> Result<(RunArgs, SwitchConfig), String> {
    let as_root = nix::unistd::geteuid().is_root();
    let user = if as_root {
        CloneFlags::empty()
    } else {
        CloneFlags::CLONE_NEWUSER
    };
    unshare(user | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("a network namespace cannot be made: {errno}"))?;
    let run = directory.join("run");
    std::fs::create_dir(&run)
        .and_then(|()| std::fs::File::create_new(bait).map(drop))
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let tenant = Tenant::parse("check-sandbox", TENANT).map_err(|error| error.to_string())?;
    let mut config = tenant.offline_config();
    config.memory = Memory {
        mib: 16,
        hugepages: false,
    };
    for port in &mut config.ports {
        port.device = Device::AfPacket {
            interface: "lo".to_owned(),
        };
    }
    let args = RunArgs {
        config: PathBuf::new(),
        cpu: None,
        control: Some(run.join("control.sock")),
        channel: Some(run.join("channel.sock")),
        ike: Some(run.join("ike.sock")),
        ike_uid: Some(nix::unistd::geteuid().as_raw()),
        poll: PollMode::default(),
        no_sandbox: false,
    };
    Ok((args, config))
}

/// A directory that is removed with this.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the process of an attempt, with a directory of its own.
fn begin(number: usize) -> io::Result<(Child, Directory)> {
    let name = format!("vswitch-check-sandbox-{}-{number}", std::process::id());
    let directory = Directory(std::env::temp_dir().join(name));
    std::fs::create_dir(&directory.0)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["check-sandbox", "--probe", &number.to_string(), "--directory"])
        .arg(&directory.0)
        // DPDK's runtime directory, which another process must not remove.
        .env("RUNTIME_DIRECTORY", &directory.0)
        .stderr(Stdio::null())
        .spawn()?;
    Ok((child, directory))
}

/// Makes every attempt, and fails if one succeeds.
pub(super) fn check(json: bool) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let mut wrong = Vec::new();
    let attempts: Vec<(usize, &str)> = names().enumerate().collect();
    for some in attempts.chunks(AT_A_TIME) {
        let begun: io::Result<Vec<_>> = some.iter().map(|(number, _)| begin(*number)).collect();
        for ((number, name), (mut child, _directory)) in some.iter().zip(begun?) {
            let result = Outcome::of(child.wait()?);
            let wanted: &[Outcome] = match number {
                0 => &[Outcome::Done],
                _ => &[Outcome::Refused, Outcome::Killed],
            };
            if !wanted.contains(&result) {
                wrong.push(*name);
            }
            let result = result.text();
            if json {
                writeln!(out, "{}", json!({ "attempt": name, "result": result }))?;
            } else {
                writeln!(out, "{name:<38} {result}")?;
            }
        }
    }
    let landlock = landlock_of_this_kernel();
    if json {
        writeln!(
            out,
            "{}",
            json!({ "landlock": landlock.to_string(), "ok": wrong.is_empty() })
        )?;
    } else {
        writeln!(out, "{:<38} {landlock}", "Landlock on this kernel")?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(CliError::Sandbox(wrong.join(", ")))
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Killed,
    NoSwitch,
    Unknown,
}

impl Outcome {
    fn of(status: ExitStatus) -> Self {
        match (status.code().map(u8::try_from), status.signal()) {
            (_, Some(libc::SIGSYS)) => Self::Killed,
            (Some(Ok(0)), _) => Self::Done,
            (Some(Ok(REFUSED)), _) => Self::Refused,
            (Some(Ok(NO_SWITCH)), _) => Self::NoSwitch,
            _ => Self::Unknown,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Killed => "killed",
            Self::NoSwitch => "no switch could be started",
            Self::Unknown => "ended in another way",
        }
    }
}

/// Determined on a thread of its own, because the only way is to restrict the thread.
fn landlock_of_this_kernel() -> LandlockLevel {
    let ask = || sandbox::confine_thread(&Needs::default());
    let asked = std::thread::spawn(ask).join();
    asked
        .ok()
        .and_then(Result::ok)
        .unwrap_or(LandlockLevel::Absent)
}
