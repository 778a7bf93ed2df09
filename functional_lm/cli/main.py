"""The command ``functional-lm``."""

import sys

from .. import __version__, runtime


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 for bad input, 130 after Ctrl-C.

    What the user can mend is one line on stderr, without a traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"functional-lm {__version__}")
        return 0
    runtime.tune()

    import tyro

    from .generate import Generate
    from .train import Train

    command = tyro.extras.subcommand_cli_from_dict(
        {"train": Train, "generate": Generate},
        prog="functional-lm",
        description="Train a transformer language model in NumPy, and sample from it.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        command.run()
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"functional-lm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("functional-lm: interrupted", file=sys.stderr)
        return 130
    return 0
