"""What this project takes: time, memory, and the losses that it reaches.

python tests/campaigns/benchmarks/run.py step|generation|memory|saving|startup|loss-table|find-lr
"""

import learning
import processes
import speed
import tyro

COMMANDS = {
    "step": speed.step,
    "generation": speed.generation,
    "memory": processes.memory,
    "startup": processes.startup,
    "saving": learning.saving,
    "loss-table": learning.loss_table,
    "find-lr": learning.find_lr,
}

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(COMMANDS, description=__doc__)
