"""The same stage on an SR-IOV NIC, inside the emulated machine.

The guests' interfaces are virtual functions under the kernel's own driver; DPDK drives the
switches' functions through VFIO. The NIC's cable leads to a bridge that stands for the adjacent
switch: its port does not carry the VLANs of the tenants' ports, as docs/operate/sriov.md demands of
a real one.
"""

import pathlib
import subprocess
import tempfile
import time

from boot import in_machine
from hosts import ip, run
from sites import ROOT
from world import BRIDGE, EMULATED, OPTIONS, World

MACHINE = pathlib.Path("/run/emulated-machine")
NICS = ("pf0", "pf1")
WIRE = "wire0"
# The VLAN of the uplink functions; the Internet is an untagged port of it.
UNDERLAY = 100

# Reasons of frames that the NIC may drop before the switch counts them: it refuses a source that is
# not the function's own and a tag beside the port's, and passes to the switch's function only its
# own MAC, broadcast, and subscribed groups. QEMU's model also loses what it cannot parse, as a
# header chain that is cut in two.
KEPT_BY_NIC = {"src-mac", "src-mac-group", "vlan-tag", "dst-mac", "link-local-l2", "multicast",
               "ipv6-fragment"}


def boot(arguments):
    """Runs this demo again, in the emulated machine; its exit status."""
    reports = ROOT / "target" / "demo"
    reports.mkdir(parents=True, exist_ok=True)
    return in_machine(["--nics", str(len(NICS)), "--timeout", "1500", "--share", reports],
                      ROOT / "scripts" / "demo.d" / "main.py", *arguments)


class Sriov(World):
    """Two tenants on two physical functions, and the Internet behind their cable."""

    nics = NICS
    pace = EMULATED
    kept_by_nic = frozenset(KEPT_BY_NIC)

    def __init__(self, tenant_files):
        super().__init__(tenant_files)
        OPTIONS.extend(["--nic", "sriov", "--guest", "netns", "--inout-vlan", str(UNDERLAY)])
        for nic in self.nics:
            OPTIONS.extend(["--pf", nic])

    def up(self, say):
        say(f"the adjacent switch: its port {WIRE} carries VLAN {UNDERLAY}, and no other")
        ip("", f"link add {BRIDGE} type bridge "
               "vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0")
        ip("", f"link set {BRIDGE} up")
        ip("", f"link set {WIRE} master {BRIDGE} up")
        run(["bridge", "vlan", "add", "dev", WIRE, "vid", UNDERLAY])
        say("the tenants' files accept that this NIC model does not do the spoof check it reports")
        say("the second host is skipped: it would use veth pairs again")
        with tempfile.TemporaryDirectory() as directory:
            self.tenant_files = [self._accepting(file, pathlib.Path(directory))
                                 for file in self.tenant_files]
            super().up(say)

    @staticmethod
    def _accepting(file, directory):
        """A copy of the tenant's file that accepts the NIC's missing spoof check."""
        text = file.read_text()
        copy = directory / file.name
        nic = '[nic]\naccept = ["spoof-check"]\n\n'
        copy.write_text(text.replace("[gateway]", f"{nic}[gateway]", 1))
        return copy

    def join_underlay(self, link):
        super().join_underlay(link)
        run(["bridge", "vlan", "add", "dev", link, "vid", UNDERLAY, "pvid", "untagged"])

    @staticmethod
    def configure(guest, tenant):
        World.configure(guest, tenant)
        # The counters are to see frames on the wire, not the aggregates that the kernel makes.
        for feature in ("tso", "gso", "gro"):
            guest.run(["ethtool", "-K", guest.interface, feature, "off"], capture_output=True)

    def gateway_of(self, guest):
        """Makes the guest's neighbours permanent: this NIC returns a guest's own broadcasts to it,
        so that its attacks would poison its own cache."""
        gateway = super().gateway_of(guest)
        tenant = next(tenant for tenant in self.all_tenants() if guest in tenant.guests)
        siblings = [other for other in tenant.guests if other is not guest]
        for address in (address for host in (gateway, *siblings)
                        for address in (host.ipv4, host.ipv6)):
            ip(guest.netns, f"neighbour replace {address} lladdr {gateway.mac} nud permanent "
                            f"dev {guest.interface}")
        return gateway

    def all_hosts(self):
        # Only the switch sees frames on its own functions.
        return [host for host in super().all_hosts() if host.interface != "inout"]

    def down(self):
        super().down()
        subprocess.run(["ip", "link", "set", WIRE, "down"], check=False)
        # The kernel removes the last functions a moment later.
        time.sleep(1)
