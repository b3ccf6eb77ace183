// ctest: timeout=300
// A run has the same bits - losses, gradient norms, parameters - wherever it is placed.
#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/training_run.h"

namespace lamina::test {
namespace {

TrainingCase small_case(const std::string& normalization, const std::string& optimizer) {
  return small_training(normalization, optimizer, optimizer == "sgd" ? 0.3 : 0.01);
}

void expect_same_run(const TrainingTrace& left, const TrainingTrace& right) {
  EXPECT_TRUE(same_bits(left.losses, right.losses)) << "losses";
  EXPECT_TRUE(same_bits(left.gradient_norms, right.gradient_norms)) << "gradient norms";
  ASSERT_EQ(left.parameters.size(), right.parameters.size());
  for (const auto& [name, values] : left.parameters)
    EXPECT_TRUE(same_bits(values, right.parameters.at(name))) << name;
}

void expect_same_on_every_grid(const TrainingCase& what) {
  const TrainingTrace alone = train_on(what);

  for (const auto& [data, model] : {std::pair{2, 1}, {1, 2}, {2, 2}, {4, 1}, {1, 4}, {4, 2}, {2, 4}}) {
    SCOPED_TRACE(std::to_string(data) + " x " + std::to_string(model));
    expect_same_run(alone, train_on(what, {.data_ranks = data, .model_ranks = model}));
  }
}

TEST(GridBits, SgdWithLayerNormalization) { expect_same_on_every_grid(small_case("layer", "sgd")); }

TEST(GridBits, AdamWithLayerNormalization) { expect_same_on_every_grid(small_case("layer", "adam")); }

TEST(GridBits, AdamWithoutNormalization) { expect_same_on_every_grid(small_case("none", "adam")); }

void expect_sharded_bits_from(const char* exchange) {
  for (const char* normalization : {"layer", "none"}) {
    SCOPED_TRACE(normalization);
    const TrainingCase sharded = small_case(normalization, "adam");
    TrainingCase other = sharded;
    other.model.exchange = exchange;
    const TrainingTrace alone = train_on(sharded);

    expect_same_run(alone, train_on(other));
    expect_same_run(alone, train_on(other, {.data_ranks = 2, .model_ranks = 2}));
    expect_same_run(alone, train_on(other, {.data_ranks = 1, .model_ranks = 4}));
    expect_same_run(alone, train_on(other, {.data_ranks = 1, .model_ranks = 8}));
    expect_same_run(alone, train_on(other, {.data_ranks = 1, .model_ranks = 2, .passes = 2, .threads = 2}));
  }
}

TEST(GridBits, ReplicatedExchangeIsShardedExchange) { expect_sharded_bits_from("replicated"); }

TEST(GridBits, CellExchangeIsShardedExchange) { expect_sharded_bits_from("cell"); }

TEST(GridBits, PassesOverTheLanes) {
  const TrainingCase what = small_case("layer", "adam");
  const TrainingTrace alone = train_on(what);

  for (const int passes : {2, 4, 8}) {
    SCOPED_TRACE(std::to_string(passes) + " passes");
    expect_same_run(alone, train_on(what, {.passes = passes}));
  }
  expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 2, .passes = 4}));
}

TEST(GridBits, Threads) {
  const TrainingCase what = small_case("layer", "adam");
  const TrainingTrace alone = train_on(what);

  expect_same_run(alone, train_on(what, {.threads = 2}));
  expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 2, .threads = 2}));
}

// Six characters are half of the twelve rows of a lane group: without dropout the first layer reads rows of
// the embedding, once for each character of the vocabulary.
TrainingCase case_by_token(const std::string& normalization) {
  TrainingCase what = small_case(normalization, "adam");
  what.model.dropout = 0;
  what.vocabulary = 6;
  return what;
}

TEST(GridBits, ByTokenWithLayerNormalization) { expect_same_on_every_grid(case_by_token("layer")); }

TEST(GridBits, ByTokenWithoutNormalization) { expect_same_on_every_grid(case_by_token("none")); }

// Twenty characters are too many for one lane group and not for four: ranks with more groups decide alike.
TEST(GridBits, WithAVocabularyTooLargeToWorkByToken) {
  TrainingCase what = case_by_token("layer");
  what.vocabulary = 20;
  expect_same_on_every_grid(what);
}

TEST(GridBits, ByTokenInAllSchedulesInPassesAndOnThreads) {
  for (const char* normalization : {"layer", "none"}) {
    SCOPED_TRACE(normalization);
    TrainingCase what = case_by_token(normalization);
    const TrainingTrace alone = train_on(what);

    expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 2, .passes = 2, .threads = 2}));
    what.model.exchange = "replicated";
    expect_same_run(alone, train_on(what, {.data_ranks = 1, .model_ranks = 4, .passes = 4, .threads = 2}));
    expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 2}));
    what.model.exchange = "cell";
    expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 4, .passes = 2}));
  }
}

TEST(GridBits, ByTokenInBf16) {
  TrainingCase what = case_by_token("layer");
  what.model.precision = "bf16";
  expect_same_on_every_grid(what);
}

TEST(GridBits, Bf16) {
  for (const char* normalization : {"layer", "none"}) {
    SCOPED_TRACE(normalization);
    TrainingCase what = small_case(normalization, "adam");
    const TrainingTrace in_f32 = train_on(what);
    what.model.precision = "bf16";
    const TrainingTrace alone = train_on(what);

    EXPECT_FALSE(same_bits(alone.losses, in_f32.losses));
    expect_same_on_every_grid(what);
    expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 2, .passes = 4, .threads = 2}));
    what.model.exchange = "replicated";
    expect_same_run(alone, train_on(what, {.data_ranks = 2, .model_ranks = 4}));
  }
}

// Three layers beside each other.
void expect_wavefront_like(TrainingCase what) {
  what.model.layers = 3;
  const TrainingTrace one_by_one = train_on(what);
  what.model.layer_order = "wavefront";
  expect_same_run(one_by_one, train_on(what));
  for (const char* exchange : {"sharded", "cell", "replicated"}) {
    SCOPED_TRACE(exchange);
    what.model.exchange = exchange;
    expect_same_run(one_by_one, train_on(what, {.data_ranks = 2, .model_ranks = 2, .passes = 2}));
    expect_same_run(one_by_one, train_on(what, {.model_ranks = 4, .threads = 2}));
  }
}

TEST(GridBits, WavefrontWithLayerNormalization) { expect_wavefront_like(small_case("layer", "adam")); }

TEST(GridBits, WavefrontWithoutNormalization) { expect_wavefront_like(small_case("none", "adam")); }

TEST(GridBits, WavefrontWithVariationalDropoutInBf16) {
  TrainingCase what = small_case("layer", "adam");
  what.model.dropout_kind = "variational";
  what.model.precision = "bf16";
  expect_wavefront_like(what);
}

TEST(GridBits, WavefrontOverLayersOfWhichTheFirstReadsTokens) {
  expect_wavefront_like(case_by_token("layer"));
}

// The bits belong to the numbers of lane groups and unit blocks: others give other bits. Equal ones here
// would mean that the comparisons above cannot fail.
TEST(GridBits, OtherLaneGroupsAreOtherBits) {
  const TrainingCase what = small_case("layer", "sgd");
  TrainingCase other = what;
  other.lane_groups = 2;

  const TrainingTrace left = train_on(what), right = train_on(other);

  EXPECT_FALSE(same_bits(left.losses, right.losses));
  EXPECT_TRUE(all_close(left.losses, right.losses, 1e-3));
}

}  // namespace
}  // namespace lamina::test
