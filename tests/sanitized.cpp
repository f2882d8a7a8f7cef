// Random problems for every function of the native code, with all instructions that the machine has: what `make
// sanitize` runs under the sanitizers. Two threads call at a time, and each shares its work out among others.
//
// Inputs and outputs are exactly as large as interface.h says, so that a number read or written beyond them is
// reported. Outputs hold NaN before a call, and where the inputs are plain numbers no output may hold NaN after it.

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <string>

#include "../thresher/native/csrc/interface.h"

namespace {

typedef uint16_t bf16;

// Like a team of OpenMP: its threads, with their scratch memory, stay for the next piece of work.
class Workers {
 public:
  ~Workers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ends_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void run(void (*labour)(void*), void* shared, unsigned wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (threads_.size() + 1 < wanted) threads_.emplace_back([this] { work(); });
    labour_ = labour, shared_ = shared, waiting_ = running_ = wanted - 1;
    wake_.notify_all();
    lock.unlock();
    labour(shared);
    lock.lock();
    done_.wait(lock, [this] { return !running_; });
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return waiting_ || ends_; });
      if (ends_) return;
      --waiting_;
      lock.unlock();
      labour_(shared_);
      lock.lock();
      if (!--running_) done_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  void (*labour_)(void*) = nullptr;
  void* shared_ = nullptr;
  unsigned waiting_ = 0, running_ = 0;
  bool ends_ = false;
};

void as_openmp(void (*labour)(void*), void* shared, unsigned threads, unsigned) {
  static thread_local Workers workers;
  workers.run(labour, shared, threads);
}

class Draw {
 public:
  explicit Draw(unsigned seed) : bits_(seed) {}
  int64_t under(int64_t end) { return static_cast<int64_t>(bits_() % end); }
  bool one_in(int64_t count) { return under(count) == 0; }
  int64_t of(std::initializer_list<int64_t> some) { return some.begin()[under(some.size())]; }
  float number() { return std::normal_distribution<float>()(bits_); }

 private:
  std::mt19937 bits_;
};

bf16 to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits >> 16;
}

// Numbers in memory that ends with the last of them. No numbers are a null pointer, as in torch's empty tensors.
template <class T>
class Array {
 public:
  explicit Array(int64_t count = 0) : count_(count) {
    if (!count) return;
    memory_.reset(new T[count]);
    std::memset(static_cast<void*>(memory_.get()), 0xff, count * sizeof(T));
  }
  T* get() const { return memory_.get(); }
  T& operator[](int64_t i) const { return memory_[i]; }
  int64_t count() const { return count_; }

 private:
  int64_t count_;
  std::unique_ptr<T[]> memory_;
};

// Floats or bfloat16 numbers.
struct Numbers {
  explicit Numbers(int64_t count = 0, bool half = false)
      : half(half), floats(half ? 0 : count), halves(half ? count : 0) {}
  void* at(int64_t i) const {
    if (half) return halves.get() ? halves.get() + i : nullptr;
    return floats.get() ? floats.get() + i : nullptr;
  }
  void draw(Draw& draw, float size = 1) {
    for (int64_t i = 0; i < floats.count(); ++i) floats[i] = size * draw.number();
    for (int64_t i = 0; i < halves.count(); ++i) halves[i] = to_bf16(size * draw.number());
  }
  bool written() const {
    for (int64_t i = 0; i < floats.count(); ++i)
      if (std::isnan(floats[i])) return false;
    for (int64_t i = 0; i < halves.count(); ++i)
      if ((halves[i] & 0x7fff) > 0x7f80) return false;
    return true;
  }
  bool half;
  Array<float> floats;
  Array<bf16> halves;
};

void must(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "sanitized: %s\n", what);
  std::_Exit(1);
}

struct Call {
  explicit Call(Draw& draw) : threads(draw.of({1, 2, 3, 5})), team(draw.one_in(2) ? as_openmp : nullptr) {}
  int32_t threads;
  Team team;
};

// Inputs are mostly plain numbers. Sometimes they are huge, and then the outputs are not checked.
float size_of(Draw& draw) { return draw.one_in(8) ? 1e38f : 1.0f; }

Array<int32_t> starts_of(Draw& draw, int64_t batch) {
  Array<int32_t> starts(batch + 1);
  starts[0] = 0;
  const int64_t longest = draw.of({1, 5, 20, 90, 90, 200});
  for (int64_t i = 0; i < batch; ++i)
    starts[i + 1] = starts[i] + static_cast<int32_t>(draw.one_in(6) ? 0 : draw.under(longest + 1));
  return starts;
}

