//! "Shared addresses".

use super::*;

impl Model {
    /// Whether some port lists the address under `shared`.
    pub(super) fn is_shared(&self, address: IpAddr) -> bool {
        let mut ports = self.config.ports.iter();
        ports.any(|port| port.shared.contains(&address))
    }

    /// The port that holds the address, by its number, and the MAC by which it does.
    pub(super) fn holder(&self, address: IpAddr) -> Option<(usize, [u8; 6])> {
        let (name, mac) = self.holders.get(&address)?;
        let mut ports = self.config.ports.iter();
        let number = ports.position(|port| port.name.as_str() == name)?;
        Some((number, *mac))
    }

    /// Whether port `number` holds the address.
    pub(super) fn is_holder(&self, number: usize, address: IpAddr) -> bool {
        self.holder(address)
            .is_some_and(|(holder, _)| holder == number)
    }

    /// "The port that last announced it holds it."
    pub(super) fn hear_holder(&mut self, port: &PortConfig, address: IpAddr, mac: [u8; 6]) {
        if port.shared.contains(&address) {
            self.holders.insert(address, (port.name.to_string(), mac));
        }
    }

    /// As [`Self::hear_holder`], from a Neighbor Advertisement in a frame from `source`. "One
    /// without the override flag is an announcement only where no holder is known."
    pub(super) fn hear_advertisement(
        &mut self,
        port: &PortConfig,
        packet: &Packet<'_>,
        source: [u8; 6],
    ) {
        let address = IpAddr::V6(nd_target(packet.payload));
        let overrides = packet.payload[4] & 0x20 != 0;
        if overrides || self.holder(address).is_none() {
            let options = nd_options(NA, packet.payload);
            let named = options.iter().find(|it| it.kind == TARGET_LINK_LAYER);
            let named = named.map(|option| mac_at(option.body, 0));
            self.hear_holder(port, address, named.unwrap_or(source));
        }
    }

    /// What an ARP request or a Neighbor Solicitation of port `from` for a shared address gets:
    /// `Ok` is an answer. A probe is from a station without an address.
    pub(super) fn asked_for_shared(
        &self,
        (from, is_probe): (usize, bool),
        address: IpAddr,
        unknown: DropReason,
    ) -> Result<(), DropReason> {
        let lists = self.config.ports[from].shared.contains(&address);
        match self.holder(address) {
            Some((holder, _)) if holder == from => Err(Absorbed),
            _ if is_probe && lists => Err(Absorbed),
            Some(_) => Ok(()),
            None => Err(unknown),
        }
    }

    /// "After a new configuration": the holder stays while its port lists the address and has that
    /// MAC; of a port with another `mac`, nothing stays.
    pub(super) fn forget_holders(&mut self, old: &SwitchConfig) {
        let new = Arc::clone(&self.written);
        self.holders.retain(|address, (name, mac)| {
            let named = |port: &&PortConfig| port.name.as_str() == name;
            let was = old.ports.iter().find(named).expect("it held the address");
            let is = new.ports.iter().find(named);
            is.is_some_and(|port| {
                let mut macs = port.extra_macs.iter().chain([&port.mac]);
                port.mac == was.mac
                    && port.shared.contains(address)
                    && macs.any(|own| own.octets() == *mac)
            })
        });
    }

    /// A packet to a shared address.
    pub(super) fn leave_to_holder(
        &self,
        packet: &Packet<'_>,
        too_big: impl FnOnce(u16) -> Outcome,
    ) -> Result<Outcome, DropReason> {
        let (holder, _) = self.holder(packet.destination).ok_or(HolderUnknown)?;
        Ok(self.leave(holder, packet, too_big))
    }
}
