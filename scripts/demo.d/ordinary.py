"""Ordinary guests: a third tenant, examples/guests/green.toml, whose guests run what images run.
One asks for its address by DHCP; one is a cloud image as far as cloud-init goes; two are a pair of
keepalived, of which one has the shared addresses at a time. Then the one that has them loses its
link.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import time

from hosts import ScriptError, ip
from sites import ROOT
from world import OPTIONS, PROVISIONER, SITE

TENANT = ROOT / "examples" / "guests" / "green.toml"
APP, CLOUD, PAIR = "green-app", "green-cloud", ("green-lb1", "green-lb2")
LEASED, SHARED = "10.3.0.11", ("10.3.0.100", "fd00:0:0:3::100")
# What VRRP takes to notice that a master is silent (RFC 5798, 6.1): three of its intervals of a
# second, and the longer the lower the priority is.
PRIORITIES = (150, 140)
NOTICED_AFTER_S = 3 + (256 - PRIORITIES[1]) / 256
# What the switch may add to it.
ADDED_S = 1
# Between two pings.
PAUSE_S = 0.02

# What the cloud image must find: its files of that name end so.
CLOUD_FINDS = {"hostname": "cloud", "keys": "me@example", "wrote": "by user data"}
# Where scripts/setup has unpacked cloud-init.
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CLOUD_INIT = CACHE / "vswitch-cloud-init" / "root"

# What a DHCP client calls; the names of its variables are udhcpc's.
LEASE_SCRIPT = """#!/bin/sh
case $1 in
    bound)
        ip address replace "$ip/$mask" dev "$interface"
        ip route replace default via "$router"
        echo "$ip $router $dns $domain $hostname"
        ;;
