// The file that THRESHER_CODE names, once for each instruction set, each time in a namespace of its own. It has
// no include guard, therefore, and neither has what it includes. Then the one of THRESHER_AMX_CODE, if there is one, for AMX.

namespace portable {
#define THRESHER_WIDTH 4
#include THRESHER_CODE
}  // namespace portable

#undef THRESHER_WIDTH

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define THRESHER_WIDTH 8
#include THRESHER_CODE
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef THRESHER_WIDTH

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#define THRESHER_WIDTH 16
#include THRESHER_CODE
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef THRESHER_WIDTH

#if defined(THRESHER_AMX) && defined(THRESHER_AMX_CODE)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,prefer-vector-width=512")
#endif
namespace amx {
#include "tiles.h"
#include THRESHER_AMX_CODE
}  // namespace amx
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#endif  // x86_64
