#include "runtime/shape_checks.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "runtime/error.h"

namespace lamina::test {
namespace {

// D 2, R 3, T 2 of 4; H 8 and I 4 in G 4 blocks, of which K 2 are this rank's: U 2.
constexpr int kTimeSteps = 2;
constexpr std::size_t kLanes = 6, kRows = kLanes * kTimeSteps, kHidden = 8, kInputs = 4, kOwnUnits = 4;

RecurrenceShape shape() {
  return {.inputs = kInputs,
          .hidden = kHidden,
          .max_time_steps = 4,
          .tiling = {Share{4, 0, 2}, Share{4, 2, 2}, 3}};
}

std::span<float> floats(std::size_t count) {
  static std::vector<float> values(1000);
  return std::span(values).first(count);
}

RecurrenceForward forward() {
  return {.time_steps = kTimeSteps,
          .input = floats(kRows * kInputs),
          .h_first = floats(kLanes * kHidden),
          .c_first = floats(kLanes * kOwnUnits),
          .lengths = {},
          .output = floats(kRows * kHidden),
          .h_last = floats(kLanes * kHidden),
          .c_last = floats(kLanes * kOwnUnits)};
}

RecurrenceBackward backward() {
  return {.d_output = floats(kRows * kOwnUnits),
          .d_input = floats(kRows * kInputs / 2),
          .d_parameters = {.W_x = floats(4 * kOwnUnits * kInputs),
                           .W_h = floats(4 * kOwnUnits * kHidden),
                           .gain_x = floats(4 * kOwnUnits),
                           .gain_h = floats(4 * kOwnUnits),
                           .bias = floats(4 * kOwnUnits),
                           .gain_c = floats(kOwnUnits),
                           .bias_c = floats(kOwnUnits)}};
}

TEST(ShapeChecks, TakeWhatFits) {
  EXPECT_NO_THROW(check_fits(shape(), forward()));
  EXPECT_NO_THROW(check_fits(shape(), kTimeSteps, backward()));

  RecurrenceBackward without_input = backward();
  without_input.d_input = {};
  EXPECT_NO_THROW(check_fits(shape(), kTimeSteps, without_input));
}

TEST(ShapeChecks, RefuseEachArrayOfAForwardPass) {
  const std::vector<std::int32_t> tokens(kRows);
  const std::vector<std::function<void(RecurrenceForward&)>> mistakes{
      [](auto& f) { f.time_steps = 0; },
      [](auto& f) { f.time_steps = 5; },
      [](auto& f) { f.input = floats(kRows * kInputs - 1); },
      [](auto& f) { f.h_first = floats(kLanes * kHidden + 1); },
      [](auto& f) { f.c_first = floats(kLanes * kHidden); },
      [&](auto& f) { f.lengths = std::span(tokens).first(kLanes - 1); },
      [](auto& f) { f.output = floats(kRows * kOwnUnits); },
      [](auto& f) { f.h_last = {}; },
      [](auto& f) { f.c_last = {}; },
      [&](auto& f) { f.tokens = tokens; }};
  for (std::size_t i = 0; i < mistakes.size(); ++i) {
    RecurrenceForward f = forward();
    mistakes[i](f);
    EXPECT_THROW(check_fits(shape(), f), InternalError) << i;
  }
}

TEST(ShapeChecks, WithATableWantTokensOfIt) {
  RecurrenceShape of_table = shape();
  of_table.table_rows = 5;
  std::vector<std::int32_t> tokens(kRows, 4);
  RecurrenceForward f = forward();
  f.input = {};
  f.tokens = tokens;
  EXPECT_NO_THROW(check_fits(of_table, f));

  for (const std::int32_t outside : {-1, 5}) {
    tokens.back() = outside;
    EXPECT_THROW(check_fits(of_table, f), InternalError) << outside;
  }
  RecurrenceBackward b = backward();
  EXPECT_THROW(check_fits(of_table, kTimeSteps, b), InternalError);
  b.d_input = {};
  EXPECT_NO_THROW(check_fits(of_table, kTimeSteps, b));
}

TEST(ShapeChecks, RefuseEachArrayOfABackwardPass) {
  const std::vector<std::function<void(RecurrenceBackward&)>> mistakes{
      [](auto& b) { b.d_output = floats(kRows * kHidden); },
      [](auto& b) { b.d_input = floats(kRows * kInputs); },
      [](auto& b) { b.d_parameters.W_x = {}; },
      [](auto& b) { b.d_parameters.W_h = {}; },
      [](auto& b) { b.d_parameters.bias = {}; },
      [](auto& b) { b.d_parameters.gain_x = {}; },
      [](auto& b) { b.d_parameters.gain_h = {}; },
      [](auto& b) { b.d_parameters.gain_c = {}; },
      [](auto& b) { b.d_parameters.bias_c = {}; }};
  for (std::size_t i = 0; i < mistakes.size(); ++i) {
    RecurrenceBackward b = backward();
    mistakes[i](b);
    EXPECT_THROW(check_fits(shape(), kTimeSteps, b), InternalError) << i;
  }
}

TEST(ShapeChecks, OfAnEmbeddingWantItsTableAndTokensOfIt) {
  const EmbeddingShape embedding{
      .vocabulary = 5, .width = 8, .max_time_steps = 4, .tiling = {Share{4, 0, 2}, Share{4, 2, 2}, 3}};
  constexpr std::size_t kTable = 2 * 5 * 2;
  std::vector<std::int32_t> tokens(kRows, 4);
  EXPECT_NO_THROW(check_fits(embedding, kTimeSteps, kTable, tokens));
  EXPECT_THROW(check_fits(embedding, 5, kTable, tokens), InternalError);
  EXPECT_THROW(check_fits(embedding, kTimeSteps, 2 * kTable, tokens), InternalError);
  EXPECT_THROW(check_fits(embedding, kTimeSteps, kTable, std::span(tokens).first(kRows - 1)), InternalError);
  tokens.front() = 5;
  EXPECT_THROW(check_fits(embedding, kTimeSteps, kTable, tokens), InternalError);
}

}  // namespace
}  // namespace lamina::test
