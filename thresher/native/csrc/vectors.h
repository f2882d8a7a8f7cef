// Vectors of THRESHER_WIDTH floats. There is no include guard: each_machine.h includes this for every machine.

constexpr int W = THRESHER_WIDTH;     // floats in a vector
constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number

typedef float F __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef float AnyF __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t AnyI __attribute__((vector_size(4 * W), aligned(4), may_alias));

typedef uint16_t Half __attribute__((vector_size(2 * W)));
typedef Half AnyHalf __attribute__((aligned(2), may_alias));
typedef uint32_t U __attribute__((vector_size(4 * W)));

static inline F load(const float* from) { return *reinterpret_cast<const AnyF*>(from); }
static inline void store(float* to, F values) { *reinterpret_cast<AnyF*>(to) = values; }
static inline void write(float* to, F values) { store(to, values); }
static inline F read(const float* from) { return load(from); }
static inline F read(const bf16* from) {
  return (F)(__builtin_convertvector(*reinterpret_cast<const AnyHalf*>(from), U) << 16);
}
static inline F all(float value) { return value - F{}; }

// Four bytes, for every number of a vector.
static inline I repeated(const void* four_bytes) {
  int32_t bits;
  std::memcpy(&bits, four_bytes, 4);
  return bits - I{};
}

#if defined(THRESHER_PAIRS)
// Adds products of pairs of bfloat16 numbers.
static inline void add_pairs(F& sum, I left, I right) {
#if defined(__aarch64__)
  asm("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(left), "w"(right));
#else
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
#endif
}
#endif

static inline F part(const float* from, int64_t count) {  // with zeros after the last
  if (count >= W) return load(from);
  F some = {};
  std::memcpy(&some, from, count * sizeof(float));
  return some;
}
static inline I lanes(int64_t first) {
  I count;
  for (int i = 0; i < W; ++i) count[i] = i;
  return count + static_cast<int32_t>(first);
}
static inline F larger(F a, F b) {  // a NaN in a stays
#if THRESHER_WIDTH == 16
  return (F)_mm512_max_ps((__m512)b, (__m512)a);  // else two instructions
#else
  return a < b ? b : a;
#endif
}

// 2^x for x <= 0, by a polynomial for x from -0.5 to 0.5; 2^-126 for x below -126. A NaN stays.
template <int N>
static inline F power_by(const float (&factors)[N], F x) {
  x = larger(x, all(-126.0f));
  const F shifted = x + MAGIC;
  const F part = x - (shifted - MAGIC);
  F value = all(factors[0]);
  THRESHER_UNROLL for (int i = 1; i < N; ++i) value = value * part + factors[i];
  return (F)((I)value + ((I)shifted << 23));
}

// With a relative error of 2e-7.
static inline F power(F x) {
  return power_by({1.5403530e-4f, 1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f}, x);
}

#if defined(THRESHER_PAIRS) && THRESHER_WIDTH == 16
// With a relative error of 3e-6, for what is rounded to bfloat16. 2^0 is 1.
static inline F near_power(F x) {
  return power_by({9.5828101e-3f, 5.5906430e-2f, 2.4024099e-1f, 6.9312419e-1f, 1.0f}, x);
}

static inline void write(bf16* to, F values) {
  Half made;
  asm("vcvtneps2bf16 %1, %0" : "=v"(made) : "v"(values));
  *reinterpret_cast<AnyHalf*>(to) = made;
}
#else
static inline void write(bf16* to, F values) {
  const U bits = (U)values, even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  *reinterpret_cast<AnyHalf*>(to) = __builtin_convertvector(values == values ? even : bits >> 16 | 0x40, Half);
}
#endif

template <class Part, class Vector, class Join>
static inline auto reduce_by(Vector values, Join join) {
  Part part[W / 4];
  std::memcpy(part, &values, sizeof(values));
  for (int count = W / 8; count; count /= 2)
    for (int i = 0; i < count; ++i) part[i] = join(part[i], part[i + count]);
  const Part pair = join(part[0], THRESHER_PICK(part[0], part[0], 2, 3, 0, 1));
  return join(pair, THRESHER_PICK(pair, pair, 1, 0, 3, 2))[0];
}
template <class Join>
static inline float reduce(F values, Join join) {
  return reduce_by<Four>(values, join);
}
template <class Join>
static inline int32_t reduce(I values, Join join) {
  return reduce_by<FourWhole>(values, join);
}

// The sum of make(i, count) over a row's vectors, of which the last may have fewer than W numbers; in four sums, because
// one alone is a chain of slow steps.
template <class Make>
static inline float sum_of(int64_t width, const Make& make) {
  F sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= width; i += 4 * W)
    THRESHER_UNROLL for (int k = 0; k < 4; ++k) sum[k] += make(i + k * W, W);
  for (int k = 0; i < width; i += W, ++k) sum[k] += make(i, static_cast<int32_t>(std::min<int64_t>(W, width - i)));
  return reduce((sum[0] + sum[1]) + (sum[2] + sum[3]), [](Four a, Four b) { return a + b; });
}
