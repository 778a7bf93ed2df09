import pytest

from functional_lm.training import Cluster, Distribution

MAIN = "import sys; from functional_lm.cli.main import main; sys.exit(main())"


def test_the_processes_of_a_run_must_agree(mpiexec, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog.\n" * 40)
    script = tmp_path / "main.py"  # whose second process has another seed
    seed = "sys.argv += ['--seed', __import__('os').environ.get('PMI_RANK', '0')]"
    script.write_text(MAIN.replace("import sys;", f"import sys; {seed};"))
    run = ["--out", tmp_path / "run", "--text-file", tmp_path / "text.txt", "--d-model", "8"]
    done = mpiexec(2, script, "train", *run)
    assert done.returncode == 2
    assert done.stderr == (
        "functional-lm train: all processes must train the same run: seed is 0 in process 0 and 1 "
        "in process 1; give them the same flags\n"
    )
    assert not (tmp_path / "run").exists()


RUN = """
import dataclasses
from mpi4py import MPI
from functional_lm import pytree
from functional_lm.testing.inputs import same_bits
from functional_lm.training import Cluster, Distribution, Experiment, TrainConfig
from functional_lm.training.cluster import Divided

settings = TrainConfig(
    steps=5, batch_size=4, seq_len=8, microbatches=4, shards=1, optimizer="muon", ema_decay=0.9
)
sizes = {"d_model": 32, "n_heads": 2, "n_layers": 2}
text = "the quick brown fox jumps over the lazy dog. " * 9
cluster = Cluster(MPI.COMM_WORLD, Distribution(shard_optimizer=True))
experiment = Experiment.build(
    text, settings, sizes=sizes, cluster=cluster, trainable=lambda path: "norm2" not in path
)
if not cluster.leads:
    cluster.follow(experiment)
else:
    alone = dataclasses.replace(experiment, cluster=None)
    seen = []

    def inspect(step, params, grads, updates, x):
        seen.append((step, grads, updates))

    options = {"inspect": inspect, "inspect_at": lambda step: step % 2 == 0}
    straight = [*alone.run(**options)]
    states = []
    for step in experiment.run(**options):
        state = experiment.whole(step.state)
        assert isinstance(step.state.optimizer_state, Divided)
        assert same_bits(experiment.averaged(step.state), state.averaged)
        states.append(step.state)
        expected = straight[len(states) - 1]
        assert (step.loss, step.grad_norm) == (expected.loss, expected.grad_norm)
        assert pytree.structure(state) == pytree.structure(expected.state)
        assert same_bits(state, expected.state)
        if len(states) == 3:
            break
    assert [step for step, *_ in seen] == [2, 4, 2]
    assert same_bits(seen[2], seen[0])
    for step in experiment.run(state):  # from a whole state
        pass
    assert same_bits(experiment.whole(step.state), straight[-1].state)
    try:
        experiment.whole(states[0])
    except OSError as error:
        assert "different steps" in str(error)
    else:
        raise AssertionError
    cluster._within_step = True  # as after an error
    try:
        experiment.whole(step.state)
    except OSError as error:
        assert "a step was interrupted" in str(error)
    else:
        raise AssertionError
    whole = pytree.buffer_bytes(straight[-1].state.optimizer_state)
    assert sum(one.optimizer_state for one in cluster.memory()) < 1.1 * whole
    cluster.stop()
print("well", flush=True)
"""


def test_a_divided_optimizer_and_frozen_leaves_give_the_bits_of_one_process(mpiexec):
    done = mpiexec(2, "-c", RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("well") == 2


def test_one_process_has_nothing_to_share():
    assert Cluster.launched(Distribution()) is None
    with pytest.raises(ValueError, match="reduce is for several processes: got 'fast'"):
        Cluster.launched(Distribution(reduce="fast"))
    with pytest.raises(ValueError, match="reduce must be 'tree' or 'fast'"):
        Distribution(reduce="slow")
