"""The metrics as `evaluate` modules: each folder loads offline by its path, or imports.

    >>> import evaluate
    >>> f1 = evaluate.load("rag/evaluation/metrics/token_f1")
    >>> f1.compute(predictions=["北京。"], references=[["北京"]])["f1"]
    100.0

They hold no arithmetic of their own: every number comes from the functions of `rag.evaluation`.
Results are in percent; `scores` holds the same for each example, 0 to 1.
"""
