"""The stage: its hosts, and how it is built and taken down.

A guest stands for a VM: a network namespace with one interface, `eth0`, which is configured as the
VM's own init would. `scripts/onboard-tenant` makes everything behind that interface. The Internet
is one more namespace, on the underlay's bridge; it has a route to every tenant but forwards nothing
between them.
"""

import dataclasses
import json
import pathlib
import subprocess
import time

from hosts import Host, Internet, ScriptError, configure, ip, read_tenant, run
from sites import ROOT, Site

STATE_DIR = pathlib.Path("/run/vf-provisioner-demo")
# The second host's root network namespace, which has its bridge, and its provisioner's state.
ROOT_B = "demob-root"
SITE_B = Site("demob", STATE_DIR / "host-b", inside=("nsenter", f"--net=/run/netns/{ROOT_B}"))
SITE = Site("demo", STATE_DIR, others=(SITE_B,))
INSTANCE, BRIDGE, PROVISIONER = SITE.instance, SITE.bridge, SITE.provisioner
OPTIONS = SITE.options()


@dataclasses.dataclass(frozen=True)
class Pace:
    """Rates that a machine carries without losing a frame."""

    # Of a flow that runs beside others, and of a short one alone.
    frames_per_second: int
    burst_per_second: int
    pings_per_second: int
    tcp_bits: int
    udp_bits: int
    # Of a tool that sends as fast as it can, in the notation of `tc`.
    flood: str
    # How long to wait for a change to take effect.
    patience_s: int
    # How long one answer may take.
    answer_s: int = 1


NATIVE = Pace(frames_per_second=500, burst_per_second=1000, pings_per_second=50,
              tcp_bits=50_000_000, udp_bits=25_000_000, flood="4mbit", patience_s=15)
# On an emulated processor, each instruction costs tens of the host's.
EMULATED = Pace(frames_per_second=20, burst_per_second=50, pings_per_second=10,
                tcp_bits=1_000_000, udp_bits=500_000, flood="500kbit", patience_s=90)


class World:
    """Two onboarded tenants and the Internet. `up` builds it, `down` leaves nothing of it."""

    pace = NATIVE
    # Reasons whose frames the NIC may keep from the switch.
    kept_by_nic = frozenset()

    def __init__(self, tenant_files, second=None):
        self.tenant_files = tenant_files
        # The second host, if there is one.
        self.second = second
        self.tenants = [read_tenant(path, SITE) for path in tenant_files]
        self._outside = Internet(SITE)
        self.internet = self._outside.host
        self._supervisor = None
        # Whether this world has made anything that has our name.
        self.ours = False

    def up(self, say):
        SITE.take_empty("demo")
        self.ours = True
        STATE_DIR.mkdir(mode=0o700)
        SITE.remember(OPTIONS)
        for file in self.tenant_files:
            say(f"onboarding {file.stem}: scripts/onboard-tenant {file}")
            self._onboard([ROOT / "scripts" / "onboard-tenant", *OPTIONS, file])
        say("connecting an Internet to the underlay, and configuring the guests")
        self._connect_internet()
        for tenant in self.tenants:
            for guest in tenant.guests:
                self.configure(guest, tenant)
        self.tenants = [tenant.onboarded() for tenant in self.tenants]
        say("starting the supervisor")
        self._supervisor = subprocess.Popen(
            [PROVISIONER, *OPTIONS, "supervise"], stdin=subprocess.DEVNULL,
            stdout=(STATE_DIR / "supervise.log").open("w"), stderr=subprocess.STDOUT,
            # Ctrl-C ends the demo, and the demo ends the supervisor.
            start_new_session=True)
        self._wait_until_all_answer()
        if self.second:
            self.second.up(self, say)

    @staticmethod
    def _onboard(command):
        run(command)

    def _connect_internet(self):
        self._outside.connect(self.tenants, self.join_underlay)

    def join_underlay(self, link):
        """Makes an interface a port of the underlay's bridge."""
        ip("", f"link set {link} master {BRIDGE} up")

    @staticmethod
    def configure(guest, tenant):
        configure(guest, tenant)

    def _wait_until_all_answer(self):
        """Waits until Duplicate Address Detection is over and every guest has an answer from the
        Internet."""
        self.wait_until_answered([(guest, address) for tenant in self.tenants
                                  for guest in tenant.guests
                                  for address in (self.internet.ipv4, self.internet.ipv6)])

    def wait_until_answered(self, waiting):
        """Waits until each guest has had an answer from its address."""
        deadline = time.monotonic() + self.pace.patience_s
        while waiting:
            # All at once: a round takes no longer than one answer may.
            pings = [self._ping(guest, address) for guest, address in waiting]
            waiting = [pair for pair, ping in zip(waiting, pings, strict=True) if ping.wait() != 0]
            if waiting and time.monotonic() > deadline:
                lines = [f"{guest.name} has no answer from {address} after "
                         f"{self.pace.patience_s} s" for guest, address in waiting]
                raise ScriptError("\n".join([*lines, self._views(), self._logs()]))

    def answers(self, guest, address):
        """Whether the guest has an answer to one ping."""
        return self._ping(guest, address).wait() == 0

    def _ping(self, guest, address):
        return guest.start(["ping", "-q", "-c", "1", "-W", str(self.pace.answer_s), address],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _views(self):
        """What each switch says of its tunnel and of the frames that it dropped."""
        return "\n".join(f"{tenant.name} ({tenant.netns}), {what}:\n{tenant.show(what)}"
                         for tenant in self.all_tenants() for what in ("tunnels", "drops"))

    @staticmethod
    def _logs():
        """The last lines of every log."""
        logs = [*STATE_DIR.glob("**/tenants/*/log"), *STATE_DIR.glob("*.log")]
        return "\n".join(f"{log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                         for log in logs)

    def gateway_of(self, guest):
        """The gateway as the guest sees it, with the MAC that the guest has learned."""
        tenant = next(tenant for tenant in self.all_tenants() if guest in tenant.guests)
        ipv4, ipv6 = tenant.gateway_addresses
        self.answers(guest, ipv4)
        neighbour = json.loads(ip(guest.netns, f"-json neighbour show {ipv4} dev eth0"))
        return Host("gateway", neighbour[0]["lladdr"], ipv4, ipv6)

    def all_hosts(self):
        """Every host at which a frame can arrive: the guests, the Internet, the switches'
        uplinks."""
        return [*(guest for tenant in self.all_tenants() for guest in tenant.guests), self.internet,
                *(tenant.uplink for tenant in self.all_tenants())]

    def all_tenants(self):
        """Those of the second host too."""
        return [*self.tenants, *(self.second.tenants if self.second else [])]

    def down(self):
        """Takes everything down, whatever state it is in; the same as `scripts/demo --clean`."""
        if self._supervisor:
            self._supervisor.terminate()
            self._supervisor.wait()
        SITE.clean()
