"""The prompts of readers that write text: every wording, in every language, in one place.

The same wording serves training, the tuned system and its baselines, so a difference between them
is the training's. A prompt is a conversation: worked examples as earlier turns, then the
instruction with the passages, which is the same for every question about them and is computed once
for all, and last the question. The wording is in the language of the question, as its script tells;
other scripts get the English one. `PROMPT_VERSION` is the hash of all of it and is logged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.corpus.text import language_of

#: What the reader says, in any language, where the passages do not hold the answer.
REFUSAL = "unanswerable"


@dataclass(frozen=True)
class Wording:
    """What is said in one language; `{passages}`, `{question}` and `{answer}` are filled in."""

    passages: str
    no_passages: str
    question: str
    answer: str
    """For a model without a chat template: the line that its answer completes."""


_ENGLISH = Wording(
    passages=f"Answer in a few words copied from the text, or say {REFUSAL}.\n\n{{passages}}\n\n",
    no_passages=f"Answer in a few words, or say {REFUSAL}.\n\n",
    question="Question: {question}",
    answer="Answer: {answer}",
)

#: By language as `rag.corpus.text.language_of` names it.
WORDINGS: Mapping[str, Wording] = {
    "en": _ENGLISH,
    "zh": Wording(
        passages="请用文中的原话简短回答；如果文中没有答案，"
        f"请只回答 {REFUSAL}。\n\n{{passages}}\n\n",
        no_passages=f"请用几个词简短回答；如果不知道，请只回答 {REFUSAL}。\n\n",
        question="问题：{question}",
        answer="回答：{answer}",
    ),
    "ja": Wording(
        passages="本文の語句をそのまま使って短く答えてください。"
        f"本文に答えがなければ {REFUSAL} とだけ答えてください。\n\n{{passages}}\n\n",
        no_passages="短い語句で答えてください。"
        f"わからなければ {REFUSAL} とだけ答えてください。\n\n",
        question="質問：{question}",
        answer="答え：{answer}",
    ),
    "ko": Wording(
        passages="본문에 있는 말을 그대로 써서 짧게 답하세요. "
        f"본문에 답이 없으면 {REFUSAL}이라고만 답하세요.\n\n{{passages}}\n\n",
        no_passages=f"짧게 답하세요. 모르면 {REFUSAL}이라고만 답하세요.\n\n",
        question="질문: {question}",
        answer="답: {answer}",
    ),
    "ru": Wording(
        passages="Ответьте кратко, словами из текста. "
        f"Если ответа в тексте нет, напишите только {REFUSAL}.\n\n{{passages}}\n\n",
        no_passages=f"Ответьте кратко. Если не знаете, напишите только {REFUSAL}.\n\n",
        question="Вопрос: {question}",
        answer="Ответ: {answer}",
    ),
    "ar": Wording(
        passages="أجب بإيجاز بكلمات منقولة من النص، "
        f"وإن لم يكن الجواب في النص فاكتب {REFUSAL} فقط.\n\n{{passages}}\n\n",
        no_passages=f"أجب بإيجاز، وإن كنت لا تعرف الجواب فاكتب {REFUSAL} فقط.\n\n",
        question="السؤال: {question}",
        answer="الجواب: {answer}",
    ),
}

#: What a model that was not tuned says instead, having been asked in its language.
_REFUSALS = (
    REFUSAL,
    "无法回答",
    "無法回答",
    "回答不能",
    "回答できません",
    "답할 수 없음",
    "답변 불가",
    "невозможно ответить",
    "нет ответа",
    "لا يمكن الإجابة",
    "لا توجد إجابة",
)


@dataclass(frozen=True)
class Example:
    """A question answered before: one more turn of the conversation; empty answers are refusals."""

    question: str
    passages: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Conversation:
    """What a model is told: earlier (user, assistant) turns, then the user's `shared + own`.

    `turns` and `shared` are equal for all questions about the same passages, in one language.
    """

    turns: tuple[tuple[str, str], ...]
    shared: str
    own: str
    answer_line: str = _ENGLISH.answer


def conversation(
    question: str, passages: Sequence[str], examples: Sequence[Example] = ()
) -> Conversation:
    """The prompt of a question; without passages the model is asked what it knows itself."""
    wording = WORDINGS.get(language_of(question), _ENGLISH)
    return _conversation(wording, question, passages, examples)


def flat(told: Conversation) -> tuple[str, str]:
    """The same for a model without a chat template: (shared, own), and the answer comes next.

    Examples are blocks of text in front, each with its answer on the line that is left open at the
    end.
    """
    blocks = [
        f"{user}\n{told.answer_line.format(answer=answer)}\n\n" for user, answer in told.turns
    ]
    cue = told.answer_line.format(answer="").rstrip()
    return "".join(blocks) + told.shared, f"{told.own}\n{cue}"


def _conversation(
    wording: Wording, question: str, passages: Sequence[str], examples: Sequence[Example]
) -> Conversation:
    turns = tuple(
        (
            _shared(wording, example.passages) + wording.question.format(question=example.question),
            example.answer or REFUSAL,
        )
        for example in examples
    )
    own = wording.question.format(question=question)
    return Conversation(turns, _shared(wording, passages), own, wording.answer)


def _shared(wording: Wording, passages: Sequence[str]) -> str:
    if not passages:
        return wording.no_passages
    return wording.passages.format(passages="\n\n".join(passages))


def prompt_version(wordings: Mapping[str, Wording], refusals: Sequence[str] = _REFUSALS) -> str:
    """A hash of prompts written out with and without passages, examples and chat, by language."""
    examples = [Example("q1", ("p1", "p2"), "a1"), Example("q2", (), "")]
    written: list[object] = [*refusals]
    for language in sorted(wordings):
        for passages in (("p3", "p4"), ()):
            told = _conversation(wordings[language], "q3", passages, examples)
            written += [language, told.turns, told.shared, told.own, flat(told)]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()[:12]


PROMPT_VERSION = prompt_version(WORDINGS)


def is_refusal(text: str) -> bool:
    """Whether the model declined: one of the agreed words, in any case, with or without a stop."""
    return text.strip().strip(".。").strip().casefold() in _REFUSALS


def clean_answer(text: str) -> str:
    """The first line of what was generated, without quotes around it or a closing full stop."""
    line = text.strip().split("\n", 1)[0].strip()
    if line.endswith(".") and not line.endswith(".."):
        line = line[:-1]
    return line.strip('"')
