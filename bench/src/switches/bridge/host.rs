//! One tenant's part of the host: links, bridge ports, kernel parameters, routes and neighbours.

use std::net::IpAddr;

use anyhow::Context;
use tenant_config::{
    Addresses, Encapsulation, Limits, Name, PortConfig, SwitchConfig, UplinkConfig,
};

use super::filter::{Filter, set};
use crate::network::NEXT_HOP_MAC;
use crate::switches::checks::{MARTIANS, MARTIANS_IPV6};

/// A tenant with the interfaces of its ports and of its uplink.
pub(super) struct Host<'a> {
    tenant: &'a SwitchConfig,
    ports: Vec<(&'a str, &'a PortConfig)>,
    uplink: (&'a str, &'a UplinkConfig),
    ipv4: Family,
    ipv6: Family,
}

/// A tenant's network in one protocol, in the programs' notation.
pub(super) struct Family {
    /// The gateway's address.
    gateway: String,
    /// The gateway's subnet.
    pub(super) subnet: String,
    /// The uplink's address.
    pub(super) own: String,
    /// The same with its prefix length.
    own_net: String,
    next_hop: IpAddr,
    /// Destinations that no VM may send to.
    pub(super) not_to: String,
    /// Sources that must not come from the underlay.
    pub(super) not_from: String,
}

/// One program with its file.
pub(super) struct Step {
    /// The message if it fails.
    pub(super) failure: &'static str,
    pub(super) program: &'static str,
    pub(super) arguments: &'static [&'static str],
    pub(super) lines: String,
}