// Queries, keys or values [tokens, heads, dim], side by side or with room between tokens, or heads first.
struct Tokens {
  Tokens(Draw& draw, int64_t tokens, int64_t heads, int64_t dim, bool half, float size, int64_t* stride) {
    const int64_t layout = draw.under(3), gap = layout == 1 ? draw.under(7) : 0;
    stride[0] = layout == 2 ? dim : heads * dim + gap;
    stride[1] = layout == 2 ? tokens * dim : dim;
    const bool none = !tokens || !heads || !dim;
    numbers = Numbers(none ? 0 : (tokens - 1) * stride[0] + (heads - 1) * stride[1] + dim, half);
    numbers.draw(draw, size);
  }
  Numbers numbers;
};

// A table of numbers for relative positions, or none; as large as the furthest tokens of a sequence need.
struct Table {
  Table(Draw& draw, int64_t heads, const Array<int32_t>& starts, const int64_t* positions)
      : count(draw.of({0, 0, 1, 20, 32, 33, 300})) {
    if (!count) return;
    for (int64_t s = 0; s + 1 < starts.count(); ++s)
      if (starts[s] < starts[s + 1]) reach = std::max(reach, positions[starts[s + 1] - 1] - positions[starts[s]]);
    reach += draw.of({0, 0, 7});
    numbers = Numbers(heads * count);
    numbers.draw(draw);
    entries = Array<int32_t>(2 * reach + 1);
    for (int64_t i = 0; i < entries.count(); ++i) entries[i] = static_cast<int32_t>(draw.under(count));
  }
  void give(Problem& p) const {
    p.table = numbers.floats.get(), p.entries = entries.get(), p.numbers = count, p.reach = reach;
  }
  int64_t count, reach = 0;
  Numbers numbers;
  Array<int32_t> entries;
};

// How many neighbouring heads share keys and values.
int64_t groups_of(Draw& draw, int64_t heads) {
  const int64_t groups = draw.of({1, 1, 2, 3, 4});
  return heads % groups ? 1 : groups;
}

