#include "io/checkpoint/structure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "io/checkpoint/disk.h"
#include "io/checkpoint/format.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/metadata.h"
#include "io/checkpoint/transfer.h"
#include "runtime/error.h"

namespace lamina::checkpoint {
namespace {

namespace fs = std::filesystem;
using hdf5::Handle;
using hdf5::require;

constexpr std::int64_t kMaxVocabulary = 0x110000;

// --- attributes -------------------------------------------------------------------------------------------

Handle open_attribute(hid_t object, const std::string& name) {
  return {H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, "cannot open the attribute " + name};
}

bool is_type(hid_t type, hid_t expected) { return require(H5Tequal(type, expected), "type") > 0; }

/// No control characters but those of lines: texts of strangers are printed.
bool is_printable(const std::string& text) {
  return std::ranges::all_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 0x20 && byte != 0x7F) || c == '\n' || c == '\t';
  });
}

/// Attribute `name` of exactly that type and number of elements, into `out`.
void read_numbers(hid_t object, const std::string& name, hid_t type, std::size_t count, void* out) {
  const Handle attribute = open_attribute(object, name);
  const Handle stored(H5Aget_type(attribute), H5Tclose, name), space(H5Aget_space(attribute), H5Sclose, name);
  const bool fits = is_type(stored, type) &&
                    require(H5Sget_simple_extent_npoints(space), name) == static_cast<hssize_t>(count);
  demand(fits, fmt::format("the attribute {} has another type or size", name));
  require(H5Aread(attribute, type, out), "cannot read the attribute " + name);
}

void read_attribute(hid_t object, const std::string& name, std::int64_t& value) {
  read_numbers(object, name, H5T_STD_I64LE, 1, &value);
}

void read_attribute(hid_t object, const std::string& name, std::uint64_t& value) {
  read_numbers(object, name, H5T_STD_U64LE, 1, &value);
}

void read_attribute(hid_t object, const std::string& name, int& value) {
  std::int64_t wide = 0;
  read_attribute(object, name, wide);
  demand(wide >= 0 && wide <= std::numeric_limits<int>::max(),
         fmt::format("the attribute {} is {}", name, wide));
  value = static_cast<int>(wide);
}

void read_attribute(hid_t object, const std::string& name, std::optional<double>& value) {
  double stored = 0;
  read_numbers(object, name, H5T_IEEE_F64LE, 1, &stored);
  value = std::isnan(stored) ? std::nullopt : std::optional(stored);
}

void read_attribute(hid_t object, const std::string& name, std::string& value) {
  const Handle attribute = open_attribute(object, name);
  const Handle stored(H5Aget_type(attribute), H5Tclose, name), space(H5Aget_space(attribute), H5Sclose, name);
  const bool fixed_string =
      H5Tget_class(stored) == H5T_STRING && require(H5Tis_variable_str(stored), name) == 0;
  const std::size_t size = H5Tget_size(stored);
  demand(fixed_string && size <= kMaxText && require(H5Sget_simple_extent_npoints(space), name) == 1,
         fmt::format("the attribute {} is no string of fixed length", name));
  value.assign(size, '\0');
  require(H5Aread(attribute, stored, value.data()), "cannot read the attribute " + name);
  value.resize(value.find_last_not_of('\0') + 1);
  demand(is_printable(value), fmt::format("the attribute {} holds control characters", name));
}

// --- datasets ---------------------------------------------------------------------------------------------

std::vector<std::int64_t> shape_of(hid_t dataset, const std::string& path) {
  const Handle space(H5Dget_space(dataset), H5Sclose, path);
  const int dimensions = require(H5Sget_simple_extent_ndims(space), path);
  demand(dimensions >= 1 && dimensions <= 8, path + " has an unexpected number of dimensions");
  std::array<hsize_t, 8> sizes{}, maximum{};
  require(H5Sget_simple_extent_dims(space, sizes.data(), maximum.data()), path);
  std::vector<std::int64_t> shape;
  for (std::size_t i = 0; i < static_cast<std::size_t>(dimensions); ++i) {
    demand(sizes[i] == maximum[i] && sizes[i] <= hsize_t{1} << 48, path + " has an absurd shape");
    shape.push_back(static_cast<std::int64_t>(sizes[i]));
  }
  return shape;
}

