#!/usr/bin/env bash
# Everything that a GPU is needed for, within ten minutes on a machine without network (docs/gpu.md):
#
#   bash benchmarks/device/run.sh TRAVEL OUT          # TRAVEL: from prepare.py; OUT: what is to be brought back
#   bash benchmarks/device/run.sh --cpu TRAVEL OUT    # the same phases on a CPU, tiny: a rehearsal
#   PHASES="tests bench" bash benchmarks/device/run.sh TRAVEL OUT    # only these; ONLY_TESTS, ONLY_BENCH: fewer of each
#   RECIPES="volumes,slices" bash benchmarks/device/run.sh TRAVEL OUT    # these trainings side by side; see config/
#
# Each phase has a limit of its own in seconds, leaves its results in OUT before the next begins, and stops none by failing.
# OUT holds results.tar.gz (logs, tables, curves, pictures) and trained bundles and samples in parts of 15 MiB.
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
PHASES=${PHASES:-tests bench profile memory train}
IFS=, read -ra RECIPES <<<"${RECIPES:-generator,refined,gaussian simplex coarse}"  # side by side; within commas one after the other
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
	tar -C "$BACK" --exclude=model.safetensors --exclude=samples.npz -czf "$partial" .
	[ $? -le 1 ] && mv "$partial" "$OUT/results.tar.gz"  # 1: another training wrote to its log meanwhile
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

# asked NAME: whether a phase is wanted.
asked() { [[ " $PHASES " == *" $1 "* ]]; }

# training SECONDS NAME ...: trainings one after the other, a phase each that leaves bundles; a fifth of it is for judging.
training() {
	local seconds=$(($1 / ($# - 1)))
	shift
	for name in "$@"; do
		phase "train_$name" "$seconds" "$PYTHON" "$HERE/train.py" "$name" --seconds $((seconds * 4 / 5)) --chunks "$WORK/chunks" \
			--work "$WORK" --back "$BACK" "${TINY[@]}"
	done
}

# large: trained bundles and samples, in files small enough to come back.
large() {
	(cd "$BACK" && { find . -name model.safetensors -printf '%h\0'; find . -name samples.npz -print0; } \
		| tar --null -T - -cf - | split -b 15m - "$OUT/large.tar.")
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
	for kind in slices thick; do
		"$PYTHON" "$HERE/derive.py" $kind "$WORK/chunks/volumes" "$WORK/chunks/$kind" &
	done
	asked bench && "$PYTHON" "$HERE/warm.py" "$DEVICE"
	wait
) >"$BACK/logs/open.txt" 2>&1 &
OPENING=$!

# The segmenter reads maps of labels with SimpleITK, which stays behind.
TESTS=(tests/models tests/noise tests/diffusion tests/training --ignore tests/training/test_segmenter.py)
[ -z "${ONLY_TESTS:-}" ] || read -ra TESTS <<<"$ONLY_TESTS"
read -ra BENCH <<<"${ONLY_BENCH:+--only $ONLY_BENCH}"
TINY=()
if [ $DEVICE = cuda ]; then
	asked tests && phase tests 150 "$PYTHON" -m pytest -p no:cacheprovider -q -m cuda -n 8 --durations 10 "${TESTS[@]}"
	wait $OPENING
	asked bench && phase bench 100 "$PYTHON" benchmarks/peers.py --device cuda --repeats 5 --eager "${BENCH[@]}"
	asked profile && phase profile 30 "$PYTHON" "$HERE/profile_step.py" slices --chunks "$WORK/chunks" --work "$WORK/profile"
else
	TINY=(--tiny) LIMIT=100000
	asked tests && phase tests 600 "$PYTHON" -m pytest -p no:cacheprovider -q -k on_every_device "${TESTS[@]}"
	wait $OPENING
	asked bench && phase bench 600 "$PYTHON" benchmarks/peers.py --repeats 1 --only samplers simplex_fields
	asked profile && phase profile 300 "$PYTHON" "$HERE/profile_step.py" slices --chunks "$WORK/chunks" --work "$WORK/profile" --tiny
	asked memory && phase memory 300 "$PYTHON" benchmarks/memory.py --device cpu
fi

# Small networks leave much of a large card idle: trainings run side by side. Six were too many: each got a fifth of its speed.
if asked train; then
	seconds=$(($(left) - 25))
	[ $DEVICE = cuda ] || seconds=900
	for names in "${RECIPES[@]}"; do
		# shellcheck disable=SC2086
		if [ $DEVICE = cuda ]; then training "$seconds" $names & else training "$seconds" $names; fi
	done
	# Nothing is timed in it.
	[ $DEVICE = cuda ] && asked memory && phase memory $((seconds < 200 ? seconds : 200)) "$PYTHON" benchmarks/memory.py --device cuda
	wait
	large
elif [ $DEVICE = cuda ] && asked memory; then
	phase memory 200 "$PYTHON" benchmarks/memory.py --device cuda
fi
bring_back
cat "$BACK/phases.tsv"
ls -l "$OUT"
rm -rf "$WORK"
