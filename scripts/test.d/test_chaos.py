"""The draw of a chaos run, and its accounts of frames, without a network."""

import pathlib
import sys
import unittest
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "scripts" / "chaos.d"), str(ROOT / "scripts" / "lib")]

from accounting import Account, Ledger  # noqa: E402
from drawing import draw  # noqa: E402
from leaks import more_than  # noqa: E402
from rounds import others  # noqa: E402

EVENTS = [("one", ()), ("two", ()), ("three", ("green",))]
TENANTS = ("red", "blue", "green")


def drawn(seed, rounds=range(1, 31)):
    return [draw(seed, number, EVENTS, TENANTS) for number in rounds]


class DrawTest(unittest.TestCase):
    def test_same_seed_draws_same_rounds(self):
        self.assertEqual(drawn(7), drawn(7))
        self.assertNotEqual(drawn(7), drawn(8))

    def test_round_alone_is_as_in_the_run(self):
        self.assertEqual(draw(7, 17, EVENTS, TENANTS), drawn(7)[16])

    def test_every_event_comes_once_before_any_comes_again(self):
        names = [each.event for each in drawn(7)]
        for start in range(0, 30, 3):
            self.assertEqual(sorted(names[start:start + 3]), ["one", "three", "two"])

    def test_every_tenant_is_hit(self):
        self.assertEqual({each.victim for each in drawn(7) if each.event != "three"},
                         set(TENANTS))

    def test_event_for_some_tenants_hits_only_those(self):
        self.assertEqual({each.victim for each in drawn(7) if each.event == "three"}, {"green"})

    def test_chances_are_within_bounds(self):
        chances = [chance for each in drawn(7) for chance in each.chances]
        self.assertEqual(len(chances), 90)
        self.assertTrue(all(0 <= chance < 1 for chance in chances))


class LedgerTest(unittest.TestCase):
    def setUp(self):
        self.ledger = Ledger()

    def send(self, *moments, arrive=True):
        for moment in moments:
            number = self.ledger.send(moment)
            if arrive:
                self.ledger.arrive(number)

    def cut(self):
        return self.ledger.cut(self.ledger.mark())

    def test_every_frame_arrives(self):
        self.send(1, 2, 3)
        self.assertEqual(self.cut(), Account(3, 0, 0, None))

    def test_lost_frame_is_counted_with_its_moment(self):
        self.send(1)
        self.send(2, 3, arrive=False)
        self.send(4)
        self.assertEqual(self.cut(), Account(4, 2, 0, 3))

    def test_refused_frame_was_not_sent_and_is_missing(self):
        self.send(1)
        self.ledger.refuse(self.ledger.send(2))
        account = self.cut()
        self.assertEqual(account, Account(1, 0, 1, 2))
        self.assertEqual(account.missing, 1)

    def test_frame_of_the_next_cut_is_not_lost(self):
        self.send(1, arrive=False)
        mark = self.ledger.mark()
        late = self.ledger.send(2)
        self.assertFalse(self.ledger.is_settled(mark))
        self.assertEqual(self.ledger.cut(mark), Account(1, 1, 0, 1))
        self.ledger.arrive(late)
        self.assertTrue(self.ledger.is_settled(self.ledger.mark()))
        self.assertEqual(self.cut(), Account(1, 0, 0, None))

    def test_second_copy_counts_once(self):
        number = self.ledger.send(1)
        self.ledger.arrive(number)
        self.ledger.arrive(number)
        self.assertEqual(self.cut(), Account(1, 0, 0, None))

    def test_late_frame_of_an_earlier_cut_changes_nothing(self):
        number = self.ledger.send(1)
        self.cut()
        self.ledger.arrive(number)
        self.assertEqual(self.cut(), Account(0, 0, 0, None))

    def test_whole_since_last_missing_frame(self):
        self.send(1)
        self.send(2, arrive=False)
        self.send(3, 4)
        self.assertEqual(self.ledger.whole_since(4, grace_s=0.5), 2)

    def test_frame_within_the_grace_is_not_missing(self):
        self.send(1, 3.9)
        self.send(3.95, arrive=False)
        self.assertEqual(self.ledger.whole_since(4, grace_s=0.5), float("-inf"))

    def test_silence_is_not_whole(self):
        self.assertIsNone(self.ledger.whole_since(4, grace_s=0.5))
        self.send(1)
        self.assertIsNone(self.ledger.whole_since(4, grace_s=0.5))

    def test_refusals_are_not_whole(self):
        self.send(3)
        self.ledger.refuse(self.ledger.send(3.5))
        self.assertIsNone(self.ledger.whole_since(3.6, grace_s=0.5))


class OthersTest(unittest.TestCase):
    def test_hit_flows_are_not_counted_and_cuts_are_added(self):
        cut = {"hit": Account(9, 9, 0, 1), "whole": Account(5, 0, 0, None),
               "holed": Account(5, 1, 2, 1)}
        self.assertEqual(others([cut, cut], {"hit"}), (20, {"holed": 6}))


class LeakTest(unittest.TestCase):
    def test_more_of_a_name_is_a_leak_and_less_is_not(self):
        before = {"processes": Counter(vswitch=3, supervise=1)}
        now = {"processes": Counter(vswitch=4, other=1)}
        self.assertEqual(list(more_than(before, now)),
                         ["processes: 1 more of other", "processes: 1 more of vswitch"])


if __name__ == "__main__":
    unittest.main()
