"""A first training step of the tiny model with PyTorch, eager."""

import os

import torch
from harness.launch import MARK
from harness.settings import SETTINGS
from harness.workload import invent
from peers.torch_peer import trainer

torch.set_num_threads(len(os.sched_getaffinity(0)))
trainer(invent(SETTINGS["tiny"]), compiled=False)(0).item()
print(MARK, flush=True)
