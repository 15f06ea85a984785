//! The supervisor's end of the channel to a switch: it remembers the leases and the DHCP clients
//! that the switch reports, and gives them to the tenant's next switch.
//!
//! A switch is not trusted. What it may send is bounded by [`vswitch_api::channel`]; how much of it
//! is read at a time, here; and of what it reports only the leases of ports that learn, and the
//! clients of ports that exist, are kept.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use tenant_config::{Addresses, Name, SwitchConfig, UPLINK_NAME};
use vswitch_api::channel::{
    Channel, Clients, HOLDERS_MAX, Holder, Lease, OLDEST, Order, PortClients, ReceiveError, Report,
    Totals, VERSION, WITH_CLAIMS, WITH_CLIENTS, WITH_HOLDERS, in_messages,
};

use super::events::{Event, emit};
use super::supervisor::Supervisor;
use crate::error::HostError;
use crate::files::pin_socket;
use crate::launcher::log::LogHolder;
use crate::launcher::switch::Switch;
use crate::state::State;

/// The pause between two connections: a switch that closes each at once is not to keep the
/// supervisor busy.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// The pause after a switch has broken the rules of the channel.
const RETRY_AFTER_ERROR: Duration = Duration::from_secs(30);
/// Messages that are read at a time.
const MESSAGES_AT_ONCE: usize = 4;

/// Why the channel to a switch was closed.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("user {0} listens on the channel, which belongs to user {1}")]
    Foreign(u32, u32),
    #[error("it speaks version {0} of the channel, and this supervisor version {VERSION}")]
    Version(u32),
    #[error("it reports on {0} ports or addresses, and may on {1}")]
    TooMany(usize, usize),
    #[error("it reports before it says hello")]
    Order,
    #[error("it reports more DHCP clients of a port than there can be")]
    Clients,
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("cannot be written to: {0}")]
    Socket(#[from] io::Error),
}

/// The channels by tenant.
pub(super) type Channels = BTreeMap<Name, SwitchChannel>;

/// The channel to one tenant's switch, and what is remembered of that tenant.
#[derive(Debug, Default)]
pub(super) struct SwitchChannel {
    channel: Option<Channel>,
    greeted: bool,
    /// What the switch has written, until it is moved to the log.
    log: Option<LogHolder>,
    /// When to connect again, at the earliest.
    next_try: Option<Instant>,
    /// By port: its MAC and address, and when the lease ends.
    leases: BTreeMap<String, ([u8; 6], Ipv4Addr, Instant)>,
    /// By port: its DHCP clients, and when they were reported.
    clients: BTreeMap<String, (PortClients, Instant)>,
    /// Who holds shared addresses.
    holders: Vec<Holder>,
    /// The switch that reported them is gone, and its successor has not confirmed them yet.
    orphaned: bool,
    /// What the connected switch, or the one before it, reported last; by port.
    counters: BTreeMap<String, Totals>,
}

/// Gives tenants that were renamed what was heard of them before.
pub(super) fn rename(channels: &mut Channels, state: &State) {
    for (name, record) in &state.tenants {
        let formerly = record.formerly.as_ref();
        let formerly = formerly.filter(|old| !state.tenants.contains_key(*old));
        let old = formerly.filter(|_| !channels.contains_key(name));
        if let Some(channel) = old.and_then(|old| channels.remove(old)) {
            let renamed = SwitchChannel {
                // It is in another directory.
                log: None,
                ..channel
            };
            channels.insert(name.clone(), renamed);
        }
    }
}

impl Supervisor<'_> {
    /// Reads what a switch reports, and gives it the leases of the switch before it.
    pub(super) fn advance(&self, switch: &Switch, channel: &mut SwitchChannel) {
        let Some(socket) = self.switches.channel_socket(switch) else {
            return;
        };
        let leases = channel.advance(&switch.config, switch.uid, &socket, Instant::now());
        if leases > 0 {
            let tenant = &switch.tenant;
            emit(&Event::LeasesRestored { tenant, leases });
        }
    }

    /// Moves what the switch has written to its log.
    pub(super) fn collect_log(
        &self,
        switch: &Switch,
        channel: &mut SwitchChannel,
    ) -> Result<(), HostError> {
        let tenant = &switch.tenant;
        self.switches.hold_log(tenant, &mut channel.log)?;
        self.switches.collect_log(tenant)
    }
}

