//! The mediation probe: shows with real frames that no frame of a tenant gets around its switch.
//!
//! Each function of the NIC is a [`Station`]. Those of the tenant send everything that a guest, or a
//! switch that was taken over, could try; all of them listen, with the host's own interface, with
//! functions that are nobody's and, where it is given, with the other end of the cable. Every frame
//! bears a random token and its number, so that counts are exact. [`run`] says of each sender,
//! listener and kind of frame how many were sent and seen, and whether that is as it must be.
//!
//! That nothing was seen says something only of a listener that hears and of a sender that sends: a
//! pair of which this was not shown is *inconclusive*.

mod frame;
pub mod onboarded;
mod report;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tenant_config::MacAddr;

use self::frame::{CUSTOMER, SERVICE, Shape, Tag, Token};
pub use self::report::{Report, Row, Verdict, Weakness, Wire};
use self::tap::Tap;
use super::netlink;
use crate::host::{HostError, hold};

/// What a station is to a tenant's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The T VF or whatever else is a VM's end of a port.
    Guest,
    /// The Gw VF: the switch's end of a port.
    Gateway,
    /// The In/Out VF.
    Uplink,
    /// A function that is nobody's.
    Witness,
    /// The physical function, or what else is the host's own interface.
    Host,
    /// An interface at the other end of the NIC's cable.
    Wire,
}

/// Where a station's frames are sent and seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// A network interface, which is up.
    Interface {
        /// Its network namespace; the provisioner's own where none is given.
        namespace: Option<String>,
        /// Its name there.
        interface: String,
    },
    /// A device that only a running switch has: it sends nothing, and hears as far as the switch
    /// counts what it drops.
    Switch {
        /// The switch's executable.
        program: PathBuf,
        /// Its control socket.
        control: PathBuf,
        /// The port's name, `uplink` for the In/Out side.
        port: String,
    },
}

/// One end of the embedded switch, of its cable, or of what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// As the report names it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// For [`Role::Guest`] and [`Role::Gateway`]: the port whose two ends they are.
    pub port: Option<String>,
    /// Its MAC address, as the NIC is to enforce it.
    pub mac: MacAddr,
    /// The VLAN it is put on by the NIC.
    pub vlan: Option<u16>,
    /// Where it is.
    pub place: Place,
    /// That it sends and hears was shown before, as by a gateway that answered.
    pub proven: bool,
    /// It only listens.
    pub quiet: bool,
}

/// What refuses a forged source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fabric {
    /// The NIC's embedded switch: nobody ever sees it.
    Embedded,
    /// The tenant's switch: a port is a mere pair of ends, and what one sends the other hears.
    Pair,
}

/// How a probe is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is between the stations.
    pub fabric: Fabric,
    /// How long links may take until frames pass that must.
    pub patience: Duration,
    /// How long a frame may take.
    pub settle: Duration,
    /// What the operator accepts of this NIC, by name.
    pub accepted: BTreeSet<Weakness>,
}

impl Options {
    /// With times that an emulated NIC on a slow machine keeps.
    pub fn new(fabric: Fabric) -> Self {
        Self {
            fabric,
            patience: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            accepted: BTreeSet::new(),
        }
    }
}

/// Kinds of frames. The source is the sender's own and there is no tag unless the kind says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// For the listener's MAC.
    Unicast,
    /// For another station's MAC, or one that nobody has.
    Elsewhere,
    /// For everybody.
    Broadcast,
    /// For groups that the listener has joined.
    Multicast,
    /// With the source of another station, or of none.
    Forged,
    /// With one 802.1Q tag.
    Tagged,
    /// With one 802.1ad tag.
    ServiceTagged,
    /// With an 802.1Q tag of VLAN 0.
    PriorityTagged,
    /// With two tags.
    DoubleTagged,
    /// All of these together, where a listener cannot tell them apart.
    Any,
}

const GROUPS: [[u8; 6]; 3] = [
    [0x03, 0, 0, 0, 0x88, 0xb5],
    // 239.255.136.181 and ff05::1:88b5.
    [0x01, 0x00, 0x5e, 0x7f, 0x88, 0xb5],
    [0x33, 0x33, 0, 0x01, 0x88, 0xb5],
];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Of a block that is locally administered, so nobody's.
const NOBODY: [u8; 6] = [0x06, 0x88, 0xb5, 0x88, 0xb5, 0x01];
/// How often each frame is sent.
const COPIES: u32 = 2;
/// After how many frames the listeners are read.
const BURST: usize = 16;
/// Frames taken from one listener before the next one has its turn.
const TURN: usize = 256;
/// Between two rounds of proofs.
const ROUND: Duration = Duration::from_millis(100);
/// How long a listener may take to be shown to hear, once what must pass does.
const LATE: Duration = Duration::from_millis(700);
const MAX_STATIONS: usize = 1024;

