// Runs each instruction on fixed inputs, and checks what comes out.
//
//   cuda_conformance                     on what this program is linked with, against definitions
//   cuda_conformance --record FOLDER     and writes it into a file there, with the device's name
//   cuda_conformance --compare FOLDER    and checks what GPUs have recorded there in the same way;
//                                        how far they are from what ran here is printed, in ulps
#include "conformance.hpp"

#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <sstream>

namespace conformance {
namespace {

namespace fs = std::filesystem;

bool is_nan(uint32_t x) { return (x & 0x7fffffff) > 0x7f800000; }

// How many floats lie between; NaN is far from numbers and near to NaN.
int64_t ulps(uint32_t a, uint32_t b) {
  auto ordered = [](uint32_t x) { return x >> 31 ? -int64_t(x & 0x7fffffff) : int64_t(x); };
  if (is_nan(a) || is_nan(b)) return is_nan(a) && is_nan(b) ? 0 : INT64_MAX;
  return std::abs(ordered(a) - ordered(b));
}

bool right(const Case& c, size_t i, uint32_t got) {
  if (!c.exact.empty()) return got == c.exact[i] || (c.floats && is_nan(got) && is_nan(c.exact[i]));
  double x = number(got), reference = c.reference[i];
  return x == reference || std::fabs(x - reference) <= c.allowed[i] ||
         (std::isnan(x) && std::isnan(reference));
}

size_t outputs(const Case& c) { return c.exact.empty() ? c.reference.size() : c.exact.size(); }

// The number of wrong words; the first is shown.
size_t wrong(const Case& c, const Words& got, const std::string& whose) {
  if (got.size() != outputs(c)) {
    std::printf("%s: %zu words of %s, expected %zu\n", c.name.c_str(), got.size(), whose.c_str(),
                outputs(c));
    return 1;
  }
  size_t count = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (right(c, i, got[i]) || count++) continue;
    std::string expected;
    char text[100];
    if (c.exact.empty())
      std::snprintf(text, sizeof text, "%.9g within %.3g", c.reference[i], c.allowed[i]);
    else
      std::snprintf(text, sizeof text, "%08x", c.exact[i]);
    std::printf("%s: word %zu of %s is %08x (%.9g), expected %s\n", c.name.c_str(), i,
                whose.c_str(), got[i], double(number(got[i])), text);
  }
  if (count > 1) std::printf("%s: and %zu more of %s\n", c.name.c_str(), count - 1, whose.c_str());
  return count;
}

uint64_t hash(const Words& words) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325;
  for (uint32_t w : words)
    for (int byte = 0; byte < 4; ++byte) h = (h ^ (w >> 8 * byte & 0xff)) * 0x100000001b3;
  return h;
}

// ---- what a GPU has recorded ----
struct Recorded {
  uint64_t inputs;
  Words words;
};
struct Golden {
  std::string device;
  std::map<std::string, Recorded> cases;
};

void write(const fs::path& folder, const std::vector<Case>& cases, const std::vector<Words>& got) {
  cudaDeviceProp properties{};
  int driver = 0;
  device::check(cudaGetDeviceProperties(&properties, 0));
  device::check(cudaDriverGetVersion(&driver));
  std::string name = properties.name, file = name;
  for (char& c : file)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  char date[20];
  std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  fs::create_directories(folder);
  std::ofstream out(folder / (file + ".txt"));
  out << "device " << name << "\ndriver " << driver << "\ndate " << date << std::hex
      << std::setfill('0');
  for (size_t i = 0; i < cases.size(); ++i) {
    out << "\ncase " << cases[i].name << " " << std::setw(16) << hash(cases[i].inputs);
    for (size_t k = 0; k < got[i].size(); ++k)
      out << (k % 8 ? " " : "\n") << std::setw(8) << got[i][k];
  }
  out << "\n";
  if (!out.flush()) throw std::runtime_error("cannot write into " + folder.string());
  std::printf("recorded %s\n", (folder / (file + ".txt")).c_str());
}

