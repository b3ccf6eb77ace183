#include "tests/support/communicator_conformance.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <chrono>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "runtime/tree.h"

namespace lamina {
namespace {

using std::chrono::steady_clock;
using ::testing::HasSubstr;

template <class T>
std::span<const T> constant(const std::vector<T>& values) {
  return values;
}

// Inputs whose results are known exactly.

/// Element `i` of rank `rank`'s input: a small integer, different between neighbours.
template <class T>
T element(int rank, std::size_t i) {
  return static_cast<T>((static_cast<std::size_t>(rank) * 7 + i * 3 + i / 10) % 13);
}

template <class T>
std::vector<T> input(int rank, std::size_t count) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = element<T>(rank, i);
  return values;
}

template <class T, class Combine>
std::vector<T> expected_reduction(int ranks, std::size_t count, const Combine& combine) {
  std::vector<T> values = input<T>(0, count);
  for (int r = 1; r < ranks; ++r) {
    for (std::size_t i = 0; i < count; ++i) values[i] = combine(values[i], element<T>(r, i));
  }
  return values;
}

template <class T>
T add(T a, T b) {
  return static_cast<T>(a + b);
}

// Each operation.

template <class T>
void expect_broadcast(Communicator& world, std::size_t count) {
  for (const int root : {0, world.size() - 1}) {
    std::vector<T> values = input<T>(world.rank(), count);

    world.broadcast(std::span(values), root);

    EXPECT_EQ(input<T>(root, count), values) << count << " from " << root;
  }
}

template <class T>
void expect_all_gather(Communicator& world, std::size_t count) {
  std::vector<T> expected, out(count * static_cast<std::size_t>(world.size()));
  for (int r = 0; r < world.size(); ++r) {
    const std::vector<T> part = input<T>(r, count);
    expected.insert(expected.end(), part.begin(), part.end());
  }

  const std::vector<T> mine = input<T>(world.rank(), count);
  world.all_gather(constant(mine), std::span(out));
  EXPECT_EQ(expected, out) << count;

  const std::span<T> own = std::span(out).subspan(count * static_cast<std::size_t>(world.rank()), count);
  std::fill(out.begin(), out.end(), T{99});
  std::copy(mine.begin(), mine.end(), own.begin());
  world.all_gather(std::span<const T>(own), std::span(out));
  EXPECT_EQ(expected, out) << count << " in place";
}

/// The parts of all ranks as they come in pieces; each rank's must come from front to back.
template <class T>
void expect_all_gather_pieces(Communicator& world, std::size_t count) {
  const std::vector<T> mine = input<T>(world.rank(), count);
  std::vector<std::vector<T>> parts(static_cast<std::size_t>(world.size()));
  int empty = 0, out_of_order = 0;

  world.all_gather_pieces(constant(mine), [&](int rank, std::size_t first, std::span<const T> values) {
    std::vector<T>& part = parts.at(static_cast<std::size_t>(rank));
    empty += values.empty();
    out_of_order += first != part.size();
    part.insert(part.end(), values.begin(), values.end());
  });

  for (int r = 0; r < world.size(); ++r)
    EXPECT_EQ(input<T>(r, count), parts[static_cast<std::size_t>(r)]) << count << " of rank " << r;
  EXPECT_EQ(0, empty) << count;
  EXPECT_EQ(0, out_of_order) << count;
}

template <class T>
void expect_all_to_all(Communicator& world, std::size_t count) {
  const std::size_t ranks = static_cast<std::size_t>(world.size()),
                    own = static_cast<std::size_t>(world.rank());
  const std::vector<T> in = input<T>(world.rank(), count * ranks);
  std::vector<T> expected(in.size()), out(in.size());
  for (std::size_t r = 0; r < ranks; ++r) {
    for (std::size_t i = 0; i < count; ++i)
      expected[r * count + i] = element<T>(static_cast<int>(r), own * count + i);
  }

  world.all_to_all(constant(in), std::span(out));

  EXPECT_EQ(expected, out) << count;
}

template <class T>
void expect_all_reduce(Communicator& world, std::size_t count, Reduction reduction) {
  std::vector<T> values = input<T>(world.rank(), count);
  const auto combine = [&](T a, T b) {
    if (reduction == Reduction::sum) return add(a, b);
    return reduction == Reduction::max ? std::max(a, b) : std::min(a, b);
  };

  world.all_reduce(std::span(values), reduction);

  EXPECT_EQ(expected_reduction<T>(world.size(), count, combine), values)
      << count << ", reduction " << static_cast<int>(reduction);
}

template <class T>
void expect_reduce_scatter(Communicator& world, std::size_t count) {
  const std::size_t ranks = static_cast<std::size_t>(world.size()),
                    own = static_cast<std::size_t>(world.rank());
  const std::vector<T> in = input<T>(world.rank(), count * ranks);
  std::vector<T> out(count);
  const std::vector<T> total = expected_reduction<T>(world.size(), count * ranks, add<T>);

  world.reduce_scatter(constant(in), std::span(out));

  const auto first = total.begin() + static_cast<std::ptrdiff_t>(own * count);
  EXPECT_EQ(std::vector<T>(first, first + static_cast<std::ptrdiff_t>(count)), out) << count;
}

template <class T>
void expect_all_operations(Communicator& world, std::size_t count) {
  expect_broadcast<T>(world, count);
  expect_all_gather<T>(world, count);
  expect_all_gather_pieces<T>(world, count);
  expect_all_to_all<T>(world, count);
  expect_all_reduce<T>(world, count, Reduction::max);
  expect_all_reduce<T>(world, count, Reduction::min);
  if constexpr (sizeof(T) > 1) {
    expect_all_reduce<T>(world, count, Reduction::sum);
    expect_reduce_scatter<T>(world, count);
  }
}

template <class T>
void check_operations(Communicator& world) {
  for (const std::size_t count : {0u, 1u, 2u, 11u, 100u, 10'000u}) expect_all_operations<T>(world, count);
}

void check_arrays_larger_than_a_slot(Communicator& world) {
  expect_all_operations<float>(world, 70'001);
  expect_all_operations<std::uint8_t>(world, 270'001);
}

void check_signed_and_extreme_values(Communicator& world) {
  std::vector<std::int64_t> wide{-(1LL << 40) - world.rank(), (1LL << 40) + world.rank()};
  std::vector<float> narrow{-1.5f - static_cast<float>(world.rank()), 3e38f};
  const std::int64_t last = world.size() - 1;

  world.all_reduce(std::span(wide), Reduction::min);
  world.all_reduce(std::span(narrow), Reduction::max);

  EXPECT_EQ((std::vector<std::int64_t>{-(1LL << 40) - last, 1LL << 40}), wide);
  EXPECT_EQ((std::vector<float>{-1.5f, 3e38f}), narrow);
}

// Sums in the fixed tree, bit for bit.

template <class T>
std::vector<T> inexact(int rank, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(rank) + 1);
  std::vector<T> values(count);
  for (T& value : values) {
    const T mantissa = static_cast<T>(random()) / T{4294967296.0} - T{0.5};
    value = std::ldexp(mantissa, static_cast<int>(random() % 24));
  }
  return values;
}

template <class T>
std::vector<T> tree_sums(int ranks, std::size_t count) {
  std::vector<std::vector<T>> inputs;
  for (int r = 0; r < ranks; ++r) inputs.push_back(inexact<T>(r, count));
  std::vector<T> sums(count);
  for (std::size_t i = 0; i < count; ++i)
    sums[i] = tree_sum(inputs.size(), [&](std::size_t r) { return inputs[r][i]; });
  return sums;
}

template <class T>
void check_sums_follow_the_tree(Communicator& world) {
  const std::size_t ranks = static_cast<std::size_t>(world.size()),
                    own = static_cast<std::size_t>(world.rank());
  for (const std::size_t count : {std::size_t{1}, std::size_t{37}, std::size_t{3000}, std::size_t{20'001}}) {
    std::vector<T> whole = inexact<T>(world.rank(), count * ranks), part(count);
    const std::vector<T> sums = tree_sums<T>(world.size(), whole.size());
    const auto first = sums.begin() + static_cast<std::ptrdiff_t>(own * count);

    world.reduce_scatter(constant(whole), std::span(part));
    world.all_reduce(std::span(whole));

    EXPECT_EQ(sums, whole) << count;  // no zeros or NaN among them: equal means equal bits
    EXPECT_EQ(std::vector<T>(first, first + static_cast<std::ptrdiff_t>(count)), part) << count;
  }
}

// Sums in the background.

void check_background_sums_follow_the_tree(Communicator& world) {
  const auto sums = world.make_background_sums();
  const std::vector<std::size_t> counts{3000, 1, 0, 20'001, 37};
  for (int round = 0; round < 3; ++round) {
    std::vector<std::vector<float>> arrays;
    for (const std::size_t count : counts) arrays.push_back(inexact<float>(world.rank(), count));

    for (auto& array : arrays) {
      sums->add(array);
      for (int i = 0; i < round * world.rank(); ++i) sums->advance();  // ranks are not equally far
    }
    sums->finish();

    for (std::size_t i = 0; i < counts.size(); ++i)
      EXPECT_EQ(tree_sums<float>(world.size(), counts[i]), arrays[i]) << counts[i];
  }
  sums->finish();  // of nothing
}

void check_background_sums_leave_the_group_free(Communicator& world) {
  const auto sums = world.make_background_sums(), others = world.make_background_sums();
  std::vector<float> mine = inexact<float>(world.rank(), 3000), theirs = mine;

  sums->add(mine);
  expect_all_reduce<float>(world, 100, Reduction::sum);
  others->add(theirs);
  sums->advance();
  expect_all_gather<std::int32_t>(world, 11);
  others->finish();
  sums->finish();

  EXPECT_EQ(tree_sums<float>(world.size(), mine.size()), mine);
  EXPECT_EQ(mine, theirs);
}

// A rank that only asks must get through as well as one that waits.
void check_background_sums_end_by_advancing(Communicator& world) {
  const auto sums = world.make_background_sums();
  std::vector<float> values = inexact<float>(world.rank(), 3000);

  sums->add(values);
  if (world.rank() % 2 == 0) {
    const auto until = steady_clock::now() + std::chrono::milliseconds(50);
    while (steady_clock::now() < until) sums->advance();
  }
  sums->finish();

  EXPECT_EQ(tree_sums<float>(world.size(), values.size()), values);
}

void check_background_sums_are_counted(Communicator& world) {
  const auto sums = world.make_background_sums();
  const std::int64_t calls = world.time_spent().calls;
  std::vector<float> values(100);

  sums->add(values);
  sums->finish();

  EXPECT_EQ(world.size() > 1, world.time_spent().calls > calls);
}

// The rest of the front.

void check_barrier_waits_for_all(Communicator& world) {
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const std::int64_t arrival = steady_clock::now().time_since_epoch().count();  // one clock for the machine

  world.barrier();

  const std::int64_t departure = steady_clock::now().time_since_epoch().count();
  std::vector<std::int64_t> arrivals(static_cast<std::size_t>(world.size()));
  world.all_gather(std::span(&arrival, 1), std::span(arrivals));
  EXPECT_LE(*std::max_element(arrivals.begin(), arrivals.end()), departure);
}

void check_text_reaches_all(Communicator& world) {
  for (const std::size_t length : {0u, 1u, 5u, 100'000u}) {
    const int root = world.size() - 1;
    std::string text = world.rank() == root ? std::string(length, 'x') : "something else";

    world.broadcast(text, root);

    EXPECT_EQ(std::string(length, 'x'), text);
  }
}

void check_time_is_counted_by_communicator(Communicator& world) {
  const auto part = world.split(0, world.rank());
  const std::int64_t calls = world.time_spent().calls;
  const bool is_alone = world.size() == 1;

  part->barrier();
  part->barrier();

  EXPECT_EQ(is_alone ? 0 : 2, part->time_spent().calls);
  EXPECT_EQ(is_alone, part->time_spent().seconds == 0);
  EXPECT_EQ(calls, world.time_spent().calls);
}

// Groups.

std::int64_t sum_of_ranks(Communicator& world, Communicator& group) {
  std::int64_t sum = world.rank();
  group.all_reduce(std::span(&sum, 1));
  return sum;
}

void check_rows_and_columns(Communicator& world) {
  constexpr int kWidth = 2;
  const int row = world.rank() / kWidth, column = world.rank() % kWidth;
  std::int64_t row_sum = 0, column_sum = 0;
  for (int r = 0; r < world.size(); ++r) {
    if (r / kWidth == row) row_sum += r;
    if (r % kWidth == column) column_sum += r;
  }

  const auto rows = world.split(row, column), columns = world.split(column, row);

  EXPECT_EQ(column, rows->rank());
  EXPECT_EQ(row, columns->rank());
  for (int repeat = 0; repeat < 20; ++repeat) {
    EXPECT_EQ(row_sum, sum_of_ranks(world, *rows));
    EXPECT_EQ(column_sum, sum_of_ranks(world, *columns));
    EXPECT_EQ(world.size() * (world.size() - 1) / 2, sum_of_ranks(world, world));
  }
}

void check_split_orders_by_key(Communicator& world) {
  const auto reversed = world.split(0, -world.rank());
  EXPECT_EQ(world.size(), reversed->size());
  EXPECT_EQ(world.size() - 1 - world.rank(), reversed->rank());

  const auto unordered = reversed->split(7, 0);
  EXPECT_EQ(reversed->rank(), unordered->rank());

  const auto alone = unordered->split(world.rank(), 0);
  EXPECT_EQ(1, alone->size());
  EXPECT_EQ(world.rank(), sum_of_ranks(world, *alone));
}

// Ranks that disagree, fail, or go.

/// What the PeerError of `action` says; empty when there was none.
template <class Action>
std::string peer_error_of(const Action& action) {
  try {
    action();
  } catch (const PeerError& error) {
    return error.what();
  }
  return "";
}

using Action = std::function<void(Communicator&)>;

void expect_mismatch(Communicator& world, const Action& most, const std::string& said_of_most,
                     const Action& last, const std::string& said_of_last) {
  if (world.size() == 1) return;
  const int last_rank = world.size() - 1;

  const std::string error = peer_error_of([&] { (world.rank() == last_rank ? last : most)(world); });

  EXPECT_THAT(error, HasSubstr("rank 0 " + said_of_most));
  EXPECT_THAT(error, HasSubstr(fmt::format("rank {} {}", last_rank, said_of_last)));
  EXPECT_EQ(error, peer_error_of([&] { world.barrier(); })) << "a broken group stays broken";
}

template <class T, std::size_t N>
void reduce(Communicator& world) {
  std::vector<T> values(N);
  world.all_reduce(std::span(values));
}

template <int Root>
void broadcast_from(Communicator& world) {
  std::vector<float> values(3);
  world.broadcast(std::span(values), Root);
}

void gather_four(Communicator& world) {
  const std::vector<float> part(4);
  std::vector<float> out(4 * static_cast<std::size_t>(world.size()));
  world.all_gather(constant(part), std::span(out));
}

void find_maximum(Communicator& world) {
  std::vector<float> values(8);
  world.all_reduce(std::span(values), Reduction::max);
}

void check_pieces_of_another_count(Communicator& world) {
  const auto gather = [](std::size_t count) {
    return [count](Communicator& group) {
      const std::vector<float> part(count);
      group.all_gather_pieces(constant(part), [&](int rank, std::size_t, std::span<const float>) {
        EXPECT_EQ(group.rank() == group.size() - 1, rank == group.size() - 1) << "took from another call";
      });
    };
  };
  expect_mismatch(world, gather(8), "called all_gather of 8 float32", gather(100'000),
                  "called all_gather of 100000 float32");
}

void check_other_operation(Communicator& world) {
  expect_mismatch(world, reduce<float, 8>, "called all_reduce (sum) of 8 float32", gather_four,
                  "called all_gather of 4 float32");
}
void check_other_count(Communicator& world) {
  expect_mismatch(world, reduce<float, 8>, "called all_reduce (sum) of 8 float32", reduce<float, 100'000>,
                  "called all_reduce (sum) of 100000 float32");
}
void check_other_type(Communicator& world) {
  expect_mismatch(world, reduce<float, 8>, "called all_reduce (sum) of 8 float32", reduce<std::int32_t, 8>,
                  "called all_reduce (sum) of 8 int32");
}
void check_other_reduction(Communicator& world) {
  expect_mismatch(world, reduce<float, 8>, "called all_reduce (sum) of 8 float32", find_maximum,
                  "called all_reduce (max) of 8 float32");
}
void check_other_root(Communicator& world) {
  expect_mismatch(world, broadcast_from<0>, "called broadcast of 3 float32 from rank 0", broadcast_from<1>,
                  "called broadcast of 3 float32 from rank 1");
}
void check_background_sums_of_another_count(Communicator& world) {
  const auto sum = [](std::size_t count) {
    return [count](Communicator& group) {
      std::vector<float> values(count);
      const auto sums = group.make_background_sums();
      sums->add(values);
      sums->finish();
    };
  };
  expect_mismatch(world, sum(8), "called all_reduce (sum) of 8 float32", sum(9),
                  "called all_reduce (sum) of 9 float32");
}

void check_failed_rank_frees_background_sums(Communicator& world) {
  if (world.size() == 1) return;
  const int last = world.size() - 1;
  const auto sums = world.make_background_sums();
  std::vector<float> values(3000);

  const std::string error = peer_error_of([&] {
    if (world.rank() == last) world.abandon("the disk is full");
    sums->add(values);
    sums->finish();
    world.barrier();
  });

  EXPECT_EQ(fmt::format("rank {} failed: the disk is full", last), error);
}

void check_split_against_barrier(Communicator& world) {
  expect_mismatch(
      world, [](Communicator& c) { c.barrier(); }, "called barrier", [](Communicator& c) { c.split(0, 0); },
      "called split");
}

// A rank that failed alone is at the end; the others share whether they could open a file.
void check_end_against_gather(Communicator& world) {
  expect_mismatch(
      world, gather_four, "called all_gather of 4 float32", [](Communicator& c) { c.conclude(); },
      "came to the job's end");
}

void check_end_against_barrier(Communicator& world) {
  expect_mismatch(
      world, [](Communicator& c) { c.barrier(); }, "called barrier", [](Communicator& c) { c.conclude(); },
      "came to the job's end");
}

void check_groups_name_ranks_of_the_world(Communicator& world) {
  if (world.size() < 4) return;
  const auto group = world.split(world.rank() % 2, 0);
  const bool is_odd_one = world.rank() == 3;

  const std::string error = peer_error_of([&] {
    if (world.rank() % 2 == 1) is_odd_one ? gather_four(*group) : group->barrier();
    world.barrier();
  });

  EXPECT_THAT(error, HasSubstr("rank 1 called barrier, rank 3 called all_gather of 4 float32"));
}

void check_failed_rank_frees_the_others(Communicator& world) {
  if (world.size() == 1) return;
  const int last = world.size() - 1;
  if (world.rank() == last) world.abandon("the disk is full");

  const std::string error = peer_error_of([&] { sum_of_ranks(world, world); });

  EXPECT_EQ(fmt::format("rank {} failed: the disk is full", last), error);
}

void check_failure_in_the_world_reaches_groups(Communicator& world) {
  if (world.size() == 1) return;
  const auto group = world.split(0, -world.rank());

  if (world.rank() == 0) world.abandon("out of memory");
  const std::string error = peer_error_of([&] { group->barrier(); });

  EXPECT_EQ("rank 0 failed: out of memory", error);
}

void check_failure_in_a_group_reaches_the_world(Communicator& world) {
  if (world.size() == 1) return;
  const auto alone = world.split(world.rank(), 0);

  if (world.rank() == 1) alone->abandon("out of memory");
  const std::string error = peer_error_of([&] { world.barrier(); });

  EXPECT_EQ("rank 1 failed: out of memory", error);
}

void check_failure_is_seen_without_a_collective(Communicator& world) {
  if (world.size() == 1) return;
  const auto group = world.split(0, world.rank());
  group->require_peers();

  const std::string error = peer_error_of([&] {
    group->barrier();  // which some may not have left yet when it happens
    if (world.rank() == 0) world.abandon("out of memory");
    for (;; std::this_thread::yield()) group->require_peers();
  });

  EXPECT_EQ("rank 0 failed: out of memory", error);
}

void check_groups_have_names(Communicator& world) {
  const auto group = world.split(0, world.rank(), "model axis");

  EXPECT_EQ("world", world.name());
  EXPECT_EQ("model axis", group->name());
}

void check_who_leaves_early_is_named(Communicator& world) {
  if (world.size() == 1) return;
  auto group = world.split(0, world.rank());

  std::string error;
  if (world.rank() == 1)
    group.reset();
  else
    error = peer_error_of([&] { group->barrier(); });

  if (world.rank() != 1) {
    EXPECT_THAT(error, HasSubstr("called barrier"));
    EXPECT_THAT(error, HasSubstr("rank 1 left the group"));
  }
}

// Slots that are used again and again.

void run_mixed_collectives(Communicator& world, int count, const std::function<void()>& before_each) {
  const auto rows = world.split(world.rank() / 2, 0);
  for (int k = 0; k < count && !::testing::Test::HasFailure(); ++k) {
    before_each();
    const std::size_t size = static_cast<std::size_t>(k * 37 % 301);
    switch (k % 7) {
      case 0:
        expect_all_gather<float>(world, size);
        expect_all_gather_pieces<float>(world, size);
        break;
      case 1:
        expect_all_reduce<double>(world, size, Reduction::sum);
        break;
      case 2:
        world.barrier();
        break;
      case 3:
        expect_all_to_all<std::int32_t>(world, size);
        break;
      case 4:
        expect_all_reduce<std::int64_t>(*rows, 1, Reduction::max);
        break;
      case 5:
        expect_broadcast<std::uint8_t>(world, size);
        break;
      default:
        expect_reduce_scatter<float>(world, size);
    }
  }
}

// Ranks that come late are waited for on the core, with the core lent to others, and asleep.
void check_every_lateness(Communicator& world) {
  constexpr std::array kMicroseconds{0, 1, 3, 10, 30, 100, 300, 1000, 3000};
  for (std::size_t i = 0; i < kMicroseconds.size() * 8; ++i) {
    const std::chrono::microseconds late(kMicroseconds[i % kMicroseconds.size()]);
    if (static_cast<int>(i) % world.size() == world.rank()) {
      const auto until = steady_clock::now() + late;
      while (steady_clock::now() < until) {
      }
    }
    expect_all_reduce<float>(world, 16, Reduction::sum);
  }
}

void check_2000_in_a_row(Communicator& world) {
  run_mixed_collectives(world, 2000, [] {});
}

void check_random_delays(Communicator& world) {
  std::mt19937 random(static_cast<unsigned>(world.rank()) + 17);
  run_mixed_collectives(world, 140, [&] {
    if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
  });
}

}  // namespace

const std::vector<CommunicatorCheck>& communicator_checks() {
  static const std::vector<CommunicatorCheck> kChecks{
      {"bytes", check_operations<std::uint8_t>},
      {"int32", check_operations<std::int32_t>},
      {"int64", check_operations<std::int64_t>},
      {"float32", check_operations<float>},
      {"float64", check_operations<double>},
      {"arrays_larger_than_a_slot", check_arrays_larger_than_a_slot},
      {"signed_and_extreme_values", check_signed_and_extreme_values},
      {"float32_sums_follow_the_tree", check_sums_follow_the_tree<float>},
      {"float64_sums_follow_the_tree", check_sums_follow_the_tree<double>},
      {"background_sums_follow_the_tree", check_background_sums_follow_the_tree},
      {"background_sums_leave_the_group_free", check_background_sums_leave_the_group_free},
      {"background_sums_end_by_advancing", check_background_sums_end_by_advancing},
      {"background_sums_are_counted", check_background_sums_are_counted},
      {"background_sums_of_another_count", check_background_sums_of_another_count},
      {"failed_rank_frees_background_sums", check_failed_rank_frees_background_sums},
      {"barrier_waits_for_all", check_barrier_waits_for_all},
      {"text_reaches_all", check_text_reaches_all},
      {"time_is_counted_by_communicator", check_time_is_counted_by_communicator},
      {"rows_and_columns", check_rows_and_columns},
      {"split_orders_by_key", check_split_orders_by_key},
      {"groups_have_names", check_groups_have_names},
      {"failure_is_seen_without_a_collective", check_failure_is_seen_without_a_collective},
      {"other_operation", check_other_operation},
      {"other_count", check_other_count},
      {"other_type", check_other_type},
      {"other_reduction", check_other_reduction},
      {"other_root", check_other_root},
      {"pieces_of_another_count", check_pieces_of_another_count},
      {"split_against_barrier", check_split_against_barrier},
      {"end_against_gather", check_end_against_gather},
      {"end_against_barrier", check_end_against_barrier},
      {"groups_name_ranks_of_the_world", check_groups_name_ranks_of_the_world},
      {"failed_rank_frees_the_others", check_failed_rank_frees_the_others},
      {"failure_in_the_world_reaches_groups", check_failure_in_the_world_reaches_groups},
      {"failure_in_a_group_reaches_the_world", check_failure_in_a_group_reaches_the_world},
      {"who_leaves_early_is_named", check_who_leaves_early_is_named},
      {"mixed_2000_in_a_row", check_2000_in_a_row},
      {"random_delays", check_random_delays},
      {"every_lateness", check_every_lateness},
  };
  return kChecks;
}

}  // namespace lamina
