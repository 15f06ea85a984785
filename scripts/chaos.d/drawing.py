"""What a seed draws: the rounds, each with its event, its victim, and three numbers that settle the
event's details.

A round depends only on the seed and its own number, so that it can be repeated alone. Events are
dealt like cards: each comes once before any comes again, so a short run has them all.
"""

import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class Round:
    """One round. `chances` are three numbers in [0, 1)."""

    number: int
    event: str
    victim: str
    chances: tuple


def draw(seed, number, events, tenants):
    """The round of that number, from 1 on. `events` are (name, the tenants it can hit); none there
    stands for all of `tenants`."""
    deck, position = divmod(number - 1, len(events))
    event, possible = shuffled(f"{seed}/deck/{deck}", events)[position]
    numbers = random.Random(f"{seed}/round/{number}")
    return Round(number, event, numbers.choice(possible or tenants),
                 tuple(numbers.random() for _ in range(3)))


def shuffled(seed, events):
    deck = list(events)
    random.Random(seed).shuffle(deck)
    return deck