void attend(Draw& draw) {
  const int64_t batch = draw.of({0, 1, 2, 3, 5}), heads = draw.of({0, 1, 2, 3, 4});
  const int64_t dim = draw.of({0, 1, 3, 8, 16, 32, 32, 40, 64, 64, 96});
  const bool half = draw.one_in(2);
  const float size = size_of(draw);
  const Array<int32_t> starts = starts_of(draw, batch);
  const int64_t tokens = starts[batch];
  Gradients g = {};
  Problem& p = g.problem;
  p.batch = batch, p.tokens = tokens, p.heads = heads, p.dim = dim, p.bf16 = half;
  p.groups = groups_of(draw, heads);
  p.window = draw.of({-1, -1, 0, 3, 20, 1000, INT64_MAX});
  p.scale = draw.one_in(2) ? 0.125f : 1.0f;
  p.dropout = draw.of({0, 0, 0, 1}) ? 0.3f : 0.0f, p.seed = draw.of({0, -1, 77});
  const Tokens query(draw, tokens, heads, dim, half, size, p.query_stride);
  const Tokens key(draw, tokens, heads / p.groups, dim, half, size, p.key_stride);
  const Tokens value(draw, tokens, heads / p.groups, dim, half, size, p.value_stride);
  p.query = query.numbers.at(0), p.key = key.numbers.at(0), p.value = value.numbers.at(0);
  p.starts = starts.get();
  const Array<int64_t> positions(tokens);
  const int64_t gap = draw.of({1, 4, 4, 60});
  for (int64_t i = 0, s = 0, last = 0; i < tokens; last = positions[i++]) {
    for (; s <= batch && starts[s] <= i; ++s) last = -1;
    positions[i] = last + 1 + (draw.one_in(3) ? draw.under(gap) : 0);
  }
  const Table table(draw, heads, starts, positions.get());
  table.give(p);
  p.positions = p.window < 0 && !table.count ? nullptr : positions.get();
  const bool weighed = draw.one_in(2);
  const Array<float> log_weight(weighed ? tokens : 0);
  for (int64_t i = 0; i < log_weight.count(); ++i) log_weight[i] = -draw.of({0, 1, 30, 90});
  p.log_weight = log_weight.get();

  const bool some = draw.one_in(2), wanted = draw.one_in(2);
  std::vector<int64_t> kept;
  const Array<int32_t> row_starts(batch + 1);
  const int64_t rarity = draw.of({1, 2, 10, 1000});
  for (int64_t s = 0; s <= batch; ++s) {
    row_starts[s] = static_cast<int32_t>(kept.size());
    for (int64_t i = starts[s]; s < batch && i < starts[s + 1]; ++i)
      if (draw.one_in(rarity)) kept.push_back(i);
  }
  const Array<int64_t> rows(kept.size());
  for (int64_t i = 0; i < rows.count(); ++i) rows[i] = kept[i];
  if (some) p.rows = rows.get(), p.row_starts = row_starts.get();
  const Numbers context((some ? rows.count() : tokens) * heads * dim, half);
  const Array<float> received(wanted ? heads * tokens : 0);
  const Numbers importance(wanted ? tokens : 0);
  p.context = context.at(0), p.received = received.get(), p.importance = importance.floats.get();
  const Call call(draw);
  must(!thresher_attend(&p, call.threads, call.team), "attention found no memory");
  must(size > 1 || (context.written() && importance.written()), "attention left a number unwritten");

  // The way back.
  p.rows = nullptr, p.row_starts = nullptr, p.context = nullptr, p.received = p.importance = nullptr;
  const int64_t count = tokens * heads * dim;
  Numbers arrives(count, half), importance_grad(draw.one_in(2) ? tokens : 0);
  arrives.draw(draw);
  importance_grad.draw(draw);
  for (int64_t i = 0; i < count; ++i)  // as of dropped tokens
    if (i / (heads * dim) % 3) half ? void(arrives.halves[i] = 0) : void(arrives.floats[i] = 0);
  const Numbers query_grad(count, half), key_grad(count, half), value_grad(count, half);
  const Numbers log_weight_grad(weighed ? heads * tokens : 0);
  g.context_grad = arrives.at(0), g.importance_grad = importance_grad.floats.get();
  g.query_grad = query_grad.at(0), g.key_grad = key_grad.at(0), g.value_grad = value_grad.at(0);
  g.log_weight_grad = log_weight_grad.floats.get();
  const Numbers table_grad(batch * heads * table.count);
  for (int64_t i = 0; i < table_grad.floats.count(); ++i) table_grad.floats[i] = 0.0f;
  g.table_grad = table_grad.floats.get();
  must(!thresher_attend_backward(&g, call.threads, call.team), "attention's way back found no memory");
  for (const Numbers* grad : {&query_grad, &key_grad, &value_grad, &log_weight_grad, &table_grad})
    must(size > 1 || grad->written(), "attention's way back left a number unwritten");
}

void score(Draw& draw) {
  const int64_t batch = draw.of({0, 1, 2, 3, 5}), dim = draw.of({0, 1, 7, 16, 33, 64, 100});
  const bool half = draw.one_in(2);
  const float size = size_of(draw);
  const Array<int32_t> starts = starts_of(draw, batch);
  const int64_t tokens = starts[batch], stride = dim + draw.of({0, 0, 3});
  Numbers hidden(tokens && dim ? (tokens - 1) * stride + dim : 0, half), vector(dim), importance(tokens);
  for (Numbers* input : {&hidden, &vector, &importance}) input->draw(draw, input == &hidden ? size : 1);
  const Numbers scores(tokens);
  ScoreWork work = {};
  work.hidden = hidden.at(0), work.vector = vector.floats.get(), work.importance = importance.floats.get();
  work.starts = starts.get(), work.scores = scores.floats.get();
  work.batch = batch, work.dim = dim, work.stride = stride;
  work.largest = 8.0f, work.least = 1e-9f, work.alone = draw.one_in(2), work.bf16 = half;
  const Call call(draw);
  must(!thresher_score(&work, call.threads, call.team), "learned scores found no memory");
  must(size > 1 || scores.written(), "scores were left unwritten");
}

