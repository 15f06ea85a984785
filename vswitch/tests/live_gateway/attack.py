#!/usr/bin/python3
"""Sends frames that must not pass a tunnel, one case after another, with scapy.

    attack.py INTERFACE vxlan|geneve 4|6

For each case it prints `NAME<TAB>REASON<TAB>FRAMES` after sending the frames, then reads a line.
REASON is the one of docs/reference/tunnel.md; FRAMES is their number. The last case is harmless:
its reason is empty, and it must arrive. Frames that must not arrive contain the word ATTACK.
"""

import errno
import socket
import sys
import time

from scapy.all import (
    ARP, Dot1Q, Dot3, Ether, ICMP, ICMPv6EchoRequest, ICMPv6MLQuery, ICMPv6ND_NA, ICMPv6ND_NS,
    ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig,
    IP, IPOption_LSRR, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrRouting, LLC, Raw, UDP, get_if_hwaddr,
)
from scapy.contrib.geneve import GENEVE
from scapy.layers.vxlan import VXLAN

INTERFACE, KIND, FAMILY = sys.argv[1], sys.argv[2], int(sys.argv[3])
VNI, PORT = 5001, {"vxlan": 4789, "geneve": 6081}[KIND]
UPLINK, TUNNEL, FAR_MAC = "02:00:13:89:00:00", "0e:00:13:89:00:02", "52:54:00:bb:00:71"
ALL = "ff:ff:ff:ff:ff:ff"
OURS, FAR, FAR2, NOBODY = (
    [f"192.0.2.{n}" for n in (2, 66, 67, 99)] if FAMILY == 4 else
    [f"2001:db8::{n}" for n in (2, 66, 67, 99)])
ME = get_if_hwaddr(INTERFACE)
MARK = Raw(b"ATTACK " * 4)
UDP_FOLLOWS = {"proto": 17} if FAMILY == 4 else {"nh": 17}

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((INTERFACE, 0))


def send(frame):
    """Retries while the CPU's queue between interfaces, which the whole machine shares, is full."""
    for _ in range(1000):
        try:
            return wire.send(frame)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(0.01)
    sys.exit("the kernel's queue stays full")


def case(name, reason, *frames):
    for frame in frames:
        send(bytes(frame))
    print(name, reason, len(frames), sep="\t", flush=True)
    if not sys.stdin.readline():
        sys.exit(1)


def under(source=FAR, **fields):
    """The outer Ethernet and IP headers."""
    if FAMILY == 4:
        if "ecn" in fields:
            fields["tos"] = fields.pop("ecn")
        return Ether(src=ME, dst=UPLINK) / IP(src=source, dst=OURS, **fields)
    if "ecn" in fields:
        fields["tc"] = fields.pop("ecn")
    return Ether(src=ME, dst=UPLINK) / IPv6(src=source, dst=OURS, **fields)


def header(vni=VNI, **fields):
    if KIND == "vxlan":
        return VXLAN(vni=vni, **({"flags": 8} | fields))
    return GENEVE(vni=vni, **({"proto": 0x6558} | fields))


def udp(**fields):
    return UDP(**({"sport": 55555, "dport": PORT} | fields))


def tunnelled(inner, outer=None, **fields):
    return (outer or under()) / udp() / header(**fields) / inner


def inside(source="10.0.0.71", destination="10.0.0.11", payload=None, ether=None, **fields):
    """A frame of the peer's VM."""
    ethernet = Ether(src=FAR_MAC, dst=TUNNEL, **(ether or {}))
    payload = UDP(sport=4000, dport=4000) / MARK if payload is None else payload
    if ":" in destination:
        return ethernet / IPv6(src=six(source), dst=destination, **fields) / payload
    return ethernet / IP(src=source, dst=destination, **fields) / payload


def six(source):
    return "fd00:0:0:1::71" if source == "10.0.0.71" else source


def inside6(source="fd00:0:0:1::71", destination="fd00:0:0:1::11", **rest):
    return inside(source, destination, **rest)


BOTH = (inside(), inside6())


def each(frames, **fields):
    return [tunnelled(frame, **fields) for frame in frames]


