//! The slow, obvious model of `docs/reference/spoof-filter.md`, in `dhcp_server`, `dhcp6_server`,
//! `dns` and `metadata` of `docs/reference/services.md`, in [`tunnel`] of
//! `docs/reference/tunnel.md`, and in [`ipsec`] of `docs/reference/ipsec.md`: what one frame must
//! get, row by row in the pages' order, each row's code below a comment that names it. It shares
//! nothing with the switch but the names of the reasons and the configuration's types, and prefers
//! clarity to speed everywhere.

mod address;
mod arp;
mod bytes;
mod claim;
mod client;
mod client6;
mod dhcp;
mod dhcp6_server;
mod dhcp_server;
mod dns;
mod ethernet;
mod fragment;
pub(crate) mod ipsec;
mod ipv4;
mod ipv6;
mod metadata;
mod multicast;
mod nd;
mod packet;
mod resolver;
mod route;
mod shared;
mod storm;
pub(crate) mod tunnel;
mod uplink;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use pipeline::DropReason::{self, *};
use tenant_config::{
    Addresses, Encapsulation, Ipv6Autoconf, Ipv6Use, MacAddr, PortConfig, SwitchConfig,
    UplinkConfig,
};

use self::address::*;
use self::arp::*;
use self::bytes::*;
use self::claim::Claim;
use self::client::*;
use self::client6::*;
use self::dhcp::*;
pub(crate) use self::dhcp_server::DhcpAnswer;
pub(crate) use self::dhcp6_server::Dhcp6Answer;
use self::dhcp6_server::*;
pub(crate) use self::dns::DnsAnswer;
use self::ethernet::*;
use self::ipsec::{Carried, Ipsec};
use self::ipv4::*;
use self::ipv6::*;
use self::multicast::*;
use self::nd::*;
use self::packet::*;
use self::resolver::{Query, Resolvers};
use self::route::*;
use self::storm::*;
use self::tunnel::path_mtu::{Belief, Complaint, Witness};
use self::tunnel::{Outer, TunnelReply};
use self::uplink::*;

/// The required result for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It leaves as these bytes by that port; the number of ports stands for the uplink.
    Forward { to: usize, bytes: Vec<u8> },
    /// It leaves as these copies, at least two, each [`Self::Forward`] or [`Self::Tunnel`].
    Copies(Vec<Outcome>),
    /// It leaves by the uplink, inside this tunnel packet.
    Tunnel(Outer),
    /// It leaves by the uplink as this query to a resolver.
    Query(Query),
    /// It is answered to the port that it came from.
    Reply(Answer),
    /// It came through the tunnel and is answered into it.
    TunnelReply(TunnelReply),
    /// It came through the tunnel, is larger than the receiver's MTU, and dropped as [`Mtu`]. An
    /// ICMP error that states the MTU goes back, as for [`Self::Drop`].
    TunnelError {
        mtu: u16,
        /// The inner frame.
        asked: Vec<u8>,
        /// The peer's number.
        peer: usize,
    },
    /// It is dropped as [`NdSpoof`], and the answer defends the address that it claims.
    Defend(Answer),
    /// It reports a path MTU: dropped as [`Absorbed`] if the switch follows it, otherwise as
    /// [`GatewayService`].
    Report(Belief),
    /// It is dropped. An ICMP error that is owed goes back unless the rate limit of errors is
    /// reached.
    Drop {
        reason: DropReason,
        icmp_error: bool,
        /// The MTU of the next link that an ICMP error states.
        mtu: Option<u16>,
    },
}

/// The gateway's (or, on the uplink, the switch's) own answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An ARP reply that says `mac` has `address`.
    Arp { mac: [u8; 6], address: Ipv4Addr },
    /// A Neighbor Advertisement that says `mac` has `address`.
    NeighborAdvertisement { mac: [u8; 6], address: Ipv6Addr },
    /// A Router Advertisement of the port's gateway.
    RouterAdvertisement {
        mac: [u8; 6],
        /// The MTU that it states; `None` if it need not state one.
        mtu: Option<u16>,
        /// Managed and other configuration, and that for SLAAC of the prefix.
        flags: [bool; 3],
        prefix: ipnet::Ipv6Net,
        /// The DNS servers, and the search domains as DNS writes them.
        resolvers: (Vec<[u8; 16]>, Vec<u8>),
    },
    /// The echo reply to an echo request.
    Echo,
    /// What the gateway's own DHCP server says.
    Dhcp(DhcpAnswer),
    /// What its DHCPv6 server says.
    Dhcp6(Dhcp6Answer),
    /// What it says of the ports' names.
    Dns(DnsAnswer),
}

