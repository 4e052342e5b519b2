// The verbs of a tile over memory that stays in the caches. Compiled once for each row of the ISA
// table, with its flags; nothing of the standard library, for the linker may keep one copy of it.
#include "cpu/absorb.hpp"
#include "micro.hpp"

#define FANANO_TEXT(x) #x
#define FANANO_NAME(x) FANANO_TEXT(x)

namespace fanano::FANANO_ISA {

namespace {

constexpr int64_t most_dim = 128;

// Three parts take one and a half times the room of what they are parts of, and have factors.
constexpr int64_t most_room = 2;
template <class A> struct Buffers {
  alignas(64) A q[most_room * most_dim * strip_rows<A>], k[most_room * tile_keys * most_dim],
      s[tile_keys * strip_rows<A>], p[most_room * tile_keys * strip_rows<A>],
      o[most_dim * strip_rows<A>], rows[most_room * Vec<A>::width * most_dim];
};
template <class A> Buffers<A> buffers;
alignas(64) char elements[tile_keys * most_dim * sizeof(double)];  // of any type

// Numbers that differ, as halves of pairs or as floats: memory that nobody has written to is one
// page of zeros, and multiplying zeros costs less.
void fill() {
  static bool filled = false;
  if (filled) return;
  filled = true;
  uint32_t bits = 1;
  auto some = [&](void* memory, size_t bytes) {
    for (auto x = static_cast<bfloat16*>(memory); bytes; bytes -= sizeof *x) {
      bits = bits * 1664525 + 1013904223;
      assign(*x++, float(int32_t(bits)) * 0x1p-31f);
    }
  };
  some(&buffers<float>, sizeof buffers<float>);
  some(&buffers<double>, sizeof buffers<double>);
  some(elements, sizeof elements);
}

// Sizes that the compiler does not know, as in the kernels.
int64_t opaque(int64_t n) {
  __asm__ volatile("" : "+r"(n));
  return n;
}

// Keeps what has been written, and thinks of everything as changed.
template <class F> double repeat(int64_t rounds, double work, F f) {
  fill();
  for (int64_t i = 0; i < rounds; ++i) {
    f();
    __asm__ volatile("" ::: "memory");
  }
  return double(rounds) * work;
}

template <class T, int Keys, int Dim> double score_of(int64_t rounds) {
  using A = accumulator_t<T>;
  using E = terms_t<T>;
  [[maybe_unused]] const Ready<E> ready;
  auto& b = buffers<A>;
  int64_t n = opaque(Keys), dim = opaque(Dim), step = opaque(1);
  auto x = reinterpret_cast<const T*>(elements);
  fill();
  auto q = reinterpret_cast<E*>(b.q);
  pack(x, dim, step, strip_rows<A>, dim, A(1), q, reinterpret_cast<E*>(b.rows));
  Operand<E> k = load(x, dim, step, n, dim, reinterpret_cast<E*>(b.k));
  return repeat(rounds, 2.0 * Keys * Dim * strip_rows<A>,
                [&] { score(q, k, n, dim, b.s).store(b.rows); });
}

template <class T, int Keys, int Dim> double accumulate_of(int64_t rounds) {
  using A = accumulator_t<T>;
  using E = terms_t<T>;
  [[maybe_unused]] const Ready<E> ready;
  auto& b = buffers<A>;
  int64_t n = opaque(Keys), dim = opaque(Dim), step = opaque(1);
  auto x = reinterpret_cast<const T*>(elements);
  fill();
  Operand<E> v = load_values(x, dim, step, n, dim, reinterpret_cast<E*>(b.k));
  Strip<A> alpha = Strip<A>::all(1);
  return repeat(rounds, 2.0 * Keys * Dim * strip_rows<A>,
                [&] { accumulate(reinterpret_cast<E*>(b.p), v, n, dim, alpha, b.o); });
}

// Vectors of a tile of values.
template <class T, int Dim> double load_values_of(int64_t rounds) {
  using A = accumulator_t<T>;
  int64_t dim = opaque(Dim), step = opaque(1);
  auto x = reinterpret_cast<const T*>(elements);
  auto to = reinterpret_cast<terms_t<T>*>(buffers<A>.k);
  return repeat(rounds, tile_keys * Dim / Vec<A>::width,
                [&] { load_values(x, dim, step, tile_keys, dim, to); });
}

// Weights of weights, or of ones: with maxima of 10 they stay normal numbers.
template <class T> double weigh_of(int64_t rounds) {
  using A = accumulator_t<T>;
  State<A> state{Strip<A>::all(10), Strip<A>::all(0), Strip<A>::all(0)};
  int64_t n = opaque(tile_keys);
  using E = terms_t<T>;
  fill();
  for (A& x : buffers<A>.s) x = 1;
  auto p = reinterpret_cast<E*>(parts<T, E> > 1 ? buffers<A>.p : buffers<A>.s);
  return repeat(rounds, tile_keys * M,
                [&] { weigh<parts<T, E>>(state, n, A(1), weights(A(0)), false, buffers<A>.s, p); });
}

template <class A, Vec<A> (*F)(Vec<A>)> double map(int64_t rounds) {
  auto& b = buffers<A>;
  int64_t n = opaque(tile_keys) * strip_rows<A>;
  return repeat(rounds, tile_keys * M, [&] {
    for (int64_t i = 0; i < n; i += Vec<A>::width) F(Vec<A>::load(b.s + i)).store(b.k + i);
  });
}
template <class A> Vec<A> exp2_of(Vec<A> x) { return exp2(x, A(1 - bias<A>)); }
template <class A> Vec<A> tanh_of(Vec<A> x) { return tanh(x); }

template <class T, int Dim> double pack_of(int64_t rounds) {
  using A = accumulator_t<T>;
  auto& b = buffers<A>;
  int64_t dim = opaque(Dim), step = opaque(1);
  return repeat(rounds, Dim * M, [&] {
    pack(reinterpret_cast<const T*>(elements), dim, step, strip_rows<A>, dim, A(1), b.q, b.rows);
  });
}

template <class T, int Dim> double unpack_of(int64_t rounds) {
  using A = accumulator_t<T>;
  auto& b = buffers<A>;
  int64_t dim = opaque(Dim), step = opaque(1);
  Strip<A> factor = Strip<A>::all(1);
  return repeat(rounds, Dim * M, [&] {
    unpack(b.o, factor, strip_rows<A>, dim, reinterpret_cast<T*>(elements), dim, step, b.rows);
  });
}

template <class T> double widen_of(int64_t rounds) {
  int64_t n = opaque(1024), step = opaque(1);
  return repeat(rounds, 1024.0 / Vec<float>::width,
                [&] { widen(reinterpret_cast<const T*>(elements), step, buffers<float>.k, n); });
}

template <class T> double narrow_of(int64_t rounds) {
  int64_t n = opaque(1024), step = opaque(1);
  return repeat(rounds, 1024.0 / Vec<float>::width,
                [&] { narrow(buffers<float>.k, reinterpret_cast<T*>(elements), step, n); });
}

constexpr Micro all[] = {
    {"score, float32, 32 keys, D = 64", true, score_of<float, 32, 64>},
    {"score, float32, 128 keys, D = 64", true, score_of<float, 128, 64>},
    {"score, float32, 128 keys, D = 128", true, score_of<float, 128, 128>},
    {"score, float64, 128 keys, D = 64", true, score_of<double, 128, 64>},
    {"score, bfloat16, 128 keys, D = 64", true, score_of<bfloat16, 128, 64>},
    {"score, bfloat16, 128 keys, D = 128", true, score_of<bfloat16, 128, 128>},
    {"score, float16, 128 keys, D = 64", true, score_of<float16, 128, 64>},
    {"score, float16, 128 keys, D = 128", true, score_of<float16, 128, 128>},
    {"accumulate, float32, 32 keys, D = 64", true, accumulate_of<float, 32, 64>},
    {"accumulate, float32, 128 keys, D = 64", true, accumulate_of<float, 128, 64>},
    {"accumulate, float32, 128 keys, D = 128", true, accumulate_of<float, 128, 128>},
    {"accumulate, float64, 128 keys, D = 64", true, accumulate_of<double, 128, 64>},
    {"accumulate, bfloat16, 128 keys, D = 64", true, accumulate_of<bfloat16, 128, 64>},
    {"accumulate, bfloat16, 128 keys, D = 128", true, accumulate_of<bfloat16, 128, 128>},
    {"accumulate, float16, 128 keys, D = 64", true, accumulate_of<float16, 128, 64>},
    {"accumulate, float16, 128 keys, D = 128", true, accumulate_of<float16, 128, 128>},
    {"weigh, float32", false, weigh_of<float>},
    {"weigh, float64", false, weigh_of<double>},
    {"weigh, bfloat16", false, weigh_of<bfloat16>},
    {"weigh, float16", false, weigh_of<float16>},
    {"load_values, float32, D = 64", false, load_values_of<float, 64>},
    {"load_values, float16, D = 64", false, load_values_of<float16, 64>},
    {"load_values, bfloat16, D = 64", false, load_values_of<bfloat16, 64>},
    {"exp2, float32", false, map<float, exp2_of>},
    {"exp2, float64", false, map<double, exp2_of>},
    {"tanh, float32", false, map<float, tanh_of>},
    {"pack, float32, D = 64", false, pack_of<float, 64>},
    {"pack, bfloat16, D = 64", false, pack_of<bfloat16, 64>},
    {"pack, float16, D = 64", false, pack_of<float16, 64>},
    {"unpack, float32, D = 64", false, unpack_of<float, 64>},
    {"unpack, bfloat16, D = 64", false, unpack_of<bfloat16, 64>},
    {"unpack, float16, D = 64", false, unpack_of<float16, 64>},
    {"widen, bfloat16", false, widen_of<bfloat16>},
    {"widen, float16", false, widen_of<float16>},
    {"narrow, bfloat16", false, narrow_of<bfloat16>},
    {"narrow, float16", false, narrow_of<float16>},
};

}  // namespace

extern const MicroTable micro_table;
const MicroTable micro_table{FANANO_NAME(FANANO_ISA), Vec<float>::width, all,
                             all + sizeof all / sizeof *all};

}  // namespace fanano::FANANO_ISA
