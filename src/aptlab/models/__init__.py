"""Whole models, and the ways to load, convert and edit them."""

from aptlab.models.classifier import Classifier, Inputs, PatchEmbedding, RowClassifier, TokenInputs
from aptlab.models.decoder import Decoder
from aptlab.models.dytox import DyTox
from aptlab.models.dytox_seed import DyToxSeed
from aptlab.models.encoder_decoder import Encoded, EncoderDecoder
from aptlab.models.growing import GrowingClassifier
from aptlab.models.head import HeadRule
from aptlab.models.output import GrowingOutput, Hidden, Output

__all__ = [
    "Classifier",
    "Decoder",
    "DyTox",
    "DyToxSeed",
    "Encoded",
    "EncoderDecoder",
    "GrowingClassifier",
    "GrowingOutput",
    "HeadRule",
    "Hidden",
    "Inputs",
    "Output",
    "PatchEmbedding",
    "RowClassifier",
    "TokenInputs",
]
