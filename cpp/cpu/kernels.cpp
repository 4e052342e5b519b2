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
    shared::materialised_scratch,
    shared::decode_scratch,
    shared::decode_state,
    flash,
    shared::materialised,
    shared::decode_split,
    shared::decode,
    shared::backward_scratch,
    shared::row_numbers,
    shared::key_sums,
    shared::backward_rows,
    shared::backward_keys,
    shared::backward_add,
    shared::backward_bias,
    shared::backward_sinks,
    shared::softmax,
    shared::absorb,
    shared::merge,
    peak,
    read,
};

}  // namespace fanano::FANANO_ISA
