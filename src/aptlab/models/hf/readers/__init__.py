"""Programs that read our folders: one declaration each of what they do with a rule of positions, as measured.

base    a reader and its verdicts      rules  the rows of the table, and which of them a config.json stands for
forms   forms of config.json           advice what an export tells, and refuses
The others are the readers. Nothing here imports torch.
"""

from aptlab.errors import ConfigError, suggest_option
from aptlab.models.hf.readers.advice import describe_readers, write_form
from aptlab.models.hf.readers.base import Reader, Verdict
from aptlab.models.hf.readers.ctranslate2 import CTRANSLATE2
from aptlab.models.hf.readers.keras_hub import KERAS_HUB
from aptlab.models.hf.readers.llama_cpp import LLAMA_CPP
from aptlab.models.hf.readers.mlx import MLX
from aptlab.models.hf.readers.onnx import ONNX
from aptlab.models.hf.readers.onnx_genai import ONNX_GENAI
from aptlab.models.hf.readers.openvino import OPENVINO
from aptlab.models.hf.readers.rules import ROWS, name_rules
from aptlab.models.hf.readers.transformers4 import TRANSFORMERS4
from aptlab.models.hf.readers.transformers5 import TRANSFORMERS5

READERS = (TRANSFORMERS5, TRANSFORMERS4, MLX, CTRANSLATE2, LLAMA_CPP, ONNX_GENAI, KERAS_HUB, OPENVINO, ONNX)


def find_reader(name: str) -> Reader:
    """The reader of this name that has a form of its own; ConfigError lists those that there are."""
    forms = {reader.name: reader for reader in READERS if reader.form is not None}
    if name not in forms:
        raise ConfigError(f"for={name}: no such reader{suggest_option(name, forms)}")
    return forms[name]


__all__ = [
    "READERS",
    "ROWS",
    "Reader",
    "Verdict",
    "describe_readers",
    "find_reader",
    "name_rules",
    "write_form",
]
