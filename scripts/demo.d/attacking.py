"""Carries out the attacks, and counts."""

import contextlib
import dataclasses
import subprocess
import time

from scapy.config import conf

from counting import Counters, inside
from world import run


@dataclasses.dataclass
class Result:
    """The outcome of one attack. The report has these names."""

    name: str
    sent: int
    delivered: int
    reason: str
    counted: int
    tool: str
    over_limit: bool
    # Frames that the NIC kept from the switch; only where it may.
    kept_by_nic: int = 0

    @property
    def failure(self):
        """What is wrong with it, or None."""
        if self.sent == 0:
            return "nothing was sent"
        if self.delivered:
            return f"{self.delivered} frames were delivered"
        if self.counted + self.kept_by_nic < (1 if self.over_limit else self.sent):
            return f"{self.counted} of {self.sent} frames were counted as {self.reason}"
        return None


# A tool that sends 100,000 frames a second from one of this machine's few cores fills the kernel's queue in front of
# the switch, and what is lost there is neither delivered nor counted. At the flood rate of a pace every frame reaches
# the switch.
FLOOD = "burst 4kb limit 1mb"


@contextlib.contextmanager
def line(attacker, paced, rate):
    """The attacker's line, as fast as it is or paced."""
    qdisc = f"tc -n {attacker.netns} qdisc {{}} dev {attacker.interface} root".format
    if not paced:
        yield
        return
    run([*qdisc("replace").split(), "tbf", "rate", rate, *FLOOD.split()])
    try:
        yield
        # What the tool has left in the queue is sent too.
        time.sleep(0.2)
    finally:
        run(qdisc("delete").split())


def launch(attack, attacker, world):
    """Sends the attack's frames."""
    with line(attacker, attack.paced, world.pace.flood):
        _launch(attack, attacker)


def _launch(attack, attacker):
    if attack.scapy:
        with inside(attacker.netns):
            sender = conf.L2socket(iface=attacker.interface)
        frames = attack.scapy
        if attack.over_limit:
            # A storm must be faster than its limit also where scapy, which builds each frame anew, is not.
            built = {id(frame): bytes(frame) for frame in frames}
            for frame in frames:
                sender.outs.send(built[id(frame)])
            frames = []
        for frame in frames:
            sender.send(frame)
        sender.close()
    for _ in range(attack.times if attack.tool else 0):
        process = attacker.start(attack.tool.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            process.wait(attack.stop_after_s or 15)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def carry_out(attack, attacker, tenant, port, world):
    """One attack: how much left the attacker, how much arrived anywhere, and what `tenant`'s switch counted."""
    def counter():
        return tenant.drops().get((port, attack.reason), 0)

    others = [host for host in world.everybody() if host not in (attacker, tenant.uplink)]
    before = counter()
    with Counters([attacker.leaving(attack.frame)]) as sent, \
            Counters(host.arriving(attack.arrives or attack.frame) for host in others) as delivered:
        launch(attack, attacker, world)
        may_be_kept = attack.reason in world.kept_by_nic and not attack.attacker
        deadline = time.monotonic() + (0.3 if may_be_kept else world.pace.patience_s / 15)
        while (counted := counter() - before) < sent.value() and time.monotonic() < deadline:
            time.sleep(0.02)
            if attack.over_limit and counted:
                break
        time.sleep(0.05)
        counted = counter() - before
        return Result(attack.name, sent.value(), delivered.value(), attack.reason, counted, attack.by, attack.over_limit,
                      max(0, sent.value() - counted) if may_be_kept else 0)
