//! `backup`: what was applied, as a file.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vf_host::backup;

use super::options::Global;
use super::output::{print, print_json};
use super::{CliError, need_root};

/// Write what is onboarded to a file, from which `restore` has it where the state directory was
/// lost. It may be run at any time. It has no secrets: it names the files of keys and certificates
/// that are to be kept elsewhere
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file, of mode 0600; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let made = backup::make(&global.state_dir, &global.instance)?;
        if self.file.as_os_str() == "-" {
            let written = std::io::stdout().write_all(made.text().as_bytes());
            let failed = |error| CliError::Failed(format!("cannot write the backup: {error}"));
            return written.map(|()| ExitCode::SUCCESS).map_err(failed);
        }
        made.save(&self.file)?;
        let (tenants, elsewhere) = (made.tenants()?, made.named_files()?);
        if global.json {
            print_json(&json!({"file": self.file, "tenants": tenants, "elsewhere": elsewhere}));
            return Ok(ExitCode::SUCCESS);
        }
        let (file, count) = (self.file.display(), tenants.len());
        print(&format!("{file}: {count} tenants\n"));
        for file in elsewhere {
            let file = file.display();
            print(&format!("not in it, keep a copy elsewhere: {file}\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