impl From<DropReason> for Outcome {
    fn from(reason: DropReason) -> Self {
        Self::Drop {
            reason,
            icmp_error: false,
            mtu: None,
        }
    }
}

/// One switch as the page describes it: its configuration and its state.
#[derive(Debug)]
pub(crate) struct Model {
    /// The configuration, in which each learning port has what it has learned.
    config: Arc<SwitchConfig>,
    /// The configuration as it was given.
    written: Arc<SwitchConfig>,
    /// What is remembered of DHCP clients, by the port's name.
    clients: BTreeMap<String, Client>,
    clients6: BTreeMap<String, Client6>,
    /// By shared address, the name of the port that holds it, and the MAC by which it does.
    holders: BTreeMap<IpAddr, (String, [u8; 6])>,
    /// The addresses that ports have claimed, by the port's name.
    claims: BTreeMap<String, Vec<Claim>>,
    buckets: Vec<[Option<Bucket>; 5]>,
    /// The VID of the last frame, which an answer to it carries.
    last_tag: Option<u16>,
    /// By port and address, the VID of the last frame that it sent.
    tags: BTreeMap<(usize, IpAddr), Option<u16>>,
    neighbours: BTreeMap<IpAddr, [u8; 6]>,
    witness: Witness,
    ipsec: Ipsec,
    /// The endpoint to which the last frame found no SA.
    lacking: Cell<Option<IpAddr>>,
    /// Who listens to which group.
    groups: Groups,
    /// Of packets to metadata, by port; and those that were passed on.
    metadata_buckets: Vec<Bucket>,
    passed: Vec<(usize, Vec<u8>)>,
    /// What resolvers were asked.
    resolvers: Resolvers,
    /// Of packets that are fragmented, by port.
    fragment_buckets: RefCell<BTreeMap<usize, Bucket>>,
    now_ns: u64,
}

