//! The router's ARP (RFC 826).

use crate::network::{NEXT_HOP, NEXT_HOP_MAC};

/// The router's reply to a request for its address; `None` for any other frame.
pub(super) fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let arp = request.get(12..42)?;
    if arp[..10] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] || arp[26..30] != NEXT_HOP.octets() {
        return None;
    }
    let mut reply = Vec::with_capacity(60);
    reply.extend_from_slice(&request[6..12]);
    reply.extend_from_slice(&NEXT_HOP_MAC);
    reply.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    reply.extend_from_slice(&NEXT_HOP_MAC);
    reply.extend_from_slice(&NEXT_HOP.octets());
    reply.extend_from_slice(&request[22..32]);
    reply.resize(60, 0);
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
