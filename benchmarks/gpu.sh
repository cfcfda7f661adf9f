#!/usr/bin/env bash
# Everything that a GPU is asked, in ten minutes at most:  bash benchmarks/gpu.sh [--output FOLDER]
# On the CPU, to see that it runs:                         bash benchmarks/gpu.sh --device cpu --small
#
# Each step has its limit (s). What is finished is kept, one JSON file a result, and the same command
# goes on. summary.md in the folder (by default runs/gpu) is what benchmarks/README.md takes. Exit
# codes: 0 all done, 1 a step failed or was broken off, 2 no GPU, or a folder of other results.
cd "$(dirname "$0")/.." || exit 2
failed=0
while read -r step limit; do
  echo "== $step (at most $limit s)"
  timeout --kill-after=5 "$limit" "${PYTHON:-.venv/bin/python}" benchmarks/gpu.py "$step" "$@" </dev/null
  code=$?
  [ "$code" -ne 2 ] || exit 2
  [ "$code" -eq 0 ] || { failed=1; echo "$step: exit code $code (124: broken off at its limit)"; }
done <<'END'
environment 25
equality 120
exactness 55
throughput 135
training 150
curves 60
summary 25
END
exit "$failed"