void rows(Draw& draw) {
  const int64_t rows = draw.of({0, 1, 3, 40}), width = draw.of({0, 1, 5, 15, 16, 17, 64, 100});
  const bool half = draw.one_in(2);
  const float size = size_of(draw);
  Numbers source(rows * width, half), bias(width);
  source.draw(draw, size);
  bias.draw(draw);
  const Array<int8_t> whole(rows * width);
  const Numbers sizes(rows);
  RowWork work = {};
  work.source = source.at(0), work.target = whole.get(), work.sizes = sizes.floats.get();
  work.rows = rows, work.width = width, work.bf16 = half;
  const Call call(draw);
  must(!thresher_quantise(&work, call.threads, call.team), "rows were not rounded");
  must(size > 1 || sizes.written(), "sizes of rows were left unwritten");
  work.source = nullptr, work.target = source.at(0);
  work.bias = bias.floats.get(), work.gelu = draw.one_in(2);
  must(!thresher_finish(&work, call.threads, call.team), "rows were not finished");
  must(size > 1 || source.written(), "a finished row holds NaN");
}

// Weights of a linear layer in a precision, as interface.h says.
struct Weights {
  Weights(Draw& draw, int64_t inputs, int64_t outputs, int32_t precision)
      : in_words(thresher_has(INT8) & IN_WORDS),
        padded((outputs + 31) / 32 * 32),
        filled((inputs + side(precision) - 1) / side(precision) * side(precision) * padded),
        floats(precision == FLOAT ? filled : 0),
        halves(precision == BFLOAT16 ? filled : 0, true),
        bytes(precision == INT8 && !in_words ? filled : 0),
        words(precision == INT8 && in_words ? filled : 0),
        sizes(precision == INT8 ? padded : 0),
        start(precision == INT8 ? padded : 0),
        bias(padded) {
    for (Numbers* input : {&floats, &halves, &sizes, &bias}) input->draw(draw, 0.3f);
    for (int64_t i = 0; i < bytes.count(); ++i) bytes[i] = static_cast<int8_t>(draw.under(255) - 127);
    for (int64_t i = 0; i < words.count(); ++i) words[i] = static_cast<int16_t>(draw.under(255) - 127);
    for (int64_t i = 0; i < start.count(); ++i) start[i] = static_cast<int32_t>(draw.under(1 << 20));
    const void* whole = in_words ? static_cast<const void*>(words.get()) : bytes.get();
    const void* weights = precision == FLOAT ? floats.at(0) : precision == BFLOAT16 ? halves.at(0) : whole;
    linear = {weights, sizes.floats.get(), start.get(), bias.floats.get(), inputs, outputs};
  }
  static int64_t side(int32_t precision) { return precision == FLOAT ? 16 : precision == BFLOAT16 ? 32 : 64; }
  bool in_words;
  int64_t padded, filled;
  Numbers floats, halves;
  Array<int8_t> bytes;
  Array<int16_t> words;
  Numbers sizes;
  Array<int32_t> start;
  Numbers bias;
  Linear linear;
};

// A precision that the instructions in use have, for linear layers (1) or stages (2).
int32_t precision_of(Draw& draw, int32_t kind) {
  for (;;)
    if (const auto precision = static_cast<int32_t>(draw.under(PRECISIONS)); thresher_has(precision) & kind)
      return precision;
}

void linear(Draw& draw) {
  const int64_t rows = draw.of({0, 1, 5, 16, 17, 33, 130, 300}), inputs = draw.of({0, 1, 31, 64, 65, 100});
  const int64_t outputs = draw.of({0, 1, 16, 31, 32, 33, 80, 200}), stride = inputs + draw.of({0, 0, 3});
  const int32_t precision = precision_of(draw, 1);
  const bool half = precision == BFLOAT16 || (precision == INT8 && draw.one_in(2));
  const float size = size_of(draw);
  const Weights weights(draw, inputs, outputs, precision);
  Numbers source(rows && inputs ? (rows - 1) * stride + inputs : 0, half);
  source.draw(draw, size);
  const Numbers target(rows * outputs, half);
  LinearWork work = {};
  work.linear = weights.linear;
  work.source = source.at(0), work.target = target.at(0);
  work.rows = rows, work.stride = stride, work.precision = precision;
  work.bf16 = half, work.activation = draw.under(RELU + 1);
  const Call call(draw);
  must(!thresher_linear(&work, call.threads, call.team), "a linear layer found no memory");
  must(size > 1 || target.written(), "a linear layer left a number unwritten");
}

