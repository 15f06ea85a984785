//! Open vSwitch 3.1 on its user-space datapath with DPDK (Debian's `openvswitch-switch-dpdk`): one bridge for all tenants of a
//! site, kept apart by the port that a frame comes in by.
//!
//! Every run has daemons of its own, all of whose files are in the site's directory, and whose bridge's interface is in a
//! network namespace of its own: the machine's Open vSwitch, if there is one, is not touched. They end with the benchmark, even
//! if that is killed.
//!
//! It is set up as its manual tells a careful operator to: one PMD thread, which polls all ports, alone on the switch's CPU; its
//! other threads on the load's. Its caches are as they are by default (EMC on, one of 100 new flows goes in; no SMC), and so is
//! everything else: no automatic load balancing (which is for several PMD threads), no sleep, frames sent at once. Its packet memory
//! is limited to 256 MiB, so that the load finds some too.
//!
//! Of the two kinds of shared memory that it has drivers for, memif is the better with one flow (64 bytes, port to port: 5.0 against
//! 3.9 Mpps, medians of three rounds), and neither with 10,000 (1.9 against 2.5; to a VM and back 0.8 against 0.9), so each is a peer. On
//! vhost-user it is the server (`dpdkvhostuser`), and the load's memory is one file, of which it maps few. Interfaces of the
//! kernel it has through `net_af_packet`, because a PMD thread polls no other.
//!
//! The rules are those of `docs/reference/spoof-filter.md` as far as OpenFlow can say them. What it cannot, and therefore does not do:
//! checksums, lengths and IP options; a tiny fragment; LLC/SNAP, which Open vSwitch takes for the Ethernet II frame of the same type;
//! a DHCP message's content (a VM may send nothing to the DHCP ports); the ARP sender's MAC against the Ethernet source at the
//! uplink; IPv6's extension headers, behind which it looks, though. It answers ARP, but neither pings nor Neighbour
//! Discovery, of which the rules let nothing through. Neither have the benchmarks' tenants trunks, a DHCP server, learned addresses,
//! limits or tunnels, which are not in the rules.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use tenant_config::{Addresses, Encapsulation, MacAddr, PortConfig, SwitchConfig, UplinkConfig};

use super::{Counters, Owned, Running, Switch, wait_for};
use crate::command::{run, said};
use crate::network::NEXT_HOP_MAC;
use crate::site::{End, Site, Wires};

const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const BRIDGE: &str = "bench";
/// Packet memory, in MiB.
const MEMORY: &str = "256";

/// Open vSwitch with DPDK.
pub(super) struct Ovs {
    pub(super) wires: Wires,
}

impl Switch for Ovs {
    fn wires(&self) -> Wires {
        self.wires
    }

    /// Its PMD thread sends on the second: the first is its main thread's.
    fn queues(&self) -> u16 {
        2
    }

    fn checks(&self) -> bool {
        true
    }

    fn programs(&self) -> &'static [&'static str] {
        &[PROGRAM, "ovsdb-server", "ovs-vsctl", "ovs-ofctl"]
    }

    fn rules(&self, site: &Site) -> String {
        rules(&site.tenants)
    }

    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>> {
        let files = Files {
            directory: site.directory().to_owned(),
        };
        run(Command::new("ovsdb-tool")
            .arg("create")
            .arg(files.path("conf.db"))
            .arg(SCHEMA))
        .context("scripts/setup --for bench installs Open vSwitch")?;
        let mut command = files.daemon(site, "ovsdb-server");
        command
            .arg(files.path("conf.db"))
            .arg(format!("--remote=punix:{}", files.show("db.sock")));
        let database = Owned(command.spawn().context("cannot start ovsdb-server")?);
        wait_for("ovsdb-server listens", || {
            Ok(files.path("db.sock").exists().then_some(()))
        })?;
        run(files.vsctl().arg("--no-wait").args(settings(site)))?;

        if !Path::new(PROGRAM).is_file() {
            bail!("{PROGRAM} is not there: scripts/setup --for bench installs it");
        }
        let mut command = files.daemon(site, PROGRAM);
        command.arg(format!("unix:{}", files.show("db.sock")));
        let daemon = Owned(
            command
                .spawn()
                .with_context(|| format!("cannot start {PROGRAM}"))?,
        );
        let mut running = Daemons {
            daemon,
            database,
            files,
        };
        running
            .set_up(site)
            .with_context(|| running.log("ovs-vswitchd-dpdk"))?;
        Ok(Box::new(running))
    }
}

/// What is set beside the ports.
fn settings(site: &Site) -> Vec<String> {
    let mut arguments = ["init", "--", "set", "Open_vSwitch", "."]
        .map(str::to_owned)
        .to_vec();
    for (key, value) in [
        ("dpdk-init", "true".to_owned()),
        (
            "dpdk-extra",
            "\"--no-pci --in-memory --no-telemetry\"".to_owned(),
        ),
        ("dpdk-socket-mem", format!("\"{MEMORY}\"")),
        ("dpdk-socket-limit", format!("\"{MEMORY}\"")),
        ("dpdk-lcore-mask", mask(site.cpus.load)),
        ("pmd-cpu-mask", mask(site.cpus.switch)),
    ] {
        arguments.push(format!("other_config:{key}={value}"));
    }
    arguments
}

/// A CPU as Open vSwitch names sets of them.
fn mask(cpu: usize) -> String {
    format!("\"{:#x}\"", 1_u128 << cpu)
}

