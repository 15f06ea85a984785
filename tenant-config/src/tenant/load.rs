//! Tenant files of one host: found, read, and compared with each other.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Tenant;
use super::host::{HostProblem, conflicts};
use super::port::PortProblem;
use super::uplink::Uplink;
use crate::document::Document;
use crate::error::{ConfigError, ConfigErrors};
use crate::key::KeyPath;
use crate::problem::Problem;

/// Reads every tenant of `paths`: files, and directories of `*.toml`.
///
/// # Errors
/// Every error of every file, and of the tenants of one host together.
pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Tenant>, ConfigErrors> {
    let mut errors = Vec::new();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let files = files(path).unwrap_or_else(|more| {
            errors.extend(more);
            Vec::new()
        });
        for file in files {
            // A file and its directory may both be named; it is read once.
            if fs::canonicalize(&file).is_ok_and(|real| !seen.insert(real)) {
                continue;
            }
            match Loaded::load(&file) {
                Ok(tenant) => loaded.push(tenant),
                Err(more) => errors.extend(more),
            }
        }
    }
    errors.extend(check_together(&loaded));
    ConfigErrors::check(errors)?;
    Ok(loaded.into_iter().map(|loaded| loaded.tenant).collect())
}

/// A tenant with the text that it was read from, for the places of errors.
#[derive(Debug)]
pub(super) struct Loaded {
    file: String,
    text: String,
    pub(super) tenant: Tenant,
}

impl Loaded {
    pub(super) fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = read(path)?;
        let tenant = Tenant::parse(&file, &text)?;
        Ok(Self { file, text, tenant })
    }

    fn error(&self, key: KeyPath, problem: Problem) -> Option<ConfigError> {
        let document = Document::parse(&self.file, &self.text).ok()?;
        Some(document.error(key, problem))
    }
}

/// The tenant files of `path`, a file or a directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error.to_string()))? {
        let file = entry
            .map_err(|error| unreadable(path, &error.to_string()))?
            .path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(of_file(path, Problem::EmptyDirectory));
    }
    files.sort();
    Ok(files)
}

/// The most bytes of a tenant file: far more than the bounds on its content allow.
const MAX_FILE_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(path, &error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(path, "larger than any tenant's file (64 MiB)"));
    }
    Ok(text)
}

fn unreadable(path: &Path, reason: &str) -> ConfigErrors {
    let reason = reason.to_owned();
    of_file(path, Problem::Unreadable { reason })
}

/// An error of a file as a whole.
fn of_file(path: &Path, problem: Problem) -> ConfigErrors {
    ConfigErrors::from(ConfigError {
        file: path.display().to_string(),
        place: None,
        key: KeyPath::default(),
        port: None,
        problem,
    })
}

/// Checks the tenants of one host together. The error is at the tenant that comes second.
fn check_together(loaded: &[Loaded]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut names = HashMap::new();
    let mut vnis = HashMap::new();
    let mut macs = HashMap::new();
    let mut uplinks = HashMap::new();
    for this in loaded {
        let tenant = &this.tenant;
        let mut add = |key, problem: Problem| errors.extend(this.error(key, problem));
        if let Some(other) = names.insert(&tenant.name, &this.file) {
            let problem = HostProblem::DuplicateTenant {
                name: tenant.name.clone(),
                other: other.clone(),
            };
            add(KeyPath::of("name"), problem.into());
        }
        if let Some(other) = vnis.insert(tenant.vni, &this.file) {
            let problem = HostProblem::DuplicateVni {
                vni: tenant.vni,
                other: other.clone(),
            };
            add(KeyPath::of("vni"), problem.into());
        }
        for (port, index) in tenant.ports.iter().zip(0..) {
            let key = KeyPath::of("port").index(index).key("mac");
            let whose = format!("port {:?} of {}", port.name.as_str(), this.file);
            if let Some(other) = macs.insert(port.mac, whose) {
                let mac = port.mac;
                add(key, PortProblem::DuplicateMac { mac, other }.into());
            }
        }
        for address in tenant.uplink.iter().flat_map(Uplink::addresses) {
            let own = address.value.addr();
            if let Some(other) = uplinks.insert(own, &this.file) {
                let problem = HostProblem::DuplicateUplink {
                    address: own.to_string(),
                    other: other.clone(),
                };
                add(address.key, problem.into());
            }
        }
    }
    errors.extend(check_addresses(loaded));
    errors
}

/// Compares the tenants' addresses, and what follows from them.
fn check_addresses(loaded: &[Loaded]) -> Vec<ConfigError> {
    let configs: Vec<_> = loaded
        .iter()
        .map(|loaded| loaded.tenant.offline_config())
        .collect();
    let configs: Vec<_> = configs.iter().collect();
    let files: Vec<_> = loaded.iter().map(|loaded| &*loaded.file).collect();
    let conflicts = conflicts(&configs, &files, 0);
    let errors = conflicts.into_iter().filter_map(|conflict| {
        let this = &loaded[conflict.tenant];
        this.error(conflict.key, conflict.problem.into())
    });
    errors.collect()
}
