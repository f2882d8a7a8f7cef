// What relative positions add to the scores of a head. Included by attention_strip.h.

// One line has the numbers of all differences of positions. Tokens of a sequence that has lost none differ as their
// places do: the numbers of a row of scores then follow each other there. Where some tokens are gone, the numbers for W
// keys lie in chunks of the line that registers hold, and are picked from them.
struct Relative {
  Relative(const Problem& p, int64_t start, int64_t n, int64_t panelled, Scratch& scratch)
      : p(p), at(p.table ? p.positions + start : nullptr), start(start), far(p.table && n ? at[n - 1] - at[0] : 0) {
    if (!p.table || !n) return;
    line = scratch.take<float>(2 * far + 1 + 2 * W);
    if (far < n) return;
    picks = scratch.take<int32_t>(panelled);
    blocks = scratch.take<Block>(panelled / W);
    for (int64_t j = 0; j < panelled; ++j) {
      const int64_t place = at[std::min(j, n - 1)] - at[0];
      Block& block = blocks[j / W];
      if (j % W == 0) block.from = place;
      picks[j] = static_cast<int32_t>(place - block.from);
      block.chunks = picks[j] / CHUNK + 1;
    }
  }
  // The head whose numbers are wanted, as they are added before the scale.
  void begin(int64_t head) {
    if (!line) return;  // of an empty sequence
    const float *numbers = p.table + head * p.numbers, before = 1 / p.scale;
    const int32_t* entry = p.entries + p.reach - far;
    for (int64_t i = 0; i < 2 * far + 1; ++i) line[i] = numbers[entry[i]] * before;
    std::fill_n(line + 2 * far + 1, 2 * W, 0.0f);
  }
  // The row of the strip that belongs to a token.
  void look(int64_t row, int64_t token) { from[row] = line + far - (at[token - start] - at[0]); }
  // Adds the numbers of R rows, the first of them `rows`, for the W keys from j on.
  template <int R>
  void add(const float* const* rows, int64_t j, F* sums) const {
    if (!picks) {
      THRESHER_UNROLL for (int r = 0; r < R; ++r) sums[r] += load(rows[r] + j);
      return;
    }
    const Block block = blocks[j / W];
    F found[R];
#if THRESHER_WIDTH == 4
    THRESHER_UNROLL for (int r = 0; r < R; ++r)
      for (int k = 0; k < W; ++k) found[r][k] = rows[r][block.from + picks[j + k]];
#else
    const I pick = *reinterpret_cast<const AnyI*>(picks + j);
    THRESHER_UNROLL for (int r = 0; r < R; ++r) found[r] = picked(rows[r] + block.from, pick);
    for (int64_t c = 1; c < block.chunks; ++c) {
      const I there = (pick >= static_cast<int32_t>(c * CHUNK));
      THRESHER_UNROLL for (int r = 0; r < R; ++r)
        found[r] = there ? picked(rows[r] + block.from + c * CHUNK, pick) : found[r];
    }
#endif
    THRESHER_UNROLL for (int r = 0; r < R; ++r) sums[r] += found[r];
  }

  struct Block {  // of W keys
    int64_t from, chunks;  // the position of the first, from the first token's on; the chunks that the others are in
  };
  const Problem& p;
  const int64_t* at;         // positions of the sequence's tokens
  int64_t start, far;        // far: from the first token to the last
  float* line = nullptr;     // [2 far + 1], and room for whole chunks: by the key's position less the query's
  int32_t* picks = nullptr;  // [keys]: positions from that of the block's first on, where some between are gone
  Block* blocks = nullptr;
  const float* from[16];     // of the strip's rows

 private:
#if THRESHER_WIDTH == 16
  static constexpr int64_t CHUNK = 2 * W;
  static F picked(const float* chunk, I pick) {
    return (F)_mm512_permutex2var_ps((__m512)load(chunk), (__m512i)pick, (__m512)load(chunk + W));
  }
#else
  static constexpr int64_t CHUNK = W;
#endif
#if THRESHER_WIDTH == 8
  static F picked(const float* chunk, I pick) {
    return (F)_mm256_permutevar8x32_ps((__m256)load(chunk), (__m256i)pick);
  }
#endif
};
