//! Reads descriptions of virtual machines in other formats, and drafts the `[[port]]` sections of a
//! tenant's file from them: libvirt's domain XML and OVF's descriptors.
//!
//! A draft holds only values of the description. A [`Note`] names each part of the description that
//! no key can express, and each required key that the description lacks.

#![forbid(unsafe_code)]

mod draft;
mod libvirt;
mod ovf;
mod xml;

use std::fmt;

pub use draft::PortDraft;
use tenant_config::{MAX_PORTS, Name};
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

/// The ports of a description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// The ports, in the order of the description.
    pub ports: Vec<PortDraft>,
    /// Differences between description and drafts, in the order of the ports.
    pub notes: Vec<Note>,
}

/// A part of a description that is in no draft, or a required key that a draft lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The line of the description, from 1.
    pub line: usize,
    /// The port.
    pub port: Option<Name>,
    /// The part or key, as `<vlan>` or `addresses`.
    pub what: String,
    /// The reason, and what to do.
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
    /// XML that this reader does not accept.
    #[error("line {line}: not usable XML: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// A text of more than [`MAX_BYTES`].
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
    /// More interfaces than a tenant has ports.
    #[error("{count} network interfaces are described, and a tenant has at most {MAX_PORTS} ports")]
    TooMany {
        /// How many there are.
        count: usize,
    },
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
        let interfaces = match format {
            Format::Libvirt => libvirt::interfaces(&root),
            Format::Ovf => ovf::interfaces(&root),
        };
        match interfaces.len() {
            0 => return Err(ImportError::NoInterface),
            1..=MAX_PORTS => {}
            count => return Err(ImportError::TooMany { count }),
        }
        Ok(match format {
            Format::Libvirt => libvirt::import(&interfaces),
            Format::Ovf => ovf::import(&root, &interfaces),
        })
    }

    /// Whether the drafts hold the whole description and lack no key.
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

/// One network interface of a machine.
struct Interface<'e> {
    machine: &'e str,
    /// From 1.
    number: usize,
    /// Whether the machine has no other.
    is_only: bool,
    element: &'e Element,
}

impl<'e> Interface<'e> {
    /// The interfaces of one machine.
    fn all(machine: &'e str, elements: &[&'e Element]) -> Vec<Self> {
        let is_only = elements.len() == 1;
        let numbered = elements.iter().zip(1..);
        let interface = |(element, number): (&&'e Element, usize)| Self {
            machine,
            number,
            is_only,
            element,
        };
        numbered.map(interface).collect()
    }

    /// The machine's name, with a number if it has several interfaces.
    fn default_name(&self) -> String {
        match self.is_only {
            true => self.machine.to_owned(),
            false => format!("{}-{}", self.machine, self.number),
        }
    }
}

/// Replaces control characters: messages quote names that may hold a terminal's sequences.
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
