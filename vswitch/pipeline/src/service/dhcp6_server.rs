//! The gateway's own DHCPv6 server, which gives each port the address that its tenant's file does.
//! `docs/reference/services.md` is the specification.

use packet::wire::dhcp6::{ClientMessage, kind, status};
use packet::wire::dhcp6_server::{Kind, Offer, Station};
use packet::wire::{ETHERNET_LEN, Ipv6, Packet, mac_at};
use packet::{DropReason, Frame, addr};

use crate::pass::{Outcome, Pass, Side};
use crate::stage::{Notes, Stage};
use crate::tables::{PortRules, Target};

impl<N: Notes> Pass<'_, N> {
    /// Answers a DHCPv6 client's message, where no port serves. `None` for one to a server
    /// elsewhere.
    #[inline(never)]
    pub(super) fn serve_dhcp6(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv6),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let tables = self.tables;
        let to_all = ip.destination == addr::ALL_DHCP_AGENTS;
        let Some(offer) = tables.dhcp6_offer(rules.id) else {
            return to_all.then(|| self.refuse(Stage::Service, DropReason::DhcpNoServer));
        };
        if !to_all {
            let is_ours = ip.destination == rules.gateway_link_local
                || tables.route6(ip.destination) == Some(Target::Gateway);
            // What is wrong with a group frame is for the service of that address to say.
            if !is_ours || packet.group {
                return None;
            }
        }
        // The filter has let pass no other message.
        let message = ClientMessage::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let kind = match dhcp6_answer(offer, to_all, &message) {
            Ok(kind) => kind,
            Err(reason) => return Some(self.refuse(Stage::Service, reason)),
        };
        let station = Station {
            mac: mac_at(frame.bytes(), 6),
            address: ip.source,
            own_mac: rules.gateway_mac,
            own_address: rules.gateway_link_local,
            mtu: rules.mtu,
        };
        let answer = offer.answer(&message, kind, &station, |ip| tables.is_near6(ip));
        let built = answer.replace(frame);
        let what = format_args!("DHCPv6 {}", kind.name());
        Some(self.answer(Side::Port(rules), built, packet.vid, frame, what))
    }
}

/// The kind of the answer to a client's message, or why there is none.
fn dhcp6_answer(
    offer: &Offer,
    to_all: bool,
    message: &ClientMessage<'_>,
) -> Result<Kind, DropReason> {
    let is_for_us = message.server.is_none_or(|server| offer.is_server(server));
    let (names_server, asks_all) = match message.kind {
        kind::INFORMATION_REQUEST => (is_for_us, true),
        _ if !offer.leases() => return Err(DropReason::DhcpNoServer),
        kind::SOLICIT | kind::CONFIRM | kind::REBIND => (message.server.is_none(), true),
        _ => (message.server.is_some() && is_for_us, false),
    };
    if !names_server || (asks_all && !to_all) {
        return Err(DropReason::Absorbed);
    }
    if !to_all {
        return Ok(Kind::UseMulticast);
    }
    match message.kind {
        kind::SOLICIT if message.rapid && offer.chosen(message).is_some() => Ok(Kind::RapidReply),
        kind::SOLICIT => Ok(Kind::Advertise),
        kind::REQUEST => Ok(Kind::Reply),
        kind::RENEW | kind::REBIND => Ok(Kind::Renewal),
        kind::CONFIRM => confirmation(offer, message).ok_or(DropReason::Absorbed),
        kind::RELEASE | kind::DECLINE => Ok(Kind::Receipt),
        // It asks for no lease (RFC 8415, section 16.12).
        _ => match message.all_associations(|_| false) {
            true => Ok(Kind::Information),
            false => Err(DropReason::Absorbed),
        },
    }
}

/// Whether all addresses that the client has are those it is given. `None` if it names none.
fn confirmation(offer: &Offer, message: &ClientMessage<'_>) -> Option<Kind> {
    if !message.names(|_| true) {
        return None;
    }
    let is_strange = message.names(|ip| Some(ip) != offer.address());
    Some(Kind::Confirmation(match is_strange {
        true => status::NOT_ON_LINK,
        false => status::SUCCESS,
    }))
}