/// How a frame is made.
#[derive(Debug, Clone)]
struct Spec {
    from: usize,
    /// `None` for what only shows that the stations send and hear.
    kind: Option<Kind>,
    destination: [u8; 6],
    source: [u8; 6],
    tags: Vec<Tag>,
    shape: Shape,
}

/// What one listener saw of one frame's copies.
#[derive(Debug, Clone, Default)]
struct Sight {
    frames: u32,
    untagged: u32,
    tags: BTreeSet<Vec<Tag>>,
}

/// What must become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Must,
    May,
    /// It may arrive, as what it is: with a tag.
    MayTagged,
    MustNot,
    /// It is reported.
    Finding,
    /// It says nothing.
    Skip,
}

fn rule(fabric: Fabric, from: &Station, to: &Station, kind: Kind) -> Rule {
    use Role::{Gateway, Guest, Host, Uplink, Wire, Witness};
    let tagged = matches!(
        kind,
        Kind::Tagged | Kind::ServiceTagged | Kind::PriorityTagged | Kind::DoubleTagged
    );
    let counterparts = from.port.is_some() && from.port == to.port;
    match (from.role, to.role) {
        (Host | Witness, _) => Rule::Skip,
        (Wire, Guest | Gateway) if fabric == Fabric::Embedded => Rule::Finding,
        (Wire, Guest | Gateway) => Rule::MustNot,
        (Wire, _) => Rule::Skip,
        (Guest, Gateway) | (Gateway, Guest) if counterparts => match kind {
            Kind::Unicast | Kind::Broadcast => Rule::Must,
            Kind::Forged if fabric == Fabric::Embedded => Rule::MustNot,
            _ if tagged => Rule::MayTagged,
            _ => Rule::May,
        },
        (_, Wire) if fabric == Fabric::Embedded && kind != Kind::Forged => Rule::Finding,
        (Guest | Gateway, _) => Rule::MustNot,
        (Uplink, Guest | Gateway) => Rule::MustNot,
        (Uplink, Witness) if to.vlan.is_some() => Rule::MustNot,
        (Uplink, _) if kind == Kind::Forged => Rule::MustNot,
        (Uplink, _) => Rule::Skip,
    }
}

/// The name of what lets frames through that must not, where it opens no way around a switch.
fn weakness(from: &Station, to: &Station, kind: Kind) -> Option<Weakness> {
    use Role::{Gateway, Guest, Uplink, Wire};
    let inside = matches!(to.role, Guest | Gateway);
    let own = from.port.is_some() && from.port == to.port;
    match (from.role, kind) {
        (Guest | Gateway, Kind::Forged) if own || to.role == Wire => Some(Weakness::ForgedSource),
        (Uplink, Kind::Forged) if !inside => Some(Weakness::ForgedSource),
        (Uplink, Kind::Tagged | Kind::ServiceTagged | Kind::DoubleTagged) => {
            Some(Weakness::UplinkTag)
        }
        _ => None,
    }
}

/// Sends and listens. It takes `patience` only where what must pass does not, else a little more
/// than `settle` (that much for each sender where a switch counts).
pub fn run(stations: &[Station], options: &Options) -> Result<Report, HostError> {
    let started = Instant::now();
    if stations.len() > MAX_STATIONS {
        return Err(failed(format!(
            "a probe of {} stations: at most {MAX_STATIONS} at once; name fewer tenants",
            stations.len()
        )));
    }
    let token = Token::random().map_err(HostError::io("cannot read /dev/urandom"))?;
    let mut taps = Vec::new();
    for station in stations {
        taps.push(open(station)?);
    }
    let mut field = Field {
        stations,
        options,
        token,
        taps,
        specs: Vec::new(),
        sights: BTreeMap::new(),
        sends: stations.iter().map(|it| it.proven).collect(),
        hears: stations.iter().map(|it| it.proven).collect(),
        counted: Vec::new(),
        noisy: BTreeSet::new(),
    };
    field.prove()?;
    field.attack()?;
    Ok(field.judge(started.elapsed()))
}

