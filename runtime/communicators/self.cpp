// A group of one: the front answers every call itself.
#include "runtime/communicator.h"

namespace lamina {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string transport() const override { return "self"; }
  void abandon(const std::string&) noexcept override {}

 private:
  std::unique_ptr<Communicator> do_split(int, int) override { return make_self_communicator(); }
  void do_barrier() override { no_peers(); }
  void do_broadcast(void*, std::size_t, ElementType, int) override { no_peers(); }
  void do_all_gather(const void*, std::size_t, ElementType, const TakePiece&) override { no_peers(); }
  void do_all_to_all(const void*, void*, std::size_t, ElementType) override { no_peers(); }
  void do_all_reduce(void*, std::size_t, ElementType, Reduction) override { no_peers(); }
  void do_reduce_scatter(const void*, void*, std::size_t, ElementType) override { no_peers(); }

  static void no_peers() { check(false, "a group of one has no peers to talk to"); }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace lamina
