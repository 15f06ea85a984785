//! The tenant's IKE daemon beside the switch: starts it, also whenever it has ended, and relays its
//! port.
//!
//! The daemon is a user of its own, in a root that holds its program and two folders: the one in
//! which the switch listens for it, and the one in which it listens for VICI. The host's bytes go
//! from the port to that socket and back ([`vswitch_api::machine`]), through this process: the
//! switch sees no key that the host sends.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chdir, chroot, setgid, setgroups, setuid};
use rustix::process::nice;
use rustix::rand::{GetRandomFlags, getrandom};
use vswitch_api::machine::{Body, DATA_MAX, Decoder, Frame};
use zeroize::{Zeroize, Zeroizing};

use super::channel::{self, GRACE, set_nonblocking, wait_for_peer};
use super::{INIT, SWITCH_USER, VmError, at, cannot, make_folder, pid_of, say};

/// The daemon in the image.
pub(super) const PROGRAM: &str = "/vswitch-charon";
/// The user and group of the daemon. They own only the folder in which it listens.
pub(super) const USER: u32 = 1001;
/// The name of this program when it is about to become the daemon.
const NAME: &str = "vswitch-ike";
/// What becomes the daemon's root.
const ROOT: &str = "/run/ike";
/// The folder of the switch's socket, and the socket, in that root.
const SWITCH: &str = "switch";
const SWITCH_SOCKET: &str = "ike.sock";
/// The folder of the daemon's socket, and the socket, in that root.
const OWN: &str = "charon";
const VICI_SOCKET: &str = "vici.sock";
/// The pauses before the next start: the first, the longest, and how long a daemon must have run
/// for the first again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(10);
/// The daemon's memory: it takes 9 MiB, and more while many peers negotiate.
const MEMORY_MAX: u64 = 64 << 20;
/// How much less of the processor it gets than the switch, which has to go on beside it.
const NICE: i32 = 10;
/// If the machine has no memory left, the daemon goes first.
const OOM_SCORE: &str = "1000";
/// How long the host and the daemon may take to read some of what they are sent.
const READS_WITHIN: Duration = Duration::from_secs(15);

/// The socket on which the switch waits for the daemon.
pub(super) fn switch_socket() -> PathBuf {
    Path::new(ROOT).join(SWITCH).join(SWITCH_SOCKET)
}

fn vici_socket() -> PathBuf {
    Path::new(ROOT).join(OWN).join(VICI_SOCKET)
}

/// Makes the daemon's root.
pub(super) fn prepare() -> Result<(), VmError> {
    if !Path::new(PROGRAM).is_file() {
        return Err(VmError::NoDaemon);
    }
    let root = Path::new(ROOT);
    make_folder(root, 0o755, 0)?;
    make_folder(&root.join(SWITCH), 0o711, SWITCH_USER)?;
    make_folder(&root.join(OWN), 0o700, USER)?;
    let program = root.join(PROGRAM.trim_start_matches('/'));
    File::create(&program).map_err(at(&program))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    let none = None::<&str>;
    for flags in [
        MsFlags::MS_BIND,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | plain,
    ] {
        mount(Some(PROGRAM), &program, none, flags, none).map_err(|errno| VmError::Mount {
            target: program.clone(),
            errno,
        })?;
    }
    Ok(())
}

/// Whether this process is about to become the daemon.
pub(super) fn is_daemon() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Gives up everything that the daemon does not need, and becomes it.
pub(super) fn become_daemon() -> ExitCode {
    let confined = || -> io::Result<()> {
        fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
        nice(NICE)?;
        setrlimit(Resource::RLIMIT_DATA, MEMORY_MAX, MEMORY_MAX)?;
        setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
        let spaces = [
            CloneFlags::CLONE_NEWNET,
            CloneFlags::CLONE_NEWIPC,
            CloneFlags::CLONE_NEWUTS,
        ];
        unshare(spaces.into_iter().collect())?;
        chroot(ROOT)?;
        chdir("/")?;
        setgroups(&[])?;
        setgid(Gid::from_raw(USER))?;
        setuid(Uid::from_raw(USER))?;
        Ok(())
    };
    if let Err(error) = confined() {
        say(&format!("the IKE daemon cannot be confined: {error}"));
        return ExitCode::FAILURE;
    }
    let error = Command::new(PROGRAM)
        .args(std::env::args_os().skip(1))
        .env_clear()
        .exec();
    say(&format!("the IKE daemon cannot be executed: {error}"));
    ExitCode::FAILURE
}

