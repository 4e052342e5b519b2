// The C++ API against a double loop: every dtype, algorithm and mask, on the instruction set that
// FANANO_ISA names. How close is close is judged by the Python tests; here it is what users meet.
#include "attention.hpp"

#include <cstring>
#include <random>

#include "check.hpp"
#include "errors.hpp"
#include "math/numbers.hpp"

using namespace fanano;

namespace {

// A row-major array of any of the four types, with its description.
struct Owned {
  std::vector<char> bytes;
  std::vector<int64_t> shape, strides;
  Array array;

  Owned(Dtype dtype, std::vector<int64_t> sizes) : shape(sizes), strides(sizes.size()) {
    int64_t n = 1;
    for (size_t i = sizes.size(); i-- > 0;) strides[i] = n, n *= sizes[i];
    bytes.resize(size_t(n * size_of(dtype)) + 1);
    array = {bytes.data(), dtype, int(sizes.size()), shape.data(), strides.data(), true};
  }
  Owned(const Owned&) = delete;

  double operator[](int64_t i) const {
    const void* p = array.data;
    switch (array.dtype) {
      case Dtype::float64: return static_cast<const double*>(p)[i];
      case Dtype::float32: return static_cast<const float*>(p)[i];
      case Dtype::bfloat16: return to_float(static_cast<const bfloat16*>(p)[i]);
      case Dtype::float16: return to_float(static_cast<const float16*>(p)[i]);
      case Dtype::boolean: break;
    }
    return 0;
  }
  void set(int64_t i, double x) {
    void* p = array.data;
    switch (array.dtype) {
      case Dtype::float64: static_cast<double*>(p)[i] = x; break;
      case Dtype::float32: static_cast<float*>(p)[i] = float(x); break;
      case Dtype::bfloat16: static_cast<bfloat16*>(p)[i] = to_bfloat16(float(x)); break;
      case Dtype::float16: static_cast<float16*>(p)[i] = to_float16(float(x)); break;
      case Dtype::boolean: break;
    }
  }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }
  void fill(int seed) {
    std::mt19937 bits(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < size(); ++i) set(i, normal(bits));
  }
};

struct Sizes { int64_t batch, heads, kv_heads, queries, keys, dim, value_dim; };

const double tolerance[] = {1e-13, 2e-6, 2e-2, 3e-3};  // by dtype

void check_attention(Dtype dtype, Algorithm algorithm, Sizes s, bool causal, bool lengths) {
  Owned q(dtype, {s.batch, s.heads, s.queries, s.dim});
  Owned k(dtype, {s.batch, s.kv_heads, s.keys, s.dim});
  Owned v(dtype, {s.batch, s.kv_heads, s.keys, s.value_dim});
  Owned out(dtype, {s.batch, s.heads, s.queries, s.value_dim});
  Owned lse(accumulator(dtype), {s.batch, s.heads, s.queries});
  q.fill(1), k.fill(2), v.fill(3), out.fill(4), lse.fill(5);

  std::vector<int64_t> used;
  for (int64_t b = 0; b < s.batch; ++b) used.push_back(s.keys * (b + 1) / (s.batch + 1));
  Request request;
  request.query = q.array, request.key = k.array, request.value = v.array;
  request.out = &out.array, request.lse = &lse.array;
  request.is_causal = causal, request.algorithm = algorithm;
  if (lengths) request.kv_lengths = {used.data(), s.batch, false};
  Description description(request);
  forward(description.problem());

  double allowed = tolerance[int(dtype)];
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) {
        int64_t g = h / (s.heads / s.kv_heads), row = (b * s.heads + h) * s.queries + i;
        int64_t keys = lengths ? used[size_t(b)] : s.keys, end = keys;
        if (causal) end = std::min(keys, i + keys - s.queries + 1);
        double sum = 0;
        std::vector<double> o(size_t(s.value_dim));
        for (int64_t j = 0; j < end; ++j) {
          int64_t at = (b * s.kv_heads + g) * s.keys + j;
          double score = 0;
          for (int64_t d = 0; d < s.dim; ++d) score += q[row * s.dim + d] * k[at * s.dim + d];
          double p = std::exp(score / std::sqrt(double(s.dim)));
          sum += p;
          for (int64_t d = 0; d < s.value_dim; ++d) o[size_t(d)] += p * v[at * s.value_dim + d];
        }
        for (int64_t d = 0; d < s.value_dim; ++d)
          CHECK_CLOSE(out[row * s.value_dim + d], sum > 0 ? o[size_t(d)] / sum : 0, allowed);
        double expected = std::log(sum);
        CHECK_CLOSE(lse[row], expected, dtype == Dtype::float64 ? 1e-13 : 3e-6);
      }
}

