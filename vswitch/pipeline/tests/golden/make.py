#!/usr/bin/python3
"""Makes the captures that tests/golden.rs plays into a switch, with scapy.

Each scenario is a folder: config.json (a SwitchConfig), in-PORT.pcap (the frames that PORT sends,
with their times), and what the test compares: out-PORT.pcap (the frames that PORT receives) and
counters.json. This script writes the first two; the test writes the others if GOLDEN_UPDATE is
set. To change a scenario:

    vswitch/pipeline/tests/golden/make.py
    GOLDEN_UPDATE=1 cargo test -p pipeline --test golden
    git diff --stat    # and read counters.json: it lists what each frame got

The frames are built by scapy, not by the builders of the tests, so that a mistake is not made
twice.
"""

import hashlib
import ipaddress
import json
import pathlib
from socket import inet_aton

from scapy.all import (
    ARP, BOOTP, DHCP, DNS, DNSQR, Dot1Q, Dot3, Ether, GRE, ICMP, IP, IPOption_LSRR, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, ICMPv6EchoRequest,
    ICMPv6EchoReply, ICMPv6MLQuery, ICMPv6PacketTooBig, ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_NS,
        ICMPv6ND_RA, ICMPv6ND_RS,
    ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr, ICMPv6NDOptPrefixInfo, ICMPv6NDOptSrcLLAddr, LLC, PadN,
    Raw, SNAP, STP, TCP, UDP, Padding, fragment, mac2str, wrpcap,
)
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.lldp import (
    LLDPDU, LLDPDUChassisID, LLDPDUEndOfLLDPDU, LLDPDUPortID, LLDPDUTimeToLive,
)
from scapy.layers.inet6 import RouterAlert
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.vxlan import VXLAN

HERE = pathlib.Path(__file__).parent

VM1, VM2, VM3 = ("52:54:00:aa:00:%02x" % n for n in (1, 2, 3))
GW1, GW2, GW3 = ("02:00:13:89:00:%02x" % n for n in (1, 2, 3))
UPLINK, ROUTER = "02:00:13:89:00:00", "02:00:00:00:00:fe"
ALL = "ff:ff:ff:ff:ff:ff"
IP1, IP2, IP3, GATEWAY, EXTERNAL = "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.1", "198.51.100.7"
SIX1, SIX2, SIXGW = "fd00:0:0:1::11", "fd00:0:0:1::12", "fd00:0:0:1::1"
EXTERNAL6 = "2001:db8:ffff::7"
NEXT_HOP, UPLINK_IP = "192.0.2.1", "192.0.2.2"
NEXT_HOP6, UPLINK6 = "2001:db8::1", "2001:db8::2"
LL1 = "fe80::5054:ff:feaa:1"
METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"


def source_port(vtep, source, destination, protocol, sport, dport):
    """The UDP source port of an inner IPv4 flow towards that VTEP, of a switch without a secret."""
    def mixed(word):
        product = word * 0x9e3779b97f4a7c15 % 2**64
        return product ^ product >> 32

    addresses = int.from_bytes(inet_aton(source) + inet_aton(destination), "big")
    flow = mixed(addresses ^ mixed((sport << 16 | dport) << 8 | protocol))
    digest = hashlib.sha256(bytes(32) + ipaddress.ip_address(vtep).packed).digest()
    mask, multiplier = (int.from_bytes(digest[at:at + 8], "big") for at in (0, 8))
    return 0xc000 | (flow ^ mask) * (multiplier | 1) % 2**64 >> 50


def config(**of_vm1):
    """Two VMs and a DHCP server behind one switch with an uplink."""
    def port(number, **more):
        return {
            "name": f"vm{number}",
            "device": {"driver": "offline"},
            "gateway_mac": f"02:00:13:89:00:{number:02x}",
            "mac": f"52:54:00:aa:00:{number:02x}",
            "addresses": [f"10.0.0.1{number}/32", f"fd00:0:0:1::1{number}/128"],
            **more,
        }
    return {
        "tenant": "red",
        "vni": 5001,
        "gateway": {"ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64"},
        "ports": [port(1, **of_vm1), port(2), port(3, dhcp_server=True)],
        "uplink": {
            "device": {"driver": "offline"},
            "mac": UPLINK,
            "ipv4": "192.0.2.2/24",
            "ipv6": "2001:db8::2/64",
            "next_hops": {"ipv4": NEXT_HOP, "ipv6": NEXT_HOP6},
        },
    }


