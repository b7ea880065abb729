"""`evaluate.load("rag/evaluation/metrics/token_f1")`."""
