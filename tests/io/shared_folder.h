// A temporary folder for all ranks of a test under mpirun.
#pragma once

#include <optional>
#include <string>

#include "tests/io/temporary_folder.h"
#include "tests/support/mpi_main.h"

namespace lamina {

/// A folder that all ranks know, removed by rank 0 at the end.
class SharedFolder {
 public:
  SharedFolder() {
    if (mpi_test_world().rank() == 0) {
      own_.emplace();
      name_ = own_->path().string();
    }
    mpi_test_world().broadcast(name_, 0);
  }
  ~SharedFolder() { mpi_test_world().barrier(); }
  std::filesystem::path operator/(const std::string& name) const {
    return std::filesystem::path(name_) / name;
  }

 private:
  std::optional<TemporaryFolder> own_;
  std::string name_;
};

}  // namespace lamina
