// The entry points of the instruction set that this file is compiled for.
#include "kernels.hpp"

#include "entry_points.hpp"
#include "isa.hpp"
#include "terms.hpp"
#include "tile_sizes.hpp"

#define FANANO_TEXT(x) #x
#define FANANO_NAME(x) FANANO_TEXT(x)

namespace fanano::FANANO_ISA {

namespace {

// A row that shares another's kernels has its own where products are of pairs.
template <auto Own, auto Shared, class... Args> auto own(const Problem& p, Args... args) {
  if constexpr (shares_kernels)
    if (!takes_pairs(p)) return (shared::kernels.*Shared)(p, args...);
  return Own(p, args...);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {
    FANANO_NAME(FANANO_ISA),
    compiled_features(),
    strip_rows<float>,
    strip_rows<double>,
    tile_keys,
    decode_keys,
    own<row_limits, &Kernels::row_limits>,
    own<flash_scratch, &Kernels::flash_scratch>,
    shared::materialised_scratch,
    shared::decode_scratch,
    shared::decode_state,
    own<flash, &Kernels::flash>,
    shared::materialised,
    shared::decode_split,
    shared::decode,
    own<pass_rows, &Kernels::pass_rows>,
    own<backward_scratch, &Kernels::backward_scratch>,
    shared::row_numbers,
    shared::key_sums,
    own<backward_rows, &Kernels::backward_rows>,
    own<backward_keys, &Kernels::backward_keys>,
    shared::backward_add,
    own<backward_bias, &Kernels::backward_bias>,
    shared::backward_sinks,
    shared::softmax,
    shared::absorb,
    shared::merge,
    peak,
    read,
};

}  // namespace fanano::FANANO_ISA
