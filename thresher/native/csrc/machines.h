// The instruction sets that there is code for.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define THRESHER_NEW  // compiler and system know AVX-512 BF16 and AMX
#endif
#endif

// Each has the instructions of those before it.
enum Machine { PORTABLE, AVX2, AVX512, AVX512_VNNI, AVX512_BF16, AMX, MACHINES };

// The instruction set in use. thresher_use() sets it.
extern Machine thresher_machine;

// A function that each_machine.h makes for every machine, in the order of Machine. Some share one.
#if defined(__x86_64__)
#define THRESHER_EACH(...)                                                                        \
  {portable::__VA_ARGS__, avx2::__VA_ARGS__,        avx512::__VA_ARGS__, \
   avx512::__VA_ARGS__,   avx512_bf16::__VA_ARGS__, avx512_bf16::__VA_ARGS__}
#else
#define THRESHER_EACH(...) {portable::__VA_ARGS__}
#endif
