package rivertest

import (
	"encoding/json"
	"fmt"
	"strings"

	"lockstep/model"
)

// rows makes random rows and learn events for a spec: the same from a seed on
// every CPU and with every version of Go, for digests are pinned of them.
type rows struct {
	state uint64
	spec  *model.Spec
	// number makes a number within a field's bounds.
	number func(f *model.Field) float64
	seen   int
}

func newRows(s *model.Spec, seed uint64) *rows {
	r := &rows{state: seed, spec: s}
	r.number = r.moderate
	return r
}

// next is splitmix64.
func (r *rows) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// IntN is a number below n.
func (r *rows) IntN(n int) int { return int(r.next() % uint64(n)) }

// Float64 is a number from 0 to below 1.
func (r *rows) Float64() float64 { return float64(r.next()>>11) * 0x1p-53 }

// moderate is a number of the size that data has.
func (r *rows) moderate(f *model.Field) float64 {
	least, most := max(f.Min, -20), min(f.Max, 20)
	switch r.IntN(5) {
	case 0:
		return min(float64(int(least))+float64(r.IntN(int(most-least)+1)), most)
	case 1:
		return min(max(0, least), most)
	}
	return least + float64((most-least)*r.Float64())
}

// extreme is a number that the bounds just allow, or one that is hard.
func (r *rows) extreme(f *model.Field) float64 {
	least, most := max(f.Min, -1e100), min(f.Max, 1e100)
	x := []float64{least, most, 0, 5e-324, -5e-324, 1e-160, -1e-160, 1, -1, most / 3, least / 7, 1e50, -1e50}[r.IntN(13)]
	return min(max(x, least), most)
}

// text is one of more and more values, so that new ones go on coming until
// there is no room for more.
func (r *rows) text(f *model.Field, n int) string {
	special := []string{"None", "", "Z", "_", "é", "😀", "\"", "a_b"}
	if r.IntN(6) == 0 {
		if text := special[r.IntN(len(special))]; len(text) <= f.MaxBytes {
			return text
		}
	}
	text := fmt.Sprint("v", r.IntN(n))
	return text[:min(len(text), f.MaxBytes)]
}

// attributes is a row as JSON.
func (r *rows) attributes() string {
	r.seen++
	var out []string
	for i := range r.spec.Inputs {
		f := &r.spec.Inputs[i]
		var value any
		switch {
		case f.Nullable && r.IntN(6) == 0:
		case f.Type == model.Boolean:
			value = r.IntN(2) == 1
		case f.Type == model.Timestamp:
			value = r.IntN(2e9)
		case f.Type == model.Text:
			value = r.words(f)
		case f.Values != nil:
			value = f.Values[r.IntN(len(f.Values))]
		case f.Type == model.Category:
			value = r.text(f, 2+min(r.seen/8, f.MaxValues)) // a few more than there is room for
		default:
			value = r.number(f)
		}
		out = append(out, fmt.Sprintf("%s:%s", encode(f.Name), encode(value)))
	}
	return "{" + strings.Join(out, ",") + "}"
}

// words is a text of a few words, some of which come again.
func (r *rows) words(f *model.Field) string {
	var out []string
	for range r.IntN(6) {
		out = append(out, r.text(f, 20))
	}
	text := strings.Join(out, " ")
	return strings.ToValidUTF8(text[:min(len(text), f.MaxBytes)], "")
}

// event is a learn event of a class, or where the label is a number one of a
// number that hangs on it.
func (r *rows) event(class int) []byte {
	return fmt.Appendf(nil, `{"attributes":%s,%s:%s}`, r.attributes(), encode(r.spec.Label.Name), r.label(class))
}

func (r *rows) label(class int) string {
	switch f := &r.spec.Label; f.Type {
	case model.Number:
		return encode(min(max(f.Min, float64(class)+r.Float64()), f.Max))
	case model.Boolean:
		return encode(class%2 == 1)
	default:
		return encode(fmt.Sprint("class ", class))
	}
}

// message is a learn event as the log's next message.
func (r *rows) message(seq uint64, class int) model.Message {
	return model.Message{Seq: seq, Subject: model.SubjectLearn, Data: r.event(class)}
}

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}
