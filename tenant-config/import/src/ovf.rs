//! OVF descriptors (DMTF DSP0243): each Ethernet adapter of each virtual system is a port.

use tenant_config::MacAddr;

use crate::draft::{self, PortDraft};
use crate::xml::Element;
use crate::{Import, Interface};

/// The `ResourceType` of an Ethernet adapter (DMTF DSP1033).
const ETHERNET_ADAPTER: &str = "10";

pub(crate) fn interfaces(envelope: &Element) -> Vec<Interface<'_>> {
    let mut systems = Vec::new();
    envelope.descendants("VirtualSystem", &mut systems);
    let mut interfaces = Vec::new();
    for system in systems {
        let machine = system.text_of("Name").or_else(|| system.attribute("id"));
        let hardware = system.all("VirtualHardwareSection");
        let items = hardware.flat_map(|hardware| &hardware.children);
        let adapters: Vec<&Element> = items.filter(|item| is_adapter(item)).collect();
        interfaces.extend(Interface::all(machine.unwrap_or("unnamed"), &adapters));
    }
    interfaces
}

pub(crate) fn import(envelope: &Element, interfaces: &[Interface<'_>]) -> Import {
    let mut import = Import::default();
    let networks: Vec<&str> = envelope
        .all("NetworkSection")
        .flat_map(|section| section.all("Network"))
        .filter_map(|network| network.attribute("name"))
        .collect();
    for interface in interfaces {
        let Interface {
            machine, number, ..
        } = interface;
        let name = draft::name(&interface.default_name(), &import.ports);
        let origin = format!("virtual system {machine:?}, adapter {number}");
        let draft = PortDraft::new(name, origin);
        let draft = read_adapter(interface.element, draft, &networks, &mut import);
        import.ports.push(draft);
    }
    import
}

/// An item with a bound is a limit for an adapter, and none of its own.
fn is_adapter(item: &Element) -> bool {
    let is_bound = matches!(item.attribute("bound"), Some("min" | "max"));
    match item.name.as_str() {
        "EthernetPortItem" => !is_bound,
        "Item" => !is_bound && item.text_of("ResourceType") == Some(ETHERNET_ADAPTER),
        _ => false,
    }
}

fn read_adapter(
    adapter: &Element,
    mut draft: PortDraft,
    networks: &[&str],
    import: &mut Import,
) -> PortDraft {
    match adapter.text_of("Address") {
        Some(text) => match parse_mac(text) {
            Some(mac) => draft.mac = Some(mac),
            None => {
                let why = format!("{text:?} is not a unicast MAC address");
                import.note(adapter, &draft.name, "mac", why);
            }
        },
        None => {
            let why = "the package leaves it to the host; write the one that the VM has there";
            import.note(adapter, &draft.name, "mac", why);
        }
    }
    draft.network = adapter.text_of("Connection").map(str::to_owned);
    if let Some(network) = draft.network.as_deref()
        && !networks.contains(&network)
    {
        let what = format!("network {network:?}");
        import.note(
            adapter,
            &draft.name,
            what,
            "the package does not describe it",
        );
    }
    for child in &adapter.children {
        if ["Limit", "Reservation"].contains(&child.name.as_str()) {
            let what = format!("<{}>", child.name);
            let why = "its unit is the host's choice; see limits, rate_mbit and min_rate_mbit";
            import.note(child, &draft.name, what, why);
        }
    }
    let why = "an OVF package has none; list them, or write \"learn-dhcp\"";
    import.note(adapter, &draft.name, "addresses", why);
    draft
}

/// A MAC with colons, with hyphens, or with neither.
fn parse_mac(text: &str) -> Option<MacAddr> {
    let digits: String = text
        .chars()
        .filter(|digit| !":-".contains(*digit))
        .collect();
    if digits.len() != 12 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let octets = u64::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    MacAddr::new(octets[2..].try_into().ok()?).ok()
}
