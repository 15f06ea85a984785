//! The counters of a switch. The worker writes them and any thread reads; with one writer no locked
//! instruction is needed.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use packet::DropReason;
use vswitch_api::declare_metrics;
use vswitch_api::metrics::{Metric, Reading, Unit};

use crate::clients::{Family, PublishedAddresses, PublishedClients};
pub use crate::counter::Counter;
use crate::counter::PublishedMac;
use crate::ids::{PeerId, PortId};
use crate::ipsec::view::EndpointCounters;
use crate::tables::Tables;
use crate::trouble::{OtherMac, Trouble, UnreachableView};

const PORT: [&str; 2] = ["tenant", "port"];
const PEER: [&str; 2] = ["tenant", "peer"];

/// The counters of one port. Every frame that came in is counted in exactly one of `forwarded`,
/// `replies` and [`Self::dropped`]. `drops` also has the frames for the port that could not be
/// sent, which are `unsent` too.
#[derive(Debug)]
pub struct PortCounters {
    /// The port's name; `uplink` for the In/Out side.
    pub name: String,
    /// Frames that came from the port.
    pub rx_frames: Counter,
    /// Their bytes, from the Ethernet header on, without the frame check sequence.
    pub rx_bytes: Counter,
    /// Of these, the ones that went to another port.
    pub forwarded: Counter,
    /// Copies of the port's frames that went to members of groups, to all, or to several DHCP
    /// servers: one for each receiver.
    pub copies: Counter,
    /// Allocations of buffers for them, and for fragments. One is for up to 64 buffers, while there
    /// are as many.
    pub copy_allocations: Counter,
    /// Groups that the port's stations listen to, at the last poll.
    pub groups: Counter,
    /// Reports of groups for which there was no room.
    pub refused_joins: Counter,
    /// Of the frames that came from the port, the ones the gateway answered in place.
    pub replies: Counter,
    /// ICMP errors returned to the port, and advertisements that defended an address; the frames
    /// they are about count as drops.
    pub icmp_errors: Counter,
    /// Frames for the port: forwarded, answers, errors, and the gateway's own.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Of these, the ones that could not be sent; `drops` has them by reason.
    pub unsent: Counter,
    /// The IPv4 address that DHCP gave the port, as a number; 0 without one.
    pub leased_ipv4: Counter,
    /// The MAC that the port has, while it has a lease.
    pub leased_mac: PublishedMac,
    /// When that lease ends, in nanoseconds of the pipeline's clock; 0 without one.
    pub leased_until_ns: Counter,
    clients: [PublishedClients; 2],
    /// The IPv6 addresses that the port has claimed.
    pub claimed: PublishedAddresses,
    drops: [Counter; DropReason::COUNT],
}

