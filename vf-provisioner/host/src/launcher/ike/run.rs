//! Starts, configures and stops a tenant's IKE daemon.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tenant_config::{Authentication, IkeConfig, Name};

use super::certificate::{Certificate, Expiry, RevocationList};
use super::daemon::{Association, Ike, Place};
use super::port::Port;
use super::secret::FileError;
use super::settings::Settings;
use super::vici::{Client, Message, ViciError};
use crate::error::HostError;
use crate::files::{connect, pin_socket, remove};
use crate::launcher::cgroup::mounts;
use crate::launcher::confine::{Shown, Started, Task};
use crate::launcher::files::TenantFiles;
use crate::launcher::launched::Executable;
use crate::object::Context;

/// Where the daemon finds itself.
const PROGRAM: &str = "/vswitch-charon";
/// Where it finds its own folder.
const INSIDE: &str = "/run/charon";
/// Where it, and the switch, find the folder of the switch's socket.
pub(crate) const SWITCH_INSIDE: &str = "/run/vswitch-ike";
/// The switch's socket in that folder.
pub(crate) const SWITCH_SOCKET: &str = "ike.sock";
const VICI: &str = "vici.sock";
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long all commands of a configuration may take together.
const CONFIGURED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// How long a question whether it is alive may take: its death costs more than a late answer.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long a daemon in a machine may take to forget its connections, and then to tell its peers.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
const TELL_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The same for a machine, which each look takes processor time from.
const LOOK_INSIDE_EVERY: Duration = Duration::from_millis(100);
/// The socket of the daemon's port, beside a machine's other sockets.
pub(crate) const PORT: &str = "ike";

/// The files of a tenant's IKE daemon, in a folder of the tenant's directory.
pub(crate) struct IkeFiles {
    own: TenantFiles,
    switch: TenantFiles,
}

/// The note about a started daemon. It holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    ike: Ike,
    /// Its process, or that of its machine.
    started: Started,
    /// In a machine, the number of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    restarts: u64,
    /// Whether it was configured. If its starter was killed before that, it counts as absent.
    ready: bool,
    /// The files that it was given, as they were.
    files: Vec<Option<Executable>>,
    /// By connection, a digest of what it was given.
    connections: BTreeMap<String, String>,
}

/// The folder in which a tenant's switch listens for its IKE daemon, on the host.
pub(crate) fn listen_folder(files: &TenantFiles) -> Shown {
    Shown {
        host: files.ike().directory.join("switch"),
        inside: PathBuf::from(SWITCH_INSIDE),
    }
}

impl IkeFiles {
    pub(crate) fn new(context: &Context, tenant: &Name) -> Self {
        let switch = TenantFiles::new(context, tenant);
        let own = switch.ike();
        Self { own, switch }
    }

    /// Moves what the daemon has written to its log, whose length is bounded.
    pub(crate) fn collect_log(&self) -> Result<(), HostError> {
        self.own.collect_log()
    }

    fn note_path(&self) -> PathBuf {
        self.own.directory.join("process.json")
    }

