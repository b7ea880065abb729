"""`evaluate.load("rag/evaluation/metrics/chrf")`."""
