//! The model of `docs/reference/ipsec.md`, row by row in the page's order. Ciphers are those of
//! [`crate::oracle::esp`]; the replay window is a set of numbers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use pipeline::ipsec::Direction;
use tenant_config::{IpsecConfig, IpsecSuite, Protection};

use super::*;
use crate::oracle::esp::Secret;
use crate::oracle::ipsec_frames::{DUMMY, ESP, IKE_PORT, NAT_PORT, Sa};

/// "Fewer than 8 SAs in that direction."
const SAS_OF_ENDPOINT: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// What the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Acquire(IpAddr),
    Ike {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

/// What is counted of an SA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) replayed: u64,
    pub(crate) forged: u64,
}

#[derive(Debug)]
struct Installed {
    sa: Sa,
    since_ns: u64,
    used: Use,
    /// Inbound: the numbers that came. Outbound: the last one is the highest here.
    numbers: BTreeSet<u64>,
}

impl Installed {
    fn new(sa: &Sa, since_ns: u64) -> Self {
        Self {
            sa: sa.clone(),
            since_ns,
            used: Use::default(),
            numbers: BTreeSet::new(),
        }
    }

    fn top(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(0)
    }

    /// "An SA ends with its hard limit in packets, bytes or seconds."
    fn has_expired(&self, now_ns: u64) -> bool {
        let hard = &self.sa.hard;
        self.used.packets >= hard.packets
            || self.used.bytes >= hard.bytes
            || now_ns - self.since_ns >= hard.age_ns
    }

    fn carried(&mut self, bytes: usize) {
        self.used.packets += 1;
        self.used.bytes += bytes as u64;
    }

    /// The whole number of a packet with that lower half: with ESN the only one that lies in the
    /// window or within 2^32 of where it begins. `None` if it came before, is too old, or is none.
    fn number(&self, low: u32, window: u64) -> Option<u64> {
        let least = i128::from(self.top()) + 1 - i128::from(window);
        let number = match self.sa.esn {
            false => low.into(),
            true => least + (i128::from(low) - least).rem_euclid(1 << 32),
        };
        let number = u64::try_from(number).ok().filter(|_| number >= least)?;
        (number > 0 && !self.numbers.contains(&number)).then_some(number)
    }
}

/// The SAs of a switch, and what it remembers of the endpoints.
#[derive(Debug, Default)]
pub(crate) struct Ipsec {
    inbound: BTreeMap<u32, Installed>,
    outbound: BTreeMap<(IpAddr, u32), Installed>,
    /// The newest outbound policy of each endpoint.
    policies: BTreeMap<IpAddr, u32>,
    /// The SA that sealed packets to each endpoint last, or does.
    last: BTreeMap<IpAddr, Sa>,
    ike: BTreeMap<IpAddr, Bucket>,
    acquired_ns: BTreeMap<IpAddr, u64>,
    told: Vec<Told>,
}

/// A packet that may be IPsec's.
enum Kind {
    /// What is behind the IP header, and behind UDP if it is there.
    Esp {
        in_udp: bool,
    },
    /// The bytes in front of the message.
    Ike {
        marker: usize,
    },
    Keepalive,
    Nothing,
}

/// What an SA has carried: where it came from, and whether a UDP checksum counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) by: IpAddr,
    pub(super) checked: bool,
}

