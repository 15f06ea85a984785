//! A tenant's own DHCP server on virtual functions: it may answer to the client's MAC, which the
//! NIC's embedded switch does not know on the server's VLAN; and by DHCPv6 to the client's
//! link-local address. Only in the emulated machine: `scripts/test sriov`.

#[path = "common/emulated.rs"]
mod emulated;
#[allow(dead_code)] // Other tests need more of it.
#[path = "common/nic.rs"]
mod nic;
#[path = "common/output.rs"]
mod output;
#[path = "common/shell.rs"]
mod shell;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nic::{ON_PF0, PROVISIONER, Site};
use shell::sh;

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[[port]]
name = "t1-server"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.2", "fd00:0:0:1::2"]
dhcp_server = true
[[port]]
name = "t1-client"
mac = "52:54:00:00:01:02"
addresses = "learn-dhcp"
[[port]]
name = "t1-six"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::60"]
"#;

const SCRIPT: &str = r#"#!/bin/sh
[ "$1" = bound ] && ip address replace "$ip/24" dev eth0
exit 0
"#;

const SCRIPT6: &str = r#"#!/bin/sh
[ "$reason" = BOUND6 ] && echo "$new_ip6_address" >"${0%/*}/bound"
exit 0
"#;

/// A server; it is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("ip");
        let command = command
            .args(["netns", "exec", "t1-server"])
            .args(arguments)
            .stdout(Stdio::null());
        Self(command.spawn().expect("ip starts"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn servers_answer_to_the_clients_mac_arrives() {
    let Some(mut site) = Site::new() else { return };
    site.switch = Path::new(PROVISIONER).with_file_name("vswitch");
    let dir = site.dir.path();
    let path = |name: &str| dir.join(name).display().to_string();
    let (file, script, udhcpd) = (path("t1.toml"), path("script"), path("udhcpd.conf"));
    fs::write(&file, TENANT).expect("a file");
    let script6 = path("script6");
    for (script, text) in [(&script, SCRIPT), (&script6, SCRIPT6)] {
        fs::write(script, text).expect("a file");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    let (leases, pid) = (path("leases"), path("pid"));
    fs::write(&leases, "").expect("a file");
    let config = format!(
        "start 10.1.0.50\nend 10.1.0.50\ninterface eth0\nlease_file {leases}\npidfile {pid}\n\
         opt subnet 255.255.255.0\nopt router 10.1.0.1\nopt lease 3600\n"
    );
    fs::write(&udhcpd, config).expect("a file");

    site.good(&[&ON_PF0[..], &["--guest", "netns", &file]].concat());
    sh("ip -n t1-server address add 10.1.0.2/24 dev eth0
        ip -n t1-server address add fd00:0:0:1::2/64 dev eth0 nodad");
    // One writes the client's MAC into its frames, the other into the kernel's table.
    let dnsmasq = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=eth0",
        "--dhcp-authoritative",
        "--dhcp-range=10.1.0.60,10.1.0.60,1h",
        "--dhcp-range=fd00:0:0:1::60,fd00:0:0:1::60,64,1h",
        &format!("--dhcp-leasefile={}", path("dnsmasq.leases")),
        &format!("--pid-file={}", path("dnsmasq.pid")),
        "--user=root",
    ];
    let servers = [
        (&["busybox", "udhcpd", "-f", &udhcpd][..], "10.1.0.50"),
        (&dnsmasq[..], "10.1.0.60"),
    ];
    for (arguments, address) in servers {
        let server = Server::start(arguments);
        // Without -B: the server may answer to its MAC.
        sh(&format!(
            "ip -n t1-client address flush dev eth0 scope global
             ip netns exec t1-client busybox udhcpc -f -n -q -t 10 -T 2 -i eth0 -s {script}
             ip -n t1-client address show dev eth0 | grep -q ' {address}/24 '
             ip netns exec t1-client ping -q -c 3 -W 3 10.1.0.2"
        ));
        drop(server);
    }
    let server = Server::start(&dnsmasq);
    let (leases6, pid6, bound) = (path("leases6"), path("pid6"), path("bound"));
    sh(&format!(
        "ip netns exec t1-six dhclient -6 -1 -d -q -cf /dev/null -lf {leases6} -pf {pid6} \
         -sf {script6} eth0 &
         for second in $(seq 60); do [ -s {bound} ] && break; sleep 1; done
         kill $!
         grep -qx fd00:0:0:1::60 {bound}"
    ));
    drop(server);
    site.good(&["release", "--all"]);
    site.assert_as_found();
}
