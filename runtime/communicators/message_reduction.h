// An all_reduce over MPI as a sequence of exchanges, so that its owner may do other things between them.
#pragma once

#include "runtime/communicators/call.h"
#include "runtime/communicators/messages.h"

namespace lamina {

/// Begins with the agreement of the ranks; then, piece by piece, each rank gets its share of the others'
/// values, reduces it in the tree, and all gather the shares.
class MessageReduction {
 public:
  /// `values`: call.count elements of call.type. They and `messages` outlive it.
  MessageReduction(Messages& messages, const Call& call, void* values);

  /// To be called when the exchange on its way is done: begins the next one. False: there is none, all ranks
  /// have the result.
  bool next();
  const Call& call() const { return call_; }

 private:
  enum class Stage { agreement, transpose, gather };
  void start_piece();
  void reduce_share();
  void take_piece();

  Messages& messages_;
  Call call_;
  std::byte* values_;
  std::size_t total_bytes_;
  Stage stage_ = Stage::agreement;
  std::size_t first_ = 0, bytes_ = 0;  ///< of the piece
  std::size_t share_ = 0;              ///< elements of the piece for each rank, the last one's filled up
};

}  // namespace lamina
