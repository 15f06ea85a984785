"""What there is of our site on this machine, as counts, to compare before and after a fault."""

import collections
import json
import os
import pathlib
import subprocess
import time

from hosts import run

# Processes that a supervisor or an apply starts for a moment end within this time.
PATIENCE_S = 5
# Files that come and go by themselves: the log and the journal before the present ones, what the
# supervisor has to say.
PASSING = ("log.1", "history.1", "troubles.json", "troubles.new")


def inventory(site, supervisor):
    """{kind: Counter of names}. `supervisor` is a process, or None."""
    counter = collections.Counter
    return {
        "namespaces": counter(site.namespaces()),
        "interfaces": counter(interfaces(site)),
        "nft": counter(nft_lines(site)),
        "control groups": counter(groups(site)),
        "mounts": counter(mounts(site)),
        "processes": counter(commands(site)),
        "files": counter(str(path.relative_to(site.state_dir))
                         for path in site.state_dir.rglob("*") if path.name not in PASSING),
        "hugepages in use": counter({"2 MiB": hugepages()}),
        "descriptors of the supervisor": counter(descriptors(supervisor)),
    }


def leaked(before, look):
    """What is there now and was not before, as sentences; `look` takes an inventory. Waits for what
    is only passing by."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        more = list(more_than(before, look()))
        if not more or time.monotonic() > deadline:
            return more
        time.sleep(0.2)


def more_than(before, now):
    for kind, names in now.items():
        for name, count in sorted((names - before[kind]).items()):
            yield f"{kind}: {count} more of {name}"


def interfaces(site):
    """Those of this namespace with our name, and all in our namespaces."""
    for link in os.listdir("/sys/class/net"):
        if link.startswith(site.instance):
            yield link
    for netns in site.namespaces():
        # The namespace may be gone meanwhile.
        shown = subprocess.run(["ip", "-n", netns, "-json", "link", "show"], capture_output=True,
                               text=True, check=False).stdout
        for link in json.loads(shown or "[]"):
            yield f"{link['ifname']} in {netns}"


def nft_lines(site):
    """The rules of our tables, without their counters."""
    table = ""
    for line in run(["nft", "--stateless", "list", "ruleset"]).splitlines():
        if line.startswith("table"):
            table = line.removesuffix("{").strip()
        if site.instance in table.split()[-1:][0] if table else False:
            yield f"{table}: {line.strip()}"


def groups(site):
    for top in pathlib.Path("/sys/fs/cgroup").rglob(site.instance):
        yield from map(str, (top, *(path for path in top.rglob("*") if path.is_dir())))


def mounts(site):
    """The mount points in this mount namespace."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if point.startswith((str(site.state_dir), f"/run/netns/{site.instance}")):
            yield point


def commands(site):
    for pid in site.processes():
        try:
            yield pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            pass  # it has ended meanwhile


def hugepages():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    pages = {line.split(":")[0]: int(line.split()[1]) for line in lines if "HugePages_" in line}
    return pages["HugePages_Total"] - pages["HugePages_Free"]


def descriptors(pid):
    """The kinds of the supervisor's descriptors: files by their path, others by their type."""
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").glob("*") if pid else ():
        try:
            yield os.readlink(descriptor).split(":[")[0]
        except OSError:
            pass  # it was closed meanwhile
