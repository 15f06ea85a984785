"""Between two hosts: good traffic through the tunnels, one tenant's tries to reach the other's VMs
there, and attacks on the tunnels from the underlay and by a VM.

Each attack has a number, which is the source port of its outer UDP header and the ports of its
inner one. By it, the frames are recognised where they leave the attacker and, with or without their
outer headers, wherever they arrive.
"""

import dataclasses

from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from attacking import carry_out, launch
from attacks import BROADCAST, Attack, arp_from
from counting import Counters
from isolation import all_tries
from traffic import Flow, Good, all_good, running, settle, speed


class Between:
    """Everything that was counted between the hosts."""

    def __init__(self):
        self.good, self.speed, self.isolation, self.attacks, self.tunnels = [], [], [], [], ""

    def as_dict(self):
        lists = {name: [dataclasses.asdict(one) for one in getattr(self, name)]
                 for name in ("good", "speed", "isolation", "attacks")}
        return {**lists, "tunnels": self.tunnels}


def known_by(number):
    """A filter for an attack's frames, with or without the outer headers."""
    return f"udp port {number} or (ip6 proto 17 and (ip6[40:2] = {number} or ip6[42:2] = {number}))"


class Wire:
    """Forges frames for a tenant's switch as its tunnel would carry them, by default in the name of
    its first peer."""

    def __init__(self, tenant, rogue):
        self._config, self._to_switch = tenant.config(), Ether(src=rogue.mac, dst=tenant.uplink.mac)
        tunnel = self._config["tunnel"]
        self.vtep, self.port, self.peer = tunnel["vtep"], tunnel["port"], tunnel["peers"][0]
        self.macs = {"src": self.peer["mac"], "dst": tunnel["mac"]}
        self._header = GENEVE if tunnel["kind"] == "geneve" else VXLAN

    def outer(self, number, *, vtep=None, udp=None, **ip):
        layer = IPv6 if ":" in self.vtep else IP
        return self._to_switch / layer(src=vtep or self.peer["vtep"], dst=self.vtep, **ip) / UDP(
            sport=number, dport=self.port, **(udp or {}))

    def header(self, **fields):
        ethernet = {"proto": 0x6558} if self._header is GENEVE else {}
        return self._header(**{"vni": self._config["vni"], **ethernet, **fields})

    def inner(self, number, source, to, *, ethernet=None, **ip):
        layer = IPv6 if ":" in to else IP
        return (Ether(**{**self.macs, **(ethernet or {})}) / layer(src=source, dst=to, **ip)
                / UDP(sport=number, dport=number))

    def plain(self, number, source, to):
        return self._to_switch / IP(src=source, dst=to) / UDP(sport=number, dport=number)

    def frame(self, number, source, to, *, header=None, **outer):
        return (self.outer(number, **outer) / self.header(**(header or {}))
                / self.inner(number, source, to))


