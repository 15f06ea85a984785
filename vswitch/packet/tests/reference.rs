//! Holds the generated page `docs/reference/reasons.md` to the reasons.

use std::fmt::Write;
use std::path::Path;

use packet::DropReason;

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

#[test]
fn reasons_page_matches_reasons() {
    let mut page = HEAD.to_owned();
    for reason in DropReason::ALL {
        let (number, help) = (reason.number(), reason.help());
        writeln!(page, "| {number} | `{reason}` | {help} |").expect("a string grows");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/reasons.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "{} is out of date: run UPDATE_REFERENCE=1 cargo test -p packet --test reference",
        path.display()
    );
}
