"""`evaluate.load("rag/evaluation/metrics/bleu")`."""
