//! One port as a description has it, and as a `[[port]]` section.

use std::fmt;

use ipnet::IpNet;
use tenant_config::{Addresses, LearnedFrom, MacAddr, Name, UPLINK_NAME, VlanId};

/// One port, as far as it is described. The keys that are not here have their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortDraft {
    /// Unique among the drafts of one description.
    pub name: Name,
    /// Which interface of which machine it is, for people.
    pub origin: String,
    /// The network that the description connects the interface to.
    pub network: Option<String>,
    /// The VM's MAC; a tenant's file needs one.
    pub mac: Option<MacAddr>,
    /// The IP sources; a tenant's file needs them.
    pub addresses: Option<Addresses>,
    /// VLAN identifiers that the VM may use.
    pub trunk: Vec<VlanId>,
    /// Whether the VM may send QEMU's announce after a migration.
    pub announce: bool,
    /// The MTU, unless it is the default.
    pub mtu: Option<u16>,
    /// The most that the VM may send, in bits per second.
    pub bps: Option<u64>,
}

impl PortDraft {
    pub(crate) fn new(name: Name, origin: String) -> Self {
        Self {
            name,
            origin,
            network: None,
            mac: None,
            addresses: None,
            trunk: Vec::new(),
            announce: false,
            mtu: None,
            bps: None,
        }
    }
}

impl fmt::Display for PortDraft {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Debug` escapes what would end the comment.
        write!(out, "# {}", self.origin)?;
        match &self.network {
            Some(network) => writeln!(out, ", network {network:?}")?,
            None => writeln!(out)?,
        }
        writeln!(out, "[[port]]")?;
        writeln!(out, "name = \"{}\"", self.name)?;
        match &self.mac {
            Some(mac) => writeln!(out, "mac = \"{mac}\"")?,
            None => writeln!(out, "# mac is missing: write the VM's")?,
        }
        match &self.addresses {
            Some(Addresses::Static(list)) => {
                let list: Vec<String> = list.iter().map(quoted).collect();
                writeln!(out, "addresses = [{}]", list.join(", "))?;
            }
            Some(Addresses::Learned(LearnedFrom::Dhcp)) => {
                writeln!(out, "addresses = \"learn-dhcp\"")?;
            }
            None => writeln!(
                out,
                "# addresses is missing: list them, or write \"learn-dhcp\""
            )?,
        }
        if !self.trunk.is_empty() {
            let list: Vec<String> = self.trunk.iter().map(VlanId::to_string).collect();
            writeln!(out, "trunk = [{}]", list.join(", "))?;
        }
        if self.announce {
            writeln!(out, "announce = true")?;
        }
        if let Some(mtu) = self.mtu {
            writeln!(out, "mtu = {mtu}")?;
        }
        if let Some(bps) = self.bps {
            writeln!(out, "limits = {{ bps = {bps} }}")?;
        }
        Ok(())
    }
}

fn quoted(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        format!("\"{}\"", net.addr())
    } else {
        format!("\"{net}\"")
    }
}

/// A port's name from what a description calls the interface. It differs from those in `taken`.
pub(crate) fn name(wanted: &str, taken: &[PortDraft]) -> Name {
    let is_taken =
        |name: &str| name == UPLINK_NAME || taken.iter().any(|draft| draft.name.as_str() == name);
    let stem = stem(wanted);
    let numbered = |number: usize| {
        let suffix = format!("-{number}");
        let kept = stem.len().min(Name::MAX_LEN - suffix.len());
        format!("{}{suffix}", &stem[..kept])
    };
    let mut candidates = std::iter::once(stem.clone()).chain((2..).map(numbered));
    let name = candidates.find(|name| !is_taken(name));
    let name = name.and_then(|name| name.parse().ok());
    name.expect("a stem with a number is a name")
}

/// The characters of `wanted` that a name may have, with hyphens in the place of the others.
fn stem(wanted: &str) -> String {
    let lower = wanted.chars().map(|character| match character {
        'a'..='z' | '0'..='9' => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        _ => '-',
    });
    let lower: String = lower.collect();
    let begin = lower.find(|first: char| first.is_ascii_lowercase());
    let begin = begin.map_or("port", |begin| &lower[begin..]);
    let kept = &begin[..begin.len().min(Name::MAX_LEN)];
    kept.trim_end_matches('-').to_owned()
}
