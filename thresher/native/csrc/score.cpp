// Learned scores of a packed batch, behind a C interface; thresher/pruners/score.py is the only caller.

#include <cmath>

#include "machines.h"
#include "numbers.h"
#include "team.h"

extern "C" struct ScoreWork {  // as in thresher/native
  const void* hidden;       // [tokens, dim]
  const float* vector;      // [dim]
  const float* importance;  // [tokens]
  const int32_t* starts;    // [batch + 1]
  float* scores;            // [tokens]
  int64_t batch, dim, stride;  // from row to row of `hidden`
  float largest, least;     // most that the logarithm of a learned score may be; least sum to divide by
  int32_t alone;            // 1 if importance only gives the sum
  int32_t bf16;             // 1 if hidden states are bfloat16, 0 if they are float
};

namespace {

#define THRESHER_CODE "score_rows.h"
#include "each_machine.h"

using Run = void (*)(const ScoreWork&, int64_t sequence);

const Run runs[MACHINES][2] = {
    {portable::score<float>, portable::score<bf16>},
#if defined(__x86_64__)
    {avx2::score<float>, avx2::score<bf16>},
    {avx512::score<float>, avx512::score<bf16>},
#endif
#if defined(THRESHER_AMX)
    {avx512::score<float>, avx512::score<bf16>},
#endif
};

}  // namespace

extern "C" {

int64_t thresher_score_work_size() { return sizeof(ScoreWork); }

void thresher_score(const ScoreWork* work, int32_t threads, Team team) {
  const Run run = runs[thresher_machine][work->bf16];
  share_out(work->batch, threads, team, [&](int64_t i) { run(*work, i); });
}

}  // extern "C"
