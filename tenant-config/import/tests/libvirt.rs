//! libvirt's domain XML, each mapping with the section and the notes that it gives.

mod common;

use common::assert_fits_a_tenant;
use tenant_import::{Format, Import, ImportError};

fn domain(interfaces: &str) -> String {
    format!(
        "<domain type='kvm'>\n<name>web</name>\n<devices>\n<emulator>/usr/bin/qemu</emulator>\n\
         {interfaces}\n</devices>\n</domain>\n"
    )
}

/// The one interface of a domain: a MAC, and `rest`.
fn interface(rest: &str) -> String {
    domain(&format!(
        "<interface type='ethernet'><mac address='52:54:00:aa:00:01'/>{rest}</interface>"
    ))
}

const ADDRESS: &str = "<filterref filter='no-ip-spoofing'>\
                       <parameter name='IP' value='10.0.0.11'/></filterref>";

/// The keys of the one port after name and MAC, and the notes without line and port.
fn keys_and_notes(rest: &str) -> (String, Vec<String>) {
    let import = Import::parse(Format::Libvirt, &interface(rest)).expect("a domain");
    assert_eq!(import.ports.len(), 1);
    let text = import.to_string();
    let head = "# domain \"web\", interface 1\n[[port]]\nname = \"web\"\n\
                mac = \"52:54:00:aa:00:01\"\n";
    let keys = text.strip_prefix(head).expect("the port's name and MAC");
    let notes = import.notes.iter();
    let notes = notes.map(|note| format!("{}: {}", note.what, note.why));
    (keys.to_owned(), notes.collect())
}

/// Tests of one interface: its elements, the keys that they give, and the notes.
macro_rules! mapped {
    ($($test:ident: $rest:expr => $keys:expr, [$($note:expr),* $(,)?];)*) => {$(
        #[test]
        fn $test() {
            let (keys, notes) = keys_and_notes(&$rest);
            assert_eq!(keys, $keys);
            assert_eq!(notes, [$($note),*] as [&str; _]);
        }
    )*};
}

