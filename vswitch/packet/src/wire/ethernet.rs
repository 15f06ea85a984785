//! Ethernet II.

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// Bytes of an 802.1Q tag.
pub const TAG_LEN: usize = 4;

/// The bits of a tag's control information that are the VID.
pub const VID_MASK: u16 = 0x0fff;

/// Writes the header.
///
/// # Panics
/// If there are fewer than [`ETHERNET_LEN`] bytes.
#[inline]
pub fn write(bytes: &mut [u8], to: [u8; 6], from: [u8; 6], ethertype: u16) {
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&from);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// The source MAC and the EtherType of a frame, which are adjacent, as one number.
#[inline(always)]
pub fn source_and_type(head: &[u8; ETHERNET_LEN]) -> u64 {
    u64::from_ne_bytes([
        head[6], head[7], head[8], head[9], head[10], head[11], head[12], head[13],
    ])
}

/// The value of [`source_and_type`] for a MAC and an EtherType.
pub const fn source_and_type_of(mac: [u8; 6], ethertype: u16) -> u64 {
    let [a, b, c, d, e, f] = mac;
    let [hi, lo] = ethertype.to_be_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, hi, lo])
}
