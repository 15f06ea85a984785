//! The state directory: the onboarded tenants, the objects that are ours, and the journal of an
//! apply.
//!
//! `journal` is appended to before an object is made or changed (intent), after one was deleted
//! (done), and for tenants' records. Intents and records are flushed to the disk before anything
//! else happens. An object is ours from its intent on, whether or not the action was executed, so a
//! crash between the two loses no object. To delete an object twice does no harm, so deletion needs
//! no space on the disk. When the journal is long, `state.json` is replaced atomically by what both
//! say, and the journal emptied. A journal that was not emptied, because of a crash at that moment,
//! changes nothing: of each object and each record, its last line is what the new state says.
//!
//! Files of earlier versions are read; [`HostLock`] writes them in the current one. Until that has
//! replaced them, they stay as they are. Files of a later version are refused.
//!
//! Two locks, always taken in this order: [`HostLock`] serialises apply, verify and probe;
//! [`TenantLock`] locks one tenant while an apply changes its switch or the supervisor restarts it.
//! A slow tenant delays only operations on that tenant.

mod format;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tenant_config::{Name, NicAttribute};

use format::FormatError;

use crate::files::tenant_directory;
use crate::launcher::ike::Ike;
use crate::launcher::switch::Switch;
use crate::nic::parts::loan::SOCKET;
use crate::nic::probe::Probe;
use crate::plan::Action;
use crate::released::Released;
use crate::reserve;
use crate::resource::{Key, Resource};

/// What names the program in the state.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// How long the journal may grow: this, or the given part of `state.json` if that is more, so that
/// the whole state is written rarely.
const JOURNAL_MIN: u64 = 256 << 10;
const JOURNAL_PART: u64 = 4;

/// What the supervisor cannot set right, by tenant.
pub(crate) const TROUBLES: &str = "troubles.json";

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
    /// The name that the tenant had before it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formerly: Option<Name>,
    /// What an operator has stopped or drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

/// A tenant that does not run as its file says, until an operator starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// How far.
    pub mode: Mode,
    /// Everything that it needs when it runs.
    pub resources: Vec<Resource>,
    /// How it is probed then: a guest whose link is down hears no answer.
    pub probes: Vec<Probe>,
}

/// How far a tenant is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Its guests' links are down, and its switch runs.
    Drained,
    /// Its guests' links are down, and its switch does not run.
    Stopped,
}

impl Mode {
    /// As messages and `status` name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Stopped => "stopped",
        }
    }
}

impl Record {
    /// The tenant's switch, whether or not it should run.
    pub fn switch(&self) -> Option<&Switch> {
        let paused = self.paused.iter().flat_map(|paused| &paused.resources);
        switch_in(self.resources.iter().chain(paused))
    }

    /// The tenant's switch, if it should run.
    pub fn running_switch(&self) -> Option<&Switch> {
        switch_in(&self.resources)
    }

    /// The tenant's IKE daemon, if it should run.
    pub fn running_ike(&self) -> Option<&Ike> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Ike(ike) => Some(&**ike),
            _ => None,
        })
    }

    /// The tenant as it is when it runs.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Some(paused) = self.paused.take() {
            self.resources = paused.resources;
            self.probes = paused.probes;
        }
        self
    }

    /// The tenant paused, however it is now.
    #[must_use]
    pub fn paused(self, mode: Mode) -> Self {
        let mut record = self.started();
        let resources = record.resources.clone();
        for resource in &mut record.resources {
            if let Some(drained) = resource.drained() {
                *resource = drained;
            }
        }
        if mode == Mode::Stopped {
            let runs = |it: &Resource| matches!(it, Resource::Switch(_) | Resource::Ike(_));
            record.resources.retain(|it| !runs(it));
        }
        let probes = std::mem::take(&mut record.probes);
        record.paused = Some(Paused {
            mode,
            resources,
            probes,
        });
        record
    }

    /// Whether both describe the same objects, run by the same user and probed alike.
    pub(crate) fn has_same_objects(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.resources == other.resources
            && self.probes == other.probes
            && self.paused == other.paused
    }

    /// The keys of its objects, and of those that it had before an apply under way.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = Key> {
        let both = [Some(self), self.previous.as_deref()].into_iter().flatten();
        both.flat_map(|record| record.resources.iter().map(Resource::key))
    }

    /// The settings that its file allows the NIC to lack.
    pub fn accepted(&self) -> BTreeSet<NicAttribute> {
        let accepted = self.resources.iter().filter_map(Resource::accepted);
        accepted.flatten().copied().collect()
    }
}