/// Opens a dataset that lies in this file as one plain run of `type`, and nowhere else.
Handle open_plain_dataset(hid_t file, const std::string& path, hid_t type) {
  Handle dataset = hdf5::open_dataset(file, path);
  const Handle settings(H5Dget_create_plist(dataset), H5Pclose, path);
  demand(require(H5Pget_layout(settings), path) == H5D_CONTIGUOUS, path + " is not stored contiguously");
  demand(require(H5Pget_external_count(settings), path) == 0, path + " is stored in other files");
  demand(require(H5Pget_nfilters(settings), path) == 0, path + " is stored through filters");
  const Handle stored(H5Dget_type(dataset), H5Tclose, path);
  demand(is_type(stored, type), path + " has another element type");
  return dataset;
}

/// Where its bytes begin. Only now may memory of that shape be allocated: the file really has the bytes.
std::int64_t demand_bytes(hid_t file, hid_t dataset, const std::string& path, std::int64_t size) {
  hsize_t file_size = 0;
  require(H5Fget_filesize(file, &file_size), "no file size");
  const auto bytes = static_cast<hsize_t>(size) * H5Tget_size(Handle(H5Dget_type(dataset), H5Tclose, path));
  const haddr_t place = H5Dget_offset(dataset);
  demand(H5Dget_storage_size(dataset) == bytes && place != HADDR_UNDEF && bytes <= file_size &&
             place <= file_size - bytes,
         path + " does not lie in the file as its shape says");
  return static_cast<std::int64_t>(place);
}

std::vector<char32_t> read_vocabulary(hid_t file) {
  const Handle dataset = open_plain_dataset(file, kVocabulary, H5T_STD_U32LE);
  const auto shape = shape_of(dataset, kVocabulary);
  demand(shape.size() == 1 && shape[0] <= kMaxVocabulary, kVocabulary + " has an absurd shape");
  std::vector<char32_t> characters(static_cast<std::size_t>(shape[0]));
  if (characters.empty()) return characters;
  demand_bytes(file, dataset, kVocabulary, shape[0]);
  require(H5Dread(dataset, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, characters.data()),
          "cannot read " + kVocabulary);
  return characters;
}

void read_digests(hid_t file, DescribedTensor& tensor) {
  const std::string path = kDigests + tensor.layout.path;
  const Handle dataset = open_plain_dataset(file, path, H5T_STD_U8LE);
  const auto shape = shape_of(dataset, path);
  const auto is_count = [](std::int64_t n) { return n >= 1 && n <= 1 << 20; };
  demand(shape.size() == 3 && is_count(shape[0]) && is_count(shape[1]) && shape[2] == sizeof(Digest),
         path + " has an absurd shape");
  demand_bytes(file, dataset, path, elements(shape));
  tensor.layout.outer_parts = static_cast<int>(shape[0]);
  tensor.layout.split_parts = static_cast<int>(shape[1]);
  std::int64_t view[3];
  read_numbers(dataset, kView, H5T_STD_I64LE, 3, view);
  tensor.layout.outer = view[0];
  tensor.layout.split = view[1];
  tensor.layout.inner = view[2];
  const std::string problem = layout_problem(tensor.layout);
  demand(problem.empty(), tensor.layout.path + ": " + problem);
  tensor.digests.resize(static_cast<std::size_t>(box_count(tensor.layout)));
  require(H5Dread(dataset, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.digests.data()),
          "cannot read " + path);
}

DescribedTensor describe_tensor(hid_t file, const std::string& path) {
  DescribedTensor tensor;
  tensor.layout.path = path;
  const Handle dataset = open_plain_dataset(file, path, H5T_IEEE_F32LE);
  tensor.layout.shape = shape_of(dataset, path);
  read_digests(file, tensor);
  tensor.place = demand_bytes(file, dataset, path, elements(tensor.layout.shape));
  return tensor;
}

std::vector<DescribedTensor> describe_tensors(hid_t file, const std::vector<std::string>& datasets) {
  std::vector<DescribedTensor> tensors;
  std::size_t described = 0;
  for (const std::string& path : datasets) {
    if (path == kVocabulary) continue;
    if (path.starts_with(kDigests + "/")) {
      ++described;
      continue;
    }
    demand(std::ranges::binary_search(datasets, kDigests + path), path + " is there without digests");
    tensors.push_back(describe_tensor(file, path));
  }
  demand(described == tensors.size(), "there are digests without their tensor");
  return tensors;
}

