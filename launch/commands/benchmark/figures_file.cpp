#include "launch/commands/benchmark/figures_file.h"

#include <fmt/format.h>

#include <fstream>

#include "kernels/backends.h"
#include "launch/output_files.h"
#include "launch/setting.h"
#include "launch/version.h"

namespace lamina {
namespace {

void require_success(const std::ios& file, const std::string& name) {
  require(!file.fail(), fmt::format("{} cannot be written: give --json a path that can", name));
}

void write_text(const std::string& name, const std::string& text) {
  std::ofstream file(name);
  file << text;
  file.close();
  require_success(file, name);
}

}  // namespace

Json machine_facts() { return {{"program", "lamina " + version()}, {"cpu", cpu_description()}}; }

void write_figures(const std::string& name, const Json& facts, const std::vector<Json>& rows) {
  std::string text = facts.dump(2);
  text.erase(text.rfind("\n}"));
  text += ",\n  \"rows\": [";
  for (std::size_t i = 0; i < rows.size(); ++i) text += (i == 0 ? "\n    " : ",\n    ") + rows[i].dump();
  write_text(name, text + "\n  ]\n}\n");
}

void write_figures(const std::string& name, const Json& figures) { write_text(name, figures.dump(2) + '\n'); }

void require_writable(const std::string& name, const std::string& data) {
  require_apart({{"json", name}}, {{"data", data}});
  if (!name.empty()) require_success(std::ofstream(name, std::ios::app), name);
}

}  // namespace lamina
