//! `[tunnel]`: how the tenant's packets travel between hosts.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use super::encapsulation::{Encapsulation, denied, parse_encapsulation};
use super::ipsec::{self, IkeConfig, Ipsec, IpsecConfig, IpsecFacts, IpsecSuite, Protection};
use super::mtu::{self, MAX_MTU, least_mtu};
use super::peer::{self, MAX_PEERS, Peer, PeerConfig, PeerFacts, PeerProblem};
use super::prefixes;
use super::uplink::{Uplink, UplinkFacts};
use crate::addr::{InvalidValue, MacAddr, Vni};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath};
use crate::subnet::parse_address;

/// The UDP ports on which the filter looks for DHCP.
const DHCP_PORTS: [i64; 4] = [67, 68, 546, 547];
/// The accepted TTLs, as the rest of a sentence.
const TTL_EXPECTED: &str = "an integer from 1 to 255, or \"inherit\"";
/// The accepted DSCPs, as the rest of a sentence.
const DSCP_EXPECTED: &str = "an integer from 0 to 63, or \"inherit\"";

/// The tunnel gateway in a tenant file. Absent keys follow from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// Our tunnel endpoint, one of the uplink's own addresses. By default its IPv4 address, or else
    /// its IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// The UDP destination port. By default 6081 (Geneve) or 4789 (VXLAN).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The outer TTL or hop limit.
    #[schemars(default)]
    pub ttl: TunnelTtl,
    /// The outer DSCP.
    #[schemars(default)]
    pub dscp: TunnelDscp,
    /// Whether outer UDP checksums are computed, and required over IPv6. By default over IPv6 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_checksum: Option<bool>,
    /// Whether VMs may send VXLAN and Geneve packets of their own through the tunnel.
    #[schemars(default = "denied")]
    pub nested: Encapsulation,
    /// Whether TCP's maximum segment size is lowered to what the tunnel carries.
    #[schemars(default)]
    pub mss_clamp: bool,
    /// Whether the tenant reaches nothing but its peers.
    #[schemars(default)]
    pub only: bool,
    /// Which peers are spoken to under ESP only. Without the section none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipsec: Option<Ipsec>,
    /// The other ends.
    #[serde(rename = "peer", skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = 1024))]
    pub peers: Vec<Peer>,
}

/// The tunnel gateway: how a tenant's packets travel between hosts, and to which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelConfig {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// Our tunnel endpoint: one of the uplink's own addresses.
    pub vtep: IpAddr,
    /// The UDP destination port.
    pub port: u16,
    /// The MAC of our tunnel side, inside the tunnel.
    pub mac: MacAddr,
    /// The outer TTL or hop limit.
    #[serde(default)]
    pub ttl: TunnelTtl,
    /// The outer DSCP.
    #[serde(default)]
    pub dscp: TunnelDscp,
    /// Whether outer UDP checksums are computed, and required over IPv6.
    pub udp_checksum: bool,
    /// Whether VMs may send VXLAN and Geneve packets of their own through the tunnel.
    #[serde(default = "denied")]
    pub nested: Encapsulation,
    /// Whether TCP's maximum segment size is lowered to what the tunnel carries.
    #[serde(default)]
    pub mss_clamp: bool,
    /// Whether the tenant reaches nothing but its peers.
    #[serde(default)]
    pub only: bool,
    /// What security associations may be. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipsec: Option<IpsecConfig>,
    /// The other ends.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// The encapsulations, of Ethernet in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// RFC 8926.
    Geneve,
    /// RFC 7348.
    Vxlan,
}

impl TunnelKind {
    /// The UDP port that IANA gave it.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Geneve => 6081,
            Self::Vxlan => 4789,
        }
    }

    /// The name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Geneve => "geneve",
            Self::Vxlan => "vxlan",
        }
    }
}

