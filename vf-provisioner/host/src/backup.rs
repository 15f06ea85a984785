//! Backups of the state: what was applied, to be restored where the state directory was lost.
//!
//! A backup is one JSON document with the state's files as they are, so that whatever reads them
//! also reads old ones, and a digest. It holds no secret: the state has none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenant_config::Name;

use crate::files::replace;
use crate::history;
use crate::launcher::ike::all_files;
use crate::resource::{Key, Resource};
use crate::state::{self, HostLock, State, StateError};

const FORMAT: &str = "vf-provisioner backup";
const VERSION: u32 = 1;
/// The files that it holds.
const FILES: [&str; 3] = ["state.json", "journal", "released-users.json"];
/// The largest backup that is read: a thousand tenants of a hundred ports.
const BYTES_MAX: u64 = 256 << 20;
/// How often the files are read until none changes meanwhile.
const TRIES: usize = 100;

/// A backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    format: String,
    version: u32,
    /// When it was made, in UTC.
    made: String,
    /// The program that made it.
    program: String,
    instance: String,
    host: Host,
    /// By name.
    files: BTreeMap<String, String>,
    /// Of everything else.
    sha256: String,
}

/// The host that a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Host {
    name: String,
    /// A digest of its machine id, which itself is not to be published.
    machine: String,
}

