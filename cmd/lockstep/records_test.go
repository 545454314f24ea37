package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/model"
)

// TestJunkInTheBuckets: what cannot be read in the buckets is skipped and
// named, by every command that reads them, and what is well beside it is used.
func TestJunkInTheBuckets(t *testing.T) {
	f := newShownFleet(t, model.DefaultSpec())
	f.teach(t, "penguins", lesson, lesson)
	f.snapshot(t, "penguins")
	js, err := jetstream.New(f.nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	good := `"incarnation":"i","contract":"` + hash + `","encoding":"lockstep-state-1","log_chain":"` + hash + `","state_chain":"` + hash + `"`
	junk := map[string]string{
		"snapshot.junk":                 "junk",
		"snapshot.00000000000000000009": `{"seq":9,"object":"o","digest":"ab",` + good + `}`,
		"snapshot.00000000000000000010": `{"seq":1e300,"object":"o","digest":"` + hash + `",` + good + `}`,
		"aside.junk":                    "[]",
		"base.pinned":                   `{"seq":2,`,
		"attest.00000000000000000009.x": `{"replica":"x","seq":9,"digest":7,` + good + `}`,
	}
	kv, err := js.KeyValue(t.Context(), "penguins_checkpoints")
	for key, value := range junk { // order: each stands by itself
		if err == nil {
			_, err = kv.Put(t.Context(), key, []byte(value))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	beat := func() { // it expires
		beats, err := js.KeyValue(t.Context(), "penguins_replicas")
		if err == nil {
			_, err = beats.Put(t.Context(), "replica.junk", []byte(`{"replica":"junk","seq":"7"}`))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	names := func(keys ...string) []string { return keys }
	pointers := names("snapshot.junk", "snapshot.00000000000000000009", "snapshot.00000000000000000010")
	for _, c := range []struct {
		args   []string
		shows  string
		skips  []string
		fails  bool
		output bool // the names are in the output, and not beside it
	}{
		{args: names("snapshot", "ls"), shows: "blue-1", skips: append(pointers, "aside.junk", "base.pinned")},
		{args: names("snapshot", "ls", "--json"), shows: `"attested":["blue-1"]`, skips: pointers},
		{args: names("snapshot", "get", "-o", filepath.Join(t.TempDir(), "state")), shows: "The state at sequence", skips: pointers},
		{args: names("verify"), shows: "identical", skips: names("replica.junk", "attest.00000000000000000009.x")},
		{args: names("replay"), shows: "learned", skips: names("base.pinned")},
		{args: names("tail", "--follow=false"), shows: "Gentoo", skips: names("base.pinned")},
		{args: names("compact", "--force"), shows: "The log begins at sequence", skips: pointers},
		{args: names("doctor"), shows: "cannot be read", skips: append(pointers, "replica.junk"), fails: true, output: true},
	} {
		beat()
		var out, errOut bytes.Buffer
		err := run(t.Context(), append(c.args, "-s", f.url), strings.NewReader(""), &out, &errOut)
		if (err != nil) != c.fails && !c.fails {
			t.Errorf("%v: %v\n%s", c.args, err, errOut.String())
		}
		if !strings.Contains(out.String(), c.shows) {
			t.Errorf("%v: got %s, want %q in it", c.args, out.String(), c.shows)
		}
		named := errOut.String()
		if c.output {
			named = out.String()
		}
		for _, key := range c.skips {
			n := strings.Count(named, `"`+key+`"`)
			if n == 0 || n > 1 && !c.output { // doctor has it from the workers, too
				t.Errorf("%v: got %s named %d times, want once: %s", c.args, key, n, named)
			}
		}
	}
}

// TestStatusesThatCannotBeRead are shown in their place, and the others too.
func TestStatusesThatCannotBeRead(t *testing.T) {
	f := newShownFleet(t, model.DefaultSpec())
	answer := func(status string) {
		if _, err := f.nc.Conn.Subscribe("penguins.status", func(msg *nats.Msg) { _ = msg.Respond([]byte(status)) }); err != nil {
			t.Fatal(err)
		}
	}
	answer(`{"replica":"short","state":"ready","state_chain":"ab","digest":"cd"}`)
	answer(`{"replica":"huge","state":"ready","seq":1e300}`)
	answer("junk")
	answer("")
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		var out, errOut bytes.Buffer
		if err := run(t.Context(), append(args, "-s", f.url), nil, &out, &errOut); err != nil {
			t.Errorf("%v: %v %s", args, err, errOut.String())
		}
		text := strings.Join(strings.Fields(out.String()), " ") // it is wrapped
		for _, want := range []string{"blue-1", "short", "huge", "its contract is not 64 hexadecimal digits", "its seq cannot be a JSON number 1e300", "it is not JSON"} {
			if !strings.Contains(text, want) {
				t.Errorf("%v: got %s, want %q in it", args, out.String(), want)
			}
		}
	}
}

// TestVerifyNamesTheLabel: what verify --receipt --json predicts again is
// under the label's own name.
func TestVerifyNamesTheLabel(t *testing.T) {
	parsed, err := model.ParseSpec([]byte(hostileSpec))
	if err != nil {
		t.Fatal(err)
	}
	f := newShownFleet(t, parsed)
	row := filepath.Join(t.TempDir(), "row.json")
	if err := os.WriteFile(row, []byte(`{"city":"X","qty":1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []any{nil, "b"} {
		ask := func(args ...string) map[string]any {
			var out, errOut bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := run(ctx, append(args, "-s", f.url, "--model", "shop", "--json"), nil, &out, &errOut); err != nil {
				t.Fatalf("%v: %v %s", args, err, errOut.String())
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %v %s", args, err, out.String())
			}
			return got
		}
		receipt := ask("predict", `{"city":"X","qty":1}`)["receipt"].(string)
		got := ask("verify", "--receipt", receipt, "--request", row)
		if label, there := got["outcome"]; !there || label != want || got["reproduced"] != true || got["species"] != nil {
			t.Errorf("got %v, want the outcome %v", got, want)
		}
		got = ask("verify", "--receipt", receipt)
		if _, there := got["outcome"]; there || got["reproduced"] != true {
			t.Errorf("without a request: got %v, want no outcome", got)
		}
		f.teach(t, "shop", `{"attributes":{"city":"X","qty":1},"outcome":"b"}`)
	}
}
