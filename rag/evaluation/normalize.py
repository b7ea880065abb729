"""How two answers are compared, in any script: what is stripped, and what counts as a token.

One policy, chosen by the characters of the text and never by a language setting:

- Everywhere: canonical Unicode (NFC), full-width and half-width forms and typographic ligatures
  folded, lower case, invisible format characters dropped.
- `answer_tokens` (exact match, F1) follows the SQuAD rules: punctuation is deleted, of any script,
  then the words a, an and the. Curly and straight quotes so become equal.
- Chinese, Japanese and Korean, and the scripts written without spaces (Thai, Lao, Khmer, Burmese,
  Tibetan), count one token a character, as CMRC 2018 and KorQuAD do; Latin words and numbers inside
  such text stay whole. There a lone "A" is a name and not an article, so articles are kept.
- What would be stripped to nothing keeps what it has: the answer "A" is "a", the answer "?" is "?".
- `text_tokens` (ROUGE, finding an answer in a passage) splits at punctuation instead and keeps
  articles; on ASCII it gives the tokens of the original ROUGE script.

    >>> answer_tokens("The “Sea Eagle”, built in 2019")
    ['sea', 'eagle', 'built', 'in', '2019']
    >>> answer_tokens("北京。"), answer_tokens("2019年 iPhone手机")
    (['北', '京'], ['2019', '年', 'iphone', '手', '机'])
    >>> text_tokens("The captain's log")
    ['the', 'captain', 's', 'log']
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})

HAN = "\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_UNSPACED = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3100-\u312f\u31a0-\u31bf"
#: Characters of the scripts that are tokenised by character.
BY_CHARACTER = HAN + KANA + HANGUL + _UNSPACED

_BY_CHARACTER = re.compile(f"[{BY_CHARACTER}]")
_FOLDED_FORMS = re.compile("[\u3000\ufb00-\ufb06\uff00-\uffef]+")
_INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+")
_NOT_WORD = re.compile(r"[^\w\s]|_")
#: What the rules below come to for ASCII, in one pass over the text.
_ASCII = [chr(code) for code in range(128)]
_ASCII_PUNCTUATION = [each for each in _ASCII if _NOT_WORD.match(each)]
_ASCII_DELETED = str.maketrans("", "", "".join(_ASCII_PUNCTUATION))
_ASCII_SPLIT = str.maketrans(dict.fromkeys(_ASCII_PUNCTUATION, " "))


def fold(text: str) -> str:
    """Canonical composition, widths and ligatures folded, lower case, invisible characters gone."""
    text = _INVISIBLE.sub("", text)
    text = _FOLDED_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def answer_tokens(text: str) -> list[str]:
    """Tokens by which two answers are compared; empty only for text without visible characters."""
    if text.isascii():
        lowered = text.lower()
        words = lowered.translate(_ASCII_DELETED).split()
        kept = [word for word in words if word not in ARTICLES]
        return kept or words or lowered.split()
    folded = fold(text)
    words = unicodedata.normalize("NFC", _NOT_WORD.sub(_delete_punctuation, folded)).split()
    kept = words
    if not _BY_CHARACTER.search(folded):
        kept = [word for word in words if word not in ARTICLES]
    return _by_script(kept or words or folded.split())


def text_tokens(text: str) -> list[str]:
    """Tokens of running text: split at punctuation and symbols, articles kept."""
    if text.isascii():
        lowered = text.lower()
        return lowered.translate(_ASCII_SPLIT).split() or lowered.split()
    folded = fold(text)
    words = unicodedata.normalize("NFC", _NOT_WORD.sub(_split_at_punctuation, folded)).split()
    return _by_script(words or folded.split())


def normalize_answer(text: str) -> str:
    """The canonical spelling of an answer: two answers match exactly when these are equal."""
    normalized = ""
    previous_alone = True
    for token in answer_tokens(text):
        alone = bool(_BY_CHARACTER.match(token))
        touches = (alone or previous_alone) and not _is_mark(token[0])
        normalized += token if touches or not normalized else f" {token}"
        previous_alone = alone
    return normalized


def answer_spans(text: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    """Where any of the answers occurs in `text` as whole tokens: (start, end), sorted, disjoint.

    "1" is not found in "2019", and "The Sea Eagle" is found in "the “Sea Eagle”".
    """
    tokens = _tokens_with_offsets(text)
    found: list[tuple[int, int]] = []
    for answer in answers:
        wanted = [token for token, _, _ in _tokens_with_offsets(answer)]
        for first in range(len(tokens) - len(wanted) + 1 if wanted else 0):
            window = tokens[first : first + len(wanted)]
            if [token for token, _, _ in window] == wanted:
                found.append((window[0][1], window[-1][2]))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


@functools.lru_cache(maxsize=4096)
def _tokens_with_offsets(text: str) -> tuple[tuple[str, int, int], ...]:
    """`text_tokens` with the place of each in `text`; a passage is searched for many answers."""
    tokens = []
    separated = _NOT_WORD.sub(_split_at_punctuation, text)
    for word in re.finditer(r"\S+", separated):
        start = word.start()
        for piece in _by_script([word[0]]):
            end = start + len(piece)
            folded = _NOT_WORD.sub(_split_at_punctuation, fold(piece)).strip()
            if folded:
                tokens.append((folded, start, end))
            start = end
    return tuple(tokens)


def _by_script(words: list[str]) -> list[str]:
    """Words of the character scripts cut into characters, with their combining marks."""
    tokens: list[str] = []
    for word in words:
        if not _BY_CHARACTER.search(word):
            tokens.append(word)
            continue
        joins_previous = False
        for character in word:
            if _is_mark(character) and joins_previous:
                tokens[-1] += character
                continue
            alone = _stands_alone(character)
            if alone or not joins_previous or _stands_alone(tokens[-1][0]):
                tokens.append(character)
            else:
                tokens[-1] += character
            joins_previous = True
    return tokens


def _stands_alone(character: str) -> bool:
    return bool(_BY_CHARACTER.match(character)) and unicodedata.category(character) != "Nd"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _delete_punctuation(found: re.Match[str]) -> str:
    character = found[0]
    punctuation = character.isascii() or unicodedata.category(character).startswith("P")
    return "" if punctuation else character


def _split_at_punctuation(found: re.Match[str]) -> str:
    inside_a_word = _is_mark(found[0]) or _INVISIBLE.match(found[0])
    return found[0] if inside_a_word else " "
