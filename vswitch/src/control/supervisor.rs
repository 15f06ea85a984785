//! The switch's end of the channel to its supervisor: leases, DHCP clients and holders of shared
//! addresses out, and in again after a restart; counters out.
//!
//! The switch listens; one supervisor at a time is served, and only root or the switch's own user.
//! What it may do is bounded by [`vswitch_api::channel`]: one order of each kind a connection.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipeline::{Client, Family, Generation, HolderView, PortCounters};
use tenant_config::MacAddr;
use tokio::io::Interest;
use tokio::net::UnixStream;
use vswitch_api::channel::{
    self, Channel, Clients, HOLDERS_MAX, Hex, Holder, Identifier, Lease, Order, PortClients,
    ReceiveError, Report, Totals, VERSION,
};

use super::socket::{SocketError, clear_stale};
use super::{Control, WORKER_TIMEOUT, within};

/// How often the leases are compared with those that were reported last.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// How often counters are reported, if one has changed.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a supervisor may take to send its order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a connection that failed, so that a supervisor that keeps failing costs little.
const RETRY_AFTER: Duration = Duration::from_millis(100);

const SECOND_NS: u64 = 1_000_000_000;

/// The socket on which the switch waits for its supervisor. Dropping it removes its file.
#[derive(Debug)]
pub struct ChannelSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ChannelSocket {
    /// Listens on `path`, for its owner alone. Replaces a stale socket.
    ///
    /// # Errors
    /// If a process listens there, or the path names another kind of file.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        clear_stale(path, |path| Channel::connect(path).is_ok())?;
        let listener = channel::listener(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        // The process may change its working directory before it removes the file.
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// What [`Control::with_channel`] takes.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn listener(&self) -> io::Result<ChannelListener> {
        Ok(ChannelListener {
            socket: self.listener.try_clone()?,
            own_uid: nix::unistd::geteuid().as_raw(),
        })
    }
}

/// A listening channel, and the user that may connect to it beside root.
#[derive(Debug)]
pub struct ChannelListener {
    socket: UnixListener,
    /// Asked for before the sandbox forbids it.
    own_uid: u32,
}

impl Drop for ChannelSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a supervisor is no longer served.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("user {0} is neither root nor this switch's user")]
    Foreign(u32),
    #[error("no order came within {} s", ORDER_TIMEOUT.as_secs())]
    Silent,
    #[error("an order came that is not due: each kind comes once, leases last")]
    Order,
    #[error("an order is about {0} ports, and there are {1}")]
    TooMany(usize, usize),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// A port's lease, as the worker published it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    port: String,
    mac: [u8; 6],
    address: Ipv4Addr,
    until_ns: u64,
}

