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

const Run runs[MACHINES][2] = {
    {portable::run_back<float>, portable::run_back<bf16>},
#if defined(__x86_64__)
    {avx2::run_back<float>, avx2::run_back<bf16>},
    {avx512::run_back<float>, avx512::run_back<bf16>},
#endif
#if defined(THRESHER_AMX)
    {avx512::run_back<float>, avx512::run_back<bf16>},
#endif
};

}  // namespace

extern "C" {

int32_t thresher_attend_backward(const Gradients* gradients, int32_t threads, Team team) {
  const Problem& problem = gradients->problem;
  const Run run = runs[thresher_machine][problem.bf16];
  return !share_out(problem.batch * problem.heads, threads, team,
                    [&](int64_t i) { run(*gradients, i / problem.heads, i % problem.heads); });
}

}  // extern "C"
