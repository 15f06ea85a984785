//! Tenant files of one host: found, read, and compared with each other.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Tenant;
use super::host::{HostProblem, conflicts};
use super::port::PortProblem;
use super::uplink::Uplink;
use crate::addr::Name;
use crate::document::{Document, Origin};
use crate::error::{ConfigError, ConfigErrors};
use crate::key::KeyPath;
use crate::problem::Problem;

/// Reads every tenant of `paths`: files, and directories of `*.toml`.
///
/// # Errors
/// Every error of every file, and of the tenants of one host together.
pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Tenant>, ConfigErrors> {
    let (loaded, invalid) = read_all(paths);
    let errors = invalid.into_iter().flat_map(|file| file.errors);
    let together = check_together(&loaded).into_iter();
    ConfigErrors::check(errors.chain(together.map(|(_, error)| error)).collect())?;
    Ok(loaded.into_iter().map(|loaded| loaded.tenant).collect())
}

/// The tenants of several files, and what is wrong with the others.
#[derive(Debug)]
pub struct TenantFiles {
    /// The valid files, in order.
    pub valid: Vec<(PathBuf, Tenant)>,
    /// The files that are invalid, or cannot be used beside those that are valid.
    pub invalid: Vec<InvalidFile>,
}

/// A file, or directory, that gives no tenant.
#[derive(Debug)]
pub struct InvalidFile {
    /// Which one.
    pub path: PathBuf,
    /// The name that the file gives its tenant, if that much can be read.
    pub tenant: Option<Name>,
    /// What is wrong with it.
    pub errors: ConfigErrors,
}

/// Reads tenants' files, or directories of them (`*.toml`), each of which is valid or invalid by
/// itself. Of two that cannot be on one host the first is valid; tenants that are `present` on the
/// host come before those that are not.
pub fn load_each(paths: &[PathBuf], present: &dyn Fn(&Name) -> bool) -> TenantFiles {
    let (mut loaded, mut invalid) = read_all(paths);
    loaded.sort_by_key(|it| !present(&it.tenant.name));
    while let Some((culprit, errors)) = first_culprit(&loaded) {
        let refused = loaded.remove(culprit);
        invalid.push(InvalidFile {
            path: refused.path,
            tenant: Some(refused.tenant.name),
            errors,
        });
    }
    TenantFiles {
        valid: loaded.into_iter().map(|it| (it.path, it.tenant)).collect(),
        invalid,
    }
}

fn read_all(paths: &[PathBuf]) -> (Vec<Loaded>, Vec<InvalidFile>) {
    let mut invalid = Vec::new();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let files = files(path).unwrap_or_else(|errors| {
            invalid.push(InvalidFile {
                path: path.clone(),
                tenant: None,
                errors,
            });
            Vec::new()
        });
        for file in files {
            // A file and its directory may both be named; it is read once.
            if fs::canonicalize(&file).is_ok_and(|real| !seen.insert(real)) {
                continue;
            }
            match Loaded::load(&file) {
                Ok(tenant) => loaded.push(tenant),
                Err(errors) => invalid.push(InvalidFile {
                    tenant: named(&file),
                    path: file,
                    errors,
                }),
            }
        }
    }
    (loaded, invalid)
}

/// The first tenant that cannot be beside those before it, and why.
fn first_culprit(loaded: &[Loaded]) -> Option<(usize, ConfigErrors)> {
    let mut errors = check_together(loaded);
    let culprit = errors.iter().map(|(index, _)| *index).min()?;
    errors.retain(|(index, _)| *index == culprit);
    let errors = errors.into_iter().map(|(_, error)| error).collect();
    Some((culprit, ConfigErrors::check(errors).err()?))
}

/// The name in a file that is invalid otherwise.
fn named(path: &Path) -> Option<Name> {
    let (text, _) = read(path).ok()?;
    let table: toml::Table = text.parse().ok()?;
    table.get("name")?.as_str()?.parse().ok()
}

/// A tenant with the text that it was read from, for the places of errors.
#[derive(Debug)]
pub(super) struct Loaded {
    path: PathBuf,
    file: String,
    text: String,
    pub(super) tenant: Tenant,
}

impl Loaded {
    pub(super) fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let (text, owner) = read(path)?;
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let origin = Origin { directory, owner };
        let tenant = Tenant::parse_from(Some(origin), &file, &text)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            text,
            tenant,
        })
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

/// The text of a tenant file, and its owner.
fn read(path: &Path) -> Result<(String, u32), ConfigErrors> {
    let mut text = String::new();
    let owner = fs::File::open(path)
        .and_then(|file| {
            let owner = file.metadata()?.uid();
            file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
            Ok(owner)
        })
        .map_err(|error| unreadable(path, &error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(path, "larger than any tenant's file (64 MiB)"));
    }
    Ok((text, owner))
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

/// Checks the tenants of one host together. The error is at the tenant that comes second, whose
/// index it has.
fn check_together(loaded: &[Loaded]) -> Vec<(usize, ConfigError)> {
    let mut errors = Vec::new();
    let mut names = HashMap::new();
    let mut vnis = HashMap::new();
    let mut macs = HashMap::new();
    let mut uplinks = HashMap::new();
    for (index, this) in loaded.iter().enumerate() {
        let tenant = &this.tenant;
        let mut add = |key, problem: Problem| {
            errors.extend(this.error(key, problem).map(|error| (index, error)))
        };
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
        for (port, number) in tenant.ports.iter().zip(0..) {
            let key = KeyPath::of("port").index(number).key("mac");
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
fn check_addresses(loaded: &[Loaded]) -> Vec<(usize, ConfigError)> {
    let configs: Vec<_> = loaded
        .iter()
        .map(|loaded| loaded.tenant.offline_config())
        .collect();
    let configs: Vec<_> = configs.iter().collect();
    let files: Vec<_> = loaded.iter().map(|loaded| &*loaded.file).collect();
    let conflicts = conflicts(&configs, &files, 0);
    let errors = conflicts.into_iter().filter_map(|conflict| {
        let this = &loaded[conflict.tenant];
        let error = this.error(conflict.key, conflict.problem.into())?;
        Some((conflict.tenant, error))
    });
    errors.collect()
}
