"""What recording costs, measured against the stock server: ``python -m benchmarks``."""