/// As [`run`], and a report that is not good is an error with a sentence for each leak.
pub fn require(stations: &[Station], options: &Options) -> Result<Report, HostError> {
    let report = run(stations, options)?;
    if report.is_good() {
        return Ok(report);
    }
    let mut sentences = report.sentences();
    let found = report.weaknesses().into_iter();
    let found = found.filter(|it| !options.accepted.contains(it));
    sentences.extend(found.map(|it| format!("{}: {}", it.name(), it.help())));
    Err(failed(sentences.join("; ")))
}

fn failed(message: String) -> HostError {
    HostError::Program {
        program: "the mediation probe",
        message,
    }
}

/// Whether a station can be listened at now.
fn can_listen(station: &Station) -> bool {
    match &station.place {
        Place::Interface { .. } => open(station).is_ok(),
        Place::Switch {
            program, control, ..
        } => drops(program, control).is_ok(),
    }
}

fn open(station: &Station) -> Result<Option<Tap>, HostError> {
    let Place::Interface {
        namespace,
        interface,
    } = &station.place
    else {
        return Ok(None);
    };
    let place = match namespace {
        Some(namespace) => format!("{namespace}/{interface}"),
        None => interface.clone(),
    };
    // A promiscuous physical function joins every VLAN; what counts is what it gets by itself.
    let promiscuous = station.role != Role::Host;
    let tap = netlink::inside(namespace.as_deref(), || {
        Tap::open(interface, promiscuous, &GROUPS).map_err(HostError::io(format!(
            "cannot listen on {place} ({})",
            station.name
        )))
    })?;
    if !tap.is_up() {
        return Err(failed(format!(
            "{place} ({}) is down: set it up before the probe",
            station.name
        )));
    }
    Ok(Some(tap))
}

struct Field<'a> {
    stations: &'a [Station],
    options: &'a Options,
    token: Token,
    taps: Vec<Option<Tap>>,
    /// A frame's number is its place here.
    specs: Vec<Spec>,
    sights: BTreeMap<(usize, usize), Sight>,
    sends: Vec<bool>,
    hears: Vec<bool>,
    counted: Vec<Counted>,
    /// Switches that count also while nothing is sent.
    noisy: BTreeSet<usize>,
}

/// What the drop counters of a switch said of one sender's frames.
struct Counted {
    from: usize,
    to: usize,
    frames: u64,
}

