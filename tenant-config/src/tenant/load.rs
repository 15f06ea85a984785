//! Tenant files of one host: found, read, and compared with each other.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Serialize;

use super::Tenant;
use super::port::PortProblem;
use super::uplink::Uplink;
use crate::addr::{Name, Vni};
use crate::document::Document;
use crate::error::{ConfigError, ConfigErrors};
use crate::key::{At, KeyPath};
use crate::problem::Problem;
use crate::subnet::overlap;

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
    for (index, this) in loaded.iter().enumerate() {
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
        for other in &loaded[..index] {
            if !routes_plainly(tenant) || !routes_plainly(&other.tenant) {
                continue;
            }
            for address in inner_addresses(tenant) {
                let subnet = address.value.trunc();
                for other_address in inner_addresses(&other.tenant) {
                    let other_subnet = other_address.value.trunc();
                    if overlap(subnet, other_subnet) {
                        let problem = HostProblem::TenantOverlap {
                            subnet,
                            other_subnet,
                            other: other.file.clone(),
                        };
                        add(address.key.clone(), problem.into());
                    }
                }
            }
        }
    }
    errors
}

/// Whether the tenant's own addresses appear on the underlay.
fn routes_plainly(tenant: &Tenant) -> bool {
    tenant.uplink.is_some() && !tenant.tunnel.as_ref().is_some_and(|tunnel| tunnel.only)
}

fn inner_addresses(tenant: &Tenant) -> impl Iterator<Item = At<IpNet>> + use<> {
    tenant.gateway.addresses(&KeyPath::of("gateway"))
}

/// An error between the tenants of one host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HostProblem {
    /// Two tenants of one name.
    #[error("{name} is also the tenant of {other}; names are unique on a host")]
    DuplicateTenant {
        /// The name.
        name: Name,
        /// The other file.
        other: String,
    },
    /// Two tenants of one VNI.
    #[error("{vni} is also the VNI of {other}; every tenant has its own")]
    DuplicateVni {
        /// The VNI.
        vni: Vni,
        /// The other file.
        other: String,
    },
    /// Two tenants of one underlay address.
    #[error("{address} is also the uplink's address of {other}; every switch has its own")]
    DuplicateUplink {
        /// The address.
        address: String,
        /// The other file.
        other: String,
    },
    /// Two tenants with the same inner addresses on one underlay.
    #[error(
        "{subnet} overlaps {other_subnet} of {other}: both tenants route plainly to the underlay, \
         so its routers could not tell whose address is meant; change one subnet, leave out one \
         [uplink], or set tunnel.only = true in one file"
    )]
    TenantOverlap {
        /// This tenant's inner subnet.
        subnet: IpNet,
        /// The other tenant's.
        other_subnet: IpNet,
        /// The other file.
        other: String,
    },
}
