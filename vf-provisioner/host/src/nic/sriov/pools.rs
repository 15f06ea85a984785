//! Networks of libvirt that hand out functions of a PF.

use std::fs;
use std::path::{Path, PathBuf};

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use vswitch_api::plain;

/// Where libvirt keeps its networks, defined and running.
const NETWORKS: [&str; 2] = ["/etc/libvirt/qemu/networks", "/run/libvirt/network"];
/// A description is a few hundred bytes; more is not one.
const MAX_BYTES: u64 = 1 << 20;
/// The most of a name that is shown.
const SHOWN: usize = 64;

/// A network that hands out the functions of a PF.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pool {
    /// Its name.
    pub(super) name: String,
    /// The PF's interface.
    pub(super) pf: String,
}

/// Those of this host.
pub(super) fn all() -> Vec<Pool> {
    let mut pools: Vec<Pool> = NETWORKS
        .iter()
        .flat_map(|at| within(Path::new(at)))
        .collect();
    pools.sort();
    pools.dedup();
    pools
}

fn within(directory: &Path) -> Vec<Pool> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(is_description);
    files
        .filter_map(|file| pool(&fs::read_to_string(file).ok()?))
        .collect()
}

fn is_description(file: &PathBuf) -> bool {
    file.extension().is_some_and(|extension| extension == "xml")
        && fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES)
}

/// The first `<name>`, and the PF in `<forward>`. What is no XML is no pool.
fn pool(text: &str) -> Option<Pool> {
    let mut reader = Reader::from_str(text);
    let (mut name, mut pf, mut in_name) = (None, None, false);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.local_name().as_ref() == "name" => in_name = name.is_none(),
            Event::Text(text) if in_name => {
                name = Some(plain::cut(text.trim(), SHOWN));
                in_name = false;
            }
            Event::Start(tag) | Event::Empty(tag) if tag.local_name().as_ref() == "pf" => {
                pf = attribute(&tag, "dev");
            }
            Event::Eof => break,
            _ => {}
        }
    }
    Some(Pool {
        name: name?,
        pf: pf?,
    })
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut all = tag.attributes().flatten();
    let found = all.find(|it| it.key.local_name().as_ref() == name)?;
    let value = found.normalized_value(XmlVersion::Implicit1_0).ok()?;
    Some(plain::cut(&value, SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_with_a_pf_is_a_pool() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).expect("it is written");
        };
        write(
            "passthrough.xml",
            "<!-- a comment -->\n<network>\n  <name>passthrough</name>\n  <forward \
             mode='hostdev' managed='yes'>\n    <pf dev='ens1f0'/>\n  </forward>\n</network>\n",
        );
        // As libvirt keeps a running network.
        write(
            "running.xml",
            "<networkstatus><network connections='1'><name>vfs</name><forward mode='hostdev'>\
             <driver name='vfio'/><pf dev='ens1f1'></pf><address type='pci'/></forward></network>\
             </networkstatus>",
        );
        write(
            "default.xml",
            "<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/></network>",
        );
        write("broken.xml", "<network><name>x</na><pf dev='ens1f2'/>");
        write(
            "notes.txt",
            "<network><name>y</name><pf dev='ens1f3'/></network>",
        );
        let pool = |name: &str, pf: &str| Pool {
            name: name.to_owned(),
            pf: pf.to_owned(),
        };
        let mut found = within(dir.path());
        found.sort();
        assert_eq!(
            found,
            [pool("passthrough", "ens1f0"), pool("vfs", "ens1f1")]
        );
    }
}
