// The way back through attention.cpp, for training.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "attention.h"
#include "machines.h"
#include "numbers.h"

namespace {

#define THRESHER_CODE "attention_backward.h"
#include "each_machine.h"

using Run = void (*)(const Gradients&, int64_t sequence, int64_t head);

const Run runs[2][MACHINES] = {THRESHER_EACH(run_back<float>), THRESHER_EACH(run_back<bf16>)};

}  // namespace

extern "C" {

int32_t thresher_attend_backward(const Gradients* gradients, int32_t threads, Team team) {
  const Problem& problem = gradients->problem;
  const Run run = runs[problem.bf16][thresher_machine];
  return !share_out(problem.batch * problem.heads, threads, team,
                    [&](int64_t i) { run(*gradients, i / problem.heads, i % problem.heads); });
}

}  // extern "C"
