"""Booting again for a program whose machine died."""

import contextlib
import io
import unittest
from unittest import mock

import boot


class BootTest(unittest.TestCase):
    def statuses(self, *statuses):
        """The final status, and the number of boots, where scripts/vm ends with these."""
        with mock.patch.object(boot, "attend", side_effect=statuses) as attend, \
                contextlib.redirect_stderr(io.StringIO()):
            return boot.in_machine([], "program"), attend.call_count

    def test_dead_machine_is_booted_again(self):
        self.assertEqual(self.statuses(125, 0), (0, 2))

    def test_program_that_fails_is_not_run_again(self):
        self.assertEqual(self.statuses(1), (1, 1))

    def test_boots_are_bounded(self):
        self.assertEqual(self.statuses(125, 125, 125), (125, 3))


if __name__ == "__main__":
    unittest.main()