// --- files ------------------------------------------------------------------------------------------------

/// Others divide and allocate by these.
void demand_sound(const CheckpointRecord& record) {
  demand(record.step >= 0 && record.epoch >= 0 && record.chunk >= 0, "it counts steps below 0");
  demand(record.lane_groups >= 1 && record.unit_blocks >= 1 && record.batch >= 1,
         "it has no lane groups, unit blocks or lanes");
}

Structure read_structure(hid_t file, const std::vector<std::string>& datasets) {
  Structure structure;
  visit_attributes(structure.record,
                   [&](const char* name, auto& value) { read_attribute(file, name, value); });
  if (require(H5Aexists(file, kTextDigest.c_str()), kTextDigest) > 0)
    read_attribute(file, kTextDigest, structure.record.text_digest);
  demand_sound(structure.record);
  demand(std::ranges::binary_search(datasets, kVocabulary), kVocabulary + " is missing");
  structure.record.vocabulary = read_vocabulary(file);
  structure.tensors = describe_tensors(file, datasets);
  structure.root = root_digest(structure.record, structure.tensors);
  std::string stored;
  read_attribute(file, kRootDigest, stored);
  demand(stored == to_hex(structure.root), "its attributes or digests do not match its root digest");
  return structure;
}

/// Throws UserError unless the bytes begin like HDF5, DamagedCheckpoint where a crash left nothing.
void check_signature(const fs::path& file) {
  const auto refuse = [&](const std::string& what) {
    throw UserError(fmt::format("{} {}; give a checkpoint that lamina train wrote", file.string(), what));
  };
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found) refuse("does not exist");
  if (error) refuse("cannot be read: " + error.message());
  if (!fs::is_regular_file(status)) refuse("is not a file");

  constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
  std::ifstream in(file, std::ios::binary);
  std::string start(kSignature.size(), '\0');
  if (!in) refuse("cannot be opened; check its permissions");
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (start.find_first_not_of('\0') == std::string::npos)
    throw DamagedCheckpoint(fmt::format("checkpoint {} is damaged: it is empty", file.string()));
  if (start != kSignature) refuse("is not a Lamina checkpoint");
}

}  // namespace

const DescribedTensor* Structure::find(const std::string& path) const {
  const auto found =
      std::ranges::lower_bound(tensors, path, {}, [](const DescribedTensor& t) { return t.layout.path; });
  return found != tensors.end() && found->layout.path == path ? &*found : nullptr;
}

void with_checkpoint(const fs::path& file, const std::function<void(hid_t, const Structure&)>& read) {
  check_signature(file);
  const auto damaged = [&](const std::exception& error) {
    return DamagedCheckpoint(fmt::format("checkpoint {} is damaged: {}", file.string(), error.what()));
  };
  const hdf5::Section section;
  try {
    const std::vector<std::string> datasets = read_metadata(file);
    const Handle open = hdf5::open_file(file, H5F_ACC_RDONLY, hdf5::serial_access());
    read(open, read_structure(open, datasets));
  } catch (const Damage& error) {
    throw damaged(error);
  } catch (const ReadError& error) {
    throw UserError(
        fmt::format("checkpoint {}: {}; look at its disk or mount on this host, the file stays as it is",
                    file.string(), error.what()));
  } catch (const hdf5::Error& error) {
    if (error.is_lock()) throw UserError(fmt::format("checkpoint {}: {}", file.string(), error.what()));
    throw damaged(error);
  }
}

void check_box(const DescribedTensor& tensor, int outer_part, int split_part, std::span<const float> values) {
  const auto box = static_cast<std::size_t>(box_index(tensor.layout, outer_part, split_part));
  demand(digest_of(values) == tensor.digests[box],
         fmt::format("{} does not match its digest", tensor.layout.path));
}

void read_checked_box(hid_t dataset, const DescribedTensor& tensor, int outer_part, int split_part,
                      std::span<float> values) {
  read_box(dataset, tensor.layout, outer_part, split_part, values);
  check_box(tensor, outer_part, split_part, values);
}

}  // namespace lamina::checkpoint
