// Attention of a packed batch with the importance of every token. Nothing here knows torch.
//
// One thread computes each head of each sequence, in a fixed order. Therefore a sequence's result depends neither on
// the other sequences of its batch nor on the number of threads.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "attention.h"
#include "machines.h"
#include "numbers.h"

namespace {

#define THRESHER_CODE "attention_strip.h"
#define THRESHER_PAIRS_CODE "attention_bf16.h"
#define THRESHER_AMX_CODE "attention_amx.h"
#include "each_machine.h"

using Run = void (*)(const Problem&, int64_t sequence, int64_t head, int64_t end);

const Run runs[2][MACHINES] = {THRESHER_EACH(run_heads<float>), THRESHER_EACH(run_heads<bf16>)};

void average(const Problem& p) {
  std::memset(p.importance, 0, p.tokens * sizeof(float));
  for (int64_t head = 0; head < p.heads; ++head)
    for (int64_t token = 0; token < p.tokens; ++token) p.importance[token] += p.received[head * p.tokens + token];
  for (int64_t token = 0; token < p.tokens; ++token) p.importance[token] /= std::max<int64_t>(1, p.heads);
}

constexpr int64_t PIECES = 6;  // at least so many for each thread, so that threads end at about the same time

}  // namespace

extern "C" {

int32_t thresher_attend(const Problem* problem, int32_t threads, Team team) {
  Run run = runs[problem->bf16][thresher_machine];
#if defined(THRESHER_BF16_AND_AMX)
  if (thresher_machine == AVX512_BF16 && problem->bf16) run = avx512_bf16::pairs::run_heads;
  if (thresher_machine == AMX && problem->bf16) run = avx512_bf16::amx::run_heads;
#endif
  const int64_t heads = problem->heads, batch = std::max<int64_t>(1, problem->batch);
  const int64_t wanted = (PIECES * threads + batch - 1) / batch;
  const int64_t groups = std::min(heads, wanted);  // of heads, in a sequence
  const bool done = share_out(problem->batch * groups, threads, team, [&](int64_t i) {
    run(*problem, i / groups, i % groups * heads / groups, (i % groups + 1) * heads / groups);
  });
  if (problem->importance) average(*problem);
  return !done;
}

}  // extern "C"
