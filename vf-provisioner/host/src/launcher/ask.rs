//! Asks a switch by its control API.
//!
//! A switch may have been taken over, and then its answer attacks whoever reads it. So a child
//! reads it, a hidden subcommand of the program that uses this library: it connects, gives up every
//! privilege and almost all system calls, and only then exchanges the first byte. What it writes,
//! the provisioner reads as it would read the switch itself: bounded, and into types.
//!
//! [`Asker::ask`] is the provisioner's half, [`answer`] the child's.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource as Limit, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use vswitch_api::Endpoint;
use vswitch_api::client::{Client, ClientError};
use vswitch_api::endpoint::config::Installed;
use vswitch_api::endpoint::drops::Drops;
use vswitch_api::endpoint::healthz::Health;
use vswitch_api::endpoint::ports::Ports;
use vswitch_api::endpoint::switch::Switch as About;
use vswitch_api::plain::quote;

use crate::child::{self, Bounds, OWN_EXECUTABLE};
use crate::files::{connect, is_shortage, pin_socket};

/// The child's memory: several times what the largest answer needs.
const MEMORY_MAX: u64 = 256 << 20;
/// Its processor time in seconds.
const CPU_MAX: u64 = 10;
/// Its descriptors: the socket, its standard streams, and what waits for them.
const FILES_MAX: u64 = 16;
/// How long the child may take beyond the exchange, to start and to end.
const MARGIN: Duration = Duration::from_secs(2);

/// What to ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Whether the worker runs.
    Ready,
    /// The counters of the ports.
    Ports,
    /// The frames dropped, by port and reason.
    Drops,
    /// Which switch it is.
    Switch,
    /// To use this configuration, in JSON.
    Reload(String),
}

/// The answer to the question of the same name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ready,
    Ports(Ports),
    Drops(Drops),
    Switch(About),
    Reload,
}

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// The socket, for messages.
    socket: PathBuf,
    /// Where the child connects.
    pinned: PathBuf,
    uid: u32,
    question: Question,
    within: Duration,
}

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Answer(Answer),
    /// What came may have been for another client; what is wrong with it.
    Astray(String),
    Failed(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// The switch does not answer as a switch does; a plain sentence.
    #[error("{0}")]
    Switch(String),
    /// It could not be asked, or its client ended without a result: that says nothing about it.
    #[error("{0}")]
    Client(String),
}

impl AskError {
    /// The child answers another question than it was asked.
    pub(crate) fn mixed_up() -> Self {
        Self::Client("the client answers another question".to_owned())
    }
}

/// How a switch is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The program with the hidden subcommand `ask`; by default this one.
    pub(crate) program: Option<&'a Path>,
    /// The switch's control socket.
    pub(crate) socket: &'a Path,
    /// The switch's user, whom the child becomes. Nobody else is endangered by it.
    pub(crate) uid: u32,
    /// For the whole exchange.
    pub(crate) within: Duration,
}

impl Asker<'_> {
    /// The answer, or why there is none. Asks once more within the same time if the answer is to
    /// another client's request.
    pub(crate) fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let until = Instant::now() + self.within;
        let mut reply = self.once(question, self.within)?;
        if matches!(reply, Reply::Astray(_)) {
            reply = self.once(question, until.saturating_duration_since(Instant::now()))?;
        }
        match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::Astray(message) | Reply::Failed(message) => {
                Err(AskError::Switch(quote(&message)))
            }
        }
    }

    /// The socket's folder belongs to the switch, so a link in the place of the socket is not
    /// followed.
    fn once(&self, question: &Question, within: Duration) -> Result<Reply, AskError> {
        let socket = self.socket.display();
        let (_file, pinned) = pin_socket(self.socket).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AskError::Switch(format!("{socket} is not there")),
            _ if is_shortage(&error) => AskError::Client(format!("{socket}: {error}")),
            _ => AskError::Switch(format!("{socket}: {error}")),
        })?;
        let asked = |error: &dyn std::fmt::Display| {
            AskError::Client(format!("the client of {socket}: {error}"))
        };
        let task = Task {
            socket: self.socket.to_owned(),
            pinned,
            uid: self.uid,
            question: question.clone(),
            within,
        };
        let task = serde_json::to_vec(&task).map_err(|error| asked(&error))?;
        let program = self.program.unwrap_or(Path::new(OWN_EXECUTABLE));
        let mut command = Command::new(program);
        command.arg("ask").env_clear();
        let bounds = Bounds {
            within: within + MARGIN,
            output: question.answer_max(),
        };
        let ended = child::run(&mut command, &task, bounds).map_err(|error| asked(&error))?;
        if !ended.status.success() {
            let message = format!("it ended ({}) {}", ended.status, ended.message());
            return Err(asked(&message.trim_end()));
        }
        serde_json::from_slice(&ended.output).map_err(|error| asked(&quote(&error.to_string())))
    }
}

