//! Security associations.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use esp::{Inbound, Keys, OpenError, Opened, Outbound, Phase, Stamp, Suite};
use packet::wire::esp::Carriage;
use packet::wire::quote::QuotedEsp;
use packet::wire::{ipv4, ipv6};
use packet::{DropReason, Frame};

use super::request::{Mode, Request};
use super::rules::{Refused, Rules};
use super::view::SaCounters;
use crate::ids::VtepId;

/// What both directions have.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) request: Request,
    /// The place of the peer's endpoint, under the tables in use.
    pub(crate) vtep: VtepId,
    pub(crate) counters: Arc<SaCounters>,
    /// The soft limit was noticed.
    pub(crate) softened: bool,
    /// It is used no more, and waits to be handed back.
    pub(crate) dead: bool,
    /// Its end is no news: it was ordered.
    pub(crate) silent: bool,
}

impl Common {
    fn new(request: Request) -> Self {
        Self {
            request,
            vtep: VtepId(0),
            counters: Arc::default(),
            softened: false,
            dead: false,
            silent: false,
        }
    }

    /// It is used from now on.
    pub(crate) fn begin(&mut self, vtep: VtepId, now_ns: u64) {
        self.vtep = vtep;
        self.counters.since_ns.set(now_ns.max(1));
    }

    /// Where it is in its life.
    #[inline]
    pub(crate) fn phase(&self, now_ns: u64) -> Phase {
        let counters = &self.counters;
        let age_ns = now_ns.saturating_sub(counters.since_ns.get());
        let lifetime = &self.request.lifetime;
        lifetime.phase(counters.packets.get(), counters.bytes.get(), age_ns)
    }

    /// What is shown of it.
    pub(crate) fn shown(&self, suite: Suite) -> (&Request, Suite, &SaCounters) {
        (&self.request, suite, &self.counters)
    }

    /// Counts a packet.
    #[inline]
    pub(crate) fn carried(&self, payload: usize, now_ns: u64) {
        self.counters.packets.add(1);
        self.counters.bytes.add(payload as u64);
        self.counters.used_ns.set(now_ns.max(1));
    }
}

/// An SA that opens what a peer sends.
#[derive(Debug)]
pub struct InboundSa {
    pub(crate) common: Common,
    pub(crate) esp: Inbound,
}

/// An SA that seals what is sent to a peer.
#[derive(Debug)]
pub struct OutboundSa {
    pub(crate) common: Common,
    pub(crate) esp: Outbound,
}

/// A packet that is still plain, and whose frame must not leave before it is sealed.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Stamped {
    /// The endpoint whose SA has stamped it.
    pub(crate) vtep: VtepId,
    /// The place of the ESP packet in the frame: its first byte, and the one behind it.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) stamp: Stamp,
}

impl InboundSa {
    /// An SA to be installed. The caller drops, and so wipes, the keys.
    ///
    /// # Errors
    /// If the configuration does not allow it.
    pub fn new(rules: &Rules, request: Request, keys: &Keys) -> Result<Box<Self>, Refused> {
        rules.check(&request, keys)?;
        let esp = Inbound::new(request.spi, keys, request.esn, rules.replay_window);
        let common = Common::new(request);
        Ok(Box::new(Self { common, esp }))
    }

    /// Its counters, which stay readable when it is gone.
    pub fn counters(&self) -> Arc<SaCounters> {
        Arc::clone(&self.common.counters)
    }

    /// Leaves out the sequence numbers up to this one, for captures that begin in the middle. It
    /// never goes back.
    pub fn skip_to(&mut self, sequence: u64) {
        self.esp.skip_to(sequence);
    }

    /// As it was negotiated, with the addresses that it has now.
    pub fn request(&self) -> &Request {
        &self.common.request
    }
}

impl InboundSa {
    /// Opens an ESP packet, and counts it.
    #[inline]
    pub(crate) fn open(&mut self, packet: &mut [u8], now_ns: u64) -> Result<Opened, DropReason> {
        let counters = &self.common.counters;
        match self.esp.open(packet) {
            Ok(opened) => {
                self.common.carried(opened.end - opened.begin, now_ns);
                Ok(opened)
            }
            Err(OpenError::Length | OpenError::Padding) => Err(DropReason::EspMalformed),
            Err(OpenError::Dummy) => {
                self.common.carried(0, now_ns);
                Err(DropReason::EspDummy)
            }
            Err(OpenError::Replay) => {
                counters.replayed.add(1);
                Err(DropReason::EspReplay)
            }
            Err(OpenError::Icv) => {
                counters.forged.add(1);
                Err(DropReason::EspIcv)
            }
        }
    }
}

