//! `verify`: whether the kernel has what was set.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vf_host::verify::{UnderWay, verify};
use vf_host::{state, status};

use super::options::Global;
use super::output::{accepted, print, print_json};
use super::{CliError, need_root};

/// Compare all settings with what the kernel has now, and probe every gateway with real frames;
/// changes nothing
#[derive(Debug, Args)]
pub(super) struct Verify {}

impl Verify {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let (dir, none) = (&global.state_dir, BTreeSet::new());
        let found = verify(&|| global.host(), dir, &none, UnderWay::Wait)?.unwrap_or_default();
        let state = state::read(dir)?;
        let (tenants, switches) = (&state.tenants, global.switches());
        let replaced: BTreeMap<_, _> = tenants
            .keys()
            .filter_map(|name| Some((name, switches.replaced(name)?)))
            .collect();
        let ipsec = status::not_in_force(&switches, &state, None);
        let ipsec: Vec<String> = ipsec.into_values().flatten().collect();
        let good = found.is_empty() && ipsec.is_empty();
        let exit = ExitCode::from(if good { 0 } else { 3 });
        if global.json {
            let accepted: BTreeMap<_, _> = tenants
                .iter()
                .map(|(name, record)| (name, record.accepted()))
                .filter(|(_, accepted)| !accepted.is_empty())
                .collect();
            print_json(&json!({
                "drift": found, "accepted": accepted, "replaced": replaced, "ipsec": ipsec,
            }));
            return Ok(exit);
        }
        for (name, record) in tenants {
            if let Some(line) = accepted(name, record) {
                print(&line);
            }
        }
        for (name, path) in &replaced {
            print(&format!("{}\n", status::replaced(name, path, None)));
        }
        for line in found.iter().chain(&ipsec) {
            print(&format!("{line}\n"));
        }
        if found.is_empty() {
            let count = tenants.len();
            let but = match ipsec.len() {
                0 => String::new(),
                1 => ", but 1 peer that requires IPsec has none".to_owned(),
                peers => format!(", but {peers} peers that require IPsec have none"),
            };
            print(&format!(
                "{count} tenants: everything is as it was set{but}\n"
            ));
        }
        Ok(exit)
    }
}
