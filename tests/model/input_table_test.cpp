// Inputs that are rows of a table, worked out once for each row: the same layer and the same model as with
// the inputs of each step.
#include <gtest/gtest.h>

#include "kernels/backends.h"
#include "model/language_model.h"
#include "tests/reference/language_model.h"
#include "tests/support/close.h"
#include "tests/support/layer_cases.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

constexpr LayerSizes kSizes{
    .time_steps = 9, .groups = 4, .rows = 5, .blocks = 8, .inputs = 24, .hidden = 88, .classes = 70};

class InputTable : public ::testing::TestWithParam<LstmChoices> {
 protected:
  static LstmChoices with_table() {
    LstmChoices choices = GetParam();
    choices.table = true;
    return choices;
  }
  static std::vector<double> double_of(const std::vector<float>& values) { return converted<double>(values); }

  const std::unique_ptr<LayerCase> by_row_ = make_lstm_case(kSizes, with_table());
  const std::unique_ptr<LayerCase> by_step_ = make_lstm_case(kSizes, GetParam());
  /// As the case draws them.
  const std::vector<std::int32_t> tokens_ = random_integers(
      "tokens", static_cast<std::size_t>(kSizes.time_steps* kSizes.batch()), 0, kSizes.classes - 1);
  const Tensors in_ = by_row_->inputs();
};

TEST_P(InputTable, GivesTheBitsOfItsRowsAtEachStep) {
  Tensors at_each_step = in_;
  at_each_step["x"] = converted<float>(reference::embed(double_of(in_.at("table")), tokens_, kSizes.inputs));
  const Tensors right = run(*by_step_, at_each_step);

  const Tensors left = run(*by_row_, in_, {.model_ranks = 2});

  for (const char* name : {"output", "h_last", "c_last", "d_W_h", "d_gain_h", "d_gain_c", "d_bias_c"}) {
    if (!right.contains(name)) continue;  // without LN
    EXPECT_TRUE(same_bits(left.at(name), right.at(name))) << name;
  }
  for (const char* name : {"d_W_x", "d_gain_x", "d_bias"}) {  // the same sums in another order
    if (!right.contains(name)) continue;
    EXPECT_TRUE(all_close(left.at(name), double_of(right.at(name)), 1e-5)) << name;
  }
  EXPECT_TRUE(all_close(
      left.at("d_table"),
      reference::embed_backward(double_of(right.at("d_x")), tokens_, kSizes.classes, kSizes.inputs), 1e-5));
}

INSTANTIATE_TEST_SUITE_P(Cells, InputTable,
                         ::testing::Values(LstmChoices{.normalization = Normalization::none},
                                           LstmChoices{.normalization = Normalization::none,
                                                       .exchange = Exchange::replicated},
                                           LstmChoices{}, LstmChoices{.exchange = Exchange::replicated},
                                           LstmChoices{.lengths = true}));

// --- in a language model ----------------------------------------------------------------------------------

constexpr int kVocabulary = 12, kRows = 3;

ModelSettings small_model(double dropout) {
  ModelSettings settings;
  settings.layers = 2;
  settings.hidden = 16;
  settings.embedding = 8;
  settings.dropout = dropout;
  return settings;
}

/// A model for up to `time_steps` steps of three lanes.
struct Model {
  explicit Model(int time_steps, double dropout = 0)
      : model(small_model(dropout), kVocabulary, time_steps, {Share(), Share::of(8, 0, 1), kRows}, *backend,
              *self, /*seed=*/5) {}

  /// Of some steps from a zero state.
  double loss(int time_steps, const std::vector<std::int32_t>& lengths = {}) {
    const std::size_t characters = static_cast<std::size_t>(time_steps * kRows);
    const auto tokens = random_integers("tokens", characters, 0, kVocabulary - 1);
    const auto targets = random_integers("targets", characters, 0, kVocabulary - 1);
    CarriedState state(*backend, 2, 16, {Share(), Share::of(8, 0, 1), kRows});
    model.forward({time_steps, tokens, targets, lengths}, state, 0, std::nullopt);
    double loss = 0;
    model.losses(std::span(&loss, 1));
    return loss;
  }

  std::unique_ptr<Communicator> self = make_self_communicator();
  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  LanguageModel model;
};

// What a model keeps shows which way it goes: of the embedding's output and its gradient, and of W_x x.
std::size_t saved_for_a_step(int time_steps, double dropout = 0) {
  return (Model(2 * time_steps, dropout).model.saved_size() - Model(time_steps, dropout).model.saved_size()) /
         static_cast<std::size_t>(time_steps);
}

TEST(LanguageModelByToken, IsForVocabulariesOfHalfALaneGroupAndForEmbeddingsAsTheyAre) {
  const std::size_t by_step = saved_for_a_step(3);  // 9 and 18 characters

  EXPECT_LT(saved_for_a_step(8), by_step);  // 24 and 48
  EXPECT_GT(saved_for_a_step(8, /*dropout=*/0.1), by_step);
}

TEST(LanguageModelByToken, HasTheLossesOfOneByStep) {
  Model by_token(8), by_step(7);

  for (const int time_steps : {1, 7}) EXPECT_EQ(by_token.loss(time_steps), by_step.loss(time_steps));
  EXPECT_EQ(by_token.loss(3, {3, 0, 2}), by_step.loss(3, {3, 0, 2}));
}

TEST(LanguageModelByToken, SeesNewParameters) {
  Model by_token(8), by_step(7);
  for (Model* model : {&by_token, &by_step}) {
    const auto values = random_values("values", model->model.parameters().values().size(), -0.3, 0.3);
    model->backend->to_device(values, model->model.parameters().values());
    model->model.parameters_changed();
  }

  EXPECT_EQ(by_token.loss(3), by_step.loss(3));
  EXPECT_NE(by_token.loss(3), Model(8).loss(3));
}

TEST(LanguageModelByToken, RefusesTokensOutsideTheVocabulary) {
  Model by_token(8);
  CarriedState state(*by_token.backend, 2, 16, {Share(), Share::of(8, 0, 1), kRows});
  const std::vector<std::int32_t> targets(kRows, -1);

  for (const std::int32_t wrong : {-1, kVocabulary})
    EXPECT_THROW(by_token.model.forward({1, std::vector<std::int32_t>{0, wrong, 0}, targets, {}}, state, 0,
                                        std::nullopt),
                 InternalError);
}

}  // namespace
}  // namespace lamina::test
