//! Keeps the locks of In/Out ports: hears when one is lost, takes its port down until the lock is
//! back, and restores it.
//!
//! One thread, with its own sockets: it waits for nothing that concerns a switch. Where the kernel
//! can, it owns the tables while nobody changes them (see [`Owner`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use tenant_config::Name;

use super::error::SuperviseError;
use super::events::{Event, emit};
use super::supervisor::LOOK_EVERY;
use crate::error::HostError;
use crate::nic::parts::guard::{self, Guard, Lock, Loss, Tables};
use crate::nic::parts::link::{self, Pair};
use crate::nic::parts::listener::LinkChanges;
use crate::nic::parts::loan::Lender;
use crate::nic::parts::netlink::{is_up, set_up};
use crate::nic::parts::nfnetlink::{Changes, Owner};
use crate::resource::Resource;
use crate::state::{self, HostLock, Record, State, TenantLock};

/// One tenant's In/Out port, as it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    guard: Guard,
    lock: Lock,
    pair: Pair,
    /// No apply is changing it.
    complete: bool,
}

impl Port {
    fn of(record: &Record) -> Option<Self> {
        let resources = || record.resources.iter();
        let lock = resources().find_map(|resource| match resource {
            Resource::Lock(lock) => Some(lock),
            _ => None,
        })?;
        let guard = resources().find_map(|resource| match resource {
            Resource::Guard(guard) => Some(guard),
            _ => None,
        })?;
        let pair = resources().find_map(|resource| match resource {
            Resource::Pair(pair) if pair.peer.interface == lock.interface => Some(pair),
            _ => None,
        })?;
        Some(Self {
            guard: guard.clone(),
            lock: lock.clone(),
            pair: pair.clone(),
            complete: record.complete,
        })
    }

    /// What is missing of the lock, as a sentence. While an apply changes it, only whether there is
    /// one.
    fn fault(&self, tables: &Tables) -> Option<String> {
        let guard = tables.guard(&self.guard);
        let lock = Lock {
            rules: tables.lock(&self.lock),
            ..self.lock.clone()
        };
        let Some(guard) = guard else {
            return Some(format!("{} are missing", resource(&self.guard).key()));
        };
        if lock.rules.is_empty() {
            return Some(format!("{} is missing", resource_of(&self.lock).key()));
        }
        if self.complete {
            let differ = |wanted: Resource, is: Resource| {
                let differences = wanted.differences(&is).join("; ");
                let text = format!("{}: {differences}", wanted.key());
                (!differences.is_empty()).then_some(text)
            };
            return differ(resource(&self.guard), resource(&guard))
                .or_else(|| differ(resource_of(&self.lock), resource_of(&lock)));
        }
        let empty = [&guard.rules, &guard.host, &guard.pass];
        let empty = empty.into_iter().any(Vec::is_empty);
        empty.then(|| format!("{}: rules are missing", resource(&self.guard).key()))
    }

    /// How the bridge's settings of the port differ, as a sentence. An interface that is missing is
    /// no way out.
    fn link_fault(&self) -> Result<Option<String>, HostError> {
        let Some(is) = link::observe(&self.pair.peer)?.map(|it| it.end) else {
            return Ok(None);
        };
        if !self.complete || is == self.pair.peer {
            return Ok(None);
        }
        let whole = |peer| {
            Resource::Pair(Pair {
                peer,
                ..self.pair.clone()
            })
        };
        let wanted = whole(self.pair.peer.clone());
        let differences = wanted.differences(&whole(is)).join("; ");
        Ok(Some(format!("{}: {differences}", wanted.key())))
    }
}

fn resource(guard: &Guard) -> Resource {
    Resource::Guard(guard.clone())
}

fn resource_of(lock: &Lock) -> Resource {
    Resource::Lock(lock.clone())
}

/// A port that is down until its lock is back.
struct Closed {
    since: Instant,
    /// Whether it was up, and its loss was reported.
    reported: bool,
    /// The last failure that was reported.
    error: String,
}

/// What must be looked at.
#[derive(Default)]
struct Due {
    tables: bool,
    /// By interface.
    links: BTreeSet<String>,
}

