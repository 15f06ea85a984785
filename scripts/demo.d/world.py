"""The stage: its hosts, and how it is built and taken down.

A guest stands for a VM: a network namespace with one interface, `eth0`, which is configured as the
VM's own init would. `scripts/onboard-tenant` makes everything behind that interface. The Internet
is one more namespace, on the underlay's bridge; it has a route to every tenant but forwards nothing
between them.
"""

import dataclasses
import ipaddress
import json
import os
import pathlib
import signal
import subprocess
import time
import tomllib

from counting import Counter

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The prefix of the names of interfaces, control groups and namespaces.
INSTANCE = "demo"
BRIDGE = f"{INSTANCE}-br0"
STATE_DIR = pathlib.Path("/run/vf-provisioner-demo")
BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
VSWITCH = BINARIES / "vswitch"
PROVISIONER = BINARIES / "vf-provisioner"
OPTIONS = ["--instance", INSTANCE, "--state-dir", str(STATE_DIR)]

# The second host's root network namespace, which has its bridge, and its provisioner's state.
INSTANCE_B = f"{INSTANCE}b"
ROOT_B = f"{INSTANCE_B}-root"
STATE_DIR_B = STATE_DIR / "host-b"

INTERNET_LINK = f"{INSTANCE}-inet"
INTERNET_MAC = "52:54:00:cc:00:01"


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


class DemoError(Exception):
    """A sentence for the user."""


@dataclasses.dataclass(frozen=True)
class Host:
    """A sender or receiver: a guest, the Internet, a switch's uplink, a gateway."""

    name: str
    mac: str
    ipv4: str
    ipv6: str
    netns: str = ""
    interface: str = "eth0"

    @property
    def link_local(self):
        """The address that the kernel makes from the MAC (EUI-64)."""
        octets = bytes.fromhex(self.mac.replace(":", ""))
        interface_id = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
        return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface_id))

    def run(self, command, **options):
        """Runs a command in the host's namespace and waits for its end."""
        return subprocess.run(["ip", "netns", "exec", self.netns, *command], check=False, **options)

    def start(self, command, **options):
        """Starts a command in the host's namespace."""
        return subprocess.Popen(["ip", "netns", "exec", self.netns, *command], **options)

    def leaving(self, expression):
        """Counts the frames that the host sends."""
        return Counter(self.netns, self.interface, expression, outgoing=True)

    def arriving(self, expression):
        """Counts the frames that arrive at the host."""
        return Counter(self.netns, self.interface, expression, outgoing=False)


@dataclasses.dataclass(frozen=True)
class Tenant:
    """A tenant of a file, and where the provisioner has put it."""

    name: str
    guests: list
    uplink: Host
    gateway_addresses: tuple
    prefixes: tuple
    state_dir: pathlib.Path

    @property
    def netns(self):
        return self.uplink.netns

    @property
    def control(self):
        return self.state_dir / "tenants" / self.name / "run" / "control.sock"

    def config(self):
        """The switch's configuration."""
        return json.loads((self.state_dir / "tenants" / self.name / "config.json").read_text())

    def onboarded(self):
        """The same, with the uplink's MAC, which is known once the switch runs."""
        uplink = dataclasses.replace(self.uplink, mac=self.config()["uplink"]["mac"])
        return dataclasses.replace(self, uplink=uplink)

    def drops(self):
        """{(port, reason): frames}, as the switch reports them."""
        return {(drop["port"], drop["reason"]): drop["frames"]
                for drop in json.loads(self.show("drops", "--json"))}

    def missed(self, port):
        """Frames that the port's ring had no room for, as the switch reports them."""
        ports = json.loads(self.show("ports", "--json"))["ports"]
        return next(each["rx_missed"] for each in ports if each["name"] == port)

    def show(self, *what):
        """What `vswitch show` prints."""
        # A switch in a nested machine is slow.
        return run([VSWITCH, "show", *what, "--timeout", "600", "--control", self.control])

    def switch_pid(self):
        """The switch's process, or its VM's; None while there is none."""
        for pid in run(["ip", "netns", "pids", self.netns]).split():
            try:
                if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith(("vswitch", "qemu-")):
                    return int(pid)
            except OSError:
                pass  # it has ended meanwhile
        return None


