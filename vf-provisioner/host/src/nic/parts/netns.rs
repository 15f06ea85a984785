//! Network namespaces, named as `ip netns` names them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::error::HostError;
use crate::key::Key;
use crate::object::{Context, Live, Object};

const DIRECTORY: &str = "/run/netns";
const NSFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x6e73_6673);

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// As `ip netns` shows it.
    pub name: String,
    /// An existing one is used and left alone: it takes the place of a VM, which is not ours.
    pub adopt: bool,
}

impl Object for Namespace {
    fn key(&self) -> Key {
        Key::Namespace {
            name: self.name.clone(),
        }
    }

    fn adoptable(&self) -> bool {
        self.adopt
    }

    fn carries_switch(&self) -> bool {
        !self.adopt
    }
}

impl Live for Namespace {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        Ok(exists(&self.name).then(|| self.clone()))
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        create(&self.name)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        Ok(())
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete(&self.name)
    }
}

/// Whether a namespace has an interface; it need not exist itself.
pub(crate) fn has_interface(namespace: Option<&str>, interface: &str) -> Result<bool, HostError> {
    if namespace.is_some_and(|name| !exists(name)) {
        return Ok(false);
    }
    inside(namespace, || match if_nametoindex(interface) {
        Ok(_) => Ok(true),
        Err(nix::Error::ENODEV) => Ok(false),
        Err(errno) => Err(HostError::sys(format!("cannot find interface {interface}"))(errno)),
    })
}

/// The file of a named namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether the namespace exists, and not only the file of a former one.
pub(crate) fn exists(name: &str) -> bool {
    nix::sys::statfs::statfs(&path(name)).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Makes a named namespace with its loopback down. Reuses a file without a namespace.
fn create(name: &str) -> Result<(), HostError> {
    share_directory()?;
    let path = path(name);
    let what = format!("cannot make network namespace {name}");
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o444)
        .open(&path)
        .map_err(HostError::io(&what))?;
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(HostError::sys(&what))?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(HostError::sys(&what))
    })
}

/// As iproute2 does: the directory is a shared mount, so that all mount namespaces see the
/// namespaces made in one.
fn share_directory() -> Result<(), HostError> {
    static ONE: Mutex<()> = Mutex::new(());
    // Two mounts would hide each other's namespaces.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let what = format!("cannot share {DIRECTORY}");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(DIRECTORY)
        .map_err(HostError::io(&what))?;
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    mount(
        Some(DIRECTORY),
        DIRECTORY,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .map_err(HostError::sys(&what))
}

/// Removes a named namespace and its file.
fn delete(name: &str) -> Result<(), HostError> {
    let path = path(name);
    let what = format!("cannot remove network namespace {name}");
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(HostError::sys(what)(errno)),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HostError::io(what)(error))
        }
        _ => Ok(()),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, HostError> + Send) -> Result<T, HostError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs `work` in a namespace: the named one, or the provisioner's own.
pub(crate) fn inside<T: Send>(
    namespace: Option<&str>,
    work: impl FnOnce() -> Result<T, HostError> + Send,
) -> Result<T, HostError> {
    let Some(name) = namespace else {
        return on_thread(work);
    };
    let what = format!("cannot enter network namespace {name}");
    let file = File::open(path(name)).map_err(HostError::io(&what))?;
    on_thread(move || {
        setns(file, CloneFlags::CLONE_NEWNET).map_err(HostError::sys(what))?;
        work()
    })
}

/// An unnamed network namespace, which ends with this value, or with the process.
pub(crate) struct Unnamed {
    pub(crate) path: String,
    _end: mpsc::Sender<()>,
}

impl Unnamed {
    pub(crate) fn new() -> Result<Self, HostError> {
        let (end, until) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET);
            let path = format!(
                "/proc/{}/task/{}/ns/net",
                std::process::id(),
                nix::unistd::gettid()
            );
            let _ = sender.send(made.map(|()| path));
            // Waits until the other end is dropped.
            let _ = until.recv();
        });
        let made = receiver.recv().unwrap_or(Err(nix::Error::EIO));
        let path = made.map_err(HostError::sys(
            "cannot make a network namespace for the probe",
        ))?;
        Ok(Self { path, _end: end })
    }
}
