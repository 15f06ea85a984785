//! ESP and IKE packets built by hand, and the SAs that they are of.

use std::net::IpAddr;

use pipeline::ipsec::{Bounds, Lifetime, Mode, Request, UdpPorts};
use tenant_config::{IpsecSuite, SwitchConfig};

use super::esp::{Numbers, Secret};
use super::frames::udp;
use super::tunnel_frames::{Sum, TunnelPacket, set_udp_checksum, tunnel};

pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
pub(crate) const DUMMY: u8 = 59;
/// The UDP ports of IKE, and of IKE and ESP behind address translation.
pub(crate) const IKE_PORT: u16 = 500;
pub(crate) const NAT_PORT: u16 = 4500;

/// An SA as it was negotiated, from our side.
#[derive(Debug, Clone)]
pub(crate) struct Sa {
    pub(crate) spi: u32,
    pub(crate) peer: IpAddr,
    pub(crate) secret: Secret,
    pub(crate) esn: bool,
    /// Tunnel mode, and not transport mode.
    pub(crate) whole: bool,
    /// The peer's port of ESP in UDP; ours is 4500.
    pub(crate) in_udp: Option<u16>,
    pub(crate) own_port: Option<u16>,
    pub(crate) peer_port: Option<u16>,
    /// Its hard limits.
    pub(crate) hard: Bounds,
}

impl Sa {
    /// One with peer number `peer`, in transport mode, with selectors as Open vSwitch has them.
    pub(crate) fn new(config: &SwitchConfig, peer: usize, spi: u32) -> Self {
        let tunnel = tunnel(config);
        Self {
            spi,
            peer: tunnel.peers[peer].vtep,
            secret: Secret::new(IpsecSuite::Aes256Gcm16, spi as u8),
            esn: true,
            whole: false,
            in_udp: None,
            own_port: Some(tunnel.port),
            peer_port: None,
            hard: Bounds::NONE,
        }
    }

    /// The same SA for the switch.
    pub(crate) fn request(&self, own: IpAddr) -> Request {
        Request {
            spi: self.spi,
            own,
            peer: self.peer,
            mode: match self.whole {
                true => Mode::Tunnel,
                false => Mode::Transport,
            },
            esn: self.esn,
            encapsulation: self.in_udp.map(|peer| UdpPorts {
                own: NAT_PORT,
                peer,
            }),
            own_port: self.own_port,
            peer_port: self.peer_port,
            lifetime: Lifetime {
                soft: Bounds::NONE,
                hard: self.hard,
            },
        }
    }

    pub(crate) fn numbers(&self, sequence: u64) -> Numbers {
        Numbers {
            spi: self.spi,
            sequence,
            esn: self.esn,
        }
    }

    /// What it carries of a tunnel packet, and the next header.
    pub(crate) fn payload(&self, packet: &TunnelPacket) -> (Vec<u8>, u8) {
        match (self.whole, packet.from) {
            (false, _) => (packet.datagram(), UDP),
            (true, IpAddr::V4(_)) => (packet.frame()[14..].to_vec(), 4),
            (true, IpAddr::V6(_)) => (packet.frame()[14..].to_vec(), 41),
        }
    }
}

/// ESP, bare or in UDP, or IKE.
#[derive(Debug, Clone)]
pub(crate) struct IpsecPacket {
    /// Its Ethernet and IP headers are this tunnel packet's.
    pub(crate) outer: TunnelPacket,
    pub(crate) udp: Option<(u16, u16)>,
    /// UDP's length, where it lies.
    pub(crate) length: Option<u16>,
    pub(crate) sum: Sum,
    pub(crate) bytes: Vec<u8>,
}

impl IpsecPacket {
    /// `packet`, sealed.
    pub(crate) fn new(sa: &Sa, sequence: u64, packet: &TunnelPacket) -> Self {
        let (payload, next_header) = sa.payload(packet);
        let text = sa.secret.text(&payload, next_header);
        Self::of_text(sa, sequence, packet, &text)
    }

    /// Any text, sealed, behind the headers of `outer`.
    pub(crate) fn of_text(sa: &Sa, sequence: u64, outer: &TunnelPacket, text: &[u8]) -> Self {
        Self {
            outer: outer.clone(),
            udp: sa.in_udp.map(|port| (port, NAT_PORT)),
            length: None,
            sum: Sum::Zero,
            bytes: sa.secret.seal(sa.numbers(sequence), text),
        }
    }

    /// A UDP datagram behind the headers of `outer`, with its checksum right.
    pub(crate) fn datagram(outer: &TunnelPacket, ports: (u16, u16), bytes: &[u8]) -> Self {
        Self {
            outer: outer.clone(),
            udp: Some(ports),
            length: None,
            sum: Sum::Right,
            bytes: bytes.to_vec(),
        }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let Some((from, to)) = self.udp else {
            return self.outer.frame_of(ESP, self.bytes.clone());
        };
        let mut datagram = udp(from, to, &self.bytes);
        if let Some(length) = self.length {
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
        }
        set_udp_checksum(self.outer.from, self.outer.to, self.sum, &mut datagram);
        self.outer.frame_of(UDP, datagram)
    }
}
