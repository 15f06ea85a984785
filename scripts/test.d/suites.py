"""The suites: what each is for, and how it runs."""

import contextlib
import json
import os
import re
import subprocess

import crates
import emulated
from children import attended
from counts import ROOT, Counts, failed, run, skipped, step
from crates import nextest

ABOUT = {
    "fmt": "the code's format",
    "lint": "clippy, shellcheck, the scripts' own tests, dependencies' licences and sources",
    "docs": "whether the commands, files, links and functions that the documentation names exist",
    "unit": "the crates' own tests that no other suite takes, and their documentation's examples",
    "filter": "the pipeline: against the slow model, recorded frames and random ones",
    "dpdk": "bindings, ports and worker on DPDK's software devices; no root needed",
    "provisioner": "plan, apply, roll-back, crash injection",
    "gateway": "the tunnel gateway against Linux, Open vSwitch, Wireshark and attackers; "
               "needs root",
    "live": "switches in network namespaces; needs root",
    "sriov": "virtual functions of an SR-IOV NIC, in the emulated machine (QEMU)",
    "vm": "a dedicated VM for each switch, on this machine; needs root and QEMU",
    "instructions": "instructions per frame of the pipeline, compared with the recorded ones",
    "demo": "the demo with short flows; needs root",
    "chaos": "twenty faults under traffic, and whether the tenants recover by themselves; needs "
             "root",
    "nested": "a switch's VM inside the emulated machine, on its virtual functions, started by "
              "QEMU and by libvirt. Takes half an hour or more: runs only if it is named",
}

# What the demos run, and the suites that start a switch's VM.
RELEASE_BUILD = (
    ["cargo", "build", "--quiet", "--release", "--locked", "-p", "vswitch", "-p", "vf-provisioner"],
    ["scripts/build-switch-image"],
)
# The workload of the suite `instructions`.
WORKLOAD_BUILD = ["cargo", "build", "--quiet", "--release", "--locked", "--package", "bench",
                  "--bin", "frame-cost"]


def fmt():
    return step("cargo fmt", ["cargo", "fmt", "--all", "--check"])


def lint():
    counts = step("clippy", ["cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--",
                             "-D", "warnings"])
    counts.add(step("shellcheck", ["shellcheck", *shell_scripts()]))
    counts.add(step("columns", ["/usr/bin/python3", "scripts/test.d/columns.py"]))
    counts.add(step("the scripts' own tests", ["/usr/bin/python3", "-m", "unittest", "discover",
                                               "--start-directory", "scripts/test.d"]))
    deny = ["cargo", "deny", "--log-level", "error", "check", "--hide-inclusion-graph"]
    counts.add(step("cargo deny", [*deny, "bans", "licenses", "sources"]))
    counts.add(advisories(deny))
    return counts


def shell_scripts():
    """Every shell script of the repository, by its first line."""
    for pattern in ("scripts/*", "scripts/lib/*", "scripts/*.d/*", ".ci/*"):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and is_shell(path):
                yield str(path.relative_to(ROOT))


def is_shell(path):
    with path.open("rb") as file:
        return re.match(rb"#!(/usr/bin/env bash|/bin/(ba)?sh)\n", file.readline()) is not None


def advisories(deny):
    """Known vulnerabilities of dependencies. Not every machine can reach their database."""
    fetched = subprocess.run(["cargo", "deny", "fetch", "db"], cwd=ROOT, capture_output=True,
                             timeout=120, check=False)
    if fetched.returncode == 0:
        return step("cargo deny advisories", [*deny, "--disable-fetch", "advisories"])
    return skipped("the advisory database cannot be reached: advisories not checked")


def docs():
    crates.build()
    return step("the documentation", ["/usr/bin/python3", "scripts/test.d/docs.py"])


def unit():
    counts = nextest("unit")
    counts.add(crates.partition())
    counts.add(crates.doc_tests())
    return counts


def needs_root(suite):
    def checked():
        return suite() if os.geteuid() == 0 else skipped("needs root: run it with sudo")
    return checked


