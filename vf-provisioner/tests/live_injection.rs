//! A taken-over switch, as the provisioner really started it: root makes its threads call what an
//! attacker would. Each call is refused, or ends the switch, whatever it has open.
//!
//! The real switch on this host's kernel, as root. Without root the tests print that and pass.

#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-vm1"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11"]
"#;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The kernel returned this.
    Returned(i64),
    /// The process was killed for it.
    Killed,
}

const fn refused(errno: Errno) -> Outcome {
    Outcome::Returned(-(errno as i64))
}

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
enum Argument {
    Number(i64),
    /// The packet socket of a port.
    Packet,
    /// The socket of the control API.
    Unix,
    /// The address of the attempt's data, in the memory of the process.
    Data,
}

use Argument::{Data, Number, Packet, Unix};

/// A call that an attacker would make.
struct Attempt {
    name: &'static str,
    call: i64,
    arguments: &'static [Argument],
    data: &'static [u8],
    wanted: Outcome,
}

const RW: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const OWN: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const LOG: Argument = Number(2);
const NO: Argument = Number(0);
const NONE: Argument = Number(-1);
const TIB: Argument = Number(1 << 40);
const PAGE: Argument = Number(4096);

/// A `sockaddr_un`: its family, and a path.
const ADDRESS: &[u8] = b"\x01\x00/run/systemd/notify\0";
/// A ring of 512 blocks of 4 MiB: 2 GiB of the kernel's memory.
const RING: &[u8] = b"\0\0\x40\0\0\x02\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0";

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "a larger ring at a port's socket",
        call: libc::SYS_setsockopt,
        arguments: &[
            Packet,
            Number(libc::SOL_PACKET as i64),
            Number(libc::PACKET_RX_RING as i64),
            Data,
            Number(RING.len() as i64),
        ],
        data: RING,
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "hugepages",
        call: libc::SYS_mmap,
        arguments: &[
            NO,
            Number(2 << 20),
            Number(RW),
            Number(OWN | libc::MAP_HUGETLB as i64),
            NONE,
            NO,
        ],
        data: b"",
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "a datagram to a socket by its path",
        call: libc::SYS_sendto,
        arguments: &[
            Unix,
            Data,
            Number(1),
            NO,
            Data,
            Number(ADDRESS.len() as i64),
        ],
        data: ADDRESS,
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "executable memory",
        call: libc::SYS_mmap,
        arguments: &[
            NO,
            PAGE,
            Number(RW | libc::PROT_EXEC as i64),
            Number(OWN),
            NONE,
            NO,
        ],
        data: b"",
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "a user namespace",
        call: libc::SYS_clone,
        arguments: &[Number((libc::CLONE_NEWUSER | libc::SIGCHLD) as i64)],
        data: b"",
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "a file by its path",
        call: libc::SYS_openat,
        arguments: &[Number(libc::AT_FDCWD as i64), Data, NO, NO],
        data: b"/proc/self/status\0",
        wanted: refused(Errno::EACCES),
    },
    Attempt {
        name: "the log at 1 TiB",
        call: libc::SYS_lseek,
        arguments: &[LOG, TIB, NO],
        data: b"",
        wanted: refused(Errno::ESPIPE),
    },
    Attempt {
        name: "writing the log at 1 TiB",
        call: libc::SYS_pwrite64,
        arguments: &[LOG, Data, Number(1), TIB],
        data: b"x",
        wanted: Outcome::Killed,
    },
    Attempt {
        name: "another mode of the log",
        call: libc::SYS_fcntl,
        arguments: &[LOG, Number(libc::F_SETFL as i64), NO],
        data: b"",
        wanted: Outcome::Killed,
    },
];

/// The descriptors of a process at which calls are aimed; -1 where there is none.
struct Targets {
    packet: i64,
    unix: i64,
}

impl Targets {
    fn of(pid: i32) -> Self {
        let lines = |table: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (packet, unix) = (lines("packet"), lines("unix"));
        let mut targets = Self {
            packet: -1,
            unix: -1,
        };
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it lives")
            .flatten()
        {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy().into_owned();
            let number = entry
                .file_name()
                .to_string_lossy()
                .parse()
                .expect("a number");
            let Some(inode) = target.strip_prefix("socket:[") else {
                continue;
            };
            let inode = inode.trim_end_matches(']');
            let has = |line: &&String| line.split_whitespace().any(|word| word == inode);
            if packet.iter().any(|line| has(&line)) {
                targets.packet = number;
            }
            if unix
                .iter()
                .find(has)
                .is_some_and(|line| line.ends_with("control.sock"))
            {
                targets.unix = number;
            }
        }
        targets
    }
}

/// The threads of a process, by name.
fn threads(pid: i32) -> Vec<(String, Pid)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let mut threads: Vec<_> = tasks
        .flatten()
        .map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).expect("a name");
            let id = task
                .file_name()
                .to_string_lossy()
                .parse()
                .expect("a number");
            (name.trim().to_owned(), Pid::from_raw(id))
        })
        .collect();
    threads.sort();
    threads
}

