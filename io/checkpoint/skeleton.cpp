#include "io/checkpoint/skeleton.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <limits>
#include <optional>
#include <set>

#include "io/checkpoint/disk.h"
#include "io/checkpoint/format.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/memory_file.h"
#include "runtime/error.h"

namespace lamina::checkpoint {
namespace {

using hdf5::Handle;
using hdf5::require;

using Sizes = std::vector<hsize_t>;

/// Settings of a new object: no times, so that equal content gives equal bytes.
Handle creation_settings(hid_t kind) {
  Handle settings(H5Pcreate(kind), H5Pclose, "creation settings");
  require(H5Pset_obj_track_times(settings, false), "creation settings");
  return settings;
}

/// However many there are: a heap of links is beyond what a reader accepts.
void keep_links_in_header(hid_t group_settings) {
  constexpr unsigned kMost = 0xFFFF;
  require(H5Pset_link_phase_change(group_settings, kMost, 0), "group settings");
}

Handle create_file(MemoryFile& memory) {
  const Handle access = memory_access(memory);
  const Handle settings(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "file settings");
  require(H5Pset_obj_track_times(settings, false), "file settings");
  require(H5Pset_attr_phase_change(settings, 64, 0),
          "file settings");  // attributes stay in the root's header
  keep_links_in_header(settings);
  return {H5Fcreate("skeleton", H5F_ACC_TRUNC, settings, access), H5Fclose, "cannot create it"};
}

Handle simple_space(const Sizes& sizes) {
  return {H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose, "dataspace"};
}

void write_attribute(hid_t object, const std::string& name, hid_t type, hid_t space, const void* value) {
  Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                   "cannot make the attribute " + name);
  require(H5Awrite(attribute, type, value), "cannot write the attribute " + name);
}

void write_attribute(hid_t object, const std::string& name, std::int64_t value) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "dataspace");
  write_attribute(object, name, H5T_STD_I64LE, scalar, &value);
}

void write_attribute(hid_t object, const std::string& name, std::uint64_t value) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "dataspace");
  write_attribute(object, name, H5T_STD_U64LE, scalar, &value);
}

void write_attribute(hid_t object, const std::string& name, int value) {
  write_attribute(object, name, std::int64_t{value});
}

/// NaN where there is none.
void write_attribute(hid_t object, const std::string& name, const std::optional<double>& value) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "dataspace");
  const double stored = value.value_or(std::numeric_limits<double>::quiet_NaN());
  write_attribute(object, name, H5T_IEEE_F64LE, scalar, &stored);
}

/// Of fixed length, padded with zeros: variable-length strings lie in a part of the file without checksums.
void write_attribute(hid_t object, const std::string& name, const std::string& value) {
  if (value.size() > kMaxText)
    throw std::runtime_error(fmt::format("the attribute {} has {} bytes and at most {} are allowed", name,
                                         value.size(), kMaxText));
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "string type");
  require(H5Tset_size(type, std::max<std::size_t>(1, value.size())), "string type");
  require(H5Tset_strpad(type, H5T_STR_NULLPAD), "string type");
  require(H5Tset_cset(type, H5T_CSET_UTF8), "string type");
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "dataspace");
  write_attribute(object, name, type, scalar, value.c_str());
}

/// Contiguous, with its place in the file fixed now and never filled.
Handle create_dataset(hid_t file, const std::string& path, hid_t type, const Sizes& sizes) {
  const Handle settings = creation_settings(H5P_DATASET_CREATE);
  require(H5Pset_layout(settings, H5D_CONTIGUOUS), "dataset settings");
  require(H5Pset_alloc_time(settings, H5D_ALLOC_TIME_EARLY), "dataset settings");
  require(H5Pset_fill_time(settings, H5D_FILL_TIME_NEVER), "dataset settings");
  return {H5Dcreate2(file, path.c_str(), type, simple_space(sizes), H5P_DEFAULT, settings, H5P_DEFAULT),
          H5Dclose, "cannot make " + path};
}

void write_dataset(hid_t file, const std::string& path, hid_t type, const Sizes& sizes, const void* values) {
  Handle dataset = create_dataset(file, path, type, sizes);
  require(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), "cannot write " + path);
}

