//! From the underlay to a port: out of the tunnel, or in plain.

use packet::addr;
use packet::number::ethertype;
use packet::refused::SPECIAL_PORTS;
use packet::wire::ETHERNET_LEN;
use packet::wire::tunnel::Opened;

use super::header::{Decision, HEAD4, Upper, Usual, WaysOut, plain4, plain6, word};
use crate::counters::Counters;
use crate::ids::{PeerId, VtepId};
use crate::tables::{PackedTarget, Peer, Tables, Tunnel, UplinkRules, View4, View6};

/// What is usual there.
const USUAL: Usual<'static> = Usual {
    special: &SPECIAL_PORTS,
    only_plain_tcp: false,
};

/// What serves a burst from the underlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromUnderlay<'t> {
    tunnel: Option<&'t Tunnel>,
    counters: &'t Counters,
    routes4: View4<'t>,
    routes6: View6<'t>,
    ports: WaysOut<'t>,
    /// Our own MAC in the lower 48 bits.
    own: u64,
    mtu: u16,
    takes_only_tunnel: bool,
    now_ns: u64,
}

/// The two MACs and the type of a frame, in words.
pub(super) struct Ethernet {
    pub(super) to: u64,
    from: u64,
    pub(super) ethertype: u16,
}

impl Ethernet {
    const MAC: u64 = (1 << 48) - 1;

    #[inline(always)]
    pub(super) fn of(head: &[u8; HEAD4]) -> Self {
        let (to, from) = (word(head, 0), word(head, 6));
        Self {
            to: to & Self::MAC,
            from: from & Self::MAC,
            ethertype: ((from >> 48) as u16).swap_bytes(),
        }
    }

    /// A MAC as a frame's are here.
    #[inline(always)]
    pub(super) fn number(mac: [u8; 6]) -> u64 {
        let [a, b, c, d, e, f] = mac;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Whether one station may have sent it, and not `own`.
    #[inline(always)]
    pub(super) fn is_from_other_station(&self, own: u64) -> bool {
        self.from & 1 == 0 && self.from != 0 && self.from != own
    }
}

impl<'t> FromUnderlay<'t> {
    /// `None` if there is no uplink.
    #[inline]
    pub(crate) fn new(tables: &'t Tables, counters: &'t Counters, now_ns: u64) -> Option<Self> {
        let uplink: &UplinkRules = tables.uplink.as_ref()?;
        let (routes4, routes6) = tables.views();
        Some(Self {
            tunnel: tables.tunnel.as_ref(),
            counters,
            routes4,
            routes6,
            ports: WaysOut::new(tables, counters),
            own: Ethernet::number(uplink.mac),
            mtu: uplink.mtu,
            takes_only_tunnel: tables.takes_only_tunnel(),
            now_ns,
        })
    }

    /// As [`Self::deliver`], where there is a tunnel.
    #[inline(always)]
    pub(crate) fn deliver_or_open(&self, frame: &mut [u8]) -> Option<Decision<'t>> {
        match self.open::<false>(frame) {
            Some(decision) => Some(decision),
            None if self.takes_only_tunnel => None,
            None => self.deliver(frame),
        }
    }

