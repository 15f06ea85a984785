"""What became of every frame of a flow.

A frame is lost if it was sent and did not arrive. A frame that the sender's kernel refused, as it
does while the interface is gone, was to be sent and could not be: it is missing too.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Account:
    """One flow between two cuts. Times are CLOCK_MONOTONIC seconds."""

    sent: int
    lost: int
    refused: int
    # When the last frame was to be sent that was lost or refused; None if none was.
    last_missing: float | None

    @property
    def missing(self):
        return self.lost + self.refused


class Ledger:
    """The frames of one flow since the last cut."""

    def __init__(self):
        self._first = self._next = 0
        # {number of a frame that has not arrived: when it was sent}
        self._under_way = {}
        # {number of a frame that the kernel did not take: when}
        self._refused = {}
        # When the newest frame was sent that has arrived.
        self._newest = None

    def send(self, moment):
        """A frame is about to be sent: its number."""
        number = self._next
        self._next += 1
        self._under_way[number] = moment
        return number

    def refuse(self, number):
        """The kernel did not take the frame."""
        self._refused[number] = self._under_way.pop(number)

    def arrive(self, number):
        """A frame arrived. A second copy changes nothing."""
        moment = self._under_way.pop(number, None)
        if moment is not None:
            self._newest = max(moment, self._newest or moment)

    def mark(self):
        """The number before which the next cut ends."""
        return self._next

    def is_settled(self, mark):
        """Whether every frame before the mark has arrived or was refused."""
        return not self._under_way or min(self._under_way) >= mark

    def whole_since(self, now, grace_s):
        """Since when no frame is missing, of those older than the grace; None if the newest ones
        are. Without a missing frame, that is the beginning of time."""
        if self._newest is None or self._newest < now - 2 * grace_s:
            return None
        missing = [moment for moment in self._under_way.values() if moment < now - grace_s]
        last = max([*missing, *self._refused.values()], default=float("-inf"))
        return last if last < self._newest else None

    def cut(self, mark):
        """The account of the frames before the mark. Those that have not arrived are lost."""
        lost = [self._under_way.pop(number) for number in list(self._under_way) if number < mark]
        refused = [self._refused.pop(number) for number in list(self._refused) if number < mark]
        sent = mark - self._first - len(refused)
        self._first = mark
        return Account(sent, len(lost), len(refused), max([*lost, *refused], default=None))
