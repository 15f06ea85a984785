"""Installs the packages in a fresh Debian 12, and compares what is there after each step of their
life."""

import json
import os
import re
import shutil
import time

from building import ROOT, Failure, output_of
from machine import Machine, wait_for

TENANTS = "etc/vf-provisioner/tenants"
# Of the tenant with an encrypted tunnel, as its file names it.
SECRETS = "etc/mts"
OPTIONS = "etc/vf-provisioner/config.toml"
BROKEN = 'name = "broken"\nvni = "many"\n'
SUPERVISOR, AT_BOOT = "vf-provisioner.service", "vf-provisioner-tenants.service"
# Of 10, as systemd-analyze counts; docs/operate/install.md says why it cannot be less.
EXPOSURE_MAX = 6.1
# What a machine changes by itself.
VOLATILE = re.compile(r"(dev|proc|root|run|sys|tmp|var/cache|var/log|var/tmp|var/lib/dpkg"
                      r"|var/lib/systemd/(timers|timesync|random-seed|catalog|linger)"
                      r"|etc/(ld\.so\.cache|machine-id|resolv\.conf|\.pwd\.lock))(/|$)")


class Trial:
    """The packages of one version, and the same of the next."""

    def __init__(self, directory, debs, newer):
        self._directory, self._debs, self._newer = directory, debs, newer
        self._started = time.monotonic()
        self._machine = self._options = None

    def run(self):
        with Machine(self._directory, depends(self._debs)) as self._machine:
            for name, debs in (("now", self._debs), ("next", self._newer)):
                (self._machine.tree / "root" / name).mkdir()
                for deb in debs:
                    shutil.copy(deb, self._machine.tree / "root" / name)
            self._machine.boot()
            fresh, files = self.host(), self.files()
            self.step("installed: the supervisor runs, and nothing failed", self.install)
            self.step("booted with an invalid file: the other tenants are up", self.first_boot)
            self.step("the supervisor does its work within its limits", self.faults)
            self.step("a killed IKE daemon is back, as another user than the switch", self.ike)
            self.step("booted again: the same", self.second_boot)
            self.step("upgraded: no frame lost, no switch restarted", self.upgrade)
            self.step("removed: nothing is left but the configuration",
                      lambda: self.remove(fresh))
            self.step("installed again: the tenants are up", self.install_again)
            self.step("purged: as before the first installation",
                      lambda: self.purge(fresh, files))

    def step(self, what, work):
        try:
            work()
        except Failure as failure:
            raise Failure(f"{what}: {failure}\n{self.last_words()}") from failure
        print(f"ok  {time.monotonic() - self._started:5.1f} s  {what}", flush=True)

    def last_words(self):
        done = self._machine.run("journalctl", "--no-pager", "--boot", "--lines=40",
                                 f"--unit={AT_BOOT}", f"--unit={SUPERVISOR}", check=False)
        return done.stdout + self._machine.run("systemctl", "list-units", "--failed",
                                               check=False).stdout

    # What is looked at.

    def host(self):
        """What the provisioner could leave: links, namespaces, tables, users' processes."""
        look = self._machine.run
        processes = look("ps", "-eo", "uid=,comm=").stdout.splitlines()
        cgroups = look("find", "/sys/fs/cgroup", "-name", "mts").stdout
        return {
            "links": sorted(line.split()[0] for line in look("ip", "-br", "link").stdout
                            .splitlines()),
            "namespaces": look("ip", "netns", "list").stdout,
            "tables": look("nft", "list", "tables").stdout if self.has("nft") else "",
            "control groups": cgroups,
            "users": look("getent", "passwd").stdout + look("getent", "group").stdout,
            "switches": [line for line in processes if int(line.split()[0]) >= 65536],
            "failed units": self.failed_units(),
        }

    def has(self, program):
        return self._machine.run("which", program, check=False).returncode == 0

    def files(self):
        """Every file that is not the machine's own business."""
        tree, found = self._machine.tree, set()
        for directory, below, names in os.walk(tree):
            path = os.path.relpath(directory, tree)
            below[:] = [name for name in below
                        if not VOLATILE.match(os.path.normpath(os.path.join(path, name)))]
            found.update(os.path.normpath(os.path.join(path, name)) for name in below + names)
        return {file for file in found if not VOLATILE.match(file)}

    def failed_units(self):
        lines = self._machine.run("systemctl", "list-units", "--failed", "--plain",
                                  "--no-legend").stdout.splitlines()
        return [line.split()[0] for line in lines]

    def switches(self):
        """{tenant: (state, process)}."""
        done = self._machine.run("vf-provisioner", "--json", "status", check=False)
        tenants = json.loads(done.stdout)["tenants"]
        return {tenant["tenant"]: (tenant["state"], (tenant["switch"] or {}).get("pid"))
                for tenant in tenants}

    def are_up(self):
        found = self.switches()
        up = {name for name, (state, _) in found.items() if state == "up"}
        return found if up == set(found) == {"blue", "red"} else None

    def is_as_set(self):
        """All is as it was set, and red's peer, which is not there, has no association: 3."""
        return self._machine.run("vf-provisioner", "--cpu-limit", "90", "verify",
                                 check=False).returncode == 3

    def daemons(self):
        """{process: user} of the IKE daemons."""
        lines = self._machine.run("ps", "-C", "vswitch-charon", "-o", "pid=,uid=",
                                  check=False).stdout.splitlines()
        return {int(process): int(user) for process, user in map(str.split, lines)}

    def supervisor(self):
        return self._machine.run("systemctl", "show", "--property=MainPID", "--value",
                                 SUPERVISOR).stdout.strip()

    def same(self, what, found, wanted):
        if isinstance(found, dict):
            keys = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
            found, wanted = ({key: side.get(key) for key in keys} for side in (found, wanted))
        if found != wanted:
            raise Failure(f"{what}: found {found}, wanted {wanted}")

    # The steps.

    def dpkg(self, *words):
        return self._machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words)

    def install_all(self, which):
        debs = sorted((self._machine.tree / "root" / which).glob("*.deb"))
        return self.dpkg("-i", *[f"/root/{which}/{deb.name}" for deb in debs])

    def install(self):
        self.install_all("now")
        self.same("failed units", self.failed_units(), [])
        state = self._machine.run("systemctl", "is-active", SUPERVISOR).stdout.strip()
        self.same(SUPERVISOR, state, "active")
        self._machine.run("vf-provisioner", "check")
        exposure = self._machine.run("systemd-analyze", "security", "--no-pager", SUPERVISOR)
        exposure = float(re.search(r"exposure level .*: ([0-9.]+)", exposure.stdout)[1])
        if exposure > EXPOSURE_MAX:
            raise Failure(f"systemd-analyze: exposure {exposure}, at most {EXPOSURE_MAX}")
        (self._machine.tree / SECRETS / "ipsec").mkdir(mode=0o700, parents=True)
        self._machine.run("vf-provisioner", "ipsec", "keygen", "psk", f"/{SECRETS}/ipsec/red.psk")
        for file in ("ipsec/red", "blue"):
            shutil.copy(ROOT / f"examples/{file}.toml", self._machine.tree / TENANTS)
        (self._machine.tree / TENANTS / "broken.toml").write_text(BROKEN)
        with (self._machine.tree / OPTIONS).open("a") as options:
            options.write("cpu-limit = 90\n")
        self._options = (self._machine.tree / OPTIONS).read_text()

    def first_boot(self):
        self._machine.reboot()
        self.tenants_are_there_in_spite_of_the_invalid_file()

    def second_boot(self):
        self._machine.reboot()
        self.tenants_are_there_in_spite_of_the_invalid_file()

    def tenants_are_there_in_spite_of_the_invalid_file(self):
        wait_for("the tenants' switches", self.are_up)
        self.same("failed units", self.failed_units(), [AT_BOOT])
        said = self._machine.run("journalctl", "--no-pager", "--boot", f"--unit={AT_BOOT}").stdout
        if "tenants/broken.toml:2:" not in said:
            raise Failure(f"the journal does not name the invalid file:\n{said}")
        self.addresses()
        self._machine.run("ip", "netns", "exec", "red-vm1", "ping", "-c1", "-W5", "10.0.0.1")
        wait_for("a good verification", self.is_as_set)

    def addresses(self):
        self._machine.run("ip", "-n", "red-vm1", "address", "replace", "10.0.0.11/24", "dev",
                          "eth0")

    def faults(self):
        before = self.switches()["red"][1]
        self._machine.run("kill", "-KILL", str(before))
        wait_for("red's switch", lambda: (self.are_up() or {"red": (0, before)})["red"][1]
                 != before)
        self._machine.run("nft", "flush", "ruleset")
        wait_for("the port locks", self.is_as_set)

    def ike(self):
        (daemon, user), = self.daemons().items()
        switch = self.switches()["red"][1]
        switch_user = int(self._machine.run("ps", "-p", str(switch), "-o", "uid=").stdout)
        if user == switch_user or user < 65536:
            raise Failure(f"its user is {user}, the switch's {switch_user}")
        self._machine.run("kill", "-KILL", str(daemon))
        wait_for("red's IKE daemon", lambda: set(self.daemons()) - {daemon})
        wait_for("a good verification", self.is_as_set)
        self.same("red's switch", self.switches()["red"][1], switch)

    def upgrade(self):
        self.addresses()
        before, supervisor = self.switches(), self.supervisor()
        daemons = self.daemons()
        ping = self._machine.start("ip", "netns", "exec", "red-vm1", "ping", "-q", "-i0.2", "-W5",
                                   "10.0.0.1")
        self.install_all("next")
        wait_for("the tenants' switches", self.are_up)
        wait_for("a good verification", self.is_as_set)
        self._machine.run("pkill", "-INT", "ping")
        said = ping.communicate(timeout=30)[0]
        if " 0% packet loss" not in said:
            raise Failure(f"frames were lost during the upgrade:\n{said}")
        self.same("switches", self.switches(), before)
        self.same("IKE daemons", self.daemons(), daemons)
        if self.supervisor() in (supervisor, "0"):
            raise Failure("the supervisor was not restarted")
        (self._machine.tree / TENANTS / "broken.toml").unlink()

    def remove(self, fresh):
        self.dpkg("-r", *names(self._debs))
        found = self.host()
        self.same("the host", found, fresh)
        kept = sorted(file.name for file in (self._machine.tree / TENANTS).iterdir())
        self.same("kept", kept, ["blue.toml", "red.toml"])
        self.same(OPTIONS, (self._machine.tree / OPTIONS).read_text(), self._options)
        if any(map(self.has, ("vf-provisioner", "vswitch", "vswitch-charon"))):
            raise Failure("a program is left")

    def install_again(self):
        self.install_all("next")
        wait_for("the tenants' switches", self.are_up)
        self.same("failed units", self.failed_units(), [])

    def purge(self, fresh, files):
        self.dpkg("-P", *names(self._debs))
        shutil.rmtree(self._machine.tree / SECRETS)
        self.same("the host", self.host(), fresh)
        left = self._machine.run("ls", "/run").stdout.split()
        if "vf-provisioner" in left:
            raise Failure("/run/vf-provisioner is left")
        found = self.files()
        self.same("files", (sorted(found - files), sorted(files - found)), ([], []))


def names(debs):
    """The packages in an order in which none is removed before what needs it."""
    return sorted(deb.name.split("_")[0] for deb in debs)


def depends(debs):
    """What the packages need of Debian."""
    needed = set()
    for deb in debs:
        fields = output_of(["dpkg-deb", "--field", deb, "Depends"])
        needed.update(re.findall(r"(?:^|,\s*)([a-z0-9.+-]+)", fields))
    return needed - set(names(debs))