/// The TTL or hop limit of outer packets: `"inherit"`, or 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "the TTL is an integer from 1 to 255, or \"inherit\""
)]
pub enum TunnelTtl {
    /// Always this.
    Fixed(#[schemars(range(min = 1))] u8),
    /// The inner packet's.
    Inherit(Inherit),
}

impl Default for TunnelTtl {
    fn default() -> Self {
        Self::Fixed(64)
    }
}

/// The DSCP of outer packets: `"inherit"`, or 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "the DSCP is an integer from 0 to 63, or \"inherit\""
)]
pub enum TunnelDscp {
    /// Always this.
    Fixed(#[schemars(range(max = 63))] u8),
    /// The inner packet's.
    Inherit(Inherit),
}

impl Default for TunnelDscp {
    fn default() -> Self {
        Self::Inherit(Inherit::Inherit)
    }
}

/// The word for the inner packet's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Inherit {
    /// The inner packet's value.
    Inherit,
}

/// The bytes that a tunnel from `vtep` adds to a packet: the outer IP header, UDP, the tunnel's own
/// header, and the inner Ethernet header.
const fn tunnel_overhead(vtep: IpAddr) -> u16 {
    ip_header(vtep) + TUNNEL_HEADERS
}

/// UDP's header, the tunnel's own, and the inner Ethernet header.
const TUNNEL_HEADERS: u16 = 8 + 8 + 14;

