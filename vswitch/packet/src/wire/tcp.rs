//! TCP's maximum segment size.

use super::checksum;
use super::field::be16;

/// The flag of a segment that opens a connection.
pub const SYN: u8 = 0x02;

/// Lowers the maximum segment size that a TCP SYN announces to `max_segment` (RFC 9293, section
/// 3.7.1). `segment` begins with a TCP header that is whole.
pub fn clamp_segment_size(segment: &mut [u8], max_segment: u16) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let Some(head) = segment.first_chunk::<20>() else {
        return;
    };
    let end = (usize::from(head[12] >> 4) * 4).min(segment.len());
    if head[13] & SYN == 0 {
        return;
    }
    let mut at = 20;
    while at < end {
        let len = match (segment[at], segment.get(at + 1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (MAXIMUM_SEGMENT_SIZE, Some(4)) if at + 4 <= end => {
                let old = be16(segment, at + 2);
                if old > max_segment {
                    segment[at + 2..at + 4].copy_from_slice(&max_segment.to_be_bytes());
                    // At an odd offset its bytes count for the other halves of two words.
                    let (old, new) = if at % 2 == 0 {
                        (old, max_segment)
                    } else {
                        (old.swap_bytes(), max_segment.swap_bytes())
                    };
                    checksum::adjust(segment, 16, old, new);
                }
                4
            }
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return,
        };
        at += len;
    }
}
