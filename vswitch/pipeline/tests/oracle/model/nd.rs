//! ND and MLD: the shape of the messages, and what the gateway answers.

use super::*;

pub(super) const MLD_QUERY: u8 = 130;
pub(super) const MLD_REPORT: u8 = 131;
pub(super) const MLD_DONE: u8 = 132;
pub(super) const RS: u8 = 133;
pub(super) const RA: u8 = 134;
pub(super) const NS: u8 = 135;
pub(super) const NA: u8 = 136;
pub(super) const REDIRECT: u8 = 137;
pub(super) const MLDV2_REPORT: u8 = 143;
pub(super) const SOURCE_LINK_LAYER: u8 = 1;
pub(super) const TARGET_LINK_LAYER: u8 = 2;

pub(super) fn is_nd(icmp_type: u8) -> bool {
    (RS..=REDIRECT).contains(&icmp_type)
}

/// The first point of IPv6 6.
pub(super) fn nd_well_formed(icmp_type: u8, packet: &Packet<'_>) -> Result<(), DropReason> {
    if !is_nd(icmp_type) {
        return Ok(());
    }
    let message = packet.payload;
    let unicast_target = || !matches!(icmp_type, NS | NA) || !nd_target(message).is_multicast();
    let well_formed = packet.fragment == Fragment::No
        && packet.hop_limit == 255
        && message[1] == 0
        && message.len() >= nd_fixed_part(icmp_type)
        && nd_options_are_whole(icmp_type, message)
        && unicast_target()
        && icmpv6_sum(packet) == 0xffff;
    if well_formed {
        Ok(())
    } else {
        Err(NdMalformed)
    }
}

pub(super) fn nd_fixed_part(icmp_type: u8) -> usize {
    match icmp_type {
        RS => 8,
        RA => 16,
        NS | NA => 24,
        _ => 40,
    }
}

/// The target of a solicitation or advertisement whose fixed part is whole.
pub(super) fn nd_target(message: &[u8]) -> Ipv6Addr {
    ipv6_at(message, 8)
}

pub(super) struct NdOption<'a> {
    pub(super) kind: u8,
    /// The bytes behind type and length.
    pub(super) body: &'a [u8],
}

pub(super) fn nd_options_are_whole(icmp_type: u8, message: &[u8]) -> bool {
    let mut rest = &message[nd_fixed_part(icmp_type)..];
    while !rest.is_empty() {
        if rest.len() < 2 {
            return false;
        }
        let (kind, length) = (rest[0], usize::from(rest[1]) * 8);
        let link_layer = kind == SOURCE_LINK_LAYER || kind == TARGET_LINK_LAYER;
        if length == 0 || length > rest.len() || (link_layer && length != 8) {
            return false;
        }
        rest = &rest[length..];
    }
    true
}

/// The options of a message that [`nd_options_are_whole`].
pub(super) fn nd_options(icmp_type: u8, message: &[u8]) -> Vec<NdOption<'_>> {
    let mut rest = &message[nd_fixed_part(icmp_type)..];
    let mut options = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[1]) * 8;
        options.push(NdOption {
            kind: rest[0],
            body: &rest[2..length],
        });
        rest = &rest[length..];
    }
    options
}

pub(super) fn solicited_node(target: Ipv6Addr) -> IpAddr {
    let [.., a, b, c] = target.octets();
    let mut group = "ff02::1:ff00:0"
        .parse::<Ipv6Addr>()
        .expect("an address")
        .octets();
    group[13..].copy_from_slice(&[a, b, c]);
    Ipv6Addr::from(group).into()
}

/// RFC 4443 2.3: the sum over the pseudo-header and the message; 0xffff if the checksum is right.
pub(super) fn icmpv6_sum(packet: &Packet<'_>) -> u16 {
    let mut covered = Vec::new();
    covered.extend(&packet.whole[8..40]);
    covered.extend((packet.payload.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(packet.payload);
    ones_complement_sum(&covered)
}

/// A message of ND or MLD for the gateway, to one station, in a group frame.
pub(super) fn answers_nothing(ethernet: &Ethernet<'_>, packet: &Packet<'_>) -> bool {
    is_group(ethernet.destination)
        && !packet.destination.is_multicast()
        && matches!(
            packet.icmpv6_type(),
            Some(NA | NS | RS | MLD_REPORT | MLD_DONE | MLDV2_REPORT)
        )
}

impl Model {
    /// "No ND is ever forwarded." `None` for other messages.
    pub(super) fn nd_service(
        &mut self,
        from: usize,
        port: &PortConfig,
        icmp_type: u8,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let mac = port.gateway_mac.octets();
        match icmp_type {
            NA => {
                self.advertised(port, nd_target(packet.payload));
                Some(Absorbed.into())
            }
            MLD_REPORT | MLD_DONE | MLDV2_REPORT => Some(Absorbed.into()),
            NS if packet.source.is_unspecified() => {
                Some(self.detected(port, nd_target(packet.payload)))
            }
            NS => {
                let target = nd_target(packet.payload);
                let answer = Outcome::Reply(Answer::NeighborAdvertisement {
                    mac,
                    address: target,
                });
                if self.is_shared(target.into()) {
                    let asked = self.asked_for_shared((from, false), target.into(), NdUnknown);
                    return Some(asked.map_or_else(Outcome::from, |()| answer));
                }
                let known = target == port.gateway_mac.link_local()
                    || (port.dhcp_server && self.port_of_link_local(target.into()).is_some())
                    || self.answers_for(from, target.into());
                Some(if self.has6(port, target) {
                    Absorbed.into()
                } else if known {
                    answer
                } else {
                    NdUnknown.into()
                })
            }
            RS => Some(match self.config.gateway.ipv6 {
                Some(net) => Outcome::Reply(Answer::RouterAdvertisement {
                    mac,
                    mtu: self.advertised_mtu(port),
                    flags: self.autoconf(port),
                    prefix: net.trunc(),
                    resolvers: self.resolvers(),
                }),
                None => Absorbed.into(),
            }),
            _ => None,
        }
    }

    /// "`gateway.ipv6_autoconf` decides …": M, O and A.
    fn autoconf(&self, port: &PortConfig) -> [bool; 3] {
        let config = &self.written;
        let relayed = config.ports.iter().any(|port| port.dhcp_server);
        let served = serves6(config);
        let offered = served && offered6(port).is_some();
        let by_dhcp = [relayed || offered, relayed || served, false];
        match (config.gateway.ipv6_autoconf, port.addresses6) {
            (Ipv6Autoconf::None, _) => [false; 3],
            (Ipv6Autoconf::Slaac, Some(_)) => [false, relayed || served, true],
            (Ipv6Autoconf::Slaac, None) | (Ipv6Autoconf::Dhcpv6, _) => by_dhcp,
        }
    }

    /// "The recursive DNS servers … and the DNS search list".
    fn resolvers(&self) -> (Vec<[u8; 16]>, Vec<u8>) {
        let config = &self.written;
        match serves(config) {
            true => (ipv6_of(&config.gateway.dhcp.dns), search_of(config)),
            false => Default::default(),
        }
    }
}
