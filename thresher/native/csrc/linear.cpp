// Linear layers, and rows before and after int8 products.

#include "interface.h"
#include "machines.h"
#include "numbers.h"

namespace {

#define THRESHER_CODE "rows.h"
#define THRESHER_AMX_CODE "linear_amx.h"
#include "each_machine.h"

using Run = void (*)(const RowWork&, int64_t first, int64_t last);

const Run quantise[MACHINES] = THRESHER_EACH(quantise), finish[MACHINES] = THRESHER_EACH(finish);

constexpr int64_t PIECES = 4;  // for each thread, so that threads end at about the same time
constexpr int64_t ROWS = 128;  // in a piece of a linear layer: their tiles stay in a core's own cache

int32_t run(const Run* runs, const RowWork& work, int32_t threads, Team team) {
  const int64_t pieces = std::min<int64_t>(work.rows, threads > 1 ? PIECES * threads : 1);
  return !share_out(pieces, threads, team, [&](int64_t i) {
    runs[thresher_machine](work, i * work.rows / pieces, (i + 1) * work.rows / pieces);
  });
}

}  // namespace

extern "C" {

int32_t thresher_quantise(const RowWork* work, int32_t threads, Team team) {
  return run(quantise, *work, threads, team);
}

int32_t thresher_finish(const RowWork* work, int32_t threads, Team team) {
  return run(finish, *work, threads, team);
}

int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team) {
#if defined(THRESHER_AMX)
  if (thresher_machine != AMX) return 1;
  const int64_t blocks = (work->rows + ROWS - 1) / ROWS, panels = (work->outputs + 31) / 32;
  // Where rows are few, threads share the outputs as well.
  const int64_t parts = threads > 1 ? std::min(panels, (2 * threads + blocks - 1) / std::max<int64_t>(1, blocks)) : 1;
  const auto of_int8 = work->bf16 ? amx::run<true, bf16> : amx::run<true, float>;
  const auto run = work->weight_sizes ? of_int8 : amx::run<false, bf16>;
  return !share_out(blocks * parts, threads, team, [&](int64_t i) {
    const int64_t row = i / parts * ROWS, part = i % parts;
    run(*work, row, std::min(ROWS, work->rows - row), part * panels / parts * 32, (part + 1) * panels / parts * 32);
  });
#else
  return 1;
#endif
}

}  // extern "C"
