"""When an alarm begins, when it ends, and that one alarm asks for one run."""

from __future__ import annotations

from math import comb

import numpy as np

from rag.monitoring.episodes import Episode, Rule

RULE = Rule(hits=2, windows=4)


def states(windows: str) -> str:
    """Whether the alarm is on after each window; x is a hit."""
    episode, said = Episode(), ""
    for mark in windows:
        episode = episode.after([mark == "x"], RULE)
        said += "o" if episode.is_on else "-"
    return said


def test_two_of_the_last_four_and_the_latest_begin_an_alarm() -> None:
    assert states("x...x") == "-----", "the fifth window back has been forgotten"
    assert states("x..x") == "---o"
    assert states("xx") == "-o"


def test_an_alarm_ends_after_four_calm_windows_and_not_before() -> None:
    assert states("xx...x....xx") == "-ooooooo" + "o-" + "-o"


def test_an_alarm_asks_once() -> None:
    on = Episode().after([True, True], RULE)
    assert on.calls
    answered = on.answered()
    assert not answered.calls
    assert not answered.after([True, True, True], RULE).calls, "it is the same alarm"
    calm = answered.after([False] * 4, RULE)
    assert not calm.is_on
    assert not calm.is_answered
    assert calm.after([True, True], RULE).calls, "it is another one"


def test_an_answer_before_an_alarm_answers_nothing() -> None:
    assert Episode().answered().after([True, True], RULE).calls


def test_it_is_the_same_after_it_was_written_down() -> None:
    episode = Episode().after([True, False, True], RULE).answered()
    assert Episode.from_json(episode.to_json()) == episode


def test_how_often_chance_begins_an_alarm() -> None:
    """What the module says of three of five windows at a rate of one in a hundred."""
    exact = 0.01 * sum(comb(4, k) * 0.01**k * 0.99 ** (4 - k) for k in (2, 3, 4))
    assert 165_000 < 1 / exact < 175_000
    rule, episode, begun = Rule(3, 5), Episode(), 0
    hits = np.random.default_rng(4).random(60_000) < 0.1  # ten times as many, to count them
    for hit in hits.tolist():
        before, episode = episode.is_on, episode.after([hit], rule)
        begun += episode.is_on and not before
    upper = 0.1 * sum(comb(4, k) * 0.1**k * 0.9 ** (4 - k) for k in (2, 3, 4)) * 60_000
    assert 0.4 * upper < begun < upper
