//! `check-sandbox`: attempts, on the running kernel, what a switch must not be able to do.
//!
//! Each attempt is made by a process of its own, which first builds the sandbox of a switch. If the
//! kernel kills the process or returns an error, the attempt was refused; if it succeeds, the
//! status is 0.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use nix::libc;
use nix::unistd::Pid;
use serde_json::json;

use super::CliError;
use crate::sandbox::{self, LandlockLevel, Needs, SandboxError};

/// The status of a refused attempt.
const REFUSED: u8 = 10;
/// The status if the sandbox could not be built.
const NO_SANDBOX: u8 = 11;

/// An attempt: its name, and the function, which may remove or change the given file.
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
    ("open a TCP socket", |_| {
        std::net::TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    ("open a UDP socket", |_| {
        std::net::UdpSocket::bind("127.0.0.1:0").map(drop)
    }),
    ("open a unix socket", |_| {
        std::os::unix::net::UnixDatagram::unbound().map(drop)
    }),
    ("run a program", |_| {
        Command::new("/bin/true").status().map(drop)
    }),
    ("start a thread", |_| {
        std::thread::Builder::new().spawn(|| ()).map(drop)
    }),
    ("signal process 1", |_| {
        Ok(nix::sys::signal::kill(Pid::from_raw(1), None)?)
    }),
    ("enter a namespace", |_| {
        Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)
    }),
    ("mount a file system", |_| {
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        Ok(nix::mount::mount(none, "/tmp", Some("tmpfs"), flags, none)?)
    }),
    ("become another user", |_| {
        Ok(nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534))?)
    }),
    ("raise a limit", |_| {
        use nix::sys::resource::{Resource, setrlimit};
        Ok(setrlimit(Resource::RLIMIT_NOFILE, 64, 64)?)
    }),
];

/// The file of an attempt; the process of that number creates it before it is confined.
fn bait(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("vswitch-check-sandbox-{process}"))
}

/// Makes attempt `number` inside the sandbox.
pub(super) fn probe(number: usize) -> ExitCode {
    let enter = || -> Result<(), SandboxError> {
        let needs = Needs::default();
        sandbox::confine_thread(&needs)?;
        sandbox::filter_all_threads(&needs)
    };
    let bait = bait(std::process::id());
    if std::fs::File::create_new(&bait).is_err() || enter().is_err() {
        return ExitCode::from(NO_SANDBOX);
    }
    let Some((_, attempt)) = PROBES.get(number) else {
        return ExitCode::from(NO_SANDBOX);
    };
    match attempt(&bait) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => ExitCode::from(REFUSED),
        _ => ExitCode::SUCCESS,
    }
}

/// Makes every attempt, and fails if one succeeds.
pub(super) fn check(json: bool) -> Result<(), CliError> {
    let program = std::env::current_exe()?;
    let mut out = io::stdout().lock();
    let mut wrong = Vec::new();
    for (number, (name, _)) in PROBES.iter().enumerate() {
        let mut child = Command::new(&program)
            .args(["check-sandbox", "--probe", &number.to_string()])
            .stderr(Stdio::null())
            .spawn()?;
        let status = child.wait()?;
        let _ = std::fs::remove_file(bait(child.id()));
        let result = Outcome::of(status);
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
            writeln!(out, "{name:<26} {result}")?;
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
        writeln!(out, "{:<26} {landlock}", "Landlock on this kernel")?;
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
    NoSandbox,
    Unknown,
}

impl Outcome {
    fn of(status: ExitStatus) -> Self {
        match (status.code().map(u8::try_from), status.signal()) {
            (_, Some(libc::SIGSYS)) => Self::Killed,
            (Some(Ok(0)), _) => Self::Done,
            (Some(Ok(REFUSED)), _) => Self::Refused,
            (Some(Ok(NO_SANDBOX)), _) => Self::NoSandbox,
            _ => Self::Unknown,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Killed => "killed",
            Self::NoSandbox => "the sandbox could not be built",
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
