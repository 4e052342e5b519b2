#include "parser.hpp"

#include <algorithm>
#include <cctype>
#include <stdexcept>

#include "instructions.hpp"
#include "statements.hpp"

namespace emulator {
namespace {

// The first word of a text, which is shortened by it.
std::string word(std::string& text) {
  size_t begin = text.find_first_not_of(" \t\n\r");
  if (begin == std::string::npos) return text.clear(), "";
  size_t end = text.find_first_of(" \t\n\r", begin);
  std::string first = text.substr(begin, end == std::string::npos ? end : end - begin);
  text = end == std::string::npos ? "" : text.substr(end);
  return first;
}

int bytes_of(const std::string& type) {  // .b8 .u32 .f64 ...
  int bits = std::stoi(type.substr(2));
  return bits / 8;
}

int aligned(int offset, int alignment) { return (offset + alignment - 1) / alignment * alignment; }

// .align 8 .b8 name[120], as parameters and arrays are declared.
struct Declared {
  std::string name;
  int bytes = 0, alignment = 1;
  bool open = false;  // name[]

  explicit Declared(std::string text) {
    std::string last;
    int element = 1, align = 0;
    while (!(last = word(text)).empty()) {
      if (last == ".align")
        align = std::stoi(word(text));
      else if (last[0] == '.' && last.size() > 2 &&
               std::isdigit(static_cast<unsigned char>(last[2])))
        element = bytes_of(last);
      else if (last[0] != '.')
        name += last;
    }
    size_t bracket = name.find('[');
    bytes = element, alignment = align ? align : element;
    if (bracket == std::string::npos) return;
    open = name[bracket + 1] == ']';
    bytes = open ? 0 : element * std::stoi(name.substr(bracket + 1));
    name.resize(bracket);
  }
};

struct Scope {
  std::map<std::string, int> registers, labels;
  std::vector<std::string> ranges;  // %r of %r<100>
};

// One kernel: its statements are those from its header to the next one.
class KernelParser {
  Kernel kernel_;
  const Statements& all_;
  const std::vector<std::string>& dynamic_;  // names of extern shared arrays
  std::map<int, Scope> scopes_;
  std::map<std::string, int> symbols_;  // slots
  std::map<uint64_t, int> immediates_;
  int line_ = 0;

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("PTX line " + std::to_string(line_) + ": " + what);
  }

  int new_slot(uint64_t value) {
    kernel_.slots.push_back(value);
    return int(kernel_.slots.size()) - 1;
  }

  int immediate(uint64_t value) {
    auto found = immediates_.find(value);
    if (found != immediates_.end()) return found->second;
    return immediates_[value] = new_slot(value);
  }

  int special(const std::string& name) {
    static const std::map<std::string, Special> names = {
        {"%tid", Special::tid},       {"%ctaid", Special::ctaid},   {"%ntid", Special::ntid},
        {"%nctaid", Special::nctaid}, {"%laneid", Special::laneid}, {"%warpid", Special::warpid}};
    size_t dot = name.find('.');
    auto found = names.find(name.substr(0, dot));
    if (found == names.end()) return -1;
    if (symbols_.count(name)) return symbols_[name];
    int axis = dot == std::string::npos ? 0 : name[dot + 1] - 'x';
    int slot = symbols_[name] = new_slot(0);
    kernel_.specials.push_back({slot, found->second, axis});
    return slot;
  }

  int reg(const std::string& name, int scope) {
    for (int s = scope; s >= 0; s = all_.parent[s]) {
      Scope& in = scopes_[s];
      if (auto found = in.registers.find(name); found != in.registers.end()) return found->second;
      for (const std::string& range : in.ranges)
        if (name.size() > range.size() && name.starts_with(range) &&
            name.find_first_not_of("0123456789", range.size()) == std::string::npos)
          return in.registers[name] = new_slot(poison);
    }
    fail("nothing is called " + name);
  }

  int slot(const std::string& name, int scope) {
    if (name == "_") return new_slot(poison);  // a result that nobody wants
    if (name.starts_with("0f") || name.starts_with("0F") || name.starts_with("0d") ||
        name.starts_with("0D"))
      return immediate(std::stoull(name.substr(2), nullptr, 16));
    if (name[0] == '-') return immediate(uint64_t(std::stoll(name, nullptr, 0)));
    if (std::isdigit(static_cast<unsigned char>(name[0])))
      return immediate(std::stoull(name, nullptr, 0));
    if (int s = special(name); s >= 0) return s;
    if (auto found = symbols_.find(name); found != symbols_.end()) return found->second;
    return reg(name, scope);
  }

  // a, {a, b}, d|p, [a + 8], [a]
  void operand(Instruction& i, std::string text, int scope) {
    if (i.operands == int(i.offset.size())) fail("too many operands");
    if (text.empty()) fail("an operand is missing");
    if (text.front() == '[') {
      text = text.substr(1, text.size() - 2);
      size_t plus = text.find('+', 1);
      if (text.find(',') != std::string::npos) fail("addresses of several parts are not known");
      if (plus != std::string::npos) i.offset[i.operands] = std::stoll(text.substr(plus + 1));
      i.slots.push_back(slot(text.substr(0, plus), scope));
    } else if (text.front() == '{') {
      for (const std::string& part : split(text.substr(1, text.size() - 2)))
        i.slots.push_back(slot(part, scope));
    } else {
      for (const std::string& part : split(text, '|')) i.slots.push_back(slot(part, scope));
    }
    i.begin[++i.operands] = uint16_t(i.slots.size());
  }