mapped! {
    clean_traffic_with_addresses_lists_them_and_announces:
        "<filterref filter='clean-traffic'>
           <parameter name='IP' value='10.0.0.11'/>
           <parameter name='IP' value='10.0.0.64/28'/>
           <parameter name='IP' value='10.0.0.11'/>
           <parameter name='IPV6' value='fd00:0:0:1::11'/>
         </filterref>"
        => "addresses = [\"10.0.0.11\", \"10.0.0.64/28\", \"fd00:0:0:1::11\"]\nannounce = \
            true\n", [];

    clean_traffic_gateway_needs_no_gateway_mac:
        "<filterref filter='clean-traffic-gateway'>
           <parameter name='IP' value='10.0.0.11'/>
           <parameter name='GATEWAY_MAC' value='52:54:00:00:00:01'/>
           <parameter name='MAC' value='52:54:00:AA:00:01'/>
         </filterref>"
        => "addresses = [\"10.0.0.11\"]\nannounce = true\n", [];

    several_filters_join_their_addresses:
        "<filterref filter='no-ip-spoofing'><parameter name='IP' value='10.0.0.11'/></filterref>
         <filterref filter='no-mac-spoofing'/>
         <filterref filter='no-ipv6-spoofing'><parameter name='IPV6' \
         value='fd00:0:0:1::11'/></filterref>"
        => "addresses = [\"10.0.0.11\", \"fd00:0:0:1::11\"]\n", [];

    learning_from_dhcp_is_the_key_of_that_name:
        "<filterref filter='clean-traffic'><parameter name='CTRL_IP_LEARNING' \
         value='dhcp'/></filterref>"
        => "addresses = \"learn-dhcp\"\nannounce = true\n", [];

    addresses_win_over_learning:
        "<filterref filter='no-ip-spoofing'>
           <parameter name='CTRL_IP_LEARNING' value='dhcp'/><parameter name='IP' value='10.0.0.11'/>
         </filterref>"
        => "addresses = [\"10.0.0.11\"]\n", [];

    learning_from_the_first_packet_is_not_done:
        "<filterref filter='no-ip-spoofing'><parameter name='CTRL_IP_LEARNING' \
         value='any'/></filterref>"
        => "# addresses is missing: list them, or write \"learn-dhcp\"\n", [
            "parameter \"CTRL_IP_LEARNING\": \"any\": the switch learns addresses from DHCP only",
            "addresses: no IP parameter of a filter gives them, and the switch does not learn from \
             a VM's first packet; list them, or write \"learn-dhcp\"",
        ];

    no_filter_gives_no_addresses:
        ""
        => "# addresses is missing: list them, or write \"learn-dhcp\"\n",
        ["addresses: no filter gives them; list them, or write \"learn-dhcp\""];

    dhcp_server_parameter_is_left_out:
        "<filterref filter='allow-dhcp-server'><parameter name='DHCPSERVER' value='10.0.0.2'/>
           <parameter name='IP' value='10.0.0.11'/></filterref>"
        => "addresses = [\"10.0.0.11\"]\n", [
            "filter \"allow-dhcp-server\": DHCP replies pass from ports of this tenant only; set \
             dhcp_server = true at the server's",
            "parameter \"DHCPSERVER\": the server is the port of this tenant that has dhcp_server \
             = \
             true, whatever its address",
        ];

    filter_of_ones_own_is_left_out:
        "<filterref filter='web-only'><parameter name='IP' value='10.0.0.11'/>
           <parameter name='PORT' value='80'/></filterref>"
        => "addresses = [\"10.0.0.11\"]\n", [
            "filter \"web-only\": its rules are not in this file, and the switch has no such \
             rules; \
             what it adds to libvirt's shipped filters is lost",
            "parameter \"PORT\": no key of a port matches",
        ];

    values_that_are_none_are_left_out:
        "<filterref filter='no-ip-spoofing'><parameter name='IP' value='10.0.0'/>
           <parameter name='IP' value='10.0.0.11'/><parameter name='MAC' value='52:54:00:aa:00:02'/>
         </filterref><mtu size='68'/>"
        => "addresses = [\"10.0.0.11\"]\n", [
            "parameter \"IP\": \"10.0.0\" is not an address or prefix",
            "parameter \"MAC\": \"52:54:00:aa:00:02\" is not the interface's MAC; list it under \
             extra_macs if the VM may use it",
            "<mtu>: \"68\" is not an MTU from 576 to 9216",
        ];

    trunk_lists_its_tags_without_the_native_one:
        format!("{ADDRESS}<vlan trunk='yes'><tag id='42'/><tag id='42'/><tag id='123'/>\
                 <tag id='7' nativeMode='untagged'/><tag id='4095'/></vlan>")
        => "addresses = [\"10.0.0.11\"]\ntrunk = [42, 123]\n", [
            "native VLAN \"7\": a frame without a tag is on no VLAN of a trunk",
            "VLAN \"4095\": not a VLAN identifier from 1 to 4094",
        ];

    access_vlan_is_left_out:
        format!("{ADDRESS}<vlan><tag id='42'/></vlan>")
        => "addresses = [\"10.0.0.11\"]\n",
        ["<vlan>: the VM's frames have no tag; a VLAN of its own is a tenant of its own"];

    mtu_is_copied:
        format!("{ADDRESS}<mtu size='9000'/>") => "addresses = [\"10.0.0.11\"]\nmtu = 9000\n", [];

    outbound_average_is_a_limit_in_bits:
        format!("{ADDRESS}<bandwidth><inbound average='2000' floor='200'/>\
                 <outbound average='1000' peak='5000' burst='1024'/></bandwidth>")
        => "addresses = [\"10.0.0.11\"]\nlimits = { bps = 8000000 }\n", [
            "<inbound>: the switch limits only what a VM sends",
            "<outbound> peak: the burst of a limit is what it allows in one second",
            "<outbound> burst: the burst of a limit is what it allows in one second",
        ];

    outbound_average_of_nothing_is_no_limit:
        format!("{ADDRESS}<bandwidth><outbound average='0'/></bandwidth>")
        => "addresses = [\"10.0.0.11\"]\n",
        ["<outbound> average: \"0\" is not a number of kilobytes per second"];

    elements_of_the_device_have_no_notes:
        format!("{ADDRESS}<source network='prod'/><target dev='vnet7'/><model type='virtio'/>\
                 <driver name='vhost' queues='5'/><alias name='net0'/><boot order='1'/>\
                 <link state='up'/><address type='pci'/><rom bar='off'/>")
            .replace("<source network='prod'/>", "")
        => "addresses = [\"10.0.0.11\"]\n", [];

    policies_without_a_key_have_notes:
        format!("{ADDRESS}<link state='down'/><port isolated='yes'/>\
                 <virtualport type='openvswitch'/><ip address='10.0.0.11' prefix='24'/><new/>")
        => "addresses = [\"10.0.0.11\"]\n", [
            "<link>: no key shuts a port; leave the port out until it is needed",
            "<port>: the VMs of one tenant reach each other; give an isolated VM a tenant of its \
             own",
            "<virtualport>: the tenant's switch takes the place of the one that reads this profile",
            "<ip>: it configures an interface, and does not say what the VM may send; list its \
             addresses under addresses",
            "<new>: no key of a port matches",
        ];
}

