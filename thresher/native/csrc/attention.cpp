// Attention of a packed batch with the importance of every token, behind a C interface; native.py is its
// only caller. Nothing here knows torch.
//
// Every (sequence, head) is worked on by one thread, in a fixed order: a sequence's result depends neither
// on the other sequences of its batch nor on the number of threads.

#include <cmath>
#include <cstring>
#include <type_traits>

#include "team.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define THRESHER_AMX
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern "C" struct Problem {  // as in native.py
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;     // [batch + 1]
  const int64_t* positions;  // [tokens]; read where there is a window
  const int64_t* rows;       // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts; // [batch + 1], of rows
  void* context;             // [rows, heads, dim], or null
  float* received;           // [heads, tokens]: attention received in every head, or null
  int64_t batch, tokens, heads, dim;
  int64_t window;            // -1 for none
  float scale;
  int32_t bf16;              // 1 if numbers are bfloat16, 0 if they are float
};

namespace {

struct Reach {
  int64_t low, high;  // keys of the sequence from low on, up to and without high
};

// The tokens of a sequence whose context is wanted, as places in all of the batch.
struct Rows {
  Rows(const Problem& p, int64_t sequence)
      : chosen(p.rows),
        first((p.rows ? p.row_starts : p.starts)[sequence]),
        count((p.rows ? p.row_starts : p.starts)[sequence + 1] - first) {}
  int64_t operator[](int64_t i) const { return chosen ? chosen[first + i] : first + i; }
  const int64_t* chosen;
  int64_t first, count;
};

// Keys in reach of queries that are asked for in order.
class Window {
 public:
  Window(const Problem& p, int64_t start, int64_t n)
      : at_(p.positions), start_(start), n_(n), window_(p.window), reach_{0, p.window < 0 ? n : 0} {}
  Reach of(int64_t token) {
    if (window_ >= 0) {
      while (at_[start_ + reach_.low] < at_[token] - window_) ++reach_.low;
      while (reach_.high < n_ && at_[start_ + reach_.high] <= at_[token] + window_) ++reach_.high;
    }
    return reach_;
  }

 private:
  const int64_t* at_;
  int64_t start_, n_, window_;
  Reach reach_;
};

typedef float AnyFour __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint16_t bf16;

// Numbers i, j, k and l of a and b, taken as one vector of eight.
#if defined(__clang__) || __GNUC__ >= 12
#define THRESHER_PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t FourPlaces __attribute__((vector_size(16)));
#define THRESHER_PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, FourPlaces{i, j, k, l})
#endif

#define THRESHER_UNROLL _Pragma("GCC unroll 8")  // else arrays of vectors stay in memory

constexpr int64_t ROOM = 1 << 18;  // floats of packed heads that stay in a core's own cache

inline float number(float value) { return value; }
inline float number(bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
inline AnyFour four(const float* from) { return *reinterpret_cast<const AnyFour*>(from); }
inline AnyFour four(const bf16* from) {
  return AnyFour{number(from[0]), number(from[1]), number(from[2]), number(from[3])};
}
template <class T>
inline T rounded(float value);
template <>
inline float rounded<float>(float value) {
  return value;
}
template <>
inline bf16 rounded<bf16>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The same code for each instruction set. -----------------------------------------------------------

namespace portable {
#define THRESHER_WIDTH 4
#define THRESHER_ROWS 4
#define THRESHER_COLUMNS 2
#define THRESHER_STRIPS run_strip<1>, run_strip<2>, run_strip<3>, run_strip<4>
#include "attention_strip.h"
}  // namespace portable

#undef THRESHER_WIDTH
#undef THRESHER_COLUMNS

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define THRESHER_WIDTH 8
#define THRESHER_COLUMNS 2
#include "attention_strip.h"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef THRESHER_WIDTH
#undef THRESHER_ROWS
#undef THRESHER_COLUMNS
#undef THRESHER_STRIPS

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#define THRESHER_WIDTH 16
#define THRESHER_ROWS 6
#define THRESHER_COLUMNS 4
#define THRESHER_STRIPS run_strip<1>, run_strip<2>, run_strip<3>, run_strip<4>, run_strip<5>, run_strip<6>
#include "attention_strip.h"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(THRESHER_AMX)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#endif
namespace amx {
#include "tiles.h"
#include "attention_amx.h"
}  // namespace amx
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#endif  // x86_64

using Run = void (*)(const Problem&, int64_t sequence, int64_t head, int64_t end);

struct Machine {
  const char* name;
  bool here;
  Run run[2];  // for float and for bfloat16
};

// Best first.
const Machine machines[] = {
#if defined(THRESHER_AMX)
    {"amx", amx::here(), {avx512::run_heads<float>, amx::run_heads}},
#endif
#if defined(__x86_64__)
    {"avx512",
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"),
     {avx512::run_heads<float>, avx512::run_heads<bf16>}},
    {"avx2",
     __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
     {avx2::run_heads<float>, avx2::run_heads<bf16>}},
#endif
    {"portable", true, {portable::run_heads<float>, portable::run_heads<bf16>}},
};
const Machine* chosen = nullptr;

constexpr int64_t PIECES = 6;  // for each thread, or more: they end at about the same time

}  // namespace

extern "C" {

// Choose the instructions to use by name, or the best there are by null. Gives back their name, or null if
// the machine lacks them.
const char* thresher_use(const char* name) {
  for (const Machine& machine : machines)
    if (machine.here && (!name || !std::strcmp(name, machine.name))) return (chosen = &machine)->name;
  return nullptr;
}

// The size of a Problem, for the caller to compare with its own.
int64_t thresher_problem_size() { return sizeof(Problem); }

// Gives back 0, or 1 if memory ran out. thresher_use() comes first.
int32_t thresher_attend(const Problem* problem, int32_t threads, Team team) {
  const Run run = chosen->run[problem->bf16];
  const int64_t heads = problem->heads, wanted = (PIECES * threads + problem->batch - 1) / problem->batch;
  const int64_t groups = std::min(heads, wanted);  // of heads, to a sequence
  return !share_out(problem->batch * groups, threads, team, [&](int64_t i) {
    run(*problem, i / groups, i % groups * heads / groups, (i % groups + 1) * heads / groups);
  });
}

}  // extern "C"
