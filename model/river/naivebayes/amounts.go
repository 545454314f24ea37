package naivebayes

import "lockstep/model/river"

// amounts are the sums of each feature, over all events of a class.
type amounts struct {
	count   uint64     // of events
	total   float64    // of all features
	last    uint64     // the event that was learned last, from 1
	numbers []float64  // by number
	dummies [][]uint64 // by encoder, by key; may be shorter than the keys
}

func newAmounts(x *river.Features) amounts {
	return amounts{numbers: make([]float64, len(x.Numbers)), dummies: make([][]uint64, len(x.Encoders))}
}

// amountsBound is how many bytes the state of one has at the most.
func amountsBound(x *river.Features) int {
	return 8 + 8 + 8 + 8 + 8*len(x.Numbers) + 8*len(x.Encoders) + 8*x.MaxKeys()
}

// learn adds the event in f, the classifier's nth.
func (c *amounts) learn(x *river.Features, f *river.Frame, n uint64) {
	c.count++
	c.last = n
	for _, s := range x.Order {
		if !s.Dummies {
			v := f.Numbers[x.Numbers[s.Index].Slot].V
			c.numbers[s.Index] += v
			c.total += v
			continue
		}
		for _, key := range f.Dummies[x.Encoders[s.Index].Slot].Known {
			c.dummies[s.Index] = river.Grow(c.dummies[s.Index], int(key))
			c.dummies[s.Index][key]++
			c.total++
		}
	}
}

// dummy is in how many events a key was the event's own.
func (c *amounts) dummy(encoder, key int) float64 {
	if key < len(c.dummies[encoder]) {
		return float64(c.dummies[encoder][key])
	}
	return 0
}

func (c *amounts) code(s *river.State, x *river.Features) {
	s.U64(&c.count)
	s.F64(&c.total)
	s.U64(&c.last)
	s.F64s(&c.numbers)
	if s.Reading() {
		c.dummies = make([][]uint64, len(x.Encoders))
		if len(c.numbers) != len(x.Numbers) {
			s.Fail()
		}
	}
	for i := range c.dummies {
		s.U64s(&c.dummies[i])
	}
}

// report says what one class has, under the names of River's attributes.
func (c *amounts) report(r river.Report, x *river.Features, label string) {
	features := r.In("feature_counts")
	r.In("class_counts").Set(label, c.count)
	r.In("class_totals").Set(label, c.total)
	for i, n := range x.Numbers {
		features.In(n.Name).Set(label, c.numbers[i])
	}
	for i, e := range x.Encoders {
		for _, key := range e.Shown() {
			if c.last >= e.Since(key) {
				features.In(e.Feature(key)).Set(label, c.dummy(i, int(key)))
			}
		}
	}
}
