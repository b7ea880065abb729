"""`evaluate.load("rag/evaluation/metrics/answer_length")`."""
