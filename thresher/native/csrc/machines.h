// The instruction sets that there is code for.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
// How the assembler is told to write AVX-VNNI. With THRESHER_EVEX it writes AVX-512's instruction for the same vectors,
// so that a machine that lacks AVX-VNNI can test what is written for it.
#if defined(THRESHER_EVEX)
#define THRESHER_VEX ""
#else
#define THRESHER_VEX "%{vex%} "
#endif
#if defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define THRESHER_BF16_AND_AMX  // compiler and system know them, and AVX-VNNI
#endif
#endif

#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#define THRESHER_NEON  // the compiler knows products of bytes and of bfloat16 numbers
#endif

// From the best downwards the first that a machine has is taken.
#if defined(__aarch64__)
enum Machine { PORTABLE, NEON_DOT, NEON_BF16, MACHINES };
#else
enum Machine { PORTABLE, AVX2, AVX_VNNI, AVX512, AVX512_VNNI, AVX512_BF16, AMX, MACHINES };
#endif

// The instruction set in use. thresher_use() sets it.
extern Machine thresher_machine;

// Whether it multiplies int8 in 16 bits, because it has no product of four bytes.
#if defined(__aarch64__)
inline bool bytes_in_words() { return false; }
#else
inline bool bytes_in_words() { return thresher_machine == AVX2 || thresher_machine == AVX512; }
#endif

// A function that each_machine.h makes for every machine, in the order of Machine. Some share one.
#if defined(__x86_64__)
#define THRESHER_EACH(...)                                                              \
  {portable::__VA_ARGS__, avx2::__VA_ARGS__,        avx2::__VA_ARGS__,       avx512::__VA_ARGS__, \
   avx512::__VA_ARGS__,   avx512_bf16::__VA_ARGS__, avx512_bf16::__VA_ARGS__}
#elif defined(THRESHER_NEON)
#define THRESHER_EACH(...) {portable::__VA_ARGS__, neon_dot::__VA_ARGS__, neon_bf16::__VA_ARGS__}
#else
#define THRESHER_EACH(...) {portable::__VA_ARGS__}
#endif
