//! Frames of one burst that are sealed together, where the suite gains by that.

use packet::Buffer;

use crate::ipsec::sa::Stamped;
use crate::state::Ipsec;

/// Up to `ROOM` frames to one endpoint that have their ESP headers and are still plain. They leave
/// by [`Self::drain`], after [`Self::seal`]. Without room it costs nothing.
pub(crate) struct Waiting<B, const ROOM: usize> {
    frames: [Option<(B, Stamped)>; ROOM],
    count: usize,
}

impl<B: Buffer, const ROOM: usize> Waiting<B, ROOM> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            frames: [const { None }; ROOM],
            count: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        ROOM == 0 || self.count == 0
    }

    /// Adds a frame. It comes back if there is no room, or if others of another endpoint wait:
    /// they must be sealed first.
    #[inline(always)]
    pub(crate) fn add(&mut self, buffer: B, stamped: Stamped) -> Option<B> {
        let first = self.frames.first().and_then(Option::as_ref);
        let others = first.map(|(_, first)| first.vtep);
        let is_alike = others.is_none_or(|vtep| vtep == stamped.vtep);
        match self.frames.get_mut(self.count) {
            Some(place) if is_alike => {
                *place = Some((buffer, stamped));
                self.count += 1;
                None
            }
            _ => Some(buffer),
        }
    }

    /// Seals all of them; false if that cannot be, and they must not leave.
    pub(crate) fn seal(&mut self, ipsec: &mut Ipsec) -> bool {
        let Some(Some((_, Stamped { vtep, .. }))) = self.frames.first() else {
            return true;
        };
        let vtep = *vtep;
        let frames = self.frames.iter_mut().flatten();
        let packets = frames.filter_map(|(buffer, stamped)| {
            let bytes = buffer.plain()?.get_mut(stamped.begin..stamped.end)?;
            Some((stamped.stamp, bytes))
        });
        ipsec.seal_together(vtep, packets) == Some(self.count)
    }

    /// Takes all of them out, in their order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = B> {
        self.count = 0;
        let all = std::mem::replace(&mut self.frames, [const { None }; ROOM]);
        all.into_iter().flatten().map(|(buffer, _)| buffer)
    }
}
