// The instruction sets that there is code for.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define THRESHER_AMX
#include <immintrin.h>
#endif

enum Machine { PORTABLE, AVX2, AVX512, AMX, MACHINES };

// The one in use: thresher_use() comes first.
extern Machine thresher_machine;
