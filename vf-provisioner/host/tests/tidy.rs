//! No file of the library imports itself through others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below the crate, as `["nic", "veth"]`.
type Module = Vec<String>;

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module(root: &Path, file: &Path) -> Module {
    let path = file
        .strip_prefix(root)
        .expect("it is below")
        .with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    parts
        .filter(|part| part != "mod" && part != "lib")
        .collect()
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let mut branch = |text: &str| match text.split_once('{') {
        Some((head, tail)) => {
            let inner = tail.rsplit_once('}').map_or(tail, |(inner, _)| inner);
            expand(&format!("{prefix}{head}"), inner, paths);
        }
        None if text.is_empty() => {}
        None => paths.push(format!("{prefix}{text}")),
    };
    for (at, byte) in tree.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                branch(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branch(&tree[start..]);
}

/// The modules that a file imports. What only its tests import does not count.
fn imports(own: &Module, text: &str, all: &BTreeSet<Module>) -> BTreeSet<Module> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.flat_map(|line| [line.trim(), " "]).collect();
    let mut paths = Vec::new();
    for statement in code.split("use ").skip(1) {
        if let Some((tree, _)) = statement.split_once(';') {
            expand("", &tree.replace(' ', ""), &mut paths);
        }
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let mut parts = path.split("::").map(str::to_owned).peekable();
        let mut module = match parts.next().as_deref() {
            Some("crate") => Module::new(),
            Some("self") => own.clone(),
            Some("super") => own[..own.len() - 1].to_vec(),
            _ => continue,
        };
        while parts.next_if(|part| part == "super").is_some() {
            module.pop();
        }
        module.extend(parts.filter(|part| part != "self"));
        while !all.contains(&module) {
            module.pop();
        }
        if module != *own {
            found.insert(module);
        }
    }
    found
}

#[test]
fn imports_of_files_have_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let all: BTreeSet<Module> = files.iter().map(|file| module(&root, file)).collect();
    let mut left: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for file in &files {
        let own = module(&root, file);
        let text = fs::read_to_string(file).expect("it can be read");
        let imports = imports(&own, &text, &all);
        left.insert(own, imports);
    }
    assert!(left.len() > 50 && left.values().any(|imports| imports.len() > 5));
    // Removes repeatedly the modules that import none of the remaining ones.
    loop {
        let names: BTreeSet<Module> = left.keys().cloned().collect();
        left.retain(|_, imports| !imports.is_disjoint(&names));
        if left.len() == names.len() {
            break;
        }
    }
    assert!(
        left.is_empty(),
        "these are on a circle or above one: {left:#?}"
    );
}
