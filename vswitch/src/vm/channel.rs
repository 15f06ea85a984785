//! The virtio-serial ports to the host, and the messages on the configuration's port.
//!
//! A port is one stream of bytes that outlives the host's connections to it. Without a connection,
//! reads return the end of the stream and `poll` reports a hang-up; [`Channel::wait_for_host`]
//! waits for the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The kernel's list of ports.
const LIST: &str = "/sys/class/virtio-ports";
/// How long the kernel may take to find the port: it queries the host for names while it boots.
const FIND_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest configuration that is read, in bytes.
const CONFIG_MAX: u64 = 16 << 20;
/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 64;
/// How long no client is connected before what it has begun is dropped. That one connected or
/// disconnected is reported separately from the bytes, and often later.
pub(super) const GRACE: Duration = Duration::from_millis(200);

/// Why nothing can be read from the host.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(
        "the machine has no virtio-serial port named {0}: add -device virtserialport,name={0} and \
         its chardev"
    )]
    Missing(String),
    #[error("virtio-serial port {name} ({path}): {source}", path = path.display())]
    Io {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the configuration from the host starts with {0:?}: it must be its length in bytes, a line \
         feed, and the JSON"
    )]
    Length(String),
    #[error(
        "the configuration from the host has {0} bytes, which is more than the {CONFIG_MAX} that \
         are taken"
    )]
    TooLong(u64),
    #[error("the configuration from the host is no UTF-8")]
    Text,
}

/// A port that is not open here. The host sees whether it is open.
#[derive(Debug)]
pub(super) struct Closed {
    name: String,
    path: PathBuf,
}

