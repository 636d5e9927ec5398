"""Progress where there is no terminal: nothing before the first report, a line now and then, and one at the end."""

from dexcompose_agents.runtime import progress


def test_a_line_every_half_minute_and_one_at_the_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar("policy") as advance:
        for step in range(1, 81):
            now[0] += 1.0
            advance(step, 80)
            advance(step, 80)
    assert capsys.readouterr().err.splitlines() == [
        "policy: 30 of 80, 0:00:30",
        "policy: 60 of 80, 0:01:00",
        "policy: 80 of 80, 0:01:20",
    ]


def test_an_early_error_stands_alone(capsys):
    with progress.progress_bar("policy") as advance:
        advance(0, 80)
    assert capsys.readouterr() == ("", "")
