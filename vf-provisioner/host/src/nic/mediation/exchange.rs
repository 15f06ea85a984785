//! Sends the frames of a probe and counts who received which.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use packet::addr::BROADCAST_MAC;
use packet::number::ethertype::{SERVICE_VLAN, VLAN};
use vswitch_api::endpoint::drops::Drop;

use super::frame::{Shape, Token};
use super::rule::{Rule, rule};
use super::station::{Kind, Options, Place, Role, Station, failed};
use crate::error::HostError;
use crate::launcher::ask::{Answer, AskError, Asker, Question};
use crate::nic::parts::netns;
use crate::nic::parts::packet_socket::PacketSocket;
use crate::nic::parts::tag::Tag;

const GROUPS: [[u8; 6]; 3] = [
    [0x03, 0, 0, 0, 0x88, 0xb5],
    // 239.255.136.181 and ff05::1:88b5.
    [0x01, 0x00, 0x5e, 0x7f, 0x88, 0xb5],
    [0x33, 0x33, 0, 0x01, 0x88, 0xb5],
];
/// Locally administered, so no device has it.
const NOBODY: [u8; 6] = [0x06, 0x88, 0xb5, 0x88, 0xb5, 0x01];
/// How many times each frame is sent.
pub(super) const COPIES: u32 = 2;
/// The number of frames after which the listeners are read.
const BURST: usize = 16;
/// The frames read from one listener before the next one is read.
const READS: usize = 256;
/// How long a switch may take to say what it dropped.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two rounds of [`Exchange::prove`].
const ROUND: Duration = Duration::from_millis(100);
/// How long the other listeners have to receive a first frame, once all frames that must pass did.
const LATE: Duration = Duration::from_millis(700);

/// The description of a frame.
#[derive(Debug, Clone)]
pub(super) struct FrameSpec {
    pub(super) from: usize,
    /// `None` for frames that only show that stations send and receive.
    pub(super) kind: Option<Kind>,
    pub(super) destination: [u8; 6],
    source: [u8; 6],
    tags: Vec<Tag>,
    shape: Shape,
}

/// The copies of one frame that one listener received.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) frames: u32,
    pub(super) untagged: u32,
    pub(super) tags: BTreeSet<Vec<Tag>>,
}

/// Whether a station can listen now.
pub(super) fn can_listen(station: &Station) -> bool {
    match &station.place {
        Place::Interface { .. } => open(station).is_ok(),
        Place::Switch {
            program,
            control,
            uid,
            ..
        } => drops(program.as_deref(), control, *uid).is_ok(),
    }
}

fn open(station: &Station) -> Result<Option<PacketSocket>, HostError> {
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
    // A promiscuous PF would join every VLAN; the probe counts what it receives without that.
    let promiscuous = station.role != Role::Host;
    let socket = netns::inside(namespace.as_deref(), || {
        PacketSocket::open(interface, promiscuous, &GROUPS).map_err(HostError::io(format!(
            "cannot listen on {place} ({})",
            station.name
        )))
    })?;
    if !socket.is_up() {
        return Err(failed(format!(
            "{place} ({}) is down: set it up before the probe",
            station.name
        )));
    }
    Ok(Some(socket))
}

/// The stations of one probe, and the frames sent and received so far.
pub(super) struct Exchange<'a> {
    pub(super) stations: &'a [Station],
    pub(super) options: &'a Options,
    token: Token,
    pub(super) sockets: Vec<Option<PacketSocket>>,
    /// A frame's number is its index here.
    pub(super) specs: Vec<FrameSpec>,
    pub(super) received: BTreeMap<(usize, usize), Received>,
    pub(super) sends: Vec<bool>,
    pub(super) receives: Vec<bool>,
    pub(super) counted: Vec<Counted>,
    /// Switches that also count while nothing is sent.
    pub(super) noisy: BTreeSet<usize>,
}

/// What the drop counters of a switch counted of one sender's frames.
pub(super) struct Counted {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) frames: u64,
}

impl<'a> Exchange<'a> {
    /// All stations listen from now on.
    pub(super) fn new(stations: &'a [Station], options: &'a Options) -> Result<Self, HostError> {
        let token = Token::random().map_err(HostError::io("cannot read /dev/urandom"))?;
        Ok(Self {
            stations,
            options,
            token,
            sockets: stations.iter().map(open).collect::<Result<_, _>>()?,
            specs: Vec::new(),
            received: BTreeMap::new(),
            sends: stations.iter().map(|it| it.proven).collect(),
            receives: stations.iter().map(|it| it.proven).collect(),
            counted: Vec::new(),
            noisy: BTreeSet::new(),
        })
    }

    pub(super) fn indices(&self) -> std::ops::Range<usize> {
        0..self.stations.len()
    }

    pub(super) fn octets(&self, station: usize) -> [u8; 6] {
        self.stations[station].mac.octets()
    }

    fn is_silent(&self, station: usize) -> bool {
        self.sockets[station].is_none() || self.stations[station].quiet
    }

