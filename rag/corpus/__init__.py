"""Room 1: files in, validated and split documents and questions out, cut into chunks.

read_corpus -> prepare_corpus -> chunk_documents        check_corpus, import_corpus
"""

from rag.corpus.chunks import chunk_documents
from rag.corpus.intake import check_corpus, import_corpus
from rag.corpus.prepare import PreparedCorpus, PrepareSummary, prepare_corpus
from rag.corpus.problems import Problem
from rag.corpus.reader import CorpusSummary, RawCorpus, read_corpus, summarize_corpus

__all__ = [
    "CorpusSummary",
    "PrepareSummary",
    "PreparedCorpus",
    "Problem",
    "RawCorpus",
    "check_corpus",
    "chunk_documents",
    "import_corpus",
    "prepare_corpus",
    "read_corpus",
    "summarize_corpus",
]