impl<'a> Host<'a> {
    /// The interfaces are the ports' in their order, then the uplink's.
    pub(super) fn new(tenant: &'a SwitchConfig, interfaces: &[&'a str]) -> anyhow::Result<Self> {
        let (uplink, ipv4, ipv6) = supported(tenant).with_context(|| {
            format!(
                "{}: the bridge's rules need IPv4 and IPv6, an uplink without `allow`, and ports \
                 with static addresses and without trunk, DHCP server, announcements, \
                 encapsulation, limits or tunnel",
                tenant.tenant
            )
        })?;
        Ok(Self {
            tenant,
            ports: interfaces.iter().copied().zip(&tenant.ports).collect(),
            uplink: (interfaces[tenant.ports.len()], uplink),
            ipv4,
            ipv6,
        })
    }

    pub(super) fn tenant(&self) -> &Name {
        &self.tenant.tenant
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = &'a str> {
        let ports = self.ports.iter().map(|(interface, _)| *interface);
        ports.chain([self.uplink.0])
    }

    /// All programs, in their order.
    pub(super) fn steps(&self) -> [Step; 5] {
        const BATCH: &[&str] = &["-batch"];
        let filter = Filter {
            ports: &self.ports,
            uplink: self.uplink.0,
            ipv4: &self.ipv4,
            ipv6: &self.ipv6,
        };
        [
            Step {
                failure: "cannot create the bridge",
                program: "ip",
                arguments: BATCH,
                lines: self.links(),
            },
            Step {
                failure: "cannot set up the bridge's ports",
                program: "bridge",
                arguments: BATCH,
                lines: self.bridge(),
            },
            Step {
                failure: "cannot make the kernel a router",
                program: "sysctl",
                arguments: &["--quiet", "--load"],
                lines: self.parameters(),
            },
            Step {
                failure: "cannot add routes and neighbours",
                program: "ip",
                arguments: BATCH,
                lines: self.routes(),
            },
            Step {
                failure: "cannot load the filter",
                program: "nft",
                arguments: &["--file"],
                lines: filter.to_string(),
            },
        ]
    }

    /// The steps as text.
    pub(super) fn rules(&self) -> String {
        self.steps()
            .iter()
            .map(|step| {
                let arguments = step.arguments.join(" ");
                format!("# {} {arguments}\n{}", step.program, step.lines)
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn links(&self) -> String {
        let (uplink, config) = self.uplink;
        let (mac, mtu) = (config.mac, config.mtu);
        let mut lines = vec![
            "link add br0 type bridge stp_state 0 mcast_snooping 0 \
             nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0"
                .to_owned(),
            format!("link set {uplink} address {mac} mtu {mtu} arp on up"),
        ];
        for (interface, port) in &self.ports {
            let (mac, mtu) = (port.gateway_mac, port.mtu);
            lines.push(format!(
                "link set {interface} address {mac} mtu {mtu} arp on master br0 up"
            ));
        }
        // By default it would follow the lowest of its ports' MACs; now it keeps the first port's.
        let (_, first) = self.ports[0];
        lines.push(format!("link set br0 address {} up", first.gateway_mac));
        text(lines)
    }

    fn bridge(&self) -> String {
        text(self.ports.iter().flat_map(|(interface, port)| {
            [
                format!(
                    "link set dev {interface} learning off flood off mcast_flood off \
                     bcast_flood off isolated on"
                ),
                format!("fdb replace {} dev {interface} master static", port.mac),
            ]
        }))
    }

    fn parameters(&self) -> String {
        let uplink = self.uplink.0;
        let mut lines = vec![
            "net.ipv4.ip_forward=1".to_owned(),
            "net.ipv6.conf.all.forwarding=1".to_owned(),
            "net.ipv4.conf.all.accept_source_route=0".to_owned(),
        ];
        for interface in ["all", "br0", uplink] {
            for name in ["rp_filter", "send_redirects", "accept_redirects"] {
                lines.push(format!("net.ipv4.conf.{interface}.{name}=0"));
            }
        }
        for interface in ["br0", uplink] {
            for name in ["accept_ra", "accept_dad", "disable_ipv6"] {
                lines.push(format!("net.ipv6.conf.{interface}.{name}=0"));
            }
        }
        // ARP requests for every address that the VM may reach are answered, as ours does.
        for parameter in [
            "conf.br0.proxy_arp=1",
            "conf.br0.proxy_arp_pvlan=1",
            "neigh.br0.proxy_delay=0",
        ] {
            lines.push(format!("net.ipv4.{parameter}"));
        }
        text(lines)
    }

    fn routes(&self) -> String {
        let uplink = self.uplink.0;
        let router = NEXT_HOP_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let mut lines = Vec::new();
        for family in [&self.ipv4, &self.ipv6] {
            let Family {
                gateway,
                subnet,
                own_net,
                next_hop,
                ..
            } = family;
            lines.extend([
                format!("address add {gateway} dev br0"),
                format!("route add unreachable {subnet}"),
                format!("address add {own_net} dev {uplink}"),
                format!("neighbour replace {next_hop} lladdr {router} dev {uplink} nud permanent"),
                format!("route add default via {next_hop} dev {uplink}"),
            ]);
        }
        for (_, port) in &self.ports {
            for address in addresses(port) {
                lines.extend([
                    format!("route add {address} dev br0"),
                    format!(
                        "neighbour replace {address} lladdr {} dev br0 nud permanent",
                        port.mac
                    ),
                ]);
            }
        }
        text(lines)
    }
}

/// The uplink and both families of a tenant that the rules can express; `None` for any other.
fn supported(tenant: &SwitchConfig) -> Option<(&UplinkConfig, Family, Family)> {
    let plain = |port: &PortConfig| {
        matches!(port.addresses, Addresses::Static(_))
            && port.trunk.is_empty()
            && !port.dhcp_server
            && !port.announce
            && port.encapsulation == Encapsulation::Deny
            && port.limits == Limits::default()
    };
    let uplink = tenant.uplink.as_ref()?;
    let all_plain = !tenant.ports.is_empty()
        && tenant.ports.iter().all(plain)
        && tenant.tunnel.is_none()
        && uplink.allow.is_empty();
    if !all_plain {
        return None;
    }
    let (gateway, own) = (tenant.gateway.ipv4?, uplink.ipv4?);
    let [subnet, address, underlay, broadcast] = [
        gateway.trunc().to_string(),
        own.addr().to_string(),
        own.trunc().to_string(),
        gateway.broadcast().to_string(),
    ];
    let ipv4 = Family {
        not_to: set(MARTIANS.into_iter().chain([&*underlay, &*broadcast])),
        not_from: set(MARTIANS.into_iter().chain([&*subnet, &*address])),
        gateway: gateway.addr().to_string(),
        subnet,
        own: address,
        own_net: own.to_string(),
        next_hop: uplink.next_hops.ipv4?.into(),
    };
    let (gateway, own) = (tenant.gateway.ipv6?, uplink.ipv6?);
    let [subnet, address, underlay] = [
        gateway.trunc().to_string(),
        own.addr().to_string(),
        own.trunc().to_string(),
    ];
    let ipv6 = Family {
        not_to: set(MARTIANS_IPV6.into_iter().chain([&*underlay])),
        not_from: set(MARTIANS_IPV6.into_iter().chain([&*subnet, &*address])),
        gateway: gateway.addr().to_string(),
        subnet,
        own: address,
        own_net: own.to_string(),
        next_hop: uplink.next_hops.ipv6?.into(),
    };
    Some((uplink, ipv4, ipv6))
}

/// The addresses that a VM may use.
pub(super) fn addresses(port: &PortConfig) -> impl Iterator<Item = IpAddr> {
    let nets = match &port.addresses {
        Addresses::Static(nets) => nets.as_slice(),
        Addresses::Learned(_) => &[],
    };
    nets.iter().map(|net| net.addr())
}

fn text(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Size, tenant};

    const INTERFACES: [&str; 3] = ["switch0", "switch1", "switch2"];

    #[test]
    fn two_vms_get_the_recorded_rules() {
        let tenant = tenant(0, Size::new(2, 1));
        let host = Host::new(&tenant, &INTERFACES).expect("a simple tenant");
        assert_eq!(host.rules(), include_str!("two_vms.rules"));
    }

    #[test]
    fn unsupported_key_is_refused() {
        let mut tenant = tenant(0, Size::new(2, 1));
        tenant.ports[1].dhcp_server = true;
        let error = Host::new(&tenant, &INTERFACES).err();
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some(
                "bench0: the bridge's rules need IPv4 and IPv6, an uplink without `allow`, and \
                 ports with static addresses and without trunk, DHCP server, announcements, \
                 encapsulation, limits or tunnel"
            )
        );
    }
}
