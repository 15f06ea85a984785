//! ARP: the switch answers for every address that the side may reach, and forwards no ARP.

use std::net::{IpAddr, Ipv4Addr};

use packet::wire::{Arp, Packet, arp, mac_at};
use packet::{DropReason, Frame, addr};

use super::Owner;
use crate::ids::NextHopId;
use crate::pass::{Outcome, Pass, Side};
use crate::stage::{Notes, Stage};
use crate::tables::Target;

impl<N: Notes> Pass<'_, N> {
    /// Answers a request, and learns from next hops.
    #[inline(always)]
    pub(crate) fn serve_arp(
        &mut self,
        side: Side<'_>,
        packet: &Packet,
        arp: &Arp,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if packet.group && mac_at(frame.bytes(), 0) != addr::BROADCAST_MAC {
            return self.refuse(Stage::Service, DropReason::DstMac);
        }
        let expected = self.learn_next_hop(side, arp);
        if !arp.request || arp.sender_ip == arp.target_ip {
            if let Side::Port(rules) = side
                && rules.shares
            {
                self.hear_holder4(rules, arp);
            }
            let reason = if expected {
                DropReason::Absorbed
            } else {
                DropReason::ArpUnknown
            };
            return self.refuse(Stage::Service, reason);
        }
        match self.owner4(side, arp) {
            Owner::Switch | Owner::Station => {
                let built = arp::reply(frame, side.own_mac(), arp);
                self.answer(side, built, packet.vid, frame, format_args!("ARP"))
            }
            Owner::Sender => self.refuse(Stage::Service, DropReason::Absorbed),
            Owner::None => self.refuse(Stage::Service, DropReason::ArpUnknown),
        }
    }

    /// Learns the MAC of a next hop on the underlay. Returns whether the sender is a station that
    /// the switch expects to announce itself.
    #[inline(always)]
    fn learn_next_hop(&mut self, side: Side<'_>, arp: &Arp) -> bool {
        let Side::Uplink(_) = side else {
            return true;
        };
        let sender = Ipv4Addr::from_bits(arp.sender_ip).into();
        self.hear_claim(sender, arp.sender_mac);
        let Some(id) = self.tables.next_hop_at(sender) else {
            return false;
        };
        self.hear_next_hop(id, arp.sender_mac);
        true
    }

    /// A station of the underlay says that a next hop has that MAC.
    pub(super) fn hear_next_hop(&mut self, id: NextHopId, mac: [u8; 6]) {
        if !self.state.next_hops[id.index()].heard(self.now_ns, mac) {
            self.counters.contested_next_hops.add(1);
        }
    }

    /// Another station of the underlay says that it has the address. If that is our endpoint's,
    /// each of us receives a part of what is for both (RFC 5227).
    pub(super) fn hear_claim(&mut self, address: IpAddr, mac: [u8; 6]) {
        let tunnel = self.tables.tunnel.as_ref();
        if tunnel.is_some_and(|tunnel| tunnel.carrier.own() == address) {
            self.state.vtep_conflict = Some((mac, self.now_ns));
            self.counters.vtep_conflicts.add(1);
        }
    }

    /// The owner of an address, as seen from that side.
    #[inline(always)]
    fn owner4(&mut self, side: Side<'_>, arp: &Arp) -> Owner {
        let address = arp.target_ip;
        if let Side::Uplink(uplink) = side {
            return if uplink.ipv4 == Some(address) {
                Owner::Switch
            } else {
                Owner::None
            };
        }
        let target = self.state.route4(self.tables, address, self.now_ns);
        match (side, target) {
            (Side::Port(rules), Some(Target::Port(id))) if id == rules.id => Owner::Sender,
            (Side::Port(rules), Some(Target::Shared(shared))) => {
                self.owner_of_shared(Some(rules), shared, arp.sender_ip == 0)
            }
            (Side::Peer(_), Some(Target::Shared(shared))) => {
                self.owner_of_shared(None, shared, false)
            }
            (Side::Port(rules), _) if rules.metadata && address == addr::METADATA4 => Owner::Switch,
            (Side::Port(_), _) if !addr::is_routable4(address) => Owner::None,
            (_, Some(Target::Gateway)) => Owner::Switch,
            (_, Some(Target::Port(_))) => Owner::Station,
            (Side::Port(_), Some(Target::Uplink | Target::Peer(_))) => Owner::Station,
            _ => Owner::None,
        }
    }
}
