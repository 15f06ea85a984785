//! The names of namespaces and interfaces.

use tenant_config::Name;

/// The instance whose namespaces have no prefix.
pub const DEFAULT_INSTANCE: &str = "mts";

/// The longest name of an instance: the rest of the 15 bytes of an interface's name.
pub const INSTANCE_MAX: usize = 5;

/// The interface of a guest that is a network namespace.
pub(crate) const GUEST_INTERFACE: &str = "eth0";

/// The names of one instance of the provisioner.
#[derive(Debug, Clone)]
pub struct Names {
    instance: String,
}

impl Names {
    /// Names begin with `instance` (see [`INSTANCE_MAX`]).
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
        }
    }

    /// The instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The network namespace of a guest.
    pub fn namespace(&self, name: &str) -> String {
        if self.instance == DEFAULT_INSTANCE {
            name.to_owned()
        } else {
            format!("{}-{name}", self.instance)
        }
    }

    /// The network namespace of a tenant's switch.
    pub fn switch_namespace(&self, tenant: &Name) -> String {
        self.namespace(&format!("sw-{tenant}"))
    }
}

/// A name of `length` letters and digits that depends only on `parts` (FNV-1a, 5 bits each).
pub(crate) fn digest(parts: &[&Name], length: usize) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.as_str().bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..length)
        .map(|place| char::from(digits[(hash >> (64 - 5 * (place + 1))) as usize & 31]))
        .collect()
}
