"""One tenant's switch is killed while both tenants' traffic runs."""

import contextlib
import dataclasses
import os
import signal
import time

from counting import Counters
from hosts import ScriptError
from traffic import Flow, running


@dataclasses.dataclass
class Restart:
    """The outcome. The report has these names."""

    # Frames of the other tenant's flows that did not arrive, in the whole experiment.
    other_tenant_sent: int
    other_tenant_lost: int
    # The longest silence of one of the tenant's flows; None if one did not come back.
    outage_s: float | None
    # Until the supervisor's new process existed, and how many frames that were sent after the kill
    # had arrived by then. Frames sent before may still be in flight on a busy machine.
    restarted_s: float
    delivered_while_down: int
    # Frames of the tenant that arrived after the restart.
    delivered_after: int

    @property
    def failures(self):
        if self.other_tenant_lost:
            yield f"the other tenant lost {self.other_tenant_lost} frames"
        if self.delivered_while_down:
            yield f"{self.delivered_while_down} frames passed while the switch was down"
        if self.outage_s is None:
            yield "not all of the tenant's traffic came back"


# The killed switch cannot have taken a frame that is sent this much later than the signal.
DYING_S = 0.005


def wait_until_back(flows, patience_s):
    """Waits until a frame of each flow arrives, for a limited time, and one second more."""
    with contextlib.ExitStack() as stack:
        counters = [stack.enter_context(Counters([flow.arriving()])) for flow in flows]
        deadline = time.monotonic() + patience_s
        while any(counter.value() == 0 for counter in counters) and time.monotonic() < deadline:
            time.sleep(0.05)
    time.sleep(1)


def kill_and_watch(tenant, other, internet, pace, remote=None):
    """Kills `tenant`'s switch with SIGKILL and waits until the supervisor has restored its traffic,
    also with `remote`, a guest of the tenant on another host."""
    def flows_of(guests, port):
        options = {"per_second": pace.frames_per_second, "payload": 200}
        return [Flow(guests[0], guests[1], port=port, **options),
                Flow(guests[1], guests[0], port=port + 1, ipv6=True, **options),
                Flow(guests[0], internet, port=port + 2, **options),
                Flow(internet, guests[1], port=port + 3, ipv6=True, **options)]

    flows = flows_of(tenant.guests, 5600)
    if remote:
        options = {"per_second": pace.frames_per_second, "payload": 200}
        flows += [Flow(tenant.guests[0], remote, port=5604, **options),
                  Flow(remote, tenant.guests[1], port=5605, ipv6=True, **options)]
    with running(flows) as own, running(flows_of(other.guests, 5700)) as others:
        time.sleep(1)
        pid = tenant.switch_pid()
        if pid is None:
            raise ScriptError(f"{tenant.name}'s switch does not run in {tenant.netns}")
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while (tenant.switch_pid() in (None, pid)) and time.monotonic() < killed + pace.patience_s:
            time.sleep(0.005)
        restarted = time.monotonic()
        wait_until_back(own, pace.patience_s)
        for flow in own:
            flow.stop(whole=False)
        lost = [flow.stop() for flow in others]

    silences = [flow.silence(killed + DYING_S) for flow in own]
    arrivals = [moment for flow in own for _, moment in flow.arrivals]
    return Restart(
        other_tenant_sent=sum(good.sent for good in lost),
        other_tenant_lost=sum(good.lost for good in lost),
        outage_s=round(max(silences), 3) if None not in silences else None,
        restarted_s=round(restarted - killed, 3),
        delivered_while_down=sum(flow.passed(killed + DYING_S, restarted) for flow in own),
        delivered_after=sum(moment > restarted for moment in arrivals),
    )
