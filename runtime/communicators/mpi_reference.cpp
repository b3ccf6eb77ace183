// MPI's blocking collectives, with nothing of ours around them.
#include "runtime/communicators/mpi_handles.h"
#include "runtime/reference_collectives.h"

namespace lamina {
namespace {

class MpiReference final : public ReferenceCollectives {
 public:
  MpiReference(MPI_Comm comm, int ranks) : comm_(comm), ranks_(ranks) {}

  std::string library() const override {
    const std::string version = mpi_library();
    return version.substr(0, version.find(','));
  }
  void barrier() override { must(MPI_Barrier(comm_), "MPI_Barrier"); }
  void broadcast(std::span<float> values, int root) override {
    must(MPI_Bcast(values.data(), count(values), MPI_FLOAT, root, comm_), "MPI_Bcast");
  }
  void all_gather(std::span<const float> part, std::span<float> out) override {
    check(out.size() == part.size() * ranks(), "reference all_gather: out must hold size() parts");
    must(MPI_Allgather(part.data(), count(part), MPI_FLOAT, out.data(), count(part), MPI_FLOAT, comm_),
         "MPI_Allgather");
  }
  void all_to_all(std::span<const float> in, std::span<float> out) override {
    check(in.size() == out.size() && in.size() % ranks() == 0,
          "reference all_to_all: in and out must hold size() equal blocks");
    const int block = count(in) / ranks_;
    must(MPI_Alltoall(in.data(), block, MPI_FLOAT, out.data(), block, MPI_FLOAT, comm_), "MPI_Alltoall");
  }
  void all_reduce(std::span<float> values) override {
    must(MPI_Allreduce(MPI_IN_PLACE, values.data(), count(values), MPI_FLOAT, MPI_SUM, comm_),
         "MPI_Allreduce");
  }
  void reduce_scatter(std::span<const float> in, std::span<float> out) override {
    check(in.size() == out.size() * ranks(), "reference reduce_scatter: in must hold size() parts");
    must(MPI_Reduce_scatter_block(in.data(), out.data(), count(out), MPI_FLOAT, MPI_SUM, comm_),
         "MPI_Reduce_scatter_block");
  }

 private:
  static int count(std::span<const float> values) { return static_cast<int>(values.size()); }
  std::size_t ranks() const { return static_cast<std::size_t>(ranks_); }

  MPI_Comm comm_;
  int ranks_;
};

}  // namespace

std::unique_ptr<ReferenceCollectives> make_reference_collectives(const Communicator& group) {
  const void* handle = group.native_handle();
  if (handle == nullptr || group.size() == 1) return nullptr;
  return std::make_unique<MpiReference>(*static_cast<const MPI_Comm*>(handle), group.size());
}

}  // namespace lamina
