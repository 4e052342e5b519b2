#!/usr/bin/env bash
# A day with a GPU, in under ten minutes and without a network: installs a wheel over the torch that
# is there, runs what only a GPU can run, and leaves everything in OUT, with a summary.
#
#   benchmarks/gpu_day.sh WHEEL [OUT]
#
# Run it in the folder that `cmake --build --preset test --target gpu_day` makes: it has the tests,
# the linked programs (programs.tar.xz), the packages that may be missing (wheels/) and the static
# report.
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
# What it said last is told beside what went wrong, and beside a count of tests: skipped is not run.
step() {
  local name=$1 limit=$2 start=$SECONDS code result why
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    echo "the time is up" > "$work/said"
    code=$not_run
  else
    limit=$limit timeout -k 5 "$limit" bash "$work/steps.sh" "$@" > "$work/said" 2>&1 < /dev/null
    code=$?
  fi
  why=$(grep -v '^ *$' "$work/said" | tail -n 1 | cut -c1-200)
  case $code in
    0) result=passed && { [[ $why =~ ^[0-9]+\ passed ]] || why=''; } ;;
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
  local pip=("$python" -m pip install --no-index --no-cache-dir --no-compile -q)  # the host's pip
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

# A wheel without machine code of a GPU lets the driver compile all kernels, for minutes.
info() {
  "$python" -m fanano info || exit 1
  "$python" -c 'import sys, fanano
found = fanano.build_info().get("cuda_machine_code", ())
print("machine code of", *found or ["no GPU"])
sys.exit(sys.argv[1] == "" and "sm_90a" not in found)' "$stand_in"
}

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

# tests FILE: interrupted before the step's limit, pytest still says what it knows; should it hang,
# what had failed has been said at once. Where there is a GPU, "no GPU" fails.
tests() {
  [ "$gpu" = yes ] || [ -n "$stand_in" ] || cannot "no GPU"
  cd "$root/tests/python" || exit 1
  [ -e "test_$1.py" ] || cannot "there is no test_$1.py"
  [ "$gpu" != yes ] || export FANANO_GPU_DAY=1
  local marked=cuda
  [ -z "$stand_in" ] || marked=  # all: those on the CPU are run, the others skipped
  timeout -s INT -k 10 $((limit > 24 ? limit - 12 : limit / 2)) \
    "$python" -m pytest -q -p no:cacheprovider -p failures_at_once -W default -m "$marked" \
    --junitxml "$out/test_$1.xml" "test_$1.py" | tee "$work/pytest"
  local code=${PIPESTATUS[0]}
  [ "$code" != 0 ] || grep -q ' passed' "$work/pytest" || cannot "$(tail -n 1 "$work/pytest")"
  exit "$code"
}

# find_program NAME: into $file; linked with cudart, or with the emulator, where that stands in.
find_program() {
  if [ -n "$stand_in" ]; then
    file=$stand_in/tests/cuda/cuda_$1
  elif [ "$gpu" = yes ]; then
    file=$work/programs/$1
    [ -e "$work/programs" ] || [ ! -e "$root/programs.tar.xz" ] ||
      "$python" -m tarfile -e "$root/programs.tar.xz" "$work" || exit 1
  else
    cannot "no GPU"
  fi
  [ -x "$file" ] || cannot "there is no program $1"
}

program() {
  find_program "$1"
  shift
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

# sanitizer TOOL PROGRAM: of so many launches of kernels, those of its first tests; each is some ten
# to a hundred times slower.
sanitizer() {
  find_program "$2"
  command -v compute-sanitizer > /dev/null || cannot "no compute-sanitizer"
  compute-sanitizer --tool "$1" --launch-count 40 --error-exitcode 1 "$file"
}

profile() {
  local size=(--device cuda --dtype bfloat16 --heads 16 --tokens 4096 --dim 128)
  if [ -n "$stand_in" ]; then
    size=(--device cpu --heads 1 --tokens 16 --dim 8 --rounds 1)
  elif [ "$gpu" != yes ]; then
    cannot "no GPU"
  fi
  "$python" -m fanano profile "${size[@]}" --json "$out/profile.json"
}

# Of the longest benchmark that has a row: the file is there before the first one.
calibrate() {
  [ "$gpu" = yes ] || [ -n "$stand_in" ] || cannot "no GPU"
  local report=$root/report.json result
  if [ -n "$stand_in" ]; then
    report=$work/report.json
    echo '[{"kernel": "flash_sm80_kernel<bfloat16, 64, false>", "machine": "sm_80",
            "numbers": {"bound": 50.0, "peak": 1000}, "limit": "stand-in"}]' > "$report"
  fi
  [ -e "$report" ] || cannot "no report.json of tests/cuda/report.py"
  for result in "$out/bench.json" "$out/bench-quick.json"; do
    "$python" -c 'import json, sys; sys.exit(not json.load(open(sys.argv[1]))["rows"])' \
      "$result" 2> /dev/null || continue
    "$python" "$root/benchmarks/calibrate.py" "$report" "$result" --json "$out/calibration.json"
    exit
  done
  cannot "no benchmark has a row"
}

# Everything above and its settings, for the processes of the steps.
{
  declare -p root wheel out stand_in host work python not_run
  declare -f cannot environment is_there info bench tests find_program program goldens programs \
    sanitizer profile calibrate
  printf 'set -uo pipefail\ngpu=$(cat "$work/gpu" 2> /dev/null)\n"$@"\n'
} > "$work/steps.sh"

# ---- the day, the most wanted first --------------------------------------------------------------
# Up to the repeats the limits are less than the day: each has its turn, even if all of them hang.
step environment 75 environment
step device 45 is_there
grep -q '^device  *passed' "$work/steps" && echo yes > "$work/gpu"
step info 20 info
step goldens 20 goldens
step "bench, quick" 65 bench --quick --json "$out/bench-quick.json"
step torch_cuda 70 tests torch_cuda
step torch_cuda_gradients 105 tests torch_cuda_gradients
step torch_cuda_views 40 tests torch_cuda_views
step torch_flash_cuda 35 tests torch_flash_cuda
step torch_dlpack_cuda 35 tests torch_dlpack_cuda
step torch_cuda_repeats 40 tests torch_cuda_repeats
step cupy 45 tests cupy
step jax_cuda 120 tests jax_cuda
programs=(softmax_test materialised_test flash_test flash_nan_test decode_test backward_sm80_test)
[ -z "$stand_in" ] || programs=(softmax_test)  # an emulator takes its time
step programs 60 programs "${programs[@]}"
for name in flash_nan decode backward_sm80; do
  for tool in memcheck racecheck; do
    step "$tool, ${name%_sm80}" 20 sanitizer "$tool" "${name}_test"
  done
done
step profile 45 profile
step "bench, full" $(($(left) - 15)) bench --dtype bfloat16 --json "$out/bench.json" \
  --seconds $(($(left) - 45))
step calibrate 10 calibrate

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
