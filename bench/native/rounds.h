// Rounds of work on a fixed set of threads, timed together: all start a round at once, and it ends with the last of
// them.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

typedef void (*work_fn)(int thread, int threads, void* context);

typedef struct {
  int threads, rounds;
  work_fn work;
  void* context;
  double* seconds;  // [rounds]
  atomic_int arrived, phase;
} Rounds;

typedef struct {
  Rounds* rounds;
  int thread;
} Worker;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void meet(Rounds* r) {
  const int phase = atomic_load(&r->phase);
  if (atomic_fetch_add(&r->arrived, 1) + 1 == r->threads) {
    atomic_store(&r->arrived, 0);
    atomic_fetch_add(&r->phase, 1);
    return;
  }
  for (int spins = 0; atomic_load(&r->phase) == phase; ++spins)
    if (spins > 1000) sched_yield();
}

static void* run_worker(void* argument) {
  Worker* w = argument;
  Rounds* r = w->rounds;
  for (int i = 0; i < r->rounds; ++i) {
    meet(r);
    const double start = now();
    r->work(w->thread, r->threads, r->context);
    meet(r);
    if (w->thread == 0) r->seconds[i] = now() - start;
  }
  return NULL;
}

// Seconds of the fastest of `rounds` rounds.
static double best_round(int threads, int rounds, work_fn work, void* context) {
  Rounds r = {.threads = threads, .rounds = rounds, .work = work, .context = context};
  r.seconds = malloc(sizeof(double) * (size_t)rounds);
  pthread_t* handles = malloc(sizeof(pthread_t) * (size_t)threads);
  Worker* workers = malloc(sizeof(Worker) * (size_t)threads);
  for (int t = 0; t < threads; ++t) {
    workers[t] = (Worker){&r, t};
    if (t > 0 && pthread_create(&handles[t], NULL, run_worker, &workers[t]) != 0) exit(1);
  }
  run_worker(&workers[0]);
  for (int t = 1; t < threads; ++t) pthread_join(handles[t], NULL);
  double best = r.seconds[0];
  for (int i = 1; i < rounds; ++i)
    if (r.seconds[i] < best) best = r.seconds[i];
  free(r.seconds);
  free(handles);
  free(workers);
  return best;
}
