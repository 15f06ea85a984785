"""Runs the suites and sums up their results; `scripts/test --help` says more."""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from children import attended
from counts import ROOT, Counts, failed
from crates import BuildFailure, build
from suites import ABOUT, all_suites

REPORT = ROOT / "target" / "test" / "report.json"

# The emulated machine has one thread: on two CPUs it leaves one to suites that measure no time.
BESIDE = "sriov"
BESIDE_WITH = ("fmt", "lint", "docs", "unit", "filter", "provisioner", "instructions")
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
    """A suite that runs beside others, in a process of its own; its output is shown at its end."""

    def __init__(self, name, directory, stack):
        self.name = name
        self._log, self._report = directory / f"{name}.log", directory / f"{name}.json"
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
        print(f"\n── {name} runs beside the next suites; its output follows when it has ended",
              flush=True)

    def command(self, report):
        return [sys.executable, __file__, "--report", report, self.name]

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
        chosen, along = list(self._chosen), []
        if BESIDE in chosen and len(os.sched_getaffinity(0)) > 1:
            along = [name for name in chosen if name in BESIDE_WITH]
        if along:
            chosen = [name for name in chosen if name not in (BESIDE, *along)]
            self._run_beside(along)
        self._run_each(chosen)

    def _run_each(self, names):
        for name in names:
            if self.interruption:
                return
            counts, seconds, self.interruption = run_suite(name, self._suites[name])
            self.results[name] = counts, seconds

    def _run_beside(self, names):
        """Runs `names` on all CPUs but one, while the other suite runs."""
        with contextlib.suppress(BuildFailure):
            build()  # each suite that needs it reports the failure
        cpus = os.sched_getaffinity(0)
        try:
            with contextlib.ExitStack() as stack:
                beside = self.beside(BESIDE, REPORT.parent, stack)
                for name in names:
                    os.sched_setaffinity(0, sorted(cpus)[1:] if beside.is_running() else cpus)
                    self._run_each([name])
                if self.interruption:
                    raise self.interruption  # ends the other suite too
                self.results[BESIDE] = beside.finish()
        except (KeyboardInterrupt, SystemExit) as caught:
            self.results[BESIDE], self.interruption = (failed("interrupted"), 0), caught
        finally:
            os.sched_setaffinity(0, cpus)


def clean_up():
    """Removes what a killed demo has left. The tests' own namespaces end with their processes."""
    if os.geteuid() == 0:
        subprocess.run(["scripts/demo", "--clean", "--quiet"], cwd=ROOT, check=False)


def table(results):
    print()
    print(f"{'suite':<12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for suite, (counts, seconds) in results.items():
        print(f"{suite:<12} {counts.passed:>7} {counts.failed:>7} {counts.skipped:>8} {seconds:>8.1f}")
        for note in counts.notes:
            print(f"{'':<12} {note}")


def write_report(file, results, total):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({
        "suites": [
            {"name": suite, **vars(counts), "seconds": round(seconds, 1)}
            for suite, (counts, seconds) in results.items()
        ],
        "passed": total.passed, "failed": total.failed, "skipped": total.skipped,
    }, indent=2) + "\n")


def parse():
    default = REPORT.relative_to(ROOT)
    parser = argparse.ArgumentParser(
        prog="scripts/test", description="Runs all suites, or those named, and ends with a summary.",
        epilog=f"Suites that measure no time ({', '.join(BESIDE_WITH)}) run beside `{BESIDE}` where "
               "there are two CPUs.")
    parser.add_argument("suite", nargs="*", metavar="SUITE", help=", ".join(ABOUT))
    parser.add_argument("--list", action="store_true", help="name the suites")
    parser.add_argument("--quick", action="store_true", help="a shorter demo; all else is the same")
    parser.add_argument("--report", metavar="FILE", type=pathlib.Path, default=REPORT,
                        help=f"where to write the figures as JSON (default {default})")
    arguments = parser.parse_args()
    for suite in arguments.suite:
        if suite not in ABOUT:
            parser.error(f"there is no suite '{suite}'; there are {', '.join(ABOUT)}")
    return arguments


def main():
    arguments = parse()
    if arguments.list:
        for suite, about in ABOUT.items():
            print(f"{suite:<12} {about}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    suites = all_suites(arguments.quick)
    runner = Runner(suites, arguments.suite or [suite for suite in suites if suite != "nested"])
    runner.run()
    clean_up()
    total = Counts()
    for counts, _ in runner.results.values():
        total.add(counts)
    table(runner.results)
    write_report(arguments.report, runner.results, total)
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 130 if runner.interruption else int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
