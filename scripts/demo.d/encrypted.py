"""Red's tunnel under IPsec: examples/ipsec has the same tenant with `[tunnel.ipsec]`, and both
hosts get it. Then good traffic flows, every frame on the cable between the hosts is counted, and
the underlay attacks: with the plain frames that an unprotected tunnel believes, and with ESP.

Blue's tunnel stays plain, so the same counters do see plain frames.
"""

import contextlib
import dataclasses
import shutil
import socket
import time

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from attacking import carry_out
from attacks import Attack
from between import Wire, flows_between, halved, known_by
from counting import Counter, Counters, inside
from host_b import CABLE
from hosts import ScriptError, run
from sites import ROOT
from traffic import all_good, running, speed
from world import OPTIONS, PROVISIONER, ROOT_B, SITE, SITE_B

EXAMPLES = ROOT / "examples" / "ipsec"
# As the examples name it.
KEY = "/etc/mts/ipsec/red.psk"
# What the cable carries, by a filter of the outer headers.
KINDS = {"esp": "ip proto 50", "ike": "udp port 500 or udp port 4500", "plain": "udp port 6081",
         "other_tenant_plain": "ip6 and udp port 4789"}
# The payload of the ping whose ESP is overheard: nothing else in the tunnel is as long then.
OVERHEARD = 1000
ETH_P_ALL = 3
# The daemons repeat a message after 4 seconds, and then after 7.
REPEATED_AFTER_S = 8


class Encrypted:
    """Everything that was counted of the tunnel under IPsec."""

    def __init__(self):
        self.good, self.speed, self.attacks = [], [], []
        # Frames on the cable, by kind, since both hosts require IPsec.
        self.cable = dict.fromkeys(KINDS, 0)
        # Plain frames that one ping of red's took on the cable before that.
        self.plain_before = 0
        # Why nothing was counted, if nothing was.
        self.unavailable = None

    @property
    def failures(self):
        """Each failure but those of flows and attacks, as a sentence."""
        if self.unavailable:
            yield f"IPsec: {self.unavailable}"
            return
        cable, carried = self.cable, sum(good.delivered for good in self.good
                                         if good.name.startswith(UNDER_ESP))
        if not self.plain_before or not cable["other_tenant_plain"]:
            yield "IPsec: the counters on the cable do not see plain frames"
        if cable["plain"]:
            yield f"IPsec: {cable['plain']} plain frames of red's tunnel are on the cable"
        # Each frame of red's is in one of ESP.
        if cable["esp"] < max(1, carried):
            yield f"IPsec: {cable['esp']} frames of ESP are on the cable, for {carried} of red's"

    def summary(self):
        if self.unavailable:
            return f"IPsec: {self.unavailable}"
        cable = self.cable
        return (f"IPsec for red's tunnel, on the cable: {cable['esp']:,} frames of ESP, "
                f"{cable['ike']:,} of IKE, {cable['plain']:,} of the plain tunnel\n"
                f"(before: {self.plain_before} of the plain tunnel for one ping; blue's, which "
                f"stays plain: {cable['other_tenant_plain']:,})")

    def as_dict(self):
        lists = {name: [dataclasses.asdict(one) for one in getattr(self, name)]
                 for name in ("good", "speed", "attacks")}
        return {**lists, "cable": self.cable, "plain_before": self.plain_before,
                "unavailable": self.unavailable}


UNDER_ESP = "under ESP, "


def why_not(world):
    """Why this world cannot show IPsec; None if it can."""
    if not world.second:
        return "it needs the switches of a second host"
    if "vm" in OPTIONS:
        return "it is shown with switches that are processes"
    return None


def on_cable(expression):
    """Counts frames in both directions."""
    return Counters(Counter(ROOT_B, CABLE, expression, outgoing=outgoing)
                    for outgoing in (True, False))


def require(world, say):
    """Gives both hosts a key, and red's files with IPsec."""
    key = SITE.state_dir / "red.psk"
    run([PROVISIONER, *OPTIONS, "ipsec", "keygen", "psk", key])
    # Over a channel that both trust.
    shutil.copy(key, SITE_B.state_dir / "red.psk")

    def file(site, directory):
        text = (directory / "red.toml").read_text()
        copy = site.state_dir / "red-ipsec.toml"
        copy.write_text(text.replace(KEY, str(site.state_dir / "red.psk")))
        return copy

    say("red's tunnel becomes `required` on both hosts: vf-provisioner apply examples/ipsec")
    run([PROVISIONER, *OPTIONS, "apply", file(SITE, EXAMPLES)])
    world.second.provision("apply", file(SITE_B, EXAMPLES / "host-b"))


def wait_until_quiet(ike):
    """Waits until no message of IKE has passed for a while. The host that began first repeats its
    first message, and of the two associations that there are then, one is given up."""
    last, since = ike.value(), time.monotonic()
    deadline = since + 60
    while time.monotonic() < min(since + REPEATED_AFTER_S, deadline):
        time.sleep(0.2)
        if (now := ike.value()) != last:
            last, since = now, time.monotonic()


