// Fits the lines and curves of a profile to samples.
#pragma once

#include <span>
#include <vector>

#include "plan/profile.h"

namespace eps::measure {

// Fits the line fixed_us + bytes / rate to points (bytes, µs). Caches bend the real curve, so no line fits all points;
// the weights are such that the relative error is smaller at large points, where it costs more time. Neither the fixed
// part nor the rate is negative.
//
// Errors  kInternal without points, or if a number of bytes or a time is not positive
plan::OpCost fit_cost(std::span<const plan::CurvePoint> points);

// The curve through points in any order, without falls. Points with the same x are averaged: models of different widths
// may read the same number of bytes.
plan::Curve curve_through(std::vector<plan::CurvePoint> points);

// The nearest curve that does not fall, by averaging neighbours that do. More rows never take less time, so a falling
// curve is the result of noise.
plan::Curve without_falls(const plan::Curve& curve);

}  // namespace eps::measure
