//! libvirt's domain XML: each `<interface>` is a port.
//!
//! The filters that libvirt ships (`clean-traffic` and its parts) need no keys: the switch's own
//! filter is always on and at least as strict. Their parameters become the port's addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tenant_config::{Addresses, LearnedFrom, MAX_MTU, MIN_MTU_IPV4, MacAddr, VlanId};

use crate::draft::{self, PortDraft};
use crate::xml::Element;
use crate::{Import, Interface};

pub(crate) fn interfaces(domain: &Element) -> Vec<Interface<'_>> {
    let machine = domain.text_of("name").unwrap_or("unnamed");
    let devices = domain.first("devices").into_iter();
    let elements: Vec<&Element> = devices
        .flat_map(|devices| devices.all("interface"))
        .collect();
    Interface::all(machine, &elements)
}

pub(crate) fn import(interfaces: &[Interface<'_>]) -> Import {
    let mut import = Import::default();
    for interface in interfaces {
        let Interface {
            machine, number, ..
        } = interface;
        let wanted = name_of(interface.element).map(str::to_owned);
        let wanted = wanted.unwrap_or_else(|| interface.default_name());
        let name = draft::name(&wanted, &import.ports);
        let origin = format!("domain {machine:?}, interface {number}");
        let draft = PortDraft::new(name, origin);
        let draft = read_interface(interface.element, draft, &mut import);
        import.ports.push(draft);
    }
    import
}

/// The interface's name by its user alias or its device on the host. Names that libvirt generates
/// are skipped: aliases without this prefix, and devices with the prefixes below.
fn name_of(interface: &Element) -> Option<&str> {
    const GENERATED: [&str; 4] = ["vnet", "vif", "macvtap", "macvlan"];
    let alias = interface.first("alias");
    let alias = alias.and_then(|alias| alias.attribute("name")?.strip_prefix("ua-"));
    let device = interface.first("target");
    let device = device.and_then(|target| target.attribute("dev"));
    let device = device.filter(|name| !GENERATED.iter().any(|prefix| name.starts_with(prefix)));
    alias.or(device).filter(|name| !name.is_empty())
}

fn read_interface(interface: &Element, mut draft: PortDraft, import: &mut Import) -> PortDraft {
    let source = interface.first("source");
    let network = source.and_then(|source| {
        let mut names = ["network", "bridge"].into_iter();
        names.find_map(|name| source.attribute(name))
    });
    draft.network = network.map(str::to_owned);
    if interface.attribute("trustGuestRxFilters") == Some("yes") {
        let why = "the VM may use its own MAC only; list further ones under extra_macs";
        import.note(interface, &draft.name, "trustGuestRxFilters", why);
    }
    read_mac(interface, &mut draft, import);
    let mut filters = 0;
    for child in &interface.children {
        match child.name.as_str() {
            "filterref" => {
                filters += 1;
                read_filter(child, &mut draft, import);
            }
            "vlan" => read_vlan(child, &mut draft, import),
            "mtu" => read_mtu(child, &mut draft, import),
            "bandwidth" => read_bandwidth(child, &mut draft, import),
            name => {
                if let Some(why) = why_not(child) {
                    import.note(child, &draft.name, format!("<{name}>"), why);
                }
            }
        }
    }
    if draft.addresses.is_none() {
        let why = if filters > 0 {
            "no IP parameter of a filter gives them, and the switch does not learn from a VM's \
             first packet; list them, or write \"learn-dhcp\""
        } else {
            "no filter gives them; list them, or write \"learn-dhcp\""
        };
        import.note(interface, &draft.name, "addresses", why);
    }
    draft
}

/// Why an element has no counterpart; nothing for those that describe the VM's device.
fn why_not(child: &Element) -> Option<&'static str> {
    match child.name.as_str() {
        "acpi" | "address" | "alias" | "backend" | "boot" | "coalesce" | "downscript"
        | "driver" | "guest" | "mac" | "model" | "rom" | "script" | "source" | "target"
        | "teaming" | "tune" => None,
        "link" if child.attribute("state") != Some("down") => None,
        "link" => Some("no key shuts a port; leave the port out until it is needed"),
        "port" if child.attribute("isolated") != Some("yes") => None,
        "port" => {
            Some("the VMs of one tenant reach each other; give an isolated VM a tenant of its own")
        }
        "virtualport" => {
            Some("the tenant's switch takes the place of the one that reads this profile")
        }
        "ip" | "route" => Some(
            "it configures an interface, and does not say what the VM may send; list its \
             addresses under addresses",
        ),
        _ => Some("no key of a port matches"),
    }
}

