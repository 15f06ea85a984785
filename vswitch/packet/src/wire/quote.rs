//! What is quoted of a tunnel packet that did not get there, and whether the packet is one that
//! [`Carrier::seal`] writes (RFC 5927, section 4.1; RFC 8899, section 4.6.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32, be128, mac_at};
use super::flow::Inner;
use super::tunnel::{Carrier, FIRST_SOURCE_PORT, OUTER6_LEN, TUNNEL_LEN, Template, UDP_LEN};
use super::{ipv4, ipv6};
use crate::number::{ethertype, protocol};

/// The longest outer header, from the IP header on.
const OUTER_MAX: usize = OUTER6_LEN - ETHERNET_LEN;

/// A quote whose outer headers are those of the packets to an endpoint, as far as it shows them.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'q> {
    /// Bytes of the whole outer packet, from its IP header on.
    pub outer_len: usize,
    /// Bytes of the IP packet inside.
    pub len: usize,
    /// The UDP source port.
    pub source_port: u16,
    ttl: u8,
    /// The inner frame, as far as it is there.
    inner: &'q [u8],
}

/// What a quote shows of the inner frame.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The UDP source port that the outer packet has for this flow.
    pub source_port: u16,
}

impl Quoted<'_> {
    /// The destination and source MAC of the inner frame, if they are there.
    pub fn macs(&self) -> Option<([u8; 6], [u8; 6])> {
        let macs = self.inner.first_chunk::<12>()?;
        Some((mac_at(macs, 0), mac_at(macs, 6)))
    }
}

/// A quote of ESP.
#[derive(Debug, Clone, Copy)]
pub struct QuotedEsp {
    /// Bytes of the ESP packet.
    pub len: usize,
    /// Bytes of the whole packet, from its IP header on.
    pub outer_len: usize,
    /// The ports of UDP that carried it.
    pub udp: Option<(u16, u16)>,
    /// The SPI.
    pub spi: u32,
    /// The lower half of the sequence number.
    pub sequence: u32,
}

impl Carrier {
    /// Reads a quote of ESP, whose IP header must be one that the switch writes.
    pub fn quoted_esp(&self, quote: &[u8]) -> Option<QuotedEsp> {
        let (ip_len, outer_len, upper, ttl) = match self.own {
            IpAddr::V4(_) => {
                let head = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
                // Identification 0, DF, no fragment.
                let plain = head[0] == 0x45 && be32(head, 4) == 0x4000;
                if !plain || !ipv4::plain_checksum_holds(head) {
                    return None;
                }
                (head.len(), usize::from(be16(head, 2)), head[9], head[8])
            }
            IpAddr::V6(_) => {
                let head = quote.first_chunk::<{ ipv6::HEADER_LEN }>()?;
                if head[0] >> 4 != 6 {
                    return None;
                }
                let len = head.len() + usize::from(be16(head, 4));
                (head.len(), len, head[6], head[7])
            }
        };
        if ttl == 0 || self.ttl.is_some_and(|sent| ttl > sent) {
            return None;
        }
        let (udp_len, udp) = match upper {
            protocol::ESP => (0, None),
            protocol::UDP => {
                let udp = quote.get(ip_len..)?.first_chunk::<UDP_LEN>()?;
                if usize::from(be16(udp, 4)) != outer_len.checked_sub(ip_len)? {
                    return None;
                }
                (UDP_LEN, Some((be16(udp, 0), be16(udp, 2))))
            }
            _ => return None,
        };
        let esp = quote.get(ip_len + udp_len..)?.first_chunk::<8>()?;
        Some(QuotedEsp {
            len: outer_len.checked_sub(ip_len + udp_len)?,
            outer_len,
            udp,
            spi: be32(esp, 0),
            sequence: be32(esp, 4),
        })
    }

    /// The endpoint to which the quoted packet went, if it came from us.
    pub fn quoted_endpoint(&self, quote: &[u8]) -> Option<IpAddr> {
        let (from, to): (IpAddr, IpAddr) = match self.own {
            IpAddr::V4(_) => {
                let head = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
                let end = |at| Ipv4Addr::from_bits(be32(head, at)).into();
                (end(12), end(16))
            }
            IpAddr::V6(_) => {
                let head = quote.first_chunk::<{ ipv6::HEADER_LEN }>()?;
                let end = |at| Ipv6Addr::from_bits(be128(head, at)).into();
                (end(8), end(24))
            }
        };
        (from == self.own).then_some(to)
    }

