#include "kernels/cpu/embedding_lookup.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/error.h"
#include "tests/reference/language_model.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using reference::SequenceLayout;
using test::random_values;
using test::same_bits;

struct Case {
  int time_steps = 5, groups = 4, rows = 3, vocabulary = 63, width = 24, blocks = 8;

  BlockedShape table() const { return {vocabulary, width, 1, blocks}; }
  std::size_t places() const {
    return static_cast<std::size_t>(time_steps) * static_cast<std::size_t>(groups * rows);
  }
  std::size_t output_size() const { return places() * static_cast<std::size_t>(width); }
};

/// In global layouts.
struct Input {
  std::vector<float> table, d_output;  ///< [V, E], [T, B, E]
  std::vector<int> tokens;             ///< [T, B]
};
struct Result {
  std::vector<float> output, d_table;  ///< [T, B, E], [V, E]
};

Input random_input(const Case& given) {
  return {random_values("table", static_cast<std::size_t>(given.table().size())),
          random_values("d_output", given.output_size()),
          test::random_integers("tokens", given.places(), 0, given.vocabulary - 1)};
}

void run_rank(const Case& given, const Input& in, const Tiling& tiling, Communicator& model_axis, int threads,
              Result& result) {
  const SequenceLayout layout{tiling, given.time_steps, given.width},
      token_layout{tiling, given.time_steps, 1};
  const auto table = reference::to_blocks<float>(in.table, given.table(), tiling.blocks);
  const auto tokens = token_layout.to_full<std::int32_t>(in.tokens);
  std::vector<float> output(layout.full_size()), d_table(table.size(), 99);

  const auto lookup = make_cpu_embedding_lookup({.vocabulary = given.vocabulary,
                                                 .width = given.width,
                                                 .max_time_steps = given.time_steps,
                                                 .tiling = tiling},
                                                model_axis, threads);
  lookup->forward(given.time_steps, table, tokens, output);
  lookup->backward(given.time_steps, layout.to_blocked<float>(in.d_output), tokens, d_table);

  if (model_axis.rank() == 0) layout.from_full(std::span<const float>(output), result.output);
  reference::from_blocks(std::span<const float>(d_table), given.table(), tiling.blocks, result.d_table);
}

Result run_on_grid(const Case& given, const Input& in, int model_ranks = 1, int threads = 1) {
  Result result{std::vector<float>(given.output_size()), std::vector<float>(in.table.size())};
  run_on_threads(model_ranks, [&](Communicator& world) {
    const Share groups = Share::of(given.groups, 0, 1);
    const Share blocks = Share::of(given.blocks, world.rank(), world.size());
    run_rank(given, in, {groups, blocks, given.rows}, world, threads, result);
  });
  return result;
}

const std::vector<Case> kCases = {
    {},
    {.time_steps = 1, .groups = 1, .rows = 1, .vocabulary = 1, .width = 8, .blocks = 8},
    {.time_steps = 2, .groups = 2, .rows = 1, .vocabulary = 200, .width = 6, .blocks = 2},
};

TEST(EmbeddingLookup, CopiesRowsOfTheTable) {
  for (const Case& given : kCases) {
    const Input in = random_input(given);
    const auto expected = reference::embed(test::converted<double>(in.table), in.tokens, given.width);

    EXPECT_EQ(run_on_grid(given, in).output, test::converted<float>(expected));
  }
}

TEST(EmbeddingLookup, AddsGradientsToTheirRows) {
  for (const Case& given : kCases) {
    Input in = random_input(given);
    in.d_output = test::converted<float>(test::random_integers("d_output", given.output_size(), -9, 9));
    const auto expected = reference::embed_backward(test::converted<double>(in.d_output), in.tokens,
                                                    given.vocabulary, given.width);

    EXPECT_EQ(run_on_grid(given, in).d_table, test::converted<float>(expected));
  }
}

TEST(EmbeddingLookup, HasTheSameBitsOnEveryGridAndNumberOfThreads) {
  const Case given{.vocabulary = 7};
  const Input in = random_input(given);
  const Result one = run_on_grid(given, in);

  for (const auto& [ranks, threads] : {std::pair(2, 1), {4, 1}, {8, 1}, {1, 2}, {1, 4}, {2, 2}}) {
    const Result other = run_on_grid(given, in, ranks, threads);
    EXPECT_TRUE(same_bits(other.output, one.output)) << ranks << " ranks, " << threads << " threads";
    EXPECT_TRUE(same_bits(other.d_table, one.d_table)) << ranks << " ranks, " << threads << " threads";
  }
}

// The gradient of four groups is that of two and two, merged.
TEST(EmbeddingLookup, MergesLaneGroupsInTheTree) {
  const Case given{.vocabulary = 7};
  const Input in = random_input(given);
  const auto self = make_self_communicator();
  const auto part = [&](Share groups) {
    Result result{std::vector<float>(given.output_size()), std::vector<float>(in.table.size())};
    run_rank(given, in, {groups, Share::of(given.blocks, 0, 1), given.rows}, *self, 1, result);
    return result.d_table;
  };

  std::vector<float> merged = part({4, 0, 2});
  const std::vector<float> right = part({4, 2, 2});
  for (std::size_t i = 0; i < merged.size(); ++i) merged[i] += right[i];

  EXPECT_TRUE(same_bits(merged, part({4, 0, 4})));
}

TEST(EmbeddingLookup, RefusesTokensOutsideTheVocabulary) {
  const Case given;
  for (const int token : {-1, given.vocabulary}) {
    Input in = random_input(given);
    in.tokens[17] = token;

    EXPECT_THROW(run_on_grid(given, in), InternalError);
  }
}

}  // namespace
}  // namespace lamina