/// The end of a process: which, and how as the rest of a sentence.
pub(super) type End = (Pid, String);

/// The daemon of a tunnel endpoint.
#[derive(Debug)]
pub(super) struct Daemon {
    vtep: IpAddr,
    /// The one that runs, with its number.
    running: Mutex<Option<(Pid, u64)>>,
}

impl Daemon {
    pub(super) fn new(vtep: IpAddr) -> Arc<Self> {
        let running = Mutex::new(None);
        Arc::new(Self { vtep, running })
    }

    fn running(&self) -> MutexGuard<'_, Option<(Pid, u64)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the daemon again and again. `ends` has the ends of all processes; this returns when
    /// nobody is left to tell them.
    pub(super) fn keep(&self, ends: &mpsc::Receiver<End>) {
        let mut pause = PAUSE_MIN;
        // What ended before its start was noted.
        let mut ended = HashMap::new();
        loop {
            let began = Instant::now();
            match self.start() {
                Ok(pid) => {
                    let how = loop {
                        if let Some(how) = ended.remove(&pid) {
                            break how;
                        }
                        let Ok((pid, how)) = ends.recv() else { return };
                        ended.insert(pid, how);
                    };
                    *self.running() = None;
                    ended.clear();
                    say(&format!("the IKE daemon {how}; another one is started"));
                }
                Err(error) => say(&format!("{error}; it is tried again")),
            }
            let is_calm = began.elapsed() > CALM;
            pause = if is_calm {
                PAUSE_MIN
            } else {
                (2 * pause).min(PAUSE_MAX)
            };
            thread::sleep(pause);
        }
    }

