package model

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// everyKind is a spec with an input of each kind and with each option.
func everyKind(t testing.TB) *Spec {
	t.Helper()
	s, err := ParseSpec([]byte(`
name: kinds
input:
  b: {type: boolean}
  at: {type: timestamp, nullable: true}
  n: {type: category, integers: true, max_bytes: 4, overflow: other, max_values: 3}
  v: {type: category, values: [a, b, "1"]}
  w: {type: text, max_bytes: 8, optional: true}
  x: {type: number, optional: true, min: 0, max: 10}
label: {name: y, type: boolean}
pipeline: [{Select: [x]}, GaussianNB]
`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValuesOfEachKind(t *testing.T) {
	d := NewDecoder(everyKind(t))
	row := func(key, value string) string {
		fields := map[string]string{"b": "true", "at": "0", "n": "7", "v": `"a"`, "w": `"é b"`, "x": "1"}
		fields[key] = value
		var out []string
		for _, key := range []string{"b", "at", "n", "v", "w", "x"} {
			if fields[key] != "" {
				out = append(out, `"`+key+`":`+fields[key])
			}
		}
		return "{" + strings.Join(out, ",") + "}"
	}
	for _, c := range []struct{ key, value, want string }{
		{"b", "true", `1 0 "7" "a" "é b" 1`},
		{"b", "false", `0 0 "7" "a" "é b" 1`},
		{"b", "1", "bool_type b: Input should be a valid boolean"},
		{"b", "null", "bool_type b: Input should be a valid boolean"},
		{"at", `"1970-01-02T00:00:00Z"`, `1 86400 "7" "a" "é b" 1`},
		{"at", `"1970-01-02"`, `1 86400 "7" "a" "é b" 1`},
		{"at", `"1970-01-02 00:00"`, `1 86400 "7" "a" "é b" 1`},
		{"at", `"1970-01-01t01:00:00.25+01:00"`, `1 0.25 "7" "a" "é b" 1`},
		{"at", `"2000-02-29T12:00:00-00:30"`, `1 9.518274e+08 "7" "a" "é b" 1`},
		{"at", "null", `1 null "7" "a" "é b" 1`},
		{"at", "12.5", `1 12.5 "7" "a" "é b" 1`},
		{"at", `"1900-02-29"`, "datetime_parsing at: " + momentWanted},
		{"at", `"1970-01-01T24:00:00"`, "datetime_parsing at: " + momentWanted},
		{"at", `"1970-01-01T00:00:00."`, "datetime_parsing at: " + momentWanted},
		{"at", `"yesterday"`, "datetime_parsing at: " + momentWanted},
		{"at", "1e300", "less_than_equal at: Input should be less than or equal to 253402300799"},
		{"at", "true", "datetime_type at: " + momentWanted},
		{"n", `"7"`, `1 0 "7" "a" "é b" 1`},
		{"n", `-123456`, `1 0 "-123456" "a" "é b" 1`},
		{"n", `7.0`, "int_type n: Input should be a text or a whole number of at most 15 digits"},
		{"n", `-0`, "int_type n: Input should be a text or a whole number of at most 15 digits"},
		{"n", `1e3`, "int_type n: Input should be a text or a whole number of at most 15 digits"},
		{"n", `1234567890123456`, "int_type n: Input should be a text or a whole number of at most 15 digits"},
		{"v", `"c"`, "literal_error v: Input should be 'a', 'b' or '1'"},
		{"v", `1`, "string_type v: Input should be a valid string"},
		{"w", "", `1 0 "7" "a" null 1`},
		{"w", `null`, `1 0 "7" "a" null 1`},
		{"w", `"123456789"`, "string_too_long w: String should have at most 8 bytes"},
		{"x", "", `1 0 "7" "a" "é b" null`},
		{"b", "", "missing b: Field required"},
	} {
		body := row(c.key, c.value)
		got, err := d.Attributes([]byte(body))
		if said := said(d.spec, got, err); said != c.want {
			t.Errorf("%s\n got: %s\nwant: %s", body, said, c.want)
		}
	}
}

func TestDecoderOfEachKindIsItsTwin(t *testing.T) {
	const rounds = 30_000
	rng := rand.New(rand.NewPCG(5, 6))
	d := NewDecoder(everyKind(t))
	row := `{"b":true,"at":"2026-01-31T08:30:00.5+02:00","n":7,"v":"a","w":"a b","x":1}`
	rows := []string{
		row, `{"b": false,"at":12.5,"n":"x","v":"1"}`, `{"x":null,"w":null,"v":"b","n":-3,"at":null,"b":true}`,
		`{"at":"1999-12-31 23:59"}`,
	}
	values := []string{
		"true", "false", "null", "7", "-0", "1.5", `"a"`, `"1"`, `"2026-02-30"`, `"2026-01-31"`,
		`"0001-01-01T00:00:00+01:00"`, `"123456789"`,
	}
	ways := map[string]int{}
	for range rounds {
		body := rows[rng.IntN(len(rows))]
		if rng.IntN(2) == 0 {
			body = aScalar.ReplaceAllStringFunc(body, func(old string) string {
				if rng.IntN(6) > 0 {
					return old
				}
				return values[rng.IntN(len(values))]
			})
		} else {
			body = string(mutate(rng, body))
		}
		said := compareAttributes(
			t, d, []byte(body),
		) + compareLearn(
			t, d, []byte(`{"attributes":`+body+`,"y":`+values[rng.IntN(3)]+`}`),
		)
		writeAndRead(t, d, []byte(`{"attributes":`+body+`,"y":true}`))
		for _, way := range []string{"good", "bool_type", "datetime_parsing", "datetime_type", "int_type", "literal_error", "missing"} {
			if strings.Contains(said, way) {
				ways[way]++
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if len(ways) != 7 {
		t.Errorf("the mutations hardly test anything: %v", ways)
	}
}
