"""Room 2: chunks -> vectors -> Qdrant -> passages."""