    /// Forwards a packet without anything unusual from the underlay to a VM. `None`: the general
    /// path decides.
    #[inline(always)]
    pub(crate) fn deliver(&self, frame: &mut [u8]) -> Option<Decision<'t>> {
        let room = frame.len().wrapping_sub(ETHERNET_LEN);
        let head = frame.first_chunk::<HEAD4>()?;
        let ethernet = Ethernet::of(head);
        let for_us = ethernet.to == self.own && ethernet.is_from_other_station(self.own);
        if !for_us || room > usize::from(self.mtu) {
            return None;
        }
        let (len, from, to) = match ethernet.ethertype {
            ethertype::IPV4 => {
                let plain = plain4(head, room, USUAL)?;
                let source = u32::from_be(plain.source);
                if !addr::is_routable4_fast(source) {
                    return None;
                }
                let to = self.routes4.lookup(u32::from_be(plain.destination))?;
                (plain.len, self.routes4.lookup(source), to)
            }
            ethertype::IPV6 => {
                let plain = plain6(frame, room, USUAL)?;
                let source = u128::from_be(plain.source);
                if !addr::is_routable6(source) || addr::may_embed4(source) {
                    return None;
                }
                let to = self.routes6.lookup(u128::from_be(plain.destination))?;
                (plain.len, self.routes6.lookup(source), to)
            }
            _ => return None,
        };
        if !PackedTarget::is_external(from) {
            return None;
        }
        self.send_to_port(frame, 0, to, len)
    }

    /// Opens a tunnel packet that came under IPsec, if nothing about it is unusual.
    #[inline]
    pub(crate) fn open_sealed(&self, frame: &mut [u8]) -> Option<Decision<'t>> {
        self.open::<true>(frame)
    }

    /// Opens a tunnel packet without anything unusual, and forwards the inner frame. `None`: it is
    /// unchanged. `SEALED`: it came under IPsec, by an SA of the endpoint that it is from.
    #[inline(always)]
    fn open<const SEALED: bool>(&self, frame: &mut [u8]) -> Option<Decision<'t>> {
        let tunnel = self.tunnel?;
        let head = frame.first_chunk::<HEAD4>()?;
        let ethernet = Ethernet::of(head);
        let for_us = ethernet.to == self.own && ethernet.is_from_other_station(self.own);
        if !for_us || frame.len() - ETHERNET_LEN > usize::from(self.mtu) {
            return None;
        }
        let opened = tunnel.carrier.open_plain(frame)?;
        let vtep = tunnel.vtep_by_number(opened.source)?;
        if tunnel.vtep(vtep).protected != SEALED {
            return None;
        }
        let Opened { begin, end, .. } = opened;
        let inside = frame.get_mut(begin..end)?;
        let room = inside.len().wrapping_sub(ETHERNET_LEN);
        let head = inside.first_chunk::<HEAD4>()?;
        let ethernet = Ethernet::of(head);
        if ethernet.to != Ethernet::number(tunnel.mac) {
            return None;
        }
        if !opened.keeps_ecn(&head[ETHERNET_LEN..]) {
            return None;
        }
        let (len, from, to) = match ethernet.ethertype {
            ethertype::IPV4 => {
                let plain = plain4(head, room, USUAL)?;
                let source = u32::from_be(plain.source);
                let usual = addr::is_routable4_fast(source);
                if !usual || !Upper::new(&plain, head[47]).passes(tunnel) {
                    return None;
                }
                let to = self.routes4.lookup(u32::from_be(plain.destination))?;
                (plain.len, self.routes4.lookup(source)?, to)
            }
            ethertype::IPV6 => {
                let plain = plain6(inside, room, USUAL)?;
                let source = u128::from_be(plain.source);
                let flags = inside.get(67).copied().unwrap_or_default();
                let usual = addr::is_routable6(source);
                if !usual || !Upper::new(&plain, flags).passes(tunnel) {
                    return None;
                }
                let to = self.routes6.lookup(u128::from_be(plain.destination))?;
                (plain.len, self.routes6.lookup(source)?, to)
            }
            _ => return None,
        };
        let peer = from.peer()?;
        let known = tunnel.peers().get(peer.index())?;
        // The peer's own MAC is another station's.
        if known.usual != Peer::sender(vtep, ethernet.from) {
            self.note_other_mac((tunnel, vtep), (peer, known), &ethernet)?;
        }
        let decision = self.send_to_port(inside, begin, to, len)?;
        // Counted with its padding, as the general path does.
        self.counters.peer(peer).received(end - begin, self.now_ns);
        Some(decision)
    }

    /// Notes that a frame from the peer's endpoint is from another MAC than the peer's. `None`: it
    /// is from another endpoint, or from no station's MAC.
    #[cold]
    #[inline(never)]
    fn note_other_mac(
        &self,
        (tunnel, vtep): (&Tunnel, VtepId),
        (peer, known): (PeerId, &Peer),
        ethernet: &Ethernet,
    ) -> Option<()> {
        let own = Ethernet::number(tunnel.mac);
        if known.vtep != vtep || !ethernet.is_from_other_station(own) {
            return None;
        }
        let [a, b, c, d, e, f, ..] = ethernet.from.to_le_bytes();
        let seen = &self.counters.peer(peer).other_mac;
        seen.set([a, b, c, d, e, f], self.now_ns);
        Some(())
    }

    /// Sends it by the port that `target` leads to, if it leads to one. `frame` begins at `begin`
    /// of the frame that came.
    #[inline(always)]
    fn send_to_port(
        &self,
        frame: &mut [u8],
        begin: usize,
        target: PackedTarget,
        len: usize,
    ) -> Option<Decision<'t>> {
        let (way, port) = self.ports.get(target)?;
        if len > usize::from(port.max_len) {
            return None;
        }
        let macs = frame.first_chunk_mut::<12>()?;
        macs.copy_from_slice(&port.header);
        Some(Decision::out(way, begin, len))
    }
}
