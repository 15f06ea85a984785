//! Files that a tenant's file names: secrets, certificates and lists of revoked ones.
//!
//! A secret is read when it is sent to the daemon, and is in no other place than the memory for
//! that, which is never swapped or dumped. A file of a secret, and every folder above it, must be
//! root's alone to change, so nobody else chooses what root reads or sends.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::prctl;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The longest file: certificates are sent in one value of VICI each.
const MAX_BYTES: u64 = 1 << 16;
const LINK: &str = "it is a link, or a folder above it is; write the file's own path";
/// The shortest pre-shared key.
const PSK_MIN: usize = 8;

/// Why a file cannot be used, as a sentence with its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl FileError {
    pub(super) fn new(path: &Path, why: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

/// The content of a file of a secret. It is overwritten when it is dropped, and never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

impl Secret {
    /// For the daemon.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What names it in public: the beginning of a digest that says nothing about it to somebody
    /// who cannot guess it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.0.as_slice());
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// If somebody else than root could have written or read it, or it cannot be read.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        guard().map_err(|why| FileError::new(path, why))?;
        let file = open(path)?;
        let about = file
            .metadata()
            .map_err(|error| FileError::new(path, error))?;
        if about.uid() != 0 {
            let why = format!("it belongs to user {}; `chown root` it", about.uid());
            return Err(FileError::new(path, why));
        }
        if about.mode() & 0o077 != 0 {
            let why = format!(
                "its mode is {:04o}, so others than root may read or change it; `chmod 0600` it",
                about.mode() & 0o7777
            );
            return Err(FileError::new(path, why));
        }
        Ok(Self(read(path, file)?))
    }

    /// Reads a pre-shared key: the content of its file without the end of the line.
    ///
    /// # Errors
    /// As [`Self::read`], and if it is too short or of several lines.
    pub fn read_psk(path: &Path) -> Result<Self, FileError> {
        let mut secret = Self::read(path)?;
        let end = secret
            .0
            .iter()
            .rposition(|byte| !matches!(byte, b'\n' | b'\r'));
        secret.0.truncate(end.map_or(0, |end| end + 1));
        if secret.0.contains(&b'\n') {
            return Err(FileError::new(path, "a pre-shared key is one line"));
        }
        if secret.0.len() < PSK_MIN {
            let why = format!(
                "a pre-shared key has at least {PSK_MIN} bytes; `vf-provisioner ipsec keygen psk` \
                 makes one"
            );
            return Err(FileError::new(path, why));
        }
        Ok(secret)
    }
}

/// Makes this process fit for secrets, before it has the first one: from then on its memory is
/// never swapped, and no core is dumped of it. Programs that it starts are as they would be.
///
/// # Errors
/// If that is not possible, as a sentence.
pub(super) fn guard() -> Result<(), String> {
    static GUARDED: OnceLock<Result<(), String>> = OnceLock::new();
    let guarded = GUARDED.get_or_init(|| {
        let dump = |errno| format!("this process cannot be kept from dumping core: {errno}");
        prctl::set_dumpable(false).map_err(dump)?;
        let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        mlockall(all).map_err(|errno| {
            format!("memory for it cannot be locked, which needs CAP_IPC_LOCK: {errno}")
        })
    });
    guarded.clone()
}

/// Reads a file that is no secret, but that only root may change.
pub(super) fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    let about = file
        .metadata()
        .map_err(|error| FileError::new(path, error))?;
    if about.uid() != 0 || about.mode() & 0o022 != 0 {
        let why = "others than root may change it; `chown root` and `chmod go-w` it";
        return Err(FileError::new(path, why));
    }
    Ok(read(path, file)?.to_vec())
}

