"""How scripts/mutants divides mutants, learns from the compiler, and judges the express lane."""

import importlib.util
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

HERE = pathlib.Path(__file__).resolve().parents[1] / "mutants.d"
# Last: both directories have a `main`.
sys.path.append(str(HERE))

import schemata  # noqa: E402
import suites  # noqa: E402
import trying  # noqa: E402

SPEC = importlib.util.spec_from_file_location("mutants_main", HERE / "main.py")
main = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(main)


def writer(fates, file="a.rs"):
    """A writer of mutants that has written these."""
    made = schemata.Writer.__new__(schemata.Writer)
    made.mutants = [{"file": file} for _ in fates]
    made.fates = fates
    made.refused, made.constant, made.unviable = set(), set(), set()
    return made


def error(message, code, begin, end, file="a.rs"):
    span = {"file_name": file, "byte_start": begin, "byte_end": end, "is_primary": True,
            "expansion": None}
    return {"message": message, "code": {"code": code}, "spans": [span], "rendered": message}


class Naming(unittest.TestCase):
    def test_the_text_tells_mutants_of_one_name_apart(self):
        with tempfile.TemporaryDirectory() as directory:
            (pathlib.Path(directory) / "a.rs").write_text("fn f() {\n    a > b || c > d\n}\n")
            with unittest.mock.patch.object(main, "ROOT", pathlib.Path(directory)):
                names = [main.keys(f"a.rs:2:{column}: replace > with >= in f")
                         for column in (7, 16)]
        free = "a.rs: replace > with >= in f"
        self.assertEqual(names, [{free, f"{free} @ > b || c > d"}, {free, f"{free} @ > d"}])


class Learning(unittest.TestCase):
    FATES = {1: {"fate": "written", "places": [{"begin": 10, "end": 90}]},
             2: {"fate": "written", "places": [{"begin": 20, "end": 30}]}}

    def test_the_innermost_mutant_is_dropped(self):
        learner = writer(self.FATES)
        learner.learn([error("`X: Default` is not satisfied", "E0277", 22, 28)])
        self.assertEqual((learner.unviable, learner.refused), ({2}, set()))

    def test_what_only_the_switch_breaks_is_not_unviable(self):
        learner = writer(self.FATES)
        learner.learn([error("use of moved value", "E0382", 12, 14)])
        self.assertEqual((learner.unviable, learner.refused), (set(), {1}))

    def test_a_function_that_a_constant_calls_stays_constant(self):
        learner = writer(self.FATES)
        message = "cannot call non-const associated function `a::Row::refused` in constants"
        learner.learn([error(message, "E0015", 200, 210)])
        self.assertEqual(learner.constant, {"refused"})

    def test_an_arm_that_a_match_needs_is_unviable(self):
        learner = writer(self.FATES)
        shown = "help: ~ 1 if !::mutant_switch::active(2) => b, None => todo!()"
        learner.learn([error(shown, "E0004", 200, 210)])
        self.assertEqual(learner.unviable, {2})

    def test_the_first_arm_behind_a_match_that_is_shown_without_them_is_unviable(self):
        learner = writer(self.FATES)
        learner.mutants[1]["genre"] = "MatchArm"
        learner.learn([error("non-exhaustive patterns", "E0004", 2, 5)])
        self.assertEqual(learner.unviable, {2})

    def test_mutants_that_only_together_are_wrong_are_dropped(self):
        learner = writer(self.FATES)
        shown = "mutant_switch::active(1) beside mutant_switch::active(2)"
        learner.learn([error(shown, "E0282", 200, 210)])
        self.assertEqual(learner.refused, {1, 2})

    def test_an_error_of_no_mutant_is_told(self):
        with self.assertRaisesRegex(schemata.Failure, "no such file"):
            writer(self.FATES).learn([error("no such file", "E0583", 200, 210)])


class Lane(unittest.TestCase):
    def test_a_lane_that_takes_fewer_frames_leaves_them_to_the_general_path(self):
        self.assertTrue(trying.takes_no_more("0100", "0110"))

    def test_a_lane_that_takes_other_frames_or_the_same_is_not_excused(self):
        self.assertFalse(trying.takes_no_more("1000", "0110"))
        self.assertFalse(trying.takes_no_more("0110", "0110"))


class Result(unittest.TestCase):
    def test_a_mutant_that_nobody_tried_is_counted(self):
        result = main.summed(["a.rs:1:2: replace f -> bool with true", "b.rs:1:2: replace"],
                             {"b.rs:1:2: replace": "caught"})
        self.assertEqual(result["not tried"], ["a.rs:1:2: replace f -> bool with true"])
        self.assertEqual(result["caught"], ["b.rs:1:2: replace"])

    def test_an_equivalent_mutant_is_known_wherever_it_moves(self):
        known = next(iter(sorted(main.equivalent())))
        file, rest = known.split(": ", 1)
        name = f"{file}:7:9: {rest}"
        self.assertEqual(main.summed([name], {name: "survived"})["equivalent"], [name])


class OneByOne(unittest.TestCase):
    """What cargo-mutants has written."""

    def outcomes(self, whole, *entries):
        with tempfile.TemporaryDirectory() as output:
            if entries:
                file = pathlib.Path(output) / "mutants.out/outcomes.json"
                file.parent.mkdir()
                file.write_text(json.dumps({"outcomes": entries}))
            return main.outcomes(pathlib.Path(output), whole)

    def test_a_run_that_was_ended_early_found_nothing(self):
        self.assertEqual(self.outcomes(False), {})
        unfinished = {"scenario": "Baseline", "summary": "Failure"}
        self.assertEqual(self.outcomes(False, unfinished), {})

    def test_tests_that_fail_without_a_mutant_end_it(self):
        with self.assertRaisesRegex(SystemExit, "fail without any mutant"):
            self.outcomes(True, {"scenario": "Baseline", "summary": "Failure"})

    def test_each_mutant_has_its_kind(self):
        good = {"scenario": "Baseline", "summary": "Success"}
        missed = {"scenario": {"Mutant": {"name": "a"}}, "summary": "MissedMutant"}
        self.assertEqual(self.outcomes(True, good, missed), {"a": "survived"})


class Suite(unittest.TestCase):
    """What scripts/test makes of what scripts/mutants prints."""

    def counts(self, status, *lines):
        def follow(_command, hear):
            for line in lines:
                hear(line + "\n")
            return status
        with unittest.mock.patch.object(suites, "follow", follow):
            return suites.mutants_since("base")

    def test_what_was_not_tried_is_noted(self):
        summary = "mutants: 7 caught, 0 survived, 1 equivalent, 0 unviable, 0 timeout, 5 not tried"
        counts = self.counts(0, "mutants: 13 in this selection", summary)
        self.assertEqual((counts.passed, counts.failed, counts.skipped), (1, 0, 0))
        self.assertEqual(counts.notes, [summary])

    def test_a_suite_that_tried_none_is_skipped(self):
        summary = "mutants: 0 caught, 0 survived, 0 equivalent, 0 unviable, 0 timeout, 5 not tried"
        counts = self.counts(0, summary)
        self.assertEqual((counts.passed, counts.failed, counts.skipped), (0, 0, 1))

    def test_a_survivor_fails_with_its_name(self):
        counts = self.counts(1, "survived: a.rs:1:2: replace", "mutants: 0 caught, 1 survived")
        self.assertEqual((counts.passed, counts.failed), (0, 1))
        self.assertIn("survived: a.rs:1:2: replace", counts.notes)


if __name__ == "__main__":
    unittest.main()
