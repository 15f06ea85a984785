//! The gateway's own DHCP server, which gives each port the address that its tenant's file does.
//! `docs/reference/services.md` is the specification.

use packet::wire::dhcp::{self, ClientMessage, option};
use packet::wire::dhcp_server::{Kind, Offer};
use packet::wire::{ETHERNET_LEN, Ipv4, Packet};
use packet::{DropReason, Frame};

use crate::pass::{Outcome, Pass, Side};
use crate::stage::{Notes, Stage};
use crate::tables::{PortRules, Target};

impl<N: Notes> Pass<'_, N> {
    /// Answers a DHCP client's message, where no port serves. `None` for one to a server elsewhere.
    #[inline(never)]
    pub(super) fn serve_dhcp(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let tables = self.tables;
        let Some(offer) = tables.dhcp_offer(rules.id) else {
            let asks = dhcp::is_client_broadcast(ip);
            return asks.then(|| self.refuse(Stage::Service, DropReason::DhcpNoServer));
        };
        let is_ours = match tables.route4(ip.destination) {
            Some(Target::Gateway) => !packet.group,
            Some(Target::Broadcast) => true,
            _ => ip.destination == u32::MAX,
        };
        if !is_ours {
            return None;
        }
        // The filter has let pass no other message.
        let message = ClientMessage::parse(ip.payload(&frame.bytes()[ETHERNET_LEN..]))?;
        let kind = match self.dhcp_answer(rules, offer, ip.source, &message) {
            Ok(kind) => kind,
            Err(reason) => return Some(self.refuse(Stage::Service, reason)),
        };
        let link = (rules.gateway_mac, rules.mtu);
        let built = offer.answer(&message, kind, link).replace(frame);
        let what = format_args!("DHCP {}", kind.name());
        Some(self.answer(Side::Port(rules), built, packet.vid, frame, what))
    }

    /// The kind of the answer to a client's message, or why there is none.
    fn dhcp_answer(
        &self,
        rules: &PortRules,
        offer: &Offer,
        source: u32,
        message: &ClientMessage<'_>,
    ) -> Result<Kind, DropReason> {
        let client_ip = message.bootp.client_ip;
        match message.kind {
            None => Ok(Kind::Bootp),
            Some(option::DISCOVER) => Ok(Kind::Offer),
            Some(option::REQUEST) => {
                if message
                    .server
                    .is_some_and(|server| server != offer.server())
                {
                    return Err(DropReason::Absorbed);
                }
                let ciaddr = Some(client_ip).filter(|ip| *ip != 0);
                let mut named = ciaddr.into_iter().chain(message.requested).peekable();
                let names_one = named.peek().is_some();
                match names_one && named.all(|ip| ip == offer.address()) {
                    true => Ok(Kind::Ack),
                    false => Ok(Kind::Nak),
                }
            }
            Some(option::INFORM) => {
                let address = if client_ip == 0 { source } else { client_ip };
                match self.tables.packed4(address) == Some(rules.target) {
                    true => Ok(Kind::Inform(address)),
                    false => Err(DropReason::DhcpIdentity),
                }
            }
            // A release or a decline: nobody else may have the address.
            Some(_) => Err(DropReason::Absorbed),
        }
    }
}
