//! What is shown of the SAs of an endpoint.

use esp::Suite;
use vswitch_api::declare_metrics;
use vswitch_api::metrics::{Metric, Reading, Unit};

use super::request::{Mode, Request};
use crate::counter::Counter;

const ENDPOINT: [&str; 2] = ["tenant", "endpoint"];

/// What an SA did so far; its worker writes, any thread reads.
#[derive(Debug, Default)]
pub struct SaCounters {
    /// Packets sealed, or opened.
    pub packets: Counter,
    /// Bytes of their payload: the tunnel's UDP datagrams, in tunnel mode its IP packets.
    pub bytes: Counter,
    /// When the last one was, in nanoseconds of the pipeline's clock; 0 before the first.
    pub used_ns: Counter,
    /// When the worker began to use it, in the same clock; 0 before that.
    pub since_ns: Counter,
    /// Packets that came before or too late.
    pub replayed: Counter,
    /// Packets with a wrong ICV.
    pub forged: Counter,
}

/// What passed between us and an endpoint whose peers require IPsec, and the SAs in use. The worker
/// writes it when it runs its timers; any thread reads.
#[derive(Debug)]
pub struct EndpointCounters {
    /// Its address.
    pub endpoint: String,
    /// Packets sealed, by all SAs so far.
    pub tx_packets: Counter,
    /// Bytes of their payload.
    pub tx_bytes: Counter,
    /// Packets opened.
    pub rx_packets: Counter,
    /// Bytes of their payload.
    pub rx_bytes: Counter,
    /// Packets that came before, or too late.
    pub replayed: Counter,
    /// Packets with a wrong ICV.
    pub forged: Counter,
    /// The SA that seals.
    pub outbound: SaView,
    /// The newest SA that opens what comes to the tunnel's port.
    pub inbound: SaView,
}

/// An SA in use, or none.
#[derive(Debug, Default)]
pub struct SaView {
    /// The SPI; 0 if there is no SA.
    spi: Counter,
    /// The place in [`Suite::ALL`].
    suite: Counter,
    /// Bits: ESN, tunnel mode, in UDP.
    traits: Counter,
    since_ns: Counter,
    soft_ns: Counter,
    packets: Counter,
    bytes: Counter,
}

/// What a [`SaView`] showed a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownSa {
    /// The SPI.
    pub spi: u32,
    /// The suite.
    pub suite: Suite,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Transport or tunnel mode.
    pub mode: Mode,
    /// Whether ESP is carried in UDP.
    pub in_udp: bool,
    /// When it began, in nanoseconds of the pipeline's clock.
    pub since_ns: u64,
    /// When it is to be replaced; `None` if its time does not say.
    pub soft_ns: Option<u64>,
    /// Packets so far.
    pub packets: u64,
    /// Bytes of their payload.
    pub bytes: u64,
}

impl SaView {
    /// The SA in use; `None` if there is none.
    pub fn get(&self) -> Option<ShownSa> {
        let spi = u32::try_from(self.spi.get()).ok().filter(|spi| *spi > 0)?;
        let traits = self.traits.get();
        Some(ShownSa {
            spi,
            suite: *Suite::ALL.get(self.suite.get() as usize)?,
            esn: traits & 1 != 0,
            mode: match traits & 2 {
                0 => Mode::Transport,
                _ => Mode::Tunnel,
            },
            in_udp: traits & 4 != 0,
            since_ns: self.since_ns.get(),
            soft_ns: Some(self.soft_ns.get()).filter(|at| *at != u64::MAX),
            packets: self.packets.get(),
            bytes: self.bytes.get(),
        })
    }

    pub(crate) fn set(&self, sa: Option<(&Request, Suite, &SaCounters)>) {
        let Some((request, suite, counters)) = sa else {
            return self.spi.set(0);
        };
        let place = Suite::ALL.iter().position(|each| *each == suite);
        let tunnel = request.mode == Mode::Tunnel;
        let traits = [request.esn, tunnel, request.encapsulation.is_some()];
        let traits = traits
            .iter()
            .rev()
            .fold(0, |bits, is| bits << 1 | u64::from(*is));
        let since_ns = counters.since_ns.get();
        self.suite.set(place.unwrap_or_default() as u64);
        self.traits.set(traits);
        self.since_ns.set(since_ns);
        let soft_ns = since_ns.saturating_add(request.lifetime.soft.age_ns);
        self.soft_ns.set(soft_ns);
        self.packets.set(counters.packets.get());
        self.bytes.set(counters.bytes.get());
        self.spi.set(request.spi.into());
    }
}

