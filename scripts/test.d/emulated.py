"""Runs tests in the emulated machine, each by itself, and boots it again when it dies.

QEMU aborts now and then, in the middle of a suite. Then the machine is booted again for the tests
that have not run. The test that was running is tried again, last: if it is what kills the machine,
the others have run before. One that was running at three deaths has failed.
"""

import collections
import functools
import re
import shlex
import time

from counts import Counts, failed, failure_of, follow
from crates import TARGET, listing, tests_of

# The options of scripts/vm that a test needs, by its path, and whether it needs the release build
# too: the first match decides. Each kind of machine is one group of tests.
MACHINES = (
    (r"(.*::)?(no|missing)_iommu.*", ("--no-iommu",), False),
    (r"(.*::)?libvirt.*", (), True),
    (r".*", ("--nics", "2"), False),
)

# The binaries of the suite `operate` among those of `sriov`.
OPERATE = r".*::sriov_operate_\w+"

BOOTS_MAX = 5
DEATHS_MAX = 3
# Of one group, with all its boots; of one test.
GROUP_TIMEOUT_S = 3600
TEST_TIMEOUT_S = 600

# What scripts/vm ends with when the machine did not start, or died.
DIED = 125
TIME_OVER = 124


class Group:
    """The tests that share a kind of machine, and what is known of each."""

    def __init__(self, tests):
        self.pending = list(tests)
        self.counts = Counts()
        self.running = None
        self._output = []
        self._deaths = collections.Counter()
        self._said = ""
        self.reason_of_death = ""

    def hear(self, line):
        """Takes in one line of the machine's output."""
        if found := re.fullmatch(r"@begin (\S+) (\S+)", line.strip()):
            self.running, self._output = found.groups(), []
        elif found := re.search(r"@end (\S+) (\S+) (\d+)$", line.strip()):
            *test, status = found.groups()
            self._ended(tuple(test), int(status))
        elif line.startswith("vm: "):
            self._said = line.removeprefix("vm: ").split(";")[0].strip()
        else:
            self._output.append(line)

    def _ended(self, test, status):
        self.running = None
        self.pending.remove(test)
        skipped = [f"  {line.strip()}" for line in self._output if "skipped: " in line]
        if status == 0 and not skipped:
            self.counts.passed += 1
            return
        if status == 0:
            # The machine is booted for this test: it lacks nothing.
            self._fail(test, *skipped)
            return
        late = [f"  did not end within {TEST_TIMEOUT_S} s"] if status == TIME_OVER else []
        self._fail(test, *late, *failure_of("".join(self._output)))

    def _fail(self, test, *notes):
        self.counts.add(failed(" ".join(test), *notes))

    def machine_ended(self, status):
        """Accounts for the end of a machine; whether the pending tests are worth another boot."""
        test, self.running = self.running, None
        if not self.pending:
            return False
        if status != DIED:
            self.give_up(self._said or f"the machine ended with status {status}")
            return False
        self._deaths[test] += 1
        during = " ".join(test) if test else "its boot"
        self.reason_of_death = self._said
        self.counts.notes.append(f"during {during}: {self._said}")
        if test:
            self.pending.remove(test)
            if self._deaths[test] < DEATHS_MAX:
                self.pending.append(test)
            else:
                self._fail(test, f"  the machine died {DEATHS_MAX} times while it ran")
        return bool(self.pending)

    def give_up(self, reason):
        """Fails what is pending."""
        for test in self.pending:
            self._fail(test, f"  did not run to its end: {reason}")
        self.pending = []


def run_group(tests, boot):
    """Runs all tests of a group. `boot(tests, timeout_s, hear)` runs them in one machine, and gives
    the exit status of scripts/vm."""
    group, deadline = Group(tests), time.monotonic() + GROUP_TIMEOUT_S
    boots = 0
    while boots < BOOTS_MAX:
        boots += 1
        left_s = max(1, deadline - time.monotonic())
        if not group.machine_ended(boot(list(group.pending), left_s, group.hear)):
            break
    group.give_up(f"the machine died {boots} times")
    if boots > 1:
        group.counts.notes.append(
            f"machine restarted {boots - 1} times; last: {group.reason_of_death}")
    return group.counts


class Suite:
    """The tests of the suite `sriov`, by the machine that they need; `only` those of the binaries
    that the pattern matches. `ignored`: those that take too long for every run."""

    def __init__(self, only=r".*", ignored=False):
        self._binaries = listing("sriov", ignored)
        self._groups = collections.defaultdict(list)
        for binary, test in tests_of(self._binaries):
            if not re.fullmatch(only, binary):
                continue
            machine = next(rest for pattern, *rest in MACHINES if re.fullmatch(pattern, test))
            self._groups[tuple(machine)].append((binary, test))

    def has(self, needs_release):
        """Whether there is such a group."""
        return any(waits == needs_release for _, waits in self._groups)

    def run(self, needs_release):
        """Runs the groups that need the release build, or the others."""
        counts = Counts()
        for (options, waits), tests in self._groups.items():
            if waits == needs_release:
                counts.add(run_group(tests, functools.partial(self._boot, options)))
        return counts

    def _boot(self, options, tests, timeout_s, hear):
        script = TARGET / "test" / "machine.sh"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("\n".join(self._line(*test) for test in tests) + "\n")
        return follow(["scripts/vm", "--verbose", *options, "--timeout", f"{timeout_s:.0f}", "--",
                       "sh", str(script)], hear)

    def _line(self, binary, test):
        """The shell's line for one test."""
        suite, name = self._binaries[binary], shlex.quote(f"{binary} {test}")
        return (f"echo '@begin' {name}; cd {shlex.quote(suite['cwd'])} && "
                f"timeout -k 10 {TEST_TIMEOUT_S} {shlex.quote(suite['binary-path'])} "
                f"--include-ignored --exact {shlex.quote(test)} --nocapture; echo '@end' {name} $?")
