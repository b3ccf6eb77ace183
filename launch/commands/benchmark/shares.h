// Where the time of steps went, as shares of the whole.
#pragma once

#include <array>

#include "runtime/communicator.h"
#include "runtime/trace.h"

namespace lamina {

/// By kind; they add up to 1.
using KindShares = std::array<double, kSpanKinds>;

/// Of the times of all ranks together. Collective; times of nothing are "other".
KindShares shares_of(const KindTimes& own, Communicator& world);

/// What ranks spend on each other that nothing hides: exchanges, and waiting in them.
double exposed_communication(const KindShares& shares);

}  // namespace lamina
