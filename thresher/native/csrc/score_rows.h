// Learned scores of one sequence. Included by each_machine.h.

#include "vectors.h"

template <class T>
static void score(const ScoreWork& s, int64_t sequence) {
  const int64_t start = s.starts[sequence], end = s.starts[sequence + 1];
  float total = 0, sum = 0;
  for (int64_t t = start; t < end; ++t) {
    const T* row = static_cast<const T*>(s.hidden) + t * s.stride;
    F parts = {};
    int64_t i = 0;
    for (; i + W <= s.dim; i += W) parts += read(row + i) * load(s.vector + i);
    float dot = reduce(parts, [](Four a, Four b) { return a + b; });
    for (; i < s.dim; ++i) dot += number(row[i]) * s.vector[i];
    const float learned = std::exp(std::min(std::max(dot, -s.largest), s.largest));  // a NaN stays
    s.scores[t] = s.alone ? learned : learned * s.importance[t];
    sum += s.scores[t];
    total += s.importance[t];
  }
  const float fair = total / std::max(sum, s.least);
  for (int64_t t = start; t < end; ++t) s.scores[t] *= fair;
}
