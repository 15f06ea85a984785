//! The layers of `packet` and `pipeline`: each file imports only files below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of `packet`, from the bottom. The `mod` of a folder comes after its files where it
/// publishes them, and before them where they share its types.
const PACKET: &[&str] = &[
    "hash",
    "addr",
    "number",
    "port_set",
    "encapsulation",
    "reason",
    "refused",
    "frame",
    "wire/field",
    "wire/checksum",
    "wire/ethernet",
    "wire/transport",
    "wire/tcp",
    "wire/ipv4",
    "wire/fragmentation",
    "wire/ipv6",
    "wire/ecn",
    "wire/arp",
    "wire/dhcp",
    "wire/dhcp6",
    "wire/icmp",
    "wire/dhcp_server",
    "wire/dhcp6_server",
    "wire/dns",
    "wire/dns_forward",
    "wire/nd",
    "wire/membership",
    "wire/packet",
    "wire/flow",
    "wire/tunnel",
    "wire/esp",
    "wire/quote",
    "wire/mod",
    "lib",
];

/// The files of `pipeline`, from the bottom.
const PIPELINE: &[&str] = &[
    "ids",
    "secret",
    "stage",
    "bucket",
    "lpm",
    "shared",
    "counter",
    "trouble",
    "metadata",
    "ipsec/request",
    "ipsec/view",
    "ipsec/rules",
    // Tables.
    "tables/target",
    "tables/port",
    "tables/shared_address",
    "tables/uplink",
    "tables/tunnel",
    "tables/groups",
    "tables/dhcp",
    "tables/dhcp6",
    "tables/dns",
    "tables/multicast",
    "tables/mod",
    "tables/build",
    // What the worker counts and remembers.
    "clients",
    "counters",
    "ipsec/sa",
    "ipsec/link",
    "ipsec/table",
    "state/bindings",
    "state/copies",
    "state/guess",
    "state/holder",
    "state/ipsec",
    "state/lease",
    "state/members",
    "state/multicast",
    "state/next_hop",
    "state/owners",
    "state/questions",
    "state/path_mtu",
    "state/tags",
    "state/mod",
    "ipsec/obey",
    "ipsec/mod",
    // Policy.
    "filter/ethernet",
    "filter/arp",
    "filter/owner",
    "filter/dhcp",
    "filter/encapsulation",
    "filter/nd",
    "filter/outside",
    "filter/port",
    "filter/uplink",
    "filter/tunnel",
    "filter/client",
    "filter/mod",
    "storm",
    "peer_route",
    "clock",
    "querier",
    // The fast path.
    "express/header",
    "express/port",
    "express/underlay",
    "express/esp",
    "express/waiting",
    "express/mod",
    // The stages.
    "pass/mod",
    "pass/ipsec",
    "pass/tunnel",
    "pass/reply",
    "pass/report",
    "pass/route",
    "pass/rewrite",
    "pass/fragments",
    "pass/multicast",
    "service/mod",
    "service/arp",
    "service/dhcp_server",
    "service/dhcp6_server",
    "service/dns_forward",
    "service/dns",
    "service/dhcp",
    "service/nd",
    "service/icmp_report",
    "service/shared",
    "service/metadata",
    "service/echo",
    "order",
    "lib",
];

/// An import of one file by another.
type Arrow = (String, String);

/// Every `.rs` file under `folder`, without its ending, but for tests.
fn files(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let place = format!("{prefix}{name}");
        if path.is_dir() {
            files(&path, &format!("{place}/"), found);
        } else if name != "tests" {
            found.push((place, path));
        }
    }
}

/// The paths of one `use`, without its braces: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inside = &tree[open + 1..tree.rfind('}').expect("a brace that closes")];
    let (mut depth, mut begin) = (0, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inside[begin..at], &prefix, paths);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if !inside[begin..].trim().is_empty() {
        expand(&inside[begin..], &prefix, paths);
    }
}