    fn start(&self) -> Result<Pid, VmError> {
        let mut number = [0; 8];
        // The kernel gives so few whole.
        getrandom(&mut number, GetRandomFlags::empty()).map_err(cannot("number the IKE daemon"))?;
        // It is the file of one that was killed.
        match fs::remove_file(vici_socket()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(at(vici_socket())(error));
            }
            _ => {}
        }
        let inside = |folder: &str, socket: &str| Path::new("/").join(folder).join(socket);
        let child = Command::new(INIT)
            .arg0(NAME)
            .arg("--switch")
            .arg(inside(SWITCH, SWITCH_SOCKET))
            .arg("--vici")
            .arg(inside(OWN, VICI_SOCKET))
            .args(["--address", &self.vtep.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()
            .map_err(cannot("start the IKE daemon"))?;
        let pid = pid_of(&child)?;
        *self.running() = Some((pid, u64::from_be_bytes(number)));
        Ok(pid)
    }

    /// The number of the daemon that runs, and a connection to it.
    fn connect(&self, socket: &Path) -> io::Result<(u64, UnixStream)> {
        let number = self.running().map(|(_, number)| number);
        let number = number.ok_or(ErrorKind::NotConnected)?;
        let vici = UnixStream::connect(socket)?;
        vici.set_write_timeout(Some(READS_WITHIN))?;
        Ok((number, vici))
    }

    /// Kills the daemon of that number, if it runs.
    fn kill(&self, number: u64) {
        if let Some((pid, running)) = *self.running()
            && running == number
        {
            // It may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Relays the sessions that the host begins on `port`, one after the other. Returns only on an
    /// error.
    ///
    /// # Errors
    /// If the port fails. What fails of a session ends it.
    pub(super) fn serve<P: AsFd>(&self, port: &P) -> io::Result<()>
    where
        for<'a> &'a P: Read + Write,
    {
        self.serve_from(port, &vici_socket())
    }

    fn serve_from<P: AsFd>(&self, port: &P, socket: &Path) -> io::Result<()>
    where
        for<'a> &'a P: Read + Write,
    {
        set_nonblocking(port.as_fd())?;
        let mut relay = Relay {
            port,
            daemon: self,
            socket,
            session: None,
        };
        let mut decoder = Decoder::default();
        let mut chunk = Zeroizing::new([0; DATA_MAX]);
        loop {
            let ready = relay.wait()?;
            if ready.vici {
                relay.pass_on(&mut *chunk)?;
            }
            if !ready.port {
                continue;
            }
            let mut from = relay.port;
            match from.read(&mut *chunk) {
                Ok(0) => {
                    let is_open = relay.session.is_some();
                    if !wait_for_peer(relay.port.as_fd(), is_open.then_some(GRACE))? {
                        relay.session = None;
                        // It may be a part of a key.
                        chunk.zeroize();
                    }
                }
                Ok(length) => {
                    let mut bytes = &chunk[..length];
                    while let Some(frame) = decoder.next(&mut bytes) {
                        relay.obey(frame)?;
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The port, and the session that the host has begun last.
struct Relay<'a, P> {
    port: &'a P,
    daemon: &'a Daemon,
    socket: &'a Path,
    /// Its number, and the connection to the daemon.
    session: Option<(u64, UnixStream)>,
}

/// Where something arrived, or ended.
struct Ready {
    port: bool,
    vici: bool,
}

impl<P: AsFd> Relay<'_, P>
where
    for<'a> &'a P: Read + Write,
{
    fn wait(&self) -> io::Result<Ready> {
        let of = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![of(self.port.as_fd())];
        fds.extend(self.session.iter().map(|(_, vici)| of(vici.as_fd())));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        Ok(Ready {
            port: is(fds.first()),
            vici: is(fds.get(1)),
        })
    }

    fn obey(&mut self, frame: Frame<'_>) -> io::Result<()> {
        let session = frame.session;
        match frame.body {
            Body::Start => {
                self.session = None;
                match self.daemon.connect(self.socket) {
                    Ok((number, vici)) => {
                        self.session = Some((session, vici));
                        self.send(session, Body::Started(number))
                    }
                    // It is being started.
                    Err(_) => self.send(session, Body::End),
                }
            }
            Body::Data(bytes) => match &mut self.session {
                Some((own, vici)) if *own == session => match vici.write_all(bytes) {
                    Ok(()) => Ok(()),
                    Err(_) => self.end(),
                },
                _ => Ok(()),
            },
            Body::Replace(number) => {
                self.daemon.kill(number);
                self.session = None;
                self.send(session, Body::End)
            }
            // Only the machine says that.
            Body::Started(_) | Body::End => Ok(()),
        }
    }

    /// Passes on what the daemon says.
    fn pass_on(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        let Some((session, vici)) = &mut self.session else {
            return Ok(());
        };
        let session = *session;
        match vici.read(chunk) {
            Ok(0) => self.end(),
            Ok(length) => self.send(session, Body::Data(&chunk[..length])),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => self.end(),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.session.take() {
            Some((session, _)) => self.send(session, Body::End),
            None => Ok(()),
        }
    }

    /// A host that does not read loses its session.
    fn send(&mut self, session: u64, body: Body<'_>) -> io::Result<()> {
        let frame = Frame { session, body }.encode();
        if !channel::send(self.port, &frame, READS_WITHIN)? {
            self.session = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A relay that runs: the host's end of its port, and the listener in the daemon's place.
    struct Bed {
        host: UnixStream,
        decoder: Decoder,
        daemon: Arc<Daemon>,
        vici: UnixListener,
        directory: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let socket = directory.path().join("vici.sock");
            let vici = UnixListener::bind(&socket).expect("a socket");
            let (host, port) = UnixStream::pair().expect("a pair");
            let daemon = Daemon::new("192.0.2.1".parse().expect("an address"));
            let served = Arc::clone(&daemon);
            thread::spawn(move || served.serve_from(&port, &socket));
            Self {
                host,
                decoder: Decoder::default(),
                daemon,
                vici,
                directory,
            }
        }

        /// As if that process were the daemon of number 5.
        fn started(&self, pid: i32) {
            *self.daemon.running() = Some((Pid::from_raw(pid), 5));
        }

        fn send(&mut self, session: u64, body: Body<'_>) {
            let frame = Frame { session, body }.encode();
            self.host.write_all(&frame).expect("room");
        }

        /// The next frame: its session, what it says, and its data.
        fn next(&mut self) -> (u64, String, Vec<u8>) {
            loop {
                let mut byte = [0];
                self.host.read_exact(&mut byte).expect("a byte");
                if let Some(frame) = self.decoder.next(&mut &byte[..]) {
                    let data = match frame.body {
                        Body::Data(data) => data.to_vec(),
                        _ => Vec::new(),
                    };
                    return (frame.session, format!("{:?}", frame.body), data);
                }
            }
        }

        /// Begins a session; the daemon's end of it.
        fn begin(&mut self, session: u64) -> UnixStream {
            self.send(session, Body::Start);
            let (vici, _) = self.vici.accept().expect("a connection");
            let started = (session, "Started(5)".to_owned(), Vec::new());
            assert_eq!(self.next(), started);
            vici
        }
    }

    fn read(vici: &mut UnixStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        vici.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    #[test]
    fn bytes_go_both_ways_until_the_daemon_closes() {
        let mut bed = Bed::new();
        bed.started(i32::MAX);
        let mut vici = bed.begin(1);
        bed.send(1, Body::Data(b"ask\0"));
        bed.send(1, Body::Data(b"more"));
        assert_eq!(read(&mut vici, 8), b"ask\0more");
        vici.write_all(b"answer").expect("room");
        assert_eq!(
            bed.next(),
            (1, "Data(6 bytes)".to_owned(), b"answer".to_vec())
        );
        drop(vici);
        assert_eq!(bed.next(), (1, "End".to_owned(), Vec::new()));
    }

    #[test]
    fn next_session_ends_the_one_before() {
        let mut bed = Bed::new();
        bed.started(i32::MAX);
        let mut first = bed.begin(1);
        let half = Frame {
            session: 1,
            body: Body::Data(b"half"),
        };
        bed.host.write_all(&half.encode()[..8]).expect("room");
        let mut second = bed.begin(2);
        assert_eq!(first.read(&mut [0]).expect("the end"), 0);
        bed.send(1, Body::Data(b"late"));
        bed.send(2, Body::Data(b"good"));
        assert_eq!(read(&mut second, 4), b"good");
    }

    #[test]
    fn session_without_a_daemon_is_ended() {
        let mut bed = Bed::new();
        bed.send(3, Body::Start);
        assert_eq!(bed.next(), (3, "End".to_owned(), Vec::new()));
        // It is known, and does not listen any more.
        bed.started(i32::MAX);
        let other = UnixListener::bind(bed.directory.path().join("other"));
        bed.vici = other.expect("a socket");
        bed.send(4, Body::Start);
        assert_eq!(bed.next(), (4, "End".to_owned(), Vec::new()));
    }

    #[test]
    fn only_the_daemon_of_that_number_is_replaced() {
        let mut bed = Bed::new();
        let mut sleeps = Command::new("sleep").arg("60").spawn().expect("it starts");
        bed.started(sleeps.id() as i32);
        let _vici = bed.begin(1);
        bed.send(1, Body::Replace(4));
        assert_eq!(bed.next(), (1, "End".to_owned(), Vec::new()));
        assert_eq!(sleeps.try_wait().expect("a status"), None);
        bed.send(2, Body::Replace(5));
        assert_eq!(bed.next(), (2, "End".to_owned(), Vec::new()));
        assert!(!sleeps.wait().expect("a status").success());
    }
}
