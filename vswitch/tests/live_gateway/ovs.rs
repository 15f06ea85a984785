//! Open vSwitch as the peer: its user-space datapath, which builds and parses tunnel packets
//! itself.

use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::bed::{eventually, run};
use crate::linux::{carries_every_size, carries_tcp, inner_pair};
use crate::site::{FAR, Family, Kind, Site, VNI, has};

#[test]
fn geneve_over_ipv4() {
    interoperates_with_ovs("geneve_over_ipv4", Kind::Geneve, Family::V4);
}

#[test]
fn geneve_over_ipv6() {
    interoperates_with_ovs("geneve_over_ipv6", Kind::Geneve, Family::V6);
}

#[test]
fn vxlan_over_ipv4() {
    interoperates_with_ovs("vxlan_over_ipv4", Kind::Vxlan, Family::V4);
}

fn interoperates_with_ovs(test: &str, kind: Kind, family: Family) {
    if !has(test, "ovs-vswitchd") || !has(test, "iperf3") {
        return;
    }
    let Some(mut site) = Site::new(test, kind, family, &["far", "vm7"]) else {
        return;
    };
    open_vswitch(&mut site);
    site.start(&site.config(&[FAR]), &[FAR]);
    for inner in Family::BOTH {
        for (from, to) in [
            ("vm1", 71),
            ("vm2", 71),
            ("vm7", 11),
            ("vm7", 12),
            ("vm7", 1),
        ] {
            site.echoes(from, inner.inner(to));
        }
    }
    carries_every_size(&site, "vm7");
    carries_tcp(&site, "vm7", inner_pair(Family::V4), &[]);
    carries_tcp(&site, "vm7", inner_pair(Family::V6), &["-R"]);
}

/// Starts Open vSwitch in `far`, with the peer's VM behind it in `vm7`. The daemons belong to this
/// site.
pub(crate) fn open_vswitch(site: &mut Site) {
    // The kernel receives the frames of eth0 too; with another MAC on the bridge it ignores them.
    site.plug("far", "far", "52:54:00:ff:01:66");
    site.bed.sysctl("far", "net.ipv6.conf.eth0.disable_ipv6=1");
    site.bed.pair(("far", "guest"), "vm7", FAR.mac);
    let mtu = (1500 - site.family.overhead()).to_string();
    site.bed
        .inside("vm7", &["link", "set", "dev", "eth0", "mtu", &mtu]);
    site.no_offload("vm7", "eth0");
    for family in Family::BOTH {
        site.address("vm7", "eth0", family.inner(FAR.inner));
    }

    let (database, socket) = (site.bed.path("conf.db"), site.bed.path("db.sock"));
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    run(Command::new("ovsdb-tool")
        .arg("create")
        .arg(&database)
        .arg(schema));
    let mut server = ours(site, "ovsdb-server");
    server
        .arg(&database)
        .arg(format!("--remote=punix:{}", socket.display()));
    site.daemon(&mut server);
    eventually("ovsdb-server listens", || {
        UnixStream::connect(&socket).is_ok()
    });
    let remote = format!("unix:{}", socket.display());
    vsctl(site, &["--no-wait", "init"]);
    let mut vswitchd = ours(site, "ovs-vswitchd");
    site.daemon(vswitchd.arg(&remote));

    let kind = format!("type={}", site.kind.name());
    let remote_ip = format!("options:remote_ip={}", site.family.underlay(2));
    let key = format!("options:key={VNI}");
    let mut commands = vec![
        "add-br",
        "under",
        "--",
        "set",
        "bridge",
        "under",
        "datapath_type=netdev",
    ];
    commands.extend(["--", "add-port", "under", "eth0"]);
    commands.extend([
        "--",
        "set",
        "bridge",
        "under",
        "other-config:hwaddr=52:54:00:ff:00:66",
    ]);
    commands.extend([
        "--",
        "add-br",
        "inner",
        "--",
        "set",
        "bridge",
        "inner",
        "datapath_type=netdev",
    ]);
    commands.extend([
        "--", "add-port", "inner", "guest", "--", "add-port", "inner", "tunnel",
    ]);
    commands.extend(["--", "set", "interface", "tunnel", &kind, &remote_ip, &key]);
    vsctl(site, &commands);
    // Its address is the bridge's. It finds the route to the switch in the kernel's table.
    site.bed
        .sysctl("far", "net.ipv6.conf.under.router_solicitations=0");
    // The kernel receives on eth0 the same frames as the bridge, and would also answer there for
    // the bridge's address, with another MAC.
    site.bed.sysctl("far", "net.ipv4.conf.all.arp_ignore=1");
    site.address("far", "under", site.family.underlay(FAR.host));
    site.bed
        .inside("far", &["link", "set", "dev", "under", "up"]);
}

/// One of its programs, with all files in the bed's directory.
fn ours(site: &Site, program: &str) -> Command {
    let mut command = site.bed.command("far", program);
    let directory = site.bed.path("");
    for place in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(place, &directory);
    }
    let log = format!("--log-file={}", site.bed.path(program).display());
    command.args([&log, "-vconsole:emer", "--no-chdir"]);
    command
}

fn vsctl(site: &Site, arguments: &[&str]) {
    let database = format!("--db=unix:{}", site.bed.path("db.sock").display());
    let mut command = site.bed.command("far", "ovs-vsctl");
    run(command.args(["--timeout=20", &database]).args(arguments));
}
