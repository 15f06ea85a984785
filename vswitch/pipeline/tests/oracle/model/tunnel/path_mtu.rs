//! The promise about path MTUs and unreachable endpoints. It is not the rule by which the switch
//! keeps it: the model knows neither secret nor hash, and looks at the packets that have left.
//!
//! A path MTU goes down only by a report that shows what only a witness of our packets can know: a
//! source port that we used towards that endpoint, in a packet of a size that we sent there within
//! the last ten seconds. A router that quotes enough of a packet at once is always heard, unless
//! too many reports were wrong: three of its own, or a hundred of all, within ten minutes.
//!
//! That an endpoint cannot be reached is believed in the same way, also of a smaller packet, of
//! which the time does not matter. It changes nothing but what is shown.

use super::*;

/// How long a reported path MTU is valid.
pub(crate) const PATH_MTU_NS: u64 = 600 * SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;

/// Whether the switch follows a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belief {
    /// It does.
    Must,
    /// The promise leaves it open.
    May,
    /// It does not.
    Never,
}

/// A packet that left into the tunnel, from the outer IP header on.
#[derive(Debug)]
struct Sent {
    at_ns: u64,
    packet: Vec<u8>,
}

/// What is reported about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Complaint {
    /// No link beyond carries more bytes than that.
    TooBig(u32),
    /// It did not arrive.
    Lost,
}