impl Field<'_> {
    fn indices(&self) -> std::ops::Range<usize> {
        0..self.stations.len()
    }

    fn octets(&self, station: usize) -> [u8; 6] {
        self.stations[station].mac.octets()
    }

    fn is_silent(&self, station: usize) -> bool {
        self.taps[station].is_none() || self.stations[station].quiet
    }

    /// Sends what must pass, and what shows that a station hears, until all of it was seen.
    fn prove(&mut self) -> Result<(), HostError> {
        let mut needed = Vec::new();
        for from in self.indices() {
            if self.is_silent(from) {
                continue;
            }
            let station = &self.stations[from];
            let mut add = |destination, tags: Vec<Tag>| {
                self.specs.push(Spec {
                    from,
                    kind: None,
                    destination,
                    source: station.mac.octets(),
                    tags,
                    shape: Shape::Plain,
                });
                self.specs.len() - 1
            };
            add(BROADCAST, Vec::new());
            // The host's own interface is on no VLAN, and may say on which its frame is.
            if matches!(station.role, Role::Host | Role::Wire) {
                let vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
                for vlan in vlans {
                    add(BROADCAST, vec![(CUSTOMER, vlan)]);
                }
            }
            for (to, other) in self.stations.iter().enumerate() {
                let must = rule(self.options.fabric, station, other, Kind::Unicast) == Rule::Must;
                if must {
                    let number = add(other.mac.octets(), Vec::new());
                    if self.taps[to].is_some() {
                        needed.push((number, to));
                    }
                }
            }
        }
        let numbers: Vec<usize> = (0..self.specs.len()).collect();
        let started = Instant::now();
        let mut enough: Option<Instant> = None;
        while started.elapsed() < self.options.patience {
            self.send(&numbers, 1)?;
            self.listen(ROUND)?;
            if needed.iter().all(|key| self.sights.contains_key(key)) {
                let since = *enough.get_or_insert_with(Instant::now);
                let heard = |list: &[bool]| {
                    self.taps
                        .iter()
                        .zip(list)
                        .all(|(tap, it)| tap.is_none() || *it)
                };
                if heard(&self.sends) && heard(&self.hears) || since.elapsed() > LATE {
                    break;
                }
            }
        }
        self.prove_counters()
    }

    /// A switch's In/Out side that counts the host's broadcasts hears.
    fn prove_counters(&mut self) -> Result<(), HostError> {
        let uplink = |it: &Station| {
            it.role == Role::Uplink && !it.proven && matches!(it.place, Place::Switch { .. })
        };
        if !self.stations.iter().any(uplink) {
            return Ok(());
        }
        let mut before = self.counters()?;
        for from in self.indices() {
            let role = self.stations[from].role;
            if !matches!(role, Role::Host | Role::Wire | Role::Witness) {
                continue;
            }
            let mut numbers: Vec<usize> = (0..self.specs.len()).collect();
            numbers.retain(|number| self.specs[*number].from == from);
            self.send(&numbers, 1)?;
            self.listen(self.options.settle)?;
            let after = self.counters()?;
            for (to, frames) in &after {
                if uplink(&self.stations[*to]) && before.get(to).is_some_and(|it| it < frames) {
                    self.hears[*to] = true;
                    self.sends[from] = true;
                }
            }
            before = after;
        }
        Ok(())
    }

    fn attack(&mut self) -> Result<(), HostError> {
        let counting = self.taps.iter().any(Option::is_none);
        let mut longest = Duration::ZERO;
        let mut before = self.counters()?;
        for from in self.indices() {
            if self.is_silent(from) {
                continue;
            }
            let first = self.specs.len();
            let specs = match self.stations[from].role {
                Role::Guest | Role::Gateway | Role::Uplink => self.everything(from),
                Role::Wire => self.injections(from),
                Role::Witness | Role::Host => continue,
            };
            self.specs.extend(specs);
            let numbers: Vec<usize> = (first..self.specs.len()).collect();
            let started = Instant::now();
            self.send(&numbers, COPIES)?;
            if counting {
                self.listen(self.options.settle)?;
                let after = self.counters()?;
                longest = longest.max(started.elapsed());
                for (to, frames) in &after {
                    let frames = frames.saturating_sub(before.get(to).copied().unwrap_or(*frames));
                    self.counted.push(Counted {
                        from,
                        to: *to,
                        frames,
                    });
                }
                before = after;
            }
        }
        self.listen(self.options.settle)?;
        if counting {
            // What the switches count while nothing is sent, for as long as one sender took.
            self.listen(longest.saturating_sub(self.options.settle))?;
            for (to, frames) in self.counters()? {
                if before.get(&to) != Some(&frames) {
                    self.noisy.insert(to);
                }
            }
        }
        Ok(())
    }

    /// Everything that somebody who has the whole function could send.
    fn everything(&self, from: usize) -> Vec<Spec> {
        let own = self.octets(from);
        let others: Vec<usize> = self.indices().filter(|it| *it != from).collect();
        let mut specs = Vec::new();
        let mut add = |kind, destination, source, tags: &[Tag], shape| {
            specs.push(Spec {
                from,
                kind: Some(kind),
                destination,
                source,
                tags: tags.to_vec(),
                shape,
            });
        };
        for shape in Shape::ALL {
            for to in &others {
                add(Kind::Unicast, self.octets(*to), own, &[], shape);
            }
            add(Kind::Elsewhere, NOBODY, own, &[], shape);
            add(Kind::Broadcast, BROADCAST, own, &[], shape);
            for group in GROUPS {
                add(Kind::Multicast, group, own, &[], shape);
            }
            add(Kind::Forged, BROADCAST, NOBODY, &[], shape);
        }
        for to in &others {
            let to = self.octets(*to);
            add(Kind::Forged, to, NOBODY, &[], Shape::Plain);
            // As that station, to everybody, itself included.
            add(Kind::Forged, BROADCAST, to, &[], Shape::Arp);
            add(Kind::Forged, to, to, &[], Shape::Plain);
            for counterpart in others.iter().filter(|it| self.are_counterparts(from, **it)) {
                let counterpart = self.octets(*counterpart);
                add(Kind::Forged, counterpart, to, &[], Shape::Ipv4);
            }
            add(
                Kind::PriorityTagged,
                to,
                own,
                &[(CUSTOMER, 0)],
                Shape::Plain,
            );
        }
        add(
            Kind::PriorityTagged,
            BROADCAST,
            own,
            &[(CUSTOMER, 0)],
            Shape::Arp,
        );
        let mut vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
        let unused = (1..=4094).rev().find(|vlan| !vlans.contains(vlan));
        vlans.extend(unused);
        for vlan in vlans {
            let outer = self.stations[from].vlan.unwrap_or(vlan);
            let ways: [(Kind, &[Tag]); 4] = [
                (Kind::Tagged, &[(CUSTOMER, vlan)]),
                (Kind::ServiceTagged, &[(SERVICE, vlan)]),
                (Kind::DoubleTagged, &[(CUSTOMER, outer), (CUSTOMER, vlan)]),
                (Kind::DoubleTagged, &[(SERVICE, outer), (CUSTOMER, vlan)]),
            ];
            for (kind, tags) in ways {
                add(kind, BROADCAST, own, tags, Shape::Plain);
                for to in &others {
                    if self.stations[*to].vlan == Some(vlan) {
                        add(kind, self.octets(*to), own, tags, Shape::Ipv4);
                    }
                }
            }
        }
        specs
    }

    fn are_counterparts(&self, one: usize, other: usize) -> bool {
        let port = &self.stations[one].port;
        port.is_some() && *port == self.stations[other].port
    }

    /// What the adjacent switch could let through.
    fn injections(&self, from: usize) -> Vec<Spec> {
        let mut specs = Vec::new();
        let mut add = |kind, destination, tags| {
            specs.push(Spec {
                from,
                kind: Some(kind),
                destination,
                source: self.octets(from),
                tags,
                shape: Shape::Plain,
            });
        };
        add(Kind::Broadcast, BROADCAST, Vec::new());
        for station in self.stations {
            let mac = station.mac.octets();
            if !matches!(station.role, Role::Guest | Role::Gateway) {
                continue;
            }
            add(Kind::Unicast, mac, Vec::new());
            if let Some(vlan) = station.vlan {
                add(Kind::Tagged, mac, vec![(CUSTOMER, vlan)]);
            }
        }
        let vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
        for vlan in vlans {
            add(Kind::Tagged, BROADCAST, vec![(CUSTOMER, vlan)]);
        }
        specs
    }

    fn send(&mut self, numbers: &[usize], copies: u32) -> Result<(), HostError> {
        for burst in numbers.chunks(BURST) {
            for number in burst {
                let spec = &self.specs[*number];
                let Some(tap) = &self.taps[spec.from] else {
                    continue;
                };
                let frame = self.token.frame(
                    u32::try_from(*number).unwrap_or(u32::MAX),
                    spec.destination,
                    spec.source,
                    &spec.tags,
                    spec.shape,
                );
                for _ in 0..copies {
                    tap.send(&frame).map_err(HostError::io(format!(
                        "cannot send from {}",
                        self.stations[spec.from].name
                    )))?;
                }
            }
            self.hear()?;
        }
        Ok(())
    }

    /// Listens for this long.
    fn listen(&mut self, time: Duration) -> Result<(), HostError> {
        let until = Instant::now() + time;
        loop {
            self.hear()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let taps = self.taps.iter().flatten();
            let mut ready: Vec<PollFd<'_>> = taps
                .map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN))
                .collect();
            let wait = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut ready, wait) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(HostError::sys("cannot wait for frames")(errno)),
            }
        }
    }

    /// Takes what has come in, a bounded number from each listener.
    fn hear(&mut self) -> Result<(), HostError> {
        for (to, tap) in self.taps.iter_mut().enumerate() {
            let Some(tap) = tap else {
                continue;
            };
            for _ in 0..TURN {
                let heard = tap.hear().map_err(HostError::io(format!(
                    "cannot listen at {}",
                    self.stations[to].name
                )))?;
                let Some(heard) = heard else {
                    break;
                };
                let number = self.token.number(heard.bytes).map(|number| number as usize);
                let spec = number.and_then(|number| Some((number, self.specs.get(number)?)));
                // Some NICs give a broadcast back to its sender.
                let own = match spec {
                    Some((_, spec)) => spec.from == to,
                    None => heard.bytes.get(6..12) == Some(&self.stations[to].mac.octets()[..]),
                };
                if own {
                    continue;
                }
                // Whatever else comes in shows that it hears.
                self.hears[to] = true;
                let Some((number, spec)) = spec else {
                    continue;
                };
                self.sends[spec.from] = true;
                let sight = self.sights.entry((number, to)).or_default();
                sight.frames = sight.frames.saturating_add(1);
                if heard.tags.is_empty() {
                    sight.untagged += 1;
                }
                if sight.tags.len() < 4 {
                    sight.tags.insert(heard.tags);
                }
            }
        }
        Ok(())
    }

    /// What each switch counted so far of what could only be a stranger's frame.
    fn counters(&self) -> Result<BTreeMap<usize, u64>, HostError> {
        let mut said: BTreeMap<&PathBuf, Vec<Dropped>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (index, station) in self.stations.iter().enumerate() {
            let Place::Switch {
                program,
                control,
                port,
            } = &station.place
            else {
                continue;
            };
            if !said.contains_key(control) {
                // One that only listens, and has ended meanwhile, hears nothing.
                match drops(program, control) {
                    Ok(drops) => said.insert(control, drops),
                    Err(_) if station.quiet => said.insert(control, Vec::new()),
                    Err(error) => return Err(error),
                };
            }
            // A port's switch knows its guest's MAC. The In/Out side knows no senders, but nothing
            // else has an EtherType for experiments.
            let reason = match station.role {
                Role::Uplink => "ethertype",
                _ => "src-mac",
            };
            let frames = said[control]
                .iter()
                .filter(|it| it.port == *port && it.reason == reason)
                .map(|it| it.frames)
                .sum();
            found.insert(index, frames);
        }
        Ok(found)
    }

    fn judge(&self, took: Duration) -> Report {
        let mut rows = Vec::new();
        let mut of: BTreeMap<(usize, Kind), Vec<usize>> = BTreeMap::new();
        for (number, spec) in self.specs.iter().enumerate() {
            if let Some(kind) = spec.kind {
                of.entry((spec.from, kind)).or_default().push(number);
            }
        }
        for from in self.indices() {
            for to in self
                .indices()
                .filter(|to| *to != from && self.taps[*to].is_some())
            {
                let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
                for ((_, kind), numbers) in of.range((from, Kind::Unicast)..=(from, Kind::Any)) {
                    for number in numbers {
                        let there = self.specs[*number].destination == self.octets(to);
                        let kind = match kind {
                            Kind::Unicast if !there => Kind::Elsewhere,
                            kind => *kind,
                        };
                        by_kind.entry(kind).or_default().push(*number);
                    }
                }
                for (kind, numbers) in by_kind {
                    rows.extend(self.row(from, to, kind, &numbers));
                }
            }
        }
        rows.extend(
            self.counted
                .iter()
                .filter_map(|counted| self.counted_row(counted, &of)),
        );
        Report::new(self.stations, rows, took)
    }

    fn row(&self, from: usize, to: usize, kind: Kind, numbers: &[usize]) -> Option<Row> {
        let (sender, listener) = (&self.stations[from], &self.stations[to]);
        let rule = rule(self.options.fabric, sender, listener, kind);
        let mut all = Sight::default();
        for number in numbers {
            if let Some(sight) = self.sights.get(&(*number, to)) {
                all.frames += sight.frames;
                all.untagged += sight.untagged;
                all.tags.extend(sight.tags.iter().cloned());
            }
        }
        let sent = u32::try_from(numbers.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(COPIES);
        // What leaves for the wire on another VLAN than the NIC's settings say is no finding.
        let astray = match sender.vlan {
            Some(vlan) if listener.role == Role::Wire => all
                .tags
                .iter()
                .any(|tags| tags.first().is_none_or(|(_, outer)| *outer != vlan)),
            _ => false,
        };
        let mut note = None;
        let verdict = match rule {
            Rule::Skip => return None,
            Rule::Finding if astray => {
                note = Some("it left with another VLAN's tag, or with none".to_owned());
                Verdict::Leak
            }
            Rule::MayTagged if all.untagged > 0 => {
                note = Some(format!("{} of them without any tag", all.untagged));
                Verdict::Leak
            }
            Rule::MustNot if all.frames > 0 => Verdict::Leak,
            Rule::Must if all.frames == 0 => Verdict::Lost,
            Rule::Finding if all.frames > 0 => Verdict::Finding,
            _ if all.frames > 0 => Verdict::Passed,
            _ => {
                note = self.doubt(from, to);
                silent(&note)
            }
        };
        let (verdict, weakness) = self.named(verdict, sender, listener, kind);
        Some(Row {
            from: sender.name.clone(),
            to: listener.name.clone(),
            kind,
            sent,
            seen: all.frames.into(),
            verdict,
            weakness,
            tags: all.tags.iter().map(|tags| show_tags(tags)).collect(),
            note,
        })
    }

    fn counted_row(
        &self,
        counted: &Counted,
        of: &BTreeMap<(usize, Kind), Vec<usize>>,
    ) -> Option<Row> {
        let Counted { from, to, frames } = *counted;
        let (sender, listener) = (&self.stations[from], &self.stations[to]);
        // A port's own guest is known by its MAC, so what is counted is what is forged.
        let kind = match self.are_counterparts(from, to) {
            true => Kind::Forged,
            false => Kind::Any,
        };
        let sent = of
            .range((from, Kind::Unicast)..=(from, Kind::Any))
            .filter(|((_, it), _)| kind == Kind::Any || *it == kind)
            .map(|(_, numbers)| numbers.len())
            .sum::<usize>();
        let mut note = None;
        let verdict = match rule(self.options.fabric, sender, listener, kind) {
            Rule::Skip => return None,
            _ if self.noisy.contains(&to) => {
                let name = &listener.name;
                note = Some(format!(
                    "the switch at {name} drops such frames also while the probe is silent"
                ));
                Verdict::Inconclusive
            }
            Rule::MustNot if frames > 0 => Verdict::Leak,
            Rule::Finding if frames > 0 => Verdict::Finding,
            _ if frames > 0 => {
                note = Some("its switch refused them".to_owned());
                Verdict::Passed
            }
            _ => {
                note = self.doubt(from, to);
                silent(&note)
            }
        };
        let (verdict, weakness) = self.named(verdict, sender, listener, kind);
        Some(Row {
            from: sender.name.clone(),
            to: listener.name.clone(),
            kind,
            sent: u32::try_from(sent)
                .unwrap_or(u32::MAX)
                .saturating_mul(COPIES),
            seen: frames,
            verdict,
            weakness,
            tags: Vec::new(),
            note,
        })
    }

    /// A leak that has a name, and whether that is accepted.
    fn named(
        &self,
        verdict: Verdict,
        sender: &Station,
        listener: &Station,
        kind: Kind,
    ) -> (Verdict, Option<Weakness>) {
        match (verdict, weakness(sender, listener, kind)) {
            (Verdict::Leak, Some(name)) if self.options.accepted.contains(&name) => {
                (Verdict::Accepted, Some(name))
            }
            (Verdict::Leak, name) => (Verdict::Leak, name),
            _ => (verdict, None),
        }
    }

    fn doubt(&self, from: usize, to: usize) -> Option<String> {
        let name = |index: usize| &self.stations[index].name;
        if !self.hears[to] {
            Some(format!("{} heard nothing at all", name(to)))
        } else if !self.sends[from] {
            Some(format!("nobody heard {} at all", name(from)))
        } else {
            None
        }
    }
}

