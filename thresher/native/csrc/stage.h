// A stage for a block of rows, which stay in cache from the attention's context to the next layer's queries, keys and
// values. Included by each_machine.h.

#include "rows.h"
#include "panels.h"

// LayerNorm or RMSNorm of a row.
static inline void normalise(const Norm& norm, const float* from, float* to, int64_t width) {
  const float mean =
      norm.centred ? sum_of(width, [&](int64_t i, int32_t count) { return part(from + i, count); }) / width : 0;
  const float square = sum_of(width, [&](int64_t i, int32_t count) {
    F value = part(from + i, count) - mean;
    if (count < W) value = (F)((I)value & (lanes(0) < count));  // zeros after the last
    return value * value;
  });
  const float scale = 1 / std::sqrt(square / width + norm.epsilon);
  along(from, to, width, [&](int64_t i, const float* some, float* made) {
    F value = (load(some) - mean) * scale * part(norm.weight + i, width - i);
    store(made, norm.bias ? value + part(norm.bias + i, width - i) : value);
  });
}

// Turn pairs of numbers of queries and keys by their token's angles.
static inline void turn(float* row, const float* turns, int64_t turned, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  const float *cosines = turns, *sines = turns + half;
  for (int64_t h = 0; h + head_dim <= turned; h += head_dim)
    for (int64_t i = 0; i < half; ++i) {
      const float a = row[h + i], b = row[h + half + i];
      row[h + i] = a * cosines[i] - b * sines[i];
      row[h + half + i] = b * cosines[i] + a * sines[i];
    }
}

template <class T>
static inline void copy(const float* from, T* to, int64_t width) {
  along(from, to, width, [](int64_t, const float* some, T* made) { write(made, load(some)); });
}

// A row's state as the next product reads it: normed, in its own place where later sums begin from the normed state.
static inline const float* normed(const Norm& norm, bool before, float* state, float* spare, int64_t dim) {
  if (!norm.weight) return state;
  float* made = before ? spare : state;
  normalise(norm, state, made, dim);
  return made;
}

// Rows [first, first + count) of a stage.
template <class Kind, class T>
static void run_stage(const StageWork& w, int64_t first, int64_t count) {
  using Number = typename Kind::Number;
  const Stage& s = *w.stage;
  const int64_t dim = s.dim, outputs = s.next.outputs, inner = s.down.inputs, gate = s.gated ? inner : 0;
  const int64_t into = groups_of<Kind>(s.output), up = groups_of<Kind>(s.up), down = groups_of<Kind>(s.down);
  const int64_t next = groups_of<Kind>(s.next), most = std::max(std::max(into, up), std::max(down, next)) * GROUP;
  Scratch scratch;
  float* state = scratch.take<float>(count * dim);
  char* rows = scratch.take<char>(count * most);
  float* sizes = scratch.take<float>(count);
  float* spare = scratch.take<float>(std::max(dim, outputs));
  // In int8 the feed-forward's rows are rounded when they are complete; else they are made where `down` reads them.
  float* wide = IN_INT8<Kind> ? scratch.take<float>(count * inner) : nullptr;
  char* after = IN_INT8<Kind> ? rows : scratch.take<char>(count * down * GROUP);

  for (int64_t r = 0; r < count; ++r) {
    const int64_t at = w.survivors ? w.survivors[first + r] : first + r;
    const T* hidden = static_cast<const T*>(w.hidden) + at * w.hidden_stride;
    along(hidden, state + r * dim, dim, [](int64_t, const T* some, float* made) { store(made, read(some)); });
    const T* context = static_cast<const T*>(w.context) + (w.gathered ? first + r : at) * w.context_stride;
    prepare<Kind>(context, s.output.inputs, into, rows + r * into * GROUP, sizes + r);
  }
  const Outputs<float> sums{state, dim, sizes, IDENTITY, true, 0};
  product<Kind>(s.output, rows, into * GROUP, count, 0, s.output.outputs, sums);
  for (int64_t r = 0; r < count; ++r)
    prepare<Kind>(normed(s.first, s.before, state + r * dim, spare, dim), dim, up, rows + r * up * GROUP, sizes + r);
  if constexpr (IN_INT8<Kind>) {
    product<Kind>(s.up, rows, up * GROUP, count, 0, inner,
                  Outputs<float>{wide, inner, sizes, s.activation, false, gate});
    for (int64_t r = 0; r < count; ++r)
      prepare<Kind>(wide + r * inner, inner, down, after + r * down * GROUP, sizes + r);
  } else {
    Number* made = reinterpret_cast<Number*>(after);
    const int64_t stride = down * GROUP / static_cast<int64_t>(sizeof(Number));
    for (int64_t r = 0; r < count; ++r) std::memset(made + r * stride + inner, 0, (stride - inner) * sizeof(Number));
    product<Kind>(s.up, rows, up * GROUP, count, 0, inner,
                  Outputs<Number>{made, stride, sizes, s.activation, false, gate});
  }
  product<Kind>(s.down, after, down * GROUP, count, 0, s.down.outputs, sums);
  for (int64_t r = 0; r < count; ++r) {
    T* target = static_cast<T*>(w.target) + (first + r) * dim;
    if (s.before) copy(state + r * dim, target, dim);
    if (outputs || !s.before) {
      const float* from = normed(s.second, s.before, state + r * dim, spare, dim);
      if (outputs) prepare<Kind>(from, dim, next, rows + r * next * GROUP, sizes + r);
    }
    if (!s.before) copy(state + r * dim, target, dim);
  }
  if (!outputs) return;
  T* heads = static_cast<T*>(w.heads) + first * outputs;
  product<Kind>(s.next, rows, next * GROUP, count, 0, outputs,
                Outputs<T>{heads, outputs, sizes, IDENTITY, false, 0});
  for (int64_t r = 0; s.turns && r < count; ++r) {
    along(heads + r * outputs, spare, s.turned, [](int64_t, const T* some, float* made) { store(made, read(some)); });
    turn(spare, s.turns + w.positions[first + r] * s.head_dim, s.turned, s.head_dim);
    copy(spare, heads + r * outputs, s.turned);
  }
}

