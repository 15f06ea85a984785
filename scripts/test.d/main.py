"""Runs the suites and sums up their results; `scripts/test --help` says more."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys

from counts import ROOT, Counts
from leftovers import remove_leftovers
from runner import ALONE, BESIDE, REPORT, Runner
from suites import ABOUT, ONLY_IF_NAMED, all_suites


def clean_up():
    """Removes what killed tests, and a killed demo or chaos run, have left."""
    remove_leftovers()
    if os.geteuid() == 0:
        subprocess.run(["scripts/demo", "--clean", "--quiet"], cwd=ROOT, check=False)
        subprocess.run(["scripts/chaos", "--clean", "--debug"], cwd=ROOT, check=False)


def table(results):
    print()
    print(f"{'suite':<12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for suite, (counts, seconds) in results.items():
        print(f"{suite:<12} {counts.passed:>7} {counts.failed:>7} {counts.skipped:>8} "
              f"{seconds:>8.1f}")
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
        prog="scripts/test",
        description="Runs all suites, or those named, and ends with a summary.",
        epilog=f"With two CPUs or more, {BESIDE} runs beside the others; {', '.join(ALONE)} run "
               "alone, at the end.")
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
    suites = all_suites(arguments.quick, arguments.suite)
    usual = [suite for suite in suites if suite not in ONLY_IF_NAMED]
    remove_leftovers()  # of an earlier run that could not
    runner = Runner(suites, arguments.suite or usual)
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
