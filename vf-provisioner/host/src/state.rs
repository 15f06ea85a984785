//! The state directory: the onboarded tenants, the objects that are ours, and the journal of an
//! apply.
//!
//! `state.json` is replaced atomically; `journal` is appended to and flushed to the disk before an
//! object is made or changed (intent) and after one was deleted (done). An object is ours from its
//! intent on, whether or not the action was executed, so a crash between the two loses no object.
//! To delete an object twice does no harm, so deletion needs no space on the disk.
//!
//! Two locks, always taken in this order: [`HostLock`] serialises apply, verify and probe;
//! [`TenantLock`] locks one tenant while an apply changes its switch or the supervisor restarts it.
//! A slow tenant delays only operations on that tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tenant_config::{Name, NicAttribute};

use crate::files::tenant_directory;
use crate::launcher::switch::Switch;
use crate::nic::parts::loan::SOCKET;
use crate::nic::probe::Probe;
use crate::plan::Action;
use crate::released::Released;
use crate::reserve;
use crate::resource::{Key, Resource};

const VERSION: u32 = 1;

/// The record of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The user its switch runs as.
    pub uid: u32,
    /// Everything it needs, including adopted and shared objects.
    pub resources: Vec<Resource>,
    /// One per port: how to probe, from the guest's end, whether the switch answers.
    pub probes: Vec<Probe>,
    /// Whether its last apply completed.
    pub complete: bool,
    /// While an apply changes it: what it was before, to return to if the apply is killed and
    /// cannot be completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<Self>>,
}

impl Record {
    /// The tenant's switch.
    pub fn switch(&self) -> Option<&Switch> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Switch(switch) => Some(switch),
            _ => None,
        })
    }

    /// Whether both describe the same objects, run by the same user and probed alike.
    pub(crate) fn has_same_objects(&self, other: &Self) -> bool {
        self.uid == other.uid && self.resources == other.resources && self.probes == other.probes
    }

    /// The settings that its file allows the NIC to lack.
    pub fn accepted(&self) -> BTreeSet<NicAttribute> {
        let accepted = self.resources.iter().filter_map(Resource::accepted);
        accepted.flatten().copied().collect()
    }
}

/// The whole state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By name.
    pub tenants: BTreeMap<Name, Record>,
    /// Every object that we made and have not deleted, as it was last set.
    pub owned: BTreeMap<Key, Resource>,
}

impl State {
    /// The keys of every tenant that is not in `changing`.
    pub fn keys_of_others(&self, changing: &BTreeSet<Name>) -> BTreeSet<Key> {
        self.tenants
            .iter()
            .filter(|(name, _)| !changing.contains(*name))
            .flat_map(|(_, record)| [Some(record), record.previous.as_deref()])
            .flatten()
            .flat_map(|record| record.resources.iter().map(Resource::key))
            .collect()
    }

    /// The objects that an interrupted apply or release has left: ours, and no tenant's.
    pub fn left_over(&self) -> Vec<Key> {
        let used = self.keys_of_others(&BTreeSet::new());
        let owned = self.owned.keys();
        owned.filter(|key| !used.contains(*key)).cloned().collect()
    }

    fn begin(&mut self, action: &Action) {
        match action {
            Action::Create { resource } | Action::Update { to: resource, .. } => {
                self.owned.insert(resource.key(), resource.clone());
            }
            Action::Delete { .. } => {}
        }
    }

