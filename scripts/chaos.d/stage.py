"""The stage: three tenants, an Internet, a supervisor, and what a host has besides: an init system
that starts the supervisor again, and guests that configure an interface that appears.

The state directory is a small file system of its own, so that it can be filled.
"""

import contextlib
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from counting import inside
from files import NAMES, Files
from hosts import Internet, ScriptError, configure, ip, read_tenant, run
from sites import ROOT, Site
from traffic import Traffic

STATE_DIR = pathlib.Path("/run/vf-provisioner-chaos")
FILES = pathlib.Path(f"{STATE_DIR}-files")
SUPERVISE_LOG = FILES / "supervise.log"
# Where that stays.
KEPT_LOG = ROOT / "target" / "chaos" / "supervise.log"
STATE_BYTES = 16 << 20
# What an init system waits before it starts a service again.
START_AGAIN_S = 1
ANSWERS_WITHIN_S = 30
COMMAND_WITHIN_S = 60
# How long a hit tenant may be away, from the end of the disturbance on.
BACK_WITHIN_S = 30
# A VM boots slowly where QEMU translates its instructions: all of these are that many times longer.
VM_PATIENCE = 10
# How often the supervisor looks for drift. Its default is for hosts with many tenants.
VERIFY_EVERY_S = 5
UID_BASE = 68000


