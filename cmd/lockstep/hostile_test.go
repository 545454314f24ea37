package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"lockstep/model"
)

// hostile is text of every kind that a terminal obeys or hides: escape
// sequences with 7 and 8 bits, a bell, a forged line, an overwritten one, text
// that is turned around, and text that is not seen.
const hostile = "evil\x1b[31m\x1b]0;owned\x07\u009b2J\nFORGED\rFORGED\x7f\u202eabc\u200b\u2028\U000e0041 日本"

const hostileSpec = `
name: shop
input:
  city: {type: category, max_bytes: 128}
  qty: {type: number, min: 0, max: 100}
label: {name: outcome, type: category, max_bytes: 128}
pipeline:
  - union:
    - [{Select: [city]}, {OneHotEncoder: {}}]
    - [{Select: [qty]}]
  - MultinomialNB: {alpha: 1}
`

// quoted is a text as JSON.
func quoted(t *testing.T, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// checkHarmless fails if an output has a character that a terminal obeys or
// hides, or a line that a stranger made.
func checkHarmless(t *testing.T, what, output string) {
	t.Helper()
	if !utf8.ValidString(output) {
		t.Errorf("%s: not UTF-8: %q", what, output)
	}
	for i, r := range output {
		if r == '\n' {
			continue
		}
		if !unicode.IsGraphic(r) {
			t.Errorf("%s has U+%04X: %.60q", what, r, output[max(0, i-20):])
			break
		}
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
			t.Errorf("%s has a forged line: %q", what, line)
		}
	}
}

