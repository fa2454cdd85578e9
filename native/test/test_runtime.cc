// What surrounds the kernels: memory, threads, and what the system may refuse.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/usable_cores.h"
#include "llmeff/device.h"
#include "llmeff/error.h"
#include "llmeff/parallel.h"
#include "self.h"
#include "test.h"

#if defined(__linux__)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace llmeff::test {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(allocator_bounds_its_cache) {
  CachingAllocator allocator;
  for (size_t size = 1; size <= 256; ++size) {
    Block* const block = allocator.allocate(size * kMiB);
    CHECK(block != nullptr, "no memory");
    allocator.free(allocator.detach_surplus());
    allocator.release(block);
    CHECK(allocator.use().cached_bytes <= 2 * 256 * kMiB, "%zu bytes cached", allocator.use().cached_bytes);
  }
  CHECK(allocator.use().live_bytes == 0, "%zu bytes live", allocator.use().live_bytes);
  allocator.free(allocator.detach_all());
  CHECK(allocator.use().cached_bytes == 0, "%zu bytes cached", allocator.use().cached_bytes);
}

TEST(allocator_wastes_an_eighth_at_most) {
  CachingAllocator allocator;
  for (size_t bytes = 1; bytes < 3 * kMiB; bytes += 1 + bytes / 7) {
    Block* const block = allocator.allocate(bytes);
    const size_t capacity = block->capacity;
    CHECK(capacity >= bytes && capacity % 64 == 0, "%zu for %zu", capacity, bytes);
    CHECK(capacity <= std::max<size_t>(256, bytes + bytes / 8 + 64), "%zu for %zu", capacity, bytes);
    allocator.release(block);
    Block* const again = allocator.allocate(bytes);
    CHECK(again == block, "%zu bytes: another block", bytes);
    allocator.release(again);
  }
  allocator.free(allocator.detach_all());
}

TEST(allocator_reuses_somewhat_larger_blocks) {
  CachingAllocator allocator;
  Block* const large = allocator.allocate(10 * kMiB);
  allocator.release(large);
  Block* const smaller = allocator.allocate(9 * kMiB);
  CHECK(smaller == large, "capacity %zu", smaller->capacity);
  CHECK(allocator.use().live_bytes == 9 * kMiB, "live %zu: what was asked for counts", allocator.use().live_bytes);
  allocator.release(smaller);
  Block* const half = allocator.allocate(5 * kMiB);
  CHECK(half != large, "5 MiB took a block of 10");
  allocator.release(half);
  CHECK(allocator.use().live_bytes == 0, "%zu bytes live", allocator.use().live_bytes);
  CHECK(allocator.use().cached_bytes == 15 * kMiB, "%zu bytes cached", allocator.use().cached_bytes);
  allocator.free(allocator.detach_all());
}

// Two phases of other sizes hold more, together, than was live at any time; as long as the cache serves them it stays.
TEST(allocator_keeps_what_a_steady_state_needs) {
  CachingAllocator allocator;
  const auto phase = [&](size_t a, size_t b) {
    Block* const first = allocator.allocate(a * kMiB);
    Block* const second = allocator.allocate(b * kMiB);
    allocator.free(allocator.detach_surplus());
    allocator.release(first);
    allocator.release(second);
  };
  const auto step = [&] { phase(200, 300), phase(130, 350); };
  step();
  const size_t before = allocator.use().system_allocations;
  for (int i = 0; i < 5; ++i) step();
  CHECK(allocator.use().cached_bytes == 1024 * kMiB, "%zu bytes cached", allocator.use().cached_bytes);
  CHECK(allocator.use().system_allocations == before, "%zu blocks instead of %zu", allocator.use().system_allocations,
        before);
  allocator.free(allocator.detach_all());
}

// Blocks that leave the cache stay memory until they are freed, which the device does after the work that uses them.
TEST(allocator_detaches_before_it_frees) {
  CachingAllocator allocator;
  Block* const first = allocator.allocate(kMiB);
  allocator.release(first);
  const auto detached = allocator.detach_all();
  CHECK(detached.size() == 1 && detached[0] == first, "%zu blocks", detached.size());
  Block* const second = allocator.allocate(kMiB);
  CHECK(second != first, "a detached block was handed out");
  allocator.release(second);
  static_cast<char*>(first->data)[0] = 1;
  allocator.free(detached);
  CHECK(allocator.use().cached_bytes == kMiB, "%zu bytes cached", allocator.use().cached_bytes);
  allocator.free(allocator.detach_all());
}

// A new folder: another process may run the same test now, and one that was killed left its files.
std::filesystem::path make_folder() {
  std::random_device random;
  for (;;) {
    const auto path = std::filesystem::temp_directory_path() / ("llmeff-groups-" + std::to_string(random()));
    if (std::filesystem::create_directory(path)) return path;
  }
}

