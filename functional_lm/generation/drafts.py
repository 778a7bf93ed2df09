"""Drafts of the next tokens from the text so far, for a decoder that checks several in one pass.

Where the last tokens of a text came before, what followed them there is a likely continuation
(Saxena 2023, "prompt lookup decoding"). Text in a loop, names, and quotations are drafted well.

How many tokens to draft follows from what drafts were worth so far. With r(m) the share of right
guesses behind m tokens that match, a draft of n tokens yields 1 + r(m) + r(m)·r(m+1) + ... tokens
in one pass, which takes longer the larger n is; the best n may be none. Guesses are counted in
plain steps too, so that drafting begins and ends as the text changes. No clock decides: the same
text is always drafted in the same way.
"""

from collections.abc import Iterable

__all__ = ["DOUBT", "DOUBT_OF_SAMPLES", "LONGEST", "LOOK_UP", "PRIOR", "Drafts"]

LOOK_UP = 3
"""How many of the last tokens must have come before."""

LONGEST = 24
"""Matches from this length on count as equally good."""

PRIOR = 2.0
"""How many guesses weigh as much as the first belief, r(m) = m/(m + doubt)."""

DOUBT, DOUBT_OF_SAMPLES = 3.0, 8.0
"""The doubt in guesses of the likeliest tokens, and of tokens drawn at random."""


class Drafts:
    """The tokens of a text, and where each run of the last few came before."""

    def __init__(
        self, text: Iterable[int], pass_time: tuple[float, float], doubt: float = DOUBT
    ) -> None:
        """Begin with the tokens of a text.

        Args:
            text: the tokens so far.
            pass_time: what a pass with drafts takes, and each token drafted on top of it, over the
                time of a plain step.
            doubt: how little the first guesses are trusted; see `PRIOR`.
        """
        self._pass, self._each = pass_time
        self._text: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}  # where each run last ended
        self._at = 0  # the guess is the token here; 0: none
        self._length = 0  # of the match before it, at most LONGEST
        self._right = [PRIOR * m / (m + doubt) for m in range(LONGEST + 1)]
        self._all = [PRIOR] * (LONGEST + 1)
        self.extend(text)

    def extend(self, tokens: Iterable[int]) -> None:
        """Take the next tokens of the text."""
        text, follows = self._text, self._follows
        for token in tokens:
            at, m = self._at, self._length
            right = at > 0 and text[at] == token
            if at:
                self._all[m] += 1
                self._right[m] += right
            text.append(token)
            run = tuple(text[-LOOK_UP:])
            if right:
                self._at, self._length = at + 1, min(m + 1, LONGEST)
            else:
                self._at = follows.get(run, 0)
                self._length = self._matching() if self._at else 0
            if len(run) == LOOK_UP:
                follows[run] = len(text)

    def guess(self, most: int) -> list[int]:
        """Return up to so many tokens that are likely to come next; none where that costs time.

        Their number is odd, so that with the token before them the rows of a pass are even: that
        takes no longer than one row less.
        """
        best, n_best, tokens, chance = 1.0, 0, 1.0, 1.0
        if self._at:
            for n in range(1, most + 1):
                m = min(self._length + n - 1, LONGEST)
                chance *= self._right[m] / self._all[m]
                tokens += chance
                speed = tokens / (self._pass + self._each * n)
                if n % 2 and speed > best:
                    best, n_best = speed, n
        found = self._text[self._at : self._at + n_best]
        return [found[i % len(found)] for i in range(n_best)]  # a copy behind the end goes on

    def _matching(self) -> int:
        """Return how many tokens before the guess match the last ones, at most LONGEST."""
        text, at, m = self._text, self._at, LOOK_UP
        while m < min(LONGEST, at) and text[at - 1 - m] == text[-1 - m]:
            m += 1
        return m
