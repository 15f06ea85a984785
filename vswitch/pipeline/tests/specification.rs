//! The lists of numbers in `docs/reference/spoof-filter.md` and the stages in
//! `docs/design/life-of-a-packet.md`, compared with the tables in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use packet::number::{ethertype, icmpv6, option6, protocol};
use packet::refused::{Field, REFUSED};
use packet::{DropReason, Frame, encapsulation};
use pipeline::{Generation, Pipeline, PortId, Stage};
use tenant_config::{MacAddr, Tenant};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a row: the numbered item `row` under the heading `section`, its lines joined.
fn row(page: &str, section: &str, row: usize) -> String {
    let begin = page.find(&format!("\n{section}")).expect("the section");
    let section = &page[begin + 1..];
    let end = section[1..]
        .find("\n#")
        .map_or(section.len(), |end| end + 1);
    let number = format!("{row}. ");
    let lines = section[..end].lines();
    let lines = lines.skip_while(|line| !line.starts_with(&number));
    let is_next = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let text: Vec<&str> = lines
        .enumerate()
        .take_while(|(nth, line)| *nth == 0 || !(is_next(line) || line.trim().is_empty()))
        .map(|(_, line)| line.trim())
        .collect();
    assert!(!text.is_empty(), "row {row} of {section:.40}");
    text.join(" ")
}

/// The decimal and hexadecimal numbers of a text, without those inside backticks.
fn numbers(text: &str) -> BTreeSet<u16> {
    let outside = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside.split(|letter: char| !letter.is_ascii_alphanumeric());
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hexadecimal) => u16::from_str_radix(hexadecimal, 16).ok(),
        None => word.parse().ok(),
    };
    words.filter_map(number).collect()
}

/// For each reason, the numbers of the clause that ends with it.
fn clauses(text: &str) -> BTreeMap<DropReason, BTreeSet<u16>> {
    let mut clauses: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    let mut clause = String::new();
    for (nth, part) in text.split('`').enumerate() {
        match DropReason::from_name(part).filter(|_| nth % 2 == 1) {
            Some(reason) => {
                let found = numbers(&std::mem::take(&mut clause));
                clauses.entry(reason).or_default().extend(found);
            }
            None => clause.push_str(part),
        }
    }
    clauses
}

/// The same, of the table: the numbers of these fields.
fn refused(fields: &[Field]) -> BTreeMap<DropReason, BTreeSet<u16>> {
    let mut refused: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    for row in REFUSED.iter().filter(|row| fields.contains(&row.field)) {
        refused.entry(row.reason).or_default().insert(row.number);
    }
    refused
}

/// The part of a row from one phrase to another.
fn part<'a>(row: &'a str, from: &str, to: &str) -> &'a str {
    let begin = row
        .find(from)
        .unwrap_or_else(|| panic!("{from:?} in {row:?}"));
    let rest = &row[begin + from.len()..];
    &rest[..rest
        .find(to)
        .unwrap_or_else(|| panic!("{to:?} in {rest:?}"))]
}

fn set(list: &[u8]) -> BTreeSet<u16> {
    list.iter().copied().map(u16::from).collect()
}

#[test]
fn refused_ethertypes_are_those_of_the_page() {
    let page = page("reference/spoof-filter.md");
    let refused = refused(&[Field::EtherType]);
    let tags = row(&page, "### Ethernet", 4);
    let tags = numbers(part(&tags, "EtherType", ", or"));
    assert_eq!(tags, refused[&DropReason::VlanTag]);
    assert!(tags.iter().all(|tag| ethertype::is_tag(*tag)));
    let protocols = row(&page, "### Ethernet", 6);
    let protocols = numbers(part(&protocols, "EtherType", "`"));
    assert_eq!(protocols, refused[&DropReason::LinkLocalL2]);
    let known = numbers(part(&row(&page, "### Ethernet", 8), "than", "`"));
    let expected = [ethertype::ARP, ethertype::IPV4, ethertype::IPV6];
    assert_eq!(known, expected.into());
}

#[test]
fn refused_ports_and_protocols_are_those_of_the_page() {
    let page = page("reference/spoof-filter.md");
    let table = refused(&[Field::UdpSource, Field::UdpDestination]);
    let expected = |reason: DropReason| table[&reason].clone();
    let servers = row(&page, "### IPv4", 7);
    let ports = part(&servers, "from port", "as a first fragment");
    assert_eq!(numbers(ports), expected(DropReason::DhcpServer));
    let ports = part(&servers, "(offset 0) to port", "that is no");
    assert_eq!(numbers(ports), expected(DropReason::DhcpClient));
    let ports = row(&page, "### IPv6", 4);
    let ports = numbers(part(&ports, "from port", "`"));
    assert_eq!(ports, expected(DropReason::Dhcpv6Server));
    let clients = row(&page, "### IPv6", 4);
    let ports = numbers(part(&clients, "UDP to port", "that is no"));
    assert_eq!(ports, expected(DropReason::Dhcpv6Client));
}

