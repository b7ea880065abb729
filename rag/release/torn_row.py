"""Whether a line without its end is the beginning of a row that a crash left unfinished.

A strict prefix of a JSON object is what more text could complete: the string it stands in is
closed, then the value it waits for is given, then every open bracket. If no such end makes it an
object, it is no torn row and nobody may cut it off.
"""

from __future__ import annotations

import codecs
import json

_CLOSING = {"{": "}", "[": "]"}
#: What may be missing of a value, a key, a literal or a number at the place of the cut.
_VALUES = ("", "0", ":0", '"":0', "null")
_LITERALS = tuple(word[cut:] for word in ("true", "false", "null") for cut in range(1, len(word)))
#: What may be missing of an escape in a string; `\\u` needs four digits.
_ESCAPES = ("", "n", *("0" * count for count in range(1, 5)))


def is_torn(tail: bytes) -> bool:
    """Whether `tail` is a strict prefix of a JSON object."""
    try:
        # A cut may go through a character; what does not decode before it is no text of ours.
        text = codecs.getincrementaldecoder("utf-8")().decode(tail)
    except UnicodeDecodeError:
        return False
    if not text.startswith("{"):
        return False
    opened, in_string = _state(text)
    closing = "".join(_CLOSING[bracket] for bracket in reversed(opened))
    if not closing:
        return False
    if in_string:
        ends = [f'{escape}"{value}' for escape in _ESCAPES for value in ("", ":0")]
    else:
        ends = [*_VALUES, *_LITERALS]
    return any(_is_object(text + end + closing) for end in ends)


def _state(text: str) -> tuple[list[str], bool]:
    """The brackets that are open at the end, and whether it lies within a string."""
    opened: list[str] = []
    in_string = escaped = False
    for letter in text:
        if in_string:
            escaped, in_string = letter == "\\" and not escaped, letter != '"' or escaped
        elif letter == '"':
            in_string = True
        elif letter in _CLOSING:
            opened.append(letter)
        elif letter in _CLOSING.values() and opened:
            opened.pop()
    return opened, in_string


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
