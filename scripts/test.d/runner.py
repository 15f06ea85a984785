"""Runs suites one after the other, and those of emulated machines beside them."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from children import attended
from counts import ROOT, Counts, failed
from crates import BuildFailure, build
from suites import ABOUT, build_release

REPORT = ROOT / "target" / "test" / "report.json"

# An emulated machine has one thread, which is always busy: on two CPUs, these leave one to others.
BESIDE = ("sriov", "vm")
# They measure losses, and the time until what was killed is back: nothing runs beside them. The
# demo has the namespaces of `vm`.
ALONE = ("demo", "chaos", "nested")
PROGRESS_EVERY_S = 60


def run_suite(name, suite):
    """Runs one suite: its counts, its seconds, and what interrupted it, if anything did."""
    print(f"\n── {name}: {ABOUT[name]}", flush=True)
    started, interruption = time.monotonic(), None
    try:
        counts = suite()
    except BuildFailure as failure:
        counts = failed(str(failure))
    except (KeyboardInterrupt, SystemExit) as caught:
        counts, interruption = failed("interrupted"), caught
    return counts, time.monotonic() - started, interruption


class Beside:
    """Suites that run beside others, in a process of their own; its output is shown at its end."""

    def __init__(self, names, directory, stack):
        self._names, self._label = names, " and ".join(names)
        self._log, self._report = directory / "beside.log", directory / "beside.json"
        directory.mkdir(parents=True, exist_ok=True)
        self._report.unlink(missing_ok=True)
        self._started = time.monotonic()
        output = stack.enter_context(self._log.open("w"))
        self._child = stack.enter_context(attended(
            self.command(self._report), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output))
        self._ended = threading.Event()
        stack.callback(self._ended.set)
        threading.Thread(target=self._show_progress, daemon=True).start()
        print(f"\n── {self._label} beside the next suites; the output follows at the end",
              flush=True)

    def command(self, report):
        program = pathlib.Path(__file__).with_name("main.py")
        return [sys.executable, program, "--report", report, *self._names]

    def _show_progress(self):
        while not self._ended.wait(PROGRESS_EVERY_S) and self.is_running():
            lines = self._log.read_text(errors="replace").splitlines()
            last = next((line for line in reversed(lines) if line.strip()), "")
            print(f"── {self._label}, {self._seconds():.0f} s: {last[:70]}", flush=True)

    def is_running(self):
        return self._child.poll() is None

    def _seconds(self):
        return time.monotonic() - self._started

    def finish(self):
        """Waits for its end and shows its output; {suite: its counts and seconds}."""
        self._child.wait()
        self._ended.set()
        print(self._log.read_text(errors="replace"), flush=True)
        if not self._report.exists():
            counts = failed(f"ended with status {self._child.returncode}, without a report")
            return {name: (counts, self._seconds()) for name in self._names}
        results = {}
        for suite in json.loads(self._report.read_text())["suites"]:
            name, seconds = suite.pop("name"), suite.pop("seconds")
            results[name] = Counts(**suite), seconds
        return results


class Runner:
    """Runs the chosen suites and keeps their results."""

    beside = Beside

    def __init__(self, suites, chosen):
        self._suites, self._chosen = suites, chosen
        self.results, self.interruption = {}, None

    def run(self):
        beside = [name for name in self._chosen if name in BESIDE]
        alone = [name for name in self._chosen if name in ALONE]
        others = [name for name in self._chosen if name not in (*BESIDE, *ALONE)]
        if beside and others and len(os.sched_getaffinity(0)) > 1:
            self._run_beside(beside, others)
            self._run_each(alone)
        else:
            self._run_each(self._chosen)

    def _run_each(self, names):
        for name in names:
            if self.interruption:
                return
            counts, seconds, self.interruption = run_suite(name, self._suites[name])
            self.results[name] = counts, seconds

    def _run_beside(self, beside, others):
        """Runs the others on all CPUs but one, while those beside them run."""
        with contextlib.suppress(BuildFailure):
            build()  # each suite that needs it reports the failure
        cpus = os.sched_getaffinity(0)
        try:
            with contextlib.ExitStack() as stack:
                child = self.beside(beside, REPORT.parent, stack)
                os.sched_setaffinity(0, sorted(cpus)[1:])
                build_release()
                for name in others:
                    os.sched_setaffinity(0, sorted(cpus)[1:] if child.is_running() else cpus)
                    self._run_each([name])
                if self.interruption:
                    raise self.interruption  # ends the suites beside too
                self.results.update(child.finish())
        except (KeyboardInterrupt, SystemExit) as caught:
            for name in beside:
                self.results[name] = failed("interrupted"), 0
            self.interruption = caught
        finally:
            os.sched_setaffinity(0, cpus)