fn read_mac(interface: &Element, draft: &mut PortDraft, import: &mut Import) {
    let element = interface.first("mac");
    let text = element.and_then(|mac| mac.attribute("address"));
    let Some(text) = text else {
        let why = "libvirt chooses one when the domain is defined; take it from virsh dumpxml";
        return import.note(interface, &draft.name, "mac", why);
    };
    match text.parse::<MacAddr>() {
        Ok(mac) => draft.mac = Some(mac),
        Err(error) => {
            import.note(
                element.unwrap_or(interface),
                &draft.name,
                "mac",
                error.to_string(),
            );
        }
    }
}

/// The effect of a filter that libvirt ships.
enum Shipped {
    /// The switch's filter does it always, or stricter.
    Always,
    /// As `Always`, and it lets QEMU's announce pass.
    Announce,
    /// It lets replies of a DHCP server pass.
    DhcpServer,
}

fn shipped(filter: &str) -> Option<Shipped> {
    Some(match filter {
        "clean-traffic"
        | "clean-traffic-gateway"
        | "qemu-announce-self"
        | "qemu-announce-self-rarp" => Shipped::Announce,
        "allow-dhcp-server" | "allow-dhcpv6-server" => Shipped::DhcpServer,
        "allow-arp"
        | "allow-dhcp"
        | "allow-dhcpv6"
        | "allow-incoming-ipv4"
        | "allow-incoming-ipv6"
        | "allow-ipv4"
        | "allow-ipv6"
        | "no-arp-ip-spoofing"
        | "no-arp-mac-spoofing"
        | "no-arp-spoofing"
        | "no-ip-multicast"
        | "no-ip-spoofing"
        | "no-ipv6-multicast"
        | "no-ipv6-spoofing"
        | "no-mac-broadcast"
        | "no-mac-spoofing"
        | "no-other-l2-traffic"
        | "no-other-rarp-traffic" => Shipped::Always,
        _ => return None,
    })
}

fn read_filter(filterref: &Element, draft: &mut PortDraft, import: &mut Import) {
    let filter = filterref.attribute("filter").unwrap_or_default();
    match shipped(filter) {
        Some(Shipped::Always) => {}
        Some(Shipped::Announce) => draft.announce = true,
        Some(Shipped::DhcpServer) => {
            let why = "DHCP replies pass from ports of this tenant only; set dhcp_server = true \
                       at the server's";
            import.note(filterref, &draft.name, format!("filter {filter:?}"), why);
        }
        None => {
            let why = "its rules are not in this file, and the switch has no such rules; \
                       what it adds to libvirt's shipped filters is lost";
            import.note(filterref, &draft.name, format!("filter {filter:?}"), why);
        }
    }
    let mut learns = false;
    let mut list = Vec::new();
    for parameter in filterref.all("parameter") {
        let name = parameter.attribute("name").unwrap_or_default();
        let value = parameter.attribute("value").unwrap_or_default();
        let why = match name {
            "IP" | "IPV6" => match parse_source(value) {
                Some(net) if list.contains(&net) => None,
                Some(net) => {
                    list.push(net);
                    None
                }
                None => Some(format!("{value:?} is not an address or prefix")),
            },
            "MAC" if value.parse().is_ok_and(|mac| draft.mac == Some(mac)) => None,
            "MAC" => Some(format!(
                "{value:?} is not the interface's MAC; list it under extra_macs if the VM may use \
                 it"
            )),
            // The VM reaches only the switch, which is the gateway.
            "GATEWAY_MAC" => None,
            "CTRL_IP_LEARNING" => {
                learns = value == "dhcp";
                let learned = ["dhcp", "none"].contains(&value);
                (!learned).then(|| format!("{value:?}: the switch learns addresses from DHCP only"))
            }
            "DHCPSERVER" => Some(
                "the server is the port of this tenant that has dhcp_server = true, whatever its \
                 address"
                    .to_owned(),
            ),
            _ => Some("no key of a port matches".to_owned()),
        };
        if let Some(why) = why {
            import.note(parameter, &draft.name, format!("parameter {name:?}"), why);
        }
    }
    add_addresses(draft, list, learns);
}

