//! Messages, help and documentation name only keys and options that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schema(name: &str) -> Value {
    let path = root().join(format!("docs/reference/{name}.schema.json"));
    let text = fs::read_to_string(path).expect("a schema");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Whether the schema has the key at this path below `node`.
fn has(schema: &Value, node: &Value, path: &[&str]) -> bool {
    if let Some(reference) = node["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return has(schema, &schema["$defs"][name], path);
    }
    let either = ["anyOf", "oneOf", "allOf"]
        .iter()
        .filter_map(|key| node[*key].as_array())
        .flatten();
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    node["properties"]
        .get(*first)
        .is_some_and(|below| has(schema, below, rest))
        || node
            .get("items")
            .is_some_and(|items| has(schema, items, path))
        || either.into_iter().any(|node| has(schema, node, path))
}

/// The words of a text that may be keys or options.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|it: char| !(it.is_ascii_alphanumeric() || "-_.[]".contains(it)));
    parts.map(|word| word.trim_end_matches(['.', '-', ']', '[']))
}

/// A key as it is written, as `port[1].mac`, in parts.
fn parts(word: &str) -> Vec<&str> {
    word.split('.')
        .map(|part| part.split('[').next().unwrap_or_default())
        .collect()
}

/// Ends of names of files, which are no keys.
const FILES: [&str; 7] = ["md", "rs", "toml", "json", "py", "sock", "conf"];

/// What is wrong with the keys and options of a text.
fn wrong(text: &str, tenant: &Value, switch: &Value, options: &BTreeSet<String>) -> Vec<String> {
    let named: Vec<&str> = words(text).collect();
    let knows = |word: &&str| {
        word.strip_prefix("--")
            .is_some_and(|it| options.contains(it))
    };
    let names_option = named.iter().any(knows);
    let mut wrong = Vec::new();
    for word in &named {
        let parts = parts(word);
        let is_key = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|it| it.is_ascii_lowercase() || it == b'_' || it.is_ascii_digit())
        };
        let has_root = |schema: &Value| schema["properties"].get(parts[0]).is_some();
        let is_path = parts.len() > 1 && parts.iter().all(is_key);
        if !is_path || FILES.contains(&parts[parts.len() - 1]) {
            continue;
        }
        // Of the configuration file.
        if let ["tenant", _, key] = parts[..] {
            if !options.contains(&key.replace('_', "-")) {
                wrong.push(format!("key {word}: {text}"));
            }
            continue;
        }
        if !has_root(tenant) && !has_root(switch) || has(tenant, tenant, &parts) {
            continue;
        }
        // A key of the switch's own configuration is set by an option, which must be named too.
        if !(has(switch, switch, &parts) && names_option) {
            wrong.push(format!("key {word}: {text}"));
        }
    }
    wrong
}

/// The string literals of Rust code, without those of its tests, and with joined lines.
fn literals(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find('"') {
        let (before, text) = rest.split_at(at);
        let text = &text[1..];
        // The character '"'.
        if before.ends_with('\'') && text.starts_with('\'') {
            rest = text;
            continue;
        }
        let hashes = before.bytes().rev().take_while(|it| *it == b'#').count();
        let raw = before[..before.len() - hashes].ends_with('r');
        let end = match raw {
            true => text
                .find(&format!("\"{}", "#".repeat(hashes)))
                .unwrap_or(text.len()),
            false => {
                let mut escaped = false;
                let ends = |it: char| {
                    let ends = it == '"' && !escaped;
                    escaped = it == '\\' && !escaped;
                    ends
                };
                text.find(ends).unwrap_or(text.len())
            }
        };
        let literal = text[..end].split("\\\n").map(str::trim_start);
        found.push(literal.collect::<String>());
        rest = text.get(end + 1..).unwrap_or_default();
    }
    found
}

fn files(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
}

