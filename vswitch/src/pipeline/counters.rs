//! What a switch counts. The worker writes, anybody reads; one writer, so no locked instruction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::reason::DropReason;

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value a moment ago.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds, by the one writer.
    #[inline(always)]
    pub(crate) fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Replaces the value, by the one writer.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The counters of one port. Every frame that came in is counted in exactly one of `forwarded`,
/// `replies` and `drops` (`tx-full` and `no-buffer` apart, which count what could not go *out*).
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
    /// Of these, the ones the gateway answered in place.
    pub replies: Counter,
    /// ICMP errors returned to the port; the frames they are about count as drops.
    pub icmp_errors: Counter,
    /// Frames for the port: forwarded, answers, errors, and the gateway's own.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// The IPv4 address that DHCP gave the port, as a number; 0 without one.
    pub leased_ipv4: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl PortCounters {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rx_frames: Counter::default(),
            rx_bytes: Counter::default(),
            forwarded: Counter::default(),
            replies: Counter::default(),
            icmp_errors: Counter::default(),
            tx_frames: Counter::default(),
            tx_bytes: Counter::default(),
            leased_ipv4: Counter::default(),
            drops: [const { Counter(AtomicU64::new(0)) }; DropReason::COUNT],
        }
    }

    /// The frames dropped for that reason.
    pub fn drops(&self, reason: DropReason) -> &Counter {
        &self.drops[reason.index()]
    }

    #[inline(always)]
    pub(crate) fn sent(&self, bytes: usize) {
        self.tx_frames.add(1);
        self.tx_bytes.add(bytes as u64);
    }
}

/// A next hop on the underlay, as it was at the last poll.
#[derive(Debug, Default)]
pub struct NextHopView(Counter);

impl NextHopView {
    const RESOLVED: u64 = 1 << 48;

    /// Its MAC, while it answers.
    pub fn mac(&self) -> Option<[u8; 6]> {
        let value = self.0.get();
        let [_, _, mac @ ..] = value.to_be_bytes();
        (value & Self::RESOLVED != 0).then_some(mac)
    }

    pub(super) fn publish(&self, mac: Option<[u8; 6]>) {
        self.0.set(mac.map_or(0, |[a, b, c, d, e, f]| {
            Self::RESOLVED | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        }));
    }
}

/// The counters of every port: the tenant's in the order of the configuration, then the uplink's.
/// A port keeps its counters from one generation to the next.
#[derive(Debug)]
pub struct Counters {
    ports: Box<[Arc<CachePadded<PortCounters>>]>,
    /// The IPv4 next hop.
    pub next_hop4: NextHopView,
    /// The IPv6 next hop.
    pub next_hop6: NextHopView,
}

impl Counters {
    /// Counters for ports of these names; a name that `previous` has goes on counting.
    pub(super) fn new<'n>(names: impl Iterator<Item = &'n str>, previous: Option<&Self>) -> Self {
        let ports = names.map(|name| {
            let known = previous.and_then(|counters| {
                counters
                    .ports
                    .iter()
                    .find(|port| port.name == name)
                    .cloned()
            });
            known.unwrap_or_else(|| Arc::new(CachePadded::new(PortCounters::new(name))))
        });
        Self {
            ports: ports.collect(),
            next_hop4: NextHopView::default(),
            next_hop6: NextHopView::default(),
        }
    }

    /// Every port's counters.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = &PortCounters> {
        self.ports.iter().map(|port| &***port)
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
