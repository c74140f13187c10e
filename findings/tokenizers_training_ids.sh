#!/usr/bin/env bash
# tokenizers: WordPiece and Unigram, trained on one text in several processes, number their tokens differently; BPE does not.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq tokenizers==0.23.1
cat > "$dir/run.py" <<'PY'
import hashlib

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

text = ["the river runs past the mill and the miller counts sacks", "one two three four five six seven", "rain on the road"]


def digest(items):
    return hashlib.sha256(repr(sorted(items)).encode()).hexdigest()[:8]


kinds = {
    "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
    "Unigram": (models.Unigram(), trainers.UnigramTrainer),
    "BPE": (models.BPE(), trainers.BpeTrainer),
}
for name, (model, trainer) in kinds.items():
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(text, trainer(vocab_size=100, special_tokens=["[UNK]"], show_progress=False))
    ids = tokenizer.get_vocab()
    print(name, "tokens", digest(ids), "ids", digest(ids.items()))
PY
echo "tokenizers 0.23.1, six processes: how many different vocabularies, as sets of tokens and with their ids"
for _ in 1 2 3 4 5 6; do "$dir/venv/bin/python" "$dir/run.py"; done > "$dir/seen.txt"
count() { grep "^$1 " "$dir/seen.txt" | cut -d' ' -f"$2" | sort -u | wc -l; }
for kind in WordPiece Unigram BPE; do echo "$kind: $(count $kind 3) sets, $(count $kind 5) numberings"; done
if [ "$(count WordPiece 5)" -lt 2 ] || [ "$(count Unigram 5)" -lt 2 ] || [ "$(count BPE 5)" -ne 1 ]; then exit 1; fi
