// Figures as a JSON file for programs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lamina {

using Json = nlohmann::ordered_json;

/// What every benchmark says of where it ran.
Json machine_facts();

/// Writes `facts`, and `rows` as its last member "rows", one line each. Throws UserError, naming --json,
/// where `file` cannot be written.
void write_figures(const std::string& file, const Json& facts, const std::vector<Json>& rows);

/// Writes one JSON value. Throws as above.
void write_figures(const std::string& file, const Json& figures);

/// Throws UserError, before anything is measured, where write_figures() would, or would replace `data`, the
/// text of --data.
void require_writable(const std::string& file, const std::string& data = "");

}  // namespace lamina
