"""Whole models, and the ways to load, convert and edit them."""

from aptlab.models.classifier import Classifier, Inputs, PatchEmbedding, TokenInputs
from aptlab.models.decoder import Decoder
from aptlab.models.head import HeadRule
from aptlab.models.output import Hidden, Output

__all__ = ["Classifier", "Decoder", "HeadRule", "Hidden", "Inputs", "Output", "PatchEmbedding", "TokenInputs"]
