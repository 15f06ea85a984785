"""Changes the code that decides on a frame, one place at a time, and says which changes no test
sees. Such a mutant is a missing test, or a change that alters no verdict; the latter are listed in
scripts/mutants.d/equivalent.txt, with the reason.

One build has all mutants, each behind a switch (schemata.py); a run of the tests notes which test
reaches which mutant, and only those judge it (trying.py). What no switch can choose, such as the
value of a constant, cargo-mutants builds and tries one by one."""

import argparse
import contextlib
import datetime
import fnmatch
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import schemata
import trying
from schemata import OUTPUT, ROOT

HERE = pathlib.Path(__file__).parent
EQUIVALENT = HERE / "equivalent.txt"
DONE = HERE / "done.txt"
# In the names of some mutants.
FIELD = "delete field"
# Mutants of one run of cargo-mutants.
AT_ONCE = 400
# What cargo-mutants needs before it tries the first.
ONE_BY_ONE_S = 90
KINDS = {"CaughtMutant": "caught", "MissedMutant": "survived", "Unviable": "unviable",
         "Timeout": "timeout"}


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description=__doc__.split("\n\n")[0],
        epilog="Exit status: 0 if every mutant was caught or is known to be equivalent, 1 if one "
               "survived, 2 if none could be tried. --file, --shard and --within divide "
               "all of them over several runs or machines.")
    parser.add_argument("--list", action="store_true", help="name the mutants, and try none")
    parser.add_argument("--left", action="store_true",
                        help=f"name the files that {DONE.relative_to(ROOT)} lacks, or has in "
                             "another version, each with the number of its mutants")
    parser.add_argument("--since", metavar="REVISION",
                        help="only those in the lines that have changed since that commit")
    parser.add_argument("--file", action="append", default=[], metavar="GLOB",
                        help="only those of these files, as vswitch/pipeline/src/filter/*.rs")
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts, from 0 on")
    parser.add_argument("--at-most", type=int, metavar="N",
                        help="an even sample of them, if there are more")
    parser.add_argument("--within", type=float, metavar="MINUTES",
                        help="stop then; what was not tried is counted")
    parser.add_argument("--matching", action="append", default=[], metavar="REGEX",
                        help="only those whose names match, as in path_mtu.rs")
    parser.add_argument("--record", action="store_true",
                        help=f"with --file: write whole files to {DONE.relative_to(ROOT)}")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    options = parser.parse_args()
    if options.shard and options.at_most:
        parser.error("--at-most takes a part of its own: it cannot be used with --shard")
    part = (options.since or options.shard or options.at_most or options.matching)
    if options.record and (part or not options.file):
        parser.error("--record is for whole files: it needs --file, and nothing that takes a part")
    return options


def selection(options, diff):
    """What all calls of cargo-mutants have in common."""
    command = ["cargo", "mutants", "--package", "packet", "--package", "pipeline"]
    if options.since:
        changed = subprocess.run(["git", "diff", options.since, "--", "*.rs"], cwd=ROOT,
                                 check=True, stdout=subprocess.PIPE).stdout
        diff.write(changed)
        diff.flush()
        command += ["--in-diff", diff.name]
    if options.shard:
        command += ["--shard", options.shard]
    return command


