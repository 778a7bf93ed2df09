"""The pages of ``--help``, and the names that people bring from elsewhere."""

import dataclasses
import difflib
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .parser import Flag

INDENT = 26
"""The column in which the texts of a page start."""

ELSEWHERE = {
    "learning_rate": "lr",
    "max_learning_rate": "lr",
    "min_learning_rate": "min_lr",
    "max_iters": "steps",
    "iters": "steps",
    "max_steps": "steps",
    "num_steps": "steps",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "warmup_iters": "warmup_steps",
    "lr_warmup_steps": "warmup_steps",
    "lr_decay_iters": "steps",
    "block_size": "seq_len",
    "context_length": "seq_len",
    "max_seq_length": "seq_len",
    "n_embd": "d_model",
    "embed_dim": "d_model",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "n_head": "n_heads",
    "num_heads": "n_heads",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "n_layer": "n_layers",
    "num_layers": "n_layers",
    "num_hidden_layers": "n_layers",
    "depth": "n_layers",
    "micro_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "beta1": "b1",
    "beta2": "b2",
    "adam_beta1": "b1",
    "adam_beta2": "b2",
    "grad_clip": "max_grad_norm",
    "eval_interval": "eval_every",
    "steps_per_eval": "eval_every",
    "eval_steps": "eval_every",
    "log_interval": "log_every",
    "logging_steps": "log_every",
    "steps_per_report": "log_every",
    "save_every": "checkpoint_every",
    "save_interval": "checkpoint_every",
    "save_steps": "checkpoint_every",
    "out_dir": "out",
    "output_dir": "out",
    "adapter_path": "out",
    "init_from": "resume",
    "resume_from_checkpoint": "resume",
    "resume_adapter_file": "resume",
    "model_name": "model",
    "arch": "model",
    "size": "preset",
    "data": "text_file",
    "data_dir": "text_file",
    "dataset": "text_file",
    "train_file": "text_file",
    "input": "text_file",
    "file": "text_file",
    "max_tokens": "max_new_tokens",
    "length": "max_new_tokens",
    "temp": "temperature",
    "start": "prompt",
    "num_return_sequences": "num_samples",
    "repeat_penalty": "repetition_penalty",
    "force": "overwrite",
    "sample": "generate",
    "chat": "generate",
    "inference": "generate",
    "pretrain": "train",
    "finetune": "train",
    "fit": "train",
    "resume": "train",
    "eval": "evaluate",
    "test": "check",
    "verify": "check",
    "lr_find": "find_lr",
    "list": "runs",
    "ls": "runs",
    "doctor": "diagnose",
    "version": "info",
    "device": "everything runs on the CPU; remove it",
    "compile": "nothing is compiled; remove it",
    "dtype": "parameters are float32; remove it",
}
"""Names in nanoGPT, LitGPT, mlx-lm, llama.cpp and transformers, and ours; or what to say."""


def meant(name: str, known: Iterable[str]) -> str:
    """Return what to do about a name that is not known, "" where nothing comes to mind.

    >>> meant("--learning-rate", {"--lr", "--seed"}), meant("trian", {"train"})
    ('did you mean --lr?', 'did you mean train?')
    """
    names = {_plain(one): one for one in known}
    plain = _plain(name)
    target = ELSEWHERE.get(plain, plain)
    if " " in target:
        return target
    close = [target] if target in names else difflib.get_close_matches(plain, names, 1, cutoff=0.7)
    return f"did you mean {names[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def page(program: str, command: Any, flags: Sequence["Flag"]) -> str:
    """Return the help of a command."""
    about, _, more = str(inspect.getdoc(command)).partition("\n\nAttributes:")[0].partition("\n\n")
    groups: dict[str, list[tuple[str, str]]] = {}
    usage = program
    for flag in flags:
        left, group = f"{flag.spelling} {flag.metavar}", flag.group
        if flag.positional:
            left, group = flag.metavar, "Arguments"
            usage += f" {left}"
        elif flag.kind is bool:
            left = flag.spelling.replace("--", "--[no-]", 1) if flag.default else flag.spelling
        groups.setdefault(group, []).append((left, _sentence(flag.about) + _default(flag.default)))
    groups.setdefault("Options", []).append(("-h, --help", "Print this page"))
    if "--text-file" in (flag.spelling for flag in flags):
        usage += " [FILE]"
    parts = [_filled(about), f"Usage: {usage} [OPTIONS]", *map(_filled, filter(None, [more]))]
    for title in sorted(groups, key=lambda title: title != "Arguments"):
        parts.append(f"{_sentence(title)}:\n{columns(groups[title])}")
    return "\n\n".join(parts)


def columns(rows: Iterable[tuple[str, str]], indent: int = INDENT) -> str:
    """Return names and their texts side by side, in at most 100 columns."""
    lines = []
    for left, text in rows:
        if len(left) + 4 > indent:
            lines.append(f"  {left}")
            left = ""
        lines.append(_filled(text, f"  {left}".ljust(indent), " " * indent))
    return "\n".join(lines)


def _filled(text: str, first: str = "", others: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    paragraphs = (
        textwrap.fill(
            paragraph,
            width,
            initial_indent=first,
            subsequent_indent=others,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for paragraph in text.split("\n\n")
    )
    return "\n\n".join(paragraphs)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".")


def _default(value: Any) -> str:
    if value is None or value is False or value is dataclasses.MISSING or value == ():
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" [default: {'on' if value is True else text}]"
