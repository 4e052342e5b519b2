// Flash attention for few queries, forward, by the instructions of sm_80: 16-bit numbers, up to Dim
// columns of q, k and v, zeros where there are fewer. Such a problem is bound by the memory that K
// and V come from. So the rows of all query heads that share a key head are one tile (of 16; if
// there are more, blocks that run side by side have the same keys), and the keys are spread over
// blocks (flash decoding).
//
// Keys are cut into splits at multiples of decode_chunk in absolute position. A block makes the
// state (m, l, o) of one split from nothing: its warps those of tiles of their own, which are
// merged in the order of the warps; then combine.cuh merges the splits in the order of the keys. A
// problem of one split has its results from here, by the same products and sums.
//
// One kernel has every option, where prefill has two: the registers and instructions that options
// cost are not what decode waits for.
//
// A warp computes as if every value were finite, and carefully once more if something came out that
// is not (special_values.cuh).
#pragma once

#include <new>

#include "combine.cuh"
#include "decode_tiles.cuh"
#include "fragments.cuh"
#include "grid.cuh"
#include "kept.cuh"
#include "kernel_class.cuh"
#include "kernels.hpp"
#include "mask_scores.cuh"
#include "special_values.cuh"

namespace fanano::cuda {

// Of a block: what all of its threads have in common, and after it the tiles.
extern __shared__ __align__(128) unsigned char decode_smem[];

// Where the rows of the tile stand; in unused rows, which come last, query is -1.
struct RowPlace {
  int64_t head;
  int query;
};
struct RowPlaces {
  int64_t head[DecodeTile::rows];
  int query[DecodeTile::rows];