impl Question {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Ready => Endpoint::Readyz,
            Self::Ports => Endpoint::Ports,
            Self::Drops => Endpoint::Drops,
            Self::Switch => Endpoint::Switch,
            Self::Reload(_) => Endpoint::Config,
        }
    }

    /// What the child may write: it adds the names of optional values that an answer lacks.
    fn answer_max(&self) -> usize {
        let spec = self.endpoint().spec();
        let answer_max = match (self, &spec.put) {
            (Self::Reload(_), Some(put)) => put.operation.answer_max,
            _ => spec.get.answer_max,
        };
        2 * answer_max
    }
}

/// `vf-provisioner ask`: reads a task from standard input, and writes what the switch answers.
///
/// # Errors
/// If there is no task, or a privilege cannot be given up.
pub fn answer() -> Result<(), String> {
    let mut task = Vec::new();
    let read = io::stdin().read_to_end(&mut task);
    read.map_err(|error| format!("cannot read the task: {error}"))?;
    let task: Task =
        serde_json::from_slice(&task).map_err(|error| format!("cannot read the task: {error}"))?;
    let reply = match connect(&task.pinned) {
        Err(error) => Reply::Failed(format!(
            "{}: {error}; is the switch running?",
            task.socket.display()
        )),
        Ok(stream) => {
            give_up_privileges(task.uid)?;
            let client = Client::connected(stream, task.socket, task.within);
            exchange(&client, task.question)
        }
    };
    let reply = serde_json::to_vec(&reply).map_err(|error| error.to_string())?;
    let written = io::stdout().write_all(&reply);
    written.map_err(|error| format!("cannot write the answer: {error}"))
}

fn exchange(client: &Client, question: Question) -> Reply {
    let endpoint = question.endpoint();
    let is_ready = matches!(question, Question::Ready);
    let answer = match question {
        Question::Ready => client.read(endpoint).map(|Health { .. }| Answer::Ready),
        Question::Ports => client.read(endpoint).map(Answer::Ports),
        Question::Drops => client.read(endpoint).map(Answer::Drops),
        Question::Switch => client.read(endpoint).map(Answer::Switch),
        Question::Reload(config) => client
            .put(endpoint, config.into_bytes())
            .map(|Installed { .. }| Answer::Reload),
    };
    match answer {
        Ok(answer) => Reply::Answer(answer),
        Err(error) if error.may_be_anothers() => Reply::Astray(error.to_string()),
        Err(ClientError::Refused(_)) if is_ready => {
            Reply::Failed("its worker forwards no frames".to_owned())
        }
        // The switch's own sentence.
        Err(ClientError::Refused(sentence)) => Reply::Failed(sentence),
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// What the child does from its first to its last exchanged byte. Opening a descriptor by name,
/// making a network socket, another process or executable memory is not on it.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fstat,
    // The runtime: it waits for the socket, and for signals of which there are none.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_socketpair,
    libc::SYS_poll,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Signals and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives up what the exchange does not need. Without root there is no user to become.
fn give_up_privileges(uid: u32) -> Result<(), String> {
    fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
        result.map_err(|error| format!("cannot {what}: {error}"))
    }
    let limits = [
        (Limit::RLIMIT_AS, MEMORY_MAX),
        (Limit::RLIMIT_CPU, CPU_MAX),
        (Limit::RLIMIT_NOFILE, FILES_MAX),
        (Limit::RLIMIT_FSIZE, 0),
        (Limit::RLIMIT_CORE, 0),
        (Limit::RLIMIT_NPROC, 0),
        (Limit::RLIMIT_MEMLOCK, 0),
        (Limit::RLIMIT_MSGQUEUE, 0),
    ];
    for (limit, most) in limits {
        let (_, hard) = step("read resource limits", getrlimit(limit))?;
        let most = most.min(hard);
        step("set resource limits", setrlimit(limit, most, most))?;
    }
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        step("leave groups", setgroups(&[]))?;
        step("change the group", setresgid(gid, gid, gid))?;
        // With the last id of root, every capability goes as well.
        step("change the user", setresuid(uid, uid, uid))?;
    }
    step("forbid new privileges", prctl::set_no_new_privs())?;
    step("forbid tracers", prctl::set_dumpable(false))?;
    step("filter system calls", filter())
}

fn filter() -> Result<(), seccompiler::Error> {
    let rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
