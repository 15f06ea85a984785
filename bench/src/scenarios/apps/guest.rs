//! A guest: a network namespace with the kernel's own stack.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use tenant_config::MacAddr;

use crate::command::run;
use crate::network::{NEXT_HOP, NEXT_HOP_MAC, vm_ipv4};
use crate::site::{Namespace, Site};
use crate::switches::ChildGuard;

/// The address of the guest beyond the uplink.
const EXTERNAL: &str = "198.18.0.1";
/// TCP's congestion control, whatever the machine's default is: Linux's own default.
const CONGESTION: &str = "cubic";

/// A host with one interface, `eth0`: the load's end of a wire.
pub(super) struct Guest<'a> {
    site: &'a Site,
    namespace: Namespace,
    pub(super) address: String,
}

impl<'a> Guest<'a> {
    /// The VM at a port, counted from 0.
    pub(super) fn vm(site: &'a Site, port: usize) -> anyhow::Result<Self> {
        let config = &site.tenants[0];
        let gateway = config
            .gateway
            .ipv4
            .context("a tenant without a gateway")?
            .addr();
        let (mac, gateway_mac) = (config.ports[port].mac, config.ports[port].gateway_mac);
        let address = vm_ipv4(port as u16 + 1, 0).to_string();
        let lines = format!(
            "address add {address}/32 dev eth0
neighbour replace {gateway} lladdr {gateway_mac} dev eth0 nud permanent
route add {gateway} dev eth0
route add default via {gateway} congctl {CONGESTION}
"
        );
        Self::with(site, port, mac, address, &lines)
    }

    /// The host beyond the uplink, which is also the router.
    pub(super) fn external(site: &'a Site) -> anyhow::Result<Self> {
        let config = &site.tenants[0];
        let gateway = config.gateway.ipv4.context("a tenant without a gateway")?;
        let uplink = config
            .uplink
            .as_ref()
            .context("a tenant without an uplink")?;
        let own = uplink.ipv4.context("an uplink without an address")?;
        let (via, length, net) = (own.addr(), own.prefix_len(), gateway.trunc());
        let lines = format!(
            "address add {NEXT_HOP}/{length} dev eth0
address add {EXTERNAL}/32 dev lo
neighbour replace {via} lladdr {} dev eth0 nud permanent
route add {net} via {via} src {EXTERNAL} congctl {CONGESTION}
",
            uplink.mac
        );
        let mac = MacAddr::new(NEXT_HOP_MAC).context("the router's MAC")?;
        Self::with(site, config.ports.len(), mac, EXTERNAL.to_owned(), &lines)
    }

    /// A guest at the load's end of a wire; `lines` are for `ip -batch`.
    fn with(
        site: &'a Site,
        wire: usize,
        mac: MacAddr,
        address: String,
        lines: &str,
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::add(&format!("-guest{wire}"))?;
        let interface = format!("load{wire}");
        run(site.load_command("ip").args([
            "link",
            "set",
            &interface,
            "netns",
            namespace.name(),
            "name",
            "eth0",
        ]))?;
        // Each request of `ab` takes a port.
        namespace.set(&[
            "net.ipv4.ip_local_port_range=1024 65000",
            "net.ipv4.tcp_tw_reuse=1",
        ])?;
        let guest = Self {
            site,
            namespace,
            address,
        };
        // No NIC would cut the segments or write the checksums, and the switch drops a wrong one.
        run(guest.command("ethtool").args([
            "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off",
        ]))?;
        let file = site.directory().join(format!("guest{wire}"));
        let links = format!("link set lo up\nlink set eth0 address {mac} mtu 1500 arp on up\n");
        std::fs::write(&file, links + lines)?;
        run(guest.command("ip").arg("-batch").arg(&file))?;
        Ok(guest)
    }

    /// A command in the guest, on the load's CPU.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.command("taskset");
        let cpu = self.site.cpus.load.to_string();
        command.args(["--cpu-list", &cpu, program]);
        command
    }

    /// A running program in the guest, which ends when the guard is dropped.
    pub(super) fn daemon(
        &self,
        program: &str,
        arguments: &[&str],
        directory: &Path,
    ) -> anyhow::Result<ChildGuard> {
        let log = || std::fs::File::create(directory.join(format!("{program}.log")));
        let child: Child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(ChildGuard(child))
    }
}
