"""A dedicated VM on passed-through virtual functions, inside the emulated machine.

This program boots the emulated machine, and runs itself there again as `inside`: one tenant is
onboarded on the NIC with its switch in a VM, good traffic passes between its guests and over the
wire, forged frames do not, and the release leaves the NIC as it was. The argument is the
provisioner's --launcher: `vm`, or `libvirt` with a libvirtd of the test's own. Emulation in
emulation is slow: the VM alone takes minutes to boot. Meanwhile target/nested/LAUNCHER has the
provisioner's log (onboard.log) and the VM's console with times (console.log), and afterwards
report.json.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "demo.d"))

from attacking import carry_out  # noqa: E402
from attacks import all_attacks  # noqa: E402
from boot import in_machine  # noqa: E402
from hosts import ScriptError  # noqa: E402
from sriov import Sriov  # noqa: E402
from traffic import ping  # noqa: E402
from world import EMULATED, OPTIONS, SITE, STATE_DIR  # noqa: E402

LAUNCHER = sys.argv[1]
OUT = ROOT / "target" / "nested" / LAUNCHER
# The provisioner waits half an hour for the VM to boot.
TIMEOUT_S = 3600
# A selection of attacks: one that the NIC refuses, and some that only the switch can.
ATTACKS = {"src-mac", "ipv4-source", "ipv6-source", "arp-sender-ip", "router-advertisement",
           "dhcp-server"}


def outside():
    OUT.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return in_machine(["--verbose", "--timeout", str(TIMEOUT_S), "--share", OUT],
                      pathlib.Path(__file__).resolve(), LAUNCHER, "inside")


def say(message):
    print(f"nested: {time.monotonic():7.1f} s  {message}", flush=True)


class Nested(Sriov):
    """One tenant on one physical function, its switch in a VM."""

    nics = ("pf0",)
    pace = dataclasses.replace(EMULATED, pings_per_second=2, patience_s=600, answer_s=10)

    @staticmethod
    def _onboard(command):
        with (OUT / "onboard.log").open("w") as log:
            environment = dict(os.environ, VF_PROVISIONER_LOG="info")
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment,
                                  check=False)
        if done.returncode != 0:
            lines = (OUT / "onboard.log").read_text().splitlines()[-5:]
            raise ScriptError("\n".join(["the tenant is not onboarded:", *lines]))


@contextlib.contextmanager
def libvirtd():
    """A libvirtd that the provisioner and `virsh` use by default."""
    with contextlib.ExitStack() as ending:
        directory = pathlib.Path(ending.enter_context(tempfile.TemporaryDirectory()))
        messages = ending.enter_context((OUT / "libvirtd.log").open("w"))
        command = [ROOT / "scripts" / "test.d" / "libvirtd", directory, STATE_DIR.name]
        child = subprocess.Popen(command, stdout=messages, stderr=messages)
        ending.callback(child.wait)
        ending.callback(child.terminate)
        socket = directory / "sock" / "libvirt-sock"
        patience = time.monotonic() + 60
        while not socket.exists():
            if child.poll() is not None or time.monotonic() > patience:
                sys.exit(f"nested: libvirtd does not start; {OUT / 'libvirtd.log'} says why")
            time.sleep(0.1)
        os.environ["LIBVIRT_DEFAULT_URI"] = f"qemu+unix:///system?socket={socket}"
        yield


@contextlib.contextmanager
def console_followed():
    """Copies the VM's console while the block runs, each line with the time since the emulated
    machine's start."""
    ended = threading.Event()

    def follow():
        seen = 0
        with (OUT / "console.log").open("w") as out:
            while not ended.wait(2):
                for console in STATE_DIR.glob("tenants/*/log"):
                    with contextlib.suppress(OSError):
                        text = console.read_bytes()
                        length = text.rfind(b"\n") + 1  # whole lines only
                        for line in text[seen:length].decode(errors="replace").splitlines():
                            now = f"{time.monotonic():7.1f} s"
                            print(f"{now}  {line.rstrip()}", file=out, flush=True)
                        seen = max(seen, length)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def show(world):
    """Sends good traffic and attacks; failures, as sentences."""
    failures = []
    red = world.tenants[0]
    one, two = red.guests
    figures = {"good": [], "attacks": []}
    for a, b in ((one, two), (one, world.internet), (two, world.internet)):
        for options in ({}, {"ipv6": True}, {"payload": 1472}):
            good = ping(a, b, seconds=5, per_second=world.pace.pings_per_second,
                        answer_s=world.pace.answer_s, **options)
            say(f"{good.name}: {good.delivered} of {good.sent}, {good.rate}")
            figures["good"].append(dataclasses.asdict(good))
            if good.lost or not good.sent:
                failures.append(f"{good.name}: {good.delivered} of {good.sent} frames arrived")
    gateway = world.gateway_of(one)
    attacks = all_attacks(me=one, sibling=two, other=two, gateway=gateway, outside=world.internet,
                          uplink=red.uplink, other_switch=red.uplink, n=10)
    for attack in attacks:
        if attack.reason not in ATTACKS or not attack.scapy or attack.attacker:
            continue
        result = carry_out(attack, one, red, one.name, world)
        say(f"{result.name}: {result.failure or 'stopped'}, {result.sent} sent, "
            f"{result.counted} counted, {result.kept_by_nic} kept by the NIC")
        figures["attacks"].append(dataclasses.asdict(result))
        if result.failure:
            failures.append(f"{result.name}: {result.failure}")
    (OUT / "report.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return failures


def inside():
    OPTIONS.extend(["--launcher", LAUNCHER])
    with libvirtd() if LAUNCHER == "libvirt" else contextlib.nullcontext():
        return prove()


def prove():
    before, failures = SITE.traces(), ["it did not run"]
    world = Nested([ROOT / "examples" / "red.toml"])
    try:
        with console_followed():
            world.up(say)
            say("everything answers")
            failures = show(world)
    except ScriptError as error:
        failures = [str(error)]
    finally:
        world.down()
        failures += [f"left behind: {kind}: {what}"
                     for kind, what in SITE.left_behind(before).items()]
    for failure in failures:
        say(f"FAILED: {failure}")
    say("passed" if not failures else "failed")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[2:] == ["inside"] else outside())
