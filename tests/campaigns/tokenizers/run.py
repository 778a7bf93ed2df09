"""Compare tokenizers with the library that they come from, on many texts and on a long line.

python tests/campaigns/tokenizers/run.py [--texts 100000] [--megabytes 100]
"""

import argparse
import random
import resource
import sys
import time

from made_tokenizers import MADE, TEXT, difference, library, some_texts
from rich.console import Console
from rich.progress import track

from functional_lm.text import ByteTokenizer, CharTokenizer, SubwordTokenizer


def texts(count: int) -> list[str]:
    """Return what differs on generated texts; each tokenizer takes all of them."""
    faults = []
    for name, make in MADE.items():
        tokenizer = make()
        made, found = library(tokenizer), []
        shown = track(some_texts(count), name, count, console=Console(stderr=True), transient=True)
        for text in shown:
            if (fault := difference(tokenizer, text, made)) is not None:
                found.append(f"{name}: {fault}")
        print(f"{name}: {count:,} texts, {len(found)} differ", flush=True)
        faults += found
    for text in some_texts(count):
        for own in (ByteTokenizer(), CharTokenizer.train(text)):
            tokens = own.encode(text)
            if not own.decode(tokens) == "".join(own.stream(tokens.tolist())) == text:
                faults.append(f"{own.kind}: {text!r} does not come back")
    print(f"char and byte: {count:,} texts, round trip")
    return faults


def line(megabytes: float) -> list[str]:
    """Return what is wrong with a single long line, which is encoded in pieces."""
    draw, words = random.Random(0), TEXT.split()
    size = int(megabytes * 1e6)
    text = " ".join(draw.choice(words) for _ in range(size // 4))[:size]
    faults = []
    for name, tokenizer in {
        "byte": ByteTokenizer(),
        "bpe": SubwordTokenizer.train([text[:100_000]], vocab_size=1024),
    }.items():
        begin = time.perf_counter()
        tokens = tokenizer.encode(text)
        seconds = time.perf_counter() - begin
        if tokenizer.decode(tokens) != text:
            faults.append(f"{name}: the line does not come back")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{name}: a line of {megabytes:g} MB in {seconds:.1f} s, {peak:,.0f} MB at most")
    return faults


def main() -> None:
    """Run both; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of the line, default: 100")
    given = parser.parse_args()
    faults = texts(given.texts) + line(given.megabytes)
    print("\n".join(faults[:20]) or "nothing differs")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
