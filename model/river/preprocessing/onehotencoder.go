package preprocessing

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"

	"lockstep/model/river"
)

// OneHotEncoder makes a dummy for every category that was learned.
var OneHotEncoder = &river.Class{
	Name:    "OneHotEncoder",
	Source:  "river.preprocessing.OneHotEncoder",
	Summary: "Makes a column `column_value`, 0 or 1, for every value that was learned, and one for the event's own.",
	Task:    river.Transformation,
	Params: []river.Param{river.BoolParam("drop_first", false,
		"leave out the smallest key of the event, by code point; chosen again for each event")},
	Build: buildOneHotEncoder,
}

func buildOneHotEncoder(b *river.Builder) {
	t := &oneHotEncoder{
		out: b.NewSlot(river.DummyColumn), dropFirst: river.Arg[bool](b.Step(), "drop_first"),
		least: river.Unknown,
	}
	b.Out = nil
	bound := 8 + 8 + 8 // n, and the lengths of two lists
	for i := range b.In {
		col := &b.In[i]
		if col.Kind != river.CategoryColumn {
			b.Fail("column %q is %s, and only categories are encoded; put a Select before", col.Name, col.Kind)
			continue
		}
		out := river.Column{Kind: river.DummyColumn, Name: col.Name, Slot: t.out, Encoder: t, Index: int32(len(t.columns))}
		t.ambiguous = t.ambiguous ||
			slices.ContainsFunc(b.Out, func(other river.Column) bool { return river.Meets(&other, &out) })
		b.Out = append(b.Out, out)
		t.columns = append(t.columns, oneHotColumn{
			in: col.Slot, vocab: col.Vocab, name: col.Name, prefix: col.Name + "_", none: river.Unknown,
		})
		keys := col.MaxValues + 1 // null
		t.maxKeys += keys
		bound += keys * (8 + len(col.Name) + 1 + max(col.MaxBytes, len(noneText)) + 8 + 8)
	}
	b.AddTransformer(t, bound)
}

// noneText is how River, through Python, spells a missing value in a key. A
// null and the text "None" are therefore one and the same dummy.
const noneText = "None"

// oneHotEncoder encodes all of a step's columns together. With dropFirst it
// leaves out the smallest key that the event has or that was learned, compared
// by code point, which for UTF-8 is byte order.
type oneHotEncoder struct {
	columns   []oneHotColumn
	out       int // the frame's dummies
	dropFirst bool
	maxKeys   int

	n     uint64      // events learned
	keys  []oneHotKey // in learning order
	since []uint64    // by key: the event in which it was first not dropped, 0 if it still is
	shown []int32     // keys that were not dropped, in the order of the first time; derived from since
	least int32       // the smallest key, or Unknown; derived from keys

	// ambiguous: a key's text alone does not tell its column, for with one
	// column named job and another job_partner both can have job_partner_x.
	// Then the columns of the keys are part of the state.
	ambiguous bool
}

// oneHotKey is a dummy. Its column and value tell it from others; its text,
// which is River's, gives the order in which one is dropped.
type oneHotKey struct {
	text   string // "column_value"
	column int32
}

// before reports whether a key is dropped rather than another: by its text,
// and of equal texts by its column.
func (k oneHotKey) before(text string, column int32) bool {
	return k.text < text || k.text == text && k.column < column
}

type oneHotColumn struct {
	in     int          // the frame's category
	vocab  *river.Vocab // of that column
	name   string
	prefix string  // "column_"
	keys   []int32 // by the value's number: its key, or Unknown; derived
	none   int32   // the key of prefix+"None", or Unknown; derived
	fresh  []byte  // the text of a key that was never learned; scratch
	apart  bool    // keys are named by column and value
}

func (t *oneHotEncoder) Learn(f *river.Frame) {
	t.n++
	shown := len(t.shown)
	for i := range t.columns {
		col := &t.columns[i]
		if x := f.Categories[col.in]; col.key(x) == river.Unknown {
			t.add(int32(i), x.ID)
		}
	}
	slices.Sort(t.shown[shown:])
}

