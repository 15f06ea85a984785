//! The launchers. A new one is a folder with its options, if it has any, a type that implements
//! [`Kind`], and one line at the end of this file.

use clap::{Args, ValueEnum};

use super::kind::Kind;
use super::switch::Switch;
use super::{Launcher, Runner};
use crate::error::OptionError;
use crate::finding::Finding;

macro_rules! launchers {
    (
        options: $($options:ident),+;
        $($(#[$doc:meta])* $name:ident: $folder:ident::$runner:ident,)+
    ) => {
        /// The values of `--launcher`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum LauncherKind {
            $($(#[$doc])* $name,)+
        }

        /// The options of all launchers.
        #[derive(Debug, Clone, Args)]
        #[group(skip)]
        #[allow(missing_docs)]
        pub struct Options {
            $(#[command(flatten)] pub $options: super::$options::Options,)+
        }

        impl Options {
            /// The launcher for new switches.
            ///
            /// # Errors
            /// If the options are wrong for this host.
            pub fn launcher(
                &self,
                kind: LauncherKind,
                instance: &str,
            ) -> Result<Box<dyn Launcher>, OptionError> {
                let base = self.process.base(instance);
                match kind {
                    $(LauncherKind::$name => {
                        <super::$folder::$runner as Kind>::launcher(&self.$folder, base)
                    })+
                }
            }
        }

        /// The launcher that runs this switch. Every switch has one.
        fn find(switch: &Switch) -> (LauncherKind, &'static dyn Runner) {
            let all: &[(LauncherKind, &'static dyn Runner)] =
                &[$((LauncherKind::$name, &super::$folder::$runner)),+];
            let found = all.iter().find(|(_, runner)| runner.runs(switch));
            *found.unwrap_or(&all[0])
        }

        /// Whether this host has what the launchers need.
        pub(crate) fn checks() -> Vec<Finding> {
            let mut findings = Vec::new();
            $(findings.extend(super::$folder::$runner::checks());)+
            findings
        }
    };
}

/// The launcher that runs this switch.
pub(super) fn runner(switch: &Switch) -> &'static dyn Runner {
    find(switch).1
}

/// The name of the launcher that runs this switch, as in `--launcher`.
pub(crate) fn name(switch: &Switch) -> String {
    let value = find(switch).0.to_possible_value();
    value
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

launchers! {
    options: process, vm;
    /// Each as a process of this host
    Process: process::Confined,
    /// Each in a virtual machine that this program starts
    Vm: vm::Qemu,
    /// Each in a virtual machine that libvirt starts
    Libvirt: vm::Libvirt,
}
