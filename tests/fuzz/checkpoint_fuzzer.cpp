#include <random>

#include "tests/fuzz/harness.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  lamina::fuzz::checkpoint({data, size});
  return 0;
}

/// Other values in the same places: what passes the metadata's checks and is left to HDF5 and the digests.
static void change_in_place(std::span<std::uint8_t> file, unsigned seed) {
  std::minstd_rand random(seed);
  for (auto changes = 1 + random() % 3; changes > 0 && !file.empty(); --changes)
    file[random() % file.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
}

/// Most mutations would end at a checksum.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  if (seed % 4 == 1)
    change_in_place({data, size}, seed);
  else
    size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 16 != 0) lamina::fuzz::repair_checksums({data, size});
  return size;
}
