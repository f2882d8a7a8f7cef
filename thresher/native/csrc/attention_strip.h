// One head of one sequence in fp32 arithmetic. Included by each_machine.h.
//
// A strip is a few queries. Its scores against all keys in reach stay in cache while they become softmax, column sums
// and context rows. Therefore memory grows with the length, and never with its square.

#include "vectors.h"
#include "relative.h"

constexpr int ROWS = W == 16 ? 6 : 4;     // queries in a strip: so many that their sums fit in the registers
constexpr int COLUMNS = W == 16 ? 4 : 2;  // vectors of keys that are multiplied at a time

// A panel holds W keys as panel[dim][W], with zeros after the last key. A score is then a sum over dims of one number
// of the query, broadcast, times one vector. This function packs the four keys from j on.
template <class T>
static void pack_keys(const T* key, int64_t stride, int64_t j, int64_t n, int64_t dim, float* panels) {
  float* to = panels + j / W * W * dim + j % W;
  int64_t t = 0;
  if (j + 4 <= n)
    for (; t + 4 <= dim; t += 4) {
      const Four a = four(key + t), b = four(key + stride + t);
      const Four c = four(key + 2 * stride + t), d = four(key + 3 * stride + t);
      const Four ab = THRESHER_PICK(a, b, 0, 4, 1, 5), cd = THRESHER_PICK(c, d, 0, 4, 1, 5);
      const Four AB = THRESHER_PICK(a, b, 2, 6, 3, 7), CD = THRESHER_PICK(c, d, 2, 6, 3, 7);
      *reinterpret_cast<Four*>(to + t * W) = THRESHER_PICK(ab, cd, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + (t + 1) * W) = THRESHER_PICK(ab, cd, 2, 3, 6, 7);
      *reinterpret_cast<Four*>(to + (t + 2) * W) = THRESHER_PICK(AB, CD, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + (t + 3) * W) = THRESHER_PICK(AB, CD, 2, 3, 6, 7);
    }
  for (; t < dim; ++t)
    for (int64_t i = 0; i < 4; ++i) to[t * W + i] = j + i < n ? number(key[i * stride + t]) : 0.0f;
}

// A row as floats, filled up with zeros.
template <class T>
static void pack_row(const T* row, int64_t dim, int64_t width, float* to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = number(row[d]);
  for (int64_t d = dim; d < width; ++d) to[d] = 0.0f;
}

template <int R, int C>
static inline void multiply_keys(const float* query, const float* panel, int64_t dim, float* scores,
                                 int64_t stride) {
  F sum[R][C];
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int c = 0; c < C; ++c) sum[r][c] = F{};
  for (int64_t t = 0; t < dim; ++t) {
    F key[C];
    THRESHER_UNROLL for (int c = 0; c < C; ++c) key[c] = load(panel + (c * dim + t) * W);
    THRESHER_UNROLL for (int r = 0; r < R; ++r)
      THRESHER_UNROLL for (int c = 0; c < C; ++c) sum[r][c] += query[r * dim + t] * key[c];
  }
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int c = 0; c < C; ++c) store(scores + r * stride + c * W, sum[r][c]);
}

template <int R, int D>
static inline void multiply_values(const float* weights, int64_t stride, int64_t n, const float* value,
                                   int64_t width, float* context) {
  F sum[R][D];
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int d = 0; d < D; ++d) sum[r][d] = F{};
  for (int64_t j = 0; j < n; ++j) {
    F row[D];
    THRESHER_UNROLL for (int d = 0; d < D; ++d) row[d] = load(value + j * width + d * W);
    THRESHER_UNROLL for (int r = 0; r < R; ++r)
      THRESHER_UNROLL for (int d = 0; d < D; ++d) sum[r][d] += weights[r * stride + j] * row[d];
  }
  THRESHER_UNROLL for (int r = 0; r < R; ++r)
    THRESHER_UNROLL for (int d = 0; d < D; ++d) store(context + r * width + d * W, sum[r][d]);
}

