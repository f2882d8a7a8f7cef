// Learned scores of a packed batch, behind a C interface; thresher/pruners/score.py is the only caller.

#include <cmath>

#include "interface.h"
#include "machines.h"
#include "numbers.h"

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

int32_t thresher_score(const ScoreWork* work, int32_t threads, Team team) {
  const Run run = runs[thresher_machine][work->bf16];
  return !share_out(work->batch, threads, team, [&](int64_t i) { run(*work, i); });
}

}  // extern "C"
