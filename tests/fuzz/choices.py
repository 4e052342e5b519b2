"""Bytes read as choices. A byte of 0, and every byte after the last, takes the first option, which
is always the good one: a few bytes that are not 0 are a few mistakes in a call that is right
otherwise.
"""

import random

LONGEST = 192  # as many bytes as calls look at, seldom more


class Choices:
    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def of(self, *options):
        return options[self.byte() % len(options)]

    def often(self, usual, *others):
        """The usual one, or by a quarter of all bytes one of the others."""
        byte = self.byte()
        return usual if byte < 192 else others[byte % len(others)]


def seeds():
    """Calls without a mistake, then each with one: where a search may begin."""
    for kind in range(7):
        yield bytes([kind])
        for at in range(1, 96, 2):
            yield bytes([kind, *[0] * at, 255 - at])


def random_inputs(seed):
    """Inputs without end, from almost without mistakes to nothing else."""
    rng = random.Random(seed)
    while True:
        rate = rng.choice((0.01, 0.03, 0.1, 0.4, 1))
        lowest = rng.choice((0, 192))  # from there on bytes are unusual in every place
        rest = (rng.randrange(lowest, 256) if rng.random() < rate else 0 for _ in range(LONGEST))
        yield bytes([rng.randrange(7), *rest])[:LONGEST]
