"""The limit of columns."""

import unittest

from columns import too_long

LONG = "word " * 21


class ColumnsTest(unittest.TestCase):
    def test_hundred_characters_pass_and_one_more_does_not(self):
        self.assertEqual(list(too_long("ä" * 100)), [])
        self.assertEqual(list(too_long("short\n" + "ä" * 101)), [(2, 101)])

    def test_markdown_prose_is_limited(self):
        self.assertEqual(list(too_long(f"- {LONG}", markdown=True)), [(1, 107)])

    def test_what_markdown_cannot_wrap_is_not_limited(self):
        url = "x" * 120
        text = f"| {LONG} |\n```\n{LONG}\n```\n- [{url}]({url}) and so on\n# {LONG}\n"
        self.assertEqual(list(too_long(text, markdown=True)), [])

    def test_prose_after_a_block_is_limited(self):
        self.assertEqual(list(too_long(f"```\n{LONG}\n```\n{LONG}", markdown=True)), [(4, 105)])


if __name__ == "__main__":
    unittest.main()