// Whole numbers that follow each other become random ones, each by itself. The factors are those of C. Wellons' search
// for good hashes.
template <class Whole>
static inline Whole mixed(Whole x) {
  x = (x ^ x >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  return x ^ x >> 15;
}

// Dropout of a strip's probabilities. A hash says which, so that the way back finds the same ones.
struct Dropout {
  explicit Dropout(const Problem& p)
      : seed(p.seed),
        level(static_cast<uint32_t>(std::min(p.dropout * 0x1p32, 0x1p32 - 1))),
        gain(p.dropout < 1 ? 1 / (1 - p.dropout) : 0) {}
  // The row of the strip that belongs to a token.
  void look(int64_t row, int64_t head, int64_t token) {
    seeds[row] = mixed(mixed(static_cast<uint32_t>(seed + head)) + static_cast<uint32_t>(token));
  }
  // What the probabilities of W keys from j on are multiplied by.
  F spared(int64_t row, int64_t j) const {
    const U drawn = mixed((U)lanes(j) * 0x9e3779b9u + seeds[row]);
    return (F)((I)all(gain) & (I)(drawn >= level));
  }
  uint32_t seed;
  uint32_t level;  // a hash below it drops
  float gain;      // of those that stay
  uint32_t seeds[16];  // of the rows
};

// A strip: some queries of a head, and room for their results.
struct Strip {
  const float *query, *panels, *value;
  float* scores;    // [rows, stride]
  float* factor;    // [rows]: one over the sum of the row, which softmax divides by
  bf16* halves;     // [rows, stride + W]: what softmax makes of the scores, for products in bfloat16; or null
  float* context;   // [rows, width], before the factor; or null
  float* received;  // [keys], added to; or null
  const float* bias;  // [keys], added to the scores; or null
  const Relative* relative;  // what is added to a row's scores besides; or null
  int64_t row;               // of `relative`, that the strip begins with
  const float* vote;  // [rows], weighs what a row adds to `received`; or null
  const Dropout* dropout;  // of what the context is summed by; or null
  const Reach* reach;  // [rows]
  int64_t stride, dim, width;
  float scale;
};

// Writes e^(values - most) for the softmax of scores in units of `unit`: to the scores, or as `halves` and to the scores
// where column sums will read them. Exactly 1 for the largest.
template <bool HALVES>
static inline F weigh(const Strip& s, int64_t row, int64_t j, F most, float unit) {
  float* at = s.scores + row * s.stride + j;
  const F power_of = (load(at) - most) * unit;
#if defined(THRESHER_PAIRS) && THRESHER_WIDTH == 16
  if constexpr (HALVES) {
    const F weight = near_power(power_of);
    write(s.halves + row * (s.stride + W) + j, weight);
    if (s.received) store(at, weight);
    return weight;
  }
#endif
  const F weight = power(power_of);
  store(at, weight);
  return weight;
}

// Softmax of R rows of scores, over the columns [first, last) in whole vectors: in place, or to halves. The largest
// number of a row becomes 1, and `factor` holds the number to multiply the row by. All rows advance together, because
// each row alone is a chain of slow steps.
template <int R, bool HALVES = false>
static void soften(const Strip& s, int64_t first, int64_t last) {
  const F never = all(-INFINITY);
  for (int r = 0; r < R; ++r) {
    float* row = s.scores + r * s.stride;
    const auto low = static_cast<int32_t>(s.reach[r].low), high = static_cast<int32_t>(s.reach[r].high);
    for (int64_t j = first; j < low; j += W) store(row + j, lanes(j) < low ? never : load(row + j));
    for (int64_t j = high / W * W; j < last; j += W) store(row + j, lanes(j) < high ? load(row + j) : never);
  }
  for (int64_t j = first; s.bias && j < last; j += W)
    THRESHER_UNROLL for (int r = 0; r < R; ++r) {
      float* at = s.scores + r * s.stride + j;
      store(at, load(at) + load(s.bias + j));
    }
  F most[R], sum[R];
  const float* rows[R];
  THRESHER_UNROLL for (int r = 0; r < R; ++r) {
    most[r] = never;
    rows[r] = s.relative ? s.relative->from[s.row + r] : nullptr;
  }
  for (int64_t j = first; j < last; j += W) {
    F score[R];
    THRESHER_UNROLL for (int r = 0; r < R; ++r) score[r] = load(s.scores + r * s.stride + j);
    if (s.relative) {
      s.relative->add<R>(rows, j, score);
      THRESHER_UNROLL for (int r = 0; r < R; ++r) store(s.scores + r * s.stride + j, score[r]);
    }
    THRESHER_UNROLL for (int r = 0; r < R; ++r) most[r] = larger(most[r], score[r]);
  }
  const float unit = s.scale * 1.44269504f;
  THRESHER_UNROLL for (int r = 0; r < R; ++r) {
    most[r] = all(reduce(most[r], [](Four a, Four b) { return a < b ? b : a; }));
    sum[r] = F{};
  }
  for (int64_t j = first; j < last; j += W)
    THRESHER_UNROLL for (int r = 0; r < R; ++r) sum[r] += weigh<HALVES>(s, r, j, most[r], unit);
  F factor[R];
  THRESHER_UNROLL for (int r = 0; r < R; ++r) {
    s.factor[r] = 1 / reduce(sum[r], [](Four a, Four b) { return a + b; });
    factor[r] = all(s.vote ? s.factor[r] * s.vote[r] : s.factor[r]);
  }
  for (int64_t j = first; s.received && j < last; j += W) {
    F column = load(s.received + j);
    THRESHER_UNROLL for (int r = 0; r < R; ++r) column += load(s.scores + r * s.stride + j) * factor[r];
    store(s.received + j, column);
  }
}

// Dropout of rows of weights, which are `stride` numbers apart.
template <class T>
static void drop(const Strip& s, int64_t rows, int64_t first, int64_t last, T* weights, int64_t stride) {
  for (int64_t r = 0; s.dropout && r < rows; ++r, weights += stride)
    for (int64_t j = first; j < last; j += W) write(weights + j, read(weights + j) * s.dropout->spared(r, j));
}

// Columns [first, last) of R rows of numbers times panels. The rows of `out` are `stride` numbers apart.
template <int R>
static void multiply_panels(const float* rows, const float* panels, int64_t dim, int64_t first, int64_t last, float* out,
                            int64_t stride) {
  int64_t j = first;
  for (; j + COLUMNS * W <= last; j += COLUMNS * W)
    multiply_keys<R, COLUMNS>(rows, panels + j * dim, dim, out + j, stride);
  for (; j < last; j += W) multiply_keys<R, 1>(rows, panels + j * dim, dim, out + j, stride);
}

// R rows of weights of the keys [first, high), times the rows of these keys.
template <int R>
static void multiply_rows(const float* weights, int64_t stride, int64_t first, int64_t high, const float* rows,
                          int64_t width, float* out) {
  const auto multiply = [&](auto step, int64_t d) {
    constexpr int D = decltype(step)::value;
    multiply_values<R, D>(weights + first, stride, high - first, rows + first * width + d, width, out + d);
    return D * W;
  };
  for (int64_t d = 0; d < width;) {
    const int64_t left = (width - d) / W;
    d += left >= 4   ? multiply(std::integral_constant<int, 4>(), d)
         : left >= 2 ? multiply(std::integral_constant<int, 2>(), d)
                     : multiply(std::integral_constant<int, 1>(), d);
  }
}

template <int R>
static void run_strip(const Strip& s) {
  const int64_t high = s.reach[R - 1].high, first = s.reach[0].low / W * W, last = (high + W - 1) / W * W;
  multiply_panels<R>(s.query, s.panels, s.dim, first, last, s.scores, s.stride);
  soften<R>(s, first, last);
  drop(s, R, first, last, s.scores, s.stride);
  if (s.context) multiply_rows<R>(s.scores, s.stride, first, high, s.value, s.width, s.context);
}

// The numbers to add to the scores of each key before the scale, filled up with zeros; or null for none.
static float* bias_of(const Problem& p, int64_t start, int64_t n, int64_t room, Scratch& scratch) {
  if (!p.log_weight) return nullptr;
  float* bias = scratch.take<float>(room);
  for (int64_t j = 0; j < room; ++j) bias[j] = j < n ? p.log_weight[start + j] / p.scale : 0.0f;
  return bias;
}

template <class T>
static void run_heads(const Problem& p, int64_t sequence, int64_t head, int64_t end) {
  const int64_t start = p.starts[sequence], n = p.starts[sequence + 1] - start, dim = p.dim;
  const Rows rows(p, sequence);
  const int64_t panelled = (n + W - 1) / W * W, width = (dim + W - 1) / W * W;
  // The heads of a token are neighbours in memory, tokens are not: pack as many heads together as stay in cache.
  const int64_t numbers = panelled * dim + n * width + rows.count * dim;
  const int64_t together = std::max<int64_t>(1, std::min(end - head, ROOM / std::max<int64_t>(1, numbers)));
  Scratch scratch;
  float* panels = scratch.take<float>(together * panelled * dim);
  float* values = scratch.take<float>(together * n * width);
  float* queries = scratch.take<float>(together * rows.count * dim);
  Reach reach[ROWS];
  float factor[ROWS], vote[ROWS];
  Dropout dropout(p);
  Strip s;
  s.dim = dim;
  s.width = width;
  s.scale = p.scale;
  s.reach = reach;
  s.factor = factor;
  s.dropout = p.dropout > 0 ? &dropout : nullptr;
  s.stride = panelled + W;  // not a power of two, where rows would share few cache sets
  s.scores = scratch.take<float>(ROWS * s.stride);
  s.bias = bias_of(p, start, n, panelled, scratch);
  Relative relative(p, start, n, panelled, scratch);
  s.relative = p.table ? &relative : nullptr;
  s.row = 0;
  s.vote = p.log_weight ? vote : nullptr;
  s.received = p.received ? scratch.take<float>(panelled) : nullptr;
  s.context = p.context ? scratch.take<float>(ROWS * width) : nullptr;
  static void (*const run[])(const Strip&) = {
      run_strip<1>, run_strip<2>, run_strip<3>, run_strip<4>,
#if THRESHER_WIDTH == 16
      run_strip<5>, run_strip<6>,
#endif
  };
  for (; head < end; head += together) {
    const int64_t count = std::min(together, end - head);
    for (int64_t j = 0; j < panelled; j += 4)
      for (int64_t h = 0; h < count; ++h)
        pack_keys(numbers_of<T>(p.key, p.key_stride, start + j, (head + h) / p.groups), p.key_stride[0], j, n, dim,
                  panels + h * panelled * dim);
    for (int64_t j = 0; p.context && j < n; ++j)
      for (int64_t h = 0; h < count; ++h)
        pack_row(numbers_of<T>(p.value, p.value_stride, start + j, (head + h) / p.groups), dim, width,
                 values + (h * n + j) * width);
    for (int64_t i = 0; i < rows.count; ++i)
      for (int64_t h = 0; h < count; ++h)
        pack_row(numbers_of<T>(p.query, p.query_stride, rows[i], head + h), dim, dim,
                 queries + (h * rows.count + i) * dim);
    for (int64_t h = 0; h < count; ++h) {
      s.panels = panels + h * panelled * dim;
      s.value = values + h * n * width;
      if (s.received) std::memset(s.received, 0, panelled * sizeof(float));
      if (s.relative) relative.begin(head + h);
      Window window(p, start, n);
      for (int64_t i = 0; i < rows.count; i += ROWS) {
        const int64_t strip = std::min<int64_t>(ROWS, rows.count - i);
        s.query = queries + (h * rows.count + i) * dim;
        look(p, rows, i, strip, window, reach, vote);
        for (int64_t r = 0; s.dropout && r < strip; ++r) dropout.look(r, head + h, rows[i + r]);
        for (int64_t r = 0; s.relative && r < strip; ++r) relative.look(r, rows[i + r]);
        run[strip - 1](s);
        if (!p.context) continue;
        T* to = static_cast<T*>(p.context) + ((rows.first + i) * p.heads + head + h) * dim;
        for (int64_t r = 0; r < strip; ++r, to += p.heads * dim)
          for (int64_t d = 0; d < dim; ++d) to[d] = rounded<T>(s.context[r * width + d] * factor[r]);
      }
      if (s.received)
        std::memcpy(p.received + (head + h) * p.tokens + start, s.received, n * sizeof(float));
    }
  }
}
