// lamina info: what this build has and what it runs on.
#pragma once

namespace lamina {

void print_info(bool json);

}  // namespace lamina
