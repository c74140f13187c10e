"""Campaigns of benchmarks/faults.py: each injects one kind of fault many times and counts what held."""
