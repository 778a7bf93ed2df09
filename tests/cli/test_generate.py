import io
import re
import sys

import pytest

from functional_lm import generation
from functional_lm.cli.main import main
from functional_lm.runs import open_run


@pytest.fixture
def generate(run_folder, capsys):
    def run(*arguments):
        assert main(["generate", str(run_folder), *arguments]) == 0
        said = capsys.readouterr()
        assert re.fullmatch(
            r"[\d,]+ tokens in \d+\.\d s, [\d,]+ tokens/s(, .* accepted)?\n", said.err
        )
        return said.out

    return run


def test_it_writes_the_prompt_and_the_text(generate):
    said = generate("--prompt", "the ", "--max-new-tokens", "30")
    assert said.startswith("the ")
    assert len(said) == len("the ") + 30 + 1


def test_it_follows_the_seed(generate):
    first, again, other = (generate("--seed", seed) for seed in ("1", "1", "2"))
    assert first == again != other
    greedy = {generate("--temperature", "0", "--seed", seed) for seed in "12"}
    assert len(greedy) == 1
    assert {
        generate("--top-k", "1"),
        generate("--top-p", "1e-9"),
        generate("--min-p", "1"),
    } == greedy


def test_a_penalty_changes_the_text(generate):
    settings = ["--temperature", "0", "--max-new-tokens", "50"]
    assert generate(*settings) != generate(*settings, "--repetition-penalty", "3")


def test_drafts_change_the_speed_alone(run_folder, capsys):
    said = []
    for drafts in ([], ["--speculate", "0"], ["--speculate", "3"]):
        settings = ["--temperature", "0", "--max-new-tokens", "90", *drafts]
        assert main(["generate", str(run_folder), *settings]) == 0
        said.append(capsys.readouterr())
    assert len({one.out for one in said}) == 1
    for i, number in enumerate((r"[1-9]\d*", None, r"[1-9]\d*")):
        drafted = re.search(rf"\d+% of {number} drafted tokens accepted", said[i].err)
        assert bool(drafted) is bool(number)


def test_it_stops(generate):
    whole = generate("--prompt", "q", "--max-new-tokens", "100")
    stop = whole[20:23]
    stopped = generate("--prompt", "q", "--max-new-tokens", "100", "--stop", stop)
    assert stopped == whole[: 1 + whole[1:].index(stop)] + "\n"


def test_without_a_prompt_it_starts_with_a_new_line(generate):
    assert generate("--max-new-tokens", "3").startswith("\n")


def test_a_prompt_comes_from_a_file_or_from_standard_input(generate, tmp_path, monkeypatch):
    more = ["--max-new-tokens", "9"]
    expected = generate("--prompt", "the fox\n", *more)
    (tmp_path / "prompt.txt").write_bytes("\ufeffthe fox\n\n".encode())
    assert generate("--prompt-file", str(tmp_path / "prompt.txt"), *more) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the fox\n\r\n")))
    assert generate("--prompt-file", "-", *more) == expected


def test_a_prompt_needs_no_flag(generate):
    assert generate("the ", "--max-new-tokens", "9") == generate(
        "--prompt", "the ", "--max-new-tokens", "9"
    )


def test_one_prompt_after_another(run_folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the \n\n7\nfox"))
    assert main(["generate", str(run_folder), "--interactive", "--max-new-tokens", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == "the \nthe \nfox\n"
    assert "got '7' at position 0" in said.err


def test_many_columns_lose_no_text(generate):
    values = [str(i) for i in range(9)]
    said = generate("--prompt", "q", "--max-new-tokens", "30", "--temperature", *values)
    assert "…" not in said


def test_several_stand_side_by_side(generate):
    arguments = ["--prompt", "fox", "--max-new-tokens", "10", "--temperature", "0.5", "1.5"]
    said = generate(*arguments, "--num-samples", "3")
    assert "temperature 0.5" in said
    assert "temperature 1.5" in said
    assert said.count("fox") == 6
    assert max(map(len, said.splitlines())) <= 80


def test_the_cache_changes_nothing(generate, run_folder):
    run = open_run(run_folder)

    def uncached(tokens):
        seen = tokens[generation.window_start(len(tokens), 16) :]
        return run.model.logits(run.params, seen)[0][-1]

    tokens = generation.generate(
        uncached,
        run.tokenizer.encode("fox"),
        key=(3,),
        max_new_tokens=50,
        transform=generation.temperature(0.7),
    )
    arguments = ["--prompt", "fox", "--max-new-tokens", "50", "--seed", "3", "--temperature", "0.7"]
    expected = "fox" + run.tokenizer.decode(tokens)
    assert generate(*arguments) == expected + "\n"


def test_a_sample_is_the_same_alone_and_among_others(generate):
    arguments = ["--prompt", "q", "--max-new-tokens", "30", "--stop", "the"]
    alone = generate(*arguments, "--temperature", "0.5").removesuffix("\n")
    table = generate(*arguments, "--temperature", "0.5", "--num-samples", "40")
    cells = [line.strip("│ ") for line in table.splitlines() if line.startswith("│")]
    assert " ".join(alone.split()) in " ".join(" ".join(cells).split())


def test_a_model_of_ones_own_goes_without_a_cache(train, model_file, tmp_path, capsys, monkeypatch):
    assert train(tmp_path / "own", "--model", f"{model_file}:model") == 0
    capsys.readouterr()
    arguments = ["--prompt", "q", "--max-new-tokens", "20"]
    assert main(["generate", str(tmp_path / "own"), *arguments, "--num-samples", "2"]) == 0
    assert capsys.readouterr().out.count("q") >= 2
    monkeypatch.setattr(generation.Decoder, "looks_ahead", False)
    assert main(["generate", str(tmp_path / "own"), *arguments, "--speculate", "3"]) == 0
    assert capsys.readouterr().err.startswith("No drafts: the model takes one token at a time.\n")
