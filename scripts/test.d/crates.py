"""The crates' tests: cargo-nextest runs them, and its profiles divide them into suites.

The profiles are in .config/nextest.toml. Each test belongs to exactly one of them.
"""

import functools
import json
import os
import pathlib
import re
import subprocess
import tomllib
import xml.etree.ElementTree as xml

from counts import ROOT, Counts, failed, failure_of, passed, run

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CONFIG = ROOT / ".config" / "nextest.toml"


class BuildFailure(Exception):
    """Something that a suite needs does not build."""


def profiles():
    """The profiles that are suites: those with a filter."""
    config = tomllib.loads(CONFIG.read_text())["profile"]
    return [name for name, profile in config.items() if "default-filter" in profile]


@functools.cache
def build():
    """Builds all binaries and tests, once. Tests of one crate start binaries of another."""
    for command in (["cargo", "build", "--quiet", "--workspace", "--bins", "--examples"],
                    ["cargo", "nextest", "run", "--cargo-quiet", "--workspace", "--no-run"]):
        if run(command) != 0:
            raise BuildFailure("the crates' binaries or tests do not build")


def listing(profile, ignored=False):
    """{test binary: its description} of all that belongs to a profile, as nextest lists it; of the
    tests those that take too long for every run, or the others."""
    command = ["cargo", "nextest", "list", "--cargo-quiet", "--workspace", "--profile", profile,
               "--run-ignored", "only" if ignored else "default", "--message-format", "json"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if listed.returncode != 0:
        raise BuildFailure(f"cargo nextest cannot list the tests of profile {profile}")
    return json.loads(listed.stdout)["rust-suites"]


def tests_of(suites):
    """The (binary, test) in a listing that the profile's filter takes."""
    return [(binary, test) for binary, suite in suites.items()
            for test, case in suite["testcases"].items()
            if case["filter-match"]["status"] == "matches"]


def nextest(profile):
    """Runs the tests of one profile."""
    build()
    junit = TARGET / "nextest" / profile / "junit.xml"
    junit.unlink(missing_ok=True)
    status = run(["cargo", "nextest", "run", "--cargo-quiet", "--workspace", "--profile", profile,
                  "--no-tests", "pass"])
    counts = read_junit(junit) if junit.exists() else Counts()
    if status != 0 and counts.failed == 0:
        counts.add(failed(f"cargo nextest ended with status {status}"))
    return counts


def read_junit(file):
    counts = Counts()
    for case in xml.parse(file).iter("testcase"):
        name = f"{case.get('classname')} {case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            counts.add(failed(name, *failure_of("".join(case.itertext()))))
            continue
        counts.add(passed())
        if case.find("flakyFailure") is not None:
            counts.notes.append(f"{name} passed only on the second try")
    return counts


def partition():
    """Checks that each test is in exactly one suite."""
    everything = tests_of(listing("default"))
    suites = {profile: tests_of(listing(profile)) for profile in profiles()}
    problems = misplaced(everything, suites)
    print(f"{len(everything)} tests, {len(problems)} of them not in exactly one suite", flush=True)
    return failed(*problems) if problems else passed()


def misplaced(everything, suites):
    """Tests that are not in exactly one suite, as sentences. `suites`: {name: its tests}."""
    homes = {test: [] for test in everything}
    for suite, tests in suites.items():
        for test in tests:
            homes.setdefault(test, []).append(suite)
    return [f"{' '.join(test)} belongs to {' and '.join(suites) or 'no suite'}, "
            "by .config/nextest.toml"
            for test, suites in homes.items() if len(suites) != 1]


def doc_tests():
    """The examples in the crates' documentation, which nextest does not run."""
    command = ["cargo", "test", "--quiet", "--workspace", "--doc"]
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    counts = Counts()
    for numbers in re.findall(r"(\d+) passed; (\d+) failed; (\d+) ignored", done.stdout):
        counts.add(Counts(*map(int, numbers)))
    if done.returncode != 0:
        print(done.stdout)
        counts.notes.append("documentation examples failed")
        counts.failed = counts.failed or 1
    return counts
