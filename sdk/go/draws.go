package squallchaos

const goldenGamma = 0x9E3779B97F4A7C15

// draw is the draw number k (0, 1 or 2) of the eligible request number n, in [0, 1): a SplitMix64 stream that can be
// entered anywhere, so that no state is shared between requests.
func draw(seed, n, k uint64) float64 {
	return float64(mix(seed+(3*n+k+1)*goldenGamma)>>11) * 0x1p-53
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014,
// with the constants of David Stafford's variant 13).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

// between is the point at u of the way from low to high, in whole nanoseconds, cut down.
func between(low, high int64, u float64) int64 {
	return low + int64(u*float64(high-low))
}
