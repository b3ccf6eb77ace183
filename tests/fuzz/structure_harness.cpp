#include <algorithm>
#include <array>

#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/skeleton.h"
#include "tests/fuzz/harness.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina::fuzz {
namespace {

using hdf5::Handle;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;
constexpr std::array<std::uint64_t, 14> kSizes = {0,  1,  2,  3,        4,          8,          9,
                                                  16, 32, 33, 1u << 20, 1ull << 32, 1ull << 48, kHuge};

const std::vector<std::string>& names() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> made = {"/",
                                     "/parameters",
                                     "/digests",
                                     "/parameters/lstm0",
                                     "/vocabulary",
                                     "/digests/vocabulary",
                                     "/x",
                                     "/..",
                                     "/.hidden",
                                     "/a b",
                                     "/digests/digests",
                                     "/parameters/lstm0/\x1b[31m",
                                     std::string("/") + std::string(300, 'n')};
    for (const TensorLayout& layout : sample_layouts())
      if (layout.path.find("optimizer") == std::string::npos) {
        made.push_back(layout.path);
        made.push_back("/digests" + layout.path);
      }
    return made;
  }();
  return all;
}

const std::vector<std::string> kAttributes = {
    "format_version", "step",          "seed",  "lane_groups", "unit_blocks", "batch",       "epoch",
    "chunk",          "configuration", "build", "root_digest", "view",        "text_digest", "other"};

/// A handle of a call that may fail, for nonsense is asked of it.
Handle tried(hid_t id, Handle::Close close) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose, "space");
  return id >= 0 ? Handle(id, close, "") : Handle(H5Scopy(scalar), H5Sclose, "space");
}

Handle make_type(Choices& choose) {
  switch (choose.byte() % 12) {
    case 0:
      return tried(H5Tcopy(H5T_STD_I64LE), H5Tclose);
    case 1:
      return tried(H5Tcopy(H5T_STD_U64LE), H5Tclose);
    case 2:
      return tried(H5Tcopy(H5T_STD_U8LE), H5Tclose);
    case 3:
      return tried(H5Tcopy(H5T_STD_U32LE), H5Tclose);
    case 4:
      return tried(H5Tcopy(H5T_IEEE_F64BE), H5Tclose);
    case 5: {
      Handle text = tried(H5Tcopy(H5T_C_S1), H5Tclose);
      H5Tset_size(text, 1 + choose.number(2));
      return text;
    }
    case 6: {
      Handle text = tried(H5Tcopy(H5T_C_S1), H5Tclose);
      H5Tset_size(text, H5T_VARIABLE);
      return text;
    }
    case 7:
      return tried(H5Tvlen_create(H5T_IEEE_F32LE), H5Tclose);
    case 8: {
      Handle pair = tried(H5Tcreate(H5T_COMPOUND, 16), H5Tclose);
      H5Tinsert(pair, "a", 0, H5T_IEEE_F32LE);
      H5Tinsert(pair, "b", 8, H5T_STD_I64LE);
      return pair;
    }
    case 9:
      return tried(H5Tcreate(H5T_OPAQUE, 1 + choose.byte()), H5Tclose);
    case 10: {
      Handle odd = tried(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
      H5Tset_precision(odd, 1 + choose.byte() % 32);
      H5Tset_ebias(odd, choose.byte());
      return odd;
    }
    default:
      return tried(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  }
}

std::vector<hsize_t> make_shape(Choices& choose) {
  std::vector<hsize_t> shape(choose.byte() % 10);
  for (hsize_t& size : shape) size = choose.one_of(kSizes);
  return shape;
}

Handle make_space(Choices& choose) {
  const std::vector<hsize_t> shape = make_shape(choose);
  if (shape.empty()) return tried(H5Screate(choose.byte() % 2 ? H5S_SCALAR : H5S_NULL), H5Sclose);
  std::vector<hsize_t> most = shape;
  if (choose.byte() % 4 == 0) most.back() = H5S_UNLIMITED;
  return tried(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), most.data()), H5Sclose);
}

