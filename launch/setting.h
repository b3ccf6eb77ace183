// A setting as the program sees it: a name, a help text, the values allowed, and the field that holds it.
// Flags, TOML files, --help and printed configurations are loops over lists of these.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lamina {

using SettingField = std::variant<int*, std::int64_t*, double*, bool*, std::string*>;

struct Setting {
  std::string name, help;
  std::vector<std::string> choices;  ///< empty: any value of the field's type
  SettingField field;
};

/// Collects what the visit() of a settings struct names. The fields must outlive the list.
class SettingCollector {
 public:
  template <class Field>
  void operator()(const char* name, Field& field, const char* help) {
    settings.push_back({name, help, {}, &field});
  }
  void choice(const char* name, std::string& field, std::initializer_list<const char*> allowed,
              const char* help) {
    settings.push_back({name, help, {allowed.begin(), allowed.end()}, &field});
  }

  std::vector<Setting> settings;
};

template <class Settings>
std::vector<Setting> settings_of(Settings& settings) {
  SettingCollector collector;
  settings.visit(collector);
  return std::move(collector.settings);
}

/// Sets the field from `text` as a person writes it after a flag. Throws UserError, beginning with `subject`
/// ("--steps"), when it is not a value of the field's type or not one of the choices.
void assign(const Setting& setting, std::string_view text, const std::string& subject);

/// The field's value as assign() reads it; doubles with as many digits as they need.
std::string text_of(const Setting& setting);

/// Throws UserError with `sentence` unless `condition` holds.
void require(bool condition, const std::string& sentence);
/// Throws UserError unless the setting `name` is `minimum` or more.
void at_least(const char* name, std::int64_t value, std::int64_t minimum);
/// Throws UserError unless it is `maximum` or less.
void at_most(const char* name, std::int64_t value, std::int64_t maximum);

/// The one of `names` that `name` was probably meant to be, or nothing.
std::string closest(const std::string& name, const std::vector<std::string>& names);

}  // namespace lamina
