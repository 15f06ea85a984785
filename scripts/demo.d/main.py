"""The order of the demo; `scripts/demo --help` says more."""

import argparse
import dataclasses
import signal
import subprocess
import sys
import time

from attacking import carry_out
from attacks import all_attacks
from between import Between, show_between
from children import attend
from encrypted import Encrypted, show_encrypted, why_not
from host_b import OPTIONS_B, HostB
from hosts import ScriptError
from isolation import all_tries
from ordinary import Ordinary, show_ordinary
from ordinary import why_not as why_not_ordinary
from report import Report
from restart import kill_and_watch
from sites import ROOT
from sriov import MACHINE, Sriov, boot
from traffic import Flow, all_good, running, speed
from unprotected import Unprotected
from world import EMULATED, OPTIONS, PROVISIONER, ROOT_B, SITE, World

REPORT = ROOT / "target" / "demo" / "report.json"
TENANTS = [ROOT / "examples" / "red.toml", ROOT / "examples" / "blue.toml"]
TENANTS_B = ROOT / "examples" / "host-b"


def say(message):
    print(f"demo: {message}", file=sys.stderr, flush=True)


def background(red, blue, internet, frames_per_second):
    """Good traffic during the attacks: from and to the attacked tenant, and of the other."""
    options = {"per_second": frames_per_second, "payload": 200}
    flows = [
        Flow(red.guests[1], internet, port=5400, **options),
        Flow(internet, red.guests[1], port=5401, ipv6=True, **options),
        Flow(blue.guests[0], blue.guests[1], port=5402, **options),
        Flow(blue.guests[1], internet, port=5403, ipv6=True, **options),
    ]
    for flow in flows:
        flow.name = f"during the attacks, {flow.name}"
    return flows


