// The instruction set in use: the best of the machine, or the one that the caller names.

#include "interface.h"
#include "machines.h"

#include <cstring>

#if defined(THRESHER_NEON) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(THRESHER_NEON) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(THRESHER_BF16_AND_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

Machine thresher_machine = PORTABLE;

#if defined(__aarch64__)
static bool here(Machine asked) {
#if defined(THRESHER_NEON) && defined(__linux__)
  // Bits of the kernel's list: products of bytes (asimddp), and of bfloat16 numbers (bf16).
  const bool dot = getauxval(AT_HWCAP) >> 20 & 1, pairs = getauxval(AT_HWCAP2) >> 14 & 1;
#elif defined(THRESHER_NEON) && defined(__APPLE__)
  int32_t pairs = 0;
  size_t size = sizeof(pairs);
  const bool dot = true;
  if (sysctlbyname("hw.optional.arm.FEAT_BF16", &pairs, &size, nullptr, 0)) pairs = 0;
#else
  const bool dot = false, pairs = false;
#endif
  return asked == PORTABLE || (dot && (asked == NEON_DOT || pairs));
}
#else
#if defined(THRESHER_BF16_AND_AMX)
static bool has_avx_vnni() {
#if defined(THRESHER_EVEX)
  return __builtin_cpu_supports("avx512vnni");
#else
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
#endif
}
#endif

static bool here(Machine asked) {
  switch (asked) {
#if defined(THRESHER_BF16_AND_AMX)
    case AMX: {
      unsigned a, b, c, d, a1, b1, c1, d1;
      const bool known = __get_cpuid_count(7, 0, &a, &b, &c, &d) && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
      // amx-bf16, amx-tile, amx-int8, avx512-bf16
      const bool able = known && d >> 22 & 1 && d >> 24 & 1 && d >> 25 & 1 && a1 >> 5 & 1;
      // The kernel makes room for tiles only in a process that asks. 18 is their number among its states.
      return able && !syscall(SYS_arch_prctl, 0x1023, 18);
    }
    case AVX_VNNI:
      return here(AVX2) && has_avx_vnni();
#endif
#if defined(__x86_64__)
    case AVX512_BF16:
      return here(AVX512_VNNI) && __builtin_cpu_supports("avx512bf16");
    case AVX512_VNNI:
      return here(AVX512) && __builtin_cpu_supports("avx512vnni");
    case AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default:
      return asked == PORTABLE;
  }
}
#endif

extern "C" const char* thresher_use(const char* name) {
#if defined(__aarch64__)
  static const char* const names[MACHINES] = {"portable", "neon-dot", "neon-bf16"};
#else
  static const char* const names[MACHINES] = {"portable",    "avx2",        "avx-vnni", "avx512",
                                              "avx512-vnni", "avx512-bf16", "amx"};
#endif
  for (int i = MACHINES - 1; i >= 0; --i)
    if ((!name || !std::strcmp(name, names[i])) && here(Machine(i))) {
      thresher_machine = Machine(i);
      return names[i];
    }
  return nullptr;
}
