#include "cpu/cpus.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>

namespace fanano {

namespace {

// So many microseconds in every period.
int cpus(long long microseconds, long long period) {
  if (microseconds <= 0 || period <= 0) return 0;
  return int(std::min<long long>((microseconds - 1) / period + 1, INT_MAX));
}

// The limit that stands on one group itself. Version 2 of control groups writes "max" and version 1
// writes -1 for none; what cannot be read is none either.
int limit_v2(const std::string& group) {
  std::ifstream file(group + "/cpu.max");
  long long microseconds, period;
  return file >> microseconds >> period ? cpus(microseconds, period) : 0;
}

int limit_v1(const std::string& group) {
  std::ifstream quota(group + "/cpu.cfs_quota_us"), length(group + "/cpu.cfs_period_us");
  long long microseconds, period;
  return quota >> microseconds && length >> period ? cpus(microseconds, period) : 0;
}

// The least limit on a group ("/a/b") and those above it, up to the root ("").
int least_limit(const std::string& mount, std::string group, int (*limit)(const std::string&)) {
  int least = 0;
  for (;; group.resize(group.rfind('/'))) {
    while (!group.empty() && group.back() == '/') group.pop_back();
    int here = limit(mount + group);
    if (here && (!least || here < least)) least = here;
    if (group.empty()) return least;
  }
}

}  // namespace

int affinity() {
  cpu_set_t set;  // of 1024 CPUs; where there are more, it cannot be asked this way
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                     : int(sysconf(_SC_NPROCESSORS_ONLN));
}

int quota(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  int least = 0;
  for (std::string line; std::getline(file, line);) {  // number:controllers:/group
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos || line[second + 1] != '/') continue;
    std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    std::string group = line.substr(second + 1);
    int limit = 0;
    if (controllers == ",,")
      limit = least_limit(root + "/sys/fs/cgroup", group, limit_v2);
    else if (controllers.find(",cpu,") != std::string::npos)
      limit = least_limit(root + "/sys/fs/cgroup/cpu", group, limit_v1);
    if (limit && (!least || limit < least)) least = limit;
  }
  return least;
}

}  // namespace fanano
