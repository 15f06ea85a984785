//! Answers of the gateway, sent back to the side that the frame came from.

use std::fmt;

use packet::wire::ETHERNET_LEN;
use packet::wire::flow::Inner;
use packet::{DropReason, Frame};

use super::{FromPeer, Outcome, Pass, Sent, Side};
use crate::peer_route::{self, PeerRoute, Unfit};
use crate::stage::{Notes, Stage};

impl<N: Notes> Pass<'_, N> {
    /// Sends back a frame that has become an answer, from our MAC to its sender's. `built` is
    /// `None` if the answer did not fit.
    #[inline(always)]
    pub(crate) fn answer(
        &mut self,
        side: Side<'_>,
        built: Option<()>,
        vid: Option<u16>,
        frame: &mut Frame<'_>,
        what: fmt::Arguments<'_>,
    ) -> Outcome {
        if let Side::Peer(from) = side {
            return self.answer_peer(from, built, frame, what);
        }
        match with_tag(built, vid, frame) {
            Some(()) => {
                self.notes
                    .note(Stage::Service, format_args!("reply: {what}"));
                Ok(Sent::Back)
            }
            None => self.refuse(Stage::Service, DropReason::NoBuffer),
        }
    }

    #[inline(never)]
    fn answer_peer(
        &mut self,
        from: FromPeer<'_>,
        built: Option<()>,
        frame: &mut Frame<'_>,
        what: fmt::Arguments<'_>,
    ) -> Outcome {
        if built.is_none() {
            return self.refuse(Stage::Service, DropReason::NoBuffer);
        }
        let route = self.send_back(from, frame)?;
        self.notes
            .note(Stage::Service, format_args!("reply: {what}"));
        self.note_peer(from.id, "into the tunnel to peer");
        self.note_sealed(&route);
        Ok(Sent::Back)
    }

    /// Puts a frame of our own into the tunnel, to the peer that asked for it.
    pub(super) fn send_back<'t>(
        &mut self,
        from: FromPeer<'t>,
        frame: &mut Frame<'_>,
    ) -> Outcome<PeerRoute<'t>> {
        let len = frame.len() - ETHERNET_LEN;
        let route = match PeerRoute::new(from.tunnel, self.state, from.id, len, self.now_ns) {
            Ok(route) => route,
            Err(Unfit::Reason(reason)) => return self.refuse(Stage::Tunnel, reason),
            Err(Unfit::TooBig(_)) => return self.refuse(Stage::Tunnel, DropReason::Mtu),
            Err(Unfit::NoSa(vtep)) => {
                self.acquire(from.tunnel, vtep);
                return self.refuse(Stage::Ipsec, DropReason::IpsecNoSa);
            }
        };
        let inner = Inner::of_frame(frame);
        let parts = (self.counters, &mut *self.state);
        if route.seal(parts, inner, frame, self.now_ns, None).is_none() {
            return self.refuse(Stage::Tunnel, DropReason::NoBuffer);
        }
        peer_route::remember(from.tunnel, self.state, from.id, (&inner, len), self.now_ns);
        Ok(route)
    }
}

/// Gives an answer the tag of the frame that it answers.
#[inline(always)]
pub(super) fn with_tag(built: Option<()>, vid: Option<u16>, frame: &mut Frame<'_>) -> Option<()> {
    built.and_then(|()| vid.map_or(Some(()), |vid| frame.insert_tag(vid)))
}