impl Model {
    /// What the daemon was told since it was asked last.
    pub(crate) fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.ipsec.told)
    }

    /// What is counted of each SA.
    pub(crate) fn used(&self) -> Vec<(Direction, u32, Use)> {
        let inbound = self.ipsec.inbound.values().map(|it| (Direction::In, it));
        let outbound = self.ipsec.outbound.values().map(|it| (Direction::Out, it));
        let all = inbound.chain(outbound);
        all.map(|(direction, it)| (direction, it.sa.spi, it.used.clone()))
            .collect()
    }

    pub(crate) fn install_in(&mut self, now_ns: u64, sa: &Sa) {
        let inbound = &mut self.ipsec.inbound;
        let same = inbound.values().filter(|other| other.sa.peer == sa.peer);
        if same.count() < SAS_OF_ENDPOINT {
            inbound.insert(sa.spi, Installed::new(sa, now_ns));
        }
    }

    /// Installs an SA, and makes it the newest policy.
    pub(crate) fn install_out(&mut self, now_ns: u64, sa: &Sa) {
        let outbound = &mut self.ipsec.outbound;
        let same = outbound.keys().filter(|(peer, _)| *peer == sa.peer);
        if same.count() < SAS_OF_ENDPOINT {
            outbound.insert((sa.peer, sa.spi), Installed::new(sa, now_ns));
            self.ipsec.policies.insert(sa.peer, sa.spi);
            self.ipsec.last.insert(sa.peer, sa.clone());
            self.ipsec.acquired_ns.remove(&sa.peer);
        }
    }

    pub(crate) fn remove_in(&mut self, spi: u32) {
        self.ipsec.inbound.remove(&spi);
    }

    pub(crate) fn remove_out(&mut self, peer: IpAddr, spi: u32) {
        self.ipsec.outbound.remove(&(peer, spi));
    }

    pub(crate) fn wipe(&mut self) {
        self.ipsec.inbound.clear();
        self.ipsec.outbound.clear();
    }

    /// SAs that have reached a hard limit are gone.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        let ipsec = &mut self.ipsec;
        ipsec.inbound.retain(|_, it| !it.has_expired(now_ns));
        ipsec.outbound.retain(|_, it| !it.has_expired(now_ns));
    }

    fn rules(&self) -> Option<&IpsecConfig> {
        self.config.tunnel.as_ref()?.ipsec.as_ref()
    }

    /// Whether a peer at that endpoint requires IPsec.
    pub(crate) fn requires_ipsec(&self, endpoint: IpAddr) -> bool {
        let peers = self.config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        self.rules().is_some()
            && peers
                .filter(|peer| peer.vtep == endpoint)
                .any(|peer| peer.ipsec == Protection::Required)
    }

    /// The SA that may seal packets to that endpoint.
    fn sealer(&self, endpoint: IpAddr) -> Option<&Installed> {
        let spi = self.ipsec.policies.get(&endpoint)?;
        let newest = self.ipsec.outbound.get(&(endpoint, *spi))?;
        (!newest.has_expired(self.now_ns)).then_some(newest)
    }

    /// Into 5.
    pub(super) fn may_enter(&self, endpoint: IpAddr) -> Result<(), DropReason> {
        if !self.requires_ipsec(endpoint) || self.sealer(endpoint).is_some() {
            return Ok(());
        }
        self.lacking.set(Some(endpoint));
        Err(IpsecNoSa)
    }

    /// "The daemon is told, at most once a second for each endpoint, unless an SA came meanwhile
    /// and is lost again."
    pub(super) fn acquire(&mut self) {
        let Some(endpoint) = self.lacking.take() else {
            return;
        };
        let last = self.ipsec.acquired_ns.get(&endpoint);
        if last.is_none_or(|last| self.now_ns - last >= SECOND_NS) {
            self.ipsec.acquired_ns.insert(endpoint, self.now_ns);
            self.ipsec.told.push(Told::Acquire(endpoint));
        }
    }

    /// "The largest inner packet follows from the dearest suite that the configuration allows and
    /// from the SA that is in use, or was last: ESP in UDP (8 bytes) and tunnel mode (an IP
    /// header)." `mtu` is the path's; without `in_use` there was no SA yet.
    pub(super) fn carries_sealed(&self, endpoint: IpAddr, mtu: u16, in_use: bool) -> u16 {
        let header = if endpoint.is_ipv4() { 20 } else { 40 };
        let mut room = usize::from(mtu) - header;
        if let Some(sa) = self.ipsec.last.get(&endpoint).filter(|_| in_use) {
            room -= if sa.in_udp.is_some() { 8 } else { 0 };
            room -= if sa.whole { header } else { 0 };
        }
        let suites = &self.rules().expect("IPsec").suites;
        let longest = |suite: &IpsecSuite| {
            let (iv, alignment) = Secret::lengths(*suite);
            let text = room - 8 - iv - 16;
            // Behind the payload are its padding's length and the next header.
            text - text % alignment - 2
        };
        let payload = suites.iter().map(longest).min().expect("a suite");
        // UDP, the tunnel's header and the inner Ethernet header.
        (payload - 8 - 8 - 14) as u16
    }

    /// A frame to an endpoint without what ESP adds, as "the outer packet" of `tunnel.md` describes
    /// it.
    pub(crate) fn bare(&self, endpoint: IpAddr, frame: &[u8]) -> Result<Vec<u8>, String> {
        if !self.requires_ipsec(endpoint) {
            return Ok(frame.to_vec());
        }
        let installed = self.sealer(endpoint).ok_or("there is no SA")?;
        let sa = &installed.sa;
        let (ethernet, packet) = frame.split_at_checked(14).ok_or("no packet")?;
        let (upper, at) = if endpoint.is_ipv4() { (9, 20) } else { (6, 40) };
        if packet.len() < at || usize::from(packet[0] >> 4) != if at == 20 { 4 } else { 6 } {
            return Err("another family".to_owned());
        }
        if at == 20 && ones_complement_sum(&packet[..20]) != 0xffff {
            return Err("a wrong outer header checksum".to_owned());
        }
        let (mut header, mut esp) = (packet[..at].to_vec(), &packet[at..]);
        let length = if at == 20 { packet.len() } else { esp.len() };
        if usize::from(be16(&header, if at == 20 { 2 } else { 4 })) != length {
            return Err("another length".to_owned());
        }
        if header[upper] != if sa.in_udp.is_some() { UDP } else { ESP } {
            return Err("another protocol".to_owned());
        }
        if let Some(port) = sa.in_udp {
            let addresses = &packet[at - if at == 20 { 8 } else { 32 }..at];
            let sums = match at {
                20 => be16(esp, 6) == 0,
                _ => be16(esp, 6) != 0 && tunnel::udp_sum(addresses, esp) == 0xffff,
            };
            let right = be16(esp, 0) == NAT_PORT && be16(esp, 2) == port;
            if !right || usize::from(be16(esp, 4)) != esp.len() || !sums {
                return Err("another UDP header".to_owned());
            }
            esp = &esp[8..];
        }
        let payload = unsealed(installed, endpoint, esp)?;
        if !sa.whole {
            set_upper(&mut header, UDP, payload.len());
            return Ok([ethernet, &header, &payload].concat());
        }
        // "Its outer IP header is that of the table there."
        let inside = payload.get(..at).ok_or("no packet inside")?;
        set_upper(&mut header, UDP, payload.len() - at);
        if header != inside {
            return Err("another header inside".to_owned());
        }
        Ok([ethernet, &payload].concat())
    }

    /// A frame has left, sealed.
    pub(crate) fn sealed(&mut self, endpoint: IpAddr, bare: &[u8]) {
        let Some(spi) = self.ipsec.policies.get(&endpoint) else {
            return;
        };
        let header = if endpoint.is_ipv4() { 20 } else { 40 };
        if let Some(newest) = self.ipsec.outbound.get_mut(&(endpoint, *spi)) {
            let next = newest.top() + 1;
            newest.numbers = [next].into();
            let around = if newest.sa.whole { 14 } else { 14 + header };
            newest.carried(bare.len() - around);
        }
    }

    fn kind(&self, packet: &Packet<'_>) -> Option<Kind> {
        let tunnel = self.config.tunnel.as_ref()?;
        self.rules()?;
        if packet.destination != tunnel.vtep {
            return None;
        }
        if packet.upper == Some(ESP) {
            return Some(Kind::Esp { in_udp: false });
        }
        let (_, port) = packet.udp_ports()?;
        if port == IKE_PORT {
            return Some(Kind::Ike { marker: 0 });
        }
        // "UDP to our endpoint's port 4500 is by its payload."
        (port == NAT_PORT).then(|| match &packet.payload[8..] {
            [0, 0, 0, 0, _, ..] => Kind::Ike { marker: 4 },
            [0xff] => Kind::Keepalive,
            [] | [_] | [_, _] | [_, _, _] | [0, 0, 0, 0] => Kind::Nothing,
            _ => Kind::Esp { in_udp: true },
        })
    }

    /// The rows of ESP, of port 4500 and of IKE. `None` for what is none of them; otherwise what is
    /// behind ESP has passed the rows that follow.
    pub(super) fn ipsec_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Result<Outcome, DropReason>> {
        let kind = self.kind(packet)?;
        // ESP 1 and IKE 1
        if is_group(ethernet.destination) {
            return Some(Err(DstMac));
        }
        if packet.fragment != Fragment::No {
            return Some(Err(EspFragment));
        }
        Some(match kind {
            Kind::Keepalive => Err(Absorbed),
            Kind::Nothing => Err(EspMalformed),
            Kind::Ike { marker } => Err(self.ike(packet, marker)),
            Kind::Esp { in_udp } => self.esp(uplink, ethernet, packet, in_udp),
        })
    }

    /// The rows of IKE from 2 on.
    fn ike(&mut self, packet: &Packet<'_>, marker: usize) -> DropReason {
        // IKE 2
        if !self.requires_ipsec(packet.source) {
            return IkePeer;
        }
        // IKE 3
        let length = usize::from(be16(packet.payload, 4));
        if !(8..=packet.payload.len()).contains(&length) {
            return IkeMalformed;
        }
        let datagram = &packet.payload[..length];
        let addresses = match packet.source {
            IpAddr::V4(_) => &packet.whole[12..20],
            IpAddr::V6(_) => &packet.whole[8..40],
        };
        let right = match (be16(datagram, 6), packet.source) {
            (0, IpAddr::V4(_)) => true,
            (sum, _) => sum != 0 && tunnel::udp_sum(addresses, datagram) == 0xffff,
        };
        let message = datagram.get(8 + marker..).unwrap_or_default();
        if !right || message.len() < 28 || message.len() > 2048 {
            return IkeMalformed;
        }
        // IKE 4
        let now_ns = self.now_ns;
        let bucket = self.ipsec.ike.entry(packet.source);
        if !bucket.or_insert_with(|| Bucket::new(50)).take(now_ns, 1) {
            return IkeRate;
        }
        let (from, to) = packet.udp_ports().expect("UDP");
        self.ipsec.told.push(Told::Ike {
            from: (packet.source, from).into(),
            to: (packet.destination, to).into(),
            bytes: message.to_vec(),
        });
        Absorbed
    }

    /// The rows of ESP from 2 on.
    fn esp(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
        in_udp: bool,
    ) -> Result<Outcome, DropReason> {
        // ESP 2
        let header = if packet.source.is_ipv4() { 20 } else { 40 };
        let whole_udp = || usize::from(be16(packet.payload, 4)) == packet.payload.len();
        if packet.whole.len() - packet.payload.len() != header || (in_udp && !whole_udp()) {
            return Err(EspMalformed);
        }
        let esp = if in_udp {
            &packet.payload[8..]
        } else {
            packet.payload
        };
        let (payload, next_header, spi) = self.unsealed(packet.source, esp)?;
        let sa = self.ipsec.inbound[&spi].sa.clone();
        // ESP 10
        let (right, inside) = match (sa.whole, packet.source) {
            (false, _) => {
                let mut packet = packet.whole[..header].to_vec();
                set_upper(&mut packet, UDP, payload.len());
                packet.extend(&payload);
                (UDP, packet)
            }
            (true, IpAddr::V4(_)) => (4, payload),
            (true, IpAddr::V6(_)) => (41, payload),
        };
        if next_header != right {
            return Err(EspSelector);
        }
        if !sa.whole && inside.len() >= header + 8 && !sa.has_ports(&inside[header..]) {
            return Err(EspSelector);
        }
        self.inside(uplink, ethernet, packet, (&sa, in_udp, inside))
    }

    /// ESP 11 and 12, and the rows behind them: what comes out of ESP.
    fn inside(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        outer: &Packet<'_>,
        (sa, in_udp, mut inside): (&Sa, bool, Vec<u8>),
    ) -> Result<Outcome, DropReason> {
        // ESP 11
        let passed = parse(outer, &inside)?;
        self.rows_4_to_6(uplink, &passed)?;
        // ESP 12
        if sa.whole {
            let ends = (passed.source, passed.destination);
            let ports = passed.udp_ports().is_some() && sa.has_ports(passed.payload);
            if ends != (outer.source, outer.destination) || !ports {
                return Err(EspSelector);
            }
            let (own, around) = (tunnel::ecn(&inside), tunnel::ecn(outer.whole));
            let ecn = tunnel::combined_ecn(own, around).ok_or(TunnelEcn)?;
            inside = tunnel::with_ecn(&inside, ecn);
        }
        let carried = Carried {
            by: sa.peer,
            checked: sa.whole || !in_udp,
        };
        let packet = parse(outer, &inside)?;
        self.behind_ipsec(uplink, ethernet, &packet, Some(carried))
    }

    /// ESP 2 to 9: what the packet carries, its next header, and the SPI.
    fn unsealed(&mut self, from: IpAddr, esp: &[u8]) -> Result<(Vec<u8>, u8, u32), DropReason> {
        if esp.len() < 8 {
            return Err(EspMalformed);
        }
        let word = |at: usize| u32::from(be16(esp, at)) << 16 | u32::from(be16(esp, at + 2));
        let (spi, now_ns) = (word(0), self.now_ns);
        let window = self.rules().expect("IPsec").replay_window;
        // ESP 3
        let installed = self.ipsec.inbound.get_mut(&spi).ok_or(EspSpi)?;
        // ESP 4
        if installed.sa.peer != from {
            return Err(EspPeer);
        }
        // ESP 5
        if installed.has_expired(now_ns) {
            return Err(EspExpired);
        }
        // ESP 6
        let (iv, alignment) = Secret::lengths(installed.sa.secret.suite);
        let text = esp.len().checked_sub(8 + iv + 16).ok_or(EspMalformed)?;
        if text < alignment || text % alignment != 0 {
            return Err(EspMalformed);
        }
        // ESP 7
        let Some(number) = installed.number(word(4), window.into()) else {
            installed.used.replayed += 1;
            return Err(EspReplay);
        };
        // ESP 8
        let numbers = installed.sa.numbers(number);
        let Some(text) = installed.sa.secret.open(numbers, esp) else {
            installed.used.forged += 1;
            return Err(EspIcv);
        };
        installed.numbers.insert(number);
        // ESP 9
        let (payload, next_header) = without_padding(&text).ok_or(EspMalformed)?;
        if next_header == DUMMY {
            installed.carried(0);
            return Err(EspDummy);
        }
        installed.carried(payload.len());
        Ok((payload.to_vec(), next_header, spi))
    }
}

