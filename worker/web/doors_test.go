package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lockstep/bus"
)

// row is a good row, with one attribute replaced or, if value is empty, left out.
func row(replaced ...string) string {
	fields := []string{
		"island", `"Biscoe"`, "bill_length_mm", "46.1", "bill_depth_mm", "13.2", "flipper_length_mm", "211",
		"body_mass_g", "4500", "sex", `"female"`,
	}
	var parts []string
	for i := 0; i < len(fields); i += 2 {
		value := fields[i+1]
		for j := 0; j+1 < len(replaced); j += 2 {
			if replaced[j] == fields[i] {
				value = replaced[j+1]
			}
		}
		if value != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", fields[i], value))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func event(attributes, species string) string {
	return fmt.Sprintf(`{"attributes":%s,"species":%s}`, attributes, species)
}

func repeat(n int, element string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

// TestDoors sends the same requests, good and bad, through NATS to one fleet
// and through HTTP to another: both must say the same and be the same model
// afterwards.
func TestDoors(t *testing.T) {
	byNATS, byHTTP := newFleet(t, Config{}), newSibling(t)
	good := row()
	for _, c := range []struct {
		name, verb, body string
		code             int
		headers          []string
	}{
		{"predict before anything is learned", "predict", good, 200, nil},
		{"explain before anything is learned", "explain", good, 200, nil},
		{"learn", "teach", event(good, `"Gentoo"`), 200, nil},
		{"learn with nulls", "teach", event(row("bill_length_mm", "null", "sex", "null"), `"Adelie"`), 200, nil},
		{"learn with an id", "teach", event(good, `"Gentoo"`), 200, []string{"Nats-Msg-Id", "a"}},
		{"the same again", "teach", event(good, `"Gentoo"`), 200, []string{"Nats-Msg-Id", "a"}},
		{"another under its id", "teach", event(good, `"Adelie"`), 409, []string{"Nats-Msg-Id", "a"}},
		{"another stream is expected", "teach", event(good, `"Adelie"`), 400, []string{"Nats-Expected-Stream", "OTHER"}},
		{"another sequence is expected", "teach", event(good, `"Adelie"`), 400, []string{"Nats-Expected-Last-Sequence", "99"}},
		{"guards that hold", "teach", event(good, `"Gentoo"`), 200, []string{"Nats-Msg-Id", "guarded", "Nats-Expected-Stream", "PENGUINS", "Nats-Expected-Last-Sequence", "4"}},
		{"a header that a teach does not support", "teach", event(good, `"Adelie"`), 422, []string{"Nats-Expected-Last-Msg-Id", "a", "Nats-Rollup", "all"}},
		{"an id too long", "teach", event(good, `"Adelie"`), 422, []string{"Nats-Msg-Id", strings.Repeat("x", 1025)}},
		{"predict", "predict", good, 200, nil},
		{"predict what was never seen", "predict", row("island", `"Mars"`, "sex", `"?"`), 200, nil},
		{"explain", "explain", good, 200, nil},
		{"a batch", "teach", "[" + event(good, `"Gentoo"`) + "," + event(row("island", `"Dream"`), `"Chinstrap"`) + "]", 200, nil},
		{"a batch with ids", "teach", `[{"attributes":` + good + `,"species":"Gentoo","id":"b1"}]`, 200, nil},
		{"a batch of one", "teach", "[" + event(good, `"Gentoo"`) + "]", 200, nil},
		{"a batch with a bad one", "teach", "[" + event(good, `"Gentoo"`) + "," + event(row("island", "1"), `null`) + "]", 422, nil},
		{"an empty batch", "teach", "[]", 422, nil},
		{"a batch too long", "teach", repeat(1001, "1"), 422, nil},
		{"many problems", "teach", repeat(100, event("{}", "1")), 422, nil},
		{"min seq reached", "predict", good, 200, []string{"Lockstep-Min-Seq", "3"}},
		{"min seq not reached", "predict", good, 504, []string{"Lockstep-Min-Seq", "9000", "Lockstep-Timeout", "20ms"}},
		{"min seq no number", "predict", good, 422, []string{"Lockstep-Min-Seq", "x"}},
		{"timeout no duration", "explain", good, 422, []string{"Lockstep-Timeout", "soon", "Lockstep-Min-Seq", "-1"}},
		{"missing", "predict", row("sex", "", "island", ""), 422, nil},
		{"nothing", "predict", "{}", 422, nil},
		{"extra keys", "predict", strings.Replace(good, "{", `{"x":[{"y":1}],`, 1), 200, nil},
		{"wrong case", "predict", strings.Replace(good, "island", "Island", 1), 422, nil},
		{"text for an array", "predict", row("island", "[]"), 422, nil},
		{"island null", "predict", row("island", "null"), 422, nil},
		{"number an array", "predict", row("body_mass_g", "[1]"), 422, nil},
		{"number an object", "explain", row("body_mass_g", "{}"), 422, nil},
		{"number too small", "predict", row("body_mass_g", "-1"), 422, nil},
		{"number too large", "predict", row("body_mass_g", "1e300"), 422, nil},
		{"number overflows", "predict", row("body_mass_g", "1e999"), 422, nil},
		{"number too long", "predict", row("body_mass_g", "0."+strings.Repeat("1", 500)), 422, nil},
		{"minus zero", "predict", row("body_mass_g", "-0.0"), 200, nil},
		{"NaN", "predict", row("body_mass_g", "NaN"), 422, nil},
		{"Infinity", "predict", row("body_mass_g", "-Infinity"), 422, nil},
		{"text too long", "predict", row("island", `"`+strings.Repeat("x", 65)+`"`), 422, nil},
		{"duplicate key", "predict", strings.Replace(good, "{", `{"island":"a",`, 1), 422, nil},
		{"lone surrogate", "predict", row("island", `"\ud800"`), 422, nil},
		{"invalid UTF-8", "predict", row("island", "\"\xff\""), 422, nil},
		{"nested too deep", "predict", `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}", 422, nil},
		{"too many keys", "predict", "{" + strings.TrimSuffix(strings.Repeat(`"k":1,`, 300), ",") + "}", 422, nil},
		{"white space", "predict", " \n", 422, nil},
		{"cut off", "predict", good[:20], 422, nil},
		{"two values", "predict", good + good, 422, nil},
		{"a text", "predict", `"x"`, 422, nil},
		{"null", "predict", `null`, 422, nil},
		{"comma at the end", "explain", `{"island":"x",}`, 422, nil},
		{"learn nothing", "teach", "{}", 422, nil},
		{"learn null", "teach", event("null", "null"), 422, nil},
		{"learn an array", "teach", event("[1]", "[1]"), 422, nil},
		{"an empty id", "teach", `{"attributes":` + good + `,"species":"Gentoo","id":""}`, 422, nil},
		{"species too long", "teach", event(good, `"`+strings.Repeat("é", 40)+`"`), 422, nil},
		{"too large", "predict", row("island", `"`+strings.Repeat("x", 80<<10)+`"`), 413, nil},
		{"predict at the end", "predict", good, 200, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.verb == "teach" && c.headers == nil {
				c.headers = []string{"Nats-Msg-Id", c.name} // one that we draw would tell the two apart
			}
			over, headers := byNATS.ask(c.verb, c.body, c.headers...), slices.Clone(c.headers)
			for i := range headers {
				if headers[i] == "Nats-Msg-Id" {
					headers[i] = headerID
				}
			}
			path := map[string]string{"predict": "/predict", "teach": "/learn", "explain": "/explain"}[c.verb]
			got := byHTTP.do("POST", path, c.body, headers...)
			if over.code != c.code || got.code != c.code {
				t.Fatalf("NATS %d, HTTP %d, want %d:\n%s\n%s", over.code, got.code, c.code, over.body, got.body)
			}
			if got.header.Get("Content-Type") != "application/json" {
				t.Error(got.header)
			}
			if c.code == 200 {
				compareReplies(t, c.verb, over, got)
			} else {
				compareErrors(t, over, got)
			}
		})
	}
	a, b := byNATS.ask("status", ""), byHTTP.do("GET", "/status", "")
	for _, key := range []string{"seq", "learned", "rejected", "duplicates", "state_chain", "accuracy", "log_loss", "macro_f1"} {
		if a.data[key] != b.data[key] || a.data[key] == nil {
			t.Errorf("%s: %v over NATS, %v over HTTP", key, a.data[key], b.data[key])
		}
	}
}

// compareReplies: the same but for what is the log's own; sequence and
// receipt come as headers over HTTP.
func compareReplies(t *testing.T, verb string, over, got reply) {
	t.Helper()
	want := maps.Clone(over.data)
	seq, receipt := fmt.Sprint(want["seq"]), want["receipt"].(string)
	gotReceipt := got.header.Get(headerReceipt)
	if verb == "explain" {
		gotReceipt = fmt.Sprint(got.data["receipt"])
		delete(got.data, "receipt")
	} else {
		if got.header.Get(headerSeq) != seq {
			t.Errorf("sequence %q, want %s", got.header.Get(headerSeq), seq)
		}
		delete(want, "seq")
	}
	if tail(gotReceipt) != tail(receipt) {
		t.Errorf("receipt %q, want one that ends as %s", gotReceipt, receipt)
	}
	if duplicate := want["duplicate"] == true; duplicate != (got.header.Get(headerDuplicate) == "true") {
		t.Errorf("duplicate %v over NATS, header %q", duplicate, got.header.Get(headerDuplicate))
	}
	for _, key := range []string{"receipt", "stream", "duplicate"} {
		delete(want, key)
	}
	if !reflect.DeepEqual(want, got.data) {
		t.Errorf("HTTP says\n%v, NATS\n%v", got.data, want)
	}
}

// tail is a receipt's sequence and state chain: the same for the same events.
func tail(receipt string) string {
	parts := strings.Split(receipt, ".")
	return strings.Join(parts[max(0, len(parts)-2):], ".")
}

// compareErrors: the same problems at the same places.
func compareErrors(t *testing.T, over, got reply) {
	t.Helper()
	described := over.data["error"].(map[string]any)["description"]
	if over.code != 422 {
		if got.data["detail"] != described {
			t.Errorf("HTTP says %v, NATS %v", got.data["detail"], described)
		}
		return
	}
	places, _ := over.data["detail"].([]any)
	if len(places) == 0 {
		places = []any{map[string]any{"loc": []any{}, "type": "value_error", "msg": described}}
	}
	want, have := problems(t, places, false), problems(t, got.data["detail"].([]any), true)
	if !slices.Equal(want, have) {
		t.Errorf("HTTP says\n%s\nNATS\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// problems are a detail's, sorted, without what only HTTP adds.
func problems(t *testing.T, detail []any, http bool) []string {
	t.Helper()
	var out []string
	for _, one := range detail {
		p := one.(map[string]any)
		loc := p["loc"].([]any)
		if http {
			if _, ok := p["input"]; !ok {
				t.Errorf("no input: %v", p)
			}
			if len(loc) > 0 && loc[0] == "body" {
				loc = loc[1:]
			} else if len(loc) == 0 || loc[0] != "header" {
				t.Errorf("a place that is neither in the body nor a header: %v", p)
			}
			if p["type"] == "json_invalid" {
				p["msg"] = "Invalid JSON: " + p["ctx"].(map[string]any)["error"].(string)
			}
		}
		place, _ := json.Marshal(loc)
		out = append(out, fmt.Sprintf("%s %v %v", place, p["type"], p["msg"]))
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a, b) })
	return out
}

// TestNumbersAsPydanticTakesThem: only over HTTP a text or a boolean is a
// number, and it is stored as one.
func TestNumbersAsPydanticTakesThem(t *testing.T) {
	f := newFleet(t, Config{})
	for _, c := range []struct {
		given, stored string // stored is empty where it is refused
		kind          string
	}{
		{`" 39.1 "`, "39.1", ""}, {`"1e3"`, "1000", ""}, {`"1_000"`, "1000", ""}, {`"1_0.0_1"`, "10.01", ""}, {`"+5"`, "5", ""}, {`".5"`, "0.5", ""},
		{`"5."`, "5", ""}, {`"\u00a05\n"`, "5", ""}, {`true`, "1", ""}, {`false`, "0", ""}, {`"-0"`, "0", ""}, {`"1e-400"`, "0", ""}, {`"+_1"`, "1", ""}, {`"1_e2"`, "100", ""}, {`"007"`, "7", ""}, {`"\u00855"`, "5", ""},
		{`"true"`, "", "float_parsing"}, {`""`, "", "float_parsing"}, {`"  "`, "", "float_parsing"}, {`"0x10"`, "", "float_parsing"}, {`"1__0"`, "", "float_parsing"},
		{`"_1"`, "", "float_parsing"}, {`"1_"`, "", "float_parsing"}, {`"1,5"`, "", "float_parsing"}, {`"0x1p4"`, "", "float_parsing"}, {`"٣"`, "", "float_parsing"},
		{`"1e5_"`, "", "float_parsing"}, {`"５"`, "", "float_parsing"}, {`"xnan"`, "", "float_parsing"}, {`"-nan"`, "", "finite_number"},
		{`"nan"`, "", "finite_number"}, {`"-Infinity"`, "", "finite_number"}, {`"1e999"`, "", "finite_number"}, {`1e999`, "", "finite_number"},
		{`"-5"`, "", "greater_than_equal"}, {`"1e9"`, "", "less_than_equal"}, {`[]`, "", "float_type"}, {`{}`, "", "float_type"},
	} {
		got := f.do("POST", "/learn", event(row("bill_length_mm", c.given, "sex", `"1"`), `"Adelie"`))
		batch := f.do("POST", "/learn", "[ "+event(row("bill_length_mm", c.given), `"Adelie"`)+" ]")
		predicted := f.do("POST", "/predict", row("bill_length_mm", c.given))
		if got.code != predicted.code || got.code != batch.code {
			t.Errorf("%s: learn %d, a batch %d, predict %d", c.given, got.code, batch.code, predicted.code)
		}
		if c.stored == "" {
			if got.code != 422 {
				t.Errorf("%s is taken: %s", c.given, got.body)
				continue
			}
			d := got.data["detail"].([]any)[0].(map[string]any)
			input, _ := json.Marshal(d["input"])
			var want any
			if json.Unmarshal([]byte(c.given), &want) == nil && !reflect.DeepEqual(d["input"], want) {
				t.Errorf("%s: input %s", c.given, input)
			}
			if d["type"] != c.kind {
				t.Errorf("%s: %v, want %s", c.given, d, c.kind)
			}
			continue
		}
		if got.code != 200 {
			t.Errorf("%s is refused: %s", c.given, got.body)
			continue
		}
		ctx := t.Context()
		log, err := bus.OpenLog(ctx, f.nc, bus.LogConfig{Model: "penguins"})
		if err != nil {
			t.Fatal(err)
		}
		var seq uint64
		fmt.Sscan(got.header.Get(headerSeq), &seq)
		msg, err := log.Message(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		var stored struct {
			Attributes map[string]any `json:"attributes"`
		}
		if err := json.Unmarshal(msg.Data, &stored); err != nil {
			t.Fatal(err)
		}
		if v, ok := stored.Attributes["bill_length_mm"].(float64); !ok ||
			fmt.Sprint(v+0) != c.stored && fmt.Sprint(v) != "-0" {
			t.Errorf("%s is stored as %s", c.given, msg.Data)
		}
		if stored.Attributes["sex"] != "1" {
			t.Errorf("a text that is none of the numbers was changed: %s", msg.Data)
		}
	}
	over := f.ask("predict", row("bill_length_mm", `"39.1"`))
	if over.code != 422 {
		t.Errorf("NATS takes a text for a number: %s", over.body)
	}
}
