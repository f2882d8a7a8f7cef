// What is asked of the native code: the records of thresher/native/records.py, and the functions that take them.
#pragma once

#include <cstdint>

#include "records.h"
#include "team.h"

struct Problem {
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;      // [batch + 1]
  const int64_t* positions;   // [tokens]; read where there is a window
  const float* log_weight;    // [tokens]: added to the scores of a key, and its exponential weighs a query; or null
  const int64_t* rows;        // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts;  // [batch + 1], of rows
  void* context;              // [rows, heads, dim], or null
  float* received;            // [heads, tokens]: attention received in every head, or null
  float* importance;          // [tokens]: the mean of it over heads, or null
  int64_t batch, tokens, heads, dim;
  int64_t window;             // -1 for none
  float scale;
  int32_t bf16;               // 1 if numbers are bfloat16, 0 if they are float
};
THRESHER_RECORD(Problem, FIELD(query), FIELD(key), FIELD(value), FIELD(query_stride), FIELD(key_stride),
                FIELD(value_stride), FIELD(starts), FIELD(positions), FIELD(log_weight), FIELD(rows),
                FIELD(row_starts), FIELD(context), FIELD(received), FIELD(importance), FIELD(batch), FIELD(tokens),
                FIELD(heads), FIELD(dim), FIELD(window), FIELD(scale), FIELD(bf16));

struct Gradients {
  Problem problem;               // as on the way forward, but without its outputs and rows: all tokens have context
  const void* context_grad;      // [tokens, heads, dim]
  const float* importance_grad;  // [tokens], or null
  void *query_grad, *key_grad, *value_grad;  // [tokens, heads, dim]
  float* log_weight_grad;        // [heads, tokens]; written where there is a log weight
};
THRESHER_RECORD(Gradients, FIELD(problem), FIELD(context_grad), FIELD(importance_grad), FIELD(query_grad),
                FIELD(key_grad), FIELD(value_grad), FIELD(log_weight_grad));

struct ScoreWork {
  const void* hidden;       // [tokens, dim]
  const float* vector;      // [dim]
  const float* importance;  // [tokens]
  const int32_t* starts;    // [batch + 1]
  float* scores;            // [tokens]
  int64_t batch, dim, stride;  // from row to row of `hidden`
  float largest;            // most that the logarithm of a learned score may be
  float least;              // least sum to divide by
  int32_t alone;            // 1 if importance only gives the sum
  int32_t bf16;             // 1 if hidden states are bfloat16, 0 if they are float
};
THRESHER_RECORD(ScoreWork, FIELD(hidden), FIELD(vector), FIELD(importance), FIELD(starts), FIELD(scores),
                FIELD(batch), FIELD(dim), FIELD(stride), FIELD(largest), FIELD(least), FIELD(alone), FIELD(bf16));

struct RowWork {
  const void* source;  // [rows, width] numbers to round to int8; null where `target` is finished in place
  void* target;        // [rows, width] int8; or products, made into what they stand for
  float* sizes;        // [rows]
  const float* bias;   // [width]; null where rows are rounded
  int64_t rows, width;
  int32_t bf16;        // 1 if numbers and products are bfloat16, 0 if they are float
  int32_t gelu;
};
THRESHER_RECORD(RowWork, FIELD(source), FIELD(target), FIELD(sizes), FIELD(bias), FIELD(rows), FIELD(width),
                FIELD(bf16), FIELD(gelu));

struct LinearWork {
  const void* source;         // [rows, inputs]
  void* target;               // [rows, outputs]
  const void* weights;        // int8 or bfloat16 tiles, as in linear_amx.h
  const float* weight_sizes;  // [outputs, and up to 31 more] of int8 weights; null where they are bfloat16
  const float* bias;          // as many
  int64_t rows, inputs, outputs, stride;  // from row to row of `source`
  int32_t bf16;               // 1 if rows are bfloat16, 0 if they are float, which needs int8 weights
  int32_t gelu;
};
THRESHER_RECORD(LinearWork, FIELD(source), FIELD(target), FIELD(weights), FIELD(weight_sizes), FIELD(bias),
                FIELD(rows), FIELD(inputs), FIELD(outputs), FIELD(stride), FIELD(bf16), FIELD(gelu));

extern "C" {

// All records, for the caller to compare with its own: see records.cpp.
const char* thresher_records();

// Choose the instructions to use by name, or the best there are by null; this call comes before those below. Gives
// back their name, or null if the machine lacks them.
const char* thresher_use(const char* name);

// The rest gives back 0, or 1 if it could not: memory ran out.

// Attention, and the way back.
int32_t thresher_attend(const Problem* problem, int32_t threads, Team team);
int32_t thresher_attend_backward(const Gradients* gradients, int32_t threads, Team team);

// Learned scores.
int32_t thresher_score(const ScoreWork* work, int32_t threads, Team team);

// From float or bfloat16 to int8 and the sizes.
int32_t thresher_quantise(const RowWork* work, int32_t threads, Team team);

// From products and sizes to float or bfloat16, in place.
int32_t thresher_finish(const RowWork* work, int32_t threads, Team team);

// A linear layer, on machines with AMX; 1 on all others.
int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team);

}  // extern "C"
