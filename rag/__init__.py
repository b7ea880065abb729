"""The work, in the order data flows: corpus, retrieval, reading, finetune, evaluation, release."""
