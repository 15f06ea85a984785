//! What the tenants' files ask of this host.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tenant_config::{InvalidFile, Name, Tenant, TenantFiles, load_each};
use vf_host::accounts::account_of;
use vf_host::apply::Change;
use vf_host::check;
use vf_host::hugepages::Hugepages;
use vf_host::launcher::Launcher;
use vf_host::launcher::registry::LauncherKind;
use vf_host::state::{self, Record, State};
use vf_host::tenants::{Placed, Site, place};

use super::CliError;
use super::options::Global;

/// What files ask for. Each of them is used or refused by itself.
#[derive(Default)]
pub(super) struct Wanted {
    /// The tenants that this host can carry.
    pub(super) set: BTreeMap<Name, Record>,
    /// The files of all tenants that were read.
    pub(super) files: BTreeMap<Name, PathBuf>,
    /// Files that give no tenant.
    pub(super) invalid: Vec<InvalidFile>,
    /// Why this host cannot carry the other tenants, as a sentence.
    pub(super) refused: BTreeMap<Name, String>,
    /// Tenants of this host that have no file in a directory that is named.
    pub(super) unnamed: BTreeSet<Name>,
    /// Those of them that are to be released.
    pub(super) prune: BTreeSet<Name>,
    /// Why they are not released although that was asked for.
    pub(super) not_pruned: Option<String>,
}

impl Wanted {
    /// The tenant as messages name it, with its file.
    pub(super) fn label(&self, name: &Name) -> String {
        match self.files.get(name) {
            Some(file) => format!("{}: tenant {name}", file.display()),
            None => format!("tenant {name}"),
        }
    }

    /// A line for each file that is invalid and each tenant that is refused.
    pub(super) fn complaints(&self) -> Vec<String> {
        let invalid = self.invalid.iter().flat_map(|file| file.errors.as_slice());
        let mut lines: Vec<String> = invalid.map(ToString::to_string).collect();
        for (name, why) in &self.refused {
            let file = self.files.get(name).map(|file| file.display().to_string());
            lines.push(format!("{}: {why}", file.unwrap_or_default()));
        }
        lines.extend(self.not_pruned.clone());
        lines
    }

    /// Places the tenants: those with the options of all together, each other one by itself.
    fn place(
        &mut self,
        global: &Global,
        launcher: Option<LauncherKind>,
        valid: Vec<(PathBuf, Tenant)>,
        state: &State,
    ) -> Result<(), CliError> {
        let nic = global.nics.backend(global.nic, &global.names(), state)?;
        let mut state = Cow::Borrowed(state);
        let has_own = |tenant: &Tenant| global.of_tenants.contains_key(tenant.name());
        let (paths, tenants): (Vec<PathBuf>, Vec<Tenant>) = valid.into_iter().unzip();
        let names = tenants.iter().map(|tenant| tenant.name().clone());
        self.files = names.zip(paths).collect();
        let (own, common): (Vec<Tenant>, Vec<Tenant>) = tenants.into_iter().partition(has_own);
        let mut groups = vec![common];
        groups.extend(own.into_iter().map(|tenant| vec![tenant]));
        let has_others = groups.len() > 1;
        for group in groups {
            let Some(first) = group.first() else {
                continue;
            };
            let options = global.of(first.name());
            let site = Site {
                placement: options.placement()?,
                uid_base: global.uid_base,
                uids_in_use: match group.iter().all(|it| state.tenants.contains_key(it.name())) {
                    true => BTreeSet::new(),
                    false => check::uids_in_use(),
                },
                released_uids: state::released_uids(&global.state_dir),
                account_of,
            };
            let launcher = options.launcher_of(launcher)?;
            let Placed { records, refused } = place(&group, &state, &site, &*nic, &*launcher);
            if has_others {
                state.to_mut().tenants.extend(records.clone());
            }
            self.set.extend(records);
            let refused = refused.into_iter();
            self.refused
                .extend(refused.map(|(name, why)| (name, why.to_string())));
        }
        Ok(())
    }

    /// A line about tenants without a file.
    pub(super) fn unnamed_line(&self) -> Option<String> {
        let names: Vec<&str> = self
            .unnamed
            .difference(&self.prune)
            .map(Name::as_str)
            .collect();
        if names.is_empty() {
            return None;
        }
        let them = if names.len() == 1 { "it" } else { "them" };
        let names = names.join(", ");
        Some(format!("not named: {names}; `--prune` releases {them}\n"))
    }

    /// What the files ask for, as a change.
    pub(super) fn change(&mut self) -> Change {
        Change {
            set: std::mem::take(&mut self.set),
            release: self.prune.clone(),
            ..Change::default()
        }
    }

