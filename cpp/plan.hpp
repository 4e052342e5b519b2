// How it will be done: Problem + Machine -> Plan. Pure, printable, testable anywhere.
#pragma once

#include <cstdint>
#include <string>

#include "problem.hpp"

namespace fanano {

struct Kernels;  // cpu/kernels.hpp: the entry points of one ISA

struct Machine {
  const Kernels* kernels = nullptr;  // of the ISA to run
  int threads = 1;
};

struct Plan {
  const Kernels* kernels = nullptr;
  Algorithm algorithm = Algorithm::flash;
  int64_t rows = 0;       // query rows of one task
  int64_t keys = 0;       // keys of one tile
  int64_t tasks = 0;      // independent row blocks
  int threads = 0;        // that will take part
  int64_t scratch = 0;    // bytes for each thread
  int64_t workspace = 0;  // bytes shared by all threads: the materialised scores, else 0
};

Machine this_machine(int max_threads = 0);  // 0: as many as get_num_threads()
Plan make_plan(const Problem&, const Machine&);
std::string to_string(const Plan&, const Problem&);

}  // namespace fanano
