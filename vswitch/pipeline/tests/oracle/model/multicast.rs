//! The rows of "Multicast and broadcast".

use tenant_config::{BroadcastUse, MulticastGroups};

use super::*;

/// "A member is believed for 260 seconds", and 2 after it has left.
const BELIEVED_NS: u64 = 260 * 1_000_000_000;
const LEFT_NS: u64 = 2 * 1_000_000_000;

/// Who sends to a group, or listens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listener {
    Port(usize),
    /// By the endpoint.
    Peer(IpAddr),
}

/// What a report says of a group: whether there is a listener, and the tag.
#[derive(Debug, Clone, Copy)]
struct Member {
    until_ns: u64,
    vid: Option<u16>,
}

/// Who listens to which group, and the limits.
#[derive(Debug, Default)]
pub(super) struct Groups {
    members: BTreeMap<(Listener, IpAddr), Member>,
    sent: BTreeMap<usize, Bucket>,
    got: BTreeMap<usize, Bucket>,
    /// The receivers that do not get the last frame, and why.
    pub(super) unsent: Vec<(usize, DropReason)>,
}

/// "The switch's own."
fn is_own(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(ip) => matches!(ip.octets(), [224, 0, 0, 1 | 2 | 22]),
        IpAddr::V6(ip) => match ip.segments() {
            [0xff00 | 0xff01, ..] => true,
            [0xff02, 0, 0, 0, 0, 0, 0, 1 | 2 | 0x16] => true,
            [0xff02, 0, 0, 0, 0, 0, 1, 2] | [0xff05, 0, 0, 0, 0, 0, 1, 3] => true,
            [0xff02, 0, 0, 0, 0, 1, high, _] => high >> 8 == 0xff,
            _ => false,
        },
    }
}

/// "Groups of the link: 224.0.0.0/24 and ff02::/16."
fn is_of_the_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
    }
}

/// RFC 1112, 6.4, and RFC 2464, 7.
fn mac_of(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

fn address_in(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => Ipv4Addr::from(octets).into(),
        Err(_) => {
            let octets = <[u8; 16]>::try_from(bytes).expect("an address");
            Ipv6Addr::from(octets).into()
        }
    }
}

/// The groups that a report names, and whether each has a listener.
fn reported(packet: &Packet<'_>) -> Vec<(IpAddr, bool)> {
    let message = packet.payload;
    if packet.fragment != Fragment::No {
        return Vec::new();
    }
    let (right, kind, size) = match packet.source {
        IpAddr::V4(_) => {
            let right = packet.upper == Some(IGMP) && ones_complement_sum(message) == 0xffff;
            (right, packet.igmp_type(), 4)
        }
        IpAddr::V6(_) => {
            let right = packet.upper == Some(ICMPV6) && icmpv6_sum(packet) == 0xffff;
            (right, packet.icmpv6_type(), 16)
        }
    };
    if !right {
        return Vec::new();
    }
    let at = if size == 4 { 4 } else { 8 };
    let one = |joins| match message.get(at..at + size) {
        Some(group) => vec![(address_in(group), joins)],
        None => Vec::new(),
    };
    match kind {
        Some(0x16) if size == 4 => return one(true),
        Some(0x17) if size == 4 => return one(false),
        Some(MLD_REPORT) if size == 16 => return one(true),
        Some(MLD_DONE) if size == 16 => return one(false),
        Some(0x22) if size == 4 => {}
        Some(MLDV2_REPORT) if size == 16 => {}
        _ => return Vec::new(),
    }
    let mut said = Vec::new();
    let Some(mut rest) = message.get(8..) else {
        return said;
    };
    for _ in 0..be16(message, 6) {
        if rest.len() < 4 + size {
            break;
        }
        let sources = usize::from(be16(rest, 2));
        let whole = 4 + size + sources * size + usize::from(rest[1]) * 4;
        if rest.len() < whole {
            break;
        }
        let group = address_in(&rest[4..4 + size]);
        match (rest[0], sources) {
            (1 | 3, 0) => said.push((group, false)),
            (1..=4, _) => said.push((group, true)),
            (5, 1..) => said.push((group, true)),
            _ => {}
        }
        rest = &rest[whole..];
    }
    said
}

impl Model {
    /// The receivers that did not get the last frame, and why.
    pub(crate) fn unsent(&self) -> Vec<(usize, DropReason)> {
        self.groups.unsent.clone()
    }

    fn allows_any(&self) -> bool {
        self.config.multicast != tenant_config::Multicast::default()
    }

    /// Whether the file lists the group, and it is not the switch's own.
    pub(super) fn is_listed_group(&self, group: IpAddr) -> bool {
        let listed = match &self.config.multicast.groups {
            MulticastGroups::Listed(nets) => nets.iter().any(|net| net.contains(&group)),
            MulticastGroups::Any(_) => group.is_multicast(),
        };
        listed && !is_own(group)
    }

