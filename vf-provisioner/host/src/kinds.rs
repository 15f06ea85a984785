//! The table of all kinds of objects. A new kind is an entry here and a type that implements
//! [`Object`](crate::object::Object) and [`Live`](crate::object::Live).
//!
//! The order is the order in which objects are made; they are deleted in the reverse order.

/// Calls a macro with the table: kind, payload, fields of the key, and how messages name the
/// object.
macro_rules! for_each_kind {
    ($make:ident) => {
        $make! {
            /// A named network namespace.
            Namespace: crate::nic::parts::netns::Namespace {
                /// As `ip netns` shows it.
                name: String
            } "network namespace {name}",
            /// The bridge on which the In/Out sides meet the wire.
            Bridge: crate::nic::parts::bridge::Bridge {
                /// Its interface name.
                interface: String
            } "bridge {interface}",
            /// The nftables tables of the bridge's port locks.
            Guard: crate::nic::parts::guard::Guard {
                /// Their name in the families netdev and bridge.
                table: String
            } "nftables tables {table}",
            /// A veth pair, named by the end that the switch owns.
            Pair: crate::nic::parts::link::Pair {
                /// The namespace of the switch's end.
                namespace: String,
                /// The interface of the switch's end.
                interface: String
            } "veth pair {namespace}/{interface}",
            /// The lock of one bridge port.
            Lock: crate::nic::parts::guard::Lock {
                /// The guard's tables.
                table: String,
                /// The bridge port.
                interface: String
            } "port lock of {interface}",
            /// A NIC's physical function.
            Pf: crate::nic::sriov::function::Pf {
                /// Its address.
                address: PciAddress
            } "physical function {address}",
            /// A NIC's virtual function.
            Vf: Box<crate::nic::sriov::function::Vf> {
                /// Its address.
                address: PciAddress
            } "virtual function {address}",
            /// A tap that stands for a function of the NIC in a tenant's VM.
            Tap: crate::launcher::vm::tap::Tap {
                /// Its network namespace.
                namespace: String,
                /// Its interface name there.
                interface: String
            } "tap {namespace}/{interface}",
            /// A tenant's own directory.
            Directory: crate::launcher::files::Directory {
                /// Whose.
                tenant: Name
            } "directory of tenant {tenant}",
            /// A tenant's control group.
            Cgroup: crate::launcher::cgroup::Cgroup {
                /// Its path below the mount of each controller.
                path: String
            } "control group {path}",
            /// A tenant's running switch.
            Switch: Box<crate::launcher::switch::Switch> {
                /// Whose.
                tenant: Name
            } "switch of tenant {tenant}",
            /// A tenant's running IKE daemon.
            Ike: Box<crate::launcher::ike::Ike> {
                /// Whose.
                tenant: Name
            } "IKE daemon of tenant {tenant}",
        }
    };
}

pub(crate) use for_each_kind;
