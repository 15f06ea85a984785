"""Hosts and tenants as a script sees them: where they are, and how to run commands there."""

import dataclasses
import ipaddress
import json
import pathlib
import subprocess
import tomllib

from counting import Counter


class ScriptError(Exception):
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
    site: object

    @property
    def netns(self):
        return self.uplink.netns

    @property
    def directory(self):
        return self.site.state_dir / "tenants" / self.name

    @property
    def control(self):
        return self.directory / "run" / "control.sock"

    def config(self):
        """The switch's configuration."""
        return json.loads((self.directory / "config.json").read_text())

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
        return run([self.site.vswitch, "show", *what, "--timeout", "600", "--control",
                    self.control])

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
        raise ScriptError(f"{' '.join(words)} failed: {said}")
    return done.stdout


def ip(netns, line):
    return run(["ip", *(["-n", netns] if netns else []), *line.split()])


def read_tenant(path, site):
    """Reads a tenant's file; the namespaces are those that the site's provisioner makes."""
    file = tomllib.loads(path.read_text())
    gateway = (ipaddress.ip_interface(file["gateway"]["ipv4"]),
               ipaddress.ip_interface(file["gateway"]["ipv6"]))
    guests = [
        Host(name=port["name"], mac=port["mac"], ipv4=port["addresses"][0],
             ipv6=port["addresses"][1], netns=f"{site.instance}-{port['name']}")
        for port in file["port"]
    ]
    uplink = Host(
        name=f"{file['name']}'s switch", mac="", netns=f"{site.instance}-sw-{file['name']}",
        interface="inout",
        ipv4=file["uplink"]["address"].split("/")[0], ipv6=file["uplink"]["address6"].split("/")[0])
    return Tenant(name=file["name"], guests=guests, uplink=uplink,
                  gateway_addresses=tuple(str(address.ip) for address in gateway),
                  prefixes=tuple(str(address.network) for address in gateway), site=site)


def configure(guest, tenant):
    """Does what a VM's own init would: addresses and routes."""
    ip(guest.netns, "link set lo up")
    for address, prefix, gateway in zip((guest.ipv4, guest.ipv6), tenant.prefixes,
                                        tenant.gateway_addresses):
        ip(guest.netns, f"address replace {address}/{prefix.split('/')[1]} dev eth0")
        # The gateway's Router Advertisement may have set one already.
        ip(guest.netns, f"route replace default via {gateway} dev eth0")


class Internet:
    """One more namespace, on the underlay's bridge. It has a route to every tenant, and forwards
    nothing between them. The underlay is 192.0.2.0/24 and 2001:db8::/64; tenants talk to the far
    addresses."""

    MAC = "52:54:00:cc:00:01"
    NEXT_HOPS = ("192.0.2.1", "2001:db8::1")

    def __init__(self, site):
        self.host = Host("Internet", self.MAC, "198.51.100.10", "2001:db8:ffff::10",
                         f"{site.instance}-internet")
        self._link = site.internet_link

    def connect(self, tenants, join_underlay):
        """Builds it. `join_underlay` makes an interface a port of the underlay."""
        netns = self.host.netns
        ip("", f"netns add {netns}")
        ip("", f"link add {self._link} type veth peer name eth0 address {self.MAC} netns {netns}")
        join_underlay(self._link)
        for protocol in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.host.run(["sysctl", "-q", "-w", f"net.{protocol}=0"])
        for end in ([], ["ip", "netns", "exec", netns]):
            name = "eth0" if end else self._link
            run([*end, "ethtool", "-K", name,
                 "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
        ip(netns, "link set lo up")
        ip(netns, "link set eth0 up")
        ip(netns, f"address add {self.NEXT_HOPS[0]}/24 dev eth0")
        ip(netns, f"address add {self.NEXT_HOPS[1]}/64 dev eth0 nodad")
        ip(netns, f"address add {self.host.ipv4}/32 dev lo")
        ip(netns, f"address add {self.host.ipv6}/128 dev lo nodad")
        for tenant in tenants:
            for prefix, via, source in zip(tenant.prefixes,
                                           (tenant.uplink.ipv4, tenant.uplink.ipv6),
                                           (self.host.ipv4, self.host.ipv6)):
                ip(netns, f"route add {prefix} via {via} src {source}")
