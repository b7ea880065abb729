"""`evaluate.load("rag/evaluation/metrics/rouge")`."""
