"""The attacks: what each one tries, with which tool, how its frames are recognised, and why the
switch drops them.

One entry is one attack. `frame` is a capture filter that accepts exactly the attack's frames. It
counts them twice: where they leave the attacker (sent), and where they arrive at any other host
(delivered). It compares only fields that a switch does not change, so that a frame that got through
with new Ethernet addresses and a lower hop limit would be counted too. `reason` is the drop counter
of the attacker's port that must rise by at least the number sent: SI6's tools also solicit their
neighbours from a link-local address that is not theirs.
"""

import dataclasses
import ipaddress
import random

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack. Exactly one of `scapy` and `tool` says how it is sent."""

    name: str
    reason: str
    frame: str
    # A filter for frames that may arrive, if these are more than `frame`.
    arrives: str | None = None
    # Frames that scapy builds, sent one after another.
    scapy: list | None = None
    # A command line, run in the attacker's namespace.
    tool: str | None = None
    # How often the tool is called.
    times: int = 1
    # For tools that send until they are stopped.
    stop_after_s: float | None = None
    # Tools that send as fast as the machine can, through a line of the pace's flood rate.
    paced: bool = False
    # Storm control lets some through to the gateway, which keeps them: fewer are counted than sent.
    over_limit: bool = False
    # Who sends it: a guest, or the Internet.
    attacker: object = None

    @property
    def by(self):
        """The tool's name, for the table."""
        return self.tool.split()[0].removeprefix("atk6-") if self.tool else "scapy"

    @property
    def reasons(self):
        """The reasons that count for it. thc-ipv6 adds the carry of a checksum once only, so that
        one of some thousand frames has a wrong one, which is seen before these reasons."""
        of_checksum = self.reason in ("redirect", "router-advertisement")
        by_thc = (self.tool or "").startswith("atk6-")
        return [self.reason, "nd-malformed"] if of_checksum and by_thc else [self.reason]


def arp_from(mac, ipv4):
    """A filter for ARP requests and replies with this sender."""
    octets = mac.replace(":", "")
    return (f"arp[8:4] = 0x{octets[:8]} and arp[12:2] = 0x{octets[8:]} "
            f"and arp[14:4] = 0x{hex_ipv4(ipv4)}")


def random_macs(count):
    """Locally administered unicast addresses, the same in every run."""
    numbers = random.Random(1)
    return [":".join(f"{octet:02x}" for octet in (2, *numbers.randbytes(5))) for _ in range(count)]


