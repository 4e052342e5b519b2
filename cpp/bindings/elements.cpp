// What an imported array holds, by dtype.
#include "arguments.hpp"
#include "dlpack.hpp"
#include "errors.hpp"
#include "math/numbers.hpp"
#include "tensors.hpp"

namespace fanano {

std::optional<Dtype> Imported::dtype() const {
  if (lanes_ != 1) return {};
  if (code_ == dlpack::float_ && bits_ == 64) return Dtype::float64;
  if (code_ == dlpack::float_ && bits_ == 32) return Dtype::float32;
  if (code_ == dlpack::float_ && bits_ == 16) return Dtype::float16;
  if (code_ == dlpack::bfloat && bits_ == 16) return Dtype::bfloat16;
  if (code_ == dlpack::bool_ && bits_ == 8) return Dtype::boolean;
  return {};
}

Array Imported::described(Dtype dtype) const {
  Array a{data_, dtype, ndim_, shape_, strides_, writable_};
  check_extents(a, argument_);
  check_memory(a, argument_);
  return a;
}

Array Imported::floats() const {
  std::optional<Dtype> found = dtype();
  if (!found || *found == Dtype::boolean) refuse("floats", argument_, dtype_text());
  return described(*found);
}

Array Imported::mask() const {
  std::optional<Dtype> found = dtype();
  if (!found) refuse("mask", argument_, dtype_text());
  return described(*found);
}

std::vector<double> Imported::reals() const {
  Array a = floats();
  int64_t rows = ndim_ == 2 ? shape_[0] : 1, columns = ndim_ ? shape_[ndim_ - 1] : 1;
  std::vector<double> numbers;
  numbers.reserve(size_t(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      int64_t at = (ndim_ == 2 && rows > 1 ? i * strides_[0] : 0) +
                   (ndim_ && columns > 1 ? j * strides_[ndim_ - 1] : 0);
      switch (a.dtype) {
        case Dtype::float64: numbers.push_back(static_cast<const double*>(data_)[at]); break;
        case Dtype::float32: numbers.push_back(static_cast<const float*>(data_)[at]); break;
        case Dtype::bfloat16:
          numbers.push_back(to_float(static_cast<const bfloat16*>(data_)[at]));
          break;
        default: numbers.push_back(to_float(static_cast<const float16*>(data_)[at]));
      }
    }
  return numbers;
}

int64_t Imported::count() const {
  if (ndim_ > 1) refuse("one_axis", argument_, shape_text({nullptr, {}, ndim_, shape_, nullptr}));
  return ndim_ ? shape_[0] : 1;
}

void Imported::check_integers() const {
  bool fits = lanes_ == 1 && code_ == dlpack::int_ && (bits_ == 32 || bits_ == 64);
  if (!fits) refuse("integers", argument_, dtype_text());
  // For the checks alone a float of the same size stands for the integer.
  described(bits_ == 32 ? Dtype::float32 : Dtype::float64);
}

std::vector<int64_t> Imported::integers() const {
  check_integers();
  int64_t n = count();
  std::vector<int64_t> numbers(n);
  for (int64_t i = 0; i < n; ++i) {
    int64_t at = ndim_ && n > 1 ? i * strides_[0] : 0;
    numbers[i] = bits_ == 32 ? static_cast<const int32_t*>(data_)[at]
                             : static_cast<const int64_t*>(data_)[at];
  }
  return numbers;
}

DeviceNumbers Imported::device_integers() const {
  check_integers();
  return device_numbers(bits_ == 32 ? DeviceNumbers::int32 : DeviceNumbers::int64);
}

DeviceNumbers Imported::device_reals() const {
  switch (floats().dtype) {
    case Dtype::float64: return device_numbers(DeviceNumbers::float64);
    case Dtype::float32: return device_numbers(DeviceNumbers::float32);
    case Dtype::bfloat16: return device_numbers(DeviceNumbers::bfloat16);
    default: return device_numbers(DeviceNumbers::float16);
  }
}

DeviceNumbers Imported::device_numbers(DeviceNumbers::Kind kind) const {
  auto axis = [&](int i) { return i < 0 || shape_[i] == 1 ? 0 : strides_[i]; };
  if (empty()) return {};
  return {data_, kind, ndim_ ? shape_[ndim_ - 1] : 1, axis(ndim_ - 2), axis(ndim_ - 1)};
}

std::string Imported::dtype_text() const {
  constexpr const char* names[] = {"int",
                                   "uint",
                                   "float",
                                   "opaque",
                                   "bfloat",
                                   "complex",
                                   "bool",
                                   "float8_e3m4",
                                   "float8_e4m3",
                                   "float8_e4m3b11fnuz",
                                   "float8_e4m3fn",
                                   "float8_e4m3fnuz",
                                   "float8_e5m2",
                                   "float8_e5m2fnuz",
                                   "float8_e8m0fnu",
                                   "float6_e2m3fn",
                                   "float6_e3m2fn",
                                   "float4_e2m1fn"};
  if (nb::hasattr(source_, "dtype")) return text_of(nb::object(source_.attr("dtype")));
  std::string text =
      code_ < std::size(names) ? names[code_] : "DLPack code " + std::to_string(code_);
  text += " of " + std::to_string(bits_) + " bits";
  return lanes_ == 1 ? text : text + " in " + std::to_string(lanes_) + " lanes";
}

}  // namespace fanano
