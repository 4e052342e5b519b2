#include "buffer.hpp"

#include <new>

#include "arguments.hpp"
#include "dlpack.hpp"
#include "errors.hpp"

namespace fanano {
namespace {

using dlpack::ManagedTensor, dlpack::ManagedTensorVersioned;

template <class Managed> constexpr const char* capsule_name = "dltensor";
template <> constexpr const char* capsule_name<ManagedTensorVersioned> = "dltensor_versioned";

void set_version(ManagedTensor&) {}
void set_version(ManagedTensorVersioned& managed) { managed.version = {1, 0}; }

// Who takes what a capsule holds gives it another name; else it is for us to give back.
template <class Managed> void destroy(PyObject* capsule) {
  const char* name = capsule_name<Managed>;
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

constexpr std::align_val_t alignment{64};  // libraries copy what is aligned to less

}  // namespace

Buffer::Memory::Memory(size_t bytes, Device d, void* s)
    : device(d), stream(s), data(d.cuda ? allocate_on_device(int64_t(bytes), d.id, s)
                                        : ::operator new(bytes, alignment)) {}

Buffer::Memory::~Memory() {
  if (device.cuda)
    free_on_device(data, device.id, stream, lent_elsewhere);
  else
    ::operator delete(data, alignment);
}

Buffer::Buffer(std::vector<int64_t> shape, Dtype dtype) : Buffer(shape, dtype, {}, nullptr) {}

Buffer::Buffer(std::vector<int64_t> shape, Dtype dtype, Device device, void* stream)
    : shape_(std::move(shape)), strides_(shape_.size()), dtype_(dtype) {
  size_t bytes = size_of(dtype);
  for (int64_t extent : shape_)
    if (extent < 0 || __builtin_mul_overflow(bytes, size_t(extent), &bytes))
      refuse("no_memory", shape_text({nullptr, dtype, int(shape_.size()), shape_.data(), nullptr}));
  uint64_t contiguous = 1;  // wraps only where the array is empty
  for (size_t i = shape_.size(); i-- > 0; contiguous *= uint64_t(shape_[i]))
    strides_[i] = int64_t(contiguous);
  memory_ = std::make_shared<Memory>(bytes ? bytes : 1, device, stream ? stream : legacy_stream);
}

std::pair<int, int> Buffer::dlpack_device() const {
  const Device& d = memory_->device;
  return {d.cuda ? dlpack::cuda : dlpack::cpu, d.id};
}

nb::object Buffer::lend(nb::handle max_version, nb::handle stream) const {
  if (memory_->device.cuda) {
    void* to = stream_of(stream);
    const bool in_order = to == reinterpret_cast<void*>(-1);  // -1: by what the borrower does
    if (!to) to = legacy_stream;
    if (!in_order) let_wait(to, memory_->stream, memory_->device.id);
    if (to != memory_->stream) memory_->lent_elsewhere = true;
  }
  int32_t major = 0;
  if (PyTuple_Check(max_version.ptr()) && PyTuple_Size(max_version.ptr()) == 2)
    read_int32(PyTuple_GetItem(max_version.ptr(), 0), &major);
  return major < 1 ? lend_as<ManagedTensor>() : lend_as<ManagedTensorVersioned>();
}

template <class Managed> nb::object Buffer::lend_as() const {
  struct Lent {
    Managed managed;
    Buffer buffer;
  };
  auto lent = std::make_unique<Lent>(Lent{{}, *this});
  Managed& managed = lent->managed;
  set_version(managed);
  managed.context = lent.get();
  managed.deleter = [](Managed* m) { delete static_cast<Lent*>(m->context); };
  Buffer& b = lent->buffer;
  auto [device_type, device_id] = dlpack_device();
  managed.tensor = {
      b.memory_->data,         device_type,     device_id,         int32_t(b.shape_.size()),
      dlpack::type_of(dtype_), b.shape_.data(), b.strides_.data(), 0};
  nb::object capsule = nb::steal(PyCapsule_New(&managed, capsule_name<Managed>, destroy<Managed>));
  if (!capsule.is_valid()) throw nb::python_error();
  lent.release();  // the capsule's from here on
  return capsule;
}

}  // namespace fanano
