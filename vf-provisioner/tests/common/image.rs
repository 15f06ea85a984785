//! Guests with a file system of their own: this machine's, and over it the programs that
//! `scripts/setup` unpacks. What they write is gone with them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::guest::{Guest, command};
use crate::output::written;
use crate::site::Site;

/// The first process of a guest, with whose end all its others end. It is the shell: a program that
/// gives up its privileges would outlive a killed test. `$1` are the unpacked packages, `$2` is a
/// directory of the guest's own, which it sees as `/mnt/own`.
const BOOT: &str = r#"set -eu
packages=$1 own=$2
shift 2
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/own
mount --bind "$own" /mnt/own
mount -t overlay -o "lowerdir=$packages/usr:/usr" none /usr
written=upperdir=/mnt/upper,workdir=/mnt/work
mount -t overlay -o "lowerdir=$packages/etc:/etc,$written" none /etc
for place in /run /var/lib /var/log /var/tmp /tmp /dev/shm; do
    mount -t tmpfs none "$place"
done
for user in messagebus systemd-network systemd-resolve avahi frr; do
    grep -q "^$user:" /etc/group || groupadd --system "$user"
    grep -q "^$user:" /etc/passwd || useradd --system --gid "$user" "$user"
done
grep -q ^frrvty: /etc/group || groupadd --system frrvty
usermod --append --groups frrvty frr
mkdir -p /run/dbus /run/systemd/system /run/systemd/resolve /run/frr /var/lib/corosync
chown systemd-resolve: /run/systemd/resolve
chown frr: /run/frr
# Not this machine's name servers.
rm -f /etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
# Network managers wait for no udev then.
mount -o remount,ro,bind /sys
bus() {
    dbus-daemon --system --nopidfile --fork
}
"#;

/// A running guest.
pub(crate) struct Image {
    program: Guest,
    /// What it sees as `/mnt/own`.
    pub(crate) own: PathBuf,
    guest: String,
}

impl Image {
    /// Where `scripts/setup` has unpacked the programs, if it has.
    pub(crate) fn packages() -> Option<PathBuf> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let packages = cache.or_else(home)?.join("vswitch-guests/root");
        packages.is_dir().then_some(packages)
    }

    /// Starts the shell script as a guest's first program. `bus` in it starts a message bus.
    pub(crate) fn boot(site: &Site, guest: &str, script: &str) -> Self {
        let own = site.dir.path().join(format!("own-{guest}"));
        fs::create_dir_all(&own).expect("a directory");
        let packages = Self::packages().expect("it was asked for");
        let log = File::create(own.join("log")).expect("a file");
        let unshare = "unshare --mount --pid --fork --kill-child --mount-proc sh -c";
        let mut arguments: Vec<&str> = unshare.split(' ').collect();
        let script = format!("{BOOT}: >/mnt/own/ready\n{script}\nwait\nexit");
        arguments.extend([&script, "sh", path(&packages), path(&own)]);
        let mut program = command(site, guest, &arguments);
        program.stdin(Stdio::null());
        program.stdout(log.try_clone().expect("a descriptor"));
        program.stderr(log);
        program.env("SYSTEMD_LOG_TARGET", "console");
        let image = Self {
            program: Guest(program.spawn().expect("ip starts")),
            own,
            guest: guest.to_owned(),
        };
        // Until then, what is entered may be this machine's own.
        let began = Instant::now();
        while !image.own.join("ready").exists() {
            let patience = Duration::from_secs(20);
            assert!(began.elapsed() < patience, "{guest}: {}", image.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        image
    }

    /// What its programs have reported.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.own.join("log")).unwrap_or_default()
    }

    /// Runs a shell command in it; its output, also of what failed.
    pub(crate) fn shell(&self, command: &str) -> String {
        let output = self.command(command).output().expect("nsenter starts");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The same, of what must succeed.
    #[allow(dead_code)] // Not every test knows when it does.
    #[track_caller]
    pub(crate) fn good(&self, command: &str) -> String {
        let output = self.command(command).output().expect("nsenter starts");
        written(&output, command)
    }

    fn command(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .args(["--target", &self.program.0.id().to_string()])
            .args(["--mount", "--net", "sh", "-c", command])
            .stdin(Stdio::null());
        nsenter
    }

    /// Waits until what a shell command in it shows has that, and hands back all of it.
    #[track_caller]
    pub(crate) fn wait_for(&self, command: &str, part: &str) -> String {
        let began = Instant::now();
        loop {
            let text = self.shell(command);
            if text.contains(part) {
                return text;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "no {part:?} of {command:?} at {}, but {text}: {}",
                self.guest,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
