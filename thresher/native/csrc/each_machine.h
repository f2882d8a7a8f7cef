// Includes the file THRESHER_CODE once for each instruction set, each time in a namespace of its own: that file and
// the files it includes have no include guard. Within the namespace of AVX-512 BF16 it includes the files
// THRESHER_PAIRS_CODE and THRESHER_AMX_CODE, where there are such.

// Code between these two may use these features of a processor. Only GCC reads the strings after the first.
#define THRESHER_PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__clang__)
#define THRESHER_BEGIN(features, ...) \
  THRESHER_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define THRESHER_END THRESHER_PRAGMA(clang attribute pop)
#else
#define THRESHER_BEGIN(...) THRESHER_PRAGMA(GCC push_options) THRESHER_PRAGMA(GCC target(__VA_ARGS__))
#define THRESHER_END THRESHER_PRAGMA(GCC pop_options)
#endif

namespace portable {
#define THRESHER_WIDTH 4
#include THRESHER_CODE
#undef THRESHER_WIDTH
}  // namespace portable

#if defined(__x86_64__)

THRESHER_BEGIN("avx2,fma")
namespace avx2 {
#define THRESHER_WIDTH 8
#include THRESHER_CODE
#undef THRESHER_WIDTH
}  // namespace avx2
THRESHER_END

THRESHER_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,fma", "prefer-vector-width=512")
namespace avx512 {
#define THRESHER_WIDTH 16
#include THRESHER_CODE
#undef THRESHER_WIDTH
}  // namespace avx512
THRESHER_END

#if defined(THRESHER_BF16_AND_AMX)
THRESHER_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma", "prefer-vector-width=512")
namespace avx512_bf16 {
#define THRESHER_WIDTH 16
#define THRESHER_PAIRS
#include THRESHER_CODE
#undef THRESHER_PAIRS
#undef THRESHER_WIDTH
#if defined(THRESHER_PAIRS_CODE)
namespace pairs {
#include THRESHER_PAIRS_CODE
}  // namespace pairs
#endif
}  // namespace avx512_bf16
THRESHER_END

#if defined(THRESHER_AMX_CODE)
THRESHER_BEGIN("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma",
               "prefer-vector-width=512")
namespace avx512_bf16::amx {
#include "tiles.h"
#include THRESHER_AMX_CODE
}  // namespace avx512_bf16::amx
THRESHER_END
#endif
#else
namespace avx512_bf16 = avx512;
#endif  // THRESHER_BF16_AND_AMX

#elif defined(THRESHER_NEON)

THRESHER_BEGIN("arch=armv8.2-a+dotprod")
namespace neon_dot {
#define THRESHER_WIDTH 4
#define THRESHER_DOT
#include THRESHER_CODE
#undef THRESHER_DOT
#undef THRESHER_WIDTH
}  // namespace neon_dot
THRESHER_END

THRESHER_BEGIN("arch=armv8.2-a+dotprod+bf16")
namespace neon_bf16 {
#define THRESHER_WIDTH 4
#define THRESHER_DOT
#define THRESHER_PAIRS
#include THRESHER_CODE
#undef THRESHER_PAIRS
#undef THRESHER_DOT
#undef THRESHER_WIDTH
}  // namespace neon_bf16
THRESHER_END

#endif
