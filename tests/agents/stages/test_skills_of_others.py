"""Two skills that no code of ours knows go the whole way: demonstrations to evaluation, with one command each."""

import csv

from dexcompose_agents import cli

PAIR = "HoldBlock-PressFlap"


def test_from_demonstrations_to_evaluation(dummy_skills, tmp_path, capsys):
    made, out = tmp_path / "made", tmp_path / "eval"
    assert cli.main(["train", "all", "--preset", "test", "--only", PAIR, "--out", str(made)]) == 0
    for name in ("HoldBlock", "PressFlap", "stabiliser-HoldBlock", f"residual-{PAIR}"):
        assert (made / "pretrained" / f"{name}.safetensors").is_file()
    assert (made / "held_states" / "HoldBlock.npz").is_file()
    assert (made / "pretrained" / "release_test" / "HoldBlock.csv").is_file()
    assert (made / "pretrained" / "masks" / f"{PAIR}.json").is_file()
    arguments = ["eval", PAIR, "--seeds", "1", "--rollouts", "2", "--pretrained", str(made), "--out", str(out)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    with open(out / "episodes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["pair"], row["method"]) for row in rows] == [(PAIR, "dexcompose")] * 2
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "HoldBlock" in printed and "Press a soft plate down by 6 mm" in " ".join(printed.split())
