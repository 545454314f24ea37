package bus_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"lockstep/bus"
	"lockstep/bus/broker"
)

// TestWhatIsAnsweredLaterIsCounted: a request is counted once it is answered,
// from whichever goroutine, with its error and the time until then; and a
// service says who it is as NATS' service protocol has it.
func TestWhatIsAnsweredLaterIsCounted(t *testing.T) {
	conn := connect(t, bus.ConnectConfig{Server: startServer(t, broker.Config{}).ClientURL()})
	kept := make(chan bus.Request, 4)
	service, err := bus.Doors{Conn: conn}.Open(bus.ServiceConfig{
		Name: "m", Version: "1.2.3", Description: "answers later", Metadata: map[string]string{"replica": "a"},
		Endpoints: []bus.Endpoint{
			{Name: "later", Subject: "m.later", Queue: "q", Handler: func(r bus.Request) { r.Keep(); kept <- r }},
			{Name: "now", Subject: "m.now", Handler: func(r bus.Request) { r.Error(422, "no", nil) }},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(subject string, into any) {
		t.Helper()
		msg, err := conn.Request(subject, nil, patience)
		if err == nil && into != nil {
			err = json.Unmarshal(msg.Data, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
	}
	stats := func(subject string) (later, now *micro.EndpointStats) {
		t.Helper()
		var s micro.Stats
		ask(subject, &s)
		if s.Type != micro.StatsResponseType || len(s.Endpoints) != 2 || s.Started.IsZero() {
			t.Fatalf("%+v", s)
		}
		return s.Endpoints[0], s.Endpoints[1]
	}
	inbox := conn.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := conn.PublishRequest("m.later", inbox, nil); err != nil {
			t.Fatal(err)
		}
	}
	ask("m.now", nil)
	all := []bus.Request{<-kept, <-kept, <-kept}
	if later, now := stats("$SRV.STATS.m"); later.NumRequests != 0 || now.NumErrors != 1 || now.NumRequests != 1 {
		t.Errorf("before they are answered: %+v, %+v", later, now)
	}
	go all[0].Reply([]byte("yes"))
	go all[1].Error(503, "it leaves", nil)
	go all[2].Error(504, "it took too long", nil)
	for range all {
		if _, err := answers.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
	all[0].Error(500, "again", nil) // ignored
	later, _ := stats("$SRV.STATS")
	if later.NumRequests != 3 || later.NumErrors != 2 || later.ProcessingTime <= 0 || later.AverageProcessingTime > time.Minute {
		t.Errorf("got %+v, want 2 errors of 3 requests", later)
	}
	if later.LastError != "503:it leaves" && later.LastError != "504:it took too long" {
		t.Errorf("the last error is %q", later.LastError)
	}

	var ping micro.Ping
	ask("$SRV.PING.m", &ping)
	var info micro.Info
	ask("$SRV.INFO.m."+ping.ID, &info)
	if ping.Type != micro.PingResponseType || ping.Version != "1.2.3" || ping.Metadata["replica"] != "a" ||
		info.Type != micro.InfoResponseType || info.Description != "answers later" || len(info.Endpoints) != 2 ||
		info.Endpoints[0].QueueGroup != "q" || info.Endpoints[1].Subject != "m.now" {
		t.Errorf("it says of itself %+v and %+v", ping, info)
	}
	if err := service.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := conn.Request("$SRV.PING.m", nil, 200*time.Millisecond); err == nil || !strings.Contains(err.Error(), "no responders") {
		t.Errorf("it is asked after its end: %v", err)
	}
}