impl Model {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        Self {
            config: Arc::new(config.clone()),
            written: Arc::new(config.clone()),
            clients: BTreeMap::new(),
            clients6: BTreeMap::new(),
            holders: BTreeMap::new(),
            claims: BTreeMap::new(),
            last_tag: None,
            tags: BTreeMap::new(),
            buckets: config.ports.iter().map(Bucket::of_port).collect(),
            neighbours: BTreeMap::new(),
            witness: Witness::default(),
            ipsec: Ipsec::default(),
            lacking: Cell::new(None),
            groups: Groups::default(),
            metadata_buckets: vec![Self::metadata_bucket(); config.ports.len()],
            passed: Vec::new(),
            resolvers: Resolvers::default(),
            fragment_buckets: RefCell::default(),
            now_ns: 0,
        }
    }

    /// The number that stands for the uplink.
    pub(crate) fn uplink(&self) -> usize {
        self.config.ports.len()
    }

    /// Sets the MAC of every next hop, as if it had been learned.
    pub(crate) fn teach_all(&mut self, mac: [u8; 6]) {
        for next_hop in self.next_hops() {
            self.neighbours.insert(next_hop, mac);
        }
    }

    /// The uplink's next hops, and those towards the peers of the tunnel and resolvers.
    fn next_hops(&self) -> Vec<IpAddr> {
        let uplink = self.config.uplink.iter();
        let routers = uplink.flat_map(|uplink| {
            let ipv4 = uplink.next_hops.ipv4.map(IpAddr::V4);
            ipv4.into_iter()
                .chain(uplink.next_hops.ipv6.map(IpAddr::V6))
        });
        let peers = self.config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        let dns = &self.config.gateway.dns;
        let resolvers = self.config.uplink.iter().flat_map(|uplink| {
            let resolvers = dns.forward.iter().filter(|_| dns.enabled);
            resolvers.filter_map(|it| resolver::next_hop_to(uplink, *it))
        });
        let peers = peers.map(|peer| peer.next_hop);
        routers.chain(peers).chain(resolvers).collect()
    }

    /// A next hop that is known is not replaced, as long as it answers. In these tests, it does.
    fn teach(&mut self, next_hop: IpAddr, mac: [u8; 6]) {
        self.neighbours.entry(next_hop).or_insert(mac);
    }

    /// The VID of the tag that an answer to the last frame carries.
    pub(crate) fn tag_of_answer(&self) -> Option<u16> {
        self.last_tag
    }

    /// The required result for `frame` from port number `from`. `tag` is the control information of
    /// a VLAN tag that the device has moved into metadata.
    pub(crate) fn expect(
        &mut self,
        now_ns: u64,
        from: usize,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Outcome {
        self.now_ns = now_ns;
        self.groups.unsent.clear();
        self.config = self.with_leases(now_ns);
        let config = Arc::clone(&self.config);
        let outcome = match (config.ports.get(from), &config.uplink) {
            (Some(port), _) => self.of_port(now_ns, from, port, frame, tag),
            (None, Some(uplink)) => self.of_uplink(uplink, frame, tag),
            (None, None) => panic!("a frame from an uplink that does not exist"),
        };
        self.acquire();
        outcome.unwrap_or_else(Outcome::from)
    }

    fn of_port(
        &mut self,
        now_ns: u64,
        from: usize,
        port: &PortConfig,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Result<Outcome, DropReason> {
        let trunk: Vec<u16> = port.trunk.iter().map(|vid| vid.get()).collect();
        let ethernet = ethernet(frame, tag, (port.mtu, true), &trunk, |source| {
            source == port.mac.octets() || port.extra_macs.iter().any(|mac| mac.octets() == source)
        })?;
        self.last_tag = ethernet.tag;
        match ethernet.ethertype {
            RARP => {
                // Ethernet 7
                if !(port.announce && is_announce(&ethernet, port.mac)) {
                    return Err(Rarp);
                }
                self.admit(now_ns, from, frame, &ethernet, None)?;
                Err(Absorbed)
            }
            ARP => {
                let arp = arp(&ethernet)?;
                // ARP 3
                let probe = arp.opcode == 1 && arp.sender.is_unspecified();
                if !(probe || owns(port, arp.sender.into())) {
                    return Err(ArpSenderIp);
                }
                self.admit(now_ns, from, frame, &ethernet, None)?;
                self.arp_service(from, port, &ethernet, &arp)
            }
            IPV4 => {
                let packet = ipv4(ethernet.payload)?;
                ipv4_from_port(port, &packet)?;
                self.admit(now_ns, from, frame, &ethernet, Some(&packet))?;
                if let Some(outcome) = self.too_large(port, &ethernet, &packet) {
                    return Ok(outcome);
                }
                self.dhcp_client_said(from, port, &packet)?;
                let outcome = self.services_and_route(from, port, &ethernet, &packet);
                if let Some(takers) = self.dhcp_taker(from, port, &packet)
                    && !self.is_to_all_servers(port, &packet)
                    && let [to] = takers[..]
                {
                    self.dhcp_server_said(to, &packet.payload[8..]);
                }
                Ok(outcome)
            }
            IPV6 if port.ipv6 == Ipv6Use::Allow => {
                let packet = ipv6(ethernet.payload)?;
                self.ipv6_from_port(port, &packet)?;
                self.admit(now_ns, from, frame, &ethernet, Some(&packet))?;
                self.heard_from(port, &packet);
                if let Some(outcome) = self.too_large(port, &ethernet, &packet) {
                    return Ok(outcome);
                }
                if answers_nothing(&ethernet, &packet) {
                    return Err(DstMac);
                }
                if packet.icmpv6_type() == Some(NA) {
                    self.hear_advertisement(port, &packet, ethernet.source);
                }
                self.mld_said(Listener::Port(from), &ethernet, &packet);
                if let Some(icmp_type) = packet.icmpv6_type()
                    && let Some(outcome) = self.nd_service(from, port, icmp_type, &packet)
                {
                    return Ok(outcome);
                }
                self.dhcpv6_said(from, port, &packet)?;
                Ok(self.services_and_route(from, port, &ethernet, &packet))
            }
            // Ethernet 8
            _ => Err(EtherType),
        }
    }
}