/// The bridge, and a port for each wire; their OpenFlow numbers are the wires' counted from 1.
fn ports(site: &Site) -> Vec<String> {
    let own = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let mut arguments = own(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE]);
    // Without rules it shall do nothing.
    arguments.extend(own(&["datapath_type=netdev", "fail_mode=secure"]));
    for (number, end) in site.ends.iter().enumerate() {
        let name = format!("wire{number}");
        arguments.extend(own(&["--", "add-port", BRIDGE, &name]));
        arguments.extend(own(&["--", "set", "interface", &name]));
        arguments.push(format!("ofport_request={}", number + 1));
        match end {
            End::Memif(socket) => arguments.extend([
                "type=dpdk".to_owned(),
                format!(
                    "options:dpdk-devargs=\"net_memif{number},role=server,id=0,socket-abstract=no,socket={}\"",
                    socket.display()
                ),
                "options:n_rxq=2".to_owned(),
            ]),
            // It listens below its own directory, at the port's name: that is where the site wants it.
            End::VhostUser(_) => arguments.push("type=dpdkvhostuser".to_owned()),
            // PMD threads poll DPDK's ports only: the plain interface would be left to the main thread.
            End::Veth(interface) => arguments.extend([
                "type=dpdk".to_owned(),
                format!(
                    "options:dpdk-devargs=\"net_af_packet{number},iface={interface},qdisc_bypass=1\""
                ),
            ]),
        }
    }
    arguments
}

/// Where its files are.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn show(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A daemon of Open vSwitch's that stays in the foreground, keeps off the switch's CPU unless it asks for it, and
    /// does not outlive us.
    fn daemon(&self, site: &Site, program: &str) -> Command {
        let name = program.rsplit('/').next().unwrap_or(program);
        let mut command = site.command("taskset");
        command.args(["--cpu-list", &site.cpus.load.to_string()]);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        if site.wires != Wires::Veth {
            command.args(["unshare", "--net"]);
        }
        command.arg(program);
        for place in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(place, &self.directory);
        }
        command
            .args(["-vconsole:off", "-vsyslog:off", "--no-chdir"])
            .arg(format!("--log-file={}", self.show(&format!("{name}.log"))))
            .arg(format!("--unixctl={}", self.show(&format!("{name}.ctl"))))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn vsctl(&self) -> Command {
        let mut command = Command::new("ovs-vsctl");
        command.args([
            "--timeout=60",
            &format!("--db=unix:{}", self.show("db.sock")),
        ]);
        command
    }
}

struct Daemons {
    // Before the database that it talks to.
    daemon: Owned,
    database: Owned,
    files: Files,
}

impl Daemons {
    fn set_up(&mut self, site: &Site) -> anyhow::Result<()> {
        // It says nothing of having ended: the database's client would wait for it.
        wait_for("ovs-vswitchd-dpdk is ready", || {
            if let Some(status) = self.daemon.0.try_wait()? {
                bail!("ovs-vswitchd-dpdk ended ({status})");
            }
            let told = self.appctl(&["version"]).is_ok();
            Ok(told.then_some(()))
        })?;
        run(self.files.vsctl().args(ports(site)))?;
        let refused = said(
            self.files
                .vsctl()
                .args(["--bare", "--columns=name,error", "find", "interface"])
                .arg("error!=[]"),
        )?;
        if !refused.trim().is_empty() {
            bail!("Open vSwitch did not get its ports: {}", refused.trim());
        }
        let rules = self.files.path("rules");
        std::fs::write(&rules, self::rules(&site.tenants))?;
        run(Command::new("ovs-ofctl")
            .arg("add-flows")
            .arg(format!(
                "unix:{}",
                self.files.show(&format!("{BRIDGE}.mgmt"))
            ))
            .arg(&rules))
    }

    fn appctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        said(
            Command::new("ovs-appctl")
                .arg("--timeout=10")
                .arg("-t")
                .arg(self.files.path("ovs-vswitchd-dpdk.ctl"))
                .args(arguments),
        )
    }

    /// What it complained of.
    fn log(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.files.path(&format!("{name}.log")));
        let complaints: Vec<&str> = log
            .as_deref()
            .unwrap_or("")
            .lines()
            .filter(|line| {
                ["|WARN|", "|ERR|", "|EMER|"]
                    .iter()
                    .any(|level| line.contains(level))
            })
            .collect();
        format!("{name} complained of:\n{}", complaints.join("\n"))
    }
}

impl Running for Daemons {
    fn processes(&self) -> Vec<u32> {
        vec![self.daemon.id(), self.database.id()]
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let said = self.appctl(&["dpif-netdev/pmd-stats-show"])?;
        parse(&said).with_context(|| format!("Open vSwitch's statistics: {said}"))
    }
}

/// What `dpif-netdev/pmd-stats-show` says of the PMD thread; the main thread has a section of its own, as it may send frames too.
fn parse(said: &str) -> Option<Counters> {
    let mut lines = said
        .lines()
        .skip_while(|line| !line.starts_with("pmd thread"))
        .skip(1)
        .take_while(|line| line.starts_with(' '));
    let mut number = |name: &str| -> Option<u64> {
        lines.find_map(|line| {
            let value = line.trim().strip_prefix(name)?.strip_prefix(": ")?;
            value.split(' ').next()?.parse().ok()
        })
    };
    Some(Counters {
        frames: number("packets received")?,
        busy_cycles: number("processing cycles").unwrap_or(0) as f64,
    })
}

// The tables, in the order of a frame's way. `reg0` is its tenant.
const ETHERNET: u8 = 0;
const ARP_SENDER: u8 = 10;
const ARP_TARGET: u8 = 11;
const ARP_ANSWER: u8 = 12;
const VM_SOURCE: u8 = 20;
const VM_TRANSPORT: u8 = 21;
const OUTSIDE_SOURCE: u8 = 30;
const TRANSPORT: u8 = 40;
const ROUTE: u8 = 41;

