package bus_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep/bus"
)

// startCluster starts three servers with JetStream in this process, waits for
// their leader, and returns their URLs.
func startCluster(t *testing.T) (urls []string) {
	t.Helper()
	var servers []*server.Server
	var routes []*url.URL
	var ports []int
	var listeners []net.Listener
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // its port is free once it is closed
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range listeners {
		l.Close()
	}
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "race", Host: "127.0.0.1", Port: port},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		go s.Start()
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(patience) {
			t.Fatal("a server does not start")
		}
		urls = append(urls, s.ClientURL())
	}
	led := func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(servers) {
				return true
			}
		}
		return false
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !led(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatal("the cluster has no leader")
		}
	}
	return urls
}

// TestALostRaceIsNoFailure: of those that put the same note at the same time
// into a stream of three replicas, one stores it, and the others are told so.
func TestALostRaceIsNoFailure(t *testing.T) {
	t.Parallel()
	const notes = 300
	var all sync.WaitGroup
	var stored atomic.Int64
	begin := make(chan struct{})
	for _, server := range startCluster(t) {
		n, err := bus.OpenNotes(testContext(t), connect(t, bus.ConnectConfig{Server: server}), "N", "n.>", 3)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			all.Go(func() {
				<-begin
				var failed error
				for i := range notes {
					first, err := n.Put(testContext(t), fmt.Sprint("n.", i), []byte("x"))
					failed = errors.Join(failed, err)
					if first {
						stored.Add(1)
					}
				}
				if failed != nil {
					t.Error(failed)
				}
			})
		}
	}
	close(begin)
	all.Wait()
	if got := stored.Load(); got > notes {
		t.Errorf("got %d notes stored, want %d at most", got, notes)
	}
}
