"""`evaluate.load("rag/evaluation/metrics/evidence_exact_match")`."""