const GROUP: &str = "01:00:00:00:00:00/01:00:00:00:00:00";
/// No station's: its own, loopback, link-local, and with multicast all that is above.
const MARTIANS: [&str; 4] = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
const MARTIANS_IPV6: [&str; 4] = ["::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];
/// What encapsulates: IPv4, IPv6 and GRE as an upper layer.
const ENCAPSULATIONS: [u8; 3] = [4, 41, 47];
/// The other upper layers over IPv6 that the filter knows.
const UPPER_LAYERS: [u8; 14] = [6, 17, 33, 46, 50, 58, 59, 89, 97, 103, 108, 112, 132, 136];
/// ICMPv6 that is between neighbours only: MLD, Neighbour Discovery and its inverse, renumbering, multicast routers.
const LINK_ICMPV6: [u8; 14] = [
    130, 131, 132, 133, 134, 135, 136, 137, 138, 141, 142, 143, 151, 153,
];
const TEREDO: [&str; 4] = [
    "udp,tp_src=3544",
    "udp,tp_dst=3544",
    "udp6,tp_src=3544",
    "udp6,tp_dst=3544",
];
/// From a DHCP server, and to a client.
const DHCP_SERVER: [&str; 4] = [
    "udp,tp_src=67",
    "udp,tp_dst=68",
    "udp6,tp_src=547",
    "udp6,tp_dst=546",
];

/// The rules for all tenants, as `ovs-ofctl add-flows` reads them.
fn rules(tenants: &[SwitchConfig]) -> String {
    let mut rules = Rules(String::new());
    rules.for_everybody();
    let mut first = 1;
    for (tenant, number) in tenants.iter().zip(1..) {
        let ports: Vec<_> = (first..).zip(&tenant.ports).collect();
        first += ports.len();
        let uplink = tenant.uplink.as_ref().map(|uplink| (first, uplink));
        first += usize::from(uplink.is_some());
        rules.for_tenant(number, tenant, &ports, uplink);
    }
    rules.0
}

/// A prefix of either family.
#[derive(Clone, Copy)]
struct Net {
    address: IpAddr,
    length: u8,
}

impl Net {
    fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self {
            address: address.into(),
            length,
        }
    }

    fn one(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self::new(address, if address.is_ipv4() { 32 } else { 128 })
    }

    fn covers(self, other: Self) -> bool {
        let outside = |bits: u32| bits.saturating_sub(u32::from(self.length));
        self.length <= other.length
            && match (self.address, other.address) {
                (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits())
                    .checked_shr(outside(32))
                    .is_none_or(|bits| bits == 0),
                (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits())
                    .checked_shr(outside(128))
                    .is_none_or(|bits| bits == 0),
                _ => false,
            }
    }

    fn source(self) -> String {
        self.of("src")
    }

    fn destination(self) -> String {
        self.of("dst")
    }

    fn of(self, end: &str) -> String {
        let Self { address, length } = self;
        match address {
            IpAddr::V4(_) => format!("ip,nw_{end}={address}/{length}"),
            IpAddr::V6(_) => format!("ipv6,ipv6_{end}={address}/{length}"),
        }
    }

    /// As what ARP asks for, if it can.
    fn asked_for(self) -> Option<String> {
        let Self { address, length } = self;
        address
            .is_ipv4()
            .then(|| format!("arp,arp_tpa={address}/{length}"))
    }
}

/// What a VM may send from.
fn addresses(port: &PortConfig) -> Vec<Net> {
    match &port.addresses {
        Addresses::Static(nets) => nets
            .iter()
            .map(|net| Net::new(net.trunc().addr(), net.prefix_len()))
            .collect(),
        Addresses::Learned(_) => Vec::new(),
    }
}

/// The gateway's own addresses.
fn gateway_addresses(tenant: &SwitchConfig) -> impl Iterator<Item = Net> {
    let ipv4 = tenant.gateway.ipv4.map(|net| Net::one(net.addr()));
    let ipv6 = tenant.gateway.ipv6.map(|net| Net::one(net.addr()));
    ipv4.into_iter().chain(ipv6)
}

/// The networks that they are in.
fn gateway_nets(tenant: &SwitchConfig) -> impl Iterator<Item = Net> {
    let ipv4 = tenant
        .gateway
        .ipv4
        .map(|net| Net::new(net.network(), net.prefix_len()));
    let ipv6 = tenant
        .gateway
        .ipv6
        .map(|net| Net::new(net.network(), net.prefix_len()));
    ipv4.into_iter().chain(ipv6)
}

/// The networks of the underlay.
fn underlay_nets(uplink: &UplinkConfig) -> impl Iterator<Item = Net> {
    let ipv4 = uplink
        .ipv4
        .map(|net| Net::new(net.network(), net.prefix_len()));
    let ipv6 = uplink
        .ipv6
        .map(|net| Net::new(net.network(), net.prefix_len()));
    ipv4.into_iter().chain(ipv6)
}

struct Rules(String);

impl Rules {
    fn say(&mut self, comment: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# {comment}");
    }

    fn add(&mut self, table: u8, priority: u16, of: &str, actions: &str) {
        let _ = writeln!(
            self.0,
            "table={table},priority={priority},{of},actions={actions}"
        );
    }

    fn go(&mut self, table: u8, priority: u16, of: &str, next: u8) {
        self.add(table, priority, of, &format!("goto_table:{next}"));
    }

    fn refuse(&mut self, table: u8, priority: u16, of: &str) {
        self.add(table, priority, of, "drop");
    }