  __device__ RowPlace operator[](int64_t r) const { return {head[r], query[r]}; }
};

// The rows of a tile, of q or of the like.
template <class T> struct PlacedRows : HeadRows<T> {
  const RowPlaces& places;
  int64_t head;  // stride

  __device__ PlacedRows(const Tensor& t, int64_t batch, int64_t columns, const RowPlaces& places_)
      : HeadRows<T>(t, batch, 0, columns), places(places_), head(t.head) {}
  __device__ T* chunk(int64_t r, int c) const {
    return HeadRows<T>::chunk(places[r].query, c) + places[r].head * head;
  }
};

// A block's work, made by one thread: one tile of rows and one split of the keys.
template <class T, int Dim> struct DecodeBlock {
  static constexpr DecodeTile tile = decode_tile(Dim);
  static constexpr int rows = tile.rows, keys = tile.keys, warps = tile.warps, slots = tile.slots;
  static constexpr int N = keys / 8, D = Dim / 8, threads = tile.threads();
  using Tile = SwizzledTile<T, Dim>;
  using Addends = MaskTile<rows, keys>;
  static constexpr int own_bytes = 2048;
  static constexpr int q_bytes = Tile::bytes(rows), slot_bytes = Tile::bytes(keys);
  static constexpr int ring_bytes = slots * slot_bytes;
  static constexpr int o_stride = Dim + 8;  // pairs of 4 columns in 4 rows lie in 32 banks
  static_assert(rows * o_stride * 4 <= ring_bytes && decode_chunk % (warps * keys) == 0);

  // Of a launch; addends of the caller's mask have room where there are any.
  static constexpr int smem_bytes(bool additive) {
    return own_bytes + q_bytes + warps * (ring_bytes + additive * Addends::bytes);
  }
  static_assert(smem_bytes(true) <= 99 * 1024);

  int64_t batch, split;
  Sequence sequence;
  Mask mask;
  int there = 0;  // rows
  RowPlaces places;
  int64_t first_key = 0, end_key = 0;  // of the tiles that some row sees; the end need not be one's
  PlacedRows<const T> q;
  HeadRows<const T> k, v;
  Elements elements;
  int64_t elements_head;  // stride
  const double* slopes;
  Kept kept;
  ScoreConstants<float> constants;

  // What the warps leave, and what becomes of it.
  float m_of_warp[warps][rows], l_of_warp[warps][rows], part_of_warp[warps][rows];
  float normaliser[rows];

  __device__ DecodeBlock(const Problem& p, int64_t batch_, int64_t kv_head, int64_t split_,
                         int64_t row0)
      : batch(batch_), split(split_),
        sequence(fanano::sequence(batch, p.shape.queries, p.shape.keys, p.lengths.queries,
                                  p.lengths.keys, p.lengths.q_offset)),
        mask(make_mask(sequence, p.window.left, p.window.right)),
        q(p.q, batch, p.shape.dim, places), k(p.k, batch, kv_head, p.shape.dim),
        v(p.v, batch, kv_head, p.shape.value_dim), elements(p, batch, 0),
        elements_head(p.mask.head),
        slopes(p.score.slopes ? p.score.slopes + batch * p.score.slopes_batch : nullptr),
        kept(p.dropout, batch, 0), constants(score_constants<float>(p, batch, 0, log2e<double>)) {
    constants.slope = slopes != nullptr;  // each row has its own
    const int64_t group = p.shape.heads / p.shape.kv_heads, queries = sequence.queries;
    int64_t head = queries ? row0 / queries : group, query = queries ? row0 % queries : 0;
    Range used{queries, 0};
    for (int r = 0; r < rows; ++r) {
      const bool is_used = head < group;
      places.head[r] = kv_head * group + (is_used ? head : 0);
      places.query[r] = is_used ? int(query) : -1;
      if (!is_used) continue;
      ++there;
      used = {query < used.begin ? query : used.begin, query < used.end ? used.end : query + 1};
      if (++query == queries) query = 0, ++head;
    }
    if (there == 0) return;
    const Range seen = mask.columns(used);
    const int64_t begin = split * decode_chunk, step = warps * keys;
    end_key = clamp(seen.end, begin, begin + decode_chunk);
    first_key = clamp(seen.begin, begin, end_key) / step * step;
  }

  static __device__ uint32_t smem(int offset) {
    return ptx::shared_address(decode_smem) + own_bytes + offset;
  }
  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp() { return threadIdx.x / 32; }
  static __device__ Tile q_smem() { return {smem(0)}; }
  static __device__ Tile slot(int unit) {  // of the warp
    return {smem(q_bytes + warp() * ring_bytes + unit % slots * slot_bytes)};
  }
  static __device__ Addends addends() {  // of the warp
    return {smem(q_bytes + warps * ring_bytes + warp() * Addends::bytes)};
  }
  // o of a warp, where its ring was.
  static __device__ float2* o_smem(int of_warp, int row, int column) {
    return reinterpret_cast<float2*>(decode_smem + own_bytes + q_bytes + of_warp * ring_bytes +
                                     (row * o_stride + column) * sizeof(float));
  }

  __device__ int tiles() const {  // of each warp
    return int((end_key - first_key + warps * keys - 1) / (warps * keys));
  }
  __device__ int64_t key_of(int t) const { return first_key + (t * warps + warp()) * keys; }

  // What the lane knows of its row and the warp's tile, and how much of it the rows see.
  enum Sees { nothing, some, all };
  __device__ LaneRow look(int64_t j0, Sees& sees) const {
    const RowPlace place = places[lane() % rows];
    LaneRow row;
    row.seen = place.query < 0 ? 0 : bits_of(mask.columns(place.query), j0);
    if (elements.data) {
      auto begin = [&](int r) {
        return places[r].head * elements_head + places[r].query * elements.row;
      };
      // Since those of the last tile were read, the warp has waited for V; before these are, it
      // waits for K.
      row.seen &= addends().load(elements, there, begin, j0, end_key);
    }
    const uint32_t seen = uint32_t(row.seen);
    sees = !ptx::ballot(seen != 0) ? nothing : ptx::ballot(~seen != 0) ? some : all;
    if (kept.on) {
      Kept of_head = kept;
      of_head.head += uint32_t(place.head);
      row.kept = of_head.template of_row<keys>(place.query, j0);
    }
    if (slopes) {
      const Slope<float> slope(slopes[place.head], mask, place.query, j0);
      row.high = slope.high, row.low = slope.low, row.minus = slope.minus;
    }
    return row;
  }

  // score, mask, absorb: P of a tile of K, and what becomes of m, l and o.
  // careful: what is seen and weighs exactly nothing is, from then on, as if it were dropped.
  __device__ __forceinline__ void weigh(LaneRow& row, Sees sees, bool careful, Tile k_smem,
                                        float (&s)[1][N][4], RowState (&state)[1][2],
                                        float (&o)[1][D][4]) const {
    for_all(s, [](float) { return 0; });
    score(q_smem(), 0, k_smem, s);
    // What of the scale's size is far out; all else.
    if (constants.scale.power != 1) for_all(s, [&](float x) { return x * constants.scale.power; });
    logits(RowsDown(), constants, row, elements.additive(), addends(), s);
    if (sees != all) hide(row.seen, s);
    if (careful) row.kept &= ~weightless(s);
    if (kept.on)
      absorb<true>(state, constants.factor, row.kept, careful, s, o);
    else
      absorb<false>(state, constants.factor, row.kept, careful, s, o);
  }

  // The warp's tiles of K and V, from an empty state.
  __device__ __forceinline__ void stream(bool careful, RowState (&state)[1][2],
                                         float (&o)[1][D][4]) const {
    state[0][0] = state[0][1] = RowState{};
#pragma unroll
    for (int d = 0; d < D; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[0][d][e] = 0;

    // load: K of a tile is unit 2 t of the ring, V is unit 2 t + 1.
    const int units = 2 * tiles();
    auto load = [&](int unit) {
      if (unit < units)
        slot(unit).template load<keys, 32>(unit % 2 ? v : k, key_of(unit / 2), end_key, lane());
      ptx::cp_async_commit();
    };
#pragma unroll
    for (int unit = 0; unit < slots - 1; ++unit) load(unit);
    if (!careful) {
      ptx::cp_async_wait<slots - 1>();
      // Q, with the sign of the scale, which may be 0: then it is in vain that q.k overflows.
      if (constants.scale.sign != 1)
        q_smem().template multiply<rows, threads>(constants.scale.sign);
      __syncthreads();  // Q has come, for all
    }
    auto wait_for = [&](int unit) {
      ptx::cp_async_wait<slots - 2>();
      __syncwarp();  // it has come, for all lanes; and all are done with the one before it,
      load(unit + slots - 1);  // whose slot is free now
    };

#pragma unroll 1
    for (int t = 0; 2 * t < units; ++t) {
      Sees sees;
      LaneRow row = look(key_of(t), sees);
      float s[1][N][4];
      wait_for(2 * t);
      if (sees != nothing) weigh(row, sees, careful, slot(2 * t), s, state, o);
      wait_for(2 * t + 1);
      if (sees == nothing) continue;
      accumulate_carefully(careful, s, row.seen, row.kept, slot(2 * t + 1), o);
    }
    ptx::cp_async_wait<0>();
    __syncwarp();  // all lanes are done with the ring
  }

  // Whether some lane of the warp has a sum that is not finite.
  static __device__ bool broken(const float (&o)[1][D][4]) {
    float none = 0;  // NaN if there is
#pragma unroll
    for (int d = 0; d < D; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) none = __fmaf_rn(o[0][d][e], 0, none);
    return ptx::ballot(none != 0) != 0;
  }

  // The warp's state, into shared memory.
  __device__ __forceinline__ void leave(RowState (&state)[1][2], const float (&o)[1][D][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowState& row = state[0][half];
#pragma unroll
      for (int bits = 1; bits < 4; bits *= 2) row.l += ptx::shuffle_xor(row.l, bits);
      const int r = half * 8 + lane() / 4;
      if (lane() % 4 == 0) m_of_warp[warp()][r] = row.m, l_of_warp[warp()][r] = row.l;
#pragma unroll
      for (int d = 0; d < D; ++d)
        *o_smem(warp(), r, d * 8 + lane() % 4 * 2) = {o[0][d][2 * half], o[0][d][2 * half + 1]};
    }
  }

  // (m, l) of all warps: of one row, to the states of the splits, or (no splits) finished.
  __device__ void merge_row(const Problem& p, const States& states, int r) {
    RowState whole;
#pragma unroll
    for (int w = 0; w < warps; ++w) whole.m = m_of_warp[w][r] > whole.m ? m_of_warp[w][r] : whole.m;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      RowState part{m_of_warp[w][r], l_of_warp[w][r]};
      part_of_warp[w][r] = merge(part, whole.m, constants.factor);
      whole.l += part.l;
    }
    const RowPlace place = places[r];
    if (states.splits > 1)
      states.m_l[states.at(batch, place.head, place.query, split)] = {whole.m, whole.l};
    else
      normaliser[r] = finish_row(p, batch, place.head, place.query, whole, constants.factor);
  }

  // finish: o of all warps.
  __device__ void merge_columns(const Problem& p, const States& states) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < there * (Dim / 2); i += threads) {
      const int r = i / (Dim / 2), c = i % (Dim / 2) * 2;
      float2 o{nothing_yet, nothing_yet};
#pragma unroll
      for (int w = 0; w < warps; ++w) add_part(o, *o_smem(w, r, c), part_of_warp[w][r]);
      const RowPlace place = places[r];
      if (states.splits == 1)
        store_results<T>(p, batch, place.head, place.query, c, normalised(o, normaliser[r]));
      else if (c < states.columns)
        states.pair(states.at(batch, place.head, place.query, split), c) = o;
    }
  }
};

