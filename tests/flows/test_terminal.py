"""Steps as plain lines where there is no terminal."""

from __future__ import annotations

import pytest

from flows import terminal


def test_each_step_is_one_line_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.step("prepare") as step:
        step.show("reading")
        step.advance_to("documents", 3, 7)
        step.finish("Files [checked]")
    with terminal.step("chunk") as step:
        step.finish("unchanged", same=True)
    output = capsys.readouterr()
    assert output.out == ""
    first, second = output.err.splitlines()
    assert first.split()[:4] == ["✓", "prepare", "Files", "[checked]"]
    assert first.endswith(" s")
    assert second.split()[:3] == ["=", "chunk", "unchanged"]


def test_a_step_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), terminal.step("embed"):
        raise ValueError("broken")
    assert capsys.readouterr().err.split()[:2] == ["✗", "embed"]


def test_long_details_do_not_move_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    for detail in ("short", "a very long explanation " * 10):
        with terminal.step("evaluate") as step:
            step.finish(detail)
    first, second = capsys.readouterr().err.splitlines()
    assert len(first) == len(second)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (45.4, "45 s"),
        (60, "1 min"),
        (3540, "59 min"),
        (3599, "1 h 00 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_the_time_left_is_no_finer_than_an_estimate(seconds: float, text: str) -> None:
    assert terminal.time_left(seconds) == text
