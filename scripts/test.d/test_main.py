"""Tests of what a run leaves behind."""

import os
import subprocess
import sys
import unittest

from main import left_over


class LeftOver(unittest.TestCase):
    def test_namespaces_of_killed_tests_are_left_over(self):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        dead, mine = f"vst{ended.pid}x1left", f"vst{os.getpid()}x1left"
        others = ["vst", "vstx1", "sw-red", f"avst{ended.pid}x1"]
        self.assertEqual(left_over([dead, mine, *others]), [dead])


if __name__ == "__main__":
    unittest.main()
