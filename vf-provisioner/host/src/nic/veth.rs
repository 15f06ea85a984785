//! The embedded default where there is no SR-IOV NIC.
//!
//! With one VLAN per port, the embedded switch between a T VF and its Gw VF is just a wire, so a veth
//! pair is an honest stand-in for the two. In/Out sides meet on a Linux bridge as they would on the
//! embedded switch: isolated from each other, fed only their own MAC and groups, held to their own
//! sources. A guest is stood in by a network namespace named like the port, its interface is `eth0`.

use tenant_config::{Device, Name, SwitchConfig, Tenant};

use super::{AllocationError, NicBackend, guard, netlink, probe};
use crate::host::HostError;
use crate::resource::{Assignment, Bridge, BridgePort, End, Namespace, Pair, Resource};
use crate::state::{Probe, State};

/// The instance whose namespaces bear no prefix.
pub const DEFAULT_INSTANCE: &str = "mts";

/// Longest name of an instance: what is left of the 15 bytes of an interface's name.
pub const INSTANCE_MAX: usize = 5;

pub(super) const GUEST_INTERFACE: &str = "eth0";
const INOUT_INTERFACE: &str = "inout";

/// The backend.
#[derive(Debug, Clone)]
pub struct Veth {
    instance: String,
    bridge: String,
}

impl Veth {
    /// Names begin with `instance` (see [`INSTANCE_MAX`]); In/Out sides meet on `bridge`.
    pub fn new(instance: &str, bridge: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            bridge: bridge.to_owned(),
        }
    }

    pub(super) fn namespace_of(&self, name: &str) -> String {
        if self.instance == DEFAULT_INSTANCE {
            name.to_owned()
        } else {
            format!("{}-{name}", self.instance)
        }
    }

    /// What the names of In/Out bridge ports begin with; the guard drops what has no lock.
    fn bridge_port_prefix(&self) -> String {
        format!("{}-io", self.instance)
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
        };
        let pair = Pair {
            switch: End {
                mac: Some(uplink.mac),
                ..switch_end(
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
                up: true,
                arp: false,
                ipv6: false,
                offloads: false,
                alias: format!("{} In/Out", config.tenant),
                bridge: Some(BridgePort {
                    bridge: self.bridge.clone(),
                    isolated: true,
                    learning: false,
                    flood: false,
                    station: Some(uplink.mac),
                }),
            },
        };
        Some(vec![
            Resource::Bridge(bridge),
            Resource::Guard(guard::guard(&self.instance, &self.bridge_port_prefix())),
            Resource::Pair(pair),
            Resource::Lock(guard::lock(&self.instance, &bridge_port, config, uplink)),
        ])
    }
}

/// An end that belongs to a switch: the kernel must not answer anything there.
fn switch_end(namespace: &str, interface: &str, mtu: u16, alias: String) -> End {
    End {
        namespace: Some(namespace.to_owned()),
        interface: interface.to_owned(),
        mac: None,
        mtu: mtu.into(),
        up: true,
        arp: false,
        ipv6: false,
        offloads: false,
        alias,
        bridge: None,
    }
}

fn interface_of(device: &Device) -> Option<&str> {
    match device {
        Device::AfPacket { interface } | Device::AfXdp { interface } => Some(interface),
        _ => None,
    }
}

/// A name of `length` letters and digits that depends on nothing but `parts` (FNV-1a, 5 bits each).
fn digest(parts: &[&Name], length: usize) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.as_str().bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..length)
        .map(|place| char::from(digits[(hash >> (64 - 5 * (place + 1))) as usize & 31]))
        .collect()
}

impl NicBackend for Veth {
    fn name(&self) -> &'static str {
        "veth"
    }

    fn assign(&self, tenants: &[Tenant], _: &State) -> Result<Vec<Assignment>, AllocationError> {
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
        self.namespace_of(&format!("sw-{tenant}"))
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
            let guest = self.namespace_of(port.name.as_str());
            resources.push(Resource::Namespace(Namespace {
                name: guest.clone(),
                adopt: true,
            }));
            resources.push(Resource::Pair(Pair {
                switch: End {
                    mac: Some(port.gateway_mac),
                    ..switch_end(
                        &switch_namespace,
                        interface,
                        port.mtu,
                        format!("{}/{} Gw", config.tenant, port.name),
                    )
                },
                peer: End {
                    namespace: Some(guest.clone()),
                    interface: GUEST_INTERFACE.to_owned(),
                    mac: Some(port.mac),
                    mtu: port.mtu.into(),
                    up: true,
                    arp: true,
                    ipv6: true,
                    offloads: false,
                    alias: format!("{}/{} T", config.tenant, port.name),
                    bridge: None,
                },
            }));
            probes.push(Probe {
                port: port.name.clone(),
                namespace: guest,
                interface: GUEST_INTERFACE.to_owned(),
                mac: port.mac,
                ipv4: config.gateway.ipv4.map(|net| net.addr()),
                ipv6: config.gateway.ipv6.map(|net| net.addr()),
                gateway_mac: port.gateway_mac,
                patience_s: None,
            });
        }
        resources.extend(self.uplink(config, devices).into_iter().flatten());
        (resources, probes)
    }

    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        Ok(match wanted {
            Resource::Namespace(namespace) => {
                netlink::exists(&namespace.name).then(|| wanted.clone())
            }
            Resource::Bridge(bridge) => netlink::observe_bridge(bridge)?.map(Resource::Bridge),
            Resource::Guard(guard) => guard::observe_guard(guard)?.map(Resource::Guard),
            Resource::Pair(pair) => netlink::observe_pair(pair)?.map(Resource::Pair),
            Resource::Lock(lock) => guard::observe_lock(lock)?.map(Resource::Lock),
            _ => return Err(HostError::Unsupported(wanted.key())),
        })
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Namespace(namespace) => netlink::create(&namespace.name),
            Resource::Bridge(bridge) => netlink::create_bridge(bridge),
            Resource::Guard(guard) => guard::set_guard(guard),
            Resource::Pair(pair) => netlink::create_pair(pair),
            Resource::Lock(lock) => guard::set_lock(lock),
            _ => Err(HostError::Unsupported(resource.key())),
        }
    }

    fn update(&mut self, _: &Resource, to: &Resource) -> Result<(), HostError> {
        match to {
            Resource::Namespace(_) => Ok(()),
            Resource::Bridge(bridge) => netlink::configure_bridge(bridge),
            Resource::Pair(pair) => netlink::configure_pair(pair),
            Resource::Guard(_) | Resource::Lock(_) => self.create(to),
            _ => Err(HostError::Unsupported(to.key())),
        }
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Namespace(namespace) => netlink::delete(&namespace.name),
            Resource::Bridge(bridge) => netlink::delete_link(None, &bridge.interface),
            Resource::Guard(guard) => guard::delete_guard(guard),
            Resource::Pair(pair) => {
                netlink::delete_link(pair.switch.namespace.as_deref(), &pair.switch.interface)
            }
            Resource::Lock(lock) => guard::delete_lock(lock),
            _ => Err(HostError::Unsupported(resource.key())),
        }
    }

    fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
        probe::ask(probe)
    }
}
