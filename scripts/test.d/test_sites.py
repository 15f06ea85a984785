"""Whose a site is: one run builds or cleans it at a time."""

import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "scripts" / "lib")]

from hosts import ScriptError  # noqa: E402
from sites import Site  # noqa: E402

# Takes the site, says so, and waits.
OTHER = """
import sys
from sites import Site
Site("tsites", None).take("demo")
print("taken", flush=True)
sys.stdin.read()
"""


class TakeTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.state_dir = pathlib.Path(directory.name) / "state"
        self.site = Site("tsites", self.state_dir)
        self.addCleanup(self.site.leave)

    def other(self):
        """Another process that has taken the site."""
        other = subprocess.Popen([sys.executable, "-c", OTHER], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True,
                                 env={"PYTHONPATH": str(ROOT / "scripts" / "lib")})
        self.addCleanup(other.stdout.close)
        self.addCleanup(other.stdin.close)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.assertEqual(other.stdout.readline(), "taken\n")
        return other

    def test_site_of_a_running_process_is_neither_cleaned_nor_built(self):
        self.state_dir.mkdir()
        self.other()
        for take in (self.site.take, self.site.take_empty):
            with self.assertRaisesRegex(ScriptError, "another scripts/demo is under way"):
                take("demo")
        with self.assertRaisesRegex(ScriptError, "not ours to clean"):
            self.site.clean()
        self.assertTrue(self.state_dir.exists())

    def test_site_of_a_killed_process_is_free(self):
        other = self.other()
        other.send_signal(signal.SIGKILL)
        other.wait()
        self.site.take("demo")

    def test_what_is_left_is_not_built_upon_and_leaves_the_site_free_to_clean(self):
        self.state_dir.mkdir()
        with self.assertRaisesRegex(ScriptError, "a killed or kept demo has left it"):
            self.site.take_empty("demo")
        with self.assertRaisesRegex(ScriptError, "not ours to clean"):
            self.site.clean()
        self.site.take("demo")


if __name__ == "__main__":
    unittest.main()