Golden read(const fs::path& path) {
  Golden golden;
  Words* words = nullptr;
  std::ifstream in(path);
  for (std::string line, key; std::getline(in, line);) {
    std::istringstream rest(line);
    if (line.starts_with("device ")) {
      golden.device = line.substr(7);
    } else if (line.starts_with("case ")) {
      std::string name;
      Recorded recorded{};
      rest >> key >> name >> std::hex >> recorded.inputs;
      words = &(golden.cases[name] = recorded).words;
    } else if (words) {
      for (uint32_t w; rest >> std::hex >> w;) words->push_back(w);
    }
  }
  if (golden.device.empty() || golden.cases.empty())
    throw std::runtime_error(path.string() + " holds no recorded results");
  return golden;
}

// How far the two are from each other: how often by 0, 1, 2, 3 to 4, 5 to 8 ... ulps.
void print_distances(const Case& c, const Words& recorded, const Words& got) {
  std::map<int64_t, size_t> count;
  double most = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    int64_t distance = ulps(recorded[i], got[i]), bucket = distance;
    if (distance > 1 && distance < INT64_MAX) bucket = int64_t(std::bit_ceil(uint64_t(distance)));
    ++count[bucket];
    double apart = std::fabs(double(number(recorded[i])) - double(number(got[i])));
    if (apart > 0 && c.allowed[i] > 0) most = std::max(most, apart / c.allowed[i]);
  }
  std::printf("  %s, ulps:", c.name.c_str());
  for (auto [bucket, n] : count) {
    if (bucket == INT64_MAX)
      std::printf(" %zu NaN and number", n);
    else
      std::printf(" %zu <= %lld%s", n, static_cast<long long>(bucket), n ? "," : "");
  }
  std::printf(" at most %.2f of what is allowed\n", most);
}

// The number of cases that are wrong.
size_t compare(const fs::path& path, const std::vector<Case>& cases,
               const std::vector<Words>& got) {
  Golden golden = read(path);
  std::printf("%s, recorded on %s\n", path.filename().c_str(), golden.device.c_str());
  size_t bad = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    auto found = golden.cases.find(c.name);
    if (found == golden.cases.end()) {
      std::printf("  %s: not recorded\n", c.name.c_str());
      continue;
    }
    if (found->second.inputs != hash(c.inputs)) {
      std::printf("%s: recorded of other inputs, record it again\n", c.name.c_str());
      ++bad;
    } else if (wrong(c, found->second.words, golden.device)) {
      ++bad;
    } else if (c.exact.empty()) {
      print_distances(c, found->second.words, got[i]);
    }
    golden.cases.erase(found);
  }
  for (const auto& [name, recorded] : golden.cases)
    std::printf("%s: recorded, and no case of this program\n", name.c_str()), ++bad;
  return bad;
}

size_t compare_all(const fs::path& folder, const std::vector<Case>& cases,
                   const std::vector<Words>& got) {
  std::vector<fs::path> files;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) std::printf("no goldens: no GPU has recorded them\n");
  size_t bad = 0;
  for (const fs::path& path : files) bad += compare(path, cases, got);
  return bad;
}

int run_all(const std::string& verb, const std::string& folder) {
  std::vector<Case> cases;
  add_movement(cases), add_numbers(cases), add_products(cases);
  std::vector<Words> got;
  size_t bad = 0;
  for (const Case& c : cases) {
    got.push_back(c.run(c.inputs));
    bool fine = wrong(c, got.back(), "this run") == 0;
    std::printf("%s %s, %zu words\n", fine ? "ok    " : "FAILED", c.name.c_str(), outputs(c));
    bad += !fine;
  }
  if (verb == "--record") write(folder, cases, got);
  if (verb == "--compare") bad += compare_all(folder, cases, got);
  std::printf("%zu instructions' cases, %zu wrong\n", cases.size(), bad);
  return bad != 0;
}

}  // namespace
}  // namespace conformance

int main(int count, char** words) {
  std::string verb = count > 1 ? words[1] : "", folder = count > 2 ? words[2] : "";
  if (count != 1 && (count != 3 || (verb != "--record" && verb != "--compare"))) {
    std::fprintf(stderr, "usage: %s [--record FOLDER | --compare FOLDER]\n", words[0]);
    return 2;
  }
  try {
    return conformance::run_all(verb, folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