class Folder {
 public:
  Folder() : path_(make_folder()) {}
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& text) const {
    const auto file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
    return file.string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(usable_cores_follow_quotas) {
  const Folder groups;
  const auto cores = [&](const char* membership) {
    return control_group_cores(groups.path(), groups.write("membership", membership));
  };
  CHECK(cores("0::/\n") == 0, "no files: %d", cores("0::/\n"));
  groups.write("a/b/cpu.max", "350000 100000\n");
  groups.write("a/cpu.max", "max 100000\n");
  CHECK(cores("0::/a/b\n") == 4, "3.5 cores: %d", cores("0::/a/b\n"));
  CHECK(cores("0::/a\n") == 0, "no limit: %d", cores("0::/a\n"));
  groups.write("cpu.max", "200000 100000\n");
  CHECK(cores("0::/a/b\n") == 2, "a limit around it: %d", cores("0::/a/b\n"));
  CHECK(cores("0::/elsewhere\n") == 2, "a group that is not mounted: %d", cores("0::/elsewhere\n"));
  groups.write("cpu/c/cpu.cfs_quota_us", "50000\n");
  groups.write("cpu/c/cpu.cfs_period_us", "100000\n");
  CHECK(cores("3:cpuset:/x\n2:cpu,cpuacct:/c\n") == 1, "version 1: %d", cores("2:cpu,cpuacct:/c\n"));
  groups.write("cpu/c/cpu.cfs_quota_us", "-1\n");
  CHECK(cores("2:cpu,cpuacct:/c\n") == 0, "version 1 without a limit: %d", cores("2:cpu,cpuacct:/c\n"));
  CHECK(control_group_cores(groups.path(), groups.path() + "/missing") == 0, "no membership file");
  CHECK(usable_cores() >= 1, "%d", usable_cores());
}

TEST(pool_runs_every_task_once) {
  constexpr int64_t kCount = 10000;
  std::vector<int> runs(kCount);
  parallel_for(kCount, [&](int64_t i, int worker) {
    if (worker >= 0 && worker < num_threads()) ++runs[i];
  });
  int64_t wrong = 0;
  for (const int n : runs) wrong += n != 1;
  CHECK(wrong == 0, "%ld tasks", static_cast<long>(wrong));
#if defined(__linux__)
  if (std::getenv("LLMEFF_TEST_FEW_THREADS") != nullptr)
    CHECK(num_threads() < 1024, "the limit allowed %d threads", num_threads());
#endif
}

// Jobs of every size follow each other closely, so that helpers come late to many of them.
TEST(pool_runs_short_jobs_one_after_another) {
  Numbers numbers(1);
  std::vector<std::atomic<int>> runs(3000);
  for (int job = 0; job < 20000; ++job) {
    const int64_t count = 1 + static_cast<int64_t>(numbers.bits() % (job % 100 == 0 ? runs.size() : 8));
    for (int64_t i = 0; i < count; ++i) runs[i] = 0;
    parallel_for(count, [&](int64_t i, int) { ++runs[i]; });
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; ++i) wrong += runs[i] != 1;
    CHECK(wrong == 0, "job %d of %ld tasks: %ld not run once", job, static_cast<long>(count), static_cast<long>(wrong));
  }
}

TEST(pool_throws_what_a_task_threw_and_goes_on) {
  for (int round = 0; round < 200; ++round) {
    const int64_t bad = round * 7 % 100;
    std::string message;
    try {
      parallel_for(100, [&](int64_t i, int) {
        if (i == bad) fail("ERR_INDEX", "task %d", static_cast<int>(i));
      });
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message == "task " + std::to_string(bad), "round %d: \"%s\"", round, message.c_str());
    std::atomic<int64_t> sum{0};
    parallel_for(100, [&](int64_t i, int) { sum += i; });
    CHECK(sum == 4950, "round %d: the next job", round);
  }
}

#if defined(__linux__)
// Sanitizers and emulators lay out the address space themselves and can't be held to a limit of it.
bool memory_can_be_limited(const char* test) {
  const bool possible = !LLMEFF_SANITIZED && std::getenv("LLMEFF_TEST_EMULATOR") == nullptr;
  if (!possible) std::printf("  %s is not tested: memory can't be limited here\n", test);
  return possible;
}

// Runs tests of this program in a process of its own, with a pool of its own.
template <class F>
int run_in_process(const char* tests, const char* threads, F&& prepare) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("LLMEFF_NUM_THREADS", threads, 1);
    prepare();
    std::vector<std::string> command = self();
    command.push_back(tests);
    std::vector<char*> words;
    for (std::string& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

// With memory for some of its threads' stacks.
TEST(pool_goes_on_with_fewer_threads) {
  if (!memory_can_be_limited("a pool that gets fewer threads")) return;
  const int status = run_in_process("pool_runs_every_task_once", "1024", [] {
    setenv("LLMEFF_TEST_FEW_THREADS", "1", 1);
    const rlimit stack{8 * kMiB, 8 * kMiB}, memory{512 * kMiB, 512 * kMiB};
    setrlimit(RLIMIT_STACK, &stack);
    setrlimit(RLIMIT_AS, &memory);
  });
  CHECK(status == 0, "status %d", status);
}

TEST(many_threads_are_right) {
  for (const char* tests : {"pool_runs", "pool_throws"}) {
    const int status = run_in_process(tests, "64", [] {});
    CHECK(status == 0, "%s: status %d", tests, status);
  }
}

// In a process of its own, because a device is made once.
TEST(device_without_a_thread_is_an_error) {
  if (!memory_can_be_limited("a device that gets no thread")) return;
  if (std::getenv("LLMEFF_TEST_NO_THREAD") == nullptr) {
    const int status = run_in_process("device_without_a_thread", "1", [] { setenv("LLMEFF_TEST_NO_THREAD", "1", 1); });
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %d", status);
    return;
  }
  long pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t bytes = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + 2 * kMiB;
  const rlimit limit{bytes, bytes};
  setrlimit(RLIMIT_AS, &limit);  // no room for another stack
  try {
    cpu_device();
  } catch (const Error& error) {
    _exit(error.code() == "ERR_OUT_OF_MEMORY" ? 7 : 8);
  } catch (...) {
    _exit(9);
  }
  _exit(10);
}
#endif

}  // namespace
}  // namespace llmeff::test
