//! The SAs, and the way to whoever negotiates them.

use std::net::IpAddr;
use std::sync::Arc;

use esp::Stamp;
use packet::Frame;

use crate::counters::Counters;
use crate::ids::VtepId;
use crate::ipsec::link::{Channel, Notice};
use crate::ipsec::sa::Stamped;
use crate::ipsec::table::SaTable;
use crate::tables::Tables;

/// What is remembered of IPsec.
#[derive(Debug)]
pub(crate) struct Ipsec {
    /// Where a peer may require it.
    pub(crate) sas: Option<SaTable>,
    /// To whoever negotiates.
    pub(crate) channel: Option<Arc<Channel>>,
}

impl Ipsec {
    pub(super) fn new(tables: &Tables) -> Self {
        let tunnel = tables.tunnel.as_ref();
        let tunnel = tunnel.filter(|tunnel| tunnel.ipsec.is_some());
        Self {
            sas: tunnel.map(|tunnel| SaTable::new(tunnel.vteps().len())),
            channel: None,
        }
    }

    /// Keeps the SAs that the tables allow; `previous` has the others then.
    pub(super) fn keep(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        self.channel = previous.channel.take();
        let (Some(sas), Some(before)) = (&mut self.sas, &mut previous.sas) else {
            return;
        };
        let (Some(tunnel), Some(old)) = (&tables.tunnel, &old.tunnel) else {
            return;
        };
        if tunnel.has_same_paths(old) {
            std::mem::swap(sas, before);
            return;
        }
        sas.keep(before, self.channel.as_deref(), |request, suite| {
            let rules = tunnel.ipsec.as_ref()?;
            rules.allow(request, suite).ok()?;
            tunnel.endpoint_at(request.peer)
        });
        before.settle_all();
        for (address, vtep) in tunnel.endpoints() {
            if let Some(known) = old.endpoint_at(address) {
                sas.keep_past(vtep, before, known);
            }
        }
    }

    /// Ends SAs that are too old, and says what is due.
    pub(crate) fn poll(&mut self, now_ns: u64) {
        if let Some(channel) = &self.channel {
            channel.polled(now_ns);
            if let Some(sas) = &mut self.sas {
                sas.poll(channel, now_ns);
            }
        }
    }

    /// Writes what is shown of each endpoint.
    pub(crate) fn publish(&mut self, counters: &Counters) {
        if let Some(sas) = &mut self.sas {
            sas.publish(counters.endpoints());
        }
    }

    /// Whether an SA may seal a packet to that endpoint.
    #[inline(always)]
    pub(crate) fn may_seal(&self, vtep: VtepId, now_ns: u64) -> bool {
        let current = self.sas.as_ref().and_then(|sas| sas.peek(vtep));
        current.is_some_and(|sa| sa.is_usable(now_ns))
    }

    /// Seals a tunnel packet to that endpoint. `None` if there is no SA, or no room around it. With
    /// a place for `later`, [`Self::seal_together`] may do the sealing then, and the packet is only
    /// stamped.
    #[inline(never)]
    pub(crate) fn seal(
        &mut self,
        vtep: VtepId,
        frame: &mut Frame<'_>,
        now_ns: u64,
        later: Option<&mut Option<Stamped>>,
    ) -> Option<()> {
        let sa = self.sas.as_mut()?.current(vtep)?;
        match later {
            Some(stamped) if sa.gains_by_company() => {
                *stamped = Some(sa.stamp(frame, now_ns)?);
                Some(())
            }
            _ => sa.seal(frame, now_ns),
        }
    }

    /// Seals packets that the current SA of an endpoint has stamped, in the same burst; orders are
    /// obeyed between bursts, so it is the same SA. Returns their number; `None` if there is no SA.
    pub(crate) fn seal_together<'p>(
        &mut self,
        vtep: VtepId,
        packets: impl Iterator<Item = (Stamp, &'p mut [u8])>,
    ) -> Option<usize> {
        let sa = self.sas.as_ref()?.peek(vtep)?;
        Some(sa.esp.seal_together(packets))
    }

    /// Notices that there is no SA for that endpoint, if that is due.
    #[cold]
    pub(crate) fn acquire(&mut self, vtep: VtepId, peer: IpAddr, now_ns: u64) {
        if let (Some(sas), Some(channel)) = (&mut self.sas, &self.channel)
            && sas.acquire_is_due(vtep, now_ns)
        {
            channel.notify(Notice::Acquire { peer });
        }
    }
}
