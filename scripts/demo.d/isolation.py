"""One tenant tries to reach another, red blue: with valid and forged frames, by blue's MACs and by
its addresses, past the switch and through the Internet. Frames are counted where they arrive: at
blue's guests and at the uplink of blue's switch.

A tenant may send some of these frames: packets for an external address go to the Internet, which
does not know blue's addresses. So no drop reason is expected, only that nothing arrives.
"""

import dataclasses
import time

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

from attacking import launch
from attacks import BROADCAST, Attack, hex_ipv4
from counting import Counters

PORT = 41501


@dataclasses.dataclass
class Try:
    """The outcome of one try. The report has these names."""

    name: str
    sent: int
    delivered: int

    @property
    def failure(self):
        if self.sent == 0:
            return "nothing was sent"
        return f"{self.delivered} frames arrived" if self.delivered else None


def tries(red, victim, witness, gateway, blue, n):
    """`red` against the blue guest `victim`; `witness` is another guest of blue, whose addresses
    are forged too."""
    ours = {"src": red.mac, "dst": gateway.mac}
    forged = f"udp dst port {PORT} or (vlan and udp dst port {PORT})"
    udp = UDP(sport=9, dport=PORT)
    blue_gateway = blue.gateway_addresses[0]
    return [
        Attack("ping to its IPv4 address", "",
               f"icmp and src host {red.ipv4} and dst host {victim.ipv4}",
               scapy=[Ether(**ours) / IP(src=red.ipv4, dst=victim.ipv4) / ICMP()] * n),
        Attack("ping to its IPv6 address", "",
               f"icmp6 and src host {red.ipv6} and dst host {victim.ipv6}",
               scapy=[Ether(**ours) / IPv6(src=red.ipv6, dst=victim.ipv6)
                      / ICMPv6EchoRequest()] * n),
        Attack("TCP connection to its address", "",
               f"tcp and src host {red.ipv4} and dst host {victim.ipv4}",
               scapy=[Ether(**ours) / IP(src=red.ipv4, dst=victim.ipv4)
                      / TCP(dport=22, flags="S")] * n),
        Attack("straight to its MAC", "", forged,
               scapy=[Ether(src=red.mac, dst=victim.mac) / IP(src=red.ipv4, dst=victim.ipv4)
                      / udp] * n),
        Attack(f"to its MAC, in a {blue.name} VM's name", "", forged,
               scapy=[Ether(src=witness.mac, dst=victim.mac) / IP(src=witness.ipv4, dst=victim.ipv4)
                      / udp] * n),
        Attack(f"from a {blue.name} VM's IPv4 address", "", forged,
               scapy=[Ether(**ours) / IP(src=witness.ipv4, dst=victim.ipv4) / udp] * n),
        Attack(f"from a {blue.name} VM's IPv6 address", "", f"ip6 proto 17 and ip6[42:2] = {PORT}",
               scapy=[Ether(**ours) / IPv6(src=witness.ipv6, dst=victim.ipv6) / udp] * n),
        Attack("in an Ethernet broadcast", "", forged,
               scapy=[Ether(src=red.mac, dst=BROADCAST) / IP(src=red.ipv4, dst=victim.ipv4)
                      / udp] * n),
        Attack("ARP for its address", "",
               f"arp[24:4] = 0x{hex_ipv4(victim.ipv4)} and arp[14:4] = 0x{hex_ipv4(red.ipv4)}",
               scapy=[Ether(src=red.mac, dst=BROADCAST)
                      / ARP(op=1, hwsrc=red.mac, psrc=red.ipv4, pdst=victim.ipv4)] * n),
        Attack("Neighbour Solicitation for its address", "",
               f"icmp6 and src host {red.ipv6} and ip6[40] = 135",
               scapy=[Ether(src=red.mac, dst="33:33:ff:00:00:11")
                      / IPv6(src=red.ipv6, dst="ff02::1:ff00:11", hlim=255)
                      / ICMPv6ND_NS(tgt=victim.ipv6)] * n),
        Attack("to its gateway", "", f"icmp and src host {red.ipv4} and dst host {blue_gateway}",
               scapy=[Ether(**ours) / IP(src=red.ipv4, dst=blue_gateway) / ICMP()] * n),
        Attack("to its switch on the underlay", "",
               f"src host {red.ipv4} and dst host {blue.uplink.ipv4}",
               scapy=[Ether(**ours) / IP(src=red.ipv4, dst=blue.uplink.ipv4) / udp] * n),
        Attack("to its switch's own MAC", "", forged,
               scapy=[Ether(src=red.mac, dst=blue.uplink.mac) / IP(src=red.ipv4, dst=victim.ipv4)
                      / udp] * n),
    ]


def all_tries(attacker, victim, witness, gateway, tenant, listening, world, n):
    """Each of `tries` by `attacker` to reach `victim`, a guest of `tenant`; frames are counted at
    `listening`."""
    listening = [host for host in listening if host in world.all_hosts()]
    for attempt in tries(attacker, victim, witness, gateway, tenant, n):
        with Counters([attacker.leaving(attempt.frame)]) as sent, \
                Counters(host.arriving(attempt.frame) for host in listening) as delivered:
            launch(attempt, attacker, world, sent)
            time.sleep(0.1)
            yield Try(attempt.name, sent.value(), delivered.value())
