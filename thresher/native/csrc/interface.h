// What is asked of the native code: the structs of thresher/native, and the functions that take them.
#pragma once

#include <cstdint>

#include "team.h"

extern "C" {

struct Problem {
  const void *query, *key, *value;  // [tokens, heads, dim]
  int64_t query_stride[2], key_stride[2], value_stride[2];  // from token to token, and from head to head
  const int32_t* starts;     // [batch + 1]
  const int64_t* positions;  // [tokens]; read where there is a window
  const float* log_weight;   // [tokens]: added to the scores of a key, and its exponential weighs a query; or null
  const int64_t* rows;       // tokens whose context is wanted, in order; null for all of them
  const int32_t* row_starts; // [batch + 1], of rows
  void* context;             // [rows, heads, dim], or null
  float* received;           // [heads, tokens]: attention received in every head, or null
  float* importance;         // [tokens]: the mean of it over heads, or null
  int64_t batch, tokens, heads, dim;
  int64_t window;            // -1 for none
  float scale;
  int32_t bf16;              // 1 if numbers are bfloat16, 0 if they are float
};

struct Gradients {
  Problem problem;               // as on the way forward, but for its outputs and its rows: all tokens have context
  const void* context_grad;      // [tokens, heads, dim]
  const float* importance_grad;  // [tokens], or null
  void *query_grad, *key_grad, *value_grad;  // [tokens, heads, dim]
  float* log_weight_grad;        // [heads, tokens]; written where there is a log weight
};

struct ScoreWork {
  const void* hidden;       // [tokens, dim]
  const float* vector;      // [dim]
  const float* importance;  // [tokens]
  const int32_t* starts;    // [batch + 1]
  float* scores;            // [tokens]
  int64_t batch, dim, stride;  // from row to row of `hidden`
  float largest, least;     // most that the logarithm of a learned score may be; least sum to divide by
  int32_t alone;            // 1 if importance only gives the sum
  int32_t bf16;             // 1 if hidden states are bfloat16, 0 if they are float
};

struct RowWork {
  const void* from;  // [rows, width] numbers to round to int8
  void* to;          // [rows, width] int8; or products, made into what they stand for in place
  float* sizes;      // [rows]
  const float* bias; // [width]
  int64_t rows, width;
  int32_t bf16;      // 1 if numbers and products are bfloat16, 0 if they are float
  int32_t gelu;
};

struct LinearWork {
  const void* from;           // [rows, inputs]
  void* to;                   // [rows, outputs]
  const void* weights;        // tiles, as in linear_amx.h
  const float* weight_sizes;  // [outputs, and up to 31 more], of int8
  const float* bias;          // as many
  int64_t rows, inputs, outputs, stride;  // from row to row of `from`
  int32_t int8;               // 1 if weights are int8, 0 if they are bfloat16; then rows are, too
  int32_t bf16;               // 1 if rows are bfloat16, 0 if they are float
  int32_t gelu;
};

// The size of each struct, for the caller to compare with its own.
int64_t thresher_problem_size();
int64_t thresher_gradients_size();
int64_t thresher_score_work_size();
int64_t thresher_row_work_size();
int64_t thresher_linear_work_size();

// Choose the instructions to use by name, or the best there are by null; this call comes before any other. Gives
// back their name, or null if the machine lacks them.
const char* thresher_use(const char* name);

// Attention, and the way back. Give back 0, or 1 if memory ran out.
int32_t thresher_attend(const Problem* problem, int32_t threads, Team team);
int32_t thresher_attend_backward(const Gradients* gradients, int32_t threads, Team team);

// Learned scores.
void thresher_score(const ScoreWork* work, int32_t threads, Team team);

// From float or bfloat16 to int8 and the sizes.
void thresher_quantise(const RowWork* work, int32_t threads, Team team);

// From products and sizes to float or bfloat16, in place.
void thresher_finish(const RowWork* work, int32_t threads, Team team);

// A linear layer, on machines with AMX. Gives back 0, or 1 if it could not.
int32_t thresher_linear(const LinearWork* work, int32_t threads, Team team);

}  // extern "C"
