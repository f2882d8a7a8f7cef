// Rows before an int8 product, rounded to int8; and rows after it, scaled, shifted and rounded.
// Included by each_machine.h.

#include "vectors.h"

typedef int8_t Bytes __attribute__((vector_size(W)));
typedef Bytes AnyBytes __attribute__((aligned(1), may_alias));
typedef int16_t Words __attribute__((vector_size(2 * W)));
typedef Words AnyWords __attribute__((aligned(2), may_alias));

static inline void write(int8_t* to, I whole) {
  *reinterpret_cast<AnyBytes*>(to) = __builtin_convertvector(whole, Bytes);
}
static inline void write(int16_t* to, I whole) {
  *reinterpret_cast<AnyWords*>(to) = __builtin_convertvector(whole, Words);
}

// Call `step(place, from, to)` for every vector of a row. The last, if incomplete, is a copy filled up with zeros.
template <class From, class To, class Step>
static inline void along(const From* from, To* to, int64_t width, const Step& step) {
  int64_t i = 0;
  for (; i + W <= width; i += W) step(i, from + i, to + i);
  if (const int64_t left = width - i) {
    From some[W] = {};
    To made[W] = {};
    std::memcpy(some, from + i, left * sizeof(From));
    step(i, some, made);
    std::memcpy(to + i, made, left * sizeof(To));
  }
}

// A row as int8 times its size. The size is the largest number of the row over 127, and a NaN makes it a NaN. `zero` is
// what stands for 0.
template <class T, class Number>
static void quantise_row(const T* row, int64_t width, Number* to, float* size, float zero = 0) {
  I largest = {};
  along(row, to, width, [&](int64_t, const T* from, Number*) {
    const I bits = (I)read(from) & 0x7fffffff;  // bits of floats, as whole numbers, have the order of the floats
    largest = bits > largest ? bits : largest;
  });
  const int32_t bits = reduce(largest, [](FourWhole a, FourWhole b) { return a > b ? a : b; });
  float most;
  std::memcpy(&most, &bits, 4);
  *size = most / 127;
  const F factor = all(most > 0 ? 127 / most : 0);
  along(row, to, width, [&](int64_t, const T* from, Number* made) {
    write(made, (I)(read(from) * factor + (MAGIC + zero)) - (I)all(MAGIC));
  });
}

// x times the normal distribution's share below x, by formula 7.1.26 of Abramowitz and Stegun: error 1e-7.
static inline F gelu(F x) {
  const F size = (F)((I)x & 0x7fffffff);
  const F t = 1.0f / (size * 0.23164189f + 1.0f);
  F tail = t * 1.061405429f - 1.453152027f;
  tail = tail * t + 1.421413741f;
  tail = tail * t - 0.284496736f;
  tail = tail * t + 0.254829592f;
  tail = tail * t * power(x * x * -0.72134752f);
  return larger(x, F{}) - 0.5f * (size < 20.0f ? size : all(20.0f)) * tail;  // infinity times 0 is a NaN
}

#if THRESHER_WIDTH == 16
// By parabolas.h: a third of the time of gelu().
static inline F near_gelu(F x) {
  const F size = (F)((I)x & 0x7fffffff), last = all(Parabolas::END);
  const F inside = size < last ? size : last;
  const I place = __builtin_convertvector(inside * (Parabolas::COUNT / (Parabolas::END * 1.000001f)), I);
  const auto factor = [&](int i) {
    const float* table = PARABOLAS.factors[i];
    return (F)_mm512_permutex2var_ps((__m512)load(table), (__m512i)place, (__m512)load(table + W));
  };
  return larger(x, F{}) - ((factor(2) * inside + factor(1)) * inside + factor(0));
}
#endif

static inline F sigmoid(F x) {
  const F small = power((F)((I)x | static_cast<int32_t>(0x80000000)) * 1.44269504f);  // e^-|x|
  return (x < 0.0f ? small : all(1.0f)) / (small + 1.0f);
}

// Finish the products of a row of int8: times the row's size, plus bias, and GELU if wanted.
template <class T>
static void finish_row(T* row, float size, const float* bias, bool gelu_too, int64_t width) {
  along(row, row, width, [&](int64_t i, const T* from, T* made) {
    float last[W] = {};
    const bool whole = i + W <= width;
    if (!whole) std::memcpy(last, bias + i, (width - i) * sizeof(float));
    const F value = read(from) * size + load(whole ? bias + i : last);
    write(made, gelu_too ? gelu(value) : value);
  });
}

static void quantise(const RowWork& r, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    int8_t* to = static_cast<int8_t*>(r.target) + i * r.width;
    if (r.bf16)
      quantise_row(static_cast<const bf16*>(r.source) + i * r.width, r.width, to, r.sizes + i);
    else
      quantise_row(static_cast<const float*>(r.source) + i * r.width, r.width, to, r.sizes + i);
  }
}

static void finish(const RowWork& r, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    if (r.bf16)
      finish_row(static_cast<bf16*>(r.target) + i * r.width, r.sizes[i], r.bias, r.gelu, r.width);
    else
      finish_row(static_cast<float*>(r.target) + i * r.width, r.sizes[i], r.bias, r.gelu, r.width);
  }
}
