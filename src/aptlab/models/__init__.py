"""Whole models, and the ways to load, convert and edit them."""

from aptlab.models.decoder import Decoder
from aptlab.models.head import HeadRule
from aptlab.models.output import Hidden, Output

__all__ = ["Decoder", "HeadRule", "Hidden", "Output"]
