package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"lockstep/model/river"
)

const (
	goodAttributes = `{"island":"Torgersen","bill_length_mm":39.1,"bill_depth_mm":18.7,"flipper_length_mm":181,"body_mass_g":3750,"sex":"male"}`
	goodEvent      = `{"attributes":` + goodAttributes + `,"species":"Adelie"}`
)

// tiny is a spec small enough for bodies that fit a line.
func tiny(t testing.TB) *Spec {
	t.Helper()
	s, err := ParseSpec([]byte(`
name: tiny
input:
  x: {type: number, min: -2.5, max: 1e3}
  c: {type: category, nullable: true, max_bytes: 4}
label: {name: y, type: category, max_bytes: 4}
pipeline: GaussianNB
`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valueText is a value as a text that differs for different values.
func valueText(f *Field, v Value) string {
	switch {
	case v.Null:
		return "null"
	case f.Type.IsText():
		return strconv.Quote(string(v.Text))
	default:
		return fmt.Sprint(v.Num) + strings.Repeat(" signed", int(math.Float64bits(v.Num)>>63))
	}
}

// said is a result as a text: the row, or the problems.
func said(s *Spec, row Row, err error) string {
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		return problemLines(invalid.Problems)
	}
	var parts []string
	for i, v := range row {
		parts = append(parts, valueText(&s.Inputs[i], v))
	}
	return strings.Join(parts, " ")
}

func problemLines(problems []Problem) string {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Type + " " + p.String()
	}
	return strings.Join(lines, "\n")
}

func TestAttributesGood(t *testing.T) {
	s := tiny(t)
	d := NewDecoder(s)
	for body, want := range map[string]string{
		`{"x":1,"c":"a"}`:                                  `1 "a"`,
		" \t\r\n{ \"c\" : null , \"x\" : 2 }\n":            `2 null`,
		`{"x":0,"c":""}`:                                   `0 ""`,
		`{"x":-0,"c":"a"}`:                                 `0 "a"`,
		`{"x":-0.0e-7,"c":"a"}`:                            `0 "a"`,
		`{"x":-1e-400,"c":"a"}`:                            `0 "a"`,
		`{"x":-2.5,"c":"a"}`:                               `-2.5 signed "a"`,
		`{"x":1000,"c":"a"}`:                               `1000 "a"`,
		`{"x":1E+3,"c":"a"}`:                               `1000 "a"`,
		`{"x":0.1,"c":"a"}`:                                `0.1 "a"`,
		`{"x":0.30000000000000004,"c":"a"}`:                `0.30000000000000004 "a"`,
		`{"x":0.` + strings.Repeat("3", 398) + `,"c":"a"}`: `0.3333333333333333 "a"`,
		`{"x":1,"c":"éa"}`:                                 `1 "éa"`,
		`{"x":1,"c":"�"}`:                                  "1 \"�\"",
		`{"x":1,"c":"\u00e9\n"}`:                           `1 "é\n"`,
		`{"x":1,"c":"\uD83D\ude00"}`:                       `1 "😀"`,
		`{"x":1,"c":"\"\\\/\b"}`:                           `1 "\"\\/\b"`,
		`{"x":1,"c":"\f\r\t\u0000"}`:                       `1 "\f\r\t\x00"`,
		`{"\u0078":1,"\u0063":"a"}`:                        `1 "a"`,
		`{"X":[1,{"a":[]}],"C":{"x":1e999,"c":true},"":false,"x":1,"c":"a"}`: `1 "a"`,
	} {
		row, err := d.Attributes([]byte(body))
		if got := said(s, row, err); got != want {
			t.Errorf("%s\n got: %s\nwant: %s", body, got, want)
		}
	}
}

func TestAttributesBad(t *testing.T) {
	s := tiny(t)
	d := NewDecoder(s)
	deep := func(n int) string {
		return `{"x":1,"c":"a","extra":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	if _, err := d.Attributes([]byte(deep(MaxDepth - 1))); err != nil {
		t.Errorf("nested as deep as allowed: %v", err)
	}
	for body, want := range map[string]string{
		// Problems: all at once, each with its place.
		`{}`:                 "missing x: Field required\nmissing c: Field required",
		`{"X":1,"c":"a"}`:    "missing x: Field required",
		`{"x":null,"c":"a"}`: "float_type x: Input should be a valid number",
		`{"x":"1","c":1}`:    "float_type x: Input should be a valid number\nstring_type c: Input should be a valid string",
		`{"x":true,"c":{"x":1}}`: "float_type x: Input should be a valid number\n" +
			"string_type c: Input should be a valid string",
		`{"x":-2.5000001,"c":"abcde"}`: "greater_than_equal x: Input should be greater than or equal to -2.5\n" +
			"string_too_long c: String should have at most 4 bytes",
		`{"x":1000.1,"c":"ééé"}`: "less_than_equal x: Input should be less than or equal to 1000\n" +
			"string_too_long c: String should have at most 4 bytes",
		`{"x":1e309,"c":"a"}`:                              "finite_number x: Input should be a finite number",
		`{"x":-1e309,"c":"a"}`:                             "finite_number x: Input should be a finite number",
		`{"x":0.` + strings.Repeat("0", 399) + `,"c":"a"}`: "number_too_long x: Number should have at most 400 characters",
		`[]`:                                "model_attributes_type Input should be a valid dictionary or object to extract fields from",
		`null`:                              "model_attributes_type Input should be a valid dictionary or object to extract fields from",
		`{"x":1,"c":"a","x":1}`:             "duplicate_key x: Key should be given once",
		`{"x":1,"c":"a","\u0078":2}`:        "duplicate_key x: Key should be given once",
		`{"x":1,"c":"a","":0,"":0}`:         `duplicate_key "": Key should be given once`,
		`{"x":1,"c":"a","e":1,"f":1,"e":2}`: "duplicate_key e: Key should be given once",
		`{"x":1,"c":"a","e":[0,{"k":{"l":1,"l":1,"l":1}}]}`: "duplicate_key e.1.k.l: Key should be given once\n" +
			"duplicate_key e.1.k.l: Key should be given once",
		`{"x":{"l":1,"l":1},"c":"a"}`:                       "float_type x: Input should be a valid number\nduplicate_key x.l: Key should be given once",
		`{"x":1,"c":"a","e":{` + manyKeys(maxKeys+9) + `}}`: "too_many_keys e: Object should have at most 256 keys",
		`{"x":1,"c":"a",` + strings.Repeat(`"`+strings.Repeat("é", 99)+`":0,`, 2) + `"e":0}`: "duplicate_key " +
			strings.Repeat("é", 32) + "…: Key should be given once",
		`{"x":1,"c":"a",` + strings.Repeat(`"a`+strings.Repeat("é", 99)+`":0,`, 2) + `"e":0}`: "duplicate_key a" +
			strings.Repeat("é", 31) + "…: Key should be given once",

		// Syntax errors: one, with its byte.
		``:                         "json_invalid Invalid JSON: expected a value at byte 0",
		"\ufeff" + `{}`:            "json_invalid Invalid JSON: expected a value at byte 0",
		"\x00":                     "json_invalid Invalid JSON: expected a value at byte 0",
		`{"x":1,"c":"a"`:           "json_invalid Invalid JSON: expected a comma or '}' at byte 14",
		`{"x":1,"c":"a"}x`:         "json_invalid Invalid JSON: expected the end at byte 15",
		`{"x":1,"c":"a"}` + "\x00": "json_invalid Invalid JSON: expected the end at byte 15",
		`{"x":1,"c":"a",}`:         "json_invalid Invalid JSON: expected a value after the comma at byte 15",
		`{,"x":1}`:                 "json_invalid Invalid JSON: expected a key in double quotes at byte 1",
		`{x:1}`:                    "json_invalid Invalid JSON: expected a key in double quotes at byte 1",
		`{'x':1}`:                  "json_invalid Invalid JSON: expected a key in double quotes at byte 1",
		`{"x" 1}`:                  "json_invalid Invalid JSON: expected a colon at byte 5",
		`{"x":}`:                   "json_invalid Invalid JSON: expected a value at byte 5",
		`{"x":01}`:                 "json_invalid Invalid JSON: expected a comma or '}' at byte 6",
		`{"x":-}`:                  "json_invalid Invalid JSON: expected a digit at byte 6",
		`{"x":+1}`:                 "json_invalid Invalid JSON: expected a value at byte 5",
		`{"x":1.}`:                 "json_invalid Invalid JSON: expected a digit at byte 7",
		`{"x":.5}`:                 "json_invalid Invalid JSON: expected a value at byte 5",
		`{"x":1e}`:                 "json_invalid Invalid JSON: expected a digit at byte 7",
		`{"x":0x1}`:                "json_invalid Invalid JSON: expected a comma or '}' at byte 6",
		`{"x":1_0}`:                "json_invalid Invalid JSON: expected a comma or '}' at byte 6",
		`{"x":NaN}`:                "json_invalid Invalid JSON: expected a value at byte 5",
		`{"x":-Infinity}`:          "json_invalid Invalid JSON: expected a digit at byte 6",
		`{"c":nul}`:                "json_invalid Invalid JSON: expected null at byte 5",
		`{"e":tru`:                 "json_invalid Invalid JSON: expected true at byte 5",
		`{"e":fals}`:               "json_invalid Invalid JSON: expected false at byte 5",
		`{"e":[1,]}`:               "json_invalid Invalid JSON: expected a value after the comma at byte 8",
		`{"e":[1 2]}`:              "json_invalid Invalid JSON: expected a comma or ']' at byte 8",
		`{"c":"a`:                  "json_invalid Invalid JSON: expected the end of a string at byte 7",
		`{"c":"\`:                  `json_invalid Invalid JSON: expected an escape: \" \\ \/ \b \f \n \r \t or \u at byte 6`,
		`{"c":"\x"}`:               `json_invalid Invalid JSON: expected an escape: \" \\ \/ \b \f \n \r \t or \u at byte 6`,
		"{\"c\":\"a\nb\"}":         "json_invalid Invalid JSON: expected no control character in a string at byte 7",
		"{\"c\":\"\\t\x1f\"}":      "json_invalid Invalid JSON: expected no control character in a string at byte 8",
		"{\"c\":\"a\xff\"}":        "json_invalid Invalid JSON: expected UTF-8 at byte 7",
		"{\"c\":\"\xed\xa0\x80\"}": "json_invalid Invalid JSON: expected UTF-8 at byte 6",
		"{\"c\":\"\xc0\x80\"}":     "json_invalid Invalid JSON: expected UTF-8 at byte 6",
		"{\"\xff\":1}":             "json_invalid Invalid JSON: expected UTF-8 at byte 2",
		`{"c":"\ud800"}`:           "json_invalid Invalid JSON: expected four hexadecimal digits of a whole character at byte 6",
		`{"c":"\udc00\ud800"}`:     "json_invalid Invalid JSON: expected four hexadecimal digits of a whole character at byte 6",
		`{"c":"\ud800\ud800"}`:     "json_invalid Invalid JSON: expected four hexadecimal digits of a whole character at byte 6",
		`{"c":"\u12"}`:             "json_invalid Invalid JSON: expected four hexadecimal digits of a whole character at byte 6",
		`{"c":"\u+123"}`:           "json_invalid Invalid JSON: expected four hexadecimal digits of a whole character at byte 6",
		deep(MaxDepth): "json_invalid Invalid JSON: expected at most 32 arrays and objects in each other at " +
			"byte 54",
	} {
		row, err := d.Attributes([]byte(body))
		if got := said(s, row, err); got != want {
			t.Errorf("%s\n got: %s\nwant: %s", body, got, want)
		}
	}
}

// manyKeys is n members with keys of their own.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `%s"k%d":0`, ","[:min(i, 1)], i)
	}
	return b.String()
}

// learned is what Learn says, as a text: a line for each good event, and for
// each problem of a bad one.
func learned(s *Spec, events []Event, batch bool, err error) string {
	if err != nil {
		return said(s, nil, err)
	}
	var b strings.Builder
	for _, e := range events {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		if len(e.Problems) > 0 {
			b.WriteString(problemLines(e.Problems))
			continue
		}
		fmt.Fprintf(&b, "%s -> %s", said(s, e.Row, nil), valueText(&s.Label, e.Label))
		if e.ID != nil {
			fmt.Fprintf(&b, " id %q", e.ID)
		}
	}
	if batch {
		return "[" + b.String() + "]"
	}
	return b.String()
}

func TestLearn(t *testing.T) {
	s := tiny(t)
	d := NewDecoder(s)
	for body, want := range map[string]string{
		`{"attributes":{"x":1,"c":"a"},"y":"b"}`:                                                    `1 "a" -> "b"`,
		`{"y":"","id":null,"Id":5,"attributes":{"x":1,"c":null}}`:                                   `1 null -> ""`,
		`{"y":"b","id":"\u0041","attributes":{"x":1,"c":"a","y":0}}`:                                `1 "a" -> "b" id "A"`,
		`[{"attributes":{"x":1,"c":"a"},"y":"b"},{"attributes":{"x":2,"c":null},"y":"c","id":"7"}]`: "[1 \"a\" -> \"b\"\n2 null -> \"c\" id \"7\"]",

		`{}`:     "missing attributes: Field required\nmissing y: Field required",
		`[{},7]`: "[missing 0.attributes: Field required\nmissing 0.y: Field required\nmodel_attributes_type 1: Input should be a valid dictionary or object to extract fields from]",
		`[[{}]]`: "[model_attributes_type 0: Input should be a valid dictionary or object to extract fields from]",
		`{"attributes":[],"y":null}`: "model_attributes_type attributes: Input should be a valid dictionary or object to extract fields from\n" +
			"string_type y: Input should be a valid string",
		`{"attributes":{"c":"a"},"y":"abcde","id":""}`: "missing attributes.x: Field required\n" +
			"string_too_long y: String should have at most 4 bytes\n" +
			"string_too_short id: String should have at least 1 byte",
		`{"attributes":{"x":1,"c":"a"},"y":"b","id":7}`:                                  "string_type id: Input should be a valid string",
		`{"attributes":{"x":1,"c":"a"},"y":"b","id":"` + strings.Repeat("i", 257) + `"}`: "string_too_long id: String should have at most 256 bytes",
		`{"attributes":{"x":1,"c":"a"},"y":"b","attributes":{}}`: "duplicate_key attributes: Key should be given once\n" +
			"missing attributes.x: Field required\nmissing attributes.c: Field required",
		`[{"attributes":{"x":1,"c":"a","x":2},"y":"b"},{"attributes":{"x":3,"c":"a"},"y":"b"}]`: "[duplicate_key 0.attributes.x: Key should be given once\n3 \"a\" -> \"b\"]",

		`{"attributes":{"x":1,"c":"a"},"y":"b","id":"` + strings.Repeat("i", 256) + `"}`: `1 "a" -> "b" id "` + strings.Repeat("i", 256) + `"`,

		// Bad as a whole.
		`[]`:   "too_short List should have at least 1 item after validation, not 0",
		`7`:    "model_attributes_type Input should be a valid dictionary or object to extract fields from",
		`"x"`:  "model_attributes_type Input should be a valid dictionary or object to extract fields from",
		``:     "json_invalid Invalid JSON: expected a value at byte 0",
		`[`:    "json_invalid Invalid JSON: expected a value at byte 1",
		`[{},`: "json_invalid Invalid JSON: expected a value at byte 4",
		`[{"attributes":{"x":1,"c":"a"},"y":"b"}]]`:              "json_invalid Invalid JSON: expected the end at byte 40",
		`[{"attributes":{"x":1,"c":"a"},"y":"b"},{"}]`:           "json_invalid Invalid JSON: expected the end of a string at byte 44",
		`[` + strings.Repeat(`{},`, MaxBatch) + `{"a":0,"a":0}]`: "too_long List should have at most 1000 items after validation, not 1001",
		`[` + strings.Repeat(`{},`, MaxBatch) + `{]`:             "json_invalid Invalid JSON: expected a key in double quotes at byte 3002",
	} {
		events, batch, err := d.Learn([]byte(body))
		if got := learned(s, events, batch, err); got != want {
			t.Errorf("%.200s\n got: %s\nwant: %s", body, got, want)
		}
		if wantBatch := strings.HasPrefix(body, "["); batch != wantBatch {
			t.Errorf("%.200s: batch is %t", body, batch)
		}
	}
}

func TestLargestBatch(t *testing.T) {
	s := DefaultSpec()
	d := NewDecoder(s)
	body := "[" + goodEvent + strings.Repeat(","+goodEvent, MaxBatch-1) + "]"
	events, batch, err := d.Learn([]byte(body))
	if err != nil || !batch || len(events) != MaxBatch {
		t.Fatalf("%d events, batch %t, %v", len(events), batch, err)
	}
	want, err := NewDecoder(s).Attributes([]byte(goodAttributes))
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if got := said(s, events[i].Row, nil); got != said(s, want, nil) || string(events[i].Label.Text) != "Adelie" {
			t.Fatalf("event %d: %s", i, got)
		}
	}
}

func TestManyProblems(t *testing.T) {
	d := NewDecoder(tiny(t))
	// Each bad element has four problems; 16 of them fill the list.
	events, _, err := d.Learn([]byte("[" + strings.Repeat(`{"attributes":{},"y":7,"id":7},`, 20) + `{}]`))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		var types []string
		for _, p := range e.Problems {
			types = append(types, p.Type)
			if p.Loc[0] != i {
				t.Errorf("event %d: %v", i, p.Loc)
			}
		}
		want := "missing missing string_type string_type"
		if i >= 16 {
			want = "missing too_many_problems"
		}
		if got := strings.Join(types, " "); got != want {
			t.Errorf("event %d: %s, want %s", i, got, want)
		}
	}

	_, err = d.Attributes([]byte(`{"e":{` + strings.Repeat(`"k":0,`, 100) + `"l":0}}`))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != maxProblems+1 {
		t.Fatalf("%d problems, want %d", len(invalid.Problems), maxProblems+1)
	}
	if last := invalid.Problems[maxProblems]; last.Type != "too_many_problems" || len(last.Loc) != 0 {
		t.Errorf("the last one is %v", last)
	}

	// The count begins again with each text.
	if _, err := d.Attributes([]byte(`{"x":1,"c":"a"}`)); err != nil {
		t.Error(err)
	}
}

