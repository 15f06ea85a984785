//! Reads descriptions of virtual machines in other formats, and drafts the `[[port]]` sections of a
//! tenant's file from them: libvirt's domain XML and OVF's descriptors.
//!
//! A draft says only what the description says. What a port's key cannot express, and what a
//! tenant's file needs beyond the description, is a [`Note`].

#![forbid(unsafe_code)]

mod draft;
mod libvirt;
mod ovf;
mod xml;

use std::fmt;

pub use draft::PortDraft;
use tenant_config::Name;
use xml::Element;
pub use xml::MAX_BYTES;

/// A format of descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The XML of a libvirt domain, as `virsh dumpxml` prints it.
    Libvirt,
    /// The descriptor of an OVF package (DMTF DSP0243), the `.ovf` file.
    Ovf,
}

/// What a description says about the network of its virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// The ports, in the order of the description.
    pub ports: Vec<PortDraft>,
    /// What the drafts leave out, in the order of the description.
    pub notes: Vec<Note>,
}

/// Something of a description that is not in a draft, or that a draft lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The line of the description, from 1.
    pub line: usize,
    /// The port.
    pub port: Option<Name>,
    /// What is not carried over, as `<vlan>` or `addresses`.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.line)?;
        if let Some(port) = &self.port {
            write!(out, "port {:?}: ", port.as_str())?;
        }
        write!(out, "{}: {}", self.what, self.why)
    }
}

/// Why a description could not be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Not the XML that this reader accepts.
    #[error("line {line}: not usable XML: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A text that is too long.
    #[error("larger than {} KiB, which no such description is", MAX_BYTES >> 10)]
    TooLarge,
    /// XML of something else.
    #[error("this is a <{found}>; {format} begins with <{expected}>")]
    Root {
        /// The root element.
        found: String,
        /// The format's name.
        format: &'static str,
        /// The format's root element.
        expected: &'static str,
    },
    /// A description without an interface.
    #[error("no network interface is described")]
    NoInterface,
}

impl Import {
    /// Reads a description.
    ///
    /// # Errors
    /// If `text` is no description in that format, or describes no network interface.
    pub fn parse(format: Format, text: &str) -> Result<Self, ImportError> {
        let root = Element::parse(text)?;
        let (name, expected) = match format {
            Format::Libvirt => ("libvirt's domain XML", "domain"),
            Format::Ovf => ("an OVF descriptor", "Envelope"),
        };
        if root.name != expected {
            return Err(ImportError::Root {
                found: printable(&root.name),
                format: name,
                expected,
            });
        }
        let import = match format {
            Format::Libvirt => libvirt::import(&root),
            Format::Ovf => ovf::import(&root),
        };
        if import.ports.is_empty() {
            return Err(ImportError::NoInterface);
        }
        Ok(import)
    }

    /// Whether the drafts say all that the description does, and lack nothing.
    pub fn is_complete(&self) -> bool {
        self.notes.is_empty()
    }

    fn note(
        &mut self,
        element: &Element,
        port: &Name,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.notes.push(Note {
            line: element.line,
            port: Some(port.clone()),
            what: printable(&what.into()),
            why: why.into(),
        });
    }
}

/// Messages quote names that may hold anything, as a terminal's control sequences.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// The `[[port]]` sections, to be put into a tenant's file.
impl fmt::Display for Import {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, port) in self.ports.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(out, "{gap}{port}")?;
        }
        Ok(())
    }
}