// A problem with everything that backward reads and writes.
struct Differentiated {
  Sizes s;
  Owned q, k, v, out, dout, lse, dlse, dq, dk, dv;

  Differentiated(Dtype t, Sizes s)
      : s(s), q(t, {s.batch, s.heads, s.queries, s.dim}),
        k(t, {s.batch, s.kv_heads, s.keys, s.dim}),
        v(t, {s.batch, s.kv_heads, s.keys, s.value_dim}),
        out(t, {s.batch, s.heads, s.queries, s.value_dim}), dout(t, out.shape),
        lse(accumulator(t), {s.batch, s.heads, s.queries}), dlse(accumulator(t), lse.shape),
        dq(t, q.shape), dk(t, k.shape), dv(t, v.shape) {
    q.fill(1), k.fill(2), v.fill(3), dout.fill(4), dlse.fill(5);
  }

  Request request(bool causal) const {
    Request r;
    r.query = q.array, r.key = k.array, r.value = v.array, r.is_causal = causal;
    r.out = &out.array, r.lse = &lse.array;
    return r;
  }
  double loss(bool causal) const {
    Description description(request(causal));
    forward(description.problem());
    double sum = 0;
    for (int64_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
    for (int64_t i = 0; i < lse.size(); ++i)
      if (lse[i] > -HUGE_VAL) sum += lse[i] * dlse[i];
    return sum;
  }
  void run(bool causal) const {
    loss(causal);
    Request r = request(causal);
    r.out = r.lse = nullptr;
    Description description(r);
    description.read({dout.array, out.array, lse.array, &dlse.array, false});
    description.write_to({&dq.array, &dk.array, &dv.array, nullptr, nullptr});
    backward(description.problem());
  }
};

const Sizes differentiated[] = {{2, 4, 2, 33, 150, 24, 17}, {1, 2, 1, 300, 40, 7, 5}};

const Dtype dtypes[] = {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16};
const Algorithm algorithms[] = {Algorithm::flash, Algorithm::naive, Algorithm::safe,
                                Algorithm::online};

}  // namespace

TEST(attention_against_a_double_loop) {
  for (Dtype dtype : dtypes)
    for (Algorithm algorithm : algorithms)
      for (bool causal : {false, true})
        for (bool lengths : {false, true})
          for (Sizes s : {Sizes{2, 4, 2, 33, 150, 24, 17}, Sizes{1, 2, 1, 70, 40, 7, 5},
                          Sizes{3, 1, 1, 1, 129, 64, 64}, Sizes{1, 1, 1, 5, 1, 1, 1}})
            check_attention(dtype, algorithm, s, causal, lengths);
}

TEST(backward_against_differences) {
  for (Sizes s : differentiated)
    for (bool causal : {false, true}) {
      Differentiated x(Dtype::float64, s);
      x.run(causal);
      for (auto [input, gradient] :
           {std::pair(&x.q, &x.dq), std::pair(&x.k, &x.dk), std::pair(&x.v, &x.dv)}) {
        Owned direction(Dtype::float64, input->shape), at(Dtype::float64, input->shape);
        direction.fill(6);
        for (int64_t i = 0; i < at.size(); ++i) at.set(i, (*input)[i]);
        double loss[2], slope = 0, h = 1e-5;
        for (int side : {0, 1}) {
          for (int64_t i = 0; i < at.size(); ++i)
            input->set(i, at[i] + (side ? h : -h) * direction[i]);
          loss[side] = x.loss(causal);
        }
        for (int64_t i = 0; i < at.size(); ++i) {
          input->set(i, at[i]);
          slope += (*gradient)[i] * direction[i];
        }
        CHECK_CLOSE(slope, (loss[1] - loss[0]) / (2 * h), 1e-6);
      }
    }
}

TEST(backward_of_every_dtype) {
  for (Dtype dtype : {Dtype::float32, Dtype::bfloat16, Dtype::float16})
    for (Sizes s : differentiated) {
      Differentiated low(dtype, s), exact(Dtype::float64, s);
      const std::pair<const Owned*, Owned*> same[] = {{&low.q, &exact.q},
                                                      {&low.k, &exact.k},
                                                      {&low.v, &exact.v},
                                                      {&low.dout, &exact.dout},
                                                      {&low.dlse, &exact.dlse}};
      for (auto [from, to] : same)
        for (int64_t i = 0; i < to->size(); ++i) to->set(i, (*from)[i]);
      low.run(true), exact.run(true);
      for (auto [got, expected] : {std::pair(&low.dq, &exact.dq), std::pair(&low.dk, &exact.dk),
                                   std::pair(&low.dv, &exact.dv)})
        for (int64_t i = 0; i < got->size(); ++i)
          CHECK_CLOSE((*got)[i], (*expected)[i],
                      4 * tolerance[int(dtype)] * (1 + std::fabs((*expected)[i])));
    }
}

