"""`evaluate.load("rag/evaluation/metrics/selective_risk")`."""
