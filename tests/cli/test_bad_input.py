"""Bad invocations: a non-zero status, at most three lines on stderr, nothing left behind."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from functional_lm.cli.main import main

from .conftest import MODEL, TEXT

TRAIN = ["train", "--text-file", "text.txt", "--seq-len", "16"]

GOLDEN = ["golden", "silu", "--out", "g"]
LATIN = ["train", "--text-file", "latin.txt", "--encoding"]

BAD = {
    # train: values
    "steps 0": ([*TRAIN, "--steps", "0"], "steps must be at least 1"),
    "steps and epochs": ([*TRAIN, "--steps", "5", "--epochs", "1"], "leave one out"),
    "rate no number": ([*TRAIN, "--lr", "fast"], "such as 0.1 or 3e-4: got 'fast'"),
    "heads": ([*TRAIN, "--d-model", "16", "--n-heads", "5"], "try 4 or 8"),
    "seq_len above max": ([*TRAIN, "--max-seq-len", "8"], "seq_len must be at most max_seq_len"),
    "preset": ([*TRAIN, "--preset", "huge"], "'huge'"),
    "log_every": ([*TRAIN, "--log-every", "0"], "log_every must be at least 1"),
    "unknown flag": ([*TRAIN, "--batchsize", "1"], "; did you mean --batch-size?"),
    "flag from elsewhere": ([*TRAIN, "--learning-rate", "1"], "did you mean --lr?"),
    "flag of another model": ([*TRAIN, "--experts", "4"], "is a flag of --model hybrid"),
    "flag of a GPU": ([*TRAIN, "--device", "cuda"], "everything runs on the CPU; remove it"),
    "no whole number": ([*TRAIN, "--steps", "1.5"], "--steps must be a whole number, such as 1000"),
    "negative rate": ([*TRAIN, "--lr", "-1e-3"], "lr must be finite and at least 0: got -0.001"),
    "negative steps": ([*TRAIN, "--steps", "-1e3"], "steps must be at least 1"),
    "negative infinity": ([*TRAIN, "--b1", "-inf"], "b1 must lie in [0, 1]: got -inf"),
    "dash as a value": ([*TRAIN, "--lr", "-x"], "--lr must be a number, such as 0.1 or 3e-4: got"),
    "no finite number": ([*TRAIN, "--steps", "1e999"], "--steps must be a whole number, such as"),
    "no value": ([*TRAIN, "--steps"], "--steps needs a value: got none; pass one, or remove"),
    "three files": (["train", "a.txt", "b.txt", "c.txt"], "unexpected argument 'b.txt'; name its"),
    "two files": ([*TRAIN, "other.txt"], "unexpected argument 'other.txt'; name its flag"),
    "no dashes": (["train", "seed=5"], "unexpected argument 'seed=5'; did you mean --seed=5?"),
    "switch with a value": (["train", "--dry-run=yes"], "--dry-run is on or off: it takes no"),
    "switch and a value": (["train", "--dry-run", "yes"], "that is on or off takes no value"),
    "start of a flag": ([*TRAIN, "--batch", "3"], "did you mean --batch-size?"),
    "decay of sgd": ([*TRAIN, "--optimizer", "sgd", "--weight-decay", "1"],
                     "weight_decay is a setting of adamw and muon and lion: got optimizer='sgd'"),
    "overwrite nothing": ([*TRAIN, "--overwrite"], "--overwrite needs --out: got none"),
    "encoding of no file": (["train", "--encoding", "latin-1"],
                            "needs --text-file or --data: got none"),
    # train: files
    "no text": (["train", "--text-file", "missing.txt"], "missing.txt: No such file"),
    "folder as text": (["train", "--text-file", "taken"], "taken: Is a directory"),
    "empty text": (["train", "--text-file", "empty.txt"], "empty.txt is empty"),
    "binary text": (["train", "--text-file", "binary.txt"], "must be UTF-8"),
    "short text": (["train", "--text-file", "short.txt"], "at least seq_len + 1 = 65 tokens"),
    "two texts": ([*TRAIN, "--corpus", "stdlib"], "leave one out"),
    "unknown corpus": (["train", "--corpus", "marlowe"], "marlowe"),
    "taken folder": ([*TRAIN, "--out", "taken"], "taken exists; pass another"),
    "file as folder": ([*TRAIN, "--out", "empty.txt/run"], "empty.txt"),
    "unwritable folder": ([*TRAIN, "--out", "/proc/run"], "/proc/run"),
    "no config file": ([*TRAIN, "--config", "missing.toml"], "missing.toml: No such file"),
    "config no TOML": ([*TRAIN, "--config", "text.txt"], "must hold TOML"),
    "config unknown": ([*TRAIN, "--config", "unknown.toml"], "unknown setting n_heds in the"),
    "config bad value": ([*TRAIN, "--config", "bad.json"], "lr must"),
    # train: models
    "no model file": ([*TRAIN, "--model", "missing.py:model"], "no such file"),
    "model file no Python": ([*TRAIN, "--model", "broken.py:model"], "SyntaxError"),
    "model without a name": ([*TRAIN, "--model", "my_model.py:other"], "must define other"),
    "setting that a model ignores": (
        [*TRAIN, "--model", "my_model.py:model", "--n-layers", "2"],
        "--n-layers makes no difference to my_model.py:model; remove it"),
    "model without a vjp": ([*TRAIN, "--model", "my_model.py:half"], "has no vjp"),
    "model of another shape": ([*TRAIN, "--model", "my_model.py:with_loss", "--d-model", "16"],
                               "must map tokens to logits"),
    "model without parameters": ([*TRAIN, "--model", "odd.py:empty"], "parameters to train"),
    "model that leaves": ([*TRAIN, "--model", "leaves.py:model"], "SystemExit"),
    "model no string": ([*TRAIN, "--config", "model.toml"], "must give model as a string"),
    "batch no memory": ([*TRAIN, "--batch-size", "1000000000000"], "fails on its first window"),
    "layers no memory": ([*TRAIN, "--n-layers", "1" + "0" * 20], "n_layers must be at most 10,000"),
    "config bad preset": ([*TRAIN, "--config", "preset.toml"], "preset must be 'tiny'"),
    "run as folder": ([*TRAIN, "--out", "run"], "resume it with --resume run, replace it with"),
    "overwrite what is no run": ([*TRAIN, "--out", "taken", "--overwrite"], "pass another"),
    "resume nothing": (["train", "--resume", "nowhere"], "there is no run in nowhere; the runs"),
    "resume and out": (["train", "--resume", "run", "--out", "new"], "leave one out"),
    "resume otherwise": (["train", "--resume", "run", "--lr", "1"], "lr was 0.003 and is 1.0"),
    "resume damaged": (["train", "--resume", "no-config"], "config.json must hold JSON"),
    # generate, evaluate, info
    "no run": (["generate", "nowhere"], "there is no run in nowhere; the runs here are"),
    "no run named": (["generate"], "RUN is required: got none; pass the folder of a run"),
    "two prompts": (["generate", "run", "--prompt", "a", "--interactive"], "--prompt and --inter"),
    "two samples": (["generate", "run", "--interactive", "--num-samples", "2"], "got 1 and"),
    "prompt not UTF-8": (["generate", "run", "--prompt-file", "latin.txt"], "must be UTF-8"),
    "empty prompt file": (["generate", "run", "--prompt-file", "empty.txt"], "pass some text"),
    "empty prompt": (["generate", "run", "--prompt", ""], "pass some text"),
    "unknown character": (["generate", "run", "--prompt", "É"], "got 'É' at position 0"),
    "temperature": (["generate", "run", "--temperature", "-1"], "temperature must be finite"),
    "top_k": (["generate", "run", "--top-k", "0"], "top_k must be at least 1"),
    "generate seed": (["generate", "run", "--seed", "-1"], "seed must be at least 0"),
    "no stop": (["generate", "run", "--stop"], "--stop needs a value: got none; pass one, or"),
    "two loose prompts": (["generate", "run", "the", "fox"], "'fox'; name its flag, quote a text"),
    "empty stop": (["generate", "run", "--stop", ""], "must not be empty"),
    "damaged weights": (["generate", "damaged"], "model.safetensors is not a whole"),
    "damaged config": (["generate", "no-config"], "config.json must hold JSON"),
    "weights of another": (["evaluate", "other"], "must hold another tree: at blocks 0, 1"),
    "evaluate seq_len": (["evaluate", "run", "--seq-len", "99"], "at most max_seq_len"),
    "evaluate other text": (["evaluate", "run", "--text-file", "foreign.txt"], "at position 0"),
    # sweep and the rest
    "sweep rates": (["sweep", "--text-file", "text.txt", "--lr", "1e-3,fast"], "must be a number"),
    "sweep same rates": (["sweep", "--text-file", "text.txt", "--lr", "1,1"], "distinct"),
    # plot, report
    "plot nothing": (["plot"], "RUN... is required: got none; pass the folders"),
    "plot no run": (["plot", "nowhere"], "there is no run in nowhere"),
    "plot a file": (["plot", "text.txt"], "there is no run in text.txt"),
    "plot as gif": (["plot", "run", "--out", "run.gif"], "must end in .png or .svg: got run.gif"),
    "plot nowhere": (["plot", "run", "--out", "no/run.png"], "must exist: there is no no"),
    "plot over a file": (["plot", "run", "--out", "holiday.png"], "holiday.png is neither"),
    "plot damaged": (["plot", "damaged"], "metrics.jsonl line 1"),
    "plot no step": (["plot", "other"], "must have made a step"),
    "report no run": (["report", "taken"], "there is no run in taken"),
    "report as pdf": (["report", "run", "--out", "run.pdf"], "must end in .html: got run.pdf"),
    "report over a file": (["report", "run", "--out", "notes.html"], "notes.html is neither"),
    "report damaged config": (["report", "no-config"], "config.json must hold JSON"),
    # check, golden, info
    "check unknown": (["check", "sillu"], "unknown layer 'sillu'; did you mean silu?"),
    "check nowhere": (["check", "silu", "--json", "no/c.json"], "the folder of --json must exist"),
    "check seed": (["check", "silu", "--seed", "-1"], "seed must be at least 0"),
    "check dtype": (["check", "silu", "--dtype", "float16"], "float16"),
    "golden nowhere": (["golden", "silu", "--out", "no/g"], "the folder of --out must exist"),
    "golden no size": ([*GOLDEN, "--shape", "B"], "give NAME=VALUE, such as B=2: got 'B'"),
    "golden size": ([*GOLDEN, "--shape", "B=x"], "a size must be an integer: got B=x"),
    "golden keyword": ([*GOLDEN, "--set", "eps=2"], "silu has no keywords: got eps"),
    "golden unknown": (["golden", "sillu", "--out", "g"], "unknown layer 'sillu'"),
    "info seq_len": (["info", "--seq-len", "0"], "seq_len must be at least 1"),
    "unknown shell": (["completion", "tcsh"], "or 'zsh' or 'fish': got 'tcsh'"),
    "info of a run and sizes": (["info", "run", "--d-model", "8"], "got RUN and settings; leave"),
    "info vocabulary": (["info", "--vocab-size", "-1"], "vocab_size must be at least 1"),
    # encodings
    "not UTF-8": (LATIN[:3], "has the byte 0xfc at offset 5; it can be read as cp1252: try"),
    "not ASCII": (["evaluate", "run", *LATIN[1:], "ascii"], "must be ASCII: it has the byte 0xfc"),
    "no encoding": (["sweep", *LATIN[1:], "utf-9"], "one of text that Python knows: got 'utf-9'"),
    "no command": ([], "a command is required"),
    "command from elsewhere": (["sample", "run"], "did you mean generate?"),
    "unknown option": (["--verion"], "there is no option '--verion'; did you mean --version?"),
    "unknown command": (["trian"], "there is no command 'trian'; did you mean train?"),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """A folder with good and bad files."""
    folder = tmp_path_factory.mktemp("bad")
    with contextlib.chdir(folder):
        Path("text.txt").write_text(TEXT)
        Path("my_model.py").write_text(MODEL)
        shutil.copytree(trained, "run")
        Path("empty.txt").touch()
        Path("latin.txt").write_bytes("Ein Füllwort".encode("latin-1"))
        Path("short.txt").write_text("abc")
        Path("binary.txt").write_bytes(b"\xff\xfe\x00")
        Path("foreign.txt").write_text("É" * 100)
        Path("broken.py").write_text("def")
        Path("unknown.toml").write_text("n_heds = 3")
        Path("bad.json").write_text('{"lr": "fast"}')
        Path("model.toml").write_text("model = 5")
        Path("preset.toml").write_text('preset = "huge"')
        Path("leaves.py").write_text("import sys; sys.exit(3)")
        Path("odd.py").write_text(
            "class empty:\n"
            "    init = staticmethod(lambda key: {})\n"
            "    forward = vjp = staticmethod(lambda *arguments: (None, None))\n"
        )
        Path("taken").mkdir()
        for name in ("damaged", "no-config", "other"):
            shutil.copytree(trained, name)
        weights = Path("damaged", "model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-10])
        Path("no-config", "config.json").write_text("{")
        Path("damaged", "metrics.jsonl").write_text('{"step"\n{"step": 2}\n')
        Path("other", "metrics.jsonl").write_text("")
        Path("holiday.png").write_bytes(b"\x89PNG of somebody else")
        Path("notes.html").write_text("<p>mine</p>")
        settings = json.loads(Path("other", "config.json").read_text())
        settings["model"]["n_layers"] += 1
        Path("other", "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(files, monkeypatch):
    monkeypatch.chdir(files)
    return files


@pytest.mark.parametrize("name", BAD)
def test_a_bad_invocation_says_what_is_wrong_and_leaves_nothing(folder, capsys, name):
    arguments, says = BAD[name]
    capsys.readouterr()
    before = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    status = main(arguments)
    assert status != 0
    said = capsys.readouterr()
    assert says in said.err
    assert 1 <= len(said.err.strip().splitlines()) <= 3
    assert "Traceback" not in said.err
    assert "__init__" not in said.err
    after = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write to a read-only folder")
def test_a_folder_that_is_read_only(folder, capsys):
    Path("taken").chmod(0o500)
    assert main([*TRAIN, "--out", "taken/run"]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_all_faults_are_reported_at_once(folder, capsys):
    flags = "--steps 0 --lr fast --n-heads 5 --corpus x --log-every 0 --preset huge --lrate 1"
    assert main(["train", "--config", "unknown.toml", *flags.split()]) == 2
    faults = capsys.readouterr().err.splitlines()
    about = ["steps", "lr", "n_heads", "corpus", "log_every", "n_heds", "preset", "--lrate"]
    assert len(faults) == len(about)
    assert all(any(name in fault for fault in faults) for name in about)
    assert all(fault.startswith("functional-lm train: ") for fault in faults)
