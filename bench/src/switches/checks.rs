//! The protocol numbers, ports and prefixes that the peers' rules check: the filter's own.

/// Never a station's address: "this network", loopback, link-local, and everything from multicast
/// up.
pub(super) const MARTIANS: [&str; 4] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
/// The same for IPv6: IPv4-compatible and IPv4-mapped, link-local, multicast.
pub(super) const MARTIANS_IPV6: [&str; 4] = ["::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];
/// Upper layers that encapsulate: IPv4, IPv6 and GRE.
pub(super) const ENCAPSULATIONS: [u8; 3] = [4, 41, 47];
/// The other upper layers over IPv6 that the filter knows.
pub(super) const UPPER_LAYERS: [u8; 14] =
    [6, 17, 33, 46, 50, 58, 59, 89, 97, 103, 108, 112, 132, 136];
/// ICMPv6 that never leaves a link: MLD, Neighbour Discovery and its inverse, router renumbering,
/// multicast router discovery.
pub(super) const LINK_ICMPV6: [u8; 14] = [
    130, 131, 132, 133, 134, 135, 136, 137, 138, 141, 142, 143, 151, 153,
];
