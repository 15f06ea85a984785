//! Answers of the gateway, to the side that asked.

use std::fmt;

use packet::wire::ETHERNET_LEN;
use packet::wire::tunnel::Inner;
use packet::{DropReason, Frame};

use super::{FromPeer, Outcome, Pass, Sent, Side};
use crate::peer_route::{PeerRoute, Unfit};
use crate::stage::{Notes, Stage};

impl<N: Notes> Pass<'_, N> {
    /// The frame has become an answer, from our MAC to that of the station that asked: sends it
    /// there. `built` is `None` if the answer did not fit.
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
        let len = frame.len() - ETHERNET_LEN;
        let route = match PeerRoute::new(from.tunnel, self.state, from.id, len) {
            Ok(route) => route,
            Err(Unfit::Reason(reason)) => return self.refuse(Stage::Tunnel, reason),
            Err(Unfit::TooBig(_)) => return self.refuse(Stage::Tunnel, DropReason::Mtu),
        };
        let inner = Inner::of_frame(frame);
        if route.seal(self.counters, inner, frame).is_none() {
            return self.refuse(Stage::Tunnel, DropReason::NoBuffer);
        }
        self.notes
            .note(Stage::Service, format_args!("reply: {what}"));
        self.note_peer(from.id, "into the tunnel to peer");
        Ok(Sent::Back)
    }
}

/// Puts the tag of the frame that asked back into what was built for it, if it had one.
pub(super) fn with_tag(built: Option<()>, vid: Option<u16>, frame: &mut Frame<'_>) -> Option<()> {
    built.and_then(|()| vid.map_or(Some(()), |vid| frame.insert_tag(vid)))
}
