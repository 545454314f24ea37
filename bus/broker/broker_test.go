package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

func startOn(t *testing.T, config Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() })
	return s
}

func TestStoreIsLocked(t *testing.T) {
	dir := t.TempDir()
	s := startOn(t, Config{StoreDir: dir})
	if _, err := Start(t.Context(), Config{StoreDir: dir}); !errors.Is(err, ErrLocked) ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("a second server on the store: %v", err)
	}
	if err := Erase(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("erased under a server: %v", err)
	}
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	again := startOn(t, Config{StoreDir: dir})
	nc, err := nats.Connect(again.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestPortIsTaken(t *testing.T) {
	s := startOn(t, Config{StoreDir: t.TempDir()})
	dir := t.TempDir()
	_, err := Start(t.Context(), Config{StoreDir: dir, Port: s.Port()})
	var taken *PortError
	if !errors.As(err, &taken) || taken.Port != s.Port() {
		t.Errorf("%v", err)
	}
	startOn(t, Config{StoreDir: dir}) // the store is free again
}

func TestStoreThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{StoreDir: file}); err == nil {
		t.Error("a file is taken for a store")
	}
	// The store is there, but the server cannot use it.
	dir := t.TempDir()
	for _, name := range []string{"lock", "jetstream"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Start(t.Context(), Config{StoreDir: dir}); err == nil || !strings.Contains(err.Error(), "nats-server") {
		t.Errorf("what stops the server's start is lost: %v", err)
	}
}

func TestEraseKeepsWhatIsNotTheServers(t *testing.T) {
	dir := t.TempDir()
	s := startOn(t, Config{StoreDir: dir})
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Erase(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); !os.IsNotExist(err) {
		t.Errorf("the store is still there: %v", err)
	}
}

// TestAnotherServersStoreIsLeftAlone: nothing shows whether that one runs.
func TestAnotherServersStoreIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "jetstream", "theirs")
	if err := os.MkdirAll(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Erase(dir); !errors.Is(err, ErrForeign) {
		t.Errorf("erased: %v", err)
	}
	if _, err := Start(t.Context(), Config{StoreDir: dir}); !errors.Is(err, ErrForeign) {
		t.Errorf("started: %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestEveryMessageIsSynced(t *testing.T) {
	s := startOn(t, Config{StoreDir: t.TempDir()})
	if config := s.server.JetStreamConfig(); config == nil || !config.SyncAlways {
		t.Errorf("%+v", config)
	}
}
