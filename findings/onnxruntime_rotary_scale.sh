#!/usr/bin/env bash
# onnxruntime: com.microsoft RotaryEmbedding takes the attribute `scale` of its schema and computes as if it were not there.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$dir/rotate.py" <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

TOKENS, DIM = 6, 8
angle = np.outer(np.arange(TOKENS), 100.0 ** (-np.arange(0, DIM, 2) / DIM)).astype("float32")
feed = {"x": np.random.default_rng(0).normal(size=(1, TOKENS, DIM)).astype("float32")}
feed |= {"positions": np.arange(TOKENS, dtype="int64")[None], "cos": np.cos(angle), "sin": np.sin(angle)}


def rotate(**attributes):
    node = helper.make_node("RotaryEmbedding", [*feed], ["y"], domain="com.microsoft", num_heads=1, **attributes)
    kinds = {name: TensorProto.INT64 if name == "positions" else TensorProto.FLOAT for name in feed}
    inputs = [helper.make_tensor_value_info(name, kind, feed[name].shape) for name, kind in kinds.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, feed["x"].shape)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


plain = rotate()
for attributes in ({"scale": 1.0}, {"scale": 0.25}, {"scale": 8.0}, {"interleaved": 1}):
    print(attributes, "changes the output by", round(float(np.abs(rotate(**attributes) - plain).max()), 1))
PY
echo "onnxruntime 1.32.0"
"$dir/venv/bin/python" "$dir/rotate.py" | tee "$dir/seen.txt"
[ "$(grep -c "'scale'.* by 0.0$" "$dir/seen.txt")" = 3 ]
! grep -q "'interleaved'.* by 0.0$" "$dir/seen.txt"
