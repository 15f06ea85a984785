//! A VM without a disk boots from the network: iPXE in its NIC's ROM gets its address and the boot
//! file's place from the gateway, and the files from a sibling.
//!
//! The real switch, and QEMU with its ROM, on this host's kernel, as root. Without root the test
//! prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use guest::{Guest, command, dropped, run};
use site::{Site, sh};

/// For iPXE a URL, and for others a file of the TFTP server.
const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[gateway.dhcp]
dns = ["10.1.0.1"]
domain = "t1.internal"
tftp_server = "10.1.0.14"
boot_file = "second.ipxe"
ipxe_boot_file = "http://t1-server.t1.internal/first.ipxe"
[gateway.dns]
enabled = true
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-diskless"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd00:0:0:1::11"]
hostname = "diskless"
[[port]]
name = "t1-server"
mac = "52:54:00:00:01:04"
addresses = ["10.1.0.14", "fd00:0:0:1::14"]
"#;

/// It asks for its address again until the tenant's file has no URL for it any more.
const FIRST: &str = "#!ipxe
echo first of ${hostname} at ${ip}, domain ${domain}, server ${next-server}
:again
dhcp && iseq ${filename} second.ipxe || goto again
chain tftp://${next-server}/${filename}
";
const SECOND: &str = "#!ipxe
echo second of ${hostname} at ${ip}
sleep 60
";

/// A VM whose NIC is the guest's end of its port: each frame of the one is the other's. The
/// namespace's own IPv6 says no more than what the VM says itself.
const MACHINE: &str = "
ip tuntap add tap0 mode tap
ip link set eth0 up
ip link set tap0 up
for pair in eth0:tap0 tap0:eth0; do
    tc qdisc add dev ${pair%:*} ingress
    tc filter add dev ${pair%:*} parent ffff: protocol all u32 match u32 0 0 \
        action mirred egress redirect dev ${pair#*:}
done
exec qemu-system-x86_64 -machine pc,accel=tcg -m 64 -nodefaults -nographic -no-reboot \
    -netdev tap,id=net,ifname=tap0,script=no,downscript=no \
    -device virtio-net-pci,netdev=net,mac=52:54:00:00:01:01 -boot n -serial stdio
";

/// Programs of a guest, with what they write.
struct Written {
    _program: Guest,
    log: PathBuf,
}

impl Written {
    fn start(site: &Site, guest: &str, name: &str, arguments: &[&str]) -> Self {
        let log = site.dir.path().join(name);
        let file = File::create(&log).expect("a file");
        let errors = file.try_clone().expect("a descriptor");
        let mut program = command(site, guest, arguments);
        let program = program.stdin(Stdio::null()).stdout(file).stderr(errors);
        Self {
            _program: Guest(program.spawn().expect("it starts")),
            log,
        }
    }

    fn read(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The two servers of boot files: by HTTP and by TFTP.
fn serve(site: &Site, files: &Path) -> [Written; 2] {
    let files = files.to_str().expect("UTF-8");
    let http = ["busybox", "httpd", "-f", "-vv", "-p", "80", "-h", files];
    let root = format!("--tftp-root={files}");
    let tftp = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--pid-file=",
        "--user=root",
        "--log-facility=-",
        "--enable-tftp",
        &root,
    ];
    [
        Written::start(site, "t1-server", "http.log", &http),
        Written::start(site, "t1-server", "tftp.log", &tftp),
    ]
}

#[test]
fn ipxe_boots_from_a_sibling() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let programs = sh("command -v qemu-system-x86_64 && command -v dnsmasq");
    if programs.lines().count() != 2 {
        eprintln!("skipped: QEMU or dnsmasq is not installed (scripts/setup --for emulated)");
        return;
    }
    let site = Site::new("twa", 92_800, Vec::new());
    let file = site.dir.path().join("t1.toml");
    let apply = |text: &str| {
        fs::write(&file, text).expect("a file");
        site.good(&["apply", file.to_str().expect("UTF-8")]);
    };
    apply(TENANT);
    let own = "ip address add 10.1.0.14/24 dev eth0
        ip address add fd00:0:0:1::14/64 dev eth0 nodad";
    assert!(run(&site, "t1-server", &["sh", "-ec", own]));
    let files = site.dir.path().join("files");
    fs::create_dir(&files).expect("a directory");
    fs::write(files.join("first.ipxe"), FIRST).expect("a file");
    fs::write(files.join("second.ipxe"), SECOND).expect("a file");
    // The TFTP server reads what anybody may read.
    sh(&format!("chmod -R a+rX {}", files.display()));
    let [http, tftp] = serve(&site, &files);

    let began = Instant::now();
    let machine = Written::start(&site, "t1-diskless", "machine.log", &["sh", "-ec", MACHINE]);
    let wait_for = |part: &str| {
        while !machine.read().contains(part) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no {part:?}: {}\n{}\n{}",
                machine.read(),
                http.read(),
                tftp.read()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{part:?} after {:?}", began.elapsed());
    };
    wait_for("first of diskless at 10.1.0.11, domain t1.internal, server 10.1.0.14");
    let asked = http.read();
    assert!(asked.contains("url:/first.ipxe"), "{asked}");
    // Without a URL of its own, it gets what boot ROMs get.
    let (without, _) = TENANT.split_once("ipxe_boot_file").expect("it has one");
    let (_, rest) = TENANT.split_once("first.ipxe\"\n").expect("it has one");
    apply(&format!("{without}{rest}"));
    wait_for("second of diskless at 10.1.0.11");
    let asked = tftp.read();
    assert!(asked.contains("second.ipxe to 10.1.0.11"), "{asked}");
    for reason in ["dhcp-client", "dhcp-identity", "arp-sender-ip", "nd-spoof"] {
        assert_eq!(dropped(&site, "t1-diskless", reason), 0, "{reason}");
    }
    drop((machine, http, tftp));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