def run(command):
    """Runs a command and returns its output; a failure becomes a sentence with its error output."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise DemoError(f"{' '.join(words)} failed: {said}")
    return done.stdout


def ip(netns, line):
    return run(["ip", *(["-n", netns] if netns else []), *line.split()])


def read_tenant(path, instance=INSTANCE, state_dir=STATE_DIR):
    """Reads a tenant's file; the namespaces are those that the provisioner makes."""
    file = tomllib.loads(path.read_text())
    gateway = (ipaddress.ip_interface(file["gateway"]["ipv4"]),
               ipaddress.ip_interface(file["gateway"]["ipv6"]))
    guests = [
        Host(name=port["name"], mac=port["mac"], ipv4=port["addresses"][0],
             ipv6=port["addresses"][1], netns=f"{instance}-{port['name']}")
        for port in file["port"]
    ]
    uplink = Host(
        name=f"{file['name']}'s switch", mac="", netns=f"{instance}-sw-{file['name']}",
        interface="inout",
        ipv4=file["uplink"]["address"].split("/")[0], ipv6=file["uplink"]["address6"].split("/")[0])
    return Tenant(name=file["name"], guests=guests, uplink=uplink,
                  gateway_addresses=tuple(str(address.ip) for address in gateway),
                  prefixes=tuple(str(address.network) for address in gateway), state_dir=state_dir)


