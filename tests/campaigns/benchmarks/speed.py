"""The time of a training step and of greedy generation, against JAX, PyTorch and other checkouts.

All peers compute first and must agree; then they take turns, see `harness`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness import (
    Peer,
    Report,
    Spec,
    alternate,
    expect_equal_losses,
    expect_equal_tokens,
    say,
    started,
)
from workload import SETTINGS, Setting

VERIFIED_STEPS = 5
TURN_SECONDS = 0.6
SGEMM_SIZE = 2048
N_PROMPT, N_NEW, BATCH, GAIN = 16, 256, 16, 2.0
RESULTS = Path("runs/benchmarks")

STEPS = {
    "ours": Spec("peer_ours", "step"),
    "ours-untuned": Spec("peer_ours", "step", {"tuned": False}),
    "ours-plain": Spec("peer_ours", "step", {"tuned": False, "shards": 1}),
    "jax-manual": Spec("peer_jax", "step", {"attention": "manual"}),
    "jax-library": Spec("peer_jax", "step", {"attention": "library"}),
    "torch-eager": Spec("peer_torch", "step", {"compiled": False}),
    "torch-compile": Spec("peer_torch", "step", {"compiled": True}),
}
DECODINGS = {
    "ours": Spec("peer_ours", "generation"),
    "ours-without-drafts": Spec("peer_ours", "generation", {"speculate": 0}),
    "jax": Spec("peer_jax", "generation"),
    "ours-0.8": Spec("peer_ours", "generation", {"temperature": 0.8}),
    "ours-0.8-without-drafts": Spec(
        "peer_ours", "generation", {"temperature": 0.8, "speculate": 0}
    ),
}
TEXTS = 10
LARGE = {"vocab_size": 49152, "d_model": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3}
LARGE |= {"d_ff": 1536, "max_seq_len": 512}
READ = 2**29
GENERATIONS = {
    "ours": Spec("peer_ours", "generation"),
    "jax": Spec("peer_jax", "generation"),
    "torch": Spec("peer_torch", "generation"),
    "torch-one-thread": Spec("peer_torch", "generation", {"threads": 1}),
}


def step(
    configs: tuple[str, ...] = tuple(SETTINGS),
    peers: tuple[str, ...] = ("ours", "ours-plain", "jax-manual", "jax-library", "torch-eager"),
    against: Path | None = None,
    rounds: int = 15,
    out: Path = RESULTS,
) -> None:
    """Time a full training step: forward, backward, clipping, AdamW; float32, all cores.

    "ours" calls `runtime.tune` and shards the batch, as the command line does; "ours-untuned"
    shards only; "ours-plain" is `value_and_grad`. The peak of sgemm is measured in the same rounds.

    Args:
        configs: names of `workload.SETTINGS`.
        peers: names of `STEPS`.
        against: another checkout of this project, to measure beside this one instead of others.
        rounds: turns of each peer.
        out: where step.json is written.
    """
    report = Report("step")
    sgemm = Spec("peer_ours", "sgemm", {"size": SGEMM_SIZE})
    for setting in choose_settings(configs):
        chosen = choose(STEPS, peers, against, setting=dataclasses.asdict(setting))
        with started(chosen, report, n=VERIFIED_STEPS) as (running, answers), Peer("", sgemm) as p:
            p.pause()
            expect_equal_losses({name: answer["losses"] for name, answer in answers.items()})
            seconds = min(next(iter(answers.values()))["seconds"])
            request = {"n": 1 + max(3, min(20, round(TURN_SECONDS / seconds)))}
            runners = {name: (peer, request) for name, peer in running.items()} | {
                "sgemm": (p, request)
            }
            turns = alternate(runners, rounds=rounds, skip=1)
        times = [turn for turn in turns if turn.name != "sgemm"]
        report.add_turns(setting.name, times, "ms", 1e3, pairs(running))
        work = dict.fromkeys(running, setting.flops * 1e-9) | {"sgemm": 2e-9 * SGEMM_SIZE**3}
        report.add_turns(setting.name, turns, "GFLOP/s", work, [("ours", "sgemm")])
    report.write(out)


def generation(
    configs: tuple[str, ...] = ("tiny", "deep"),
    peers: tuple[str, ...] = ("ours", "jax", "torch", "torch-one-thread"),
    against: Path | None = None,
    rounds: int = 7,
    out: Path = RESULTS,
) -> None:
    """Time greedy generation: 256 tokens after a prompt of 16, at batch 1 and 16.

    Args:
        configs: names of `workload.SETTINGS`.
        peers: names of `GENERATIONS`.
        against: another checkout of this project, to measure beside this one instead of others.
        rounds: turns of each peer and batch.
        out: where generation.json is written.
    """
    report = Report("generation")
    for known in choose_settings(configs):
        size = {"batch_size": BATCH, "seq_len": N_PROMPT + N_NEW}
        setting = dataclasses.asdict(dataclasses.replace(known, **size))
        sizes = {"n_prompt": N_PROMPT, "n_new": N_NEW, "gain": GAIN}
        chosen = choose(GENERATIONS, peers, against, setting=setting, **sizes)
        with started(chosen, report, batch=BATCH) as (running, answers):
            expect_equal_tokens({name: answer["tokens"] for name, answer in answers.items()})
            for batch in (1, BATCH):
                for peer in running.values():
                    peer.resume()
                    peer.ask(batch=batch)  # compiles
                    peer.pause()
                runners = {one: (peer, {"batch": batch}) for one, peer in running.items()}
                turns = alternate(runners, rounds=rounds)
                group = f"{known.name}, B={batch}"
                report.add_turns(group, turns, "tokens/s", float(batch * N_NEW), pairs(running))
    report.write(out)


def decoding(
    configs: tuple[str, ...] = ("tiny", "deep"),
    peers: tuple[str, ...] = tuple(DECODINGS),
    steps: int = 400,
    rounds: int = 7,
    out: Path = RESULTS,
) -> None:
    """Time decoding with trained models: 256 tokens after 16 of held-out text, ten texts by turns.

    The models are trained here first, on windows of 272 tokens. "ours" drafts tokens from the text,
    and the share of drafts accepted is said; "0.8" samples at that temperature, the others are
    greedy. The figures of 16 texts at once are without drafts.

    Args:
        configs: names of `workload.SETTINGS`.
        peers: names of `DECODINGS`.
        steps: updates of training, of 8 windows each.
        rounds: turns of each peer.
        out: where decoding.json and the trained weights are written.
    """
    report = Report("decoding")
    out.mkdir(parents=True, exist_ok=True)
    for known in choose_settings(configs):
        size = {"batch_size": BATCH, "seq_len": N_PROMPT + N_NEW}
        setting = dataclasses.asdict(dataclasses.replace(known, **size))
        path = out / f"{known.name}-{steps}.npz"
        if not path.exists():
            say(f"{known.name} trains")
            made = {"setting": setting, "steps": steps, "path": str(path)}
            with Peer("training", Spec("peer_ours", "trained", made), timeout=7200) as trainer:
                loss = trainer.ask()["loss"]
                report.add(known.name, f"validation loss after {steps} steps", [loss])
        sizes = {"n_prompt": N_PROMPT, "n_new": N_NEW, "gain": 1.0, "trained": str(path)}
        chosen = choose(DECODINGS, peers, None, setting=setting, **sizes)
        alone = {"batch": 1, "alone": TEXTS}
        with started(chosen, report, **alone) as (running, answers):
            greedy = {one: a["tokens"] for one, a in answers.items() if "0.8" not in one}
            expect_equal_tokens(greedy)
            for name, answer in answers.items():
                accepted, drafted = answer.get("drafts", (0, 0))
                if drafted:
                    what = f"{name}, share accepted of {drafted} drafts"
                    report.add(known.name, what, [accepted / drafted])
            runners = {name: (peer, alone) for name, peer in running.items()}
            scale = dict.fromkeys(runners, float(N_NEW))
            if "ours-without-drafts" in running:
                runners["16 at once"] = running["ours-without-drafts"], {"batch": BATCH}
                scale["16 at once"] = float(BATCH * N_NEW)
            turns = alternate(runners, rounds=rounds)
            compared = [("ours", "jax"), ("ours", "ours-without-drafts")]
            compared += [("ours-without-drafts", "jax"), ("16 at once", "ours-without-drafts")]
            compared.append(("ours-0.8", "ours-0.8-without-drafts"))
            report.add_turns(known.name, turns, "tokens/s", scale, compared)
    report.write(out)


def bandwidth(rounds: int = 5, out: Path = RESULTS) -> None:
    """Time decoding with a model of 135 million parameters, beside reading an array of 512 MiB.

    A token reads every weight once, but for the embedding's other rows: bytes per token over its
    time is compared with the quickest way to read, all in the same rounds.

    Args:
        rounds: turns of each.
        out: where bandwidth.json is written.
    """
    report = Report("bandwidth")
    with started({"ours": Spec("peer_ours", "large", {"setting": LARGE})}, report, n=2) as (
        ours,
        _,
    ):
        reads = {"": Spec("peer_ours", "bandwidth", {"n_bytes": READ})}
        with started(reads, Report(""), name="sum", n=1) as (reader, _):
            names = ("sum", "matrix · vector", "vector · matrix", "copy")
            runners = {name: (reader[""], {"name": name, "n": 4}) for name in names}
            runners["decoding"] = ours["ours"], {"n": 17}
            turns = alternate(runners, rounds=rounds, skip=1)
    per_token = 4.0 * report.peers["ours"]["parameters"]
    report.add("135 M", "bytes per token, MB", [per_token * 1e-6])
    decoded = [turn for turn in turns if turn.name == "decoding"]
    report.add_turns("135 M", decoded, "tokens/s", 1.0, [])
    scale = dict.fromkeys(runners, READ * 1e-9) | {"decoding": per_token * 1e-9}
    report.add_turns("135 M", turns, "GB/s", scale, [("decoding", name) for name in names])
    report.write(out)


def choose_settings(names: Sequence[str]) -> list[Setting]:
    """Return some of `workload.SETTINGS`.

    Raises:
        SystemExit: for an unknown name.
    """
    if unknown := [name for name in names if name not in SETTINGS]:
        raise SystemExit(f"unknown config {unknown[0]!r}: choose from {', '.join(SETTINGS)}")
    return [SETTINGS[name] for name in names]


def choose(
    known: dict[str, Spec], names: Sequence[str], against: Path | None, **keywords: object
) -> dict[str, Spec]:
    """Return the specs of some peers, or ours here and at another checkout.

    Raises:
        SystemExit: for an unknown name, or a path that holds no checkout.
    """
    if against is not None:
        if not (against / "functional_lm").is_dir():
            raise SystemExit(f"--against must be a checkout of this project: got {against}")
        other = known["ours"]._replace(checkout=against.resolve())
        specs = {"ours": known["ours"], "ours-against": other}
    else:
        if unknown := [name for name in names if name not in known]:
            raise SystemExit(f"unknown peer {unknown[0]!r}: choose from {', '.join(known)}")
        specs = {name: known[name] for name in names}
    return {
        name: spec._replace(keywords={**spec.keywords, **keywords}) for name, spec in specs.items()
    }


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return ours with each of the others."""
    return [("ours", name) for name in names if name != "ours"]
