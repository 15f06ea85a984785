"""One instance of the provisioner on this machine, and every trace that it can leave."""

import dataclasses
import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from hosts import ScriptError, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The sites that this process has taken, each with the socket that has its name.
TAKEN = {}


@dataclasses.dataclass(frozen=True)
class Site:
    """What a script has made has the instance's name in it, or is below the state directory."""

    # The prefix of the names of interfaces, control groups and namespaces.
    instance: str
    state_dir: pathlib.Path
    # The build of the two programs: release or debug.
    profile: str = "release"
    # The commands with which another host's provisioner is run, if it is one.
    inside: tuple = ()
    # Sites of other hosts, whose state directories are below this one's.
    others: tuple = ()

    @property
    def binaries(self):
        return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / self.profile

    @property
    def vswitch(self):
        return self.binaries / "vswitch"

    @property
    def provisioner(self):
        return self.binaries / "vf-provisioner"

    @property
    def bridge(self):
        return f"{self.instance}-br0"

    @property
    def internet_link(self):
        return f"{self.instance}-inet"

    def options(self):
        """The provisioner's options, for this instance."""
        return ["--instance", self.instance, "--state-dir", str(self.state_dir)]

    def remember(self, options):
        """Writes down the provisioner's options, for a later `clean`, which has no other way to
        know them; the file."""
        file = self.state_dir / "options.json"
        file.write_text(json.dumps(options))
        return file

    def namespaces(self):
        """The namespaces that have our name."""
        listed = json.loads(run(["ip", "-json", "netns", "list"]) or "[]")
        prefixes = tuple(f"{site.instance}-" for site in (self, *self.others))
        return [netns["name"] for netns in listed if netns["name"].startswith(prefixes)]

    def take(self, script):
        """Makes this process the only one that builds or cleans this site, as long as it runs. The
        name of a socket says so: no file has to be removed, and no other process can have the
        number of one that was killed."""
        if self.instance in TAKEN:
            return
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            name.bind(f"\0vf-provisioner-site-{self.instance}")
        except OSError as error:
            name.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise ScriptError(f"another scripts/{script} is under way on this machine: wait for "
                              "its end, or interrupt it") from error
        TAKEN[self.instance] = name

    def leave(self):
        """Takes back what `take` did."""
        if name := TAKEN.pop(self.instance, None):
            name.close()

    def take_empty(self, script):
        """The same, for who builds it: nothing of an earlier run may be there."""
        self.take(script)
        left = [self.state_dir] if self.state_dir.exists() else []
        left += self.namespaces()
        if left:
            self.leave()
            raise ScriptError(f"{left[0]} is there: a killed or kept {script} has left it. "
                              f"Clean up with: scripts/{script} --clean")

    def processes(self):
        """Its processes: those in its namespaces, and those that name its state directory."""
        found = inhabitants(self.namespaces())
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended meanwhile
            if any(word.startswith(os.fsencode(self.state_dir)) for word in words):
                found.add(int(path.parent.name))
        return found - {os.getpid()}

    def clean(self):
        """Removes everything that has our name. Who calls it has taken the site."""
        if self.instance not in TAKEN:
            raise ScriptError(f"site {self.instance} is not ours to clean")
        if self.state_dir.exists() and self.provisioner.exists():
            # The supervisor first: it would start the switches again.
            for pid in self.processes():
                command = pathlib.Path(f"/proc/{pid}/cmdline")
                if command.exists() and b"supervise" in command.read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGTERM)
                    # A stopped one takes no signal before it goes on.
                    os.kill(pid, signal.SIGCONT)
                    wait_for_end(pid)
            # The guests' processes: they would outlive the names of their namespaces.
            end(inhabitants(name for name in self.namespaces() if "-sw-" not in name))
            for site in (*self.others, self):
                if (options := site.state_dir / "options.json").exists():
                    subprocess.run([*site.inside, self.provisioner,
                                    *json.loads(options.read_text()), "release", "--all"],
                                   capture_output=True, check=False)
        end(self.processes())
        # Interfaces are deleted with their namespace, a moment later: one may be gone already.
        for kind, names in (("netns", self.namespaces()),
                            ("link", (self.internet_link, self.bridge))):
            for name in names:
                subprocess.run(["ip", kind, "delete", name], capture_output=True, check=False)
        if self.state_dir.is_mount():
            subprocess.run(["umount", "--lazy", self.state_dir], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.state_dir)], check=False)

    def traces(self):
        """Everything on this machine that the site could leave, to compare before and after."""
        tables = json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]
        groups = [str(path) for path in pathlib.Path("/sys/fs/cgroup").rglob(f"{self.instance}*")
                  if path.is_dir()]
        mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
                  if str(self.state_dir) in line or f"/run/netns/{self.instance}" in line]
        links = os.listdir("/sys/class/net")
        return {
            "namespaces": sorted(self.namespaces()),
            "interfaces": sorted(link for link in links if link.startswith(self.instance)),
            "nftables tables": sorted(table["table"]["name"] for table in tables
                                      if "table" in table
                                      and table["table"]["name"].startswith(self.instance)),
            "control groups": sorted(groups),
            "mounts": sorted(mounts),
            "processes": sorted(self.processes()),
            "files": [str(self.state_dir)] if self.state_dir.exists() else [],
            "VFs": virtual_functions(),
            "hugepages": pathlib.Path("/proc/sys/vm/nr_hugepages").read_text().split(),
        }

    def left_behind(self, before):
        """What exists now and did not before: {kind: [names]}. The kernel takes a moment to remove
        namespaces."""
        deadline = time.monotonic() + 5
        while True:
            left = {kind: sorted(set(now) - set(before[kind]))
                    for kind, now in self.traces().items()}
            left = {kind: names for kind, names in left.items() if names}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


def inhabitants(names):
    """The processes in these namespaces."""
    return {int(pid) for netns in names for pid in run(["ip", "netns", "pids", netns]).split()}


def virtual_functions():
    """The settings of every SR-IOV NIC."""
    settings = []
    for device in pathlib.Path("/sys/class/net").glob("*/device"):
        for name in ("sriov_numvfs", "sriov_drivers_autoprobe"):
            if (device / name).exists():
                value = (device / name).read_text().strip()
                settings.append(f"{device.parent.name} {name} {value}")
    return sorted(settings)


def end(pids):
    """Kills these processes."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
        except ProcessLookupError:
            pass


def wait_for_end(pid):
    deadline = time.monotonic() + 5
    while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        time.sleep(0.02)
