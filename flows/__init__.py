"""When the work is done, and everything with a side effect. What the work is: see `rag/`."""
