package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
)

// shopSpec is a model of texts and numbers, which remembers few ids.
const shopSpec = `
name: shop
dedup: {window: 100}
input:
  city: {type: category, nullable: true, max_values: 200, max_bytes: 4096}
  qty:  {type: number, nullable: true, min: 0, max: 1e6}
label: {name: outcome, type: category, max_values: 20}
pipeline:
  - union:
      - [{Select: [city]}, OneHotEncoder]
      - [{Select: [qty]}, {StatImputer: {qty: Mean}}]
  - MultinomialNB
`

// shop is a log without workers, and a folder for files.
type shop struct {
	t   *testing.T
	url string
	dir string
}

func openShop(t *testing.T, url string) *shop {
	t.Helper()
	s := &shop{t, url, t.TempDir()}
	lockstep(t, "init", "-s", url, "--spec", s.file("shop.yaml", shopSpec))
	return s
}

func (s *shop) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// learn runs lockstep learn, and returns what it printed.
func (s *shop) learn(ctx context.Context, in io.Reader, args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	err = run(ctx, append([]string{"learn", "-s", s.url, "--model", "shop"}, args...), in, &o, &e)
	return o.String(), e.String(), err
}

// stored is what the log has: its messages' sizes, and their events.
func (s *shop) stored() (sizes []int, events []string) {
	s.t.Helper()
	spec, err := model.ParseSpec([]byte(shopSpec))
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := bus.BindLog(s.t.Context(), connectTo(s.t, s.url), bus.LogConfig{Model: "shop"})
	if err != nil {
		s.t.Fatal(err)
	}
	_, last, err := log.End(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	decoder := model.NewDecoder(spec)
	for seq := uint64(2); seq <= last; seq++ {
		msg, err := log.Message(s.t.Context(), seq)
		if err != nil {
			s.t.Fatal(err)
		}
		sizes = append(sizes, len(msg.Data))
		found, _, err := decoder.Learn(msg.Data)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range found {
			events = append(events, fmt.Sprintf("%s %g", e.Row[0].Text, e.Row[1].Num))
		}
	}
	return sizes, events
}

// await waits until the log has so many events.
func (s *shop) await(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if _, events := s.stored(); len(events) >= n {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("the log has %d events, and not %d", len(events), n)
		}
	}
}

func csvRows(from, to int) string {
	var b strings.Builder
	b.WriteString("city,qty,outcome\n")
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "c%d,%d,o\n", i%7, i)
	}
	return b.String()
}

// TestLearnOpenPipe: what comes on a pipe that stays open is stored within a
// second or so, and what was taken from it is stored at the end.
func TestLearnOpenPipe(t *testing.T) {
	t.Parallel()
	s := openShop(t, server(t))
	in, writer := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	type result struct {
		out, errOut string
		err         error
	}
	done := make(chan result, 1)
	go func() {
		out, errOut, err := s.learn(ctx, in, "-")
		done <- result{out, errOut, err}
	}()
	io.WriteString(writer, csvRows(0, 3))
	s.await(3)
	io.WriteString(writer, "c,3,o\nc,4,o\n") // returns when it was taken
	stop()
	r := <-done
	if _, events := s.stored(); len(events) != 5 {
		t.Errorf("the log has %v", events)
	}
	if r.err == nil || exitCode(r.err) != exitFailed || r.out != "5 stored, 0 refused, 0 already there\n" ||
		!strings.Contains(r.errOut, "stopped by a signal; 5 events are stored (lines 2 to 6)") {
		t.Errorf("%v\n%s%s", r.err, r.out, r.errOut)
	}
}

// TestLearnIsStopped: what an interrupted import says is stored is what is.
func TestLearnIsStopped(t *testing.T) {
	t.Parallel()
	s := openShop(t, server(t))
	file := s.file("long.csv", csvRows(0, 300_000))
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		s.await(100)
		stop()
	}()
	out, errOut, err := s.learn(ctx, nil, file, "--batch", "10")
	_, events := s.stored()
	if want := fmt.Sprintf("%d events are stored (lines 2 to %d)", len(events), len(events)+1); err == nil ||
		!strings.Contains(errOut, want) {
		t.Errorf("%v, want %s\n%s%s", err, want, out, errOut)
	}
	if strings.Count(errOut, "stopped") != 1 {
		t.Error(errOut)
	}
}

