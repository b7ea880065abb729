"""The seq2seq reader: an encoder reads the passages, a decoder writes the answer.

The encoder runs once for every source, however many answers, beams or passages of other questions
go with it. With fusion `fid` it reads each passage with the question on its own, so that its work
grows with the passages and not with their square, and the decoder attends over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.params import ReaderParams
from rag.reading.encoder_states import EncoderDecoderSteps, EncoderStates, joined, padded
from rag.reading.generative import GenerativeReader, Source, TokenIds
from rag.reading.packing import Cost, alike_lengths
from rag.reading.prompts import REFUSAL, Example, conversation, flat
from rag.reading.seq2seq_model import load_seq2seq
from rag.reading.tuned import ANSWER_TOKENIZER, serving_device

if TYPE_CHECKING:
    import torch

#: Sources whose tokens are remembered.
_REMEMBERED = 16_384
#: What an `EncoderDecoderModel` adds, under the names of GPT-2's, BERT's and its own code.
_JOINTS = ("crossattention", "ln_cross_attn", "enc_to_dec_proj")


class Seq2SeqReader(GenerativeReader):
    """`AutoModelForSeq2SeqLM`, or an `EncoderDecoderModel` where `params.decoder` is given."""

    def __init__(
        self,
        params: ReaderParams,
        cache: Path,
        folder: Path | None,
        *,
        prior_temperature: float = 1.0,
        examples: Sequence[Example] = (),
    ) -> None:
        self.params = params
        self.prior_temperature = prior_temperature
        self._examples = tuple(examples)
        self.device = serving_device(params, folder)
        loaded = load_seq2seq(params, cache, folder, self.device)
        self.model: Any = loaded.model
        self.tokenizer = loaded.answer_tokenizer
        self._source_tokenizer = loaded.source_tokenizer
        self.start_id = loaded.start_id
        self._end_id = loaded.end_id
        #: What the encoder reads of a source: one sequence, or one a passage.
        self.inputs: Callable[[Source], tuple[TokenIds, ...]] = lru_cache(_REMEMBERED)(self._inputs)

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """What is written down beside the weights, by its folder below them."""
        if self.params.decoder is None:
            return {"": self.tokenizer}
        return {"": self._source_tokenizer, ANSWER_TOKENIZER: self.tokenizer}

    @property
    def end_id(self) -> int:
        return self._end_id

    @property
    def new_modules(self) -> tuple[str, ...]:
        """What joins an encoder and a decoder that were not trained together."""
        if self.params.decoder is None:
            return ()
        found = {name.rsplit(".", 1)[-1] for name, _ in self.seq2seq_model.named_modules()}
        return tuple(name for name in _JOINTS if name in found)

    # texts

    @property
    def first_ids(self) -> TokenIds:
        ids = self.answer_ids("")
        special = set(self.tokenizer.all_special_ids)
        return ids[: next(i for i, token in enumerate(ids) if token not in special)]

    def answer_ids(self, answer: str) -> TokenIds:
        # A model of one piece was trained on answers with its own special tokens around them.
        special = self.params.decoder is None
        ids = self.tokenizer(answer or REFUSAL, add_special_tokens=special).input_ids
        own = ids[:-1] if special and ids[-1] == self.end_id else ids
        return (*own[: self.params.max_answer_tokens - 1], self.end_id)

    def _inputs(self, source: Source) -> tuple[TokenIds, ...]:
        if self.params.fusion == "fid" and source.passages:
            return tuple(self._prompt(Source(source.question, (p,))) for p in source.passages)
        return (self._prompt(source),)

    def _prompt(self, source: Source) -> TokenIds:
        """Token ids for the encoder; the last passages are cut to fit, and the question is kept."""
        shared, own = (
            self._source_tokenizer(text, add_special_tokens=False).input_ids
            for text in flat(conversation(source.question, source.passages, self._examples))
        )
        before, after = self._special_tokens()
        room = self._limit() - len(before) - len(after)
        own = own[-room:]
        return (*before, *shared[: room - len(own)], *own, *after)

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the encoder's tokenizer puts before and after a text."""
        coded = self._source_tokenizer("a", return_special_tokens_mask=True)
        first = coded.special_tokens_mask.index(0)
        last = len(coded.input_ids) - coded.special_tokens_mask[::-1].index(0)
        return coded.input_ids[:first], coded.input_ids[last:]

    def _limit(self) -> int:
        """Tokens that the encoder takes: by params, and by its positions where they are learned."""
        positions = getattr(self._encoder.config, "max_position_embeddings", None)
        if positions is None:
            return self.params.max_prompt_tokens
        longest = min(positions, self._source_tokenizer.model_max_length)
        return min(self.params.max_prompt_tokens, int(longest))

    def cost(self, source: Source, answer: TokenIds = ()) -> Cost:
        read = sum(map(len, self.inputs(source)))
        # Every beam keeps what the decoder made of the source.
        return Cost(source, read if answer else read * self.params.beams, len(answer))

    # the model

    @property
    def seq2seq_model(self) -> Any:
        """The model itself, with or without an adapter in its layers."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def _encoder(self) -> Any:
        return self.seq2seq_model.get_encoder()

    def autocast(self) -> Any:
        """Matrix products in bfloat16 where params say so."""
        import torch

        mixed = self.params.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def encode(self, sources: Sequence[Source]) -> tuple[EncoderStates, list[int]]:
        """States of the different ones of N sources, and the place of each of the N among them.

        Equal sources, and equal inputs of sources, are computed once.
        """
        different = list(dict.fromkeys(sources))
        inputs = list(dict.fromkeys(ids for source in different for ids in self.inputs(source)))
        found: dict[TokenIds, torch.Tensor] = {}
        lengths = [len(ids) for ids in inputs]
        for group in [list(range(len(inputs)))] if self._in_step else alike_lengths(lengths):
            chosen = [inputs[i] for i in group]
            ids, mask = padded(chosen, self._padding_id, self.device)
            self.tokens_read += sum(map(len, chosen))
            self.tokens_padded += ids.numel()
            with self.autocast():
                hidden = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                if self._projection is not None:
                    hidden = self._projection(hidden)
            for row, own in zip(hidden, chosen, strict=True):
                found[own] = row[: len(own)]
        states = joined([[found[ids] for ids in self.inputs(source)] for source in different])
        places = {source: place for place, source in enumerate(different)}
        return states, [places[source] for source in sources]

    @property
    def _in_step(self) -> bool:
        """Whether every process has to run every layer as often as the others, so only once."""
        return bool(self.params.training.shard_weights and self.model.training)

    @property
    def _padding_id(self) -> int:
        """Fills what is masked; any token does."""
        found = self._source_tokenizer.pad_token_id
        return 0 if found is None else int(found)

    @property
    def _projection(self) -> Any:
        """Between an encoder and a decoder of different width."""
        return getattr(self.seq2seq_model, "enc_to_dec_proj", None)

    def decode(
        self, states: EncoderStates, ids: torch.Tensor, *, past: Any = None, use_cache: bool = False
    ) -> Any:
        """The model's output, with logits (N, T, V), after `ids` (N, T) and what was before."""
        from transformers import EncoderDecoderModel
        from transformers.modeling_outputs import BaseModelOutput

        options = {"past_key_values": past, "use_cache": use_cache}
        model = self.seq2seq_model
        with self.autocast():
            if isinstance(model, EncoderDecoderModel):
                # The model itself would project the states again at every step.
                return model.decoder(
                    input_ids=ids,
                    encoder_hidden_states=states.hidden,
                    encoder_attention_mask=states.mask,
                    **options,
                )
            return model(
                encoder_outputs=BaseModelOutput(states.hidden),
                attention_mask=states.mask,
                decoder_input_ids=ids,
                **options,
            )

    # likelihood

    def token_log_probabilities(
        self, sources: Sequence[Source], answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        import torch

        states, places = self.encode(sources)
        order = sorted(range(len(answers)), key=lambda i: len(answers[i]))
        rows = max(1, self.params.batch_tokens // states.mask.shape[1])
        rows = len(order) if self._in_step else rows
        found: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), rows):
            group = order[start : start + rows]
            own = states.take(torch.tensor([places[i] for i in group], device=self.device))
            parts = self._answer_log_probabilities(own, [answers[i] for i in group])
            found |= zip(group, parts, strict=True)
        return [found[i] for i in range(len(answers))]

    def _answer_log_probabilities(
        self, states: EncoderStates, answers: Sequence[TokenIds]
    ) -> list[torch.Tensor]:
        """log p of each answer's tokens, the decoder reading those before it; shapes (T_i,)."""
        import torch

        read = [(self.start_id, *ids[:-1]) for ids in answers]
        ids, mask = padded(read, self.end_id, self.device)
        self.tokens_read += sum(map(len, answers))
        self.tokens_padded += ids.numel()
        with self._output_only_at(mask.bool()):
            logits = self.decode(states, ids).logits[0].float()  # (sum of T_i, V)
        targets = torch.tensor([token for own in answers for token in own], device=self.device)
        picked = logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
        return list(picked.split([len(own) for own in answers]))

    @contextmanager
    def _output_only_at(self, chosen: torch.Tensor) -> Iterator[None]:
        """The output matrix is applied only at `chosen` (N, T): logits become (1, chosen, V).

        Every architecture has its own scale or bias around that matrix, so its input is cut rather
        than its work repeated here.
        """
        output = self.seq2seq_model.get_output_embeddings()
        handle = output.register_forward_pre_hook(lambda _, inputs: (inputs[0][chosen][None],))
        try:
            yield
        finally:
            handle.remove()

    # answering

    def steps(self, sources: Sequence[Source]) -> EncoderDecoderSteps:
        import torch

        with torch.inference_mode():
            states, places = self.encode(sources)
            own = states.take(torch.tensor(places, device=self.device))
            return EncoderDecoderSteps(self, own)