/// The code of a file before its tests, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths inside the crate that a file names: in `use` items, and in code.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let code = code(text);
    let mut rest = String::new();
    for item in code.split_inclusive(';') {
        let begin = item.lines().position(|line| {
            let line = line.trim_start();
            line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "))
        });
        match begin {
            Some(begin) => {
                let item: Vec<&str> = item.lines().skip(begin).collect();
                let item = item.join(" ");
                let tree = item.split_once("use ").expect("a use").1;
                expand(tree.trim_end_matches(';'), "", &mut paths);
            }
            None => rest.push_str(item),
        }
    }
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = rest.split(|letter| !is_path(letter));
    paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
    paths
}

/// The file that a path leads to from `file`, if it is another one of `known`.
fn target(file: &str, path: &str, known: &[&str]) -> Option<String> {
    let mut folder: Vec<&str> = file.split('/').collect();
    // The file of a module `m` with children is `m/mod`; that of the crate is `lib`.
    folder.pop();
    let is_leaf = !file.ends_with("/mod") && file != "lib";
    let mut parts = path.split("::").peekable();
    match *parts.peek()? {
        "crate" => folder.clear(),
        "self" if is_leaf => return None,
        "self" => {}
        "super" if is_leaf => {}
        "super" => {
            folder.pop();
        }
        // A child that a folder's file names.
        _ if !is_leaf => {
            let mut child = folder.clone();
            child.push(parts.peek()?);
            let child = child.join("/");
            let of_child = |name: &&&str| **name == child || **name == format!("{child}/mod");
            return known.iter().find(of_child).map(|name| (*name).to_owned());
        }
        _ => return None,
    }
    parts.next();
    let mut found = match folder.is_empty() {
        true => "lib".to_owned(),
        false => format!("{}/mod", folder.join("/")),
    };
    for part in parts {
        folder.push(part);
        let place = folder.join("/");
        if known.contains(&format!("{place}/mod").as_str()) {
            found = format!("{place}/mod");
        } else if known.contains(&place.as_str()) {
            found = place;
            break;
        } else {
            break;
        }
    }
    (found != file).then_some(found)
}

/// Every arrow between the files of a crate.
fn arrows(source: &Path, layers: &[&str]) -> BTreeSet<Arrow> {
    let mut found = Vec::new();
    files(source, "", &mut found);
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<&str> = layers.iter().copied().collect();
    assert_eq!(
        names, listed,
        "the table of layers lists the files of {source:?}"
    );
    let mut arrows = BTreeSet::new();
    for (name, path) in &found {
        let text = fs::read_to_string(path).expect("a file");
        for path in paths(&text) {
            if let Some(target) = target(name, &path, layers) {
                arrows.insert((name.clone(), target));
            }
        }
    }
    arrows
}

/// The arrows that do not lead down.
fn upward(arrows: &BTreeSet<Arrow>, layers: &[&str]) -> Vec<Arrow> {
    let rank = |name: &str| layers.iter().position(|layer| *layer == name);
    let is_upward = |(from, to): &&Arrow| rank(to) >= rank(from);
    arrows.iter().filter(is_upward).cloned().collect()
}

fn sources() -> [(PathBuf, &'static [&'static str]); 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [
        (here.join("../packet/src"), PACKET),
        (here.join("src"), PIPELINE),
    ]
}

#[test]
fn files_import_lower_layers_only() {
    for (source, layers) in sources() {
        let arrows = arrows(&source, layers);
        assert!(arrows.len() > 20, "{source:?}: the imports were not found");
        assert_eq!(upward(&arrows, layers), [], "{source:?}");
    }
}

#[test]
fn upward_import_is_found() {
    let text = "use super::mod_of_stages;\n\
                use crate::{\n    order,\n    state::{State, lease::LeaseState},\n};\n\
                fn f() { crate::express::forward(); }";
    let found: Vec<_> = paths(text)
        .iter()
        .filter_map(|path| target("tables/port", path, PIPELINE))
        .collect();
    let expected = [
        "tables/mod",
        "order",
        "state/mod",
        "state/lease",
        "express/mod",
    ];
    assert_eq!(found, expected);
    let arrows = found.into_iter().map(|to| ("tables/port".to_owned(), to));
    assert_eq!(upward(&arrows.collect(), PIPELINE).len(), expected.len());
}