func TestInvalidError(t *testing.T) {
	_, err := NewDecoder(tiny(t)).Attributes([]byte(`{"x":-7}`))
	want := "x: Input should be greater than or equal to -2.5 (and 1 more)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("%T", err)
	}
	if got := (&InvalidError{invalid.Problems[1:]}).Error(); got != "c: Field required" {
		t.Errorf("got %s", got)
	}
	got, err := json.Marshal(invalid.Problems[1])
	if want := `{"loc":["c"],"msg":"Field required","type":"missing"}`; err != nil || string(got) != want {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
	line := Problem{Loc: []any{3, "é b", "c\r\nd", `e"`}, Msg: "m"}.String()
	if want := `3.é b."c\r\nd"."e\"": m`; line != want {
		t.Errorf("got %s, want %s", line, want)
	}
	p := Problem{Loc: []any{}, Msg: "m", Type: "t"}
	if got, _ := json.Marshal(p); string(got) != `{"loc":[],"msg":"m","type":"t"}` || p.String() != "m" {
		t.Errorf("%s %s", got, p)
	}
}

// TestViews holds that a text is right although others were unescaped before
// and after it, into the same scratch.
func TestViews(t *testing.T) {
	s := tiny(t)
	d := NewDecoder(s)
	one := `{"attributes":{"\u0063":"\u00%02x\\","x":1},"y":"\u00%02x\""}`
	var body []byte
	for i := range 100 {
		body = fmt.Appendf(append(body, "[,"[min(i, 1)]), one, i+0x20, i+0x10)
	}
	events, _, err := d.Learn(append(body, ']'))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		text, label := string(rune(i+0x20))+`\`, string(rune(i+0x10))+`"`
		if string(e.Row[1].Text) != text || string(e.Label.Text) != label {
			t.Errorf("event %d: %q %q, want %q %q", i, e.Row[1].Text, e.Label.Text, text, label)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	d := NewDecoder(DefaultSpec())
	escaped := strings.Replace(goodEvent, "Torgersen", `Torg\u0065rsen`, 1)
	event, batch, attributes := []byte(
		escaped,
	), []byte(
		"["+goodEvent+strings.Repeat(","+escaped, 99)+"]",
	), []byte(
		goodAttributes,
	)
	run := func(name string, f func() error) {
		if n := testing.AllocsPerRun(100, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	run("attributes", func() error { _, err := d.Attributes(attributes); return err })
	run("event", func() error { _, _, err := d.Learn(event); return err })
	run("batch", func() error { _, _, err := d.Learn(batch); return err })
}

func TestQuickIsParseFloat(t *testing.T) {
	check := func(text string) {
		got, ok := quick([]byte(text))
		want, err := strconv.ParseFloat(text, 64)
		if ok && (err != nil || math.Float64bits(got) != math.Float64bits(want)) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
		if !ok && len(text) <= 15 && !strings.ContainsAny(text, "eE") {
			t.Errorf("%s: not quick", text)
		}
	}
	for _, text := range []string{"0", "-0", "-0.0", "999999999999999", "9999999999999999", "0.0000000000001", "-99.99999999999", "1e5", "0.1"} {
		check(text)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		text := strconv.FormatUint(rng.Uint64()>>(1+rng.IntN(63)), 10)
		if at := 1 + rng.IntN(len(text)); at < len(text) {
			text = text[:at] + "." + text[at:]
		}
		check(text)
		check("-" + text)
	}
}

func TestAppendLearn(t *testing.T) {
	s := tiny(t)
	row := Row{{Num: -2.5}, {Text: []byte("\"\\\n<é")}}
	got := string(AppendLearn([]byte("> "), s, row, Value{Text: []byte("\x7f/")}, []byte("a\x1f")))
	want := `> {"attributes":{"x":-2.5,"c":"\"\\\u000a<é"},"y":"` + "\x7f" + `/","id":"a\u001f"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := AppendLearn(nil, s, row, Value{}, []byte{}); !bytes.HasSuffix(got, []byte(`"id":""}`)) {
		t.Errorf("an empty id, which is refused, became none: %s", got)
	}
	row[1] = Value{Null: true}
	got, want = string(AppendLearn(nil, s, row, Value{}, nil)), `{"attributes":{"x":-2.5,"c":null},"y":""}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []Row{{{Num: math.NaN()}, {Null: true}}, {{Num: math.Inf(1)}, {Null: true}}, {{Num: 1}, {Text: []byte("\xff")}}} {
		body := AppendLearn(nil, s, bad, Value{}, nil)
		if _, _, err := NewDecoder(s).Learn(body); err == nil {
			t.Errorf("%s is learned", body)
		}
	}
}

func TestAppendNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", -2.5: "-2.5", 1e20: "100000000000000000000", 1e21: "1e+21", -1e21: "-1e+21",
		1e-6: "0.000001", 9e-7: "9e-07", -9e-7: "-9e-07", 0.1: "0.1", math.MaxFloat64: "1.7976931348623157e+308", 5e-324: "5e-324",
	} {
		if got := string(river.AppendNumber(nil, v)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The twin: a slow reader on another JSON library, which builds a tree and
// then walks it. It says what the decoder should say.

type node struct {
	kind     jsontext.Kind
	text     string // of a string, unescaped; of a number, as written
	keys     []string
	children []node
}

func parseTree(data []byte) (node, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	tree, err := parseNode(dec)
	if err != nil {
		return tree, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return tree, fmt.Errorf("after the value: %w", cmp.Or(err, errors.New("a token")))
	}
	return tree, nil
}

func parseNode(dec *jsontext.Decoder) (node, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return node{}, err
	}
	n := node{kind: token.Kind()}
	switch n.kind {
	case '"', '0':
		n.text = token.String()
	case '{', '[':
		if dec.StackDepth() > MaxDepth {
			return n, errors.New("too deep")
		}
		for dec.PeekKind() != '}' && dec.PeekKind() != ']' {
			if n.kind == '{' {
				key, err := dec.ReadToken()
				if err != nil {
					return n, err
				}
				n.keys = append(n.keys, key.String())
			}
			child, err := parseNode(dec)
			if err != nil {
				return n, err
			}
			n.children = append(n.children, child)
		}
		_, err = dec.ReadToken()
	}
	return n, err
}

// twin walks a tree and notes problems as "type place".
type twin struct {
	spec     *Spec
	problems []string
}

func (w *twin) note(kind string, loc []any) {
	w.problems = append(w.problems, kind+fmt.Sprint(loc))
}

func at(loc []any, part any) []any { return append(slices.Clone(loc), part) }

// members calls value for each member, after checking its key.
func (w *twin) members(n node, loc []any, value func(key string, child node, loc []any)) {
	had := map[string]bool{}
	for i, key := range n.keys {
		within := at(loc, shown([]byte(key)))
		if i == maxKeys {
			w.note("too_many_keys", loc)
		} else if i < maxKeys && had[key] {
			w.note("duplicate_key", within)
		}
		had[key] = true
		value(key, n.children[i], within)
	}
}

func (w *twin) extra(n node, loc []any) {
	if n.kind == '{' {
		w.members(n, loc, func(_ string, child node, loc []any) { w.extra(child, loc) })
		return
	}
	for i, child := range n.children {
		w.extra(child, at(loc, i))
	}
}

func (w *twin) mistyped(kind string, n node, loc []any) {
	w.note(kind, loc)
	w.extra(n, loc)
}

func (w *twin) value(f *Field, n node, loc []any) Value {
	switch {
	case n.kind == 'n' && f.Nullable:
		return Value{Null: true}
	case f.Type.IsText():
		return w.textValue(f, n, loc)
	case f.Type == Boolean && (n.kind == 't' || n.kind == 'f'):
		return Value{Num: map[bool]float64{true: 1}[n.kind == 't']}
	case f.Type == Boolean:
		w.mistyped("bool_type", n, loc)
	case f.Type == Timestamp && n.kind == '"':
		return w.moment(n, loc)
	case n.kind == '0':
		v, err := strconv.ParseFloat(n.text, 64)
		switch {
		case len(n.text) > maxNumeral:
			w.note("number_too_long", loc)
		case err != nil:
			w.note("finite_number", loc)
		case v < f.Min:
			w.note("greater_than_equal", loc)
		case v > f.Max:
			w.note("less_than_equal", loc)
		}
		return Value{Num: v + 0}
	case f.Type == Timestamp:
		w.mistyped("datetime_type", n, loc)
	default:
		w.mistyped("float_type", n, loc)
	}
	return Value{}
}

// textValue is what value gives for a text or a category.
func (w *twin) textValue(f *Field, n node, loc []any) Value {
	integer := f.Integers && n.kind == '0'
	switch {
	case integer && !regexp.MustCompile(`^(0|-?[1-9][0-9]{0,14})$`).MatchString(n.text):
		w.note("int_type", loc)
	case n.kind != '"' && !integer:
		w.mistyped("string_type", n, loc)
	case len(n.text) > f.MaxBytes && !integer:
		w.note("string_too_long", loc)
	case f.Values != nil && !slices.Contains(f.Values, n.text):
		w.note("literal_error", loc)
	default:
		return Value{Text: []byte(n.text)}
	}
	return Value{}
}

// strictMoment refuses what time.Parse lets pass: an hour of one digit, and a
// comma before the fraction.
var strictMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\d([T ]\d\d:[^,]*)?$`)

// moment reads a timestamp by the standard library.
func (w *twin) moment(n node, loc []any) Value {
	text := strings.ToUpper(n.text)
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		for _, zone := range []string{"", "Z07:00"} {
			t, err := time.Parse(layout+zone, strings.Replace(text, " ", "T", 1))
			if err == nil && t.Unix() >= minTimestamp && t.Unix() <= maxTimestamp && layout+zone != "2006-01-02Z07:00" &&
				strictMoment.MatchString(text) {
				return Value{Num: float64(t.Unix()) + float64(t.Nanosecond()/1000)/1e6}
			}
		}
	}
	w.note("datetime_parsing", loc)
	return Value{}
}

func (w *twin) attributes(n node, loc []any) Row {
	if n.kind != '{' {
		w.mistyped("model_attributes_type", n, loc)
		return nil
	}
	row := make(Row, len(w.spec.Inputs))
	seen := map[string]bool{}
	w.members(n, loc, func(key string, child node, loc []any) {
		i := slices.IndexFunc(w.spec.Inputs, func(f Field) bool { return f.Name == key })
		if seen[key] = true; i < 0 {
			w.extra(child, loc)
		} else {
			row[i] = w.value(&w.spec.Inputs[i], child, loc)
		}
	})
	for i, f := range w.spec.Inputs {
		switch {
		case seen[f.Name]:
		case f.Optional:
			row[i].Null = true
		default:
			w.note("missing", at(loc, f.Name))
		}
	}
	return row
}

func (w *twin) event(n node, loc []any) (e Event) {
	if n.kind != '{' {
		w.mistyped("model_attributes_type", n, loc)
		return e
	}
	seen := map[string]bool{}
	w.members(n, loc, func(key string, child node, loc []any) {
		switch seen[key] = true; key {
		case "attributes":
			e.Row = w.attributes(child, loc)
		case w.spec.Label.Name:
			e.Label = w.value(&w.spec.Label, child, loc)
		case "id":
			v := w.value(&Field{Type: Category, Nullable: true, MaxBytes: maxID}, child, loc)
			if e.ID = v.Text; !v.Null && child.kind == '"' && len(v.Text) == 0 {
				w.note("string_too_short", loc)
			}
		default:
			w.extra(child, loc)
		}
	})
	for _, key := range []string{"attributes", w.spec.Label.Name} {
		if !seen[key] {
			w.note("missing", at(loc, key))
		}
	}
	return e
}

// good is a good event as a text, bad the problems of a bad one.
func good(s *Spec, row Row, label Value, id []byte) string {
	return fmt.Sprintf("good %s %s %q %t\n", said(s, row, nil), valueText(&s.Label, label), id, id == nil)
}

func bad(problems []string) string {
	if len(problems) > maxProblems {
		return "bad, very\n" // what is listed then has a test of its own
	}
	return "bad " + strings.Join(problems, " ") + "\n"
}

func kinds(problems []Problem) []string {
	var out []string
	for _, p := range problems {
		if p.Type == "json_invalid" {
			return []string{p.Type}
		}
		out = append(out, p.Type+fmt.Sprint(p.Loc))
	}
	return out
}

func (w *twin) sayAttributes(data []byte) string {
	tree, err := parseTree(data)
	if err != nil {
		return bad([]string{"json_invalid"})
	}
	row := w.attributes(tree, []any{})
	if len(w.problems) > 0 {
		return bad(w.problems)
	}
	return good(w.spec, row, Value{}, nil)
}

func (w *twin) sayLearn(data []byte) string {
	tree, err := parseTree(data)
	switch n := len(tree.children); {
	case err != nil:
		return bad([]string{"json_invalid"})
	case tree.kind != '[':
		return w.sayEvent(tree, []any{})
	case n == 0:
		return bad([]string{"too_short[]"})
	case n > MaxBatch:
		return bad([]string{"too_long[]"})
	}
	var b strings.Builder
	total := 0
	for i, child := range tree.children {
		b.WriteString(w.sayEvent(child, []any{i}))
		total += len(w.problems)
		w.problems = nil
	}
	if total > maxProblems {
		return "bad, very\n"
	}
	return b.String()
}

func (w *twin) sayEvent(n node, loc []any) string {
	e := w.event(n, loc)
	if len(w.problems) > 0 {
		return bad(w.problems)
	}
	return good(w.spec, e.Row, e.Label, e.ID)
}

func sayAttributes(d *Decoder, data []byte) string {
	row, err := d.Attributes(data)
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		return bad(kinds(invalid.Problems))
	}
	return good(d.spec, row, Value{}, nil)
}

func sayLearn(d *Decoder, data []byte) string {
	events, _, err := d.Learn(data)
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		return bad(kinds(invalid.Problems))
	}
	var b strings.Builder
	for _, e := range events {
		if slices.ContainsFunc(e.Problems, func(p Problem) bool { return p.Type == "too_many_problems" }) {
			return "bad, very\n"
		}
		if len(e.Problems) > 0 {
			b.WriteString(bad(kinds(e.Problems)))
		} else {
			b.WriteString(good(d.spec, e.Row, e.Label, e.ID))
		}
	}
	return b.String()
}

// strict is a decoder like d that takes no input for plainly spelled.
func strict(d *Decoder) *Decoder {
	s := NewDecoder(d.spec)
	s.plain = plainKeys{}
	return s
}

// compareAttributes holds the decoder against the twin, and against jsontext
// with its own check of duplicate names.
func compareAttributes(t *testing.T, d *Decoder, data []byte) string {
	t.Helper()
	got, want := sayAttributes(d, data), (&twin{spec: d.spec}).sayAttributes(data)
	if strict := sayAttributes(strict(d), data); got != want || strict != want {
		t.Errorf("%q\n   got: %s\nstrict: %s\n  want: %s", data, got, strict, want)
	}
	compareStrict(t, data, got)
	return got
}

func compareLearn(t *testing.T, d *Decoder, data []byte) string {
	t.Helper()
	got, want := sayLearn(d, data), (&twin{spec: d.spec}).sayLearn(data)
	if strict := sayLearn(strict(d), data); got != want || strict != want {
		t.Errorf("%q\n   got: %s\nstrict: %s\n  want: %s", data, got, strict, want)
	}
	compareStrict(t, data, got)
	return got
}

func compareStrict(t *testing.T, data []byte, got string) {
	t.Helper()
	if strings.Contains(got, "very") || strings.Contains(got, "too_") || strings.Contains(got, "json_invalid") {
		return // the limits are our own
	}
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	_, err := dec.ReadValue()
	if strings.Contains(got, "duplicate_key") != (err != nil) {
		t.Errorf("%q: %s, but jsontext: %v", data, got, err)
	}
}

var (
	aScalar = regexp.MustCompile(`"[^"]*"|-?[0-9][0-9.eE+-]*|null|true|false`)
	aValue  = []string{
		`1`, `-0`, `0.25`, `1e3`, `1e5`, `-2.5`, `-2.6`, `1e999`, `0.1234567890123456789`, `12345678901234567890`, `null`, `true`, `false`, `"a"`, `""`, `"id"`, `"x"`, `"c"`,
		`"abcdef"`, `"\u0061"`, `"\u0078"`, `"\ud83d\ude00"`, `"é"`, `{}`, `[]`, `[[{"x":1}]]`, `{"e":0,"e":1}`,
	}
	aMember = []string{
		`"x":1`, `"x":-0`, `"c":"a"`, `"c":null`, `"y":"b"`, `"id":"1"`, `"id":""`, `"id":null`, `"":0`,
		`"e":{"e":0,"e":1}`, `"\u0078":2`, `"attributes":{"x":1,"c":"a"}`,
	}
	aPiece = []string{
		`"`, `{`, `}`, `[`, `]`, `,`, `:`, ` `, "\n", "\x00", `\`, `\u0061`, `\ud800`, `\"`, "\xff", "é", `-`,
		`0`, `9`, `.`, `e`, `E+`, `u`,
	}
)