    /// Finds the tenants of this host without a file, and whether they are released.
    fn look_for_unnamed(
        &mut self,
        paths: &[PathBuf],
        valid: &BTreeSet<Name>,
        state: &State,
        prune: bool,
    ) -> Result<(), CliError> {
        let is_file = |path: &&PathBuf| !path.is_dir();
        if let Some(file) = paths.iter().find(is_file).filter(|_| prune) {
            return Err(CliError::Usage(format!(
                "--prune: {} is no directory: a tenant may have another file",
                file.display()
            )));
        }
        if paths.iter().all(|path| !path.is_dir()) {
            return Ok(());
        }
        let invalid = self.invalid.iter().filter_map(|file| file.tenant.as_ref());
        let named: BTreeSet<&Name> = valid.iter().chain(invalid).collect();
        let onboarded = state.tenants.keys();
        let unnamed = onboarded.filter(|name| !named.contains(name));
        self.unnamed = unnamed.cloned().collect();
        if !prune || self.unnamed.is_empty() {
            return Ok(());
        }
        let nameless = self.invalid.iter().find(|file| file.tenant.is_none());
        self.not_pruned = if let Some(file) = nameless {
            Some(format!(
                "--prune: {}: no name can be read, so nothing is released: it may be that of a \
                 tenant",
                file.path.display()
            ))
        } else if named.is_empty() {
            Some(
                "--prune: no tenant has a file, so nothing is released: `release --all` releases \
                 all"
                .to_owned(),
            )
        } else {
            self.prune = self.unnamed.clone();
            None
        };
        Ok(())
    }
}

impl Global {
    /// What these files ask of the host.
    pub(super) fn wanted(
        &self,
        paths: &[PathBuf],
        state: &State,
        prune: bool,
    ) -> Result<Wanted, CliError> {
        self.wanted_with(None, paths, state, prune)
    }

    /// The same with this launcher for all.
    pub(super) fn wanted_with(
        &self,
        launcher: Option<LauncherKind>,
        paths: &[PathBuf],
        state: &State,
        prune: bool,
    ) -> Result<Wanted, CliError> {
        let is_present = |name: &Name| state.tenants.contains_key(name);
        let TenantFiles { valid, invalid } = load_each(paths, &is_present);
        let mut wanted = Wanted {
            invalid,
            ..Wanted::default()
        };
        let names = valid.iter().map(|(_, tenant)| tenant.name().clone());
        wanted.look_for_unnamed(paths, &names.collect(), state, prune)?;
        // What they have is free for others.
        let mut state = Cow::Borrowed(state);
        if !wanted.prune.is_empty() {
            let tenants = &mut state.to_mut().tenants;
            tenants.retain(|name, _| !wanted.prune.contains(name));
        }
        let state = &*state;
        wanted.place(self, launcher, valid, state)?;
        self.refuse_without_hugepages(launcher, &mut wanted, state)?;
        Ok(wanted)
    }

    fn launcher_of(&self, kind: Option<LauncherKind>) -> Result<Box<dyn Launcher>, CliError> {
        let kind = kind.unwrap_or(self.launcher);
        Ok(self.launchers.launcher(kind, &self.instance)?)
    }

    /// Refuses switches that would not start for lack of hugepages.
    fn refuse_without_hugepages(
        &self,
        launcher: Option<LauncherKind>,
        wanted: &mut Wanted,
        state: &State,
    ) -> Result<(), CliError> {
        if self.nics.sriov.is_fake() {
            return Ok(());
        }
        let host = Hugepages::read();
        let (free_mib, size_kib) = ((host.free * host.page_bytes) >> 20, host.page_bytes >> 10);
        let mut needed = 0;
        let new: BTreeSet<Name> = wanted.set.keys().cloned().collect();
        for name in new
            .into_iter()
            .filter(|name| !state.tenants.contains_key(name))
        {
            let of_tenant = self.of(&name);
            if !of_tenant.launchers.process.hugepages {
                continue;
            }
            let each = u64::from(of_tenant.launcher_of(launcher)?.hugepages_mib());
            needed += each;
            let more = host.missing(needed);
            if more == 0 {
                continue;
            }
            wanted.set.remove(&name);
            let why = format!(
                "tenant {name}: --hugepages: with this one the new switches need {needed} MiB and \
                 {free_mib} MiB are free: reserve {more} more pages of {size_kib} KiB (`sysctl \
                 vm.nr_hugepages`), or leave out --hugepages"
            );
            wanted.refused.insert(name, why);
            needed -= each;
        }
        Ok(())
    }
}
