"""Changes the code that decides on a frame, one place at a time, and says which changes no test
sees. Such a mutant is a missing test, or a change that alters no verdict; the latter are listed in
scripts/mutants.d/equivalent.txt, with the reason."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent.txt")
OUTPUT = ROOT / "target/mutants"


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/mutants", description=__doc__,
        epilog="Exit status: 0 if every mutant was caught or is known to be equivalent, 1 if one "
               "survived, 2 if none could be tried. A mutant takes some 15 seconds; all of them "
               "take hours: --shard divides them over several runs or machines.")
    parser.add_argument("--list", action="store_true", help="name the mutants, and try none")
    parser.add_argument("--since", metavar="REVISION",
                        help="only those in the lines that have changed since that commit")
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts, from 0 on")
    parser.add_argument("--at-most", type=int, metavar="N",
                        help="an even sample of them, if there are more")
    parser.add_argument("--matching", action="append", default=[], metavar="REGEX",
                        help="only those whose names match, as in path_mtu.rs")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    options = parser.parse_args()
    if options.shard and options.at_most:
        parser.error("--at-most takes a part of its own: it cannot be used with --shard")
    return options


def selection(options, diff):
    """What all calls of cargo-mutants have in common."""
    command = ["cargo", "mutants", "--package", "packet", "--package", "pipeline"]
    for regex in options.matching:
        command += ["--re", regex]
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
    """The mutants of a selection, by name."""
    text = subprocess.run([*command, "--list", "--json"], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    return [mutant["name"] for mutant in json.loads(text or "[]")]


def sampled(command, count, at_most):
    """The command for at most so many of `count` mutants, evenly chosen."""
    if not at_most or count <= at_most:
        return command
    parts = -(-count // at_most)
    return [*command, "--sharding", "round-robin", "--shard", f"0/{parts}"]


def place_free(name):
    """A mutant's name without its line and column, which change with every edit above it."""
    return re.sub(r":\d+:\d+:", ":", name)


def equivalent():
    lines = EQUIVALENT.read_text().splitlines()
    entries = [line.split(" | ", 1) for line in lines if line and not line.startswith("#")]
    return {name: why for name, why in entries}


def outcome(code):
    """Which mutants were caught, survived, did not compile, and did not end."""
    found = json.loads((OUTPUT / "mutants.out/outcomes.json").read_text())
    result = {"caught": [], "survived": [], "equivalent": [], "unviable": [], "timeout": []}
    known = equivalent()
    for entry in found["outcomes"]:
        scenario = entry["scenario"]
        if scenario == "Baseline":
            if entry["summary"] != "Success":
                raise SystemExit(f"mutants: the tests fail without any mutant: see {OUTPUT}")
            continue
        name, summary = scenario["Mutant"]["name"], entry["summary"]
        if summary == "MissedMutant":
            summary = "equivalent" if place_free(name) in known else "survived"
        else:
            summary = {"CaughtMutant": "caught", "Unviable": "unviable",
                       "Timeout": "timeout"}[summary]
        result[summary].append(name)
    if code not in (0, 2, 3):
        raise SystemExit(f"mutants: cargo mutants ended with {code}: see {OUTPUT}")
    return result


def main():
    options = arguments()
    with tempfile.NamedTemporaryFile(suffix=".diff") as diff:
        command = selection(options, diff)
        names = listed(command)
        if options.list:
            for name in names:
                print(name)
            return 0
        if not names:
            print("mutants: none in this selection")
            return 0
        OUTPUT.mkdir(parents=True, exist_ok=True)
        command = sampled(command, len(names), options.at_most)
        print(f"mutants: {len(names)} in this selection", file=sys.stderr, flush=True)
        ran = subprocess.run([*command, "--output", str(OUTPUT), "--colors", "never",
                              "--minimum-test-timeout", "120"], cwd=ROOT,
                             stdout=sys.stderr, check=False)
    result = outcome(ran.returncode)
    if options.json:
        print(json.dumps(result))
    else:
        for name in result["survived"]:
            print(f"survived: {name}")
        print("mutants: " + ", ".join(f"{len(names)} {what}" for what, names in result.items()))
    return int(bool(result["survived"]))


if __name__ == "__main__":
    sys.exit(main())
