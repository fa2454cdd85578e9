#include "runtime/usable_cores.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace llmeff {
namespace {

// Microseconds of all cores together in each period; no number ("max") or a negative one means no quota.
int cores_of(double quota, double period) {
  return quota > 0 && period > 0 ? static_cast<int>(std::min(std::ceil(quota / period), 65536.0)) : 0;
}

// Version 2: one file with both.
int read_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? cores_of(quota, period) : 0;
}
int read_v1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? cores_of(quota, period) : 0;
}

// The smallest quota of `group` and the groups around it. In a container the group's own folder may not be there; the
// mount itself stands for it then.
int smallest_quota(const std::string& mount, std::string group, int (*read)(const std::string&)) {
  int smallest = 0;
  for (;;) {
    const int cores = read(mount + group);
    if (cores > 0 && (smallest == 0 || cores < smallest)) smallest = cores;
    if (group.empty()) return smallest;
    group.erase(group.rfind('/'));
  }
}

}  // namespace

int control_group_cores(const std::string& mount, const std::string& membership) {
  std::ifstream file(membership);
  int smallest = 0;
  // hierarchy:controllers:group, without controllers in version 2.
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (group.empty() || group.front() != '/') continue;
    if (group.back() == '/') group.pop_back();
    int cores = 0;
    if (controllers == ",,")
      cores = smallest_quota(mount, group, read_v2);
    else if (controllers.find(",cpu,") != std::string::npos)
      cores = smallest_quota(mount + "/cpu", group, read_v1);
    if (cores > 0 && (smallest == 0 || cores < smallest)) smallest = cores;
  }
  return smallest;
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  if (const int quota = control_group_cores("/sys/fs/cgroup", "/proc/self/cgroup"); quota > 0)
    cores = std::min(cores, quota);
#endif
  return std::max(cores, 1);
}

}  // namespace llmeff
