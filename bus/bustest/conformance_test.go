package bustest_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"lockstep/bus"
	"lockstep/bus/broker"
	"lockstep/bus/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFake runs the suite on the log in memory, under several seeds.
func TestFake(t *testing.T) {
	var faults bustest.Faults
	for seed := range uint64(10) {
		bustest.Conformance(t, func(t *testing.T) bustest.Subject {
			l := bustest.NewLog("m", seed, []byte("genesis"))
			t.Cleanup(func() {
				faults.LostAcks += l.Faults().LostAcks
				faults.Restarts += l.Faults().Restarts
			})
			return bustest.Subject{Log: l, Purge: l.Purge, RollBack: l.RollBack, Disturb: func() {}}
		})
	}
	if faults.LostAcks == 0 || faults.Restarts == 0 {
		t.Errorf("a fault never fired: %+v", faults)
	}
}

// TestJetStream runs it on the real log.
func TestJetStream(t *testing.T) {
	bustest.Conformance(t, func(t *testing.T) bustest.Subject {
		server, err := broker.Start(t.Context(), broker.Config{StoreDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
		})
		conn, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: server.ClientURL()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		config := bus.LogConfig{Model: "m", Genesis: func() []byte { return []byte("genesis") }}
		log, err := bus.OpenLog(t.Context(), conn, config)
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(conn.Conn)
		if err != nil {
			t.Fatal(err)
		}
		return bustest.Subject{
			Log:      log,
			Purge:    func(below uint64) { purge(t, js, below) },
			RollBack: func(to uint64) { rollBack(t, conn, js, log, config, to) },
			Disturb:  func() { disturb(t, conn, js) },
		}
	})
}

func purge(t *testing.T, js jetstream.JetStream, below uint64) {
	t.Helper()
	stream, err := js.Stream(t.Context(), "M")
	if err == nil {
		err = stream.Purge(t.Context(), jetstream.WithPurgeSequence(below))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rollBack makes the stream again with the messages it had up to a sequence.
func rollBack(t *testing.T, conn *bus.Conn, js jetstream.JetStream, log *bus.Log, config bus.LogConfig, to uint64) {
	t.Helper()
	var kept []*bus.Message
	for seq := uint64(2); seq <= to; seq++ {
		msg, err := log.Message(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, msg)
	}
	if err := js.DeleteStream(t.Context(), "M"); err != nil {
		t.Fatal(err)
	}
	anew, err := bus.OpenLog(t.Context(), conn, config)
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range kept {
		if _, err := anew.Append(t.Context(), msg.Subject, msg.ID, msg.Data); err != nil {
			t.Fatal(err)
		}
	}
}

// disturb deletes the consumers, and breaks the connection.
func disturb(t *testing.T, conn *bus.Conn, js jetstream.JetStream) {
	t.Helper()
	stream, err := js.Stream(t.Context(), "M")
	if err != nil {
		t.Fatal(err)
	}
	for name := range stream.ConsumerNames(t.Context()).Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Log(err) // it may have ended meanwhile
		}
	}
	if err := conn.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
}
