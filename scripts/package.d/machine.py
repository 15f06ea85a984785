"""A Debian 12 with systemd, in a container of systemd-nspawn without the host's network."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from building import Failure, log

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE /= "vswitch-package-trial"
# What boots, and what looks at it. What the packages depend on comes from their control files.
BASE = ("systemd", "systemd-sysv", "dbus", "procps", "iputils-ping")
BOOT_S = 120
COMMAND_S = 60

# systemd-nspawn gives version 1 control groups to its machine read-only.
WRITABLE_CGROUPS = """\
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for it in /sys/fs/cgroup/*; do mount -o remount,bind,rw $it; done; true'
[Install]
WantedBy=sysinit.target
"""


def archive(packages):
    """The archive of a fresh Debian 12 with these packages, which is kept for the next time."""
    packages = sorted({*BASE, *packages})
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    file = CACHE / f"bookworm-{key}.tar"
    if not file.exists():
        log(f"unpacking a Debian 12 for the test (once, to {CACHE})")
        CACHE.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.stem}.{os.getpid()}.new.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}",
                   "--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm", new]
        if subprocess.run(command, check=False, timeout=900).returncode != 0:
            new.unlink(missing_ok=True)
            raise Failure("mmdebstrap failed, see the lines above")
        new.rename(file)
    return file


# Enters these control groups before it becomes another program.
JOIN = '''
until [ "$1" = -- ]; do echo $$ >"$1/cgroup.procs"; shift; done
shift
exec "$@"
'''


def make_control_groups(name):
    """A control group of this name in every hierarchy, so that the machine's are not mixed with the
    host's. Their directories."""
    groups = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind not in ("cgroup", "cgroup2"):
            continue
        group = pathlib.Path(mount) / name
        group.mkdir(exist_ok=True)
        for value in ("cpuset.cpus", "cpuset.mems"):
            if (group / value).exists() and not (group / value).read_text().strip():
                with contextlib.suppress(OSError):
                    (group / value).write_text((group.parent / value).read_text())
        groups.append(group)
    return groups


def remove_control_groups(groups):
    """Removes them with everything below; what still runs in them is killed."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            for pid in (pathlib.Path(directory) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            wait_for(f"the end of {directory}", lambda at=directory: is_removed(at), 10)


def is_removed(group):
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Machine:
    """A machine in a directory of its own, which is removed at the end."""

    def __init__(self, directory, packages):
        self.tree = directory / "tree"
        self._console = directory / "console.log"
        shutil.rmtree(directory, ignore_errors=True)
        self.tree.mkdir(parents=True)
        subprocess.run(["tar", "-C", self.tree, "-xf", archive(packages)], check=True)
        units = self.tree / "etc/systemd/system"
        (units / "writable-cgroups.service").write_text(WRITABLE_CGROUPS)
        wants = units / "sysinit.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "writable-cgroups.service").symlink_to("../writable-cgroups.service")
        (self.tree / "etc/hostname").write_text("trial\n")
        self._nspawn = self._leader = None
        self._cgroups = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.tree, ignore_errors=True)

    def boot(self):
        """Boots it, and waits until systemd has started everything."""
        self._cgroups = make_control_groups(f"vswitch-trial-{os.getpid()}")
        command = ["sh", "-c", JOIN, "sh", *self._cgroups, "--",
                   "systemd-nspawn", "--quiet", f"--directory={self.tree}",
                   f"--machine=vswitch-trial-{os.getpid()}", "--register=no", "--keep-unit",
                   "--private-network", "--capability=all", "--system-call-filter=bpf",
                   "--console=pipe", "--boot"]
        environment = dict(os.environ, SYSTEMD_NSPAWN_API_VFS_WRITABLE="network")
        with self._console.open("a") as console:
            self._nspawn = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=console, stderr=console,
                                            start_new_session=True)
        self._leader = wait_for("the machine's first process", self._find_leader)
        wait_for("the end of the boot", self._is_booted, BOOT_S)

    def _find_leader(self):
        if self._nspawn.poll() is not None:
            raise Failure(f"systemd-nspawn ended: {self._console.read_text()}")
        children = pathlib.Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return pid
        return None

    def _is_booted(self):
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def run(self, *command, check=True):
        """Runs a command in the machine."""
        try:
            done = subprocess.run(
                ["nsenter", f"--target={self._leader}", "--all", "--", *command], check=False,
                capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=COMMAND_S)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{late}: {late.stdout}{late.stderr}") from late
        if check and done.returncode != 0:
            words = " ".join(map(str, command))
            raise Failure(f"`{words}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command):
        """Starts a command in the machine."""
        return subprocess.Popen(
            ["nsenter", f"--target={self._leader}", "--all", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stop(self):
        """Shuts it down, or kills it."""
        if self._nspawn is None:
            return
        with contextlib.suppress(Failure, subprocess.TimeoutExpired):
            self.run("systemctl", "--no-block", "poweroff", check=False)
            self._nspawn.wait(60)
        if self._nspawn.poll() is None:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None
        # A boot begins without them.
        remove_control_groups(self._cgroups)

    def reboot(self):
        self.stop()
        self.boot()


def wait_for(what, condition, seconds=60):
    """What the condition returns, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return found