TEST(backward_writes_to_places_of_their_own) {
  Differentiated x(Dtype::float32, differentiated[1]);
  Request request = x.request(false);
  request.out = request.lse = nullptr;
  Description description(request);
  description.read({x.dout.array, x.out.array, x.lse.array, nullptr, false});
  auto write_to = [&](const Array& dq, const Array& dk) {
    description.write_to({&dq, &dk, &x.dv.array, nullptr, nullptr});
  };
  CHECK_THROWS(ValueError, "dq shares its memory range with query",
               write_to(x.q.array, x.dk.array));
  CHECK_THROWS(ValueError, "dk must have shape", write_to(x.dq.array, x.dq.array));
  Array read_only = x.dk.array;
  read_only.writable = false;
  CHECK_THROWS(ValueError, "dk is read-only", write_to(x.dq.array, read_only));
  write_to(x.dq.array, x.dk.array);
}

TEST(the_worked_example_as_attention) {
  // One query 1, keys a, values 1 in the first half: the weight of that half.
  const double a[] = {0.1, 0.5, 0.4, 0.2, 0.3, 0.3};
  for (Algorithm algorithm : algorithms) {
    Owned q(Dtype::float64, {1, 1}), k(Dtype::float64, {6, 1}), v(Dtype::float64, {6, 1});
    Owned out(Dtype::float64, {1, 1}), lse(Dtype::float64, {1});
    q.set(0, 1);
    for (int j = 0; j < 6; ++j) k.set(j, a[j]), v.set(j, j < 3);
    Request request;
    request.query = q.array, request.key = k.array, request.value = v.array;
    request.out = &out.array, request.lse = &lse.array, request.algorithm = algorithm;
    Description description(request);
    forward(description.problem());
    CHECK_CLOSE(std::exp(lse[0] - 0.5), 4.95344, 1e-5);
    CHECK_CLOSE(out[0], 2.57516 / 4.95344, 1e-5);
  }
}

TEST(softmax_along_each_axis) {
  for (Dtype dtype : dtypes)
    for (Algorithm algorithm : {Algorithm::naive, Algorithm::safe, Algorithm::online})
      for (int axis : {0, 1, 2}) {
        const int64_t n[] = {3, 5, 7};
        Owned x(dtype, {3, 5, 7}), out(dtype, {3, 5, 7});
        x.fill(6), out.fill(7);
        softmax(x.array, out.array, axis, algorithm);
        int64_t step = x.strides[size_t(axis)];
        for (int64_t i = 0; i < 105; ++i) {
          int64_t first = i - i / step % n[axis] * step;
          double sum = 0;
          for (int64_t j = 0; j < n[axis]; ++j) sum += std::exp(x[first + j * step]);
          CHECK_CLOSE(out[i], std::exp(x[i]) / sum, tolerance[int(dtype)]);
        }
      }
}

TEST(absorbing_the_worked_example) {
  Owned x(Dtype::float64, {6});
  const double a[] = {0.1, 0.5, 0.4, 0.2, 0.3, 0.3};
  for (int i = 0; i < 6; ++i) x.set(i, a[i]);
  int64_t three = 3;
  Array first = x.array, second = x.array;
  first.shape = second.shape = &three;
  second.data = static_cast<double*>(x.array.data) + 3;
  OnlineSoftmax<double> left = absorb({}, first), right = absorb({}, second);
  CHECK_CLOSE(left.l, 2.57516, 1e-5);
  CHECK_CLOSE(right.l, 2.90484, 1e-5);
  CHECK_CLOSE(merge(left, right).l, 4.95344, 1e-5);
  CHECK_CLOSE(absorb(left, second).lse(), merge(left, right).lse(), 1e-14);
}

TEST(merging_two_halves) {
  Owned a(Dtype::float32, {4, 3}), b(Dtype::float32, {4, 3}), out(Dtype::float32, {4, 3});
  Owned la(Dtype::float32, {4}), lb(Dtype::float32, {4}), lse(Dtype::float32, {4});
  a.fill(8), b.fill(9), la.fill(10), lb.fill(11);
  la.set(2, -HUGE_VAL), la.set(3, -HUGE_VAL), lb.set(3, -HUGE_VAL);
  merge_states(a.array, la.array, b.array, lb.array, out.array, lse.array);
  for (int i = 0; i < 4; ++i) {
    double wa = std::exp(la[i]), wb = std::exp(lb[i]), sum = wa + wb;
    CHECK_CLOSE(lse[i], std::log(sum), 1e-6);
    for (int d = 0; d < 3; ++d) {
      double expected = sum > 0 ? (wa * a[i * 3 + d] + wb * b[i * 3 + d]) / sum : 0;
      CHECK_CLOSE(out[i * 3 + d], expected, 1e-6);
    }
  }
}