    /// Out of the tunnel 10: "an IGMPv3 report from 0.0.0.0 to 224.0.0.22".
    pub(super) fn reports_groups(&self, packet: &Packet<'_>) -> bool {
        self.allows_any()
            && packet.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && packet.destination == IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22))
            && packet.igmp_type() == Some(0x22)
    }

    /// A report of MLD in an Ethernet group frame.
    pub(super) fn mld_said(
        &mut self,
        from: Listener,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) {
        let kind = packet.icmpv6_type();
        if matches!(kind, Some(MLD_REPORT | MLD_DONE | MLDV2_REPORT))
            && is_group(ethernet.destination)
        {
            self.said(from, ethernet, packet);
        }
    }

    fn said(&mut self, from: Listener, ethernet: &Ethernet<'_>, packet: &Packet<'_>) {
        if !self.allows_any() {
            return;
        }
        let now_ns = self.now_ns;
        for (group, joins) in reported(packet) {
            if !self.is_listed_group(group) {
                continue;
            }
            let room = match from {
                Listener::Port(_) => 64,
                Listener::Peer(_) => 256,
            };
            let of_sender = |it: &&(Listener, IpAddr)| it.0 == from;
            let known = self.groups.members.get(&(from, group)).copied();
            if joins {
                let count = self.groups.members.keys().filter(of_sender).count();
                if known.is_none() && count == room {
                    // What has ended makes room.
                    self.groups
                        .members
                        .retain(|key, it| key.0 != from || now_ns < it.until_ns);
                }
                let count = self.groups.members.keys().filter(of_sender).count();
                if known.is_some() || count < room {
                    let member = Member {
                        until_ns: now_ns + BELIEVED_NS,
                        vid: ethernet.tag.filter(|_| matches!(from, Listener::Port(_))),
                    };
                    self.groups.members.insert((from, group), member);
                }
                continue;
            }
            let Some(member) = self.groups.members.get_mut(&(from, group)) else {
                continue;
            };
            match from {
                Listener::Peer(_) => member.until_ns = member.until_ns.min(now_ns),
                Listener::Port(_) => member.until_ns = member.until_ns.min(now_ns + LEFT_NS),
            }
        }
    }

    fn is_member(&self, who: Listener, group: IpAddr) -> bool {
        let member = self.groups.members.get(&(who, group));
        member.is_some_and(|member| self.now_ns < member.until_ns)
    }

    pub(super) fn group_row(
        &mut self,
        from: Listener,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Outcome {
        if !self.allows_any() {
            return Multicast.into();
        }
        let group = packet.destination;
        let is_broadcast = !group.is_multicast();
        let right_mac = match is_broadcast {
            true => ethernet.destination == [0xff; 6],
            false => ethernet.destination == mac_of(group),
        };
        // Multicast 2
        if packet.source.is_ipv4() && packet.upper == Some(IGMP) {
            if !right_mac {
                return DstMac.into();
            }
            self.said(from, ethernet, packet);
            return Absorbed.into();
        }
        // Multicast 3
        let allowed = match from {
            _ if !is_broadcast => self.is_listed_group(group),
            Listener::Port(_) => self.config.multicast.broadcast == BroadcastUse::Allow,
            Listener::Peer(_) => false,
        };
        if !allowed {
            return Multicast.into();
        }
        // Multicast 4
        if !right_mac {
            return DstMac.into();
        }
        let now_ns = self.now_ns;
        let rate = |config: &SwitchConfig, port: usize| {
            let limit = config.ports[port].limits.multicast_pps;
            Bucket::new(limit.unwrap_or(1000).into())
        };
        let config = Arc::clone(&self.config);
        // Multicast 5
        if let Listener::Port(from) = from {
            let sent = self.groups.sent.entry(from);
            if !sent.or_insert_with(|| rate(&config, from)).take(now_ns, 1) {
                return RateMulticast.into();
            }
        }
        // Multicast 6
        let to_all = is_broadcast || is_of_the_link(group);
        let mut copies = Vec::new();
        for (number, port) in config.ports.iter().enumerate() {
            let listener = Listener::Port(number);
            if listener == from || !(to_all || self.is_member(listener, group)) {
                continue;
            }
            // Multicast 7
            if packet.whole.len() > usize::from(port.mtu) {
                self.groups.unsent.push((number, Mtu));
                continue;
            }
            let got = self.groups.got.entry(number);
            if !got.or_insert_with(|| rate(&config, number)).take(now_ns, 1) {
                self.groups.unsent.push((number, RateMulticast));
                continue;
            }
            // Multicast 8
            let mut bytes = Vec::new();
            bytes.extend(ethernet.destination);
            bytes.extend(port.gateway_mac.octets());
            let member = self.groups.members.get(&(listener, group));
            let member = member.filter(|member| now_ns < member.until_ns);
            if let Some(vid) = member.and_then(|member| member.vid) {
                bytes.extend([0x81, 0]);
                bytes.extend(vid.to_be_bytes());
            }
            bytes.extend(if packet.source.is_ipv4() { IPV4 } else { IPV6 }.to_be_bytes());
            bytes.extend(packet.whole);
            copies.push(Outcome::Forward { to: number, bytes });
        }
        if !is_broadcast && matches!(from, Listener::Port(_)) {
            let mut endpoints = Vec::new();
            let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
            for (number, peer) in peers.enumerate() {
                let listener = Listener::Peer(peer.vtep);
                if endpoints.contains(&peer.vtep) || !self.is_member(listener, group) {
                    continue;
                }
                endpoints.push(peer.vtep);
                let to = mac_of(group);
                let entered = self.enter_tunnel_to(number, to, packet, |reason, _| reason.into());
                match entered {
                    Outcome::Drop { reason, .. } => {
                        self.groups.unsent.push((self.uplink(), reason));
                    }
                    entered => copies.push(entered),
                }
            }
        }
        match copies.len() {
            0 => {
                let first = self.groups.unsent.first();
                first.map_or(NoMember, |(_, reason)| *reason).into()
            }
            1 => copies.remove(0),
            _ => Outcome::Copies(copies),
        }
    }
}