class World:
    """Two onboarded tenants and the Internet. `up` builds it, `down` leaves nothing of it."""

    pace = NATIVE
    # Reasons whose frames the NIC may keep from the switch.
    kept_by_nic = frozenset()

    def __init__(self, tenant_files, second=None):
        self.tenant_files = tenant_files
        # The second host, if there is one.
        self.second = second
        self.tenants = [read_tenant(path) for path in tenant_files]
        # On the underlay 192.0.2.0/24 and 2001:db8::/64; tenants talk to the far addresses.
        self.internet = Host("Internet", INTERNET_MAC, "198.51.100.10", "2001:db8:ffff::10",
                             f"{INSTANCE}-internet")
        self.next_hops = ("192.0.2.1", "2001:db8::1")
        self._supervisor = None
        # Whether this world has made anything that has our name.
        self.ours = False

    def up(self, say):
        refuse_if_taken()
        self.ours = True
        STATE_DIR.mkdir(mode=0o700)
        # For --clean, which has no other way to know them.
        (STATE_DIR / "options.json").write_text(json.dumps(OPTIONS))
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
        netns = self.internet.netns
        ip("", f"netns add {netns}")
        ip("", f"link add {INTERNET_LINK} type veth "
               f"peer name eth0 address {INTERNET_MAC} netns {netns}")
        self.join_underlay(INTERNET_LINK)
        for protocol in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.internet.run(["sysctl", "-q", "-w", f"net.{protocol}=0"])
        for end in ([], ["ip", "netns", "exec", netns]):
            name = "eth0" if end else INTERNET_LINK
            run([*end, "ethtool", "-K", name,
                 "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
        ip(netns, "link set lo up")
        ip(netns, "link set eth0 up")
        ip(netns, f"address add {self.next_hops[0]}/24 dev eth0")
        ip(netns, f"address add {self.next_hops[1]}/64 dev eth0 nodad")
        ip(netns, f"address add {self.internet.ipv4}/32 dev lo")
        ip(netns, f"address add {self.internet.ipv6}/128 dev lo nodad")
        for tenant in self.tenants:
            for prefix, via, source in zip(tenant.prefixes,
                                           (tenant.uplink.ipv4, tenant.uplink.ipv6),
                                           (self.internet.ipv4, self.internet.ipv6)):
                ip(netns, f"route add {prefix} via {via} src {source}")

    def join_underlay(self, link):
        """Makes an interface a port of the underlay's bridge."""
        ip("", f"link set {link} master {BRIDGE} up")

    @staticmethod
    def configure(guest, tenant):
        ip(guest.netns, "link set lo up")
        for address, prefix, gateway in zip((guest.ipv4, guest.ipv6), tenant.prefixes,
                                            tenant.gateway_addresses):
            ip(guest.netns, f"address add {address}/{prefix.split('/')[1]} dev eth0")
            # The gateway's Router Advertisement may have set one already.
            ip(guest.netns, f"route replace default via {gateway} dev eth0")

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
            waiting = [(guest, address) for guest, address in waiting
                       if not self.answers(guest, address)]
            if waiting and time.monotonic() > deadline:
                guest, address = waiting[0]
                raise DemoError(f"{guest.name} has no answer from {address} after "
                                f"{self.pace.patience_s} s.\n{self._logs()}")

    def answers(self, guest, address):
        """Whether the guest has an answer to one ping."""
        ping = ["ping", "-q", "-c", "1", "-W", str(self.pace.answer_s), address]
        return guest.run(ping, capture_output=True).returncode == 0

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
        clean()


def namespaces():
    """The namespaces that have our name."""
    listed = json.loads(run(["ip", "-json", "netns", "list"]) or "[]")
    return [netns["name"] for netns in listed
            if netns["name"].startswith((f"{INSTANCE}-", f"{INSTANCE_B}-"))]


def refuse_if_taken():
    taken = [STATE_DIR] if STATE_DIR.exists() else []
    taken += namespaces()
    if taken:
        raise DemoError(f"{taken[0]} is there: another demo runs, or one was killed. "
                        "If none runs, clean up with: scripts/demo --clean")


def inhabitants(names):
    """The processes in these namespaces."""
    return {int(pid) for netns in names for pid in run(["ip", "netns", "pids", netns]).split()}


def processes():
    """The demo's processes: those in its namespaces, and those that name its state directories."""
    found = inhabitants(namespaces())
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if any(word.startswith(os.fsencode(STATE_DIR)) for word in words):
            found.add(int(path.parent.name))
    return found - {os.getpid()}


def clean():
    """Removes everything that has our name."""
    if STATE_DIR.exists() and PROVISIONER.exists():
        # The supervisor first: it would start the switches again.
        for pid in processes():
            command = pathlib.Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"supervise" in command.read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGTERM)
                wait_for_end(pid)
        # The guests' processes: they would outlive the names of their namespaces.
        end(inhabitants(name for name in namespaces() if "-sw-" not in name))
        for state_dir, inside in ((STATE_DIR_B, ["nsenter", f"--net=/run/netns/{ROOT_B}"]),
                                  (STATE_DIR, [])):
            if (options := state_dir / "options.json").exists():
                release = [PROVISIONER, *json.loads(options.read_text()), "release", "--all"]
                subprocess.run([*inside, *release], capture_output=True, check=False)
    end(processes())
    # Interfaces are deleted with their namespace, a moment later: one may be gone already.
    for kind, names in (("netns", namespaces()), ("link", (INTERNET_LINK, BRIDGE))):
        for name in names:
            subprocess.run(["ip", kind, "delete", name], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", "--one-file-system", str(STATE_DIR)], check=False)


def virtual_functions():
    """The settings of every SR-IOV NIC."""
    settings = []
    for device in pathlib.Path("/sys/class/net").glob("*/device"):
        for name in ("sriov_numvfs", "sriov_drivers_autoprobe"):
            if (device / name).exists():
                value = (device / name).read_text().strip()
                settings.append(f"{device.parent.name} {name} {value}")
    return sorted(settings)


def left_behind(before):
    """What exists now and did not before: {kind: [names]}. The kernel takes a moment to remove
    namespaces."""
    deadline = time.monotonic() + 5
    while True:
        left = {kind: sorted(set(now) - set(before[kind])) for kind, now in traces().items()}
        left = {kind: names for kind, names in left.items() if names}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


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


def traces():
    """Everything on this machine that the demo could leave, to compare before and after."""
    tables = json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]
    groups = [str(path) for path in pathlib.Path("/sys/fs/cgroup").rglob(f"{INSTANCE}*")
              if path.is_dir()]
    mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
              if str(STATE_DIR) in line or f"/run/netns/{INSTANCE}" in line]
    links = os.listdir("/sys/class/net")
    return {
        "namespaces": sorted(namespaces()),
        "interfaces": sorted(link for link in links if link.startswith(INSTANCE)),
        "nftables tables": sorted(table["table"]["name"] for table in tables
                                  if "table" in table
                                  and table["table"]["name"].startswith(INSTANCE)),
        "control groups": sorted(groups),
        "mounts": sorted(mounts),
        "processes": sorted(processes()),
        "files": [str(STATE_DIR)] if STATE_DIR.exists() else [],
        "VFs": virtual_functions(),
        "hugepages": pathlib.Path("/proc/sys/vm/nr_hugepages").read_text().split(),
    }
