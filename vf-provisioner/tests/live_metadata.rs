//! Cloud images ask the switch for their metadata.
//!
//! The real switch, curl and cloud-init, on this host's kernel, as root. Without root the test
//! prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use guest::{Guest, command, dropped, run, send};
use site::{Site, sh};

const TENANT: &str = r##"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd01::1/64"
[[port]]
name = "web"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd01::11"]
[port.metadata]
user_data = "user-data"
public_keys = ["ssh-ed25519 AAAAC3Nza me@example"]
[[port]]
name = "db"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12", "fd01::12"]
[port.metadata]
instance_id = "db-7"
hostname = "db.example"
[[port]]
name = "none"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13"]
"##;

/// A cloud image, of which the file says everything.
const IMAGE: &str = r##"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[[port]]
name = "image"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11"]
hostname = "image"
[port.metadata]
instance_id = "i-0123"
public_keys = ["ssh-ed25519 AAAAC3Nza me@example"]
user_data = "user-data"
vendor_data = "vendor-data"
"##;

const IPV4: &str = "http://169.254.169.254";
const IPV6: &str = "http://[fd00:ec2::254]";

/// What curl prints of an answer: the body, and its status in the last line.
fn curl(site: &Site, guest: &str, arguments: &[&str]) -> (String, String) {
    let all = [
        &["curl", "-sS", "-g", "-m", "5", "-w", "\n%{http_code}"],
        arguments,
    ]
    .concat();
    let output = command(site, guest, &all).stdout(Stdio::piped()).output();
    let output = output.expect("curl starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (body.to_owned(), status.to_owned())
}

fn get(site: &Site, guest: &str, token: &str, url: &str) -> (String, String) {
    let token = format!("X-aws-ec2-metadata-token: {token}");
    curl(site, guest, &["-H", &token, url])
}

fn token(site: &Site, guest: &str, base: &str) -> String {
    let url = format!("{base}/latest/api/token");
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    let (token, status) = curl(site, guest, &["-X", "PUT", "-H", ttl, &url]);
    assert_eq!(status, "200", "{token}");
    token
}

/// Gives the guests their addresses, and the gateway's route.
fn up(site: &Site) {
    for (guest, host) in [("web", 11), ("db", 12), ("none", 13)] {
        let set = format!(
            "ip link set eth0 up; ip address add 10.1.0.{host}/24 dev eth0; \
             ip -6 address add fd01::{host}/64 dev eth0 nodad; \
             ip -6 route replace default via fd01::1; ip route add default via 10.1.0.1"
        );
        assert!(run(site, guest, &["sh", "-c", &set]));
    }
}

#[test]
fn guests_get_their_own_metadata() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvk", 91_500, Vec::new());
    fs::write(site.dir.path().join("user-data"), "#cloud-config\n").expect("a file");
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    up(&site);

    for base in [IPV4, IPV6] {
        let id = format!("{base}/latest/meta-data/instance-id");
        let (_, status) = curl(&site, "web", &[&id]);
        assert_eq!(status, "401");
        let token = token(&site, "web", base);
        let (body, status) = get(&site, "web", &token, &id);
        assert_eq!(status, "200", "{body}");
        let (body, status) = get(&site, "web", &token, &format!("{base}/latest/user-data"));
        assert_eq!((&*body, &*status), ("#cloud-config\n", "200"));
    }
    // Without the table nobody is there.
    let (_, status) = curl(&site, "none", &["-m", "1", IPV4]);
    assert_eq!(status, "000");
    assert!(dropped(&site, "none", "link-local-ip") > 0);
    on_link_address_is_found(&site);
    sibling_gets_its_own(&site);
    slow_and_many_are_bounded(&site);
    changed_file_is_served(&site, &file);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// As systems do that have a route to all link-local addresses.
fn on_link_address_is_found(site: &Site) {
    let route = ["ip", "route", "add", "169.254.0.0/16", "dev", "eth0"];
    assert!(run(site, "web", &route));
    let (body, status) = curl(site, "web", &[&format!("{IPV4}/openstack")]);
    assert_eq!((&*body, &*status), ("2018-08-27\nlatest", "200"));
    let neighbours = sh(&format!("ip -n {}-web neighbour", site.instance));
    let mac_of = |address: &str| {
        let mut lines = neighbours.lines();
        let line = lines.find(|line| line.starts_with(&format!("{address} ")))?;
        line.split(' ').skip_while(|word| *word != "lladdr").nth(1)
    };
    assert!(mac_of("10.1.0.1").is_some(), "{neighbours}");
    assert_eq!(
        mac_of("169.254.169.254"),
        mac_of("10.1.0.1"),
        "{neighbours}"
    );
}

/// Whatever address a sibling takes, it gets its own data or none.
fn sibling_gets_its_own(site: &Site) {
    let url = format!("{IPV4}/openstack/latest/meta_data.json");
    let (body, status) = curl(site, "db", &[&url]);
    assert_eq!(status, "200");
    assert!(
        body.contains("db-7") && body.contains("db.example"),
        "{body}"
    );
    let spoofed = ["ip", "address", "add", "10.1.0.11/32", "dev", "eth0"];
    assert!(run(site, "db", &spoofed));
    let before = dropped(site, "db", "ipv4-source");
    let from = ["--interface", "10.1.0.11", "-m", "1", &url];
    let (_, status) = curl(site, "db", &from);
    assert_eq!(status, "000");
    assert!(dropped(site, "db", "ipv4-source") > before);
    // Another's token is none here.
    let foreign = token(site, "web", IPV4);
    let id = format!("{IPV4}/latest/meta-data/instance-id");
    assert_eq!(get(site, "db", &foreign, &id).1, "401");
    let own = token(site, "db", IPV4);
    assert_eq!(get(site, "db", &own, &id).0, "db-7");
    let frames: Vec<String> = vec![syn([10, 1, 0, 11])];
    let before = dropped(site, "db", "ipv4-source");
    send(site, "db", &frames);
    assert!(dropped(site, "db", "ipv4-source") > before);
}

/// The begin of a handshake in the sibling's frame.
fn syn(source: [u8; 4]) -> String {
    let mut ip = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    ip.extend(source);
    ip.extend([169, 254, 169, 254]);
    let words = ip.chunks(2);
    let sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mac = [0x52, 0x54, 0, 0, 1, 2];
    let mut frame = [&[2, 0, 0x13, 0x89, 0, 2][..], &mac, &[8, 0], &ip].concat();
    frame.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Eight connections that say little, and what becomes of them and of a ninth.
const SLOW: &str = "
import socket, time
def connect():
    return socket.create_connection(('169.254.169.254', 80), 2)
held = [connect() for _ in range(8)]
try:
    connect()
    print('a ninth')
except OSError:
    print('refused')
began = time.monotonic()
try:
    while time.monotonic() < began + 20:
        held[0].send(b'G')
        time.sleep(0.2)
except OSError:
    pass
print('reset' if 4 < time.monotonic() - began < 8 else time.monotonic() - began)
";

fn slow_and_many_are_bounded(site: &Site) {
    let mut slow = command(site, "web", &["python3", "-c", SLOW]);
    let mut slow = Guest(slow.stdout(Stdio::piped()).spawn().expect("python3 starts"));
    // The sibling does not notice.
    let (_, status) = curl(site, "db", &[&format!("{IPV4}/openstack")]);
    assert_eq!(status, "200");
    let mut said = String::new();
    let output = slow.0.stdout.as_mut().expect("it is piped");
    std::io::Read::read_to_string(output, &mut said).expect("it ends");
    assert_eq!(said, "refused\nreset\n");
    let (_, status) = curl(site, "web", &[&format!("{IPV4}/openstack")]);
    assert_eq!(status, "200");
}

/// `apply` installs what has changed in a file that the tenant's names; the switch goes on.
fn changed_file_is_served(site: &Site, file: &Path) {
    let pid = site.pid("t1");
    fs::write(site.dir.path().join("user-data"), "changed").expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let url = format!("{IPV4}/openstack/latest/user_data");
    let (body, status) = curl(site, "web", &[&url]);
    assert_eq!((&*body, &*status), ("changed", "200"));
    assert_eq!(site.pid("t1"), pid);
}

/// Boots a cloud image in a guest, as far as cloud-init goes.
const BOOT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../scripts/lib/boot-cloud-image"
);

/// Where scripts/setup unpacks cloud-init.
fn package() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let package = cache.or_else(home)?.join("vswitch-cloud-init/root");
    package.is_dir().then_some(package)
}