  void declare(std::string text, int scope) {
    std::string kind = word(text);
    if (kind == ".reg") {
      word(text);  // a slot holds any type
      for (const std::string& name : split(text)) {
        size_t bracket = name.find('<');
        if (bracket == std::string::npos)
          scopes_[scope].registers[name] = new_slot(poison);
        else
          scopes_[scope].ranges.push_back(name.substr(0, bracket));
      }
    } else if (kind == ".shared") {
      Declared array(text);
      int offset = aligned(kernel_.shared_bytes, array.alignment);
      symbols_[array.name] = new_slot(shared_base + uint64_t(offset));
      kernel_.shared_bytes = offset + array.bytes;
    } else if (kind != ".pragma") {
      fail("declarations of " + kind + " are not known");
    }
  }

  void instruction(const Statement& statement) {
    Instruction i;
    std::string rest = statement.text, name = word(rest);
    if (name[0] == '@') {
      i.unless = name[1] == '!';
      i.guard = reg(name.substr(i.unless ? 2 : 1), statement.scope);
      name = word(rest);
    }
    i.name = name, i.ptx_line = statement.line, i.where = statement.where;
    i.index = int(kernel_.code.size());
    if (is_branch(name)) {
      std::string label = split(rest).at(0);
      for (int s = statement.scope; s >= 0 && i.target < 0; s = all_.parent[s])
        if (scopes_[s].labels.count(label)) i.target = scopes_[s].labels[label];
      if (i.target < 0) fail("no label " + label);
    } else {
      for (const std::string& part : split(rest)) operand(i, part, statement.scope);
    }
    try {
      decode(i);
    } catch (const std::runtime_error& error) {
      fail(error.what());
    }
    kernel_.code.push_back(i);
  }

  void header(const std::string& text) {
    size_t entry = text.find(".entry") + 6, open = text.find('('), close = text.rfind(')');
    std::string rest = text.substr(entry), after;
    if (open != std::string::npos) {
      rest = text.substr(entry, open - entry), after = text.substr(close + 1);
      for (const std::string& one : parameters(text.substr(open + 1, close - open - 1))) {
        Declared p(one);
        int offset = aligned(kernel_.parameter_bytes, p.alignment);
        kernel_.parameters.push_back({offset, p.bytes});
        kernel_.parameter_bytes = offset + p.bytes;
        symbols_[p.name] = new_slot(uint64_t(offset));
      }
    }
    kernel_.name = word(rest);
    if (size_t at = after.find(".maxntid"); at != std::string::npos) {
      kernel_.most_threads = 1;
      std::string bounds = after.substr(at + 8);
      bounds.resize(std::min(bounds.find('.'), bounds.size()));
      for (const std::string& n : split(bounds)) kernel_.most_threads *= std::stoi(n);
    }
  }

  // As split(), but blanks matter.
  static std::vector<std::string> parameters(const std::string& list) {
    std::vector<std::string> parts(1);
    for (char c : list) {
      if (c == ',')
        parts.emplace_back();
      else
        parts.back() += c;
    }
    if (parts.size() == 1 && parts[0].find_first_not_of(" \t\n") == std::string::npos)
      parts.clear();
    return parts;
  }

 public:
  KernelParser(const Statements& all, const std::vector<std::string>& dynamic)
      : all_(all), dynamic_(dynamic) {}

  Kernel run(size_t first, size_t last) {
    header(all_.list[first].text);
    for (const std::string& name : dynamic_)
      kernel_.dynamic_slots.push_back(symbols_[name] = new_slot(0));
    int instructions = 0;
    for (size_t n = first + 1; n < last; ++n) {
      const Statement& s = all_.list[n];
      line_ = s.line;
      if (s.kind == Statement::declaration) declare(s.text, s.scope);
      if (s.kind == Statement::label) scopes_[s.scope].labels[s.text] = instructions;
      if (s.kind == Statement::instruction) ++instructions;
    }
    for (size_t n = first + 1; n < last; ++n) {
      line_ = all_.list[n].line;
      if (all_.list[n].kind == Statement::instruction) instruction(all_.list[n]);
    }
    return kernel_;
  }
};

}  // namespace

Program parse(std::string_view ptx, const std::string& file) {
  Statements all = statements(ptx, file);
  Program program;
  std::vector<std::string> dynamic;
  for (size_t n = 0; n < all.list.size(); ++n) {
    const Statement& s = all.list[n];
    if (s.kind == Statement::declaration && s.scope == 0) {
      size_t shared = s.text.find(".shared");
      if (shared == std::string::npos || !s.text.starts_with(".extern"))
        throw std::runtime_error("PTX line " + std::to_string(s.line) + ": of the module's own " +
                                 "declarations, only extern shared arrays are known");
      dynamic.push_back(Declared(s.text.substr(shared + 7)).name);
    }
    if (s.kind != Statement::header) continue;
    if (s.text.find(".entry") == std::string::npos)
      throw std::runtime_error("PTX line " + std::to_string(s.line) +
                               ": functions that are not inlined are not known");
    size_t last = n + 1;
    while (last < all.list.size() && all.list[last].kind != Statement::header &&
           all.list[last].scope != 0)
      ++last;
    Kernel kernel = KernelParser(all, dynamic).run(n, last);
    program.kernels[kernel.name] = std::move(kernel);
  }
  return program;
}

}  // namespace emulator
