"""Drafts of the next tokens from the text so far, for a decoder that checks several in one pass.

Where the last tokens of a text came before, what followed them there is a likely continuation
(Saxena 2023, "prompt lookup decoding"). Text in a loop, names, and quotations are drafted well.

How many tokens to draft follows from what drafts were worth so far. With r(m) the share of right
guesses behind m tokens that match, a draft of n tokens yields 1 + r(m) + r(m)·r(m+1) + ... tokens
in one pass, which takes longer the larger n is; the best n may be none. Guesses are counted in
plain steps too, so that drafting begins and ends as the text changes. No clock decides: the same
text is always drafted in the same way.
"""

from collections.abc import Iterable, Sequence

__all__ = ["LONGEST", "LOOK_UPS", "PRIOR", "Drafts"]

LOOK_UPS = (8, 4, 2)
"""How many of the last tokens are looked up, the longest first."""

LONGEST = 24
"""Matches from this length on count as equally good."""

PRIOR = 4.0
"""How many guesses weigh as much as the first belief, r(m) = m/(m + 2)."""


class Drafts:
    """The tokens of a text, and where each run of a few last came before."""

    def __init__(self, text: Iterable[int], pass_time: tuple[float, float]) -> None:
        """Begin with the tokens of a text.

        Args:
            text: the tokens so far.
            pass_time: what a pass with drafts takes, and each token drafted on top of it, over the
                time of a plain step.
        """
        self._pass, self._each = pass_time
        self._text: list[int] = []
        self._follows: list[dict[tuple[int, ...], int]] = [{} for _ in LOOK_UPS]
        self._at = 0  # the guess is the token here; 0: none
        self._length = 0  # of the match before it, at most LONGEST
        self._right = [PRIOR * m / (m + 2) for m in range(LONGEST + 1)]
        self._all = [PRIOR] * (LONGEST + 1)
        self.extend(text)

    def extend(self, tokens: Iterable[int]) -> None:
        """Take the next tokens of the text."""
        for token in tokens:
            at, text = self._at, self._text
            text.append(token)
            right = False
            if at:
                right = text[at] == token
                self._all[self._length] += 1
                self._right[self._length] += right
            if right:
                self._at, self._length = at + 1, min(self._length + 1, LONGEST)
            else:
                self._at = 0
            end = len(text)
            for n, follows in zip(LOOK_UPS, self._follows, strict=True):
                if end >= n:
                    last = tuple(text[-n:])
                    if not self._at and last in follows:
                        self._at, self._length = follows[last], self._matching(follows[last], n)
                    follows[last] = end

    def guess(self, most: int) -> list[int]:
        """Return up to so many tokens that are likely to come next; none where that costs time."""
        if not self._at or most < 1:
            return []
        best, n_best, tokens, chance = 1.0, 0, 1.0, 1.0
        for n in range(1, most + 1):
            m = min(self._length + n - 1, LONGEST)
            chance *= self._right[m] / self._all[m]
            tokens += chance
            speed = tokens / (self._pass + self._each * n)
            if speed > best:
                best, n_best = speed, n
        return self._copied(n_best)

    def _copied(self, n: int) -> list[int]:
        """Return what follows the match; behind the end of the text, the copy itself goes on."""
        found = self._text[self._at : self._at + n]
        period = len(found)
        return [found[i % period] for i in range(n)]

    def _matching(self, at: int, known: int) -> int:
        """Return how many tokens before a place match those at the end, at most LONGEST."""
        text: Sequence[int] = self._text
        m = known
        while m < min(LONGEST, at) and text[at - 1 - m] == text[-1 - m]:
            m += 1
        return m
