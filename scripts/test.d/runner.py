"""Runs suites one after the other, and the one of the emulated machine beside them."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from children import attended
from counts import ROOT, Counts, failed, run
from crates import BuildFailure, build
from suites import ABOUT, PROGRAMS_BUILD

REPORT = ROOT / "target" / "test" / "report.json"

# The emulated machine has one thread, which is always busy: this suite has the first CPU, and
# others that take all that they get leave it alone. Live tests take little, and start switches on
# any CPU.
BESIDE = "sriov"
BUSY = ("fmt", "lint", "docs", "unit", "filter", "provisioner", "instructions", "mutants")
# They measure losses, and the time until what was killed is back, or start several machines:
# nothing runs beside them.
ALONE = ("vm", "demo", "chaos", "nested", "interop")
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
    """A suite that runs beside others, in a process of its own on these CPUs; its output is shown
    at its end."""

    def __init__(self, name, cpus, directory, stack):
        self.name = name
        self._log, self._report = directory / f"{name}.log", directory / f"{name}.json"
        directory.mkdir(parents=True, exist_ok=True)
        self._report.unlink(missing_ok=True)
        self._started = time.monotonic()
        output = stack.enter_context(self._log.open("w"))
        self._child = stack.enter_context(attended(
            self.command(self._report), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output))
        os.sched_setaffinity(self._child.pid, cpus)
        self._ended = threading.Event()
        stack.callback(self._ended.set)
        threading.Thread(target=self._show_progress, daemon=True).start()
        print(f"\n── {self.name} runs beside the next suites; its output follows when it has ended",
              flush=True)

    def command(self, report):
        program = pathlib.Path(__file__).with_name("main.py")
        return [sys.executable, program, "--report", report, self.name]

    def _show_progress(self):
        while not self._ended.wait(PROGRESS_EVERY_S) and self.is_running():
            lines = self._log.read_text(errors="replace").splitlines()
            last = next((line for line in reversed(lines) if line.strip()), "")
            print(f"── {self.name} runs, {self._seconds():.0f} s: {last[:70]}", flush=True)

    def is_running(self):
        return self._child.poll() is None

    def _seconds(self):
        return time.monotonic() - self._started

    def finish(self):
        """Waits for its end and shows its output; its counts and seconds."""
        self._child.wait()
        self._ended.set()
        print(self._log.read_text(errors="replace"), flush=True)
        if not self._report.exists():
            status = self._child.returncode
            return failed(f"ended with status {status}, without a report"), self._seconds()
        suite, = json.loads(self._report.read_text())["suites"]
        seconds = suite.pop("seconds")
        del suite["name"]
        return Counts(**suite), seconds


class Runner:
    """Runs the chosen suites and keeps their results."""

    beside = Beside

    def __init__(self, suites, chosen):
        self._suites, self._chosen = suites, chosen
        self.results, self.interruption = {}, None

    def run(self):
        others = [name for name in self._chosen if name not in (BESIDE, *ALONE)]
        if BESIDE in self._chosen and others and len(os.sched_getaffinity(0)) > 1:
            self._run_beside(others)
            self._run_each([name for name in self._chosen if name in ALONE])
        else:
            self._run_each(self._chosen)

    def _run_each(self, names):
        for name in names:
            if self.interruption:
                return
            counts, seconds, self.interruption = run_suite(name, self._suites[name])
            self.results[name] = counts, seconds

    def _run_beside(self, others):
        """Runs the others while the first CPU is taken."""
        with contextlib.suppress(BuildFailure):
            build()  # each suite that needs it reports the failure
        cpus = os.sched_getaffinity(0)
        first, *rest = sorted(cpus)
        try:
            with contextlib.ExitStack() as stack:
                beside = self.beside(BESIDE, {first}, REPORT.parent, stack)
                os.sched_setaffinity(0, rest)
                run(PROGRAMS_BUILD)  # the suite beside needs them, and reports a failure
                for name in others:
                    leaves_one = name in BUSY and beside.is_running()
                    os.sched_setaffinity(0, rest if leaves_one else cpus)
                    self._run_each([name])
                if self.interruption:
                    raise self.interruption  # ends the other suite too
                self.results[BESIDE] = beside.finish()
        except (KeyboardInterrupt, SystemExit) as caught:
            self.results[BESIDE], self.interruption = (failed("interrupted"), 0), caught
        finally:
            os.sched_setaffinity(0, cpus)