def cut(frame, at):
    """Its first bytes, cut behind the outer Ethernet header at the earliest."""
    return Raw(bytes(frame)[:at])


def tunnel_headers():
    for vni in (0, 1, VNI - 1, VNI + 1, VNI << 8 & 0xffffff, 0xffffff):
        case(f"VNI {vni}", "tunnel-vni", *each(BOTH, vni=vni))
    for source in (NOBODY, OURS[:-1] + "1"):
        case(f"unknown VTEP {source}", "tunnel-peer", *each(BOTH, outer=under(source)))
    if KIND == "vxlan":
        for flags in (0, 0xf7):
            case(f"flags {flags:#x}", "tunnel-malformed", *each(BOTH, flags=flags))
        return
    case("version 1", "tunnel-malformed", *each(BOTH, version=1))
    case("O flag", "tunnel-malformed", *map(oam, BOTH))
    for protocol in (0, 0x0800, 0x86dd, 0x6559):
        case(f"protocol {protocol:#x}", "tunnel-malformed", *each(BOTH, proto=protocol))
    option = b"\x01\x02\x03\x01ABCD"
    critical = b"\x01\x02\x83\x01ABCD"
    for name, options, flag in (
            ("C flag", b"", True), ("C flag with an option", option, True),
            ("critical bit", critical, False),
            ("critical bit in the last of many", option * 30 + critical, False),
            ("critical bit of an empty option", b"\x01\x02\x80\x00", False)):
        case(name, "tunnel-option", *[with_options(frame, options, flag) for frame in BOTH])
    for name, options in (
            ("an option beyond the options", b"\x01\x02\x03\x02ABCD"),
            ("an option far beyond", b"\x01\x02\x03\x1f" + b"ABCD" * 2),
            ("the second beyond", option + b"\x01\x02\x03\x1f")):
        case(name, "tunnel-truncated", *[with_options(frame, options) for frame in BOTH])
    whole = bytes(with_options(inside(), option))
    start = 14 + (20 if FAMILY == 4 else 40) + 8
    case("options beyond the packet", "tunnel-truncated",
         *[refit(whole, start + 8 + n) for n in range(len(option))],
         under() / udp() /
         Raw(bytes([0x3f, 0, 0x65, 0x58]) + VNI.to_bytes(3, "big") + b"\0" + b"ATTACK" * 5))


def oam(frame):
    """Scapy 2.5 has no name for the flags."""
    raw = bytearray(bytes(header()))
    raw[1] |= 0x80
    return under() / udp() / Raw(bytes(raw)) / frame


def with_options(frame, options, critical=False):
    raw = bytearray(bytes(header()))
    raw[0] |= len(options) // 4
    raw[1] |= 0x40 * critical
    return under() / udp() / Raw(bytes(raw) + options) / frame


def refit(frame, at):
    """The first bytes of a frame, with outer lengths and checksums to match."""
    start = 14 + (20 if FAMILY == 4 else 40) + 8
    return under() / udp() / Raw(frame[start:at])


def truncated():
    start = 14 + (20 if FAMILY == 4 else 40)
    for frame in BOTH:
        version = "ipv4" if IP in Ether(bytes(frame)) else "ipv6"
        whole = bytes(tunnelled(frame))
        last = len(whole) - len(MARK)
        outer = f"ipv{FAMILY}-malformed"
        case(f"{version} on the wire cut", outer, *[cut(whole, at) for at in range(14, last)])
        # The IP header has the new length; UDP's has the old one.
        for name, range_, reason in (
                ("within UDP's header", range(0, 8), outer),
                ("behind UDP's header", range(8, last - start), "tunnel-truncated")):
            case(f"{version} {name} cut", reason,
                 *[under(**UDP_FOLLOWS) / Raw(whole[start:start + n]) for n in range_])
        begin = start + 8
        for name, low, high, reason in (
                ("tunnel header", 0, 8, "tunnel-truncated"),
                ("inner Ethernet", 8, 8 + 14, "malformed"),
                ("inner packet", 8 + 14, last - begin, f"{version}-malformed")):
            case(f"{version} {name} cut", reason,
                 *[refit(whole, begin + n) for n in range(low, high)])
    case("UDP length below 8", "tunnel-truncated", *[short_udp(n) for n in range(8)])