// Zeros for the rows that the sequence does not use: each block of the first split has some.
template <class T>
__device__ void finish_padding(const Problem& p, int64_t batch, int64_t kv_head, int64_t queries,
                               int64_t tile, int64_t tiles) {
  const int64_t group = p.shape.heads / p.shape.kv_heads, unused = p.shape.queries - queries;
  for (int64_t i = tile; i < group * unused; i += tiles) {
    const int64_t head = kv_head * group + i / unused, query = queries + i % unused;
    for (int c = threadIdx.x * 2; c < p.shape.value_dim; c += blockDim.x * 2)
      store_results<T>(p, batch, head, query, c, {0, 0});
    if (threadIdx.x == 0) store_lse(p, batch, head, query, -infinity<float>);
  }
}

template <class T, int Dim>
__global__ void __launch_bounds__(decode_tile(Dim).threads())
    decode_sm80_kernel(const __grid_constant__ Problem p, const States states, int64_t tiles,
                       int64_t first) {
  using Block = DecodeBlock<T, Dim>;
  Block& block = *reinterpret_cast<Block*>(decode_smem);
  static_assert(sizeof(Block) <= Block::own_bytes);
  // Tiles of rows come first: those of the same keys run at the same time.
  int64_t number = first + blockIdx.x;
  const int64_t row_tile = number % tiles;
  number /= tiles;
  const int64_t split = number % states.splits;
  number /= states.splits;
  const int64_t kv_head = number % p.shape.kv_heads, batch = number / p.shape.kv_heads;
  if (threadIdx.x == 0) new (decode_smem) Block(p, batch, kv_head, split, row_tile * Block::rows);
  __syncthreads();  // it is there
  if (block.sequence.queries > decode_queries) return;
  if (split == 0) finish_padding<T>(p, batch, kv_head, block.sequence.queries, row_tile, tiles);
  if (block.there == 0 || (states.splits > 1 && block.end_key <= block.first_key)) return;

  float o[1][Block::D][4];
  RowState state[1][2];
  block.q_smem().template load<Block::rows, Block::threads>(block.q, 0, block.there);
  ptx::cp_async_commit();
  bool careful = false;
#pragma unroll 1
  for (;; careful = true) {
    block.stream(careful, state, o);
    if (careful || !block.broken(o)) break;
  }
  block.leave(state, o);
  __syncthreads();  // the states of all warps are there
  if (threadIdx.x < block.there) block.merge_row(p, states, threadIdx.x);
  __syncthreads();  // and what each part is multiplied by
  block.merge_columns(p, states);
}

