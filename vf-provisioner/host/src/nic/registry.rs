//! The kinds of NICs. A new one is a folder with an `Options` that implements [`Kind`](trait@Kind),
//! and one line at the end of this file.

use clap::{Args, ValueEnum};

use super::NicBackend;
use super::kind::{Kind, NewTenant};
use super::parts::names::Names;
use crate::error::{HostError, OptionError};
use crate::finding::Finding;
use crate::state::{Record, State};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $folder:ident,)+) => {
        /// The values of `--nic`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum NicKind {
            $($(#[$doc])* $name,)+
        }

        /// The options of all kinds.
        #[derive(Debug, Clone, Args)]
        #[group(skip)]
        #[allow(missing_docs)]
        pub struct Options {
            $(#[command(flatten)] pub $folder: super::$folder::Options,)+
        }

        impl Options {
            fn is_meant(&self, kind: NicKind, state: &State) -> bool {
                match kind { $(NicKind::$name => self.$folder.is_meant(state),)+ }
            }

            /// The kind for the tenants of an apply: the given one, or the last one that this
            /// host's tenants or the options call for, or the first one.
            pub fn kind(&self, kind: Option<NicKind>, state: &State) -> NicKind {
                let all = NicKind::value_variants();
                let meant = all.iter().rev().find(|kind| self.is_meant(**kind, state));
                kind.or(meant.copied()).unwrap_or(all[0])
            }

            /// The backend for the tenants of an apply, of the kind that [`Self::kind`] finds.
            ///
            /// # Errors
            /// If the options are wrong or the NICs cannot be read.
            pub fn backend(
                &self,
                kind: Option<NicKind>,
                names: &Names,
                state: &State,
            ) -> Result<Box<dyn NicBackend>, OptionError> {
                match self.kind(kind, state) {
                    $(NicKind::$name => self.$folder.backend(names, state),)+
                }
            }
        }

        /// Whether this host has what each kind needs; what others than `kind` need may be missing.
        pub(crate) fn checks(kind: NicKind) -> Vec<Finding> {
            let mut findings = Vec::new();
            $(findings.extend(super::$folder::Options::checks(kind == NicKind::$name));)+
            findings
        }

        /// See [`Kind::refusals`].
        pub(crate) fn refusals(records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
            let mut all = vec![None; records.len()];
            $(
                let of_kind = super::$folder::Options::refusals(records)?;
                for (all, of_kind) in all.iter_mut().zip(of_kind) {
                    *all = all.take().or(of_kind);
                }
            )+
            Ok(all)
        }

        /// See [`Kind::prove`].
        pub(crate) fn prove(tenant: &NewTenant<'_>) -> Result<(), HostError> {
            $(super::$folder::Options::prove(tenant)?;)+
            Ok(())
        }
    };
}

kinds! {
    /// Veth pairs
    Veth: veth,
    /// Virtual functions of an SR-IOV NIC
    Sriov: sriov,
}
