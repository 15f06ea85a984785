"""Tests of what killed tests leave behind."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from leftovers import BED, NAMESPACES, NOTE, SITE, of_killed_tests, remove_leftovers


def ended_pid():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


class Names(unittest.TestCase):
    def test_only_what_belongs_to_an_ended_process_is_left_over(self):
        dead = ended_pid()
        for pattern, name, others in ((BED, "vst{}x1left", ["vst", "vstx1", f"avst{dead}x1"]),
                                      (SITE, "vfs.{}-abc", ["vfs", "vfs.-abc", f".vfs.{dead}-"])):
            left, mine = name.format(dead), name.format(os.getpid())
            self.assertEqual(of_killed_tests(pattern, [left, mine, "sw-red", *others]), [left])


@unittest.skipUnless(os.geteuid() == 0, "only root has namespaces")
class Sites(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.sites = pathlib.Path(directory.name)

    def site(self, pid, release, owner=0):
        """The directory of a test of that process."""
        directory = self.sites / f"vfs.{pid}-abc"
        directory.mkdir()
        note = {"instance": f"tlo{os.getpid()}", "release": release}
        (directory / NOTE).write_text(json.dumps(note))
        os.chown(directory, owner, owner)
        return directory

    def test_killed_test_is_released_and_its_processes_and_namespaces_are_gone(self):
        namespace, released = f"tlo{os.getpid()}-host", self.sites / "released"
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        self.addCleanup(subprocess.run, ["ip", "netns", "delete", namespace], check=False,
                        stderr=subprocess.DEVNULL)
        inside = subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "1000"])
        self.addCleanup(inside.kill)
        while not subprocess.check_output(["ip", "netns", "pids", namespace]).split():
            self.assertIsNone(inside.poll())
        directory = self.site(ended_pid(), ["touch", str(released)])
        remove_leftovers(self.sites)
        self.assertTrue(released.exists())
        self.assertFalse(directory.exists())
        self.assertFalse((NAMESPACES / namespace).exists())
        self.assertEqual(inside.wait(), -9)

    def test_what_is_another_users_or_a_running_tests_is_left_alone(self):
        released = self.sites / "released"
        theirs = self.site(ended_pid(), ["touch", str(released)], owner=65534)
        mine = self.site(os.getpid(), ["touch", str(released)])
        remove_leftovers(self.sites)
        self.assertTrue(theirs.exists() and mine.exists())
        self.assertFalse(released.exists())

    def test_what_cannot_be_released_stays_for_the_next_run(self):
        directory = self.site(ended_pid(), ["false"])
        remove_leftovers(self.sites)
        self.assertTrue(directory.exists())


if __name__ == "__main__":
    unittest.main()