template <class T, int Dim>
cudaError_t decode_sm80(const Problem& p, void* workspace, cudaStream_t stream) {
  using Block = DecodeBlock<T, Dim>;
  const Shape& s = p.shape;
  if (s.batch * s.heads * s.queries == 0) return cudaSuccess;
  const States states(s, workspace);
  const int64_t tiles = (s.heads / s.kv_heads * states.queries + Block::rows - 1) / Block::rows;
  const int64_t blocks = s.batch * s.kv_heads * states.splits * tiles;
  const int smem = Block::smem_bytes(p.mask.data && p.mask_dtype != Dtype::boolean);
  const auto kernel = decode_sm80_kernel<T, Dim>;
  // More than 48 KiB must be asked for: the same by all threads, for it is the kernel's.
  if (cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               Block::smem_bytes(true)))
    return error;
  cudaError_t error = in_grids(kernel, blocks, Block::threads, smem, stream, p, states, tiles);
  if (!error && states.splits > 1)
    error = in_grids(combine_kernel<T, Dim>, s.batch * s.heads * states.queries, combine_threads, 0,
                     stream, p, states);
  return error;
}

// Problems of few queries, any strides, every option; what it does not take is left to others.
template <class T, int Dim> bool decode_sm80_takes(const Problem& p) {
  return sm80_takes<T, Dim>(p) && !has_prefill(p);
}
template <class T, int Dim>
cudaError_t decode_sm80_alone(const Problem& p, void* workspace, cudaStream_t stream) {
  if (!decode_sm80_takes<T, Dim>(p)) return cudaErrorInvalidValue;
  return decode_sm80<T, Dim>(p, workspace, stream);
}

}  // namespace fanano::cuda
