"""The bookkeeping of `emulated`, with a machine that is not there."""

import unittest
from unittest import mock

import emulated
import suites
from counts import Counts

ONE, TWO, THREE = ("crate::sriov", "one"), ("crate::sriov", "two"), ("crate::sriov", "three")
ABORTED = "vm: QEMU aborted (SIGABRT) while the command ran; its last lines: …\n"


class Machine:
    """Stands for scripts/vm. `deaths`: {test: how often the machine dies while it runs}."""

    def __init__(self, deaths=None, statuses=None, output="what the test writes"):
        self._deaths, self._statuses = dict(deaths or {}), statuses or {}
        self._output = output
        self.boots = []

    def boot(self, tests, _timeout_s, hear):
        self.boots.append(tests)
        for test in tests:
            hear(f"@begin {' '.join(test)}\n")
            if self._deaths.get(test, 0) > 0:
                self._deaths[test] -= 1
                hear(ABORTED)
                return emulated.DIED
            hear(f"{self._output}\n")
            hear(f"@end {' '.join(test)} {self._statuses.get(test, 0)}\n")
        hear("vm: tcg, the command started 8.8 s after the machine\n")
        return 0

    def run(self, *tests):
        counts = emulated.run_group(tests, self.boot)
        return counts.passed, counts.failed, counts.notes


class GroupTest(unittest.TestCase):
    def test_healthy_machine_boots_once(self):
        machine = Machine()
        self.assertEqual(machine.run(ONE, TWO), (2, 0, []))
        self.assertEqual(machine.boots, [[ONE, TWO]])

    def test_failed_test_is_counted_with_its_output(self):
        passed, failed, notes = Machine(statuses={ONE: 101}).run(ONE, TWO)
        self.assertEqual((passed, failed), (1, 1))
        self.assertEqual(notes, ["crate::sriov one", "  what the test writes"])

    def test_test_that_skips_itself_is_a_failure(self):
        passed, failed, notes = Machine(output="skipped: needs an IOMMU").run(ONE)
        self.assertEqual((passed, failed), (0, 1))
        self.assertEqual(notes, ["crate::sriov one", "  skipped: needs an IOMMU"])

    def test_machine_dies_once_rest_runs_and_test_is_tried_again(self):
        machine = Machine({TWO: 1})
        passed, failed, notes = machine.run(ONE, TWO, THREE)
        self.assertEqual((passed, failed), (3, 0))
        self.assertEqual(machine.boots, [[ONE, TWO, THREE], [THREE, TWO]])
        reason = "QEMU aborted (SIGABRT) while the command ran"
        self.assertEqual(notes, [f"during crate::sriov two: {reason}",
                                 f"machine restarted 1 times; last: {reason}"])

    def test_test_that_kills_three_machines_fails_and_others_pass(self):
        machine = Machine({ONE: 9})
        passed, failed, notes = machine.run(ONE, TWO, THREE)
        self.assertEqual((passed, failed), (2, 1))
        self.assertEqual(machine.boots, [[ONE, TWO, THREE], [TWO, THREE, ONE], [ONE]])
        self.assertIn("  the machine died 3 times while it ran", notes)

    def test_boots_are_bounded(self):
        machine = Machine({ONE: 9, TWO: 9, THREE: 9})
        passed, failed, notes = machine.run(ONE, TWO, THREE)
        self.assertEqual((passed, failed), (0, 3))
        self.assertEqual(len(machine.boots), emulated.BOOTS_MAX)
        self.assertIn("  did not run to its end: the machine died 5 times", notes)

    def test_machine_that_never_starts_fails_every_test(self):
        boots = []

        def boot(tests, _timeout_s, hear):
            boots.append(tests)
            hear("vm: the machine ended before the command started; it said nothing\n")
            return emulated.DIED

        counts = emulated.run_group([ONE, TWO], boot)
        self.assertEqual((counts.passed, counts.failed), (0, 2))
        self.assertEqual(len(boots), emulated.BOOTS_MAX)

    def test_time_over_is_not_tried_again(self):
        boots = []

        def boot(tests, _timeout_s, hear):
            boots.append(tests)
            hear(f"@begin {' '.join(ONE)}\n")
            hear("vm: 2400 s were over before the command ended; it said nothing\n")
            return emulated.TIME_OVER

        counts = emulated.run_group([ONE, TWO], boot)
        self.assertEqual((counts.passed, counts.failed, len(boots)), (0, 2, 1))
        self.assertIn("  did not run to its end: 2400 s were over before the command ended",
                      counts.notes)


LISTING = {
    "vf-provisioner::sriov_backend": ["libvirt_keeps_settings", "missing_iommu_is_reported"],
    "vf-provisioner::sriov_operate_functions": ["renamed_pf_is_released"],
    "vswitch::sriov_operate_reset": ["libvirt_resets"],
}


class SuiteTest(unittest.TestCase):
    def setUp(self):
        tests = [(binary, test) for binary, tests in LISTING.items() for test in tests]
        self.enterContext(mock.patch.object(emulated, "listing", return_value=LISTING))
        self.enterContext(mock.patch.object(emulated, "tests_of", return_value=tests))
        self.ran = []
        self.enterContext(mock.patch.object(emulated, "run_group", side_effect=self.run_group))

    def run_group(self, tests, _boot):
        self.ran += tests
        return Counts()

    def test_suite_sriov_runs_every_test_once(self):
        suite = emulated.Suite()
        suite.run(needs_release=False)
        suite.run(needs_release=True)
        every = [(binary, test) for binary, tests in LISTING.items() for test in tests]
        self.assertEqual(sorted(self.ran), sorted(every))

    def test_suite_operate_runs_its_binaries_alone(self):
        suite = emulated.Suite(only=emulated.OPERATE)
        self.assertTrue(suite.has(needs_release=True))
        suite.run(needs_release=False)
        self.assertEqual(self.ran, [("vf-provisioner::sriov_operate_functions",
                                     "renamed_pf_is_released")])
        suite.run(needs_release=True)
        self.assertEqual(self.ran[1:], [("vswitch::sriov_operate_reset", "libvirt_resets")])


class OperateTest(unittest.TestCase):
    def machine_of(self, *chosen):
        """Whether the suite `operate` boots the machine, if these suites were named."""
        with mock.patch.object(suites, "operate") as operate:
            suites.all_suites(quick=True, chosen=chosen)["operate"]()
        return operate.call_args.kwargs["in_the_machine"]

    def test_machine_is_booted_by_one_suite_only(self):
        self.assertTrue(self.machine_of("operate"))
        self.assertTrue(self.machine_of("fmt", "operate"))
        self.assertFalse(self.machine_of("sriov", "operate"))
        self.assertFalse(self.machine_of())


if __name__ == "__main__":
    unittest.main()