// hostileFleet is a worker that has learned hostile text, beside strangers who
// answer, beat and keep records in its name.
func hostileFleet(t *testing.T) (url, spec string) {
	t.Helper()
	dir := t.TempDir()
	spec = filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(spec, []byte(hostileSpec), 0o644); err != nil {
		t.Fatal(err)
	}
	parsed, err := model.ParseSpec([]byte(hostileSpec))
	if err != nil {
		t.Fatal(err)
	}
	f := newShownFleet(t, parsed)
	evil := quoted(t, hostile)
	event := func(city, outcome string) string {
		return `{"attributes":{"city":` + city + `,"qty":1},"outcome":` + outcome + `}`
	}
	f.teach(t, "shop", event(evil, evil), event(`"X"`, `"b"`), event(evil, `"b"`), event(`"X"`, evil))
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(data string) {
		if _, err := js.Publish(t.Context(), "shop.learn", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	publish(`{"attributes":{"city":"X","qty":1,` + evil + `:1},"outcome":7}`)
	publish(`{"attributes":{"city":"X","qty":` + evil + `},"outcome":"b"}`)
	publish(hostile)
	f.snapshot(t, "shop")

	put := func(bucket, key, value string) {
		kv, err := js.KeyValue(t.Context(), bucket)
		if err == nil {
			_, err = kv.Put(t.Context(), key, []byte(value))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(
		"shop_checkpoints", "snapshot.evil",
		`{"seq":1,"digest":"`+"\u009b"+`x","replica":`+evil+`,"attested":[`+evil+`],"object":`+evil+`}`,
	)
	put("shop_checkpoints", "snapshot.junk", hostile)
	put("shop_checkpoints", "aside.evil", `{"seq":1,"replica":`+evil+`,"reason":`+evil+`,"object":`+evil+`}`)
	beat := `{"replica":"evil","state":` + evil + `,"seq":1,"version":` + evil + `,"advisory":` + evil + `,"state_chain":` + evil + `,"digest":"` + "\u009b" + `"}`
	put("shop_replicas", "replica.evil", beat)

	status := `{"replica":` + evil + `,"state":` + evil + `,"stream":` + evil + `,"version":` + evil + `,"advisory":` + evil + `,"rejected":1,"state_chain":` + evil + `,"digest":` + evil + `}`
	answer := func(subject string, make func() *nats.Msg) {
		if _, err := f.nc.Conn.Subscribe(subject, func(msg *nats.Msg) {
			out := make()
			out.Subject = msg.Reply
			_ = f.nc.Conn.PublishMsg(out)
		}); err != nil {
			t.Fatal(err)
		}
	}
	answer("shop.status", func() *nats.Msg { return &nats.Msg{Data: []byte(status)} })
	answer("shop.status", func() *nats.Msg { return &nats.Msg{Data: []byte(hostile)} })
	answer("*.status", func() *nats.Msg { return &nats.Msg{Data: []byte(status)} })
	for _, verb := range []string{"predict", "explain", "teach"} {
		answer("evil."+verb, func() *nats.Msg {
			out := &nats.Msg{Header: nats.Header{}}
			out.Header.Set("Nats-Service-Error-Code", "422")
			out.Header.Set("Nats-Service-Error", strings.NewReplacer("\n", " ", "\r", " ").Replace(hostile))
			problem := `{"loc":[` + evil + `],"msg":` + evil + `,"type":"x"}`
			out.Data = []byte(`{"error":{"code":422,"description":` + evil + `},"detail":[` + problem + `,` + problem + `]}`)
			return out
		})
	}
	return f.url, spec
}

// TestHostileText walks the commands that print: what strangers wrote into
// the log, answered, or keep in the fleet's buckets reaches no terminal raw.
func TestHostileText(t *testing.T) {
	url, spec := hostileFleet(t)
	dir := t.TempDir()
	file := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	evil := quoted(t, hostile)
	row := `{"city":` + evil + `,"qty":1}`
	event := `{"attributes":` + row + `,"outcome":` + evil + `}`
	bad := file(
		"bad.jsonl",
		event+"\n"+`{"attributes":{"city":`+evil+`,"qty":`+evil+`},"outcome":`+evil+`}`+"\n"+hostile+"\n",
	)
	csv := file("bad.csv", "city,qty,outcome\nX,\"evil\x1b[2J\u202e\",\x1bb\n")
	walked := map[string]bool{}
	for _, args := range [][]string{
		{"tail", "--since", "1", "--follow=false"},
		{"tail", "--since", "1", "--follow=false", "--json"},
		{"tail", "--since", "1", "--follow=false", "--rejected"},
		{"predict", row, "--spec", spec},
		{"predict", row, "--spec", spec, "--why"},
		{"predict", row, "--spec", spec, "--json", "--why"},
		{"predict", "--spec", spec, "-f", "city=" + hostile, "-f", "qty=" + hostile},
		{"predict", "--spec", spec, "-f", "x" + hostile + "=1"},
		{"predict", row, "--model", "evil"},
		{"predict", row, "--model", "evil", "--why"},
		{"predict", `{"city":` + evil + `,"qty":` + evil + `}`, "--spec", spec},
		{"teach", event, "--spec", spec},
		{"teach", event, "--spec", spec, "--id", "one"},
		{"teach", event, "--spec", spec, "--id", "one"},
		{"teach", event, "--spec", spec, "--json"},
		{"teach", event, "--model", "evil"},
		{"teach", `{"attributes":{},"outcome":` + evil + `,` + evil + `:1}`, "--spec", spec},
		{"learn", bad, "--model", "shop"},
		{"learn", csv, "--model", "shop"},
		{"learn", file("bad"+"\x1b\u202e"+".csv", hostile), "--model", "shop"},
		{"replay", "--model", "shop"},
		{"replay", "--model", "shop", "--each"},
		{"replay", "--file", bad, "--spec", spec},
		{"replay", "--file", bad, "--spec", spec, "--each"},
		{"status", "--model", "shop"},
		{"status", "--model", "shop", "--json"},
		{"verify", "--model", "shop", "--timeout", "1s"},
		{"verify", "--model", "shop", "--timeout", "1s", "--json"},
		{"verify", "--model", "shop", "--receipt", hostile},
		{"snapshot", "ls", "--model", "shop"},
		{"snapshot", "ls", "--model", "shop", "--json"},
		{"snapshot", "get", "1", "--model", "shop", "-o", filepath.Join(dir, "state")},
		{"snapshot", "get", hostile, "--model", "shop"},
		{"doctor", "--model", "shop"},
		{"doctor", "--model", "shop", "--json"},
		{"compact", "--model", "shop", "--dry-run"},
		{"init", "--spec", spec, "--dry-run"},
		{"init", "--spec", file("evil.yaml", strings.Replace(hostileSpec, "city", `"`+strings.ReplaceAll(hostile, "\n", "")+`"`, 1))},
		{"worker", "--name", hostile},
		{"worker", "--spec", file("junk.yaml", hostile)},
		{"health", hostile},
		{"status", hostile},
		{hostile},
	} {
		walked[args[0]] = true
		if args[0] != "health" && args[0] != hostile && !(args[0] == "replay" && args[1] == "--file") {
			args = append(slices.Clone(args), "-s", url)
		}
		var out, errOut bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := run(ctx, args, strings.NewReader(""), &out, &errOut)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || out.Len()+errOut.Len() == 0 {
			t.Errorf("%q printed nothing: %v", args, err)
		}
		checkHarmless(t, "the output of "+args[0], out.String())
		checkHarmless(t, "the errors of "+args[0], errOut.String())
		if slices.Contains(args, "--json") && out.Len() > 0 {
			for d := json.NewDecoder(&out); ; {
				var v any
				if err := d.Decode(&v); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("%q is not JSON any more: %v", args, err)
					break
				}
			}
		}
	}
	// Who adds a command adds it here, or says why not.
	elsewhere := map[string]string{
		"top": "TestTopOnATerminal", "demo": "it teaches penguins of its own", "bench": "servers and events of its own",
		"version": "prints constants", "roles": "prints what it was given", "man": "writes files", "help": "constants", "completion": "constants",
	}
	for _, cmd := range newRoot().Commands() {
		if !walked[cmd.Name()] && elsewhere[cmd.Name()] == "" {
			t.Errorf("the command %s is not walked", cmd.Name())
		}
	}
}

// TestHostileLogs: the log lines of a worker, for people and for machines.
func TestHostileLogs(t *testing.T) {
	for name, write := range map[string]func(cmd *cobra.Command){
		"people": func(cmd *cobra.Command) {
			demoLogger(cmd.ErrOrStderr()).Error(hostile, "name", hostile, "error", errors.New(hostile))
		},
		"machines": func(cmd *cobra.Command) {
			logger(cmd.ErrOrStderr(), 0).Error(hostile, "name", hostile, "error", errors.New(hostile))
		},
	} {
		var out bytes.Buffer
		root := newRoot()
		wrapOutputs(root, &out, &out)
		write(root)
		checkHarmless(t, name, out.String())
		if got := strings.Count(out.String(), "\n"); got != 1 {
			t.Errorf("%s: %d lines, want 1: %q", name, got, out.String())
		}
		if name == "machines" {
			var line map[string]any
			if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["name"] != hostile || line["msg"] != hostile ||
				line["error"] != hostile {
				t.Errorf("a machine reads %q (%v), want %q", line, err, hostile)
			}
		}
	}
}
