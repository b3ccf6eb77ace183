#include "tests/support/mpi_main.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "runtime/communicators/mpi.h"

namespace lamina {
namespace {

Communicator* current_world = nullptr;  // GoogleTest hands nothing to a test; one rank per process here

/// The texts of all ranks, on every rank. Collective.
std::vector<std::string> gather_texts(Communicator& ranks, const std::string& mine) {
  const auto count = static_cast<std::size_t>(ranks.size());
  const std::int64_t length = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> lengths(count);
  ranks.all_gather(std::span(&length, 1), std::span(lengths));
  const auto width = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
  std::string padded = mine, all(width * count, ' ');
  padded.resize(width, ' ');
  ranks.all_gather(std::span<const char>(padded), std::span<char>(all));
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < count; ++r)
    texts.push_back(all.substr(r * width, static_cast<std::size_t>(lengths[r])));
  return texts;
}

/// Makes a world for each test and lets the ranks vote at its end. The votes have a communicator of their
/// own, which a test cannot break.
class RankReporter : public ::testing::EmptyTestEventListener {
 public:
  RankReporter()
      : transport_(transport_from_environment()), votes_(make_mpi_world({.transport = Transport::mpi})) {}

  int worst(int code) {
    votes_->all_reduce(std::span(&code, 1), Reduction::max);
    return code;
  }
  bool is_root() const { return votes_->rank() == 0; }

 private:
  void OnTestStart(const ::testing::TestInfo&) override {
    world_ = make_mpi_world({.transport = transport_});
    current_world = world_.get();
  }

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() != nullptr ? result.file_name() : "somewhere";
    failures_ += fmt::format("{}:{}: {}\n", file, result.line_number(), result.message());
    if (result.fatally_failed() && world_) world_->abandon("a test failed: " + failures_);
  }

  void OnTestEnd(const ::testing::TestInfo& test) override {
    const auto failures = gather_texts(*votes_, failures_);
    for (std::size_t rank = 1; is_root() && rank < failures.size(); ++rank) {
      if (failures[rank].empty()) continue;
      fmt::print("[rank {}] {}.{} failed:\n{}", rank, test.test_suite_name(), test.name(), failures[rank]);
      std::fflush(stdout);
    }
    failures_.clear();
    current_world = nullptr;
    world_.reset();
  }

  Transport transport_;
  std::unique_ptr<Communicator> votes_, world_;
  std::string failures_;
};

int run_tests_on_all_ranks() {
  auto reporter = std::make_unique<RankReporter>();
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (!reporter->is_root()) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(reporter.get());
  const int own = RUN_ALL_TESTS() == 0 ? 0 : 1;
  listeners.Release(reporter.get());
  const int code = reporter->worst(own);
  if (code != own && reporter->is_root()) fmt::print("Some ranks had failures.\n");
  return code;
}

}  // namespace

int mpi_main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  try {
    const MpiSession session(&argc, &argv);
    return run_tests_on_all_ranks();
  } catch (const UserError& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "the ranks could not vote: {}\n", error.what());
    MpiSession::abort(1);
  }
}

Communicator& mpi_test_world() {
  check(current_world != nullptr, "mpi_test_world() is for tests in a program with mpi_main()");
  return *current_world;
}

bool agreed(Communicator& world, bool mine) {
  std::int32_t all = mine ? 1 : 0;
  world.all_reduce(std::span(&all, 1), Reduction::min);
  return all == 1;
}

}  // namespace lamina