    /// What is the same for all. What no rule takes is dropped.
    fn for_everybody(&mut self) {
        self.say("Ethernet: no group source, no tag, no link-local group; then only ARP, IPv4 and IPv6 have rules");
        self.refuse(ETHERNET, 300, &format!("dl_src={GROUP}"));
        self.refuse(ETHERNET, 300, "vlan_tci=0x1000/0x1000");
        self.refuse(ETHERNET, 300, "dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0");
        self.say("ARP: nobody is asked for what no packet could be sent to");
        for net in MARTIANS {
            self.refuse(ARP_TARGET, 300, &format!("arp,arp_tpa={net}"));
        }
        self.say("A VM's packets: encapsulation, and to DHCP servers. Behind a later fragment's header nothing is judged");
        self.go(VM_TRANSPORT, 200, "ipv6,nw_frag=later", TRANSPORT);
        for protocol in ENCAPSULATIONS {
            for family in ["ip", "ipv6"] {
                let of = format!("{family},nw_proto={protocol}");
                self.refuse(VM_TRANSPORT, 100, &of);
            }
        }
        for of in TEREDO {
            self.refuse(VM_TRANSPORT, 100, of);
        }
        self.refuse(VM_TRANSPORT, 100, "udp,tp_dst=67");
        for family in ["ip", "ipv6"] {
            self.go(VM_TRANSPORT, 0, family, TRANSPORT);
        }
        self.say("From outside: martian, link-local and multicast sources");
        for net in MARTIANS {
            self.refuse(OUTSIDE_SOURCE, 300, &format!("ip,nw_src={net}"));
        }
        for net in MARTIANS_IPV6 {
            self.refuse(OUTSIDE_SOURCE, 300, &format!("ipv6,ipv6_src={net}"));
        }
        self.say("Everybody's packets: DHCP servers; redirects, router advertisements and all else between neighbours; unknown upper layers");
        self.go(TRANSPORT, 200, "ipv6,nw_frag=later", ROUTE);
        for of in DHCP_SERVER {
            self.refuse(TRANSPORT, 100, of);
        }
        for kind in [5, 9] {
            self.refuse(TRANSPORT, 100, &format!("icmp,icmp_type={kind}"));
        }
        for kind in LINK_ICMPV6 {
            self.refuse(TRANSPORT, 100, &format!("icmp6,icmp_type={kind}"));
        }
        self.go(TRANSPORT, 0, "ip", ROUTE);
        for protocol in UPPER_LAYERS.iter().chain(&ENCAPSULATIONS) {
            let of = format!("ipv6,nw_proto={protocol}");
            self.go(TRANSPORT, 0, &of, ROUTE);
        }
        self.say("Martian, link-local and multicast destinations, and an Ethernet group around a unicast");
        for net in MARTIANS {
            self.refuse(ROUTE, 300, &format!("ip,nw_dst={net}"));
        }
        for net in MARTIANS_IPV6 {
            self.refuse(ROUTE, 300, &format!("ipv6,ipv6_dst={net}"));
        }
        for family in ["ip", "ipv6"] {
            self.refuse(ROUTE, 300, &format!("{family},dl_dst={GROUP}"));
        }
    }

    fn for_tenant(
        &mut self,
        number: u16,
        tenant: &SwitchConfig,
        ports: &[(usize, &PortConfig)],
        uplink: Option<(usize, &UplinkConfig)>,
    ) {
        let name = &tenant.tenant;
        for &(port, config) in ports {
            self.say(&format!("{name}, {}: what it may send", config.name));
            self.filter_vm(number, port, config);
        }
        if let Some((port, config)) = uplink {
            self.say(&format!("{name}, uplink: what may come in"));
            self.filter_outside(number, tenant, ports, (port, config));
        }
        self.say(&format!("{name}: the way"));
        let whose = format!("reg0={number}");
        for gateway in gateway_addresses(tenant) {
            let of = format!("{whose},{}", gateway.destination());
            self.refuse(ROUTE, 240, &of);
            if let Some(asked_for) = gateway.asked_for() {
                self.go(ARP_TARGET, 200, &format!("{whose},{asked_for}"), ARP_ANSWER);
            }
        }
        for &(port, config) in ports {
            let way = way(config.gateway_mac, config.mac.octets(), port);
            for net in addresses(config) {
                let of = format!("{whose},{}", net.destination());
                self.add(ROUTE, 200, &of, &way);
                if let Some(asked_for) = net.asked_for() {
                    self.go(ARP_TARGET, 200, &format!("{whose},{asked_for}"), ARP_ANSWER);
                }
            }
        }
        for net in gateway_nets(tenant) {
            self.unreachable(&whose, 150, net);
        }
        if let Some((port, config)) = uplink {
            self.route_outside(&whose, port, config);
        }
    }

    /// The filter of one VM's port.
    fn filter_vm(&mut self, tenant: u16, port: usize, config: &PortConfig) {
        let from = format!("in_port={port}");
        for mac in std::iter::once(&config.mac).chain(&config.extra_macs) {
            for (family, next) in [("arp", ARP_SENDER), ("ip", VM_SOURCE), ("ipv6", VM_SOURCE)] {
                let of = format!("{from},{family},dl_src={mac}");
                self.enter(&of, tenant, next);
            }
            let senders = addresses(config)
                .into_iter()
                .filter(|net| net.address.is_ipv4())
                .chain([Net::one(Ipv4Addr::UNSPECIFIED)]);
            for Net { address, length } in senders {
                let of = format!(
                    "{from},arp,arp_op=1,dl_src={mac},arp_sha={mac},arp_spa={address}/{length}"
                );
                self.go(ARP_SENDER, 100, &of, ARP_TARGET);
            }
        }
        for net in addresses(config) {
            if let Some(asked_for) = net.asked_for() {
                self.refuse(ARP_TARGET, 250, &format!("{from},{asked_for}"));
            }
        }
        self.answer(port, config.gateway_mac);
        let link_local = Net::one(config.mac.link_local());
        for net in addresses(config).into_iter().chain([link_local]) {
            let of = format!("{from},{}", net.source());
            self.go(VM_SOURCE, 100, &of, VM_TRANSPORT);
        }
        if config.encapsulation != Encapsulation::Deny {
            for protocol in ENCAPSULATIONS {
                for family in ["ip", "ipv6"] {
                    let of = format!("{from},{family},nw_proto={protocol}");
                    self.go(VM_TRANSPORT, 150, &of, TRANSPORT);
                }
            }
            for of in TEREDO {
                self.go(VM_TRANSPORT, 150, &format!("{from},{of}"), TRANSPORT);
            }
        }
        for net in addresses(config) {
            let of = format!("{from},{}", net.destination());
            self.refuse(ROUTE, 250, &of);
        }
    }

