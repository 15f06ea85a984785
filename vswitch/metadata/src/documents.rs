//! What is served to one port, by path. All of it is made when the configuration is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::json;
use tenant_config::{Addresses, MetadataConfig, PortConfig, SwitchConfig};

use crate::http::TEXT;

/// The bytes of a document.
pub type Body = Arc<[u8]>;

/// EC2's versions: that of the oldest images, that of the newest, and whatever is newest.
const EC2_VERSIONS: [&str; 3] = ["2009-04-04", "2021-03-23", "latest"];
/// OpenStack's versions.
const OPENSTACK_VERSIONS: [&str; 2] = ["2018-08-27", "latest"];
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The form in which a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// EC2's, which needs a token.
    Ec2,
    /// OpenStack's, which knows none.
    OpenStack,
}

/// A document, and its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) kind: &'static str,
    pub(crate) body: Body,
}

/// The documents of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// By path, without a slash at its end.
    ec2: BTreeMap<String, Document>,
    /// The same, if it is served.
    openstack: Option<BTreeMap<String, Document>>,
}

impl Documents {
    /// What a port is told; `None` for one without metadata.
    pub fn of(config: &SwitchConfig, port: &PortConfig) -> Option<Self> {
        let metadata = port.metadata.as_ref()?;
        let openstack = metadata.openstack.then(|| openstack(port, metadata));
        Some(Self {
            ec2: ec2(config, port, metadata),
            openstack,
        })
    }

    /// The form that a path is in, and what is there.
    pub(crate) fn find(&self, path: &str) -> (Form, Option<&Document>) {
        let name = path.strip_suffix('/').unwrap_or(path);
        match &self.openstack {
            Some(documents) if is_openstack(name) => (Form::OpenStack, documents.get(name)),
            _ => (Form::Ec2, self.ec2.get(name)),
        }
    }

    /// Every path that something is at.
    pub fn paths(&self) -> impl Iterator<Item = (Form, &str)> {
        let ec2 = self.ec2.keys().map(|path| (Form::Ec2, path.as_str()));
        let openstack = self.openstack.iter().flat_map(BTreeMap::keys);
        ec2.chain(openstack.map(|path| (Form::OpenStack, path.as_str())))
    }
}