struct Keeper<'a> {
    dir: &'a Path,
    /// Held while shared objects are made.
    making: &'a Mutex<()>,
    changes: Changes,
    links: LinkChanges,
    lender: Option<Lender>,
    owner: Option<Owner>,
    /// The ports have changed since the tables were taken.
    retake: bool,
    ports: BTreeMap<Name, Port>,
    closed: BTreeMap<Name, Closed>,
    due: Due,
    /// When what failed is tried again.
    retry: Option<Instant>,
}

/// Keeps the locks until `stop` is readable.
pub(super) fn keep(dir: &Path, making: &Mutex<()>, stop: &EventFd) -> Result<(), SuperviseError> {
    let mut keeper = Keeper {
        dir,
        making,
        changes: Changes::listen().map_err(SuperviseError::Locks)?,
        links: LinkChanges::listen().map_err(SuperviseError::Locks)?,
        lender: None,
        owner: None,
        retake: false,
        ports: BTreeMap::new(),
        closed: BTreeMap::new(),
        due: Due::default(),
        retry: None,
    };
    loop {
        keeper.hear().map_err(SuperviseError::Locks)?;
        match state::read(dir) {
            Ok(state) => keeper.follow(&state),
            // The supervisor reports it.
            Err(error) => tracing::debug!(%error, "the port locks are kept as they were"),
        }
        let lent = keeper.lend();
        if keeper.retry.is_some_and(|retry| Instant::now() >= retry) {
            keeper.due.tables = true;
            keeper.due.links.extend(keeper.closed_interfaces());
        }
        if keeper.due.tables || !keeper.due.links.is_empty() {
            keeper.look();
        }
        if !lent {
            keeper.own();
        }
        if keeper.wait(stop)? {
            return Ok(());
        }
    }
}