class Stage:
    """`up` builds it, `down` leaves nothing of it."""

    def __init__(self, profile, vm):
        self.site = Site("chaos", STATE_DIR, profile)
        # The last tenant's switch may run in a VM.
        self._launchers = {name: "process" for name in NAMES}
        if vm:
            self._launchers[NAMES[-1]] = "vm"
        self._patience = VM_PATIENCE if vm else 1
        self.command_within_s = self._patience * COMMAND_WITHIN_S
        self.back_within_s = self._patience * BACK_WITHIN_S
        self.ours = False
        self.files = self.tenants = self.traffic = None
        self.supervisor = None
        # When the supervisor ended without being asked to: what to report.
        self.unexpected = []
        self._expected_end = False
        self._guests = {}

    # Building and removing

    def up(self, say):
        self.site.take_empty("chaos")
        self.ours = True
        STATE_DIR.mkdir(mode=0o700)
        run(["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES},mode=700", "chaos-state",
             STATE_DIR])
        self.files = Files(FILES, self._launchers)
        self.site.remember(self.options())
        for launcher, directory in self.files.directories():
            say(f"onboarding: vf-provisioner apply --launcher {launcher} {directory}")
            self.provision(*self._apply(launcher, directory))
        self.tenants = [read_tenant(self.files.path(name), self.site) for name in NAMES]
        internet = Internet(self.site)
        internet.connect(self.tenants,
                         lambda link: ip("", f"link set {link} master {self.site.bridge} up"))
        self.attend_guests()
        self.start_supervisor()
        say("waiting until every guest has an answer from the Internet")
        self._wait_for_answers(internet.host)
        self.traffic = Traffic(self.tenants, internet.host)

    def _wait_for_answers(self, internet):
        patience_s = self._patience * ANSWERS_WITHIN_S
        deadline = time.monotonic() + patience_s
        for tenant in self.tenants:
            for guest in tenant.guests:
                for address in (internet.ipv4, internet.ipv6):
                    ping = ["ping", "-q", "-c", "1", "-W", "1", address]
                    while guest.run(ping, capture_output=True).returncode != 0:
                        if time.monotonic() > deadline:
                            raise ScriptError(f"{guest.name} has no answer from {address} after "
                                              f"{patience_s} s\n{self.logs()}")

    def down(self):
        """Takes everything down, whatever state it is in."""
        if self.traffic:
            self.traffic.stop()
        if self.supervisor and self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGCONT)
            self.supervisor.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.supervisor.wait(10)
        if FILES.exists():
            KEPT_LOG.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SUPERVISE_LOG, KEPT_LOG)
        clean(self.site)

    # Commands

    def options(self):
        return [*self.site.options(), "--uid-base", str(UID_BASE)]

    def command(self, *words):
        return [str(word) for word in (self.site.provisioner, *self.options(), *words)]

    def provision(self, *words):
        """Runs a command of the provisioner, which must succeed."""
        done = self.attempt(*words)
        if done.returncode != 0:
            raise ScriptError(f"vf-provisioner {' '.join(map(str, words))} failed with status "
                              f"{done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def status(self, *words):
        """The output of `status`, which also says with its exit status that a switch is down."""
        done = self.attempt("--json", "status", *words)
        return done.stdout if done.returncode == 3 else self.provision("--json", "status", *words)

    def attempt(self, *words):
        """The same; it may fail."""
        command, within_s = self.command(*words), self.command_within_s
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL, timeout=within_s)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no end after {within_s} s")

    @staticmethod
    def _apply(launcher, directory):
        return "--launcher", launcher, "apply", directory

    def apply_of(self, tenant):
        """The words that apply the directory in which the tenant's file is."""
        return self._apply(self._launchers[tenant.name], self.files.directory(tenant.name))

    def repair(self):
        """What an operator does where nothing comes back by itself."""
        for launcher, directory in self.files.directories():
            self.provision(*self._apply(launcher, directory))

    def tenant(self, name):
        return next(tenant for tenant in self.tenants if tenant.name == name)

    def switch_pid(self, tenant):
        """The process of the tenant's switch or VM, as the provisioner has it; None if there is
        none."""
        status, = json.loads(self.status(tenant.name))["tenants"]
        return (status.get("switch") or {}).get("pid")

    # The host's objects

    def bridge_port(self, tenant):
        """The interface of the tenant's In/Out port on the bridge."""
        for link in json.loads(run(["ip", "-json", "link"])):
            if link.get("ifalias") == f"{tenant.name} In/Out":
                return link["ifname"]
        raise ScriptError(f"{tenant.name} has no In/Out port")

    def _groups(self, name=""):
        """The control groups of a tenant, or all of ours, the innermost first."""
        tops = pathlib.Path("/sys/fs/cgroup").rglob(self.site.instance)
        groups = [group for top in tops for group in (top / name).rglob("*") if group.is_dir()]
        groups += [top / name for top in pathlib.Path("/sys/fs/cgroup").rglob(self.site.instance)]
        return sorted({group for group in groups if group.exists()}, reverse=True)

    def delete_groups(self, name=""):
        """Removes control groups, as soon as their processes have ended."""
        deadline = time.monotonic() + self.command_within_s
        while groups := self._groups(name):
            for group in groups:
                with contextlib.suppress(OSError):
                    group.rmdir()
            if time.monotonic() > deadline:
                raise ScriptError(f"{groups[0]} cannot be removed")

    def limit_group(self, tenant):
        """Gives a tenant's switch fewer tasks than it was given."""
        for group in self._groups(tenant.name):
            with contextlib.suppress(OSError):
                (group / "pids.max").write_text("63")

    # The init system

    def start_supervisor(self):
        with SUPERVISE_LOG.open("a") as log:
            self.supervisor = subprocess.Popen(
                self.command("supervise", "--verify-every", VERIFY_EVERY_S),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Ctrl-C ends the run, and the run ends the supervisor.
                start_new_session=True)

    def kill_supervisor(self):
        self.supervisor.kill()
        self.supervisor.wait()

    def attend(self):
        """What the host does by itself: an ended supervisor is started again, the wire is put back
        on the bridge, and guests configure new interfaces."""
        status = self.supervisor.poll()
        if status is not None:
            self.unexpected.append(f"the supervisor ended by itself, with status {status}")
            time.sleep(START_AGAIN_S)
            self.start_supervisor()
        self._attend_wire()
        self.attend_guests()

    def _attend_wire(self):
        """It was taken off with the bridge. The bridge may not be there yet."""
        wire = pathlib.Path("/sys/class/net") / self.site.internet_link
        if not (wire / "master").exists():
            with contextlib.suppress(ScriptError):
                ip("", f"link set {self.site.internet_link} master {self.site.bridge} up")

    def attend_guests(self):
        for tenant in self.tenants:
            for guest in tenant.guests:
                try:
                    with inside(guest.netns):
                        index = socket.if_nametoindex("eth0")
                except OSError:
                    continue  # it is gone
                if self._guests.get(guest.netns) != index:
                    # It may go away once more.
                    with contextlib.suppress(ScriptError):
                        configure(guest, tenant)
                        self._guests[guest.netns] = index

    def logs(self):
        """The last lines of every log."""
        logs = [*STATE_DIR.glob("tenants/*/log"), SUPERVISE_LOG]
        return "\n".join(f"{log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                         for log in logs if log.exists())


def clean(site):
    """Removes what a run has left."""
    site.clean()
    shutil.rmtree(FILES, ignore_errors=True)
