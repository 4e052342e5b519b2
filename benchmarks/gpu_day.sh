#!/usr/bin/env bash
# A day with a GPU, in under ten minutes and without a network: installs a wheel over the torch that
# is there, runs what only a GPU can run, and leaves everything in OUT, with a summary.
#
#   benchmarks/gpu_day.sh WHEEL [OUT]
#
# Run it in the folder that `cmake --build --preset test --target gpu_day` makes: it has the tests,
# the linked programs (programs/), the packages that may be missing (wheels/) and the static report.
# Each step has its own limit of time, and none stops another. Exit code 1: a step failed.
#
#   FANANO_GPU_DAY_SECONDS   for all steps (default 560); the full benchmark takes what is left
#   FANANO_GPU_DAY_PYTHON    the python that has torch (default python3)
#   FANANO_GPU_DAY_STAND_IN  a build of the tests without a GPU: its emulator does what it can, and
#                            what needs a GPU counts as not run
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | grep -v '^set' >&2; exit 2; }
wheel=$(realpath "$1")
out=$(realpath -m "${2:-gpu-day-$(date +%F)}")
stand_in=${FANANO_GPU_DAY_STAND_IN:+$(realpath "$FANANO_GPU_DAY_STAND_IN")}
seconds=${FANANO_GPU_DAY_SECONDS:-560}
host=${FANANO_GPU_DAY_PYTHON:-python3}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
not_run=77  # what a step exits with that could not be tried; the last line it says is why
unset PYTHONPATH PYTHONHOME FANANO_STAGE FANANO_BUILD_DIR  # what is tested is the wheel
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
: > "$out/log.txt"
: > "$work/steps"

left() { echo $((seconds - SECONDS)); }
cannot() { echo "$*"; exit $not_run; }

# step NAME LIMIT FUNCTION [ARGUMENT ...]: in a process of its own, which is killed at its limit.
step() {
  local name=$1 limit=$2 start=$SECONDS code result why
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    echo "the time is up" > "$work/said"
    code=$not_run
  else
    timeout -k 5 "$limit" bash "$work/steps.sh" "$@" > "$work/said" 2>&1 < /dev/null
    code=$?
  fi
  why=$(grep -v '^ *$' "$work/said" | tail -n 1 | cut -c1-200)
  case $code in
    0) result=passed why='' ;;
    "$not_run") result="not run" ;;
    124 | 137) result="timed out" why="after $limit s" ;;
    *) result=failed ;;
  esac
  { printf '\n==== %s: %s\n' "$name" "$result"; cat "$work/said"; } >> "$out/log.txt"
  printf '%-22s %-9s %4d s  %s\n' "$name" "$result" $((SECONDS - start)) "$why" |
    tee -a "$work/steps"
}

# ---- the steps -----------------------------------------------------------------------------------
# The environment sees what the python that has torch sees, which may be an environment itself.
environment() {
  "$host" -m venv --without-pip --system-site-packages "$work/env" || exit 1
  "$host" -c 'import site, sys
print("\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))' \
    > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/host.pth" || exit 1
  local pip=("$host" -m pip --python "$python" install --no-index --no-cache-dir -q)
  "${pip[@]}" --force-reinstall --no-deps "$wheel" || exit 1
  "${pip[@]}" --find-links "$root/wheels" nanobind-backend numpy ml_dtypes rich pytest hypothesis ||
    exit 1
  "$python" -c 'import fanano; print(fanano.__file__)' | grep "^$work/env/"
}

is_there() {
  nvidia-smi || echo "no nvidia-smi"
  uname -a
  "$python" -c 'import sys, torch
print("torch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())
if not torch.cuda.is_available():
    print("no GPU")
    sys.exit(77)
print(torch.cuda.get_device_properties())'
}

info() { "$python" -m fanano info; }

# Where the emulator stands in, its own module is in front of the wheel's.
bench() {
  if [ -n "$stand_in" ]; then
    PYTHONPATH=$stand_in/tests/stage_cuda "$python" "$root/tests/python/emulated_bench.py" \
      bench --device cuda "$@" --rounds 1
  elif [ "$gpu" = yes ]; then
    "$python" -m fanano bench --device cuda "$@"
  else
    cannot "no GPU"
  fi
}

tests() {
  [ "$gpu" = yes ] || [ -n "$stand_in" ] || cannot "no GPU"
  cd "$root/tests/python" || exit 1
  "$python" -m pytest -q -p no:cacheprovider -m cuda "$@" $(grep -lE 'mark\.cuda|on_a_gpu' test_*.py) |
    tee "$work/pytest"
  local code=${PIPESTATUS[0]}
  [ "$code" != 0 ] || grep -q ' passed' "$work/pytest" || cannot "no GPU"
  exit "$code"
}

repeats() {
  [ "$gpu" = yes ] || cannot "no GPU"
  tests -k thousand
}

# program NAME [ARGUMENT ...]: linked with cudart; or with the emulator, where that stands in.
program() {
  local file=$root/programs/$1 name=$1
  shift
  if [ -n "$stand_in" ]; then
    file=$stand_in/tests/cuda/cuda_$name
  elif [ "$gpu" != yes ]; then
    cannot "no GPU"
  fi
  [ -x "$file" ] || cannot "there is no program $name"
  "$file" "$@"
}

goldens() { program conformance --record "$out"; }

programs() {
  local name code=0 ran=0
  for name in "$@"; do
    (program "$name")
    case $? in 0) ran=1 ;; "$not_run") ;; *) code=1 && echo "$name failed" ;; esac
  done
  [ $code = 0 ] || exit 1
  [ $ran = 1 ] || cannot "none of these programs is there"
}