    fn note(&self) -> Option<Note> {
        let text = fs::read(self.note_path()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn remember(&self, note: &Note) -> Result<(), HostError> {
        let path = self.note_path();
        let what = format!("cannot write {}", path.display());
        let text =
            serde_json::to_vec_pretty(note).map_err(|error| HostError::io(&what)(error.into()))?;
        self.own
            .replace(&path, &text, 0o600)
            .map_err(HostError::io(what))
    }

    /// The files of which the log is what the daemon writes: in a machine that is the console.
    fn logged(&self, place: &Place) -> &TenantFiles {
        match place {
            Place::Process { .. } => &self.own,
            Place::Machine { .. } => &self.switch,
        }
    }

    /// The daemon's log.
    pub(crate) fn log(&self, ike: &Ike) -> PathBuf {
        let files = self.logged(&ike.place);
        files.collect_last();
        files.log()
    }

    /// The note about a daemon that was configured, and whose process or machine is alive.
    fn running(&self) -> Option<Note> {
        self.note()
            .filter(|note| note.ready && note.started.is_alive())
    }

    /// The daemon as it was last configured, if it runs. One in a machine is asked.
    pub(super) fn observe(&self) -> Option<Ike> {
        let note = self.running()?;
        if matches!(note.ike.place, Place::Machine { .. }) {
            self.ask(ALIVE_WITHIN).ok()?;
        }
        Some(note.ike)
    }

    /// The daemon that was last started, whether or not it runs.
    pub(super) fn last(&self) -> Option<Ike> {
        Some(self.note()?.ike)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.note().map_or(0, |note| note.restarts)
    }

    /// A pidfd of the daemon, if it is alive and configured.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        let note = self.note()?;
        let pid = rustix::process::Pid::from_raw(note.started.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number identifies one process only while we hold the descriptor.
        (note.ready && note.started.is_alive()).then_some(pidfd)
    }

    /// Whether the daemon that runs, as far as is known, is the one that was configured.
    pub(crate) fn is_configured(&self) -> bool {
        self.note().is_some_and(|note| note.ready)
    }

    /// Whether a file that it was given is another one now, or gone.
    pub(crate) fn is_outdated(&self) -> bool {
        let note = self.note();
        note.is_some_and(|note| note.ready && stamps(&note.ike.config) != note.files)
    }

    /// Speaks to the daemon, if it runs and is configured.
    fn ask(&self, within: Duration) -> Result<Client, String> {
        let note = self.running().ok_or("the IKE daemon does not run")?;
        let until = Instant::now() + note.ike.place.within(within);
        let (client, number) = self.client(&note.ike.place, until)?;
        if number != note.number {
            self.disown(note);
            return Err("the IKE daemon was started again, and is not configured yet".to_owned());
        }
        Ok(client)
    }

    /// Whether the daemon answers at all.
    ///
    /// # Errors
    /// If it does not, or not as VICI says.
    pub(crate) fn answers(&self) -> Result<(), String> {
        let mut client = self.ask(ALIVE_WITHIN)?;
        let version = client.command("version", &Message::default());
        version.map(drop).map_err(|error| error.to_string())
    }

    /// What the daemon says of its associations.
    ///
    /// # Errors
    /// If it does not answer, or not as VICI says.
    pub(crate) fn associations(&self) -> Result<Vec<Association>, String> {
        let mut client = self.ask(ANSWERS_WITHIN)?;
        let events = client
            .stream("list-sas", "list-sa", &Message::default())
            .map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for (name, ike) in events.iter().flat_map(|event| event.sections()) {
            let text = |key| ike.value(key).unwrap_or_default().to_owned();
            let children = ike.section("child-sas").into_iter();
            let children = children.flat_map(|children| children.sections());
            let installed = children.filter(|(_, it)| it.value("state") == Some("INSTALLED"));
            found.push(Association {
                peer: name.to_owned(),
                state: text("state"),
                identity: text("remote-id"),
                children: installed.count(),
            });
        }
        Ok(found)
    }

    /// Notes that the daemon is to be configured before anything else.
    fn disown(&self, mut note: Note) {
        note.ready = false;
        if let Err(error) = self.remember(&note) {
            tracing::warn!(tenant = %note.ike.tenant, %error, "its IKE daemon is not configured");
        }
    }

    /// Ends a daemon that does not answer; `pidfd` is what [`Self::pidfd`] has given. In a machine
    /// the next start has it replaced.
    pub(crate) fn end_stuck(&self, pidfd: &OwnedFd) {
        match self.note() {
            Some(note) if matches!(note.ike.place, Place::Machine { .. }) => self.disown(note),
            // It may have ended meanwhile.
            _ => drop(pidfd_send_signal(pidfd, rustix::process::Signal::KILL)),
        }
    }

    /// Speaks to the daemon, if it is the one of that place that listens. In a machine it has a
    /// number.
    fn client(&self, place: &Place, until: Instant) -> Result<(Client, Option<u64>), String> {
        match place {
            Place::Process { uid, .. } => Ok((self.process(*uid, until)?, None)),
            Place::Machine { machine_uid, .. } => {
                let port = self.port(*machine_uid, until)?;
                let number = port.daemon();
                Ok((Client::new(port, until), Some(number)))
            }
        }
    }

    fn port(&self, machine_uid: u32, until: Instant) -> Result<Port, String> {
        Port::open(&self.switch.socket(PORT), machine_uid, until)
            .map_err(|error| format!("the IKE daemon cannot be asked: {error}"))
    }

    /// Has the daemon of that number in a machine replaced by one that knows nothing.
    fn replace(&self, place: &Place, number: Option<u64>, until: Instant) -> Result<(), String> {
        let Place::Machine { machine_uid, .. } = place else {
            return Ok(());
        };
        let port = self.port(*machine_uid, until)?;
        if Some(port.daemon()) != number {
            return Ok(());
        }
        let failed = |error| format!("the IKE daemon cannot be replaced: {error}");
        port.replace(until).map_err(failed)
    }

    /// Has a daemon in a machine tell its peers, and then replaced. If that takes too long, it ends
    /// with its machine.
    fn leave(&self) {
        let Some(mut note) = self.note().filter(|note| note.started.is_alive()) else {
            return;
        };
        let (place, until) = (note.ike.place.clone(), Instant::now() + LEAVE_WITHIN);
        if let Ok((mut client, number)) = self.client(&place, until)
            && number == note.number
            // Without a connection or a key.
            && load(&mut client, &Settings::default(), &mut note.connections).is_ok()
        {
            let tell_until = Instant::now() + TELL_WITHIN;
            let all = Message::default();
            while Instant::now() < tell_until
                && let Ok([_, ..]) = client.stream("list-sas", "list-sa", &all).as_deref()
            {
                std::thread::sleep(LOOK_INSIDE_EVERY);
            }
        }
        if let Err(why) = self.replace(&place, note.number, until) {
            tracing::debug!(tenant = %note.ike.tenant, %why, "its IKE daemon goes on");
        }
    }

    fn process(&self, uid: u32, until: Instant) -> Result<Client, String> {
        let no = |error: std::io::Error| format!("the IKE daemon cannot be asked: {error}");
        // The folder is the daemon's, so a link in the place of the socket is not followed.
        let (_file, pinned) = pin_socket(&self.own.run().join(VICI)).map_err(no)?;
        let stream = connect(&pinned).map_err(no)?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| no(errno.into()))?;
        if peer.uid() != uid {
            return Err(format!(
                "user {} listens in the place of the IKE daemon, user {uid}",
                peer.uid()
            ));
        }
        Ok(Client::new(stream, until))
    }

    fn make(&self, uid: u32) -> Result<(), HostError> {
        let folder = &self.own.directory;
        let what = || format!("cannot make {}", folder.display());
        for (path, mode) in [
            (folder.clone(), 0o700),
            (self.own.run(), 0o700),
            (self.own.root(), 0o755),
        ] {
            make_folder(&path, mode).map_err(HostError::io(what()))?;
        }
        chown(self.own.run(), Some(uid), Some(uid)).map_err(HostError::io(what()))
    }
}

fn make_folder(path: &Path, mode: u32) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes the folder in which the switch listens. It is the switch's, and the daemon may reach what
/// is in it.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn make_listen_folder(files: &TenantFiles, uid: u32) -> Result<(), HostError> {
    let folder = listen_folder(files).host;
    let what = format!("cannot make {}", folder.display());
    let ike = files.ike().directory;
    make_folder(&ike, 0o700)
        .and_then(|()| make_folder(&folder, 0o711))
        .and_then(|()| chown(&folder, Some(uid), Some(uid)))
        .map_err(HostError::io(&what))?;
    remove(&folder.join(SWITCH_SOCKET))
}

