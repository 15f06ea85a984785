"""Runs the suites and adds up what they say.

The tests of the Rust crates are divided among suites by the rules of SUITES, of which the first that matches
decides: every test belongs to exactly one suite, and one that nobody thought of falls to the last, `unit`.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT / "scripts/lib"))
from children import attend, attended  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REPORT = ROOT / "target" / "test" / "report.json"

# Which tests of the crates belong to which suite, by package, test binary and the test's path:
# first match wins.
SUITES = (
    ("sriov", r".*", r"sriov.*", r".*"),
    # The emulated machine's kernel has that device; few others do.
    ("sriov", r".*", r"live_gateway", r"linux::geneve.*"),
    ("vm", r".*", r".*vm.*", r".*"),
    ("gateway", r".*", r"live_gateway.*", r".*"),
    ("gateway", r".*", r".*", r"(.*::)?(gateway|tunnel)(::|_).*"),
    ("live", r".*", r"live.*|.*veth.*", r".*"),
    ("live", r".*", r".*", r"(.*::)?live(::|_).*"),
    ("dpdk", r"dpdk|dpdk-sys|ports", r".*", r".*"),
    ("dpdk", r"vswitch", r"worker", r".*"),
    ("dpdk", r"vswitch", r"vswitch", r"worker::.*"),
    ("filter", r"packet|pipeline", r".*", r".*"),
    ("provisioner", r"vf-.*", r".*", r".*"),
    ("unit", r".*", r".*", r".*"),
)

ABOUT = {
    "fmt": "the code's format",
    "lint": "clippy, shellcheck, dependencies' licences and sources",
    "unit": "the crates' own tests that no other suite takes, and the examples in their documentation",
    "filter": "the pipeline: against the slow model, against recorded frames, properties of random frames",
    "dpdk": "bindings, ports and worker on DPDK's software devices; no root needed",
    "provisioner": "plan, apply, roll-back, crash injection",
    "gateway": "the tunnel gateway: its own tests, and live against Linux, Open vSwitch, Wireshark and attackers; needs root",
    "live": "switches in network namespaces; needs root",
    "sriov": "VFs of a real SR-IOV NIC, in the emulated machine (QEMU), which is booted for them",
    "vm": "a dedicated VM for each switch, on this machine; needs root and QEMU",
    "instructions": "instructions per frame of the pipeline, by callgrind, beside those that were recorded",
    "demo": "the demo with short flows; needs root",
    "nested": "only if it is named, for it takes half an hour and more: a switch's VM inside the emulated machine, on its VFs; again by libvirt",
}


class Counts:
    """What one suite or one step of it came to."""

    def __init__(self, passed=0, failed=0, skipped=0, notes=()):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.notes = list(notes)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes


def run(command, **options):
    """Runs a command in the repository and shows it; its exit status."""
    print(f"$ {' '.join(command)}", flush=True)
    return attend(command, cwd=ROOT, **options)


def follow(command, hear):
    """Like `run`, and hands on each line that the command says."""
    print(f"$ {' '.join(command)}", flush=True)
    with attended(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        for line in child.stdout:
            print(line, end="", flush=True)
            hear(line)
    return child.returncode


# What the summary repeats of a step that failed: of a long log, often only the end is kept.
LAST_WORDS = 12


def step(name, command):
    """One check that passes or fails as a whole. The summary repeats the last words of one that failed."""
    last = collections.deque(maxlen=LAST_WORDS)
    status = follow(command, lambda line: last.append(line.rstrip()))
    if status == 0:
        return Counts(passed=1)
    return Counts(failed=1, notes=[f"{name} failed with status {status}; its last words:", *last])


def fmt():
    return step("cargo fmt", ["cargo", "fmt", "--all", "--check"])


def shell_scripts():
    """Every shell script of the repository, by its first line."""
    for path in sorted([*ROOT.glob("scripts/*"), *ROOT.glob("scripts/*.d/*"), *ROOT.glob(".ci/*"), *ROOT.glob("bench/*")]):
        if path.is_file():
            with path.open("rb") as file:
                if file.readline().rstrip() in (b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh"):
                    yield str(path.relative_to(ROOT))


def lint():
    counts = Counts()
    counts.add(step("clippy", ["cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    counts.add(step("shellcheck", ["shellcheck", *shell_scripts()]))
    deny = ["cargo", "deny", "--log-level", "error", "check", "--hide-inclusion-graph"]
    counts.add(step("cargo deny", [*deny, "bans", "licenses", "sources"]))
    counts.add(advisories(deny))
    return counts


def advisories(deny):
    """Known vulnerabilities of dependencies; their database is a repository that not every machine can reach."""
    fetched = subprocess.run(["cargo", "deny", "fetch", "db"], cwd=ROOT, capture_output=True, timeout=120)
    if fetched.returncode == 0:
        return step("cargo deny advisories", [*deny, "--disable-fetch", "advisories"])
    return Counts(skipped=1, notes=["the advisory database cannot be reached: advisories not checked"])


# {binary: (its file, the directory it runs in)}, from the listing.
BINARIES = {}


def suite_of(package, binary, test):
    for suite, *patterns in SUITES:
        if all(map(re.fullmatch, patterns, (package, binary, test))):
            return suite
    raise AssertionError("the last rule takes every test")


@functools.cache
def tests_by_suite():
    """Builds the crates' tests and divides them: {suite: {binary: {test: ignored}}}; None if they do not build."""
    print("$ cargo nextest list --workspace", flush=True)
    listed = subprocess.run(
        ["cargo", "nextest", "list", "--cargo-quiet", "--workspace", "--message-format", "json"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if listed.returncode != 0:
        return None
    divided = collections.defaultdict(lambda: collections.defaultdict(dict))
    for binary, details in json.loads(listed.stdout)["rust-suites"].items():
        BINARIES[binary] = details["binary-path"], details["cwd"]
        for test, case in details["testcases"].items():
            suite = suite_of(details["package-name"], details["binary-name"], test)
            divided[suite][binary][test] = case["ignored"]
    return divided


def nextest(suite):
    divided = tests_by_suite()
    if divided is None:
        return Counts(failed=1, notes=["the tests do not build"])
    chosen = divided[suite]
    if not chosen:
        return Counts(notes=["has no tests"])
    expression = " | ".join(
        f"binary_id(={binary}) & ({' | '.join(f'test(={test})' for test in tests)})"
        for binary, tests in chosen.items())
    profile = "live" if suite in ("gateway", "live", "vm") else "default"
    junit = TARGET / "nextest" / profile / "junit.xml"
    junit.unlink(missing_ok=True)
    print(f"$ cargo nextest run --workspace -E <{sum(map(len, chosen.values()))} tests of {', '.join(chosen)}>", flush=True)
    status = attend(
        ["cargo", "nextest", "run", "--cargo-quiet", "--workspace", "--profile", profile, "--no-tests", "pass", "-E", expression],
        cwd=ROOT)
    counts = Counts(skipped=sum(ignored for tests in chosen.values() for ignored in tests.values()))
    if junit.exists():
        for case in xml.parse(junit).iter("testcase"):
            if case.find("failure") is None and case.find("error") is None:
                counts.passed += 1
                if case.find("flakyFailure") is not None:
                    counts.notes.append(f"{case.get('classname')} {case.get('name')} passed at the second try only")
            else:
                counts.failed += 1
                counts.notes.append(f"{case.get('classname')} {case.get('name')}")
                counts.notes += why("".join(case.itertext()))
    if status != 0 and counts.failed == 0:
        counts.failed, counts.notes = 1, [f"cargo nextest ended with status {status}"]
    return counts


def why(said):
    """Where a test's failure begins in what it said, as notes."""
    lines = [line for line in said.splitlines() if line.strip()]
    panic = next((at for at, line in enumerate(lines) if "panicked at" in line), max(0, len(lines) - LAST_WORDS))
    return [f"  {line}" for line in lines[panic:panic + LAST_WORDS]]


def unit():
    counts = nextest("unit")
    counts.add(doc_tests())
    return counts


def doc_tests():
    """The examples in the crates' documentation, which nextest does not run."""
    command = ["cargo", "test", "--quiet", "--workspace", "--doc"]
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    counts = Counts()
    for passed, failed, ignored in re.findall(r"(\d+) passed; (\d+) failed; (\d+) ignored", done.stdout):
        counts.add(Counts(int(passed), int(failed), int(ignored)))
    if done.returncode != 0:
        print(done.stdout)
        counts.notes = ["documentation examples failed"]
        counts.failed = counts.failed or 1
    return counts


def needs_root(suite):
    def checked(*arguments):
        if os.geteuid() != 0:
            return Counts(skipped=1, notes=["needs root: run it with sudo"])
        return suite(*arguments)
    return checked


@needs_root
def live():
    if run(["cargo", "build", "--quiet", "--workspace", "--bins"]) != 0:
        return Counts(failed=1, notes=["the binaries do not build"])
    return nextest("live")


def gateway():
    if run(["cargo", "build", "--quiet", "--workspace", "--bins"]) != 0:
        return Counts(failed=1, notes=["the binaries do not build"])
    counts = nextest("gateway")
    if os.geteuid() != 0:
        counts.add(Counts(skipped=1, notes=["the live tests of it need root: run it with sudo"]))
    return counts


# What a test of the suite `sriov` needs of the machine, by its path, and whether it needs what RELEASE_BUILD builds: first
# match wins. One boot for each.
MACHINES = (
    (r"(.*::)?no_iommu.*", ("--no-iommu",), False),
    (r"(.*::)?libvirt.*", (), True),
    (r".*", ("--nics", "2"), False),
)


def sriov():
    """Runs the tests' binaries in the emulated machine, each test for itself, and reads what they say."""
    if run(["cargo", "build", "--quiet", "--workspace", "--bins", "--examples"]) != 0:
        return Counts(failed=1, notes=["the binaries do not build"])
    divided = tests_by_suite()
    if divided is None:
        return Counts(failed=1, notes=["the tests do not build"])
    boots = collections.defaultdict(list)
    for binary, tests in divided["sriov"].items():
        for test in tests:
            options, waits = next(machine for pattern, *machine in MACHINES if re.fullmatch(pattern, test))
            boots[waits, options].append((binary, test))
    counts = Counts()
    with in_the_background([*RELEASE_BUILD, WORKLOAD_BUILD]):
        for (waits, options), chosen in boots.items():
            if not waits:
                counts.add(boot(options, chosen))
    for (waits, options), chosen in boots.items():
        if waits:
            counts.add(boot(options, chosen))
    if os.geteuid() == 0:
        counts.add(step("the demo on SR-IOV", ["scripts/demo", "--nic", "sriov", "--quick"]))
    else:
        counts.add(Counts(skipped=1, notes=["the demo on SR-IOV needs root: run it with sudo"]))
    return counts


def boot(options, chosen):
    """One boot of the emulated machine for the chosen tests, (binary, test)."""
    lines = []
    for binary, test in chosen:
        file, directory = BINARIES[binary]
        lines.append(f"cd {shlex.quote(directory)} && {shlex.quote(file)} --exact {shlex.quote(test)} --nocapture"
                     f"; echo '@{binary} {test}' $?")
    script = TARGET / "test" / "machine.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("\n".join(lines) + "\n")
    counts, ended, said = Counts(), set(), []

    def hear(line):
        found = re.fullmatch(r"@(\S+) (\S+) (\d+)\n", line)
        if not found:
            said.append(line)
            return
        ended.add(found.group(1, 2))
        if found.group(3) == "0":
            counts.passed += 1
        else:
            counts.failed += 1
            counts.notes += [f"{found.group(1)} {found.group(2)}", *why("".join(said))]
        said.clear()

    status = follow(["scripts/vm", "--verbose", *options, "--timeout", "1500", "--", "sh", str(script)], hear)
    for binary, test in chosen:
        if (binary, test) not in ended:
            counts.failed += 1
            counts.notes.append(f"{binary} {test} did not end: the machine ended with status {status}")
    return counts


# What the demos, and the suite after this one, run.
RELEASE_BUILD = (
    ["cargo", "build", "--quiet", "--release", "--locked", "-p", "vswitch", "-p", "vf-provisioner"],
    ["scripts/build-switch-image"],
)
# What the suite `instructions` counts.
WORKLOAD_BUILD = ["cargo", "build", "--quiet", "--release", "--locked", "--package", "bench", "--bin", "frame-cost"]


@contextlib.contextmanager
def in_the_background(commands):
    """Builds with the time that the block leaves of the CPUs; the block's end waits for them. Whoever needs what they build,
    and finds it missing, builds it, and says what is wrong."""
    with contextlib.ExitStack() as children:
        for command in commands:
            print(f"$ {' '.join(command)} &", flush=True)
            children.enter_context(attended(["chrt", "--idle", "0", *command], cwd=ROOT))
        yield


def nested():
    for command in RELEASE_BUILD:
        if run(command) != 0:
            return Counts(failed=1, notes=[f"{' '.join(command)} failed"])
    counts = Counts()
    for launcher in ("vm", "libvirt"):
        counts.add(step(f"the nested VM, --launcher {launcher}", ["/usr/bin/python3", "scripts/test.d/nested.py", launcher]))
    return counts


@needs_root
def vm():
    if run(["cargo", "build", "--quiet", "--workspace", "--bins"]) != 0:
        return Counts(failed=1, notes=["the binaries do not build"])
    if run(["scripts/build-switch-image"]) != 0:
        return Counts(failed=1, notes=["the image does not build"])
    counts = nextest("vm")
    counts.add(step("the demo with VMs", ["scripts/demo", "--isolation", "vm", "--quick"]))
    return counts


# Of each kind of frame one; `scripts/bench instructions` counts all stages, and took the record.
STAGES = ("v4-port-to-port/2-ports-1-", "v6-port-to-port/2-ports-1-", "v4-to-uplink/1-ports-1-", "v4-from-uplink/1-ports-1-",
          "arp-answered", "drop/src-mac", "drop/ipv4-source", "tunnel/into-geneve-64", "tunnel/out-of-geneve-64")
RECORD = "bench/instructions.json"
# A change that makes frames dearer than this is to be meant, and recorded.
MORE_PERCENT = "10"


def instructions():
    """Compilers differ by more than changes do. With the one that the record was taken with, the record is one side; with
    another, the commit that took the record is built and counted too."""
    recorded = json.loads((ROOT / RECORD).read_text())["machine"]["versions"]["rustc"]
    here = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    base, notes = RECORD, []
    if here != f"rustc {recorded}":
        base = commit_of(RECORD)
        if base is None:
            return Counts(skipped=1, notes=[
                f"{RECORD} was taken with rustc {recorded}, this is {here}, and the commit that took it is not here: "
                "git fetch --unshallow"])
        notes = [f"{RECORD} was taken with rustc {recorded}, and this is {here}: {base[:12]}, which took it, was built for "
                 "comparison"]
    counts = step("the comparison", ["cargo", "run", "--quiet", "--package", "bench", "--bin", "bench", "--", "compare", base, ".",
                                     *STAGES, "--at-most", MORE_PERCENT])
    counts.notes += notes
    return counts


def commit_of(file):
    """The last commit that changed a file; None if this checkout does not know."""
    command = ["git", "-C", ROOT, "log", "-1", "--format=%H %P", "--", file]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    # Where history is cut off, its first commit seems to have changed everything.
    return said[0] if len(said) > 1 else None


@needs_root
def demo(quick):
    return step("the demo", ["scripts/demo", *(["--quick"] if quick else [])])


def clean_up():
    """Takes away what a killed demo has left. The tests' own namespaces end with their processes."""
    if os.geteuid() == 0:
        subprocess.run(["scripts/demo", "--clean", "--quiet"], cwd=ROOT, check=False)


def table(results):
    print()
    print(f"{'suite':<12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for suite, (counts, seconds) in results.items():
        print(f"{suite:<12} {counts.passed:>7} {counts.failed:>7} {counts.skipped:>8} {seconds:>8.1f}")
        for note in counts.notes:
            print(f"{'':<12} {note}")


def write_report(results, total):
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({
        "suites": [
            {"name": suite, **vars(counts), "seconds": round(seconds, 1)}
            for suite, (counts, seconds) in results.items()
        ],
        "passed": total.passed, "failed": total.failed, "skipped": total.skipped,
    }, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/test", description="Runs all suites, or those named, and ends with a summary.",
        epilog=f"The figures are also written to {REPORT.relative_to(ROOT)}.")
    parser.add_argument("suite", nargs="*", metavar="SUITE", help=", ".join(ABOUT))
    parser.add_argument("--list", action="store_true", help="name the suites")
    parser.add_argument("--quick", action="store_true", help="a shorter demo; all else is the same")
    arguments = parser.parse_args()
    if arguments.list:
        for suite, about in ABOUT.items():
            print(f"{suite:<12} {about}")
        return 0
    for suite in arguments.suite:
        if suite not in ABOUT:
            parser.error(f"there is no suite '{suite}'; there are {', '.join(ABOUT)}")

    suites = {
        "fmt": fmt, "lint": lint, "unit": unit,
        "filter": lambda: nextest("filter"), "dpdk": lambda: nextest("dpdk"),
        "provisioner": lambda: nextest("provisioner"), "gateway": gateway, "live": live, "sriov": sriov, "vm": vm,
        "instructions": instructions, "demo": lambda: demo(arguments.quick), "nested": nested,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, total, interrupted = {}, Counts(), False
    for suite in arguments.suite or (suite for suite in suites if suite != "nested"):
        print(f"\n── {suite}: {ABOUT[suite]}", flush=True)
        started = time.monotonic()
        try:
            counts = suites[suite]()
        except (KeyboardInterrupt, SystemExit):
            counts, interrupted = Counts(failed=1, notes=["interrupted"]), True
        results[suite] = counts, time.monotonic() - started
        total.add(counts)
        if interrupted:
            break
    clean_up()
    table(results)
    write_report(results, total)
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 130 if interrupted else int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