// mutate changes a body, mostly so that it is JSON still.
func mutate(rng *rand.Rand, text string) []byte {
	pick := func(from []string) string { return from[rng.IntN(len(from))] }
	for range 1 + rng.IntN(3) {
		switch rng.IntN(5) {
		case 0, 1: // another value, or key
			if found := aScalar.FindAllStringIndex(text, -1); found != nil {
				at := found[rng.IntN(len(found))]
				text = text[:at[0]] + pick(aValue) + text[at[1]:]
			}
		case 2, 3: // one more member
			from := rng.IntN(len(text) + 1)
			if at := strings.IndexByte(text[from:]+text, '{'); at >= 0 {
				at = (from + at) % len(text)
				text = text[:at+1] + pick(aMember) + "," + text[at+1:]
			}
		case 4: // anything
			from := rng.IntN(len(text) + 1)
			to := min(len(text), from+rng.IntN(3))
			text = text[:from] + pick(aPiece) + text[to:]
		}
	}
	return []byte(text)
}

var (
	attributesSeeds = []string{
		goodAttributes, `{"x":1,"c":"a"}`, `{"x": 12.75, "c": null}`, `{"c":"a","x":1}`, `{"x":-2.5e0,"c":null,"e":[1,{"a":true}]}`, `{"c":"\u00e9\ud83d\ude00","x":0.001}`, `{}`, `[]`, `{"x":1,"x":2,"c":7}`, `{"x":1e400,"c":"abcde"}`,
	}
	learnSeeds = []string{
		goodEvent, `{"attributes":{"x":1,"c":"a"},"y":"b"}`, `{"attributes": {"x": -0.50, "c": "a"}, "y": "b", "id": "7"}`, `{"attributes":{"c":"","x":0.0},"y":"a"}`, `{"y":"b","id":"7","attributes":{"x":1,"c":null},"e":{"a":[0,"\n"]}}`,
		`[{"attributes":{"x":1,"c":"a"},"y":"b"},{"attributes":{"x":2,"c":"b"},"y":"c","id":"1"}]`, `[]`, `[7,{}]`, `null`,
	}
)