def short_udp(length):
    whole = bytes(udp(len=length, chksum=0x1234) / header() / inside())
    return under(**UDP_FOLLOWS) / Raw(whole)


def underlay():
    case("wrong UDP checksum", "tunnel-checksum",
         *[under() / udp(chksum=1) / header() / frame for frame in BOTH])
    whole = bytearray(bytes(tunnelled(inside())))
    whole[-1] ^= 1
    if FAMILY == 6:
        case("a flipped bit", "tunnel-checksum", Raw(bytes(whole)))
        case("no UDP checksum", "tunnel-checksum",
             *[under() / udp(chksum=0) / header() / frame for frame in BOTH])
    case("congestion of a packet that cannot say so", "tunnel-ecn", *each(BOTH, outer=under(ecn=3)))
    fragments("first fragment", "tunnel-fragment", 0, True)
    fragments("an atomic or last first fragment", "tunnel-fragment", 0, FAMILY == 4)
    # Without a UDP header, a packet is only known to be for the VTEP.
    fragments("later fragment", "gateway-service", 64, True)
    fragments("last fragment", "gateway-service", 64, False)
    quoted = bytes(IP(src="192.0.2.2", dst="203.0.113.1") / UDP(sport=1, dport=PORT) /
                   Raw(b"x" * 8)) if FAMILY == 4 else \
        bytes(IPv6(src=OURS, dst="2001:db8:9::1") / UDP(sport=1, dport=PORT) / Raw(b"x" * 8))
    error = ICMP(type=3, code=4, nexthopmtu=576) if FAMILY == 4 else ICMPv6PacketTooBig(mtu=1280)
    case("a smaller path to nobody", "gateway-service", under(NOBODY) / error / Raw(quoted))
    forged_reports()
    case("plain, of a VM behind a peer", "ingress-source",
         Ether(src=ME, dst=UPLINK) / inside().payload,
         Ether(src=ME, dst=UPLINK) / inside6().payload)
    case("plain, to a VM behind a peer", "no-transit",
         Ether(src=ME, dst=UPLINK) / inside("203.0.113.9", "10.0.0.71").payload,
         Ether(src=ME, dst=UPLINK) / inside("2001:db8:9::9", "fd00:0:0:1::71").payload)


def forged_reports():
    """Reports of a smaller path MTU by somebody who has seen no packet of the tunnel."""
    inner = Ether(src=TUNNEL, dst=FAR_MAC) / IP(src="10.0.0.11", dst="10.0.0.71") / UDP(
        sport=5000, dport=5000) / Raw(b"x" * 1400)
    error = ICMP(type=3, code=4, nexthopmtu=1400) if FAMILY == 4 else ICMPv6PacketTooBig(mtu=1400)
    for name, sport, flags, length in (("at its shortest", 50000, "DF", 28 if FAMILY == 4 else 48),
                                       ("with the flow", 50000, "DF", 500),
                                       ("from port 1", 1, "DF", 500),
                                       ("without DF", 50000, 0, 500)):
        outer = IP(src=OURS, dst=FAR, id=0, flags=flags) if FAMILY == 4 else IPv6(src=OURS, dst=FAR)
        sum_of = {"chksum": 0} if FAMILY == 4 else {}
        sent = outer / UDP(sport=sport, dport=PORT, **sum_of) / header() / inner
        case(f"a smaller path, {name}", "gateway-service",
             under(NOBODY) / error / Raw(bytes(sent)[:length]))


