"""A copy of the sources with all mutants in it, each behind a switch: built once for all."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "target/mutants"
COPY = OUTPUT / "copy"
PACKAGES = ("packet", "pipeline")
# What the packages with mutants depend on in the copy.
SWITCH = 'mutant-switch = { path = "../../scripts/mutants.d/switch" }'
# The crate of this directory that writes them.
WRITER = "schemata"
# Each attempt to build drops the mutants that the compiler refuses; a compiler stops at the first
# kind of error.
ATTEMPTS = 20

# Codes of the compiler for a value of the wrong type, for one that lacks an operator or a trait,
# and for a match that leaves something out: with or without a switch.
UNVIABLE = ("E0004", "E0277", "E0308", "E0368", "E0369", "E0599", "E0600", "E0614")


class Failure(Exception):
    """The mutants cannot be built."""


class Late(Exception):
    """There was no time to build them."""


@dataclasses.dataclass
class Test:
    """One test of a test binary."""

    binary: str
    directory: str
    name: str


@dataclasses.dataclass
class Built:
    """The mutants that one build has: their tests, and what became of the others."""

    tests: list
    # By the mutant's name: its number, from 1 on.
    numbers: dict
    # Names of those that cannot compile.
    unviable: list
    # Names of those that no switch can choose.
    unwritten: list


@dataclasses.dataclass
class Profile:
    """How the tests are built."""

    name: str
    target: pathlib.Path


# For thousands of runs.
FAST = Profile("mutants", OUTPUT / "build")
# For a few: what the tests depend on is there already if they were built before.
QUICK = Profile("dev", ROOT / "target")
# Mutants have constant expressions that the compiler refuses.
LINTS = """[workspace.lints.rust]
warnings = { level = "allow", priority = -2 }
arithmetic_overflow = "allow"
overflowing_literals = "allow"
unconditional_panic = "allow"
"""


def copy():
    """Makes the copy equal to the sources, but for what the mutants change."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others",
                             "--exclude-standard"], cwd=ROOT, check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    files = {file for file in listed.split("\0") if file and (ROOT / file).is_file()}
    changed = {f"vswitch/{package}/Cargo.toml" for package in PACKAGES}
    for file in files:
        content = (ROOT / file).read_bytes()
        if file in changed:
            content = content.replace(b"[dependencies]\n", f"[dependencies]\n{SWITCH}\n".encode())
        if file == "Cargo.toml":
            content = content.replace(b"[workspace.lints.rust]\n", LINTS.encode())
        write(COPY / file, content, (ROOT / file).stat().st_mode)
    for path in COPY.rglob("*"):
        if path.is_file() and str(path.relative_to(COPY)) not in files:
            path.unlink()


def write(path, content, mode):
    """Writes a file if it differs: what is unchanged is not compiled again."""
    # The writer of the mutants decides on theirs.
    if mutated(path) and path.exists():
        return
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode & 0o777)


def mutated(path):
    parts = path.relative_to(COPY).parts
    return path.suffix == ".rs" and parts[:1] == ("vswitch",) and parts[1:3] in {
        (package, "src") for package in PACKAGES}


