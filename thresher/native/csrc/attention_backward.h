// The gradients of one head of one sequence in fp32 arithmetic. Included by each_machine.h.
//
// The way forward keeps no n x n matrix. The way back computes the probabilities P again, for some queries at a time.
// The gradient of P is G = dO V^T + votes dI^T / heads, and that of the scores is S = P (G - sum over keys of P G).
// Then dQ = S K, dK = S^T Q and dV = P^T dO. Dropout multiplies dO V^T, and P in dV, by what it multiplied P by.

#include "attention_strip.h"

constexpr int64_t BLOCK = 4 * ROWS;  // queries in a block: dK and dV are read and written once for each block

// A strip on the way back.
struct Slope {
  Strip strip;
  const float* context_grad;     // [rows, dim]
  const float* value_panels;
  const float* importance_grad;  // [keys], divided by the number of heads; or null
  float* slopes;                 // [rows, stride]: of the scores
  float* log_weight_grad;        // [keys]: of the bias, added to; or null
  float* vote_grad;              // [rows]; read where there are votes
};

// Turn the unscaled weights of a strip into probabilities after dropout, and write the slopes of its scores.
template <int R, bool DROPS>
static void slope(const Slope& s, int64_t first, int64_t last) {
  const int64_t stride = s.strip.stride;
  F factor[R], vote[R], mean[R], voted[R];
  THRESHER_UNROLL for (int r = 0; r < R; ++r) {
    factor[r] = all(s.strip.factor[r]);
    vote[r] = all(s.strip.vote ? s.strip.vote[r] : 1.0f);
    mean[r] = voted[r] = F{};
  }
  for (int64_t j = first; j < last; j += W) {
    const F wanted = s.importance_grad ? load(s.importance_grad + j) : F{};
    THRESHER_UNROLL for (int r = 0; r < R; ++r) {
      float *weight = s.strip.scores + r * stride + j, *at = s.slopes + r * stride + j;
      const F share = load(weight) * factor[r], arrived = DROPS ? load(at) * s.strip.dropout->spared(r, j) : load(at);
      const F grad = arrived + wanted * vote[r];
      store(weight, share);
      store(at, grad);
      mean[r] += share * grad;
      voted[r] += share * wanted;
    }
  }
  const auto plus = [](Four a, Four b) { return a + b; };
  THRESHER_UNROLL for (int r = 0; r < R; ++r) {
    mean[r] = all(reduce(mean[r], plus));
    if (s.strip.vote) s.vote_grad[r] = reduce(voted[r], plus);
  }
  for (int64_t j = first; j < last; j += W) {
    F column = F{};
    THRESHER_UNROLL for (int r = 0; r < R; ++r) {
      float* at = s.slopes + r * stride + j;
      float* weight = s.strip.scores + r * stride + j;
      const F share = load(weight), value = share * (load(at) - mean[r]);
      store(at, value);
      if (DROPS) store(weight, share * s.strip.dropout->spared(r, j));
      column += value;
    }
    if (s.log_weight_grad) store(s.log_weight_grad + j, load(s.log_weight_grad + j) + column);
  }
}

// The gradients of the queries go to `strip.context`.
template <int R>
static void run_slope(const Slope& s, const float* keys) {
  const Strip& strip = s.strip;
  const int64_t high = strip.reach[R - 1].high, first = strip.reach[0].low / W * W, last = (high + W - 1) / W * W;
  multiply_panels<R>(strip.query, strip.panels, strip.dim, first, last, strip.scores, strip.stride);
  soften<R>(strip, first, last);
  multiply_panels<R>(s.context_grad, s.value_panels, strip.dim, first, last, s.slopes, strip.stride);
  strip.dropout ? slope<R, true>(s, first, last) : slope<R, false>(s, first, last);
  multiply_rows<R>(s.slopes, strip.stride, first, high, keys, strip.width, strip.context);
}

// Add the transpose of `weights` times `rows` to a panel: R queries, and the W keys of the panel.
template <int R>
static inline void add_transposed(const float* weights, int64_t stride, const float* rows, int64_t dim, float* panel) {
  F weight[R];
  THRESHER_UNROLL for (int r = 0; r < R; ++r) weight[r] = load(weights + r * stride);
  for (int64_t t = 0; t < dim; ++t) {
    F sum = load(panel + t * W);
    THRESHER_UNROLL for (int r = 0; r < R; ++r) sum += weight[r] * rows[r * dim + t];
    store(panel + t * W, sum);
  }
}

static void add_block(const float* weights, int64_t stride, int64_t count, const float* rows, int64_t dim, int64_t first,
                      int64_t last, float* panels) {
  for (int64_t j = first; j < last; j += W) {
    float* panel = panels + j * dim;
    int64_t r = 0;
    for (; r + 8 <= count; r += 8) add_transposed<8>(weights + r * stride + j, stride, rows + r * dim, dim, panel);
    for (; r + 4 <= count; r += 4) add_transposed<4>(weights + r * stride + j, stride, rows + r * dim, dim, panel);
    for (; r < count; ++r) add_transposed<1>(weights + r * stride + j, stride, rows + r * dim, dim, panel);
  }
}

