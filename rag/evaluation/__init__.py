"""Room 5: from answers to numbers that can be trusted, and a page to read them on.

normalize       one policy for comparing text in any script
answer_scores   exact match and token F1 of one answer
bleu, rouge     the overlap metrics, by sacrebleu and rouge_score
ranking         recall@k and reciprocal rank of the passages found
statistics      bootstrap intervals, clustered by document
scoring         answers -> predictions.parquet -> the metrics of each system, compared in pairs
version         the version of the scoring rules: only equal ones are compared
slices          the same by kind of question; question_types names what a question asks for
attribution     why an answer is wrong, with what probes say when shown other passages
summary         all of it as metrics.json
score_files     the same metrics for a file of predictions (`ragloop score`)
metrics/        the metrics as `evaluate` modules: `evaluate.load("rag/evaluation/metrics/bleu")`
plots, report   DVC plots and report.html
review_*        people judge answers: sample, sheet, page, verdicts, agreement, result
"""
