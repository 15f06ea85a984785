//! The router's ARP (RFC 826).

use packet::Frame;
use packet::number::ethertype;
use packet::wire::{ETHERNET_LEN, arp, be16};

use crate::network::{NEXT_HOP, NEXT_HOP_MAC};

/// The bytes of the shortest frame, without the frame check sequence.
const MIN_LEN: usize = 60;

/// The router's reply to a request for its address; `None` for any other frame.
pub(super) fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let (ethernet, packet) = request.split_at_checked(ETHERNET_LEN)?;
    if be16(ethernet, 12) != ethertype::ARP {
        return None;
    }
    let packet = arp::parse(packet).ok()?;
    if !packet.request || packet.target_ip != NEXT_HOP.to_bits() {
        return None;
    }
    let mut buffer = vec![0; Frame::HEADROOM + request.len()];
    buffer[Frame::HEADROOM..].copy_from_slice(request);
    let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, request.len(), None);
    arp::reply(&mut frame, NEXT_HOP_MAC, &packet)?;
    let mut reply = frame.bytes().to_vec();
    reply.resize(MIN_LEN, 0);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_the_router_are_answered() {
        let mut request = vec![0xff; 6];
        request.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend_from_slice(&[
            2, 0, 0, 0, 0, 1, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ]);
        let answer = reply(&request).expect("a reply");
        assert_eq!(answer[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(answer[20..22], [0, 2]);
        assert_eq!(answer[28..32], [192, 0, 2, 1]);
        assert_eq!(answer[32..42], [2, 0, 0, 0, 0, 1, 192, 0, 2, 2]);
        request[41] = 9;
        assert_eq!(reply(&request), None);
        assert_eq!(reply(&request[..30]), None);
    }
}