impl PortCounters {
    /// The metrics of a port, each with what it reads.
    pub const METRICS: &'static [Reading<Self, 2>] = declare_metrics! {
        PORT;
        counter "vswitch_rx_frames_total" Frames
            "Frames received from the port."
            => |port| port.rx_frames.get();
        counter "vswitch_rx_bytes_total" Bytes
            "Bytes received from the port."
            => |port| port.rx_bytes.get();
        counter "vswitch_tx_frames_total" Frames
            "Frames sent to the port."
            => |port| port.tx_frames.get();
        counter "vswitch_tx_bytes_total" Bytes
            "Bytes sent to the port."
            => |port| port.tx_bytes.get();
        counter "vswitch_forwarded_frames_total" Frames
            "Frames of the port that went to another port."
            => |port| port.forwarded.get();
        counter "vswitch_group_copies_total" Frames
            "Copies of the port's frames to groups, broadcasts and DHCP servers, one a receiver."
            => |port| port.copies.get();
        counter "vswitch_copy_allocations_total" Number
            "Allocations of buffers for copies and fragments of the port's frames."
            => |port| port.copy_allocations.get();
        gauge "vswitch_group_memberships" Number
            "Multicast groups that the port's stations listen to."
            => |port| port.groups.get();
        counter "vswitch_group_joins_refused_total" Number
            "Reports of multicast groups for which there was no room."
            => |port| port.refused_joins.get();
        counter "vswitch_icmp_errors_total" Frames
            "ICMP errors returned to the port, and advertisements that defended an address."
            => |port| port.icmp_errors.get();
        counter "vswitch_replies_total" Frames
            "Frames of the port that the gateway answered."
            => |port| port.replies.get();
        counter "vswitch_dropped_frames_total" Frames
            "Frames of the port dropped, for all reasons."
            => Self::dropped;
        counter "vswitch_unsent_frames_total" Frames
            "Frames for the port that its device did not take, or that found no buffer."
            => |port| port.unsent.get();
    };

    /// The metric of [`Self::drops`].
    pub const DROPS: Metric<3> = Metric::counter(
        "vswitch_drops_total",
        Unit::Frames,
        ["tenant", "port", "reason"],
        "Frames dropped, by port and reason.",
    );

    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rx_frames: Counter::default(),
            rx_bytes: Counter::default(),
            forwarded: Counter::default(),
            copies: Counter::default(),
            copy_allocations: Counter::default(),
            groups: Counter::default(),
            refused_joins: Counter::default(),
            replies: Counter::default(),
            icmp_errors: Counter::default(),
            tx_frames: Counter::default(),
            tx_bytes: Counter::default(),
            unsent: Counter::default(),
            leased_ipv4: Counter::default(),
            leased_mac: PublishedMac::default(),
            leased_until_ns: Counter::default(),
            clients: Default::default(),
            claimed: PublishedAddresses::default(),
            drops: [const { Counter::zero() }; DropReason::COUNT],
        }
    }

    /// The frames dropped for that reason.
    pub fn drops(&self, reason: DropReason) -> &Counter {
        &self.drops[reason.index()]
    }

    /// What is remembered of the DHCP clients behind the port.
    pub fn clients(&self, family: Family) -> &PublishedClients {
        let [v4, v6] = &self.clients;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The frames of the port dropped for all reasons.
    pub fn dropped(&self) -> u64 {
        // Read first: what the worker counts in between is then never subtracted too early.
        let unsent = self.unsent.get();
        let all: u64 = self.drops.iter().map(Counter::get).sum();
        all.saturating_sub(unsent)
    }

    #[inline(always)]
    pub(crate) fn sent(&self, bytes: usize) {
        self.tx_frames.add(1);
        self.tx_bytes.add(bytes as u64);
    }
}

/// The counters of one of the tunnel's peers: Ethernet frames inside the tunnel. Drops are counted
/// by port.
#[derive(Debug)]
pub struct PeerCounters {
    /// The peer's name.
    pub name: String,
    /// Frames that came from the peer and passed the filter.
    pub rx_frames: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames for the peer.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// When the last frame came from it, in nanoseconds of the pipeline's clock; 0 if none has.
    pub last_seen_ns: Counter,
    /// Another MAC than its own from which a frame with an address behind it came.
    pub other_mac: OtherMac,
}

impl PeerCounters {
    /// The metrics of a peer's frames, each with what it reads.
    pub const METRICS: &'static [Reading<Self, 2>] = declare_metrics! {
        PEER;
        counter "vswitch_peer_rx_frames_total" Frames
            "Frames that came from the peer through the tunnel and passed the filter."
            => |peer| peer.rx_frames.get();
        counter "vswitch_peer_rx_bytes_total" Bytes
            "Bytes of the frames from the peer."
            => |peer| peer.rx_bytes.get();
        counter "vswitch_peer_tx_frames_total" Frames
            "Frames sent to the peer through the tunnel."
            => |peer| peer.tx_frames.get();
        counter "vswitch_peer_tx_bytes_total" Bytes
            "Bytes of the frames to the peer."
            => |peer| peer.tx_bytes.get();
    };

    /// The metric of [`Self::last_seen_ns`].
    pub const LAST_SEEN: Metric<2> = Metric::gauge(
        "vswitch_peer_last_seen_seconds",
        Unit::Seconds,
        PEER,
        "Time since the last frame from the peer; absent if there was none.",
    );

    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rx_frames: Counter::default(),
            rx_bytes: Counter::default(),
            tx_frames: Counter::default(),
            tx_bytes: Counter::default(),
            last_seen_ns: Counter::default(),
            other_mac: OtherMac::default(),
        }
    }

    #[inline(always)]
    pub(crate) fn sent(&self, bytes: usize) {
        self.tx_frames.add(1);
        self.tx_bytes.add(bytes as u64);
    }

    #[inline(always)]
    pub(crate) fn received(&self, bytes: usize, now_ns: u64) {
        self.rx_frames.add(1);
        self.rx_bytes.add(bytes as u64);
        self.last_seen_ns.set(now_ns.max(1));
    }
}

