"""How suites run beside each other."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

import runner
from counts import failed, passed

REPORT = ('{"suites": [{"name": "sriov", "passed": 3, "failed": 1, "skipped": 0, '
          '"notes": ["a note"], "seconds": 7.5}]}')
WRITES_REPORT = f"import sys; print('its output'); open(sys.argv[1], 'w').write('''{REPORT}''')"
SAYS_CPUS = f"import os, time; time.sleep(0.3); print(os.sched_getaffinity(0)); {WRITES_REPORT}"
ENDS_EARLY = "import sys; print('its last words'); sys.exit(3)"
RUNS_FOR_EVER = "import time; time.sleep(600)"


def stand_in(program):
    class StandIn(runner.Beside):
        def command(self, report):
            return [sys.executable, "-c", program, report]
    return StandIn


class BesideTest(unittest.TestCase):
    def setUp(self):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        report = pathlib.Path(directory) / "report.json"
        self.enterContext(mock.patch.object(runner, "REPORT", report))
        self.enterContext(mock.patch.object(runner, "build"))
        self.enterContext(mock.patch.object(runner, "run"))
        self.cpus = os.sched_getaffinity(0)
        if len(self.cpus) < 2:
            self.skipTest("needs two CPUs")

    def run_with(self, program, suites):
        """Runs `sriov`, which is the program, beside the suites: the runner, and what it
        printed."""
        suites = dict(suites, sriov=lambda: self.fail("it has a process of its own"))
        ran = runner.Runner(suites, list(suites))
        ran.beside = stand_in(program)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            ran.run()
        self.assertEqual(os.sched_getaffinity(0), self.cpus)
        return ran, output.getvalue()

    def test_results_and_output_of_both_are_kept(self):
        ran, output = self.run_with(WRITES_REPORT, {"demo": passed, "unit": passed})
        counts, seconds = ran.results["sriov"]
        self.assertEqual((counts.passed, counts.failed, counts.notes), (3, 1, ["a note"]))
        self.assertEqual(seconds, 7.5)
        self.assertEqual(list(ran.results), ["unit", "sriov", "demo"])
        self.assertIn("its output", output)

    def test_suite_beside_has_the_first_cpu(self):
        seen = []

        def live():
            seen.append(os.sched_getaffinity(0))
            return passed()

        def unit():
            seen.append(os.sched_getaffinity(0))
            sys.exit(1)

        self.run_with(RUNS_FOR_EVER, {"live": live, "unit": unit})
        _, output = self.run_with(SAYS_CPUS, {"unit": passed})
        first = min(self.cpus)
        self.assertEqual(seen, [self.cpus, self.cpus - {first}])
        self.assertIn(str({first}), output)

    def test_end_without_report_is_a_failure(self):
        ran, output = self.run_with(ENDS_EARLY, {"unit": passed})
        counts, _ = ran.results["sriov"]
        self.assertEqual(counts.notes, ["ended with status 3, without a report"])
        self.assertIn("its last words", output)

    def test_interruption_ends_both_and_the_rest_does_not_run(self):
        ran, _ = self.run_with(RUNS_FOR_EVER, {"unit": lambda: sys.exit(143), "demo": passed})
        self.assertEqual([counts.notes for counts, _ in ran.results.values()],
                         [["interrupted"]] * 2)
        self.assertNotIn("demo", ran.results)

    def test_failure_of_one_does_not_stop_the_others(self):
        ran, _ = self.run_with(WRITES_REPORT, {"unit": lambda: failed("so"), "demo": passed})
        self.assertEqual(list(ran.results), ["unit", "sriov", "demo"])


if __name__ == "__main__":
    unittest.main()
