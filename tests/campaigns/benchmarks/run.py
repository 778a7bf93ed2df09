"""Measure the project: time, memory, and the losses that training reaches.

python tests/campaigns/benchmarks/run.py COMMAND
"""

import argparse
import inspect
import typing
from pathlib import Path

import cluster
import corpora
import learning
import processes
import speed

COMMANDS = {
    "step": speed.step,
    "generation": speed.generation,
    "decoding": speed.decoding,
    "bandwidth": speed.bandwidth,
    "memory": processes.memory,
    "startup": processes.startup,
    "cluster": cluster.cluster,
    "corpora": corpora.corpora,
    "saving": learning.saving,
    "loss-table": learning.loss_table,
    "speedrun": learning.speedrun,
    "ablation": learning.ablation,
    "find-lr": learning.find_lr,
    "tokenizers": learning.tokenizers,
    "adapters": learning.adapters,
    "sharpness": learning.sharpness,
}


def main() -> None:
    """Run a command; its flags are the parameters of its function."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    as_it_is = argparse.RawDescriptionHelpFormatter
    for name, function in COMMANDS.items():
        said = inspect.getdoc(function) or ""
        command = commands.add_parser(
            name, help=said.partition("\n")[0], description=said, formatter_class=as_it_is
        )
        hints = typing.get_type_hints(function)
        for parameter in inspect.signature(function).parameters.values():
            hint = hints[parameter.name]
            kind = next(k for k in (Path, int, float, str) if k in (hint, *typing.get_args(hint)))
            many = "+" if isinstance(parameter.default, tuple) else None
            flag = f"--{parameter.name.replace('_', '-')}"
            default = parameter.default
            shown = " ".join(default) if many else default
            command.add_argument(
                flag, type=kind, nargs=many, default=default, help=f"default: {shown}"
            )
    given = vars(parser.parse_args())
    COMMANDS[given.pop("command")](**given)


if __name__ == "__main__":
    main()