// add learns a new key. A key is dropped for as long as it is the smallest,
// and once it is not, it never is again: the smallest only gets smaller.
func (t *oneHotEncoder) add(column, id int32) {
	col, text := &t.columns[column], noneText
	if id != river.Null {
		text = col.vocab.Texts[id]
	}
	key := int32(len(t.keys))
	t.keys = append(t.keys, oneHotKey{col.prefix + text, column})
	t.since = append(t.since, 0)
	col.remember(key, id, text)
	smallest := t.least == river.Unknown || t.keys[key].before(t.keys[t.least].text, t.keys[t.least].column)
	switch {
	case !t.dropFirst || !smallest:
		t.show(key)
	case t.least != river.Unknown:
		t.show(t.least)
	}
	if smallest {
		t.least = key
	}
}

// show says that a key is handed on from this event on.
func (t *oneHotEncoder) show(key int32) {
	t.since[key] = t.n
	t.shown = append(t.shown, key)
}

func (col *oneHotColumn) remember(key, id int32, text string) {
	if text == noneText {
		col.none = key
	}
	if id == river.Null {
		return
	}
	for int(id) >= len(col.keys) {
		col.keys = append(col.keys, river.Unknown)
	}
	col.keys[id] = key
}

// key finds the key of a value, or Unknown.
func (col *oneHotColumn) key(x river.Category) int32 {
	switch {
	case x.ID >= 0 && int(x.ID) < len(col.keys) && col.keys[x.ID] != river.Unknown:
		return col.keys[x.ID]
	case x.ID == river.Null,
		x.ID >= 0 && col.vocab.Texts[x.ID] == noneText,
		x.ID == river.Unknown && string(x.Text) == noneText:
		return col.none
	}
	return river.Unknown
}

func (t *oneHotEncoder) Transform(f *river.Frame) {
	out := &f.Dummies[t.out]
	out.Known, out.Fresh = out.Known[:0], out.Fresh[:0]
	for i := range t.columns {
		col := &t.columns[i]
		x := f.Categories[col.in]
		if key := col.key(x); key != river.Unknown {
			out.Known = append(out.Known, key)
		} else {
			out.Fresh = append(out.Fresh, river.FreshKey{Text: col.freshText(x), Column: int32(i)})
		}
	}
	slices.Sort(out.Known)
	out.Strange = len(out.Fresh)
	if t.dropFirst {
		t.drop(out)
	}
}

// freshText makes the text of a key that was never learned.
func (col *oneHotColumn) freshText(x river.Category) []byte {
	col.fresh = append(col.fresh[:0], col.prefix...)
	switch {
	case x.ID == river.Null:
		col.fresh = append(col.fresh, noneText...)
	case x.ID >= 0:
		col.fresh = append(col.fresh, col.vocab.Texts[x.ID]...)
	default:
		col.fresh = append(col.fresh, x.Text...)
	}
	return col.fresh
}

// drop leaves out the smallest key of the event: a fresh one if that is
// smaller than all learned ones, else the smallest learned one. Whichever it
// is, the next step never learned it; if it is a fresh one, the smallest
// learned one takes its place among the features that are strange to that step.
func (t *oneHotEncoder) drop(out *river.Dummies) {
	smallest := -1
	for i, key := range out.Fresh {
		if smallest < 0 || bytes.Compare(key.Text, out.Fresh[smallest].Text) < 0 {
			smallest = i
		}
	}
	if smallest >= 0 && t.isSmallest(&out.Fresh[smallest]) {
		out.Fresh = slices.Delete(out.Fresh, smallest, smallest+1)
		if t.least == river.Unknown {
			out.Strange--
		}
	} else if i, found := slices.BinarySearch(out.Known, t.least); found {
		out.Known = slices.Delete(out.Known, i, i+1)
	}
}

// isSmallest reports whether a fresh key is smaller than all learned ones.
func (t *oneHotEncoder) isSmallest(key *river.FreshKey) bool {
	if t.least == river.Unknown {
		return true
	}
	k := &t.keys[t.least]
	return string(key.Text) < k.text || string(key.Text) == k.text && key.Column < k.column
}

