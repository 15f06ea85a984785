"""One round: an event, and whether everything is as promised afterwards."""

import contextlib
import dataclasses
import json
import time

from hosts import ScriptError
from leaks import inventory, leaked

# How long no frame may be missing before the tenant counts as back.
WHOLE_S = 0.5
LOOK_EVERY_S = 0.1
SETTLED_S = 3


@dataclasses.dataclass
class Outcome:
    """What a round has come to. The report has these names."""

    round: int
    event: str
    victim: str
    # From the event until the victim's last missing frame; 0 if none was.
    outage_s: float
    # From the event until its traffic flowed and `verify` was clean; None if it did not come back.
    back_s: float | None
    # Of the other tenants, frames that were sent and that are missing.
    others_sent: int
    others_lost: int
    leaks: list
    # Each broken promise, as a sentence.
    failures: list

    def line(self):
        back = "not back" if self.back_s is None else f"back {self.back_s:4.1f} s"
        leaks = f"{len(self.leaks)} leaks" if self.leaks else "no leaks"
        return (f"{self.round:4}  {self.event:26} {self.victim:6} out {self.outage_s:4.1f} s  "
                f"{back}  others lost {self.others_lost} of {self.others_sent}  {leaks}")


class Rounds:
    """Carries out rounds on a stage."""

    def __init__(self, stage, events):
        self._stage = stage
        self._events = {event.name: event for event in events}
        # The supervisor has connected to every switch.
        time.sleep(SETTLED_S)
        # What is only passing by is in some of them.
        samples = []
        for _ in range(5):
            samples.append(inventory(stage.site, stage.supervisor.pid))
            time.sleep(0.3)
        self._before = {kind: min_of([sample[kind] for sample in samples]) for kind in samples[0]}

    def carry_out(self, drawn):
        stage, event = self._stage, self._events[drawn.event]
        victim = stage.tenant(drawn.victim)
        hit = self._hit(event, victim)
        failures, stage.unexpected = [], []
        stage.traffic.cut()
        began = time.monotonic()
        restore = back_s = None
        try:
            restore = event.happen(stage, victim, drawn.chances)
            back_s = self._wait_until_back(hit, began)
            if back_s is None:
                failures.append(f"not back after {stage.back_within_s} s: {self._why(hit)}")
        except ScriptError as error:
            failures.append(str(error))
        cuts = [stage.traffic.cut()]
        last = max((cuts[0][flow].last_missing or began for flow in hit), default=began)
        if restore:
            try:
                restore()
            except ScriptError as error:
                failures.append(str(error))
            cuts.append(stage.traffic.cut())
        sent, lost = others(cuts, hit)
        failures += [f"{flow}: {missing} frames are missing" for flow, missing in lost.items()]
        leaks = leaked(self._before, lambda: inventory(stage.site, stage.supervisor.pid))
        failures += [*stage.unexpected, *leaks]
        if failures:
            # The next round has nothing to do with this one.
            with contextlib.suppress(ScriptError):
                stage.repair()
            self._wait_until_back(set(cuts[0]), began)
        hit_all = event.hits_uplinks or event.hits_all
        return Outcome(drawn.number, drawn.event, "all" if hit_all else drawn.victim,
                       round(last - began, 2), back_s, sent, sum(lost.values()), leaks, failures)

    def _hit(self, event, victim):
        """The flows that an event may interrupt."""
        traffic = self._stage.traffic
        if event.hits_all:
            return set().union(*(traffic.of_tenant(tenant) for tenant in self._stage.tenants))
        return traffic.to_internet() if event.hits_uplinks else traffic.of_tenant(victim)

    def _wait_until_back(self, hit, began):
        """Seconds from `began` until these flows are whole and `verify` is clean; None if not in
        time."""
        stage = self._stage
        deadline = time.monotonic() + stage.back_within_s
        while time.monotonic() < deadline:
            stage.attend()
            # What has just happened may not have cost a frame yet: it has after the verification.
            if self._is_whole(hit) and self._is_clean() and self._is_whole(hit):
                return round(time.monotonic() - began, 2)
            time.sleep(LOOK_EVERY_S)
        return None

    def _is_whole(self, hit):
        whole = self._stage.traffic.whole_s(hit)
        return whole is not None and whole > WHOLE_S

    def _is_clean(self):
        return not self._states() and self._stage.attempt("verify").returncode == 0

    def _states(self):
        """The tenants whose switch is not up or does not answer, as a sentence."""
        status = self._stage.attempt("--json", "status")
        if status.returncode not in (0, 3):
            return status.stderr.strip()
        bad = [f"{tenant['tenant']} is {tenant['state']}"
               + ("" if tenant["ports"] else " and does not answer")
               for tenant in json.loads(status.stdout)["tenants"]
               if tenant["state"] != "up" or not tenant["ports"]]
        return ", ".join(bad)

    def _why(self, hit):
        """What is wrong, for the report."""
        whole = self._stage.traffic.whole_s(hit)
        verify = self._stage.attempt("verify")
        traffic = "its traffic is not whole" if whole is None else f"whole for {whole:.1f} s"
        said = " / ".join((verify.stdout + verify.stderr).strip().splitlines())
        return f"{traffic}; {self._states()}; verify: status {verify.returncode} {said}"


def others(cuts, hit):
    """Of the flows that were not hit: the frames that were sent, and {flow: missing ones}."""
    sent, lost = 0, {}
    for cut in cuts:
        for flow in cut.keys() - hit:
            sent += cut[flow].sent
            if cut[flow].missing:
                lost[flow] = lost.get(flow, 0) + cut[flow].missing
    return sent, lost


def min_of(counters):
    """What is in all of them."""
    least = counters[0]
    for counter in counters[1:]:
        least &= counter
    return least