def on_geneve(wire, me, sibling, remote, gateway, rogue, other_vni, n):
    """Attacks on a Geneve tunnel over IPv4. `remote` is behind `wire.peer`; `me` and `sibling` are
    guests of the attacked switch."""
    true = (remote.ipv4, me.ipv4)
    third = "10.0.0.200"  # behind another peer
    critical = GeneveOptions(classid=0x0101, type=0x81, data=b"")

    def attack(name, reason, number, frame, arrives=None):
        return Attack(name, reason, f"udp src port {number}", arrives=arrives or known_by(number),
                      scapy=[frame] * n, attacker=rogue)

    return [
        attack("from a station that is no peer", "tunnel-peer", 41601,
               wire.frame(41601, *true, vtep=rogue.ipv4)),
        attack("with the other tenant's VNI", "tunnel-vni", 41602,
               wire.frame(41602, *true, header={"vni": other_vni})),
        attack("in the name of another peer's VM", "ingress-source", 41603,
               wire.frame(41603, third, me.ipv4)),
        attack("in the name of a VM of this host", "ingress-source", 41604,
               wire.frame(41604, sibling.ipv4, me.ipv4)),
        attack("the same over IPv6", "ingress-source", 41605,
               wire.frame(41605, sibling.ipv6, me.ipv6)),
        attack("in the gateway's name", "ingress-source", 41606,
               wire.frame(41606, gateway.ipv4, me.ipv4)),
        attack("in an Internet address's name", "ingress-source", 41607,
               wire.frame(41607, rogue.ipv4, me.ipv4)),
        attack("a critical option", "tunnel-option", 41608,
               wire.frame(41608, *true,
                          header={"critical": 1, "optionlen": 1, "options": [critical]})),
        attack("a control message (O)", "tunnel-malformed", 41609,
               wire.frame(41609, *true, header={"oam": 1})),
        attack("IP without Ethernet in it", "tunnel-malformed", 41610,
               wire.frame(41610, *true, header={"proto": 0x0800})),
        attack("options beyond the packet", "tunnel-truncated", 41611,
               wire.outer(41611) / wire.header(optionlen=63) / Raw(bytes(20))),
        attack("half a tunnel header", "tunnel-truncated", 41612, wire.outer(41612)
               / Raw(bytes(4))),
        attack("a tunnel in the tunnel", "tunnel-nested", 41613,
               wire.outer(41613) / wire.header() / Ether(**wire.macs)
               / IP(src=remote.ipv4, dst=me.ipv4)
               / UDP(sport=41613, dport=4789) / VXLAN(vni=other_vni) / wire.inner(41613, *true)),
        attack("in fragments", "tunnel-fragment", 41614, wire.frame(41614, *true, flags="MF")),
        attack("a wrong UDP checksum", "tunnel-checksum", 41615,
               wire.frame(41615, *true, udp={"chksum": 0xDEAD})),
        attack("congestion marked where none can be", "tunnel-ecn", 41616,
               wire.frame(41616, *true, tos=3)),
        attack("an inner VLAN tag", "vlan-tag", 41617,
               wire.outer(41617) / wire.header() / Ether(**wire.macs) / Dot1Q(vlan=102)
               / IP(src=remote.ipv4, dst=me.ipv4) / UDP(sport=41617, dport=41617)),
        attack("straight to a VM's MAC", "dst-mac", 41618,
               wire.outer(41618) / wire.header()
               / wire.inner(41618, *true, ethernet={"dst": me.mac})),
        attack("ARP for the gateway's address", "arp-sender-ip", 41619,
               wire.outer(41619) / wire.header() / Ether(src=wire.macs["src"], dst=BROADCAST)
               / ARP(op=2, hwsrc=wire.macs["src"], psrc=gateway.ipv4, hwdst=me.mac, pdst=me.ipv4),
               arrives=f"{known_by(41619)} or ({arp_from(wire.macs['src'], gateway.ipv4)})"),
        attack("Router Advertisements", "router-advertisement", 41620,
               wire.outer(41620) / wire.header()
               / Ether(src=wire.macs["src"], dst="33:33:00:00:00:01")
               / IPv6(src="fe80::bad", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
               arrives=f"{known_by(41620)} or (icmp6 and ip6[40] = 134 and src host fe80::bad)"),
        attack("in transit to another peer", "no-transit", 41621,
               wire.frame(41621, remote.ipv4, third)),
        attack("in transit to the world", "no-transit", 41622,
               wire.frame(41622, remote.ipv4, "198.51.100.99")),
        attack("past the tunnel, in a remote VM's name", "ingress-source", 41623,
               wire.plain(41623, remote.ipv4, me.ipv4)),
        attack("past the tunnel, to a remote VM", "no-transit", 41624,
               wire.plain(41624, rogue.ipv4, remote.ipv4)),
    ]


def on_vxlan(wire, me, remote, rogue, other_vni, n):
    """Attacks on a VXLAN tunnel over IPv6."""
    true = (remote.ipv4, me.ipv4)
    bootp = Ether(src=wire.macs["src"], dst=BROADCAST) / IP(src=remote.ipv4, dst="255.255.255.255")

    def attack(name, reason, number, frame):
        return Attack(name, reason, f"ip6 proto 17 and ip6[40:2] = {number}",
                      arrives=known_by(number), scapy=[frame] * n,
                      attacker=rogue)

    return [
        attack("from a host of the underlay that is no peer", "tunnel-peer", 41631,
               wire.frame(41631, *true, vtep="2001:db8::bad")),
        attack("no UDP checksum, over IPv6", "tunnel-checksum", 41632,
               wire.frame(41632, *true, udp={"chksum": 0})),
        attack("a header without a VNI (I)", "tunnel-malformed", 41633,
               wire.frame(41633, *true, header={"flags": 0})),
        attack("red's VNI in blue's tunnel", "tunnel-vni", 41634,
               wire.frame(41634, *true, header={"vni": other_vni})),
        attack("a rogue DHCP server behind the tunnel", "dhcp-server", 41635,
               wire.outer(41635) / wire.header() / bootp / UDP(sport=67, dport=68) / BOOTP(op=2)),
    ]


def by_a_vm(me, remote, sibling, gateway, wire, n):
    """Attacks on the tunnel by a VM."""
    to_gateway = Ether(src=me.mac, dst=gateway.mac)

    def attack(name, reason, number, packet):
        return Attack(name, reason, f"udp src port {number}", arrives=known_by(number),
                      scapy=[to_gateway / packet] * n)

    return [
        attack("a VM's own tunnel to a remote VM", "tunnel-nested", 41641,
               IP(src=me.ipv4, dst=remote.ipv4) / UDP(sport=41641, dport=wire.port) / wire.header()
               / wire.inner(41641, me.ipv4, remote.ipv4)),
        attack("a VM's own tunnel to the peer's VTEP", "underlay", 41642,
               IP(src=me.ipv4, dst=wire.peer["vtep"]) / UDP(sport=41642, dport=wire.port)
               / wire.header()
               / wire.inner(41642, me.ipv4, remote.ipv4)),
        attack("a VM in a remote VM's name", "ipv4-source", 41643,
               IP(src=remote.ipv4, dst=sibling.ipv4) / UDP(sport=41643, dport=41643)),
    ]


def halved(pace):
    """A pace for two switches on the path, each of which may have to wait for a core."""
    return dataclasses.replace(pace, udp_bits=pace.udp_bits // 2,
                               burst_per_second=pace.burst_per_second // 2)


def flows_between(red, blue, far_red, far_blue, frames_per_second):
    """Good traffic through the tunnels, during the attacks."""
    options = {"per_second": frames_per_second, "payload": 200}
    flows = [
        Flow(red.guests[1], far_red.guests[0], port=5500, **options),
        Flow(far_red.guests[0], red.guests[1], port=5501, ipv6=True, **options),
        Flow(blue.guests[0], far_blue.guests[0], port=5502, ipv6=True, **options),
        Flow(far_blue.guests[0], blue.guests[0], port=5503, **options),
    ]
    for flow in flows:
        flow.name = f"during the attacks, {flow.name}"
    return flows


def tries_of(attacker, victim, witness, gateway, tenant, world, n):
    """The tries in one direction, with the direction in their names."""
    listening = [host for one in world.all_tenants() if one.name == tenant.name
                 for host in (*one.guests, one.uplink)]
    for attempt in all_tries(attacker, victim, witness, gateway, tenant, listening, world, n):
        yield dataclasses.replace(attempt, name=f"{attacker.name} → {victim.name}: {attempt.name}")


def control(wire, rogue, remote, me, number, world, n):
    """The same kind of frame without a fault does arrive: this shows that the counters would see
    the attacks. (Neither tunnel is authenticated: on the underlay, a peer's address is all that
    identifies it.)"""
    attack = Attack("", "", f"udp src port {number} or (ip6 proto 17 and ip6[40:2] = {number})",
                    scapy=[wire.frame(number, remote.ipv4, me.ipv4)] * n)
    with Counters([rogue.leaving(attack.frame)]) as sent, \
            Counters([me.arriving(known_by(number))]) as delivered:
        launch(attack, rogue, world, sent)
        settle(sent.value, delivered.value)
        return Good(f"control, an attack's frame without a fault: {rogue.name} → {me.name}",
                    sent.value(), delivered.value(),
                    "scapy")


def show_between(world, between, seconds, frames, pace, say):
    """All steps between the hosts, in order."""
    red, blue = world.tenants
    far_red, far_blue = (world.second.tenant(tenant.name) for tenant in world.tenants)
    me, sibling, remote, far = *red.guests[:2], far_red.guests[0], far_blue.guests[0]

    say("between hosts: good traffic through each tenant's tunnel")
    for good in all_good([(me, remote), (blue.guests[0], far)], seconds / 2, halved(pace)):
        between.good.append(good)
        say(f"  {good.name}: {good.delivered} of {good.sent}, {good.rate}")
    between.speed.append(speed(me, remote, seconds=seconds))
    say(f"  {between.speed[-1].name}: {between.speed[-1].bits_per_second / 1e6:.0f} Mbit/s")

    gateway = world.gateway_of(me)
    with running(flows_between(red, blue, far_red, far_blue, pace.frames_per_second)) as flows:
        say("red tries to reach blue on the other host, and blue red, while good traffic runs")
        between.isolation.extend(tries_of(me, far, blue.guests[0], gateway, far_blue, world,
                                          frames))
        between.isolation.extend(tries_of(far, me, remote, world.gateway_of(far), red, world,
                                          frames))

        rogue, wire, blue_wire = world.internet, Wire(red, world.internet), Wire(blue,
                                                                                 world.internet)
        between.good.append(control(wire, rogue, remote, me, 41600, world, frames))
        between.good.append(control(blue_wire, rogue, far, blue.guests[0], 41630, world, frames))
        on_red = [*on_geneve(wire, me, sibling, remote, gateway, rogue, blue.config()["vni"],
                             frames),
                  *by_a_vm(me, remote, sibling, gateway, wire, frames)]
        on_blue = on_vxlan(blue_wire, blue.guests[0], far, rogue, red.config()["vni"], frames)
        say(f"{len(on_red) + len(on_blue)} attacks on the tunnels, while good traffic runs")
        attacks = [*((red, attack) for attack in on_red), *((blue, attack) for attack in on_blue)]
        for number, (tenant, attack) in enumerate(attacks, 1):
            port = "uplink" if attack.attacker else me.name
            result = carry_out(attack, attack.attacker or me, tenant, port, world)
            between.attacks.append(result)
            say(f"  {number:2} {result.name} ({result.tool}): {result.failure or 'stopped'}")
        between.good.extend(flow.stop() for flow in flows)
    between.tunnels = red.show("tunnels")
