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

            /// The backend for the tenants of an apply: the given kind, or the last one that this
            /// host's tenants or the options call for, or the first one.
            ///
            /// # Errors
            /// If the options are wrong or the NICs cannot be read.
            pub fn backend(
                &self,
                kind: Option<NicKind>,
                names: &Names,
                state: &State,
            ) -> Result<Box<dyn NicBackend>, OptionError> {
                let all = NicKind::value_variants();
                let meant = all.iter().rev().find(|kind| self.is_meant(**kind, state));
                match kind.or(meant.copied()).unwrap_or(all[0]) {
                    $(NicKind::$name => self.$folder.backend(names, state),)+
                }
            }
        }

        /// Whether this host has what each kind needs.
        pub(crate) fn checks(kind: Option<NicKind>) -> Vec<Finding> {
            let mut findings = Vec::new();
            $(findings.extend(super::$folder::Options::checks(kind == Some(NicKind::$name)));)+
            findings
        }

        /// See [`Kind::refusal`].
        pub(crate) fn refusal(record: &Record) -> Result<Option<String>, HostError> {
            $(
                if let Some(why) = super::$folder::Options::refusal(record)? {
                    return Ok(Some(why));
                }
            )+
            Ok(None)
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
