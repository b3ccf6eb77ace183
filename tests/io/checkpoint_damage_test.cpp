// Files that are cut off, flipped, mixed or foreign: refused, or the numbers are the right ones.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <random>

#include "io/checkpoint.h"
#include "io/checkpoint/hdf5.h"
#include "runtime/error.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

// HDF5 itself leaks when it meets damaged metadata.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace lamina {
namespace {

namespace fs = std::filesystem;
using hdf5::Handle;
using ::testing::AllOf;
using ::testing::HasSubstr;

void overwrite(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

/// Why the file is refused, or empty when it gives exactly the sample's record and numbers.
std::string refusal(const fs::path& file) {
  const auto self = make_self_communicator();
  SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  try {
    const CheckpointRecord record = read_record(file);
    read_checkpoint(file, boxes.to_read(), *self);
    EXPECT_EQ(record.configuration, sample_record().configuration);
    EXPECT_EQ(record.vocabulary, sample_record().vocabulary);
  } catch (const DamagedCheckpoint& error) {
    return error.what();
  } catch (const UserError& error) {
    return error.what();
  }
  EXPECT_TRUE(boxes.is_right()) << "wrong numbers came back";
  return "";
}

class DamagedFile : public ::testing::Test {
 protected:
  DamagedFile() { write_sample(file_); }

  const TemporaryFolder folder_;
  const fs::path file_ = folder_ / "a.h5";
};

TEST_F(DamagedFile, CutOffAnywhereIsRefused) {
  const auto size = fs::file_size(file_);
  ASSERT_EQ(refusal(file_), "");
  ASSERT_GT(size, 30'000u);

  fs::resize_file(file_, size - 1);
  EXPECT_NE(refusal(file_), "");
  for (auto cut = (size - 1) / 512 * 512; cut > 0; cut -= 512) {
    fs::resize_file(file_, cut);
    EXPECT_NE(refusal(file_), "") << "cut to " << cut << " bytes";
  }
}

TEST_F(DamagedFile, FlippedBitsAreRefusedOrHarmless) {
  const std::string good = bytes_of(file_);
  std::mt19937_64 random(1);
  constexpr int kFlips = 500;

  int refused = 0;
  for (int flip = 0; flip < kFlips; ++flip) {
    std::string bad = good;
    const auto place = random() % bad.size();
    bad[place] = static_cast<char>(bad[place] ^ (1 << random() % 8));
    overwrite(file_, bad);
    refused += refusal(file_) != "";
  }

  EXPECT_GT(refused, kFlips * 3 / 4);  // the rest lies in unused space
}

TEST_F(DamagedFile, AFlippedNumberNamesItsTensor) {
  std::string bytes = bytes_of(file_);
  const float number = 2 * 4096 + 100 + 0.25f;  // of the third tensor
  const auto place = bytes.find(std::string(reinterpret_cast<const char*>(&number), sizeof number));
  ASSERT_NE(place, std::string::npos);
  bytes[place] = static_cast<char>(bytes[place] ^ 1);
  overwrite(file_, bytes);

  EXPECT_THAT(refusal(file_), AllOf(HasSubstr(file_.string()), HasSubstr("/parameters/lstm0/W_h ")));
  EXPECT_THROW(verify_checkpoint(file_), DamagedCheckpoint);
  EXPECT_NO_THROW(read_record(file_));  // does not read tensors
}

TEST_F(DamagedFile, AMixtureOfTwoStepsIsRefused) {
  CheckpointRecord other_record = sample_record();
  other_record.step += 1;
  const auto self = make_self_communicator();
  SampleBoxes other(sample_layouts(), all_on(0), 0);
  for (std::size_t box = 0; box < 100; ++box)
    for (float& value : other.values(box)) value += 0.5f;
  write_checkpoint(folder_ / "b.h5", other_record, other.to_write(), *self);
  const std::string a = bytes_of(file_), b = bytes_of(folder_ / "b.h5");
  ASSERT_EQ(a.size(), b.size());

  for (std::size_t cut = 0; cut < a.size(); cut += 1024)
    for (const std::string& mixed : {a.substr(0, cut) + b.substr(cut), b.substr(0, cut) + a.substr(cut)}) {
      if (mixed == a || mixed == b) continue;
      overwrite(file_, mixed);
      EXPECT_NE(refusal(file_), "") << "cut at " << cut;
    }
}

// --- foreign files ----------------------------------------------------------------------------------------

/// Changes the sample with plain HDF5.
void change(const fs::path& file, const std::function<void(hid_t)>& action) {
  const hdf5::Section section;
  Handle open = hdf5::open_file(file, H5F_ACC_RDWR, hdf5::serial_access());
  action(open);
  hdf5::finish(open);
}

const char* const kBias = "/parameters/lstm0/bias";

std::vector<float> bias_of(hid_t file) {
  std::vector<float> values(32);
  const Handle dataset = hdf5::open_dataset(file, kBias);
  hdf5::require(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "read");
  return values;
}

/// Puts another dataset in the place of /parameters/lstm0/bias, with the same numbers.
void replace_bias(
    hid_t file, hid_t type, const std::vector<hsize_t>& shape,
    const std::function<void(hid_t)>& adjust = [](hid_t) {}) {
  const std::vector<float> values = bias_of(file);
  const Handle settings(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "settings");
  adjust(settings);
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose,
                     "space");
  hdf5::require(H5Ldelete(file, kBias, H5P_DEFAULT), "delete");
  const Handle dataset(H5Dcreate2(file, kBias, type, space, H5P_DEFAULT, settings, H5P_DEFAULT), H5Dclose,
                       "create");
  hdf5::require(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "write");
}

void put_attribute(hid_t object, const char* name, hid_t type, const void* value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "space");
  if (H5Aexists(object, name) > 0) hdf5::require(H5Adelete(object, name), "delete");
  const Handle attribute(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, "create");
  hdf5::require(H5Awrite(attribute, type, value), "write");
}

struct Foreign {
  const char* name;
  const char* reason;
  std::function<void(hid_t)> change;
};

const std::vector<Foreign> kForeign = {
    {"SoftLink", "is a link to another place",
     [](hid_t f) {
       H5Lmove(f, kBias, f, "/parameters/lstm0/other", H5P_DEFAULT, H5P_DEFAULT);
       H5Lcreate_soft("/parameters/lstm0/other", f, kBias, H5P_DEFAULT, H5P_DEFAULT);
     }},
    {"DanglingLink", "is a link to another place",
     [](hid_t f) { H5Lcreate_soft("/nowhere", f, "/x", H5P_DEFAULT, H5P_DEFAULT); }},
    {"ExternalLink", "is a link to another place",
     [](hid_t f) {
       H5Ldelete(f, kBias, H5P_DEFAULT);
       H5Lcreate_external("other.h5", kBias, f, kBias, H5P_DEFAULT, H5P_DEFAULT);
     }},
    {"TwoHardLinks", "is linked more than once",
     [](hid_t f) { H5Lcreate_hard(f, kBias, f, "/again", H5P_DEFAULT, H5P_DEFAULT); }},
    {"Cycle", "is linked more than once",
     [](hid_t f) { H5Lcreate_hard(f, "/parameters", f, "/parameters/lstm0/up", H5P_DEFAULT, H5P_DEFAULT); }},
    {"CycleThroughTheRoot", "",
     [](hid_t f) { H5Lcreate_hard(f, "/", f, "/parameters/root", H5P_DEFAULT, H5P_DEFAULT); }},
    {"NamedType", "is neither a group nor a dataset",
     [](hid_t f) {
       const Handle type(H5Tcopy(H5T_STD_I32LE), H5Tclose, "type");
       H5Tcommit2(f, "/type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
     }},
    {"Chunked", "is not stored contiguously",
     [](hid_t f) {
       replace_bias(f, H5T_IEEE_F32LE, {32}, [](hid_t settings) {
         const hsize_t chunk = 8;
         H5Pset_chunk(settings, 1, &chunk);
       });
     }},
    {"Compressed", "is not stored contiguously",
     [](hid_t f) {
       replace_bias(f, H5T_IEEE_F32LE, {32}, [](hid_t settings) {
         const hsize_t chunk = 32;
         H5Pset_chunk(settings, 1, &chunk);
         H5Pset_shuffle(settings);
       });
     }},
    {"Compact", "is not stored contiguously",
     [](hid_t f) {
       replace_bias(f, H5T_IEEE_F32LE, {32}, [](hid_t settings) { H5Pset_layout(settings, H5D_COMPACT); });
     }},
    {"Virtual", "is not stored contiguously",
     [](hid_t f) {
       const hsize_t size = 32;
       const Handle settings(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "settings");
       const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "space");
       H5Pset_virtual(settings, space, "other.h5", kBias, space);
       H5Ldelete(f, kBias, H5P_DEFAULT);
       Handle(H5Dcreate2(f, kBias, H5T_IEEE_F32LE, space, H5P_DEFAULT, settings, H5P_DEFAULT), H5Dclose,
              "create");
     }},
    {"ExternalStorage", "is stored in other files",
     [](hid_t f) {
       replace_bias(f, H5T_IEEE_F32LE, {32},
                    [](hid_t settings) { H5Pset_external(settings, "/dev/null", 0, 128); });
     }},
    {"NeverAllocated", "does not lie in the file",
     [](hid_t f) {
       H5Ldelete(f, kBias, H5P_DEFAULT);
       const hsize_t size = 32;
       const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "space");
       Handle(H5Dcreate2(f, kBias, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
              "create");
     }},
    {"AbsurdlyLarge", "",
     [](hid_t f) {
       H5Ldelete(f, kBias, H5P_DEFAULT);
       const hsize_t size = hsize_t{1} << 45;
       const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose, "space");
       Handle(H5Dcreate2(f, kBias, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
              "create");
     }},
    {"Doubles", "has another element type", [](hid_t f) { replace_bias(f, H5T_IEEE_F64LE, {32}); }},
    {"BigEndian", "has another element type", [](hid_t f) { replace_bias(f, H5T_IEEE_F32BE, {32}); }},
    {"Integers", "has another element type", [](hid_t f) { replace_bias(f, H5T_STD_I32LE, {32}); }},
    {"OtherShape", "does not fit its shape",
     [](hid_t f) {
       replace_bias(f, H5T_IEEE_F32LE, {16, 2});
     }},
    {"MissingTensor", "digests without their tensor", [](hid_t f) { H5Ldelete(f, kBias, H5P_DEFAULT); }},
    {"MissingDigests", "is there without digests",
     [](hid_t f) { H5Ldelete(f, "/digests/parameters/lstm0/bias", H5P_DEFAULT); }},
    {"TensorAndDigestsRemoved", "do not match its root digest",
     [](hid_t f) {
       H5Ldelete(f, kBias, H5P_DEFAULT);
       H5Ldelete(f, "/digests/parameters/lstm0/bias", H5P_DEFAULT);
     }},
    {"TensorsSwapped", "does not match its digest",
     [](hid_t f) {
       H5Lmove(f, kBias, f, "/x", H5P_DEFAULT, H5P_DEFAULT);
       H5Lmove(f, "/parameters/lstm0/gain_x", f, kBias, H5P_DEFAULT, H5P_DEFAULT);
       H5Lmove(f, "/x", f, "/parameters/lstm0/gain_x", H5P_DEFAULT, H5P_DEFAULT);
     }},
    {"UnexpectedDataset", "/extra does not lie in the file",
     [](hid_t f) {
       const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "space");
       Handle(H5Dcreate2(f, "/extra", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
              "create");
     }},
    {"MissingVocabulary", "/vocabulary is missing",
     [](hid_t f) { H5Ldelete(f, "/vocabulary", H5P_DEFAULT); }},
    {"AnotherStep", "do not match its root digest",
     [](hid_t f) {
       const std::int64_t step = 1201;
       put_attribute(f, "step", H5T_STD_I64LE, &step);
     }},
    {"MissingAttribute", "attribute seed", [](hid_t f) { H5Adelete(f, "seed"); }},
    {"AttributeOfAnotherType", "attribute step has another type",
     [](hid_t f) {
       const double step = 1200;
       put_attribute(f, "step", H5T_IEEE_F64LE, &step);
     }},
    {"NumberForAString", "attribute configuration is no string",
     [](hid_t f) {
       const std::int64_t number = 1;
       put_attribute(f, "configuration", H5T_STD_I64LE, &number);
     }},
    {"StringOfVariableLength", "attribute configuration has another type",
     [](hid_t f) {
       const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "type");
       H5Tset_size(type, H5T_VARIABLE);
       const char* text = "hidden = 8\n";
       put_attribute(f, "configuration", type, &text);
     }},
    {"AnotherVersion", "has checkpoint format 1 and this program reads format 2",
     [](hid_t f) {
       const std::int64_t version = 1;
       put_attribute(f, "format_version", H5T_STD_I64LE, &version);
     }},
    {"NotOurs", "not a Lamina checkpoint", [](hid_t f) { H5Adelete(f, "format_version"); }},
};

