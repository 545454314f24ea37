package river

import "math"

// The project's own exponential and logarithm. math.Exp and math.Log are assembly on some
// CPUs, and math.Exp gives other bits on two amd64 CPUs of which one has FMA;
// a replica's state must have the same bits everywhere. Here every operation
// is a plain addition, subtraction, multiplication or division, each rounded
// by itself: a product that feeds a sum is written float64(a*b), or the
// compiler may fuse the two where the CPU can.
//
// Method and constants are those of FreeBSD's msun, e_log.c, e_exp.c and
// s_log1p.c (https://cgit.freebsd.org/src/tree/lib/msun/src):
//
//	Copyright (C) 1993, 2004 by Sun Microsystems, Inc. All rights reserved.
//	Permission to use, copy, modify, and distribute this software is freely
//	granted, provided that this notice is preserved.

const (
	ln2Hi  = 6.93147180369123816490e-01 // the upper bits of ln 2: times a small integer is exact
	ln2Lo  = 1.90821492927058770002e-10
	invLn2 = 1.44269504088896338700e+00

	expMost  = 7.09782712893383973096e+02  // above it exp overflows
	expLeast = -7.45133219101941108420e+02 // below it exp is 0
)

// Log is the natural logarithm: -Inf of 0, NaN below.
func Log(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	// x = 2^k (1+f), with 1+f between √½ and √2.
	k, m := split(x)
	if m < math.Sqrt2/2 {
		m *= 2
		k--
	}
	f := m - 1
	s := f / (2 + f)
	r := logSeries(float64(s * s))
	half := float64(0.5 * f * f)
	n := float64(k)
	return float64(n*ln2Hi) - ((half - (float64(s*(half+r)) + float64(n*ln2Lo))) - f)
}

// logSeries is the rest R of log(1+f) = f - (f²/2 - s(f²/2 + R)), with
// s = f/(2+f), of s².
func logSeries(s2 float64) float64 {
	s4 := float64(s2 * s2)
	odd := float64(
		s2 * (6.666666666666735130e-01 + float64(s4*(2.857142874366239149e-01+float64(s4*(1.818357216161805012e-01+float64(s4*1.479819860511658591e-01)))))),
	)
	even := float64(
		s4 * (3.999999999940941908e-01 + float64(s4*(2.222219843214978396e-01+float64(s4*1.531383769920937332e-01)))),
	)
	return odd + even
}

// split returns k and m with x = m·2^k and ½ ≤ m < 1, for finite x > 0.
func split(x float64) (k int, m float64) {
	if x < 0x1p-1022 { // a subnormal: scaling it is exact
		x *= 0x1p52
		k = -52
	}
	bits := math.Float64bits(x)
	k += int(bits>>52) - 1022
	return k, math.Float64frombits(bits&^(0x7ff<<52) | 1022<<52)
}

// Exp is e to the x.
func Exp(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x > expMost:
		return math.Inf(1)
	case x < expLeast:
		return 0
	}
	// x = k ln 2 + r, with |r| at most ½ ln 2, and r = hi - lo.
	k := math.Floor(float64(x*invLn2) + 0.5)
	hi := x - float64(k*ln2Hi)
	lo := float64(k * ln2Lo)
	r := hi - lo
	t := float64(r * r)
	c := r - float64(
		t*(1.66666666666666657415e-01+float64(t*(-2.77777777770155933842e-03+float64(t*(6.61375632143793436117e-05+float64(t*(-1.65339022054652515390e-06+float64(t*4.13813679705723846039e-08)))))))),
	)
	y := 1 - ((lo - float64(r*c)/(2-c)) - hi)
	return scale(y, int(k))
}

// scale is y·2^k, for y near 1 and k from -1075 to 1024. It rounds once.
func scale(y float64, k int) float64 {
	switch {
	case k > 1023:
		return y * 2 * power(k-1)
	case k < -1022:
		return y * power(k+54) * 0x1p-54
	}
	return y * power(k)
}

// power is 2^k, for k from -1022 to 1023.
func power(k int) float64 { return math.Float64frombits(uint64(1023+k) << 52) }

// Log1p is log(1+x), without losing a small x to the sum.
func Log1p(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x < -1:
		return math.NaN()
	case x == -1:
		return math.Inf(-1)
	case -0x1p-54 < x && x < 0x1p-54:
		return x
	}
	// 1+x = 2^k (1+f), with 1+f between √½ and √2, as in log; c is what
	// rounding 1+x took from it, relative to it.
	k, f, c := 0, x, 0.0
	if x <= math.Sqrt2/2-1 || x >= math.Sqrt2-1 {
		u := 1 + x
		if x < 1 {
			c = (x - (u - 1)) / u
		} else {
			c = (1 - (u - x)) / u
		}
		var m float64
		if k, m = split(u); m < math.Sqrt2/2 {
			m *= 2
			k--
		}
		f = m - 1
	}
	half := float64(0.5 * f * f)
	s := f / (2 + f)
	t := half + logSeries(float64(s*s))
	if k == 0 {
		return f - (half - (float64(s*t) + c))
	}
	n := float64(k)
	return float64(n*ln2Hi) - ((half - (float64(s*t) + (float64(n*ln2Lo) + c))) - f)
}

// Sqrt is the square root, which IEEE 754 rounds correctly on every CPU.
func Sqrt(x float64) float64 { return math.Sqrt(x) }