macro_rules! rejections {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal;)*) => {
        /// Why a report about a packet of the tunnel is not believed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ReportRejection {
            $($(#[doc = $doc])* $variant,)*
        }

        impl ReportRejection {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it means, in a sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

rejections! {
    /// It is a fragment, cut off, or has a wrong checksum.
    Malformed "malformed";
    /// It quotes no packet that the switch can have sent.
    Quote "quote";
    /// No packet of the quoted size was sent to that endpoint lately.
    Unsent "unsent";
    /// The quoted packet has another source port than the switch's: somebody guesses.
    SourcePort "source-port";
    /// It quotes ESP with an SPI with which nothing is sent there: somebody guesses.
    Spi "spi";
    /// Too many guesses were wrong: its source's, or all together.
    Distrusted "distrusted";
    /// The reported MTU is smaller than any link's may be.
    TooSmall "too-small";
}

/// What became of reports about packets of the tunnel: of those that one was too big for a link, or
/// of those that one did not arrive.
#[derive(Debug, Default)]
pub struct ReportCounters {
    /// Reports that lowered a path MTU, or that say that an endpoint cannot be reached.
    pub believed: Counter,
    rejected: [Counter; ReportRejection::ALL.len()],
}

impl ReportCounters {
    /// The metric of [`Self::believed`], of path MTUs.
    pub const PATH_MTU_BELIEVED: Metric<1> = Metric::counter(
        "vswitch_path_mtu_believed_total",
        Unit::Number,
        ["tenant"],
        "Routers' reports that lowered the path MTU to a peer.",
    );
    /// The metric of [`Self::rejected`], of path MTUs.
    pub const PATH_MTU_REJECTED: Metric<2> = Metric::counter(
        "vswitch_path_mtu_rejected_total",
        Unit::Number,
        ["tenant", "reason"],
        "Reports of a smaller path MTU that were not believed, by reason.",
    );
    /// The metric of [`Self::believed`], of unreachable endpoints.
    pub const UNREACHABLE_BELIEVED: Metric<1> = Metric::counter(
        "vswitch_unreachable_believed_total",
        Unit::Number,
        ["tenant"],
        "Reports that a packet to a peer did not arrive.",
    );
    /// The metric of [`Self::rejected`], of unreachable endpoints.
    pub const UNREACHABLE_REJECTED: Metric<2> = Metric::counter(
        "vswitch_unreachable_rejected_total",
        Unit::Number,
        ["tenant", "reason"],
        "Reports that a packet did not arrive that were not believed, by reason.",
    );

    /// The reports that were rejected for that reason.
    pub fn rejected(&self, why: ReportRejection) -> &Counter {
        &self.rejected[why as usize]
    }
}

/// A next hop on the underlay, as it was at the last poll.
#[derive(Debug, Default)]
pub struct NextHopView {
    mac: PublishedMac,
    /// The other station that claimed its address last.
    pub other: OtherMac,
}

impl NextHopView {
    /// The metric of a peer's next hop.
    pub const PEER_REACHABLE: Metric<2> = Metric::gauge(
        "vswitch_peer_next_hop_reachable",
        Unit::Bool,
        PEER,
        "Whether the next hop towards the peer answers.",
    );

    /// Its MAC, while it answers.
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.mac.get()
    }

    pub(crate) fn publish(&self, mac: Option<[u8; 6]>, other: Option<([u8; 6], u64)>) {
        self.mac.set(mac);
        self.other.publish(other);
    }
}

/// Who holds a shared address, as it was at the last poll.
#[derive(Debug, Default)]
pub struct HolderView {
    mac: PublishedMac,
    port: Counter,
}

impl HolderView {
    /// The port that holds it, and the MAC by which it does.
    pub fn get(&self) -> Option<(PortId, [u8; 6])> {
        // One thread writes both, one after the other: a reader in between sees the port of one
        // moment and the MAC of the next, and what it says is judged like any claim.
        let mac = self.mac.get()?;
        Some((PortId(self.port.get() as u16), mac))
    }

    pub(crate) fn publish(&self, held: Option<(PortId, [u8; 6])>) {
        if let Some((port, _)) = held {
            self.port.set(port.0.into());
        }
        self.mac.set(held.map(|(_, mac)| mac));
    }
}

/// The counters of every port: the tenant's in the order of the configuration, then the uplink's.
/// A port keeps its counters from one generation to the next.
#[derive(Debug)]
pub struct Counters {
    ports: Box<[Arc<CachePadded<PortCounters>>]>,
    peers: Box<[Arc<CachePadded<PeerCounters>>]>,
    /// Of the tunnel's endpoints, where a peer may require IPsec.
    endpoints: Box<[Arc<CachePadded<EndpointCounters>>]>,
    /// In the order of [`Tables::next_hops`].
    pub next_hops: Box<[NextHopView]>,
    /// The largest IP packet that the tunnel carries to each of its endpoints, in bytes, at the
    /// last poll. In their order.
    pub inner_mtu: Box<[Counter]>,
    /// What became of reports of a smaller one.
    pub path_mtu: Arc<ReportCounters>,
    /// The last report that an endpoint cannot be reached, at the last poll. In their order.
    pub undelivered: Box<[UnreachableView]>,
    /// What became of such reports.
    pub unreachable: Arc<ReportCounters>,
    /// The other station that claimed the address of our own endpoint last, at the last poll.
    pub vtep_conflict: OtherMac,
    /// ARP and ND messages by which another station claimed it.
    pub vtep_conflicts: Arc<Counter>,
    /// The holders of the shared addresses at the last poll, in the order of
    /// [`Tables::shared_addresses`].
    pub holders: Box<[HolderView]>,
    /// How often a port has taken over a shared address.
    pub holder_changes: Arc<Counter>,
    /// ARP and ND messages that gave a next hop another MAC than the one that answers.
    pub contested_next_hops: Arc<Counter>,
    /// The pipeline's clock at the last poll, in nanoseconds.
    pub polled_ns: Counter,
}

impl Counters {
    /// The metric of [`Self::inner_mtu`].
    pub const PEER_MTU: Metric<2> = Metric::gauge(
        "vswitch_peer_mtu_bytes",
        Unit::Bytes,
        PEER,
        "The largest IP packet that gets to the peer.",
    );

    /// The metric of [`Self::has_trouble`].
    pub const PEER_TROUBLE: Metric<3> = Metric::gauge(
        "vswitch_peer_trouble",
        Unit::Bool,
        ["tenant", "peer", "trouble"],
        "Whether within two minutes something said that the peer's MAC does not fit (mac), that \
         packets to it do not arrive (unreachable), or that another station has its next hop's \
         address (next-hop).",
    );

    /// The metric of [`Self::vtep_conflicts`].
    pub const VTEP_CONFLICTS: Metric<1> = Metric::counter(
        "vswitch_vtep_conflicts_total",
        Unit::Number,
        ["tenant"],
        "ARP and ND messages by which another station claimed the address of the switch's VTEP.",
    );

    /// The metric of [`Self::holder_changes`].
    pub const HOLDER_CHANGES: Metric<1> = Metric::counter(
        "vswitch_shared_address_changes_total",
        Unit::Number,
        ["tenant"],
        "Times that a port has become the holder of a shared address.",
    );

    /// The metric of [`Self::contested_next_hops`].
    pub const CONTESTED: Metric<1> = Metric::counter(
        "vswitch_contested_next_hops_total",
        Unit::Number,
        ["tenant"],
        "ARP and ND messages that gave a next hop another MAC than the one that answers.",
    );

    /// Counters for every port and peer of the tables; those with a name in `previous` are kept.
    pub(crate) fn new(tables: &Tables, previous: Option<&Self>) -> Self {
        let (ports, peers) = previous.map_or((&[][..], &[][..]), |previous| {
            (&previous.ports, &previous.peers)
        });
        let endpoints = previous.map_or(&[][..], |previous| &previous.endpoints);
        let tunnel = tables.tunnel.iter();
        let vteps = tunnel.filter(|tunnel| tunnel.ipsec.is_some());
        let vteps = vteps.flat_map(|tunnel| tunnel.vteps());
        let addresses: Vec<String> = vteps.map(|vtep| vtep.address.to_string()).collect();
        Self {
            ports: kept(&tables.names, ports, |port| &port.name, PortCounters::new),
            peers: kept(
                &tables.peer_names,
                peers,
                |peer| &peer.name,
                PeerCounters::new,
            ),
            endpoints: kept(
                &addresses,
                endpoints,
                |it| &it.endpoint,
                EndpointCounters::new,
            ),
            next_hops: tables
                .next_hops
                .iter()
                .map(|_| NextHopView::default())
                .collect(),
            inner_mtu: tables
                .tunnel
                .iter()
                .flat_map(|tunnel| tunnel.vteps())
                .map(|_| Counter::default())
                .collect(),
            undelivered: tables
                .tunnel
                .iter()
                .flat_map(|tunnel| tunnel.vteps())
                .map(|_| UnreachableView::default())
                .collect(),
            unreachable: previous
                .map_or_else(Arc::default, |previous| Arc::clone(&previous.unreachable)),
            vtep_conflict: OtherMac::default(),
            vtep_conflicts: previous.map_or_else(Arc::default, |previous| {
                Arc::clone(&previous.vtep_conflicts)
            }),
            holders: tables
                .shared
                .iter()
                .map(|_| HolderView::default())
                .collect(),
            holder_changes: previous.map_or_else(Arc::default, |previous| {
                Arc::clone(&previous.holder_changes)
            }),
            path_mtu: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.path_mtu)),
            contested_next_hops: previous.map_or_else(Arc::default, |previous| {
                Arc::clone(&previous.contested_next_hops)
            }),
            polled_ns: Counter::default(),
        }
    }

    /// Every peer's counters, in the order of the configuration.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &PeerCounters> + Clone {
        self.peers.iter().map(|peer| &***peer)
    }

    /// The counters of the tunnel's endpoints, where a peer may require IPsec, in their order.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &EndpointCounters> + Clone {
        self.endpoints.iter().map(|it| &***it)
    }

    /// Seconds from the peer's last frame to the last poll; `None` before its first frame.
    pub fn last_seen_s(&self, peer: &PeerCounters) -> Option<u64> {
        let seen_ns = Some(peer.last_seen_ns.get()).filter(|seen_ns| *seen_ns > 0)?;
        Some(self.polled_ns.get().saturating_sub(seen_ns) / 1_000_000_000)
    }

    /// Another MAC than `mac`, its own, from which the peer's frames came, and how many seconds
    /// ago.
    pub fn other_mac(&self, peer: &PeerCounters, mac: [u8; 6]) -> Option<([u8; 6], u64)> {
        let other = peer.other_mac.get(self.polled_ns.get());
        // The configuration may say so meanwhile.
        other.filter(|(other, _)| *other != mac)
    }

    /// Whether something goes wrong with a peer, with that MAC, and its endpoint and next hop at
    /// those places.
    pub fn has_trouble(
        &self,
        trouble: Trouble,
        (peer, mac): (&PeerCounters, [u8; 6]),
        (vtep, next_hop): (usize, usize),
    ) -> bool {
        let now_ns = self.polled_ns.get();
        match trouble {
            Trouble::Mac => self.other_mac(peer, mac).is_some(),
            Trouble::Unreachable => self.undelivered[vtep].get(now_ns).is_some(),
            Trouble::NextHop => self.next_hops[next_hop].other.get(now_ns).is_some(),
        }
    }

    #[inline(always)]
    pub(crate) fn peer(&self, id: PeerId) -> &PeerCounters {
        &self.peers[id.index()]
    }

    /// Every port's counters.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = &PortCounters> + Clone {
        self.ports.iter().map(|port| &***port)
    }

    /// Every port's counters, by its place: for a burst that leaves by several of them.
    #[inline(always)]
    pub(crate) fn each_port(&self) -> &[Arc<CachePadded<PortCounters>>] {
        &self.ports
    }

    /// The counters of the port at that place.
    ///
    /// # Panics
    /// If there is no such port.
    #[inline(always)]
    pub fn port(&self, index: usize) -> &PortCounters {
        &self.ports[index]
    }
}

/// Counters for `names`; those that existed `before` are kept.
fn kept<C>(
    names: &[String],
    before: &[Arc<CachePadded<C>>],
    name_of: impl Fn(&C) -> &str,
    new: impl Fn(&str) -> C,
) -> Box<[Arc<CachePadded<C>>]> {
    let known: HashMap<&str, &Arc<CachePadded<C>>> = before
        .iter()
        .map(|counters| (name_of(counters), counters))
        .collect();
    let each = names.iter().map(|name| match known.get(name.as_str()) {
        Some(counters) => Arc::clone(counters),
        None => Arc::new(CachePadded::new(new(name))),
    });
    each.collect()
}
