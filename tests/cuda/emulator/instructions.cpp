#include "instructions.hpp"

#include <map>

namespace emulator {
namespace {

const std::map<std::string, Decoder>& table() {
  static const auto rows = [] {
    std::map<std::string, Decoder> all;
    for (const auto* list : {&arithmetic_rows, &logic_rows, &convert_rows, &memory_rows,
                             &control_rows, &warp_rows, &matrix_rows})
      for (const Row& row : *list) all[row.name] = row.decoder;
    return all;
  }();
  return rows;
}

}  // namespace

bool is_branch(const std::string& name) { return name == "bra" || name == "bra.uni"; }

void decode(Instruction& i) {
  std::vector<std::string> rest;
  for (std::string name = i.name;;) {
    if (auto row = table().find(name); row != table().end()) {
      Modifiers modifiers({rest.rbegin(), rest.rend()});
      row->second(i, modifiers);
      if (!modifiers.empty() || !i.run) unsupported(i);
      return;
    }
    size_t dot = name.rfind('.');
    if (dot == std::string::npos) unsupported(i);
    rest.push_back(name.substr(dot + 1));
    name.resize(dot);
  }
}

}  // namespace emulator
