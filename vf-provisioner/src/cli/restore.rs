//! `restore`: onboards what a backup has.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vf_host::backup::{self, Backup, Permitted};

use super::options::Global;
use super::output::{print, print_json};
use super::{CliError, need_root};

/// Take over the state from a backup of this host. `supervise` then makes what it says, and so does
/// `apply` of the tenants' files
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Also change tenants that are onboarded now, and remove those that the backup lacks
    #[arg(long)]
    replace: bool,
    /// Take a backup of another host, whose place this one takes
    #[arg(long)]
    other_host: bool,
}

impl Restore {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let loaded = Backup::load(&self.file)?;
        let request = backup::Request {
            file: &self.file,
            instance: &global.instance,
            permitted: Permitted {
                replace: self.replace,
                other_host: self.other_host,
            },
            dry_run: self.dry_run,
        };
        let restored = backup::restore(&global.state_dir, &loaded, &request)?;
        let mut missing = loaded.named_files()?;
        missing.retain(|file| !file.exists());
        if global.json {
            print_json(&json!({
                "dry_run": self.dry_run, "restored": restored, "missing": missing,
            }));
            return Ok(ExitCode::SUCCESS);
        }
        print(&restored.to_string());
        for file in missing {
            let file = file.display();
            print(&format!("not there, put it back first: {file}\n"));
        }
        print(match self.dry_run {
            true => "nothing was changed\n",
            false => "supervise makes it so; without one, apply the tenants' files\n",
        });
        Ok(ExitCode::SUCCESS)
    }
}