impl Control {
    /// Serves one supervisor after the other; never returns but for an error.
    pub(super) async fn serve_supervisor(&self, listener: ChannelListener) -> io::Result<()> {
        let ChannelListener { socket, own_uid } = listener;
        let listener = tokio::net::UnixListener::from_std(socket)?;
        loop {
            let served = match listener.accept().await {
                Ok((connection, _)) => self.supervised(&connection, own_uid).await,
                Err(error) => Err(error.into()),
            };
            match served {
                Ok(()) | Err(ChannelError::Receive(ReceiveError::Closed)) => {
                    tracing::debug!("the supervisor has closed its channel");
                }
                Err(error) => {
                    tracing::warn!("the supervisor's channel: {error}");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Serves a supervisor until it closes the channel.
    async fn supervised(&self, connection: &UnixStream, own_uid: u32) -> Result<(), ChannelError> {
        // The runtime waits on the connection; messages go by the channel.
        let channel = Channel::from(connection.as_fd().try_clone_to_owned()?);
        let uid = channel.peer_uid()?;
        if uid != 0 && uid != own_uid {
            return Err(ChannelError::Foreign(uid));
        }
        channel.send(&Report::Hello { version: VERSION })?;
        let orders = tokio::time::timeout(ORDER_TIMEOUT, self.orders(connection, &channel)).await;
        let former = orders.map_err(|_| ChannelError::Silent)??;
        if former != Former::default() {
            self.restore(&former).await;
        }
        let mut reported = None;
        let mut holders_reported = Vec::new();
        let mut clients_reported = BTreeMap::new();
        let (mut counted, mut counted_at) = (BTreeMap::new(), Instant::now());
        loop {
            let leases = self.leases();
            // Without a clock, as while a generation is swapped in, no remaining time is known.
            if self.now_ns() != 0 && reported.as_ref() != Some(&leases) {
                let report = Report::Leases {
                    leases: self.remaining(&leases),
                };
                if was_sent(&channel, &report)? {
                    reported = Some(leases);
                }
            }
            self.report_clients(&channel, &mut clients_reported)?;
            let holders = self.holders();
            if self.now_ns() != 0 && holders != holders_reported {
                let report = Report::Holders {
                    holders: holders.clone(),
                };
                if was_sent(&channel, &report)? {
                    holders_reported = holders;
                }
            }
            if counted_at.elapsed() >= COUNTERS_INTERVAL {
                counted_at = Instant::now();
                let ports = self.totals();
                let report = Report::Counters {
                    ports: ports.clone(),
                };
                if ports != counted && was_sent(&channel, &report)? {
                    counted = ports;
                }
            }
            // A lease that changes is reported at the end of the interval.
            match tokio::time::timeout(REPORT_INTERVAL, receive(connection, &channel)).await {
                Err(_) => {}
                Ok(Ok(_)) => return Err(ChannelError::Order),
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// What the supervisor gives back to the switch.
    async fn orders(
        &self,
        connection: &UnixStream,
        channel: &Channel,
    ) -> Result<Former, ChannelError> {
        let ports = self.config.borrow().ports.len();
        let bounded = |count, most| match count {
            count if count > most => Err(ChannelError::TooMany(count, most)),
            _ => Ok(()),
        };
        let (mut clients, mut holders) = (None, None);
        loop {
            match receive(connection, channel).await? {
                Order::Clients { ports: known } if clients.is_none() => {
                    bounded(known.len(), ports)?;
                    clients = Some(known);
                }
                Order::Holders { holders: known } if holders.is_none() => {
                    bounded(known.len(), HOLDERS_MAX)?;
                    holders = Some(known);
                }
                Order::Clients { .. } | Order::Holders { .. } => return Err(ChannelError::Order),
                Order::Restore { leases } => {
                    return Ok(Former {
                        clients: clients.unwrap_or_default(),
                        holders: holders.unwrap_or_default(),
                        leases,
                    });
                }
            }
        }
    }

    /// Who holds the shared addresses, as the worker published it.
    fn holders(&self) -> Vec<Holder> {
        let counters = self.counters.borrow();
        let tables = self.tables.borrow();
        let holder = |(address, view): (IpAddr, &HolderView)| {
            let (port, mac) = view.get()?;
            Some(Holder {
                address,
                port: tables.names().get(port.index())?.clone(),
                mac,
            })
        };
        let known = tables.shared_addresses().zip(&counters.holders);
        known.filter_map(holder).take(HOLDERS_MAX).collect()
    }

    /// Reports the clients of ports where something has changed since `reported`.
    fn report_clients(
        &self,
        channel: &Channel,
        reported: &mut BTreeMap<String, [u64; 3]>,
    ) -> Result<(), ChannelError> {
        let now_ns = self.now_ns();
        if now_ns == 0 {
            return Ok(());
        }
        let (mut changed, mut versions) = (Vec::new(), BTreeMap::new());
        {
            let counters = self.counters.borrow();
            let config = self.config.borrow();
            for rules in &config.ports {
                let mut ports = counters.ports();
                let Some(port) = ports.find(|port| port.name == rules.name.as_str()) else {
                    continue;
                };
                let [v4, v6] = FAMILIES.map(|family| port.clients(family).version());
                let version = [v4, v6, port.claimed.version()];
                if reported.get(&port.name).copied().unwrap_or_default() == version {
                    continue;
                }
                let [Some(dhcp), Some(dhcp6)] = FAMILIES.map(|it| clients(port, it, now_ns)) else {
                    continue;
                };
                let Some(claimed) = port.claimed.get() else {
                    continue;
                };
                versions.insert(port.name.clone(), version);
                changed.push(PortClients {
                    port: port.name.clone(),
                    mac: rules.mac.octets(),
                    dhcp,
                    dhcp6,
                    claimed,
                });
            }
        }
        for ports in channel::in_messages(changed) {
            let names: Vec<String> = ports.iter().map(|it| it.port.clone()).collect();
            if !was_sent(channel, &Report::Clients { ports })? {
                return Ok(());
            }
            let sent = names
                .into_iter()
                .filter_map(|it| versions.remove_entry(&it));
            reported.extend(sent);
        }
        Ok(())
    }

    /// The pipeline's clock at the worker's last poll; 0 before the first.
    fn now_ns(&self) -> u64 {
        self.counters.borrow().polled_ns.get()
    }

    /// The leases of all ports, as the worker published them.
    fn leases(&self) -> Vec<Published> {
        let counters = self.counters.borrow();
        let ports = counters.ports().map(|port| Published {
            port: port.name.clone(),
            mac: port.leased_mac.get().unwrap_or_default(),
            address: Ipv4Addr::from_bits(port.leased_ipv4.get() as u32),
            until_ns: port.leased_until_ns.get(),
        });
        ports
            .filter(|lease| !lease.address.is_unspecified())
            .collect()
    }

    /// The counters of all ports.
    fn totals(&self) -> BTreeMap<String, Totals> {
        let counters = self.counters.borrow();
        let ports = counters.ports().map(|port| {
            let totals = Totals {
                rx_frames: port.rx_frames.get(),
                rx_bytes: port.rx_bytes.get(),
                tx_frames: port.tx_frames.get(),
                tx_bytes: port.tx_bytes.get(),
                dropped: port.dropped(),
            };
            (port.name.clone(), totals)
        });
        ports.collect()
    }

    fn remaining(&self, leases: &[Published]) -> Vec<Lease> {
        let now_ns = self.now_ns();
        let each = leases.iter().map(|lease| Lease {
            port: lease.port.clone(),
            mac: lease.mac,
            address: lease.address,
            seconds_left: u32::try_from(lease.until_ns.saturating_sub(now_ns) / SECOND_NS)
                .unwrap_or(u32::MAX),
        });
        each.collect()
    }

    /// Gives the ports what they had before the switch was restarted: what the configuration
    /// allows, and leases at ports that have none.
    async fn restore(&self, former: &Former) {
        // The worker's clock starts with its first poll.
        if !within(WORKER_TIMEOUT, || self.now_ns() != 0).await {
            tracing::warn!("nothing is restored: the worker does not go round");
            return;
        }
        let _one_at_a_time = self.swap.lock().await;
        let now_ns = self.now_ns();
        let config = self.config.borrow().clone();
        let mut generation = self.build(&config);
        let mut taken = 0;
        for Lease {
            port,
            mac,
            address,
            seconds_left,
        } in &former.leases
        {
            let Ok(mac) = MacAddr::new(*mac) else {
                tracing::warn!(port, "a lease is not restored: its MAC is no station's");
                continue;
            };
            let until_ns = now_ns.saturating_add(u64::from(*seconds_left) * SECOND_NS);
            if generation.restore_lease((port, mac), *address, until_ns) {
                taken += 1;
            } else {
                tracing::warn!(
                    port, %address,
                    "a lease is not restored: the configuration does not allow it"
                );
            }
        }
        let ports = restore_clients(&mut generation, &former.clients, now_ns);
        let holders = restore_holders(&mut generation, &former.holders);
        if (taken, ports, holders) == (0, 0, 0) {
            return;
        }
        match self.install(generation, config).await {
            Ok(_) => tracing::info!(
                leases = taken,
                clients_of = ports,
                holders,
                "restored after a restart"
            ),
            Err(error) => tracing::warn!("nothing is restored: {error}"),
        }
        // The worker publishes them at its next poll, so the next report includes them.
        within(WORKER_TIMEOUT, || self.now_ns() > now_ns).await;
    }
}

/// What the supervisor gives back to a restarted switch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Former {
    clients: Vec<PortClients>,
    holders: Vec<Holder>,
    leases: Vec<Lease>,
}

/// Lets ports hold the shared addresses that they held before; how many.
fn restore_holders(generation: &mut Generation, holders: &[Holder]) -> usize {
    let restored = holders.iter().filter(|holder| {
        let Holder { address, port, mac } = holder;
        let mac = MacAddr::new(*mac);
        let restored = mac.is_ok_and(|mac| generation.restore_holder((port, mac), *address));
        if !restored {
            tracing::warn!(
                port, %address,
                "a shared address's holder is not restored: the configuration does not allow it"
            );
        }
        restored
    });
    restored.count()
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The rest of a time in seconds, rounded up: what lasts on does not end too early.
fn seconds_left(until_ns: u64, now_ns: u64) -> u32 {
    let left = until_ns.saturating_sub(now_ns).div_ceil(SECOND_NS);
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// The clients behind a port; `None` while the worker writes them.
fn clients(port: &PortCounters, family: Family, now_ns: u64) -> Option<Clients> {
    let known = port.clients(family).get(now_ns)?;
    let identifier = |client: Client| Identifier {
        value: Hex(client.identifier),
        owned: seconds_left(client.owned_until_ns, now_ns),
        counted: seconds_left(client.counted_until_ns, now_ns),
        address: client.address,
        associations: client.associations,
    };
    let declined = known.declined_until_ns.iter();
    Some(Clients {
        identifiers: known.identifiers.into_iter().map(identifier).collect(),
        declined: declined
            .map(|until_ns| seconds_left(*until_ns, now_ns))
            .collect(),
    })
}

/// Adds the clients that the configuration allows to a generation; at how many ports.
fn restore_clients(generation: &mut Generation, clients: &[PortClients], now_ns: u64) -> usize {
    let until_ns = |seconds: u32| match seconds {
        0 => 0,
        _ => now_ns.saturating_add(u64::from(seconds) * SECOND_NS),
    };
    let known = |clients: &Clients| pipeline::Clients {
        identifiers: clients
            .identifiers
            .iter()
            .map(|it| Client {
                identifier: it.value.0.clone(),
                owned_until_ns: until_ns(it.owned),
                counted_until_ns: until_ns(it.counted),
                address: it.address,
                associations: it.associations.clone(),
            })
            .collect(),
        declined_until_ns: clients.declined.iter().map(|it| until_ns(*it)).collect(),
    };
    let mut restored = 0;
    for PortClients {
        port,
        mac,
        dhcp,
        dhcp6,
        claimed,
    } in clients
    {
        let mut taken = false;
        if !claimed.is_empty() {
            taken = MacAddr::new(*mac)
                .is_ok_and(|mac| generation.restore_claimed((port, mac), claimed, now_ns));
            if !taken {
                tracing::warn!(
                    port,
                    "claimed addresses are not restored: the configuration does not allow them"
                );
            }
        }
        for (family, clients) in [(Family::V4, dhcp), (Family::V6, dhcp6)] {
            if clients.is_empty() {
                continue;
            }
            let is_restored = MacAddr::new(*mac)
                .is_ok_and(|mac| generation.restore_clients((port, mac), family, &known(clients)));
            if !is_restored {
                tracing::warn!(
                    port,
                    "DHCP clients are not restored: the configuration does not allow them"
                );
            }
            taken |= is_restored;
        }
        restored += usize::from(taken);
    }
    restored
}

/// Sends a report, unless the supervisor reads too slowly: the next report is as good.
fn was_sent(channel: &Channel, report: &Report) -> Result<bool, ChannelError> {
    match channel.send(report) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReceiveError::Closed.into()),
        Err(error) => Err(error.into()),
    }
}

/// The next order.
async fn receive(connection: &UnixStream, channel: &Channel) -> Result<Order, ReceiveError> {
    loop {
        connection.readable().await.map_err(ReceiveError::Socket)?;
        let mut received = Err(ReceiveError::Empty);
        // Tells the runtime whether to wait for the next event.
        let _ = connection.try_io(Interest::READABLE, || {
            received = channel.receive();
            match &received {
                Err(ReceiveError::Empty) => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match received {
            Err(ReceiveError::Empty) => {}
            received => return received,
        }
    }
}