impl Complaint {
    /// "ICMP type 3 with code 0 to 4, 9, 10 or 13, ICMPv6 type 1 with code 0 to 6, and type 2."
    pub(in super::super) fn of(packet: &Packet<'_>) -> Option<Self> {
        let message = packet.payload;
        let code = message.get(1);
        match packet.source {
            IpAddr::V4(_) if packet.icmpv4_type() == Some(3) => match code? {
                4 if message.len() < 8 => Some(Self::TooBig(0)),
                4 => Some(Self::TooBig(be16(message, 6).into())),
                0..=3 | 9 | 10 | 13 => Some(Self::Lost),
                _ => None,
            },
            IpAddr::V6(_) if packet.icmpv6_type() == Some(2) => match message.len() {
                0..8 => Some(Self::TooBig(0)),
                _ => {
                    let [upper, lower] = [4, 6].map(|at| u32::from(be16(message, at)));
                    Some(Self::TooBig(upper * 65_536 + lower))
                }
            },
            IpAddr::V6(_) if packet.icmpv6_type() == Some(1) && *code? <= 6 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// A report that the switch has before it.
#[derive(Debug, Clone, Copy)]
struct Pending {
    peer: IpAddr,
    said: Complaint,
    from: IpAddr,
}

/// What the promise needs to know.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    sent: Vec<Sent>,
    /// By VTEP, the path MTU and the time at which it expires.
    path_mtus: BTreeMap<IpAddr, (u16, u64)>,
    pending: Option<Pending>,
    /// When reports were not believed, and from whom.
    rejected: Vec<(u64, IpAddr, bool)>,
}

/// The outer headers of one family.
struct Layout {
    /// Where UDP begins.
    udp: usize,
    ttl: usize,
    from: usize,
    to: usize,
}

const LAYOUT4: Layout = Layout {
    udp: 20,
    ttl: 8,
    from: 12,
    to: 16,
};
const LAYOUT6: Layout = Layout {
    udp: 40,
    ttl: 7,
    from: 8,
    to: 24,
};

impl Layout {
    fn of(vtep: IpAddr) -> Self {
        if vtep.is_ipv4() { LAYOUT4 } else { LAYOUT6 }
    }

    fn address(&self, packet: &[u8], at: usize) -> IpAddr {
        match self.udp {
            20 => ipv4_at(packet, at).into(),
            _ => ipv6_at(packet, at).into(),
        }
    }

    /// Bytes of the packet, as its IP header says.
    fn length(&self, packet: &[u8]) -> usize {
        match self.udp {
            20 => usize::from(be16(packet, 2)),
            _ => 40 + usize::from(be16(packet, 4)),
        }
    }

    /// The outer headers without what routers change: class, TTL and IPv4's checksum.
    fn settled(&self, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        packet[self.ttl] = 0;
        match self.udp {
            20 => {
                packet[1] = 0;
                packet[10..12].fill(0);
            }
            _ => {
                packet[0] &= 0xf0;
                packet[1] &= 0x0f;
            }
        }
        packet
    }

    /// The outer headers without what differs from packet to packet, either: source port, lengths
    /// and UDP checksum, of which it matters only whether there is one.
    fn fixed(&self, packet: &[u8]) -> Vec<u8> {
        let mut packet = self.settled(&packet[..packet.len().min(self.udp + 16)]);
        let length = if self.udp == 20 { 2 } else { 4 };
        packet[length..length + 2].fill(0);
        packet[self.udp..self.udp + 2].fill(0);
        packet[self.udp + 4..self.udp + 6].fill(0);
        let has_sum = be16(&packet, self.udp + 6) != 0;
        packet[self.udp + 6..self.udp + 8].fill(u8::from(has_sum));
        packet
    }
}

impl Model {
    pub(super) fn path_mtu(&self, vtep: IpAddr) -> Option<u16> {
        let (mtu, until_ns) = self.witness.path_mtus.get(&vtep)?;
        (self.now_ns < *until_ns).then_some(*mtu)
    }

    /// A frame has left into the tunnel.
    pub(crate) fn left(&mut self, frame: &[u8]) {
        let (at_ns, packet) = (self.now_ns, frame[14..].to_vec());
        self.witness.sent.push(Sent { at_ns, packet });
    }

    /// Whether the switch followed the report that it was given last.
    pub(crate) fn heard(&mut self, absorbed: bool) {
        let Some(Pending { peer, said, from }) = self.witness.pending.take() else {
            return;
        };
        if !absorbed {
            let of_loss = said == Complaint::Lost;
            self.witness.rejected.push((self.now_ns, from, of_loss));
            return;
        }
        let Complaint::TooBig(said) = said else {
            return;
        };
        let uplink = self.config.uplink.as_ref().expect("the tunnel's uplink");
        let configured = self.tunnel().peers.iter().find(|it| it.vtep == peer);
        let configured = configured.and_then(|it| it.mtu).unwrap_or(uplink.mtu);
        let present = self.path_mtu(peer).unwrap_or(configured);
        if let Ok(said) = u16::try_from(said)
            && (self.least()..present).contains(&said)
        {
            let until_ns = self.now_ns + PATH_MTU_NS;
            self.witness.path_mtus.insert(peer, (said, until_ns));
        }
    }

    /// "A value below 576 bytes (1,280 with an IPv6 gateway) plus what the tunnel adds, or below
    /// 1,280 over IPv6, is ignored."
    fn least(&self) -> u16 {
        let with_ipv6 = self.config.gateway.ipv6.is_some();
        let inner = if with_ipv6 { 1280 } else { 576 };
        match self.tunnel().vtep {
            IpAddr::V4(_) => inner + 50,
            IpAddr::V6(_) => (inner + 70).max(1280),
        }
    }

    /// What a packet to one of the uplink's own addresses must come to, if it reports a path MTU or
    /// that a packet was lost.
    pub(in super::super) fn report(&mut self, packet: &Packet<'_>) -> Option<Outcome> {
        let tunnel = self.config.tunnel.as_ref()?;
        let message = packet.payload;
        let said = Complaint::of(packet)?;
        if message.len() < 8 {
            return Some(Outcome::Report(Belief::Never));
        }
        let right = match packet.source {
            IpAddr::V4(_) => ones_complement_sum(message) == 0xffff,
            IpAddr::V6(_) => icmpv6_sum(packet) == 0xffff,
        };
        let layout = Layout::of(tunnel.vtep);
        let quote = &message[8..];
        let readable = right
            && packet.fragment == Fragment::No
            && packet.destination == tunnel.vtep
            && quote.len() >= layout.udp + 8
            && layout.address(quote, layout.from) == tunnel.vtep;
        if !readable {
            return Some(Outcome::Report(Belief::Never));
        }
        let peer = layout.address(quote, layout.to);
        let from = packet.source;
        self.witness.pending = Some(Pending { peer, said, from });
        let belief = self.belief(&layout, quote, peer, said);
        let trusted = belief != Belief::Must || self.trusts(from, said == Complaint::Lost);
        Some(Outcome::Report(if trusted { belief } else { Belief::May }))
    }

    fn belief(&self, layout: &Layout, quote: &[u8], peer: IpAddr, said: Complaint) -> Belief {
        let sound = layout.udp == 40 || ones_complement_sum(&quote[..20]) == 0xffff;
        let length = layout.length(quote);
        if !sound || length != layout.udp + usize::from(be16(quote, layout.udp + 4)) {
            return Belief::Never;
        }
        // A router reports nothing of a packet that fits.
        if let Complaint::TooBig(said) = said
            && usize::try_from(said).is_ok_and(|said| said >= length)
        {
            return Belief::Never;
        }
        let port = be16(quote, layout.udp);
        let to_peer = |sent: &&Sent| layout.address(&sent.packet, layout.to) == peer;
        let fixed = layout.fixed(quote);
        // It is seen in a packet of ours that has this source port, and could have this TTL.
        let witnessed = self.witness.sent.iter().filter(to_peer).any(|sent| {
            let ours = layout.fixed(&sent.packet);
            ours[..fixed.len()] == fixed
                && be16(&sent.packet, layout.udp) == port
                && (1..=sent.packet[layout.ttl]).contains(&quote[layout.ttl])
        });
        let within = |seconds: u64| {
            let since = self.now_ns.saturating_sub(seconds * SECOND_NS);
            let sent = self.witness.sent.iter().filter(to_peer);
            sent.filter(move |sent| sent.at_ns >= since)
        };
        let small = length <= usize::from(self.least());
        let timeless = said == Complaint::Lost && small;
        let lately = timeless || within(10).any(|sent| sent.packet.len() >= length);
        if !witnessed || !lately {
            return Belief::Never;
        }
        // The flow's ports are where a plain header ends.
        let shows = |sent: &Sent| {
            let inner = &sent.packet[layout.udp + 16..];
            let plain = match be16(inner, 12) {
                IPV4 => true,
                _ => [TCP, UDP, ICMPV6, 132, 33, 136, 50].contains(&inner[14 + 6]),
            };
            plain && quote.len() >= layout.udp + 16 + 14 + 64
        };
        let quoted = layout.settled(quote);
        let genuine = within(4).any(|sent| {
            let shown = quote.len().min(sent.packet.len());
            shows(sent) && layout.settled(&sent.packet)[..shown] == quoted[..shown]
        });
        // What goes to a group is not to the peer's MAC.
        let to_group = quote
            .get(layout.udp + 16)
            .is_none_or(|first| first % 2 == 1);
        // That a packet is too big is not reported of one that any path carries.
        if genuine && !to_group && (said == Complaint::Lost || !small) {
            Belief::Must
        } else {
            Belief::May
        }
    }

    /// Whether a source has said little of that kind that was wrong.
    fn trusts(&self, from: IpAddr, of_loss: bool) -> bool {
        let since = self.now_ns.saturating_sub(PATH_MTU_NS);
        let rejected = self.witness.rejected.iter();
        let lately = rejected.filter(|(at_ns, _, kind)| *at_ns >= since && *kind == of_loss);
        lately.clone().filter(|(_, who, _)| *who == from).count() < 3 && lately.count() < 100
    }
}
