// A call of a handler as XLA makes it, by hand: what xla/ffi/api/c_api.h says of frames, contexts
// and the functions that a handler may ask, without a jaxlib to run.
#pragma once

#include <xla/ffi/api/c_api.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "device.hpp"

namespace xla_frame {

struct Answer {
  XLA_FFI_Error_Code code = XLA_FFI_Error_Code_OK;
  std::string words;
};

// What XLA knows of a program that it runs on a device.
struct Context {
  void* stream = nullptr;
  bool has_memory = true;
  size_t most_scratch = 0;       // bytes of the largest allocation
  std::map<void*, size_t> kept;  // of what was not given back
};

inline Context& context(XLA_FFI_ExecutionContext* c) { return *reinterpret_cast<Context*>(c); }
inline XLA_FFI_Error* error(XLA_FFI_Error_Code code, const char* words) {
  return reinterpret_cast<XLA_FFI_Error*>(new Answer{code, words});
}

// Of the functions those that our handlers and their headers call; the others are null.
inline XLA_FFI_Api functions() {
  XLA_FFI_Api api{};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR,
                     XLA_FFI_API_MINOR};
  api.XLA_FFI_Error_Create = [](XLA_FFI_Error_Create_Args* a) {
    return error(a->errc, a->message);
  };
  api.XLA_FFI_Error_GetMessage = [](XLA_FFI_Error_GetMessage_Args* a) {
    a->message = reinterpret_cast<Answer*>(a->error)->words.c_str();
  };
  api.XLA_FFI_Error_Destroy = [](XLA_FFI_Error_Destroy_Args* a) {
    delete reinterpret_cast<Answer*>(a->error);
  };
  api.XLA_FFI_Stream_Get = [](XLA_FFI_Stream_Get_Args* a) -> XLA_FFI_Error* {
    a->stream = context(a->ctx).stream;
    return nullptr;
  };
  api.XLA_FFI_DeviceMemory_Allocate = [](XLA_FFI_DeviceMemory_Allocate_Args* a) -> XLA_FFI_Error* {
    Context& c = context(a->ctx);
    if (!c.has_memory) return error(XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "no memory");
    device::check(cudaMalloc(&a->data, a->size));
    c.kept[a->data] = a->size, c.most_scratch = std::max(c.most_scratch, a->size);
    return nullptr;
  };
  api.XLA_FFI_DeviceMemory_Free = [](XLA_FFI_DeviceMemory_Free_Args* a) -> XLA_FFI_Error* {
    Context& c = context(a->ctx);
    if (c.kept[a->data] != a->size) return error(XLA_FFI_Error_Code_INTERNAL, "of another size");
    c.kept.erase(a->data);
    device::check(cudaFree(a->data));
    return nullptr;
  };
  return api;
}

// Operands and results are named by attributes, as fanano.jax does it.
class Frame {
  struct Attribute {
    XLA_FFI_AttrType type;
    int64_t integer = 0;
    double number = 0;
    std::string word{};
    XLA_FFI_Scalar scalar{};
    XLA_FFI_ByteSpan span{}, name{};
  };
  struct Buffers {
    std::deque<XLA_FFI_Buffer> buffers;
    std::deque<std::vector<int64_t>> dims;
    std::vector<void*> pointers;

    int64_t add(XLA_FFI_DataType dtype, void* data, std::vector<int64_t> shape) {
      std::vector<int64_t>& d = dims.emplace_back(std::move(shape));
      pointers.push_back(&buffers.emplace_back(XLA_FFI_Buffer{
          XLA_FFI_Buffer_STRUCT_SIZE, nullptr, dtype, data, int64_t(d.size()), d.data()}));
      return int64_t(pointers.size()) - 1;
    }
  };

  Buffers operands_, results_;
  std::map<std::string, Attribute> attributes_;  // XLA sorts them by name, too

 public:
  void integer(const std::string& name, int64_t x) {
    attributes_[name] = {XLA_FFI_AttrType_SCALAR, x};
    attributes_[name].scalar.dtype = XLA_FFI_DataType_S64;
  }
  void number(const std::string& name, double x) {
    attributes_[name] = {XLA_FFI_AttrType_SCALAR, 0, x};
    attributes_[name].scalar.dtype = XLA_FFI_DataType_F64;
  }
  void word(const std::string& name, const std::string& x) {
    attributes_[name] = {XLA_FFI_AttrType_STRING, 0, 0, x};
  }
  void operand(const std::string& name, XLA_FFI_DataType dtype, const void* data,
               std::vector<int64_t> shape) {
    integer(name, operands_.add(dtype, const_cast<void*>(data), std::move(shape)));
  }
  void result(const std::string& name, XLA_FFI_DataType dtype, void* data,
              std::vector<int64_t> shape) {
    integer(name, results_.add(dtype, data, std::move(shape)));
  }

  Answer call(void* handler, Context& on) {
    const XLA_FFI_Api api = functions();
    std::vector<XLA_FFI_ArgType> arguments(operands_.pointers.size(), XLA_FFI_ArgType_BUFFER);
    std::vector<XLA_FFI_RetType> returns(results_.pointers.size(), XLA_FFI_RetType_BUFFER);
    std::vector<XLA_FFI_AttrType> types;
    std::vector<XLA_FFI_ByteSpan*> names;
    std::vector<void*> values;
    for (auto& [name, a] : attributes_) {
      a.name = {name.data(), name.size()};
      a.span = {a.word.data(), a.word.size()};
      a.scalar.value = &a.number;
      if (a.scalar.dtype == XLA_FFI_DataType_S64) a.scalar.value = &a.integer;
      types.push_back(a.type), names.push_back(&a.name);
      values.push_back(a.type == XLA_FFI_AttrType_STRING ? static_cast<void*>(&a.span) : &a.scalar);
    }
    XLA_FFI_CallFrame frame{};
    frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
    frame.api = &api;
    frame.ctx = reinterpret_cast<XLA_FFI_ExecutionContext*>(&on);
    frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
    frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, int64_t(arguments.size()), arguments.data(),
                  operands_.pointers.data()};
    frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, int64_t(returns.size()), returns.data(),
                  results_.pointers.data()};
    frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE,
                   nullptr,
                   int64_t(types.size()),
                   types.data(),
                   names.data(),
                   values.data()};
    return said(reinterpret_cast<XLA_FFI_Handler*>(handler)(&frame));
  }

  static Answer said(XLA_FFI_Error* e) {
    if (!e) return {};
    const Answer answer = *reinterpret_cast<Answer*>(e);
    delete reinterpret_cast<Answer*>(e);
    return answer;
  }
};

// What a handler promises of itself, as XLA asks before it registers it.
inline XLA_FFI_Metadata metadata(void* handler) {
  const XLA_FFI_Api api = functions();
  XLA_FFI_Metadata data{};
  data.struct_size = XLA_FFI_Metadata_STRUCT_SIZE;
  XLA_FFI_Metadata_Extension extension{
      {XLA_FFI_Metadata_Extension_STRUCT_SIZE, XLA_FFI_Extension_Metadata, nullptr}, &data};
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.extension_start = &extension.extension_base;
  frame.api = &api;
  const Answer answer = Frame::said(reinterpret_cast<XLA_FFI_Handler*>(handler)(&frame));
  if (answer.code) throw std::runtime_error(answer.words);
  return data;
}

}  // namespace xla_frame
