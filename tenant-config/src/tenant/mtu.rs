//! The key `mtu` of ports and of the uplink.

use ipnet::IpNet;

use crate::addr::InvalidValue;
use crate::document::Node;
use crate::error::Report;
use crate::key::At;
use crate::problem::Problem;

/// The largest MTU: jumbo frames as common NICs carry them.
pub const MAX_MTU: u16 = 9216;
/// The MTU that every IPv4 host accepts (RFC 791).
pub const MIN_MTU_IPV4: u16 = 576;
/// The MTU of every IPv6 link at least (RFC 8200, section 5).
pub const MIN_MTU_IPV6: u16 = 1280;

/// The MTU if the key is absent: Ethernet's.
pub(super) const fn default_mtu() -> u16 {
    1500
}

/// Reads an integer of any size; [`check`] judges it.
pub(super) fn read(node: Option<Node<'_>>) -> Option<At<i64>> {
    node.and_then(|node| node.read(|node| node.integer(Ok::<_, InvalidValue>)))
}

/// The MTU that was read, if the rules accept it; a tenant with another one is refused.
pub(super) fn value(written: Option<&At<i64>>) -> u16 {
    written
        .and_then(|mtu| u16::try_from(mtu.value).ok())
        .unwrap_or(default_mtu())
}

/// Checks the MTU of a link that has the addresses `link`.
pub(super) fn check<'a>(
    mtu: &At<i64>,
    link: impl IntoIterator<Item = &'a At<IpNet>>,
    report: &Report,
) {
    let (min, why) = least_mtu(link);
    if !(i64::from(min)..=i64::from(MAX_MTU)).contains(&mtu.value) {
        let problem = Problem::MtuRange {
            value: mtu.value,
            min,
            max: MAX_MTU,
            why,
        };
        report.add(&mtu.key, problem);
    }
}

/// The least MTU of a link with these addresses, and why it is more than IPv4's.
pub(super) fn least_mtu<'a>(link: impl IntoIterator<Item = &'a At<IpNet>>) -> (u16, &'static str) {
    let ipv6 = link
        .into_iter()
        .any(|address| address.value.addr().is_ipv6());
    if ipv6 {
        (MIN_MTU_IPV6, " (IPv6 needs 1280, RFC 8200)")
    } else {
        (MIN_MTU_IPV4, "")
    }
}
