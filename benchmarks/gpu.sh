#!/usr/bin/env bash
# What a CUDA GPU says of this package, in at most eight minutes; each part says what it found.
#
#     bash benchmarks/gpu.sh [FOLDER]     FOLDER: where MNIST lies, as data.load keeps it; without it part c is left out
#     TINY=1 bash benchmarks/gpu.sh       every line of it, on any machine, in a minute or two
#
# Needs torch, numpy, tqdm, safetensors, scikit-learn and pytest, and downloads nothing.
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PYTHON="${PYTHON:-python}"
failed=""

part() {  # NAME SECONDS COMMAND …
    local name="$1" seconds="$2" began=$SECONDS
    shift 2
    echo "== $name"
    timeout -k 5 "$seconds" "$@"                                # what does not hear the signal is killed
    local status=$?
    case $status in
        0) echo "-- $name: done in $((SECONDS - began)) s" ;;
        124 | 137) echo "-- $name: NOT done in $seconds s"; failed="$failed [$name]" ;;
        *) echo "-- $name: FAILED with status $status after $((SECONDS - began)) s"; failed="$failed [$name]" ;;
    esac
}

"$PYTHON" benchmarks/gpu.py machine || exit 1
TRAINING="a_run or precision or memory"
part "a. the subject, GPU against CPU" 60 "$PYTHON" -m pytest -q -rs -p no:cacheprovider -m gpu tests/test_gpu.py -k "not ($TRAINING)"
part "b. training: resume, out of memory, bf16, fp16, compile" 110 "$PYTHON" -m pytest -q -rs -p no:cacheprovider -m gpu tests/test_gpu.py -k "$TRAINING"
part "c. MNIST, from nothing to agreement 0.99 at scale 2" 150 "$PYTHON" benchmarks/gpu.py mnist ${1:+--data-dir "$1"}
part "d. the paper's CIFAR-10 network" 120 "$PYTHON" benchmarks/gpu.py cifar
part "e. digits" 35 "$PYTHON" benchmarks/gpu.py digits
if [ -n "$failed" ]; then
    echo "not as it must be:$failed"
    exit 1
fi
echo "all parts done"