def listed(command):
    """The mutants of a selection, by name, as cargo-mutants describes them."""
    text = subprocess.run([*command, "--list", "--json"], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    return {mutant["name"]: mutant for mutant in json.loads(text or "[]")}


def sampled(mutants, at_most):
    """At most so many of them, evenly chosen."""
    step = -(-len(mutants) // at_most) if at_most else 1
    return dict(list(mutants.items())[::max(step, 1)])


def place_free(name):
    """A mutant's name without its line and column, which change with every edit above it."""
    return re.sub(r":\d+:\d+:", ":", name)


def keys(name):
    """What a mutant may be called in the table: its name without the place, and with the text that
    it begins at, where the function has several of that name."""
    free = place_free(name)
    place = re.match(r"(.+?):(\d+):(\d+):", name)
    if not place:
        return {free}
    file, line, column = place[1], int(place[2]), int(place[3])
    lines = (ROOT / file).read_text().splitlines()
    text = lines[line - 1][column - 1:] if line <= len(lines) else ""
    return {free, f"{free} @ {text.strip()}"}


def entries(file):
    """The lines of a table, divided at its bars."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(" | ") for line in lines if line and not line.startswith("#")]


def equivalent():
    return {fields[0] for fields in entries(EQUIVALENT)}


def outcomes(output, whole=True):
    """What the last run of cargo-mutants found, by mutant; nothing of one that was ended before it
    had tried the tests without any."""
    file = output / "mutants.out/outcomes.json"
    if not whole and not file.exists():
        return {}
    result = {}
    for entry in json.loads(file.read_text())["outcomes"]:
        scenario = entry["scenario"]
        if scenario == "Baseline":
            if entry["summary"] != "Success" and not whole:
                return {}
            if entry["summary"] != "Success":
                raise SystemExit(f"mutants: the tests fail without any mutant: see {output}")
            continue
        if entry["summary"] in KINDS:
            result[scenario["Mutant"]["name"]] = KINDS[entry["summary"]]
    return result


def attempt(names, deadline):
    """Lets cargo-mutants try these mutants; what it found until the deadline. They are named on
    the command line, which has a longest length."""
    found = {}
    for begin in range(0, len(names), AT_ONCE):
        if deadline and time.monotonic() + ONE_BY_ONE_S > deadline:
            break
        found |= attempt_some(names[begin:begin + AT_ONCE], OUTPUT / "one-by-one", deadline)
    return found


def attempt_some(names, output, deadline):
    output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output / "mutants.out", ignore_errors=True)
    exact = "|".join(re.escape(name) for name in names)
    command = ["cargo", "mutants", "--package", "packet", "--package", "pipeline",
               "--re", f"^({exact})$", "--output", str(output), "--colors", "never",
               "--minimum-test-timeout", "120"]
    if not any(FIELD in name for name in names):
        # These it tries whatever --re says.
        command += ["--exclude-re", FIELD]
    # It builds again for each: what takes least time to build.
    env = {**os.environ, "CARGO_PROFILE_DEV_DEBUG": "false",
           "CARGO_TARGET_DIR": str(OUTPUT / "one-by-one/build")}
    run = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, env=env)
    try:
        code = run.wait(deadline and max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        # It removes its copy of the sources.
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(60)
            run.kill()
            run.wait()
    if code not in (None, 0, 2, 3):
        raise SystemExit(f"mutants: cargo mutants ended with {code}: see {output}")
    return outcomes(output, whole=code is not None)


def judge(chosen, built_in, profile, deadline):
    """What became of each mutant that was tried: {name: kind}. `built_in`: those that are built
    with them, so that the next selection needs no new build."""
    began = time.monotonic()
    try:
        built = schemata.build(list(built_in.values()), profile, deadline)
    except schemata.Late:
        return {}
    tests = trying.Tests(built.tests)
    tests.reach()
    print(f"mutants: built and reached after {time.monotonic() - began:.0f} s by "
          f"{len(built.tests)} tests", file=sys.stderr, flush=True)
    numbers = [item for item in built.numbers.items() if item[0] in chosen]
    if deadline:
        # What the time allows is then a sample of all.
        random.Random(1).shuffle(numbers)
    numbers = dict(numbers)
    found = trying.judged(tests, numbers, deadline, progress)
    survivors = [name for name, kind in found.items()
                 if kind == "survived" and chosen[name]["file"].startswith(trying.Lane.SOURCES)]
    if survivors:
        lane = trying.Lane(built.tests)
        found |= {name: "equivalent" for name in survivors if lane.takes_less(numbers[name])}
    found |= {name: "unviable" for name in built.unviable if name in chosen}
    return found | attempt([name for name in built.unwritten if name in chosen], deadline)


def progress(name, kind, done, of_all):
    if kind == "survived":
        print(f"mutants: so far survived: {name}", file=sys.stderr, flush=True)
    if done % 100 == 0:
        print(f"mutants: {done} of {of_all}", file=sys.stderr, flush=True)


def summed(mutants, found):
    """The result: {kind: names}."""
    result = {kind: [] for kind in ("caught", "survived", "equivalent", "unviable", "timeout",
                                    "not tried")}
    known = equivalent()
    for name in mutants:
        kind = found.get(name, "not tried")
        if kind == "survived" and keys(name) & known:
            kind = "equivalent"
        result[kind].append(name)
    return result


def version(file):
    """The name that git has for a file's content."""
    return subprocess.run(["git", "hash-object", file], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()[:12]


HEAD = """# The files whose mutants were all tried, a line each: the version that git names the
# content by, when, and how many were caught, survived, are equivalent, or do not compile. Written
# by `scripts/mutants --file … --record`; `scripts/mutants --left` names the others.
"""


def record(mutants, result):
    """Notes the files of which every mutant was tried."""
    done = {fields[0]: fields[1:] for fields in entries(DONE)}
    today = datetime.date.today().isoformat()
    for file in sorted({mutant["file"] for mutant in mutants.values()}):
        of_file = {kind: sum(mutants[name]["file"] == file for name in names)
                   for kind, names in result.items()}
        if of_file["not tried"]:
            continue
        counts = (f"{of_file['caught'] + of_file['timeout']} caught, {of_file['survived']} "
                  f"survived, {of_file['equivalent']} equivalent, {of_file['unviable']} unviable")
        done[file] = [version(file), today, counts]
    DONE.write_text(HEAD + "".join(f"{' | '.join([file, *fields])}\n"
                                   for file, fields in sorted(done.items())))


def print_left(mutants):
    done = {fields[0]: fields[1] for fields in entries(DONE)}
    files = sorted({mutant["file"] for mutant in mutants.values()})
    left = [file for file in files if done.get(file) != version(file)]
    for file in left:
        count = sum(its["file"] == file for its in mutants.values())
        print(f"{file} {count}" + (" (changed)" if file in done else ""))
    of_left = sum(its["file"] in left for its in mutants.values())
    print(f"mutants: {of_left} of {len(mutants)} left, in {len(left)} of {len(files)} files")


def main():
    options = arguments()
    with tempfile.NamedTemporaryFile(suffix=".diff") as diff:
        built_in = mutants = listed(selection(options, diff))
    if options.matching:
        # The --re of cargo-mutants lets deleted fields pass.
        mutants = {name: its for name, its in mutants.items()
                   if any(re.search(regex, name) for regex in options.matching)}
    if options.file:
        # The --file of cargo-mutants adds to the files of its configuration.
        mutants = {name: its for name, its in mutants.items()
                   if any(fnmatch.fnmatch(its["file"], glob) for glob in options.file)}
    if options.left:
        print_left(mutants)
        return 0
    if options.list:
        print("\n".join(mutants))
        return 0
    if not mutants:
        print("mutants: none in this selection")
        return 0
    mutants = sampled(mutants, options.at_most)
    print(f"mutants: {len(mutants)} in this selection", file=sys.stderr, flush=True)
    deadline = options.within and time.monotonic() + 60 * options.within
    few = options.since or options.at_most or options.matching
    profile = schemata.QUICK if few else schemata.FAST
    if few:
        built_in = mutants
    try:
        result = summed(mutants, judge(mutants, built_in, profile, deadline))
    except (schemata.Failure, trying.Failure) as failure:
        print(f"mutants: {failure}", file=sys.stderr)
        return 2
    if options.record:
        record(mutants, result)
    if options.json:
        print(json.dumps(result))
    else:
        for name in result["survived"]:
            print(f"survived: {name}")
        print("mutants: " + ", ".join(f"{len(names)} {what}" for what, names in result.items()))
    return int(bool(result["survived"]))


if __name__ == "__main__":
    sys.exit(main())
