"""The second host, as far as one kernel allows: a network namespace for its root, with a bridge of
its own, and a mount namespace with its own `/run/netns`. Its provisioner has a state directory of
its own. Control groups and user ids are shared with the first host, so the names and numbers there
differ.

A cable joins the two bridges. The guests' namespaces of this host are also attached on the first
host, under the same names, so that the demo can look at them.
"""

import os
import subprocess

from hosts import ScriptError, ip, read_tenant, run
from world import INSTANCE, PROVISIONER, ROOT_B, SITE_B

# Its switches run on another core than the first host's, where there is one.
OPTIONS_B = [*SITE_B.options(), "--uid-base", "67000", "--cpus", str(max(os.sched_getaffinity(0)))]
# As the tenants' files have it.
UNDERLAY_MTU = 1600

# The end of the cable on this host.
CABLE = f"{SITE_B.instance}-cable"

# Its init runs until it is killed; the path of the options identifies it.
INIT = 'mount -t tmpfs netns /run/netns && echo ready && exec tail -f "$0" >/dev/null'


class HostB:
    """The same tenants on another host."""

    def __init__(self, directory):
        self._directory = directory
        self.tenants = [read_tenant(path, SITE_B)
                        for path in sorted(directory.glob("*.toml"))]
        self._init = None

    def tenant(self, name):
        return next(tenant for tenant in self.tenants if tenant.name == name)

    def up(self, world, say):
        """Builds it, and the cable between the two."""
        say(f"a second host: vf-provisioner apply {self._directory}")
        SITE_B.state_dir.mkdir(mode=0o700)
        options = SITE_B.remember(OPTIONS_B)
        ip("", f"netns add {ROOT_B}")
        ip(ROOT_B, "link set lo up")
        self._init = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{ROOT_B}", "unshare", "--mount", "sh", "-c", INIT,
             str(options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        if self._init.stdout.readline() != "ready\n":
            raise ScriptError("the second host cannot have a /run/netns of its own")
        self.provision("apply", self._directory)
        self._connect(world)
        self.tenants = [tenant.onboarded() for tenant in self.tenants]
        for tenant in self.tenants:
            for host in (*tenant.guests, tenant.uplink):
                self._attach(host.netns)
            for guest in tenant.guests:
                world.configure(guest, tenant)
        pairs = [(guest, far) for tenant in world.tenants for guest in tenant.guests
                 for far in self.tenant(tenant.name).guests]
        world.wait_until_answered([(one, address) for pair in pairs for one,
                                   other in (pair, pair[::-1])
                                   for address in (other.ipv4, other.ipv6)])

    def provision(self, *words):
        """Runs this host's provisioner."""
        run(["nsenter", f"--target={self._init.pid}", "--mount", "--net", PROVISIONER, *OPTIONS_B,
             *words])

    def _attach(self, netns):
        """Attaches one of this host's namespaces on the first host too."""
        there = f"/proc/{self._init.pid}/root/run/netns/{netns}"
        run(["nsenter", f"--net={there}", "sh", "-c", 'exec ip netns attach "$0" $$', netns])

    @staticmethod
    def _connect(world):
        """A cable between the bridges."""
        a = f"{INSTANCE}-cable"
        ip("", f"link add {a} mtu {UNDERLAY_MTU} type veth "
               f"peer name {CABLE} mtu {UNDERLAY_MTU} netns {ROOT_B}")
        world.join_underlay(a)
        ip(ROOT_B, f"link set {CABLE} master {SITE_B.bridge} up")