impl Host {
    fn this() -> Self {
        let name = nix::unistd::gethostname().unwrap_or_default();
        let id = std::fs::read("/etc/machine-id").unwrap_or_default();
        let id = id.trim_ascii();
        let digest = hex(&Sha256::digest([b"vf-provisioner ", id].concat()));
        Self {
            name: name.to_string_lossy().into_owned(),
            machine: match id {
                [] => String::new(),
                _ => digest,
            },
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why there is no backup, or why one is not restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state changed each time that it was read.
    #[error("the state changes all the time: try again")]
    Restless,
    /// The file is no backup, or is damaged.
    #[error("{file}: {why}")]
    Refused {
        /// Which file.
        file: String,
        /// A sentence.
        why: String,
    },
}

/// Reads the state as it is at one moment, also while others write it.
///
/// # Errors
/// If a file cannot be read, or is damaged.
pub fn make(dir: &Path, instance: &str) -> Result<Backup, BackupError> {
    let mut files = read_files(dir)?;
    let mut tries = 0;
    loop {
        let again = read_files(dir)?;
        if again == files {
            break;
        }
        files = again;
        tries += 1;
        if tries == TRIES {
            return Err(BackupError::Restless);
        }
    }
    // One that nobody could restore is none.
    parsed(&files)?;
    let mut backup = Backup {
        format: FORMAT.to_owned(),
        version: VERSION,
        made: history::shown(history::now()),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        instance: instance.to_owned(),
        host: Host::this(),
        files,
        sha256: String::new(),
    };
    backup.sha256 = backup.digest();
    Ok(backup)
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BackupError {
    let what = what.into();
    move |source| BackupError::Io { what, source }
}

fn read_files(dir: &Path) -> Result<BTreeMap<String, String>, BackupError> {
    let mut files = BTreeMap::new();
    for name in FILES {
        let path = dir.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => drop(files.insert(name.to_owned(), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(format!("cannot read {}", path.display()))(error)),
        }
    }
    Ok(files)
}

/// The state that the files hold.
fn parsed(files: &BTreeMap<String, String>) -> Result<State, BackupError> {
    let scratch = Scratch::new().map_err(io("cannot make a temporary directory"))?;
    for name in FILES {
        if let Some(text) = files.get(name) {
            let path = scratch.0.join(name);
            let what = format!("cannot write {}", path.display());
            std::fs::write(path, text).map_err(io(what))?;
        }
    }
    Ok(state::read(&scratch.0)?)
}

/// A directory that only root can enter, removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let template = std::env::temp_dir().join("vf-provisioner-backup-XXXXXX");
        Ok(Self(nix::unistd::mkdtemp(&template)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Backup {
    fn digest(&self) -> String {
        let plain = Self {
            sha256: String::new(),
            ..self.clone()
        };
        hex(&Sha256::digest(
            serde_json::to_vec(&plain).unwrap_or_default(),
        ))
    }

    /// The document.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The names of its tenants.
    ///
    /// # Errors
    /// If its files are damaged.
    pub fn tenants(&self) -> Result<BTreeSet<Name>, BackupError> {
        Ok(parsed(&self.files)?.tenants.into_keys().collect())
    }

    /// The files of keys and certificates that its tenants name. It has none of them.
    ///
    /// # Errors
    /// If its own files are damaged.
    pub fn named_files(&self) -> Result<BTreeSet<PathBuf>, BackupError> {
        let mut named = BTreeSet::new();
        for record in parsed(&self.files)?.tenants.into_values() {
            // Also of those that are stopped.
            if let Some(ike) = record.started().running_ike() {
                named.extend(all_files(&ike.config).into_iter().map(Path::to_owned));
            }
        }
        Ok(named)
    }

    /// Writes it to a file, which is replaced as a whole.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), BackupError> {
        let what = format!("cannot write {}", path.display());
        replace(path, self.text().as_bytes(), 0o600).map_err(io(what))
    }

    /// Reads a backup, and checks that it is whole and that nobody else could have written it.
    ///
    /// # Errors
    /// If it is not.
    pub fn load(path: &Path) -> Result<Self, BackupError> {
        let name = path.display().to_string();
        let what = || io(format!("cannot read {name}"));
        let file = std::fs::File::open(path).map_err(what())?;
        let meta = file.metadata().map_err(what())?;
        let refused = |why: String| BackupError::Refused {
            file: name.clone(),
            why,
        };
        // It says which programs run, and as whom.
        let owner = meta.uid();
        if meta.mode() & 0o022 != 0 || (owner != 0 && owner != geteuid().as_raw()) {
            let why = format!(
                "user {owner} or others may have written it (mode {:o}): if it is yours, `chown \
                 root` and `chmod 600` it",
                meta.mode() & 0o7777
            );
            return Err(refused(why));
        }
        let mut text = String::new();
        let mut limited = file.take(BYTES_MAX + 1);
        limited.read_to_string(&mut text).map_err(what())?;
        if text.len() as u64 > BYTES_MAX {
            return Err(refused(format!(
                "it is larger than {} MiB",
                BYTES_MAX >> 20
            )));
        }
        Self::parse(&text).map_err(refused)
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_str(text)
            .map_err(|error| format!("it is no backup, or is damaged: {error}"))?;
        if head.format != FORMAT {
            return Err(format!("its format is {:?}, not {FORMAT:?}", head.format));
        }
        if head.version != VERSION {
            return Err(format!(
                "it has version {}, and this program reads version {VERSION}",
                head.version
            ));
        }
        let backup: Self =
            serde_json::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
        if backup.digest() != backup.sha256 {
            return Err("it is damaged: its content has another digest than it says".to_owned());
        }
        if let Some(name) = backup.files.keys().find(|name| !FILES.contains(&&name[..])) {
            return Err(format!("it is damaged: it has a file {name:?}"));
        }
        Ok(backup)
    }
}

/// What an operator permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permitted {
    /// Tenants that are onboarded now are replaced by those of the backup.
    pub replace: bool,
    /// The backup may be of another host.
    pub other_host: bool,
}

/// What a restore does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// When the backup was made.
    pub made: String,
    /// Tenants that are onboarded afterwards and were not before.
    pub added: BTreeSet<Name>,
    /// Those that are onboarded now and are otherwise in the backup.
    pub changed: BTreeSet<Name>,
    /// Those that are onboarded now and not in the backup: their objects are removed.
    pub removed: BTreeSet<Name>,
    /// Those that are the same.
    pub same: BTreeSet<Name>,
}

impl fmt::Display for Restored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "backup of {}", self.made)?;
        for (what, names) in [
            ("restored", &self.added),
            ("changed", &self.changed),
            ("removed", &self.removed),
            ("as it is", &self.same),
        ] {
            for name in names {
                writeln!(out, "{what}: {name}")?;
            }
        }
        Ok(())
    }
}

/// How a backup is to be restored.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The backup's file, for messages.
    pub file: &'a Path,
    /// The instance whose state it becomes.
    pub instance: &'a str,
    /// What the operator permits.
    pub permitted: Permitted,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// Restores a backup: `supervise`, or `apply` of the tenants' files, makes what it says.