def sriov():
    crates.build()
    suite, counts = emulated.Suite(), Counts()
    with in_the_background([*RELEASE_BUILD, WORKLOAD_BUILD]):
        counts.add(suite.run(needs_release=False))
    counts.add(suite.run(needs_release=True))
    if os.geteuid() == 0:
        counts.add(step("the demo on SR-IOV", ["scripts/demo", "--nic", "sriov", "--quick"]))
    else:
        counts.add(skipped("the demo on SR-IOV needs root: run it with sudo"))
    return counts


@contextlib.contextmanager
def in_the_background(commands):
    """Builds with the CPU time that the block leaves; the end of the block waits for it. A failure
    is not fatal: the step that needs the result builds again, and reports the error."""
    with contextlib.ExitStack() as children:
        for command in commands:
            print(f"$ {' '.join(command)} &", flush=True)
            children.enter_context(attended(["chrt", "--idle", "0", *command], cwd=ROOT))
        yield


@needs_root
def vm():
    if run(["scripts/build-switch-image"]) != 0:
        return failed("the image does not build")
    counts = nextest("vm")
    counts.add(step("the demo with VMs", ["scripts/demo", "--isolation", "vm", "--quick"]))
    return counts


def nested():
    for command in RELEASE_BUILD:
        if run(command) != 0:
            return failed(f"{' '.join(command)} failed")
    counts = Counts()
    for launcher in ("vm", "libvirt"):
        counts.add(step(f"the nested VM, --launcher {launcher}",
                        ["/usr/bin/python3", "scripts/test.d/nested.py", launcher]))
    return counts


# One of each kind of frame; `scripts/bench instructions` counts all stages, and took the record.
STAGES = (
    "v4-port-to-port/2-ports-1-", "v6-port-to-port/2-ports-1-", "v4-to-uplink/1-ports-1-",
    "v4-from-uplink/1-ports-1-", "arp-answered", "drop/src-mac", "drop/ipv4-source",
    "tunnel/into-geneve-64", "tunnel/out-of-geneve-64",
)
RECORD = "bench/instructions.json"
# A change that costs more than this must be intended, and recorded.
MORE_PERCENT = "10"


def instructions():
    """Compilers differ by more than changes do: the record is compared only with what its own
    compiler builds. With another compiler, the commit that took the record is built and counted
    too."""
    recorded = json.loads((ROOT / RECORD).read_text())["machine"]["versions"]["rustc"]
    here = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    here = here.stdout.strip().removeprefix("rustc ")
    base, notes = RECORD, []
    if here != recorded:
        base = commit_of(RECORD)
        differs = f"{RECORD} was taken with rustc {recorded}, and this is {here}"
        if base is None:
            return skipped(f"{differs}. The commit that took it is not here: git fetch --unshallow")
        notes.append(f"{differs}: compared with a build of {base}, the commit that took it")
    bench = ["cargo", "run", "--quiet", "--package", "bench", "--bin", "bench", "--"]
    counts = step("the comparison",
                  [*bench, "compare", base, ".", *STAGES, "--at-most", MORE_PERCENT])
    counts.notes += notes
    return counts


def commit_of(file):
    """The last commit that changed a file; None if this checkout does not have it."""
    command = ["git", "-C", ROOT, "log", "-1", "--format=%h %p", "--", file]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    # In a shallow checkout, the oldest commit seems to have changed every file.
    return output[0] if len(output) > 1 else None


def demo(quick):
    return step("the demo", ["scripts/demo", *(["--quick"] if quick else [])])


def chaos():
    crates.build()
    return step("the chaos run", ["scripts/chaos", "--debug", "--rounds", "20", "--seed", "1"])


def all_suites(quick):
    """{name: function}, in the order in which they run."""
    return {
        "fmt": fmt, "lint": lint, "docs": docs, "unit": unit,
        "filter": lambda: nextest("filter"),
        "provisioner": lambda: nextest("provisioner"),
        "instructions": instructions,
        "sriov": sriov,
        "dpdk": lambda: nextest("dpdk"),
        "gateway": needs_root(lambda: nextest("gateway")),
        "live": needs_root(lambda: nextest("live")),
        "vm": vm,
        "demo": needs_root(lambda: demo(quick)),
        "chaos": needs_root(chaos),
        "nested": nested,
    }
