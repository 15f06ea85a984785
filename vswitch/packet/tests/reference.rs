//! Holds the generated pages `docs/reference/reasons.md` and `docs/reference/encapsulations.md` to
//! the reasons and the table of encapsulations.

use std::fmt::Write;
use std::path::Path;

use packet::DropReason;
use packet::encapsulation::{Judgement, Kind, TABLE};

const HEAD: &str = "\
# Drop reasons

Every dropped frame has exactly one reason: the first that applies, in the order of
[spoof-filter.md](spoof-filter.md) and [tunnel.md](tunnel.md). Reasons are counted per port. Names
and numbers never change. `vswitch reasons` prints the same list, `vswitch show drops` the counts of
a running switch.

This page is generated: `UPDATE_REFERENCE=1 cargo test -p packet --test reference`

| number | reason | meaning |
|---:|---|---|
";

/// Compares a generated page with the committed one, or writes it.
fn hold(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, page).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "{} is out of date: run UPDATE_REFERENCE=1 cargo test -p packet --test reference",
        path.display()
    );
}

#[test]
fn reasons_page_matches_reasons() {
    let mut page = HEAD.to_owned();
    for reason in DropReason::ALL {
        let (number, help) = (reason.number(), reason.help());
        writeln!(page, "| {number} | `{reason}` | {help} |").expect("a string grows");
    }
    hold("reasons.md", &page);
}

const ENCAPSULATIONS: &str = "\
# Packets in packets

What a port with `encapsulation = \"deny\"` may not send, and why it may send what else has to do
with tunnels. A receiver that is set up for it takes the packet inside as one that came to it, with
addresses that the filter has not checked. The list is made from IANA's registries of protocol
numbers and of service names and ports, and from what is in use without an entry there. A VM that
agrees with its peer on any other number is not kept from tunnelling; a receiver that is not so
agreed opens nothing.

A protocol that is not in the list is refused: nothing says that it carries no packet. A UDP or TCP
port that is not in the list is allowed. [spoof-filter.md](spoof-filter.md) has the rows.

This page is generated: `UPDATE_REFERENCE=1 cargo test -p packet --test reference`

| | number | name | specified in | deny | carries, or why it is allowed |
|---|---:|---|---|---|---|
";

#[test]
fn encapsulations_page_matches_the_table() {
    let mut page = ENCAPSULATIONS.to_owned();
    for row in TABLE {
        let kind = match row.kind {
            Kind::Protocol => "protocol",
            Kind::Udp => "UDP",
            Kind::Tcp => "TCP",
        };
        let (verdict, why) = match row.judgement {
            Judgement::Refused(carries) => ("refused", carries),
            Judgement::Allowed(reason) => ("allowed", reason),
        };
        let (number, name, reference) = (row.number, row.name, row.reference);
        writeln!(
            page,
            "| {kind} | {number} | {name} | {reference} | {verdict} | {why} |"
        )
        .expect("a string grows");
    }
    hold("encapsulations.md", &page);
}
