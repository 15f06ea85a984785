//! What executes actions. The host itself is [`RealHost`](crate::real_host::RealHost); one that is only a table is here.

use std::collections::{BTreeMap, BTreeSet};

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::resource::{Key, Resource};
use crate::state::{Probe, Record, State};

/// A failure of one operation on the host, as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A system call or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: rtnetlink::Error,
    },
    /// A program that does part of the work failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it wrote, or why it did not start.
        message: String,
    },
    /// What was set is not what was read back.
    #[error("{key} was set but reads back otherwise: {differences}")]
    ReadBack {
        /// The object.
        key: Key,
        /// In which values.
        differences: String,
    },
    /// A switch did not come up.
    #[error("the switch of tenant {tenant} is not ready: {message}")]
    NotReady {
        /// Whose.
        tenant: tenant_config::Name,
        /// What was seen.
        message: String,
    },
    /// A probe's frames were not treated as they must be.
    #[error("port {port}: {message}")]
    Probe {
        /// The port.
        port: tenant_config::Name,
        /// What was seen.
        message: String,
    },
    /// The object is not one that this backend or launcher knows.
    #[error("{0} cannot be handled here")]
    Unsupported(Key),
}

impl HostError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn sys(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}

/// A socket in a folder that is not ours, by its inode, and the path through which exactly that one is reached while it is.
pub(crate) fn hold(path: &Path) -> std::io::Result<(File, PathBuf)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is no socket",
        ));
    }
    let held = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, held.into()))
}

/// The verbs that all objects share.
pub trait Host {
    /// The object of `wanted`'s key as it is; `None` if it is not there. It changes nothing.
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// Makes the object. A half-made one, left by a crash, may be there.
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Changes the object in place.
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// Takes the object away. One that is half there or not there at all is no error.
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Before a switch is given the `new` ones of its tenant's objects: asks with real frames whether what they carry
    /// can reach anything else. A wire of two ends needs no asking.
    fn prove(
        &mut self,
        _record: &Record,
        _new: &BTreeSet<Key>,
        _state: &State,
    ) -> Result<(), HostError> {
        Ok(())
    }
    /// Asks with real frames, from a guest's end, whether the switch answers it, and only it.
    fn probe(&mut self, probe: &Probe) -> Result<(), HostError>;
}

/// A host that is only a table of objects, with failures on demand: plans and journals are tested
/// on it without root.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    /// What is there.
    pub objects: BTreeMap<Key, Resource>,
    /// The change, counted from 0, that fails; every later one works again.
    pub fails_at: Option<usize>,
    /// Changes tried so far.
    pub changes: usize,
    /// Which virtual functions were proven, each time.
    pub proven: Vec<BTreeSet<Key>>,
}

impl FakeHost {
    fn change(&mut self) -> Result<(), HostError> {
        let this = self.changes;
        self.changes += 1;
        if self.fails_at == Some(this) {
            return Err(HostError::Program {
                program: "fake",
                message: format!("change {this} was told to fail"),
            });
        }
        Ok(())
    }
}

impl Host for FakeHost {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        Ok(self.objects.get(&wanted.key()).cloned())
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.insert(resource.key(), resource.clone());
        Ok(())
    }

    fn update(&mut self, _: &Resource, to: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.insert(to.key(), to.clone());
        Ok(())
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.remove(&resource.key());
        Ok(())
    }

    fn prove(&mut self, _: &Record, new: &BTreeSet<Key>, _: &State) -> Result<(), HostError> {
        let vfs = new.iter().filter(|key| matches!(key, Key::Vf { .. }));
        self.proven.push(vfs.cloned().collect());
        Ok(())
    }

    fn probe(&mut self, _: &Probe) -> Result<(), HostError> {
        self.change()
    }
}
