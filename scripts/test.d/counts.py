"""What tests and checks came to, and how a command becomes one."""

import collections
import pathlib
import subprocess

from children import attend, attended

ROOT = pathlib.Path(__file__).resolve().parents[2]

# How many of a failure's lines the summary repeats: of a long log, often only the end is kept.
LINES_REPEATED = 12


class Counts:
    """The outcome of a suite or of one step of it."""

    def __init__(self, passed=0, failed=0, skipped=0, notes=()):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.notes = list(notes)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes


def passed():
    return Counts(passed=1)


def failed(*notes):
    return Counts(failed=1, notes=notes)


def skipped(*notes):
    return Counts(skipped=1, notes=notes)


def run(command, **options):
    """Runs a command in the repository and shows it; its exit status."""
    print(f"$ {' '.join(map(str, command))}", flush=True)
    return attend(command, cwd=ROOT, **options)


def follow(command, hear):
    """Like `run`; `hear` also gets each line of the command's output."""
    print(f"$ {' '.join(map(str, command))}", flush=True)
    with attended(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                  errors="replace") as child:
        for line in child.stdout:
            print(line, end="", flush=True)
            hear(line)
    return child.returncode


def step(name, command):
    """A command that passes or fails as a whole; the notes repeat the last lines of a failed
    one."""
    last = collections.deque(maxlen=LINES_REPEATED)
    status = follow(command, lambda line: last.append(line.rstrip()))
    if status == 0:
        return passed()
    return failed(f"{name} failed with status {status}; its last lines:", *last)


def failure_of(output):
    """The part of a test's output that says why it failed, as notes."""
    lines = [line for line in output.splitlines() if line.strip()]
    tail = max(0, len(lines) - LINES_REPEATED)
    start = next((at for at, line in enumerate(lines) if "panicked at" in line), tail)
    return [f"  {line}" for line in lines[start:start + LINES_REPEATED]]
