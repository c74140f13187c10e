"""Neural memory: what attention keeps of the segments before, inside the model."""

from aptlab.nn.memory.base import Memory, MemoryGate, NoMemory
from aptlab.nn.memory.infini import InfiniMemory
from aptlab.nn.memory.knn import KNNMemory
from aptlab.nn.memory.segment import SegmentMemory
from aptlab.nn.memory.titans import TitansContextMemory, TitansGateMemory
from aptlab.nn.memory.xl import XLMemory

__all__ = [
    "InfiniMemory",
    "KNNMemory",
    "Memory",
    "MemoryGate",
    "NoMemory",
    "SegmentMemory",
    "TitansContextMemory",
    "TitansGateMemory",
    "XLMemory",
]
