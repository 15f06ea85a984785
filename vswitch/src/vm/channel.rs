//! The virtio-serial ports that lead to the host, and what arrives on the one for the configuration.
//!
//! A port is one stream of bytes that outlives the host's connections to its other end. While nobody is connected
//! there, reading ends at once and `poll` reports a hang-up; [`Channel::wait_for_host`] waits for the next one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Where the kernel lists the ports.
const LIST: &str = "/sys/class/virtio-ports";
/// How long the kernel may take to find the port: it asks the host for the names while it boots.
const FIND_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest configuration that is taken.
const CONFIG_MAX: u64 = 16 << 20;
/// The longest line that is taken.
const LINE_MAX: u64 = 64;

/// Why nothing comes from the host.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error(
        "the machine has no virtio-serial port named {0}: add -device virtserialport,name={0} and its chardev"
    )]
    Missing(String),
    #[error("virtio-serial port {name} ({path}): {source}", path = path.display())]
    Io {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the configuration from the host starts with {0:?}: it must be its length in bytes, a line feed, and the JSON"
    )]
    Length(String),
    #[error(
        "the configuration from the host has {0} bytes, which is more than the {CONFIG_MAX} that are taken"
    )]
    TooLong(u64),
    #[error("the configuration from the host is no UTF-8")]
    Text,
}

/// A port of the machine that is there. The host sees whether it is open.
#[derive(Debug)]
pub(super) struct Closed {
    name: String,
    path: PathBuf,
}

impl Closed {
    /// The port called `name`, once the kernel knows it.
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

/// A port that is open here.
#[derive(Debug)]
pub(super) struct Channel {
    name: String,
    path: PathBuf,
    file: File,
}

impl Channel {
    /// Waits until the host is connected.
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

/// The device of the port called `name`, of those in `list`.
fn find(list: &Path, name: &str) -> Option<PathBuf> {
    let entry = fs::read_dir(list).ok()?.flatten().find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim_end() == name)
    })?;
    let device = Path::new("/dev").join(entry.file_name());
    device.exists().then_some(device)
}

/// Waits until somebody is connected to the other end of `port`, but no longer than `time`; whether somebody is.
///
/// To wait for an event would not do: while nobody is there, `poll` returns at once. Only the edges tell of a change.
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
            // Rounded up, or the last millisecond would be spent in turning round.
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

/// The configuration's text, from the first host that sends all of it.
pub(super) fn receive_config(channel: &mut BufReader<Channel>) -> Result<String, ChannelError> {
    loop {
        // What a host has left before it went is read first, and then what the next one sends.
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
                "the host sends {line:?} on the configuration's channel: only \"stop\" is known there, so it is ignored"
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

/// One message: its length in decimal, a line feed, and the text. `None` if the stream ends before it does.
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

/// One line without its end, or as much of it as is taken; `None` if the stream ends before it does.
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
    fn a_configuration_is_as_long_as_it_says() {
        let mut stream: &[u8] = b"2\n{}stop\n";
        let text = read_config(&mut stream).expect("no error");
        assert_eq!(text.as_deref(), Some("{}"));
        assert_eq!(
            read_line(&mut stream).expect("no error").as_deref(),
            Some("stop")
        );
    }

    #[test]
    fn half_a_message_is_none() {
        for half in ["", "1", "12", "12\n", "12\n{\"tenant\":"] {
            assert_eq!(config(half.as_bytes()), Ok(None), "{half:?}");
        }
    }

    #[test]
    fn a_message_that_cannot_be_meant_is_refused() {
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
    fn a_port_is_found_by_its_name() {
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
