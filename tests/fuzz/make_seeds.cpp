// Writes valid inputs for the fuzzers to begin with: make_seeds FOLDER
#include <filesystem>
#include <fstream>
#include <string>

#include "launch/configuration.h"
#include "tests/io/sample_checkpoint.h"

namespace {

namespace fs = std::filesystem;

void write(const fs::path& file, const std::string& bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << bytes;
}

/// One tensor: mutations hit what matters more often.
void write_small_checkpoint(const fs::path& file) {
  using namespace lamina;
  const SampleBoxes boxes({sample_layouts()[5]}, all_on(0), 0);
  CheckpointRecord record = sample_record();
  record.configuration = "hidden = 8\n";
  const auto self = make_self_communicator();
  write_checkpoint(file, record, boxes.to_write(), *self);
}

}  // namespace

int main(int, char** arguments) {
  const fs::path folder = arguments[1];
  fs::create_directories(folder / "checkpoint");
  lamina::write_sample(folder / "checkpoint/sample.h5");
  write_small_checkpoint(folder / "checkpoint/small.h5");
  write(folder / "structure/changed", std::string(2, '\0') + std::string(30, '\x07'));
  write(folder / "structure/written", std::string("\1\5") + std::string(30, '\x09'));
  write(folder / "text/text.txt", "the quick na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80\nfox\n");
  write(folder / "toml/default.toml", lamina::to_toml({}));
  write(folder / "toml/kinds.toml",
        "data = 'a'\nseed = 1_000 # one\ndropout = 1e-3\nmetrics = \"\\u00e9\\n\"\n");
}
