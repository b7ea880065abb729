"""`evaluate.load("rag/evaluation/metrics/retrieval_scores")`."""
