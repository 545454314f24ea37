package river

// Frame is one event on its way through a pipeline. A step reads the slots of
// its input columns and writes slots of its own, so the branches of a union
// cannot disturb each other.
type Frame struct {
	Numbers    []Number
	Categories []Category
	Dummies    []Dummies
	Texts      []Text
	// While an event is learned. Of a label that is a category Target is the
	// class, of a boolean both are 0 or 1, and of a number only Y is used.
	Target int
	Y      float64
}

// Number is a number, or null.
type Number struct {
	V    float64
	Null bool
}

// Category is a text: known by its number in the column's Vocab, Unknown, or
// Null.
type Category struct {
	ID   int32
	Text []byte // where ID is Unknown: valid as long as the event
}

// Text is a text of which words are made, or null.
type Text struct {
	V    []byte // valid as long as the event
	Null bool
}

// Dummies are the columns that are 1 of those that an Encoder makes. All others
// are 0, or dropped.
type Dummies struct {
	Known []int32    // keys of the encoder, ascending: in learning order
	Fresh []FreshKey // keys that were never learned, in the order of columns
	// Strange is how many features of the event, 0 or 1, were never handed to
	// the next step in an event that was learned.
	Strange int
}

// FreshKey is a key that an encoder never learned.
type FreshKey struct {
	Text   []byte // valid as long as the event
	Column int32  // of the encoder
}
