// What a member of a team does in both directions: its place, its products, and what it exchanges.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/recurrence/mma.cuh"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "kernels/cuda/recurrence/persistent_layout.h"
#include "kernels/cuda/recurrence/row_sums.cuh"
#include "kernels/cuda/recurrence/signals.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace lamina::cuda {

/// Group and row of a lane.
struct LanePlace {
  int d, r;
};

/// Which member this block is, and where a thread's cells lie. A thread has one unit, and the rows first_row,
/// first_row + kRowsAtOnce, … of its team; the cells of a row are neighbouring threads of one warp.
template <int kUnits>
struct Member {
  static constexpr int kRowsAtOnce = kPersistentThreads / kUnits;

  const PersistentArrays& arrays;
  int team, index;          ///< of this member; the index counts over all ranks
  bool has_peers;           ///< on other GPUs
  int first_lane, lanes;    ///< of the team
  int thread, warp, lane;   ///< `lane` within the warp
  int unit, first_row;      ///< of this thread, within the member and the team
  int p, u;                 ///< the unit's block, of those of this rank, and its place in the block
  const int* lengths;       ///< of the team's rows, in shared memory
  const LanePlace* places;  ///< likewise

  __device__ Member(const PersistentArrays& of, int* lengths_of_rows, LanePlace* places_of_rows)
      : arrays(of),
        team(static_cast<int>(blockIdx.x) / of.grid.own_members()),
        index(of.peers.own * of.grid.own_members() + static_cast<int>(blockIdx.x) % of.grid.own_members()),
        has_peers(of.peers.count > 1),
        first_lane(team * of.grid.rows),
        lanes(min(of.grid.rows, of.at.lanes() - first_lane)),
        thread(static_cast<int>(threadIdx.x)),
        warp(thread / 32),
        lane(thread % 32),
        unit(thread % kUnits),
        first_row(thread / kUnits),
        p((index_on_rank() * kUnits + unit) / of.at.units),
        u((index_on_rank() * kUnits + unit) % of.at.units),
        lengths(lengths_of_rows),
        places(places_of_rows) {
    for (int row = thread; row < of.grid.rows; row += kPersistentThreads) {
      const int l = row < lanes ? first_lane + row : 0;
      lengths_of_rows[row] = row >= lanes ? 0 : of.lengths == nullptr ? of.steps : of.lengths[l];
      places_of_rows[row] = {l / of.at.rows, l % of.at.rows};
    }
    __syncthreads();
  }

  __device__ int index_on_rank() const { return index - arrays.peers.own * arrays.grid.own_members(); }
  __device__ bool is_normalized() const { return arrays.at.normalized; }
  /// Rows of padding are not.
  __device__ bool is_valid(int row, int t) const { return t < lengths[row]; }
  __device__ bool is_real(int row) const { return row < lanes; }
  /// The unit within the layer.
  __device__ int unit_of_layer() const { return index * kUnits + unit; }