fn switch_in<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Option<&'a Switch> {
    resources.into_iter().find_map(|resource| match resource {
        Resource::Switch(switch) => Some(&**switch),
        _ => None,
    })
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
    /// Which of these keys tenants have that are not in `changing`.
    pub(crate) fn used_by_others(
        &self,
        keys: &BTreeSet<Key>,
        changing: &BTreeSet<Name>,
    ) -> BTreeSet<Key> {
        if keys.is_empty() {
            return BTreeSet::new();
        }
        let others = self.tenants.iter();
        let others = others.filter(|(name, _)| !changing.contains(*name));
        let used = others.flat_map(|(_, record)| record.all_keys());
        used.filter(|key| keys.contains(key)).collect()
    }

    /// The objects that an interrupted apply or release has left: ours, and no tenant's.
    pub fn left_over(&self) -> Vec<Key> {
        let all = self.tenants.values().flat_map(Record::all_keys);
        let used: BTreeSet<Key> = all.collect();
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
        if let Some(key) = action.frees() {
            self.owned.remove(&key);
        }
    }

    /// Sets these records, and returns those that were there.
    fn put(&mut self, records: Records) -> Records {
        let mut before = Records::new();
        for (name, record) in records {
            let old = match record {
                Some(record) => self.tenants.insert(name.clone(), record),
                None => self.tenants.remove(&name),
            };
            before.insert(name, old);
        }
        before
    }
}

/// Records of tenants; `None` of one that has none.
pub type Records = BTreeMap<Name, Option<Record>>;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    written_by: &'a str,
    tenants: &'a BTreeMap<Name, Record>,
    owned: Vec<&'a Resource>,
}

/// The state in the current version.
#[derive(Deserialize)]
struct Stored {
    tenants: BTreeMap<Name, Record>,
    owned: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Intent(Action),
    Done(Action),
    Records(Records),
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
        "{}: {reason}; it is damaged: restore it, or move it away and remove the left-over objects \
         by hand",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is of a format that is newer than this program.
    #[error(
        "{} has the format version {version}{}, and vf-provisioner {PROGRAM} knows the versions up \
         to {}: install the newer vf-provisioner again; to go back to this one, let the newer one \
         `release --all` first",
        path.display(),
        written_by.as_ref().map(|by| format!(" of vf-provisioner {by}")).unwrap_or_default(),
        format::VERSION
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version of its format.
        version: u64,
        /// The program's version that wrote it, if the file says.
        written_by: Option<String>,
    },
}

