//! OVF descriptors, as VMware, VirtualBox and the standard's examples write them.

mod common;

use common::assert_fits_a_tenant;
use tenant_config::Addresses;
use tenant_import::{Format, Import, ImportError};

const PACKAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_Resource">
  <References><File ovf:id="file1" ovf:href="disk1.vmdk"/></References>
  <NetworkSection>
    <Info>The networks</Info>
    <Network ovf:name="VM Network"><Description>Front</Description></Network>
  </NetworkSection>
  <VirtualSystemCollection ovf:id="shop">
    <VirtualSystem ovf:id="Web">
      <Info>A web server</Info>
      <VirtualHardwareSection>
        <Item><rasd:ResourceType>3</rasd:ResourceType></Item>
        <Item>
          <rasd:Address>00:50:56:8a:00:01</rasd:Address>
          <rasd:Connection>VM Network</rasd:Connection>
          <rasd:ElementName>Network adapter 1</rasd:ElementName>
          <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
          <rasd:ResourceType>10</rasd:ResourceType>
        </Item>
        <Item ovf:bound="max"><rasd:ResourceType>10</rasd:ResourceType></Item>
      </VirtualHardwareSection>
    </VirtualSystem>
    <VirtualSystem ovf:id="vm2">
      <Name>Data base</Name>
      <VirtualHardwareSection>
        <Item>
          <rasd:Address>0050568A0002</rasd:Address>
          <rasd:Connection>Back</rasd:Connection>
          <rasd:Limit>100</rasd:Limit>
          <rasd:ResourceType> 10 </rasd:ResourceType>
        </Item>
        <EthernetPortItem xmlns:epasd="http://example.net">
          <epasd:Address>01-00-5E-00-00-01</epasd:Address>
        </EthernetPortItem>
      </VirtualHardwareSection>
    </VirtualSystem>
  </VirtualSystemCollection>
</Envelope>
"#;

#[test]
fn adapters_of_all_systems_are_ports() {
    let import = Import::parse(Format::Ovf, PACKAGE).expect("a package");
    assert_eq!(
        import.to_string(),
        r#"# virtual system "Web", adapter 1, network "VM Network"
[[port]]
name = "web"
mac = "00:50:56:8a:00:01"
# addresses is missing: list them, or write "learn-dhcp"

# virtual system "Data base", adapter 1, network "Back"
[[port]]
name = "data-base-1"
mac = "00:50:56:8a:00:02"
# addresses is missing: list them, or write "learn-dhcp"

# virtual system "Data base", adapter 2
[[port]]
name = "data-base-2"
# mac is missing: write the VM's
# addresses is missing: list them, or write "learn-dhcp"
"#
    );
    let notes: Vec<_> = import.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "15: port \"web\": addresses: an OVF package has none; list them, or write \
             \"learn-dhcp\"",
            "28: port \"data-base-1\": network \"Back\": the package does not describe it",
            "31: port \"data-base-1\": <Limit>: its unit is the host's choice; see limits, \
             rate_mbit \
             and min_rate_mbit",
            "28: port \"data-base-1\": addresses: an OVF package has none; list them, or write \
             \"learn-dhcp\"",
            "34: port \"data-base-2\": mac: \"01-00-5E-00-00-01\" is not a unicast MAC address",
            "34: port \"data-base-2\": addresses: an OVF package has none; list them, or write \
             \"learn-dhcp\"",
        ]
    );
}

#[test]
fn sections_with_addresses_are_accepted_in_a_tenants_file() {
    let mut import = Import::parse(Format::Ovf, PACKAGE).expect("a package");
    import.ports.truncate(2);
    for (port, host) in import.ports.iter_mut().zip(11..) {
        let address = std::net::IpAddr::from([10, 0, 0, host]);
        port.addresses = Some(Addresses::Static(vec![address.into()]));
    }
    assert_eq!(assert_fits_a_tenant(&import).ports().len(), 2);
}

#[test]
fn adapter_without_mac_is_noted() {
    let text = PACKAGE.replace("<rasd:Address>00:50:56:8a:00:01</rasd:Address>", "");
    let import = Import::parse(Format::Ovf, &text).expect("a package");
    assert_eq!(
        (import.ports[0].mac, import.notes[0].to_string()),
        (
            None,
            "15: port \"web\": mac: the package leaves it to the host; write the one that the VM \
             has \
             there"
                .to_owned()
        )
    );
}

#[test]
fn package_without_adapter_is_refused() {
    let text = PACKAGE
        .replace("EthernetPortItem", "OtherItem")
        .replace("10", "3");
    assert_eq!(
        Import::parse(Format::Ovf, &text),
        Err(ImportError::NoInterface)
    );
}