fn failed(ike: &Ike) -> impl Fn(String) -> HostError {
    let tenant = ike.tenant.clone();
    move |message| HostError::Ike {
        tenant: tenant.clone(),
        message,
    }
}

pub(super) fn start(context: &Context, ike: &Ike, restarts: u64) -> Result<(), HostError> {
    let failed = failed(ike);
    // Before anything starts: what is not configured protects nothing.
    let stamps = stamps(&ike.config);
    let settings = Settings::read(&ike.config).map_err(|error| failed(error.to_string()))?;
    let files = IkeFiles::new(context, &ike.tenant);
    let before = files.note();
    // Until the daemon is configured, it keeps what it writes.
    let mut held = None;
    let started = match &ike.place {
        Place::Process {
            uid,
            cgroup,
            binary,
        } => {
            if !binary.is_file() {
                let binary = binary.display();
                return Err(failed(format!(
                    "{binary} is not there: install the package vswitch-ike, build it with \
                     scripts/build-ike, or name it with --ike-binary"
                )));
            }
            let mounts = mounts()?;
            // A crash between the start and the note may have left processes.
            mounts.empty(cgroup, STOP_WITHIN)?;
            files.make(*uid)?;
            remove(&files.own.run().join(VICI))?;
            held = files.own.make_log_pipe()?;
            let shown = Shown {
                host: binary.clone(),
                inside: PathBuf::from(PROGRAM),
            };
            let task = task(ike, *uid, shown, &files, mounts.joins(cgroup));
            task.start().map_err(&failed)?
        }
        Place::Machine { .. } => {
            let folder = &files.own.directory;
            let what = format!("cannot make {}", folder.display());
            make_folder(folder, 0o700).map_err(HostError::io(what))?;
            let machine = files.switch.launched()?.map(|launched| launched.started);
            let machine = machine.filter(Started::is_alive);
            machine.ok_or_else(|| failed("its machine does not run".to_owned()))?
        }
    };
    let mut note = Note {
        ike: ike.clone(),
        started,
        number: before.and_then(|note| note.number),
        restarts,
        ready: false,
        files: stamps,
        connections: BTreeMap::new(),
    };
    files.remember(&note)?;
    let configured = wait(&files, &mut note).and_then(|mut client| {
        // One in a machine may have been configured before.
        let known = known_connections(&mut client).map_err(|error| error.to_string())?;
        note.connections = known;
        files.remember(&note).map_err(|error| error.to_string())?;
        let loaded = load(&mut client, &settings, &mut note.connections);
        loaded.map_err(|error| error.to_string())?;
        initiate(&mut client, &settings);
        Ok(())
    });
    if let Err(why) = configured {
        let tail = files.logged(&ike.place).tail();
        // One that is half configured must not look as if it was.
        let _ = stop(context, ike);
        return Err(failed(format!("{why}{tail}")));
    }
    note.ready = true;
    files.remember(&note)?;
    files.logged(&ike.place).collect_last();
    drop(held);
    Ok(())
}