impl SwitchChannel {
    /// Connects if necessary, and handles what the switch has sent. `socket` is where it listens,
    /// which it may not do yet. Returns how many leases it has been given back.
    fn advance(&mut self, config: &SwitchConfig, uid: u32, socket: &Path, now: Instant) -> usize {
        let mut outcome = self.try_advance(config, uid, socket, now);
        if matches!(&outcome, Err(ChannelError::Receive(ReceiveError::Closed))) {
            // A switch closes the channel only by its end, and its successor may listen already.
            self.orphaned = true;
            outcome = self.try_advance(config, uid, socket, now);
        }
        match outcome {
            Ok(restored) => return restored,
            Err(ChannelError::Receive(ReceiveError::Closed)) => {}
            Err(ChannelError::Socket(error)) if is_absence(&error) => {}
            Err(error) => {
                let tenant = &config.tenant;
                tracing::warn!(%tenant, "the channel to its switch is closed: {error}");
                self.next_try = Some(now + RETRY_AFTER_ERROR);
            }
        }
        0
    }

    /// What to wait on for the switch's hello, so that it is answered at once. Whatever it sends
    /// later can wait until the next look, so that it cannot keep the supervisor busy.
    pub(super) fn hello(&self) -> Option<BorrowedFd<'_>> {
        let channel = self.channel.as_ref().filter(|_| !self.greeted);
        channel.map(AsFd::as_fd)
    }

    fn try_advance(
        &mut self,
        config: &SwitchConfig,
        uid: u32,
        socket: &Path,
        now: Instant,
    ) -> Result<usize, ChannelError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None if self.next_try.is_some_and(|next| now < next) => return Ok(0),
            None => {
                let (_pinned, path) = pin_socket(socket)?;
                let channel = Channel::connect(&path)?;
                self.greeted = false;
                self.counters.clear();
                self.next_try = Some(now + RECONNECT_AFTER);
                match channel.peer_uid()? {
                    peer if peer == uid => channel,
                    peer => return Err(ChannelError::Foreign(peer, uid)),
                }
            }
        };
        let mut restored = 0;
        for _ in 0..MESSAGES_AT_ONCE {
            match channel.receive() {
                Ok(Report::Hello { version }) if (OLDEST..=VERSION).contains(&version) => {
                    let leases = self.orphans(now);
                    restored = leases.len();
                    let mut clients = self.orphaned_clients(config, now);
                    if version < WITH_CLAIMS {
                        clients.iter_mut().for_each(|port| port.claimed.clear());
                    }
                    clients.retain(|port| version >= WITH_CLIENTS && !port.is_empty());
                    let mut clients = in_messages(clients).into_iter();
                    if let Some(ports) = clients.next() {
                        channel.send(&Order::Clients { ports })?;
                    }
                    if clients.next().is_some() {
                        let tenant = &config.tenant;
                        tracing::warn!(%tenant, "some of its DHCP clients are not restored");
                    }
                    let holders = self.orphaned_holders(config);
                    if version >= WITH_HOLDERS && !holders.is_empty() {
                        channel.send(&Order::Holders { holders })?;
                    }
                    channel.send(&Order::Restore { leases })?;
                    self.greeted = true;
                }
                Ok(Report::Hello { version }) => return Err(ChannelError::Version(version)),
                Ok(_) if !self.greeted => return Err(ChannelError::Order),
                Ok(Report::Leases { leases }) => self.remember(config, leases, now)?,
                Ok(Report::Clients { ports }) => self.remember_clients(config, ports, now)?,
                Ok(Report::Holders { holders }) => self.remember_holders(config, holders)?,
                Ok(Report::Counters { ports }) => self.count(config, ports)?,
                Err(ReceiveError::Empty) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.channel = Some(channel);
        Ok(restored)
    }

    /// What the switch had counted, now that it is dead; by port, empty if that is unknown.
    pub(super) fn last_counters(&mut self) -> BTreeMap<String, Totals> {
        std::mem::take(&mut self.counters)
    }

    /// Keeps the counters of ports that the switch has. A report may have crossed a change of the
    /// configuration, so another port is no error.
    fn count(
        &mut self,
        config: &SwitchConfig,
        mut ports: BTreeMap<String, Totals>,
    ) -> Result<(), ChannelError> {
        let most = config.ports.len() + 1;
        if ports.len() > most {
            return Err(ChannelError::TooMany(ports.len(), most));
        }
        ports.retain(|name, _| {
            let is_uplink = config.uplink.is_some() && name == UPLINK_NAME;
            is_uplink || config.ports.iter().any(|port| port.name.as_str() == name)
        });
        self.counters = ports;
        Ok(())
    }

    /// The leases of a switch that has ended, as long as they last.
    fn orphans(&self, now: Instant) -> Vec<Lease> {
        let leases = self.leases.iter().filter(|_| self.orphaned);
        leases
            .filter_map(|(port, (mac, address, ends))| {
                let left = ends.checked_duration_since(now)?.as_secs();
                let seconds_left = u32::try_from(left).ok().filter(|left| *left > 0)?;
                Some(Lease {
                    port: port.clone(),
                    mac: *mac,
                    address: *address,
                    seconds_left,
                })
            })
            .collect()
    }

    /// The DHCP clients of a switch that has ended, as long as they last, of ports that are still
    /// there.
    fn orphaned_clients(&self, config: &SwitchConfig, now: Instant) -> Vec<PortClients> {
        let clients = self.clients.iter().filter(|_| self.orphaned);
        let has = |name: &str| config.ports.iter().any(|port| port.name.as_str() == name);
        let clients = clients.filter(|(port, _)| has(port));
        let left = clients.map(|(_, (known, at))| {
            let passed = now.saturating_duration_since(*at).as_secs();
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            PortClients {
                dhcp: aged(&known.dhcp, passed),
                dhcp6: aged(&known.dhcp6, passed),
                ..known.clone()
            }
        });
        left.filter(|it| !it.is_empty()).collect()
    }

    /// Remembers the DHCP clients of the switch's ports.
    fn remember_clients(
        &mut self,
        config: &SwitchConfig,
        ports: Vec<PortClients>,
        now: Instant,
    ) -> Result<(), ChannelError> {
        if ports.len() > config.ports.len() {
            return Err(ChannelError::TooMany(ports.len(), config.ports.len()));
        }
        let has = |name: &str| config.ports.iter().any(|port| port.name.as_str() == name);
        for port in ports {
            if !port.is_bounded() {
                return Err(ChannelError::Clients);
            }
            if has(&port.port) {
                self.clients.insert(port.port.clone(), (port, now));
            }
        }
        // Of former ports nothing is kept.
        self.clients.retain(|name, _| has(name));
        Ok(())
    }

    /// Who held shared addresses at a switch that has ended, of ports that still list them.
    fn orphaned_holders(&self, config: &SwitchConfig) -> Vec<Holder> {
        let holders = self.holders.iter().filter(|_| self.orphaned);
        let listed = holders.filter(|holder| lists(config, holder));
        listed.cloned().collect()
    }

    /// Remembers who holds shared addresses. A report may have crossed a change of the
    /// configuration, so a port that does not list one is no error.
    fn remember_holders(
        &mut self,
        config: &SwitchConfig,
        mut holders: Vec<Holder>,
    ) -> Result<(), ChannelError> {
        if holders.len() > HOLDERS_MAX {
            return Err(ChannelError::TooMany(holders.len(), HOLDERS_MAX));
        }
        holders.retain(|holder| lists(config, holder));
        self.holders = holders;
        Ok(())
    }

    /// Remembers the leases of ports that learn. A report may have crossed a change of the
    /// configuration, so a port that does not learn is no error.
    fn remember(
        &mut self,
        config: &SwitchConfig,
        leases: Vec<Lease>,
        now: Instant,
    ) -> Result<(), ChannelError> {
        if leases.len() > config.ports.len() {
            return Err(ChannelError::TooMany(leases.len(), config.ports.len()));
        }
        let learns = |name: &str| {
            config.ports.iter().any(|port| {
                port.name.as_str() == name && matches!(port.addresses, Addresses::Learned(_))
            })
        };
        let known = leases.into_iter().filter_map(|lease| {
            let ends = now.checked_add(Duration::from_secs(lease.seconds_left.into()))?;
            learns(&lease.port).then_some((lease.port, (lease.mac, lease.address, ends)))
        });
        self.leases = known.collect();
        self.orphaned = false;
        Ok(())
    }
}