def show(world, report, quick):
    """All steps of the demo, in order."""
    red, blue = world.tenants
    seconds, frames = (1, 10) if quick else (2, 50)
    pace = world.pace
    if quick:
        pace = dataclasses.replace(pace, frames_per_second=max(20, pace.frames_per_second * 2 // 5))

    say("good traffic: within each tenant, and to the Internet")
    pairs = [(red.guests[0], red.guests[1]), (red.guests[0], world.internet),
             (blue.guests[0], blue.guests[1]), (blue.guests[0], world.internet)]
    for good in all_good(pairs, seconds, pace):
        report.good.append(good)
        say(f"  {good.name}: {good.delivered} of {good.sent}, {good.rate}")

    for b in (red.guests[1], world.internet):
        report.speed.append(speed(red.guests[0], b, seconds=seconds))
        say(f"  {report.speed[-1].name}: {report.speed[-1].bits_per_second / 1e6:.0f} Mbit/s")

    gateway = world.gateway_of(red.guests[0])
    with running(background(red, blue, world.internet, pace.frames_per_second)) as flows:
        say("red tries to reach blue, while good traffic runs")
        report.isolation.extend(all_tries(red.guests[0], *blue.guests[:2], gateway, blue,
                                          (*blue.guests, blue.uplink),
                                          world, frames))
        attacks = all_attacks(
            me=red.guests[0], sibling=red.guests[1], other=blue.guests[0], gateway=gateway,
            outside=world.internet, uplink=red.uplink, other_switch=blue.uplink, n=frames)
        say(f"{len(attacks)} attacks on red's switch, while good traffic runs")
        for number, attack in enumerate(attacks, 1):
            attacker = attack.attacker or red.guests[0]
            port = "uplink" if attack.attacker else attacker.name
            result = carry_out(attack, attacker, red, port, world)
            report.attacks.append(result)
            say(f"  {number:2} {result.name} ({result.tool}): {result.failure or 'stopped'}")
        report.good.extend(flow.stop() for flow in flows)

    if world.second:
        report.between = Between()
        show_between(world, report.between, seconds, frames, pace, say)
    if isinstance(world, Unprotected):
        return
    say("killing red's switch while both tenants' traffic runs")
    remote = world.second.tenant(red.name).guests[0] if world.second else None
    report.restart = kill_and_watch(red, blue, world.internet, pace, remote)
    if why := why_not_ordinary(world):
        say(f"ordinary guests are skipped: {why}")
    else:
        report.ordinary = Ordinary()
        show_ordinary(report.ordinary, pace, say)
    if why := why_not(world):
        say(f"IPsec is skipped: {why}")
        return
    report.encrypted = Encrypted()
    say("building the IKE daemon: scripts/build-ike (2 minutes, once)")
    if build("build-ike"):
        show_encrypted(world, report.encrypted, seconds, frames, pace, say)
    else:
        report.encrypted.unavailable = "scripts/build-ike failed"


def keep(world):
    """Says how to look around in a demo that stays up."""
    red = world.tenants[0]
    guest = red.guests[0]
    on_second = ""
    if world.second:
        far = world.second.tenant(red.name).guests[0]
        on_second = f"""
  ip netns exec {far.netns} ping {guest.ipv4}         {far.name} is on the second host
  nsenter --net=/run/netns/{ROOT_B} {PROVISIONER} {' '.join(OPTIONS_B)} status"""
    print(f"""
The demo stays up. To look around:
  ip netns exec {guest.netns} ping {world.internet.ipv4}         {guest.name} stands for a VM
  {PROVISIONER} {' '.join(OPTIONS)} status
  target/release/vswitch show drops --control {red.control}{on_second}
To stop it: scripts/demo --clean""")


def build(script):
    """Runs a script that builds something; whether that worked. Without changes it takes
    seconds."""
    # Only its progress is shown: standard output belongs to the report.
    return attend([ROOT / "scripts" / script], cwd=ROOT, stdout=subprocess.DEVNULL) == 0


def stage(options):
    """The world that the options ask for."""
    if options.unprotected:
        return Unprotected(TENANTS)
    world = Sriov(TENANTS) if options.nic == "sriov" else World(TENANTS, HostB(TENANTS_B))
    if options.isolation == "vm":
        OPTIONS.extend(["--launcher", "vm"])
        world.pace = EMULATED
    return world


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Builds everything, onboards two tenants (examples/*.toml) on this machine, "
                    "sends good traffic and attacks through their switches, kills a switch, lets "
                    "guests ask for their addresses and move them, puts a tunnel under IPsec, and "
                    "reports what was counted. Needs root, and no special hardware. It leaves "
                    "nothing behind.",
        epilog=f"The figures are also written to {REPORT.relative_to(ROOT)}. Exit status: 0 if all "
               "good traffic and no attack was delivered and every attack was counted; 1 "
               "otherwise; 2 if the demo could not run.")
    option = parser.add_argument
    option("--quick", action="store_true", help="fewer frames and shorter flows; the same list")
    option("--keep", action="store_true", help="leave it up at the end, to look around")
    option("--clean", action="store_true", help="only remove what a killed or kept demo has left, "
                                                 "unless one is under way")
    option("--unprotected", action="store_true",
           help="control experiment: the same on a plain bridge without switches, to see that what "
                "arrives is counted")
    option("--isolation", choices=("process", "vm"), default="process",
           help="what each switch runs in: a confined process, or a dedicated VM (default process)")
    option("--nic", choices=("veth", "sriov"), default="veth",
           help="what carries frames: veth pairs, or virtual functions of an emulated SR-IOV NIC, "
                "in a machine that the demo boots for it (default veth)")
    option("--json", action="store_true", help="print the report as JSON instead of tables")
    option("--quiet", action="store_true", help="with --clean: print nothing")
    options = parser.parse_args()
    if options.unprotected and (options.nic, options.isolation) != ("veth", "process"):
        parser.error("--unprotected has no switches: --nic and --isolation do not apply")
    return options


def perform(world, report, options):
    """Builds the world, shows everything, and takes it down again; an exit status."""
    before, status = SITE.traces(), 2
    try:
        world.up(say)
        show(world, report, options.quick)
        status = 0
    except ScriptError as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    finally:
        if status == 0 and options.keep:
            keep(world)
        elif world.ours:
            # A second Ctrl-C must not stop this half way.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say("taking everything down")
            world.down()
            report.leftovers = SITE.left_behind(before)
            say("nothing is left behind: namespaces, interfaces, tables, control groups, mounts, "
                "processes, files and hugepages are as they were"
                if not report.leftovers else f"left behind: {report.leftovers}")
    return status


def conclude(report, options, started):
    """Prints and writes the report; an exit status."""
    if options.unprotected:
        print(f"\n{report.text()}\n")
        arrived = sum(attack.delivered > 0 for attack in report.attacks)
        say(f"without switches, frames of {arrived} of {len(report.attacks)} kinds of attacks "
            "arrived")
        return 0
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report.json())
    print(report.json() if options.json else f"\n{report.text()}\n")
    failures = list(report.failures())
    for failure in failures:
        say(f"NOT AS IT SHOULD BE: {failure}")
    attacks, good = report.all_attacks(), report.all_good()
    delivered = sum(attack.delivered for attack in attacks)
    say(f"{len(attacks)} kinds of attacks, {delivered} frames of them delivered; "
        f"{len(good)} good flows; {time.monotonic() - started:.0f} s; {REPORT.relative_to(ROOT)}")
    return 1 if failures else 0


def main():
    options = parse()
    if options.clean:
        try:
            SITE.take("demo")
        except ScriptError as error:
            say(f"nothing is removed: {error}")
            return 2
        SITE.clean()
        if not options.quiet:
            say("nothing of the demo is left")
        return 0

    # A killed demo cleans up as an interrupted one does, also where the caller ignores Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if options.isolation == "vm" and not MACHINE.exists():
            say("building the image of the switches' VMs: scripts/build-switch-image")
            if not build("build-switch-image"):
                return 2
        if options.nic == "sriov" and not MACHINE.exists():
            say("booting a machine with an SR-IOV NIC: scripts/vm")
            return boot(sys.argv[1:])
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    started, report, world = time.monotonic(), Report(), stage(options)
    return perform(world, report, options) or conclude(report, options, started)


if __name__ == "__main__":
    sys.exit(main())