esac
"""


@dataclasses.dataclass
class Ordinary:
    """The outcome. The report has these names."""

    # What the guest was told, and how long it took; empty if it was told nothing.
    lease: list = dataclasses.field(default_factory=list)
    leased_after_s: float | None = None
    # What the cloud image found out of what it must.
    cloud: dict = dataclasses.field(default_factory=dict)
    # The longest time without an answer from each shared address, over the failover; None if the
    # address did not come back.
    silence_s: dict = dataclasses.field(default_factory=dict)
    # Who has the shared addresses in the end.
    held_by: list = dataclasses.field(default_factory=list)

    @property
    def failures(self):
        wanted = [LEASED, "10.3.0.1", LEASED, "green.example", "app"]
        if self.lease != wanted:
            yield f"DHCP: {APP} was told {self.lease}, not {wanted}"
        for name, ending in CLOUD_FINDS.items():
            if not self.cloud.get(name, "").endswith(ending):
                yield f"cloud-init: {name} is {self.cloud.get(name, '')!r}, not …{ending!r}"
        if self.held_by != [PAIR[1]]:
            yield f"keepalived: the shared addresses are at {self.held_by or 'nobody'}"
        for address in SHARED:
            silence = self.silence_s.get(address)
            if silence is None or silence > NOTICED_AFTER_S + ADDED_S:
                yield f"keepalived: {address} was without an answer for {silence} s"

    def summary(self):
        silences = ", ".join(f"{address} {silence} s" for address, silence
                             in self.silence_s.items())
        return (f"Ordinary guests: {APP} has {' '.join(self.lease[:1])} by DHCP after "
                f"{self.leased_after_s} s;\n"
                f"cloud-init in {CLOUD} found its name ({self.cloud.get('hostname')}), SSH key and "
                "user data;\n"
                f"keepalived's addresses moved to {' and '.join(self.held_by)}, without an answer "
                f"for: {silences}\n(VRRP itself takes up to {NOTICED_AFTER_S:.2f} s to notice)")

    def as_dict(self):
        return dataclasses.asdict(self)


def why_not(world):
    """Why this world cannot show them; None if it can."""
    if not world.second:
        return "the NIC's functions are those of the two tenants"
    if "vm" in OPTIONS:
        return "they are shown with switches that are processes"
    return None


def netns(guest):
    return f"{SITE.instance}-{guest}"


def inside(guest, command, **options):
    return subprocess.Popen(["ip", "netns", "exec", netns(guest), *command],
                            stdin=subprocess.DEVNULL, **options)


def lease(ordinary):
    """Asks for an address as an image does."""
    script = SITE.state_dir / "lease.sh"
    script.write_text(LEASE_SCRIPT)
    script.chmod(0o700)
    ip(netns(APP), "link set eth0 up")
    began = time.monotonic()
    client = inside(APP, ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-s", script],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told, _ = client.communicate()
    ordinary.leased_after_s = round(time.monotonic() - began, 2)
    ordinary.lease = told.split()


def boot_cloud_image(ordinary):
    """Runs cloud-init in the guest, and takes in what it came to."""
    directory = SITE.state_dir / "boot"
    directory.mkdir()
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "env", "-i",
               f"PATH={os.environ['PATH']}", "sh", ROOT / "scripts" / "lib" / "boot-cloud-image",
               directory, CLOUD_INIT, "Ec2"]
    with (SITE.state_dir / "boot.log").open("w") as log:
        inside(CLOUD, command, stdout=log, stderr=log).wait()
    for name in CLOUD_FINDS:
        file = directory / name
        ordinary.cloud[name] = file.read_text().strip() if file.exists() else ""


def keepalived(guest, priority):
    """Starts keepalived in its default way, but that it has only what is given here."""
    instances = "".join(
        f"vrrp_instance {name} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n"
        f"  priority {priority}\n  advert_int 1\n  {version}\n"
        f"  virtual_ipaddress {{\n    {address}\n  }}\n}}\n"
        for name, version, address in (("V4", "version 2", f"{SHARED[0]}/24"),
                                       ("V6", "version 3", f"{SHARED[1]}/64")))
    config = SITE.state_dir / f"{guest}.conf"
    config.write_text(f"global_defs {{\n  script_user root\n}}\n{instances}")
    log = (SITE.state_dir / f"{guest}.log").open("w")
    files = [f"--{kind}={SITE.state_dir / guest}.{kind}" for kind in ("pid", "vrrp_pid")]
    return inside(guest, ["keepalived", "--dont-fork", "--vrrp", "--log-console",
                          f"--use-file={config}", *files], stdout=log, stderr=log)


def holders():
    """The guests that have all shared addresses."""
    def has_all(guest):
        shown = ip(netns(guest), "-o address show")
        return all(f" {address}/" in shown for address in SHARED)
    return [guest for guest in PAIR if has_all(guest)]


def wait_until_held_by(guest, patience_s):
    deadline = time.monotonic() + patience_s
    while holders() != [guest]:
        if time.monotonic() > deadline:
            raise ScriptError(f"{guest} does not get {' and '.join(SHARED)}: see "
                              f"{SITE.state_dir}/{guest}.log")
        time.sleep(0.05)


class Ping:
    """Pings that run, and which of them are answered: by their numbers, since the machine's clock
    may be set meanwhile."""

    def __init__(self, address, started):
        self._log = SITE.state_dir / f"ping-{address}"
        self._began = time.monotonic()
        with self._log.open("w") as output:
            started(inside(APP, ["ping", "-n", f"-i{PAUSE_S}", address], stdout=output))

    def answered(self):
        """The numbers of the pings that were answered so far; the first is 1."""
        answers = re.findall(r" bytes from .* icmp_seq=(\d+) .*\n", self._log.read_text())
        return [int(number) for number in answers]

    def longest_silence(self, since):
        """The longest time between two answers, of which the later is to a ping after that number;
        None if none is."""
        numbers = self.answered()
        took_s = time.monotonic() - self._began
        gaps = [later - earlier for earlier, later in zip(numbers, numbers[1:]) if later > since]
        return round(max(gaps) * took_s / numbers[-1], 2) if gaps else None


def fail_over(ordinary, patience_s):
    """Cuts the master's link off while the application talks to both addresses."""
    with contextlib.ExitStack() as stack:
        def started(process):
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        for guest, priority in zip(PAIR, PRIORITIES, strict=True):
            started(keepalived(guest, priority))
        wait_until_held_by(PAIR[0], patience_s)
        pings = {address: Ping(address, started) for address in SHARED}
        time.sleep(1)
        cut = {address: max(ping.answered(), default=0) for address, ping in pings.items()}
        ip(netns(PAIR[0]), "link set eth0 down")
        wait_until_held_by(PAIR[1], patience_s)
        time.sleep(0.5)
        late = {address: len(ping.answered()) for address, ping in pings.items()}
        time.sleep(1)
        ordinary.held_by = holders()
        ordinary.silence_s = {
            address: ping.longest_silence(cut[address])
            if len(ping.answered()) > late[address] else None  # silent for the last second
            for address, ping in pings.items()}


def show_ordinary(ordinary, pace, say):
    """All steps with ordinary guests, in order."""
    say(f"onboarding green: scripts/onboard-tenant {TENANT}")
    onboard = [ROOT / "scripts" / "onboard-tenant", *OPTIONS, TENANT]
    done = subprocess.run(onboard, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ScriptError(f"green is not onboarded: {done.stderr.strip()}")
    for guest, addresses in zip(PAIR, (("10.3.0.21/24", "fd00:0:0:3::21/64"),
                                       ("10.3.0.22/24", "fd00:0:0:3::22/64")), strict=True):
        ip(netns(guest), "link set eth0 up")
        for address in addresses:
            ip(netns(guest), f"address replace {address} dev eth0")
    lease(ordinary)
    say(f"  {APP} asks by DHCP: {' '.join(ordinary.lease) or 'no answer'}")
    ip(netns(APP), "address replace fd00:0:0:3::11/64 dev eth0")
    boot_cloud_image(ordinary)
    say(f"  {CLOUD} boots with cloud-init: it is {ordinary.cloud.get('hostname') or 'nobody'}")
    say(f"  keepalived at {PAIR[0]} and {PAIR[1]}; {PAIR[0]} then loses its link")
    fail_over(ordinary, pace.patience_s)
    say(f"  without an answer for: {ordinary.silence_s}, now at {ordinary.held_by}")