/// Whether the holder's port may hold the address.
fn lists(config: &SwitchConfig, holder: &Holder) -> bool {
    let mut ports = config.ports.iter();
    let port = ports.find(|port| port.name.as_str() == holder.port);
    port.is_some_and(|port| port.shared.contains(&holder.address))
}

/// What is left of a port's clients after so many seconds.
fn aged(clients: &Clients, passed: u32) -> Clients {
    let left = |seconds: u32| seconds.saturating_sub(passed);
    let mut aged = clients.clone();
    for it in &mut aged.identifiers {
        (it.owned, it.counted) = (left(it.owned), left(it.counted));
    }
    aged.identifiers.retain(|it| it.counted > 0);
    aged.declined = aged
        .declined
        .into_iter()
        .map(left)
        .filter(|it| *it > 0)
        .collect();
    aged
}

/// Whether a switch simply does not listen: it starts, ends, or offers no channel.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use tenant_config::Tenant;
    use vswitch_api::channel::{self, Hex, IDENTIFIER_MAX, Identifier};

    use super::*;
    use crate::state::Record;

    const TENANT: &str = r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
[[port]]
name = "vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
dhcp_server = true
[[port]]
name = "vm2"
mac = "52:54:00:aa:00:02"
addresses = "learn-dhcp"
shared = ["10.0.0.100", "10.0.0.101"]
"#;

    /// A supervisor, and the socket of a switch whose part the test plays.
    struct Bed {
        config: SwitchConfig,
        uid: u32,
        now: Instant,
        supervisor: SwitchChannel,
        directory: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            Self {
                config: Tenant::parse("red.toml", TENANT)
                    .expect("a tenant")
                    .offline_config(),
                uid: nix::unistd::geteuid().as_raw(),
                now: Instant::now(),
                supervisor: SwitchChannel::default(),
                directory: tempfile::tempdir().expect("a directory"),
            }
        }

        fn listen(&self) -> UnixListener {
            let path = self.directory.path().join("channel.sock");
            let _ = std::fs::remove_file(&path);
            channel::listener(&path).expect("a listener")
        }

        fn advance(&mut self) -> usize {
            let socket = self.directory.path().join("channel.sock");
            let Self {
                supervisor,
                config,
                uid,
                now,
                ..
            } = self;
            supervisor.advance(config, *uid, &socket, *now)
        }

        /// A new switch, up to the order that the supervisor sends.
        fn connect(&mut self) -> (Channel, Vec<Lease>) {
            let listener = self.listen();
            self.now += RETRY_AFTER_ERROR;
            self.advance();
            let switch = accept(&listener).expect("a connection");
            send(&switch, &Report::Hello { version: VERSION });
            assert!(self.supervisor.hello().is_some());
            let restored = self.advance();
            assert!(self.supervisor.hello().is_none());
            let (_, _, leases) = orders(&switch);
            assert_eq!(restored, leases.len());
            (switch, leases)
        }

        /// The clients and the holders that a new switch of that version is given.
        fn given(&mut self, version: u32) -> (Channel, Vec<PortClients>, Vec<Holder>) {
            let listener = self.listen();
            self.now += RETRY_AFTER_ERROR;
            self.advance();
            let switch = accept(&listener).expect("a connection");
            send(&switch, &Report::Hello { version });
            self.advance();
            let (clients, holders, _) = orders(&switch);
            (switch, clients, holders)
        }
    }

    /// What the supervisor gives to a switch.
    fn orders(switch: &Channel) -> (Vec<PortClients>, Vec<Holder>, Vec<Lease>) {
        let (mut clients, mut former) = (None, None);
        loop {
            match switch.receive().expect("an order") {
                Order::Clients { ports } => assert_eq!(clients.replace(ports), None),
                Order::Holders { holders } => assert_eq!(former.replace(holders), None),
                Order::Restore { leases } => {
                    return (
                        clients.unwrap_or_default(),
                        former.unwrap_or_default(),
                        leases,
                    );
                }
            }
        }
    }

    fn holder(address: [u8; 4], port: &str) -> Holder {
        Holder {
            address: address.into(),
            port: port.to_owned(),
            mac: [2; 6],
        }
    }

    /// A port with clients of DHCP, for so many seconds.
    fn clients(port: &str, count: usize, seconds: u32) -> PortClients {
        let identifier = |number: usize| Identifier {
            value: Hex(vec![number as u8; IDENTIFIER_MAX]),
            owned: seconds / 2,
            counted: seconds,
            ..Identifier::default()
        };
        PortClients {
            port: port.to_owned(),
            mac: [2; 6],
            dhcp: Clients {
                identifiers: (0..count).map(identifier).collect(),
                declined: vec![seconds],
            },
            dhcp6: Clients::default(),
            claimed: vec!["fe80::7".parse().expect("an address"); 2],
        }
    }

    #[test]
    fn successor_is_given_clients_that_still_last() {
        let mut bed = Bed::new();
        let (switch, given, _) = bed.given(VERSION);
        assert_eq!(given, []);
        let ports = vec![clients("vm1", 4, 1000), clients("vm2", 1, 40)];
        send(&switch, &Report::Clients { ports });
        // A port that is no port of the tenant, and a later report of one that is.
        let ports = vec![clients("vm9", 1, 1000)];
        send(&switch, &Report::Clients { ports });
        let ports = vec![clients("vm1", 2, 1000)];
        send(&switch, &Report::Clients { ports });
        bed.advance();
        assert!(!is_closed(&switch));
        drop(switch);
        let waited = RETRY_AFTER_ERROR.as_secs() as u32;
        let mut vm1 = clients("vm1", 2, 1000 - waited);
        for it in &mut vm1.dhcp.identifiers {
            it.owned = 500 - waited;
        }
        // Its ownership has ended, and it counts on.
        let mut vm2 = clients("vm2", 1, 40 - waited);
        vm2.dhcp.identifiers[0].owned = 0;
        let (switch, given, _) = bed.given(VERSION);
        assert_eq!(given, [vm1.clone(), vm2]);
        drop(switch);

        // An older one knows none; the next is given what still lasts.
        let (switch, given, _) = bed.given(OLDEST);
        assert_eq!(given, []);
        drop(switch);
        // Version 3 knows no claimed addresses, which last on.
        for (version, ports) in [(WITH_CLIENTS, &["vm1"][..]), (VERSION, &["vm1", "vm2"])] {
            let (switch, given, _) = bed.given(version);
            let names: Vec<&str> = given.iter().map(|it| it.port.as_str()).collect();
            assert_eq!(names, ports);
            let is_known = |it: &PortClients| it.claimed.is_empty() != (version == VERSION);
            assert!(given.iter().all(is_known));
            drop(switch);
        }
    }

    #[test]
    fn successor_is_given_holders_that_ports_still_list() {
        let mut bed = Bed::new();
        let (switch, _, given) = bed.given(VERSION);
        assert_eq!(given, []);
        let (kept, dropped) = (
            holder([10, 0, 0, 100], "vm2"),
            holder([10, 0, 0, 101], "vm2"),
        );
        let holders = vec![
            kept.clone(),
            dropped,
            holder([10, 0, 0, 102], "vm2"),
            holder([10, 0, 0, 100], "vm9"),
        ];
        send(&switch, &leases(&[]));
        send(&switch, &Report::Holders { holders });
        bed.advance();
        assert!(!is_closed(&switch));
        drop(switch);
        bed.config.ports[1].shared.pop();
        let (switch, _, given) = bed.given(VERSION);
        assert_eq!(given, std::slice::from_ref(&kept), "no other is listed");
        drop(switch);
        // An older one knows none.
        let (switch, _, given) = bed.given(WITH_CLIENTS);
        assert_eq!(given, []);
        drop(switch);
        assert_eq!(bed.given(VERSION).2, [kept]);
    }

    #[test]
    fn switch_that_reports_too_many_holders_is_left_alone() {
        let mut bed = Bed::new();
        let (switch, _) = bed.connect();
        let holders = vec![holder([10, 0, 0, 100], "vm2"); HOLDERS_MAX + 1];
        send(&switch, &Report::Holders { holders });
        bed.advance();
        assert!(is_closed(&switch));
    }

    #[test]
    fn switch_that_reports_impossible_clients_is_left_alone() {
        let long = |port: &str| {
            let mut clients = clients(port, 1, 1000);
            clients.dhcp.identifiers[0].value.0.push(0);
            clients
        };
        for ports in [
            vec![clients("vm1", 5, 1000)],
            vec![PortClients {
                claimed: vec![[0xfe80, 0, 0, 0, 0, 0, 0, 7].into(); 13],
                ..clients("vm1", 1, 1000)
            }],
            vec![long("vm1")],
            vec![clients("vm1", 1, 1000); 3],
        ] {
            let mut bed = Bed::new();
            let (switch, _) = bed.connect();
            send(&switch, &Report::Clients { ports });
            bed.advance();
            assert!(is_closed(&switch));
        }
    }

    fn accept(listener: &UnixListener) -> io::Result<Channel> {
        let (connection, _) = listener.accept()?;
        Ok(Channel::from(OwnedFd::from(connection)))
    }

    fn send(switch: &Channel, report: &Report) {
        switch.send(report).expect("it is sent");
    }

    fn lease(port: &str, seconds_left: u32) -> Lease {
        Lease {
            port: port.to_owned(),
            mac: [0x52, 0x54, 0, 0xaa, 0, 2],
            address: Ipv4Addr::new(10, 0, 0, 50),
            seconds_left,
        }
    }

    fn leases(leases: &[Lease]) -> Report {
        Report::Leases {
            leases: leases.to_vec(),
        }
    }

    /// A report in which each port has received one frame.
    fn counters(ports: &[&str]) -> Report {
        let one = Totals {
            rx_frames: 1,
            ..Totals::default()
        };
        Report::Counters {
            ports: ports.iter().map(|port| ((*port).to_owned(), one)).collect(),
        }
    }

    /// Whether the supervisor has closed the channel.
    fn is_closed(switch: &Channel) -> bool {
        matches!(switch.receive::<Order>(), Err(ReceiveError::Closed))
    }

    #[test]
    fn successor_is_given_leases_that_still_last() {
        let mut bed = Bed::new();
        let (switch, restored) = bed.connect();
        assert_eq!(restored, []);
        send(&switch, &leases(&[lease("vm2", 100)]));
        bed.advance();
        drop(switch);
        let began = bed.now;
        let (successor, restored) = bed.connect();
        let waited = (bed.now - began).as_secs() as u32;
        assert_eq!(restored, [lease("vm2", 100 - waited)]);

        // It ends before it reports what it has taken: the next one is given the same.
        drop(successor);
        let (successor, restored) = bed.connect();
        assert_eq!(restored, [lease("vm2", 100 - 2 * waited)]);
        send(&successor, &leases(&[]));
        bed.advance();
        drop(successor);
        assert_eq!(bed.connect().1, [], "the last report counts");
    }

    #[test]
    fn expired_lease_is_not_restored() {
        let mut bed = Bed::new();
        let (switch, _) = bed.connect();
        send(&switch, &leases(&[lease("vm2", 5)]));
        bed.advance();
        drop(switch);
        assert_eq!(bed.connect().1, []);
    }

    #[test]
    fn leases_of_ports_that_do_not_learn_are_ignored() {
        let mut bed = Bed::new();
        let (switch, _) = bed.connect();
        send(&switch, &leases(&[lease("vm1", 1000), lease("vm9", 1000)]));
        bed.advance();
        assert!(!is_closed(&switch));
        drop(switch);
        assert_eq!(bed.connect().1, []);
    }

    #[test]
    fn switch_that_breaks_the_rules_is_left_alone_for_a_while() {
        let many = leases(&vec![lease("vm2", 1000); 3]);
        let breaches = [
            ("more leases than ports", many, true),
            (
                "more counters than ports",
                counters(&["a", "b", "c", "d"]),
                true,
            ),
            ("leases before the hello", leases(&[]), false),
            ("counters before the hello", counters(&[]), false),
            (
                "another version",
                Report::Hello {
                    version: VERSION + 1,
                },
                false,
            ),
        ];
        for (name, report, greeted) in breaches {
            let mut bed = Bed::new();
            let listener = bed.listen();
            let switch = if greeted {
                bed.connect().0
            } else {
                bed.advance();
                accept(&listener).expect("a connection")
            };
            send(&switch, &report);
            bed.advance();
            assert!(is_closed(&switch), "{name}");
            let listener = bed.listen();
            bed.now += RETRY_AFTER_ERROR / 2;
            bed.advance();
            let waiting = accept(&listener).map(drop);
            assert_eq!(
                waiting.map_err(|error| error.kind()),
                Err(ErrorKind::WouldBlock),
                "{name}"
            );
        }
    }

    #[test]
    fn counters_of_a_dead_switch_are_those_of_its_ports() {
        let mut bed = Bed::new();
        let (switch, _) = bed.connect();
        // The tenant has no uplink.
        send(&switch, &counters(&["vm1", "vm9", UPLINK_NAME]));
        bed.advance();
        drop(switch);
        bed.advance();
        let last = bed.supervisor.last_counters();
        assert_eq!(last.keys().collect::<Vec<_>>(), ["vm1"]);
        assert_eq!(last["vm1"].rx_frames, 1);
        assert!(bed.supervisor.last_counters().is_empty(), "reported twice");

        let (switch, _) = bed.connect();
        send(&switch, &counters(&["vm1"]));
        bed.advance();
        drop(switch);
        let (_successor, _) = bed.connect();
        assert!(
            bed.supervisor.last_counters().is_empty(),
            "another switch's"
        );
    }

    #[test]
    fn switch_that_closes_at_once_is_met_again_after_a_pause() {
        let mut bed = Bed::new();
        let listener = bed.listen();
        bed.advance();
        drop(accept(&listener).expect("a connection"));
        for _ in 0..3 {
            bed.advance();
            assert!(bed.supervisor.hello().is_none());
        }
        let waiting = accept(&listener).map(drop);
        assert_eq!(
            waiting.map_err(|error| error.kind()),
            Err(ErrorKind::WouldBlock)
        );
        bed.now += RECONNECT_AFTER;
        bed.advance();
        accept(&listener).expect("a connection");
    }

    #[test]
    fn socket_of_another_user_is_refused() {
        let mut bed = Bed::new();
        bed.uid += 1;
        let listener = bed.listen();
        bed.advance();
        let switch = accept(&listener).expect("a connection");
        let _ = switch.send(&Report::Hello { version: VERSION });
        assert!(is_closed(&switch));
    }

    #[test]
    fn absent_switch_is_tried_again_at_the_next_look() {
        let mut bed = Bed::new();
        bed.advance();
        let listener = bed.listen();
        bed.advance();
        accept(&listener).expect("a connection");
    }

    #[test]
    fn renamed_tenant_keeps_what_was_heard_of_it() {
        let name = |text: &str| -> Name { text.parse().expect("a name") };
        let record = |formerly: Option<Name>| Record {
            uid: 66_000,
            resources: Vec::new(),
            probes: Vec::new(),
            complete: false,
            previous: None,
            formerly,
            paused: None,
        };
        let heard = || {
            let lease = ([2; 6], Ipv4Addr::new(10, 0, 0, 50), Instant::now());
            let channel = SwitchChannel {
                leases: BTreeMap::from([("vm1".to_owned(), lease)]),
                ..SwitchChannel::default()
            };
            Channels::from([(name("red"), channel)])
        };
        let mut state = State::default();
        state
            .tenants
            .insert(name("crimson"), record(Some(name("red"))));
        let mut channels = heard();
        rename(&mut channels, &state);
        let [(tenant, channel)] = &channels.iter().collect::<Vec<_>>()[..] else {
            panic!("one tenant");
        };
        assert_eq!((tenant.as_str(), channel.leases.len()), ("crimson", 1));
        // Another tenant may have the former name by now.
        state.tenants.insert(name("red"), record(None));
        let mut channels = heard();
        rename(&mut channels, &state);
        assert_eq!(channels.keys().collect::<Vec<_>>(), [&name("red")]);
    }
}