#[test]
fn names_come_from_alias_device_and_domain() {
    let text = domain(
        "<interface type='network'><alias name='ua-Front_end'/><target dev='tap0'/></interface>
         <interface type='network'><alias name='net1'/><target dev='web-lan'/></interface>
         <interface type='network'><alias name='net2'/><target dev='vnet12'/></interface>
         <interface type='network'><target dev='web-lan'/></interface>
         <interface type='network'><target dev='uplink'/></interface>
         <interface type='network'><target dev='123'/></interface>",
    );
    let import = Import::parse(Format::Libvirt, &text).expect("a domain");
    let names: Vec<_> = import.ports.iter().map(|port| port.name.as_str()).collect();
    let expected = [
        "front-end",
        "web-lan",
        "web-3",
        "web-lan-2",
        "uplink-2",
        "port",
    ];
    assert_eq!(names, expected);
}

#[test]
fn long_names_are_cut_and_stay_unique() {
    let alias = "a".repeat(40);
    let one = format!("<interface type='network'><alias name='ua-{alias}'/></interface>");
    let import = Import::parse(Format::Libvirt, &domain(&one.repeat(11))).expect("a domain");
    let names: Vec<_> = import.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names[0], "a".repeat(32));
    assert_eq!(names[1], format!("{}-2", "a".repeat(30)));
    assert_eq!(names[10], format!("{}-11", "a".repeat(29)));
}

#[test]
fn macs_that_no_port_can_have_are_noted() {
    let text = domain(
        "<interface type='bridge'><source bridge='br0'/></interface>
         <interface type='bridge'><mac address='01:00:5e:00:00:01'/></interface>",
    );
    let import = Import::parse(Format::Libvirt, &text).expect("a domain");
    assert_eq!(
        import.to_string(),
        "# domain \"web\", interface 1, network \"br0\"\n[[port]]\nname = \"web-1\"\n\
         # mac is missing: write the VM's\n\
         # addresses is missing: list them, or write \"learn-dhcp\"\n\n\
         # domain \"web\", interface 2\n[[port]]\nname = \"web-2\"\n\
         # mac is missing: write the VM's\n\
         # addresses is missing: list them, or write \"learn-dhcp\"\n"
    );
    let notes: Vec<_> = import.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "5: port \"web-1\": mac: libvirt chooses one when the domain is defined; \
             take it from virsh dumpxml",
            "5: port \"web-1\": addresses: no filter gives them; list them, or write \
             \"learn-dhcp\"",
            "6: port \"web-2\": mac: \"01:00:5e:00:00:01\" is not a unicast MAC address of six \
             hexadecimal bytes, as in 52:54:00:aa:00:01",
            "6: port \"web-2\": addresses: no filter gives them; list them, or write \
             \"learn-dhcp\"",
        ]
    );
}

#[test]
fn complete_sections_are_accepted_in_a_tenants_file() {
    let text = domain(
        "<interface type='network'>
           <mac address='52:54:00:aa:00:01'/><source network='prod'/><mtu size='9000'/>
           <filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.11'/></filterref>
           <bandwidth><outbound average='1000'/></bandwidth>
         </interface>
         <interface type='network'>
           <mac address='52:54:00:aa:00:02'/><vlan trunk='yes'><tag id='42'/></vlan>
           <filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.12'/></filterref>
         </interface>",
    );
    let import = Import::parse(Format::Libvirt, &text).expect("a domain");
    assert_eq!(import.notes, []);
    let tenant = assert_fits_a_tenant(&import);
    let ports = tenant.ports();
    assert_eq!(ports.len(), 2);
    assert_eq!((ports[0].mtu, ports[0].limits.bps), (9000, Some(8_000_000)));
    assert_eq!((ports[0].announce, ports[1].trunk.len()), (true, 1));
}

#[test]
fn domain_without_interface_is_refused() {
    let import = Import::parse(Format::Libvirt, &domain(""));
    assert_eq!(import, Err(ImportError::NoInterface));
    assert_eq!(
        Import::parse(Format::Libvirt, "<network/>").map_err(|error| error.to_string()),
        Err("this is a <network>; libvirt's domain XML begins with <domain>".to_owned())
    );
}