func (t *oneHotEncoder) Shown() []int32         { return t.shown }
func (t *oneHotEncoder) Since(key int32) uint64 { return t.since[key] }
func (t *oneHotEncoder) MaxKeys() int           { return t.maxKeys }

func (t *oneHotEncoder) Rest() string {
	var names []string
	for i := range t.columns {
		names = append(names, t.columns[i].name)
	}
	return strings.Join(names, ", ") + ": other values"
}

func (t *oneHotEncoder) TellApart(column int32) { t.columns[column].apart = true }

func (t *oneHotEncoder) Feature(key int32) string {
	return t.columns[t.keys[key].column].feature(t.keys[key].text)
}

func (t *oneHotEncoder) FreshFeature(key *river.FreshKey) string {
	return t.columns[key.Column].feature(string(key.Text))
}

// feature names a key for people: River's text, or column and value apart.
func (col *oneHotColumn) feature(text string) string {
	if !col.apart {
		return text
	}
	name := col.name
	if quoted := strconv.Quote(name); len(quoted) != len(name)+2 || strings.Contains(name, "=") {
		name = quoted
	}
	return name + "=" + strconv.Quote(text[len(col.prefix):])
}

// Code reads after the columns' vocabularies, which the keys refer to.
func (t *oneHotEncoder) Code(s *river.State) {
	s.U64(&t.n)
	n := s.Length(len(t.keys), 8)
	if s.Reading() {
		t.keys = make([]oneHotKey, n)
	}
	for i := range t.keys {
		s.Text(&t.keys[i].text)
	}
	s.U64s(&t.since)
	for i := range t.keys {
		if k := &t.keys[i]; t.ambiguous {
			s.I32(&k.column)
		} else if s.Reading() {
			k.column = t.columnOf(k.text)
		}
	}
	if s.Reading() {
		t.rebuild(s)
	}
}

// columnOf is the only column that a key can be of.
func (t *oneHotEncoder) columnOf(key string) int32 {
	return int32(slices.IndexFunc(t.columns, func(col oneHotColumn) bool { return strings.HasPrefix(key, col.prefix) }))
}

// rebuild derives what follows from the keys.
func (t *oneHotEncoder) rebuild(s *river.State) {
	for i := range t.columns {
		t.columns[i].keys, t.columns[i].none = nil, river.Unknown
	}
	t.least, t.shown = river.Unknown, nil
	if len(t.since) != len(t.keys) || len(t.keys) > t.maxKeys {
		s.Fail()
		t.keys, t.since = nil, nil
		return
	}
	seen := make(map[oneHotKey]bool, len(t.keys))
	for i, k := range t.keys {
		if k.column < 0 || int(k.column) >= len(t.columns) || !strings.HasPrefix(k.text, t.columns[k.column].prefix) ||
			seen[k] {
			s.Fail()
			return
		}
		seen[k] = true
		if t.least == river.Unknown || k.before(t.keys[t.least].text, t.keys[t.least].column) {
			t.least = int32(i)
		}
		t.columns[k.column].relearn(int32(i), k.text)
		if t.since[i] > 0 {
			t.shown = append(t.shown, int32(i))
		}
	}
	slices.SortStableFunc(t.shown, func(a, b int32) int { return cmp.Compare(t.since[a], t.since[b]) })
	dropped := 0
	if t.dropFirst && t.least != river.Unknown && t.since[t.least] == 0 {
		dropped = 1
	}
	if len(t.keys)-len(t.shown) != dropped || t.dropFirst && len(t.keys) > 0 && dropped == 0 {
		s.Fail()
	}
}

// relearn derives which value has a key.
func (col *oneHotColumn) relearn(key int32, text string) {
	value := text[len(col.prefix):]
	id := col.vocab.Find([]byte(value))
	if id == river.Unknown { // it was null, and never a text
		id = river.Null
	}
	col.remember(key, id, value)
}

func (t *oneHotEncoder) Report(r river.Report) {
	for i, col := range t.columns {
		keys := []string{}
		for _, k := range t.keys {
			if int(k.column) == i {
				keys = append(keys, k.text)
			}
		}
		r.In("onehot").Set(col.name, keys)
	}
}