    /// The filter of the uplink.
    fn filter_outside(
        &mut self,
        number: u16,
        tenant: &SwitchConfig,
        ports: &[(usize, &PortConfig)],
        (port, config): (usize, &UplinkConfig),
    ) {
        let from = format!("in_port={port}");
        let mac = config.mac;
        for (of, next) in [
            (format!("arp,dl_dst={mac}"), ARP_SENDER),
            ("arp,dl_dst=ff:ff:ff:ff:ff:ff".to_owned(), ARP_SENDER),
            (format!("ip,dl_dst={mac}"), OUTSIDE_SOURCE),
            (format!("ipv6,dl_dst={mac}"), OUTSIDE_SOURCE),
        ] {
            self.enter(&format!("{from},{of}"), number, next);
        }
        if let Some(own) = config.ipv4 {
            let of = format!("{from},arp,arp_op=1,arp_tpa={}", own.addr());
            self.go(ARP_SENDER, 100, &of, ARP_ANSWER);
        }
        self.answer(port, mac);
        let tenants_own = ports
            .iter()
            .flat_map(|(_, port)| addresses(port))
            .filter(|net| !gateway_nets(tenant).any(|whole| whole.covers(*net)));
        let ours = config.own_addresses().map(Net::one);
        for net in gateway_nets(tenant).chain(tenants_own).chain(ours) {
            let of = format!("{from},{}", net.source());
            self.refuse(OUTSIDE_SOURCE, 200, &of);
        }
        for family in ["ip", "ipv6"] {
            let of = format!("{from},{family}");
            self.go(OUTSIDE_SOURCE, 0, &of, TRANSPORT);
            // Behind the VMs' addresses: no transit.
            self.refuse(ROUTE, 190, &of);
        }
    }

    /// The way to the world, and what of the underlay is none.
    fn route_outside(&mut self, tenant: &str, port: usize, config: &UplinkConfig) {
        self.refuse(ROUTE, 180, &format!("{tenant},ipv6,ipv6_src=fe80::/10"));
        for own in config.own_addresses() {
            self.unreachable(tenant, 170, Net::one(own));
        }
        let way = format!("dec_ttl,{}", way(config.mac, NEXT_HOP_MAC, port));
        let has_way = |ipv4: bool| match ipv4 {
            true => config.next_hops.ipv4.is_some(),
            false => config.next_hops.ipv6.is_some(),
        };
        for net in &config.allow {
            let net = Net::new(net.trunc().addr(), net.prefix_len());
            if has_way(net.address.is_ipv4()) {
                let of = format!("{tenant},{}", net.destination());
                self.add(ROUTE, 160, &of, &way);
                if let Some(asked_for) = net.asked_for() {
                    self.go(
                        ARP_TARGET,
                        160,
                        &format!("{tenant},{asked_for}"),
                        ARP_ANSWER,
                    );
                }
            }
        }
        for net in underlay_nets(config) {
            self.unreachable(tenant, 150, net);
        }
        if has_way(true) {
            self.go(ARP_TARGET, 100, &format!("{tenant},arp"), ARP_ANSWER);
            self.add(ROUTE, 100, &format!("{tenant},ip"), &way);
        }
        if has_way(false) {
            self.add(ROUTE, 100, &format!("{tenant},ipv6"), &way);
        }
    }

    fn enter(&mut self, of: &str, tenant: u16, next: u8) {
        let actions = format!("set_field:{tenant}->reg0,goto_table:{next}");
        self.add(ETHERNET, 100, of, &actions);
    }

    fn unreachable(&mut self, tenant: &str, priority: u16, net: Net) {
        let of = format!("{tenant},{}", net.destination());
        self.refuse(ROUTE, priority, &of);
        if let Some(asked_for) = net.asked_for() {
            self.refuse(ARP_TARGET, priority, &format!("{tenant},{asked_for}"));
        }
    }

    /// Makes a request the reply to it.
    fn answer(&mut self, port: usize, mac: MacAddr) {
        let actions = format!(
            "move:eth_src->eth_dst,set_field:{mac}->eth_src,set_field:2->arp_op,\
             move:arp_sha->arp_tha,set_field:{mac}->arp_sha,move:arp_spa->reg1,\
             move:arp_tpa->arp_spa,move:reg1->arp_tpa,in_port"
        );
        self.add(ARP_ANSWER, 100, &format!("in_port={port},arp"), &actions);
    }
}

