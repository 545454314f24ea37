package bus_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep/bus"
)

// TestNoSecretIsShown: users, passwords and tokens of servers' URLs are in no
// error and no notice, however wrong the URL is.
func TestNoSecretIsShown(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, Username: "bob", Password: "right"})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	address := s.Addr().String()
	for _, c := range []struct{ url, shows string }{
		{"nats://bob:hush@" + address, "nats://xxxxx@" + address + " refuses"},
		{"nats://hush@" + address, "nats://xxxxx@" + address + " refuses"},
		{"bob:hush@" + address, "xxxxx@" + address + " refuses"},
		{"nats://bob:hush@127.0.0.1:1", "no NATS server at nats://xxxxx@127.0.0.1:1"},
		{"nats://hush@127.0.0.1:1,tls://bob:hush@127.0.0.1:2", "nats://xxxxx@127.0.0.1:1,tls://xxxxx@127.0.0.1:2"},
		{"nats://bob:hu@sh@127.0.0.1:1", "xxxxx@127.0.0.1:1"},
		{"nats://bob:hush%@127.0.0.1:1", `"@127.0.0.1:1"`},
		{"nats://bob:hush#x@127.0.0.1:1", "cannot be read"},
		{"nats://bob:hush,x@127.0.0.1:1", "cannot be read"},
		{"nats://bob:hush/x@127.0.0.1:1", "cannot be read"},
		{"nats://bob:hush@127.0.0.1:99999999", "xxxxx@127.0.0.1:99999999"},
	} {
		_, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: c.url, Bare: true})
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), c.shows) {
			t.Errorf("%s: got %v, want %q in it, and no secret", c.url, err, c.shows)
		}
	}
	var mu sync.Mutex
	var notices []string
	ctx, cancel := context.WithCancel(t.Context())
	_, err = bus.Connect(ctx, bus.ConnectConfig{Server: "nats://bob:hush@127.0.0.1:1", Bare: true, Wait: true, Notice: func(text string) {
		mu.Lock()
		defer mu.Unlock()
		notices = append(notices, text)
		cancel()
	}})
	mu.Lock()
	defer mu.Unlock()
	said := strings.Join(notices, "; ")
	if err == nil || strings.Contains(said+err.Error(), "hush") || !strings.Contains(said, "waiting for a NATS server at nats://xxxxx@127.0.0.1:1") {
		t.Errorf("got the notices %q and %v, want one that a server is waited for, and no secret", said, err)
	}
}
