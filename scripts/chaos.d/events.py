"""The events: what happens to a tenant's switch, to the supervisor, to an apply, or to the host.

An event is a function of the stage, the victim and the round's chances. It returns when the
disturbance is over and healing has all that it needs; what it returns, if anything, restores the
ordinary state after the victim is back.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time

from hosts import ScriptError, ip, run

# How long something stays stopped or full.
HOLD_S = 3
# Of the points at which a crash must do no harm, those at which an apply is killed. The longest
# change here has 29; a short one has ended before.
KILL_POINTS = 20
# How long the supervisor is away.
AWAY_S = 1


@dataclasses.dataclass(frozen=True)
class Event:
    """One kind of event."""

    name: str
    happen: object
    # Whether it hits the traffic of all tenants to the Internet, and no other, since what goes is
    # the uplinks' and shared.
    hits_uplinks: bool = False
    # Whether it hits all traffic of all tenants.
    hits_all: bool = False
    # Whether it needs a switch in a VM.
    vm: bool = False


def kill_switch(stage, victim, _):
    _signal_switch(stage, victim, signal.SIGKILL)


def stop_switch(stage, victim, _):
    _signal_switch(stage, victim, signal.SIGSTOP)


def _signal_switch(stage, victim, number):
    pid = stage.switch_pid(victim)
    if pid is None:
        raise ScriptError(f"{victim.name} has no switch to send {number.name}")
    os.kill(pid, number)


def kill_supervisor(stage, victim, _):
    """The victim's switch dies while the supervisor is away."""
    stage.kill_supervisor()
    kill_switch(stage, victim, _)
    time.sleep(AWAY_S)
    stage.start_supervisor()


def stop_supervisor(stage, victim, _):
    """A watchdog ends a supervisor that does not answer."""
    stage.supervisor.send_signal(signal.SIGSTOP)
    kill_switch(stage, victim, _)
    time.sleep(HOLD_S)
    stage.kill_supervisor()
    stage.start_supervisor()


def kill_apply(stage, victim, chances):
    """An apply of the changed file ends at one of the points at which a crash must do no harm."""
    stage.files.change(victim.name, chances[0])
    stage.attempt("--kill-at", int(chances[1] * KILL_POINTS), *stage.apply_of(victim))
    return _applied_again(stage, victim)


def stop_apply(stage, victim, chances):
    """An apply of the changed file stands still for a while."""
    stage.files.change(victim.name, chances[0])
    with _applying(stage, victim) as child:
        time.sleep(chances[1] / 2)
        child.send_signal(signal.SIGSTOP)
        time.sleep(HOLD_S)
        child.send_signal(signal.SIGCONT)
    return _applied_again(stage, victim)


def change_file(stage, victim, chances):
    """The file is changed and applied."""
    stage.files.change(victim.name, chances[0])
    stage.provision(*stage.apply_of(victim))
    return _applied_again(stage, victim)


def _applied_again(stage, victim):
    """Returns to the original file, once the victim is back."""
    def restore():
        stage.files.restore(victim.name)
        stage.provision(*stage.apply_of(victim))
    return restore


