// How it will be done: Problem + Machine -> Plan. Pure, printable, testable anywhere.
#pragma once

#include <cstdint>
#include <string>

#include "math/sequences.hpp"
#include "problem.hpp"

namespace fanano {

struct Kernels;  // cpu/kernels.hpp: the entry points of one ISA

struct Machine {
  const Kernels* kernels = nullptr;  // of the ISA to run
  int threads = 1;
};

// ---- decode: the kernel class of sequences with few queries -------------------------------------

inline constexpr int64_t decode_queries = 16;  // at most
inline constexpr int64_t decode_rows = 64;     // that pass the keys together
inline constexpr int64_t decode_chunk = 512;   // keys, at multiples of it: part of the bits

// Query heads that share a key head and pass it together.
struct Team {
  int64_t batch = 0, head = 0, heads = 0;  // heads [head, head + heads)
  int64_t kv_head = 0, queries = 0;        // of the sequence, used
  int64_t dim = 0, value_dim = 0;
  int64_t most_rows = 0;  // of any team
};

FANANO_FN int64_t heads_together(const Shape& s) {
  int64_t queries = clamp(s.queries, 1, decode_queries);
  return clamp(decode_rows / queries, 1, s.heads / s.kv_heads);
}

// How many teams a sequence has.
FANANO_FN int64_t teams_of(const Shape& s) {
  int64_t together = heads_together(s);
  return s.kv_heads * ((s.heads / s.kv_heads + together - 1) / together);
}

FANANO_FN Team team_of(const Problem& p, int64_t batch, int64_t team) {
  const Shape& s = p.shape;
  int64_t group = s.heads / s.kv_heads, together = heads_together(s);
  int64_t teams = (group + together - 1) / together, first = team % teams * together;
  Team t;
  t.batch = batch, t.kv_head = team / teams;
  t.head = t.kv_head * group + first, t.heads = clamp(group - first, 0, together);
  t.queries = p.lengths.queries ? clamp(p.lengths.queries[batch], 0, s.queries) : s.queries;
  t.dim = s.dim, t.value_dim = s.value_dim;
  t.most_rows = together * clamp(s.queries, 1, decode_queries);
  return t;
}

// ---- the plan -----------------------------------------------------------------------------------

struct Plan {
  const Kernels* kernels = nullptr;
  Algorithm algorithm = Algorithm::flash;
  bool decode = false;    // tasks are teams, not blocks of rows
  int64_t heads = 1;      // of a group, in one task, at most
  int64_t rows = 0;       // of each of these heads
  int64_t keys = 0;       // keys of one tile
  int64_t tasks = 0;      // independent row blocks, or teams
  int64_t splits = 1;     // of the keys, for the threads
  int threads = 0;        // that will take part
  int64_t scratch = 0;    // bytes for each thread
  int64_t workspace = 0;  // bytes shared by all threads: scores, or the states of the splits
};

// ---- blocks of rows: the other tasks of a plan --------------------------------------------------

// The same rows of neighbouring heads that share a key head.
struct Rows {
  int64_t batch = 0, head = 0, heads = 0;  // heads [head, head + heads)
  int64_t kv_head = 0;
  Range of_each;
};

// Task numbers run through the rows of the same heads before they go on to the next, so that the
// keys stay in the cache; the last rows first where those see the most keys.
FANANO_FN Rows rows_of(const Problem& p, const Plan& plan, int64_t task) {
  const Shape& s = p.shape;
  const int64_t group = s.heads / s.kv_heads, sets = (group + plan.heads - 1) / plan.heads;
  const int64_t blocks = (s.queries + plan.rows - 1) / plan.rows;
  const int64_t index = task % blocks, key_head = task / blocks / sets;
  const int64_t first = task / blocks % sets * plan.heads;
  const int64_t begin = (p.window.right >= 0 ? blocks - 1 - index : index) * plan.rows;
  Rows x;
  x.batch = key_head / s.kv_heads, x.kv_head = key_head % s.kv_heads;
  x.head = x.kv_head * group + first, x.heads = clamp(group - first, 0, plan.heads);
  x.of_each = {begin, clamp(begin + plan.rows, 0, s.queries)};
  return x;
}

// ---- backward -----------------------------------------------------------------------------------

// Query rows of a block: its P and dS, with a tile of 128 keys, are 32 KiB each as floats. Blocks
// pass the keys a few together (Kernels::pass_rows). Both are part of the bits.
template <class A> inline constexpr int64_t block_rows = 256 / int64_t(sizeof(A));

// The passes over a key head are dealt out to this many sums of dk and dv, which are then added in
// order: so the sums are the same whether one thread makes all of them or each is made by another.
inline constexpr int64_t most_sums = 8;

struct BackwardPlan {
  const Kernels* kernels = nullptr;
  int64_t rows = 0, keys = 0;  // of a pass, and of one tile
  int64_t key_heads = 0;       // of all sequences
  int64_t sums = 1;            // of dk and dv
  bool split = false;          // the sums of one key head are tasks of their own, then added
  int64_t row_tasks = 0;       // numbers of the rows, before all else
  int64_t key_tasks = 0;       // dk, dv and dq
  int64_t add_tasks = 0;       // only when split
  int64_t bias_tasks = 0, sink_tasks = 0;
  int threads = 0;      // that will take part
  int key_threads = 0;  // and in the key tasks, whose scratch may hold sums
  int64_t scratch = 0;  // bytes for each thread
  int64_t key_scratch = 0;
  int64_t row_bytes = 0;  // shared by all threads: the numbers of the rows
  int64_t sum_bytes = 0;  // of one sum of one key head
  int64_t workspace = 0;  // bytes of both

  int64_t scratch_bytes() const { return key_scratch > scratch ? key_scratch : scratch; }
};

BackwardPlan make_backward_plan(const Problem&, const Machine&);

Machine this_machine(int max_threads = 0);  // 0: as many as get_num_threads()
Plan make_plan(const Problem&, const Machine&);
std::string to_string(const Plan&, const Problem&);
std::string to_string(const BackwardPlan&, const Problem&);

}  // namespace fanano
