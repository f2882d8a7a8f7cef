// What int8 products need row by row, behind a C interface; thresher/native/rows.py is its only caller.

#include "machines.h"
#include "numbers.h"
#include "team.h"

extern "C" struct RowWork {  // as in rows.py
  const void* from;  // [rows, width] numbers to round to int8
  void* to;          // [rows, width] int8; or products, made into what they stand for in place
  float* sizes;      // [rows]
  const float* bias; // [width]
  int64_t rows, width;
  int32_t bf16;      // 1 if numbers and products are bfloat16, 0 if they are float
  int32_t gelu;
};

namespace {

#define THRESHER_CODE "rows.h"
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

void run(const Run* runs, const RowWork& work, int32_t threads, Team team) {
  const int64_t pieces = std::min<int64_t>(work.rows, threads > 1 ? PIECES * threads : 1);
  share_out(pieces, threads, team, [&](int64_t i) {
    runs[thresher_machine](work, i * work.rows / pieces, (i + 1) * work.rows / pieces);
  });
}

}  // namespace

extern "C" {

int64_t thresher_row_work_size() { return sizeof(RowWork); }

// From float or bfloat16 to int8 and the sizes.
void thresher_quantise(const RowWork* work, int32_t threads, Team team) { run(quantise, *work, threads, team); }

// From products and sizes to float or bfloat16, in place.
void thresher_finish(const RowWork* work, int32_t threads, Team team) { run(finish, *work, threads, team); }

}  // extern "C"