class ForeignFile : public DamagedFile, public ::testing::WithParamInterface<Foreign> {};

TEST_P(ForeignFile, IsRefused) {
  change(file_, GetParam().change);

  EXPECT_THAT(refusal(file_), AllOf(HasSubstr(file_.string()), HasSubstr(GetParam().reason)));
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, ForeignFile, ::testing::ValuesIn(kForeign),
                         [](const auto& parameter) { return parameter.param.name; });

/// The writer reads back what it wrote, so that it meets what a reader refuses.
std::string refusal_of_record(const fs::path& file, const std::function<void(CheckpointRecord&)>& change) {
  CheckpointRecord record = sample_record();
  change(record);
  try {
    write_sample(file, record);
  } catch (const CheckpointWriteError& error) {
    return error.what();
  }
  return "";
}

TEST_F(DamagedFile, ARecordThatOthersWouldDivideByOrPrintIsRefused) {
  const auto refused = [&](const std::function<void(CheckpointRecord&)>& nonsense) {
    return refusal_of_record(file_, nonsense);
  };
  EXPECT_THAT(refused([](auto& record) { record.unit_blocks = 0; }),
              HasSubstr("no lane groups, unit blocks"));
  EXPECT_THAT(refused([](auto& record) { record.lane_groups = 0; }),
              HasSubstr("no lane groups, unit blocks"));
  EXPECT_THAT(refused([](auto& record) { record.batch = 0; }), HasSubstr("no lane groups, unit blocks"));
  EXPECT_THAT(refused([](auto& record) { record.step = -1; }), HasSubstr("counts steps below 0"));
  EXPECT_THAT(refused([](auto& record) { record.configuration = "a = '\x1B[2J'\n"; }),
              HasSubstr("configuration holds control characters"));
}

