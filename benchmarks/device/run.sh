#!/usr/bin/env bash
# Everything that a GPU is needed for, within ten minutes on a machine without network (docs/gpu.md):
#
#   bash benchmarks/device/run.sh TRAVEL OUT          # TRAVEL: from prepare.py; OUT: what is to be brought back
#   bash benchmarks/device/run.sh --cpu TRAVEL OUT    # the same phases on a CPU, tiny: a rehearsal
#
# Each phase has a limit of its own in seconds, leaves its results in OUT before the next begins, and stops none by failing.
# OUT holds results.tar.gz (logs, tables, curves, pictures) and the trained bundles in parts of 15 MiB.
set -uo pipefail

DEVICE=cuda
if [ "${1:-}" = --cpu ]; then
	DEVICE=cpu
	shift
fi
[ $# = 2 ] || { echo "usage: run.sh [--cpu] TRAVEL OUT" >&2; exit 2; }
TRAVEL=$(realpath "$1")
mkdir -p "$2"
OUT=$(realpath "$2")
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/../.."
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-570}
WORK=$(mktemp -d)
BACK=$WORK/back
mkdir -p "$BACK/logs"

# What is compiled once is shared by all phases.
export TORCHINDUCTOR_CACHE_DIR=$WORK/cache/inductor TRITON_CACHE_DIR=$WORK/cache/triton NUMBA_CACHE_DIR=$WORK/cache/numba
export PYTHONPATH=$PWD:$HERE:$WORK/site PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
unset OMP_NUM_THREADS

left() { echo $((LIMIT - SECONDS)); }

# bring_back: logs, tables, curves and pictures in one file, whole or not at all; bundles beside it.
bring_back() {
	local partial=$OUT/.partial.$BASHPID
	tar -C "$BACK" --exclude=model.safetensors -czf "$partial" . && mv "$partial" "$OUT/results.tar.gz"
}

# phase NAME SECONDS COMMAND ...
phase() {
	local name=$1 seconds=$2 started=$SECONDS status
	shift 2
	[ "$seconds" -gt 0 ] || seconds=1
	timeout --kill-after=5 "$seconds" "$@" >"$BACK/logs/$name.txt" 2>&1
	status=$?
	printf '%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - started)) "$seconds" >>"$BACK/phases.tsv"
	echo "$name: exit $status after $((SECONDS - started)) s of $seconds; at $SECONDS s of $LIMIT"
	tail -n 3 "$BACK/logs/$name.txt"
	bring_back
}

# parts NAME: the bundles of a training, in files small enough to come back.
parts() {
	[ -d "$BACK/$1" ] && tar -C "$BACK" -cf - "$1" | split -b 15m - "$OUT/$1.tar."
}

# training NAME SECONDS: a phase that leaves bundles.
training() {
	phase "train_$1" "$2" "$PYTHON" "$HERE/train.py" "$1" --seconds "$2" --chunks "$WORK/chunks" --work "$WORK" \
		--back "$BACK" "${TINY[@]}"
	parts "$1"
}

printf 'phase\texit\tseconds\tlimit\n' >"$BACK/phases.tsv"
phase install 60 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
	--target "$WORK/site" "$TRAVEL"/wheels/*.whl
phase machine 60 "$PYTHON" "$HERE/machine.py"

# While the tests run: the images are opened, and what compiles is compiled.
(
	for cohort in "$TRAVEL"/images/*/; do
		"$PYTHON" "$HERE/travel.py" open "$cohort" "$WORK/chunks/$(basename "$cohort")"
	done
	"$PYTHON" "$HERE/warm.py" "$DEVICE"
) >"$BACK/logs/open.txt" 2>&1 &
OPENING=$!

# The segmenter reads maps of labels with SimpleITK, which stays behind.
TESTS=(tests/models tests/noise tests/diffusion tests/training --ignore tests/training/test_segmenter.py)
if [ $DEVICE = cuda ]; then
	TINY=()
	phase tests 110 "$PYTHON" -m pytest -p no:cacheprovider -m cuda -n 6 --durations 10 "${TESTS[@]}"
	phase bench 100 "$PYTHON" benchmarks/peers.py --device cuda --repeats 5 --eager
	wait $OPENING
	phase profile 30 "$PYTHON" "$HERE/profile_step.py" ixi --chunks "$WORK/chunks" --work "$WORK/profile"
	phase memory 45 "$PYTHON" benchmarks/memory.py --device cuda
	REST=$(left)
else
	TINY=(--tiny)
	phase tests 600 "$PYTHON" -m pytest -p no:cacheprovider -q -k on_every_device "${TESTS[@]}"
	phase bench 600 "$PYTHON" benchmarks/peers.py --repeats 1 --only samplers simplex_fields
	wait $OPENING
	phase profile 300 "$PYTHON" "$HERE/profile_step.py" ixi --chunks "$WORK/chunks" --work "$WORK/profile" --tiny
	phase memory 300 "$PYTHON" benchmarks/memory.py --device cpu
	REST=600
fi

# Small networks leave much of a large card idle: the trainings run side by side.
if [ $DEVICE = cuda ]; then
	for cohort in ixi soop noddi; do training $cohort "$REST" & done
	wait
else
	for cohort in ixi soop noddi; do training $cohort "$REST"; done
fi
bring_back
cat "$BACK/phases.tsv"
ls -l "$OUT"
rm -rf "$WORK"
