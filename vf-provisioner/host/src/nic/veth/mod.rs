//! The default backend: veth pairs, for hosts without an SR-IOV NIC.
//!
//! With one VLAN per port, the embedded switch between a T VF and its Gw VF is just a wire, so a
//! veth pair can replace the two. In/Out sides meet on a Linux bridge as they would on the embedded
//! switch: isolated from each other, receiving only their own MAC and groups, sending only from
//! their own sources. A network namespace named like the port takes the guest's place; its
//! interface is `eth0`.

mod addresses;
mod checks;
mod proof;

use clap::Args;
use tenant_config::{Device, Name, SwitchConfig, Tenant};

use super::kind::Kind;
use super::parts::bridge::Bridge;
use super::parts::guard;
use super::parts::link::{BridgePort, End, Pair};
use super::parts::names::{GUEST_INTERFACE, Names, digest};
use super::parts::netns::Namespace;
use super::probe::Probe;
use super::{AssignError, Assignment, NicBackend};
use crate::error::{HostError, OptionError};
use crate::finding::Finding;
use crate::object::Object;
use crate::resource::Resource;
use crate::state::{Record, State};

const INOUT_INTERFACE: &str = "inout";

/// The options of the backend.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// The bridge on which In/Out sides meet the wire; it is made if it does not exist. Enslave the
    /// wire's interface to it [default: INSTANCE-br0]
    #[arg(long, global = true, value_name = "INTERFACE")]
    bridge: Option<String>,
}

impl Kind for Options {
    fn is_meant(&self, _: &State) -> bool {
        false
    }

    fn backend(&self, names: &Names, _: &State) -> Result<Box<dyn NicBackend>, OptionError> {
        let bridge = match &self.bridge {
            Some(bridge) => bridge.clone(),
            None => format!("{}-br0", names.instance()),
        };
        Ok(Box::new(Veth::new(names.instance(), &bridge)))
    }

    fn checks(needed: bool) -> Vec<Finding> {
        checks::all(needed)
    }

    fn refusals(records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
        let host = addresses::of_host()?;
        Ok(records
            .iter()
            .map(|it| addresses::refusal(it, &host))
            .collect())
    }
}

/// The backend.
#[derive(Debug, Clone)]
pub struct Veth {
    names: Names,
    bridge: String,
}

impl Veth {
    /// Names begin with `instance`; In/Out sides meet on `bridge`.
    pub fn new(instance: &str, bridge: &str) -> Self {
        Self {
            names: Names::new(instance),
            bridge: bridge.to_owned(),
        }
    }

    /// The prefix of In/Out bridge ports; the guard drops all frames of a port without a lock.
    fn bridge_port_prefix(&self) -> String {
        format!("{}-io", self.names.instance())
    }

    fn bridge_port(&self, tenant: &Name) -> String {
        format!("{}{}", self.bridge_port_prefix(), digest(&[tenant], 7))
    }

    fn uplink(&self, config: &SwitchConfig, devices: &Assignment) -> Option<Vec<Resource>> {
        let uplink = config.uplink.as_ref()?;
        let interface = interface_of(devices.uplink.as_ref()?)?;
        let bridge_port = self.bridge_port(&config.tenant);
        let bridge = Bridge {
            interface: self.bridge.clone(),
            up: true,
            snooping: false,
            ipv6: false,
            strict_arp: true,
        };
        let pair = Pair {
            switch: End {
                mac: Some(uplink.mac),
                ..End::of_switch(
                    &self.namespace(&config.tenant),
                    interface,
                    uplink.mtu,
                    format!("{} In/Out", config.tenant),
                )
            },
            peer: End {
                namespace: None,
                interface: bridge_port.clone(),
                mac: None,
                mtu: uplink.mtu.into(),
                up: None,
                arp: false,
                ipv6: false,
                offloads: false,
                alias: format!("{} In/Out", config.tenant),
                bridge: Some(BridgePort {
                    bridge: self.bridge.clone(),
                    isolated: true,
                    learning: false,
                    flood: false,
                    locked: true,
                    station: Some(uplink.mac),
                }),
            },
        };
        let lock = guard::lock(
            self.names.instance(),
            &bridge_port,
            pair.key(),
            config,
            uplink,
        );
        Some(vec![
            Resource::Bridge(bridge),
            Resource::Guard(guard::guard(
                self.names.instance(),
                &self.bridge_port_prefix(),
            )),
            Resource::Pair(pair),
            Resource::Lock(lock),
        ])
    }
}

fn interface_of(device: &Device) -> Option<&str> {
    match device {
        Device::AfPacket { interface } | Device::AfXdp { interface } => Some(interface),
        _ => None,
    }
}

impl NicBackend for Veth {
    fn assign(&self, tenants: &[Tenant], _: &State) -> Result<Vec<Assignment>, AssignError> {
        let device = |interface| Device::AfPacket { interface };
        let assignment = |tenant: &Tenant| Assignment {
            ports: tenant
                .ports()
                .iter()
                .map(|port| device(format!("gw-{}", digest(&[&port.name], 10))))
                .collect(),
            uplink: tenant.uplink().map(|_| device(INOUT_INTERFACE.to_owned())),
            guests: Vec::new(),
        };
        Ok(tenants.iter().map(assignment).collect())
    }

    fn namespace(&self, tenant: &Name) -> String {
        self.names.switch_namespace(tenant)
    }

    fn resources(
        &self,
        _: &Tenant,
        config: &SwitchConfig,
        devices: &Assignment,
    ) -> (Vec<Resource>, Vec<Probe>) {
        let switch_namespace = self.namespace(&config.tenant);
        let mut resources = vec![Resource::Namespace(Namespace {
            name: switch_namespace.clone(),
            adopt: false,
        })];
        let mut probes = Vec::new();
        for (port, device) in config.ports.iter().zip(&devices.ports) {
            let Some(interface) = interface_of(device) else {
                continue;
            };
            let guest = self.names.namespace(port.name.as_str());
            resources.push(Resource::Namespace(Namespace {
                name: guest.clone(),
                adopt: true,
            }));
            resources.push(Resource::Pair(Pair {
                switch: End {
                    mac: Some(port.gateway_mac),
                    ..End::of_switch(
                        &switch_namespace,
                        interface,
                        port.device_mtu(),
                        format!("{}/{} Gw", config.tenant, port.name),
                    )
                },
                peer: End {
                    namespace: Some(guest.clone()),
                    interface: GUEST_INTERFACE.to_owned(),
                    mac: Some(port.mac),
                    mtu: port.mtu.into(),
                    up: Some(true),
                    arp: true,
                    ipv6: true,
                    offloads: false,
                    alias: format!("{}/{} T", config.tenant, port.name),
                    bridge: None,
                },
            }));
            let gateway = &config.gateway;
            probes.push(Probe::new(port, gateway, &guest, GUEST_INTERFACE));
        }
        resources.extend(self.uplink(config, devices).into_iter().flatten());
        (resources, probes)
    }
}
