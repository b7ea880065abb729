"""`evaluate.load("rag/evaluation/metrics/squad_v2")`."""
