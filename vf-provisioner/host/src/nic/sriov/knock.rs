//! Frames from a NIC's physical function (PF) to a virtual one (VF), to see whether they arrive.
//!
//! After a reset of its PF a VF carries nothing until its driver resets it too. Not every driver
//! hears of that, and what it reads back is as before: only a frame shows it. The PF may send on
//! the VLANs of its VFs, and the NIC delivers by MAC and VLAN, so such a frame reaches the VF and
//! nobody else. If the VF is dead the frame may leave by the cable, where the adjacent switch must
//! not carry these VLANs.

use std::io;

use packet::number::ethertype;
use tenant_config::{MacAddr, PciAddress, VlanId};

use super::device::{self, device};
use crate::nic::parts::packet_socket::PacketSocket;

/// IEEE 802's Local Experimental EtherType 1: no protocol of anybody.
const LOCAL_EXPERIMENTAL: u16 = 0x88b5;
/// The shortest frame of an Ethernet, without FCS.
const FRAME_LEN: usize = 60;

/// The sender of frames to one VF.
pub(crate) struct Knock {
    /// The interface of the PF.
    pub(crate) pf: String,
    socket: PacketSocket,
    frame: Vec<u8>,
}

/// Whether a VF is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is.
    There,
    /// The kernel is removing it, and waits for its user; or it is gone.
    Leaving,
}

/// Whether the VF of this address is there. Takes no lock of the device, as reading its PF's number
/// of functions would: that waits until a removal has ended.
pub(crate) fn presence(address: PciAddress) -> Presence {
    // The kernel removes the links between a VF and its PF first.
    match device::link_name(&device(address).join("physfn")) {
        Some(_) => Presence::There,
        None => Presence::Leaving,
    }
}

impl Knock {
    /// For the VF of this address; `None` if its PF cannot send: it has no interface in this
    /// network namespace, is down, or has no carrier.
    ///
    /// # Errors
    /// If the interface cannot be opened.
    pub(crate) fn open(
        address: PciAddress,
        mac: MacAddr,
        vlan: Option<VlanId>,
    ) -> io::Result<Option<Self>> {
        let Some(pf) = device::interface_at(&device(address).join("physfn")) else {
            return Ok(None);
        };
        let socket = match PacketSocket::open(&pf, false, &[]) {
            Ok(socket) if socket.is_running() => socket,
            Ok(_) => return Ok(None),
            // In another network namespace, or renamed at this moment.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let frame = frame(mac, socket.mac(), vlan);
        Ok(Some(Self { pf, socket, frame }))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub(crate) fn send(&self) -> io::Result<()> {
        self.socket.send(&self.frame)
    }
}

/// A frame of no protocol, from the PF's own address.
fn frame(to: MacAddr, from: [u8; 6], vlan: Option<VlanId>) -> Vec<u8> {
    let mut frame = [to.octets(), from].concat();
    if let Some(vlan) = vlan {
        frame.extend(ethertype::VLAN.to_be_bytes());
        frame.extend(vlan.get().to_be_bytes());
    }
    frame.extend(LOCAL_EXPERIMENTAL.to_be_bytes());
    frame.resize(FRAME_LEN, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_tagged_and_of_no_protocol() {
        let to = MacAddr::new([2, 0, 0x13, 0x89, 0, 1]).expect("a MAC");
        let from = [0x52, 0x54, 0, 0xff, 1, 0];
        let vlan = VlanId::new(3000).expect("a VLAN");
        let tagged = frame(to, from, Some(vlan));
        let head = [&to.octets()[..], &from, &[0x81, 0, 0x0b, 0xb8, 0x88, 0xb5]].concat();
        assert_eq!(tagged, [head, vec![0; 42]].concat());
        let plain = frame(to, from, None);
        let head = [&to.octets()[..], &from, &[0x88, 0xb5]].concat();
        assert_eq!(plain, [head, vec![0; 46]].concat());
    }
}
