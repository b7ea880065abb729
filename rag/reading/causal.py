"""The causal reader: a decoder-only language model with a LoRA adapter on its upper layers.

Three things make it quick on a CPU: layers below `lora.frozen_layers` carry no adapter and so no
gradient; the output matrix, the largest of a small model, is applied only where an answer token is
predicted; and questions about the same passages share one copy of them (`rag.reading.packing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.params import ReaderParams
from rag.reading.attention import additive, attention_for
from rag.reading.beam import Steps
from rag.reading.generation import PackedSteps
from rag.reading.generative import GenerativeReader, Source, TokenIds
from rag.reading.marginal import weighed_prior
from rag.reading.packing import (
    Cost,
    Packed,
    Prompt,
    Row,
    alike_lengths,
    pack,
    to_tensors,
)
from rag.reading.prompts import Example, conversation, flat
from rag.reading.reader import Array
from rag.reading.tuned import as_served, loading_precision, model_folder, serving_device
from rag.records import Passage

if TYPE_CHECKING:
    import torch

_MARK = "\x1d"
#: Tokens of a packed row. Attention looks over the whole row, so a long row of short questions
#: costs more than it shares.
ROW_TOKENS = 1024
#: Passages and questions whose tokens are remembered.
_REMEMBERED = 16_384

#: Rows as tensors -> the states (R, W, H) that the output matrix reads.
States = Callable[[Sequence[Row], Packed], "torch.Tensor"]


class CausalReader(GenerativeReader):
    """Concatenates the passages of a source into one prompt."""

    def __init__(
        self,
        params: ReaderParams,
        cache: Path,
        folder: Path | None,
        *,
        prior_temperature: float = 1.0,
        query_likelihood: float = 0.0,
        examples: Sequence[Example] = (),
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.params = params
        self.prior_temperature = prior_temperature
        self.query_likelihood = query_likelihood
        self._examples = tuple(examples)
        source = model_folder(params, cache, folder)
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = serving_device(params, folder)
        # Trained as a whole, weights keep float32: steps are too small for bfloat16.
        precision = params.training.precision if params.lora is not None else "float32"
        base: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=loading_precision(params, folder, precision),
            attn_implementation=attention_for(self.device),
            trust_remote_code=False,
        )
        self.model: Any = as_served(
            base, params, folder, self.device, precision, tokenizers=[self.tokenizer]
        )
        #: What computes the states; training puts its own in place, which remembers some of them.
        self.states: States = self._states
        #: All rows in one forward pass, where passes have to be as many in every process.
        self.in_one_pass = False
        self.token_ids: Callable[[str], TokenIds] = lru_cache(_REMEMBERED)(self._ids)
        self.prompt: Callable[[Source], Prompt] = lru_cache(_REMEMBERED)(self._prompt)

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """What is written down beside the weights, by its folder below them."""
        return {"": self.tokenizer}

    @property
    def end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    # prompts

    def _prompt(self, source: Source) -> Prompt:
        """Token ids up to where the answer begins; the last passages are cut to fit.

        Worked examples come on top of `max_prompt_tokens`: they are a choice, not an accident.
        """
        before, shared, own = map(self.token_ids, self._parts(source))
        room = max(0, self.params.max_prompt_tokens - len(own))
        return Prompt(before + shared[:room], own)

    def _parts(self, source: Source) -> tuple[str, str, str]:
        """The chat as text: what comes before the passages, these, and from the question on."""
        talk = conversation(source.question, source.passages, self._examples)
        if self.tokenizer.chat_template is None:
            shared, own = flat(talk)
            before = shared.removesuffix(talk.shared)
            return before, talk.shared, own
        # An empty system message keeps the template from adding one of its own.
        messages = [{"role": "system", "content": ""}]
        for user, assistant in talk.turns:
            messages += [
                {"role": "user", "content": user},
                {"role": "assistant", "content": assistant},
            ]
        content = _MARK + talk.shared + _MARK + talk.own
        messages.append({"role": "user", "content": content})
        rendered = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        before, shared, own = rendered.rsplit(_MARK, 2)
        return before, shared, own

    def _ids(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def cost(self, source: Source, answer: TokenIds = ()) -> Cost:
        prompt = self.prompt(source)
        return Cost(prompt.shared, len(prompt.shared), len(prompt.own) + len(answer))

    # likelihood

    def token_log_probabilities(
        self, sources: Sequence[Source], answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        return self._log_probabilities([self.prompt(source) for source in sources], answers)

    def question_log_probabilities(
        self, sources: Sequence[Source], answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        """log p of every token of a question given its passages, then of its answer.

        Shapes (T_i,), with gradient. The words around the question count as well: they are the same
        for every passage. Its first token is not asked for.
        """
        prompts = [self.prompt(source) for source in sources]
        return self._log_probabilities(
            [Prompt(prompt.shared, prompt.own[:1]) for prompt in prompts],
            [(*prompt.own[1:], *end) for prompt, end in zip(prompts, answers, strict=True)],
        )

    def query_log_likelihood(
        self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]
    ) -> Array:
        """log p(question | passage), shape (B, K), each passage on its own; -inf where none is.

        As `PackedSteps.query_likelihood` has it while answering.
        """
        nothing: list[TokenIds] = [()] * len(questions)
        return self._by_passage(questions, passages, nothing, self.question_log_probabilities)

    def _log_probabilities(
        self, prompts: Sequence[Prompt], answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        rows = pack(prompts, answers, ROW_TOKENS)
        found: list[torch.Tensor | None] = [None] * len(prompts)
        lengths_of_rows = [row.length for row in rows]
        groups = [list(range(len(rows)))] if self.in_one_pass else alike_lengths(lengths_of_rows)
        for group in groups:
            chosen = [rows[r] for r in group]
            lengths = [[len(answers[member]) for member in row.members] for row in chosen]
            parts = iter(
                self.answer_log_probabilities(chosen, lengths).split(
                    [length for some in lengths for length in some]
                )
            )
            for row in chosen:
                for member in row.members:
                    found[member] = next(parts)
        return [tokens for tokens in found if tokens is not None]

    def answer_log_probabilities(
        self, rows: Sequence[Row], answer_lengths: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """log p of every answer token, concatenated by row and segment, shape (sum of lengths,).

        `answer_lengths[r][s]` tokens at the end of segment s of row r are its answer. Hidden states
        are taken where an answer token is predicted, and the output matrix is applied only there.
        """
        import torch

        packed = self.packed(rows)
        self.tokens_read += sum(row.length for row in rows)
        self.tokens_padded += packed.ids.numel()
        places: list[tuple[int, int]] = []
        targets: list[int] = []
        for r, (row, lengths) in enumerate(zip(rows, answer_lengths, strict=True)):
            for segment, start, count in zip(row.segments, row.starts(), lengths, strict=True):
                first = start + len(segment) - count
                # The state at position t predicts the token at t + 1.
                places += [(r, first - 1 + t) for t in range(count)]
                targets += segment[len(segment) - count :]
        with self.autocast():
            hidden = self.states(rows, packed)
            index = torch.tensor(places, device=self.device)
            logits = self.causal_model.lm_head(hidden[index[:, 0], index[:, 1]]).float()
        target = torch.tensor(targets, device=self.device).unsqueeze(1)
        picked: torch.Tensor = logits.log_softmax(-1).gather(1, target).squeeze(1)
        return picked

    def packed(self, rows: Sequence[Row]) -> Packed:
        """Rows as tensors on the model's device."""
        return to_tensors(rows, self.tokenizer.pad_token_id, self.device)

    def _states(self, rows: Sequence[Row], packed: Packed) -> torch.Tensor:
        states: torch.Tensor = self.causal_model.model(
            input_ids=packed.ids,
            attention_mask=self.mask(packed.attention),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        return states

    def mask(self, seen: torch.Tensor) -> torch.Tensor:
        """What the model's attention takes for `seen`, shape (R, 1, queries, keys)."""
        return additive(seen) if self.device.type == "cpu" else seen

    @property
    def causal_model(self) -> Any:
        """The language model itself, with or without an adapter in its layers."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    def autocast(self) -> Any:
        """Matrix products in bfloat16 where params say so."""
        import torch

        mixed = self.params.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    # answering

    def steps(self, sources: Sequence[Source]) -> PackedSteps:
        return PackedSteps(self, pack_sources(self, sources))

    def weighed(self, prior: torch.Tensor, steps: Steps) -> torch.Tensor:
        if not self.query_likelihood:
            return prior
        assert isinstance(steps, PackedSteps)
        likelihood = steps.query_likelihood().view_as(prior)
        return weighed_prior(prior, likelihood, self.query_likelihood)


def pack_sources(reader: CausalReader, sources: Sequence[Source]) -> list[Row]:
    """Rows to decode from: every source a segment without an answer."""
    prompts = [reader.prompt(source) for source in sources]
    return pack(prompts, [()] * len(prompts), ROW_TOKENS)
