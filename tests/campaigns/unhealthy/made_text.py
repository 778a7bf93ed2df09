"""A generated text, for where no real one is available."""

import string

from functional_lm import prng


def made_text(seed: int, n_words: int = 12_000) -> str:
    """Return sentences of some hundred made-up words, common ones first; about 70,000 characters.

    A word is likelier after some words than after others, so that there is more to learn than the
    words.
    """
    rng = prng.generator((seed, 77))
    letters = list(string.ascii_lowercase)
    words = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(300)]
    successors = rng.integers(0, len(words), size=(len(words), 4))
    word, text, left = 0, [], 0
    for _ in range(n_words):
        if left == 0:
            left = int(rng.integers(4, 12))
            text.append(words[word].capitalize())
        else:
            text.append(" " + words[word])
        left -= 1
        if left == 0:
            text.append(".\n" if rng.random() < 0.3 else ". ")
        if rng.random() < 0.7:
            word = int(successors[word, rng.integers(4)])
        else:
            word = min(int(rng.exponential(60)), len(words) - 1)
    return "".join(text)
