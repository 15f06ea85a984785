//! Fragmentation of IPv4 (RFC 791): a packet without DF that is larger than the next link carries
//! is cut into fragments that fit.

use super::checksum;
use super::ethernet::ETHERNET_LEN;
use super::field::be16;
use super::ipv4::{HEADER_LEN, Ipv4};
use crate::frame::Frame;

/// The most fragments of one packet: one of 9,216 bytes, cut for a link of 576.
pub const MAX_FRAGMENTS: u16 = 18;

const RESERVED: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Bytes of options at most.
const MAX_OPTIONS: usize = 40;
/// The bit of an option's kind with which it is in all fragments.
const COPIED: u8 = 0x80;
const END: u8 = 0;
const NOP: u8 = 1;

/// How a packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    header_len: usize,
    /// Bytes behind the header.
    payload_len: usize,
    /// Bytes of those in every fragment but the last.
    piece_len: usize,
    /// The word of the flags and the offset.
    place: u16,
}

impl Cut {
    /// The cut of a packet that is larger than `max_len` bytes. `None` if it has DF, would be in
    /// more than [`MAX_FRAGMENTS`], or is a fragment that ends beyond the longest packet.
    pub fn new(ip: &Ipv4, packet: &[u8], max_len: u16) -> Option<Self> {
        let header_len = usize::from(ip.header_len);
        let place = be16(packet.first_chunk::<HEADER_LEN>()?, 6);
        let payload_len = usize::from(ip.total_len).checked_sub(header_len)?;
        let piece_len = usize::from(max_len).checked_sub(header_len)? / 8 * 8;
        let cut = Self {
            header_len,
            payload_len,
            piece_len,
            place,
        };
        let end = usize::from(place & OFFSET) * 8 + payload_len;
        let may = place & DONT_FRAGMENT == 0
            && piece_len > 0
            && piece_len < payload_len
            && header_len + end <= usize::from(u16::MAX);
        (may && cut.count() <= MAX_FRAGMENTS).then_some(cut)
    }

    /// How many fragments there are, at least two.
    pub fn count(&self) -> u16 {
        self.payload_len.div_ceil(self.piece_len) as u16
    }