class Writer:
    """Writes the mutants into the copy, and learns from the compiler which it refuses."""

    def __init__(self, mutants):
        self.mutants = mutants
        self.refused, self.constant, self.unviable = set(), set(), set()
        self.fates = {}
        subprocess.run(["cargo", "build", "--quiet", "--package", WRITER], cwd=ROOT, check=True,
                       env={**os.environ, "CARGO_TARGET_DIR": str(QUICK.target)})
        self.program = QUICK.target / "debug" / WRITER
        # What was learned of the same sources.
        state = hashlib.sha256(json.dumps(mutants).encode())
        for file in sorted({mutant["file"] for mutant in mutants}):
            state.update((ROOT / file).read_bytes())
        self.learned = OUTPUT / f"learned-{state.hexdigest()[:16]}.json"
        if self.learned.exists():
            known = json.loads(self.learned.read_text())
            self.refused, self.constant, self.unviable = (set(known[key]) for key in (
                "refused", "constant", "unviable"))

    def write(self):
        files = {mutant["file"] for mutant in self.mutants}
        for path in ROOT.glob("vswitch/*/src/**/*.rs"):
            file = str(path.relative_to(ROOT))
            if mutated(COPY / file) and file not in files:
                content = path.read_bytes()
                if (COPY / file).read_bytes() != content:
                    (COPY / file).write_bytes(content)
        task = {"from": str(ROOT), "to": str(COPY), "mutants": self.mutants,
                "refused": sorted(self.refused | self.unviable),
                "constant": sorted(self.constant)}
        written = subprocess.run([self.program], input=json.dumps(task), text=True, check=True,
                                 stdout=subprocess.PIPE).stdout
        self.fates = {int(number): fate for number, fate in json.loads(written).items()}
        known = {"refused": self.refused, "constant": self.constant, "unviable": self.unviable}
        self.learned.write_text(json.dumps({key: sorted(its) for key, its in known.items()}))

    def learn(self, errors):
        """Drops the mutants that these errors are about."""
        before = len(self.refused) + len(self.unviable) + len(self.constant)
        for error in errors:
            spans = sorted(error["spans"], key=lambda span: not span["is_primary"])
            number = next(filter(None, map(self.mutant_at, spans)), None)
            # An error about more than one mutant, as a match that leaves something out, shows them.
            shown = set(map(int, re.findall(r"mutant_switch::active\((\d+)\)",
                                            error["rendered"])))
            if number is None and len(shown) == 1:
                number = shown.pop()
            if number is None and not shown:
                number = next(filter(None, map(self.arm_behind, spans)), None)
            called = re.search(r"non-const (?:\w+ )*`([^`]*)`", error["message"])
            if number:
                kind = self.unviable if self.is_unviable(error) else self.refused
                kind.add(number)
            elif called:
                name = re.sub(r"::<.*>$", "", called[1]).rpartition("::")[2]
                self.constant.add(re.sub(r"<.*", "", name))
            else:
                self.refused |= shown
        if before == len(self.refused) + len(self.unviable) + len(self.constant):
            text = "\n".join(error["rendered"] for error in errors)
            raise Failure(f"the copy with the mutants does not compile\n{text}")

    @staticmethod
    def is_unviable(error):
        """Whether it would not compile without a switch either."""
        return (error.get("code") or {}).get("code") in UNVIABLE

    def mutant_at(self, span):
        """The mutant at a place of the copy; the one with the shortest text if several hold it."""
        while span.get("expansion"):
            span = span["expansion"]["span"]
        found = []
        for number, fate in self.fates.items():
            if self.mutants[number - 1]["file"] != span["file_name"]:
                continue
            for place in fate.get("places", ()):
                if place["begin"] <= span["byte_start"] and span["byte_end"] <= place["end"]:
                    found.append((place["end"] - place["begin"], number))
        return min(found)[1] if found else None

    def arm_behind(self, span):
        """The first mutant without an arm behind a place of the copy: a long match that leaves
        something out is shown without its arms."""
        def is_arm(mutant):
            return mutant.get("genre") == "MatchArm" and mutant["file"] == span["file_name"]
        if not span["is_primary"]:
            return None
        arms = [(place["begin"], number) for number, fate in self.fates.items()
                for place in fate.get("places", ())
                if is_arm(self.mutants[number - 1]) and place["begin"] >= span["byte_end"]]
        return min(arms)[1] if arms else None


def build(mutants, profile=FAST, deadline=None):
    """Builds the tests with these mutants of `cargo mutants --list --json`, until the deadline."""
    COPY.mkdir(parents=True, exist_ok=True)
    copy()
    writer = Writer(mutants)
    for _ in range(ATTEMPTS):
        writer.write()
        errors, binaries = compiled(profile, deadline)
        if not errors:
            break
        writer.learn(errors)
        print(f"mutants: the compiler refuses some: {len(writer.unviable)} unviable, "
              f"{len(writer.refused)} only behind a switch", file=sys.stderr, flush=True)
    else:
        raise Failure("the compiler refuses ever more mutants")
    result = Built([test for binary in binaries for test in tests(*binary)], {}, [], [])
    for number, fate in writer.fates.items():
        name = mutants[number - 1]["name"]
        if fate["fate"] == "written":
            result.numbers[name] = number
        elif fate["fate"] == "unviable" or number in writer.unviable:
            result.unviable.append(name)
        else:
            result.unwritten.append(name)
    return result


def compiled(profile, deadline):
    """Compiles the tests of the copy: the errors, and the test binaries with their packages'
    directories."""
    command = ["cargo", "build", "--quiet", "--tests", "--keep-going", "--profile", profile.name,
               "--message-format", "json"]
    for package in PACKAGES:
        command += ["--package", package]
    with subprocess.Popen(command, cwd=COPY, text=True, process_group=0,
                          env={**os.environ, "CARGO_TARGET_DIR": str(profile.target)},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        try:
            output, text = ran.communicate(timeout=deadline and deadline - time.monotonic())
        except BaseException as interruption:
            os.killpg(ran.pid, signal.SIGKILL)
            if isinstance(interruption, subprocess.TimeoutExpired):
                raise Late from None
            raise
    errors, binaries = [], []
    for message in map(json.loads, output.splitlines()):
        if message["reason"] == "compiler-message":
            if message["message"]["level"].startswith("error") and message["message"]["spans"]:
                errors.append(message["message"])
        elif message.get("executable") and message["profile"]["test"]:
            directory = str(pathlib.Path(message["manifest_path"]).parent)
            binaries.append((message["executable"], directory))
    if ran.returncode != 0 and not errors:
        raise Failure(f"the copy does not build\n{text}")
    return errors, binaries


def tests(binary, directory):
    """The tests of a binary that run unless one asks for others."""
    def listed(*words):
        output = subprocess.run([binary, "--list", "--format", "terse", *words], check=True,
                                cwd=directory, text=True, stdout=subprocess.PIPE).stdout
        return {line.removesuffix(": test") for line in output.splitlines()
                if line.endswith(": test")}
    return [Test(binary, directory, name) for name in sorted(listed() - listed("--ignored"))]
