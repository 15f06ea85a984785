//! The files of one tenant's switch: its directory, its configuration and its sockets.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tenant_config::{Name, SwitchConfig};

use crate::error::HostError;
use crate::files::{remove, tenant_directory};
use crate::key::Key;
use crate::object::{Context, Live, Object};
use crate::reserve;

/// The control socket, in the run folder.
pub(super) const CONTROL: &str = "control.sock";
/// The socket of the channel to the supervisor, beside it.
pub(super) const CHANNEL: &str = "channel.sock";

/// A tenant's own directory below the state directory. In it, only the folder of the control socket
/// belongs to the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Whose.
    pub tenant: Name,
    /// The owner of the control socket's folder.
    pub uid: u32,
}

impl Object for Directory {
    fn key(&self) -> Key {
        Key::Directory {
            tenant: self.tenant.clone(),
        }
    }

    fn is_movable(&self) -> bool {
        true
    }

    /// No two tenants have the same user.
    fn becomes(&self, wanted: &Self) -> bool {
        self.uid == wanted.uid
    }
}

impl Live for Directory {
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError> {
        Ok(TenantFiles::new(context, &self.tenant)
            .owner()
            .map(|uid| Self {
                tenant: self.tenant.clone(),
                uid,
            }))
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        TenantFiles::new(context, &self.tenant).create(self.uid)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        self.create(context)
    }

    /// With the log of the switch.
    fn take(&self, from: &Self, context: &Context) -> Result<(), HostError> {
        let [from, to] = [from, self].map(|it| TenantFiles::new(context, &it.tenant).directory);
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let what = format!("cannot rename {} to {}", from.display(), to.display());
                return Err(HostError::io(what)(error));
            }
            _ => {}
        }
        self.create(context)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        TenantFiles::new(context, &self.tenant).delete()
    }
}

/// The files of one tenant.
#[derive(Debug, Clone)]
pub(crate) struct TenantFiles {
    pub(super) directory: PathBuf,
    state_dir: PathBuf,
}

impl TenantFiles {
    pub(crate) fn new(context: &Context, tenant: &Name) -> Self {
        Self::below(&context.state_dir, tenant)
    }

    pub(crate) fn below(state_dir: &Path, tenant: &Name) -> Self {
        Self {
            directory: tenant_directory(state_dir, tenant),
            state_dir: state_dir.to_owned(),
        }
    }

    /// Those of the tenant's IKE daemon, in a folder beside the switch's.
    pub(super) fn ike(&self) -> Self {
        Self {
            directory: self.directory.join("ike"),
            state_dir: self.state_dir.clone(),
        }
    }

    /// The switch's configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// The folder of the switch's sockets, which belongs to the switch.
    pub(super) fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The empty folder on which the switch's root is built.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Another socket beside the control socket.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.run().join(format!("{name}.sock"))
    }

    /// The control socket's path on the host.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run().join(CONTROL)
    }

    /// The channel's path on the host.
    pub(crate) fn channel_socket(&self) -> PathBuf {
        self.run().join(CHANNEL)
    }

    /// The log.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn create(&self, uid: u32) -> Result<(), HostError> {
        let at = &self.directory;
        let what = || format!("cannot make the tenant's directory {}", at.display());
        for (part, mode) in [("", 0o700), ("run", 0o700), ("root", 0o755)] {
            let path = at.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(HostError::io(what()))?;
        }
        chown(at.join("run"), Some(uid), Some(uid)).map_err(HostError::io(what()))?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(at.join("log"))
            .map_err(HostError::io(what()))?;
        Ok(())
    }

    /// The owner of the run folder; an unused user if the permissions are wrong.
    fn owner(&self) -> Option<u32> {
        let run = fs::metadata(self.run()).ok()?;
        let private = |path: &Path| {
            fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o077 == 0)
        };
        let right =
            private(&self.directory) && run.mode() & 0o777 == 0o700 && run.uid() == run.gid();
        Some(if right { run.uid() } else { u32::MAX })
    }

    fn delete(&self) -> Result<(), HostError> {
        let path = &self.directory;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("cannot remove {}", path.display());
                Err(HostError::io(what)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a dead switch's socket. The folder belongs to the switch, so anything may be in its
    /// place; the target of a link is left alone.
    pub(super) fn clear_run(&self, socket: &str) -> Result<(), HostError> {
        remove(&self.run().join(socket))
    }

    /// Replaces one of the files, also on a full disk.
    pub(super) fn replace(&self, path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
        reserve::replace(&self.state_dir, path, content, mode)
    }

    /// Writes the switch's configuration; only root and the switch may read it.
    pub(super) fn write_config(&self, config: &SwitchConfig, uid: u32) -> Result<(), HostError> {
        let path = self.config();
        let what = format!("cannot write {}", path.display());
        let text = serde_json::to_vec_pretty(config)
            .map_err(|error| HostError::io(&what)(error.into()))?;
        self.replace(&path, &text, 0o440)
            .and_then(|()| chown(&path, Some(0), Some(uid)))
            .map_err(HostError::io(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_socket_path_is_replaced() {
        let state_dir = tempfile::tempdir().expect("a temporary directory");
        let tenant: Name = "red".parse().expect("a name");
        let files = TenantFiles::below(state_dir.path(), &tenant);
        let socket = files.control_socket();
        let others = state_dir.path().join("others");
        fs::create_dir_all(socket.parent().expect("a folder")).expect("it is made");
        fs::create_dir(&others).expect("it is made");
        fs::write(others.join("file"), "theirs").expect("it is written");

        files.clear_run(CONTROL).expect("nothing is there");
        fs::write(&socket, "").expect("it is written");
        files.clear_run(CONTROL).expect("a file goes");
        std::os::unix::fs::symlink(&others, &socket).expect("it is made");
        files.clear_run(CONTROL).expect("a link goes");
        fs::create_dir(&socket).expect("it is made");
        std::os::unix::fs::symlink(&others, socket.join("link")).expect("it is made");
        files.clear_run(CONTROL).expect("a folder goes");
        assert!(fs::symlink_metadata(&socket).is_err());
        assert!(others.join("file").exists());
    }
}
