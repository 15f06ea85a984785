//! Numbers and addresses in bytes.

/// The big-endian number of 16 bits at `at`.
#[inline(always)]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian number of 32 bits at `at`.
#[inline(always)]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The big-endian number of 128 bits at `at`.
#[inline(always)]
pub fn be128(bytes: &[u8], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(octets)
}

/// The MAC address at `at`.
#[inline(always)]
pub fn mac_at(bytes: &[u8], at: usize) -> [u8; 6] {
    let mut octets = [0; 6];
    octets.copy_from_slice(&bytes[at..at + 6]);
    octets
}

/// Names as DNS writes them (RFC 1035, section 3.1), without compression.
pub(super) fn dns_names(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.push(0);
    }
    bytes
}
