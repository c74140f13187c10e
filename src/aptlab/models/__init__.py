"""Whole models, and the ways to load, convert and edit them."""

from aptlab.models.decoder import Decoder, Output

__all__ = ["Decoder", "Output"]
