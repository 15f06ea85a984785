"""Runs a Python program in the emulated machine, and boots the machine again if it dies."""

import pathlib
import sys

from children import attend

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The exit status of scripts/vm if the machine did not start, or died.
DIED = 125
BOOTS_MAX = 3


def in_machine(options, program, *arguments):
    """Runs the program with the options of scripts/vm; its exit status. Where the machine died, the
    program starts again: QEMU aborts now and then. Nothing is left of the earlier try."""
    command = [ROOT / "scripts" / "vm", *options, "--env", "PYTHONDONTWRITEBYTECODE=1",
               "--env", "PYTHONPATH", "--", "/usr/bin/python3", program, *arguments]
    for boot in range(1, BOOTS_MAX + 1):
        status = attend(command, cwd=ROOT)
        if status != DIED:
            break
        if boot < BOOTS_MAX:
            print(f"the machine died: starting again, try {boot + 1} of {BOOTS_MAX}",
                  file=sys.stderr, flush=True)
    return status