fn options_of(command: &clap::Command, found: &mut BTreeSet<String>) {
    found.extend(
        command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .map(str::to_owned),
    );
    command
        .get_subcommands()
        .for_each(|it| options_of(it, found));
}

#[test]
fn messages_help_and_pages_name_keys_that_exist() {
    let (tenant, switch) = (schema("tenant"), schema("switch"));
    let mut options = BTreeSet::new();
    let mut command = vf_provisioner::command();
    options_of(&command, &mut options);
    let mut texts = Vec::new();
    for folder in [
        "vf-provisioner/src",
        "vf-provisioner/host/src",
        "tenant-config/src",
        "vswitch/src/vm",
    ] {
        files(&root().join(folder), "rs", &mut texts);
    }
    // What a switch says when it does not start is in the provisioner's message.
    texts.push(root().join("vswitch/dpdk/src/lib.rs"));
    let mut all = Vec::new();
    for file in texts {
        let code = fs::read_to_string(&file).expect("it can be read");
        // A word alone is a name of another program's, or of a file.
        let sentences = literals(&code)
            .into_iter()
            .filter(|text| text.contains(' '));
        all.extend(sentences.map(|text| (file.clone(), text)));
    }
    assert!(all.len() > 300, "{}", all.len());
    let mut pages = Vec::new();
    files(&root().join("docs/operate"), "md", &mut pages);
    pages.extend(
        ["tenant-file.md", "tunnel.md", "provisioner-config.md"]
            .map(|name| root().join("docs/reference").join(name)),
    );
    pages.push(root().join("README.md"));
    for page in pages {
        let text = fs::read_to_string(&page).expect("it can be read");
        let code = text.split('`').skip(1).step_by(2).map(str::to_owned);
        all.extend(code.map(|text| (page.clone(), text)));
    }
    command.build();
    for of in command.get_subcommands_mut() {
        all.push((PathBuf::from("help"), of.render_long_help().to_string()));
    }
    let bad: Vec<String> = all
        .iter()
        .flat_map(|(file, text)| {
            let found = wrong(text, &tenant, &switch, &options);
            found
                .into_iter()
                .map(move |it| format!("{}: {it}", file.display()))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// An option that a sentence of the provisioner advises must be one of its own.
#[test]
fn messages_advise_options_that_exist() {
    let mut options = BTreeSet::new();
    options_of(&vf_provisioner::command(), &mut options);
    let mut sources = Vec::new();
    for folder in ["vf-provisioner/src", "vf-provisioner/host/src"] {
        files(&root().join(folder), "rs", &mut sources);
    }
    let mut seen = 0;
    let mut bad = Vec::new();
    for file in sources {
        let code = fs::read_to_string(&file).expect("it can be read");
        // A literal without a space is an argument of another program.
        for text in literals(&code)
            .into_iter()
            .filter(|text| text.contains(' '))
        {
            for word in words(&text) {
                let Some(option) = word.strip_prefix("--").filter(|it| !it.is_empty()) else {
                    continue;
                };
                seen += 1;
                let of_cargo = text.contains("cargo build") && option == "release";
                let of_all = ["help", "version"].contains(&option);
                let known = options.contains(option) || of_all || of_cargo;
                if !known {
                    bad.push(format!("{}: --{option}: {text}", file.display()));
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn invented_key_is_found() {
    let (tenant, switch) = (schema("tenant"), schema("switch"));
    let options = BTreeSet::from(["packet-memory".to_owned()]);
    let found = |text: &str| wrong(text, &tenant, &switch, &options).len();
    assert_eq!(found("raise memory.mib"), 1);
    assert_eq!(found("raise memory.mib (--packet-memory)"), 0);
    assert_eq!(found("raise memory.mb (--packet-memory)"), 1);
    assert_eq!(found("port[1].mac and uplink.mtu"), 0);
    assert_eq!(found("port[1].mak"), 1);
    assert_eq!(found("see tunnel.md"), 0);
}