impl Keeper<'_> {
    /// Hears what has changed, and at once takes down the ports that have lost their lock.
    fn hear(&mut self) -> io::Result<()> {
        let mut lost = BTreeMap::new();
        match self.changes.take()? {
            None => self.due.tables = true,
            Some(transactions) => {
                for (name, port) in &self.ports {
                    for transaction in &transactions {
                        match guard::loss(transaction, &port.lock) {
                            Loss::None => {}
                            Loss::Possible => self.due.tables = true,
                            Loss::Certain => {
                                self.due.tables = true;
                                lost.insert(name.clone(), "its rules were removed".to_owned());
                            }
                        }
                    }
                }
            }
        }
        self.close(&lost);
        match self.links.take()? {
            None => self.due.links = self.interfaces(),
            Some(names) => {
                let ours = self.interfaces();
                let heard = names.into_iter().filter(|name| ours.contains(name));
                self.due.links.extend(heard);
            }
        }
        Ok(())
    }

    fn interfaces(&self) -> BTreeSet<String> {
        let ports = self.ports.values();
        ports.map(|port| port.lock.interface.clone()).collect()
    }

    fn closed_interfaces(&self) -> Vec<String> {
        let ports = self.closed.keys().filter_map(|name| self.ports.get(name));
        ports.map(|port| port.lock.interface.clone()).collect()
    }

    /// Takes down the ports of these tenants, and reports those that were up.
    fn close(&mut self, why: &BTreeMap<Name, String>) {
        if why.is_empty() {
            return;
        }
        let interface = |name: &Name| Some(self.ports.get(name)?.lock.interface.as_str());
        let interfaces: Vec<&str> = why.keys().filter_map(interface).collect();
        let (closed, error) = match guard::close(&interfaces) {
            Ok(closed) => (closed, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        for (name, why) in why {
            let was_up = interface(name).is_some_and(|it| closed.contains(&it));
            let it = self.closed.entry(name.clone()).or_insert_with(|| Closed {
                since: Instant::now(),
                reported: false,
                error: String::new(),
            });
            if was_up && !it.reported {
                it.reported = true;
                emit(&Event::Unlocked { tenant: name, why });
            }
            if let Some(error) = &error {
                it.fail(name, error);
            }
        }
    }

    /// Takes over the ports of the state. New ones are looked at.
    fn follow(&mut self, state: &State) {
        let ports: BTreeMap<Name, Port> = state
            .tenants
            .iter()
            .filter_map(|(name, record)| Some((name.clone(), Port::of(record)?)))
            .collect();
        for (name, port) in &ports {
            if self.ports.get(name) != Some(port) {
                self.retake = true;
                self.due.tables = true;
                self.due.links.insert(port.lock.interface.clone());
            }
        }
        self.closed.retain(|name, _| ports.contains_key(name));
        self.ports = ports;
    }

    /// Gives up the tables while somebody else changes them. Returns whether somebody does.
    fn lend(&mut self) -> bool {
        if self.ports.is_empty() {
            // In this order: who cannot ask any more may change them.
            self.owner = None;
            self.lender = None;
            return false;
        }
        if !self.lender.as_ref().is_some_and(Lender::is_reachable) {
            self.owner = None;
            match Lender::open(self.dir) {
                Ok(lender) => self.lender = Some(lender),
                Err(error) => {
                    tracing::warn!(%error, "the port locks are not owned: nobody could ask");
                    return true;
                }
            }
        }
        let owner = &mut self.owner;
        match &mut self.lender {
            Some(lender) => lender.serve(|| *owner = None),
            None => true,
        }
    }

    /// Compares what is due with what was set: closes, restores, and opens again.
    fn look(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.retry = None;
        let faults = self.faults(&due).unwrap_or_else(|error| {
            tracing::warn!(%error, "the port locks are looked at again");
            self.retry = Some(Instant::now() + LOOK_EVERY);
            BTreeMap::new()
        });
        // All of them, before the first is restored.
        self.close(&faults);
        for (name, port) in self.ports.clone() {
            let result = if faults.contains_key(&name) {
                self.restore(&name, &port)
            } else {
                let looked = due.links.contains(&port.lock.interface);
                self.open(&name, &port, looked)
            };
            if let Err(error) = result {
                self.retry = Some(Instant::now() + LOOK_EVERY);
                if let Some(closed) = self.closed.get_mut(&name) {
                    closed.fail(&name, &error.to_string());
                }
            }
        }
    }

    /// What the ports lack, a sentence each.
    fn faults(&mut self, due: &Due) -> Result<BTreeMap<Name, String>, SuperviseError> {
        let mut faults = self.compare(due);
        if faults.is_empty() {
            return Ok(faults);
        }
        // An apply says so in the state before it changes anything. So a port that still is as it
        // was before it was compared has no apply's unfinished work.
        let state = state::read(self.dir)?;
        let as_before = |name: &Name, port: &Port| {
            state.tenants.get(name).and_then(Port::of).as_ref() == Some(port)
        };
        let (complete, mut unfinished): (Vec<_>, Vec<_>) = faults
            .keys()
            .filter_map(|name| Some((name.clone(), self.ports.get(name)?)))
            .partition(|(_, port)| port.complete);
        unfinished.retain(|(name, port)| as_before(name, port));
        let mut real: BTreeSet<Name> = complete
            .into_iter()
            .filter(|(name, port)| as_before(name, port))
            .map(|(name, _)| name)
            .collect();
        if !unfinished.is_empty() {
            // Of an apply that runs, or of one that was killed.
            if let Some(_host) = HostLock::try_open(self.dir)? {
                let again = self.compare(due);
                let unfinished = unfinished.into_iter().map(|(name, _)| name);
                real.extend(unfinished.filter(|name| again.contains_key(name)));
            }
        }
        if real.len() < faults.len() {
            self.retry = Some(Instant::now() + LOOK_EVERY);
        }
        faults.retain(|name, _| real.contains(name));
        Ok(faults)
    }

    /// What the ports lack in the tables, and those that are due on the bridge.
    fn compare(&self, due: &Due) -> BTreeMap<Name, String> {
        let names = self.ports.values().map(|port| port.lock.table.as_str());
        let names: BTreeSet<&str> = names.collect();
        let tables: BTreeMap<&str, _> = names
            .into_iter()
            .map(|name| (name, Tables::read(name)))
            .collect();
        let fault = |port: &Port| {
            let fault = match tables.get(port.lock.table.as_str())? {
                Ok(tables) => port.fault(tables),
                Err(error) => Some(error.to_string()),
            };
            let looks = due.links.contains(&port.lock.interface);
            fault.or_else(|| match looks.then(|| port.link_fault())? {
                Ok(fault) => fault,
                Err(error) => Some(error.to_string()),
            })
        };
        let faults = self
            .ports
            .iter()
            .filter_map(|(name, port)| Some((name.clone(), fault(port)?)));
        faults.collect()
    }

    /// Sets what the port's lock lacks, unless an apply or a restart holds the tenant. It is looked
    /// at once more before the port is taken up.
    fn restore(&mut self, name: &Name, port: &Port) -> Result<(), SuperviseError> {
        if !port.complete {
            return Ok(());
        }
        let Some(_lock) = self.hold(name, port)? else {
            return Ok(());
        };
        // Who holds it may be waiting for the tables.
        let _making = match self.making.try_lock() {
            Ok(making) => making,
            Err(TryLockError::Poisoned(making)) => making.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        self.owner = None;
        let tables = Tables::read(&port.lock.table)?;
        if tables.guard(&port.guard).as_ref() != Some(&port.guard) {
            guard::set_guard(&port.guard)?;
        }
        if tables.lock(&port.lock) != port.lock.rules {
            guard::set_lock(&port.lock)?;
        }
        if port.link_fault()?.is_some() {
            link::configure(&port.pair.peer)?;
        }
        self.due.tables = true;
        self.due.links.insert(port.lock.interface.clone());
        Ok(())
    }

    /// Locks the tenant, if nobody else has and it is as it was. Otherwise it is looked at later.
    fn hold(&mut self, name: &Name, port: &Port) -> Result<Option<TenantLock>, SuperviseError> {
        self.retry = Some(Instant::now() + LOOK_EVERY);
        let Some(lock) = TenantLock::try_lock(self.dir, name)? else {
            return Ok(None);
        };
        let state = state::read(self.dir)?;
        let is = state.tenants.get(name).and_then(Port::of);
        Ok((is.as_ref() == Some(port)).then_some(lock))
    }

    /// Takes a port up again that was taken down, also before this supervisor ran.
    fn open(&mut self, name: &Name, port: &Port, looked: bool) -> Result<(), SuperviseError> {
        if !port.complete || !(looked || self.closed.contains_key(name)) {
            return Ok(());
        }
        let interface = &port.lock.interface;
        if is_up(interface)? == Some(false) {
            // Nobody else has if the tenant is being released or changed.
            let Some(_lock) = self.hold(name, port)? else {
                return Ok(());
            };
            set_up(interface, true)?;
        }
        if let Some(closed) = self.closed.remove(name)
            && closed.reported
        {
            let closed_s = closed.since.elapsed().as_secs_f64();
            emit(&Event::Locked {
                tenant: name,
                closed_s,
            });
        }
        Ok(())
    }

    /// Owns the tables, if the kernel can and nothing is amiss.
    fn own(&mut self) {
        let amiss = self.due.tables || self.retry.is_some() || !self.closed.is_empty();
        let complete = self.ports.values().any(|port| port.complete);
        if amiss || !complete || (self.owner.is_some() && !self.retake) {
            return;
        }
        self.retake = false;
        let owner = self.owner.take();
        let take = || {
            let owner = owner.map_or_else(Owner::new, Ok)?;
            for port in self.ports.values().filter(|port| port.complete) {
                // What it cannot own, it hears of.
                guard::own(&owner, &port.lock.table)?;
            }
            Ok::<_, io::Error>(owner)
        };
        match take() {
            Ok(owner) => self.owner = Some(owner),
            Err(error) => tracing::warn!(%error, "the port locks are not owned"),
        }
    }

    /// Waits for something to do. Returns whether to stop.
    fn wait(&self, stop: &EventFd) -> Result<bool, SuperviseError> {
        let mut fds = vec![
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.links.as_fd(), PollFlags::POLLIN),
        ];
        let lender = self.lender.iter().flat_map(Lender::fds);
        fds.extend(lender.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let now = Instant::now();
        let next = match self.retry {
            _ if self.due.tables => Duration::ZERO,
            Some(retry) => retry.saturating_duration_since(now).min(LOOK_EVERY),
            None => LOOK_EVERY,
        };
        let next = PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, next) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let stopped = fds.first().and_then(PollFd::revents);
        Ok(stopped.is_some_and(|events| events.contains(PollFlags::POLLIN)))
    }
}

impl Closed {
    /// Reports a failure, once.
    fn fail(&mut self, tenant: &Name, error: &str) {
        if self.error != error {
            error.clone_into(&mut self.error);
            emit(&Event::LockFailed {
                tenant,
                error: error.to_owned(),
            });
        }
    }
}