fn task(ike: &Ike, uid: u32, program: Shown, files: &IkeFiles, cgroups: Vec<PathBuf>) -> Task {
    let inside = |folder: &str, socket: &str| Path::new(folder).join(socket).display().to_string();
    let switch = listen_folder(&files.switch);
    Task {
        tenant: ike.tenant.to_string(),
        namespace: None,
        bare: true,
        cgroups,
        uid,
        root: files.own.root(),
        program: PathBuf::from(PROGRAM),
        arguments: vec![
            "--switch".to_owned(),
            inside(SWITCH_INSIDE, SWITCH_SOCKET),
            "--vici".to_owned(),
            inside(INSIDE, VICI),
            "--address".to_owned(),
            ike.config.vtep.to_string(),
        ],
        shown: vec![program],
        devices: Vec::new(),
        run: files.own.run(),
        run_inside: PathBuf::from(INSIDE),
        folders: vec![switch],
        log: files.own.log_pipe(),
        raw_sockets: false,
        groups: Vec::new(),
        cpu: None,
        // It locks its memory, which the control group bounds.
        locked_bytes: None,
        file_bytes: 0,
    }
}

/// Waits until the daemon can be asked. In a machine, the one that the note numbers is replaced by
/// another one first, whose number the note gets.
fn wait(files: &IkeFiles, note: &mut Note) -> Result<Client, String> {
    let (began, place) = (Instant::now(), note.ike.place.clone());
    let within = place.within(READY_WITHIN);
    loop {
        let until = Instant::now() + place.within(CONFIGURED_WITHIN);
        // Another user's answer is not waited for to change.
        let why = match files.client(&place, until) {
            Ok((client, number)) if number.is_none() || number != note.number => {
                note.number = number;
                return Ok(client);
            }
            Ok((client, number)) => {
                // The port has one client at a time.
                drop(client);
                let replaced = files.replace(&place, number, until);
                replaced
                    .err()
                    .unwrap_or_else(|| "it is being replaced".to_owned())
            }
            Err(why) => why,
        };
        if began.elapsed() > within {
            let within = within.as_secs();
            return Err(format!("it was not ready within {within} s ({why})"));
        }
        if !note.started.is_alive() {
            return Err("it ended".to_owned());
        }
        std::thread::sleep(match place {
            Place::Process { .. } => LOOK_EVERY,
            Place::Machine { .. } => LOOK_INSIDE_EVERY,
        });
    }
}

