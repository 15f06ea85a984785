//! The tunnel to the tenant's VMs on other hosts. `docs/reference/tunnel.md` is the specification.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use esp::Suite;
use packet::number::port;
use packet::wire::tunnel::{Carrier, Kind, Settings, Template, number};
use packet::wire::{ipv4, ipv6};
use tenant_config::{
    Encapsulation, Inherit, MIN_MTU_IPV4, MIN_MTU_IPV6, SwitchConfig, TunnelConfig, TunnelDscp,
    TunnelKind, TunnelTtl,
};

use crate::ids::{NextHopId, PeerId, VtepId};
use crate::ipsec::rules::Rules;
use crate::lpm::Lpm;
use crate::secret::FlowSecret;
use crate::shared::shared;

/// What one generation knows of its tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) carrier: Carrier,
    /// The MAC of our side, inside the tunnel.
    pub(crate) mac: [u8; 6],
    nested: Encapsulation,
    pub(crate) mss_clamp: bool,
    pub(crate) only: bool,
    /// What IPsec may be, if any peer may require it.
    pub(crate) ipsec: Option<Rules>,
    /// The largest IP packet that the tunnel carries to all peers, in bytes, by the uplink's MTU.
    pub(crate) max_len: u16,
    /// The largest that every path carries without IPsec.
    min_plain_len: u16,
    /// The uplink's MTU.
    pub(crate) mtu: u16,
    /// The smallest IP packet that must get through, in bytes.
    min_inner: u16,
    peers: Arc<[Peer]>,
    vteps: Arc<[Vtep]>,
    /// By the numbers of the addresses that their packets come from; all are of our own family.
    by_address: Lpm<u128, VtepId>,
}

/// A peer; its prefixes are in the routes.
#[derive(Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) vtep: VtepId,
    /// The MAC that receives frames there.
    pub(crate) mac: [u8; 6],
    /// Both in one word, as [`Peer::sender`] makes it.
    pub(crate) usual: u64,
}

impl Peer {
    /// An endpoint, and a MAC in the lower 48 bits, its first byte the lowest.
    #[inline(always)]
    pub(crate) fn sender(vtep: VtepId, mac: u64) -> u64 {
        u64::from(vtep.0) << 48 | mac
    }
}

/// An endpoint of peers; several of them may share one.
#[derive(Debug, PartialEq)]
pub(crate) struct Vtep {
    pub(crate) address: IpAddr,
    pub(crate) next_hop: NextHopId,
    /// The largest IP packet that the underlay carries there, by the configuration.
    pub(crate) mtu: u16,
    /// The peer whose counters count frames without a peer's source.
    pub(crate) first_peer: PeerId,
    pub(crate) template: Template,
    /// Nothing passes between us and it but under IPsec.
    pub(crate) protected: bool,
}

/// The carrier of a tunnel.
fn carrier_of(config: &SwitchConfig, tunnel: &TunnelConfig) -> Carrier {
    Carrier::new(Settings {
        kind: match tunnel.kind {
            TunnelKind::Geneve => Kind::Geneve,
            TunnelKind::Vxlan => Kind::Vxlan,
        },
        vni: config.vni.get(),
        own: tunnel.vtep,
        port: tunnel.port,
        udp_checksum: tunnel.udp_checksum,
        ttl: match tunnel.ttl {
            TunnelTtl::Fixed(ttl) => Some(ttl),
            TunnelTtl::Inherit(Inherit::Inherit) => None,
        },
        dscp: match tunnel.dscp {
            TunnelDscp::Fixed(dscp) => Some(dscp),
            TunnelDscp::Inherit(Inherit::Inherit) => None,
        },
    })
}