    /// Makes a frame with the whole packet one with that fragment, from 0. `None` if there is none
    /// of that number.
    pub fn apply(&self, number: u16, frame: &mut Frame<'_>) -> Option<()> {
        let begin = usize::from(number) * self.piece_len;
        let len = self.payload_len.checked_sub(begin)?.min(self.piece_len);
        let is_last = begin + len == self.payload_len;
        let packet = frame.bytes_mut().get_mut(ETHERNET_LEN..)?;
        let mut header_len = self.header_len;
        if number > 0 {
            let (options, options_len) = copied(packet.get(HEADER_LEN..header_len)?);
            header_len = HEADER_LEN + options_len;
            let from = self.header_len + begin;
            packet.get(from..from + len)?;
            packet.copy_within(from..from + len, header_len);
            packet[HEADER_LEN..header_len].copy_from_slice(&options[..options_len]);
        }
        let mut place = self.place & (RESERVED | MORE_FRAGMENTS);
        if !is_last {
            place |= MORE_FRAGMENTS;
        }
        place |= (self.place & OFFSET) + (begin / 8) as u16;
        let header = packet.get_mut(..header_len)?;
        header[0] = 0x40 | (header_len / 4) as u8;
        header[2..4].copy_from_slice(&((header_len + len) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&place.to_be_bytes());
        header[10..12].fill(0);
        let sum = !checksum::folded(checksum::sum(header));
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
        frame.truncate(ETHERNET_LEN + header_len + len);
        Some(())
    }
}

/// The options that are in all fragments, padded to whole words, and their length.
fn copied(options: &[u8]) -> ([u8; MAX_OPTIONS], usize) {
    let (mut kept, mut len) = ([END; MAX_OPTIONS], 0);
    let mut rest = options;
    while let [kind, more @ ..] = rest {
        let option_len = match *kind {
            END => break,
            NOP => 1,
            _ => more.first().map_or(0, |len| usize::from(*len)),
        };
        // What is wrong in itself is in the first fragment only.
        let Some((option, behind)) = rest.split_at_checked(option_len).filter(|_| option_len > 0)
        else {
            break;
        };
        if kind & COPIED != 0
            && let Some(room) = kept.get_mut(len..len + option_len)
        {
            room.copy_from_slice(option);
            len += option_len;
        }
        rest = behind;
    }
    (kept, len.next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4;

    /// A frame with so many bytes of options and payload, and that word of flags and offset.
    fn frame(options: &[u8], payload: usize, place: u16) -> Vec<u8> {
        let header_len = HEADER_LEN + options.len();
        let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
        packet.extend(((header_len + payload) as u16).to_be_bytes());
        packet.extend([0xab, 0xcd]);
        packet.extend(place.to_be_bytes());
        packet.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(options);
        let sum = !checksum::folded(checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
        packet.extend((0..payload).map(|at| (at / 8) as u8));
        [&[0; ETHERNET_LEN][..], &packet].concat()
    }

    fn fragments(whole: &[u8], max_len: u16) -> Option<Vec<Vec<u8>>> {
        let packet = &whole[ETHERNET_LEN..];
        let cut = Cut::new(&ipv4::parse(packet).expect("a packet"), packet, max_len)?;
        let piece = |number| {
            let mut bytes = whole.to_vec();
            let len = bytes.len();
            let mut frame = Frame::new(&mut bytes, 0, len, None);
            cut.apply(number, &mut frame).expect("a fragment");
            frame.bytes()[ETHERNET_LEN..].to_vec()
        };
        let mut none = whole.to_vec();
        let mut none = Frame::new(&mut none, 0, whole.len(), None);
        assert_eq!(cut.apply(cut.count() + 1, &mut none), None);
        Some((0..cut.count()).map(piece).collect())
    }

    #[test]
    fn fragments_fit_and_join() {
        // A copied option of 4 bytes, one of 3 that is not, and an end.
        let options = [0x94, 4, 0, 0, 7, 3, 4, 0];
        for (options, payload, place, max_len) in [
            (&[][..], 1_481, 0, 1_500),
            (&[], 4_000, 0, 1_450),
            (&[], 4_000, 0x2000 | 100, 1_450),
            (&options, 3_000, 50, 1_001),
            (&[], 9_196, 0, 576),
            (&options, 9_188, 0x8000, 576),
        ] {
            let whole = frame(options, payload, place);
            let pieces = fragments(&whole, max_len).expect("fragments");
            let mut joined: Vec<u8> = Vec::new();
            for (number, piece) in pieces.iter().enumerate() {
                assert!(piece.len() <= usize::from(max_len));
                let ip = ipv4::parse(piece).expect("a sound header");
                let header_len = usize::from(ip.header_len);
                let kept: &[u8] = match (number, options.is_empty()) {
                    (0, _) => options,
                    (_, true) => &[],
                    (_, false) => &options[..4],
                };
                assert_eq!(&piece[HEADER_LEN..header_len], kept);
                assert_eq!(piece[4..6], [0xab, 0xcd]);
                let (at, is_last) = (be16(piece, 6), number == pieces.len() - 1);
                assert_eq!(
                    usize::from(at & OFFSET),
                    usize::from(place & OFFSET) + joined.len() / 8
                );
                let more = !is_last || place & MORE_FRAGMENTS != 0;
                assert_eq!(at & MORE_FRAGMENTS != 0, more);
                assert_eq!(at & RESERVED, place & RESERVED);
                joined.extend(&piece[header_len..]);
            }
            assert_eq!(joined, whole[ETHERNET_LEN + HEADER_LEN + options.len()..]);
        }
    }

    #[test]
    fn what_may_not_be_cut_is_not() {
        assert_eq!(fragments(&frame(&[], 4_000, 0x4000), 1_500), None, "DF");
        assert_eq!(fragments(&frame(&[], 1_480, 0), 1_500), None, "it fits");
        assert_eq!(fragments(&frame(&[], 65_000, 0), 1_500), None, "too many");
        let beyond = frame(&[], 4_000, 7_691);
        assert_eq!(fragments(&beyond, 1_500), None, "beyond the longest packet");
    }

    #[test]
    fn longest_packet_is_within_the_bound() {
        let whole = frame(&[1; 40], 9_216 - 60, 0);
        let pieces = fragments(&whole, 576).expect("fragments");
        assert_eq!(pieces.len(), usize::from(MAX_FRAGMENTS));
    }
}