/// What it means that nothing was seen.
fn silent(doubt: &Option<String>) -> Verdict {
    match doubt {
        Some(_) => Verdict::Inconclusive,
        None => Verdict::Refused,
    }
}

fn show_tags(tags: &[Tag]) -> String {
    if tags.is_empty() {
        return "none".to_owned();
    }
    let show = |(kind, vlan): &Tag| match *kind {
        CUSTOMER => format!("{vlan}"),
        SERVICE => format!("ad:{vlan}"),
        kind => format!("{kind:#06x}:{vlan}"),
    };
    tags.iter().map(show).collect::<Vec<_>>().join("+")
}

#[derive(Deserialize)]
struct Dropped {
    port: String,
    reason: String,
    frames: u64,
}

/// Asks the control API through its one client, the switch's own command line.
fn drops(program: &Path, control: &Path) -> Result<Vec<Dropped>, HostError> {
    let said = |message: String| failed(format!("{}: {message}", control.display()));
    // The folder is the switch's: a link in the socket's place is not followed.
    let (_file, held) = hold(control).map_err(|error| said(error.to_string()))?;
    let output = Command::new(program)
        .args(["show", "drops", "--json", "--control"])
        .arg(held)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| said(format!("cannot run {}: {error}", program.display())))?;
    if !output.status.success() {
        return Err(said(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| said(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(role: Role, port: Option<&str>, vlan: Option<u16>) -> Station {
        Station {
            name: format!("{role:?} {}", port.unwrap_or_default()),
            role,
            port: port.map(str::to_owned),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"),
            vlan,
            place: Place::Interface {
                namespace: None,
                interface: "none".to_owned(),
            },
            proven: false,
            quiet: false,
        }
    }

    const KINDS: [Kind; 9] = [
        Kind::Unicast,
        Kind::Elsewhere,
        Kind::Broadcast,
        Kind::Multicast,
        Kind::Forged,
        Kind::Tagged,
        Kind::ServiceTagged,
        Kind::PriorityTagged,
        Kind::DoubleTagged,
    ];

    #[test]
    fn a_port_reaches_its_other_end_and_nothing_else() {
        let guest = station(Role::Guest, Some("a"), Some(101));
        let gateway = station(Role::Gateway, Some("a"), Some(101));
        let others = [
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("b"), Some(102)),
            station(Role::Uplink, None, None),
            station(Role::Witness, None, None),
            station(Role::Host, None, None),
        ];
        for fabric in [Fabric::Embedded, Fabric::Pair] {
            for kind in KINDS {
                for (one, counterpart) in [(&guest, &gateway), (&gateway, &guest)] {
                    let wanted = match kind {
                        Kind::Unicast | Kind::Broadcast => Rule::Must,
                        Kind::Elsewhere | Kind::Multicast => Rule::May,
                        Kind::Forged if fabric == Fabric::Embedded => Rule::MustNot,
                        Kind::Forged => Rule::May,
                        _ => Rule::MayTagged,
                    };
                    assert_eq!(rule(fabric, one, counterpart, kind), wanted, "{kind}");
                    for other in &others {
                        assert_eq!(rule(fabric, one, other, kind), Rule::MustNot, "{kind}");
                    }
                }
                for inside in [&guest, &gateway] {
                    let uplink = &others[2];
                    assert_eq!(rule(fabric, uplink, inside, kind), Rule::MustNot, "{kind}");
                }
            }
        }
    }

    #[test]
    fn no_name_excuses_a_way_around_a_switch() {
        let guest = station(Role::Guest, Some("a"), Some(101));
        let others = [
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("b"), Some(102)),
            station(Role::Uplink, None, None),
            station(Role::Host, None, None),
        ];
        for other in &others {
            for kind in KINDS {
                assert_eq!(weakness(&guest, other, kind), None, "{kind}");
            }
        }
        let uplink = &others[2];
        for kind in [
            Kind::Unicast,
            Kind::Broadcast,
            Kind::Forged,
            Kind::PriorityTagged,
        ] {
            assert_eq!(weakness(uplink, &guest, kind), None, "{kind}");
        }
    }

    #[test]
    fn a_report_is_read_by_people_and_programs() {
        let stations = [
            station(Role::Guest, Some("a"), Some(101)),
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("c"), Some(104)),
            station(Role::Wire, None, None),
        ];
        let row = |to: &str, kind, seen, verdict| Row {
            from: "Guest a".to_owned(),
            to: to.to_owned(),
            kind,
            sent: 8,
            seen,
            verdict,
            weakness: None,
            tags: Vec::new(),
            note: None,
        };
        let rows = vec![
            row("Guest b", Kind::Unicast, 8, Verdict::Leak),
            row("Guest b", Kind::Broadcast, 2, Verdict::Leak),
            row("Wire ", Kind::Broadcast, 8, Verdict::Finding),
        ];
        let report = Report::new(&stations, rows, Duration::from_millis(1200));
        assert!(!report.is_good());
        assert_eq!(
            report.sentences(),
            ["LEAK: Guest b must not get frames of Guest a: 8 of 8 unicast, 2 of 8 broadcast"]
        );
        let text = report.to_string();
        for wanted in [
            "Guest a Guest b      !8/8      !2/8\n",
            "must not carry VLAN 101-102, 104:",
            "frames of these reached the wire: Guest a\n",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let json = serde_json::to_string(&report).expect("JSON");
        let again: Report = serde_json::from_str(&json).expect("a report");
        assert_eq!(again, report);
    }
}