TEST_F(DamagedFile, AnotherVersionOrProgramIsTheUsersError) {
  change(file_, [](hid_t f) {
    const std::int64_t version = 1;
    put_attribute(f, "format_version", H5T_STD_I64LE, &version);
  });
  EXPECT_THROW(read_record(file_), UserError);

  change(file_, [](hid_t f) { H5Adelete(f, "format_version"); });
  EXPECT_THROW(read_record(file_), UserError);
}

TEST_F(DamagedFile, ALockedFileIsTheUsersErrorAndSaysWhatToDo) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // HDF5 reads the variable when it starts
  ::setenv("HDF5_USE_FILE_LOCKING", "TRUE", 1);
  const auto read_locked = [&] {
    const int descriptor = ::open(file_.c_str(), O_RDWR);
    ::flock(descriptor, LOCK_EX | LOCK_NB);
    try {
      read_record(file_);
    } catch (const UserError& error) {
      std::fprintf(stderr, "%s\n", error.what());
      fs::remove_all(folder_.path());  // this process has made its own
      std::_Exit(7);
    }
  };

  EXPECT_EXIT(read_locked(), ::testing::ExitedWithCode(7), "HDF5_USE_FILE_LOCKING=FALSE");
  ::unsetenv("HDF5_USE_FILE_LOCKING");
}

}  // namespace
}  // namespace lamina
