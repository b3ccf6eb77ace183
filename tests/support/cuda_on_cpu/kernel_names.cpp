#include "tests/support/cuda_on_cpu/kernel_names.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace cuda_on_cpu {
namespace {

/// How far the program lies from where its file says.
std::uintptr_t load_offset() {
  std::uintptr_t offset = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<std::uintptr_t*>(to) = info->dlpi_addr;
        return 1;  // the first is the program
      },
      &offset);
  return offset;
}

/// The program's file in memory, for as long as it runs; null where that fails.
const std::byte* program_file() {
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (file < 0 || fstat(file, &status) != 0) return nullptr;
  void* mapped = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  return mapped == MAP_FAILED ? nullptr : static_cast<const std::byte*>(mapped);
}

template <class T>
const T* at(const std::byte* file, std::uint64_t offset) {
  return reinterpret_cast<const T*>(file + offset);
}

}  // namespace

// Kernels are not exported, so dladdr() does not know them; the table of all symbols does.
const char* kernel_symbol(const void* function) {
  static const std::byte* const file = program_file();
  if (file == nullptr) return nullptr;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(function) - load_offset();
  const auto* header = at<ElfW(Ehdr)>(file, 0);
  const auto* sections = at<ElfW(Shdr)>(file, header->e_shoff);
  for (unsigned s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = at<ElfW(Sym)>(file, sections[s].sh_offset);
    const char* names = at<char>(file, sections[sections[s].sh_link].sh_offset);
    for (std::size_t i = 0; i < sections[s].sh_size / sizeof *symbols; ++i)
      if (symbols[i].st_value == address && (symbols[i].st_info & 15) == STT_FUNC)
        return names + symbols[i].st_name;
  }
  return nullptr;
}

std::string kernel_name(const void* function) {
  if (const char* symbol = kernel_symbol(function)) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
    return name ? name.get() : symbol;
  }
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "the kernel at %p", function);
  return text.data();
}

}  // namespace cuda_on_cpu
