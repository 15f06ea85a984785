"""Runs the tests of a build that has all mutants, once without any and then for each mutant those
that reach it, until one fails."""

import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time

# A property draws the same cases in every run: what no test sees is found again.
SEED = "1"
# A mutant that loops: so much more processor time than without it, in seconds, and real time.
LEAST_S = 4
TIMES = 8
REAL_TIMES = 8
# Of one test, in bytes of address space.
MEMORY = 4 << 30
# Exit statuses of `timeout` for a test that it or a limit has killed.
KILLED = (124, 128 + 9, 128 + 24)


class Failure(Exception):
    """The tests fail without any mutant."""


class Tests:
    """The tests, with what each reaches and takes."""

    def __init__(self, tests):
        self.tests = tests
        # By test: its processor time in seconds.
        self.took = [0.0] * len(tests)
        # By mutant: the tests that reach it.
        self.reaching = collections.defaultdict(list)
        # How often a test noticed a mutant, of how many.
        self.noticed, self.asked = [0] * len(tests), [0] * len(tests)
        self.lock = threading.Lock()

    def run(self, index, limit_s, **more):
        """Runs one test; its exit status and its processor time."""
        test = self.tests[index]
        command = ["timeout", "--signal", "KILL", str(REAL_TIMES * limit_s),
                   "prlimit", f"--cpu={limit_s}", f"--as={MEMORY}",
                   test.binary, "--exact", test.name, "--quiet", "--test-threads", "1"]
        # That a property fails is enough: not with how small an input, nor for later runs.
        env = {**os.environ, "CARGO_MANIFEST_DIR": test.directory, "RUST_BACKTRACE": "0",
               "PROPTEST_RNG_SEED": SEED, "PROPTEST_MAX_SHRINK_ITERS": "0",
               "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1", **more}
        process = subprocess.Popen(command, cwd=test.directory, env=env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, used.ru_utime + used.ru_stime

    def reach(self):
        """Runs each test without a mutant, and notes what it reaches and takes."""
        with tempfile.TemporaryDirectory(prefix="mutants-") as work:
            def one(index):
                notes = pathlib.Path(work) / str(index)
                status, self.took[index] = self.run(index, 600, MUTANTS_REACHED=str(notes))
                text = notes.read_text() if notes.exists() else ""
                return index, status, [int(line) for line in text.splitlines()]
            failed = []
            with pool() as workers:
                for index, status, numbers in workers.map(one, range(len(self.tests))):
                    if status != 0:
                        failed.append(self.tests[index].name)
                    for number in numbers:
                        self.reaching[number].append(index)
        if failed:
            raise Failure(f"these tests fail without any mutant: {', '.join(failed)}")

    def judge(self, number, deadline):
        """What becomes of one mutant; None if there was no time."""
        left = set(self.reaching[number])
        while left:
            if deadline and time.monotonic() > deadline:
                return None
            index = min(left, key=self.expected)
            left.remove(index)
            limit_s = int(max(LEAST_S, TIMES * self.took[index])) + 1
            status, _ = self.run(index, limit_s, MUTANT=str(number))
            with self.lock:
                self.asked[index] += 1
                self.noticed[index] += status != 0
            if status != 0:
                return "timeout" if status in KILLED else "caught"
        return "survived"

    def expected(self, index):
        """The processor time for which a test is likely to notice one mutant: a small one is best
        asked first."""
        rate = (self.noticed[index] + 1) / (self.asked[index] + 2)
        return (self.took[index] + 0.01) / rate


class Lane:
    """What the express lane takes of many frames, with and without a mutant of it. One that takes
    no more leaves more to the general path, and so changes no verdict: what it takes, it handles
    as the general path does, by the tests that it survived."""

    SOURCES = "vswitch/pipeline/src/express/"
    TEST = "express::tests::frames_that_the_lane_takes"

    def __init__(self, tests):
        self.test = next(test for test in tests
                         if test.name == "express::tests::burst_agrees_with_single_frames")
        self.usual = self.taken()

    def taken(self, **more):
        """Which of the frames the lane takes, as ones and zeros; None if it fails."""
        ran = subprocess.run([self.test.binary, "--exact", self.TEST, "--ignored", "--nocapture"],
                             cwd=self.test.directory, env={**os.environ, **more}, text=True,
                             check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found = re.search(r"taken ([01]+)$", ran.stdout, re.MULTILINE)
        return found[1] if found and ran.returncode == 0 else None

    def takes_less(self, number):
        taken = self.taken(MUTANT=str(number))
        return taken is not None and takes_no_more(taken, self.usual)


def takes_no_more(taken, usual):
    """Whether each frame taken is one that is usually taken, and some of those are not."""
    return taken != usual and all(one <= other for one, other in zip(taken, usual, strict=True))


def pool():
    return concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def judged(tests, numbers, deadline, progress):
    """What became of these mutants, {name: number}, that were tried until the deadline."""
    found = {}
    with pool() as workers:
        tried = {workers.submit(tests.judge, number, deadline): name
                 for name, number in numbers.items()}
        for future in concurrent.futures.as_completed(tried):
            if kind := future.result():
                found[tried[future]] = kind
                progress(tried[future], kind, len(found), len(numbers))
    return found