const fn ip_header(vtep: IpAddr) -> u16 {
    match vtep {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// The largest inner packet of a tunnel from `vtep` over a path of `mtu` bytes under ESP in
/// transport mode, whichever of `suites` is in use; `encapsulated` in UDP (RFC 3948) or not.
fn protected_mtu(vtep: IpAddr, suites: &[IpsecSuite], mtu: u16, encapsulated: bool) -> u16 {
    let outer = ip_header(vtep) + if encapsulated { 8 } else { 0 };
    let room = mtu.saturating_sub(outer);
    let payload = suites.iter().map(|suite| suite.max_payload(room)).min();
    payload.unwrap_or(0).saturating_sub(TUNNEL_HEADERS)
}

/// The tunnel, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct TunnelFacts {
    pub(super) key: KeyPath,
    /// Our endpoint. Absent, it is the uplink's IPv4 address, or else its IPv6 one.
    pub(super) vtep: Option<At<IpAddr>>,
    /// Whether the endpoint could not be read, so that it is unknown.
    pub(super) unreadable: bool,
    /// The MAC of our side, if it is written; otherwise it follows from the VNI and the endpoint.
    pub(super) mac: Option<MacAddr>,
    pub(super) port: Option<At<i64>>,
    pub(super) ttl: Option<At<u8>>,
    pub(super) dscp: Option<At<u8>>,
    /// Absent if it could not be read.
    pub(super) only: Option<bool>,
    /// The key of the list of peers and its length, unreadable elements included.
    pub(super) listed: Option<At<usize>>,
    pub(super) peers: Vec<PeerFacts>,
    pub(super) ipsec: Option<IpsecFacts>,
    /// Whether there is a key `ipsec` that is no table.
    pub(super) ipsec_unreadable: bool,
}

impl Tunnel {
    pub(super) fn read(mut section: Section<'_>) -> (Option<Self>, TunnelFacts) {
        let kind = section
            .require(
                "kind",
                "the encapsulation, kind = \"geneve\" or kind = \"vxlan\"",
            )
            .and_then(|node| node.text(parse_kind));
        let vtep = section.get("vtep");
        let mut facts = TunnelFacts {
            key: section.path.clone(),
            vtep: vtep
                .as_ref()
                .and_then(|node| node.read(|node| node.text(parse_address))),
            ..TunnelFacts::default()
        };
        facts.unreadable = vtep.is_some() && facts.vtep.is_none();
        facts.port = section
            .get("port")
            .and_then(|node| node.read(|node| node.integer(Ok::<_, InvalidValue>)));
        let ttl = section.get("ttl");
        let ttl = ttl.and_then(|node| read_or_inherit(&node, 1..=255, TTL_EXPECTED));
        let dscp = section.get("dscp");
        let dscp = dscp.and_then(|node| read_or_inherit(&node, 0..=63, DSCP_EXPECTED));
        let mut flag = |key| section.get(key).map(|node| node.flag());
        let udp_checksum = flag("udp_checksum").flatten();
        let mss_clamp = flag("mss_clamp").flatten().unwrap_or(false);
        facts.only = flag("only").unwrap_or(Some(false));
        let nested = section.get("nested");
        let nested = nested
            .and_then(|node| node.text(parse_encapsulation))
            .unwrap_or(denied());
        let ipsec = section.get("ipsec");
        facts.ipsec_unreadable = ipsec.is_some();
        let ipsec = match ipsec.map(|node| node.section().map(Ipsec::read)) {
            Some(Some((ipsec, read))) => {
                facts.ipsec = Some(read);
                ipsec.map(Some)
            }
            Some(None) => None,
            None => Some(None),
        };
        let peers;
        (peers, facts.listed, facts.peers) = Peer::read_all(section.get("peer"));
        section.finish();
        let tunnel = || {
            Some(Self {
                kind: kind?,
                vtep: facts.vtep.as_ref().map(|vtep| vtep.value),
                // The rules refuse a port that does not fit.
                port: facts
                    .port
                    .as_ref()
                    .and_then(|port| u16::try_from(port.value).ok()),
                ttl: ttl.map_or_else(TunnelTtl::default, |ttl| {
                    ttl.map_or(TunnelTtl::Inherit(Inherit::Inherit), TunnelTtl::Fixed)
                }),
                dscp: dscp.map_or_else(TunnelDscp::default, |dscp| {
                    dscp.map_or(TunnelDscp::Inherit(Inherit::Inherit), TunnelDscp::Fixed)
                }),
                udp_checksum,
                nested,
                mss_clamp,
                only: facts.only?,
                ipsec: ipsec?,
                peers: peers?,
            })
        };
        (tunnel(), facts)
    }

    pub(super) fn config(&self, vni: Vni, uplink: &Uplink) -> TunnelConfig {
        let vtep = self.vtep.unwrap_or_else(|| uplink.first_address());
        let ipsec = self.ipsec.as_ref();
        let default = ipsec.map(|ipsec| ipsec.mode).unwrap_or_default();
        let peers = self.peers.iter();
        let peers = peers.map(|peer| peer.config(vni, uplink, default));
        TunnelConfig {
            kind: self.kind,
            vtep,
            port: self.port.unwrap_or(self.kind.default_port()),
            mac: MacAddr::of_vtep(vni, vtep),
            ttl: self.ttl,
            dscp: self.dscp,
            udp_checksum: self.udp_checksum.unwrap_or(vtep.is_ipv6()),
            nested: self.nested,
            mss_clamp: self.mss_clamp,
            only: self.only,
            ipsec: ipsec.map(Ipsec::config),
            peers: peers.collect(),
        }
    }

    /// What the IKE daemon is configured from, if the tunnel has IPsec.
    pub(super) fn ike_config(&self, uplink: &Uplink) -> Option<IkeConfig> {
        let vtep = self.vtep.unwrap_or_else(|| uplink.first_address());
        let port = self.port.unwrap_or(self.kind.default_port());
        let peers = self.peers.iter();
        let peers = peers.map(|peer| (&peer.name, peer.vtep, &peer.ipsec));
        Some(self.ipsec.as_ref()?.ike((vtep, port), peers))
    }
}

/// A number within `range`, or the word `"inherit"`, which is `None`.
fn read_or_inherit(
    node: &Node<'_>,
    range: RangeInclusive<u8>,
    expected: &'static str,
) -> Option<Option<u8>> {
    match node.as_text() {
        Some("inherit") => Some(None),
        Some(text) => node.fail(InvalidValue::new(text, expected)),
        None => node.integer(|number| {
            let fits = u8::try_from(number)
                .ok()
                .filter(|number| range.contains(number));
            fits.map(Some)
                .ok_or_else(|| InvalidValue::new(number, expected))
        }),
    }
}

fn parse_kind(text: &str) -> Result<TunnelKind, InvalidValue> {
    match text {
        "geneve" => Ok(TunnelKind::Geneve),
        "vxlan" => Ok(TunnelKind::Vxlan),
        _ => Err(InvalidValue::new(text, "\"geneve\" or \"vxlan\"")),
    }
}

impl TunnelConfig {
    /// A tunnel without peers, whose other keys follow from these as in a tenant's file.
    pub fn new(kind: TunnelKind, vni: Vni, vtep: IpAddr) -> Self {
        Self {
            kind,
            vtep,
            port: kind.default_port(),
            mac: MacAddr::of_vtep(vni, vtep),
            ttl: TunnelTtl::default(),
            dscp: TunnelDscp::default(),
            udp_checksum: vtep.is_ipv6(),
            nested: denied(),
            mss_clamp: false,
            only: false,
            ipsec: None,
            peers: Vec::new(),
        }
    }

    /// The largest inner packet to a peer over a path of `mtu` bytes. Under ESP it is the least
    /// that any allowed transform leaves; `encapsulated` says whether ESP is in UDP (RFC 3948).
    pub fn inner_mtu(&self, protection: Protection, mtu: u16, encapsulated: bool) -> u16 {
        match (protection, &self.ipsec) {
            (Protection::Required, Some(ipsec)) => {
                protected_mtu(self.vtep, &ipsec.suites, mtu, encapsulated)
            }
            _ => mtu.saturating_sub(self.overhead()),
        }
    }

    /// The bytes that the tunnel adds to a packet that no ESP protects.
    pub const fn overhead(&self) -> u16 {
        tunnel_overhead(self.vtep)
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        let peers = table.key("peers");
        report.bound(&peers, self.peers.len(), MAX_PEERS);
        let count = self.peers.iter().map(|peer| peer.prefixes.len()).sum();
        prefixes::check_count(count, &peers, report);
    }

    pub(crate) fn facts(&self, table: KeyPath) -> TunnelFacts {
        let peers = table.key("peers");
        let ipsec = self.ipsec.as_ref();
        let each = self.peers.iter().enumerate();
        TunnelFacts {
            vtep: Some(At::new(table.key("vtep"), self.vtep)),
            unreadable: false,
            mac: Some(self.mac),
            port: Some(At::new(table.key("port"), self.port.into())),
            ttl: match self.ttl {
                TunnelTtl::Fixed(ttl) => Some(At::new(table.key("ttl"), ttl)),
                TunnelTtl::Inherit(Inherit::Inherit) => None,
            },
            dscp: match self.dscp {
                TunnelDscp::Fixed(dscp) => Some(At::new(table.key("dscp"), dscp)),
                TunnelDscp::Inherit(Inherit::Inherit) => None,
            },
            only: Some(self.only),
            peers: each
                .map(|(index, peer)| peer.facts(peers.index(index)))
                .collect(),
            listed: Some(At::new(peers, self.peers.len())),
            ipsec: ipsec.map(|ipsec| ipsec.facts(table.key("ipsec"))),
            ipsec_unreadable: false,
            key: table,
        }
    }
}

impl TunnelFacts {
    /// Whether the uplink must have next hops. If `only` could not be read, it need not.
    pub(super) fn is_routed(&self) -> bool {
        self.only == Some(false)
    }

    /// Our endpoint, as far as it is known.
    pub(super) fn own_vtep(&self, uplink: &UplinkFacts) -> Option<IpAddr> {
        if let Some(vtep) = &self.vtep {
            return Some(vtep.value);
        }
        if self.unreadable || uplink.unreadable {
            return None;
        }
        let mut own = uplink.own_addresses();
        own.clone().find(IpAddr::is_ipv4).or_else(|| own.next())
    }

    pub(super) fn check(&self, facts: &Facts, report: &Report) {
        let uplink = &facts.uplink;
        if uplink.key.is_none() {
            report.add(&self.key, TunnelProblem::TunnelWithoutUplink);
        }
        if let Some(vtep) = &self.vtep
            && !uplink.links.is_empty()
            && !uplink.unreadable
            && !uplink.own_addresses().any(|own| own == vtep.value)
        {
            let own: Vec<_> = uplink.own_addresses().map(|own| own.to_string()).collect();
            let (vtep_key, vtep, own) = (&vtep.key, vtep.value, own.join(" or "));
            report.add(vtep_key, TunnelProblem::VtepNotOwn { vtep, own });
        }
        self.check_header(report);
        let own = self.own_vtep(uplink);
        if let (Some(own), Some(mtu)) = (own, &uplink.mtu) {
            self.check_inner_mtu(own, mtu, &self.peers, facts, report);
        }
        if let Some(own) = own {
            self.check_peer_mtus(own, facts, report);
        }
        ipsec::check(self, report);
        peer::check(self, own, facts, report);
    }

    /// Checks the values of outer headers.
    fn check_header(&self, report: &Report) {
        let range = |key: &KeyPath, value: i64, min, max, expected| {
            if !(min..=max).contains(&value) {
                report.add(key, InvalidValue::new(value, expected));
            }
        };
        if let Some(port) = &self.port {
            range(
                &port.key,
                port.value,
                1,
                65535,
                "a UDP port from 1 to 65535",
            );
            if DHCP_PORTS.contains(&port.value) {
                let expected = "a UDP port other than DHCP's (67, 68, 546 and 547)";
                report.add(&port.key, InvalidValue::new(port.value, expected));
            }
        }
        if let Some(ttl) = &self.ttl {
            range(&ttl.key, ttl.value.into(), 1, 255, TTL_EXPECTED);
        }
        if let Some(dscp) = &self.dscp {
            range(&dscp.key, dscp.value.into(), 0, 63, DSCP_EXPECTED);
        }
    }
}

impl TunnelFacts {
    /// Checks the MTUs of the paths to peers.
    fn check_peer_mtus(&self, own: IpAddr, facts: &Facts, report: &Report) {
        let uplink = facts.uplink.mtu.as_ref();
        let uplink = uplink.map_or(i64::from(mtu::default_mtu()), |mtu| mtu.value);
        let link = facts.uplink.link_of(own).map(|(address, _)| address);
        for peer in &self.peers {
            let Some(mtu) = &peer.mtu else {
                continue;
            };
            mtu::check(mtu, link, report);
            if mtu.value > uplink {
                let problem = PeerProblem::PeerMtu {
                    mtu: mtu.value,
                    uplink,
                };
                report.add(&mtu.key, problem);
            }
            self.check_inner_mtu(own, mtu, std::slice::from_ref(peer), facts, report);
        }
    }

    /// Checks what the tunnel leaves to `peers` of an MTU.
    fn check_inner_mtu(
        &self,
        own: IpAddr,
        mtu: &At<i64>,
        peers: &[PeerFacts],
        facts: &Facts,
        report: &Report,
    ) {
        let links = facts.uplink.links.iter().map(|(address, _)| address);
        let mtu_key = &mtu.key;
        let written = mtu.value;
        // An MTU that no link may have is reported as such.
        let Some(mtu) = u16::try_from(written)
            .ok()
            .filter(|mtu| (least_mtu(links).0..=MAX_MTU).contains(mtu))
        else {
            return;
        };
        let peers = peers.iter().map(|peer| &peer.ipsec);
        let suites = self.ipsec.as_ref().and_then(|ipsec| ipsec.in_use(peers));
        let left = |mtu: u16| match &suites {
            Some(suites) => i64::from(protected_mtu(own, suites, mtu, false)),
            None => i64::from(mtu) - i64::from(tunnel_overhead(own)),
        };
        let (min, why) = least_mtu(&facts.gateway.addresses);
        if left(mtu) < i64::from(min) {
            let least = (min..=MAX_MTU).find(|mtu| left(*mtu) >= i64::from(min));
            let least = least.unwrap_or(MAX_MTU);
            let problem = TunnelProblem::TunnelMtu {
                mtu: written,
                left: left(mtu),
                overhead: least - min,
                least,
                why,
            };
            report.add(mtu_key, problem);
        }
    }
}

/// An error in the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TunnelProblem {
    /// A tunnel without an underlay.
    #[error(
        "the tunnel needs an underlay; add an [uplink] with the address of this host's tunnel \
         endpoint, or leave [tunnel] out"
    )]
    TunnelWithoutUplink,
    /// A tunnel endpoint that is none of the switch's own addresses.
    #[error(
        "{vtep} is no address of the uplink's; write {own}, or leave the key out for the first of \
         them"
    )]
    VtepNotOwn {
        /// The endpoint.
        vtep: IpAddr,
        /// The uplink's addresses.
        own: String,
    },
    /// An MTU that leaves too little for what the tunnel carries.
    #[error(
        "an MTU of {mtu} leaves {left} bytes for a packet within the tunnel, which adds \
         {overhead}; write at least {least}{why}"
    )]
    TunnelMtu {
        /// The uplink's MTU.
        mtu: i64,
        /// The rest of it.
        left: i64,
        /// The bytes that the tunnel adds.
        overhead: u16,
        /// The least that is accepted.
        least: u16,
        /// The reason for the minimum.
        #[serde(skip)]
        why: &'static str,
    },
}
