//! ESP without anything unusual, from the underlay: opened in place, so that the lanes can go on
//! with the tunnel packet that it carried.

use std::net::IpAddr;

use esp::Phase;
use packet::number::{ethertype, protocol};
use packet::wire::esp::unwrap_transport;
use packet::wire::{ETHERNET_LEN, be16, be32, be128, ipv4, ipv6};
use packet::{DropReason, Frame};

use super::header::HEAD4;
use super::underlay::Ethernet;
use crate::ids::VtepId;
use crate::ipsec::request::Mode;
use crate::state::State;
use crate::tables::Tables;

/// What became of a frame.
pub(crate) enum Early {
    /// It is unchanged, and the general path decides.
    Untouched,
    /// It is destroyed.
    Dropped(DropReason),
    /// It is the tunnel packet that an SA of that endpoint carried.
    Opened(VtepId),
}

/// Opens an ESP packet that the general path would open too; or drops it for the same reason, where
/// that shows only when it is opened.
#[inline]
pub(crate) fn open_esp(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    frame: &mut Frame<'_>,
) -> Early {
    match plain(tables, frame) {
        Some((upper_at, end, source)) => open(state, now_ns, (upper_at, end, source), frame),
        None => Early::Untouched,
    }
}

/// The offset of ESP from the IP header, of the byte behind it in the frame, and the sender, if
/// nothing is unusual.
#[inline(always)]
fn plain(tables: &Tables, frame: &Frame<'_>) -> Option<(usize, usize, IpAddr)> {
    let (tunnel, uplink) = (tables.tunnel.as_ref()?, tables.uplink.as_ref()?);
    tunnel.ipsec.as_ref()?;
    if frame.stripped_tag().is_some() {
        return None;
    }
    let bytes = frame.bytes();
    let head = bytes.first_chunk::<HEAD4>()?;
    let ethernet = Ethernet::of(head);
    let own = Ethernet::number(uplink.mac);
    let for_us = ethernet.to == own && ethernet.is_from_other_station(own);
    if !for_us || bytes.len() - ETHERNET_LEN > usize::from(uplink.mtu) {
        return None;
    }
    let (upper_at, end, source) = match (tunnel.carrier.own(), ethernet.ethertype) {
        (IpAddr::V4(own), ethertype::IPV4) => {
            let ip: &[u8; ipv4::HEADER_LEN] = head[ETHERNET_LEN..].first_chunk()?;
            let plain = ip[0] == 0x45
                && be16(ip, 6) & 0x3fff == 0
                && ip[9] == protocol::ESP
                && be32(ip, 16) == own.to_bits();
            if !plain || !ipv4::plain_checksum_holds(ip) {
                return None;
            }
            let end = ETHERNET_LEN + usize::from(be16(ip, 2));
            (ip.len(), end, IpAddr::V4(be32(ip, 12).into()))
        }
        (IpAddr::V6(own), ethertype::IPV6) => {
            let ip: &[u8; ipv6::HEADER_LEN] = head[ETHERNET_LEN..].first_chunk()?;
            let plain = ip[0] >> 4 == 6 && ip[6] == protocol::ESP && be128(ip, 24) == own.to_bits();
            if !plain {
                return None;
            }
            let end = ETHERNET_LEN + ip.len() + usize::from(be16(ip, 4));
            (ip.len(), end, IpAddr::V6(be128(ip, 8).into()))
        }
        _ => return None,
    };
    (end <= bytes.len()).then_some((upper_at, end, source))
}

#[inline(always)]
fn open(
    state: &mut State,
    now_ns: u64,
    (upper_at, end, source): (usize, usize, IpAddr),
    frame: &mut Frame<'_>,
) -> Early {
    let at = ETHERNET_LEN + upper_at;
    let Some(packet) = frame.bytes_mut().get_mut(at..end) else {
        return Early::Untouched;
    };
    let sas = state.ipsec.sas.as_mut();
    let sa = esp::spi(packet)
        .zip(sas)
        .and_then(|(spi, sas)| sas.inbound(spi));
    let Some(sa) = sa else {
        return Early::Untouched;
    };
    let request = &sa.common.request;
    let usual = request.peer == source
        && request.mode == Mode::Transport
        && sa.common.phase(now_ns) != Phase::Expired;
    if !usual {
        return Early::Untouched;
    }
    let ports = request.ports();
    let opened = match sa.open(packet, now_ns) {
        Ok(opened) => opened,
        Err(reason) => return Early::Dropped(reason),
    };
    if opened.next_header != protocol::UDP {
        return Early::Dropped(DropReason::EspSelector);
    }
    if !ports.select_datagram(&packet[opened.begin..opened.end]) {
        return Early::Dropped(DropReason::EspSelector);
    }
    let vtep = sa.common.vtep;
    unwrap_transport(frame, upper_at, at + opened.begin..at + opened.end);
    Early::Opened(vtep)
}
