// Turns samples into the forms a profile has.
#pragma once

#include <span>
#include <vector>

#include "plan/profile.h"

namespace eps {

// The line fixed_us + bytes / rate nearest to points (bytes, µs). Large points count more, yet not as much more as they
// are large: caches bend the real curve, and where it takes long the line should be right. Neither the fixed part nor
// the rate comes out negative.
//
// Errors  kInternal without points, or with times that are not above 0
OpCost fit_cost(std::span<const CurvePoint> points);

// The nearest curve that does not fall: neighbours that do are averaged. Noise makes times fall; more rows never do.
Curve without_falls(const Curve& curve);

}  // namespace eps
