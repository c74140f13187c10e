#!/usr/bin/env bash
# Hydra sweeps: `x='1','2'` gives strings; `x=choice('1','2')`, documented as the same sweep, gives integers.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq hydra-core==1.3.8 omegaconf==2.3.1
cd "$dir"
cat > app.py <<'PY'
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    print("value", type(config.x).__name__, config.x)

main()
PY
echo "hydra-core 1.3.8"
for sweep in "+x='1','2'" "+x=choice('1','2')"; do
  "$dir/venv/bin/python" app.py -m "$sweep" hydra.sweep.dir=out | grep '^value' > seen.txt
  echo "$sweep gives $(paste -sd';' seen.txt)"
  cat seen.txt >> all.txt
done
printf 'value %s\n' 'str 1' 'str 2' 'int 1' 'int 2' | diff - all.txt