def fragments(name, reason, offset, more):
    payload = bytes(udp() / header() / inside())
    if FAMILY == 4:
        if not offset and not more:
            return
        frame = under(frag=offset, flags="MF" if more else 0, proto=17)
        whole = bytes(tunnelled(inside()))[34:] if not offset else MARK.load * 2
        case(name, reason, frame / Raw(whole[:len(whole) // 8 * 8]))
        return
    whole = bytes(tunnelled(inside()))[54:] if not offset else MARK.load * 2
    frame = under(nh=44) / IPv6ExtHdrFragment(nh=17, offset=offset, m=int(more), id=7)
    case(name, reason, frame / Raw(whole[:len(whole) // 8 * 8]))


def sources():
    for source in ("10.0.0.72", "10.0.0.11", "10.0.0.12", "10.0.0.1", "10.0.0.99", "203.0.113.9",
                   "192.0.2.66", "0.0.0.0", "169.254.1.1", "240.0.0.1"):
        case(f"from {source}", "ingress-source",
             *each([inside(source), inside(source, "10.0.0.12")]))
    for source in ("127.0.0.1", "224.0.0.1", "255.255.255.255"):
        case(f"from {source}", "ipv4-martian", *each([inside(source)]))
    for source in ("fd00:0:0:1::72", "fd00:0:0:1::11", "fd00:0:0:1::12", "fd00:0:0:1::1",
                   "fd00:0:0:1::99", "2001:db8:9::9", "2001:db8::66", "::1", "::10.0.0.71",
                   "::ffff:10.0.0.71", "ff02::1", "fe80::71", "::"):
        case(f"from {source}", "ingress-source",
             *each([inside6(source), inside6(source, "fd00:0:0:1::12")]))
    for sender in ("10.0.0.72", "10.0.0.11", "10.0.0.1", "0.0.0.0", "10.0.0.99", "203.0.113.9"):
        arp = [arp_of(sender, "10.0.0.11", op) for op in (1, 2)] + [arp_of(sender, sender, 2)]
        case(f"ARP of {sender}", "arp-sender-ip", *each(arp))
    case("ARP of another MAC", "arp-sender-mac",
         *each([arp_of("10.0.0.71", "10.0.0.11", 2, "52:54:00:aa:00:01")]))
    bad = bytes(arp_of("10.0.0.71", "10.0.0.11", 1))
    case("ARP malformed", "arp-malformed", *each([Raw(bad[:14 + n]) for n in range(28)]))


def arp_of(sender, target, operation, mac=FAR_MAC):
    return Ether(src=FAR_MAC, dst=ALL) / ARP(op=operation, hwsrc=mac, psrc=sender, pdst=target)


def ethernet():
    ip = IP(src="10.0.0.71", dst="10.0.0.11") / UDP(sport=4000, dport=4000) / MARK
    for mac in ("52:54:00:aa:00:01", "02:00:13:89:00:01", UPLINK, FAR_MAC, "00:00:00:00:00:00"):
        case(f"to {mac}", "dst-mac", *each([Ether(src=FAR_MAC, dst=mac) / ip]))
    for mac in (ALL, "01:00:5e:00:00:01"):
        case(f"to {mac}", "dst-mac", *each([Ether(src=FAR_MAC, dst=mac) / ip]))
    for mac in (ALL, "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        case(f"of {mac}", "src-mac-group", *each([Ether(src=mac, dst=TUNNEL) / ip]))
    ether = Ether(src=FAR_MAC, dst=TUNNEL)
    case("tagged", "vlan-tag", *each([ether / Dot1Q(vlan=7) / ip, ether / Dot1Q(vlan=0) / ip,
                                      ether / Dot1Q(vlan=7) / Dot1Q(vlan=8) / ip]))
    case("LLC", "llc", *each([Dot3(src=FAR_MAC, dst=TUNNEL) / LLC() / MARK]))
    case("to bridges", "link-local-l2",
         *each([Ether(src=FAR_MAC, dst="01:80:c2:00:00:00", type=0x88f7) / MARK,
                                              Ether(src=FAR_MAC, dst=TUNNEL, type=0x88cc) / MARK]))
    case("RARP", "rarp", *each([Ether(src=FAR_MAC, dst=ALL, type=0x8035) / MARK]))
    case("EtherType", "ethertype",
         *each([Ether(src=FAR_MAC, dst=TUNNEL, type=type_) / MARK
                for type_ in (0x88f7, 0x6558, 0x8847, 0x0600)]))


def packets():
    case("inner IPv4 checksum", "ipv4-malformed", *each([inside(chksum=1)]))
    case("inner source route", "ipv4-source-route",
         *each([inside(options=IPOption_LSRR(routers=["10.0.0.12"]))]))
    case("inner routing header", "ipv6-chain",
         *each([inside6(payload=IPv6ExtHdrRouting(type=0, addresses=["fd00:0:0:1::12"]) / UDP() /
                        MARK)]))
    for port in sorted({4789, 6081, PORT}):
        case(f"nested, to {port}", "tunnel-nested", *each([
            frame(payload=UDP(sport=4000, dport=port) / VXLAN(vni=VNI, flags=8) /
                  inside("10.0.0.72"))
            for frame in (inside, inside6)]))
    case("redirect", "redirect",
         *each([inside(payload=ICMP(type=5, code=1, gw="10.0.0.71") / MARK)]))
    case("router advertisement of IPv4", "router-advertisement",
         *each([inside(payload=ICMP(type=9) / MARK)]))
    case("DHCP server", "dhcp-server", *each([inside(payload=UDP(sport=67, dport=68) / MARK)]))
    case("DHCPv6 server", "dhcpv6-server",
         *each([inside6(payload=UDP(sport=547, dport=546) / MARK)]))
    local = {"hlim": 255}
    router = "fe80::71"
    everybody = {"source": router, "destination": "ff02::1"}
    case("router advertisement", "router-advertisement", *each([
        inside6(payload=ICMPv6ND_RA() / ICMPv6NDOptSrcLLAddr(lladdr=FAR_MAC), **everybody, **local),
        inside6(payload=ICMPv6ND_RA() / ICMPv6NDOptSrcLLAddr(lladdr=FAR_MAC), **local)]))
    case("redirect of IPv6", "redirect",
         *each([inside6(router,
                        payload=ICMPv6ND_Redirect(tgt="fd00:0:0:1::71",
                                                  dst="fd00:0:0:1::12"), **local)]))
    case("MLD query", "mld-query",
         *each([inside6(router, "ff02::1", payload=ICMPv6MLQuery(), hlim=1)]))
    case("neighbour solicitation from afar", "nd-malformed", *each([
        inside6(payload=ICMPv6ND_NS(tgt="fd00:0:0:1::11"), hlim=64),
        inside6(payload=ICMPv6ND_NS(tgt="fd00:0:0:1::11", cksum=1), **local)]))
    case("neighbour advertisement", "absorbed", *each([
        inside6(payload=ICMPv6ND_NA(tgt="fd00:0:0:1::12", R=1, O=1) /
                ICMPv6NDOptDstLLAddr(lladdr=FAR_MAC), **local)]))
    case("solicitation for nobody", "nd-unknown", *each([
        inside6(payload=ICMPv6ND_NS(tgt="fd00:0:0:1::99") / ICMPv6NDOptSrcLLAddr(lladdr=FAR_MAC),
                **local)]))
    case("ARP for nobody", "arp-unknown", *each([arp_of("10.0.0.71", "10.0.0.99", 1)]))


def routes():
    case("to a peer", "no-transit",
         *each([inside(destination="10.0.0.72"), inside6(destination="fd00:0:0:1::72"),
                inside(destination="10.0.0.71"), inside6(destination="fd00:0:0:1::71")]))
    case("to the underlay", "no-transit",
         *each([inside(destination="192.0.2.66"), inside6(destination="2001:db8::66"),
                inside(destination="192.0.2.2"), inside6(destination="2001:db8::2")]))
    case("to nobody", "route-none",
         *each([inside(destination="10.0.0.99"), inside6(destination="fd00:0:0:1::99"),
                inside(destination="203.0.113.9"), inside6(destination="2001:db8:9::9")]))
    case("to groups", "multicast",
         *each([inside(destination=to) for to in ("224.0.0.5", "255.255.255.255", "10.0.0.255")]
                + [inside6(destination="ff02::5")]))
    case("to a link", "link-local-ip",
         *each([inside(destination="169.254.1.1"), inside6(destination="fe80::11")]))
    case("to loopback", "ipv4-martian", *each([inside(destination="127.0.0.1")]))
    case("to the gateway", "gateway-service",
         *each([inside(destination="10.0.0.1"), inside6(destination="fd00:0:0:1::1")]))


tunnel_headers()
truncated()
underlay()
sources()
ethernet()
packets()
routes()
MARK = Raw(b"HARMLESS " * 3)
case("harmless", "", *each([inside(), inside6()]))
