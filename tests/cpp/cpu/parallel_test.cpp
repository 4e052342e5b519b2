// The thread pool; also built with the thread sanitizer where that works.
#include "cpu/parallel.hpp"

#include <atomic>
#include <cfenv>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "../check.hpp"
#include "errors.hpp"

using namespace fanano;

// By what arithmetic does: fegetround() asks the x87 unit, which nobody uses.
static bool rounds_up() {
  volatile float one = 1, little = 0x1p-30f;
  return one + little > 1;
}

// First, for a new thread inherits the modes of the one that makes it: here they are upside down.
TEST(tasks_run_in_our_modes_and_the_caller_gets_its_own_back) {
  std::fesetround(FE_UPWARD);
  std::atomic<int> wrong{0}, helped{0};
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!helped && std::chrono::steady_clock::now() < until)
    parallel_for(50, 2, [&](int64_t, int worker) {
      helped += worker != 0;
      wrong += rounds_up();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  CHECK(helped > 0);
  CHECK(wrong == 0);
  CHECK(rounds_up());
  CHECK_THROWS(std::runtime_error, "task",
               parallel_for(50, 2, [&](int64_t, int) { throw std::runtime_error("task"); }));
  CHECK(rounds_up());
  std::fesetround(FE_TONEAREST);
  CHECK(!rounds_up());
}

TEST(every_task_runs_once) {
  for (int64_t tasks : {0, 1, 2, 7, 1000})
    for (int threads : {1, 2, 5, 64}) {
      std::vector<std::atomic<int>> runs(size_t(tasks) + 1);
      parallel_for(tasks, threads, [&](int64_t task, int worker) {
        CHECK(0 <= worker && worker < threads);
        runs[size_t(task)]++;
      });
      for (int64_t i = 0; i < tasks; ++i) CHECK(runs[size_t(i)] == 1);
      CHECK(runs[size_t(tasks)] == 0);
    }
}

TEST(a_worker_number_belongs_to_one_thread_at_a_time) {
  constexpr int threads = 4;
  std::atomic<int> inside[threads] = {};
  int plain[threads] = {};  // unguarded: the thread sanitizer would see a second user
  for (int round = 0; round < 50; ++round)
    parallel_for(100, threads, [&](int64_t, int worker) {
      CHECK(inside[worker]++ == 0);
      plain[worker]++;
      inside[worker]--;
    });
  int sum = 0;
  for (int n : plain) sum += n;
  CHECK(sum == 50 * 100);
}

TEST(what_tasks_write_is_seen_afterwards) {
  std::vector<int> written(1000);
  for (int round = 1; round <= 50; ++round) {
    parallel_for(1000, 4, [&](int64_t task, int) { written[size_t(task)] = round; });
    for (int w : written) CHECK(w == round);
  }
}

TEST(others_take_part) {
  std::atomic<int> helped{0};
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!helped && std::chrono::steady_clock::now() < until)
    parallel_for(50, 2, [&](int64_t, int worker) {
      helped += worker != 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  CHECK(helped > 0);
}

TEST(an_exception_comes_back_to_the_caller) {
  for (int threads : {1, 4}) {
    std::atomic<int> after{0};
    CHECK_THROWS(std::runtime_error, "task 3", parallel_for(1000, threads, [&](int64_t task, int) {
                   if (task == 3) throw std::runtime_error("task 3");
                   if (task > 3) after++;
                 }));
    CHECK(after < 1000);
    std::atomic<int> runs{0};
    parallel_for(10, threads, [&](int64_t, int) { runs++; });
    CHECK(runs == 10);
  }
}

TEST(every_task_may_throw) {
  for (int round = 0; round < 100; ++round)
    CHECK_THROWS(std::runtime_error, "all",
                 parallel_for(64, 4, [&](int64_t, int) { throw std::runtime_error("all"); }));
}

TEST(many_callers_at_once) {
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round)
        parallel_for(20, 3, [&](int64_t task, int) { sum += task; });
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 8 * 100 * 190);
}

TEST(a_task_may_call_again) {
  std::atomic<int> runs{0};
  parallel_for(8, 4, [&](int64_t, int) { parallel_for(8, 4, [&](int64_t, int) { runs++; }); });
  CHECK(runs == 64);
}

// Somebody else's pool: of what it is asked to do it does one half at once, and the other long
// after anybody needs it.
struct Unreliable final : Scheduler {
  std::vector<std::function<void()>> late;
  std::vector<std::thread> running;
  int asked = 0;

  void schedule(std::function<void()> help) override {
    if (asked++ % 2)
      late.push_back(std::move(help));
    else
      running.emplace_back(std::move(help));
  }
  ~Unreliable() {
    for (std::thread& thread : running) thread.join();
  }
};

