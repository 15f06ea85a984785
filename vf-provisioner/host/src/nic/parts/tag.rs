//! VLAN tags in a frame's bytes.

use packet::number::ethertype;
use packet::wire::be16;
use packet::wire::ethernet::VID_MASK;

/// A VLAN tag: its EtherType and its VLAN.
pub(crate) type Tag = (u16, u16);

/// How many tags of one frame are read.
const MAX_TAGS: usize = 4;

/// The tags in a frame's bytes, outermost first.
pub(crate) fn tags(frame: &[u8]) -> Vec<Tag> {
    let (pairs, _) = frame.get(12..).unwrap_or_default().as_chunks::<4>();
    let tags = pairs
        .iter()
        .map(|pair| (be16(pair, 0), be16(pair, 2) & VID_MASK));
    tags.take_while(|(kind, _)| ethertype::is_tag(*kind))
        .take(MAX_TAGS)
        .collect()
}
