// The functions of the native code, and the records that they take: those of thresher/native/records.py.
#pragma once

#include <cstdint>

#include "records.h"
#include "team.h"

struct Problem {
  const void *query, *key, *value;  // [tokens, heads, dim]; keys and values have heads / groups of them
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;      // [batch + 1]
  const int64_t* positions;   // [tokens]; read where there is a window or a table
  const float* log_weight;    // [tokens]: added to a key's scores, and its exponential weighs a query's vote; or null
  const float* table;         // [heads, numbers]: what relative positions add to scaled scores; or null
  const int32_t* entries;     // [2 reach + 1]: which number, by the key's position less the query's, from -reach on
  const int64_t* rows;        // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts;  // [batch + 1], of rows
  void* context;              // [rows, heads, dim], or null
  float* received;            // [heads, tokens]: attention received in every head, or null
  float* importance;          // [tokens]: the mean of it over heads, or null
  int64_t batch, tokens, heads, dim;
  int64_t groups;             // neighbouring heads of queries for each head of keys and values
  int64_t window;             // -1 for none
  int64_t numbers, reach;     // no two tokens of a sequence are further apart than `reach`
  float scale;
  float dropout;              // share of the probabilities that are 0 in the context, after importance is taken
  int32_t seed;               // says which
  int32_t bf16;               // 1 if numbers are bfloat16, 0 if they are float
};
THRESHER_RECORD(Problem, FIELD(query), FIELD(key), FIELD(value), FIELD(query_stride), FIELD(key_stride),
                FIELD(value_stride), FIELD(starts), FIELD(positions), FIELD(log_weight), FIELD(table), FIELD(entries),
                FIELD(rows), FIELD(row_starts), FIELD(context), FIELD(received), FIELD(importance), FIELD(batch),
                FIELD(tokens), FIELD(heads), FIELD(dim), FIELD(groups), FIELD(window), FIELD(numbers), FIELD(reach),
                FIELD(scale), FIELD(dropout), FIELD(seed), FIELD(bf16));

struct Gradients {
  Problem problem;               // as on the way forward, without outputs and rows: all tokens have context
  const void* context_grad;      // [tokens, heads, dim]
  const float* importance_grad;  // [tokens], or null
  void *query_grad, *key_grad, *value_grad;  // [tokens, heads, dim]: by the heads of queries
  float* log_weight_grad;        // [heads, tokens]; written where there is a log weight
  float* table_grad;             // [batch, heads, numbers]; added to where there is a table
};
THRESHER_RECORD(Gradients, FIELD(problem), FIELD(context_grad), FIELD(importance_grad), FIELD(query_grad),
                FIELD(key_grad), FIELD(value_grad), FIELD(log_weight_grad), FIELD(table_grad));

struct ScoreWork {
  const void* hidden;       // [tokens, dim]
  const float* vector;      // [dim]
  const float* importance;  // [tokens]
  const int32_t* starts;    // [batch + 1]
  float* scores;            // [tokens]
  int64_t batch, dim, stride;  // from row to row of `hidden`
  float largest;            // the largest logarithm of a learned score
  float least;              // the least sum to divide by
  int32_t alone;            // 1 if importance gives only the sum of the scores
  int32_t bf16;             // 1 if hidden states are bfloat16, 0 if they are float
};
THRESHER_RECORD(ScoreWork, FIELD(hidden), FIELD(vector), FIELD(importance), FIELD(starts), FIELD(scores),
                FIELD(batch), FIELD(dim), FIELD(stride), FIELD(largest), FIELD(least), FIELD(alone), FIELD(bf16));

struct RowWork {
  const void* source;  // [rows, width] numbers to round to int8; null where `target` is finished in place
  void* target;        // [rows, width] int8; or products, to be finished in place
  float* sizes;        // [rows]
  const float* bias;   // [width]; null where rows are rounded
  int64_t rows, width;
  int32_t bf16;        // 1 if numbers and products are bfloat16, 0 if they are float
  int32_t gelu;
};
THRESHER_RECORD(RowWork, FIELD(source), FIELD(target), FIELD(sizes), FIELD(bias), FIELD(rows), FIELD(width),
                FIELD(bf16), FIELD(gelu));

