// The functions of the native code, and the records that they take: those of thresher/native/records.py.
#pragma once

#include <cstdint>

#include "records.h"
#include "team.h"

struct Problem {
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;      // [batch + 1]
  const int64_t* positions;   // [tokens]; read where there is a window
  const float* log_weight;    // [tokens]: added to a key's scores, and its exponential weighs a query's vote; or null
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
  Problem problem;               // as on the way forward, without outputs and rows: all tokens have context
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

struct LinearWork {
  const void* source;         // [rows, inputs]
  void* target;               // [rows, outputs]
  const void* weights;        // int8 or bfloat16 tiles, as in linear_amx.h
  const float* weight_sizes;  // [outputs, and up to 31 more] of int8 weights; null for bfloat16 weights
  const float* bias;          // [outputs, and up to 31 more]
  int64_t rows, inputs, outputs, stride;  // from row to row of `source`
  int32_t bf16;               // 1 if rows are bfloat16; 0 if they are float, which needs int8 weights
  int32_t gelu;
};
THRESHER_RECORD(LinearWork, FIELD(source), FIELD(target), FIELD(weights), FIELD(weight_sizes), FIELD(bias),
                FIELD(rows), FIELD(inputs), FIELD(outputs), FIELD(stride), FIELD(bf16), FIELD(gelu));

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

// A linear layer, on machines with AMX. Returns 1 on all others.
int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team);

}  // extern "C"