///
/// # Errors
/// If the backup does not belong to this host and instance, contradicts itself, or would change
/// tenants without permission.
pub fn restore(
    dir: &Path,
    backup: &Backup,
    request: &Request<'_>,
) -> Result<Restored, BackupError> {
    let Request {
        file,
        instance,
        permitted,
        dry_run,
    } = *request;
    let refused = |why: String| BackupError::Refused {
        file: file.display().to_string(),
        why,
    };
    backup.belongs(instance, permitted).map_err(refused)?;
    let state = parsed(&backup.files)?;
    check(&state, instance).map_err(refused)?;
    if dry_run {
        let now = state::read(dir)?;
        return plan(&now, &state, backup, permitted).map_err(refused);
    }
    let mut store = HostLock::open(dir)?;
    let restored = plan(store.state(), &state, backup, permitted).map_err(refused)?;
    let begun = history::begin(dir, "restore", state.tenants.keys());
    // The switches of these tenants are nobody else's meanwhile.
    let _locks = store.lock_tenants(restored.changed.iter().chain(&restored.removed))?;
    let mut owned = store.state().owned.clone();
    owned.extend(state.owned);
    let tenants = state.tenants;
    let written = store.restore(State { tenants, owned });
    let steps = restored.added.len() + restored.changed.len() + restored.removed.len();
    begun.end(
        dir,
        match &written {
            Ok(()) => Ok(steps),
            Err(error) => Err(error),
        },
    );
    written?;
    Ok(restored)
}

impl Backup {
    fn belongs(&self, instance: &str, permitted: Permitted) -> Result<(), String> {
        if self.instance != instance {
            return Err(format!(
                "it is of instance {:?}, and this is {instance:?}: give --instance {}",
                self.instance, self.instance
            ));
        }
        let host = Host::this();
        if self.host.machine != host.machine && !permitted.other_host {
            return Err(format!(
                "it is of another host, {}: NICs and users may differ here. If this host takes its \
                 place, add --other-host",
                self.host.name
            ));
        }
        Ok(())
    }
}

/// Whether a state says one thing of each tenant: a file can say anything.
fn check(state: &State, instance: &str) -> Result<(), String> {
    let mut users = BTreeMap::new();
    let mut keys: BTreeMap<Key, &Name> = BTreeMap::new();
    for (name, record) in &state.tenants {
        if let Some(other) = users.insert(record.uid, name) {
            return Err(format!(
                "tenants {other} and {name} have the same user {}",
                record.uid
            ));
        }
        if record.uid == 0 {
            return Err(format!("tenant {name} has the user root"));
        }
        for resource in &record.resources {
            let (owner, uid) = match resource {
                Resource::Directory(it) => (&it.tenant, it.uid),
                Resource::Switch(it) => (&it.tenant, it.uid),
                // No tenant has the user 0.
                Resource::Ike(it) if !it.place.is_beside(record.uid) => (&it.tenant, 0),
                Resource::Ike(it) => (&it.tenant, record.uid),
                Resource::Cgroup(it) if !it.path.starts_with(&format!("{instance}/")) => {
                    return Err(format!(
                        "control group {} of tenant {name} is not of this instance",
                        it.path
                    ));
                }
                _ => (name, record.uid),
            };
            if (owner, uid) != (name, record.uid) {
                return Err(format!("{} is not tenant {name}'s", resource.key()));
            }
            if !resource.is_shared()
                && let Some(other) = keys.insert(resource.key(), name)
                && other != name
            {
                return Err(format!(
                    "tenants {other} and {name} both have {}",
                    resource.key()
                ));
            }
        }
    }
    Ok(())
}

fn plan(
    now: &State,
    then: &State,
    backup: &Backup,
    permitted: Permitted,
) -> Result<Restored, String> {
    let mut restored = Restored {
        made: backup.made.clone(),
        ..Restored::default()
    };
    for (name, record) in &then.tenants {
        let into = match now.tenants.get(name) {
            None => &mut restored.added,
            Some(is) if is == record => &mut restored.same,
            Some(_) => &mut restored.changed,
        };
        into.insert(name.clone());
    }
    let gone = now
        .tenants
        .keys()
        .filter(|name| !then.tenants.contains_key(*name));
    restored.removed.extend(gone.cloned());
    let hit: Vec<&str> = restored
        .changed
        .iter()
        .chain(&restored.removed)
        .map(Name::as_str)
        .collect();
    if !hit.is_empty() && !permitted.replace {
        return Err(format!(
            "tenants are onboarded that it would change or remove ({}): if that is meant, add \
             --replace",
            hit.join(", ")
        ));
    }
    Ok(restored)
}
