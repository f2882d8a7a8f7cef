// Numbers as they lie in memory: float and bfloat16, and four at a time.
#pragma once

#include <cstdint>
#include <cstring>

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourWhole __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint16_t bf16;

// Numbers i, j, k and l of a and b, taken as one vector of eight.
#if defined(__clang__) || __GNUC__ >= 12
#define THRESHER_PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t FourPlaces __attribute__((vector_size(16)));
#define THRESHER_PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, FourPlaces{i, j, k, l})
#endif

#define THRESHER_UNROLL _Pragma("GCC unroll 8")  // else arrays of vectors stay in memory

static inline float number(float value) { return value; }
static inline float number(bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
static inline Four four(const float* from) { return *reinterpret_cast<const Four*>(from); }
static inline Four four(const bf16* from) {
  return Four{number(from[0]), number(from[1]), number(from[2]), number(from[3])};
}
template <class T>
static inline T rounded(float value);
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
