"""Removes what killed tests have left: those of the switch, and those of the provisioner."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

# vswitch/tests/common/bed.rs names its namespaces so, by the number of the test's process.
BED = re.compile(r"vst(\d+)x")
# vf-provisioner/tests/common/site.rs names its directories so, and notes there what it releases.
SITE = re.compile(r"vfs\.(\d+)-")
SITES = pathlib.Path("/dev/shm")
NOTE = "release.json"

NAMESPACES = pathlib.Path("/run/netns")
RELEASE_PATIENCE_S = 120


def of_killed_tests(pattern, names):
    """Those of the names that belong to a test whose process has ended."""
    matches = ((name, pattern.match(name)) for name in names)
    return [name for name, its in matches
            if its and not pathlib.Path("/proc", its[1]).exists()]


def remove_namespace(name):
    """Ends the processes in it, and deletes it."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True,
                           check=False)
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False)


def remove_site(directory):
    """Releases the tenants of a killed test of the provisioner, and removes what was its own."""
    try:
        note = json.loads((directory / NOTE).read_text())
    except (OSError, ValueError) as error:
        # The test was killed before it had made anything.
        print(f"{directory} of a killed test says not what to release: {error}", file=sys.stderr)
        shutil.rmtree(directory)
        return
    try:
        subprocess.run(note["release"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       timeout=RELEASE_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"what a killed test has left in {directory} could not be released: {error}",
              file=sys.stderr)
        return
    for path in NAMESPACES.glob(f"{note['instance']}-*"):
        remove_namespace(path.name)
    shutil.rmtree(directory)


def remove_leftovers(sites=SITES):
    """Removes what killed tests have left on this host. Only root's tests leave anything."""
    if os.geteuid() != 0:
        return
    for name in of_killed_tests(BED, [path.name for path in NAMESPACES.glob("vst*")]):
        remove_namespace(name)
    for name in of_killed_tests(SITE, [path.name for path in sites.glob("vfs.*")]):
        directory = sites / name
        # Anyone may write there.
        if directory.lstat().st_uid == 0 and not directory.is_symlink():
            remove_site(directory)
