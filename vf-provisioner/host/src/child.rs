//! Runs a program until it ends, with one deadline for all of it and a bound on what it writes.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use vswitch_api::plain::quote;

/// This program, also after an upgrade has replaced or removed its file.
pub(crate) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// What a program may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// From its start until it has ended; then it is killed.
    pub(crate) within: Duration,
    /// Bytes of standard output; if it writes more, it is killed.
    pub(crate) output: usize,
}

/// The bytes of standard error that are kept; the rest is read and dropped.
const ERRORS_MAX: usize = 8 << 10;

/// What a program has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    errors: Vec<u8>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("it does not start: {0}")]
    Start(io::Error),
    #[error("it did not end within {} s", .0.as_secs_f64())]
    Late(Duration),
    #[error("it writes more than {0} bytes")]
    TooLong(usize),
    #[error("its pipes fail: {0}")]
    Pipe(#[from] io::Error),
}

impl Ended {
    /// Its standard error for a message: short, and plain.
    pub(crate) fn message(&self) -> String {
        quote(&String::from_utf8_lossy(&self.errors))
    }
}

/// For a program that looks at the host or changes it: none takes nearly as long, unless the kernel
/// waits for something.
const OUTPUT: Bounds = Bounds {
    within: Duration::from_secs(60),
    output: 64 << 20,
};

/// Runs a program as `Command::output` does, with `input` on its standard input, but within
/// [`OUTPUT`]'s bounds; of standard error, [`ERRORS_MAX`] bytes are kept.
pub(crate) fn output(command: &mut Command, input: &[u8]) -> io::Result<Output> {
    let ended = run(command, input, OUTPUT).map_err(|error| match error {
        ChildError::Start(error) | ChildError::Pipe(error) => error,
        ChildError::Late(_) => io::Error::new(ErrorKind::TimedOut, error.to_string()),
        ChildError::TooLong(_) => io::Error::other(error.to_string()),
    })?;
    Ok(Output {
        status: ended.status,
        stdout: ended.output,
        stderr: ended.errors,
    })
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn run(
    command: &mut Command,
    input: &[u8],
    bounds: Bounds,
) -> Result<Ended, ChildError> {
    let until = Instant::now() + bounds.within;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ChildError::Start)?;
    match converse(&mut child, input, until, bounds) {
        Ok((output, errors)) => Ok(Ended {
            status: child.wait()?,
            output,
            errors,
        }),
        Err(error) => {
            end(child);
            Err(error)
        }
    }
}

/// Kills a child. One that waits in the kernel, such as for a device, dies only when that ends: it
/// is not waited for here.
fn end(mut child: Child) {
    const DIES_WITHIN: Duration = Duration::from_millis(500);
    const PAUSE: Duration = Duration::from_millis(5);
    // It may have ended meanwhile.
    let _ = child.kill();
    let until = Instant::now() + DIES_WITHIN;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    // Without a thread it stays a zombie until this process ends.
    let _ = std::thread::Builder::new().spawn(move || child.wait());
}

/// Writes and reads until the child has ended.
fn converse(
    child: &mut Child,
    mut input: &[u8],
    until: Instant,
    bounds: Bounds,
) -> Result<(Vec<u8>, Vec<u8>), ChildError> {
    let pid = rustix::process::Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
    let missing = || io::Error::from(ErrorKind::BrokenPipe);
    let mut stdin = Some(child.stdin.take().ok_or_else(missing)?);
    let mut stdout = Pipe::new(child.stdout.take().ok_or_else(missing)?)?;
    let mut stderr = Pipe::new(child.stderr.take().ok_or_else(missing)?)?;
    if let Some(stdin) = &stdin {
        rustix::io::ioctl_fionbio(stdin, true).map_err(io::Error::from)?;
    }
    loop {
        let has_ended = {
            let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            fds.extend(stdout.waits().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            fds.extend(stderr.waits().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            if let Some(stdin) = &stdin {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ChildError::Late(bounds.within));
            }
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, left) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            fds[0].any().unwrap_or(false)
        };
        if let Some(pipe) = &mut stdin {
            match pipe.write(input) {
                Ok(written) => input = &input[written..],
                Err(error) if is_pause(&error) => {}
                // It ends without having read everything: its status says why.
                Err(_) => input = &[],
            }
            if input.is_empty() {
                stdin = None;
            }
        }
        stdout.read(bounds.output)?;
        if stdout.kept.len() > bounds.output {
            return Err(ChildError::TooLong(bounds.output));
        }
        stderr.read(ERRORS_MAX)?;
        stderr.kept.truncate(ERRORS_MAX);
        if has_ended {
            return Ok((stdout.kept, stderr.kept));
        }
    }
}

/// One of its outputs.
struct Pipe<P> {
    end: Option<P>,
    kept: Vec<u8>,
}

impl<P: Read + AsFd> Pipe<P> {
    fn new(end: P) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Self {
            end: Some(end),
            kept: Vec::new(),
        })
    }

    fn waits(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.end.iter().map(AsFd::as_fd)
    }

    /// Reads what is there, until more than `most` bytes are kept.
    fn read(&mut self, most: usize) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        // What one pipe holds, several times over.
        for _ in 0..64 {
            let Some(end) = &mut self.end else {
                return Ok(());
            };
            match end.read(&mut chunk) {
                Ok(0) => self.end = None,
                Ok(length) => self.kept.extend_from_slice(&chunk[..length]),
                Err(error) if is_pause(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.kept.len() > most {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], within: Duration) -> Result<Ended, ChildError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let bounds = Bounds {
            within,
            output: 1 << 20,
        };
        let began = Instant::now();
        let ended = run(&mut command, input, bounds);
        assert!(began.elapsed() < within + Duration::from_secs(2));
        ended
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn input_is_given_and_outputs_are_returned() {
        let input = vec![b'x'; 1 << 20];
        let ended = shell("cat; printf 'a\\033[2J' >&2; exit 7", &input, LONG).expect("it ends");
        assert_eq!(ended.status.code(), Some(7));
        assert_eq!(ended.output, input);
        assert_eq!(ended.message(), "a\\u{1b}[2J");
    }

    #[test]
    fn program_that_does_not_read_its_input_is_no_failure() {
        let ended = shell("exit 0", &vec![b'x'; 1 << 20], LONG).expect("it ends");
        assert!(ended.status.success());
    }

    #[test]
    fn program_that_writes_too_much_is_killed() {
        let ended = shell("cat /dev/zero", &[], LONG);
        assert!(matches!(ended, Err(ChildError::TooLong(_))), "{ended:?}");
        let ended = shell("head -c 10000000 /dev/zero >&2", &[], LONG).expect("it ends");
        assert_eq!(ended.errors.len(), ERRORS_MAX);
    }

    #[test]
    fn slow_program_is_killed() {
        for script in [
            "exec sleep 60",
            "exec >&- 2>&-; exec sleep 60",
            "while :; do echo; sleep 0.01; done",
        ] {
            let ended = shell(script, &[], SHORT);
            assert!(matches!(ended, Err(ChildError::Late(_))), "{ended:?}");
        }
    }
}