impl Closed {
    /// The port called `name`; waits until the kernel has it.
    pub(super) fn find(name: &str) -> Result<Self, ChannelError> {
        let began = Instant::now();
        loop {
            if let Some(path) = find(Path::new(LIST), name) {
                let name = name.to_owned();
                return Ok(Self { name, path });
            }
            if began.elapsed() > FIND_TIMEOUT {
                return Err(ChannelError::Missing(name.to_owned()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn open(self) -> Result<Channel, ChannelError> {
        let Self { name, path } = self;
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Channel { name, path, file }),
            Err(source) => Err(ChannelError::Io { name, path, source }),
        }
    }
}

/// A port that is open.
#[derive(Debug)]
pub(super) struct Channel {
    name: String,
    path: PathBuf,
    file: File,
}

impl Channel {
    /// Waits until the host connects.
    fn wait_for_host(&self) -> Result<(), ChannelError> {
        match wait_for_peer(self.file.as_fd(), None) {
            Ok(_) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    pub(super) fn failed(&self, source: io::Error) -> ChannelError {
        ChannelError::Io {
            name: self.name.clone(),
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

/// The device of the port called `name` in `list`.
fn find(list: &Path, name: &str) -> Option<PathBuf> {
    let entry = fs::read_dir(list).ok()?.flatten().find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim_end() == name)
    })?;
    let device = Path::new("/dev").join(entry.file_name());
    device.exists().then_some(device)
}

/// Waits until the other end of `port` is connected, at most for `time`; returns whether it is.
///
/// Without a connection `poll` returns at once, so it cannot wait. Edge-triggered epoll reports the
/// change.
pub(super) fn wait_for_peer(port: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<bool> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let any = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(port, EpollEvent::new(any, 0))?;
    let end = time.map(|time| Instant::now() + time);
    loop {
        let mut now = [PollFd::new(port, PollFlags::empty())];
        poll(&mut now, PollTimeout::ZERO)?;
        let gone = now[0].revents().unwrap_or(PollFlags::empty());
        if !gone.contains(PollFlags::POLLHUP) {
            return Ok(true);
        }
        let left = match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Ok(false),
            // Rounded up, or the last millisecond would be a busy loop.
            Some(left) => {
                EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
            }
            None => EpollTimeout::NONE,
        };
        match epoll.wait(&mut [EpollEvent::empty()], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Lets no call wait for `port`.
pub(super) fn set_nonblocking(port: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(port, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether `wanted`, or a hang-up, of `port` is reported within `time`.
pub(super) fn wait_for(
    port: BorrowedFd<'_>,
    wanted: PollFlags,
    time: Option<Duration>,
) -> io::Result<bool> {
    let time = time.map_or(PollTimeout::NONE, |time| {
        PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut [PollFd::new(port, wanted)], time) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends everything; false if the client is gone, or reads nothing for `patience`, and so loses the
/// rest.
pub(super) fn send<P>(port: &P, mut bytes: &[u8], patience: Duration) -> io::Result<bool>
where
    P: AsFd,
    for<'a> &'a P: Write,
{
    while !bytes.is_empty() {
        let mut to = port;
        match to.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait_for_peer(port.as_fd(), Some(GRACE))?
                    || !wait_for(port.as_fd(), PollFlags::POLLOUT, Some(patience))?
                {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The configuration's text, from the first connection that sends a whole one.
pub(super) fn receive_config(channel: &mut BufReader<Channel>) -> Result<String, ChannelError> {
    loop {
        // The rest of a closed connection is read first, then the next connection.
        match read_config(channel) {
            Ok(Some(text)) => return Ok(text),
            Ok(None) => channel.get_ref().wait_for_host()?,
            Err(ReadError::Io(source)) => return Err(channel.get_ref().failed(source)),
            Err(ReadError::Channel(error)) => return Err(error),
        }
    }
}

/// Returns when the host has sent the line `stop`.
pub(super) fn wait_for_stop(
    channel: &mut BufReader<Channel>,
    warn: impl Fn(&str),
) -> Result<(), ChannelError> {
    loop {
        match read_line(channel) {
            Ok(Some(line)) if line == "stop" => return Ok(()),
            Ok(Some(line)) => warn(&format!(
                "the host sends {line:?} on the configuration's channel: only \"stop\" is known \
                 there, so it is ignored"
            )),
            Ok(None) => channel.get_ref().wait_for_host()?,
            Err(source) => return Err(channel.get_ref().failed(source)),
        }
    }
}

#[derive(Debug)]
enum ReadError {
    Io(io::Error),
    Channel(ChannelError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ChannelError> for ReadError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

/// One message: its length in decimal, a line feed, and the text. `None` if the stream ends early.
fn read_config(stream: &mut impl BufRead) -> Result<Option<String>, ReadError> {
    let Some(head) = read_line(stream)? else {
        return Ok(None);
    };
    let digits = !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit());
    let length: u64 = match head.parse() {
        Ok(length) if digits => length,
        _ => return Err(ChannelError::Length(head).into()),
    };
    if length > CONFIG_MAX {
        return Err(ChannelError::TooLong(length).into());
    }
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Ok(None);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(ChannelError::Text.into()),
    }
}

/// One line without its end, or its first [`LINE_MAX`] bytes; `None` if the stream ends early.
fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line)?;
    let whole = line.last() == Some(&b'\n');
    if !whole && (line.len() as u64) < LINE_MAX {
        return Ok(None);
    }
    line.truncate(line.len() - usize::from(whole));
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bytes: &[u8]) -> Result<Option<String>, String> {
        read_config(&mut &*bytes).map_err(|error| match error {
            ReadError::Io(error) => error.to_string(),
            ReadError::Channel(error) => error.to_string(),
        })
    }

    #[test]
    fn config_ends_at_its_announced_length() {
        let mut stream: &[u8] = b"2\n{}stop\n";
        let text = read_config(&mut stream).expect("no error");
        assert_eq!(text.as_deref(), Some("{}"));
        assert_eq!(
            read_line(&mut stream).expect("no error").as_deref(),
            Some("stop")
        );
    }

    #[test]
    fn incomplete_config_is_none() {
        for half in ["", "1", "12", "12\n", "12\n{\"tenant\":"] {
            assert_eq!(config(half.as_bytes()), Ok(None), "{half:?}");
        }
    }

    #[test]
    fn malformed_config_is_refused() {
        for (bytes, words) in [
            (
                &b"{\"tenant\": 1}\n"[..],
                "starts with \"{\\\"tenant\\\": 1}\"",
            ),
            (b"+2\n{}", "starts with \"+2\""),
            (b"\n", "starts with \"\""),
            (b"16777217\n", "16777217 bytes"),
            (b"99999999999999999999999\n", "starts with \"9999"),
            (b"2\n\xff\xff", "no UTF-8"),
            (&[b'1'; 100], "starts with \"1111"),
        ] {
            let error = config(bytes).expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn port_is_found_by_name() {
        let list = tempfile::tempdir().expect("a directory");
        for (port, name) in [("null", "org.vswitch.config.0\n"), ("zero", "another\n")] {
            fs::create_dir(list.path().join(port)).expect("a port");
            fs::write(list.path().join(port).join("name"), name).expect("its name");
        }
        let found = |name| find(list.path(), name);
        assert_eq!(found("org.vswitch.config.0"), Some("/dev/null".into()));
        assert_eq!(found("org.vswitch.control.0"), None);
    }
}