// Rows [first, first + count) of a linear layer, times the outputs [output, end).
template <class Kind, class T>
static void run_linear(const LinearWork& w, int64_t first, int64_t count, int64_t output, int64_t end) {
  const int64_t groups = groups_of<Kind>(w.linear);
  Scratch scratch;
  char* rows = scratch.take<char>(count * groups * GROUP);
  float* sizes = scratch.take<float>(count);
  for (int64_t r = 0; r < count; ++r)
    prepare<Kind>(static_cast<const T*>(w.source) + (first + r) * w.stride, w.linear.inputs, groups,
                  rows + r * groups * GROUP, sizes + r);
  const Outputs<T> made{static_cast<T*>(w.target) + first * w.linear.outputs, w.linear.outputs, sizes,
                        static_cast<int32_t>(w.activation), false, 0};
  product<Kind>(w.linear, rows, groups * GROUP, count, output, end, made);
}

// As many sums as a tile has, in registers, of the same vectors all the time.
template <class Kind>
static void burn(int64_t rounds) {
  typename Kind::Sum sum[HIGH][WIDE];
  THRESHER_UNROLL for (int r = 0; r < HIGH; ++r)
    THRESHER_UNROLL for (int v = 0; v < WIDE; ++v) sum[r][v] = typename Kind::Sum{};
  I row[HIGH] = {}, weights[WIDE] = {};
  for (; rounds > 0; --rounds) {
    asm volatile("" : "+m"(row), "+m"(weights));  // or sums would be computed once
    THRESHER_UNROLL for (int r = 0; r < HIGH; ++r)
      THRESHER_UNROLL for (int v = 0; v < WIDE; ++v) Kind::add(sum[r][v], row[r], weights[v]);
  }
  alignas(64) char made[TILE_BYTES];
  THRESHER_UNROLL for (int r = 0; r < HIGH; ++r)
    THRESHER_UNROLL for (int v = 0; v < WIDE; ++v)
      *reinterpret_cast<AnyI*>(made + (r * WIDE + v) * 4 * W) = (I)sum[r][v];
  asm volatile("" : : "r"(made) : "memory");
}

template <class Kind, class T>
constexpr Runs RUNS = {run_linear<Kind, T>, run_stage<Kind, T>, burn<Kind>,
                       HIGH * WIDE * W * GROUP / static_cast<int64_t>(sizeof(typename Kind::Number))};

// What runs in a precision, on rows that are bfloat16 or float: nulls where there is nothing.
static Runs runs_of(int32_t precision, bool halves) {
  if (precision == FLOAT && !halves) return RUNS<Floats, float>;
#if defined(THRESHER_PAIRS)
  if (precision == BFLOAT16 && halves) return RUNS<Halves, bf16>;
#endif
#if defined(__x86_64__) && THRESHER_WIDTH > 4
  if (precision == INT8 && bytes_in_words()) return halves ? RUNS<InWords, bf16> : RUNS<InWords, float>;
#if THRESHER_WIDTH == 16 || defined(THRESHER_BF16_AND_AMX)
  if (precision == INT8) return halves ? RUNS<Bytes128, bf16> : RUNS<Bytes128, float>;
#endif
#elif defined(THRESHER_DOT)
  if (precision == INT8) return halves ? RUNS<SignedBytes, bf16> : RUNS<SignedBytes, float>;
#endif
  return {};
}