def overhear(remote, me, vtep, patience_s):
    """What the cable carries of one ping: a packet of ESP to our endpoint."""
    with inside(ROOT_B):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with tap:
        tap.bind((CABLE, ETH_P_ALL))
        tap.settimeout(patience_s)
        remote.run(["ping", "-q", "-c", "1", "-s", str(OVERHEARD), me.ipv4], capture_output=True)
        try:
            while True:
                packet = Ether(tap.recv(2048)).getlayer(IP)
                if packet and (packet.proto, packet.dst) == (50, vtep) and packet.len > OVERHEARD:
                    return packet
        except TimeoutError as error:
            raise ScriptError("no frame of ESP is on the cable") from error


def on_esp(red, heard, me, remote, rogue, n):
    """Attacks on red's tunnel from the underlay. `heard` came from the peer before."""
    esp, to_us = bytes(heard.payload), Ether(src=rogue.mac, dst=red.uplink.mac)
    spi, sequence, rest = esp[:4], int.from_bytes(esp[4:8], "big"), esp[8:]
    to_come = (sequence + (1 << 20)).to_bytes(4, "big")
    unknown = bytes(byte ^ 0x55 for byte in spi)
    inside_it = (f"icmp and src host {remote.ipv4} and dst host {me.ipv4} "
                 f"and ip[2:2] = {OVERHEARD + 28}")

    def attack(name, reason, payload, **ip):
        packet = IP(**{"src": heard.src, "dst": heard.dst, "proto": 50, **ip}) / Raw(payload)
        return Attack(name, reason, "ip proto 50", arrives=inside_it,
                      scapy=[to_us / packet] * n, attacker=rogue)

    ike = to_us / IP(src=rogue.ipv4, dst=heard.dst) / UDP(sport=500, dport=500) / Raw(bytes(28))
    from_rogue = f"udp src port 500 and src host {rogue.ipv4}"
    plain = Wire(red, rogue).frame(41651, remote.ipv4, me.ipv4)
    return [
        Attack("plain, as an unprotected tunnel believes it", "ipsec-plain", "udp src port 41651",
               arrives=known_by(41651), scapy=[plain] * n, attacker=rogue),
        attack("ESP overheard and sent again", "esp-replay", esp),
        attack("with a sequence number to come", "esp-icv", spi + to_come + rest),
        attack("with an SPI of nobody's", "esp-spi", unknown + esp[4:]),
        attack("from a station that is no peer", "esp-peer", esp, src=rogue.ipv4),
        attack("in fragments", "esp-fragment", esp, flags="MF"),
        attack("cut off", "esp-malformed", esp[:7]),
        Attack("IKE from a station that is no peer", "ike-peer", from_rogue, arrives=from_rogue,
               scapy=[ike] * n, attacker=rogue),
    ]


def show_encrypted(world, encrypted, seconds, frames, pace, say):
    """All steps with IPsec, in order."""
    red, far_red = world.tenants[0], world.second.tenant(world.tenants[0].name)
    me, remote = red.guests[0], far_red.guests[0]

    with on_cable(KINDS["plain"]) as plain:
        world.answers(me, remote.ipv4)
        encrypted.plain_before = plain.value()
    require(world, say)
    with contextlib.ExitStack() as stack:
        cable = {kind: stack.enter_context(on_cable(expression))
                 for kind, expression in KINDS.items()}
        world.wait_until_answered([(one, address) for one, other in ((me, remote), (remote, me))
                                   for address in (other.ipv4, other.ipv6)])
        wait_until_quiet(cable["ike"])
        show_good(me, remote, encrypted, seconds, pace, say)
        heard = overhear(remote, me, red.uplink.ipv4, pace.patience_s)
        attacks = on_esp(red, heard, me, remote, world.internet, frames)
        show_attacks(attacks, world, encrypted, pace, say)
        encrypted.cable = {kind: counter.value() for kind, counter in cable.items()}


def show_good(me, remote, encrypted, seconds, pace, say):
    say("good traffic through red's protected tunnel, while every frame on the cable is counted")
    for good in all_good([(me, remote)], seconds / 2, halved(pace)):
        good.name = UNDER_ESP + good.name
        encrypted.good.append(good)
        say(f"  {good.name}: {good.delivered} of {good.sent}, {good.rate}")
    fast = speed(me, remote, seconds=seconds)
    fast.name = UNDER_ESP + fast.name
    encrypted.speed.append(fast)
    say(f"  {fast.name}: {fast.bits_per_second / 1e6:.0f} Mbit/s")


def show_attacks(attacks, world, encrypted, pace, say):
    red, blue = world.tenants
    far_red, far_blue = (world.second.tenant(tenant.name) for tenant in world.tenants)
    with running(flows_between(red, blue, far_red, far_blue, pace.frames_per_second)) as flows:
        say(f"{len(attacks)} attacks on red's protected tunnel, while good traffic runs")
        for number, attack in enumerate(attacks, 1):
            result = carry_out(attack, attack.attacker, red, "uplink", world)
            encrypted.attacks.append(result)
            say(f"  {number} {result.name} ({result.tool}): {result.failure or 'stopped'}")
        # Red's two come first.
        for flow, prefix in zip(flows, [UNDER_ESP] * 2 + ["beside ESP, "] * 2, strict=True):
            good = flow.stop()
            good.name = prefix + good.name
            encrypted.good.append(good)
