// Layers one after the other, on a packed batch that shrinks. What PyTorch's loop does between the calls of attention,
// scores and stages is done here: short texts would spend half of their time there.

#include <cstring>
#include <numeric>

#include "interface.h"

namespace {

constexpr int64_t ALONE = 1 << 18;  // multiply-adds that are done before a second thread is awake

// Which tokens stay after a layer. Each function fills `survivors` with their places among those alive, and `starts`
// with where each text begins among them, and returns how many there are.
struct Choice {
  const LayersWork& work;
  const int32_t* entry;  // where texts begin among the tokens alive
  int64_t* survivors;
  int32_t* starts;

  template <class Stays>
  int64_t by(const Stays& stays) const {
    int64_t count = 0;
    starts[0] = 0;
    for (int64_t text = 0; text < work.entry.batch; ++text) {
      for (int64_t i = entry[text]; i < entry[text + 1]; ++i)
        if (stays(i, text)) survivors[count++] = i;
      starts[text + 1] = static_cast<int32_t>(count);
    }
    return count;
  }
  int64_t by_score(const float* scores, float threshold) const {
    return by([&](int64_t i, int64_t text) {
      const int64_t position = work.positions[i];
      return scores[i] >= threshold || position < work.prefix || position >= work.lengths[text] - work.suffix;
    });
  }
  int64_t prefix() const {
    return by([&](int64_t i, int64_t) { return work.positions[i] < work.prefix; });
  }
};

// Importance in the unit of the thresholds: over a text's tokens where `length` says so.
void rescale(const LayersWork& w, const int32_t* entry, float* importance) {
  for (int64_t text = 0; w.length > 0 && text < w.entry.batch; ++text) {
    const float factor = w.length / static_cast<float>(std::max(1, entry[text + 1] - entry[text]));
    for (int64_t i = entry[text]; i < entry[text + 1]; ++i) importance[i] *= factor;
  }
}

// Memory of a call, of which the thread keeps what is not large.
struct Room {
  explicit Room(const LayersWork& w) : tokens(w.entry.tokens), inner(w.entry.heads * w.entry.dim) {
    const int64_t size = w.entry.bf16 ? 2 : 4;
    for (char*& states : hidden) states = memory.take<char>(tokens * w.width * size);
    heads = memory.take<char>(3 * tokens * inner * size);
    context = memory.take<char>(tokens * inner * size);
    received = memory.take<float>(w.entry.heads * tokens);
    importance = memory.take<float>(tokens);
    scores = memory.take<float>(tokens);
    survivors = memory.take<int64_t>(tokens);
    origins = memory.take<int64_t>(tokens);
  }
  Whole memory;
  int64_t tokens, inner;
  char *hidden[2], *heads, *context;
  float *received, *importance, *scores;
  int64_t *survivors, *origins;  // places of the tokens alive: among those before, and among all
};

// Attention of a layer, and the choice. Returns how many tokens stay, or -1 if memory ran out.
int64_t attend(const LayersWork& w, int64_t layer, bool bare, Problem p, const char* hidden, int64_t stride,
               const Room& room, int32_t threads, Team team) {
  const Choice choice{w, p.starts, room.survivors, w.starts + layer * (p.batch + 1)};
  const float threshold = w.thresholds[layer];
  const bool chooses = !bare && !(threshold <= 0);
  int64_t left = p.tokens;
  p.context = room.context;
  if (bare) {
    left = choice.prefix();
    p.rows = room.survivors, p.row_starts = choice.starts;
  }
  if (chooses) p.received = room.received, p.importance = room.importance;
  const int64_t products = p.tokens * p.tokens / std::max<int64_t>(1, p.batch) * room.inner;
  if (thresher_attend(&p, products > ALONE ? threads : 1, team)) return -1;
  if (!chooses) {
    if (!bare) std::copy(p.starts, p.starts + p.batch + 1, choice.starts);
    return left;
  }
  rescale(w, p.starts, room.importance);
  if (!w.vectors) return choice.by_score(room.importance, threshold);
  const ScoreWork score = {hidden, w.vectors + layer * w.width, room.importance, p.starts, room.scores, p.batch,
                           w.width, stride, w.largest, w.least, w.alone, p.bf16};
  if (thresher_score(&score, p.tokens * w.width > ALONE ? threads : 1, team)) return -1;
  return choice.by_score(room.scores, threshold);
}

// Rows of hidden states, to their places among all tokens.
struct Rows {
  const LayersWork& work;
  const Room& room;
  const char* hidden;
  int64_t stride;
  void carry(int64_t i) const {
    const int64_t size = work.entry.bf16 ? 2 : 4, bytes = work.width * size;
    std::memcpy(static_cast<char*>(work.carried) + room.origins[i] * bytes, hidden + i * stride * size, bytes);
  }
  void carry_dropped(int64_t tokens, int64_t left) const {
    for (int64_t i = 0, next = 0; i < tokens; ++i)
      if (next < left && room.survivors[next] == i)
        ++next;
      else
        carry(i);
  }
};

int64_t products_of(const Stage& s) {
  const auto of = [](const Linear& linear) { return linear.inputs * linear.outputs; };
  return of(s.output) + of(s.up) + of(s.down) + of(s.next);
}

bool run(const LayersWork& w, int32_t threads, Team team) {
  const Room room(w);
  Problem p = w.entry;
  const int64_t size = p.bf16 ? 2 : 4;
  std::copy(p.positions, p.positions + p.tokens, w.positions);
  std::iota(room.origins, room.origins + p.tokens, 0);
  std::fill(w.depths, w.depths + p.tokens, 0);
  const char* hidden = static_cast<const char*>(w.hidden);
  int64_t stride = w.hidden_stride;
  for (int64_t layer = 0; layer < w.layers; ++layer) {
    p.window = w.windows[layer], p.scale = w.scales[layer], p.positions = w.positions;
    const bool bare = layer >= w.layers - w.bare;  // the prefix alone stays
    const int64_t left = attend(w, layer, bare, p, hidden, stride, room, threads, team);
    if (left < 0) return false;
    const bool dropped = left < p.tokens;
    if (w.carried && dropped) Rows{w, room, hidden, stride}.carry_dropped(p.tokens, left);
    for (int64_t i = 0; i < left; ++i) {
      const int64_t from = dropped ? room.survivors[i] : i;
      w.positions[i] = w.positions[from];
      w.depths[room.origins[i] = room.origins[from]] = layer + 1;
    }
    char* target = layer + 1 == w.layers ? static_cast<char*>(w.target) : room.hidden[layer % 2];
    const StageWork stage = {w.stages[layer], hidden, dropped ? room.survivors : nullptr, room.context, target,
                             room.heads, w.positions, left, stride, room.inner, bare, p.bf16};
    if (thresher_stage(&stage, left * products_of(*w.stages[layer]) > ALONE ? threads : 1, team)) return false;
    hidden = target, stride = w.width;
    p.tokens = left, p.starts = w.starts + layer * (p.batch + 1);
    const int64_t grouped = room.inner / p.groups;  // numbers of a token's keys, and of its values
    p.query = room.heads, p.key = room.heads + room.inner * size;
    p.value = room.heads + (room.inner + grouped) * size;
    for (int64_t* apart : {p.query_stride, p.key_stride, p.value_stride})
      apart[0] = room.inner + 2 * grouped, apart[1] = p.dim;
  }
  for (int64_t i = 0; w.carried && i < p.tokens; ++i) Rows{w, room, hidden, stride}.carry(i);
  return true;
}

}  // namespace

extern "C" int32_t thresher_layers(const LayersWork* work, int32_t threads, Team team) {
  try {
    return !run(*work, threads, team);
  } catch (...) {
    return 1;
  }
}
