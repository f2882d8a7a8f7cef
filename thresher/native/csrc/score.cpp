// Learned scores of a packed batch.

#include <cmath>

#include "interface.h"
#include "machines.h"
#include "numbers.h"

namespace {

#define THRESHER_CODE "score_rows.h"
#include "each_machine.h"

using Run = void (*)(const ScoreWork&, int64_t sequence);

const Run runs[2][MACHINES] = {THRESHER_EACH(score<float>), THRESHER_EACH(score<bf16>)};

}  // namespace

extern "C" {

int32_t thresher_score(const ScoreWork* work, int32_t threads, Team team) {
  const Run run = runs[work->bf16][thresher_machine];
  return !share_out(work->batch, threads, team, [&](int64_t i) { run(*work, i); });
}

}  // extern "C"
