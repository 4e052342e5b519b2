// CPUs that affinity and control groups leave to a process, over trees of files like the kernel's.
#include "cpu/cpus.hpp"

#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "../check.hpp"
#include "cpu/parallel.hpp"

using namespace fanano;

namespace {

// A root directory with /proc and /sys, gone at the end.
struct Root {
  std::string path = "/tmp/fanano-cpus-XXXXXX";
  Root() { CHECK(mkdtemp(path.data())); }
  ~Root() { std::filesystem::remove_all(path); }

  Root& with(const std::string& file, const std::string& text) {
    std::filesystem::path whole = path + file;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
    return *this;
  }
  Root& in(const std::string& groups) { return with("/proc/self/cgroup", groups); }
  Root& max(const std::string& group, const std::string& text) {
    return with("/sys/fs/cgroup" + group + "/cpu.max", text + "\n");
  }
  Root& v1(const std::string& group, const std::string& most, const std::string& period) {
    with("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_quota_us", most + "\n");
    return with("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_period_us", period + "\n");
  }
  int quota() const { return fanano::quota(path); }
};

int quota_of(const std::string& text) { return Root().in("0::/a\n").max("/a", text).quota(); }

}  // namespace

TEST(a_quota_is_rounded_up) {
  CHECK(quota_of("100000 100000") == 1);
  CHECK(quota_of("100001 100000") == 2);
  CHECK(quota_of("200000 100000") == 2);
  CHECK(quota_of("1000 100000") == 1);
  CHECK(quota_of("250000 100000") == 3);
  CHECK(quota_of("6400000 100000") == 64);
  CHECK(quota_of("9223372036854775807 1") > 1000000);
}

TEST(no_quota) {
  CHECK(quota_of("max 100000") == 0);
  for (const char* text : {"", "max", "100000", "garbage 100000", "100000 garbage", "0 100000",
                           "-1 100000", "100000 0", "100000 -5", "99999999999999999999 100000"})
    CHECK(quota_of(text) == 0);
  CHECK(Root().quota() == 0);
  CHECK(Root().in("0::/a/b\n").quota() == 0);
  for (const char* text : {"", "\n", "0\n", "0:\n", "0::\n", "0::a\n", ":::\n", "::", "1:cpu:\n"})
    CHECK(Root().in(text).max("", "100000 100000").quota() == 0);
}

TEST(the_least_limit_from_the_own_group_to_the_root_counts) {
  Root root;
  root.in("0::/a/b/c\n");
  CHECK(root.max("/a/b/c", "500000 100000").quota() == 5);
  CHECK(root.max("/a", "max 100000").quota() == 5);
  CHECK(root.max("/a/b", "300000 100000").quota() == 3);
  CHECK(root.max("", "700000 100000").quota() == 3);
  CHECK(root.max("", "200000 100000").quota() == 2);
  CHECK(root.max("/a/b/other", "100000 100000").quota() == 2);
  CHECK(root.in("0::/a/b/c/\n").quota() == 2);
}

TEST(a_group_that_only_the_host_sees) {  // a container's own is mounted as the root
  CHECK(Root().in("0::/docker/1234\n").max("", "150000 100000").quota() == 2);
  CHECK(Root().in("0::/../1234\n").max("", "150000 100000").quota() == 2);
}

TEST(version_1) {
  std::string groups = "5:memory:/m\n4:cpu,cpuacct:/a/b\n3:cpuset:/c\n0::/\n";
  CHECK(Root().in(groups).v1("/a/b", "150000", "100000").quota() == 2);
  CHECK(Root().in(groups).v1("/a/b", "-1", "100000").quota() == 0);
  CHECK(Root().in(groups).v1("/a", "400000", "100000").v1("/a/b", "-1", "100000").quota() == 4);
  CHECK(Root().in(groups).v1("/m", "100000", "100000").v1("/c", "100000", "100000").quota() == 0);
  CHECK(Root().in(groups).v1("/a", "400000", "100000").max("", "300000 100000").quota() == 3);
}

TEST(affinity_is_what_was_set) {
  cpu_set_t before, one;
  CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(affinity() == CPU_COUNT(&before));
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &before) && !CPU_COUNT(&one)) CPU_SET(cpu, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(affinity() == 1);
  CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}

TEST(the_first_number_of_threads_is_within_both) {
  unsetenv("FANANO_NUM_THREADS");
  int n = get_num_threads(), most = affinity(), limit = quota();
  CHECK(n == (limit ? std::min(limit, most) : most));
}