fn wait(thread: Pid) -> WaitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        match waitpid(thread, Some(flags)).expect("it is traced") {
            WaitStatus::StillAlive if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            status => return status,
        }
    }
}

/// Lets a stopped thread run to its next system call: to its entry, or from there to its end.
fn to_next_stop(thread: Pid) -> Option<Outcome> {
    let mut signal = None;
    loop {
        ptrace::syscall(thread, signal).expect("it is stopped");
        match wait(thread) {
            WaitStatus::PtraceSyscall(_) => return None,
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => return Some(Outcome::Killed),
            // A signal of its own.
            WaitStatus::Stopped(_, its) => signal = Some(its),
            status => panic!("{status:?}"),
        }
    }
}

/// Makes a thread do a call in the place of its next one, which it makes afterwards.
fn inject(thread: Pid, attempt: &Attempt, targets: &Targets) -> Outcome {
    ptrace::attach(thread).expect("root may");
    let attached = wait(thread);
    assert!(matches!(attached, WaitStatus::Stopped(..)), "{attached:?}");
    ptrace::setoptions(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("it is stopped");
    for _ in 0..2 {
        assert_eq!(to_next_stop(thread), None);
        let stop = ptrace::syscall_info(thread).expect("it is stopped");
        if stop.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            break;
        }
    }
    let saved = ptrace::getregs(thread).expect("it is stopped");
    // Below what the stack's owner uses.
    let place = (saved.rsp - 16_384) & !15;
    for (at, word) in attempt.data.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        let to = (place + 8 * at as u64) as *mut libc::c_void;
        ptrace::write(thread, to, i64::from_le_bytes(bytes)).expect("it is its stack");
    }
    let mut values = [0; 6];
    for (value, argument) in values.iter_mut().zip(attempt.arguments) {
        *value = match argument {
            Number(number) => *number as u64,
            Packet => targets.packet as u64,
            Unix => targets.unix as u64,
            Data => place,
        };
    }
    let mut registers = saved;
    registers.orig_rax = attempt.call as u64;
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ] = values;
    ptrace::setregs(thread, registers).expect("it is stopped");
    if let Some(killed) = to_next_stop(thread) {
        return killed;
    }
    let returned = ptrace::getregs(thread).expect("it is stopped").rax as i64;
    // Back to the instruction of its own call.
    let mut registers = saved;
    registers.rip -= 2;
    registers.rax = saved.orig_rax;
    ptrace::setregs(thread, registers).expect("it is stopped");
    // A process that is killed for a call stops at its end all the same, and there the kernel has
    // put the number of the call back.
    if returned == attempt.call
        && let Some(killed) = to_next_stop(thread)
    {
        return killed;
    }
    ptrace::detach(thread, None).expect("it is stopped");
    Outcome::Returned(returned)
}

#[test]
fn hostile_calls_of_a_running_switch_are_refused_or_end_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvi", 89_000, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    let file = file.display().to_string();
    site.good(&["apply", &file]);
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let pid = site.pid("t1");
        let targets = Targets::of(pid);
        assert!(
            targets.packet >= 0 && targets.unix >= 0,
            "nothing to aim at"
        );
        // DPDK's own thread waits for interrupts, of which there is none.
        let threads = threads(pid);
        let names: Vec<&str> = threads.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["control", "eal-intr-thread", "metadata", "vswitch"]);
        let (name, thread) = &threads[[0, 2, 3][number % 3]];
        println!("{}, by {name}", attempt.name);
        assert_eq!(
            inject(*thread, attempt, &targets),
            attempt.wanted,
            "{}",
            attempt.name
        );
        let lives = match attempt.wanted {
            Outcome::Killed => false,
            Outcome::Returned(_) => true,
        };
        if lives {
            // It goes on with what it did.
            site.good(&["verify"]);
            assert_eq!(site.pid("t1"), pid);
        } else {
            site.good(&["apply", &file]);
            assert_ne!(site.pid("t1"), pid);
        }
    }
    let log = site.state_dir().join("tenants/t1/log");
    let len = fs::metadata(&log).map_or(0, |log| log.len());
    assert!(len < 1 << 20, "{len}");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}

/// The control experiment: an ordinary process can do some of it, by the same injection.
#[test]
fn injected_calls_of_an_unconfined_process_succeed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    assert!(Path::new("/proc/self/status").exists());
    let mut command = Command::new("python3");
    command.args(["-c", "import time\nwhile True: time.sleep(0.05)"]);
    let mut process = command.stdout(Stdio::null()).spawn().expect("it starts");
    let targets = Targets {
        packet: -1,
        unix: -1,
    };
    for name in ["executable memory", "a file by its path"] {
        let attempt = ATTEMPTS
            .iter()
            .find(|it| it.name == name)
            .expect("it is there");
        let thread = Pid::from_raw(process.id() as i32);
        let outcome = inject(thread, attempt, &targets);
        assert!(
            matches!(outcome, Outcome::Returned(1..)),
            "{name}: {outcome:?}"
        );
    }
    assert!(
        process.try_wait().expect("it is ours").is_none(),
        "it lives on"
    );
    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
}