/// The names of the connections that the daemon has, without digests.
fn known_connections(client: &mut Client) -> Result<BTreeMap<String, String>, ViciError> {
    let known = client.command("get-conns", &Message::default())?;
    let names = known.list("conns").iter();
    Ok(names.map(|name| (name.clone(), String::new())).collect())
}

/// Gives the daemon everything that differs from what it has. The new keys are there before the
/// old ones go, so at any time one of them is.
fn load(
    client: &mut Client,
    settings: &Settings,
    connections: &mut BTreeMap<String, String>,
) -> Result<(), ViciError> {
    for crl in &settings.crls {
        let mut message = Message::default();
        message.set("type", "X509_CRL").set("data", crl);
        client.command("load-cert", &message)?;
    }
    for shared in &settings.shared {
        let mut message = Message::default();
        message.set("id", &shared.id).set("type", "IKE");
        message.set("data", shared.secret.expose());
        message.list("owners", [&shared.owner]);
        client.command("load-shared", &message)?;
    }
    let known = client.command("get-shared", &Message::default())?;
    for id in known.list("keys") {
        if !settings.shared.iter().any(|shared| shared.id == *id) {
            let mut message = Message::default();
            message.set("id", id);
            client.command("unload-shared", &message)?;
        }
    }
    let mut own = None;
    if let Some(key) = &settings.key {
        let mut message = Message::default();
        message.set("type", "any").set("data", key.expose());
        let answer = client.command("load-key", &message)?;
        own = answer.value("id").map(str::to_owned);
    }
    let mut wanted = BTreeMap::new();
    for connection in &settings.connections {
        let digest = connection.digest();
        if connections.get(&connection.name) != Some(&digest) {
            client.command("load-conn", &connection.message)?;
        }
        wanted.insert(connection.name.clone(), digest);
    }
    for name in connections
        .keys()
        .filter(|name| !wanted.contains_key(*name))
    {
        let mut message = Message::default();
        message.set("name", name);
        client.command("unload-conn", &message)?;
        let mut message = Message::default();
        message.set("ike", name).set("timeout", "-1");
        // There may be no association with it.
        let _ = client.command("terminate", &message);
    }
    *connections = wanted;
    // The old key was needed as long as a connection had its certificate.
    let known = client.command("get-keys", &Message::default())?;
    for id in known.list("keys") {
        if own.as_ref() != Some(id) {
            let mut message = Message::default();
            message.set("id", id);
            client.command("unload-key", &message)?;
        }
    }
    // What was believed of certificates before is asked once more.
    client.command("flush-certs", &Message::default())?;
    Ok(())
}