sanitizer() {
  [ "$gpu" = yes ] || cannot "no GPU"
  command -v compute-sanitizer > /dev/null || cannot "no compute-sanitizer"
  compute-sanitizer --tool "$1" --error-exitcode 1 "$root/programs/$2"
}

profile() {
  [ "$gpu" = yes ] || cannot "no GPU"
  "$python" -m fanano profile --device cuda --dtype bfloat16 --heads 16 --tokens 4096 --dim 128 \
    --json "$out/profile.json"
}

calibrate() {
  [ -e "$root/report.json" ] || cannot "no report.json of tests/cuda/report.py"
  [ "$gpu" = yes ] || cannot "no GPU"
  "$python" "$root/benchmarks/calibrate.py" "$root/report.json" "$1" --json "$out/calibration.json"
}

# Everything above and its settings, for the processes of the steps.
{
  declare -p root wheel out stand_in host work python not_run
  declare -f cannot environment is_there info bench tests repeats program goldens programs sanitizer \
    profile calibrate
  printf 'set -uo pipefail\ngpu=$(cat "$work/gpu" 2> /dev/null)\n"$@"\n'
} > "$work/steps.sh"

# ---- the day, the most wanted first --------------------------------------------------------------
step environment 120 environment
step device 120 is_there
grep -q '^device  *passed' "$work/steps" && echo yes > "$work/gpu"
step info 30 info
step goldens 30 goldens
step "bench, quick" 90 bench --quick --json "$out/bench-quick.json"
step "pytest -m cuda" 120 tests -k "not thousand"
step "a thousand repeats" 90 repeats
if [ -n "$stand_in" ]; then
  step programs 60 programs softmax_test
else
  step programs 60 programs softmax_test materialised_test flash_test flash_nan_test
fi
step memcheck 45 sanitizer memcheck flash_nan_test
step racecheck 45 sanitizer racecheck flash_nan_test
step profile 60 profile
step "bench, full" $(($(left) - 15)) bench --dtype bfloat16 --json "$out/bench.json" \
  --seconds $(($(left) - 45))
result=$out/bench.json
[ -e "$result" ] || result=$out/bench-quick.json
step calibrate 10 calibrate "$result"

# ---- the summary ---------------------------------------------------------------------------------
{
  echo "fanano's GPU day, $(date -u +%FT%RZ), $(basename "$wheel")"
  if [ -n "$stand_in" ]; then echo "no GPU: the emulator stood in"; fi
  grep -m1 -E 'Driver Version' "$out/log.txt"
  grep -m1 -E '_CudaDeviceProperties' "$out/log.txt"
  cat "$work/steps"
  for result in passed failed "timed out" "not run"; do
    printf '%s: %d  ' "$result" "$(grep -c "^.\{22\} $result " "$work/steps")"
  done
  echo
} > "$out/summary.txt"
echo
cat "$out/summary.txt"
! grep -qE '^.{22} (failed|timed out) ' "$work/steps"
