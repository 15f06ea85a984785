//! Shared addresses: which port holds one, by what the ports announce.

use std::net::IpAddr;

use packet::wire::{Arp, Ipv6, nd};

use super::Owner;
use crate::ids::SharedId;
use crate::pass::Pass;
use crate::stage::{Notes, Stage};
use crate::tables::PortRules;

impl<N: Notes> Pass<'_, N> {
    /// Notes an ARP reply or announcement by a port that shares addresses: the filter has let pass
    /// only those for its own ones, with a MAC of its own.
    #[cold]
    pub(super) fn hear_holder4(&mut self, rules: &PortRules, arp: &Arp) {
        let address = IpAddr::V4(arp.sender_ip.into());
        if let Some(shared) = self.tables.shared_at(address) {
            self.hold(rules, shared, arp.sender_mac);
        }
    }

    /// As [`Self::hear_holder4`], of a Neighbor Advertisement in a frame from `source`. One without
    /// the override flag changes no holder that is known (RFC 4861, 7.2.5).
    #[cold]
    pub(super) fn hear_holder6(
        &mut self,
        rules: &PortRules,
        (ip, layer3): (&Ipv6, &[u8]),
        (announced, source): (u128, [u8; 6]),
    ) {
        let Some(shared) = self.tables.shared_at(IpAddr::V6(announced.into())) else {
            return;
        };
        let holder = &self.state.holders[shared.index()];
        if holder.port().is_none() || nd::overrides(ip, layer3) {
            let named = nd::target_link_layer(ip, layer3);
            self.hold(rules, shared, named.unwrap_or(source));
        }
    }

    fn hold(&mut self, rules: &PortRules, shared: SharedId, mac: [u8; 6]) {
        let holder = &mut self.state.holders[shared.index()];
        let moves = holder.port() != Some(rules.id);
        holder.announced(rules.id, mac);
        if moves {
            self.counters.holder_changes.add(1);
        }
        let address = self.tables.shared[shared.index()].address;
        let name = &self.tables.names[rules.id.index()];
        self.notes
            .note(Stage::Service, format_args!("port {name} holds {address}"));
    }

    /// The owner of a shared address, as seen from a port or a peer. `is_probe`: the sender has no
    /// address of that family yet. A port that may hold the address and asks whether somebody has
    /// it is about to take it, so nobody answers for the holder before.
    #[cold]
    pub(super) fn owner_of_shared(
        &self,
        sender: Option<&PortRules>,
        shared: SharedId,
        is_probe: bool,
    ) -> Owner {
        let holder = self.state.holders[shared.index()].port();
        let may_hold = |rules: &PortRules| self.tables.may_hold(rules.id, shared);
        match (sender, holder) {
            (Some(rules), Some(port)) if port == rules.id => Owner::Sender,
            (Some(rules), _) if is_probe && may_hold(rules) => Owner::Sender,
            (_, Some(_)) => Owner::Station,
            (_, None) => Owner::None,
        }
    }
}