    /// Sends frames that must pass, and frames that show that a station receives, until all
    /// arrived.
    pub(super) fn prove(&mut self) -> Result<(), HostError> {
        let mut needed = Vec::new();
        for from in self.indices() {
            if self.is_silent(from) {
                continue;
            }
            let station = &self.stations[from];
            let mut add = |destination, tags: Vec<Tag>| {
                self.specs.push(FrameSpec {
                    from,
                    kind: None,
                    destination,
                    source: station.mac.octets(),
                    tags,
                    shape: Shape::Plain,
                });
                self.specs.len() - 1
            };
            add(BROADCAST_MAC, Vec::new());
            // The host's own interface is on no VLAN, so it can reach each VLAN with a tag.
            if matches!(station.role, Role::Host | Role::Wire) {
                let vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
                for vlan in vlans {
                    add(BROADCAST_MAC, vec![(VLAN, vlan)]);
                }
            }
            for (to, other) in self.stations.iter().enumerate() {
                let must = rule(self.options.fabric, station, other, Kind::Unicast) == Rule::Must;
                if must {
                    let number = add(other.mac.octets(), Vec::new());
                    if self.sockets[to].is_some() {
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
            if needed.iter().all(|key| self.received.contains_key(key)) {
                let since = *enough.get_or_insert_with(Instant::now);
                let shown = |list: &[bool]| {
                    self.sockets
                        .iter()
                        .zip(list)
                        .all(|(socket, it)| socket.is_none() || *it)
                };
                if shown(&self.sends) && shown(&self.receives) || since.elapsed() > LATE {
                    break;
                }
            }
        }
        self.prove_counters()
    }

    /// A switch's In/Out side receives if it counts the host's broadcasts.
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
                    self.receives[*to] = true;
                    self.sends[from] = true;
                }
            }
            before = after;
        }
        Ok(())
    }

    pub(super) fn attack(&mut self) -> Result<(), HostError> {
        let counting = self.sockets.iter().any(Option::is_none);
        let mut slowest = Duration::ZERO;
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
                slowest = slowest.max(started.elapsed());
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
            // What the switches count while nothing is sent, for as long as the slowest sender
            // took.
            self.listen(slowest.saturating_sub(self.options.settle))?;
            for (to, frames) in self.counters()? {
                if before.get(&to) != Some(&frames) {
                    self.noisy.insert(to);
                }
            }
        }
        Ok(())
    }

    /// Everything that the owner of the function could send.
    fn everything(&self, from: usize) -> Vec<FrameSpec> {
        let own = self.octets(from);
        let others: Vec<usize> = self.indices().filter(|it| *it != from).collect();
        let mut specs = Vec::new();
        let mut add = |kind, destination, source, tags: &[Tag], shape| {
            specs.push(FrameSpec {
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
            add(Kind::Broadcast, BROADCAST_MAC, own, &[], shape);
            for group in GROUPS {
                add(Kind::Multicast, group, own, &[], shape);
            }
            add(Kind::Forged, BROADCAST_MAC, NOBODY, &[], shape);
        }
        for to in &others {
            let to = self.octets(*to);
            add(Kind::Forged, to, NOBODY, &[], Shape::Plain);
            // From that station's MAC, to all stations, including itself.
            add(Kind::Forged, BROADCAST_MAC, to, &[], Shape::Arp);
            add(Kind::Forged, to, to, &[], Shape::Plain);
            for counterpart in others.iter().filter(|it| self.are_counterparts(from, **it)) {
                let counterpart = self.octets(*counterpart);
                add(Kind::Forged, counterpart, to, &[], Shape::Ipv4);
            }
            add(Kind::PriorityTagged, to, own, &[(VLAN, 0)], Shape::Plain);
        }
        add(
            Kind::PriorityTagged,
            BROADCAST_MAC,
            own,
            &[(VLAN, 0)],
            Shape::Arp,
        );
        let mut vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
        let unused = (1..=4094).rev().find(|vlan| !vlans.contains(vlan));
        vlans.extend(unused);
        for vlan in vlans {
            let outer = self.stations[from].vlan.unwrap_or(vlan);
            let ways: [(Kind, &[Tag]); 4] = [
                (Kind::Tagged, &[(VLAN, vlan)]),
                (Kind::ServiceTagged, &[(SERVICE_VLAN, vlan)]),
                (Kind::DoubleTagged, &[(VLAN, outer), (VLAN, vlan)]),
                (Kind::DoubleTagged, &[(SERVICE_VLAN, outer), (VLAN, vlan)]),
            ];
            for (kind, tags) in ways {
                add(kind, BROADCAST_MAC, own, tags, Shape::Plain);
                for to in &others {
                    if self.stations[*to].vlan == Some(vlan) {
                        add(kind, self.octets(*to), own, tags, Shape::Ipv4);
                    }
                }
            }
        }
        specs
    }

    pub(super) fn are_counterparts(&self, one: usize, other: usize) -> bool {
        let port = &self.stations[one].port;
        port.is_some() && *port == self.stations[other].port
    }

    /// Frames that the adjacent switch could let through.
    fn injections(&self, from: usize) -> Vec<FrameSpec> {
        let mut specs = Vec::new();
        let mut add = |kind, destination, tags| {
            specs.push(FrameSpec {
                from,
                kind: Some(kind),
                destination,
                source: self.octets(from),
                tags,
                shape: Shape::Plain,
            });
        };
        add(Kind::Broadcast, BROADCAST_MAC, Vec::new());
        for station in self.stations {
            let mac = station.mac.octets();
            if !matches!(station.role, Role::Guest | Role::Gateway) {
                continue;
            }
            add(Kind::Unicast, mac, Vec::new());
            if let Some(vlan) = station.vlan {
                add(Kind::Tagged, mac, vec![(VLAN, vlan)]);
            }
        }
        let vlans: BTreeSet<u16> = self.stations.iter().filter_map(|it| it.vlan).collect();
        for vlan in vlans {
            add(Kind::Tagged, BROADCAST_MAC, vec![(VLAN, vlan)]);
        }
        specs
    }

    fn send(&mut self, numbers: &[usize], copies: u32) -> Result<(), HostError> {
        for burst in numbers.chunks(BURST) {
            for number in burst {
                let spec = &self.specs[*number];
                let Some(socket) = &self.sockets[spec.from] else {
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
                    socket.send(&frame).map_err(HostError::io(format!(
                        "cannot send from {}",
                        self.stations[spec.from].name
                    )))?;
                }
            }
            self.receive()?;
        }
        Ok(())
    }

    /// Listens for this long.
    fn listen(&mut self, time: Duration) -> Result<(), HostError> {
        let until = Instant::now() + time;
        loop {
            self.receive()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let sockets = self.sockets.iter().flatten();
            let mut ready: Vec<PollFd<'_>> = sockets
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                .collect();
            let wait = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut ready, wait) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(HostError::sys("cannot wait for frames")(errno)),
            }
        }
    }

    /// Reads the received frames, a bounded number from each listener.
    fn receive(&mut self) -> Result<(), HostError> {
        for (to, socket) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = socket else {
                continue;
            };
            for _ in 0..READS {
                let frame = socket.receive().map_err(HostError::io(format!(
                    "cannot listen at {}",
                    self.stations[to].name
                )))?;
                let Some(frame) = frame else {
                    break;
                };
                let number = self.token.number(frame.bytes).map(|number| number as usize);
                let spec = number.and_then(|number| Some((number, self.specs.get(number)?)));
                // Some NICs return a broadcast to its sender.
                let own = match spec {
                    Some((_, spec)) => spec.from == to,
                    None => frame.bytes.get(6..12) == Some(&self.stations[to].mac.octets()[..]),
                };
                if own {
                    continue;
                }
                // Any frame shows that the station receives.
                self.receives[to] = true;
                let Some((number, spec)) = spec else {
                    continue;
                };
                self.sends[spec.from] = true;
                let received = self.received.entry((number, to)).or_default();
                received.frames = received.frames.saturating_add(1);
                if frame.tags.is_empty() {
                    received.untagged += 1;
                }
                if received.tags.len() < 4 {
                    received.tags.insert(frame.tags);
                }
            }
        }
        Ok(())
    }

    /// The drops that each switch counted so far and that only a foreign frame can cause.
    fn counters(&self) -> Result<BTreeMap<usize, u64>, HostError> {
        let mut drops_of: BTreeMap<&PathBuf, Vec<Drop>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (index, station) in self.stations.iter().enumerate() {
            let Place::Switch {
                program,
                control,
                uid,
                port,
            } = &station.place
            else {
                continue;
            };
            if !drops_of.contains_key(control) {
                // A switch that only listens may have ended meanwhile.
                match drops(program.as_deref(), control, *uid) {
                    Ok(drops) => drops_of.insert(control, drops),
                    Err(_) if station.quiet => drops_of.insert(control, Vec::new()),
                    Err(error) => return Err(error),
                };
            }
            // A port knows its guest's MAC. The In/Out side knows no senders, but only the probe
            // uses an experimental EtherType.
            let reason = match station.role {
                Role::Uplink => "ethertype",
                _ => "src-mac",
            };
            let frames = drops_of[control]
                .iter()
                .filter(|it| it.port == *port && it.reason == reason)
                .map(|it| it.frames)
                .fold(0, u64::saturating_add);
            found.insert(index, frames);
        }
        Ok(found)
    }
}

/// Asks the control API for the frames that a switch dropped.
fn drops(program: Option<&Path>, control: &Path, uid: u32) -> Result<Vec<Drop>, HostError> {
    let asker = Asker {
        program,
        socket: control,
        uid,
        within: ANSWERS_WITHIN,
    };
    let cannot = |error: AskError| failed(format!("{}: {error}", control.display()));
    match asker.ask(&Question::Drops) {
        Ok(Answer::Drops(drops)) => Ok(drops.into_vec()),
        Ok(_) => Err(cannot(AskError::mixed_up())),
        Err(error) => Err(cannot(error)),
    }
}