@contextlib.contextmanager
def _applying(stage, victim):
    """An apply under way; it must succeed."""
    child = subprocess.Popen(stage.command(*stage.apply_of(victim)), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield child
        said, _ = child.communicate(timeout=stage.command_within_s)
    except subprocess.TimeoutExpired:
        raise ScriptError("the apply that stood still does not end") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode != 0:
        raise ScriptError(f"the apply that stood still failed: {said.strip()}")


def delete_port(_, victim, chances):
    """One end of a port's veth pair; the other goes with it."""
    port = int(chances[0] * len(victim.guests))
    guest = victim.guests[port]
    if chances[1] < 0.5:
        ip(guest.netns, "link delete eth0")
    else:
        gw = victim.config()["ports"][port]["device"]["interface"]
        ip(victim.netns, f"link delete {gw}")


def delete_namespace(_, victim, __):
    ip("", f"netns delete {victim.netns}")


def delete_inout(_, victim, __):
    ip(victim.netns, f"link delete {victim.uplink.interface}")


def detach_port(stage, victim, _):
    """The In/Out port is taken off the bridge."""
    ip("", f"link set {stage.bridge_port(victim)} nomaster")


def delete_lock(stage, victim, _):
    """The chain of one port."""
    run(["nft", "delete", "chain", "netdev", stage.site.instance,
         f"lock-{stage.bridge_port(victim)}"])


def delete_guard_rules(stage, _, __):
    """What drops frames that no lock has judged."""
    run(["nft", "flush", "chain", "bridge", stage.site.instance, "ports"])


def delete_bridge(stage, _, __):
    """The wire goes with it, and whoever manages the host's network puts it back."""
    ip("", f"link delete {stage.site.bridge}")


def change_setting(stage, victim, chances):
    """Another manager sets something of the tenant's."""
    port = victim.config()["ports"][int(chances[1] * len(victim.guests))]
    gateway = port["device"]["interface"]
    changes = (
        lambda: ip(victim.netns, f"link set {gateway} mtu 1300"),
        lambda: ip(victim.netns, f"link set {victim.uplink.interface} mtu 1400"),
        lambda: ip(victim.netns, f"link set {gateway} arp on"),
        lambda: run(["bridge", "link", "set", "dev", stage.bridge_port(victim),
                     "isolated", "off"]),
        lambda: ip("", f"link set {stage.bridge_port(victim)} mtu 1400"),
        lambda: stage.limit_group(victim),
    )
    changes[int(chances[0] * len(changes))]()


def delete_group(stage, victim, chances):
    """A control group can go only when its processes have."""
    kill_switch(stage, victim, chances)
    stage.delete_groups(victim.name)


def delete_directory(stage, victim, _):
    shutil.rmtree(stage.site.state_dir / "tenants" / victim.name)


def reboot(stage, _, __):
    """Everything goes that a reboot removes, but the guests, which are not the provisioner's to
    bring back."""
    stage.kill_supervisor()
    for tenant in stage.tenants:
        kill_switch(stage, tenant, _)
    for tenant in stage.tenants:
        ip("", f"netns delete {tenant.netns}")
    delete_bridge(stage, _, __)
    delete_locks(stage, _, __)
    stage.delete_groups()
    time.sleep(AWAY_S)
    stage.start_supervisor()


def delete_locks(stage, _, __):
    """Every table of ours, as `nft flush ruleset` would."""
    for entry in json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]:
        table = entry.get("table", {})
        if table.get("name") == stage.site.instance:
            run(["nft", "delete", "table", table["family"], table["name"]])


def delete_socket(_, victim, __):
    victim.control.unlink()


def fill_state(stage, victim, chances):
    """The state directory is full; meanwhile the victim's switch dies, and its changed file is
    applied."""
    ballast = stage.site.state_dir / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        kill_switch(stage, victim, chances)
        stage.files.change(victim.name, chances[0])
        applied = stage.attempt(*stage.apply_of(victim))
        time.sleep(HOLD_S)
    finally:
        stage.files.restore(victim.name)
        ballast.unlink()
    if applied.returncode not in (0, 1):
        raise ScriptError(f"an apply in a full state directory ended with status "
                          f"{applied.returncode}: {applied.stderr.strip()}")
    return _applied_again(stage, victim)


def every_event(vm):
    """All events that this run can have."""
    events = [
        Event("SIGKILL of the switch", kill_switch),
        Event("SIGSTOP of the switch", stop_switch),
        Event("SIGKILL of the supervisor", kill_supervisor),
        Event("SIGSTOP of the supervisor", stop_supervisor),
        Event("SIGKILL of an apply", kill_apply),
        Event("SIGSTOP of an apply", stop_apply),
        Event("veth end deleted", delete_port),
        Event("namespace deleted", delete_namespace),
        Event("In/Out pair deleted", delete_inout),
        Event("In/Out port off the bridge", detach_port),
        Event("bridge deleted", delete_bridge, hits_uplinks=True),
        Event("nft tables deleted", delete_locks, hits_uplinks=True),
        Event("guard's rules deleted", delete_guard_rules, hits_uplinks=True),
        Event("lock deleted", delete_lock),
        Event("setting changed", change_setting),
        Event("control group deleted", delete_group),
        Event("tenant's directory deleted", delete_directory),
        Event("reboot", reboot, hits_all=True),
        Event("control socket deleted", delete_socket),
        Event("state directory full", fill_state),
        Event("tenant's file changed", change_file),
        Event("SIGKILL of QEMU", kill_switch, vm=True),
    ]
    return [event for event in events if vm or not event.vm]
