package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"lockstep/bus"
	"lockstep/bus/broker"
)

// TestStopWaitsForTheUnanswered: a handler that has returned and not answered
// holds Stop up, and it can be asked again.
func TestStopWaitsForTheUnanswered(t *testing.T) {
	t.Parallel()
	url := startServer(t, broker.Config{}).ClientURL()
	doors, asker := connect(t, bus.ConnectConfig{Server: url}), connect(t, bus.ConnectConfig{Server: url})
	accepted := make(chan bus.Request, 1)
	s := open(t, doors, func(r bus.Request) { r.Keep(); accepted <- r })
	answers, err := asker.SubscribeSync(asker.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := asker.PublishRequest("m.ask", answers.Subject, nil); err != nil {
		t.Fatal(err)
	}
	request := <-accepted
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := s.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it stopped with a request unanswered: %v", err)
	}
	request.Reply([]byte("late"))
	if err := s.Stop(testContext(t)); err != nil {
		t.Error(err)
	}
	if answer, err := answers.NextMsg(patience); err != nil || string(answer.Data) != "late" {
		t.Errorf("answered %v %v", answer, err)
	}
}
