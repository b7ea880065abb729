"""What a question asks for, by its words: who, when, where, what, which, how, how many, why.

`yes-no` are questions that a yes or no answers, `other` those without a word that is known here,
and all questions in scripts that have no words here. It is a slice of scores and no grammar: the
first question word decides, the longest of those that begin at the same place ("how many" before
"how"). Words are known for the languages that prompts are written in; a language is told by its
script, so a question in German counts as English and is `other`.

    >>> question_type("How many cabins does it have?"), question_type("船有多少个舱？")
    ('how many', 'how many')
    >>> question_type("Is there a ship that sails on Sundays when it rains?")
    'yes-no'
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rag.corpus.text import folded, language_of

OTHER = "other"
YES_NO = "yes-no"

_TYPES = ("who", "when", "where", "what", "which", "how many", "how much", "how", "why")
QUESTION_TYPES = (*_TYPES, YES_NO, OTHER)

#: By language and type, regular expressions of words; longer ones count before shorter ones.
_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "who": r"\b(?:who|whom|whose)\b",
        "when": r"\bwhen\b",
        "where": r"\bwhere\b",
        "what": r"\bwhat\b",
        "which": r"\bwhich\b",
        "how many": r"\bhow many\b",
        "how much": r"\bhow much\b",
        "how": r"\bhow\b",
        "why": r"\bwhy\b",
    },
    "zh": {
        "who": "谁|何人|哪位",
        "when": "什么时候|什么时间|何时|哪[一]?[年天月日]|几[月点号日]",
        "where": "哪里|哪儿|何处|何地|什么地方|在哪",
        "what": "什么|何物|啥",
        "which": "哪",
        "how many": "多少|几",
        "how much": "多少钱|多少费用",
        "how": "怎么|怎样|如何|多[长高深远久大宽重快]",
        "why": "为什么|为何|怎么会",
    },
    "ja": {
        "who": "誰|だれ|どなた",
        "when": "いつ|何時|何年|何月|何日|何曜日",
        "where": "どこ|どちらで",
        "what": "何|なに|なん",
        "which": "どの|どれ|どちら|どっち",
        "how many": "いくつ|何[人個隻台本枚回度件名]",
        "how much": "いくら|どれくらい|どれぐらい|どのくらい|どのぐらい",
        "how": "どのように|どうやって|どう",
        "why": "なぜ|どうして|なんで",
    },
    "ko": {
        "who": "누구|누가",
        "when": "언제|몇 ?[시년월일]",
        "where": "어디",
        "what": "무엇|무슨|뭐|뭘",
        "which": "어느|어떤",
        "how many": "몇",
        "how much": "얼마",
        "how": "어떻게",
        "why": "왜|어째서",
    },
    "ru": {
        "who": r"\b(?:кто|кого|кому|кем|ком|чей|чья|чьё|чье|чьи)\b",
        "when": r"\bкогда\b",
        "where": r"\b(?:где|куда|откуда)\b",
        "what": r"\b(?:что|чего|чему|чем|чём)\b",
        "which": r"\b(?:как(?:ой|ая|ое|ие|ого|ому|им|ом|ую|их|ими)|котор\w+)\b",
        "how many": r"\bсколько\b",
        "how much": r"\b(?:сколько (?:стоит|стоят|стоил\w*)|почём)\b",
        "how": r"\bкак\b",
        "why": r"\b(?:почему|зачем)\b",
    },
    "ar": {
        # "من" also means "from" and "ما" also "not": they ask only where they begin the question.
        "who": r"^من\b(?! أين)",
        "when": r"\bمتى\b",
        "where": r"\bأين\b",
        "what": r"^ما\b|\bماذا\b",
        "which": r"\b(?:أي|أية)\b",
        "how many": r"\bكم\b",
        "how much": r"\bبكم\b",
        "how": r"\bكيف\b",
        "why": r"\bلماذا\b",
    },
}
#: How a question begins or ends that has no question word or, in English and Arabic, may have one
#: further on: whatever follows, "did he say who" asks for yes or no.
_ASKS_YES_NO: Mapping[str, str] = {
    "en": r"^(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may"
    r"|might|must)\b",
    "zh": "是否|是不是|有没有|能否|能不能|可否|会不会|吗[?？]?$",
    "ja": "か[?？。]?$",
    "ko": "[까나요가][?？]?$",
    "ru": r"\bли\b",
    "ar": r"^هل\b",
}
_FIRST = ("en", "ar")


def question_type(text: str) -> str:
    """One of QUESTION_TYPES."""
    language = language_of(text)
    if language not in _WORDS:
        return OTHER
    question = folded(text)
    yes_no = re.search(_ASKS_YES_NO[language], question) is not None
    if yes_no and language in _FIRST:
        return YES_NO
    found = [
        (match.start(), -len(match[0]), kind)
        for kind, words in _WORDS[language].items()
        if (match := re.search(words, question))
    ]
    if found:
        return min(found)[2]
    return YES_NO if yes_no else OTHER