func TestDecoderIsItsTwin(t *testing.T) {
	const rounds = 30_000
	rng := rand.New(rand.NewPCG(3, 4))
	d := NewDecoder(tiny(t))
	ways := map[string]int{}
	for i := range rounds {
		var said string
		if i%2 == 0 {
			said = compareAttributes(t, d, mutate(rng, attributesSeeds[rng.IntN(len(attributesSeeds))]))
		} else {
			said = compareLearn(t, d, mutate(rng, learnSeeds[rng.IntN(len(learnSeeds))]))
		}
		for _, way := range []string{
			"good", "json_invalid", "missing", "float_type", "string_type", "duplicate_key", "string_too_long", "string_too_short",
			"less_than_equal", "greater_than_equal", "finite_number", "model_attributes_type", "too_short[]",
		} {
			if strings.Contains(said, way) {
				ways[way]++
			}
		}
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
	t.Log(ways)
	if len(ways) != 13 || ways["good"] < rounds/50 || ways["duplicate_key"] < rounds/200 {
		t.Errorf("the mutations hardly test anything: %v", ways)
	}
}

// TestPlainIsStrict holds every pair of spellings against the strict reader.
func TestPlainIsStrict(t *testing.T) {
	d := NewDecoder(tiny(t))
	numbers := []string{
		"0", "-0", "-0.0", "00", "01", "-01", "1.", "1.0", ".5", "-", "", "1.5.2", "1e3", "1E", "-2.5", "-2.51",
		"1000", "1000.5", "0.0000000000001", "999.99999999999", "999.999999999999", "99999999999999999999",
		"0.1234567890123456789", "null", "true",
	}
	texts := []string{
		`"a"`, `""`, `"abcd"`, `"abcde"`, `"é"`, `"\u0061"`, "\"\x01\"", "\"\xff\"", `"a`, `"a\`, `a`, "null",
		"nul", "1",
	}
	gaps := []string{"", " ", "  ", "\n"}
	for _, number := range numbers {
		for _, text := range texts {
			for _, gap := range gaps {
				x, c := `"x":`+gap+number, `"c":`+gap+text
				for _, pair := range []string{x + "," + gap + c, c + "," + gap + x, x + "," + c + "," + x, x + "," + x, x, x + gap + "," + c, x + "," + c + ",", x + "," + c + `,"e":1`, x + "," + c + `}`} {
					compareAttributes(t, d, []byte("{"+pair+"}"))
					for _, end := range []string{`"y":"b"`, `"y":"abcde"`, `"y":` + text, `"y":"b","id":` + text, `"y":"b","id":"7","id":"7"`, `"id":"7"`} {
						compareLearn(t, d, []byte(`{"attributes":`+gap+"{"+pair+"},"+gap+end+"}"))
					}
				}
			}
		}
	}
}

func FuzzAttributes(f *testing.F) {
	for _, seed := range attributesSeeds {
		f.Add([]byte(seed))
	}
	penguins, small := NewDecoder(DefaultSpec()), NewDecoder(tiny(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		compareAttributes(t, penguins, data)
		compareAttributes(t, small, data)
	})
}

func FuzzLearn(f *testing.F) {
	for _, seed := range learnSeeds {
		f.Add([]byte(seed))
	}
	penguins, small := NewDecoder(DefaultSpec()), NewDecoder(tiny(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		compareLearn(t, penguins, data)
		compareLearn(t, small, data)
		writeAndRead(t, small, data)
	})
}

// writeAndRead holds that what is learned and written is read as the same.
func writeAndRead(t *testing.T, d *Decoder, data []byte) {
	events, _, err := d.Learn(data)
	if err != nil {
		return
	}
	again := NewDecoder(d.spec)
	for _, e := range events {
		if len(e.Problems) > 0 {
			continue
		}
		body := AppendLearn(nil, d.spec, e.Row, e.Label, e.ID)
		if got, want := sayLearn(again, body), good(d.spec, e.Row, e.Label, e.ID); got != want {
			t.Errorf("%q as %q\n got: %s\nwant: %s", data, body, got, want)
		}
	}
}

func BenchmarkAttributes(b *testing.B) {
	d, data := NewDecoder(DefaultSpec()), []byte(goodAttributes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Attributes(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLearnBatch(b *testing.B) {
	d, data := NewDecoder(DefaultSpec()), []byte("["+goodEvent+strings.Repeat(","+goodEvent, MaxBatch-1)+"]")
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, _, err := d.Learn(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/MaxBatch, "ns/event")
}
