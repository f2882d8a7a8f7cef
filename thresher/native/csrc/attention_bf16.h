// Products of pairs of bfloat16 numbers by vectors, for attention_pairs.h. Included by each_machine.h.

constexpr int64_t STRIP = 6;  // queries at a time: so many that their sums fit in the registers
constexpr int64_t PAIRS = 512;  // numbers of a tile

struct Unit {};

static inline I tile_row(const bf16* numbers) { return *reinterpret_cast<const AnyI*>(numbers); }

// Scores of R queries against P times 16 keys.
template <int R, int P>
static inline void multiply_panels(const bf16* query, const bf16* keys, int64_t chunks, float* scores, int64_t stride) {
  F sum[R][P];
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int p = 0; p < P; ++p) sum[r][p] = F{};
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t t = 0; t < 16; ++t) {
      I key[P];
      THRESHER_UNROLL for (int p = 0; p < P; ++p) key[p] = tile_row(keys + (p * chunks + c) * PAIRS + t * 32);
      THRESHER_UNROLL for (int r = 0; r < R; ++r) {
        const I left = repeated(query + (c * STRIP + r) * 32 + 2 * t);
        THRESHER_UNROLL for (int p = 0; p < P; ++p) add_pairs(sum[r][p], left, key[p]);
      }
    }
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int p = 0; p < P; ++p) store(scores + r * stride + 16 * p, sum[r][p]);
}

// T times 16 dims of the context rows of R queries, from `blocks` times 32 keys. Blocks are `apart` numbers apart.
template <int R, int T>
static inline void multiply_tiles(const bf16* weights, int64_t stride, int64_t blocks, const bf16* values,
                                  int64_t apart, float* context, int64_t width) {
  F sum[R][T];
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int t = 0; t < T; ++t) sum[r][t] = F{};
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t j = 0; j < 16; ++j) {
      I value[T];
      THRESHER_UNROLL for (int t = 0; t < T; ++t) value[t] = tile_row(values + b * apart + t * PAIRS + j * 32);
      THRESHER_UNROLL for (int r = 0; r < R; ++r) {
        const I left = repeated(weights + r * stride + 32 * b + 2 * j);
        THRESHER_UNROLL for (int t = 0; t < T; ++t) add_pairs(sum[r][t], left, value[t]);
      }
    }
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int t = 0; t < T; ++t) store(context + r * width + 16 * t, sum[r][t]);
}

template <int R>
static void multiply_keys_of(const bf16* query, const bf16* keys, int64_t chunks, int64_t first, int64_t last,
                             float* scores, int64_t stride) {
  int64_t j = first;
  for (; j + 64 <= last; j += 64)
    multiply_panels<R, 4>(query, keys + j / 16 * chunks * PAIRS, chunks, scores + j, stride);
  for (; j < last; j += 32)
    multiply_panels<R, 2>(query, keys + j / 16 * chunks * PAIRS, chunks, scores + j, stride);
}

template <int R>
static void multiply_values_of(const bf16* weights, int64_t stride, int64_t blocks, const bf16* values, int64_t chunks,
                               float* context) {
  int64_t c = 0;
  for (; c + 2 <= chunks; c += 2)
    multiply_tiles<R, 4>(weights, stride, blocks, values + c * 2 * PAIRS, chunks * 2 * PAIRS, context + 32 * c,
                         32 * chunks);
  for (; c < chunks; ++c)
    multiply_tiles<R, 2>(weights, stride, blocks, values + c * 2 * PAIRS, chunks * 2 * PAIRS, context + 32 * c,
                         32 * chunks);
}

// Scores of a strip of `count` queries against the keys [first, last).
static void multiply_keys(const bf16* query, const bf16* keys, int64_t chunks, int64_t count, int64_t first,
                          int64_t last, float* scores, int64_t stride) {
  static void (*const run[])(const bf16*, const bf16*, int64_t, int64_t, int64_t, float*, int64_t) = {
      multiply_keys_of<1>, multiply_keys_of<2>, multiply_keys_of<3>,
      multiply_keys_of<4>, multiply_keys_of<5>, multiply_keys_of<6>};
  run[count - 1](query, keys, chunks, first, last, scores, stride);
}

// Context rows of a strip of `count` queries, from `blocks` times 32 keys.
static void multiply_values(const bf16* weights, int64_t stride, int64_t count, int64_t blocks, const bf16* values,
                            int64_t chunks, float* context) {
  static void (*const run[])(const bf16*, int64_t, int64_t, const bf16*, int64_t, float*) = {
      multiply_values_of<1>, multiply_values_of<2>, multiply_values_of<3>,
      multiply_values_of<4>, multiply_values_of<5>, multiply_values_of<6>};
  run[count - 1](weights, stride, blocks, values, chunks, context);
}

#include "attention_pairs.h"
