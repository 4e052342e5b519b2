// Every option of attention, for the tests that switch each of them on, and several at once.
#pragma once

#include "attention_case.hpp"

namespace attention_case {

using Option = void (*)(Case&);
inline const Option options[] = {
    [](Case& c) { c.window = {-1, 0}; },
    [](Case& c) { c.window = {13, 4}; },
    [](Case& c) { c.queries = {17, 20}, c.keys = {43, 0}; },
    [](Case& c) { c.offsets = {30, -4}; },
    [](Case& c) { c.masked = true, c.mask_dtype = Dtype::boolean; },
    [](Case& c) { c.masked = true, c.mask_dtype = Dtype::float32; },
    [](Case& c) { c.softcap = 0.8; },
    [](Case& c) { c.slopes = true; },
    [](Case& c) { c.sinks = true; },
    [](Case& c) { c.dropout = {0.3, 0x123456789abcdef0, 3, 5, 7, 9}; },
    [](Case& c) { c.data = partly_nan; },
    [](Case& c) { c.data = hidden_nan; },
    [](Case& c) { c.strides = gaps; },
};

}  // namespace attention_case