impl Tunnel {
    /// `next_hop` finds the place of a next hop among all of the underlay's.
    pub(super) fn build(
        config: &SwitchConfig,
        previous: Option<&Self>,
        secret: &FlowSecret,
        next_hop: impl Fn(IpAddr) -> NextHopId,
    ) -> Option<Self> {
        let (tunnel, uplink) = (config.tunnel.as_ref()?, config.uplink.as_ref()?);
        let carrier = carrier_of(config, tunnel);
        let ipsec = Rules::of_tunnel(tunnel);
        let min_inner = match config.gateway.ipv6 {
            Some(_) => MIN_MTU_IPV6,
            None => MIN_MTU_IPV4,
        };
        let mut vteps: Vec<Vtep> = Vec::new();
        let mut places = HashMap::new();
        let mut peers = Vec::new();
        for (peer, id) in tunnel.peers.iter().zip(0..) {
            let vtep = *places.entry(peer.vtep).or_insert_with(|| {
                let mut protected = ipsec.iter().flat_map(|rules| &rules.endpoints);
                vteps.push(Vtep {
                    address: peer.vtep,
                    next_hop: next_hop(peer.next_hop),
                    mtu: peer.mtu.unwrap_or(uplink.mtu),
                    first_peer: PeerId(id),
                    template: carrier.template(
                        uplink.mac.octets(),
                        peer.vtep,
                        secret.key(peer.vtep),
                    ),
                    protected: protected.any(|endpoint| *endpoint == peer.vtep),
                });
                VtepId((vteps.len() - 1) as u16)
            });
            let mac = peer.mac.octets();
            let [a, b, c, d, e, f] = mac;
            let usual = Peer::sender(vtep, u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
            peers.push(Peer { vtep, mac, usual });
        }
        let sources = tunnel.peers.iter().flat_map(|peer| {
            let vtep = places[&peer.vtep];
            // Under IPsec the endpoint itself is authenticated.
            let plain = !vteps[usize::from(vtep.0)].protected;
            let sources = peer.sources.iter().filter(move |_| plain);
            sources.map(move |source| (*source, vtep))
        });
        let hosts = places.iter().map(|(address, vtep)| (*address, *vtep));
        let hosts = sources.chain(hosts);
        let mut hosts: Vec<_> = hosts
            .map(|(address, vtep)| (number(address), 128, vtep))
            .collect();
        hosts.sort_unstable_by_key(|(address, ..)| *address);
        let mut tunnel = Self {
            carrier,
            mac: tunnel.mac.octets(),
            nested: tunnel.nested,
            mss_clamp: tunnel.mss_clamp,
            only: tunnel.only,
            max_len: 0,
            min_plain_len: 0,
            mtu: uplink.mtu,
            min_inner,
            ipsec,
            by_address: Lpm::build(hosts, previous.map(|previous| &previous.by_address)),
            peers: shared(peers, previous.map(|previous| &previous.peers)),
            vteps: shared(vteps, previous.map(|previous| &previous.vteps)),
        };
        tunnel.min_plain_len = tunnel.min_path_mtu(false, 0) - tunnel.carrier.overhead();
        let lens = tunnel.vteps.iter();
        let lens = lens.map(|vtep| tunnel.carried(vtep.protected, vtep.mtu, 0));
        tunnel.max_len = lens.min().unwrap_or(tunnel.carried(false, tunnel.mtu, 0));
        Some(tunnel)
    }

    /// The largest IP packet that the tunnel carries over a path of that MTU, in bytes. ESP takes
    /// what the dearest of the allowed suites does; `extra` is what the SA in use adds to that.
    pub(crate) fn carried(&self, protected: bool, mtu: u16, extra: u16) -> u16 {
        let overhead = self.carrier.overhead();
        let Some(suites) = self.suites(protected) else {
            return mtu.saturating_sub(overhead);
        };
        let ip = self.ip_header_len();
        let room = usize::from(mtu.saturating_sub(ip + extra));
        let payload = suites.iter().map(|suite| suite.max_payload(room)).min();
        (payload.unwrap_or(0) as u16).saturating_sub(overhead - ip)
    }

    /// The smallest path MTU that is believed, where the SA in use adds `extra`.
    pub(crate) fn min_path_mtu(&self, protected: bool, extra: u16) -> u16 {
        let overhead = self.carrier.overhead();
        let ip = self.ip_header_len();
        let least = match self.suites(protected) {
            None => self.min_inner + overhead,
            Some(suites) => {
                let payload = usize::from(self.min_inner + overhead - ip);
                let sealed = suites.iter().map(|suite| suite.sealed_len(payload)).max();
                ip + extra + sealed.unwrap_or(payload) as u16
            }
        };
        match self.carrier.own() {
            IpAddr::V4(_) => least,
            IpAddr::V6(_) => least.max(MIN_MTU_IPV6),
        }
    }

    /// The largest IP packet that every path carries, in bytes: nobody needs to remember it.
    #[inline(always)]
    pub(crate) fn min_len(&self, protected: bool) -> u16 {
        match protected {
            true => self.min_inner,
            false => self.min_plain_len,
        }
    }

    fn suites(&self, protected: bool) -> Option<&[Suite]> {
        let rules = self.ipsec.as_ref().filter(|_| protected)?;
        Some(&rules.suites)
    }

    fn ip_header_len(&self) -> u16 {
        match self.carrier.own() {
            IpAddr::V4(_) => ipv4::HEADER_LEN as u16,
            IpAddr::V6(_) => ipv6::HEADER_LEN as u16,
        }
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(crate) fn vteps(&self) -> &[Vtep] {
        &self.vteps
    }

    #[inline(always)]
    pub(crate) fn peer(&self, id: PeerId) -> &Peer {
        &self.peers[id.index()]
    }

    #[inline(always)]
    pub(crate) fn vtep(&self, id: VtepId) -> &Vtep {
        &self.vteps[id.index()]
    }

    /// Whether the endpoints and their limits are as in another tunnel.
    pub(crate) fn has_same_paths(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.vteps, &other.vteps)
            && self.by_address.is_shared_with(&other.by_address)
            && (self.mtu, self.min_inner) == (other.mtu, other.min_inner)
            && self.ipsec == other.ipsec
            && self.carrier.overhead() == other.carrier.overhead()
    }

    /// The peers' endpoints: address and place.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (IpAddr, VtepId)> {
        let all = self.vteps.iter().zip(0..);
        all.map(|(vtep, place)| (vtep.address, VtepId(place)))
    }