impl OutboundSa {
    /// Whether it may seal one more packet.
    #[inline(always)]
    pub(crate) fn is_usable(&self, now_ns: u64) -> bool {
        !self.common.dead && self.esp.can_seal() && self.common.phase(now_ns) != Phase::Expired
    }

    /// Whether it has sealed a packet with that sequence number, of which the lower half is shown.
    pub(crate) fn has_used(&self, low: u32) -> bool {
        let last = self.esp.sequence();
        // That number itself, or the one 2^32 before it.
        let number = last & !u64::from(u32::MAX) | u64::from(low);
        (number > 0 && number <= last) || last > u32::MAX.into()
    }

    /// The least IP packet in the tunnel that becomes such a packet, in bytes; `None` if none does.
    /// `overhead` is the tunnel's.
    pub(crate) fn carried(&self, overhead: u16, quoted: &QuotedEsp) -> Option<usize> {
        let request = &self.common.request;
        let ports = request.encapsulation.map(|ports| (ports.own, ports.peer));
        let suite = self.esp.suite();
        let payload = suite.max_payload(quoted.len);
        if ports != quoted.udp || suite.sealed_len(payload) != quoted.len {
            return None;
        }
        let ip = match request.own {
            IpAddr::V4(_) => ipv4::HEADER_LEN,
            IpAddr::V6(_) => ipv6::HEADER_LEN,
        };
        let headers = match request.mode {
            Mode::Transport => usize::from(overhead) - ip,
            Mode::Tunnel => usize::from(overhead),
        };
        let most = payload.checked_sub(headers)?;
        Some(most.saturating_sub(suite.alignment() - 1))
    }

    /// How its packets are carried.
    #[inline(always)]
    fn carriage(&self) -> Carriage {
        let request = &self.common.request;
        Carriage {
            whole: request.mode == Mode::Tunnel,
            udp: request.encapsulation.map(|ports| (ports.own, ports.peer)),
        }
    }

    /// Writes the headers outside, and has `protect` do the rest: it gets the ESP packet, the bytes
    /// of its payload and their protocol.
    #[inline(always)]
    fn wrap<T, E>(
        &mut self,
        frame: &mut Frame<'_>,
        now_ns: u64,
        protect: impl FnOnce(&mut Outbound, &mut [u8], usize, u8) -> Result<T, E>,
    ) -> Option<(Range<usize>, T)> {
        let carriage = self.carriage();
        let payload = carriage.payload_len(frame.bytes());
        let next_header = carriage.next_header(frame.bytes());
        let suite = self.esp.suite();
        let place = carriage.wrap(frame, suite.payload_at(), suite.sealed_len(payload))?;
        let packet = frame.bytes_mut().get_mut(place.clone())?;
        let done = protect(&mut self.esp, packet, payload, next_header).ok()?;
        self.common.carried(payload, now_ns);
        Some((place, done))
    }

    /// Seals a tunnel packet. `None` if there is no room around it.
    #[inline]
    pub(crate) fn seal(&mut self, frame: &mut Frame<'_>, now_ns: u64) -> Option<()> {
        self.wrap(frame, now_ns, Outbound::seal)?;
        self.carriage().finish(frame);
        Some(())
    }

    /// Whether its packets are better sealed together.
    #[inline(always)]
    pub(crate) fn gains_by_company(&self) -> bool {
        // A checksum outside could only be written afterwards.
        self.esp.gains_by_company() && self.common.request.encapsulation.is_none()
    }

    /// All of [`Self::seal`] but the sealing.
    #[inline]
    pub(crate) fn stamp(&mut self, frame: &mut Frame<'_>, now_ns: u64) -> Option<Stamped> {
        let (place, stamp) = self.wrap(frame, now_ns, Outbound::stamp)?;
        Some(Stamped {
            vtep: self.common.vtep,
            begin: place.start,
            end: place.end,
            stamp,
        })
    }

    /// As [`InboundSa::new`].
    ///
    /// # Errors
    /// If the configuration does not allow it.
    pub fn new(rules: &Rules, request: Request, keys: &Keys) -> Result<Box<Self>, Refused> {
        rules.check(&request, keys)?;
        let esp = Outbound::new(request.spi, keys, request.esn);
        let common = Common::new(request);
        Ok(Box::new(Self { common, esp }))
    }

    /// Its counters, which stay readable when it is gone.
    pub fn counters(&self) -> Arc<SaCounters> {
        Arc::clone(&self.common.counters)
    }

    /// Leaves out the sequence numbers up to this one, for captures that begin in the middle. It
    /// never goes back.
    pub fn skip_to(&mut self, sequence: u64) {
        self.esp.skip_to(sequence);
    }

    /// As it was negotiated, with the addresses that it has now.
    pub fn request(&self) -> &Request {
        &self.common.request
    }
}
