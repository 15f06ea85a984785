//! Malicious descriptions: refused with the line and a reason, or harmless.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tenant_import::{Format, Import, MAX_BYTES};

fn refusal(text: &str) -> String {
    let import = Import::parse(Format::Libvirt, text);
    import.expect_err("it is refused").to_string()
}

fn domain(inside: &str) -> String {
    format!("<domain><devices><interface>{inside}</interface></devices></domain>")
}

#[test]
fn document_type_is_refused() {
    let laughs = "<!DOCTYPE domain [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]>\n";
    let external = "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>\n";
    for head in [laughs, external] {
        assert_eq!(
            refusal(&format!("\n{head}{}", domain(""))),
            "line 2: not usable XML: a document type declaration, which is refused"
        );
    }
}

#[test]
fn unknown_entity_is_refused() {
    assert_eq!(
        refusal("<domain>\n<name>&secret;</name></domain>"),
        "line 2: not usable XML: unknown entity &secret;"
    );
    let in_attribute = refusal(&domain("<mac address='&secret;'/>"));
    assert!(in_attribute.contains("secret"), "{in_attribute}");
}

#[test]
fn deep_document_is_refused() {
    let depth = 100_000;
    let text = format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let expected = "line 1: not usable XML: more than 64 elements deep";
    assert_eq!(refusal(&text), expected);
}

#[test]
fn large_document_is_refused() {
    let text = domain(&" ".repeat(MAX_BYTES));
    let expected = "larger than 1024 KiB, which no such description is";
    assert_eq!(refusal(&text), expected);
}

#[test]
fn element_with_many_attributes_is_refused() {
    let attributes: String = (0..50_000).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(
        refusal(&domain(&format!("<mac{attributes}/>"))),
        "line 1: not usable XML: an element with more than 64 attributes"
    );
}

#[test]
fn many_interfaces_are_refused() {
    let interfaces = "<interface/>".repeat(80_000);
    let text = format!("<domain><devices>{interfaces}</devices></domain>");
    let expected = "80000 network interfaces are described, and a tenant has at most 256 ports";
    assert_eq!(refusal(&text), expected);
}

#[test]
fn malformed_documents_are_refused() {
    for (text, expected) in [
        ("", "line 1: not usable XML: 0 root elements instead of one"),
        (
            "tenant = 1",
            "line 1: not usable XML: text outside the root element",
        ),
        (
            "<domain/>\n<domain/>",
            "line 2: not usable XML: 2 root elements instead of one",
        ),
        (
            "<domain>\n<devices>",
            "line 2: not usable XML: <devices> is not closed",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
    for text in [
        "</domain>",
        "<domain></devices>",
        "<domain",
        "<domain a='1' a='2'/>",
        "<a b=c/>",
    ] {
        assert!(
            refusal(text).starts_with("line 1: not usable XML: "),
            "{text}"
        );
    }
}

#[test]
fn names_with_control_characters_change_no_terminal() {
    let text = "<domain><name>web&#10;[[port]]&#27;[2J</name><devices><interface>\
                <source network='a&#10;b\"'/><n\u{1b}ew/></interface></devices></domain>";
    let import = Import::parse(Format::Libvirt, text).expect("a domain");
    let sections = import.to_string();
    assert!(
        sections.starts_with(
            "# domain \"web\\n[[port]]\\u{1b}[2J\", interface 1, network \"a\\nb\\\"\"\n[[port]]\n"
        ),
        "{sections}"
    );
    let notes = import.notes.iter().map(|note| note.to_string() + "\n");
    let printed = sections + &notes.collect::<String>();
    let is_safe = |character: char| character == '\n' || !character.is_control();
    assert!(printed.chars().all(is_safe), "{printed:?}");
}

/// An interface of known elements in any order, with any text as the values of their attributes.
fn interface() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec![
        "<mac address='VALUE'/>",
        "<filterref filter='clean-traffic'><parameter name='IP' value='VALUE'/></filterref>",
        "<filterref filter='VALUE'><parameter name='CTRL_IP_LEARNING' value='dhcp'/></filterref>",
        "<filterref filter='no-ip-spoofing'><parameter name='VALUE' value='1'/></filterref>",
        "<vlan trunk='yes'><tag id='VALUE'/><tag id='42'/></vlan>",
        "<vlan><tag id='VALUE'/></vlan>",
        "<mtu size='VALUE'/>",
        "<bandwidth><outbound average='VALUE' peak='VALUE'/></bandwidth>",
        "<alias name='ua-VALUE'/>",
        "<target dev='VALUE'/>",
        "<source network='VALUE'/>",
        "<other>VALUE</other>",
    ]);
    let known = [
        "52:54:00:aa:00:01",
        "10.0.0.0/28",
        "fd00::1",
        "42",
        "4294967295",
        "uplink",
    ];
    let value = prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        any::<String>(),
    ];
    let value = value.prop_map(|text| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        text.replace('\'', "&apos;")
    });
    let element = (element, value).prop_map(|(element, value)| element.replace("VALUE", &value));
    let elements = prop::collection::vec(element, 0..8);
    elements.prop_map(|elements| format!("<interface>{}</interface>", elements.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        rng_seed: RngSeed::Fixed(12),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_values_give_printable_sections_of_toml(
        interfaces in prop::collection::vec(interface(), 1..4),
    ) {
        let devices = interfaces.concat();
        let text = format!("<domain><name>w</name><devices>{devices}</devices></domain>");
        let import = Import::parse(Format::Libvirt, &text).expect("a domain");
        let sections = import.to_string();
        let table: toml::Table = sections.parse().expect("the sections are TOML");
        let ports = table["port"].as_array().expect("an array of ports");
        prop_assert_eq!(ports.len(), interfaces.len());
        let notes: String = import.notes.iter().map(ToString::to_string).collect();
        let is_safe = |character: char| character == '\n' || !character.is_control();
        prop_assert!(sections.chars().all(is_safe), "{:?}", sections);
        prop_assert!(!notes.contains(char::is_control), "{:?}", notes);
    }

    #[test]
    fn any_text_is_no_panic(text in "[<>/&;='\"a-c!?\\[\\]-]{0,60}", format in any::<bool>()) {
        let (format, root) = match format {
            true => (Format::Libvirt, "domain"),
            false => (Format::Ovf, "Envelope"),
        };
        let import = Import::parse(format, &format!("<{root}>{text}</{root}>"));
        prop_assert!(import.is_err());
    }
}