struct Linear {
  const void* weights;   // panels, as in panels.h: int8 (in 16 bits where thresher_has() says so), bfloat16 or float
  const float* sizes;    // [outputs, and zeros up to whole panels] of int8 weights; null for others
  const int32_t* start;  // [as sizes]: -128 times the sum of an output's int8 weights; null for others
  const float* bias;     // [as sizes]
  int64_t inputs, outputs;
};
THRESHER_RECORD(Linear, FIELD(weights), FIELD(sizes), FIELD(start), FIELD(bias), FIELD(inputs), FIELD(outputs));

enum Activation { IDENTITY, GELU, GELU_TANH, SILU, RELU };
enum Precision { FLOAT, BFLOAT16, INT8, PRECISIONS };
enum Has { LINEARS = 1, STAGES = 2, IN_WORDS = 4 };  // the last: int8 weights have 16 bits each

struct LinearWork {
  Linear linear;
  const void* source;  // [rows, inputs]
  void* target;        // [rows, outputs]
  int64_t rows, stride;  // from row to row of `source`
  int64_t activation;  // see Activation
  int32_t precision;   // of the weights: see Precision
  int32_t bf16;        // 1 if rows are bfloat16; 0 if they are float
};
THRESHER_RECORD(LinearWork, FIELD(linear), FIELD(source), FIELD(target), FIELD(rows), FIELD(stride), FIELD(activation),
                FIELD(precision), FIELD(bf16));

struct Norm {
  const float *weight, *bias;  // [dim]; a null weight is for no norm
  float epsilon;
  int32_t centred;             // 1 for LayerNorm, 0 for RMSNorm
};
THRESHER_RECORD(Norm, FIELD(weight), FIELD(bias), FIELD(epsilon), FIELD(centred));

// A stage: the rest of a layer after its attention, and the next layer's queries, keys and values.
struct Stage {
  Linear output, up, down, next;  // after attention; feed-forward; queries, keys and values, without outputs if none follow
  Norm first, second;    // after the sums with `output` and `down`; or, `before`, of what `up` and `next` read
  int64_t dim;
  int32_t before;        // 1 for pre-norm layers
  int32_t gated;         // 1 if the first half of what `up` gives is activated, and times the second half
  int32_t activation;    // see Activation
  int32_t precision;     // of the weights: see Precision
  const float* turns;    // [positions, 2, head_dim / 2]: cosines and sines of rotary positions; or null
  int64_t turned, head_dim;  // numbers of a row of heads that are turned: those of queries and keys
};
THRESHER_RECORD(Stage, FIELD(output), FIELD(up), FIELD(down), FIELD(next), FIELD(first), FIELD(second), FIELD(dim),
                FIELD(before), FIELD(gated), FIELD(activation), FIELD(precision), FIELD(turns), FIELD(turned),
                FIELD(head_dim));

struct StageWork {
  const Stage* stage;
  const void* hidden;        // [tokens at entry, dim]
  const int64_t* survivors;  // [rows]: their places among the tokens at entry; null for all
  const void* context;       // [rows, inputs of `output`], or of all tokens at entry
  void* target;              // [rows, dim]
  void* heads;               // [rows, outputs of `next`]
  const int64_t* positions;  // [rows], where there are turns
  int64_t rows, hidden_stride, context_stride;
  int32_t gathered;          // 1 if `context` has the rows of survivors alone; 0 if it has those of all tokens at entry
  int32_t bf16;              // 1 if hidden states, context and heads are bfloat16; 0 if they are float
};
THRESHER_RECORD(StageWork, FIELD(stage), FIELD(hidden), FIELD(survivors), FIELD(context), FIELD(target), FIELD(heads),
                FIELD(positions), FIELD(rows), FIELD(hidden_stride), FIELD(context_stride), FIELD(gathered),
                FIELD(bf16));