TEST(borrowed_threads_help) {
  Unreliable lender;
  std::atomic<int> helped{0}, wrong{0};
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!helped && std::chrono::steady_clock::now() < until) {
    Borrowed borrowed(&lender);
    std::vector<std::atomic<int>> runs(50);
    auto lent = [&] {  // which of them this is
      for (std::thread& thread : lender.running)
        if (thread.get_id() == std::this_thread::get_id()) return true;
      return false;
    };
    std::atomic<bool> asked{false};
    parallel_for(50, 3, [&](int64_t task, int worker) {
      runs[size_t(task)]++;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (worker == 0) {
        asked = true;
      } else if (asked) {  // by now all that are asked have been
        helped += lent();
        wrong += !lent() || worker > 2;
      }
    });
    for (auto& n : runs) CHECK(n == 1);
  }
  CHECK(helped > 0);
  CHECK(wrong == 0);
  // Long after: the loops are over, and what they ran on is gone.
  CHECK(!lender.late.empty());
  for (auto& help : lender.late) help();
  int before = lender.asked;
  parallel_for(50, 3, [&](int64_t, int) {});
  CHECK(lender.asked == before);  // given back
}

TEST(an_exception_of_a_borrowed_thread_comes_back) {
  Unreliable lender;
  Borrowed borrowed(&lender);
  for (int round = 0; round < 20; ++round)
    CHECK_THROWS(std::runtime_error, "all",
                 parallel_for(64, 4, [&](int64_t, int) { throw std::runtime_error("all"); }));
}

// It has no memory to remember a second request by.
struct Full final : Scheduler {
  std::vector<std::thread> running;

  void schedule(std::function<void()> help) override {
    if (!running.empty()) throw std::bad_alloc();
    running.emplace_back(std::move(help));
  }
  ~Full() {
    for (std::thread& thread : running) thread.join();
  }
};

TEST(who_cannot_be_asked_means_fewer) {
  for (int round = 0; round < 50; ++round) {
    Full lender;
    Borrowed borrowed(&lender);
    std::vector<std::atomic<int>> runs(40);
    parallel_for(40, 4, [&](int64_t task, int) { runs[size_t(task)]++; });
    for (auto& n : runs) CHECK(n == 1);
  }
}

// A team, as OpenMP's: all of it comes, however few are wanted, and is waited for.
struct Team final : Lender {
  explicit Team(int n) : size(n) {}
  int size, asked = 0;

  void run(int, const std::function<void()>& help, const std::function<void()>& work) override {
    ++asked;
    std::vector<std::thread> others;
    for (int i = 1; i < size; ++i) others.emplace_back(help);
    work();
    for (std::thread& thread : others) thread.join();
  }
};

TEST(a_team_may_be_of_any_size) {
  for (int size : {1, 2, 3, 8})
    for (int threads : {2, 3}) {
      Team team(size);
      std::atomic<int> helped{0};
      auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      do {
        Borrowed borrowed(&team);
        std::vector<std::atomic<int>> runs(50);
        int plain[3] = {};  // unguarded: the thread sanitizer would see a second user
        parallel_for(50, threads, [&](int64_t task, int worker) {
          CHECK(0 <= worker && worker < threads);
          runs[size_t(task)]++, plain[worker]++;
          helped += worker != 0;
          std::this_thread::sleep_for(std::chrono::microseconds(100));
        });
        for (auto& n : runs) CHECK(n == 1);
        CHECK(plain[0] + plain[1] + plain[2] == 50);
      } while (size > 1 && !helped && std::chrono::steady_clock::now() < until);
      CHECK((helped > 0) == (size > 1));
      CHECK(team.asked > 0);
    }
}

TEST(an_exception_of_a_team_comes_back) {
  Team team(4);
  Borrowed borrowed(&team);
  for (int round = 0; round < 20; ++round)
    CHECK_THROWS(std::runtime_error, "all",
                 parallel_for(64, 3, [&](int64_t, int) { throw std::runtime_error("all"); }));
}

TEST(who_is_lent_nothing_has_our_pool) {
  Team team(2);
  Borrowed borrowed(&team);
  {
    Borrowed none(nullptr);
    parallel_for(50, 2, [&](int64_t, int) {});
    CHECK(team.asked == 0);
  }
  parallel_for(50, 2, [&](int64_t, int) {});
  CHECK(team.asked == 1);
  parallel_for(1, 2, [&](int64_t, int) {});  // nothing to help with
  parallel_for(50, 1, [&](int64_t, int) {});
  CHECK(team.asked == 1);
}

TEST(the_number_of_threads) {
  int before = get_num_threads();
  CHECK(before >= 1);
  set_num_threads(3);
  CHECK(get_num_threads() == 3);
  CHECK_THROWS(ValueError, "got 0", set_num_threads(0));
  CHECK_THROWS(ValueError, "got -5", set_num_threads(-5));
  CHECK_THROWS(ValueError, "at most 4096", set_num_threads(most_threads + 1));
  CHECK_THROWS(ValueError, "at least 1", set_num_threads(INT64_MIN));
  CHECK_THROWS(ValueError, "at most 4096", set_num_threads((int64_t(1) << 32) + 1));
  CHECK(get_num_threads() == 3);
  set_num_threads(most_threads);
  CHECK(get_num_threads() == most_threads);
  set_num_threads(before);
}
