"""The suites: what each is for, and how it runs."""

import collections
import json
import os
import re
import subprocess

import crates
import emulated
from counts import (LINES_REPEATED, ROOT, Counts, failed, follow, passed, run, skipped,
                    step)
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
    "guests": "ordinary guests: DHCP clients and servers, NetworkManager, IPv6 by itself, iPXE, "
              "keepalived, clusters, multicast, cloud-init; needs root",
    "live": "switches in network namespaces; needs root",
    "ipsec": "the IKE daemon, and tunnels under IPsec between two switches; needs root",
    "sriov": "virtual functions of an SR-IOV NIC, in the emulated machine (QEMU)",
    "operate": "what an operator meets: applying, healing, booting; alone, also the tests of NICs "
               "that fail, in the emulated machine",
    "vm": "a dedicated VM for each switch, on this machine; needs root and QEMU",
    "instructions": "instructions per frame of the pipeline, compared with the recorded ones",
    "mutants": "whether the tests notice changes of the lines, of what decides on a frame, that "
               "this branch or the last commit has changed; four minutes at most",
    "demo": "the demo with short flows; needs root",
    "package": "Debian packages, installed, booted, upgraded and purged in a Debian 12 with "
               "systemd; needs root",
    "chaos": "twenty faults under traffic, and whether the tenants recover by themselves; needs "
             "root",
    "nested": "a switch's VM inside the emulated machine, on its virtual functions, started by "
              "QEMU and by libvirt. Takes half an hour or more: runs only if it is named",
    "interop": "IPsec with Linux at the far end, each proof, suite, family and kind of tunnel, in "
               "the emulated machine. Takes half an hour: runs only if it is named",
}

# Suites that take too long for every run.
ONLY_IF_NAMED = ("nested", "interop")

# What the demos run, and the suites that start a switch's VM.
PROGRAMS_BUILD = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "vswitch", "-p",
                  "vf-provisioner"]
RELEASE_BUILD = PROGRAMS_BUILD, ["scripts/build-switch-image"]


def build_release():
    """Builds what later suites need. A failure is not fatal: they build it again, and report the
    error."""
    for command in RELEASE_BUILD:
        run(command)


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
    if run(["scripts/build-ike"]) != 0:
        return failed("the IKE daemon does not build")
    crates.build()
    suite, counts = emulated.Suite(), Counts()
    counts.add(suite.run(needs_release=False))
    build_release()
    counts.add(suite.run(needs_release=True))
    if os.geteuid() == 0:
        counts.add(step("the demo on SR-IOV", ["scripts/demo", "--nic", "sriov", "--quick"]))
    else:
        counts.add(skipped("the demo on SR-IOV needs root: run it with sudo"))
    return counts


def operate(in_the_machine):
    """The live tests, and the tests of failing NICs if no other suite boots the machine."""
    counts = Counts()
    if os.geteuid() == 0:
        counts.add(nextest("operate"))
    else:
        counts.add(skipped("the live tests need root: run it with sudo"))
    if not in_the_machine:
        counts.notes.append("its tests in the emulated machine are in the suite sriov")
        return counts
    crates.build()
    suite = emulated.Suite(only=emulated.OPERATE)
    counts.add(suite.run(needs_release=False))
    if suite.has(needs_release=True):
        build_release()
        counts.add(suite.run(needs_release=True))
    return counts


@needs_root
def vm():
    if run(["scripts/build-switch-image"]) != 0:
        return failed("the image does not build")
    counts = nextest("vm")
    counts.add(step("the demo with VMs", ["scripts/demo", "--isolation", "vm", "--quick"]))
    return counts


@needs_root
def live():
    if run(["scripts/build-ike"]) != 0:
        return failed("the IKE daemon does not build")
    return nextest("live")


@needs_root
def ipsec():
    if run(["scripts/build-ike"]) != 0:
        return failed("the IKE daemon does not build")
    counts = nextest("ipsec")
    counts.add(step("hostile messages to the IKE daemon", ["scripts/build-ike", "--fuzz", "10"]))
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


