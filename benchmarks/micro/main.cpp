// Each verb of a tile beside the loop of multiply-adds of the same instruction set, by turns:
//
//     cmake --preset test && cmake --build --preset test --target fanano_micro
//     build/test/benchmarks/micro/fanano_micro [milliseconds of a sample: 2]
//
// Products are told as their part of that loop's rate, everything else in nanoseconds a vector, and
// in the multiply-adds of a vector that take as long. Medians of nine
// samples, each between two of the loop: clocks fall and rise within milliseconds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "cpu/isa.hpp"
#include "cpu/kernels.hpp"
#include "float_mode.hpp"
#include "table.hpp"

using namespace fanano;

namespace {

// Of this thread: another program's turns do not count.
double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// Work a second of f(rounds).
template <class F> double rate(F f, int64_t rounds) {
  double begin = now(), work = f(rounds);
  return work / std::max(now() - begin, 1e-9);
}

template <class F> int64_t rounds_for(F f, double seconds) {
  double work_of_one = f(1);
  f(16);  // warm
  return std::max<int64_t>(1, int64_t(seconds * rate(f, 64) / work_of_one));
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

void measure(const Micro& micro, int width, const Kernels& kernels, double seconds) {
  auto of = [&](const char* name) { return std::strstr(micro.name, name) != nullptr; };
  Dtype dtype = of("float64")                      ? Dtype::float64
                : micro.products && of("bfloat16") ? Dtype::bfloat16
                                                   : Dtype::float32;
  auto peak_loop = [&](int64_t n) { return kernels.peak(dtype, n); };
  int64_t rounds = rounds_for(micro.run, seconds);
  int64_t peak_rounds = rounds_for(peak_loop, seconds);
  std::vector<double> ratios, times;
  double before = rate(peak_loop, peak_rounds);
  for (int sample = 0; sample < 9; ++sample) {
    double mine = rate(micro.run, rounds), after = rate(peak_loop, peak_rounds);
    double peak = (before + after) / 2;
    times.push_back(1e9 / mine);
    ratios.push_back(micro.products ? mine / peak : peak / mine);
    before = after;
  }
  if (micro.products)
    std::printf("  %-40s %5.2f of the peak\n", micro.name, median(ratios));
  else
    std::printf("  %-40s %5.2f ns a vector, %5.1f multiply-adds\n", micro.name, median(times),
                median(ratios) / (2 * width));
}

}  // namespace

int main(int count, char** arguments) {
  double seconds = 1e-3 * (count > 1 ? std::atof(arguments[1]) : 2);
  FloatMode mode;
  for (const MicroTable* table : micro_tables) {
    for (const Kernels* kernels : compiled_isas()) {
      if (std::strcmp(kernels->isa, table->isa) != 0) continue;
      if (uint32_t missing = kernels->features & ~machine_features()) {
        std::printf("%s: this CPU lacks %s\n", table->isa, feature_names(missing).c_str());
        continue;
      }
      if (!obtain(*kernels)) {
        std::printf("%s: refused by the system\n", table->isa);
        continue;
      }
      auto peak_loop = [&](int64_t n) { return kernels->peak(Dtype::float32, n); };
      int64_t rounds = rounds_for(peak_loop, 0.02);
      std::printf("%s: %.1f GFLOP/s of multiply-adds, float32, one thread\n", table->isa,
                  rate(peak_loop, rounds) / 1e9);
      for (const Micro* micro = table->begin; micro != table->end; ++micro)
        measure(*micro, table->width, *kernels, seconds);
    }
  }
}
