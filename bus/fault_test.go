package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/bus/broker"
)

// fromStart is a position whose log is trusted.
var fromStart = bus.Position{Check: func(*bus.Message) bool { return true }}

// tailed starts a tail and returns the sequences it delivers, and its error.
func tailed(t *testing.T, l *bus.Log, from bus.Position) (<-chan uint64, <-chan error) {
	ctx, cancel := context.WithCancel(testContext(t))
	delivered, failed, ended := make(chan uint64, 10_000), make(chan error, 1), make(chan struct{})
	go func() {
		failed <- l.Tail(ctx, from, func(m *bus.Message) error { delivered <- m.Seq; return nil })
		close(ended)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return delivered, failed
}

// awaitSeq reads what a tail delivers up to a sequence, and expects no hole.
func awaitSeq(t *testing.T, delivered <-chan uint64, from, to uint64) {
	t.Helper()
	timeout := time.After(patience)
	for want := from; want <= to; want++ {
		select {
		case got := <-delivered:
			if got != want {
				t.Fatalf("%d was delivered, want %d", got, want)
			}
		case <-timeout:
			t.Fatalf("%d was not delivered", want)
		}
	}
}

// TestTailDeliversAStrangersStatus: a stored message may carry the header that
// the server's own words to a consumer do.
func TestTailDeliversAStrangersStatus(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	for _, status := range []string{"100", "404", "408", "409", "503"} {
		msg := nats.NewMsg("m.learn")
		msg.Header.Set("Status", status)
		if _, err := jetStream(t, conn).PublishMsg(testContext(t), msg); err != nil {
			t.Fatal(err)
		}
	}
	delivered, _ := tailed(t, l, fromStart)
	awaitSeq(t, delivered, 1, 6)
}

// TestTailLeavesAConsumerThatStalls pauses the consumer, which then says that
// it lives and sends nothing.
func TestTailLeavesAConsumerThatStalls(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	delivered, _ := tailed(t, l, fromStart)
	awaitSeq(t, delivered, 1, 1)
	s := stream(t, conn, "M")
	for name := range s.ConsumerNames(testContext(t)).Name() {
		paused, err := s.PauseConsumer(testContext(t), name, time.Now().Add(time.Hour))
		if err != nil || !paused.Paused {
			t.Fatal(paused, err)
		}
	}
	appendTo(t, l, "x")
	awaitSeq(t, delivered, 2, 2)
}

// TestTailNoticesThatAllWasPurged: no message comes that would show the hole.
func TestTailNoticesThatAllWasPurged(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	appendTo(t, l, "x")
	if err := stream(t, conn, "M").Purge(testContext(t)); err != nil {
		t.Fatal(err)
	}
	var gap *bus.GapError
	if err := l.Tail(testContext(t), fromStart, nil); !errors.As(err, &gap) || *gap != (bus.GapError{Want: 1, Got: 3}) {
		t.Error(err)
	}
}

// TestTailNamesTheEndOfARolledBackLog: one control event tells, and no more
// are appended than that.
func TestTailNamesTheEndOfARolledBackLog(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	appendTo(t, l, "x")
	from := fromStart
	from.Applied = 50
	var rolled *bus.RolledBackError
	if err := l.Tail(testContext(t), from, nil); !errors.As(err, &rolled) ||
		*rolled != (bus.RolledBackError{Applied: 50, End: 2}) {
		t.Error(err)
	}
	if _, last, err := l.End(testContext(t)); last != 3 || err != nil {
		t.Errorf("the log goes to %d, %v", last, err)
	}
}

func service(handler func(bus.Request)) bus.ServiceConfig {
	return bus.ServiceConfig{
		Name: "m", Version: "1.0.0",
		Endpoints: []bus.Endpoint{{Name: "ask", Subject: "m.ask", Queue: "q", Handler: handler}},
	}
}

func open(t *testing.T, conn *bus.Conn, handler func(bus.Request)) bus.Service {
	t.Helper()
	s, err := bus.Serve(conn, service(handler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStopWaitsForWhatQueues: what the server had sent queues behind a handler,
// and in between nothing is in flight. All of it is answered once Stop
// returns, so that the connection may be closed then.
func TestStopWaitsForWhatQueues(t *testing.T) {
	t.Parallel()
	const n = 2_000
	url := startServer(t, broker.Config{}).ClientURL()
	doors := connect(t, bus.ConnectConfig{Server: url})
	entered, release := make(chan bool, n), make(chan struct{})
	s := open(t, doors, func(r bus.Request) {
		entered <- true
		<-release
		r.Reply(nil)
		_ = doors.Flush() // so that what queues takes longer than a hasty Stop
	})
	asker := connect(t, bus.ConnectConfig{Server: url})
	answers, err := asker.SubscribeSync(asker.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := asker.PublishRequest("m.ask", answers.Subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := asker.FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(testContext(t)) }()
	for err = nil; !errors.Is(err, bus.ErrNobody); { // until it has left the group
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err = bus.Ask(ctx, asker, "m.ask", nil, nil)
		cancel()
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	doors.Close()
	for i := range n {
		if _, err := answers.NextMsgWithContext(testContext(t)); err != nil {
			t.Fatalf("%d of %d are answered: %v", i, n, err)
		}
	}
}

// TestOpenWithoutAServer: the service is there as soon as the server is.
func TestOpenWithoutAServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startServer(t, broker.Config{StoreDir: dir})
	port := s.Port()
	conn := connect(t, bus.ConnectConfig{Server: s.ClientURL()})
	down := conn.StatusChanged(nats.RECONNECTING)
	defer conn.RemoveStatusListener(down)
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	<-down
	open(t, conn, func(r bus.Request) { r.Reply([]byte("here")) })
	s = startServer(t, broker.Config{StoreDir: dir, Port: port})
	asker := connect(t, bus.ConnectConfig{Server: s.ClientURL()})
	for {
		answer, err := bus.Ask(testContext(t), asker, "m.ask", nil, nil)
		if err == nil && string(answer.Data) == "here" {
			return
		}
		if !errors.Is(err, bus.ErrNobody) {
			t.Fatal(err)
		}
	}
}

func TestConnectPrecedence(t *testing.T) {
	server := startServer(t, broker.Config{}).ClientURL()
	const nowhere = "nats://127.0.0.1:1"
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	write := func(name, text string) {
		path := filepath.Join(home, "nats", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("context/good.json", `{"url":"`+server+`"}`)
	write("context/bad.json", `{"url":"`+nowhere+`"}`)
	for _, c := range []struct {
		name          string
		config        bus.ConnectConfig
		env, selected string
		reaches       bool
	}{
		{"a flag over the environment", bus.ConnectConfig{Server: server}, nowhere, "bad", true},
		{"a named context over the environment", bus.ConnectConfig{Context: "good"}, nowhere, "bad", true},
		{"the environment over the selected context", bus.ConnectConfig{}, server, "bad", true},
		{"the selected context", bus.ConnectConfig{}, "", "good", true},
		{"a flag over a named context", bus.ConnectConfig{Context: "good", Server: nowhere}, "", "", false},
	} {
		t.Setenv("NATS_URL", c.env)
		write("context.txt", c.selected)
		conn, err := bus.Connect(testContext(t), c.config)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.reaches {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := bus.Connect(testContext(t), bus.ConnectConfig{Context: "none"})
	if err == nil || !strings.Contains(err.Error(), "bad, good") {
		t.Errorf("an unknown context: %v", err)
	}
	_, err = bus.Connect(testContext(t), bus.ConnectConfig{Server: nowhere})
	if err == nil || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("no server: %v", err)
	}
}

func TestLogRefusesSettingsThatBreakIt(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	_, err := jetStream(t, conn).CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "M", Subjects: []string{"m.learn"}, Storage: jetstream.MemoryStorage, MaxAge: patience, MaxBytes: 1 << 20, MaxMsgs: 5,
		MaxMsgsPerSubject: 2, AllowRollup: true, AllowMsgTTL: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = bus.OpenLog(testContext(t), conn, bus.LogConfig{Model: "m"})
	var settings *bus.SettingsError
	if !errors.As(err, &settings) {
		t.Fatal(err)
	}
	all := strings.Join(settings.Differences, "; ")
	for _, word := range []string{"storage", "discard", "max age", "max bytes", "max messages is", "per subject", "deleted", "roll up", "expire", "m.ctl.>"} {
		if !strings.Contains(all, word) {
			t.Errorf("%q is not named in %q", word, all)
		}
	}
}

// TestNotesFullAreAnError fills the stream to its limit of 64 MiB.
func TestNotesFullAreAnError(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	n, err := bus.OpenNotes(testContext(t), conn, "M_VERDICTS", "m.verdict.>", 1)
	if err != nil {
		t.Fatal(err)
	}
	note := make([]byte, 1<<20-1024)
	for i := range 70 {
		stored, err := n.Put(testContext(t), fmt.Sprintf("m.verdict.%d", i), note)
		if errors.Is(err, bus.ErrFull) && !stored {
			if i < 60 {
				t.Errorf("it is full after %d", i)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("it never gets full")
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func jetStream(t *testing.T, conn *bus.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn.Conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func stream(t *testing.T, conn *bus.Conn, name string) jetstream.Stream {
	t.Helper()
	s, err := jetStream(t, conn).Stream(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLog(t *testing.T, conn *bus.Conn) *bus.Log {
	t.Helper()
	l, err := bus.OpenLog(
		testContext(t), conn,
		bus.LogConfig{Model: "m", Genesis: func() []byte { return []byte("genesis") }},
	)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendTo(t *testing.T, l *bus.Log, data string) bus.Ack {
	t.Helper()
	ack, err := l.Append(testContext(t), "m.learn", bus.NewID(), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return ack
}

// TestDeniedRequestsAreNamed: a denied request looks like one that no one
// answers.
func TestDeniedRequestsAreNamed(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{Denied: []string{"m.ask"}}).ClientURL()})
	_, asked := bus.Ask(testContext(t), conn, "m.ask", nil, nil)
	_, gathered := bus.Gather(testContext(t), conn, "m.ask", nil, patience)
	for _, err := range []error{asked, gathered} {
		var denied *bus.PermissionError
		if !errors.As(err, &denied) || denied.Subject != "m.ask" {
			t.Error(err)
		}
	}
}

// TestOthersRightsDoNotMatter: a stranger can have a service answer to a
// subject that it may not publish to, which must harm no other call.
func TestOthersRightsDoNotMatter(t *testing.T) {
	t.Parallel()
	conn := connect(
		t, bus.ConnectConfig{Server: startServer(t, broker.Config{Denied: []string{"forbidden"}}).ClientURL()},
	)
	l := openLog(t, conn)
	for range 100 {
		if err := conn.Publish("forbidden", nil); err != nil {
			t.Fatal(err)
		}
		appendTo(t, l, "x")
	}
	if err := conn.LastError(); err == nil {
		t.Error("nothing was denied")
	}
}

func TestConnectNamesBadCredentials(t *testing.T) {
	t.Parallel()
	url := startServer(t, broker.Config{Denied: []string{"x"}}).ClientURL()
	_, err := bus.Connect(testContext(t), bus.ConnectConfig{Server: url, User: "nobody", Password: "wrong"})
	if err == nil || strings.Contains(err.Error(), "start one") {
		t.Error(err)
	}
}

// TestTailStopsAtAHoleInTheMiddle: a purge by subject takes messages out of
// the middle, of a stream that denies deletes, too.
func TestTailStopsAtAHoleInTheMiddle(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	appendTo(t, l, "x")
	if _, err := l.Append(testContext(t), "m.ctl.other", "", nil); err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, "x")
	s := stream(t, conn, "M")
	if err := s.DeleteMsg(testContext(t), 3); err == nil {
		t.Fatal("a message can be deleted")
	}
	if err := s.Purge(testContext(t), jetstream.WithPurgeSubject("m.ctl.other")); err != nil {
		t.Fatal(err)
	}
	delivered, failed := tailed(t, l, fromStart)
	var gap *bus.GapError
	if err := <-failed; !errors.As(err, &gap) || *gap != (bus.GapError{Want: 3, Got: 4}) {
		t.Error(err)
	}
	awaitSeq(t, delivered, 1, 2)
}

// TestTailIsOvertaken: somebody limits the log while it is replayed, and what
// was not read yet is cut off.
func TestTailIsOvertaken(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	const n = 5000
	p := l.Publisher(testContext(t), "m.learn", func(int, bus.Ack, error) {})
	for i := range n {
		if err := p.Publish(bus.NewID(), []byte("x"), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	first, limited := make(chan struct{}), make(chan struct{})
	failed := make(chan error, 1)
	last := uint64(0)
	go func() {
		failed <- l.Tail(testContext(t), fromStart, func(m *bus.Message) error {
			if m.Seq == 1 {
				close(first)
				<-limited
			}
			if m.Seq != last+1 {
				return fmt.Errorf("%d came after %d", m.Seq, last)
			}
			last = m.Seq
			return nil
		})
	}()
	<-first
	s := stream(t, conn, "M")
	config := s.CachedInfo().Config
	config.MaxMsgs, config.Discard = 10, jetstream.DiscardOld
	_, err := jetStream(t, conn).UpdateStream(testContext(t), config)
	close(limited)
	if err != nil {
		t.Fatal(err)
	}
	var gap *bus.GapError
	if err := <-failed; !errors.As(err, &gap) || gap.Want != last+1 || gap.Got <= gap.Want {
		t.Errorf("after %d: %v", last, err)
	}
	var settings *bus.SettingsError
	if _, err := bus.BindLog(testContext(t), conn, bus.LogConfig{Model: "m"}); !errors.As(err, &settings) {
		t.Errorf("the limit is not named: %v", err)
	}
}

// TestTailTellsOfTrouble: when it can read the log first, while the log is not
// there, and when it is again.
func TestTailTellsOfTrouble(t *testing.T) {
	t.Parallel()
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	l := openLog(t, conn)
	told := make(chan error, 100)
	from := fromStart
	from.Trouble = func(err error) { told <- err }
	next := func(want error) {
		t.Helper()
		select {
		case got := <-told:
			if !errors.Is(got, want) {
				t.Errorf("got told of %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("got told of nothing, want %v", want)
		}
	}
	delivered, _ := tailed(t, l, from)
	awaitSeq(t, delivered, 1, 1)
	next(nil)
	if err := jetStream(t, conn).DeleteStream(testContext(t), "M"); err != nil {
		t.Fatal(err)
	}
	next(jetstream.ErrStreamNotFound)
	openLog(t, conn)
	next(nil)
}