class Scenario:
    """Frames by port, each with its time; a millisecond lies between two."""

    def __init__(self, name, switch):
        self.folder = HERE / name
        self.switch = switch
        self.frames = {}
        self.now_ms = 1000

    def send(self, port, *frames, every_ms=1):
        for frame in frames:
            frame = Ether(bytes(frame)) if not isinstance(frame, Dot3) else frame
            frame.time = self.now_ms / 1000
            self.frames.setdefault(port, []).append(frame)
            self.now_ms += every_ms

    def wait_ms(self, time_ms):
        self.now_ms += time_ms

    def write(self):
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(self.switch, indent=2) + "\n")
        for port, frames in self.frames.items():
            wrpcap(str(self.folder / f"in-{port}.pcap"), frames, linktype=1)


def from_vm1(packet, to=GW1):
    return Ether(src=VM1, dst=to) / packet


def from_vm2(packet, to=GW2):
    return Ether(src=VM2, dst=to) / packet


def from_outside(packet, to=UPLINK):
    return Ether(src=ROUTER, dst=to) / packet


def ns(source, target, mac=VM1):
    """A Neighbor Solicitation of vm1."""
    group = "ff02::1:ff" + target.rpartition(":")[2].rjust(6, "0")[-6:]
    group = {"11": "ff02::1:ff00:11", "12": "ff02::1:ff00:12", "1": "ff02::1:ff00:1"}.get(
        target.rpartition(":")[2], "ff02::1:ff00:0")
    message = IPv6(src=source, dst=group, hlim=255) / ICMPv6ND_NS(tgt=target)
    if source != "::":
        message /= ICMPv6NDOptSrcLLAddr(lladdr=mac)
    return Ether(src=VM1, dst="33:33:ff:00:00:01") / message


def dhcp(kind, **more):
    return BOOTP(op=1, chaddr=mac2str(VM1), xid=0x1234, **more) / DHCP(
        options=[("message-type", kind), "end"])