fn is_openstack(path: &str) -> bool {
    let rest = path.strip_prefix("/openstack");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn text(text: impl Into<String>) -> Document {
    Document {
        kind: TEXT,
        body: text.into().into_bytes().into(),
    }
}

fn json(value: &serde_json::Value) -> Document {
    Document {
        kind: JSON,
        body: value.to_string().into_bytes().into(),
    }
}

fn bytes(body: &Body) -> Document {
    Document {
        kind: BYTES,
        body: Arc::clone(body),
    }
}

/// Keys without a name have their number for one.
fn key_name(number: usize) -> String {
    format!("key-{number}")
}

fn ec2(
    config: &SwitchConfig,
    port: &PortConfig,
    metadata: &MetadataConfig,
) -> BTreeMap<String, Document> {
    let id = metadata.instance_id.as_str();
    let hostname = metadata.hostname.as_str();
    let mac = port.mac.to_string();
    let ipv4 = first_host(&port.addresses);
    let mut leaves = vec![
        ("meta-data/hostname".to_owned(), text(hostname)),
        ("meta-data/instance-id".to_owned(), text(id)),
        ("meta-data/local-hostname".to_owned(), text(hostname)),
        ("meta-data/mac".to_owned(), text(mac.clone())),
    ];
    let mut identity = json!({ "version": "2017-09-30", "instanceId": id });
    let interface = format!("meta-data/network/interfaces/macs/{mac}");
    let mut of_interface = vec![
        ("device-number", "0".to_owned()),
        ("local-hostname", hostname.to_owned()),
        ("mac", mac),
        // Without one, cloud-init takes the network for EC2's first, and asks again at each boot.
        ("vpc-id", format!("vpc-{:08x}", config.vni.get())),
    ];
    if let Some(ipv4) = ipv4 {
        leaves.push(("meta-data/local-ipv4".to_owned(), text(ipv4.clone())));
        identity["privateIp"] = ipv4.clone().into();
        of_interface.push(("local-ipv4s", ipv4));
        if let Some(subnet) = config.gateway.ipv4 {
            of_interface.push(("subnet-ipv4-cidr-block", subnet.trunc().to_string()));
        }
    }
    for (name, value) in of_interface {
        leaves.push((format!("{interface}/{name}"), text(value)));
    }
    for (number, key) in metadata.public_keys.iter().enumerate() {
        let path = format!("meta-data/public-keys/{number}/openssh-key");
        leaves.push((path, text(key.as_str())));
    }
    leaves.push((
        "dynamic/instance-identity/document".to_owned(),
        json(&identity),
    ));
    if let Some(data) = &metadata.user_data {
        leaves.push(("user-data".to_owned(), bytes(data.bytes())));
    }
    let mut tree = tree("", &EC2_VERSIONS, &leaves);
    // EC2 lists its keys with their names.
    for version in EC2_VERSIONS {
        let keys = 0..metadata.public_keys.len();
        let listed: Vec<_> = keys.map(|key| format!("{key}={}", key_name(key))).collect();
        if !listed.is_empty() {
            let path = format!("/{version}/meta-data/public-keys");
            tree.insert(path, text(listed.join("\n")));
        }
    }
    tree
}

fn openstack(port: &PortConfig, metadata: &MetadataConfig) -> BTreeMap<String, Document> {
    let keys = metadata.public_keys.iter().enumerate();
    let keys: serde_json::Map<_, _> = keys
        .map(|(number, key)| (key_name(number), key.as_str().into()))
        .collect();
    let meta_data = json!({
        "uuid": metadata.instance_id.as_str(),
        "name": port.name.as_str(),
        "hostname": metadata.hostname.as_str(),
        "launch_index": 0,
        "public_keys": keys,
    });
    let vendor_data = metadata.vendor_data.as_ref();
    let vendor_data = vendor_data.and_then(|data| std::str::from_utf8(data.bytes()).ok());
    let vendor_data = match vendor_data {
        Some(text) => json!({ "cloud-init": text }),
        None => json!({}),
    };
    let mut leaves = vec![
        ("meta_data.json".to_owned(), json(&meta_data)),
        ("vendor_data.json".to_owned(), json(&vendor_data)),
    ];
    if let Some(data) = &metadata.user_data {
        leaves.push(("user_data".to_owned(), bytes(data.bytes())));
    }
    tree("/openstack", &OPENSTACK_VERSIONS, &leaves)
}

/// The leaves under each version, and the lists of all that is above them: a name a line, with a
/// slash where there is more below it, except among the versions and what is at their top.
fn tree(
    root: &str,
    versions: &[&str],
    leaves: &[(String, Document)],
) -> BTreeMap<String, Document> {
    let mut documents = BTreeMap::new();
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for version in versions {
        lists
            .entry(root.to_owned())
            .or_default()
            .insert((*version).to_owned());
        for (path, document) in leaves {
            let mut above = format!("{root}/{version}");
            for (depth, (place, name)) in parts(path).enumerate() {
                let slash = if place == path || depth == 0 { "" } else { "/" };
                let list = lists.entry(above).or_default();
                list.insert(format!("{name}{slash}"));
                above = format!("{root}/{version}/{place}");
            }
            documents.insert(format!("{root}/{version}/{path}"), document.clone());
        }
    }
    for (path, names) in lists {
        let names: Vec<_> = names.into_iter().collect();
        documents.insert(path, text(names.join("\n")));
    }
    documents
}

/// For each part of a path: the path as far as there, and the part itself.
fn parts(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut end = 0;
    path.split('/').map(move |name| {
        let begin = end;
        end = begin + name.len();
        let place = &path[..end];
        end += 1;
        (place, name)
    })
}

/// The address that DHCP gives the port: the first of its IPv4 addresses.
fn first_host(addresses: &Addresses) -> Option<String> {
    let Addresses::Static(nets) = addresses else {
        return None;
    };
    nets.iter().find_map(|net| match net {
        IpNet::V4(net) => net.hosts().next().map(|ip| ip.to_string()),
        IpNet::V6(_) => None,
    })
}
