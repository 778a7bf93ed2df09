"""The pages of ``--help``, and the names that people bring from elsewhere."""

import dataclasses
import difflib
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a slip in the name of a command is answered without NumPy
    from .fields import Flag

INDENT = 26
"""The column in which the texts of a page start."""

ELSEWHERE = {
    # settings
    "steps": "max_iters iters max_steps num_steps total_steps lr_decay_iters",
    "epochs": "num_epochs max_epochs num_train_epochs",
    "batch_size": "global_batch_size per_device_train_batch_size",
    "gradient_accumulation_steps": "grad_accum accumulate_grad_batches update_freq",
    "seq_len": "block_size context_length max_seq_length n_ctx window",
    "lr": "learning_rate max_lr max_learning_rate",
    "min_lr": "min_learning_rate",
    "lr_schedule": "schedule lr_scheduler_type scheduler lr_decay_style",
    "warmup_steps": "warmup_iters lr_warmup_steps warmup",
    "optimizer": "optim",
    "b1": "beta1 adam_beta1",
    "b2": "beta2 adam_beta2",
    "eps": "adam_epsilon",
    "ema_decay": "ema ema_rate",
    "max_grad_norm": "grad_clip gradient_clip_val clip",
    "d_model": "n_embd embed_dim hidden_size dim width",
    "d_ff": "intermediate_size ffn_dim n_inner",
    "n_heads": "n_head num_heads num_attention_heads",
    "n_kv_heads": "n_kv_head num_key_value_heads n_query_groups",
    "n_layers": "n_layer num_layers num_hidden_layers depth",
    "remat": "gradient_checkpointing grad_checkpoint",
    "eval_every": "eval_interval eval_steps steps_per_eval",
    "eval_tokens": "eval_iters val_batches",
    "log_every": "log_interval logging_steps steps_per_report",
    "checkpoint_every": "save_every save_interval save_steps",
    "text_file": "data data_dir dataset train_file input file text",
    "out": "out_dir output_dir output",
    "overwrite": "force overwrite_output_dir",
    "resume": "resume_from resume_from_checkpoint resume_adapter_file",
    "init": "init_from checkpoint_dir from_pretrained",
    "model": "model_name arch architecture",
    "preset": "model_size size",
    "prompt": "start",
    "prompt_file": "prompt_path",
    "interactive": "chat_mode i",
    "max_new_tokens": "max_tokens num_tokens max_length length n_predict",
    "temperature": "temp",
    "repetition_penalty": "repeat_penalty",
    "num_samples": "num_return_sequences n_samples",
    "seed": "random_seed",
    # commands
    "train": "pretrain finetune fit lora continue",
    "generate": "sample chat inference complete",
    "evaluate": "eval perplexity benchmark",
    "find_lr": "lr_find lr_finder",
    "runs": "list ls",
    "check": "test verify certify",
    "diagnose": "doctor",
    # what does not exist here
    "everything runs on the CPU; remove it": "device cuda gpu gpus num_gpus accelerator mps",
    "parameters are float32; remove it": "dtype precision fp16 bf16 amp",
    "nothing is compiled; remove it": "compile",
}
"""Names in nanoGPT, LitGPT, mlx-lm, llama.cpp and transformers for ours, or what to say of them."""

OURS = {name: ours for ours, names in ELSEWHERE.items() for name in names.split()}


def meant(name: str, known: Iterable[str]) -> str:
    """Return what to do about a name that is not known, "" where nothing comes to mind.

    >>> meant("--learning-rate", {"--lr", "--seed"}), meant("trian", {"train"})
    ('did you mean --lr?', 'did you mean train?')
    """
    names = {_plain(one): one for one in known}
    plain = _plain(name)
    target = OURS.get(plain, plain)
    if " " in target:
        return target
    close = [target] if target in names else [name for name in names if name.startswith(plain)]
    close = close or difflib.get_close_matches(plain, names, 1, cutoff=0.7)
    return f"did you mean {names[close[0]]}?" if close and plain else ""


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def page(program: str, command: Any, flags: Sequence["Flag"], loose: dict[str, str]) -> str:
    """Return the help of a command, some of whose flags need no name."""
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
    usage += "".join(f" [{loose[flag.name]}]" for flag in flags if flag.name in loose)
    parts = [_filled(about), f"Usage: {usage} [OPTIONS]", *map(_filled, filter(None, [more]))]
    for title in sorted(groups, key=lambda title: title != "Arguments"):
        parts.append(f"{_sentence(title)}:\n{_columns(groups[title])}")
    return "\n\n".join(parts)


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and their texts side by side."""
    lines = []
    for left, text in rows:
        if len(left) + 4 > INDENT:
            lines.append(f"  {left}")
            left = ""
        lines.append(_filled(text, f"  {left}".ljust(INDENT), " " * INDENT))
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
        for paragraph in text.replace("``", "").split("\n\n")
    )
    return "\n\n".join(paragraphs).replace("\N{NO-BREAK SPACE}", " ")


def _sentence(text: str) -> str:
    return (text[:1].upper() + text[1:].removesuffix(".")).replace("`", "")


def _default(value: Any) -> str:
    if value is None or value is False or value is dataclasses.MISSING or value == ():
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" [default:\N{NO-BREAK SPACE}{'on' if value is True else text}]"
