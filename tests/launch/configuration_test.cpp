#include "launch/configuration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "launch/commands/train.h"
#include "launch/toml.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using Arguments = std::vector<std::string>;
using testing::AllOf;
using testing::HasSubstr;

/// The sentence of the UserError that `work` throws.
template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return "nothing was refused";
}

std::string refusal_of_toml(const std::string& toml) {
  return refusal([&] { from_toml(toml, "run.toml"); });
}

std::string refusal_of_arguments(const Arguments& arguments) {
  return refusal([&] { configuration_from_arguments(arguments); });
}

/// A configuration that is valid, changed by `change`.
template <class Change>
std::string refusal_of_values(const Change& change) {
  Configuration configuration;
  configuration.data.data = "text.txt";
  change(configuration);
  return refusal([&] { configuration.validate(); });
}

/// A file that is gone with this object.
class ConfigurationFile {
 public:
  explicit ConfigurationFile(const std::string& content)
      : path_(testing::TempDir() + "lamina_configuration.toml") {
    std::ofstream(path_) << content;
  }
  ~ConfigurationFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Toml, ALongTextIsRefusedAndManyKeysAreQuick) {
  std::string toml;
  for (int i = 0; toml.size() < kMaxTomlBytes - 100; ++i) toml += "k" + std::to_string(i) + "=1\n";
  EXPECT_GT(read_toml(toml, "run.toml").size(), 80'000u);
  EXPECT_THAT(refusal_of_toml(toml), HasSubstr("no setting 'k0'"));

  toml.resize(kMaxTomlBytes + 1, '#');
  EXPECT_THAT(refusal_of_toml(toml),
              AllOf(HasSubstr("run.toml"), HasSubstr("1048577"), HasSubstr("1048576")));
  EXPECT_THAT(refusal_of_toml(std::string(kMaxTomlBytes - 8, 'k') + " = 1"), HasSubstr("no setting"));
}

TEST(Toml, RoundTripKeepsEveryValue) {
  Configuration configuration;
  configuration.data.data = "a \"quoted\" \\ path\twith\nlines # and 'all' \x01 ümläut.txt";
  configuration.data.validation_fraction = 0.1 + 0.2;
  configuration.optimizer.learning_rate = 1.0 / 3.0;
  configuration.optimizer.epsilon = 4.9406564584124654e-324;
  configuration.optimizer.clip_norm = 1e300;
  configuration.optimizer.schedule = "cosine";
  configuration.run.steps = std::numeric_limits<std::int64_t>::max();
  configuration.run.batch = 7;
  configuration.checkpoint.resume = true;

  const std::string toml = to_toml(configuration);
  const Configuration read = from_toml(toml, "test");

  EXPECT_EQ(read.data.data, configuration.data.data);
  EXPECT_EQ(read.data.validation_fraction, configuration.data.validation_fraction);
  EXPECT_EQ(read.optimizer.learning_rate, configuration.optimizer.learning_rate);
  EXPECT_EQ(read.optimizer.epsilon, configuration.optimizer.epsilon);
  EXPECT_EQ(read.optimizer.clip_norm, configuration.optimizer.clip_norm);
  EXPECT_EQ(read.optimizer.schedule, "cosine");
  EXPECT_EQ(read.run.steps, configuration.run.steps);
  EXPECT_EQ(read.run.batch, 7);
  EXPECT_TRUE(read.checkpoint.resume);
  EXPECT_EQ(to_toml(read), toml);
}

TEST(Toml, WritesNumbersOfTheirType) {
  Configuration configuration;
  configuration.optimizer.clip_norm = 5;

  const std::string toml = to_toml(configuration);

  EXPECT_THAT(toml, HasSubstr("clip-norm = 5.0\n"));
  EXPECT_THAT(toml, HasSubstr("batch = 32\n"));
}

TEST(Toml, ReadsWhatAPersonWrites) {
  const Configuration read = from_toml(
      "# a comment\n"
      "\n"
      "  hidden=1_024   # units\r\n"
      "learning-rate = 1\n"
      "weight-decay = +1e-4\n"
      "data = 'C:\\text.txt'\n"
      "metrics = \"caf\\u00e9 \\U0001F600\"\n"
      "overwrite = true",
      "run.toml");

  EXPECT_EQ(read.model.hidden, 1024);
  EXPECT_EQ(read.optimizer.learning_rate, 1.0);
  EXPECT_EQ(read.optimizer.weight_decay, 1e-4);
  EXPECT_EQ(read.data.data, "C:\\text.txt");
  EXPECT_EQ(read.run.metrics, "café 😀");
  EXPECT_TRUE(read.checkpoint.overwrite);
}

TEST(Toml, RefusesUnknownKeysNamingTheNearest) {
  EXPECT_THAT(refusal_of_toml("batch = 4\nhiden = 8\n"),
              AllOf(HasSubstr("run.toml, line 2"), HasSubstr("'hiden'"), HasSubstr("'hidden'")));
}

TEST(Toml, RefusesAKeyThatIsSetTwice) {
  EXPECT_THAT(refusal_of_toml("batch = 4\nhidden = 8\nbatch = 4\n"),
              AllOf(HasSubstr("run.toml, line 3"), HasSubstr("'batch'"), HasSubstr("line 1")));
}

TEST(Toml, RefusesValuesOfAnotherType) {
  EXPECT_THAT(refusal_of_toml("batch = \"4\""), HasSubstr("batch must be a whole number, not \"4\""));
  EXPECT_THAT(refusal_of_toml("batch = 4.0"), HasSubstr("batch must be a whole number, not 4.0"));
  EXPECT_THAT(refusal_of_toml("batch = true"), HasSubstr("batch must be a whole number, not true"));
  EXPECT_THAT(refusal_of_toml("data = 5"), HasSubstr("data must be a string in quotes, not 5"));
  EXPECT_THAT(refusal_of_toml("resume = 1"), HasSubstr("resume must be true or false, not 1"));
  EXPECT_THAT(refusal_of_toml("dropout = 'no'"), HasSubstr("dropout must be a number, not \"no\""));
  EXPECT_THAT(refusal_of_toml("dropout = nan"), HasSubstr("dropout must be a finite number, not 'nan'"));
  EXPECT_THAT(refusal_of_toml("optimizer = 'adagrad'"), HasSubstr("one of sgd, adam, adamw, not 'adagrad'"));
}

TEST(Toml, RefusesMalformedLines) {
  const auto refused = [](const std::string& line, const std::string& reason) {
    EXPECT_THAT(refusal_of_toml("\n" + line), AllOf(HasSubstr("run.toml, line 2"), HasSubstr(reason)))
        << line;
  };
  refused("batch", "name = value");
  refused("batch 4", "name = value");
  refused("= 4", "name = value");
  refused("[run]", "name = value");
  refused("batch = ", "must be a string in quotes, a number");
  refused("batch = four", "must be a string in quotes, a number");
  refused("batch = [4]", "must be a string in quotes, a number");
  refused("batch = 4 5", "nothing may follow");
  refused("data = \"text", "closing quote");
  refused("data = 'text", "closing quote");
  refused("data = \"a\\b\\c\"", "a backslash is written twice");
  refused("data = \"\\ud800\"", "not a Unicode character");
  refused("data = \"\\u12\"", "not a Unicode character");
}

TEST(Arguments, AFlagWinsOverTheFileAndTheFileOverTheDefault) {
  const ConfigurationFile file("hidden = 64\nbatch = 16\nresume = true\noverwrite = true\n");

  const Configuration configuration =
      configuration_from_arguments({"--batch", "8", "--config", file.path(), "--no-resume"});

  EXPECT_EQ(configuration.run.batch, 8);                                    // flag
  EXPECT_EQ(configuration.model.hidden, 64);                                // file
  EXPECT_EQ(configuration.run.time_steps, Configuration().run.time_steps);  // default
  EXPECT_FALSE(configuration.checkpoint.resume);                            // flag
  EXPECT_TRUE(configuration.checkpoint.overwrite);                          // file
}

TEST(Arguments, EverySettingIsAFlag) {
  Configuration expected;
  expected.data = {"text", "--weird name.txt", 0.25};
  expected.model.normalization = "none";
  expected.optimizer.learning_rate = 1e-3;
  expected.grid.lane_groups = 4;
  expected.run.seed = 9;
  expected.checkpoint.keep = 0;
  expected.checkpoint.overwrite = true;

  const Configuration configuration = configuration_from_arguments(
      {"--data", "--weird name.txt", "--validation-fraction=0.25", "--normalization", "none",
       "--learning-rate", "1e-3", "--lane-groups", "4", "--seed", "9", "--keep", "0", "--overwrite"});

  EXPECT_EQ(to_toml(configuration), to_toml(expected));
}

TEST(Arguments, RefusesUnknownFlagsNamingTheNearest) {
  EXPECT_THAT(refusal_of_arguments({"--hiden", "64"}),
              AllOf(HasSubstr("lamina train has no flag '--hiden'"), HasSubstr("did you mean --hidden?"),
                    HasSubstr("lamina train --help")));
  EXPECT_THAT(refusal_of_arguments({"--zzzzzzzz=3"}), HasSubstr("no flag '--zzzzzzzz'; see"));
  EXPECT_THAT(refusal_of_arguments({"text.txt"}), HasSubstr("lamina train has no argument 'text.txt'"));
  EXPECT_THAT(refusal_of_arguments({"-x"}), HasSubstr("lamina train has no flag '-x'"));
}

TEST(Arguments, RefusesValuesThatAreNone) {
  EXPECT_THAT(refusal_of_arguments({"--batch", "12abc"}),
              HasSubstr("--batch must be a whole number, not '12abc'"));
  EXPECT_THAT(refusal_of_arguments({"--batch", "1.5"}),
              HasSubstr("--batch must be a whole number, not '1.5'"));
  EXPECT_THAT(refusal_of_arguments({"--batch", ""}), HasSubstr("--batch must be a whole number, not ''"));
  EXPECT_THAT(refusal_of_arguments({"--batch", "99999999999"}),
              HasSubstr("whole number from -2147483648 to"));
  EXPECT_THAT(refusal_of_arguments({"--dropout", "1e400"}),
              HasSubstr("double precision can hold, not '1e400'"));
  EXPECT_THAT(refusal_of_arguments({"--dropout", "nan"}),
              HasSubstr("--dropout must be a finite number, not 'nan'"));
  EXPECT_THAT(refusal_of_arguments({"--dropout", "-inf"}), HasSubstr("must be a finite number, not '-inf'"));
  EXPECT_THAT(refusal_of_arguments({"--dropout", "0.1x"}), HasSubstr("must be a finite number, not '0.1x'"));
  EXPECT_THAT(refusal_of_arguments({"--resume=maybe"}), HasSubstr("--resume"));
  EXPECT_THAT(refusal_of_arguments({"--optimizer", "adagrad"}),
              HasSubstr("one of sgd, adam, adamw, not 'adagrad'"));
  EXPECT_THAT(refusal_of_arguments({"--cell", "gru"}), HasSubstr("--cell must be 'lstm', not 'gru'"));
}

TEST(Arguments, RefusesMissingAndRepeatedValues) {
  EXPECT_THAT(refusal_of_arguments({"--batch"}), HasSubstr("--batch needs a value"));
  EXPECT_THAT(refusal_of_arguments({"--data", "--steps", "5"}),
              HasSubstr("--data needs a value, not the flag --steps"));
  EXPECT_THAT(refusal_of_arguments({"--steps", "5", "--steps", "6"}), HasSubstr("--steps is given 2 times"));
  EXPECT_THAT(refusal_of_arguments({"--resume", "--no-resume"}), HasSubstr("--resume is given 2 times"));
}

TEST(Arguments, RefusesAConfigurationFileThatIsMissing) {
  EXPECT_THAT(refusal_of_arguments({"--config", "/nowhere/run.toml"}),
              HasSubstr("/nowhere/run.toml does not exist; give the path of a TOML file for --config"));
}

TEST(Validation, AcceptsTheDefaultsWithData) {
  EXPECT_EQ(refusal_of_values([](Configuration&) {}), "nothing was refused");
}

TEST(Validation, RefusesValuesOutOfRange) {
  const auto refused = [](const char* flag, const auto& change) {
    EXPECT_THAT(refusal_of_values(change), AllOf(HasSubstr(flag), HasSubstr("must be"))) << flag;
  };
  refused("--batch must be at least 1, not 0", [](Configuration& c) { c.run.batch = 0; });
  refused("--time-steps must be at least 1, not -3", [](Configuration& c) { c.run.time_steps = -3; });
  refused("--steps", [](Configuration& c) { c.run.steps = -1; });
  refused("--seed", [](Configuration& c) { c.run.seed = -1; });
  refused("--threads", [](Configuration& c) { c.run.threads = -1; });
  refused("--log-every", [](Configuration& c) { c.run.log_every = 0; });
  refused("--validate-every", [](Configuration& c) { c.run.validate_every = -1; });
  refused("--layers", [](Configuration& c) { c.model.layers = 0; });
  refused("--hidden", [](Configuration& c) { c.model.hidden = 0; });
  refused("--embedding", [](Configuration& c) { c.model.embedding = -8; });
  refused("--hidden must be a multiple of --unit-blocks (8), not 12",
          [](Configuration& c) { c.model.hidden = 12; });
  refused("--dropout", [](Configuration& c) { c.model.dropout = 1; });
  refused("--dropout", [](Configuration& c) { c.model.dropout = -0.1; });
  refused("--validation-fraction", [](Configuration& c) { c.data.validation_fraction = 1; });
  refused("--model-parallel", [](Configuration& c) { c.grid.model_parallel = 0; });
  refused("--lane-groups", [](Configuration& c) { c.grid.lane_groups = -1; });
  refused("--unit-blocks", [](Configuration& c) { c.grid.unit_blocks = 0; });
  refused("--passes", [](Configuration& c) { c.grid.passes = 0; });
  refused("--checkpoint-every", [](Configuration& c) { c.checkpoint.checkpoint_every = -1; });
  refused("--keep", [](Configuration& c) { c.checkpoint.keep = -1; });
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.optimizer.learning_rate = 0; }),
              HasSubstr("--learning-rate 0"));
}

TEST(Validation, RefusesSettingsThatDoNotGoTogether) {
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.data.data = ""; }), HasSubstr("--data is missing"));
  EXPECT_THAT(refusal_of_values([](Configuration& c) {
                c.checkpoint = {.checkpoint = "folder", .resume = true, .overwrite = true};
              }),
              HasSubstr("--resume and --overwrite contradict each other"));
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.checkpoint.resume = true; }),
              HasSubstr("--resume needs --checkpoint"));
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.checkpoint.overwrite = true; }),
              HasSubstr("--overwrite needs --checkpoint"));
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.checkpoint.checkpoint_every = 5; }),
              HasSubstr("--checkpoint-every needs --checkpoint"));
  EXPECT_THAT(refusal_of_values([](Configuration& c) { c.run.metrics = c.data.data; }),
              HasSubstr("--metrics and --data are the same file"));
}

}  // namespace
}  // namespace lamina