def interop():
    if run(["scripts/build-ike"]) != 0:
        return failed("the IKE daemon does not build")
    crates.build()
    return emulated.Suite(ignored=True).run(needs_release=False)


# One of each kind of frame; `scripts/bench instructions` counts all stages, and took the record.
STAGES = (
    "v4-port-to-port/2-ports-1-", "v6-port-to-port/2-ports-1-", "v4-to-uplink/1-ports-1-",
    "v4-from-uplink/1-ports-1-", "arp-answered", "drop/src-mac", "drop/ipv4-source",
    "tunnel/into-geneve-64", "tunnel/out-of-geneve-64",
    "round/v4-port-to-port/2-ports-1-", "round/v4-to-uplink", "round/v4-from-uplink",
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
    crates.build()
    counts = step("the comparison", [crates.TARGET / "debug/bench", "compare", base, ".", *STAGES,
                                     "--at-most", MORE_PERCENT])
    counts.notes += notes
    return counts


def commit_of(file):
    """The last commit that changed a file; None if this checkout does not have it."""
    command = ["git", "-C", ROOT, "log", "-1", "--format=%h %p", "--", file]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    # In a shallow checkout, the oldest commit seems to have changed every file.
    return output[0] if len(output) > 1 else None


# Code whose mutants scripts/mutants tries.
MUTATED = ("vswitch/packet/src", "vswitch/pipeline/src")
# Of the suite `mutants`, with its build.
MUTANTS_MINUTES = "4"


def mutants():
    """Those in the lines that this branch has changed; on the main branch, the last commit."""
    def git(*words):
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True,
                              check=False)
        return done.stdout.strip() if done.returncode == 0 else None
    head, base = git("rev-parse", "HEAD"), git("merge-base", "HEAD", "origin/main")
    if base in (None, head):
        base = git("rev-parse", "HEAD~1")
    if base is None:
        return skipped("the commit before this one is not here: git fetch --unshallow")
    if not git("diff", "--name-only", base, "--", *MUTATED):
        return skipped(f"nothing that decides on a frame has changed since {base[:12]}")
    return mutants_since(base)


def mutants_since(base):
    """Tries those that fit into the time; a note says how many did."""
    last = collections.deque(maxlen=LINES_REPEATED)
    status = follow(["scripts/mutants", "--since", base, "--within", MUTANTS_MINUTES],
                    lambda line: last.append(line.rstrip()))
    summary = [line for line in last if re.match(r"mutants: \d+ caught", line)]
    if status == 0 and summary:
        tried = not summary[0].startswith("mutants: 0 caught, 0 survived, 0 equivalent, 0 unviable")
        return Counts(passed=int(tried), skipped=int(not tried), notes=summary)
    if status == 0:
        return passed()
    return failed(f"the mutants of the change failed with status {status}; the last lines:", *last)


def demo(quick):
    return step("the demo", ["scripts/demo", *(["--quick"] if quick else [])])


def chaos():
    crates.build()
    return step("the chaos run", ["scripts/chaos", "--debug", "--rounds", "20", "--seed", "1"])


def package():
    crates.build()
    return step("the packages", ["scripts/package", "--debug", "--no-image", "--test",
                                 "--lintian"])


def all_suites(quick, chosen=()):
    """{name: function}, in the order in which they run. `chosen`: those that will run, all if
    none is named."""
    return {
        "fmt": fmt, "lint": lint, "docs": docs, "unit": unit,
        "filter": lambda: nextest("filter"),
        "provisioner": lambda: nextest("provisioner"),
        "instructions": instructions,
        "mutants": mutants,
        "sriov": sriov,
        "dpdk": lambda: nextest("dpdk"),
        "gateway": needs_root(lambda: nextest("gateway")),
        "guests": needs_root(lambda: nextest("guests")),
        "live": live,
        "ipsec": ipsec,
        "operate": lambda: operate(in_the_machine=bool(chosen) and "sriov" not in chosen),
        "vm": vm,
        "demo": needs_root(lambda: demo(quick)),
        "package": needs_root(package),
        "chaos": needs_root(chaos),
        "nested": nested,
        "interop": interop,
    }
