#include "xla/call.hpp"

#include <stdexcept>

namespace fanano {
namespace {

namespace ffi = xla::ffi;

[[noreturn]] void fail(const char* name, const std::string& why) {
  throw std::runtime_error(std::string("fanano: ") + name + ": " + why);
}

Dtype dtype_of(const ffi::AnyBuffer& x) {
  switch (x.element_type()) {
    case ffi::DataType::F64: return Dtype::float64;
    case ffi::DataType::F32: return Dtype::float32;
    case ffi::DataType::BF16: return Dtype::bfloat16;
    case ffi::DataType::F16: return Dtype::float16;
    case ffi::DataType::PRED: return Dtype::boolean;
    default:
      throw std::runtime_error("fanano: an operand or result is of a dtype it does not know");
  }
}

// The numbers of a small operand, as those of another type.
template <class From, class To> std::vector<To> copied(const ffi::AnyBuffer& x) {
  auto from = static_cast<const From*>(x.untyped_data());
  return {from, from + x.element_count()};
}

DeviceNumbers numbers_on_device(const ffi::AnyBuffer& x, DeviceNumbers::Kind kind) {
  auto shape = x.dimensions();
  const int64_t columns = shape.size() ? shape[shape.size() - 1] : 1;
  return {x.untyped_data(), kind, columns, columns, 1};
}

}  // namespace

template <class T> std::optional<T> Call::attribute(const char* name) const {
  if (!attributes_.contains(name)) return {};
  ffi::ErrorOr<T> value = attributes_.get<T>(name);
  if (!value.has_value()) fail(name, value.error().message());
  return value.value();
}

template std::optional<double> Call::attribute<double>(const char*) const;
template std::optional<int64_t> Call::attribute<int64_t>(const char*) const;

std::string Call::word(const char* name) const {
  auto value = attribute<std::string_view>(name);
  if (!value) fail(name, "is missing");
  return std::string(*value);
}

std::optional<ffi::AnyBuffer> Call::buffer(const char* name) const {
  std::optional<int64_t> place = integer(name);
  if (!place) return {};
  auto found = operands_.get<ffi::AnyBuffer>(size_t(*place));
  if (!found.has_value()) fail(name, found.error().message());
  return *found;
}

const Array* Call::describe(const ffi::AnyBuffer& x) {
  auto dimensions = x.dimensions();
  Described& d = arrays_.emplace_back();
  d.shape.assign(dimensions.begin(), dimensions.end());
  d.strides.assign(d.shape.size(), 1);
  for (size_t i = d.shape.size(); i-- > 1;) d.strides[i - 1] = d.strides[i] * d.shape[i];
  d.array = {x.untyped_data(), dtype_of(x), int(d.shape.size()), d.shape.data(), d.strides.data()};
  return &d.array;
}

const Array* Call::operand(const char* name) {
  std::optional<ffi::AnyBuffer> x = buffer(name);
  return x ? describe(*x) : nullptr;
}

const Array* Call::result(const char* name) {
  std::optional<int64_t> place = integer(name);
  if (!place) return nullptr;
  auto found = results_.get<ffi::AnyBuffer>(size_t(*place));
  if (!found.has_value()) fail(name, found.error().message());
  return describe(**found);
}

Integers Call::integers(const char* name, DeviceNumbers& there) {
  std::optional<ffi::AnyBuffer> x = buffer(name);
  if (!x) return {};
  bool wide = x->element_type() == ffi::DataType::S64;
  if (!wide && x->element_type() != ffi::DataType::S32) fail(name, "must be int32 or int64");
  if (where_ == on_device) {
    there = numbers_on_device(*x, wide ? DeviceNumbers::int64 : DeviceNumbers::int32);
    return {static_cast<const int64_t*>(there.data), int64_t(x->element_count()), false, true};
  }
  const auto& numbers =
      integers_.emplace_back(wide ? copied<int64_t, int64_t>(*x) : copied<int32_t, int64_t>(*x));
  return {numbers.data(), int64_t(numbers.size())};
}

Reals Call::reals(const char* name, DeviceNumbers& there) {
  std::optional<ffi::AnyBuffer> x = buffer(name);
  if (!x) return {};
  bool wide = x->element_type() == ffi::DataType::F64;
  if (!wide && x->element_type() != ffi::DataType::F32) fail(name, "must be float32 or float64");
  auto shape = x->dimensions();
  if (shape.size() > 2) fail(name, "must have at most two axes");
  Reals r{nullptr, int(shape.size())};
  for (size_t i = 0; i < shape.size(); ++i) r.shape[i] = shape[i];
  if (where_ == on_device) {
    there = numbers_on_device(*x, wide ? DeviceNumbers::float64 : DeviceNumbers::float32);
    r.data = static_cast<const double*>(there.data), r.on_device = true;
    return r;
  }
  auto& numbers =
      reals_.emplace_back(wide ? copied<double, double>(*x) : copied<float, double>(*x));
  numbers.reserve(1);  // a place, for none at all
  r.data = numbers.data();
  return r;
}

Request Call::request() {
  Request r;
  for (auto [array, name] :
       {std::pair(&r.query, "query"), std::pair(&r.key, "key"), std::pair(&r.value, "value")}) {
    const Array* given = operand(name);
    if (!given) fail(name, "is missing");
    *array = *given;
  }
  r.attn_mask = operand("attn_mask");
  DeviceOptions& there = device_options_;
  r.alibi_slopes = reals("alibi_slopes", there.alibi_slopes), r.sinks = reals("sinks", there.sinks);
  r.q_lengths = integers("q_lengths", there.q_lengths);
  r.kv_lengths = integers("kv_lengths", there.kv_lengths);
  r.q_offset = integers("q_offsets", there.q_offset);
  if (std::optional<int64_t> offset = integer("q_offset"))
    r.q_offset = {integers_.emplace_back(1, *offset).data(), 1, true};
  r.is_causal = integer("is_causal").value_or(0) != 0;
  r.window = {integer("left").value_or(-1), integer("right").value_or(-1)};
  if (std::optional<double> scale = number("scale")) r.scale = *scale, r.has_scale = true;
  r.softcap = number("softcap").value_or(0);
  if (std::optional<ffi::AnyBuffer> words = buffer("dropout")) {
    if (words->element_type() != ffi::DataType::U32 || words->element_count() != 6)
      fail("dropout", "must be six words of 32 bits");
    auto x = static_cast<const uint32_t*>(words->untyped_data());
    r.dropout.p = number("dropout_p").value_or(0), r.has_seed = true;
    if (where_ == on_device)
      r.dropout.device_seed = reinterpret_cast<const uint64_t*>(x), r.dropout.device_place = x + 2;
    else
      r.dropout = {r.dropout.p, x[0] | uint64_t(x[1]) << 32, x[2], x[3], x[4], x[5]};
  }
  r.layout = layout_named(word("layout"));
  return r;
}

const Description& Call::attention() {
  Request r = request();
  r.out = result("out"), r.lse = result("lse");
  if (!r.out) fail("out", "is missing");
  return description_.emplace(r);
}

const Description& Call::attention_backward() {
  Description& description = description_.emplace(request());
  const Array *dout = operand("dout"), *out = operand("out"), *lse = operand("lse");
  GradientArrays to{result("dq"), result("dk"), result("dv"), result("dbias"), result("dsinks")};
  if (!dout || !out || !lse || !to.dq || !to.dk || !to.dv)
    fail("attention_backward", "lacks some of its arrays");
  description.read({*dout, *out, *lse, operand("dlse"), to.dbias != nullptr});
  description.write_to(to);
  return description;
}

}  // namespace fanano
