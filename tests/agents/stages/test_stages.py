"""A chain of stages: what is skipped, what runs again, what survives an interruption, what is refused."""

import json
from pathlib import Path

import pytest

from dexcompose_agents.stages.chain import Stage, StageError, run_stages


class Toy:
    """Two stages: the first writes a number, the second its double."""

    def __init__(self, out, number=2):
        self.out, self.number, self.ran = out, number, []

    def run(self, preset="cpu"):
        """Names of the stages that ran."""
        self.ran, self.said = [], []
        run_stages(self.stages(), self.out, preset, self.said.append)
        return self.ran

    def stages(self):
        def write(work, advance):
            self.ran.append("number")
            (work / "n.txt").write_text(str(self.number % 10))

        def double(work, advance):
            self.ran.append("double")
            (work / "d").mkdir()
            (work / "d" / "d.txt").write_text(str(2 * int((self.out / "a" / "n.txt").read_text())))

        yield Stage("number", write, {"n.txt": Path("a/n.txt")}, config={"number": self.number})
        yield Stage("double", double, {"d": Path("b/double")}, (Path("a/n.txt"),))


def test_second_run_skips_everything(tmp_path):
    toy = Toy(tmp_path)
    assert toy.run() == ["number", "double"]
    assert all("done in" in line for line in toy.said)
    assert (tmp_path / "b" / "double" / "d.txt").read_text() == "4"
    assert not list((tmp_path / "work").iterdir())
    assert toy.run() == []
    assert [line.split() for line in toy.said] == [["number", "unchanged"], ["double", "unchanged"]]
    summary = json.loads((tmp_path / "pipeline.json").read_text())
    assert [row["stage"] for row in summary["stages"]] == ["number", "double"]
    assert all(row["seconds"] >= 0 and row["machine"] and row["versions"] for row in summary["stages"])


def test_only_what_depends_on_a_change_runs_again(tmp_path):
    Toy(tmp_path, 2).run()
    assert Toy(tmp_path, 3).run() == ["number", "double"]
    assert (tmp_path / "b" / "double" / "d.txt").read_text() == "6"
    assert Toy(tmp_path, 13).run() == ["number"]  # other settings, same output


def test_a_removed_output_is_made_again(tmp_path):
    Toy(tmp_path).run()
    (tmp_path / "b" / "double" / "d.txt").unlink()
    (tmp_path / "b" / "double").rmdir()
    assert Toy(tmp_path).run() == ["double"]


def test_a_damaged_output_is_named(tmp_path):
    Toy(tmp_path).run()
    (tmp_path / "a" / "n.txt").write_text("7")
    with pytest.raises(StageError, match=r"n\.txt' was damaged or changed since stage 'number' wrote it .* remove it"):
        Toy(tmp_path).run()
    (tmp_path / "a" / "n.txt").unlink()
    (tmp_path / "stages" / "double.json").write_text("{")
    with pytest.raises(StageError, match=r"double\.json' is damaged"):
        Toy(tmp_path).run()


def test_a_folder_keeps_to_its_preset(tmp_path):
    Toy(tmp_path).run("test")
    with pytest.raises(StageError, match="was made with preset 'test', now 'cpu'; choose another folder"):
        Toy(tmp_path).run("cpu")


@pytest.mark.parametrize(("first", "second", "expected"), [("same", "same", 5), ("same", "other", 3)])
def test_an_interrupted_stage_goes_on_unless_its_settings_changed(tmp_path, first, second, expected):
    def make(work, advance):
        path = work / "count"
        count = int(path.read_text()) if path.exists() else 0
        for _ in range(3):
            count += 1
            path.write_text(str(count))
            if count == 2:
                raise KeyboardInterrupt

    def chain(setting):
        return [Stage("count", make, {"count": Path("count")}, config={"setting": setting})]

    with pytest.raises(KeyboardInterrupt):
        run_stages(chain(first), tmp_path, "cpu")
    if expected == 3:
        with pytest.raises(KeyboardInterrupt):
            run_stages(chain(second), tmp_path, "cpu")
        assert (tmp_path / "work" / "count" / "count").read_text() == "2"
        return
    run_stages(chain(second), tmp_path, "cpu")
    assert (tmp_path / "count").read_text() == str(expected)


def test_missing_inputs_and_outputs(tmp_path):
    def nothing(work, advance):
        pass

    with pytest.raises(StageError, match=r"stage 'lazy' wrote no 'x'"):
        run_stages([Stage("lazy", nothing, {"x": Path("x")})], tmp_path, "cpu")
    with pytest.raises(StageError, match=r"stage 'early' needs .*y', which does not exist"):
        run_stages([Stage("early", nothing, {}, (Path("y"),))], tmp_path, "cpu")
