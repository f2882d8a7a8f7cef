// Products of pairs of bfloat16 numbers on AMX, which multiplies tiles of 16 rows: for attention_pairs.h. Included by
// each_machine.h.

constexpr int64_t STRIP = TILE;  // queries at a time

// Ready for tiles while it lives.
struct Unit {
  Unit() {
    THRESHER_STORED;
    _tile_loadconfig(&SHAPES);
  }
  ~Unit() { _tile_release(); }
};

// Scores of 16 queries against P times 16 keys. P is 2 or 4.
template <int P>
static inline void multiply_panels(const bf16* query, const bf16* keys, int64_t chunks, float* scores, int64_t stride) {
  _tile_zero(0);
  _tile_zero(1);
  if (P == 4) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t c = 0; c < chunks; ++c) {
    THRESHER_LOAD(4, query + c * PAIRS, 64);
    THRESHER_LOAD(5, keys + c * PAIRS, 64);
    THRESHER_LOAD(6, keys + (chunks + c) * PAIRS, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    if (P == 4) {
      THRESHER_LOAD(7, keys + (2 * chunks + c) * PAIRS, 64);
      THRESHER_LOAD(5, keys + (3 * chunks + c) * PAIRS, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  THRESHER_STORE(0, scores, stride * 4);
  THRESHER_STORE(1, scores + 16, stride * 4);
  if (P == 4) {
    THRESHER_STORE(2, scores + 32, stride * 4);
    THRESHER_STORE(3, scores + 48, stride * 4);
  }
}

// Scores of a strip of queries against the keys [first, last).
static void multiply_keys(const bf16* query, const bf16* keys, int64_t chunks, int64_t, int64_t first, int64_t last,
                          float* scores, int64_t stride) {
  THRESHER_STORED;
  int64_t j = first;
  for (; j + 64 <= last; j += 64)
    multiply_panels<4>(query, keys + j / 16 * chunks * PAIRS, chunks, scores + j, stride);
  for (; j < last; j += 32)
    multiply_panels<2>(query, keys + j / 16 * chunks * PAIRS, chunks, scores + j, stride);
  THRESHER_STORED;
}

// 32 dims of the context rows of 16 queries, from `blocks` times 32 keys. Blocks of values are `apart` numbers apart.
static inline void multiply_chunk(const bf16* weights, int64_t stride, int64_t blocks, const bf16* values,
                                   int64_t apart, float* context, int64_t width) {
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t b = 0; b < blocks; ++b) {
    THRESHER_LOAD(4, weights + 32 * b, stride * 2);
    THRESHER_LOAD(5, values + b * apart, 64);
    THRESHER_LOAD(6, values + b * apart + PAIRS, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
  }
  THRESHER_STORE(0, context, width * 4);
  THRESHER_STORE(1, context + 16, width * 4);
}

// Context rows of a strip of queries, from `blocks` times 32 keys.
static void multiply_values(const bf16* weights, int64_t stride, int64_t, int64_t blocks, const bf16* values,
                            int64_t chunks, float* context) {
  THRESHER_STORED;
  for (int64_t c = 0; c < chunks; ++c)
    multiply_chunk(weights, stride, blocks, values + c * 2 * PAIRS, chunks * 2 * PAIRS, context + 32 * c, 32 * chunks);
  THRESHER_STORED;
}

#include "attention_pairs.h"
