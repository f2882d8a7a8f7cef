// Linear layers, stages, and rows before and after int8 products.

#include <cmath>
#include <type_traits>

#include "interface.h"
#include "machines.h"
#include "numbers.h"
#include "parabolas.h"

namespace {

using Part = void (*)(const LinearWork&, int64_t first, int64_t count, int64_t output, int64_t end);
using Block = void (*)(const StageWork&, int64_t first, int64_t count);
struct Runs {
  Part linear;
  Block stage;
  void (*burn)(int64_t rounds);
  int64_t products;  // of a round
};

#define THRESHER_CODE "stage.h"
#define THRESHER_AMX_CODE "linear_amx.h"
#include "each_machine.h"

using Run = void (*)(const RowWork&, int64_t first, int64_t last);

const Run quantise[MACHINES] = THRESHER_EACH(quantise), finish[MACHINES] = THRESHER_EACH(finish);
Runs (*const runs[MACHINES])(int32_t precision, bool halves) = THRESHER_EACH(runs_of);

constexpr int64_t PIECES = 4;     // for each thread, so that threads end at about the same time
constexpr int64_t ROWS = 128;     // about so many at most in a piece of a linear layer: they stay in a core's own cache
constexpr int64_t STRIP = 6;      // rows that are multiplied at a time on most machines: see panels.h
constexpr int64_t LEAST = 4;      // strips of a piece, where there are so many rows
constexpr int64_t TILE = 16;      // rows of AMX
constexpr int64_t ROOM = 400000;  // bytes that a block of a stage may take of it

// The i-th of `pieces` nearly equal parts of `all` rows or outputs, in whole steps but for the last.
struct Share {
  Share(int64_t i, int64_t pieces, int64_t all, int64_t step) {
    const int64_t steps = (all + step - 1) / step;
    first = i * steps / pieces * step, end = std::min((i + 1) * steps / pieces * step, all);
  }
  int64_t first, end;
};

// What vectors do in a precision: nulls where they do nothing.
Runs by_vectors(int32_t precision, bool halves) { return runs[thresher_machine](precision, halves); }
Runs by_vectors(int32_t precision) { return by_vectors(precision, precision == BFLOAT16); }

// Whether AMX multiplies in a precision, faster than vectors do.
bool in_tiles(int32_t precision) {
#if defined(THRESHER_BF16_AND_AMX)
  return thresher_machine == AMX && precision != FLOAT;
#else
  return false;
#endif
}

Part part_of(const LinearWork& work) {
#if defined(THRESHER_BF16_AND_AMX)
  if (in_tiles(work.precision)) {
    if (work.precision == INT8) return work.bf16 ? avx512_bf16::amx::run<true, bf16> : avx512_bf16::amx::run<true, float>;
    return avx512_bf16::amx::run<false, bf16>;
  }
#endif
  return by_vectors(work.precision, work.bf16).linear;
}

int32_t run(const Run* each, const RowWork& work, int32_t threads, Team team) {
  const int64_t pieces = std::min<int64_t>(work.rows, threads > 1 ? PIECES * threads : 1);
  return !share_out(pieces, threads, team, [&](int64_t i) {
    const Share rows(i, pieces, work.rows, 1);
    each[thresher_machine](work, rows.first, rows.end);
  });
}

}  // namespace

extern "C" {

int32_t thresher_has(int32_t precision) {
  if (!by_vectors(precision).linear) return 0;
  return LINEARS | (in_tiles(precision) ? 0 : STAGES) | (precision == INT8 && bytes_in_words() ? IN_WORDS : 0);
}

int32_t thresher_burn(const BurnWork* work, int32_t threads, Team team) {
  const auto precision = static_cast<int32_t>(work->precision);
  const auto burn = by_vectors(precision).burn;
  if (!burn) return 1;
  return !share_out(threads, threads, team, [&](int64_t) { burn(work->rounds); });
}

int32_t thresher_round(int32_t precision) { return static_cast<int32_t>(by_vectors(precision).products); }

int32_t thresher_quantise(const RowWork* work, int32_t threads, Team team) {
  return run(quantise, *work, threads, team);
}

int32_t thresher_finish(const RowWork* work, int32_t threads, Team team) {
  return run(finish, *work, threads, team);
}

int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team) {
  const Part part = part_of(*work);
  if (!part) return 1;
  constexpr int64_t STEP = 64;  // outputs that are multiplied together, on every machine
  const int64_t strip = in_tiles(work->precision) ? 2 * TILE : STRIP, pieces = threads > 1 ? 2 * threads : 1;
  const int64_t strips = (work->rows + strip - 1) / strip, steps = (work->linear.outputs + STEP - 1) / STEP;
  const int64_t blocks = std::max((work->rows + ROWS - 1) / ROWS, std::min(strips / LEAST, pieces));
  // Where rows are few, threads share the outputs as well.
  const int64_t shares = std::min(steps, (pieces + blocks - 1) / std::max<int64_t>(1, blocks));
  return !share_out(blocks * shares, threads, team, [&](int64_t i) {
    const Share rows(i / shares, blocks, work->rows, strip), outputs(i % shares, shares, work->linear.outputs, STEP);
    part(*work, rows.first, rows.end - rows.first, outputs.first, outputs.end);
  });
}

int32_t thresher_stage(const StageWork* work, int32_t threads, Team team) {
  const Stage& stage = *work->stage;
  const bool here = thresher_has(stage.precision) & STAGES;
  const Block block = here ? by_vectors(stage.precision, work->bf16).stage : nullptr;
  if (!block) return 1;
  const int64_t row = 4 * (stage.dim + stage.down.inputs) + 4 * std::max(stage.output.inputs, stage.dim);
  const int64_t least = 24, most = std::max<int64_t>(least, std::min<int64_t>(192, ROOM / row));
  // As many rounds of blocks as threads need, all of about the same number of rows, and that one of whole strips.
  const int64_t rounds = (work->rows + most * threads - 1) / (most * threads);
  const int64_t strips = (work->rows + STRIP - 1) / STRIP, count = std::min(rounds * threads, strips);
  return !share_out(count, threads, team, [&](int64_t i) {
    const Share rows(i, count, work->rows, STRIP);
    block(*work, rows.first, rows.end - rows.first);
  });
}

}  // extern "C"
