//! One packet, parsed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::arp::Arp;
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;

/// A frame that passed the Ethernet rows, and what it carries.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// The VID of the tag that was removed, on a trunk port.
    pub vid: Option<u16>,
    /// Whether the destination MAC has the group bit.
    pub group: bool,
    /// The packet in the frame.
    pub ip: Ip,
}

impl Packet {
    /// No packet yet. A function, because a constant would be copied with its padding.
    #[inline(always)]
    pub fn empty() -> Self {
        Self {
            vid: None,
            group: false,
            ip: Ip::Rarp,
        }
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy)]
pub enum Ip {
    /// ARP for IPv4.
    Arp(Arp),
    /// A RARP announcement that the port may send; none of its fields matter.
    Rarp,
    /// IPv4.
    V4(Ipv4),
    /// IPv6.
    V6(Ipv6),
}

impl Ip {
    /// The source address as a number; 0 where there is none.
    pub fn source(&self) -> u128 {
        match self {
            Self::Arp(arp) => u128::from(arp.sender_ip),
            Self::Rarp => 0,
            Self::V4(ip) => u128::from(ip.source),
            Self::V6(ip) => ip.source,
        }
    }

    /// UDP's ports: source, destination.
    #[inline(always)]
    pub fn udp(&self) -> Option<(u16, u16)> {
        match self {
            Self::Arp(_) | Self::Rarp => None,
            Self::V4(ip) => ip.udp(),
            Self::V6(ip) => ip.udp(),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vid) = self.vid {
            write!(out, "VLAN {vid}, ")?;
        }
        match &self.ip {
            Ip::Arp(arp) => {
                let kind = if arp.request { "request" } else { "reply" };
                let sender = Ipv4Addr::from(arp.sender_ip);
                let target = Ipv4Addr::from(arp.target_ip);
                write!(out, "ARP {kind}, sender {sender}, target {target}")
            }
            Ip::Rarp => write!(out, "RARP announce"),
            Ip::V4(ip) => {
                let source = Ipv4Addr::from(ip.source);
                let destination = Ipv4Addr::from(ip.destination);
                write!(out, "IPv4 {source} to {destination}, ")?;
                write!(out, "protocol {}, {} bytes", ip.protocol, ip.total_len)?;
                write!(out, ", {:?}, {:?}", ip.fragment, ip.transport)
            }
            Ip::V6(ip) => {
                let source = Ipv6Addr::from(ip.source);
                let destination = Ipv6Addr::from(ip.destination);
                write!(out, "IPv6 {source} to {destination}, ")?;
                write!(out, "upper layer {}, {} bytes", ip.upper, ip.total_len)?;
                write!(out, ", {:?}, {:?}", ip.fragment, ip.transport)
            }
        }
    }
}
