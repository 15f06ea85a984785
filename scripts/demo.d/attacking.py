"""Carries out the attacks, and counts their frames."""

import collections
import contextlib
import dataclasses
import errno
import subprocess
import time

from scapy.config import conf

from counting import Counters, inside
from hosts import run


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
    # Frames that the NIC dropped before the switch, where that is allowed.
    kept_by_nic: int = 0
    # Frames that the port's ring had no room for, by the switch's own counter.
    missed: int = 0
    # What the switch counted there under other reasons, if frames are unaccounted for.
    others: str = ""

    @property
    def failure(self):
        """What is wrong with it, or None."""
        if self.sent == 0:
            return "nothing was sent"
        if self.delivered:
            return f"{self.delivered} frames were delivered"
        if self.counted + self.kept_by_nic + self.missed < (1 if self.over_limit else self.sent):
            return (f"{self.counted} of {self.sent} frames were counted as {self.reason}, "
                    f"{self.missed} as missed, and under other reasons: {self.others or 'none'}")
        return None


# A tool that sends 100,000 frames a second from one of this machine's few cores fills the kernel's
# queue in front of the switch. Frames that are lost there are neither delivered nor counted. At the
# flood rate of a pace every frame reaches the switch.
FLOOD = "burst 4kb limit 1mb"


@contextlib.contextmanager
def line(attacker, paced, rate):
    """The attacker's link, at full speed or paced."""
    qdisc = f"tc -n {attacker.netns} qdisc {{}} dev {attacker.interface} root".format
    if not paced:
        yield
        return
    run([*qdisc("replace").split(), "tbf", "rate", rate, *FLOOD.split()])
    try:
        yield
        # Frames that the tool has left in the queue are sent too.
        time.sleep(0.2)
    finally:
        run(qdisc("delete").split())


def launch(attack, attacker, world, sent):
    """Sends the attack's frames; `sent` is their counter."""
    with line(attacker, attack.paced, world.pace.flood):
        _launch(attack, attacker, sent)


ROOM_PATIENCE_S = 10


def send_when_room(send, frame):
    """Sends a frame again while the CPU's shared queue between interfaces is full: then the frame
    was not sent."""
    deadline = time.monotonic() + ROOM_PATIENCE_S
    while True:
        try:
            return send(frame)
        except OSError as error:
            if error.errno != errno.ENOBUFS or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# For a tool to start on a slow machine, or to end by itself.
TOOL_PATIENCE_S = 15


def _launch(attack, attacker, sent):
    if attack.scapy:
        with inside(attacker.netns):
            sender = conf.L2socket(iface=attacker.interface)
        frames = attack.scapy
        if attack.over_limit:
            # Scapy builds a frame at each sending, which may be slower than the storm's limit.
            built = {id(frame): bytes(frame) for frame in frames}
            for frame in frames:
                send_when_room(sender.outs.send, built[id(frame)])
            frames = []
        for frame in frames:
            send_when_room(sender.send, frame)
        sender.close()
    for _ in range(attack.times if attack.tool else 0):
        before, started = sent.value(), time.monotonic()
        process = attacker.start(attack.tool.split(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        if attack.stop_after_s:
            # The time counts from the first frame: on a slow machine the tool starts slowly.
            while (sent.value() == before and process.poll() is None
                   and time.monotonic() < started + TOOL_PATIENCE_S):
                time.sleep(0.02)
        try:
            process.wait(attack.stop_after_s or TOOL_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def carry_out(attack, attacker, tenant, port, world):
    """One attack: the frames that left the attacker, those that arrived anywhere, and those that
    `tenant`'s switch counted."""
    def counters():
        return collections.Counter({reason: frames for (at, reason), frames
                                    in tenant.drops().items() if at == port})

    def counter():
        grown = counters() - counters_before
        return sum(grown[reason] for reason in attack.reasons)

    others = [host for host in world.all_hosts() if host not in (attacker, tenant.uplink)]
    # Only a flood can fill the port's ring.
    counters_before, missed_before = counters(), tenant.missed(port) if attack.paced else 0
    with Counters([attacker.leaving(attack.frame)]) as sent, \
            Counters(host.arriving(attack.arrives or attack.frame) for host in others) as delivered:
        launch(attack, attacker, world, sent)
        may_be_kept = attack.reason in world.kept_by_nic and not attack.attacker
        deadline = time.monotonic() + (0.3 if may_be_kept else world.pace.patience_s / 15)
        while (counted := counter()) < sent.value() and time.monotonic() < deadline:
            time.sleep(0.02)
            if attack.over_limit and counted:
                break
        time.sleep(0.05)
        counted = counter()
        kept_by_nic = max(0, sent.value() - counted) if may_be_kept else 0
        missed = 0
        if attack.paced and counted + kept_by_nic < sent.value():
            # The switch reads its devices' counters once a second.
            time.sleep(1.5)
            counted, missed = counter(), tenant.missed(port) - missed_before
        result = Result(attack.name, sent.value(), delivered.value(), attack.reason, counted,
                        attack.by, attack.over_limit, kept_by_nic, missed)
        if result.failure:
            grown = counters() - counters_before
            result.others = ", ".join(f"{reason} {frames}" for reason, frames in grown.items()
                                      if reason not in attack.reasons)
        return result
