#include "statistics.hpp"

#include <algorithm>
#include <cstdio>
#include <set>

#include "block.hpp"

namespace emulator {
namespace {

bool counting = false;
std::map<std::string, Traffic> sums;

// Lanes are served in groups that ask for 128 bytes; within one, each bank gives a word at a time.
void add_wavefronts(Traffic& sum, uint32_t lanes, const uint64_t* address) {
  int together = std::min(32, 128 / sum.bytes);
  for (int first = 0; first < 32; first += together) {
    std::set<uint64_t> words[32];
    size_t worst = 0;
    for (int l = first; l < first + together; ++l) {
      if (!(lanes >> l & 1)) continue;
      for (uint64_t at = address[l]; at < address[l] + sum.bytes; at += 4) {
        std::set<uint64_t>& bank = words[at / 4 % 32];
        bank.insert(at / 4);
        worst = std::max(worst, bank.size());
      }
    }
    sum.cost += worst, sum.ideal += worst > 0;
  }
}

void add_sectors(Traffic& sum, uint32_t lanes, const uint64_t* address) {
  std::set<uint64_t> sectors, bytes;
  for (int l = 0; l < 32; ++l) {
    if (!(lanes >> l & 1)) continue;
    bytes.insert(address[l]);
    for (uint64_t at = address[l]; at < address[l] + sum.bytes; at += 32) sectors.insert(at / 32);
  }
  sum.cost += sectors.size(), sum.ideal += (bytes.size() * sum.bytes + 31) / 32;
}

}  // namespace

std::string Traffic::text() const {
  char text[1000];
  std::snprintf(text, sizeof text, "%-60s %-36s %2d B/lane %8llu requests, %s %8llu, ratio %.2f",
                where.c_str(), instruction.c_str(), bytes,
                static_cast<unsigned long long>(requests), shared ? "wavefronts" : "sectors   ",
                static_cast<unsigned long long>(cost), ratio());
  return text;
}

void count_traffic(bool on) { counting = on; }

void clear_traffic() { sums.clear(); }

std::vector<Traffic> traffic() {
  std::vector<Traffic> all;
  for (const auto& [key, sum] : sums) all.push_back(sum);
  return all;
}

void Statistics::note(const Lane& lane, const Instruction& i, bool shared, uint64_t address,
                      size_t bytes) {
  if (!counting) return;
  Site& site = sites_[{&i, {lane.warp, shared}}];
  if (site.times.empty())
    site.at = &i, site.shared = shared, site.bytes = bytes, site.times.assign(32, 0);
  uint32_t time = site.times[lane.id % 32]++;
  if (site.requests.size() <= time) site.requests.resize(time + 1);
  site.requests[time].lanes |= 1u << lane.id % 32;
  site.requests[time].address[lane.id % 32] = address;
}

Statistics::~Statistics() {
  for (const auto& [key, site] : sites_) {
    std::string where = site.at->where.text();
    Traffic& sum = sums[where + site.at->name + (site.shared ? " shared" : " device")];
    sum.where = where, sum.instruction = site.at->name;
    sum.shared = site.shared, sum.bytes = int(site.bytes);
    for (const Request& request : site.requests) {
      ++sum.requests;
      (site.shared ? add_wavefronts : add_sectors)(sum, request.lanes, request.address);
    }
  }
}

}  // namespace emulator