/// What an image found out about itself.
struct Booted {
    dir: PathBuf,
}

impl Booted {
    /// Boots in a guest. `environment` is that of the machine's first process.
    fn new(site: &Site, guest: &str, source: &str, environment: &[&str]) -> Self {
        let dir = site.dir.path().join(format!("boot-{source}"));
        fs::create_dir(&dir).expect("a directory");
        let path = format!("PATH={}", std::env::var("PATH").expect("a path"));
        let package = package().expect("it was asked for");
        let mut arguments = vec![
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--mount-proc",
        ];
        arguments.extend(["env", "-i", &path]);
        arguments.extend(environment);
        arguments.extend(["sh", BOOT]);
        arguments.extend([
            dir.to_str().expect("UTF-8"),
            package.to_str().expect("UTF-8"),
            source,
        ]);
        let good = run(site, guest, &arguments);
        let booted = Self { dir };
        assert!(good, "{}", booted.read("log"));
        booted
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    #[track_caller]
    fn has(&self, source: &str) {
        let log = self.read("log");
        assert_eq!(self.read("instance-id").trim(), "i-0123", "{log}");
        assert_eq!(self.read("hostname").trim(), "image", "{log}");
        assert!(
            self.read("keys")
                .contains("ssh-ed25519 AAAAC3Nza me@example"),
            "{log}"
        );
        assert_eq!(self.read("user-data.txt"), USER_DATA, "{log}");
        assert_eq!(self.read("wrote"), "by user data", "{log}");
        let data: serde_json::Value =
            serde_json::from_str(&self.read("instance-data.json")).expect("it is JSON");
        assert_eq!(data["v1"]["cloud_id"], source, "{log}");
    }
}

const USER_DATA: &str = "#cloud-config
write_files:
  - path: /run/wrote
    content: by user data
";

#[test]
fn cloud_init_finds_its_data() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if package().is_none() {
        eprintln!("skipped: cloud-init is not unpacked (scripts/setup)");
        return;
    }
    let site = Site::new("tvc", 91_600, Vec::new());
    fs::write(site.dir.path().join("user-data"), USER_DATA).expect("a file");
    fs::write(site.dir.path().join("vendor-data"), "#cloud-config\n{}\n").expect("a file");
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, IMAGE).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);

    let ec2 = Booted::new(&site, "image", "Ec2", &[]);
    ec2.has("aws");
    let nova = ["product_name=OpenStack Nova"];
    let openstack = Booted::new(&site, "image", "OpenStack", &nova);
    openstack.has("openstack");
    assert_eq!(openstack.read("vendor-data.txt"), "#cloud-config\n{}\n");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}
