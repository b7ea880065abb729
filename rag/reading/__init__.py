"""Room 3: passages -> answers."""