    fn finish(&mut self, action: &Action) {
        if let Action::Delete { resource } = action {
            self.owned.remove(&resource.key());
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    tenants: BTreeMap<Name, Record>,
    owned: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Intent(Action),
    Done(Action),
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file has unexpected content.
    #[error(
        "{}: {reason}; it was written by another version or damaged: restore it, or move it away \
         and remove the left-over objects by hand",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

/// Reads a snapshot of the state without a lock. A missing directory is an empty state.
pub fn read(dir: &Path) -> Result<State, StateError> {
    let path = dir.join("state.json");
    let mut state = State::default();
    if let Some(text) = read_if_there(&path)? {
        let damaged = |reason| StateError::Damaged {
            path: path.clone(),
            reason,
        };
        let document: Document =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if document.version != VERSION {
            let reason = format!("version {} is not {VERSION}", document.version);
            return Err(damaged(reason));
        }
        state.tenants = document.tenants;
        state.owned = document
            .owned
            .into_iter()
            .map(|resource| (resource.key(), resource))
            .collect();
    }
    let path = dir.join("journal");
    let journal = read_if_there(&path)?.unwrap_or_default();
    for line in journal.split(|byte| *byte == b'\n') {
        // The action of a line that a crash cut off was never executed: it follows the flush.
        match serde_json::from_slice(line) {
            Ok(Entry::Intent(action)) => state.begin(&action),
            Ok(Entry::Done(action)) => state.finish(&action),
            Err(_) => break,
        }
    }
    Ok(state)
}

/// The users of released tenants, the least recently released first.
pub fn released_uids(dir: &Path) -> Vec<u32> {
    Released::read(dir).into_uids()
}

fn uids(tenants: &BTreeMap<Name, Record>) -> BTreeSet<u32> {
    tenants.values().map(|record| record.uid).collect()
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("cannot read", path)(error)),
    }
}

/// The lock of one tenant: only its holder starts or changes the tenant's switch.
#[derive(Debug)]
pub struct TenantLock {
    _lock: Flock<File>,
}

impl TenantLock {
    /// Does not wait: `None` if another process holds it.
    ///
    /// # Errors
    /// If the tenant's directory is missing or cannot be opened.
    pub fn try_lock(dir: &Path, tenant: &Name) -> Result<Option<Self>, StateError> {
        let path = tenant_directory(dir, tenant);
        let file = File::open(&path).map_err(failed("cannot open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(failed("cannot lock", &path)(errno.into())),
        }
    }

    /// Waits for the lock. `None` if the tenant has no directory, and so no switch.
    ///
    /// # Errors
    /// If the tenant's directory cannot be opened.
    pub fn lock(dir: &Path, tenant: &Name) -> Result<Option<Self>, StateError> {
        let path = tenant_directory(dir, tenant);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot open", &path)(error)),
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive);
        let lock = lock.map_err(|(_, errno)| failed("cannot lock", &path)(errno.into()))?;
        Ok(Some(Self { _lock: lock }))
    }
}

/// The state directory, locked exclusively.
#[derive(Debug)]
pub struct HostLock {
    dir: PathBuf,
    journal: File,
    state: State,
    _lock: Flock<File>,
}

impl HostLock {
    /// Opens (and makes, mode 0700) the directory, waits for its lock, and reads what a crash left
    /// in the journal.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        loop {
            if let Some(store) = Self::take(dir, FlockArg::LockExclusive)? {
                return Ok(store);
            }
        }
    }

    /// The same without waiting: `None` if another process holds it.
    pub fn try_open(dir: &Path) -> Result<Option<Self>, StateError> {
        Self::take(dir, FlockArg::LockExclusiveNonblock)
    }

    fn take(dir: &Path, how: FlockArg) -> Result<Option<Self>, StateError> {
        let path = dir.join("lock");
        let lock = loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed("cannot make the state directory", dir))?;
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed("cannot open", &path))?;
            let lock = match Flock::lock(file, how) {
                Ok(lock) => lock,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(failed("cannot lock", &path)(errno.into())),
            };
            // The previous holder may have removed the file while we waited for it.
            let held = lock.metadata().map_err(failed("cannot inspect", &path))?;
            if std::fs::metadata(&path).is_ok_and(|there| there.ino() == held.ino()) {
                break lock;
            }
        };
        let state = read(dir)?;
        let path = dir.join("journal");
        let journal = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        let mut store = Self {
            dir: dir.to_owned(),
            journal,
            state,
            _lock: lock,
        };
        let journaled = store.journal.metadata().map_or(0, |journal| journal.len());
        if journaled > 0
            && let Err(error) = store.save()
        {
            // It says the same as the journal does.
            tracing::warn!(%error, "the journal stays");
        }
        Ok(Some(store))
    }

    /// Locks these tenants, each once. Waits for restarts under way.
    pub fn lock_tenants<'a>(
        &self,
        tenants: impl IntoIterator<Item = &'a Name>,
    ) -> Result<BTreeMap<Name, TenantLock>, StateError> {
        // A second lock of the same tenant would wait forever.
        let tenants: BTreeSet<&Name> = tenants.into_iter().collect();
        let mut held = BTreeMap::new();
        for tenant in tenants {
            if let Some(lock) = TenantLock::lock(&self.dir, tenant)? {
                held.insert(tenant.clone(), lock);
            }
        }
        Ok(held)
    }

    /// The state, including the journal.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Replaces the tenants' records and empties the journal. Records the users of tenants that are
    /// gone as released, if there is space: a full disk stops no release.
    pub fn set_tenants(&mut self, tenants: BTreeMap<Name, Record>) -> Result<(), StateError> {
        let (before, now) = (uids(&self.state.tenants), uids(&tenants));
        match Released::record(&self.dir, &before, &now) {
            Err(error) if reserve::is_full(&error) => {
                tracing::warn!(%error, "released users are not recorded, and may be given again");
            }
            recorded => {
                recorded.map_err(failed("cannot record released users in", &self.dir))?;
            }
        }
        let before = std::mem::replace(&mut self.state.tenants, tenants);
        self.save().inspect_err(|_| self.state.tenants = before)
    }

    /// Records that `action` is about to be done. A deletion needs no record.
    pub fn intend(&mut self, action: &Action) -> Result<(), StateError> {
        self.state.begin(action);
        if matches!(action, Action::Delete { .. }) {
            return Ok(());
        }
        self.append(&Entry::Intent(action.clone()))
    }

    /// Records that `action` was done. Only a deletion needs a record; without it, the object is
    /// deleted again some time.
    pub fn done(&mut self, action: &Action) {
        self.state.finish(action);
        if !matches!(action, Action::Delete { .. }) {
            return;
        }
        if let Err(error) = self.append(&Entry::Done(action.clone())) {
            tracing::warn!(%action, %error, "done, and not recorded");
        }
    }

    fn append(&mut self, entry: &Entry) -> Result<(), StateError> {
        let path = self.dir.join("journal");
        let mut line = serde_json::to_vec(entry).map_err(|error| StateError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        line.push(b'\n');
        let journal = &mut self.journal;
        let end = journal.metadata().map_err(failed("cannot read", &path))?;
        let written = reserve::with(&self.dir, || {
            let written = journal.write_all(&line).and_then(|()| journal.sync_data());
            // The next line must not begin behind half of this one.
            written.inspect_err(|_| drop(journal.set_len(end.len())))
        });
        written.map_err(failed("cannot write", &path))
    }

    fn save(&mut self) -> Result<(), StateError> {
        let path = self.dir.join("state.json");
        let document = Document {
            version: VERSION,
            tenants: self.state.tenants.clone(),
            owned: self.state.owned.values().cloned().collect(),
        };
        let text = serde_json::to_vec_pretty(&document).map_err(|error| StateError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let written = reserve::replace_or_overwrite(&self.dir, &path, &text);
        written.map_err(failed("cannot write", &path))?;
        reserve::keep(&self.dir, reserve::size(text.len() as u64));
        self.journal
            .set_len(0)
            .and_then(|()| self.journal.sync_data())
            .map_err(failed("cannot empty", &self.dir.join("journal")))
    }

    /// Removes the files of an empty state, and the directory if nothing else is in it: the list of
    /// released users stays.
    pub fn remove_if_empty(self) -> Result<(), StateError> {
        if self.state == State::default() {
            for name in [reserve::FILE, "journal", "state.json", "lock"] {
                let path = self.dir.join(name);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(failed("cannot remove", &path)(error));
                    }
                    _ => {}
                }
            }
            // A supervisor that was killed leaves it.
            let _ = std::fs::remove_file(self.dir.join(SOCKET));
            // Other files belong to the operator.
            let _ = std::fs::remove_dir(self.dir.join("tenants"));
            let _ = std::fs::remove_dir(&self.dir);
        }
        Ok(())
    }
}