def conversation():
    """Valid traffic of two VMs and an external address."""
    metadata = {"instance_id": "i-1", "hostname": "vm1"}
    play = Scenario("conversation", config(metadata=metadata))
    # The router answers the switch's question for its MAC.
    play.send("uplink",
              from_outside(ARP(op=2, hwsrc=ROUTER, psrc=NEXT_HOP, hwdst=UPLINK, pdst=UPLINK_IP)),
              from_outside(IPv6(src=NEXT_HOP6, dst=UPLINK6, hlim=255)
                         / ICMPv6ND_NA(tgt=NEXT_HOP6, R=1, S=1, O=1)
                         / ICMPv6NDOptDstLLAddr(lladdr=ROUTER)))
    # vm1 boots: DHCP, probe, announcement, duplicate detection, MLD, router solicitation.
    play.send("vm1",
              from_vm1(IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
                       / dhcp("discover"), to=ALL))
    offer = BOOTP(op=2, yiaddr=IP1, siaddr=IP3, chaddr=mac2str(VM1), xid=0x1234) / DHCP(
        options=[("message-type", "offer"), ("server_id", IP3), "end"])
    play.send("vm3", Ether(src=VM3, dst=ALL) / IP(src=IP3, dst="255.255.255.255")
              / UDP(sport=67, dport=68) / offer)
    play.send("vm1",
              from_vm1(ARP(op=1, hwsrc=VM1, psrc="0.0.0.0", pdst=IP1), to=ALL),
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=IP1), to=ALL),
              ns("::", SIX1),
              from_vm1(IPv6(src="::", dst="ff02::16", hlim=1)
                       / IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN()]) / ICMPv6MLReport2(),
                       to="33:33:00:00:00:16"),
              from_vm1(IPv6(src=LL1, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
                       / ICMPv6NDOptSrcLLAddr(lladdr=VM1), to="33:33:00:00:00:02"))
    # It looks for its neighbours, who all have the gateway's MAC.
    play.send("vm1",
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=GATEWAY), to=ALL),
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=IP2), to=ALL),
              ns(SIX1, SIXGW), ns(SIX1, SIX2))
    # ping, at the gateway and between the VMs.
    play.send("vm1", from_vm1(IP(src=IP1, dst=GATEWAY) / ICMP(id=7, seq=1) / b"ping"),
              from_vm1(IPv6(src=SIX1, dst=SIXGW) / ICMPv6EchoRequest(id=7, seq=1, data=b"ping")),
              from_vm1(IP(src=IP1, dst=IP2) / ICMP(id=7, seq=2) / b"ping"))
    play.send("vm2", from_vm2(IP(src=IP2, dst=IP1) / ICMP(type=0, id=7, seq=2) / b"ping"))
    # TCP between the VMs, the last segment padded to Ethernet's minimum.
    play.send("vm1", from_vm1(IP(src=IP1, dst=IP2) / TCP(sport=40000, dport=80, flags="S", seq=1)))
    play.send("vm2",
        from_vm2(IP(src=IP2, dst=IP1) / TCP(sport=80, dport=40000, flags="SA", seq=9, ack=2)))
    play.send("vm1",
        from_vm1(IP(src=IP1, dst=IP2) / TCP(sport=40000, dport=80, flags="A", seq=2, ack=10)
                              / Padding(b"\0" * 6)))
    # DNS to an external address, by both families, and a packet in fragments.
    question = DNS(id=3, qd=DNSQR(qname="example.org"))
    play.send("vm1", from_vm1(IP(src=IP1, dst=EXTERNAL) / UDP(sport=5353, dport=53) / question),
              from_vm1(IPv6(src=SIX1, dst=EXTERNAL6) / UDP(sport=5353, dport=53) / question))
    play.send("uplink",
        from_outside(IP(src=EXTERNAL, dst=IP1, ttl=50) / UDP(sport=53, dport=5353) / question),
              from_outside(IPv6(src=EXTERNAL6, dst=SIX1, hlim=50) / UDP(sport=53,
                  dport=5353) / question))
    whole = IP(src=IP1, dst=EXTERNAL, id=77) / UDP(sport=1000, dport=2000) / (b"long" * 600)
    play.send("vm1", *(from_vm1(part) for part in fragment(whole, fragsize=1480)))
    # traceroute's first packet, and a port without a service.
    play.send("vm1",
        from_vm1(IP(src=IP1, dst=EXTERNAL, ttl=1) / UDP(sport=1000, dport=33434) / b"trace"),
              from_vm1(IP(src=IP1, dst="10.0.0.99") / UDP(sport=1000, dport=9) / b"nobody"))
    # It asks for its metadata, by both families, and for something else there.
    play.send("vm1",
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=METADATA), to=ALL), ns(SIX1, METADATA6),
              from_vm1(IP(src=IP1, dst=METADATA) / TCP(sport=40001, dport=80, flags="S", seq=1)),
              from_vm1(IPv6(src=SIX1, dst=METADATA6)
                       / TCP(sport=40001, dport=80, flags="S", seq=1)),
              from_vm1(IP(src=IP1, dst=METADATA) / UDP(sport=1000, dport=53) / question))
    # The underlay pings the switch.
    play.send("uplink",
        from_outside(ARP(op=1, hwsrc=ROUTER, psrc=NEXT_HOP, pdst=UPLINK_IP), to=ALL),
              from_outside(IP(src=NEXT_HOP, dst=UPLINK_IP) / ICMP(id=9, seq=1) / b"alive?"))
    return play


