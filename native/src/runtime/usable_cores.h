// How many threads can run at once in this process: the cores that it may use, and the share of their time that its
// control group leaves it.
#pragma once

#include <string>

namespace llmeff {

int usable_cores();  // at least 1

// The quota of the control groups of a process and of those around them in cores, rounded up; 0 without one. `mount` is
// where the file systems of control groups are (/sys/fs/cgroup), `membership` the file that names the process's groups
// (/proc/self/cgroup).
int control_group_cores(const std::string& mount, const std::string& membership);

}  // namespace llmeff
