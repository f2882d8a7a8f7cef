// Linear layers, and what int8 products need row by row, behind a C interface; thresher/engines is the only caller.

#include "machines.h"
#include "numbers.h"
#include "team.h"

extern "C" struct RowWork {  // as in thresher/native
  const void* from;  // [rows, width] numbers to round to int8
  void* to;          // [rows, width] int8; or products, made into what they stand for in place
  float* sizes;      // [rows]
  const float* bias; // [width]
  int64_t rows, width;
  int32_t bf16;      // 1 if numbers and products are bfloat16, 0 if they are float
  int32_t gelu;
};

extern "C" struct LinearWork {  // as in thresher/native
  const void* from;           // [rows, inputs]
  void* to;                   // [rows, outputs]
  const void* weights;        // tiles, as in linear_amx.h
  const float* weight_sizes;  // [outputs, and up to 31 more], of int8
  const float* bias;          // as many
  int64_t rows, inputs, outputs, stride;  // from row to row of `from`
  int32_t int8;               // 1 if weights are int8, 0 if they are bfloat16; then rows are, too
  int32_t bf16;               // 1 if rows are bfloat16, 0 if they are float
  int32_t gelu;
};

namespace {

#define THRESHER_CODE "rows.h"
#define THRESHER_AMX_CODE "linear_amx.h"
#include "each_machine.h"

using Run = void (*)(const RowWork&, int64_t first, int64_t last);

const Run quantise[MACHINES] = {
    portable::quantise,
#if defined(__x86_64__)
    avx2::quantise, avx512::quantise, avx512::quantise,
#endif
};
const Run finish[MACHINES] = {
    portable::finish,
#if defined(__x86_64__)
    avx2::finish, avx512::finish, avx512::finish,
#endif
};

constexpr int64_t PIECES = 4;  // for each thread: they end at about the same time
constexpr int64_t ROWS = 128;  // of a linear layer's piece: in tiles they stay in a core's own cache

void run(const Run* runs, const RowWork& work, int32_t threads, Team team) {
  const int64_t pieces = std::min<int64_t>(work.rows, threads > 1 ? PIECES * threads : 1);
  share_out(pieces, threads, team, [&](int64_t i) {
    runs[thresher_machine](work, i * work.rows / pieces, (i + 1) * work.rows / pieces);
  });
}

}  // namespace

extern "C" {

int64_t thresher_row_work_size() { return sizeof(RowWork); }
int64_t thresher_linear_work_size() { return sizeof(LinearWork); }

// From float or bfloat16 to int8 and the sizes.
void thresher_quantise(const RowWork* work, int32_t threads, Team team) { run(quantise, *work, threads, team); }

// From products and sizes to float or bfloat16, in place.
void thresher_finish(const RowWork* work, int32_t threads, Team team) { run(finish, *work, threads, team); }

// A linear layer, on machines with AMX. Gives back 0, or 1 if it could not.
int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team) {
#if defined(THRESHER_AMX)
  if (thresher_machine != AMX) return 1;
  const int64_t blocks = (work->rows + ROWS - 1) / ROWS, panels = (work->outputs + 31) / 32;
  // Few rows: outputs are shared out as well.
  const int64_t parts = threads > 1 ? std::min(panels, (2 * threads + blocks - 1) / blocks) : 1;
  const auto run = work->int8 ? (work->bf16 ? amx::run<true, bf16> : amx::run<true, float>) : amx::run<false, bf16>;
  return !share_out(blocks * parts, threads, team, [&](int64_t i) {
    const int64_t row = i / parts * ROWS, part = i % parts;
    run(*work, row, std::min(ROWS, work->rows - row), part * panels / parts * 32, (part + 1) * panels / parts * 32);
  });
#else
  return 1;
#endif
}

}  // extern "C"
