package model

// frame is one event on its way through the pipeline. A step reads the slots
// of its input columns and writes slots of its own, so a union's branches
// cannot disturb each other.
type frame struct {
	nums    []number
	cats    []category
	dummies []dummies
}

type number struct {
	v    float64
	null bool
}

type category struct {
	id   int32  // in the column's vocabulary, or unknown, or null
	text []byte // the text itself, where id is unknown
}

// dummies are the non-zero columns of one OneHotEncoder: all others are zero
// or dropped, and a zero adds nothing to any sum.
type dummies struct {
	known []int32      // places in the encoder's keys, ascending: learning order
	fresh []freshDummy // keys never learned, in column order; they are one
}

// freshDummy is a key that was never learned.
type freshDummy struct {
	key    []byte
	column int32 // of the encoder's
}

// transformer is a step that is not the classifier. Like River's pipeline,
// learning an event first updates a step and then transforms the event with
// the updated statistics; predicting only transforms.
type transformer interface {
	learn(f *frame)
	transform(f *frame)
	code(c *coder)             // the step's state; derived fields are rebuilt when reading
	counts(out map[string]any) // see Model.Counts
}

// meanImputer is StatImputer with stats.Mean on one column: a null becomes
// the mean of the values learned so far, 0 before any.
//
// Source: river.preprocessing.StatImputer, river.stats.Mean.
type meanImputer struct {
	name    string
	in, out int
	mean    mean
}

// mean is river.stats.Mean, a running mean.
type mean struct {
	n    uint64
	mean float64
}

func (m *mean) update(x float64) {
	m.n++
	m.mean += float64((1 / float64(m.n)) * (x - m.mean))
}

func (m *mean) code(c *coder) {
	c.u64(&m.n)
	c.f64(&m.mean)
}

func (t *meanImputer) learn(f *frame) {
	if x := f.nums[t.in]; !x.null {
		t.mean.update(x.v)
	}
}

func (t *meanImputer) transform(f *frame) {
	x := f.nums[t.in]
	if x.null {
		x = number{v: t.mean.mean}
	}
	f.nums[t.out] = x
}

func (t *meanImputer) code(c *coder) { t.mean.code(c) }

// modeValues is how many distinct values river.stats.Mode counts; later ones
// are ignored.
const modeValues = 25

// modeImputer is StatImputer with stats.Mode on one column: a null becomes
// the most frequent value, of equals the one seen first, and stays null
// before any.
//
// Source: river.preprocessing.StatImputer, river.stats.Mode(k=25).
type modeImputer struct {
	name    string
	in, out int
	vocab   *vocab   // the column's
	n       []uint64 // by vocabulary number: values are learned in that order
	mode    int32    // derived from n
}

func (t *modeImputer) learn(f *frame) {
	id := f.cats[t.in].id
	if id < 0 || id >= modeValues {
		return
	}
	for int(id) >= len(t.n) {
		t.n = append(t.n, 0)
	}
	t.n[id]++
	t.findMode()
}

func (t *modeImputer) findMode() {
	t.mode = null
	var most uint64
	for id, n := range t.n {
		if n > most {
			t.mode, most = int32(id), n
		}
	}
}

func (t *modeImputer) transform(f *frame) {
	x := f.cats[t.in]
	if x.id == null && t.mode != null {
		x.id = t.mode
	}
	f.cats[t.out] = x
}

func (t *modeImputer) code(c *coder) {
	c.u64s(&t.n)
	if c.reading {
		if len(t.n) > len(t.vocab.texts) || len(t.n) > modeValues {
			c.fail()
			t.n = nil
		}
		t.findMode()
	}
}

// standardScaler is River's StandardScaler on one column: the value less the
// running mean, divided by the running standard deviation (0 where that is 0).
//
// Source: river.preprocessing.StandardScaler (Welford, ddof 0).
type standardScaler struct {
	name     string
	in, out  int
	withStd  bool
	n        uint64
	mean     float64
	variance float64
}

func (t *standardScaler) learn(f *frame) {
	x := f.nums[t.in].v
	t.n++
	n := float64(t.n)
	old := t.mean
	t.mean += (x - old) / n
	if t.withStd {
		t.variance += (float64((x-old)*(x-t.mean)) - t.variance) / n
	}
}

func (t *standardScaler) transform(f *frame) {
	x := f.nums[t.in].v - t.mean
	if t.withStd {
		x = safeDiv(x, sqrt(t.variance))
	}
	f.nums[t.out] = number{v: x}
}

func (t *standardScaler) code(c *coder) {
	c.u64(&t.n)
	c.f64(&t.mean)
	c.f64(&t.variance)
}

// safeDiv is river.preprocessing.scale.safe_div: 0 where b is 0.
func safeDiv(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
