//! Sequences of Neighbour Discovery: stations that claim link-local addresses, each other's among
//! them, answer for them or fall silent; new configurations and the clock.

use std::net::Ipv6Addr;

use tenant_config::{Addresses, Addresses6, Ipv6Autoconf, Ipv6Use, MacAddr, SwitchConfig};

use super::configs;
use super::frames::*;
use super::generate::Choices;
use super::lease_story::Event;
use super::rows::{EXTERNAL6, VM1, VM2, inner, link_local, solicited_node, stable};
use super::trial::SECOND_NS;

/// The MAC that the second port may get; its link-local address is free until then.
const OTHER: Mac = [0x52, 0x54, 0, 0xaa, 9, 2];

/// Every address that somebody may want.
pub(crate) fn addresses(config: &SwitchConfig) -> Vec<Ipv6Addr> {
    let few = (1..7).map(stable).chain((0x50..0x5b).map(inner));
    let own = [VM1, VM2, OTHER].map(link_local);
    let gateways = config
        .ports
        .iter()
        .map(|port| port.gateway_mac.link_local());
    few.chain(own)
        .chain(gateways.take(2))
        .chain([inner(0x11), inner(0x12), inner(1), inner(0), EXTERNAL6])
        .collect()
}

/// The switches of the stories: one port is a DHCP server, or one may use tags.
pub(crate) fn switches() -> Vec<SwitchConfig> {
    let mut tagged = configs::trunk();
    tagged.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
    for port in &mut tagged.ports {
        port.addresses6 = Some(Addresses6::LearnNd);
    }
    vec![configs::three(), configs::slaac(), configs::trunk(), tagged]
}

/// What the stations of a sequence may do.
#[derive(Debug)]
pub(crate) struct World {
    first: SwitchConfig,
    config: SwitchConfig,
}

impl World {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        Self {
            first: config.clone(),
            config: config.clone(),
        }
    }

    pub(crate) fn next(&mut self, choices: &mut Choices<'_>) -> Event {
        match choices.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2]) {
            0 => self.frame(choices),
            1 => Event::Wait(choices.pick(&[1, 1, 2, 59, 61, 299, 301]) * SECOND_NS),
            _ => {
                self.config = self.reconfigured(choices);
                Event::Configure(Box::new(self.config.clone()))
            }
        }
    }

    fn reconfigured(&self, choices: &mut Choices<'_>) -> SwitchConfig {
        let mut config = self.first.clone();
        match choices.pick(&[0, 1, 2, 3, 4, 5]) {
            0 => config.ports[1].mac = MacAddr::new(OTHER).expect("a station's MAC"),
            1 => config.ports[0].ipv6 = Ipv6Use::Deny,
            2 => config.ports[0].mtu = 1400,
            3 => config.ports[0].addresses6 = None,
            4 => {
                if let Addresses::Static(nets) = &mut config.ports[1].addresses {
                    nets.push(std::net::IpAddr::V6(inner(0x50)).into());
                }
            }
            _ => {}
        }
        config
    }

    fn frame(&self, choices: &mut Choices<'_>) -> Event {
        let from = choices.pick(&[0, 1, 0, 1, 2]);
        let port = &self.config.ports[from];
        let mac = port.mac.octets();
        let addresses = addresses(&self.config);
        let address = choices.pick(&addresses);
        let target = choices.pick(&addresses);
        let gateway = port.gateway_mac.octets();
        let own = || [link_layer(1, mac)];
        let packet = match choices.pick(&[0, 0, 0, 1, 2, 3, 4, 5, 6]) {
            0 => {
                let message = neighbor(135, 0, address, &[]);
                V6::icmp(Ipv6Addr::UNSPECIFIED, solicited_node(address), message)
            }
            1 => V6::icmp(address, ALL_ROUTERS, router_solicitation(&own())),
            2 => {
                let message = neighbor(135, 0, target, &own());
                V6::icmp(address, solicited_node(target), message)
            }
            3 => {
                let message = neighbor(136, 0x20, address, &[link_layer(2, mac)]);
                V6::icmp(address, ALL_NODES, message)
            }
            4 => {
                let message = dhcp6(1, 7, &[option6(1, &[0, 2, 0, 0, 0xab, 0x11, from as u8])]);
                V6::new(address, ALL_DHCP_SERVERS, 17, udp(546, 547, &message))
            }
            5 => V6::new(address, target, 17, udp(547, 546, &dhcp6(7, 7, &[]))),
            _ => echo(address, target),
        };
        let to = if packet.to.is_multicast() {
            group_mac(packet.to)
        } else {
            gateway
        };
        let mut bytes = ethernet(to, mac, IPV6, &packet.bytes());
        if choices.once_in(3) && !port.trunk.is_empty() {
            bytes = tagged(&bytes, 0x8100, 100);
        }
        Event::Frame { from, bytes }
    }
}

/// An echo request, which claims nothing.
pub(crate) fn echo(from: Ipv6Addr, to: Ipv6Addr) -> V6 {
    V6::icmp(from, to, icmpv6(128, 0, &[0, 1, 0, 1]))
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
