package river

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"testing"
)

// The tests compare with series in 200-bit arithmetic.
const precision = 200

func bigFloat(x float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(x) }

// bigExp sums the series of e^x after halving x often enough.
func bigExp(x *big.Float) *big.Float {
	const halvings = 20
	r := new(big.Float).SetPrec(precision).SetMantExp(x, -halvings)
	sum, term := bigFloat(1), bigFloat(1)
	for i := 1; i < 40; i++ {
		term.Mul(term, r).Quo(term, bigFloat(float64(i)))
		sum.Add(sum, term)
	}
	for range halvings {
		sum.Mul(sum, sum)
	}
	return sum
}

// bigLog is Newton's method on bigExp.
func bigLog(x *big.Float) *big.Float {
	var mant big.Float
	e := x.MantExp(&mant)
	m, _ := mant.Float64()
	y := bigFloat(math.Log(m) + float64(e)*math.Ln2)
	for range 5 {
		z := bigExp(y)
		d := new(big.Float).SetPrec(precision).Sub(x, z)
		d.Quo(d, z)
		// Log(1+d) ≈ d - d²/2
		half := new(big.Float).SetPrec(precision).Mul(d, d)
		half.Quo(half, bigFloat(2))
		y.Add(y, d.Sub(d, half))
	}
	return y
}

func bigLog1p(x float64) *big.Float {
	return bigLog(new(big.Float).SetPrec(precision).Add(bigFloat(1), bigFloat(x)))
}

// ulps is how far got is from want, in units of want's last place.
func ulps(got float64, want *big.Float) float64 {
	w, _ := want.Float64()
	unit := math.Nextafter(math.Abs(w), math.Inf(1)) - math.Abs(w)
	d := new(big.Float).SetPrec(precision).Sub(bigFloat(got), want)
	f, _ := d.Quo(d, bigFloat(unit)).Float64()
	return math.Abs(f)
}

// sequence is a fixed pseudo-random sequence (splitmix64).
type sequence uint64

func (s *sequence) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is at least 0 and less than 1.
func (s *sequence) unit() float64 { return float64(s.next()>>11) * 0x1p-53 }

func TestMathIsAccurate(t *testing.T) {
	var s sequence
	worst := map[string]float64{}
	check := func(name string, x, got float64, want *big.Float) {
		if u := ulps(got, want); u > worst[name] {
			worst[name] = u
			if u >= 1 {
				t.Errorf("%s(%v) = %v is %.2f ulp off", name, x, got, u)
			}
		}
	}
	for range 2000 {
		x := (s.unit() - 0.5) * 1400
		check("exp", x, Exp(x), bigExp(bigFloat(x)))
		x = s.unit() - 0.5
		check("exp", x, Exp(x), bigExp(bigFloat(x)))
		x = math.Float64frombits(s.next() >> 1)
		if x > 0 && x <= math.MaxFloat64 {
			check("log", x, Log(x), bigLog(bigFloat(x)))
		}
		x = 0.5 + s.unit()
		check("log", x, Log(x), bigLog(bigFloat(x)))
		x = s.unit() * math.Ldexp(1, -int(s.next()%60))
		check("log1p", x, Log1p(x), bigLog1p(x))
		check("log1p", -x, Log1p(-x), bigLog1p(-x))
		x = s.unit() * math.Ldexp(1, int(s.next()%1023))
		check("log1p", x, Log1p(x), bigLog1p(x))
		x = math.Ldexp(s.unit(), -1022) // subnormal
		check("log", x, Log(x), bigLog(bigFloat(x)))
		x = -708 - 37*s.unit() // and here exp is
		check("exp", x, Exp(x), bigExp(bigFloat(x)))
	}
	// Around where the methods change from one case to another.
	for _, edge := range []float64{0.5, 1, math.Sqrt2 / 2, math.Sqrt2, math.Ln2 / 2, math.Ln2, 1.5 * math.Ln2,
		math.Sqrt2 - 1, 1 - math.Sqrt2/2, 2, 0x1p-28, 0x1p-29, 0x1p-53, 0x1p-54, 0x1p53, 709.78, 745.13, 0x1p-1022, 5e-324, math.MaxFloat64} {
		for _, x := range []float64{math.Nextafter(edge, 0), edge, math.Nextafter(edge, math.MaxFloat64)} {
			if x > 0 && x != 1 {
				check("log", x, Log(x), bigLog(bigFloat(x)))
			}
			if x > 0x1p-150 { // below, 200 bits do not hold 1+x
				check("log1p", x, Log1p(x), bigLog1p(x))
				if x < 1 {
					check("log1p", -x, Log1p(-x), bigLog1p(-x))
				}
			}
			if x < 709.785 {
				check("exp", x, Exp(x), bigExp(bigFloat(x)))
			}
			if x < 745.135 {
				check("exp", -x, Exp(-x), bigExp(bigFloat(-x)))
			}
		}
	}
	t.Logf("worst errors in ulp: %v", worst)
}