// One head of one sequence on the way back.
template <class T>
struct WayBack {
  WayBack(const Gradients& g, int64_t sequence, int64_t head);
  void pack();
  bool silent(int64_t i) const;
  int64_t gather(int64_t& next);
  void run_strips(int64_t count, int64_t first, int64_t last);
  void add_line(int64_t query, Reach keys, const float* slopes);
  void write() const;

  const Gradients& g;
  const Problem& p;
  int64_t sequence, head, start, n, dim, apart;  // apart: from token to token in a dense tensor
  int64_t panelled, width;             // keys and dims, in whole vectors
  const T *query, *key, *value, *context_grad;  // each begins at this head of the sequence
  T *query_grad, *key_grad, *value_grad;
  Scratch scratch;
  float *panels, *value_panels;         // keys and values in panels
  float* keys;                          // [n, width]
  float *key_slopes, *value_slopes;     // gradients of keys and values, in panels
  float *queries, *arrived;             // [BLOCK, dim]: the queries of a block, and the gradients of their context
  float *importance_grad, *log_weight_grad;  // [keys]
  float *scores, *slopes;               // [BLOCK, stride]
  int64_t rows[BLOCK];                  // places of the block's queries in the sequence
  Reach reach[BLOCK];
  float factor[ROWS], vote[ROWS], vote_grad[ROWS];
  Dropout dropout;
  Slope s;
  Window window;
  Relative relative;
  float* line_grad = nullptr;  // as `relative.line`
};

template <class T>
WayBack<T>::WayBack(const Gradients& g, int64_t sequence, int64_t head)
    : g(g),
      p(g.problem),
      sequence(sequence),
      head(head),
      start(p.starts[sequence]),
      n(p.starts[sequence + 1] - start),
      dim(p.dim),
      apart(p.heads * dim),
      panelled((n + W - 1) / W * W),
      width((dim + W - 1) / W * W),
      dropout(p),
      window(p, start, n),
      relative(p, start, n, panelled, scratch) {
  const auto own = [&](void* base) { return static_cast<T*>(base) + (start * p.heads + head) * dim; };
  query = numbers_of<T>(p.query, p.query_stride, start, head);
  key = numbers_of<T>(p.key, p.key_stride, start, head / p.groups);
  value = numbers_of<T>(p.value, p.value_stride, start, head / p.groups);
  context_grad = own(const_cast<void*>(g.context_grad));
  query_grad = own(g.query_grad), key_grad = own(g.key_grad), value_grad = own(g.value_grad);
  panels = scratch.take<float>(panelled * dim);
  value_panels = scratch.take<float>(panelled * dim);
  keys = scratch.take<float>(n * width);
  key_slopes = scratch.take<float>(panelled * dim);
  value_slopes = scratch.take<float>(panelled * dim);
  queries = scratch.take<float>(BLOCK * dim);
  arrived = scratch.take<float>(BLOCK * dim);
  importance_grad = scratch.take<float>(panelled);
  log_weight_grad = scratch.take<float>(panelled);
  s.strip.stride = panelled + W;
  scores = scratch.take<float>(BLOCK * s.strip.stride);
  slopes = scratch.take<float>(BLOCK * s.strip.stride);
  s.strip.context = scratch.take<float>(ROWS * width);
  s.strip.bias = bias_of(p, start, n, panelled, scratch);
  s.strip.relative = p.table ? &relative : nullptr;
  s.strip.row = 0;
  if (p.table && n) {
    relative.begin(head);
    line_grad = scratch.take<float>(2 * relative.far + 1);
    std::fill_n(line_grad, 2 * relative.far + 1, 0.0f);
  }
  s.strip.vote = p.log_weight ? vote : nullptr;
  s.strip.dropout = p.dropout > 0 ? &dropout : nullptr;
  s.strip.received = nullptr;
  s.strip.panels = panels;
  s.strip.factor = factor;
  s.strip.dim = dim;
  s.strip.width = width;
  s.strip.scale = p.scale;
  s.value_panels = value_panels;
  s.importance_grad = g.importance_grad ? importance_grad : nullptr;
  s.log_weight_grad = p.log_weight ? log_weight_grad : nullptr;
  s.vote_grad = vote_grad;
}

template <class T>
void WayBack<T>::pack() {
  for (int64_t j = 0; j < panelled; j += 4) {
    pack_keys(key + j * p.key_stride[0], p.key_stride[0], j, n, dim, panels);
    pack_keys(value + j * p.value_stride[0], p.value_stride[0], j, n, dim, value_panels);
  }
  for (int64_t j = 0; j < n; ++j) pack_row(key + j * p.key_stride[0], dim, width, keys + j * width);
  for (int64_t j = 0; j < panelled; ++j) {
    importance_grad[j] = g.importance_grad && j < n ? g.importance_grad[start + j] / p.heads : 0.0f;
    log_weight_grad[j] = 0.0f;
  }
  std::memset(key_slopes, 0, panelled * dim * sizeof(float));
  std::memset(value_slopes, 0, panelled * dim * sizeof(float));
}

