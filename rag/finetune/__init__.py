"""Room 4: the one training loop and what it trains."""
