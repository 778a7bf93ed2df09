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


def test_one_process_has_nothing_to_share():
    assert Cluster.launched(Distribution()) is None
    with pytest.raises(ValueError, match="reduce is for several processes: got 'fast'"):
        Cluster.launched(Distribution(reduce="fast"))
    with pytest.raises(ValueError, match="reduce must be 'tree' or 'fast'"):
        Distribution(reduce="slow")