def attacks():
    """One of each attack that is known against such filters, from vm1 and from outside."""
    play = Scenario("attacks", config(encapsulation="deny"))
    udp = UDP(sport=1000, dport=2000) / b"x"
    good = IP(src=IP1, dst=IP2) / udp
    good6 = IPv6(src=SIX1, dst=SIX2) / udp
    play.send("vm1",
              # Ethernet
              Ether(src=VM2, dst=GW1) / good,
              Ether(src="01:00:5e:00:00:01", dst=GW1) / good,
              Ether(src=VM1, dst=GW1) / Dot1Q(vlan=101) / good,
              Ether(src=VM1, dst=GW1) / Dot1Q(vlan=0) / good,
              Ether(src=VM1, dst=GW1, type=0x88a8) / Dot1Q(vlan=1) / Dot1Q(vlan=101) / good,
              Dot3(src=VM1, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
              Dot3(src=VM1, dst=GW1) / LLC(dsap=0xaa, ssap=0xaa, ctrl=3) / SNAP(code=0x0800) / good,
              Ether(src=VM1, dst="01:80:c2:00:00:0e", type=0x88cc)
              / LLDPDUChassisID(subtype=4, id=mac2str(VM1)) / LLDPDUPortID(subtype=3,
                  id=mac2str(VM1))
              / LLDPDUTimeToLive(ttl=120) / LLDPDUEndOfLLDPDU(),
              Ether(src=VM1, dst=ALL, type=0x8035) / ARP(op=3, hwsrc=VM1, hwdst=VM1),
              Ether(src=VM1, dst=GW1, type=0x8847) / b"\x00\x01\x01\x40",
              # ARP
              from_vm1(ARP(op=2, hwsrc=VM1, psrc=GATEWAY, hwdst=VM2, pdst=IP2), to=ALL),
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=GATEWAY, pdst=GATEWAY), to=ALL),
              from_vm1(ARP(op=2, hwsrc=VM2, psrc=IP1, hwdst=VM2, pdst=IP2), to=ALL),
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst="10.0.0.77"), to=ALL),
              # IPv4
              from_vm1(IP(src=IP2, dst=IP1) / udp),
              from_vm1(IP(src=GATEWAY, dst=IP2) / udp),
              from_vm1(IP(src="127.0.0.1", dst=IP2) / udp),
              from_vm1(IP(src=IP1, dst=IP2, options=[IPOption_LSRR(routers=["10.0.0.12"])]) / udp),
              from_vm1(IP(src=IP1, dst=IP2, chksum=1) / udp),
              from_vm1(IP(src=IP1, dst=IP2, flags="MF", proto=6) / b"\x00\x50\x00\x50tiny"),
              from_vm1(IP(src=IP1, dst=IP2, frag=1, proto=6) / b"overwrites the flags"),
              from_vm1(IP(src=IP1, dst=IP2) / UDP(sport=67, dport=68) / BOOTP(op=2,
                  chaddr=mac2str(VM2))),
              from_vm1(IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
                       / BOOTP(op=1, chaddr=mac2str(VM2)) / DHCP(options=["end"]), to=ALL),
              from_vm1(IP(src=IP1, dst=EXTERNAL) / IP(src=IP2, dst=IP1) / udp),
              from_vm1(IP(src=IP1, dst=EXTERNAL) / GRE() / IP(src=IP2, dst=IP1) / udp),
              from_vm1(IP(src=IP1, dst=EXTERNAL) / UDP(sport=1000, dport=3544) / b"teredo"),
              # IPv6
              from_vm1(IPv6(src=SIX2, dst=SIX1) / udp),
              from_vm1(IPv6(src=SIX1, dst=SIX2) / IPv6ExtHdrRouting(type=0,
                  addresses=[SIX2]) / udp),
              from_vm1(IPv6(src=SIX1, dst=SIX2) / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / udp),
              from_vm1(IPv6(src=SIX1, dst=SIX2, nh=60) / Raw(b"\x3c\0\x01\x04\0\0\0\0" * 9) / udp),
              from_vm1(IPv6(src=SIX1, dst=SIX2) / IPv6ExtHdrFragment(nh=6, m=1) / b"\x00\x50"),
              from_vm1(IPv6(src=SIX1, dst=SIX2) / UDP(sport=547, dport=546) / DHCP6_Advertise()),
              from_vm1(IPv6(src=SIX1, dst=EXTERNAL6, nh=41) / good6),
              # Neighbour Discovery
              from_vm1(IPv6(src=LL1, dst="ff02::1", hlim=255) / ICMPv6ND_RA()
                       / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::"), to="33:33:00:00:00:01"),
              from_vm1(IPv6(src=LL1, dst="ff02::1", hlim=255) / IPv6ExtHdrFragment()
                       / ICMPv6ND_RA(), to="33:33:00:00:00:01"),
              from_vm1(IPv6(src=LL1, dst=SIX2, hlim=255) / ICMPv6ND_Redirect(tgt=LL1,
                  dst=EXTERNAL6)),
              from_vm1(IPv6(src=SIX1, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=SIX2, R=0, O=1)
                       / ICMPv6NDOptDstLLAddr(lladdr=VM1), to="33:33:00:00:00:01"),
              ns(SIX1, SIXGW, mac=VM2),
              ns("::", SIX2),
              from_vm1(IPv6(src=SIX1, dst=SIX2, hlim=64) / ICMPv6ND_NS(tgt=SIX2)),
              from_vm1(IPv6(src=LL1, dst="ff02::1", hlim=1) / ICMPv6MLQuery(),
                  to="33:33:00:00:00:01"),
              # Destinations that are closed
              from_vm1(IP(src=IP1, dst=NEXT_HOP) / udp),
              from_vm1(IP(src=IP1, dst="169.254.169.254") / udp),
              from_vm1(IP(src=IP1, dst="224.0.0.251") / udp, to="01:00:5e:00:00:fb"),
              from_vm1(good, to=ALL))
    play.send("uplink",
              from_outside(IP(src=IP2, dst=IP1) / udp),
              from_outside(IP(src=GATEWAY, dst=IP1) / udp),
              from_outside(IPv6(src=SIX2, dst=SIX1) / udp),
              from_outside(IP(src=EXTERNAL, dst=IP1) / UDP(sport=67, dport=68) / BOOTP(op=2)),
              from_outside(IPv6(src=EXTERNAL6, dst=SIX1) / UDP(sport=547, dport=546)),
              from_outside(IPv6(src=NEXT_HOP6, dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
                         to="33:33:00:00:00:01"),
              from_outside(ARP(op=2, hwsrc=ROUTER, psrc="192.0.2.77", pdst=UPLINK_IP)),
              from_outside(IP(src=EXTERNAL, dst="203.0.113.9") / udp),
              from_outside(IP(src=EXTERNAL, dst=UPLINK_IP) / TCP(sport=1, dport=22)),
              from_outside(IP(src=EXTERNAL, dst=IP1, options=[IPOption_LSRR(routers=[IP2])]) / udp))
    # None of which keeps the good from passing.
    play.send("vm1", from_vm1(good), from_vm1(good6))
    return play


def storm():
    """vm1 over each of its limits; its neighbour notices nothing."""
    play = Scenario("storm", config(limits={
        "broadcast_pps": 20, "arp_nd_pps": 10, "dhcp_pps": 5, "pps": 40, "bps": 100000}))
    hello = UDP(sport=1000, dport=2000) / b"hello"
    for _ in range(12):
        play.send("vm1", from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=GATEWAY)))
        play.send("vm2", from_vm2(IP(src=IP2, dst=IP1) / hello))
    play.wait_ms(2000)
    for _ in range(7):
        play.send("vm1", from_vm1(IP(src=IP1, dst=IP3) / UDP(sport=68, dport=67)
                                    / dhcp("request", ciaddr=IP1)))
    play.wait_ms(2000)
    for _ in range(25):
        play.send("vm1", from_vm1(IP(src=IP1, dst="255.255.255.255") / hello, to=ALL))
    play.wait_ms(2000)
    for _ in range(50):
        play.send("vm1", from_vm1(IP(src=IP1, dst=IP2) / hello))
    play.wait_ms(2000)
    for _ in range(12):
        play.send("vm1",
            from_vm1(IP(src=IP1, dst=IP2) / UDP(sport=1000, dport=2000) / (b"x" * 1400)))
    # Half a second later half of each bucket is refilled.
    play.wait_ms(500)
    for _ in range(12):
        play.send("vm1",
            from_vm1(IP(src=IP1, dst=IP2) / UDP(sport=1000, dport=2000) / (b"x" * 1400)))
        play.send("vm2", from_vm2(IP(src=IP2, dst=IP1) / hello))
    return play