// Layers one after the other: attention, the choice of survivors, and the stage.
struct LayersWork {
  Problem entry;               // layer 0's attention: queries, keys, values, and the tokens that enter; nothing else
  const Stage* const* stages;  // [layers]; all but the last give queries, keys and values side by side
  const int64_t* windows;      // [layers]; -1 for none
  const float* scales;         // [layers]
  const float* thresholds;     // [layers]: tokens with a lower score go; 0 or less where all stay
  const float* vectors;        // [layers, width] of learned scores; null where the score is the importance
  const int64_t* lengths;      // [batch]: tokens of the texts before anything was dropped
  const void* hidden;          // [tokens, width]: layer 0's input
  void* target;                // [tokens, width]: the last hidden states of those that are left
  void* carried;               // [tokens, width]: of each, the last state that there was: that with which a dropped
                               // token entered the layer that dropped it; null where nobody asks
  int64_t* positions;          // [tokens]: of those that are left
  int64_t* depths;             // [tokens]: how many layers' drops each survives
  int32_t* starts;             // [layers, batch + 1]: where texts begin after each layer's drop
  int64_t layers, width, hidden_stride;
  int64_t prefix, suffix;      // so many tokens at the ends of a text stay
  int64_t bare;                // so many last layers keep the prefix alone
  float length;                // importance counts times this over a text's tokens; 0 for fair shares
  float largest, least;        // as of ScoreWork
  int32_t alone;               // likewise
};
THRESHER_RECORD(LayersWork, FIELD(entry), FIELD(stages), FIELD(windows), FIELD(scales), FIELD(thresholds),
                FIELD(vectors), FIELD(lengths), FIELD(hidden), FIELD(target), FIELD(carried), FIELD(positions),
                FIELD(depths), FIELD(starts), FIELD(layers), FIELD(width), FIELD(hidden_stride), FIELD(prefix), FIELD(suffix),
                FIELD(bare), FIELD(length), FIELD(largest), FIELD(least), FIELD(alone));

// Products of numbers that stay in registers.
struct BurnWork {
  int64_t rounds;     // by every thread
  int64_t precision;  // see Precision
};
THRESHER_RECORD(BurnWork, FIELD(rounds), FIELD(precision));

extern "C" {

// A description of all records, which the caller compares with its own: see records.cpp.
const char* thresher_records();

// Choose the instructions by name, or the best of this machine by null. Call this before the functions below. Returns
// the name of the instructions, or null if the machine lacks them.
const char* thresher_use(const char* name);

// Each of the functions below returns 0, or 1 if memory ran out.

// Attention, and the way back.
int32_t thresher_attend(const Problem* problem, int32_t threads, Team team);
int32_t thresher_attend_backward(const Gradients* gradients, int32_t threads, Team team);

// Learned scores.
int32_t thresher_score(const ScoreWork* work, int32_t threads, Team team);

// Round float or bfloat16 to int8 and sizes.
int32_t thresher_quantise(const RowWork* work, int32_t threads, Team team);

// Turn products and sizes into float or bfloat16, in place.
int32_t thresher_finish(const RowWork* work, int32_t threads, Team team);

// A linear layer, in a precision that thresher_has() has.
int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team);

// A stage, likewise.
int32_t thresher_stage(const StageWork* work, int32_t threads, Team team);

// All layers, whose stages are in precisions that thresher_has() has.
int32_t thresher_layers(const LayersWork* work, int32_t threads, Team team);

// Multiply as fast as vectors can, on every thread. One round has thresher_round() multiply-adds.
int32_t thresher_burn(const BurnWork* work, int32_t threads, Team team);
int32_t thresher_round(int32_t precision);

// What the instructions in use have in a precision: a sum of Has.
int32_t thresher_has(int32_t precision);

}  // extern "C"
