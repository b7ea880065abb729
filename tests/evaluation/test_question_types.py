"""What a question asks for, by its words, in the languages that prompts are written in."""

from __future__ import annotations

import pytest

from rag.evaluation.question_types import _WORDS, QUESTION_TYPES, question_type
from rag.reading.prompts import WORDINGS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who commands the Galebird?", "who"),
        ("From whom do we order seals?", "who"),
        ("Whose ship is it?", "who"),
        ("When was it built?", "when"),
        ("By when must it be done, and who does it?", "when"),
        ("Where does it moor?", "where"),
        ("What is its name?", "what"),
        ("In which year was it built?", "which"),
        ("How many cabins are there, and what do they cost?", "how many"),
        ("HOW MUCH does it cost?", "how much"),
        ("How long is it?", "how"),
        ("Why does it stop?", "why"),
        ("Does it sail where no one lives?", "yes-no"),
        ("Name the master.", "other"),
        ("Show whether it sails.", "other"),
        ("Wann fährt das Schiff?", "other"),
        ("船长是谁？", "who"),
        ("什么时候开船？", "when"),
        ("这艘船哪一年建成？", "when"),
        ("码头在哪里？", "where"),
        ("这艘船叫什么名字？", "what"),
        ("哪艘船最大？", "which"),
        ("有多少个舱？", "how many"),
        ("有几个舱？", "how many"),
        ("船票多少钱？", "how much"),
        ("怎么买票？", "how"),
        ("这艘船有多长？", "how"),
        ("为什么停航？", "why"),
        ("可以带狗吗？", "yes-no"),
        ("船长是不是姓王？", "yes-no"),
        ("请说出船长的名字。", "other"),
        ("船長は誰ですか？", "who"),
        ("いつ出航しますか？", "when"),
        ("どこに停泊しますか？", "where"),
        ("名前は何ですか？", "what"),
        ("どの船が一番大きいですか？", "which"),
        ("客室はいくつありますか？", "how many"),
        ("料金はいくらですか？", "how much"),
        ("どのように予約しますか？", "how"),
        ("なぜ止まりますか？", "why"),
        ("犬を連れて行けますか？", "yes-no"),
        ("선장은 누구입니까?", "who"),
        ("언제 출항합니까?", "when"),
        ("어디에 정박합니까?", "where"),
        ("선실은 몇 개입니까?", "how many"),
        ("요금은 얼마입니까?", "how much"),
        ("왜 멈춥니까?", "why"),
        ("개를 데려갈 수 있습니까?", "yes-no"),
        ("Кто капитан?", "who"),
        ("Когда он построен?", "when"),
        ("Какой корабль самый большой?", "which"),
        ("Как называется корабль?", "how"),
        ("Сколько кают?", "how many"),
        ("Сколько стоит билет?", "how much"),
        ("Можно ли взять собаку?", "yes-no"),
        ("من هو القبطان؟", "who"),
        ("متى تبحر السفينة؟", "when"),
        ("من أين تبحر السفينة؟", "where"),  # "from where" begins as "who" does
        ("كم عدد الغرف؟", "how many"),
        ("هل يمكن اصطحاب كلب؟", "yes-no"),
        ("Ποιος είναι ο πλοίαρχος;", "other"),
        ("?", "other"),
    ],
)
def test_question_type(text: str, expected: str) -> None:
    assert question_type(text) == expected
    assert expected in QUESTION_TYPES


def test_every_language_of_the_prompts_has_its_words() -> None:
    """A prompt in a further language needs its question words here, or is `other` knowingly."""
    assert set(_WORDS) == set(WORDINGS)
    assert len({tuple(words) for words in _WORDS.values()}) == 1, "the same types everywhere"