/// Opens a regular file, through folders that only root may change and no links. Each folder is
/// opened in the one before it: `openat2` would do it at once, but hardened services may not call
/// it (`RestrictSUIDSGID=` of systemd.exec(5)).
fn open(path: &Path) -> Result<File, FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FileError::new(path, "it is no file"));
    };
    let mut so_far = PathBuf::new();
    let mut folder = None;
    let start = Path::new(if path.is_absolute() { "/" } else { "." });
    let below = parent.components().filter(|it| *it != Component::RootDir);
    for part in iter::once(start.as_os_str()).chain(below.map(Component::as_os_str)) {
        so_far.push(part);
        let from = folder.as_ref().map_or(CWD, OwnedFd::as_fd);
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(from, part, flags, Mode::empty()).map_err(|errno| {
            let error = io::Error::from(errno);
            FileError::new(path, format!("{}: {error}", so_far.display()))
        })?;
        let about = fstat(&opened).map_err(|errno| FileError::new(path, io::Error::from(errno)))?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Symlink {
            return Err(FileError::new(path, LINK));
        }
        // In a folder with the sticky bit nobody replaces another's file.
        let is_sticky = about.st_mode & 0o1000 != 0;
        if about.st_uid != 0 || (about.st_mode & 0o022 != 0 && !is_sticky) {
            let why = format!("others than root may change {}", so_far.display());
            return Err(FileError::new(path, why));
        }
        folder = Some(opened);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let from = folder.as_ref().map_or(CWD, OwnedFd::as_fd);
    let file = openat(from, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP => FileError::new(path, LINK),
        errno => FileError::new(path, io::Error::from(errno)),
    })?;
    let file = File::from(file);
    match file.metadata() {
        Ok(about) if about.is_file() => Ok(file),
        Ok(_) => Err(FileError::new(path, "it is no file")),
        Err(error) => Err(FileError::new(path, error)),
    }
}

fn read(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Of the final size from the beginning, so no copy of a part is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 1));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| FileError::new(path, error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::new(path, "it is longer than 64 KiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn written(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path
    }

    fn why(path: &Path) -> String {
        Secret::read_psk(path).expect_err("it is refused").why
    }

    #[test]
    fn secret_of_root_is_read_without_the_lines_end() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path(), "psk", "correct horse\n", 0o600);
        let secret = Secret::read_psk(&path).expect("a secret");
        assert_eq!(secret.expose(), b"correct horse");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.fingerprint().len(), 16);
    }

    #[test]
    fn process_with_a_secret_is_neither_swapped_nor_dumped() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path(), "psk", "correct horse\n", 0o600);
        Secret::read_psk(&path).expect("a secret");
        assert_eq!(prctl::get_dumpable(), Ok(false));
        let status = fs::read_to_string("/proc/self/status").expect("it is there");
        let field = |name| {
            let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
            let kib = lines.next().and_then(|it| it.trim().strip_suffix(" kB"));
            kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size")
        };
        let (locked, resident) = (field("VmLck:"), field("VmRSS:"));
        assert!(locked >= resident / 2, "{locked} of {resident} KiB");
    }

    #[test]
    fn file_that_others_may_touch_is_refused() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let open = written(dir, "open", "correct horse", 0o640);
        let expected = "its mode is 0640, so others than root may read or change it; `chmod 0600` \
                        it";
        assert_eq!(why(&open), expected);
        let foreign = written(dir, "foreign", "correct horse", 0o600);
        chown(&foreign, Some(1234), None).expect("it is given away");
        assert_eq!(why(&foreign), "it belongs to user 1234; `chown root` it");
        let good = written(dir, "good", "correct horse", 0o600);
        symlink(&good, dir.join("link")).expect("a link");
        let link = "it is a link, or a folder above it is; write the file's own path";
        assert_eq!(why(&dir.join("link")), link);
        fs::create_dir(dir.join("real")).expect("a folder");
        written(&dir.join("real"), "psk", "correct horse", 0o600);
        symlink(dir.join("real"), dir.join("folder")).expect("a link");
        assert!(Secret::read_psk(&dir.join("folder/psk")).is_err());
        fs::create_dir(dir.join("wide")).expect("a folder");
        let wide = written(&dir.join("wide"), "psk", "correct horse", 0o600);
        fs::set_permissions(dir.join("wide"), fs::Permissions::from_mode(0o777)).expect("a mode");
        let expected = format!("others than root may change {}", dir.join("wide").display());
        assert_eq!(why(&wide), expected);
        assert_eq!(why(dir), "it is no file");
    }

    #[test]
    fn useless_keys_are_refused() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let short = written(dir.path(), "short", "seven77\n", 0o600);
        let lines = written(dir.path(), "lines", "correct\nhorse\n", 0o600);
        let long = written(dir.path(), "long", &"x".repeat(65537), 0o600);
        assert!(why(&short).starts_with("a pre-shared key has at least 8 bytes"));
        assert_eq!(why(&lines), "a pre-shared key is one line");
        assert_eq!(why(&long), "it is longer than 64 KiB");
    }
}
