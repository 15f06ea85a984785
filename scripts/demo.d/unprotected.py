"""The control experiment: the same guests and the same attacks on one plain bridge with one plain
router.

It shows that the counters work: frames that the switches drop arrive here. (The bridge itself drops
a few: those with a group source, and those for the link-local groups of 802.1D.)
"""

import dataclasses

from hosts import Internet, Tenant, ip, run
from world import BRIDGE, INSTANCE, SITE, World

ROUTER = f"{INSTANCE}-router"
ROUTER_MAC = "52:54:00:dd:00:01"


class UnprotectedTenant(Tenant):
    """A tenant without a switch: nothing is dropped, so nothing is counted."""

    def drops(self):
        return {}


class Unprotected(World):
    """Two tenants whose guests share a bridge."""

    def up(self, say):
        SITE.take_empty("demo")
        self.ours = True
        say("connecting all guests to one bridge, with one router for both tenants")
        ip("", f"link add {BRIDGE} type bridge mcast_snooping 0")
        ip("", f"link set {BRIDGE} up")
        self._connect_internet()
        self._attach(ROUTER, ROUTER_MAC, 0)
        for option in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            ip("", f"netns exec {ROUTER} sysctl -q -w net.{option}=1")
        for tenant in self.tenants:
            addresses = zip((*tenant.gateway_addresses, tenant.uplink.ipv4, tenant.uplink.ipv6),
                            (24, 64, 24, 64))
            for address, length in addresses:
                nodad = " nodad" if ":" in address else ""
                ip(ROUTER, f"address add {address}/{length} dev eth0{nodad}")
        for index, guest in enumerate((guest for tenant in self.tenants for guest in tenant.guests),
                                      1):
            self._attach(guest.netns, guest.mac, index)
        for tenant in self.tenants:
            for guest in tenant.guests:
                self.configure(guest, tenant)
        for via in Internet.NEXT_HOPS:
            ip(ROUTER, f"route add default via {via}")
        self.tenants = [
            UnprotectedTenant(**{**vars(tenant), "uplink": dataclasses.replace(
                tenant.uplink, netns=ROUTER, interface="eth0", mac=ROUTER_MAC)})
            for tenant in self.tenants
        ]
        self._wait_until_all_answer()

    @staticmethod
    def _attach(netns, mac, index):
        link = f"{INSTANCE}-p{index}"
        ip("", f"netns add {netns}")
        ip("", f"link add {link} type veth peer name eth0 address {mac} netns {netns}")
        ip("", f"link set {link} master {BRIDGE} up")
        for where, name in (([], link), (["ip", "netns", "exec", netns], "eth0")):
            run([*where, "ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro",
                 "off"])
        ip(netns, "link set eth0 up")