/// Begins to negotiate with every peer. One that does not answer is tried for ever, and the traps
/// are there in any case.
fn initiate(client: &mut Client, settings: &Settings) {
    for connection in &settings.connections {
        for child in connection.children() {
            let mut message = Message::default();
            message.set("ike", &connection.name).set("child", &child);
            message.set("timeout", "-1");
            if let Err(error) = client.command("initiate", &message) {
                tracing::debug!(%child, %error, "not initiated");
            }
        }
    }
}

pub(super) fn reload(context: &Context, ike: &Ike) -> Result<(), HostError> {
    let failed = failed(ike);
    let files = IkeFiles::new(context, &ike.tenant);
    let stamps = stamps(&ike.config);
    let settings = Settings::read(&ike.config).map_err(|error| failed(error.to_string()))?;
    let Some(mut note) = files.note().filter(|note| note.ready) else {
        return start(context, ike, 0);
    };
    let before = note.connections.clone();
    let until = Instant::now() + ike.place.within(CONFIGURED_WITHIN);
    let (mut client, number) = files.client(&ike.place, until).map_err(&failed)?;
    if number != note.number {
        // The port has one client at a time.
        drop(client);
        return start(context, ike, note.restarts + 1);
    }
    load(&mut client, &settings, &mut note.connections)
        .map_err(|error| failed(error.to_string()))?;
    let is_new = |name: &String| !before.contains_key(name);
    let new = Settings {
        connections: settings
            .connections
            .into_iter()
            .filter(|connection| is_new(&connection.name))
            .collect(),
        ..settings
    };
    initiate(&mut client, &new);
    note.ike = ike.clone();
    note.files = stamps;
    files.remember(&note)
}

pub(super) fn stop(context: &Context, ike: &Ike) -> Result<(), HostError> {
    let files = IkeFiles::new(context, &ike.tenant);
    let Place::Process { cgroup, .. } = &ike.place else {
        files.leave();
        return remove(&files.note_path());
    };
    let mut held = None;
    files.own.hold_log(&mut held)?;
    if let Some(pidfd) = files.pidfd() {
        // It tells its peers.
        let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < STOP_WITHIN && files.pidfd().is_some() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    mounts()?.empty(cgroup, STOP_WITHIN)?;
    files.own.collect_last();
    remove(&files.own.run().join(VICI))?;
    remove(&files.note_path())
}

/// All files that a configuration names.
pub(crate) fn all_files(config: &IkeConfig) -> Vec<&Path> {
    let peers = config
        .peers
        .iter()
        .flat_map(|peer| match &peer.authentication {
            Authentication::Psk(files) | Authentication::Pinned(files) => files.as_slice(),
            Authentication::Authority => &[],
        });
    let own = config
        .own
        .iter()
        .flat_map(|own| [&own.certificate, &own.key]);
    let all = peers.chain(own).chain(&config.ca).chain(&config.crl);
    all.map(PathBuf::as_path).collect()
}

fn stamps(config: &IkeConfig) -> Vec<Option<Executable>> {
    all_files(config).into_iter().map(Executable::of).collect()
}

/// When the certificates and lists of a configuration end, and what cannot be read.
pub(crate) fn expiries(config: &IkeConfig) -> (Vec<Expiry>, Vec<FileError>) {
    let pinned = config
        .peers
        .iter()
        .flat_map(|peer| match &peer.authentication {
            Authentication::Pinned(files) => files.as_slice(),
            Authentication::Psk(_) | Authentication::Authority => &[],
        });
    let own = config.own.iter().map(|own| &own.certificate);
    let certificates = own.chain(pinned).chain(&config.ca);
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for file in certificates {
        match Certificate::read(file) {
            Ok(certificate) => found.push(Expiry {
                file: file.clone(),
                at: certificate.not_after,
            }),
            Err(error) => unreadable.push(error),
        }
    }
    for file in &config.crl {
        match RevocationList::read(file) {
            Ok(list) => found.extend(list.next_update.map(|at| Expiry {
                file: file.clone(),
                at,
            })),
            Err(error) => unreadable.push(error),
        }
    }
    found.sort();
    found.dedup();
    (found, unreadable)
}