    /// The endpoint of that address: that to which packets are sent.
    pub(crate) fn endpoint_at(&self, address: IpAddr) -> Option<VtepId> {
        self.vtep_at(address)
            .filter(|vtep| self.vtep(*vtep).address == address)
    }

    /// The endpoint whose packets come from that address.
    #[inline(always)]
    pub(crate) fn vtep_at(&self, address: IpAddr) -> Option<VtepId> {
        if address.is_ipv4() != self.carrier.own().is_ipv4() {
            return None;
        }
        self.vtep_by_number(number(address))
    }

    /// The endpoint whose packets come from the address with that number, of our own family.
    #[inline(always)]
    pub(crate) fn vtep_by_number(&self, address: u128) -> Option<VtepId> {
        self.by_address.lookup(address)
    }

    /// Whether the tunnel does not carry UDP to that port, because it is a tunnel of the VM's own.
    #[inline(always)]
    pub(crate) fn refuses(&self, udp: Option<(u16, u16)>) -> bool {
        self.nested == Encapsulation::Deny
            && udp.is_some_and(|(_, to)| to == self.carrier.port() || port::is_tunnel(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_ports_agree_with_the_configuration() {
        assert_eq!(port::GENEVE, TunnelKind::Geneve.default_port());
        assert_eq!(port::VXLAN, TunnelKind::Vxlan.default_port());
    }

    #[test]
    fn overhead_agrees_with_the_configuration() {
        for (key, own, next_hop) in [
            ("", "192.0.2.2/24", "192.0.2.1"),
            ("6", "2001:db8::2/64", "2001:db8::1"),
        ] {
            let vtep = own.split('/').next().expect("an address");
            let text = format!(
                r#"
                name = "red"
                vni = 5001
                [gateway]
                ipv4 = "10.0.0.1/24"
                [uplink]
                address{key} = "{own}"
                next_hop{key} = "{next_hop}"
                [tunnel]
                kind = "geneve"
                vtep = "{vtep}"
                [[tunnel.peer]]
                name = "host-b"
                vtep = "{next_hop}"
                prefixes = ["10.0.0.71"]
                [[port]]
                name = "vm1"
                mac = "52:54:00:aa:00:01"
                addresses = ["10.0.0.11"]
                "#
            );
            let config = tenant_config::Tenant::parse("red.toml", &text);
            let config = config.expect("a tenant").offline_config();
            let tunnel = config.tunnel.as_ref().expect("a tunnel");
            assert_eq!(carrier_of(&config, tunnel).overhead(), tunnel.overhead());
        }
    }
}