impl Sa {
    /// Whether a UDP header has the ports of its selectors.
    fn has_ports(&self, udp: &[u8]) -> bool {
        let fits = |selector: Option<u16>, port| selector.is_none_or(|only| only == port);
        fits(self.peer_port, be16(udp, 0)) && fits(self.own_port, be16(udp, 2))
    }
}

/// The payload and the next header of a text with padding 1, 2, 3 …
fn without_padding(text: &[u8]) -> Option<(&[u8], u8)> {
    let (rest, end) = text.split_at(text.len() - 2);
    let payload = rest.len().checked_sub(end[0].into())?;
    let right = (1..=end[0]).eq(rest[payload..].iter().copied());
    right.then_some((&rest[..payload], end[1]))
}

/// What we sealed, once everything about it is right.
fn unsealed(installed: &Installed, endpoint: IpAddr, esp: &[u8]) -> Result<Vec<u8>, String> {
    let sa = &installed.sa;
    let next = installed.top() + 1;
    let secret = &sa.secret;
    let iv = secret.iv(next);
    if esp.get(8..8 + iv.len()) != Some(&iv) {
        return Err("another IV".to_owned());
    }
    let text = secret.open(sa.numbers(next), esp);
    let text = text.ok_or("not sealed by the newest policy's SA with the next number")?;
    let (payload, next_header) = without_padding(&text).ok_or("wrong padding")?;
    if secret.text(payload, next_header) != text {
        return Err("more padding than there must be".to_owned());
    }
    let right = match (sa.whole, endpoint) {
        (false, _) => UDP,
        (true, IpAddr::V4(_)) => 4,
        (true, IpAddr::V6(_)) => 41,
    };
    if next_header != right {
        return Err(format!("next header {next_header}"));
    }
    Ok(payload.to_vec())
}

/// The packet of the same family that these bytes are.
fn parse<'a>(outer: &Packet<'_>, bytes: &'a [u8]) -> Result<Packet<'a>, DropReason> {
    match outer.source {
        IpAddr::V4(_) => ipv4(bytes),
        IpAddr::V6(_) => ipv6(bytes),
    }
}

/// Writes the upper layer and its length into an IP header, with a right checksum.
fn set_upper(header: &mut [u8], upper: u8, payload: usize) {
    if header.len() == 20 {
        header[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
        header[9] = upper;
        header[10..12].fill(0);
        let sum = !ones_complement_sum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        header[6] = upper;
    }
}