  // Places of this thread's unit; add gate * U for the gates.
  __device__ std::int64_t gates(int row, int t) const {
    return arrays.at.gates(places[row].d, p, t, places[row].r) + u;
  }
  __device__ std::int64_t cell(int row, int t) const {
    return arrays.at.cell(places[row].d, p, t, places[row].r) + u;
  }
  __device__ std::int64_t state(int row, int t) const {
    return arrays.at.state(places[row].d, p, t, places[row].r) + u;
  }
  __device__ std::int64_t statistics(int row, int t) const {
    return arrays.at.statistics(places[row].d, t, places[row].r);
  }
  /// task(row, place in [rows, units]) for the cells of this thread, or those of them in rows [begin, end),
  /// which are bounds of tiles. Whole warps take part, in rows of padding too.
  template <class Task>
  __device__ void for_cells(const Task& task) const {
    for_cells(0, arrays.grid.rows, task);
  }
  template <class Task>
  __device__ void for_cells(int begin, int end, const Task& task) const {
    for (int row = first_row; row < end; row += kRowsAtOnce)
      if (row >= begin) task(row, row * kUnits + unit);
  }
  /// Over the units of a row, for all of its threads.
  __device__ float sum_of_units(float x) const {
    for (int distance = kUnits / 2; distance > 0; distance /= 2)
      x = __fadd_rn(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
  }

  /// Values of the team that are exchanged, of an epoch: [rows, width].
  __device__ __nv_bfloat16* exchanged(unsigned epoch, int width) const {
    const std::int64_t rows =
        static_cast<std::int64_t>(epoch % 2) * arrays.grid.all_rows() + team * arrays.grid.rows;
    return arrays.exchanged + rows * width;
  }
  /// To a place of exchanged(), on all ranks.
  __device__ void exchange(__nv_bfloat16* to, float value) const {
    const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
    *to = rounded;
    if (!has_peers) return;
    for (int rank = 0; rank < arrays.peers.count; ++rank)
      if (rank != arrays.peers.own) *arrays.peers.of(rank, to) = rounded;
  }
  /// Says that all of this block's exchanged values of an epoch are written.
  __device__ void raise_flag(unsigned epoch) const {
    if (thread == 0) store_flag(arrays.peers, arrays.flags + team * arrays.grid.members + index, epoch);
  }
  /// For a warp: waits for members [begin, end) of its team.
  __device__ void wait_for_flags(Watch& watch, unsigned epoch, int begin, int end, int step) const {
    for (int other = begin + lane; other < end; other += 32) {
      const unsigned* flag = arrays.flags + team * arrays.grid.members + other;
      watch.wait(step, Signal::rows, [&] { return load_flag(flag, has_peers) >= epoch; });
    }
    __syncwarp();
  }

  /// The words of a row of all members.
  template <class W>
  __device__ W* words(W* all, unsigned epoch, int row) const {
    const std::int64_t place =
        static_cast<std::int64_t>(epoch % 2) * arrays.grid.all_rows() + team * arrays.grid.rows + row;
    return all + place * arrays.grid.members;
  }
  /// By the first thread of a row.
  __device__ void say(int row, unsigned epoch, float value) const {
    if (unit != 0 || !is_real(row)) return;
    store_word(arrays.peers, words(arrays.gate_words, epoch, row) + index, {value, epoch});
  }
  __device__ void say(int row, unsigned epoch, float first, float second) const {
    if (unit != 0 || !is_real(row)) return;
    WordPair* to = words(arrays.cell_words, epoch, row) + index;
    store_word(arrays.peers, &to->first, {first, epoch});
    store_word(arrays.peers, &to->second, {second, epoch});
  }
  __device__ void hear(Word& word, const Word* from, Watch& watch, unsigned epoch, int step) const {
    if (word.epoch == epoch) return;
    watch.wait(step, Signal::gate_numbers, [&] {
      word = load_word(from, has_peers);
      return word.epoch == epoch;
    });
  }
  __device__ void hear(WordPair& words, const WordPair* from, Watch& watch, unsigned epoch, int step) const {
    const auto is_there = [&] { return words.first.epoch == epoch && words.second.epoch == epoch; };
    if (is_there()) return;
    watch.wait(step, Signal::cell_numbers, [&] {
      words = load_words(from, has_peers);
      return is_there();
    });
  }
  __device__ Word look(const Word* from) const { return load_word(from, has_peers); }
  __device__ WordPair look(const WordPair* from) const { return load_words(from, has_peers); }

  /// use(row, heard) by a warp for each of its rows, with what all members said: heard[i] is of member
  /// lane + 32 i, and 0 where there is none. Several rows are looked up at a time.
  template <int kRows, class W, class Use>
  __device__ void for_heard_rows(W* all, Watch& watch, unsigned epoch, int step, const Use& use) const {
    if (arrays.grid.members <= 32 * kUsualWordsOfLane)  // the others need more registers
      for_heard_rows<kRows, kUsualWordsOfLane>(all, watch, epoch, step, use);
    else
      for_heard_rows<kRows, kMostWordsOfLane>(all, watch, epoch, step, use);
  }
  template <int kRows, int kWords, class W, class Use>
  __device__ void for_heard_rows(W* all, Watch& watch, unsigned epoch, int step, const Use& use) const {
    const int members = arrays.grid.members;
    for (int first = warp; first < lanes; first += kRows * kPersistentWarps) {
      W heard[kRows][kWords];
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        const int row = first + k * kPersistentWarps;
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
          heard[k][i] = {};
          if (row < lanes && lane + 32 * i < members)
            heard[k][i] = look(words(all, epoch, row) + lane + 32 * i);
        }
      }
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        const int row = first + k * kPersistentWarps;
        if (row >= lanes) break;
#pragma unroll
        for (int i = 0; i < kWords; ++i)
          if (lane + 32 * i < members)
            hear(heard[k][i], words(all, epoch, row) + lane + 32 * i, watch, epoch, step);
        use(row, heard[k]);
      }
    }
  }
  /// use(row, sum over the members) by the first lane of a warp.
  template <class Use>
  __device__ void sum_of_members(Watch& watch, unsigned epoch, int step, const Use& use) const {
    for_heard_rows<4>(arrays.gate_words, watch, epoch, step, [&](int row, const auto& heard) {
      float sum = 0;
#pragma unroll
      for (const Word& word : heard) sum = sum + word.value;
      sum = sum_of_lanes(sum);
      if (lane == 0) use(row, sum);
    });
  }
  /// use(row, sums) likewise.
  template <class Use>
  __device__ void sums_of_members(Watch& watch, unsigned epoch, int step, const Use& use) const {
    for_heard_rows<2>(arrays.cell_words, watch, epoch, step, [&](int row, const auto& heard) {
      RowPair sums;
#pragma unroll
      for (const WordPair& words : heard) {
        sums.first = sums.first + words.first.value;
        sums.second = sums.second + words.second.value;
      }
      sums = {sum_of_lanes(sums.first), sum_of_lanes(sums.second)};
      if (lane == 0) use(row, sums);
    });
  }
  /// use(row, mean and scale) likewise, from the moments of kUnits values on each member: mean = the mean of
  /// means, M2 = the sum of M2 and of kUnits times the squared distances of the means.
  template <class Use>
  __device__ void moments_of_members(Watch& watch, unsigned epoch, int step, const Use& use) const {
    const int members = arrays.grid.members;
    for_heard_rows<2>(arrays.cell_words, watch, epoch, step, [&](int row, const auto& heard) {
      float sum = 0, squares = 0;
#pragma unroll
      for (const WordPair& words : heard) sum = sum + words.first.value;
      const float mean = sum_of_lanes(sum) / static_cast<float>(members);
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof heard / sizeof heard[0]); ++i) {
        if (lane + 32 * i >= members) continue;
        const float distance = heard[i].first.value - mean;
        squares = squares + fmaf(distance * distance, static_cast<float>(kUnits), heard[i].second.value);
      }
      const float variance = sum_of_lanes(squares) / static_cast<float>(members * kUnits);
      if (lane == 0) use(row, Normal{mean, 1.0f / sqrtf(variance + arrays.at.epsilon)});
    });
  }
};

