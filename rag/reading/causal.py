"""The causal reader: a decoder-only language model with a LoRA adapter on its upper layers.

Three things make it quick on a CPU: layers below `lora.frozen_layers` carry no adapter and so no
gradient; the output matrix, the largest of a small model, is applied only where an answer token is
predicted; and questions about the same passages share one copy of them (`rag.reading.packing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.params import ReaderParams
from rag.reading.attention import additive, attention_for
from rag.reading.generation import generate
from rag.reading.packing import Prompt, Row, pack, to_tensors
from rag.reading.prompts import (
    REFUSAL,
    clean_answer,
    is_refusal,
    passages_part,
    question_part,
)
from rag.reading.reader import Array, Progress, as_evidence
from rag.records import Answer, Passage
from rag.retrieval.encoder import token_batches
from rag.weights import resolve_weights

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter"
_MARK = "\x1d"
#: Tokens of a packed row while answering. Attention looks over the whole row, so a long row of
#: short questions costs more than it shares.
_ROW_TOKENS = 1024


class CausalReader:
    """Concatenates the passages of a question into one prompt."""

    def __init__(self, params: ReaderParams, cache: Path, folder: Path | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.params = params
        weights = resolve_weights(params.model, params.revision, cache)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(weights.folder)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        base: Any = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=getattr(torch, params.training.precision),
            attn_implementation=attention_for(self.device),
            trust_remote_code=False,
        )
        self.model: Any = base.to(self.device).eval()
        if folder is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, str(folder / ADAPTER)).eval()

    # prompts

    def prompt(self, question: str, passages: Sequence[str]) -> Prompt:
        """Token ids up to where the answer begins; the last passages are cut to fit."""
        before, after = self._chat(passages_part(passages), question_part(question))
        shared = self._ids(before)
        own = self._ids(after)
        room = max(0, self.params.max_prompt_tokens - len(own))
        return Prompt(tuple(shared[:room]), tuple(own))

    def _chat(self, passages: str, asked: str) -> tuple[str, str]:
        """The chat as text, in two parts, divided where the question begins."""
        content = passages + _MARK + asked
        if self.tokenizer.chat_template is None:
            rendered = f"{content}\nAnswer:"
        else:
            # An empty system message keeps the template from adding one of its own.
            messages = [{"role": "system", "content": ""}, {"role": "user", "content": content}]
            rendered = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        before, _, after = rendered.partition(_MARK)
        return before, after

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer and the end of the turn; an empty answer is the refusal."""
        ids = self._ids(answer or REFUSAL)
        return [*ids[: self.params.max_answer_tokens - 1], self.tokenizer.eos_token_id]

    # likelihood

    def answer_log_probabilities(
        self, rows: Sequence[Row], answer_lengths: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """log p of every answer token, concatenated by row and segment, shape (sum of lengths,).

        `answer_lengths[r][s]` tokens at the end of segment s of row r are its answer. Hidden states
        are taken where an answer token is predicted, and the output matrix is applied only there.
        """
        import torch

        packed = to_tensors(rows, self.tokenizer.pad_token_id, self.device)
        places: list[tuple[int, int]] = []
        targets: list[int] = []
        for r, (row, lengths) in enumerate(zip(rows, answer_lengths, strict=True)):
            for segment, start, count in zip(row.segments, row.starts(), lengths, strict=True):
                first = start + len(segment) - count
                # The state at position t predicts the token at t + 1.
                places += [(r, first - 1 + t) for t in range(count)]
                targets += segment[len(segment) - count :]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            hidden = self.causal_model.model(
                input_ids=packed.ids,
                attention_mask=self.mask(packed.attention),
                position_ids=packed.positions,
                use_cache=False,
            ).last_hidden_state
            index = torch.tensor(places, device=self.device)
            logits = self.causal_model.lm_head(hidden[index[:, 0], index[:, 1]]).float()
        target = torch.tensor(targets, device=self.device).unsqueeze(1)
        picked: torch.Tensor = logits.log_softmax(-1).gather(1, target).squeeze(1)
        return picked

    def mask(self, seen: torch.Tensor) -> torch.Tensor:
        """What the model's attention takes for `seen`, shape (R, 1, queries, keys)."""
        return additive(seen) if self.device.type == "cpu" else seen

    @property
    def causal_model(self) -> Any:
        """The language model itself, with or without an adapter in its layers."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def mixed_precision(self) -> bool:
        """Whether matrix products run in bfloat16."""
        return self.params.training.precision == "bfloat16"

    def log_likelihood(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        answers: Sequence[str],
    ) -> Array:
        import torch

        widest = max(map(len, passages))
        table = np.full((len(questions), widest), -np.inf, dtype=np.float32)
        cells = [(i, k) for i, found in enumerate(passages) for k in range(len(found))]
        prompts = [self.prompt(questions[i], [passages[i][k].text]) for i, k in cells]
        wanted = [self.answer_ids(answers[i]) for i, _ in cells]
        with torch.inference_mode():
            for row in pack(prompts, wanted, _ROW_TOKENS):
                lengths = [len(wanted[member]) for member in row.members]
                tokens = self.answer_log_probabilities([row], [lengths])
                for member, part in zip(row.members, tokens.split(lengths), strict=True):
                    table[cells[member]] = float(part.sum())
        return table

    # answering

    def answer(
        self,
        questions: Sequence[str],
        passages: Sequence[Sequence[Passage]],
        *,
        progress: Progress | None = None,
    ) -> list[Answer]:
        used = [found[: self.params.passages] for found in passages]
        prompts = [
            self.prompt(question, [passage.text for passage in found])
            for question, found in zip(questions, used, strict=True)
        ]
        rows = pack(prompts, [()] * len(prompts), _ROW_TOKENS)
        answers: dict[int, Answer] = {}
        for batch in token_batches([row.length for row in rows], self.params.batch_tokens):
            chosen = [rows[i] for i in batch]
            for i, (ids, score) in generate(self, chosen, self.params.max_answer_tokens).items():
                text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
                refused = is_refusal(text)
                answers[i] = Answer(
                    text="" if refused else clean_answer(text),
                    score=score,
                    abstained=refused,
                    evidence=as_evidence(used[i]),
                )
            if progress is not None:
                progress(sum(len(row.members) for row in chosen))
        return [answers[i] for i in range(len(prompts))]
