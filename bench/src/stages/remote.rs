//! The other hosts of a tenant: the peers of its tunnel, and the addresses behind them.

use std::net::{IpAddr, Ipv4Addr};

use tenant_config::{MacAddr, PeerConfig, Protection, SwitchConfig, TunnelConfig, TunnelKind};

use crate::network::{self, Size};

/// A tunnel to `peers` peers with `addresses` addresses behind all of them together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote {
    pub(super) kind: TunnelKind,
    /// Whether the underlay is IPv6.
    pub(super) ipv6: bool,
    /// Whether the outer UDP header has a checksum.
    pub(super) checksum: bool,
    pub(super) peers: u16,
    pub(super) addresses: u32,
}

impl Remote {
    /// The peers of a scenario that does not vary their number.
    pub(super) const PEERS: u16 = 16;

    /// Geneve over IPv4.
    pub(super) const fn geneve(peers: u16, addresses: u32) -> Self {
        Self {
            kind: TunnelKind::Geneve,
            ipv6: false,
            checksum: false,
            peers,
            addresses,
        }
    }

    /// The configuration of a tenant with this tunnel.
    pub(super) fn tenant(self, size: Size) -> SwitchConfig {
        let mut config = network::tenant(0, size);
        let vni = config.vni;
        let peer = |number: u16| PeerConfig {
            name: format!("host{number}").parse().expect("a name"),
            vtep: self.vtep(number),
            sources: Vec::new(),
            mtu: None,
            mac: MacAddr::of_vtep(vni, self.vtep(number)),
            next_hop: self.vtep(number),
            prefixes: (u32::from(number) - 1..self.addresses)
                .step_by(usize::from(self.peers))
                .map(|nth| IpAddr::from(distant(nth)).into())
                .collect(),
            ipsec: Protection::Off,
        };
        config.tunnel = Some(TunnelConfig {
            udp_checksum: self.checksum,
            peers: (1..=self.peers).map(peer).collect(),
            ..TunnelConfig::new(self.kind, vni, self.vtep(0))
        });
        if let Some(uplink) = &mut config.uplink {
            uplink.mtu = 1600;
        }
        config
    }

    /// The tunnel endpoint of a peer, counted from 1; the switch's own is number 0.
    pub(super) fn vtep(self, peer: u16) -> IpAddr {
        let text = match self.ipv6 {
            false => format!("192.0.2.{}", peer + 2),
            true => format!("2001:db8::{}", peer + 2),
        };
        text.parse().expect("an address")
    }
}

/// An address behind a peer.
pub(super) fn distant(nth: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 0).to_bits() + nth)
}
