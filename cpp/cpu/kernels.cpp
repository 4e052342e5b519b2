// The entry points of the instruction set that this file is compiled for.
#include "kernels.hpp"

#include "entry_points.hpp"
#include "isa.hpp"
#include "tile_sizes.hpp"

#define FANANO_TEXT(x) #x
#define FANANO_NAME(x) FANANO_TEXT(x)

namespace fanano::FANANO_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    FANANO_NAME(FANANO_ISA),
    compiled_features(),
    strip_rows<float>,
    strip_rows<double>,
    tile_keys,
    decode_keys,
    flash_scratch,
    materialised_scratch,
    decode_scratch,
    decode_state,
    flash,
    materialised,
    decode_split,
    decode,
    backward_scratch,
    row_numbers,
    key_sums,
    backward_rows,
    backward_keys,
    backward_add,
    backward_bias,
    backward_sinks,
    softmax,
    absorb,
    merge,
    peak,
    read,
};

}  // namespace fanano::FANANO_ISA
