// Attention of a packed batch with the importance of every token, behind a C interface; native.py is its
// only caller. Nothing here knows torch.
//
// Every (sequence, head) is worked on by one thread, in a fixed order: a sequence's result depends neither
// on the other sequences of its batch nor on the number of threads.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "machines.h"
#include "numbers.h"
#include "team.h"

extern "C" struct Problem {  // as in native.py
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;     // [batch + 1]
  const int64_t* positions;  // [tokens]; read where there is a window
  const int64_t* rows;       // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts; // [batch + 1], of rows
  void* context;             // [rows, heads, dim], or null
  float* received;           // [heads, tokens]: attention received in every head, or null
  float* importance;         // [tokens]: the mean of it over heads
  int64_t batch, tokens, heads, dim;
  int64_t window;            // -1 for none
  float scale;
  int32_t bf16;              // 1 if numbers are bfloat16, 0 if they are float
};

namespace {

struct Reach {
  int64_t low, high;  // keys of the sequence from low on, up to and without high
};

// The tokens of a sequence whose context is wanted, as places in all of the batch.
struct Rows {
  Rows(const Problem& p, int64_t sequence)
      : chosen(p.rows),
        first((p.rows ? p.row_starts : p.starts)[sequence]),
        count((p.rows ? p.row_starts : p.starts)[sequence + 1] - first) {}
  int64_t operator[](int64_t i) const { return chosen ? chosen[first + i] : first + i; }
  const int64_t* chosen;
  int64_t first, count;
};

// Keys in reach of queries that are asked for in order.
class Window {
 public:
  Window(const Problem& p, int64_t start, int64_t n)
      : at_(p.positions), start_(start), n_(n), window_(p.window), reach_{0, p.window < 0 ? n : 0} {}
  Reach of(int64_t token) {
    if (window_ >= 0) {
      while (at_[start_ + reach_.low] < at_[token] - window_) ++reach_.low;
      while (reach_.high < n_ && at_[start_ + reach_.high] <= at_[token] + window_) ++reach_.high;
    }
    return reach_;
  }

 private:
  const int64_t* at_;
  int64_t start_, n_, window_;
  Reach reach_;
};

constexpr int64_t ROOM = 1 << 18;  // floats of packed heads that stay in a core's own cache

#define THRESHER_CODE "attention_strip.h"
#define THRESHER_AMX_CODE "attention_amx.h"
#include "each_machine.h"

using Run = void (*)(const Problem&, int64_t sequence, int64_t head, int64_t end);

// For float and for bfloat16.
const Run runs[MACHINES][2] = {
    {portable::run_heads<float>, portable::run_heads<bf16>},
#if defined(__x86_64__)
    {avx2::run_heads<float>, avx2::run_heads<bf16>},
    {avx512::run_heads<float>, avx512::run_heads<bf16>},
#endif
#if defined(THRESHER_AMX)
    {avx512::run_heads<float>, amx::run_heads},
#endif
};

void average(const Problem& p) {
  std::memset(p.importance, 0, p.tokens * sizeof(float));
  for (int64_t head = 0; head < p.heads; ++head)
    for (int64_t token = 0; token < p.tokens; ++token) p.importance[token] += p.received[head * p.tokens + token];
  for (int64_t token = 0; token < p.tokens; ++token) p.importance[token] /= p.heads;
}

constexpr int64_t PIECES = 6;  // for each thread, or more: they end at about the same time

}  // namespace

extern "C" {

// The size of a Problem, for the caller to compare with its own.
int64_t thresher_problem_size() { return sizeof(Problem); }

// Gives back 0, or 1 if memory ran out. thresher_use() comes first.
int32_t thresher_attend(const Problem* problem, int32_t threads, Team team) {
  const Run run = runs[thresher_machine][problem->bf16];
  const int64_t heads = problem->heads, wanted = (PIECES * threads + problem->batch - 1) / problem->batch;
  const int64_t groups = std::min(heads, wanted);  // of heads, to a sequence
  const bool done = share_out(problem->batch * groups, threads, team, [&](int64_t i) {
    run(*problem, i / groups, i % groups * heads / groups, (i % groups + 1) * heads / groups);
  });
  if (problem->received) average(*problem);
  return !done;
}

}  // extern "C"
