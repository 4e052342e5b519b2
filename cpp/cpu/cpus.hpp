// How many CPUs this process may use.
#pragma once

#include <string>

namespace fanano {

// Those that its threads may run on.
int affinity();

// The CPU time that its control groups grant it, in CPUs, rounded up; 0 for no limit. A limit may
// stand on any group above its own, and the least one counts. `root` stands before /proc and /sys:
// tests have trees of their own.
int quota(const std::string& root = "");

}  // namespace fanano
