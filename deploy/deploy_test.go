package deploy

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// TestSingleServer starts the server that single.conf describes, on a free
// port and a store of the test's own.
func TestSingleServer(t *testing.T) {
	options, err := server.ProcessConfigFile("nats/single.conf")
	if err != nil {
		t.Fatal(err)
	}
	if options.Host != "127.0.0.1" || options.Port != 4222 || !options.SyncAlways {
		t.Errorf("host %s, port %d, sync always %t", options.Host, options.Port, options.SyncAlways)
	}
	options.Port, options.HTTPPort, options.StoreDir, options.NoSigs = server.RANDOM_PORT, server.RANDOM_PORT, t.TempDir(), true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(20*time.Second) || !s.JetStreamEnabled() {
		t.Error("it does not start with JetStream")
	}
}
