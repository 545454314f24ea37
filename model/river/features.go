package river

import (
	"slices"
	"strings"
)

// Encoder is a step that makes columns as it learns, one for each key. For each
// event, the columns of all keys but a dropped one are features, 0 or 1.
type Encoder interface {
	// Shown are the keys that were handed to the next step in an event that
	// was learned, in the order of the first time. A key stays among them. The
	// caller must not change them.
	Shown() []int32
	// Since is the event, from 1, in which a key was first handed on, 0 if it
	// was not yet.
	Since(key int32) uint64
	// Feature names a key, and FreshFeature one that was never learned.
	Feature(key int32) string
	FreshFeature(key *FreshKey) string
	// Rest names all features of the encoder but the event's own.
	Rest() string
	// TellApart makes the names of a column's keys differ from all other names.
	TellApart(column int32)
	// MaxKeys is how many keys there can ever be.
	MaxKeys() int
}

// Features are the columns that reach an estimator: numbers, and the dummies of
// encoders.
type Features struct {
	Numbers  []NumberFeature
	Encoders []EncoderFeatures
	Order    []FeatureRef // every sum runs over these, in this order
}

// NumberFeature is a number that reaches an estimator.
type NumberFeature struct {
	Name string
	Slot int
}

// EncoderFeatures are the dummies of an encoder.
type EncoderFeatures struct {
	Encoder
	Slot int
}

// FeatureRef is an element of Numbers or of Encoders.
type FeatureRef struct {
	Dummies bool
	Index   int
}

// Features are the columns that come in, for an estimator that takes numbers
// and dummies. What no estimator takes is reported.
func (b *Builder) Features() Features {
	var x Features
	if len(b.In) == 0 {
		b.Fail("gets no column")
	}
	for i := range b.In {
		switch col := &b.In[i]; {
		case col.Kind == DummyColumn:
			known := func(e EncoderFeatures) bool { return e.Encoder == col.Encoder }
			if !slices.ContainsFunc(x.Encoders, known) {
				x.Order = append(x.Order, FeatureRef{Dummies: true, Index: len(x.Encoders)})
				x.Encoders = append(x.Encoders, EncoderFeatures{col.Encoder, col.Slot})
			}
			if slices.ContainsFunc(b.In, func(other Column) bool { return Meets(col, &other) }) {
				col.Encoder.TellApart(col.Index)
			}
		case b.Finite(col):
			x.Order = append(x.Order, FeatureRef{Index: len(x.Numbers)})
			x.Numbers = append(x.Numbers, NumberFeature{col.Name, col.Slot})
		}
	}
	return x
}

// Meets reports whether a dummy of one column, for some value, has the name that
// another column's feature can have: River would take the two for one.
func Meets(a, b *Column) bool {
	dummyOf := func(a, b *Column) bool { return a.Kind == DummyColumn && strings.HasPrefix(b.Name, a.Name+"_") }
	return dummyOf(a, b) || dummyOf(b, a)
}

// MaxKeys is how many dummies there can ever be.
func (x *Features) MaxKeys() int {
	n := 0
	for _, e := range x.Encoders {
		n += e.MaxKeys()
	}
	return n
}

// Shown is how many features were ever handed to the estimator in an event that
// was learned, once one was.
func (x *Features) Shown() int {
	n := len(x.Numbers)
	for _, e := range x.Encoders {
		n += len(e.Shown())
	}
	return n
}

// Grow makes s long enough to have an element i.
func Grow[T any](s []T, i int) []T {
	if i < len(s) {
		return s
	}
	return append(s, make([]T, i+1-len(s))...)
}
