#!/usr/bin/env bash
# Everything that a GPU is asked, in ten minutes at most:  bash benchmarks/gpu.sh [--output FOLDER]
# On the CPU, to see that it runs:                         bash benchmarks/gpu.sh --device cpu --small
#
# Each step has its limit. What is finished is kept, one JSON file a result; the same command goes
# on. summary.md in the folder (by default runs/gpu) is what benchmarks/README.md takes. Exit codes:
# 0 all done, 1 a step failed or was broken off, 2 no GPU, or a folder of other results.
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
failed=0
while read -r step limit; do
  echo "== $step (at most $limit s)"
  timeout --kill-after=10 "$limit" "$python" benchmarks/gpu.py "$step" "$@" </dev/null
  code=$?
  if [ "$code" -eq 2 ]; then exit 2; fi
  if [ "$code" -ne 0 ]; then
    failed=1
    if [ "$code" -ge 124 ]; then echo "$step was broken off"; else echo "$step failed"; fi
  fi
done <<'END'
environment 30
equality 120
exactness 60
throughput 140
training 150
curves 60
summary 30
END
exit "$failed"
