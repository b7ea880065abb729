"""`evaluate.load("rag/evaluation/metrics/label_scores")`."""
