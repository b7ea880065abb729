"""rag/errors.py: exit codes, and messages that carry every problem."""

import re

import pytest

from rag import errors

EXIT_CODES = {
    "RagError": 1,
    "InputError": 2,
    "ParamsError": 2,
    "DataError": 2,
    "ModelError": 2,
    "BusyError": 3,
    "IndexMismatchError": 1,
    "TrainingError": 1,
    "MetricError": 1,
    "ReleaseError": 1,
}


@pytest.mark.parametrize(("name", "exit_code"), EXIT_CODES.items())
def test_exit_code(name: str, exit_code: int) -> None:
    assert getattr(errors, name).exit_code == exit_code


def test_no_error_is_missing_here() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined - {"Sequence"} == set(EXIT_CODES)


def test_the_drawn_hierarchy_is_the_real_one() -> None:
    """A row of the docstring's tree: its parent is the nearest row above that starts further left,
    its exit code is that of the parent where none is written."""
    rows = re.findall(r"^ {4}([│ ├└─]*)(\w+)(?: +(\d) )?", str(errors.__doc__), re.MULTILINE)
    above: dict[int, str] = {}
    drawn: dict[str, int] = {}
    for indent, name, exit_code in rows:
        above = {depth: other for depth, other in above.items() if depth < len(indent)}
        parent = above[max(above)] if above else "Exception"
        above[len(indent)] = name
        drawn[name] = int(exit_code or drawn[parent])
        assert getattr(errors, name).__base__.__name__ == parent
    assert drawn == EXIT_CODES


def test_one_problem_may_be_given_as_text() -> None:
    error = errors.DataError("faq.jsonl:3: no question")
    assert error.problems == ("faq.jsonl:3: no question",)
    assert str(error) == "faq.jsonl:3: no question"


def test_every_problem_has_a_line_and_the_hint_comes_last() -> None:
    error = errors.ParamsError(["a: unknown key", "b: must be >= 1"], hint="See params.yaml")
    assert error.problems == ("a: unknown key", "b: must be >= 1")
    assert str(error) == "a: unknown key\nb: must be >= 1\nSee params.yaml"


def test_an_input_error_is_caught_as_a_rag_error() -> None:
    with pytest.raises(errors.RagError, match="no such model"):
        raise errors.ModelError("bundled:nope: no such model")
