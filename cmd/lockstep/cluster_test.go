//go:build e2e && linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A cluster is three real nats-server processes. The routes between them run
// through links, so that any two can be cut off from each other.

const (
	clusterSize     = 3
	clusterPatience = 60 * time.Second // with one process of the cluster
)

type cluster struct {
	nodes [clusterSize]*node
	links [clusterSize][clusterSize]*link // from one server to another
}

// node is one server. It may be dead.
type node struct {
	*child
	name, binary, dir   string
	client, route, http int // ports
}

// newCluster starts a cluster and waits until its JetStream is well.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "nats-server")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("building nats-server: %v\n%s", err, out)
	}
	c := &cluster{}
	for i := range c.nodes {
		c.nodes[i] = &node{
			name: fmt.Sprintf("n%d", i), binary: binary, dir: t.TempDir(), client: freePort(t),
			route: freePort(t), http: freePort(t),
		}
	}
	for i, n := range c.nodes {
		var routes []string
		for j, other := range c.nodes {
			if i != j {
				c.links[i][j] = newLink(t, other.route)
				routes = append(routes, "nats-route://"+c.links[i][j].listener.Addr().String())
			}
		}
		// What servers tell each other of a route's address must not lead
		// past the links.
		config := fmt.Sprintf(`
server_name: %s
listen: "127.0.0.1:%d"
http: "127.0.0.1:%d"
lame_duck_duration: 30s # the least; a server without clients ends after the grace
lame_duck_grace_period: 2s
jetstream { store_dir: %q, sync_interval: always, max_file_store: 20GB }
cluster { name: torture, listen: "127.0.0.1:%d", advertise: "127.0.0.1:1", no_advertise: true, routes: [%s] }
`, n.name, n.client, n.http, filepath.Join(n.dir, "store"), n.route, strings.Join(routes, ", "))
		if err := os.MkdirAll(filepath.Join(n.dir, "store"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.dir, "nats.conf"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) start(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		n.start(t)
	}
	if trouble := c.ails(time.Minute); trouble != "" {
		t.Fatalf("the cluster did not begin: %s", trouble)
	}
}

// freePort is a port outside the range from which the system takes those of
// outgoing connections: the port of a server that is dead must stay free.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func (n *node) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.client) }

func (c *cluster) urls() string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.url())
	}
	return strings.Join(out, ",")
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.child = spawn(t, n.name, os.Environ(), "Server is ready", n.binary, "-c", filepath.Join(n.dir, "nats.conf"))
	n.await(t)
}

// get reads a monitoring page.
func (n *node) get(path string, into any) (string, error) {
	client := http.Client{Timeout: time.Second}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", n.http, path))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", r.Status)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	return string(body), err
}

// ails waits until all servers say that they are healthy, streams included,
// and returns what the last of them that is not says.
func (c *cluster) ails(within time.Duration) (trouble string) {
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		trouble = ""
		for _, n := range c.nodes {
			if body, err := n.get("healthz", nil); err != nil {
				trouble = fmt.Sprintf("%s: %v %s", n.name, err, strings.Join(strings.Fields(body), " "))
			}
		}
		if trouble == "" || time.Now().After(deadline) {
			return trouble
		}
	}
}

// host is the number of the server that a client of a name hangs on, or -1.
func (c *cluster) host(name string) int {
	for i, n := range c.nodes {
		var page struct {
			Connections []struct {
				Name string `json:"name"`
			} `json:"connections"`
		}
		if _, err := n.get("connz", &page); err != nil {
			continue
		}
		for _, client := range page.Connections {
			if client.Name == name {
				return i
			}
		}
	}
	return -1
}

// startWorker starts a worker process of a cluster, and does not wait.
func (c *cluster) startWorker(t *testing.T, name string) *child {
	t.Helper()
	return spawn(
		t, name, append(os.Environ(), "HOME="+t.TempDir()), `"state":"ready"`, "lockstep", "worker", "-s",
		c.urls(), "--replicas", "3", "--name", name,
	)
}

// startWorkers starts worker processes at once, and waits until all are ready.
func (c *cluster) startWorkers(t *testing.T, names ...string) []*child {
	t.Helper()
	var out []*child
	for _, name := range names {
		out = append(out, c.startWorker(t, name))
	}
	for _, w := range out {
		w.await(t)
	}
	return out
}

// child is a process that the system ends when the test ends, however that
// comes about.
type child struct {
	*process
	name  string
	ready chan []string // gets the first line that matches
	since time.Time
}

