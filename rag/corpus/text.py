"""Text as every later stage sees it: unwrapped lines, counted words, a language by its script."""

from __future__ import annotations

import re
import unicodedata

# Han, kana and their marks are written without spaces: a character counts as a word.
_HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
CJK = rf"{_HAN}\u3040-\u30ff\u31f0-\u31ff"

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_UNSPACED = re.compile(rf"[{CJK}\u3001\u3002\u300c-\u300f\uff01-\uff1f]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\u00ad\ufeff]")
#: A line that starts a block of its own: heading, list item, quotation, table row.
_BLOCK_START = re.compile(r"(?:#{1,6}|[-*+•>]|\d{1,3}[.)])\s|\|")
_BLOCK_ALONE = re.compile(r"#{1,6}\s|\|")
_FENCE = re.compile(r"\s*(```|~~~)")

# One run of letters counts once, but one Han or kana character counts once too.
_SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("zh", re.compile(rf"[{_HAN}]")),
    ("ja", re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")),
    ("ko", re.compile(r"[\uac00-\ud7a3\u1100-\u11ff]+")),
    ("ru", re.compile(r"[\u0400-\u052f]+")),
    ("ar", re.compile(r"[\u0600-\u06ff\u0750-\u077f]+")),
    ("he", re.compile(r"[\u0590-\u05ff]+")),
    ("el", re.compile(r"[\u0370-\u03ff]+")),
    ("hi", re.compile(r"[\u0900-\u097f]+")),
    ("th", re.compile(r"[\u0e00-\u0e7f]+")),
    ("en", re.compile(r"[A-Za-z\u00c0-\u024f]+")),
)


def plain_text(text: str) -> str:
    """The text in NFC with each paragraph, list item or table row on one line.

    Lines that were only wrapped are joined (without a space between Chinese or Japanese
    characters), runs of spaces become one, blank lines separate paragraphs, fenced code keeps its
    lines. Documents and answers both pass through here, so an answer is found where a line break
    went through it.
    """
    text = _CONTROL.sub("", unicodedata.normalize("NFC", text))
    blocks: list[str] = []
    joins = fenced = False  # whether the next line may continue the last block; inside a fence
    for raw in text.splitlines():
        line = " ".join(raw.split())
        fence = _FENCE.match(raw)
        fenced = fenced != bool(fence)
        if fenced or fence:
            blocks.append(line)
            joins = False
        elif not line:
            blocks.append("")
            joins = False
        elif joins and not _BLOCK_START.match(line):
            last = blocks[-1]
            unspaced = _UNSPACED.match(last[-1]) and _UNSPACED.match(line[0])
            blocks[-1] = last + ("" if unspaced else " ") + line
        else:
            blocks.append(line)
            joins = not _BLOCK_ALONE.match(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(blocks)).strip()


def words(text: str) -> list[str]:
    """Runs of letters and digits; each Chinese or Japanese character is a word of its own.

    >>> words("Berth 3, 北京")
    ['Berth', '3', '北', '京']
    """
    return _WORD.findall(text)


def folded(text: str) -> str:
    """Text for finding one in the other: compatible forms, case and spacing made equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def normalized_question(text: str) -> str:
    """The words of a question without case, punctuation and spacing: equal ones ask the same.

    A question that has no letters or digits is its own text.
    """
    return " ".join(words(unicodedata.normalize("NFKC", text).casefold())) or text.strip()


def language_of(text: str) -> str:
    """The language that the commonest script of a text stands for; "und" without letters.

    It tells scripts apart, not languages: Latin letters give "en", Cyrillic "ru", Arabic "ar",
    Greek "el", Hebrew "he", Devanagari "hi", Thai "th", hangul "ko"; Han characters give "zh", or
    "ja" as soon as one in ten of the Han and kana characters is kana. It is used to slice scores
    and to choose fusion weights, for which the script is what matters.
    """
    counts = {language: len(pattern.findall(text)) for language, pattern in _SCRIPTS}
    kana = counts.pop("ja")
    unspaced = counts["zh"] + kana
    counts["zh"] = unspaced
    language = max(counts, key=lambda name: counts[name])
    if not counts[language]:
        return "und"
    return "ja" if language == "zh" and 10 * kana >= unspaced else language