SIDE, FAR, FAR2 = "0e:00:00:00:00:02", "0e:00:00:00:00:66", "0e:00:00:00:00:81"
IP71, IP81, SIX71 = "10.0.0.71", "10.0.0.81", "fd00:0:0:1::71"


def tunnel(name, kind, six):
    """A VM and its siblings behind two other hosts, one of them behind a router, and what attackers
    on the underlay try."""
    switch = config()
    ours, b, c, router, stranger = (
        (UPLINK6, "2001:db8::66", "2001:db8:c::9", "2001:db8::fe", EXTERNAL6) if six
        else (UPLINK_IP, "192.0.2.66", "203.0.113.9", "192.0.2.254", EXTERNAL))
    port = {"geneve": 6081, "vxlan": 4789}[kind]
    switch["uplink"]["mtu"] = 1550
    switch["tunnel"] = {
        "kind": kind, "vtep": ours, "port": port, "mac": SIDE, "udp_checksum": six,
            "mss_clamp": six,
        "peers": [
            {"name": "host-b", "vtep": b, "mac": FAR, "next_hop": b,
                "prefixes": [IP71 + "/32", SIX71 + "/128"]},
            {"name": "host-c", "vtep": c, "mac": FAR2, "next_hop": router,
             "prefixes": [IP81 + "/32", "10.0.8.0/24"]},
        ],
    }
    play = Scenario(name, switch)

    def header(vni=5001, **more):
        if kind == "geneve":
            return GENEVE(vni=vni, proto=0x6558, **more)
        return VXLAN(flags=0x08, vni=vni, **more)

    def under(packet, source=b, **more):
        outer = IPv6(src=source, dst=ours, **more) if six else IP(src=source, dst=ours, **more)
        return from_outside(outer / UDP(sport=51000, dport=port) / packet)

    def over(packet, source=b, mac=FAR, to=SIDE, **more):
        return under(header() / Ether(src=mac, dst=to) / packet, source, **more)

    udp = UDP(sport=1000, dport=2000) / b"hello"
    back = UDP(sport=2000, dport=1000) / b"hello"
    # No next hop has answered yet; then both do.
    play.send("vm1", from_vm1(IP(src=IP1, dst=IP71) / udp))
    if six:
        play.send("uplink", *(
            from_outside(IPv6(src=hop, dst=UPLINK6, hlim=255) / ICMPv6ND_NA(tgt=hop, S=1, O=1)
                       / ICMPv6NDOptDstLLAddr(lladdr=mac))
            for hop, mac in ((b, "02:00:00:00:00:66"), (router, ROUTER))))
    else:
        play.send("uplink", *(
            Ether(src=mac, dst=UPLINK) / ARP(op=2, hwsrc=mac, psrc=hop, hwdst=UPLINK,
                pdst=UPLINK_IP)
            for hop, mac in ((b, "02:00:00:00:00:66"), (router, ROUTER))))
    # vm1 looks for its siblings, and speaks to them.
    play.send("vm1",
              from_vm1(ARP(op=1, hwsrc=VM1, psrc=IP1, pdst=IP71), to=ALL), ns(SIX1, SIX71),
              from_vm1(IP(src=IP1, dst=IP71) / ICMP(id=7, seq=1) / b"ping"),
              from_vm1(IPv6(src=SIX1, dst=SIX71) / ICMPv6EchoRequest(id=7, seq=1, data=b"ping")),
              from_vm1(IP(src=IP1, dst=IP81, tos=0xbb, ttl=3) / udp / Padding(b"\0" * 6)),
              from_vm1(IP(src=IP1, dst="10.0.8.8")
                       / TCP(sport=40000, dport=80, flags="S",
                           options=[("MSS", 9000), ("SAckOK", b"")])))
    # They answer, and look for vm1 and the gateway.
    play.send("uplink",
              over(IP(src=IP71, dst=IP1) / ICMP(type=0, id=7, seq=1) / b"ping"),
              over(IPv6(src=SIX71, dst=SIX1) / ICMPv6EchoReply(id=7, seq=1, data=b"ping")),
              over(IP(src=IP81, dst=IP1, tos=2) / back, source=c, mac=FAR2,
                  **({"tc": 3} if six else {"tos": 3})),
              over(IP(src="10.0.8.8", dst=IP1)
                   / TCP(sport=80, dport=40000, flags="SA", options=[("MSS", 9000)]), source=c),
              over(ARP(op=1, hwsrc=FAR, psrc=IP71, pdst=IP1), to=ALL),
              over(ARP(op=2, hwsrc=FAR, psrc=IP71, hwdst=SIDE, pdst=IP1)),
              over(IPv6(src=SIX71, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=SIXGW)
                   / ICMPv6NDOptSrcLLAddr(lladdr=FAR), to="33:33:ff:00:00:01"),
              over(IP(src=IP71, dst=GATEWAY) / ICMP(id=8, seq=1) / b"alive?"))
    if kind == "geneve":
        play.send("uplink",
            under(header(options=[GeneveOptions(classid=1, type=1, data=b"skip")], optionlen=2)
                                  / Ether(src=FAR, dst=SIDE) / IP(src=IP71, dst=IP1) / back))
    # What is refused.
    good = Ether(src=FAR, dst=SIDE) / IP(src=IP71, dst=IP1) / back
    outer = IPv6(src=b, dst=ours) if six else IP(src=b, dst=ours)
    play.send("uplink",
              under(header() / good, source=stranger),
              under(header(vni=5002) / good),
              under(Raw(bytes(header())[:7])),
              from_outside(outer / UDP(sport=51000, dport=port, chksum=0x1234) / header() / good),
              from_outside(outer / UDP(sport=51000, dport=port, len=600,
                  chksum=0) / header() / good),
              from_outside((IPv6(src=b, dst=ours) / IPv6ExtHdrFragment(m=1, nh=17) if six
                          else IP(src=b, dst=ours, flags="MF"))
                         / UDP(sport=51000, dport=port, chksum=0) / header() / good),
              over(IP(src=IP81, dst=IP1) / back),
              over(IP(src=IP2, dst=IP1) / back),
              over(IP(src=EXTERNAL, dst=IP1) / back),
              over(IP(src=IP71, dst=IP81) / back),
              over(IP(src=IP71, dst=EXTERNAL) / back),
              over(IP(src=IP71, dst=IP1) / back, to=VM1),
              over(IP(src=IP71, dst=IP1) / back, to=ALL),
              over(Dot1Q(vlan=100) / IP(src=IP71, dst=IP1) / back),
              over(IP(src=IP71, dst=IP1) / back, **({"tc": 3} if six else {"tos": 3})),
              over(IP(src=IP71, dst=IP1) / UDP(sport=9, dport=4789) / VXLAN(vni=5001) / good),
              over(IP(src=IP71, dst=IP1) / UDP(sport=67, dport=68) / BOOTP(op=2,
                  chaddr=mac2str(VM1))),
              over(IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
                  to="33:33:00:00:00:01"),
              over(ARP(op=1, hwsrc=FAR, psrc=IP1, pdst=IP1), to=ALL),
              from_outside(IP(src=IP71, dst=IP1) / back),
              from_outside(IP(src=EXTERNAL, dst=IP71) / back))
    if kind == "geneve":
        play.send("uplink",
                  under(header(options=[GeneveOptions(classid=1, type=0x81, data=b"must")],
                      optionlen=2) / good),
                  under(header(oam=1) / good))
    else:
        play.send("uplink", under(VXLAN(flags=0, vni=5001) / good))
    play.send("vm1",
              from_vm1(IP(src=IP1, dst=IP71) / UDP(sport=9, dport=6081) / b"nested"),
              from_vm1(IP(src=IP2, dst=IP71) / udp))
    # Somebody reports a packet of ours as too big that he has not seen; then a router of the
    # underlay, which has a narrow link, reports one that it was given.
    large = IP(src=IP1, dst=IP71, flags="DF") / UDP(sport=1000, dport=2000) / (b"x" * 1400)

    def report(sport):
        sent = UDP(sport=sport, dport=port, **({} if six else {"chksum": 0}))
        sent = sent / header() / Ether(src=SIDE, dst=FAR) / large
        if six:
            quote = bytes(IPv6(src=ours, dst=b) / sent)[:1232]
            return from_outside(IPv6(src=router, dst=ours) / ICMPv6PacketTooBig(mtu=1400) / quote)
        quote = bytes(IP(src=ours, dst=b, flags="DF", id=0) / sent)[:548]
        return from_outside(IP(src=router, dst=ours) / ICMP(type=3, code=4, nexthopmtu=1400)
                            / quote)

    play.send("vm1", from_vm1(large))
    play.send("uplink", report(51000))
    play.send("vm1", from_vm1(large))
    play.send("uplink", report(source_port(b, IP1, IP71, 17, 1000, 2000)))
    play.send("vm1", from_vm1(large))
    return play


for scenario in (conversation(), attacks(), storm(), tunnel("geneve", "geneve", six=False),
                 tunnel("vxlan", "vxlan", six=True)):
    scenario.write()
