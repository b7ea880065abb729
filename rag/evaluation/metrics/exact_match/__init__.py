"""`evaluate.load("rag/evaluation/metrics/exact_match")`."""