// TestLearnOnASmallServer: no message is larger than the server takes, and an
// event that would be is refused by itself.
func TestLearnOnASmallServer(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "small.conf")
	if err := os.WriteFile(config, []byte("jetstream {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const most = 4 << 10
	s := openShop(t, startConfig(t, config, func(o *natsserver.Options) { o.MaxPayload = most }).ClientURL())
	rows := csvRows(0, 1000) + strings.Repeat("x", 4000) + ",1,o\n" + strings.Repeat("y", 3000) + ",1,o\n"
	out, errOut, err := s.learn(t.Context(), nil, s.file("a.csv", rows), "--batch", "1000")
	sizes, events := s.stored()
	if out != "1001 stored, 1 refused, 0 already there\n" || len(events) != 1001 || exitCode(err) != exitFailed ||
		!strings.Contains(errOut, "line 1002 is refused:\n  the event has ") {
		t.Errorf("%v: the log has %d events\n%s%.500s", err, len(events), out, errOut)
	}
	for _, size := range sizes {
		if size > most {
			t.Errorf("a message has %d bytes", size)
		}
	}
}

// TestLearnTwice: a file that is longer than what the model remembers is not
// learned a second time, and one whose beginning it remembers goes on.
func TestLearnTwice(t *testing.T) {
	t.Parallel()
	s := openShop(t, server(t))
	learn := func(rows string, args ...string) string {
		out, errOut, err := s.learn(t.Context(), nil, append(args, s.file("a.csv", rows))...)
		return fmt.Sprintf("%s%sexit %d", out, errOut, exitCode(err))
	}
	expect := func(what, got string, events int, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("%s: %q is missing in\n%s", what, text, got)
			}
		}
		if _, all := s.stored(); len(all) != events {
			t.Errorf("%s: the log has %d events and not %d", what, len(all), events)
		}
	}
	bad := "c,x,o\n"
	const rest = "city,qty,outcome\n"
	expect("the beginning", learn(csvRows(0, 60)), 60, "60 stored", "exit 0")
	expect(
		"a file that grew past the window", learn(csvRows(0, 250)), 310,
		"250 stored, 0 refused, 0 already there\n", "a.csv has 250 rows", "last 100 ids", "exit 0",
	)
	expect(
		"the same again", learn(csvRows(0, 250)), 310,
		"Its first row is in the log already, at sequence 2, and 310 events came since", "nothing was stored",
		"exit 2",
	)
	expect(
		"with bad rows around it", learn(rest+bad+strings.TrimPrefix(csvRows(0, 250), rest)+bad), 310,
		"first row is in the log", "exit 2",
	)
	expect(
		"with another beginning", learn(strings.Replace(csvRows(0, 250), "c0,0,o", "new,0,o", 1)), 310,
		"Its last row is in the log already, at sequence 5", "exit 2",
	)
	// JetStream itself remembers messages for two minutes.
	expect("all of it again", learn(csvRows(0, 250), "--force"), 310, "250 already there", "exit 0")
	expect("a short one", learn(csvRows(900, 950)), 360, "50 stored", "exit 0")
}

// TestLearnOtherContract: events are not checked by one spec and folded by
// another.
func TestLearnOtherContract(t *testing.T) {
	t.Parallel()
	s := openShop(t, server(t))
	edited := s.file("edited.yaml", strings.Replace(shopSpec, "1e6", "1e9", 1))
	out, errOut, err := s.learn(t.Context(), nil, s.file("a.csv", csvRows(0, 3)), "--spec", edited)
	if exitCode(err) != exitUsage || !strings.Contains(errOut, "its contract is") || out != "" {
		t.Errorf("%v\n%s%s", err, out, errOut)
	}
	if out, errOut, err := s.learn(t.Context(), nil, s.file("a.csv", csvRows(0, 3)), "--spec", filepath.Join(s.dir, "shop.yaml")); err != nil {
		t.Errorf("%v\n%s%s", err, out, errOut)
	}
	if _, events := s.stored(); len(events) != 3 {
		t.Errorf("the log has %v", events)
	}
}

// TestLearnIntoAFullLog: after a failure the message says what is stored, and
// says it once.
func TestLearnIntoAFullLog(t *testing.T) {
	t.Parallel()
	s := openShop(t, server(t))
	nc := connectTo(t, s.url)
	js, err := jetstream.New(nc.Conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "SHOP")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(messages int64) {
		config := stream.CachedInfo().Config
		config.MaxMsgs = messages
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Error(err)
		}
	}
	in, writer := io.Pipe()
	go func() {
		defer writer.Close()
		io.WriteString(writer, csvRows(0, 10))
		s.await(10)
		limit(8) // the genesis, and seven batches
		io.WriteString(writer, strings.TrimPrefix(csvRows(10, 5000), "city,qty,outcome\n"))
	}()
	out, errOut, err := s.learn(t.Context(), in, "-", "--batch", "10")
	limit(-1)
	sizes, _ := s.stored()
	if len(sizes) != 7 || !errors.Is(err, bus.ErrFull) || out != "70 stored, 0 refused, 0 already there\n" ||
		!strings.Contains(
			errOut, "; 70 events are stored (lines 2 to 71); ",
		) || !strings.Contains(errOut, " events are not (lines 72 to ") ||
		strings.Count(errOut, "no room left") != 1 {
		t.Errorf("the log has %d messages: %v\n%s%s", len(sizes), err, out, errOut)
	}
}
