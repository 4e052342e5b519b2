// What can be said of any array before anyone reads it: is its description possible, and whose
// bytes does it share. Descriptions come from other libraries and are not trusted.
#pragma once

#include <cstdint>
#include <string>

#include "problem.hpp"

namespace fanano {

inline constexpr int max_ndim = 64;

// "(2, 8, 128, 64)"
std::string shape_text(const Array&);
std::string shape_text(const Extents&);
std::string strides_text(const Array&);

bool is_empty(const Array&);

// Throws ValueError unless the rank and the extents are possible, and the element count and every
// offset fit in 64-bit bytes. Strides of empty arrays are not read.
void check_extents(const Array&, const char* argument);

// Throws ValueError unless there is memory where it will be read: not null, aligned to its
// elements, no wrap around the address space. An empty array needs none.
void check_memory(const Array&, const char* argument);

// The bytes between an array's first and last element, whichever comes first in memory.
struct Bytes {
  uintptr_t begin = 0, end = 0;  // empty arrays have none
};
Bytes bytes_of(const Array&);
bool overlap(Bytes, Bytes);

// Whether two arrays may share a byte: their ranges meet, and they do not interleave in a common
// step, as the parts of one packed buffer do. Never false for arrays that do share one.
bool overlap(const Array&, const Array&);

// Whether two elements may share a byte: stride 0, or an axis that steps into the span of another.
bool overlaps_itself(const Array&);

// Throws ValueError unless the array can be written, each element once, apart from every other.
void check_writable(const Array&, const char* argument);
void check_apart(const Array& written, const char* argument, const Array& other, const char* name);

}  // namespace fanano