Handle make_settings(Choices& choose, hid_t space) {
  Handle settings(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "settings");
  const hsize_t chunk[] = {4, 4};
  switch (choose.byte() % 8) {
    case 0:
      H5Pset_layout(settings, H5D_COMPACT);
      break;
    case 1:
      H5Pset_chunk(settings, 1, chunk);
      break;
    case 2:
      H5Pset_chunk(settings, 1, chunk);
      H5Pset_deflate(settings, 1);
      break;
    case 3:
      H5Pset_external(settings, "/etc/hostname", 0, 128);
      break;
    case 4:
      H5Pset_virtual(settings, space, "/etc/hostname", "/x", space);
      break;
    default:
      break;  // early and never filled: an absurd size takes no memory
  }
  H5Pset_alloc_time(settings, choose.byte() % 2 ? H5D_ALLOC_TIME_EARLY : H5D_ALLOC_TIME_DEFAULT);
  H5Pset_fill_time(settings, H5D_FILL_TIME_NEVER);
  return settings;
}

void make_dataset(hid_t file, Choices& choose) {
  const std::string& name = choose.one_of(names());
  H5Ldelete(file, name.c_str(), H5P_DEFAULT);
  const Handle type = make_type(choose), space = make_space(choose), settings = make_settings(choose, space);
  const bool is_large = H5Sget_simple_extent_npoints(space) > 1 << 16 || H5Tget_size(type) > 64;
  if (is_large && H5Pget_layout(settings) != H5D_CHUNKED) return;  // HDF5 would make room for it
  if (is_large) H5Pset_alloc_time(settings, H5D_ALLOC_TIME_INCR);
  tried(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, settings, H5P_DEFAULT), H5Dclose);
}

void make_attribute(hid_t file, Choices& choose) {
  const std::string& object = choose.one_of(names());
  const std::string& name = choose.one_of(kAttributes);
  H5Adelete_by_name(file, object.c_str(), name.c_str(), H5P_DEFAULT);
  const Handle type = make_type(choose), space = make_space(choose);
  const hssize_t elements = H5Sget_simple_extent_npoints(space);
  if (elements < 0 || elements > 1 << 12) return;
  const std::size_t size = static_cast<std::size_t>(elements) * H5Tget_size(type);
  if (size > 1 << 20) return;
  const Handle made = tried(H5Acreate_by_name(file, object.c_str(), name.c_str(), type, space, H5P_DEFAULT,
                                              H5P_DEFAULT, H5P_DEFAULT),
                            H5Aclose);
  const bool is_pointer = H5Tget_class(type) == H5T_VLEN || H5Tis_variable_str(type) > 0;
  if (is_pointer || H5Iget_type(made) != H5I_ATTR) return;
  std::vector<std::uint8_t> value(size + 1);
  for (std::size_t i = 0; i < value.size() && i < 64; ++i) value[i] = choose.byte();
  H5Awrite(made, type, value.data());
}