// A stage and its weights.
struct Drawn {
  Drawn(Draw& draw, int64_t inner, int64_t dim, int64_t head_dim, int64_t outputs, int32_t precision, int64_t groups = 1)
      : gate(draw.one_in(2)),
        ffn(draw.of({16, 48, 144})),
        output(draw, inner, dim, precision),
        up(draw, dim, gate ? 2 * ffn : ffn, precision),
        down(draw, ffn, dim, precision),
        next(draw, outputs ? dim : 0, outputs, precision),
        weight(dim),
        bias(dim),
        turns(outputs ? POSITIONS * head_dim : 0) {
    weight.draw(draw), bias.draw(draw), turns.draw(draw, 0.5f);
    stage.output = output.linear, stage.up = up.linear, stage.down = down.linear, stage.next = next.linear;
    stage.first = norm(draw), stage.second = norm(draw);
    stage.dim = dim, stage.before = draw.one_in(2), stage.gated = gate, stage.precision = precision;
    stage.activation = draw.under(RELU + 1);
    stage.turns = draw.one_in(2) ? turns.floats.get() : nullptr, stage.turned = inner + inner / groups, stage.head_dim = head_dim;
  }
  Norm norm(Draw& draw) const {
    return {draw.one_in(8) ? nullptr : weight.floats.get(), draw.one_in(2) ? bias.floats.get() : nullptr, 1e-5f,
            draw.one_in(2)};
  }
  static constexpr int64_t POSITIONS = 250;
  bool gate;
  int64_t ffn;
  Weights output, up, down, next;
  Numbers weight, bias, turns;
  Stage stage = {};
};

void stage(Draw& draw) {
  const int64_t entering = draw.of({1, 5, 30, 200}), rows = draw.under(entering + 1);
  const int64_t head_dim = draw.of({2, 8, 32}), heads = draw.of({1, 2, 3}), inner = heads * head_dim;
  const int64_t dim = draw.of({1, 17, 64, 100}), outputs = draw.one_in(4) ? 0 : 3 * inner;
  const int32_t precision = precision_of(draw, 2);
  const bool half = precision == BFLOAT16 || (precision == INT8 && draw.one_in(2));
  const float size = size_of(draw);
  const Drawn drawn(draw, inner, dim, head_dim, outputs, precision);
  StageWork work = {};
  work.stage = &drawn.stage;
  work.hidden_stride = dim + draw.of({0, 3}), work.context_stride = inner + draw.of({0, 5});
  work.gathered = draw.one_in(2);
  const int64_t attended = work.gathered ? rows : entering;
  Numbers hidden((entering - 1) * work.hidden_stride + dim, half);
  Numbers context(attended ? (attended - 1) * work.context_stride + inner : 0, half);
  hidden.draw(draw, size), context.draw(draw, size);
  const Array<int64_t> survivors(rows), positions(rows);
  for (int64_t i = 0; i < rows; ++i) survivors[i] = draw.under(entering), positions[i] = draw.under(Drawn::POSITIONS);
  const Numbers target(rows * dim, half), made(rows * outputs, half);
  work.hidden = hidden.at(0), work.context = context.at(0), work.target = target.at(0), work.heads = made.at(0);
  work.survivors = draw.one_in(4) ? nullptr : survivors.get();
  work.positions = positions.get(), work.rows = rows, work.bf16 = half;
  const Call call(draw);
  must(!thresher_stage(&work, call.threads, call.team), "a stage found no memory");
  must(size > 1 || (target.written() && made.written()), "a stage left a number unwritten");
}

