#include "launch/commands/info.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint.h"
#include "kernels/backends.h"
#include "launch/commands/output.h"
#include "launch/version.h"
#include "runtime/communicator.h"

namespace lamina {
namespace {

std::vector<std::pair<std::string, std::string>> facts() {
  return {{"version", version()},       {"build", LAMINA_BUILD_TYPE}, {"compiler", "GCC " __VERSION__},
          {"mpi", mpi_library()},       {"hdf5", hdf5_library()},     {"cpu", cpu_description()},
          {"cuda", cuda_description()}, {"nccl", nccl_description()}};
}

}  // namespace

void print_info(bool json) {
  nlohmann::ordered_json object;
  for (const auto& [name, value] : facts()) {
    if (!json) print(fmt::format("{:<9} {}\n", name, value));
    object[name] = value;
  }
  if (json) print(object.dump() + '\n');
}

}  // namespace lamina