def ethernet(me, sibling, gateway, n):
    def from_me(port):
        """An ordinary datagram to the sibling; its source port identifies the attack."""
        return IP(src=me.ipv4, dst=sibling.ipv4) / UDP(sport=port, dport=9) / Raw(b"attack" * 4)

    to_gateway = {"src": me.mac, "dst": gateway.mac}
    return [
        Attack("another VM's MAC as source", "src-mac", "udp src port 41001",
               scapy=[Ether(src=sibling.mac, dst=gateway.mac) / from_me(41001)] * n),
        Attack("random source MACs (macof)", "src-mac", "udp src port 41002",
               scapy=[Ether(src=mac, dst=gateway.mac) / from_me(41002)
                      for mac in random_macs(10 * n)]),
        Attack("broadcast MAC as source", "src-mac-group", "udp src port 41003",
               scapy=[Ether(src=BROADCAST, dst=gateway.mac) / from_me(41003)] * n),
        Attack("VLAN hopping: a tag of its own", "vlan-tag",
               "udp src port 41004 or (vlan and udp src port 41004)",
               scapy=[Ether(**to_gateway) / Dot1Q(vlan=102) / from_me(41004)] * n),
        Attack("VID 0 hides the payload (CVE-2021-27853)", "vlan-tag",
               "udp src port 41005 or (vlan and udp src port 41005)",
               scapy=[Ether(**to_gateway) / Dot1Q(vlan=0, prio=7) / from_me(41005)] * n),
        Attack("double tag (802.1ad + 802.1Q)", "vlan-tag",
               "udp src port 41006 or (vlan and udp src port 41006) "
               "or (vlan and udp src port 41006)",
               scapy=[Ether(**to_gateway) / Dot1AD(vlan=101) / Dot1Q(vlan=102)
                      / from_me(41006)] * n),
        Attack("IP hidden in LLC/SNAP", "llc", "ether[12:2] < 0x600 and ether[42:2] = 41007",
               scapy=[Dot3(**to_gateway) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
                      / SNAP(OUI=0, code=0x0800)
                      / from_me(41007)] * n),
        Attack("STP: claims to be the root bridge", "llc", "stp",
               scapy=[Dot3(src=me.mac, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3)
                      / STP(rootid=0, rootmac=me.mac, bridgeid=0, bridgemac=me.mac)] * n),
        Attack("LLDP to a neighbour", "link-local-l2", "ether proto 0x88cc",
               scapy=[Ether(**to_gateway, type=0x88CC) / Raw(bytes(46))] * n),
        Attack("pause frames", "link-local-l2", "ether proto 0x8808",
               scapy=[Ether(src=me.mac, dst="01:80:c2:00:00:01", type=0x8808)
                      / Raw(b"\x00\x01\xff\xff" + bytes(42))] * n),
        Attack("RARP reply: gives away an address", "rarp", "ether proto 0x8035",
               scapy=[Ether(src=me.mac, dst=BROADCAST, type=0x8035)
                      / ARP(op=4, hwsrc=me.mac, psrc=me.ipv4, hwdst=sibling.mac,
                            pdst=sibling.ipv4)] * n),
        Attack("PPPoE: a rogue access concentrator", "ethertype", "ether proto 0x8863",
               scapy=[Ether(src=me.mac, dst=BROADCAST, type=0x8863)
                      / Raw(b"\x11\x07" + bytes(44))] * n),
    ]


def arp(me, sibling, gateway, n):
    return [
        Attack("ARP replies for the gateway's address", "arp-sender-ip",
               arp_from(me.mac, gateway.ipv4),
               tool=f"arping -i eth0 -q -U -P -S {gateway.ipv4} -c {n} -W 0.01 {gateway.ipv4}"),
        Attack("ARP requests in a neighbour's name", "arp-sender-ip",
               arp_from(me.mac, sibling.ipv4),
               tool=f"arping -i eth0 -q -S {sibling.ipv4} -c {n} -W 0.01 {gateway.ipv4}"),
        Attack("ARP with a neighbour's hardware address", "arp-sender-mac",
               arp_from(sibling.mac, me.ipv4),
               scapy=[Ether(src=me.mac, dst=BROADCAST)
                      / ARP(op=2, hwsrc=sibling.mac, psrc=me.ipv4, hwdst=gateway.mac,
                            pdst=gateway.ipv4)] * n),
        Attack("malformed ARP (hardware length 8)", "arp-malformed", "arp[4:2] = 0x0804",
               scapy=[Ether(src=me.mac, dst=BROADCAST, type=0x0806)
                      / Raw(bytes.fromhex("0001080008040001") + bytes(38))] * n),
    ]


