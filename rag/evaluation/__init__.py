"""Room 5: from answers to numbers that can be trusted, and a page to read them on.

normalize       one policy for comparing text in any script
answer_scores   exact match and token F1 of one answer
bleu, rouge     the overlap metrics, by sacrebleu and rouge_score
ranking         recall@k and reciprocal rank of the passages found
statistics      bootstrap intervals, clustered by document
scoring         answers -> predictions.parquet -> metrics.json
score_files     the same metrics for a file of predictions (`ragloop score`)
metrics/        the metrics as `evaluate` modules: `evaluate.load("rag/evaluation/metrics/bleu")`
plots, report   DVC plots and report.html
review_*        people judge answers: sample, sheet, page, verdicts, agreement, result
"""