// True if no gradient arrives at a query, as is the case where its token was dropped: then it passes none on.
template <class T>
bool WayBack<T>::silent(int64_t i) const {
  const T* row = context_grad + i * apart;
  for (int64_t d = 0; d < dim; ++d)
    if (number(row[d]) != 0.0f) return false;
  return !g.importance_grad;
}

// Gather the next block of queries that have gradients, and move `next` past them. Returns their number.
template <class T>
int64_t WayBack<T>::gather(int64_t& next) {
  int64_t count = 0;
  for (; next < n && count < BLOCK; ++next) {
    if (silent(next)) {
      std::fill_n(query_grad + next * apart, dim, rounded<T>(0.0f));
      continue;
    }
    reach[count] = window.of(start + next);
    pack_row(query + next * p.query_stride[0], dim, dim, queries + count * dim);
    pack_row(context_grad + next * apart, dim, dim, arrived + count * dim);
    rows[count++] = next;
  }
  return count;
}

// Probabilities and slopes of a block's queries against the keys [first, last), and the gradients of these queries.
template <class T>
void WayBack<T>::run_strips(int64_t count, int64_t first, int64_t last) {
  static void (*const run[])(const Slope&, const float*) = {
      run_slope<1>, run_slope<2>, run_slope<3>, run_slope<4>,
#if THRESHER_WIDTH == 16
      run_slope<5>, run_slope<6>,
#endif
  };
  for (int64_t i = 0; i < count; i += ROWS) {
    const int64_t strip = std::min<int64_t>(ROWS, count - i);
    s.strip.scores = scores + i * s.strip.stride;
    s.slopes = slopes + i * s.strip.stride;
    s.strip.query = queries + i * dim;
    s.context_grad = arrived + i * dim;
    s.strip.reach = reach + i;
    for (int64_t r = 0; s.strip.vote && r < strip; ++r) vote[r] = std::exp(p.log_weight[start + rows[i + r]]);
    for (int64_t r = 0; s.strip.dropout && r < strip; ++r) dropout.look(r, head, start + rows[i + r]);
    for (int64_t r = 0; s.strip.relative && r < strip; ++r) relative.look(r, start + rows[i + r]);
    run[strip - 1](s, keys);
    const int64_t low = reach[i].low / W * W, high = (reach[i + strip - 1].high + W - 1) / W * W;
    for (int64_t r = 0; r < strip; ++r) {
      if (s.strip.vote) log_weight_grad[rows[i + r]] += vote[r] * vote_grad[r];
      if (line_grad) add_line(rows[i + r], reach[i + r], s.slopes + r * s.strip.stride);
      for (float* matrix : {s.strip.scores, s.slopes}) {  // zeros where only other strips of the block reach
        float* row = matrix + r * s.strip.stride;
        std::fill(row + first, row + low, 0.0f);
        std::fill(row + high, row + last, 0.0f);
      }
      T* to = query_grad + rows[i + r] * apart;
      for (int64_t d = 0; d < dim; ++d) to[d] = rounded<T>(s.strip.context[r * width + d] * p.scale);
    }
  }
}

// Adds the slopes of a query's scores to those of the differences of positions.
template <class T>
void WayBack<T>::add_line(int64_t query, Reach keys, const float* slopes) {
  const int64_t* at = p.positions + start;
  for (int64_t j = keys.low; j < keys.high; ++j) line_grad[relative.far + at[j] - at[query]] += slopes[j];
}

// The gradients of keys, values, log weights and what relative positions add.
template <class T>
void WayBack<T>::write() const {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t at = (j / W * dim + d) * W + j % W;
      key_grad[j * apart + d] = rounded<T>(key_slopes[at] * p.scale);
      value_grad[j * apart + d] = rounded<T>(value_slopes[at]);
    }
  for (int64_t i = 0; line_grad && i < 2 * relative.far + 1; ++i)
    g.table_grad[(sequence * p.heads + head) * p.numbers + p.entries[p.reach - relative.far + i]] += line_grad[i];
  if (p.log_weight)
    std::memcpy(g.log_weight_grad + head * p.tokens + start, log_weight_grad, n * sizeof(float));
}

template <class T>
static void run_back(const Gradients& g, int64_t sequence, int64_t head) {
  WayBack<T> way(g, sequence, head);
  way.pack();
  for (int64_t next = 0, count; (count = way.gather(next));) {
    const int64_t first = way.reach[0].low / W * W, last = (way.reach[count - 1].high + W - 1) / W * W;
    way.run_strips(count, first, last);
    add_block(way.slopes, way.s.strip.stride, count, way.queries, way.dim, first, last, way.key_slopes);
    add_block(way.scores, way.s.strip.stride, count, way.arrived, way.dim, first, last, way.value_slopes);
  }
  way.write();
}
