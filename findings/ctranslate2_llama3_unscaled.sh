#!/usr/bin/env bash
# CTranslate2: a Llama with rope_type llama3 is converted without a word and computes the model without its scaling.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq ctranslate2==4.8.5 transformers==5.24.0 torch==2.13.0 tokenizers==0.23.1
cat > "$dir/run.py" <<'PY'
import sys

import ctranslate2, numpy, tokenizers, torch, transformers
from ctranslate2.converters import TransformersConverter

folder = sys.argv[1]
llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
plain = {"rope_type": "default", "rope_theta": 500000.0}
sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4}
sizes |= {"num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 512, "initializer_range": 0.3}
config = transformers.LlamaConfig(**sizes, rope_parameters=llama3, tie_word_embeddings=False)
torch.manual_seed(0)
transformers.LlamaForCausalLM(config).save_pretrained(folder)
words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(128)}, unk_token="w0"))
transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w0", eos_token="w0").save_pretrained(folder)
TransformersConverter(folder).convert(folder + "/converted")
ids = numpy.random.default_rng(0).integers(0, 128, (1, 200)).astype("int32")
views = [ctranslate2.StorageView.from_array(x) for x in (ids, numpy.array([200], dtype="int32"))]
got = numpy.array(ctranslate2.Generator(folder + "/converted", compute_type="float32").forward_batch(*views))
for name, rope in (("llama3", llama3), ("without scaling", plain)):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, rope_parameters=rope)
    with torch.no_grad():
        off = abs(got - model(torch.tensor(ids).long()).logits.numpy()).max()
    print(name, "equal" if off < 1e-3 else "different")
PY
echo "ctranslate2 4.8.5"
"$dir/venv/bin/python" "$dir/run.py" "$dir/model" 2> "$dir/log.txt" | tee "$dir/seen.txt" || { cat "$dir/log.txt"; exit 1; }
printf '%s\n' "llama3 different" "without scaling equal" | diff - "$dir/seen.txt"