/// As libvirt does: it learns only where no address is given.
fn add_addresses(draft: &mut PortDraft, list: Vec<IpNet>, learns: bool) {
    match &mut draft.addresses {
        Some(Addresses::Static(known)) => {
            let new = list.into_iter().filter(|net| !known.contains(net));
            let new: Vec<IpNet> = new.collect();
            known.extend(new);
        }
        addresses if !list.is_empty() => *addresses = Some(Addresses::Static(list)),
        addresses if learns => *addresses = Some(Addresses::Learned(LearnedFrom::Dhcp)),
        _ => {}
    }
}

fn parse_source(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.ok().or_else(|| text.parse().ok())
}

fn read_vlan(vlan: &Element, draft: &mut PortDraft, import: &mut Import) {
    let is_trunk = vlan.attribute("trunk") == Some("yes") || vlan.all("tag").count() > 1;
    if !is_trunk {
        let why = "the VM's frames have no tag; a VLAN of its own is a tenant of its own";
        return import.note(vlan, &draft.name, "<vlan>", why);
    }
    for tag in vlan.all("tag") {
        let id = tag.attribute("id").unwrap_or_default();
        let parsed = id.parse::<u16>().ok().and_then(|id| VlanId::new(id).ok());
        match parsed {
            _ if tag.attribute("nativeMode").is_some() => {
                let why = "a frame without a tag is on no VLAN of a trunk";
                import.note(tag, &draft.name, format!("native VLAN {id:?}"), why);
            }
            Some(vlan) if draft.trunk.contains(&vlan) => {}
            Some(vlan) => draft.trunk.push(vlan),
            None => {
                let why = "not a VLAN identifier from 1 to 4094";
                import.note(tag, &draft.name, format!("VLAN {id:?}"), why);
            }
        }
    }
}

fn read_mtu(element: &Element, draft: &mut PortDraft, import: &mut Import) {
    let size = element.attribute("size").unwrap_or_default();
    match size.parse() {
        Ok(mtu @ MIN_MTU_IPV4..=MAX_MTU) => draft.mtu = Some(mtu),
        _ => {
            let why = format!("{size:?} is not an MTU from {MIN_MTU_IPV4} to {MAX_MTU}");
            import.note(element, &draft.name, "<mtu>", why);
        }
    }
}

/// `outbound` is what the VM sends, in kilobytes per second.
fn read_bandwidth(bandwidth: &Element, draft: &mut PortDraft, import: &mut Import) {
    for child in &bandwidth.children {
        if child.name != "outbound" {
            let why = "the switch limits only what a VM sends";
            import.note(child, &draft.name, format!("<{}>", child.name), why);
            continue;
        }
        for attribute in ["peak", "burst"] {
            if child.attribute(attribute).is_some() {
                let why = "the burst of a limit is what it allows in one second";
                let what = format!("<outbound> {attribute}");
                import.note(child, &draft.name, what, why);
            }
        }
        let average = child.attribute("average").unwrap_or_default();
        let bps = average.parse().ok().and_then(|kilobytes: u32| {
            let bps = u64::from(kilobytes) * 8000;
            (bps > 0).then_some(bps)
        });
        if bps.is_none() {
            let why = format!("{average:?} is not a number of kilobytes per second");
            import.note(child, &draft.name, "<outbound> average", why);
        }
        draft.bps = bps.or(draft.bps);
    }
}