def ipv4(me, sibling, other, gateway, outside, n):
    to_gateway = {"src": me.mac, "dst": gateway.mac}
    pace = f"-c {n} -i u2000 -q"
    own_broadcast = me.ipv4.rsplit(".", 1)[0] + ".255"
    bootp = {"op": 1, "chaddr": bytes.fromhex("02deadbeef01"), "xid": 0x41024102}
    return [
        Attack("TCP SYN from a neighbour's address", "ipv4-source", "tcp dst port 41101",
               tool=f"hping3 {pace} -S -p 41101 -a {sibling.ipv4} {outside.ipv4}"),
        Attack("UDP from another tenant's address", "ipv4-source", "udp dst port 41102",
               tool=f"hping3 {pace} --udp -p 41102 -a {other.ipv4} {sibling.ipv4}"),
        Attack("smurf: echo from the victim to broadcast", "ipv4-source",
               f"icmp and src host {sibling.ipv4} and dst host {own_broadcast}",
               scapy=[Ether(src=me.mac, dst=BROADCAST) / IP(src=sibling.ipv4, dst=own_broadcast)
                      / ICMP()] * n),
        Attack("loopback as source", "ipv4-martian", "udp src port 41104",
               scapy=[Ether(**to_gateway) / IP(src="127.0.0.1", dst=sibling.ipv4)
                      / UDP(sport=41104)] * n),
        Attack("loose source route", "ipv4-source-route", "udp src port 41105",
               scapy=[Ether(**to_gateway)
                      / IP(src=me.ipv4, dst=sibling.ipv4,
                           options=IPOption_LSRR(routers=[other.ipv4]))
                      / UDP(sport=41105)] * n),
        Attack("tiny first fragment: half a TCP header", "ipv4-fragment",
               "ip[4:2] = 41106 and ip[6:2] = 0x2000",
               scapy=[Ether(**to_gateway)
                      / IP(src=me.ipv4, dst=sibling.ipv4, id=41106, flags="MF", proto=6)
                      / Raw(bytes(TCP(dport=22, flags="S"))[:8])] * n),
        Attack("fragment that overwrites TCP's flags", "ipv4-fragment",
               "ip[4:2] = 41107 and ip[6:2] = 1",
               scapy=[Ether(**to_gateway)
                      / IP(src=me.ipv4, dst=sibling.ipv4, id=41107, frag=1, proto=6)
                      / Raw(bytes(TCP(dport=22, flags="S"))[8:])] * n),
        Attack("wrong header checksum", "ipv4-malformed", "udp src port 41108",
               scapy=[Ether(**to_gateway) / IP(src=me.ipv4, dst=sibling.ipv4, chksum=0xDEAD)
                      / UDP(sport=41108)] * n),
        Attack("rogue DHCP server", "dhcp-server", "udp src port 67 and udp[8] = 2",
               scapy=[Ether(src=me.mac, dst=BROADCAST) / IP(src=me.ipv4, dst="255.255.255.255")
                      / UDP(sport=67, dport=68) / BOOTP(op=2, yiaddr=sibling.ipv4, siaddr=me.ipv4)
                      / DHCP(options=[("message-type", "offer"), ("router", me.ipv4), "end"])] * n),
        Attack("DHCP starvation: forged client hardware address", "dhcp-client", "udp src port 68",
               scapy=[Ether(src=me.mac, dst=BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255")
                      / UDP(sport=68, dport=67) / BOOTP(**bootp)
                      / DHCP(options=[("message-type", "discover"), "end"])] * n),
    ]


def ipv6(me, sibling, other, gateway, outside, n):
    to_gateway = {"src": me.mac, "dst": gateway.mac}
    all_nodes = {"src": me.mac, "dst": "33:33:00:00:00:01"}
    # SI6's tools forge the MAC too if the IPv6 source is forged, unless the MAC is given.
    as_me = f"-i eth0 -S {me.mac}"
    return [
        Attack("TCP SYN from another tenant's address", "ipv6-source",
               "ip6 proto 6 and ip6[42:2] = 41201",
               tool=f"atk6-thcsyn6 -i 2000 -s {other.ipv6} eth0 {outside.ipv6} 41201",
               stop_after_s=0.4),
        Attack("smurf6: echo in the victim's name", "src-mac",
               f"icmp6 and ip6[40] = 128 and src host {sibling.ipv6} and dst host ff02::1",
               tool=f"atk6-smurf6 -i 2000 eth0 {sibling.ipv6}", stop_after_s=0.2),
        Attack("forged Packet Too Big", "ipv6-source",
               f"icmp6 and ip6[40] = 2 and src host {outside.ipv6}",
               tool=f"atk6-toobig6 -u eth0 {sibling.ipv6} {outside.ipv6} 1280", times=3),
        Attack("routing header type 0", "ipv6-chain", f"ip6[6] = 43 and src host {me.ipv6}",
               scapy=[Ether(**to_gateway) / IPv6(src=me.ipv6, dst=sibling.ipv6)
                      / IPv6ExtHdrRouting(type=0, addresses=[outside.ipv6])
                      / ICMPv6EchoRequest()] * n),
        Attack("a chain of 100 extension headers", "ipv6-chain",
               f"ip6[6] = 60 and src host {me.ipv6}",
               scapy=[Ether(**to_gateway)
                      / long_chain(IPv6(src=me.ipv6, dst=sibling.ipv6), 100)] * n),
        Attack("rogue DHCPv6 server", "dhcpv6-server", "ip6 proto 17 and ip6[40:2] = 547",
               scapy=[Ether(**to_gateway) / IPv6(src=me.link_local, dst=sibling.ipv6)
                      / UDP(sport=547, dport=546)
                      / DHCP6_Advertise(trid=1)] * n),
        Attack("MLD query: takes over as querier", "mld-query",
               f"ip6[6] = 0 and ip6[48] = 130 and src host {me.link_local}",
               tool="atk6-fake_mld6 eth0 query", times=3, stop_after_s=0.3),

        Attack("forged Router Advertisements", "router-advertisement",
               f"icmp6 and ip6[40] = 134 and src host {me.link_local}",
               tool=f"atk6-fake_router26 -R 2001:db8:bad::/48 -n {n} -i 0 eth0"),
        Attack("RA with a forged DNS server", "router-advertisement",
               f"icmp6 and ip6[40] = 134 and src host {me.link_local}",
               tool=f"ra6 {as_me} -s {me.link_local} -d ff02::1 -N 1200#{me.ipv6} -e", times=n),
        Attack("RA behind a hop-by-hop header", "router-advertisement",
               f"ip6[6] = 0 and src host {me.link_local} and ip6[48] = 134",
               tool=f"atk6-fake_router26 -E H1 -n {n} -i 0 eth0"),
        Attack("RA behind a header cut in two (RFC 7112)", "ipv6-fragment",
               # The rest of the packet, which by itself says nothing, is multicast and stays with
               # the gateway.
               f"ip6[6] = 44 and ip6[42:2] & 0xfff8 = 0 and src host {me.link_local}",
               arrives=f"ip6[6] = 44 and src host {me.link_local}",
               tool=f"atk6-fake_router26 -E D -n {n} -i 0 eth0"),
        Attack("RA in a fragment (RFC 6980)", "nd-malformed",
               f"ip6[6] = 44 and src host {me.link_local}",
               scapy=[Ether(**all_nodes) / IPv6(src=me.link_local, dst="ff02::1", hlim=255)
                      / IPv6ExtHdrFragment(id=41207) / ICMPv6ND_RA()] * n),
        Attack("a flood of Router Advertisements", "src-mac",
               # Its packets are the only advertisements so long. Half of its random MACs are
               # groups' and are dropped for that: only the others are counted as sent, but all if
               # they arrive.
               "icmp6 and ip6[40] = 134 and greater 400 and ether[6] & 1 = 0",
               arrives="icmp6 and ip6[40] = 134 and greater 400",
               tool="atk6-flood_router26 eth0", stop_after_s=0.3, paced=True),
        Attack("kills the router: its RA with lifetime 0", "ipv6-source",
               f"icmp6 and ip6[40] = 134 and ip6[46:2] = 0 and src host {gateway.link_local}",
               tool=f"atk6-kill_router6 eth0 {gateway.link_local}", times=3, stop_after_s=0.3),
        Attack("Redirect in the gateway's name and MAC", "src-mac",
               f"icmp6 and ip6[40] = 137 and src host {gateway.link_local}",
               tool=f"atk6-redir6 eth0 {sibling.ipv6} {outside.ipv6} {gateway.link_local} "
                    f"{me.link_local}", times=3),
        Attack("a flood of Redirects", "redirect",
               f"icmp6 and ip6[40] = 137 and src host {me.link_local}",
               tool="atk6-flood_redir6 eth0", stop_after_s=0.3, paced=True),

        Attack("Neighbour Advertisements for a neighbour", "nd-spoof",
               f"icmp6 and ip6[40] = 136 and src host {me.ipv6} "
               f"and ip6[60:4] = {last_32_bits(sibling.ipv6)}",
               tool=f"na6 {as_me} -s {me.ipv6} -d ff02::1 -t {sibling.ipv6} -E {me.mac} -o",
               times=n),
        Attack("Neighbour Advertisements in its name", "ipv6-source",
               f"icmp6 and ip6[40] = 136 and src host {sibling.ipv6} and dst host ff02::1",
               tool=f"atk6-fake_advertise6 -n {n} -w 0 eth0 {sibling.ipv6}"),
        Attack("a flood of Neighbour Advertisements", "ipv6-source",
               "icmp6 and ip6[40] = 136 and dst host ff02::1",
               tool="atk6-flood_advertise6 -k eth0", stop_after_s=0.3, paced=True),
        Attack("DAD denial: probes for its address", "nd-spoof",
               "icmp6 and ip6[40] = 135 and src host :: "
               f"and ip6[60:4] = {last_32_bits(sibling.ipv6)}",
               tool=f"ns6 {as_me} -s :: -d ff02::1 -t {sibling.ipv6}", times=n),
        Attack("Solicitation with a neighbour's MAC", "nd-spoof",
               f"icmp6 and ip6[40] = 135 and src host {me.ipv6} and dst host ff02::1 "
               "and ip6[7] = 255",
               tool=f"ns6 {as_me} -s {me.ipv6} -d ff02::1 -t {gateway.ipv6} -E {sibling.mac}",
               times=n),
        Attack("Solicitation that came over a router", "nd-malformed",
               f"icmp6 and ip6[40] = 135 and ip6[7] < 255 and src host {me.ipv6}",
               scapy=[Ether(**all_nodes) / IPv6(src=me.ipv6, dst="ff02::1", hlim=64)
                      / ICMPv6ND_NS(tgt=sibling.ipv6)] * n),
    ]


def routes(me, sibling, other_switch, gateway, n):
    """A valid source, but a destination that tenants must not reach."""
    to_gateway = {"src": me.mac, "dst": gateway.mac}
    own_broadcast = me.ipv4.rsplit(".", 1)[0] + ".255"
    unassigned = me.ipv4.rsplit(".", 1)[0] + ".77"
    pace = f"-c {n} -i u2000 -q"
    return [
        Attack("to another tenant's switch, by VXLAN's port", "underlay", "udp dst port 4789",
               tool=f"hping3 {pace} --udp -p 4789 {other_switch.ipv4}"),
        Attack("to another tenant's switch, over IPv6", "underlay",
               f"ip6 proto 17 and ip6[42:2] = 41302 and dst host {other_switch.ipv6}",
               scapy=[Ether(**to_gateway) / IPv6(src=me.ipv6, dst=other_switch.ipv6)
                      / UDP(sport=9, dport=41302)] * n),
        Attack("port scan of the gateway", "gateway-service", f"tcp and dst host {gateway.ipv4}",
               tool=f"hping3 {pace} -S -p ++1 {gateway.ipv4}"),
        Attack("to a neighbour's link-local address", "link-local-ip",
               f"ip6 proto 17 and ip6[42:2] = 41304 and dst host {sibling.link_local}",
               scapy=[Ether(**to_gateway) / IPv6(src=me.link_local, dst=sibling.link_local)
                      / UDP(sport=9, dport=41304)] * n),
        Attack("unicast IP in an Ethernet broadcast", "dst-mac", "udp dst port 41305",
               scapy=[Ether(src=me.mac, dst=BROADCAST) / IP(src=me.ipv4, dst=sibling.ipv4)
                      / UDP(sport=9, dport=41305)] * n),
        Attack("mDNS to all neighbours", "multicast", f"udp dst port 5353 and src host {me.ipv4}",
               scapy=[Ether(src=me.mac, dst="01:00:5e:00:00:fb")
                      / IP(src=me.ipv4, dst="224.0.0.251")
                      / UDP(sport=5353, dport=5353)] * n),
        Attack("ARP scan for what is not there", "arp-unknown",
               f"arp[24:4] = 0x{hex_ipv4(unassigned)}",
               tool=f"arping -i eth0 -q -c {n} -W 0.01 {unassigned}"),
        Attack("broadcast storm", "rate-broadcast",
               f"udp dst port 41308 and dst host {own_broadcast}",
               scapy=[Ether(src=me.mac, dst=BROADCAST) / IP(src=me.ipv4, dst=own_broadcast)
                      / UDP(sport=9, dport=41308)] * 500, over_limit=True),
        Attack("ARP storm", "rate-arp-nd",
               f"{arp_from(me.mac, me.ipv4)} and arp[24:4] = 0x{hex_ipv4(gateway.ipv4)}",
               scapy=[Ether(src=me.mac, dst=BROADCAST)
                      / ARP(op=1, hwsrc=me.mac, psrc=me.ipv4, pdst=gateway.ipv4)] * 300,
                      over_limit=True),
    ]


def from_outside(me, sibling, outside, uplink, n):
    """Attacks from the underlay on the tenant's uplink."""
    to_uplink = {"src": outside.mac, "dst": uplink.mac}
    attacks = [
        Attack("from outside, with an inside source", "ingress-source", "udp dst port 41401",
               scapy=[Ether(**to_uplink) / IP(src=sibling.ipv4, dst=me.ipv4)
                      / UDP(sport=9, dport=41401)] * n),
        Attack("the same over IPv6", "ingress-source", "ip6 proto 17 and ip6[42:2] = 41402",
               scapy=[Ether(**to_uplink) / IPv6(src=sibling.ipv6, dst=me.ipv6)
                      / UDP(sport=9, dport=41402)] * n),
        Attack("in transit through a tenant", "no-transit", "udp dst port 41403",
               scapy=[Ether(**to_uplink) / IP(src=outside.ipv4, dst="203.0.113.1")
                      / UDP(sport=9, dport=41403)] * n),
        Attack("DHCP offers from the underlay", "dhcp-server", "udp src port 67",
               scapy=[Ether(**to_uplink) / IP(src=outside.ipv4, dst=me.ipv4)
                      / UDP(sport=67, dport=68)
                      / BOOTP(op=2)] * n),
        Attack("Router Advertisements from the underlay", "router-advertisement",
               f"icmp6 and ip6[40] = 134 and src host {outside.link_local}",
               scapy=[Ether(**to_uplink) / IPv6(src=outside.link_local, dst="ff02::1", hlim=255)
                      / ICMPv6ND_RA()] * n),
    ]
    return [dataclasses.replace(attack, attacker=outside) for attack in attacks]


def long_chain(packet, headers):
    """The packet with this many empty destination options and an echo request after them."""
    for _ in range(headers):
        packet /= IPv6ExtHdrDestOpt()
    return packet / ICMPv6EchoRequest()


def hex_ipv4(address):
    return "".join(f"{int(part):02x}" for part in address.split("."))


def last_32_bits(ipv6):
    """The end of an address, as filters compare it."""
    return "0x" + ipaddress.IPv6Address(ipv6).packed[-4:].hex()


def all_attacks(me, sibling, other, gateway, outside, uplink, other_switch, n):
    """Every attack, `n` frames each if the tool has an option: `me` attacks, and is attacked from
    outside."""
    return [
        *ethernet(me, sibling, gateway, n),
        *arp(me, sibling, gateway, n),
        *ipv4(me, sibling, other, gateway, outside, n),
        *ipv6(me, sibling, other, gateway, outside, n),
        *routes(me, sibling, other_switch, gateway, n),
        *from_outside(me, sibling, outside, uplink, n),
    ]
