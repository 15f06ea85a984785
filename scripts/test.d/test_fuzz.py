"""The fuzz targets are found, and each has a corpus that its test replays."""

import pathlib
import sys
import unittest

# Last: both directories have a `main`.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "fuzz.d"))

import covering  # noqa: E402
import targets  # noqa: E402


class Targets(unittest.TestCase):
    def test_each_has_a_corpus(self):
        found = targets.targets()
        self.assertIn("raw_frame_agrees_with_model", found)
        empty = [target.name for target in found.values()
                 if not target.corpus.is_dir() or not any(target.corpus.iterdir())]
        self.assertEqual(empty, [])

    def test_module_of_a_test_in_the_source(self):
        target = targets.targets()["capture_is_read_or_refused"]
        self.assertEqual(target.test, "cli::capture::tests::capture_is_read_or_refused")
        self.assertEqual(target.binary, ["--lib"])


class Reduction(unittest.TestCase):
    def test_each_input_adds_most_to_those_before_it(self):
        control = "\n".join(["4", "0", "/a", "/b", "/c", "/d",
                             "STARTED 0 9", "FT 0 1 2", "COV 0 7", "STARTED 1 9", "FT 1 1 2 3 4",
                             "STARTED 2 9", "FT 2 4 5", "STARTED 3 9", "FT 3 5", ""])
        self.assertEqual(covering.most_covering(control), ["/b", "/c"])


if __name__ == "__main__":
    unittest.main()
