"""The readers of files from outside; a new one needs only an entry here."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from functional_lm.cli.flags import read_settings
from functional_lm.cli.parser import parse
from functional_lm.cli.train import Train
from functional_lm.files import FileFormatError, read_json, read_tensors, read_text
from functional_lm.models import build
from functional_lm.runs import load_checkpoint, open_run, read_metrics, save_checkpoint, save_run
from functional_lm.runs.checkpoint import FORMAT
from functional_lm.runs.trust import UntrustedModelError
from functional_lm.text import CharTokenizer, SubwordTokenizer, load_tokenizer, read_corpus


class Reader(NamedTuple):
    """What to fuzz.

    Attributes:
        file: the name of the file that is fuzzed.
        make: writes what else lies in its folder, and returns valid contents of the file.
        read: reads the file at a path, and uses all of its value.
        words: what to insert, besides bytes of the contents.
        repair: called on most inputs, so that their changes get past a first check.
    """

    file: str
    make: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    repair: Callable[[bytes], bytes] = lambda data: data


JSON_WORDS = (
    *(b'[ ] { } , : " [[[[[[[[ {} [] null true false NaN -Infinity 1e999 -0 1.5 \\ \\\\'.split()),
    *(b'\\" \\ud800 \\udc00\\ud800 \\u0000 "a":1, 1e-999 0x10 01 {"a":{"a":{"a": // '.split()),
    *(b'"type" "char" "characters" "model_file" "name" "d_model" "text"'.split()),
    *(b"9" * n for n in (20, 301, 5000)),
    *("é \U0001f600 \ufeff \u2028".encode().split()),
    b"\xff",
    b"\xed\xa0\x80",  # half of a surrogate pair as bytes
)
TOML_WORDS = (
    *(b"[ ] [[ ]] { } = . , # ' \" ''' \"\"\" [a] [[a]] a.a.a.a= {a={a= [[[[[[ nan -inf".split()),
    *(b"0x 0o7 0b1 1_000 1979-05-27T07:32:00Z 25:61:61 \\U00110000 \\ud800 \\\n".split()),
    *(b"\n \r\n \r \0 \t\n\n".split(b" ")),
    *(b"9" * n for n in (20, 301, 5000)),
    *JSON_WORDS[-3:],
)
TEXT_WORDS = (*(b"\xff \xfe\xff \xc3 \xe2\x82 \xf0\x9f\x98 \xed\xa0\x80 \xef\xbb\xbf \0".split()),)
TENSOR_WORDS = (
    *(b'"F64" "F32" "F16" "I64" "U8" "BOOL" "BF16" "C64" "dtype" "shape" "data_offsets"'.split()),
    *(b'"__metadata__":{"a":"b"}, -1 2147483648 4294967296 9223372036854775807'.split()),
    *(b"18446744073709551615 18446744073709551616 [0,0] [1,1,1,1,1,1,1,1] 1.0 true".split()),
    *JSON_WORDS,
)


SETTINGS = (
    'lr = 1e-3\nn-heads = 4\ntext-file = "a.txt"\n[model]\nd_model = 64\n',
    'preset = "small"\nsteps = 7\nencoding = "latin-1"\nout = "runs/a"\neval_every = 5\n',
)
CONFIG = json.dumps(
    {
        "model": {"vocab_size": 27, "d_model": 16, "n_heads": 2, "d_ff": 40, "max_seq_len": 8},
        "dtype": "float32",
        "training": {"lr": 0.003, "steps": 20, "seq_len": 8},
        "text": {"text_file": "/a.txt", "encoding": "utf-8", "corpus": None, "sha256": "0"},
    }
)
CUSTOM = CONFIG.replace('"dtype"', '"model_file": {"name": "model", "from": "/my.py"}, "dtype"')


def of_contents(*contents: bytes | str) -> Callable[[Path], list[bytes]]:
    """Return a `make` that gives these."""
    return lambda folder: [c.encode() if isinstance(c, str) else c for c in contents]


def some_tensors(folder: Path) -> list[bytes]:
    arrays = {
        "blocks.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "step": np.array(3, np.int64),
        "mask": np.array([True, False, True]),
    }
    empty = {"none": np.zeros((0, 5), np.float64), "half": np.ones(3, np.float16)}
    return [save(arrays, {"format": "np", "é": "[1, 2]"}), save(empty), save({})]


def with_true_lengths(data: bytes) -> bytes:
    """Correct the lengths: the header ends with its JSON, the arrays with the file."""
    end = max(data.rfind(b"}") + 1, 8)
    try:
        fields, length = json.JSONDecoder().raw_decode(data[8:].decode("latin-1"))
        end = len(data) - len(data[8 + length :].lstrip(b" "))
        data = (end - 8).to_bytes(8, "little") + data[8:]
        held = max(field["data_offsets"][1] for name, field in fields.items() if name[:2] != "__")
        return data[:end] + data[end:].ljust(held, b"\1")[:held] if 0 <= held <= 2**16 else data
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return (end - 8).to_bytes(8, "little") + data[8:]


def use_json(path: Path) -> object:
    return json.dumps(read_json(path), ensure_ascii=False).encode()


def use_tensors(path: Path) -> object:
    arrays, metadata = read_tensors(path)
    held = sum(array.nbytes for array in arrays.values())
    assert held <= os.path.getsize(path)
    assert all(array.dtype.isnative and array.flags.writeable for array in arrays.values())
    return [array.tobytes() for array in arrays.values()], [v.encode() for v in metadata.values()]


def use_tokenizer(path: Path) -> object:
    tokenizer = load_tokenizer(path)
    text = getattr(tokenizer, "characters", "hello, world <0x00>\n")
    try:
        tokens, sizes = tokenizer.sized(text)
    except ValueError as error:
        raise FileFormatError(path, str(error)) from None
    if tokenizer.token_bytes is not None:
        assert tokenizer.decode(tokens) == text
    assert sum(sizes) in (0, len(text.encode()))
    assert "".join(tokenizer.stream(tokens.tolist())) == tokenizer.decode(tokens)
    path.write_text(tokenizer.to_json(), encoding="utf-8")
    return load_tokenizer(path)


def use_settings(path: Path) -> object:
    try:
        settings = read_settings(path)
    except UntrustedModelError as error:
        raise FileFormatError(path, str(error)[:300]) from error
    return repr(settings), [name.encode() for name in settings]


def use_flags(path: Path) -> object:
    """Read a config file as the command line does, which reports errors in one line."""
    try:
        return repr(parse(Train, ["--config", str(path)], program="train"))
    except (TypeError, ValueError, UntrustedModelError) as error:
        raise FileFormatError(path, f"is refused by the command: {error}"[:300]) from error


def use_text(encoding: str) -> Callable[[Path], object]:
    return lambda path: read_text(path, encoding=encoding).encode()


def a_checkpoint(folder: Path) -> list[bytes]:
    tree = {"params": {"w": np.arange(6.0).reshape(2, 3)}, "state": (np.int64(3), [None, 0.5, {}])}
    save_checkpoint(folder / "valid", tree, metadata={"step": 3, "é": [1, None]})
    return [(folder / "valid").read_bytes()]


def with_true_checksum(data: bytes) -> bytes:
    """Correct checksum and lengths of a checkpoint, so that changes reach the later checks."""
    start = data.find(FORMAT.encode()) + len(FORMAT) + len('":"')
    found = re.compile(rb'(?<!\\)"').search(data, start)
    end = found.start() if found else len(data)
    try:
        _, _, content = json.loads(b'"' + data[start:end] + b'"').partition(" ")
        checksum = hashlib.sha256(content.encode()).hexdigest().encode()
    except (ValueError, AttributeError):
        return data
    return with_true_lengths(data[:start] + checksum + data[start + len(checksum) :])


def a_run(file: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        model = build("llama", vocab_size=3, d_model=8, n_heads=2, n_layers=1)
        save_run(folder, model.init((0,)), model, CharTokenizer("abc"))
        return [(folder / file).read_bytes()]

    return make


def use_run(path: Path) -> object:
    run = open_run(path.parent)
    with np.errstate(all="ignore"):
        logits, _ = run.model.logits(run.params, np.zeros((1, 1), np.int32))
    return logits.tobytes()


READERS = {
    "checkpoint": Reader(
        "step.safetensors", a_checkpoint, load_checkpoint, TENSOR_WORDS, with_true_checksum
    ),
    "run-config": Reader("config.json", a_run("config.json"), use_run, JSON_WORDS),
    "run-tokenizer": Reader("tokenizer.json", a_run("tokenizer.json"), use_run, JSON_WORDS),
    "run-weights": Reader(
        "model.safetensors", a_run("model.safetensors"), use_run, TENSOR_WORDS, with_true_checksum
    ),
    "metrics": Reader(
        "metrics.jsonl",
        of_contents(
            '{"step": 1, "loss": 4.2, "statistics": {"grad_norm": {"w": null}}}\n{"step": 2}\n',
            '{"step": 1}\n{"step": 2, "lo',
        ),
        read_metrics,
        (*JSON_WORDS, b"\n", b"\r"),
    ),
    "json": Reader(
        "any.json",
        of_contents(
            '{"a": [1, -2.5e3, true, null], "b": {"c": "\\u00e9\\ud83d\\ude00"}}',
            '[["\\\\", "\\"", "é😀"], {}, [], 0]',
            json.dumps([{"loss": i / 7, "step": i} for i in range(20)]),
        ),
        use_json,
        JSON_WORDS,
    ),
    "tensors": Reader(
        "model.safetensors", some_tensors, use_tensors, TENSOR_WORDS, with_true_lengths
    ),
    "tokenizer": Reader(
        "tokenizer.json",
        of_contents(
            CharTokenizer.train("hello, world").to_json(),
            CharTokenizer.train('\n"\\é😀\0').to_json(),
        ),
        use_tokenizer,
        JSON_WORDS,
    ),
    "subword-tokenizer": Reader(
        "tokenizer.json",
        lambda folder: [
            SubwordTokenizer.train(["hello, world " * 9], kind=kind, vocab_size=270)
            .to_json()
            .encode()
            for kind in ("bpe", "unigram", "wordpiece")
        ],
        use_tokenizer,
        JSON_WORDS,
    ),
    "text-utf-8": Reader(
        "a.txt", of_contents("Grüße, 世界 😀\r\n", "\ufeffabc"), use_text("utf-8"), TEXT_WORDS
    ),
    "text-utf-16": Reader(
        "a.txt",
        of_contents("Grüße, 世界 😀".encode("utf-16")),
        use_text("utf-16"),
        (b"\0\xd8", b"\0\xdc", b"\xd8\0", b"\xff\xfe", b"\xfe\xff"),
    ),
    "text-gb18030": Reader(
        "a.txt", of_contents("Grüße, 世界 😀".encode("gb18030")), use_text("gb18030"), TEXT_WORDS
    ),
    "corpus-shift-jis": Reader(
        "a.txt",
        of_contents("世界 abc".encode("shift-jis")),
        lambda path: read_corpus(path, encoding="shift-jis").text.encode(),
        TEXT_WORDS,
    ),
    "settings-toml": Reader(
        "a.toml",
        of_contents(
            *SETTINGS,
            "a.b.c = [1, {d = 1979-05-27}]\n[[e]]\nf = '''\ng'''\n# é\n[e.h]\ni = 0x1F\n",
        ),
        use_settings,
        TOML_WORDS,
    ),
    "settings-json": Reader(
        "config.json",
        of_contents(CUSTOM, CONFIG),
        use_settings,
        JSON_WORDS,
    ),
    "config-toml": Reader("a.toml", of_contents(*SETTINGS), use_flags, TOML_WORDS),
    "config-json": Reader("config.json", of_contents(CUSTOM, CONFIG), use_flags, JSON_WORDS),
}
"""By name, as on the command line."""
