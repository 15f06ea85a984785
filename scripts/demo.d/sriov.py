"""The same stage on a real SR-IOV NIC, inside the emulated machine.

The guests' interfaces are virtual functions under the kernel's own driver, the switches' are functions that DPDK drives
through VFIO. The NIC's cable leads to a bridge that stands for the adjacent switch: its port does not carry the VLANs
of the tenants' ports, as docs/sriov.md demands of a real one.
"""

import pathlib
import subprocess
import time

from world import BRIDGE, EMULATED, OPTIONS, ROOT, World, ip

MACHINE = pathlib.Path("/run/emulated-machine")
NICS = ("pf0", "pf1")
WIRE = "wire0"

# Frames that need not reach the switch to be counted there: the NIC refuses a source that is not the function's own and a
# tag beside the port's, and gives the switch's function only what is for its MAC, for everybody, or for a group.
KEPT_BY_NIC = {"src-mac", "src-mac-group", "vlan-tag", "dst-mac", "link-local-l2"}


def boot(arguments):
    """Runs this demo again, in the emulated machine; its exit status."""
    reports = ROOT / "target" / "demo"
    reports.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [ROOT / "scripts" / "vm", "--nics", str(len(NICS)), "--timeout", "1500", "--share", reports, "--env",
         "PYTHONDONTWRITEBYTECODE=1", "--", "/usr/bin/python3", ROOT / "scripts" / "demo.d" / "main.py", *arguments],
        cwd=ROOT, check=False).returncode


class Sriov(World):
    """Two tenants on two physical functions, and the Internet behind their cable."""

    nics = NICS
    pace = EMULATED
    kept_by_nic = frozenset(KEPT_BY_NIC)

    def __init__(self, tenant_files):
        super().__init__(tenant_files)
        OPTIONS.extend(["--nic", "sriov", *(option for nic in self.nics for option in ("--pf", nic)), "--guest", "netns"])

    def up(self, say):
        say(f"the adjacent switch: {WIRE}, which carries no tagged frame")
        ip("", f"link add {BRIDGE} type bridge vlan_filtering 1 mcast_snooping 0")
        ip("", f"link set {BRIDGE} up")
        ip("", f"link set {WIRE} master {BRIDGE} up")
        super().up(say)

    def everybody(self):
        # What a switch's own functions are given, only the switch sees.
        return [host for host in super().everybody() if host.interface != "inout"]

    def down(self):
        super().down()
        subprocess.run(["ip", "link", "set", WIRE, "down"], check=False)
        # The kernel takes the last functions away a moment later.
        time.sleep(1)