void make_link(hid_t file, Choices& choose) {
  const std::string& name = choose.one_of(names());
  const std::string& target = choose.one_of(names());
  H5Ldelete(file, name.c_str(), H5P_DEFAULT);
  switch (choose.byte() % 4) {
    case 0:
      H5Lcreate_soft(target.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 1:
      H5Lcreate_external("/etc/hostname", target.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 2:
      H5Lmove(file, target.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
    default:
      H5Lcreate_hard(file, target.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
      break;
  }
}

void make_group(hid_t file, Choices& choose) {
  const Handle settings(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "settings");
  if (choose.byte() % 2) H5Pset_link_creation_order(settings, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  const Handle group =
      tried(H5Gcreate2(file, choose.one_of(names()).c_str(), H5P_DEFAULT, settings, H5P_DEFAULT), H5Gclose);
  if (H5Iget_type(group) != H5I_GROUP) return;
  for (int i = choose.byte() % 20; i > 0; --i)
    tried(H5Gcreate2(group, std::to_string(i).c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
}

std::string sample_bytes() {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");
  return bytes_of(folder / "a.h5");
}

/// The sample, changed by HDF5 in memory.
std::vector<std::uint8_t> changed_sample(Choices& choose) {
  static std::string sample = sample_bytes();
  const hdf5::Section section;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "access");
  const H5F_libver_t oldest = choose.byte() % 4 == 0 ? H5F_LIBVER_EARLIEST : H5F_LIBVER_LATEST;
  H5Pset_libver_bounds(access, oldest, H5F_LIBVER_LATEST);
  H5Pset_fapl_core(access, 1 << 16, false);
  H5Pset_file_image(access, sample.data(), sample.size());
  const Handle file(H5Fopen("sample", H5F_ACC_RDWR, access), H5Fclose, "open");
  for (int i = 0; i < 8 && !choose.empty(); ++i) switch (choose.byte() % 5) {
      case 0:
        make_dataset(file, choose);
        break;
      case 1:
        make_attribute(file, choose);
        break;
      case 2:
        make_link(file, choose);
        break;
      case 3:
        make_group(file, choose);
        break;
      default:
        H5Ldelete(file, choose.one_of(names()).c_str(), H5P_DEFAULT);
        break;
    }
  H5Fflush(file, H5F_SCOPE_GLOBAL);
  std::vector<std::uint8_t> image(
      static_cast<std::size_t>(std::max<ssize_t>(0, H5Fget_file_image(file, nullptr, 0))));
  H5Fget_file_image(file, image.data(), image.size());
  if (image.size() > 12) image[11] = 0;  // as if it were closed
  return image;
}

TensorLayout make_layout(Choices& choose) {
  TensorLayout layout = sample_layouts()[choose.byte() % sample_layouts().size()];
  if (choose.byte() % 4 == 0) {
    layout.shape.clear();
    for (int i = choose.byte() % 4; i >= 0; --i) layout.shape.push_back(choose.byte() % 40);
  }
  for (std::int64_t* size : {&layout.outer, &layout.split, &layout.inner})
    if (choose.byte() % 4 == 0) *size = static_cast<std::int64_t>(choose.one_of(kSizes) - choose.byte() % 3);
  for (int* parts : {&layout.outer_parts, &layout.split_parts})
    if (choose.byte() % 4 == 0) *parts = 1 + choose.byte() % 40;
  return layout;
}

/// A file by our own writer, its root digest right, of layouts and a record that make no sense.
std::vector<std::uint8_t> written_nonsense(Choices& choose) {
  CheckpointRecord record = sample_record();
  record.lane_groups = static_cast<int>(choose.number(1)) - 1;
  record.unit_blocks = static_cast<int>(choose.number(4));
  record.step = static_cast<std::int64_t>(choose.number(8));
  for (int i = choose.byte() % 8; i > 0; --i)
    record.vocabulary.push_back(static_cast<char32_t>(choose.number(4)));
  for (int i = choose.byte() % 64; i > 0; --i) record.configuration += static_cast<char>(choose.byte());
  std::vector<checkpoint::DescribedTensor> tensors;
  for (int i = choose.byte() % 4; i >= 0; --i) {
    const TensorLayout layout = make_layout(choose);
    const auto has_path = [&](const auto& tensor) { return tensor.layout.path == layout.path; };
    if (checkpoint::elements(layout.shape) > 1 << 16 || std::ranges::any_of(tensors, has_path)) continue;
    const auto boxes = static_cast<std::size_t>(layout.outer_parts * layout.split_parts);
    tensors.push_back({layout, std::vector<checkpoint::Digest>(boxes)});
  }
  std::ranges::sort(tensors, {}, [](const auto& tensor) { return tensor.layout.path; });
  const TemporaryFolder folder;
  checkpoint::create_skeleton(folder / "a.h5", record, tensors);
  const std::string bytes = bytes_of(folder / "a.h5");
  return {bytes.begin(), bytes.end()};
}

}  // namespace

void structure(Bytes bytes) {
  Choices choose(bytes);
  const bool by_hdf5 = choose.byte() % 2 == 0;
  std::vector<std::uint8_t> file;
  try {
    file = by_hdf5 ? changed_sample(choose) : written_nonsense(choose);
  } catch (const std::exception&) {
    return;  // such a file cannot be made
  }
  checkpoint(file);
}

}  // namespace lamina::fuzz