void layers(Draw& draw) {
  const int64_t batch = draw.of({0, 1, 2, 3, 5}), count = draw.of({1, 2, 3});
  const int64_t head_dim = draw.of({2, 8, 32}), heads = draw.of({1, 2, 3}), inner = heads * head_dim;
  const int64_t width = draw.of({1, 17, 64, 100}), groups = groups_of(draw, heads);
  const int32_t precision = precision_of(draw, 2);
  const bool half = precision == BFLOAT16 || (precision == INT8 && draw.one_in(2));
  const Array<int32_t> starts = starts_of(draw, batch);
  const int64_t tokens = starts[batch];
  std::vector<std::unique_ptr<Drawn>> drawn;
  const Array<const Stage*> stages(count);
  const Array<int64_t> windows(count);
  const Numbers scales(count), thresholds(count);
  Numbers vectors(draw.one_in(2) ? count * width : 0);
  vectors.draw(draw, 0.1f);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t outputs = i + 1 < count ? inner + 2 * inner / groups : 0;
    drawn.push_back(std::make_unique<Drawn>(draw, inner, width, head_dim, outputs, precision, groups));
    Drawn& one = *drawn.back();  // with norms, or gates might square numbers until they are infinite
    one.stage.first.weight = one.stage.second.weight = one.weight.floats.get();
    stages[i] = &one.stage;
    windows[i] = draw.of({-1, -1, 3, 20}), scales.floats[i] = 0.3f;
    thresholds.floats[i] = draw.of({-1, 0, 0, 1, 1, 2}) * 0.9f;
  }
  const Array<int64_t> positions(tokens), lengths(batch), left(tokens), depths(tokens);
  for (int64_t text = 0; text < batch; ++text) {
    lengths[text] = starts[text + 1] - starts[text];
    for (int64_t i = 0; i < lengths[text]; ++i) positions[starts[text] + i] = i;
  }
  LayersWork work = {};
  Problem& p = work.entry;
  p.batch = batch, p.tokens = tokens, p.heads = heads, p.dim = head_dim, p.groups = groups, p.bf16 = half;
  p.starts = starts.get(), p.positions = positions.get();
  const Table table(draw, heads, starts, positions.get());
  table.give(p);
  const Tokens query(draw, tokens, heads, head_dim, half, 1, p.query_stride);
  const Tokens key(draw, tokens, heads / groups, head_dim, half, 1, p.key_stride);
  const Tokens value(draw, tokens, heads / groups, head_dim, half, 1, p.value_stride);
  p.query = query.numbers.at(0), p.key = key.numbers.at(0), p.value = value.numbers.at(0);
  work.hidden_stride = width + draw.of({0, 3});
  Numbers hidden(tokens ? (tokens - 1) * work.hidden_stride + width : 0, half);
  hidden.draw(draw);
  const Numbers target(tokens * width, half), carried(draw.one_in(2) ? tokens * width : 0, half);
  const Array<int32_t> after(count * (batch + 1));
  work.stages = stages.get(), work.windows = windows.get(), work.scales = scales.floats.get();
  work.thresholds = thresholds.floats.get(), work.vectors = vectors.floats.get(), work.lengths = lengths.get();
  work.hidden = hidden.at(0), work.target = target.at(0), work.positions = left.get(), work.depths = depths.get();
  work.carried = carried.at(0);
  work.starts = after.get(), work.layers = count, work.width = width;
  work.prefix = draw.of({0, 1, 3}), work.suffix = draw.of({0, 0, 2}), work.bare = draw.one_in(3);
  work.length = draw.one_in(2) ? 128.0f : 0.0f, work.largest = 8.0f, work.least = 1e-9f, work.alone = draw.one_in(2);
  const Call call(draw);
  must(!thresher_layers(&work, call.threads, call.team), "layers found no memory");
  const int64_t alive = after[count * (batch + 1) - 1];
  for (int64_t i = 0; i < alive * width; ++i)
    must(half ? (target.halves[i] & 0x7fff) <= 0x7f80 : !std::isnan(target.floats[i]), "layers left a state unwritten");
  must(carried.written(), "layers left a state that is carried unwritten");
  for (int64_t i = 0; i < tokens; ++i) must(depths[i] >= 0 && depths[i] <= count, "a depth is out of range");
}

void burn(Draw& draw) {
  const BurnWork work = {draw.under(50), precision_of(draw, 1)};
  const Call call(draw);
  must(!thresher_burn(&work, call.threads, call.team) && thresher_round(work.precision) > 0, "nothing was burned");
}

void solve(unsigned seed, int problems) {
  Draw draw(seed);
  for (int i = 0; i < problems; ++i) {
    attend(draw);
    score(draw);
    rows(draw);
    linear(draw);
    stage(draw);
    layers(draw);
    burn(draw);
  }
}

}  // namespace

int main(int count, char** words) {
  const int problems = count > 1 ? std::atoi(words[1]) : 200;
  for (const char* name : {"portable", "avx2", "avx-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx", "neon-dot",
                           "neon-bf16"}) {
    if (!thresher_use(name)) {
      std::printf("%s: not on this machine\n", name);
      continue;
    }
    std::thread other(solve, 1, problems);
    solve(2, problems);
    other.join();
    std::printf("%s: 2 x %d problems for each function\n", name, problems);
    std::fflush(stdout);
  }
}
