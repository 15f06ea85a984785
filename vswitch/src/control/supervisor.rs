//! The switch's end of the channel to its supervisor: leases out, and in again after a restart;
//! counters out.
//!
//! The switch listens; one supervisor at a time is served, and only root or the switch's own user.
//! What it may do is bounded by [`vswitch_api::channel`]: one order of leases a connection.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tenant_config::MacAddr;
use tokio::io::Interest;
use tokio::net::UnixStream;
use vswitch_api::channel::{self, Channel, Lease, Order, ReceiveError, Report, Totals, VERSION};

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
    #[error("an order came that is not due: leases come once, and first")]
    Order,
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
        let order = tokio::time::timeout(ORDER_TIMEOUT, receive(connection, &channel)).await;
        let leases = match order.map_err(|_| ChannelError::Silent)? {
            Ok(Order::Restore { leases }) => leases,
            Err(error) => return Err(error.into()),
        };
        if !leases.is_empty() {
            self.restore(&leases).await;
        }
        let mut reported = None;
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

    /// Gives the ports the leases that they had before the switch was restarted: those that the
    /// configuration allows, at ports that have none.
    async fn restore(&self, leases: &[Lease]) {
        // The worker's clock starts with its first poll.
        if !within(WORKER_TIMEOUT, || self.now_ns() != 0).await {
            tracing::warn!("no lease is restored: the worker does not go round");
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
        } in leases
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
        if taken == 0 {
            return;
        }
        match self.install(generation, config).await {
            Ok(_) => tracing::info!(leases = taken, "restored after a restart"),
            Err(error) => tracing::warn!("leases are not restored: {error}"),
        }
        // The worker publishes them at its next poll, so the next report includes them.
        within(WORKER_TIMEOUT, || self.now_ns() > now_ns).await;
    }
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