/// Out of that port, from one MAC to the other.
fn way(from: MacAddr, to: [u8; 6], port: usize) -> String {
    let to: Vec<String> = to.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "set_field:{from}->eth_src,set_field:{}->eth_dst,output:{port}",
        to.join(":")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Size, tenant};

    const RULES: &str = "\
# Ethernet: no group source, no tag, no link-local group; then only ARP, IPv4 and IPv6 have rules
table=0,priority=300,dl_src=01:00:00:00:00:00/01:00:00:00:00:00,actions=drop
table=0,priority=300,vlan_tci=0x1000/0x1000,actions=drop
table=0,priority=300,dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0,actions=drop
# ARP: nobody is asked for what no packet could be sent to
table=11,priority=300,arp,arp_tpa=0.0.0.0/8,actions=drop
table=11,priority=300,arp,arp_tpa=127.0.0.0/8,actions=drop
table=11,priority=300,arp,arp_tpa=169.254.0.0/16,actions=drop
table=11,priority=300,arp,arp_tpa=224.0.0.0/3,actions=drop
# A VM's packets: encapsulation, and to DHCP servers. Behind a later fragment's header nothing is judged
table=21,priority=200,ipv6,nw_frag=later,actions=goto_table:40
table=21,priority=100,ip,nw_proto=4,actions=drop
table=21,priority=100,ipv6,nw_proto=4,actions=drop
table=21,priority=100,ip,nw_proto=41,actions=drop
table=21,priority=100,ipv6,nw_proto=41,actions=drop
table=21,priority=100,ip,nw_proto=47,actions=drop
table=21,priority=100,ipv6,nw_proto=47,actions=drop
table=21,priority=100,udp,tp_src=3544,actions=drop
table=21,priority=100,udp,tp_dst=3544,actions=drop
table=21,priority=100,udp6,tp_src=3544,actions=drop
table=21,priority=100,udp6,tp_dst=3544,actions=drop
table=21,priority=100,udp,tp_dst=67,actions=drop
table=21,priority=0,ip,actions=goto_table:40
table=21,priority=0,ipv6,actions=goto_table:40
# From outside: martian, link-local and multicast sources
table=30,priority=300,ip,nw_src=0.0.0.0/8,actions=drop
table=30,priority=300,ip,nw_src=127.0.0.0/8,actions=drop
table=30,priority=300,ip,nw_src=169.254.0.0/16,actions=drop
table=30,priority=300,ip,nw_src=224.0.0.0/3,actions=drop
table=30,priority=300,ipv6,ipv6_src=::/96,actions=drop
table=30,priority=300,ipv6,ipv6_src=::ffff:0:0/96,actions=drop
table=30,priority=300,ipv6,ipv6_src=fe80::/10,actions=drop
table=30,priority=300,ipv6,ipv6_src=ff00::/8,actions=drop
# Everybody's packets: DHCP servers; redirects, router advertisements and all else between neighbours; unknown upper layers
table=40,priority=200,ipv6,nw_frag=later,actions=goto_table:41
table=40,priority=100,udp,tp_src=67,actions=drop
table=40,priority=100,udp,tp_dst=68,actions=drop
table=40,priority=100,udp6,tp_src=547,actions=drop
table=40,priority=100,udp6,tp_dst=546,actions=drop
table=40,priority=100,icmp,icmp_type=5,actions=drop
table=40,priority=100,icmp,icmp_type=9,actions=drop
table=40,priority=100,icmp6,icmp_type=130,actions=drop
table=40,priority=100,icmp6,icmp_type=131,actions=drop
table=40,priority=100,icmp6,icmp_type=132,actions=drop
table=40,priority=100,icmp6,icmp_type=133,actions=drop
table=40,priority=100,icmp6,icmp_type=134,actions=drop
table=40,priority=100,icmp6,icmp_type=135,actions=drop
table=40,priority=100,icmp6,icmp_type=136,actions=drop
table=40,priority=100,icmp6,icmp_type=137,actions=drop
table=40,priority=100,icmp6,icmp_type=138,actions=drop
table=40,priority=100,icmp6,icmp_type=141,actions=drop
table=40,priority=100,icmp6,icmp_type=142,actions=drop
table=40,priority=100,icmp6,icmp_type=143,actions=drop
table=40,priority=100,icmp6,icmp_type=151,actions=drop
table=40,priority=100,icmp6,icmp_type=153,actions=drop
table=40,priority=0,ip,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=6,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=17,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=33,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=46,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=50,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=58,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=59,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=89,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=97,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=103,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=108,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=112,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=132,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=136,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=4,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=41,actions=goto_table:41
table=40,priority=0,ipv6,nw_proto=47,actions=goto_table:41
# Martian, link-local and multicast destinations, and an Ethernet group around a unicast
table=41,priority=300,ip,nw_dst=0.0.0.0/8,actions=drop
table=41,priority=300,ip,nw_dst=127.0.0.0/8,actions=drop
table=41,priority=300,ip,nw_dst=169.254.0.0/16,actions=drop
table=41,priority=300,ip,nw_dst=224.0.0.0/3,actions=drop
table=41,priority=300,ipv6,ipv6_dst=::/96,actions=drop
table=41,priority=300,ipv6,ipv6_dst=::ffff:0:0/96,actions=drop
table=41,priority=300,ipv6,ipv6_dst=fe80::/10,actions=drop
table=41,priority=300,ipv6,ipv6_dst=ff00::/8,actions=drop
table=41,priority=300,ip,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=drop
table=41,priority=300,ipv6,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=drop
# bench0, vm1: what it may send
table=0,priority=100,in_port=1,arp,dl_src=52:54:00:00:00:01,actions=set_field:1->reg0,goto_table:10
table=0,priority=100,in_port=1,ip,dl_src=52:54:00:00:00:01,actions=set_field:1->reg0,goto_table:20
table=0,priority=100,in_port=1,ipv6,dl_src=52:54:00:00:00:01,actions=set_field:1->reg0,goto_table:20
table=10,priority=100,in_port=1,arp,arp_op=1,dl_src=52:54:00:00:00:01,arp_sha=52:54:00:00:00:01,arp_spa=10.1.0.2/32,actions=goto_table:11
table=10,priority=100,in_port=1,arp,arp_op=1,dl_src=52:54:00:00:00:01,arp_sha=52:54:00:00:00:01,arp_spa=0.0.0.0/32,actions=goto_table:11
table=11,priority=250,in_port=1,arp,arp_tpa=10.1.0.2/32,actions=drop
table=12,priority=100,in_port=1,arp,actions=move:eth_src->eth_dst,set_field:02:00:13:89:00:01->eth_src,set_field:2->arp_op,move:arp_sha->arp_tha,set_field:02:00:13:89:00:01->arp_sha,move:arp_spa->reg1,move:arp_tpa->arp_spa,move:reg1->arp_tpa,in_port
table=20,priority=100,in_port=1,ip,nw_src=10.1.0.2/32,actions=goto_table:21
table=20,priority=100,in_port=1,ipv6,ipv6_src=fd00::1:2/128,actions=goto_table:21
table=20,priority=100,in_port=1,ipv6,ipv6_src=fe80::5054:ff:fe00:1/128,actions=goto_table:21
table=41,priority=250,in_port=1,ip,nw_dst=10.1.0.2/32,actions=drop
table=41,priority=250,in_port=1,ipv6,ipv6_dst=fd00::1:2/128,actions=drop
# bench0, vm2: what it may send
table=0,priority=100,in_port=2,arp,dl_src=52:54:00:00:00:02,actions=set_field:1->reg0,goto_table:10
table=0,priority=100,in_port=2,ip,dl_src=52:54:00:00:00:02,actions=set_field:1->reg0,goto_table:20
table=0,priority=100,in_port=2,ipv6,dl_src=52:54:00:00:00:02,actions=set_field:1->reg0,goto_table:20
table=10,priority=100,in_port=2,arp,arp_op=1,dl_src=52:54:00:00:00:02,arp_sha=52:54:00:00:00:02,arp_spa=10.2.0.2/32,actions=goto_table:11
table=10,priority=100,in_port=2,arp,arp_op=1,dl_src=52:54:00:00:00:02,arp_sha=52:54:00:00:00:02,arp_spa=0.0.0.0/32,actions=goto_table:11
table=11,priority=250,in_port=2,arp,arp_tpa=10.2.0.2/32,actions=drop
table=12,priority=100,in_port=2,arp,actions=move:eth_src->eth_dst,set_field:02:00:13:89:00:02->eth_src,set_field:2->arp_op,move:arp_sha->arp_tha,set_field:02:00:13:89:00:02->arp_sha,move:arp_spa->reg1,move:arp_tpa->arp_spa,move:reg1->arp_tpa,in_port
table=20,priority=100,in_port=2,ip,nw_src=10.2.0.2/32,actions=goto_table:21
table=20,priority=100,in_port=2,ipv6,ipv6_src=fd00::2:2/128,actions=goto_table:21
table=20,priority=100,in_port=2,ipv6,ipv6_src=fe80::5054:ff:fe00:2/128,actions=goto_table:21
table=41,priority=250,in_port=2,ip,nw_dst=10.2.0.2/32,actions=drop
table=41,priority=250,in_port=2,ipv6,ipv6_dst=fd00::2:2/128,actions=drop
# bench0, uplink: what may come in
table=0,priority=100,in_port=3,arp,dl_dst=02:00:13:89:00:00,actions=set_field:1->reg0,goto_table:10
table=0,priority=100,in_port=3,arp,dl_dst=ff:ff:ff:ff:ff:ff,actions=set_field:1->reg0,goto_table:10
table=0,priority=100,in_port=3,ip,dl_dst=02:00:13:89:00:00,actions=set_field:1->reg0,goto_table:30
table=0,priority=100,in_port=3,ipv6,dl_dst=02:00:13:89:00:00,actions=set_field:1->reg0,goto_table:30
table=10,priority=100,in_port=3,arp,arp_op=1,arp_tpa=192.0.2.2,actions=goto_table:12
table=12,priority=100,in_port=3,arp,actions=move:eth_src->eth_dst,set_field:02:00:13:89:00:00->eth_src,set_field:2->arp_op,move:arp_sha->arp_tha,set_field:02:00:13:89:00:00->arp_sha,move:arp_spa->reg1,move:arp_tpa->arp_spa,move:reg1->arp_tpa,in_port
table=30,priority=200,in_port=3,ip,nw_src=10.0.0.0/8,actions=drop
table=30,priority=200,in_port=3,ipv6,ipv6_src=fd00::/64,actions=drop
table=30,priority=200,in_port=3,ip,nw_src=192.0.2.2/32,actions=drop
table=30,priority=200,in_port=3,ipv6,ipv6_src=2001:db8::2/128,actions=drop
table=30,priority=0,in_port=3,ip,actions=goto_table:40
table=41,priority=190,in_port=3,ip,actions=drop
table=30,priority=0,in_port=3,ipv6,actions=goto_table:40
table=41,priority=190,in_port=3,ipv6,actions=drop
# bench0: the way
table=41,priority=240,reg0=1,ip,nw_dst=10.0.0.1/32,actions=drop
table=11,priority=200,reg0=1,arp,arp_tpa=10.0.0.1/32,actions=goto_table:12
table=41,priority=240,reg0=1,ipv6,ipv6_dst=fd00::1/128,actions=drop
table=41,priority=200,reg0=1,ip,nw_dst=10.1.0.2/32,actions=set_field:02:00:13:89:00:01->eth_src,set_field:52:54:00:00:00:01->eth_dst,output:1
table=11,priority=200,reg0=1,arp,arp_tpa=10.1.0.2/32,actions=goto_table:12
table=41,priority=200,reg0=1,ipv6,ipv6_dst=fd00::1:2/128,actions=set_field:02:00:13:89:00:01->eth_src,set_field:52:54:00:00:00:01->eth_dst,output:1
table=41,priority=200,reg0=1,ip,nw_dst=10.2.0.2/32,actions=set_field:02:00:13:89:00:02->eth_src,set_field:52:54:00:00:00:02->eth_dst,output:2
table=11,priority=200,reg0=1,arp,arp_tpa=10.2.0.2/32,actions=goto_table:12
table=41,priority=200,reg0=1,ipv6,ipv6_dst=fd00::2:2/128,actions=set_field:02:00:13:89:00:02->eth_src,set_field:52:54:00:00:00:02->eth_dst,output:2
table=41,priority=150,reg0=1,ip,nw_dst=10.0.0.0/8,actions=drop
table=11,priority=150,reg0=1,arp,arp_tpa=10.0.0.0/8,actions=drop
table=41,priority=150,reg0=1,ipv6,ipv6_dst=fd00::/64,actions=drop
table=41,priority=180,reg0=1,ipv6,ipv6_src=fe80::/10,actions=drop
table=41,priority=170,reg0=1,ip,nw_dst=192.0.2.2/32,actions=drop
table=11,priority=170,reg0=1,arp,arp_tpa=192.0.2.2/32,actions=drop
table=41,priority=170,reg0=1,ipv6,ipv6_dst=2001:db8::2/128,actions=drop
table=41,priority=150,reg0=1,ip,nw_dst=192.0.2.0/24,actions=drop
table=11,priority=150,reg0=1,arp,arp_tpa=192.0.2.0/24,actions=drop
table=41,priority=150,reg0=1,ipv6,ipv6_dst=2001:db8::/64,actions=drop
table=11,priority=100,reg0=1,arp,actions=goto_table:12
table=41,priority=100,reg0=1,ip,actions=dec_ttl,set_field:02:00:13:89:00:00->eth_src,set_field:52:54:00:ff:ff:ff->eth_dst,output:3
table=41,priority=100,reg0=1,ipv6,actions=dec_ttl,set_field:02:00:13:89:00:00->eth_src,set_field:52:54:00:ff:ff:ff->eth_dst,output:3
";

    #[test]
    fn the_pmd_threads_statistics_are_found() {
        let said = "pmd thread numa_id 0 core_id 1:
  packets received: 2000
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  mfex opt hits: 0
  simple match hits: 0
  emc hits: 1990
  smc hits: 0
  megaflow hits: 8
  avg. subtable lookups per megaflow hit: 1.00
  miss with success upcall: 2
  miss with failed upcall: 0
  avg. packets per output batch: 31.50
  idle cycles: 8417926892 (99.98%)
  processing cycles: 1814000 (0.02%)
  avg cycles per packet: 4209870.45 (8419740892/2000)
  avg processing cycles per packet: 907.00 (1814000/2000)
main thread:
  packets received: 7
  packet recirculations: 0
";
        let expected = Counters {
            frames: 2000,
            busy_cycles: 1_814_000.0,
        };
        assert_eq!(parse(said), Some(expected));
        assert_eq!(parse("main thread:\n  packets received: 7\n"), None);
    }

    #[test]
    fn a_tenants_rules_are_these() {
        let tenant = tenant(
            0,
            Size {
                ports: 2,
                addresses: 1,
            },
        );
        let rules = rules(&[tenant]);
        for (line, expected) in rules.lines().zip(RULES.lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(rules, RULES);
    }

    #[test]
    fn tenants_have_ports_and_registers_of_their_own() {
        let size = Size {
            ports: 1,
            addresses: 1,
        };
        let rules = rules(&[tenant(0, size), tenant(1, size)]);
        let entries: Vec<&str> = rules
            .lines()
            .filter(|line| line.starts_with("table=0,") && line.contains(",ip,dl_"))
            .collect();
        assert_eq!(
            entries,
            [
                "table=0,priority=100,in_port=1,ip,dl_src=52:54:00:00:00:01,actions=set_field:1->reg0,goto_table:20",
                "table=0,priority=100,in_port=2,ip,dl_dst=02:00:13:89:00:00,actions=set_field:1->reg0,goto_table:30",
                "table=0,priority=100,in_port=3,ip,dl_src=52:54:00:01:00:01,actions=set_field:2->reg0,goto_table:20",
                "table=0,priority=100,in_port=4,ip,dl_dst=02:00:13:8a:00:00,actions=set_field:2->reg0,goto_table:30",
            ]
        );
    }

    #[test]
    fn a_net_covers_what_is_in_it() {
        let net =
            |text: &str, length| Net::new(text.parse::<IpAddr>().expect("an address"), length);
        let (ten, all) = (net("10.0.0.0", 8), net("0.0.0.0", 0));
        assert!(ten.covers(net("10.1.0.0", 16)) && all.covers(ten));
        assert!(!ten.covers(net("11.0.0.0", 16)) && !ten.covers(all));
        let six = net("fd00::", 64);
        assert!(six.covers(net("fd00::1", 128)) && net("::", 0).covers(six));
        assert!(!six.covers(net("fd00:0:0:1::1", 128)) && !all.covers(six));
    }

    #[test]
    fn cpus_are_named_by_masks() {
        assert_eq!(
            [0, 1, 65].map(mask),
            ["\"0x1\"", "\"0x2\"", "\"0x20000000000000000\""]
        );
    }
}
