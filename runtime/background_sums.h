// Sums over ranks that go on while the ranks do other work: gradients, while the layers below run backward.
#pragma once

#include <functional>
#include <span>

namespace lamina {

class BackgroundSums {
 public:
  BackgroundSums() = default;
  virtual ~BackgroundSums() = default;
  BackgroundSums(const BackgroundSums&) = delete;
  BackgroundSums& operator=(const BackgroundSums&) = delete;

  /// `values` are to become their sums over the ranks, in the order of runtime/tree.h; until finish() they
  /// must be left alone. All ranks add arrays of the same lengths in the same order. Does not wait for peers.
  virtual void add(std::span<float> values) = 0;
  /// Moves what was added on, without waiting for peers: to be called now and then by who works long.
  virtual void advance() = 0;
  /// Other exchanges between ranks come next, on streams of a device: what advance() has begun there comes
  /// before them, on every rank.
  virtual void pause() = 0;
  /// Every rank has the sums of all that was added. Collective.
  virtual void finish() = 0;
};

/// Whether `more` adjoins `values`, which then becomes both.
bool grow(std::span<float>& values, std::span<float> more);

/// All at the end, in as few calls as possible: where nothing is gained before, because the cores that would
/// add up are those that do the other work.
class DeferredSums final : public BackgroundSums {
 public:
  explicit DeferredSums(std::function<void(std::span<float>)> sum) : sum_(std::move(sum)) {}

  void add(std::span<float> values) override;
  void advance() override {}
  void pause() override {}
  void finish() override;

 private:
  std::function<void(std::span<float>)> sum_;
  std::span<float> added_;  ///< what adjoins each other, so far
};

}  // namespace lamina