/// A member's matrix products: rows [16 x tiles, depth] that members exchange times its slice of W_h
/// [depth, 8 kColumnTiles], in shared memory. The warps share the depth.
///
/// Which k a register of a fragment holds is our choice, if A and B agree: lane l has the 8 neighbouring
/// values from 8 (l % 4) of each 32, so it loads 16 bytes at once for two instructions.
template <int kColumnTiles, int kRowTiles>
class MemberProduct {
 public:
  static constexpr int kColumns = 8 * kColumnTiles;
  /// Steps of kTileDepth that are under way from memory.
  static constexpr int kAhead = kRowTiles > 2 ? 2 : 6 / kRowTiles;

  /// `tiles_at_a_time`, up to kRowTiles: how many run() may be asked for.
  __device__ MemberProduct(const uint4* weights, float* partial, int depth, int tiles_at_a_time)
      : weights_(weights),
        partial_(partial),
        depth_(depth),
        rows_of_warp_(kTileRows * tiles_at_a_time),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32) {
    const int pieces = depth / kTileDepth;
    begin_ = pieces * warp_ / kPersistentWarps;
    end_ = pieces * (warp_ + 1) / kPersistentWarps;
  }

  /// Of this warp's share of the depth: the members it comes from, with `of_member` values each.
  __device__ int first_member(int of_member) const { return begin_ * kTileDepth / of_member; }
  __device__ int end_member(int of_member) const { return (end_ * kTileDepth + of_member - 1) / of_member; }

  /// This warp's share of the product of `tiles` tiles, into the partial sums.
  __device__ void run(const __nv_bfloat16* rows, int tiles) const {
    float sums[kRowTiles][kColumnTiles][4] = {};
    uint4 upper[kAhead][kRowTiles], lower[kAhead][kRowTiles];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (begin_ + i < end_) load(rows, tiles, begin_ + i, upper[i], lower[i]);
    for (int first = begin_; first < end_; first += kAhead)
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int piece = first + i;
        if (piece >= end_) break;
        multiply(piece, tiles, upper[i], lower[i], sums);
        if (piece + kAhead < end_) load(rows, tiles, piece + kAhead, upper[i], lower[i]);
      }
    store(sums, tiles);
  }

  /// The sum of all warps' shares, after __syncthreads().
  __device__ float sum(int row, int column) const {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kPersistentWarps; ++warp) sum = sum + partial_[place(warp, row, column)];
    return sum;
  }

 private:
  __device__ int place(int warp, int row, int column) const {
    return (warp * rows_of_warp_ + row) * partial_row(kColumns) + column;
  }

  __device__ void load(const __nv_bfloat16* rows, int tiles, int piece, uint4 (&upper)[kRowTiles],
                       uint4 (&lower)[kRowTiles]) const {
    const __nv_bfloat16* from =
        rows + static_cast<std::int64_t>(lane_ / 4) * depth_ + piece * kTileDepth + 8 * (lane_ % 4);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      upper[m] = lower[m] = make_uint4(0, 0, 0, 0);
      if (m >= tiles) continue;
      const __nv_bfloat16* tile = from + static_cast<std::int64_t>(m) * kTileRows * depth_;
      upper[m] = __ldcg(reinterpret_cast<const uint4*>(tile));
      lower[m] = __ldcg(reinterpret_cast<const uint4*>(tile + static_cast<std::int64_t>(8) * depth_));
    }
  }

  __device__ void multiply(int piece, int tiles, const uint4 (&upper)[kRowTiles],
                           const uint4 (&lower)[kRowTiles], float (&sums)[kRowTiles][kColumnTiles][4]) const {
    const uint4* weights = weights_ + static_cast<std::int64_t>(piece) * kColumnTiles * 32 + lane_;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const uint4 b = weights[n * 32];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        if (m >= tiles) break;
        add_product(sums[m][n], {{upper[m].x, lower[m].x, upper[m].y, lower[m].y}}, {{b.x, b.y}});
        add_product(sums[m][n], {{upper[m].z, lower[m].z, upper[m].w, lower[m].w}}, {{b.z, b.w}});
      }
    }
  }

  __device__ void store(const float (&sums)[kRowTiles][kColumnTiles][4], int tiles) const {
    const int g = lane_ / 4, q = lane_ % 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      if (m >= tiles) break;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const float(&c)[4] = sums[m][n];
        float* to = partial_ + place(warp_, m * kTileRows + g, 8 * n + 2 * q);
        *reinterpret_cast<float2*>(to) = make_float2(c[0], c[1]);
        *reinterpret_cast<float2*>(to + 8 * partial_row(kColumns)) = make_float2(c[2], c[3]);
      }
    }
  }

  const uint4* weights_;
  float* partial_;
  int depth_, rows_of_warp_, lane_, warp_;
  int begin_, end_;  ///< of the depth, in pieces of kTileDepth
};

/// Copies 16 bytes per thread and turn.
__device__ inline void copy_to_shared(const uint4* from, uint4* to, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kPersistentThreads) to[i] = from[i];
}

}  // namespace lamina::cuda
