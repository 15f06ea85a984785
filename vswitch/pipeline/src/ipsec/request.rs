//! An SA as it was negotiated.

use std::net::IpAddr;

use esp::Lifetime;
use packet::wire::tunnel::{Outer, UDP_LEN};
use packet::wire::{be16, ipv4, ipv6};

/// How ESP carries a tunnel packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its UDP datagram, behind its own IP header.
    Transport,
    /// The whole packet, behind an IP header with the same addresses.
    Tunnel,
}

/// The UDP ports of ESP in UDP (RFC 3948).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpPorts {
    /// Ours, which is 4500.
    pub own: u16,
    /// The peer's, which address translation may have changed.
    pub peer: u16,
}

/// The UDP ports of the packets that an SA is for; `None` is any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SelectedPorts {
    own: Option<u16>,
    peer: Option<u16>,
}

impl SelectedPorts {
    #[inline(always)]
    fn select(self, from: u16, to: u16) -> bool {
        let fits = |selector: Option<u16>, port| selector.is_none_or(|only| only == port);
        fits(self.peer, from) && fits(self.own, to)
    }

    /// Whether the SA is for such a UDP datagram. One that is cut off has no ports: that it is
    /// malformed is found later.
    #[inline(always)]
    pub(crate) fn select_datagram(self, datagram: &[u8]) -> bool {
        let udp = datagram.first_chunk::<UDP_LEN>();
        udp.is_none_or(|udp| self.select(be16(udp, 0), be16(udp, 2)))
    }
}

/// An SA as it was negotiated, without its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The SPI.
    pub spi: u32,
    /// Our own address.
    pub own: IpAddr,
    /// The peer's endpoint.
    pub peer: IpAddr,
    /// Transport or tunnel mode.
    pub mode: Mode,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// ESP is carried in UDP between these ports.
    pub encapsulation: Option<UdpPorts>,
    /// The selector of UDP's port on our side; `None` is any.
    pub own_port: Option<u16>,
    /// The same on the peer's.
    pub peer_port: Option<u16>,
    /// When it is to be replaced, and when it ends.
    pub lifetime: Lifetime,
}

impl Request {
    /// Whether the SA is for such a packet, which came out of it.
    #[inline]
    pub(crate) fn selects(&self, own: IpAddr, packet: &Outer) -> bool {
        let Some((from, to)) = packet.udp else {
            return false;
        };
        let ends = packet.source == self.peer && packet.destination == own;
        ends && self.ports().select(from, to)
    }

    /// The selectors of UDP's ports.
    #[inline(always)]
    pub(crate) fn ports(&self) -> SelectedPorts {
        SelectedPorts {
            own: self.own_port,
            peer: self.peer_port,
        }
    }

    /// The bytes that it adds to a packet in addition to ESP in transport mode.
    pub(crate) fn extra(&self) -> u16 {
        let header = match (self.mode, self.own) {
            (Mode::Transport, _) => 0,
            (Mode::Tunnel, IpAddr::V4(_)) => ipv4::HEADER_LEN,
            (Mode::Tunnel, IpAddr::V6(_)) => ipv6::HEADER_LEN,
        };
        let udp = if self.encapsulation.is_some() {
            UDP_LEN
        } else {
            0
        };
        (header + udp) as u16
    }
}