    /// Reads a quote, whose outer headers must be those of `template`. Free are the fields that
    /// differ from packet to packet, the class, which routers change, and the TTL, which they
    /// decrement.
    pub fn quoted<'q>(&self, template: &Template, quote: &'q [u8]) -> Option<Quoted<'q>> {
        let (ip_len, ttl_at) = match self.own {
            IpAddr::V4(_) => (ipv4::HEADER_LEN, 8),
            IpAddr::V6(_) => (ipv6::HEADER_LEN, 7),
        };
        let outer = ip_len + UDP_LEN + TUNNEL_LEN;
        // RFC 792: the least that is quoted.
        let (head, udp) = quote.split_at_checked(ip_len)?;
        let udp = udp.first_chunk::<UDP_LEN>()?;
        let shown = quote.len().min(outer);
        let mut got = [0; OUTER_MAX];
        got[..shown].copy_from_slice(&quote[..shown]);
        let mut sent = [0; OUTER_MAX];
        sent[..shown].copy_from_slice(&template.bytes[ETHERNET_LEN..][..shown]);
        for bytes in [&mut got, &mut sent] {
            self.clear_variable(bytes, ip_len);
        }
        let (ttl, udp_len) = (head[ttl_at], usize::from(be16(udp, 4)));
        let (outer_len, sound) = match head.first_chunk::<{ ipv4::HEADER_LEN }>() {
            Some(head) if self.own.is_ipv4() => {
                (usize::from(be16(head, 2)), ipv4::plain_checksum_holds(head))
            }
            _ => (ip_len + usize::from(be16(head, 4)), true),
        };
        let plausible = got == sent
            && sound
            && outer_len == ip_len + udp_len
            && ttl > 0
            && self.ttl.is_none_or(|sent| ttl <= sent)
            && (be16(udp, 6) != 0) == self.udp_checksum
            && be16(udp, 0) >= FIRST_SOURCE_PORT;
        let len = udp_len.checked_sub(UDP_LEN + TUNNEL_LEN + ETHERNET_LEN)?;
        plausible.then_some(Quoted {
            outer_len,
            len,
            source_port: be16(udp, 0),
            ttl,
            inner: &quote[shown..],
        })
    }

    /// Clears what differs between packets of one template, and what routers change.
    fn clear_variable(&self, outer: &mut [u8; OUTER_MAX], udp_at: usize) {
        match self.own {
            IpAddr::V4(_) => {
                // Class, length, TTL and checksum.
                outer[1..4].fill(0);
                outer[8] = 0;
                outer[10..12].fill(0);
            }
            IpAddr::V6(_) => {
                // Class, length and hop limit.
                outer[0] &= 0xf0;
                outer[1] &= 0x0f;
                outer[4..6].fill(0);
                outer[7] = 0;
            }
        }
        // The source port, length and checksum.
        outer[udp_at..udp_at + 2].fill(0);
        outer[udp_at + 4..udp_at + 8].fill(0);
    }

    /// What a quote shows of the inner frame: `None` if it ends before the flow is known, an error
    /// if the switch sends no such frame.
    pub fn carried(
        &self,
        template: &Template,
        quoted: &Quoted<'_>,
    ) -> Result<Option<Carried>, NotOurs> {
        let Some((head, packet)) = quoted.inner.split_at_checked(ETHERNET_LEN) else {
            return Ok(None);
        };
        let family = match be16(head, 12) {
            ethertype::IPV4 => 4,
            ethertype::IPV6 => 6,
            _ => return Err(NotOurs),
        };
        if packet.first().is_some_and(|first| first >> 4 != family) {
            return Err(NotOurs);
        }
        let Some(beginning) = Inner::of_beginning(packet) else {
            return Ok(None);
        };
        let inherited = || quoted.ttl <= beginning.inner.ttl.max(1);
        if beginning.len != quoted.len || !(self.ttl.is_some() || inherited()) {
            return Err(NotOurs);
        }
        Ok(Some(Carried {
            source: beginning.source,
            destination: beginning.destination,
            source_port: template.source_port(beginning.inner.flow),
        }))
    }
}

/// A quoted packet is none that the switch sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;
