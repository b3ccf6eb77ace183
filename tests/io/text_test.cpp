#include "io/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <map>
#include <numeric>

#include "runtime/error.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// What `action` tells the user; empty when it does not throw UserError.
template <class Action>
std::string user_error(const Action& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::vector<std::int32_t> counting(int size) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(Utf8, EveryCodePointComesBack) {
  std::vector<char32_t> all;
  for (char32_t c = 0; c <= 0x10FFFF; ++c)
    if (c < 0xD800 || c > 0xDFFF) all.push_back(c);

  EXPECT_EQ(decode_utf8(encode_utf8(all), "text"), all);
}

TEST(Utf8, KnownEncodings) {
  EXPECT_EQ(encode_utf8(std::u32string(U"a\u00e9\u20ac\U0001F600")), "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(Utf8, InvalidSequencesAreRefusedWithTheirPlace) {
  const std::vector<std::string> invalid = {
      "\x80",              // continuation without a lead
      "\xBF",              //
      "\xC0\x80",          // overlong 2
      "\xC1\xBF",          //
      "\xE0\x9F\xBF",      // overlong 3
      "\xF0\x8F\xBF\xBF",  // overlong 4
      "\xED\xA0\x80",      // surrogates
      "\xED\xBF\xBF",      //
      "\xF4\x90\x80\x80",  // above U+10FFFF
      "\xF8\x88\x80\x80\x80",
      "\xF9\x90\x80\x80",
      "\xFE",
      "\xFF",
      "\xC3",          // cut off
      "\xE2\x82",      //
      "\xF0\x9F\x98",  //
      "\xC3x",         // lead without its continuation
      "\xE2\x82x",     //
  };
  for (const std::string& sequence : invalid)
    EXPECT_THAT(user_error([&] { decode_utf8("a\xC3\xA9" + sequence, "notes.txt"); }),
                AllOf(HasSubstr("notes.txt"), HasSubstr("byte 3 ")))
        << testing::PrintToString(sequence);
}

TEST(ReadText, ReadsAFile) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a.txt") << "na\xC3\xAFve\n";

  EXPECT_EQ(read_text(folder / "a.txt"), (std::vector<char32_t>{'n', 'a', 0xEF, 'v', 'e', '\n'}));
}

TEST(ReadText, RefusesWhatIsNoText) {
  const TemporaryFolder folder;
  std::ofstream(folder / "empty.txt").flush();
  std::ofstream(folder / "latin1.txt") << "na\xEFve";
  std::filesystem::resize_file(folder / "empty.txt", 0);
  std::ofstream(folder / "huge.txt").flush();
  std::filesystem::resize_file(folder / "huge.txt", std::uintmax_t{5} << 30);
  const auto message = [&](const std::string& name) { return user_error([&] { read_text(folder / name); }); };

  EXPECT_THAT(message("none.txt"), AllOf(HasSubstr("none.txt"), HasSubstr("does not exist")));
  EXPECT_THAT(message("empty.txt/x"), HasSubstr("empty.txt/x"));
  EXPECT_THAT(message("."), HasSubstr("is a directory"));
  EXPECT_THAT(message("empty.txt"), HasSubstr("is empty"));
  EXPECT_THAT(message("latin1.txt"), HasSubstr("byte 2 "));
  EXPECT_THAT(message("huge.txt"), HasSubstr("at most"));
  EXPECT_THAT(user_error([] { read_text("/dev/zero"); }), HasSubstr("not a regular file"));
}

TEST(ReadBytes, RefusesWhatIsNoFileOrTooLarge) {
  const TemporaryFolder folder;
  std::ofstream(folder / "a.toml") << "123456789";
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const auto message = [&](const std::filesystem::path& file, std::uintmax_t limit) {
    return user_error([&] { read_bytes(file, limit, "a TOML file"); });
  };

  EXPECT_EQ(read_bytes(folder / "a.toml", 9, "a TOML file"), "123456789");
  EXPECT_THAT(message(folder / "a.toml", 8), AllOf(HasSubstr("9 bytes"), HasSubstr("at most 8")));
  EXPECT_THAT(message(folder / "none", 8), AllOf(HasSubstr("does not exist"), HasSubstr("a TOML file")));
  EXPECT_THAT(message(folder.path(), 8), HasSubstr("is a directory"));
  EXPECT_THAT(message(folder / "pipe", 8), HasSubstr("not a regular file"));
  EXPECT_THAT(message("/dev/zero", 8), HasSubstr("not a regular file"));
}

TEST(ReadBytes, RefusesAFileOfMoreBytesThanItsSize) {
  EXPECT_THAT(user_error([] { read_bytes("/proc/self/status", 1 << 20, "a file"); }),
              HasSubstr("changed while"));
}

TEST(Vocabulary, IsTheDifferentCharactersInOrder) {
  const auto vocabulary = Vocabulary::of(std::u32string(U"hello\u20ac"));

  EXPECT_THAT(vocabulary.characters(), ElementsAre(U'e', U'h', U'l', U'o', U'\u20ac'));
  EXPECT_THAT(vocabulary.encode(std::u32string(U"hole\u20ac"), "text"), ElementsAre(1, 3, 2, 0, 4));
  EXPECT_EQ(vocabulary.character(4), U'\u20ac');
  EXPECT_EQ(vocabulary.size(), 5);
}

TEST(Vocabulary, NamesAnUnknownCharacterAndItsPosition) {
  const Vocabulary vocabulary({'a', 'c'});
  const auto message = [&](const std::u32string& text) {
    return user_error([&] { vocabulary.encode(text, "the prompt"); });
  };

  EXPECT_THAT(message(U"aab"), AllOf(HasSubstr("'b' (U+0062)"), HasSubstr("position 2 of the prompt")));
  EXPECT_THAT(message(U"\u20ac"), AllOf(HasSubstr("'\xE2\x82\xAC' (U+20AC)"), HasSubstr("position 0")));
  EXPECT_THAT(message(U"a\n"), AllOf(HasSubstr("U+000A"), HasSubstr("position 1")));
}

TEST(Vocabulary, RefusesCharactersOutOfOrder) {
  EXPECT_THROW(Vocabulary({'b', 'a'}), UserError);
  EXPECT_THROW(Vocabulary({'a', 'a'}), UserError);
  EXPECT_THROW(Vocabulary({'a', 0xD800}), UserError);
  EXPECT_THROW(Vocabulary({'a', 0x110000}), UserError);
}

TEST(SplitText, CutsTheEndOff) {
  const std::u32string text(119, U'x');

  const TextSplit split = split_text(text, 0.05);

  EXPECT_EQ(split.validation.size(), 5u);  // floor(5.95)
  EXPECT_EQ(split.training.size(), 114u);
  EXPECT_EQ(split.training.data(), text.data());
  EXPECT_EQ(split.validation.data(), text.data() + 114);
  EXPECT_TRUE(split_text(text, 0).validation.empty());
  EXPECT_THROW(split_text(text, 1), UserError);
  EXPECT_THROW(split_text(text, -0.1), UserError);
  EXPECT_THROW(split_text(text, std::nan("")), UserError);
}

/// A chunk of the whole run, collected from the ranks of a data axis: [batch][T].
struct WholeChunk {
  std::vector<std::vector<std::int32_t>> tokens, targets;
  std::vector<std::int32_t> lengths;
};

template <class Lanes>
WholeChunk collect(const Lanes& lanes, std::int64_t step, int batch, int groups, int ranks) {
  WholeChunk whole;
  for (int rank = 0; rank < ranks; ++rank) {
    Tiling tiling;
    tiling.groups = Share::of(groups, rank, ranks);
    tiling.rows = batch / groups;
    LaneBatch part;
    lanes.fetch(step, tiling, part);
    const int T = part.time_steps;
    EXPECT_EQ(part.tokens.size(), static_cast<std::size_t>(tiling.local_lanes() * T));
    for (int g = 0; g < tiling.groups.local; ++g)
      for (int r = 0; r < tiling.rows; ++r) {
        auto& tokens = whole.tokens.emplace_back();
        auto& targets = whole.targets.emplace_back();
        for (int t = 0; t < T; ++t) {
          const auto i = static_cast<std::size_t>((g * T + t) * tiling.rows + r);
          tokens.push_back(part.tokens[i]);
          targets.push_back(part.targets[i]);
        }
      }
    whole.lengths.insert(whole.lengths.end(), part.lengths.begin(), part.lengths.end());
  }
  return whole;
}

TEST(TrainingLanes, FeedsTheDocumentedTokensOnEveryGrid) {
  constexpr int kBatch = 8, kT = 3, kN = 8 * 11 + 5, kLane = 11, kChunks = 3;
  const TrainingLanes lanes(counting(kN), kBatch, kT);
  ASSERT_EQ(lanes.chunks_per_epoch(), kChunks);

  for (const int groups : {1, 2, 8})
    for (int ranks = 1; ranks <= groups; ranks *= 2)
      for (int step = 0; step < 2 * kChunks; ++step) {
        const WholeChunk whole = collect(lanes, step, kBatch, groups, ranks);
        for (int b = 0; b < kBatch; ++b)
          for (int t = 0; t < kT; ++t) {
            const int expected = b * kLane + step % kChunks * kT + t;
            EXPECT_EQ(whole.tokens[static_cast<std::size_t>(b)][static_cast<std::size_t>(t)], expected);
            EXPECT_EQ(whole.targets[static_cast<std::size_t>(b)][static_cast<std::size_t>(t)], expected + 1);
          }
        EXPECT_TRUE(whole.lengths.empty());
      }
}

TEST(TrainingLanes, CountsPredictionsOfTheWholeRunAndBeginsAgain) {
  const TrainingLanes lanes(counting(44), 4, 5);
  Tiling second_half;
  second_half.groups = Share::of(2, 1, 2);
  second_half.rows = 2;
  LaneBatch batch;

  std::vector<bool> first;
  for (int step = 0; step < 5; ++step) {
    lanes.fetch(step, second_half, batch);
    EXPECT_EQ(batch.predictions, 20);
    first.push_back(batch.first);
  }

  EXPECT_THAT(first, ElementsAre(true, false, true, false, true));
}

TEST(TrainingLanes, NeverPredictsBeyondItsLane) {
  for (int size = 2; size < 60; ++size)
    for (const int T : {1, 2, 7}) {
      if (size < 2 * (T + 1)) {
        EXPECT_THAT(user_error([&] { TrainingLanes(counting(size), 2, T); }),
                    AllOf(HasSubstr(std::to_string(size) + " characters"),
                          HasSubstr("at least " + std::to_string(2 * (T + 1)))));
        continue;
      }
      const TrainingLanes lanes(counting(size), 2, T);
      const int lane = size / 2;
      const WholeChunk last = collect(lanes, lanes.chunks_per_epoch() - 1, 2, 1, 1);
      EXPECT_LT(last.targets[0].back(), lane);
      EXPECT_GE(last.targets[0].back() + T, lane);  // no whole chunk is left over
    }
}

TEST(EvaluationLanes, PredictsEveryTokenButTheFirstOnce) {
  for (int size = 2; size < 45; ++size)
    for (const int groups : {1, 2, 4})
      for (const int rows : {1, 3})
        for (const int T : {1, 4, 50}) {
          const int batch = groups * rows;
          const EvaluationLanes lanes(counting(size), batch, T);
          std::map<int, int> predicted;
          std::int64_t predictions = 0;
          for (std::int64_t chunk = 0; chunk < lanes.chunks(); ++chunk) {
            const WholeChunk whole = collect(lanes, chunk, batch, groups, groups);
            LaneBatch part;
            lanes.fetch(chunk, Tiling{Share::of(groups, 0, groups), {}, rows}, part);
            EXPECT_EQ(part.first, chunk == 0);
            EXPECT_GT(part.predictions, 0);
            predictions += part.predictions;
            for (std::size_t b = 0; b < whole.tokens.size(); ++b)
              for (std::size_t t = 0; t < whole.tokens[b].size(); ++t) {
                const bool valid = static_cast<int>(t) < whole.lengths[b];
                EXPECT_EQ(whole.targets[b][t], valid ? whole.tokens[b][t] + 1 : -1);
                if (valid) ++predicted[whole.targets[b][t]];
              }
          }
          EXPECT_EQ(predictions, lanes.predictions());
          EXPECT_EQ(predicted.size(), static_cast<std::size_t>(size - 1));
          for (const auto& [token, times] : predicted) EXPECT_EQ(times, 1) << token;
        }
}

TEST(EvaluationLanes, ALaneFeedsItsTokensInOrder) {
  const EvaluationLanes lanes(counting(23), 4, 2);  // lanes from 0, 5, 10, 15

  const WholeChunk last = collect(lanes, 3, 4, 2, 2);

  EXPECT_THAT(last.lengths, ElementsAre(0, 0, 0, 1));
  EXPECT_EQ(last.tokens[3][0], 21);
  EXPECT_EQ(collect(lanes, 0, 4, 2, 1).tokens[2], (std::vector<std::int32_t>{10, 11}));
}

TEST(EvaluationLanes, NeedsTwoTokens) {
  EXPECT_THAT(user_error([] { EvaluationLanes(counting(1), 1, 4); }), HasSubstr("at least 2"));
}

}  // namespace
}  // namespace lamina
