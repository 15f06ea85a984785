//! The note about a started switch, by which it is recognised.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::confine::Started;
use super::files::{CHANNEL, CONTROL, TenantFiles};
use super::switch::Switch;
use crate::error::HostError;
use crate::files::{is_shortage, remove};

/// The note about a started switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Launched {
    pub(super) switch: Switch,
    pub(super) started: Started,
    pub(super) restarts: u64,
    /// Whether it was ready once. If its starter was killed before that, the switch may wait
    /// forever, and counts as absent.
    #[serde(default = "came_up")]
    pub(super) ready: bool,
    /// How long it took until it was ready, in seconds.
    #[serde(default)]
    pub(super) start_s: Option<f64>,
    /// The executable that was started.
    #[serde(default)]
    pub(super) executable: Option<Executable>,
}

/// A file, and which content it had: a package replaces it by another file of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Executable {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    changed_ns: i128,
}

impl Executable {
    /// The file as it is now; `None` if it cannot be seen.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed_ns: i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec()),
        })
    }

    /// Its path, if another file is there now, or none.
    pub(super) fn replaced(&self) -> Option<&Path> {
        (Self::of(&self.path).as_ref() != Some(self)).then_some(&self.path)
    }
}

/// Notes of earlier versions lack the field.
fn came_up() -> bool {
    true
}

impl TenantFiles {
    fn note(&self) -> PathBuf {
        self.directory.join("process.json")
    }

    /// A note that is damaged or cannot be read is none: whatever starts or stops the tenant's
    /// switch ends the one of which nothing is known.
    ///
    /// # Errors
    /// If this process or the host lacks descriptors or memory: that says nothing about the switch.
    pub(super) fn launched(&self) -> Result<Option<Launched>, HostError> {
        let path = self.note();
        let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        match read {
            Ok(launched) => Ok(Some(launched)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if is_shortage(&error) => Err(HostError::io(format!(
                "cannot read {}",
                path.display()
            ))(error)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the switch counts as absent");
                Ok(None)
            }
        }
    }

    pub(super) fn remember(&self, launched: &Launched) -> Result<(), HostError> {
        let path = self.note();
        let what = format!("cannot write {}", path.display());
        let text = serde_json::to_vec_pretty(launched)
            .map_err(|error| HostError::io(&what)(error.into()))?;
        if path.is_dir() {
            remove(&path)?;
        }
        self.replace(&path, &text, 0o600)
            .map_err(HostError::io(what))
    }

    pub(super) fn restarts(&self) -> Result<u64, HostError> {
        let launched = self.launched()?;
        Ok(launched.map_or(0, |launched| launched.restarts))
    }

    /// The running switch with its last configuration, or, if that is as wanted, with the content
    /// of its file. An unreadable file differs from any configuration.
    pub(super) fn observe_switch(&self, wanted: &Switch) -> Result<Option<Switch>, HostError> {
        let Some(mut launched) = self.launched()? else {
            return Ok(None);
        };
        if !launched.ready || !launched.started.is_alive() {
            return Ok(None);
        }
        // After a crash between the write of the file and the reload, the file is newer than the
        // note.
        if launched.switch.config == wanted.config {
            let path = self.config();
            let text = fs::read(&path).unwrap_or_default();
            match serde_json::from_slice(&text) {
                Ok(config) => launched.switch.config = config,
                Err(_) => launched.switch.config.ports.clear(),
            }
        }
        Ok(Some(launched.switch))
    }

    /// Removes the note about a switch that has ended.
    pub(super) fn forget(&self) -> Result<(), HostError> {
        self.clear_run(CONTROL)?;
        self.clear_run(CHANNEL)?;
        remove(&self.note())
    }

    /// A pidfd of the switch, if it is alive and the one that was started.
    pub(crate) fn pidfd(&self) -> Result<Option<OwnedFd>, HostError> {
        let Some(launched) = self.launched()? else {
            return Ok(None);
        };
        let Some(pid) = rustix::process::Pid::from_raw(launched.started.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) if is_shortage(&errno.into()) => {
                let what = format!("cannot watch the switch, process {}", launched.started.pid);
                return Err(HostError::io(what)(errno.into()));
            }
            Err(_) => return Ok(None),
        };
        // The number identifies one process only while we hold the descriptor.
        Ok((launched.ready && launched.started.is_alive()).then_some(pidfd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_is_replaced_by_another_file_and_not_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, new) = (dir.path().join("vswitch"), dir.path().join("new"));
        fs::write(&path, "one").expect("it is written");
        let started = Executable::of(&path).expect("it is there");
        assert_eq!(started.replaced(), None);
        // Of the same length, as an upgrade may be.
        fs::write(&new, "two").expect("it is written");
        fs::rename(&new, &path).expect("it is renamed");
        assert_eq!(started.replaced(), Some(path.as_path()));
        fs::remove_file(&path).expect("it is there");
        assert_eq!(started.replaced(), Some(path.as_path()));
    }
}