func TestMathSpecialValues(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"Exp(0)", Exp(0), 1}, {"Exp(-inf)", Exp(-inf), 0}, {"Exp(inf)", Exp(inf), inf}, {"Exp(nan)", Exp(nan), nan},
		{"Exp(710)", Exp(710), inf}, {"Exp(-746)", Exp(-746), 0}, {"Exp(1)", Exp(1), math.E},
		{"Exp(-745.13)", Exp(-745.13), 5e-324}, {"Exp(709.78)", Exp(709.78), 1.7928227943945155e308},
		{"Log(0)", Log(0), -inf}, {"Log(-1)", Log(-1), nan}, {"Log(inf)", Log(inf), inf}, {"Log(nan)", Log(nan), nan},
		{"Log(1)", Log(1), 0}, {"Log(5e-324)", Log(5e-324), -744.4400719213812}, {"Log(max)", Log(math.MaxFloat64), 709.782712893384},
		{"Log1p(0)", Log1p(0), 0}, {"Log1p(tiny)", Log1p(1e-20), 1e-20}, {"Log1p(inf)", Log1p(inf), inf}, {"Log1p(1)", Log1p(1), math.Ln2},
		{"Log1p(-1)", Log1p(-1), -inf}, {"Log1p(-2)", Log1p(-2), nan}, {"Log1p(-inf)", Log1p(-inf), nan}, {"Log1p(nan)", Log1p(nan), nan},
		{"Log1p(max)", Log1p(math.MaxFloat64), 709.782712893384}, {"Log1p(5e-324)", Log1p(5e-324), 5e-324}, {"Log(-inf)", Log(-inf), nan},
	} {
		if c.got != c.want && !(math.IsNaN(c.got) && math.IsNaN(c.want)) {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestMathIsPortable fixes the bits of many results: another CPU or compiler
// that computes anything else shows here.
func TestMathIsPortable(t *testing.T) {
	var s sequence
	h := sha256.New()
	add := func(x float64) { h.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(x))) }
	for range 100_000 {
		add(Exp((s.unit() - 0.5) * 1500))
		if x := math.Float64frombits(s.next() >> 1); x == x { // a NaN's bits are the CPU's own
			add(Log(x))
		}
		add(Log1p(s.unit()))
	}
	const want = "8a60ee2b042d84bcd456998672edccbd"
	if got := hex.EncodeToString(h.Sum(nil)[:16]); got != want {
		t.Errorf("the results hash to %s, and on every CPU should to %s", got, want)
	}
}

func BenchmarkExp(b *testing.B) {
	for i := range b.N {
		sink = Exp(float64(i&1023) * -0.5)
	}
}

func BenchmarkLog(b *testing.B) {
	for i := range b.N {
		sink = Log(float64(i&1023) + 0.5)
	}
}

func BenchmarkLog1p(b *testing.B) {
	for i := range b.N {
		sink = Log1p(float64(i&1023) * 0x1p-10)
	}
}

var sink float64
