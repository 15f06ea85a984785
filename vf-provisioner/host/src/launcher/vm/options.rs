//! The options of new machines.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::machine::{Accel, Manager};
use super::plan::Vm;
use super::settings::Settings;
use crate::error::OptionError;
use crate::launcher::Launcher;
use crate::launcher::process::plan::Process;

/// The options of new machines.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// The directory of the image that virtual machines boot [default: lib/vswitch/switch-image or
    /// switch-image, beside the directory of this program]
    #[arg(long, global = true, value_name = "DIR")]
    vm_image: Option<PathBuf>,
    /// What executes virtual machines: the processor (`kvm`), or QEMU's translator (`tcg`); `auto`
    /// is the processor if possible
    #[arg(long, global = true, value_enum, default_value_t = AccelKind::Auto)]
    accel: AccelKind,
    /// Memory of one virtual machine, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 160)]
    #[arg(value_parser = clap::value_parser!(u32).range(96..=65536))]
    vm_memory: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccelKind {
    Auto,
    Kvm,
    Tcg,
}

/// The image of this build: beside the directory of this program, or where a package has it.
fn default_image() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let prefix = program.parent().and_then(Path::parent);
    let prefix = prefix.unwrap_or(Path::new("/"));
    let packaged = prefix.join("lib/vswitch/switch-image");
    if packaged.is_dir() {
        packaged
    } else {
        prefix.join("switch-image")
    }
}

impl Options {
    pub(super) fn launcher(
        &self,
        manager: Manager,
        base: Process,
    ) -> Result<Box<dyn Launcher>, OptionError> {
        let accel = match self.accel {
            AccelKind::Auto => None,
            AccelKind::Kvm => Some(Accel::Kvm),
            AccelKind::Tcg => Some(Accel::Tcg),
        };
        let image = match &self.vm_image {
            Some(image) => std::path::absolute(image).unwrap_or(image.clone()),
            None => default_image(),
        };
        let hugepages = base.limits.packet_memory.hugepages;
        let settings = Settings::find(manager, &image, accel, self.vm_memory, hugepages);
        let settings = settings.map_err(OptionError::Usage)?;
        Ok(Box::new(Vm { base, settings }))
    }
}
