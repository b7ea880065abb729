"""A random BERT of two layers whose words are listed here, for the extractive reader."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    "the a red blue boat sails from north south port at noon who what where is captain "
    "marlow rests 北 京 港 ? . ##s ##ward sea ##gull"
)


def write_tiny_bert(folder: Path, *, seed: int = 11) -> Path:
    """An encoder without a head, as `bundled:minilm` is one, with its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BertTokenizer(vocab=vocabulary)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_sentence_transformer(folder: Path, *, seed: int = 11) -> Path:
    """The same as a sentence-transformers model: mean pooling, vectors of length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    bert = write_tiny_bert(folder.with_name(f"{folder.name}-bert-{seed}"), seed=seed)
    word = Transformer(str(bert))
    pooling = Pooling(word.get_embedding_dimension())
    SentenceTransformer(modules=[word, pooling, Normalize()], device="cpu").save_pretrained(
        str(folder), create_model_card=False
    )
    return folder
