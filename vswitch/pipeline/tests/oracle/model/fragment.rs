//! The rows of "Fragmentation".

use super::tunnel::is_nested;
use super::*;

/// "More than 1,000 packets of the port in a second."
const PER_SECOND: u64 = 1_000;

/// The fragments of a packet, each of at most `max` bytes; `None` if it may not be fragmented.
fn fragments(packet: &[u8], max: u16) -> Option<Vec<Vec<u8>>> {
    let word = be16(packet, 6);
    let header = usize::from(packet[0] & 0x0f) * 4;
    let (options, payload) = (&packet[20..header], &packet[header..]);
    let offset = usize::from(word & 0x1fff);
    // Row 1
    if word & 0x4000 != 0 || header + offset * 8 + payload.len() > 65_535 {
        return None;
    }
    let size = (usize::from(max) - header) / 8 * 8;
    let pieces: Vec<&[u8]> = payload.chunks(size).collect();
    if !(2..=18).contains(&pieces.len()) {
        return None;
    }
    // Row 3
    let mut copied = Vec::new();
    let mut rest = options;
    while let [kind, more @ ..] = rest {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => more.first().map_or(0, |length| usize::from(*length)),
        };
        if length == 0 || length > rest.len() || (length == 1 && *kind != 1) {
            break;
        }
        if kind & 0x80 != 0 {
            copied.extend(&rest[..length]);
        }
        rest = &rest[length..];
    }
    while copied.len() % 4 != 0 {
        copied.push(0);
    }
    let last = pieces.len() - 1;
    let fragment = |(number, piece): (usize, &&[u8])| {
        let options = if number == 0 { options } else { &copied };
        let mut header = packet[..20].to_vec();
        header.extend(options);
        header[0] = 0x40 | (header.len() / 4) as u8;
        let total = (header.len() + piece.len()) as u16;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        let more = if number == last {
            word & 0x2000
        } else {
            0x2000
        };
        let place = word & 0x8000 | more | (offset + number * size / 8) as u16;
        header[6..8].copy_from_slice(&place.to_be_bytes());
        header[10..12].fill(0);
        let sum = !ones_complement_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(*piece);
        header
    };
    Some(pieces.iter().enumerate().map(fragment).collect())
}

impl Model {
    /// What becomes of a port's packet that is too large for the uplink or a peer, where it is
    /// fragmented.
    pub(super) fn fragmented(
        &self,
        from: usize,
        way: Route,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let uplink = self.config.uplink.as_ref().filter(|it| it.fragment)?;
        if packet.source.is_ipv6() || is_link_local(packet.source) {
            return None;
        }
        let max = match way {
            Route::Uplink if packet.hop_limit > 1 => uplink.mtu,
            Route::Peer(peer) if !is_nested(self.tunnel(), packet) => self.carries(peer),
            _ => return None,
        };
        if packet.whole.len() <= usize::from(max) {
            return None;
        }
        let whole = match way {
            Route::Peer(_) => tunnel::clamped(self.tunnel(), packet.whole, packet, max),
            _ => packet.whole.to_vec(),
        };
        let fragments = fragments(&whole, max)?;
        // Row 2
        let mut buckets = self.fragment_buckets.borrow_mut();
        let bucket = buckets
            .entry(from)
            .or_insert_with(|| Bucket::new(PER_SECOND));
        if !bucket.take(self.now_ns, 1) {
            return Some(FragmentRate.into());
        }
        let leave = |bytes: &Vec<u8>| {
            let fragment = ipv4(bytes).expect("a sound fragment");
            let too_big = |_: u16| panic!("a fragment that is too large");
            match way {
                Route::Peer(peer) => self.enter_tunnel(peer, &fragment, |reason, _| reason.into()),
                _ => self.leave(self.uplink(), &fragment, too_big),
            }
        };
        let left: Vec<Outcome> = fragments.iter().map(leave).collect();
        let refused = left.iter().find(|it| matches!(it, Outcome::Drop { .. }));
        Some(refused.cloned().unwrap_or(Outcome::Copies(left)))
    }
}
