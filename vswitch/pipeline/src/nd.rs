//! Neighbour Discovery and MLD: who may say what (RFC 4861, RFC 4862, RFC 6980).

use smoltcp::wire::Icmpv6Packet;

use super::filter::Owner;
use super::wire::{Fragment, Ipv6, be128, mac_at};
use packet::DropReason;

pub(super) const MLD_QUERY: u8 = 130;
pub(super) const MLD_REPORT: u8 = 131;
pub(super) const MLD_DONE: u8 = 132;
pub(super) const MLD2_REPORT: u8 = 143;
pub(super) const ROUTER_SOLICITATION: u8 = 133;
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(super) const NEIGHBOR_SOLICITATION: u8 = 135;
pub(super) const NEIGHBOR_ADVERTISEMENT: u8 = 136;
pub(super) const REDIRECT: u8 = 137;

/// Whether a message that may be sent is for the gateway alone: ND and MLD reports.
pub(super) fn is_for_gateway(kind: u8) -> bool {
    matches!(
        kind,
        MLD_REPORT
            | MLD_DONE
            | MLD2_REPORT
            | ROUTER_SOLICITATION
            | NEIGHBOR_SOLICITATION
            | NEIGHBOR_ADVERTISEMENT
    )
}

/// RFC 2894, RFC 3122 and RFC 4286.
const ROUTER_RENUMBERING: u8 = 138;
const INVERSE_SOLICITATION: u8 = 141;
const INVERSE_ADVERTISEMENT: u8 = 142;
const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
const MULTICAST_ROUTER_TERMINATION: u8 = 153;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Rows "IPv6 6". `packet` begins with the IPv6 header.
pub(super) fn from_port(owner: &Owner<'_>, ip: &Ipv6, packet: &[u8]) -> Result<(), DropReason> {
    let Some(kind) = ip.icmp_type() else {
        return Ok(());
    };
    if (ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
        let message = Message::parse(ip, packet)?;
        let own_mac = |mac: [u8; 6]| mac == owner.rules.mac;
        let honest = match kind {
            ROUTER_ADVERTISEMENT | REDIRECT => return forbidden(kind),
            NEIGHBOR_SOLICITATION if ip.source == 0 => {
                owner.has6(message.target())
                    && ip.destination == solicited_node(message.target())
                    && message.link_layer(SOURCE_LINK_LAYER).next().is_none()
            }
            NEIGHBOR_SOLICITATION => message.link_layer(SOURCE_LINK_LAYER).all(own_mac),
            NEIGHBOR_ADVERTISEMENT => {
                owner.has6(message.target())
                    && message.link_layer(TARGET_LINK_LAYER).all(own_mac)
                    && !message.router_flag()
            }
            _ if ip.source == 0 => message.link_layer(SOURCE_LINK_LAYER).next().is_none(),
            _ => message.link_layer(SOURCE_LINK_LAYER).all(own_mac),
        };
        if !honest {
            return Err(DropReason::NdSpoof);
        }
    }
    forbidden(kind)
}

/// Row 6 of what comes from the uplink.
pub(super) fn from_uplink(ip: &Ipv6, packet: &[u8]) -> Result<(), DropReason> {
    let Some(kind) = ip.icmp_type() else {
        return Ok(());
    };
    if (ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
        Message::parse(ip, packet)?;
    }
    forbidden(kind)
}

/// What neither a VM nor the underlay may say.
fn forbidden(kind: u8) -> Result<(), DropReason> {
    match kind {
        MLD_QUERY => Err(DropReason::MldQuery),
        ROUTER_ADVERTISEMENT => Err(DropReason::RouterAdvertisement),
        REDIRECT => Err(DropReason::Redirect),
        ROUTER_RENUMBERING | MULTICAST_ROUTER_ADVERTISEMENT | MULTICAST_ROUTER_TERMINATION => {
            Err(DropReason::RouterAdvertisement)
        }
        INVERSE_SOLICITATION | INVERSE_ADVERTISEMENT => Err(DropReason::NdSpoof),
        _ => Ok(()),
    }
}

/// The solicited-node group of an address (RFC 4291, section 2.7.1).
pub(super) fn solicited_node(address: u128) -> u128 {
    0xff02_0000_0000_0000_0000_0001_ff00_0000 | (address & 0x00ff_ffff)
}

/// The target of a well-formed NS or NA.
pub(super) fn target(ip: &Ipv6, packet: &[u8]) -> Option<u128> {
    let body = ip.payload(packet);
    (body.len() >= 24).then(|| be128(body, 8))
}

/// The first target link-layer address of a well-formed NA.
pub(super) fn target_link_layer(ip: &Ipv6, packet: &[u8]) -> Option<[u8; 6]> {
    let body = ip.payload(packet);
    Message {
        body,
        options_at: 24,
    }
    .link_layer(TARGET_LINK_LAYER)
    .next()
}

/// An ND message whose form is sound.
struct Message<'p> {
    body: &'p [u8],
    options_at: usize,
}

impl<'p> Message<'p> {
    fn parse(ip: &Ipv6, packet: &'p [u8]) -> Result<Self, DropReason> {
        use DropReason::NdMalformed;
        let body = ip.payload(packet);
        if ip.fragment != Fragment::Whole || ip.hop_limit != 255 || body.len() < 4 || body[1] != 0 {
            return Err(NdMalformed);
        }
        let options_at = match body[0] {
            ROUTER_SOLICITATION => 8,
            ROUTER_ADVERTISEMENT => 16,
            NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 24,
            _ => 40,
        };
        let mut options = body.get(options_at..).ok_or(NdMalformed)?;
        while let [kind, rest @ ..] = options {
            let len = usize::from(*rest.first().ok_or(NdMalformed)?) * 8;
            let link_layer = matches!(*kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER);
            if len == 0 || (link_layer && len != 8) {
                return Err(NdMalformed);
            }
            options = options.get(len..).ok_or(NdMalformed)?;
        }
        let message = Self { body, options_at };
        if options_at == 24 && message.target() >> 120 == 0xff {
            return Err(NdMalformed);
        }
        let (source, destination) = (ip.source.into(), ip.destination.into());
        if !Icmpv6Packet::new_unchecked(body).verify_checksum(&source, &destination) {
            return Err(NdMalformed);
        }
        Ok(message)
    }

    fn target(&self) -> u128 {
        be128(self.body, 8)
    }

    fn router_flag(&self) -> bool {
        self.body[4] & 0x80 != 0
    }

    /// The addresses of every link-layer option of that kind.
    fn link_layer(&self, wanted: u8) -> impl Iterator<Item = [u8; 6]> + use<'p> {
        let mut options = self.body.get(self.options_at..).unwrap_or_default();
        std::iter::from_fn(move || {
            while let [kind, words, ..] = *options {
                let option = options;
                options = options
                    .get(usize::from(words).max(1) * 8..)
                    .unwrap_or_default();
                if kind == wanted && option.len() >= 8 {
                    return Some(mac_at(option, 2));
                }
            }
            None
        })
    }
}