impl EndpointCounters {
    /// The metrics of an endpoint, each with what it reads.
    pub const METRICS: &'static [Reading<Self, 2>] = declare_metrics! {
        ENDPOINT;
        gauge "vswitch_ipsec_up" Bool
            "Whether there are SAs in both directions; without them nothing passes."
            => |it| (it.outbound.get().is_some() && it.inbound.get().is_some()).into();
        counter "vswitch_ipsec_tx_packets_total" Number
            "Tunnel packets sealed for the endpoint."
            => |it| it.tx_packets.get();
        counter "vswitch_ipsec_tx_bytes_total" Bytes
            "Bytes that ESP carried to the endpoint."
            => |it| it.tx_bytes.get();
        counter "vswitch_ipsec_rx_packets_total" Number
            "ESP packets of the endpoint that were opened."
            => |it| it.rx_packets.get();
        counter "vswitch_ipsec_rx_bytes_total" Bytes
            "Bytes that ESP carried from the endpoint."
            => |it| it.rx_bytes.get();
        counter "vswitch_ipsec_replayed_packets_total" Number
            "ESP packets with a sequence number that came before, or too late."
            => |it| it.replayed.get();
        counter "vswitch_ipsec_icv_failures_total" Number
            "ESP packets with a wrong integrity check value."
            => |it| it.forged.get();
    };

    /// The metric of the age of [`Self::outbound`].
    pub const AGE: Metric<2> = Metric::gauge(
        "vswitch_ipsec_sa_age_seconds",
        Unit::Seconds,
        ENDPOINT,
        "The age of the SA that seals packets to the endpoint; absent without one.",
    );

    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            replayed: Counter::default(),
            forged: Counter::default(),
            outbound: SaView::default(),
            inbound: SaView::default(),
        }
    }

    pub(crate) fn set(&self, sent: Totals, received: Totals) {
        self.tx_packets.set(sent.packets);
        self.tx_bytes.set(sent.bytes);
        self.rx_packets.set(received.packets);
        self.rx_bytes.set(received.bytes);
        self.replayed.set(received.replayed);
        self.forged.set(received.forged);
    }
}

/// What SAs did, summed up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    packets: u64,
    bytes: u64,
    replayed: u64,
    forged: u64,
}

impl Totals {
    pub(crate) const NONE: Self = Self {
        packets: 0,
        bytes: 0,
        replayed: 0,
        forged: 0,
    };

    pub(crate) fn add(&mut self, counters: &SaCounters) {
        self.packets += counters.packets.get();
        self.bytes += counters.bytes.get();
        self.replayed += counters.replayed.get();
        self.forged += counters.forged.get();
    }
}

#[cfg(test)]
mod tests {
    use esp::Lifetime;

    use super::*;
    use crate::ipsec::request::UdpPorts;

    #[test]
    fn sa_is_shown_as_it_is() {
        let view = SaView::default();
        assert_eq!(view.get(), None);
        let own = [192, 0, 2, 2].into();
        let ports = UdpPorts {
            own: 4500,
            peer: 4500,
        };
        for traits in 0..8 {
            for (suite, soft_ns) in Suite::ALL.into_iter().zip([u64::MAX, 0, 7, 9]) {
                let mut lifetime = Lifetime::UNBOUNDED;
                lifetime.soft.age_ns = soft_ns;
                let request = Request {
                    spi: 0x1234,
                    own,
                    peer: own,
                    mode: match traits & 2 != 0 {
                        true => Mode::Tunnel,
                        false => Mode::Transport,
                    },
                    esn: traits & 1 != 0,
                    encapsulation: (traits & 4 != 0).then_some(ports),
                    own_port: None,
                    peer_port: None,
                    lifetime,
                };
                let counters = SaCounters::default();
                counters.since_ns.set(5);
                counters.packets.set(3);
                counters.bytes.set(300);
                view.set(Some((&request, suite, &counters)));
                let expected = ShownSa {
                    spi: 0x1234,
                    suite,
                    esn: request.esn,
                    mode: request.mode,
                    in_udp: request.encapsulation.is_some(),
                    since_ns: 5,
                    soft_ns: soft_ns.checked_add(5),
                    packets: 3,
                    bytes: 300,
                };
                assert_eq!(view.get(), Some(expected));
            }
        }
        view.set(None);
        assert_eq!(view.get(), None);
    }
}
