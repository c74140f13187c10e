"""Layers and rules that models are made of. Rules (shape, rope) import no torch."""
