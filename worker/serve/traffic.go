package serve

import (
	"slices"
	"sync/atomic"
	"time"
)

// Verbs are what a worker is asked for.
var Verbs = []string{"predict", "teach", "explain", "status"}

// Codes are those that requests are counted by; 0 is any other.
var Codes = []int{200, 400, 401, 408, 409, 413, 415, 421, 422, 429, 500, 503, 504, 0}

// Buckets are the upper bounds of the latencies that are told apart.
var Buckets = []time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Sizes of the arrays that count; a test holds them to the lists.
const (
	verbCount   = 4
	codeCount   = 14
	bucketCount = 18 // one more, for what is above all bounds
)

// Traffic counts the answers of a door by verb and code, and how long they
// took. It is safe for concurrent use, and counting allocates nothing.
type Traffic struct {
	verbs [verbCount]struct {
		codes   [codeCount]atomic.Uint64
		buckets [bucketCount]atomic.Uint64
		nanos   atomic.Uint64
	}
}

// Observe counts one answer; 0 stands for a reply without an error.
func (t *Traffic) Observe(verb, code int, took time.Duration) {
	if code == 0 {
		code = 200
	}
	place := slices.Index(Codes[:], code)
	if place < 0 {
		place = len(Codes) - 1
	}
	bucket := 0
	for bucket < len(Buckets) && took > Buckets[bucket] {
		bucket++
	}
	v := &t.verbs[verb]
	v.codes[place].Add(1)
	v.buckets[bucket].Add(1)
	v.nanos.Add(uint64(max(took, 0)))
}

// Answers is how many answers of a verb had a code, both by their place in
// the lists.
func (t *Traffic) Answers(verb, code int) uint64 { return t.verbs[verb].codes[code].Load() }

// Latencies are how many answers of a verb were in each bucket, the last
// being above all bounds, and how long all of them took.
func (t *Traffic) Latencies(verb int) (buckets [bucketCount]uint64, sum time.Duration) {
	v := &t.verbs[verb]
	for i := range buckets {
		buckets[i] = v.buckets[i].Load()
	}
	return buckets, time.Duration(v.nanos.Load())
}

// Traffic is what came over NATS.
func (s *Server) Traffic() *Traffic { return &s.traffic }

// observer counts the answers of a verb.
func (t *Traffic) observer(name string) func(code int, took time.Duration) {
	verb := slices.Index(Verbs, name)
	return func(code int, took time.Duration) { t.Observe(verb, code, took) }
}