// spawn starts a process and does not wait. With LOCKSTEP_LOGS its output is
// left in that folder.
func spawn(t *testing.T, name string, env []string, pattern string, args ...string) *child {
	t.Helper()
	c := &child{
		process: &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}, name: name,
		ready: make(chan []string, 1), since: time.Now(),
	}
	reader, writer := io.Pipe()
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = env, writer, writer
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		writer.Close()
		close(c.done)
	}()
	go c.scan(reader, regexp.MustCompile(pattern), c.ready)
	t.Cleanup(func() {
		c.stop(syscall.SIGKILL)
		if dir := os.Getenv("LOCKSTEP_LOGS"); dir != "" {
			file := fmt.Sprintf("%s-%s-%s.log", strings.ReplaceAll(t.Name(), "/", "-"), name, c.since.Format("150405.000"))
			if err := os.WriteFile(filepath.Join(dir, file), []byte(c.output()), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

// await waits until the process has said that it is ready.
func (c *child) await(t *testing.T) {
	t.Helper()
	select {
	case <-c.ready:
	case <-c.done:
		t.Fatalf("%s ended (%v) before it was ready:\n%s", c.name, c.err, c.output())
	case <-time.After(clusterPatience):
		t.Fatalf("%s is not ready after %s:\n%s", c.name, clusterPatience, c.output())
	}
}

// ended reports whether the process has ended.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// link carries the routes from one server to another, and can be cut.
type link struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	state   linkState              // guarded by mu
	changed chan struct{}          // closed at the next change of state; guarded by mu
	open    map[io.Closer]struct{} // guarded by mu
}

type linkState int

const (
	passing linkState = iota
	stalled           // nothing comes through, and no one is told: what was sent comes later
	severed           // connections are closed, and new ones too
)

func newLink(t *testing.T, port int) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{
		listener: listener, target: fmt.Sprintf("127.0.0.1:%d", port), changed: make(chan struct{}),
		open: map[io.Closer]struct{}{},
	}
	t.Cleanup(func() {
		listener.Close()
		l.set(severed)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(conn)
		}
	}()
	return l
}

func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	close(l.changed)
	l.changed = make(chan struct{})
	if state == severed {
		for conn := range l.open { // order: all are closed
			conn.Close()
		}
	}
}

// pass waits while the link is stalled, and reports whether it still is one.
func (l *link) pass() bool {
	for {
		l.mu.Lock()
		state, changed := l.state, l.changed
		l.mu.Unlock()
		if state != stalled {
			return state == passing
		}
		<-changed
	}
}

// hold has a connection closed when the link is severed, or closes it now.
func (l *link) hold(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == severed {
		conn.Close()
		return false
	}
	l.open[conn] = struct{}{}
	return true
}

func (l *link) drop(conn net.Conn) {
	conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

func (l *link) carry(from net.Conn) {
	if !l.hold(from) {
		return
	}
	defer l.drop(from)
	if !l.pass() {
		return
	}
	to, err := net.DialTimeout("tcp", l.target, time.Second)
	if err != nil || !l.hold(to) {
		return
	}
	defer l.drop(to)
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer way[1].Close()
			defer way[0].Close()
			data := make([]byte, 64<<10)
			for {
				n, err := way[0].Read(data)
				if !l.pass() {
					return
				}
				if _, failed := way[1].Write(data[:n]); failed != nil || err != nil {
					return
				}
			}
		})
	}
	both.Wait()
}

// between sets the links between two servers, both ways.
func (c *cluster) between(i, j int, state linkState) {
	c.links[i][j].set(state)
	c.links[j][i].set(state)
}

// cupboard is a server's store that can be made to have no room.
type cupboard struct {
	node    *node
	mounted bool
}

const cupboardSize = 4 << 30

// newCupboard puts a server's store on a small file system of its own, where
// the system allows that. Call it before the server starts.
func newCupboard(t *testing.T, n *node) *cupboard {
	t.Helper()
	c := &cupboard{node: n}
	dir := filepath.Join(n.dir, "store")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", cupboardSize)); err != nil {
		return c
	}
	c.mounted = true
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cupboard) String() string {
	if c.mounted {
		return "a tmpfs of its own for the store of " + c.node.name + ", shrunk to what is in it"
	}
	return "no file system can be mounted here: prlimit --fsize on " + c.node.name + ", which ends the server at its " +
		"next write"
}

// fill leaves no room for another byte.
func (c *cupboard) fill() error {
	if !c.mounted {
		out, err := exec.Command("prlimit", "--pid", fmt.Sprint(c.node.cmd.Process.Pid), "--fsize=1:1").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("prlimit: %w: %s", err, out)
		}
		return err
	}
	dir := filepath.Join(c.node.dir, "store")
	var err error
	for range 100 { // the server writes meanwhile
		var now syscall.Statfs_t
		if err = syscall.Statfs(dir, &now); err != nil {
			return err
		}
		used := (now.Blocks - now.Bfree) * uint64(now.Bsize)
		if err = c.size(used); err == nil {
			return nil
		}
	}
	return err
}

func (c *cupboard) size(bytes uint64) error {
	return syscall.Mount(
		"tmpfs", filepath.Join(c.node.dir, "store"), "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", bytes),
	)
}

// empty makes room again.
func (c *cupboard) empty() error {
	if !c.mounted {
		return nil // a new process has its own limit
	}
	return c.size(cupboardSize)
}

// gaps is how long something that should go on did not.
type gaps struct {
	mu      sync.Mutex
	last    time.Time     // guarded by mu
	longest time.Duration // guarded by mu
	recent  time.Duration // the longest since it was asked last; guarded by mu
	count   int           // guarded by mu
}

func newGaps() *gaps { return &gaps{last: time.Now()} }

// hit is called whenever it goes on.
func (g *gaps) hit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.note()
	g.last = time.Now()
	g.count++
}

func (g *gaps) note() {
	gap := time.Since(g.last)
	g.longest, g.recent = max(g.longest, gap), max(g.recent, gap)
}

// window is the longest gap since the last call, and since the beginning.
func (g *gaps) window() (recent, longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.note()
	recent, g.recent = g.recent, 0
	return recent, g.longest
}

func (g *gaps) hits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}