#[test]
fn encapsulations_are_those_of_the_page() {
    let page = page("reference/spoof-filter.md");
    let row = row(&page, "### IPv4", 10);
    let allowed = numbers(part(&row, "A protocol other than", "."));
    let expected = (0..=255).filter(|protocol| !encapsulation::is_protocol(*protocol));
    assert_eq!(allowed, expected.map(u16::from).collect());
    for (phrase, ports) in [
        (
            "UDP (offset 0) from or to port",
            &encapsulation::UDP_PORTS[..],
        ),
        (
            "TCP (offset 0) from or to port",
            &encapsulation::TCP_PORTS[..],
        ),
    ] {
        let found = numbers(part(&row, phrase, "."));
        assert_eq!(found, ports.iter().copied().collect(), "{phrase}");
    }
}

#[test]
fn refused_icmp_types_are_those_of_the_page() {
    let page = page("reference/spoof-filter.md");
    let found = row(&page, "### IPv4", 8).replace("8. ICMP (offset 0)", "");
    assert_eq!(clauses(&found), refused(&[Field::Icmp]));
    let found = row(&page, "### IPv4", 9).replace("9. IGMP (offset 0)", "");
    assert_eq!(clauses(&found), refused(&[Field::Igmp]));
    let from_port = row(&page, "### IPv6", 6);
    let from_uplink = row(&page, "## From the uplink", 6);
    let rows = [
        part(&from_port, "`nd-malformed`.", "- 135:").to_owned()
            + &from_port[from_port.len() - 20..],
        format!(
            "130: `mld-query`;{}`",
            part(&from_uplink, "as above;", "133 and MLD")
        ),
    ];
    for row in rows {
        assert_eq!(clauses(&row), refused(&[Field::Icmpv6]), "{row}");
    }
    let allowed = row(&page, "### IPv6", 3);
    let allowed = numbers(part(&allowed, "ICMPv6 types", "(MLD)"));
    let expected = (0..=255).filter(|kind| icmpv6::is_from_unspecified(*kind));
    assert_eq!(allowed, expected.map(u16::from).collect());
}

#[test]
fn known_headers_are_those_of_the_page() {
    let page = page("reference/spoof-filter.md");
    let chain = row(&page, "### IPv6", 2);
    let headers = part(&chain, "Known headers:", ".").replace("at most one", "");
    assert_eq!(numbers(&headers), set(&protocol::EXTENSIONS));
    let bindings = numbers(part(&chain, "Headers that bind", "`"));
    assert_eq!(bindings, set(&protocol::BINDINGS));
    let ipv4 = row(&page, "### IPv4", 3);
    let bindings = numbers(part(&ipv4, "Protocol", "(see"));
    assert_eq!(bindings, set(&protocol::BINDINGS));
    let options = numbers(part(&chain, "Options without an address are", "."));
    assert_eq!(options, set(&option6::WITHOUT_ADDRESS));
    let experiments = numbers(part(&chain, "Headers of experiments", "a header out"));
    assert_eq!(experiments, set(&protocol::EXPERIMENTS));
}

/// The stages that a trace of one frame names, in order.
fn traced(from: PortId, to: [u8; 4], ttl: u8) -> Vec<Stage> {
    let text = r#"
        name = "red"
        vni = 5001
        [gateway]
        ipv4 = "10.0.0.1/24"
        [uplink]
        address = "192.0.2.2/24"
        next_hop = "192.0.2.1"
        [[port]]
        name = "vm1"
        mac = "52:54:00:aa:00:01"
        addresses = ["10.0.0.11"]
        limits = { pps = 1000 }
    "#;
    let config = Tenant::parse("red.toml", text)
        .expect("a tenant")
        .offline_config();
    let mut pipeline = Pipeline::new(Generation::build(&config, None));
    pipeline.assume_next_hops(0, MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"));
    let mut bytes = vec![0; Frame::HEADROOM];
    bytes.extend([2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0xaa, 0, 1, 8, 0]);
    let mut header = [
        0x45, 0, 0, 28, 0, 0, 0x40, 0, ttl, 17, 0, 0, 10, 0, 0, 11, 0, 0, 0, 0,
    ];
    header[16..].copy_from_slice(&to);
    let sum = packet::wire::ipv4::plain_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
    bytes.extend(header);
    bytes.extend([0, 53, 0, 53, 0, 8, 0, 0]);
    let len = bytes.len() - Frame::HEADROOM;
    let mut frame = Frame::new(&mut bytes, Frame::HEADROOM, len, None);
    let mut stages = Vec::new();
    let mut note = |stage, _: std::fmt::Arguments<'_>| stages.push(stage);
    let _ = pipeline.process_traced(1, from, &mut frame, &mut note);
    stages
}

#[test]
fn page_lists_the_stages_in_their_order() {
    let page = page("design/life-of-a-packet.md");
    let begin = page.find("| stage |").expect("the table of stages");
    let rows = page[begin..].lines().skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("| ")?.split(" |").next());
    let names: Vec<&str> = rows.collect();
    let stages: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    assert_eq!(names, stages);
}

#[test]
fn trace_names_the_stages_in_their_order() {
    use Stage::{Filter, Rewrite, Route, Service, Storm};
    let port = PortId(0);
    let forwarded = traced(port, [198, 51, 100, 1], 64);
    assert_eq!(forwarded, [Filter, Storm, Route, Rewrite]);
    let served = traced(port, [10, 0, 0, 1], 64);
    assert_eq!(served, [Filter, Storm, Service]);
    let refused = traced(port, [198, 51, 100, 1], 1);
    assert_eq!(refused, [Filter, Storm, Route]);
    for stages in [forwarded, served, refused] {
        assert!(stages.is_sorted(), "the order of Stage: {stages:?}");
    }
}