impl StateError {
    fn format(dir: &Path, error: FormatError) -> Self {
        match error {
            FormatError::Damaged { file, reason } => Self::Damaged {
                path: dir.join(file),
                reason,
            },
            FormatError::Newer {
                file,
                version,
                written_by,
            } => Self::Newer {
                path: dir.join(file),
                version,
                written_by,
            },
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

/// Reads a snapshot of the state without a lock. A missing directory is an empty state.
pub fn read(dir: &Path) -> Result<State, StateError> {
    Ok(read_files(dir)?.0)
}

/// Reads snapshots of the state again and again, if the files have changed.
#[derive(Debug, Default)]
pub(crate) struct Reader(Option<[Option<Content>; 2]>);

impl Reader {
    /// The state, if the files are others than at the last call that succeeded.
    pub(crate) fn read(&mut self, dir: &Path) -> Result<Option<State>, StateError> {
        let content = |name| {
            let file = std::fs::metadata(dir.join(name)).ok();
            file.as_ref().map(content_of)
        };
        let now = [format::STATE, format::JOURNAL].map(content);
        if self.0 == Some(now) {
            return Ok(None);
        }
        self.0 = None;
        let state = read(dir)?;
        self.0 = Some(now);
        Ok(Some(state))
    }
}

/// What is known of the files, without the state.
struct Files {
    is_old: bool,
    state_len: u64,
    journal_version: Option<u32>,
    /// How long the journal is without what a crash cut off.
    journal_len: u64,
}

/// Which content a file has, as far as the file system says: its number, length and time.
type Content = (u64, u64, i64, i64);

fn content_of(file: &Metadata) -> Content {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

/// The two files as they were at one moment. Without the lock, `state.json` may be replaced between
/// the two, and the journal emptied: then they are read again.
fn texts(dir: &Path) -> Result<(Option<Vec<u8>>, Vec<u8>), StateError> {
    /// That often in succession, only if the whole state is written without end.
    const TRIES: usize = 100;
    let path = dir.join(format::STATE);
    let mut tries = 0;
    loop {
        let mut content = None;
        let state = match File::open(&path) {
            Ok(mut file) => {
                let mut text = Vec::new();
                let read = file.metadata().and_then(|about| {
                    content = Some(content_of(&about));
                    file.read_to_end(&mut text)
                });
                read.map_err(failed("cannot read", &path))?;
                Some(text)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("cannot read", &path)(error)),
        };
        let journal = read_if_there(&dir.join(format::JOURNAL))?.unwrap_or_default();
        let now = std::fs::metadata(&path).ok().as_ref().map(content_of);
        tries += 1;
        if now == content || tries == TRIES {
            return Ok((state, journal));
        }
    }
}

fn read_files(dir: &Path) -> Result<(State, Files), StateError> {
    let (text, journal) = texts(dir)?;
    let content: format::Content<Stored> =
        format::read(text.as_deref(), &journal).map_err(|error| StateError::format(dir, error))?;
    let owned = content.state.owned.into_iter();
    let mut state = State {
        tenants: content.state.tenants,
        owned: owned.map(|resource| (resource.key(), resource)).collect(),
    };
    for entry in content.journal {
        let entry = serde_json::from_value(entry).map_err(|error| StateError::Damaged {
            path: dir.join(format::JOURNAL),
            reason: error.to_string(),
        })?;
        match entry {
            Entry::Intent(action) => state.begin(&action),
            Entry::Done(action) => state.finish(&action),
            Entry::Records(records) => drop(state.put(records)),
        }
    }
    let files = Files {
        is_old: content.is_old,
        state_len: text.map_or(0, |text| text.len() as u64),
        journal_version: content.journal_version,
        journal_len: content.journal_len as u64,
    };
    Ok((state, files))
}

/// The users of released tenants, the least recently released first.
pub fn released_uids(dir: &Path) -> Vec<u32> {
    Released::read(dir).into_uids()
}

fn uids<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeSet<u32> {
    records.into_iter().map(|record| record.uid).collect()
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
    /// The version of the journal's last line; an empty journal has none.
    journal_version: Option<u32>,
    /// Whether `state.json` is of an earlier version.
    is_old: bool,
    /// Whether there is no `state.json` yet.
    is_new: bool,
    /// How long the journal may become.
    journal_max: u64,
    state: State,
    _lock: Flock<File>,
}

/// What was appended to the journal and is not yet flushed to the disk.
#[must_use]
#[derive(Debug)]
pub struct Written {
    journal: File,
    path: PathBuf,
}

impl Written {
    /// Flushes it. Those who do so at the same time wait for the disk together.
    ///
    /// # Errors
    /// If the disk fails, or has no space after all.
    pub fn flush(self) -> Result<(), StateError> {
        let flushed = self.journal.sync_data();
        flushed.map_err(failed("cannot write", &self.path))
    }
}

/// How long a journal may become beside a `state.json` of this length.
fn journal_max(state_len: u64) -> u64 {
    JOURNAL_MIN.max(state_len / JOURNAL_PART)
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
        let (state, files) = read_files(dir)?;
        let path = dir.join(format::JOURNAL);
        let journal = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        let mut store = Self {
            dir: dir.to_owned(),
            journal,
            journal_version: files.journal_version,
            is_old: files.is_old,
            is_new: files.state_len == 0,
            journal_max: journal_max(files.state_len),
            state,
            _lock: lock,
        };
        reserve::keep(dir, reserve::size(files.state_len + files.journal_len));
        if store.is_old || files.journal_len > store.journal_max {
            store.compact();
        }
        // The next line must not begin behind half of one.
        let journaled = store.journal.metadata().map_or(0, |journal| journal.len());
        if journaled > files.journal_len {
            let whole = store.journal.set_len(files.journal_len);
            whole.map_err(failed("cannot shorten", &path))?;
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

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the whole state, by that of a backup.
    pub(crate) fn restore(&mut self, state: State) -> Result<(), StateError> {
        let before = std::mem::replace(&mut self.state, state);
        self.save().inspect_err(|_| self.state = before)
    }

    /// The state, including the journal.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Replaces the tenants' records and empties the journal. Records the users of tenants that are
    /// gone as released, if there is space: a full disk stops no release.
    pub fn set_tenants(&mut self, tenants: BTreeMap<Name, Record>) -> Result<(), StateError> {
        self.record_released(&uids(self.state.tenants.values()), &uids(tenants.values()))?;
        let before = std::mem::replace(&mut self.state.tenants, tenants);
        self.save().inspect_err(|_| self.state.tenants = before)
    }

    /// Replaces some tenants' records, as [`set_tenants`](Self::set_tenants) does; `None` removes
    /// one. They are in the journal when the returned value was flushed; all of them or, after a
    /// crash, none.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn set_records(&mut self, records: Records) -> Result<Option<Written>, StateError> {
        let before = records
            .keys()
            .filter_map(|name| self.state.tenants.get(name));
        let now = records.values().flatten();
        self.record_released(&uids(before), &uids(now))?;
        let entry = Entry::Records(records);
        let written = self.append(&entry);
        let Entry::Records(records) = entry else {
            return Ok(None);
        };
        let before = self.state.put(records);
        match written {
            Ok(written) => Ok(Some(written)),
            // The whole state may be shorter than it was.
            Err(error) => match self.save() {
                Ok(()) => Ok(None),
                Err(_) => {
                    self.state.put(before);
                    Err(error)
                }
            },
        }
    }

    fn record_released(
        &self,
        before: &BTreeSet<u32>,
        now: &BTreeSet<u32>,
    ) -> Result<(), StateError> {
        match Released::record(&self.dir, before, now) {
            Err(error) if reserve::is_full(&error) => {
                tracing::warn!(%error, "released users are not recorded, and may be given again");
                Ok(())
            }
            recorded => recorded.map_err(failed("cannot record released users in", &self.dir)),
        }
    }

    /// Records that `action` is about to be done, as soon as the returned value was flushed. A
    /// deletion needs no record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn intend(&mut self, action: &Action) -> Result<Option<Written>, StateError> {
        self.state.begin(action);
        if matches!(action, Action::Delete { .. }) {
            return Ok(None);
        }
        self.append(&Entry::Intent(action.clone())).map(Some)
    }

    /// Notes that `action` was done, without a record.
    pub(crate) fn forget(&mut self, action: &Action) {
        self.state.finish(action);
    }

    /// Records that `action` was done. Only a deletion needs a record; without it, also if it never
    /// reaches the disk, the object is deleted again some time.
    pub fn done(&mut self, action: &Action) {
        self.state.finish(action);
        if action.frees().is_none() {
            return;
        }
        if let Err(error) = self.append(&Entry::Done(action.clone())) {
            tracing::warn!(%action, %error, "done, and not recorded");
        }
    }

    fn append(&mut self, entry: &Entry) -> Result<Written, StateError> {
        let path = self.dir.join(format::JOURNAL);
        let end = |journal: &File| {
            let about = journal.metadata().map_err(failed("cannot read", &path))?;
            Ok(about.len())
        };
        if end(&self.journal)? > self.journal_max {
            self.compact();
        }
        let damaged = |error: serde_json::Error| StateError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        let mut text = Vec::new();
        if self.journal_version != Some(format::VERSION) {
            text = serde_json::to_vec(&format::HEADER).map_err(damaged)?;
            text.push(b'\n');
        }
        text.extend(serde_json::to_vec(entry).map_err(damaged)?);
        text.push(b'\n');
        let end = end(&self.journal)?;
        let journal = &mut self.journal;
        let written = reserve::with(&self.dir, || {
            let written = journal.write_all(&text);
            // The next line must not begin behind half of this one.
            written.inspect_err(|_| drop(journal.set_len(end)))
        });
        let journal = written.and_then(|()| journal.try_clone());
        let journal = journal.map_err(failed("cannot write", &path))?;
        self.journal_version = Some(format::VERSION);
        Ok(Written { journal, path })
    }

    /// Empties the journal into `state.json`, if that can be written now.
    fn compact(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "the journal stays");
            // Not with each line.
            self.journal_max *= 2;
        }
    }

    /// Writes the whole state, and empties the journal.
    pub(crate) fn save(&mut self) -> Result<(), StateError> {
        let path = self.dir.join(format::STATE);
        let document = Document {
            version: format::VERSION,
            written_by: PROGRAM,
            tenants: &self.state.tenants,
            owned: self.state.owned.values().collect(),
        };
        let text = serde_json::to_vec_pretty(&document).map_err(|error| StateError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let written = if self.is_old {
            // The old file stays until the new one is whole.
            reserve::replace(&self.dir, &path, &text, 0o600)
        } else {
            reserve::replace_or_overwrite(&self.dir, &path, &text)
        };
        written.map_err(failed("cannot write", &path))?;
        self.is_old = false;
        self.is_new = false;
        self.journal_max = journal_max(text.len() as u64);
        reserve::keep(&self.dir, reserve::size(text.len() as u64));
        self.journal
            .set_len(0)
            .and_then(|()| self.journal.sync_data())
            .map_err(failed("cannot empty", &self.dir.join(format::JOURNAL)))?;
        self.journal_version = None;
        Ok(())
    }

    /// Removes the files of an empty state, and the directory if nothing else is in it: the list of
    /// released users stays. Writes the whole state if it has none yet.
    pub fn remove_if_empty(mut self) -> Result<(), StateError> {
        if self.is_new && self.state != State::default() {
            self.compact();
        }
        if self.state == State::default() {
            for name in [reserve::FILE, format::STATE, format::JOURNAL, "lock"] {
                let path = self.dir.join(name);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(failed("cannot remove", &path)(error));
                    }
                    _ => {}
                }
            }
            // A supervisor that was killed leaves them.
            for name in [SOCKET, TROUBLES] {
                let _ = std::fs::remove_file(self.dir.join(name));
            }
            // Other files belong to the operator.
            let _ = std::fs::remove_dir(self.dir.join("tenants"));
            let _ = std::fs::remove_dir(&self.dir);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_reads_what_has_changed_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut reader = Reader::default();
        let mut changed = || reader.read(dir.path()).map(|state| state.is_some());
        assert!(changed().expect("nothing is there"));
        assert!(!changed().expect("nothing is there"));
        let mut lock = HostLock::open(dir.path()).expect("it is made");
        assert!(changed().expect("it is read"), "the journal is there");
        lock.set_tenants(BTreeMap::new()).expect("it is written");
        assert!(changed().expect("it is read"), "the state is there");
        assert!(!changed().expect("it is read"));
        std::fs::write(dir.path().join(format::JOURNAL), "}\n").expect("it is written");
        for _ in 0..2 {
            assert!(changed().is_err(), "it says so until it is readable");
        }
        std::fs::write(dir.path().join(format::JOURNAL), "").expect("it is written");
        assert!(changed().expect("it is read"));
    }
}