/// "/a/b" and "/a" for "/a/b/c".
void collect_groups(const std::string& path, std::set<std::string>& groups) {
  for (auto slash = path.rfind('/'); slash > 0; slash = path.rfind('/', slash - 1))
    groups.insert(path.substr(0, slash));
}

void create_groups(hid_t file, const std::vector<DescribedTensor>& tensors) {
  std::set<std::string> groups;  // in order: parents first
  for (const DescribedTensor& tensor : tensors) {
    collect_groups(tensor.layout.path, groups);
    collect_groups(kDigests + tensor.layout.path, groups);
  }
  const Handle settings = creation_settings(H5P_GROUP_CREATE);
  keep_links_in_header(settings);
  for (const std::string& path : groups)
    Handle(H5Gcreate2(file, path.c_str(), H5P_DEFAULT, settings, H5P_DEFAULT), H5Gclose,
           "cannot make the group " + path);
}

void write_record(hid_t file, const CheckpointRecord& record, const Digest& root) {
  write_attribute(file, kFormatVersionName, kFormatVersion);
  visit_attributes(record, [&](const char* name, const auto& value) { write_attribute(file, name, value); });
  if (!record.text_digest.empty()) write_attribute(file, kTextDigest, record.text_digest);
  write_attribute(file, kRootDigest, to_hex(root));
  if (record.vocabulary.empty())
    create_dataset(file, kVocabulary, H5T_STD_U32LE, {0});
  else
    write_dataset(file, kVocabulary, H5T_STD_U32LE, {record.vocabulary.size()}, record.vocabulary.data());
}

std::int64_t place_of(hid_t dataset, const std::string& path) {
  const haddr_t place = H5Dget_offset(dataset);
  check(place != HADDR_UNDEF, path + " has no place in its file");
  return static_cast<std::int64_t>(place);
}

void create_tensor(hid_t file, DescribedTensor& tensor) {
  const TensorLayout& layout = tensor.layout;
  const Sizes shape(layout.shape.begin(), layout.shape.end());
  tensor.place = place_of(create_dataset(file, layout.path, H5T_IEEE_F32LE, shape), layout.path);

  const Sizes boxes = {static_cast<hsize_t>(layout.outer_parts), static_cast<hsize_t>(layout.split_parts),
                       sizeof(Digest)};
  write_dataset(file, kDigests + layout.path, H5T_STD_U8LE, boxes, tensor.digests.data());
  const Handle dataset = hdf5::open_dataset(file, kDigests + layout.path);
  const std::int64_t view[] = {layout.outer, layout.split, layout.inner};
  write_attribute(dataset, kView, H5T_STD_I64LE, simple_space({3}), view);
}

void build(MemoryFile& memory, const CheckpointRecord& record, std::vector<DescribedTensor>& tensors) {
  const hdf5::Section section;
  Handle file = create_file(memory);
  write_record(file, record, root_digest(record, tensors));
  create_groups(file, tensors);
  for (DescribedTensor& tensor : tensors) create_tensor(file, tensor);
  hdf5::finish(file);
}

}  // namespace

std::int64_t file_size_bound(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors) {
  constexpr std::int64_t kPerFile = 1 << 16, kPerTensor = 1 << 13;  // object headers, heaps, free space
  std::size_t bytes = record.configuration.size() + record.build.size() + 4 * record.vocabulary.size();
  for (const DescribedTensor& tensor : tensors)
    bytes += static_cast<std::size_t>(elements(tensor.layout.shape)) * sizeof(float) +
             tensor.digests.size() * sizeof(Digest) + 4 * tensor.layout.path.size();
  return static_cast<std::int64_t>(bytes) + kPerFile + kPerTensor * static_cast<std::int64_t>(tensors.size());
}

void create_skeleton(const std::filesystem::path& partial, const CheckpointRecord& record,
                     std::vector<DescribedTensor>& tensors) {
  std::filesystem::remove(partial);  // of an interrupted run
  Descriptor disk(partial, O_RDWR | O_CREAT | O_EXCL);
  const std::int64_t bound = file_size_bound(record, tensors);
  reserve(disk, bound, partial);

  MemoryFile memory;
  build(memory, record, tensors);
  const auto size = static_cast<std::int64_t>(memory.size);
  check(size <= bound, "a checkpoint's skeleton is larger than expected");
  memory.copy_to(disk);
  resize(disk, size);
  disk.close();
}

}  // namespace lamina::checkpoint
