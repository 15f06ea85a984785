"""The division of the crates' tests among the suites."""

import pathlib
import tempfile
import unittest

import crates
import suites

JUNIT = """<testsuites><testsuite>
<testcase name="works" classname="crate"/>
<testcase name="wavers" classname="crate"><flakyFailure/></testcase>
<testcase name="breaks" classname="crate"><failure/><system-err>
thread 'breaks' panicked at tests/x.rs:1:
no luck</system-err></testcase>
</testsuite></testsuites>"""


class PartitionTest(unittest.TestCase):
    def test_each_in_one_suite_is_no_problem(self):
        suites = {"one": [("a", "x")], "two": [("b", "y")]}
        self.assertEqual(crates.misplaced([("a", "x"), ("b", "y")], suites), [])

    def test_test_in_two_suites_is_named(self):
        problem, = crates.misplaced([("a", "x")], {"one": [("a", "x")], "two": [("a", "x")]})
        self.assertIn("a x belongs to one and two", problem)

    def test_test_in_no_suite_is_named(self):
        problem, = crates.misplaced([("a", "x")], {"one": []})
        self.assertIn("a x belongs to no suite", problem)

    def test_every_profile_is_a_suite(self):
        self.assertIn("unit", crates.profiles())
        self.assertLessEqual(set(crates.profiles()), set(suites.ABOUT))
        self.assertEqual(set(suites.all_suites(quick=True)), set(suites.ABOUT))


class JunitTest(unittest.TestCase):
    def test_flaky_passes_with_a_note_and_failure_repeats_the_panic(self):
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(JUNIT)
            file.flush()
            counts = crates.read_junit(pathlib.Path(file.name))
        self.assertEqual((counts.passed, counts.failed), (2, 1))
        self.assertEqual(counts.notes, [
            "crate wavers passed only on the second try", "crate breaks",
            "  thread 'breaks' panicked at tests/x.rs:1:", "  no luck"])


if __name__ == "__main__":
    unittest.main()
