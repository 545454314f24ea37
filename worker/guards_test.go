package worker

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestGuardsOfATeach: JetStream's guards hold for a teach, or it is refused;
// no header that JetStream acts upon is ignored.
func TestGuardsOfATeach(t *testing.T) {
	f := newFleet(t, "a")
	const last = "Nats-Expected-Last-Sequence"
	subject := "Nats-Expected-Last-Subject-Sequence"
	ok := func(seq int, headers ...string) {
		t.Helper()
		if got, err := f.ask("teach", gentoo, headers...); err != nil || fmt.Sprint(got["seq"]) != fmt.Sprint(seq) {
			t.Errorf("%v: got %v %v, want sequence %d", headers, got, err, seq)
		}
	}
	refused := func(code int, text string, headers ...string) {
		t.Helper()
		f.refused(code, "teach", gentoo, headers, text)
		f.refused(code, "teach", "["+gentoo+"]", headers, text)
	}
	refused(400, `"err_code":10060,"description":"expected stream does not match"`, "Nats-Expected-Stream", "OTHER")
	ok(2, "Nats-Expected-Stream", "PENGUINS")
	refused(400, `"err_code":10071,"description":"wrong last sequence: 2"`, last, "1")
	refused(400, `"err_code":10071`, last, "two")
	refused(400, `"err_code":10071`, subject, "7")
	refused(400, `"err_code":10071`, subject, "2", last, "1")
	refused(400, `"err_code":10193`, subject+"-Subject", "penguins.learn")
	ok(3, last, "2", "Nats-Msg-Id", "x")
	ok(4, subject, "3", last, "3")
	ok(5, subject, "1", subject+"-Subject", "penguins.ctl.genesis")
	for _, name := range []string{
		"Nats-Expected-Last-Msg-Id", "Nats-TTL", "Nats-Rollup", "Nats-Incr", "Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL", "Nats-Scheduler",
		"Nats-Schedule-Next", "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit", "Nats-Stream-Source", "Nats-Required-Api-Level",
		"Nats-Counter-Sources", "nats-expected-last-sequence", "NATS-MSG-ID", "Nats-Of-Tomorrow",
	} {
		refused(422, fmt.Sprintf(`"loc":["header",%q]`, name), name, "1")
	}
	for _, name := range []string{"Nats-Request-Info", "Nats-Sequence", "X-Nats-TTL", "Natsomething"} {
		if _, err := f.ask("teach", gentoo, name, "1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range f.settled(1, at(9)) {
		if s.Learned != 8 || s.Rejected != 0 {
			t.Errorf("%d are learned", s.Learned)
		}
	}
	// JetStream's own clients read the refusal as theirs.
	_, err := f.js.Publish(t.Context(), "penguins.teach", []byte(gentoo), jetstream.WithExpectLastSequence(1))
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		t.Errorf("js.Publish: %v", err)
	}
	if ack, err := f.js.Publish(t.Context(), "penguins.teach", []byte(gentoo), jetstream.WithExpectLastSequence(9), jetstream.WithExpectStream("PENGUINS")); err != nil ||
		ack.Sequence != 10 {
		t.Errorf("js.Publish: %v %v", ack, err)
	}
}
