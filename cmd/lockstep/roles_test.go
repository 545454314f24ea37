package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker"
	"lockstep/worker/fleet"
)

// secured is a server of deploy/nats/secure.conf with the users that lockstep
// roles makes.
type secured struct {
	server *natsserver.Server
	auth   string // what lockstep roles made
	with   string
}

// layOut copies the configs to a directory of the test's own, and makes users.
func layOut(t *testing.T, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	files, err := filepath.Glob("../../deploy/nats/*.conf")
	if err != nil || len(files) < 4 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lockstep(t, append([]string{"roles", "--out", filepath.Join(dir, "auth")}, args...)...)
	return dir
}

// lockstep runs the program, which must succeed.
func lockstep(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryLockstep(t, args...)
	if err != nil {
		t.Fatalf("lockstep %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryLockstep(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := run(ctx, args, strings.NewReader(""), &out, &out)
	return out.String(), err
}

// startConfig starts the server of a config, but for its port and its store.
func startConfig(t *testing.T, file string, change func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	options, err := natsserver.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.HTTPHost, options.HTTPPort = "127.0.0.1", natsserver.RANDOM_PORT, "127.0.0.1", natsserver.RANDOM_PORT
	options.StoreDir, options.NoSigs = t.TempDir(), true
	if change != nil {
		change(options)
	}
	s, err := natsserver.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s
}

func startSecured(t *testing.T, with string) *secured {
	t.Helper()
	dir := layOut(t, "--with", with)
	return &secured{startConfig(t, filepath.Join(dir, "secure.conf"), nil), filepath.Join(dir, "auth"), with}
}

func (s *secured) url() string { return strings.Replace(s.server.ClientURL(), "nats://", "tls://", 1) }

// flags are how a user connects.
func (s *secured) flags(user string) []string {
	file := func(name string) string { return filepath.Join(s.auth, name) }
	flags := []string{"-s", s.url(), "--tlsca", file("ca.pem"), "--inbox-prefix", fleet.InboxPrefix(user)}
	switch s.with {
	case "certs":
		return append(flags, "--tlscert", file(user+".pem"), "--tlskey", file(user+"-key.pem"))
	case "nkeys":
		return append(flags, "--nkey", file(user+".nk"))
	}
	return append(flags, "--creds", file(user+".creds"))
}

func (s *secured) config(user string) bus.ConnectConfig {
	file := func(name string) string { return filepath.Join(s.auth, name) }
	c := bus.ConnectConfig{
		Bare: true, Name: user, Server: s.url(), TLSCA: file("ca.pem"),
		InboxPrefix: fleet.InboxPrefix(user),
	}
	switch s.with {
	case "certs":
		c.TLSCert, c.TLSKey = file(user+".pem"), file(user+"-key.pem")
	case "nkeys":
		c.NKey = file(user + ".nk")
	default:
		c.Creds = file(user + ".creds")
	}
	return c
}

func (s *secured) connect(t *testing.T, user string) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), s.config(user))
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// serve runs a worker as the user worker until the test ends, or stop.
func (s *secured) serve(t *testing.T, name string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		err := worker.Serve(ctx, worker.JoinConfig{
			Connect: s.config(
				"worker",
			), Name: name, Version: "1.2.3", Spec: model.DefaultSpec(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			OnState: func(state fleet.State) {
				if state == fleet.Ready {
					once.Do(func() { close(ready) })
				}
			},
		})
		if err != nil {
			t.Errorf("worker %s: %v", name, err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	select {
	case <-ready:
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the worker %s is not ready", name)
	}
	return stop
}

const (
	measures = `{"island":"Biscoe","bill_length_mm":46.1,"bill_depth_mm":13.2,"flipper_length_mm":211,"body_mass_g":4500,"sex":"female"}`
	lesson   = `{"attributes":` + measures + `,"species":"Gentoo"}`
)

// An action is something that a user may try, and who may do it.
type action struct {
	name string
	may  string // the roles, by their first letters: p, t, w, ob, op
	do   func(ctx context.Context, conn *bus.Conn) error
}

// request asks a subject, and takes an error of JetStream's as one.
func request(subject, body string) func(context.Context, *bus.Conn) error {
	return func(ctx context.Context, conn *bus.Conn) error {
		answer, err := bus.Ask(ctx, conn, subject, []byte(body), nil)
		if err != nil {
			return err
		}
		var api struct {
			Error *struct {
				Description string `json:"description"`
			} `json:"error"`
		}
		if json.Unmarshal(answer.Data, &api) == nil && api.Error != nil {
			return errors.New(subject + ": " + api.Error.Description)
		}
		return nil
	}
}

// said is what the server refused on a connection.
func said(conn *bus.Conn) error {
	if err := conn.FlushTimeout(5 * time.Second); err != nil {
		return err
	}
	return conn.LastError()
}

func publish(subject string) func(context.Context, *bus.Conn) error {
	return func(_ context.Context, conn *bus.Conn) error {
		if err := conn.Publish(subject, []byte("{}")); err != nil {
			return err
		}
		return said(conn)
	}
}

func listen(subject string) func(context.Context, *bus.Conn) error {
	return func(_ context.Context, conn *bus.Conn) error {
		sub, err := conn.SubscribeSync(subject)
		if err != nil {
			return err
		}
		defer sub.Unsubscribe()
		return said(conn)
	}
}

// onLog does something with the log, bound by nothing.
func onLog(do func(context.Context, *bus.Log) error) func(context.Context, *bus.Conn) error {
	return func(ctx context.Context, conn *bus.Conn) error {
		log, err := bus.UnboundLog(conn, bus.LogConfig{Model: "penguins"})
		if err != nil {
			return err
		}
		return do(ctx, log)
	}
}

func appendTo(subject, body string) func(context.Context, *bus.Conn) error {
	return onLog(func(ctx context.Context, log *bus.Log) error {
		_, err := log.Append(ctx, subject, bus.NewID(), []byte(body))
		return err
	})
}

func onBoards(do func(context.Context, fleet.Buckets) error) func(context.Context, *bus.Conn) error {
	return func(ctx context.Context, conn *bus.Conn) error {
		boards, err := fleet.BindBuckets(ctx, conn, "penguins")
		if err != nil {
			return err
		}
		return do(ctx, boards)
	}
}

const roleNames = "predictor teacher worker observer operator"

// actions are in the order in which they are tried: what destroys comes last.
var actions = []action{
	{"predict", "predictor teacher operator", request("penguins.predict", measures)},
	{"explain", "predictor teacher operator", request("penguins.explain", measures)},
	{"status", "predictor teacher observer operator", request("penguins.status", "")},
	{"teach", "teacher operator", request("penguins.teach", lesson)},
	{"publish a learn event", "teacher worker operator", appendTo("penguins.learn", lesson)},
	{"publish a checkpoint", "worker operator", appendTo("penguins.ctl.checkpoint", "")},
	{"publish a genesis", "operator", appendTo("penguins.ctl.genesis", "{}")},
	{"read a message of the log", "worker observer operator", onLog(func(ctx context.Context, log *bus.Log) error {
		_, err := log.Message(ctx, 1)
		return err
	})},
	{"tail the log", "worker observer operator", onLog(func(ctx context.Context, log *bus.Log) error {
		enough := errors.New("enough")
		err := log.Tail(ctx, bus.Position{}, func(*bus.Message) error { return enough })
		if errors.Is(err, enough) {
			return nil
		}
		return err
	})},
	{"listen to all inboxes", "", listen("_INBOX.>")},
	{"listen to another's inbox", "", listen("_INBOX.victim.>")},
	{"listen to everything", "", listen(">")},
	{"listen to the log's subject", "", listen("penguins.learn")},
	{"take requests", "worker", listen("penguins.predict")},
	{"answer into an inbox", "worker", publish("_INBOX.victim.1")},
	{"ping the services", "operator", request("$SRV.PING.penguins", "")},
	{"write a verdict", "worker operator", func(ctx context.Context, conn *bus.Conn) error {
		return request("penguins.verdict.rejected.1.0."+bus.NewID(), "{}")(ctx, conn)
	}},
	{"listen to verdicts", "observer operator", listen("penguins.verdict.>")},
	{"raise an advisory", "worker operator", publish("penguins.advisory.test")},
	{"listen to advisories", "observer operator", listen("penguins.advisory.>")},
	{"add to the counter", "worker operator", func(ctx context.Context, conn *bus.Conn) error {
		if err := publish("penguins.count.predicted")(ctx, conn); err != nil { // without a number nothing is added
			return err
		}
		return nil
	}},
	{"put a heartbeat", "worker operator", func(ctx context.Context, conn *bus.Conn) error {
		return request("$KV.penguins_replicas.replica.x", "{}")(ctx, conn)
	}},
	{"attest at a checkpoint", "worker operator", request("$KV.penguins_checkpoints.attest.x", "{}")},
	{"read heartbeats", "worker observer operator", onBoards(func(ctx context.Context, b fleet.Buckets) error {
		_, err := fleet.Heartbeats(ctx, b.Heartbeats)
		return err
	})},
	{
		"remove an attestation", "worker operator",
		onBoards(func(ctx context.Context, b fleet.Buckets) error { return b.Checkpoints.Remove(ctx, "attest.x") }),
	},
	{"put a snapshot", "worker operator", onBoards(func(ctx context.Context, b fleet.Buckets) error {
		return b.Snapshots.Put(ctx, "x-"+bus.NewID(), []byte("state"))
	})},
	{"get a snapshot", "worker observer operator", onBoards(func(ctx context.Context, b fleet.Buckets) error {
		_, err := b.Snapshots.Get(ctx, "given")
		return err
	})},
	{"see a stream's info", "worker observer operator", request("$JS.API.STREAM.INFO.PENGUINS", "")},
	{"list streams", "observer operator", request("$JS.API.STREAM.LIST", "")},
	{"see the account's limits", "observer operator", request("$JS.API.INFO", "")},
	{"back up the log", "operator", func(ctx context.Context, conn *bus.Conn) error {
		return request(
			"$JS.API.STREAM.SNAPSHOT.PENGUINS", `{"deliver_subject":"`+conn.NewInbox()+`","no_consumers":true}`,
		)(
			ctx, conn,
		)
	}},
	{"make a stream of the model", "operator", request("$JS.API.STREAM.CREATE.PENGUINS_COUNTS", countsConfig)},
	{"change a stream", "operator", request("$JS.API.STREAM.UPDATE.PENGUINS_COUNTS", countsConfig)},
	{
		"make a stream of another name", "",
		request("$JS.API.STREAM.CREATE.OTHER", `{"name":"OTHER","subjects":["other"]}`),
	},
	{"delete a message of the log", "", request("$JS.API.STREAM.MSG.DELETE.PENGUINS", `{"seq":1}`)},
	{"purge the log's head", "operator", request("$JS.API.STREAM.PURGE.PENGUINS", `{"seq":1}`)},
	{"delete a bucket", "operator", request("$JS.API.STREAM.DELETE.KV_penguins_replicas", "")},
	{"delete the log", "operator", request("$JS.API.STREAM.DELETE.PENGUINS", "")},
}

const countsConfig = `{"name":"PENGUINS_COUNTS","description":"a counter of the fleet","subjects":["penguins.count.predicted"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"discard":"old","max_age":0,"max_msgs_per_subject":10000,"storage":"file","num_replicas":1,"duplicate_window":120000000000,"allow_direct":true,"allow_msg_counter":true}`

// tried is one cell of the matrix.
type tried struct {
	Role    string `json:"role"`
	Action  string `json:"action"`
	Allowed bool   `json:"allowed"`           // it should work
	Works   bool   `json:"works"`             // it does
	Refusal string `json:"refusal,omitempty"` // what the client is told
}

// TestRoles tries every action as every role, with certificates, nkeys and
// creds. LOCKSTEP_ROLES names a file for the matrix, in JSON.
func TestRoles(t *testing.T) {
	for _, with := range []string{"certs", "nkeys", "creds"} {
		t.Run(with, func(t *testing.T) {
			t.Parallel()
			s := startSecured(t, with)
			lockstep(t, append([]string{"init"}, s.flags("operator")...)...)
			s.serve(t, "blue-1")
			boards, err := fleet.BindBuckets(t.Context(), s.connect(t, "operator"), "penguins")
			if err != nil {
				t.Fatal(err)
			}
			if err := boards.Snapshots.Put(t.Context(), "given", []byte("state")); err != nil {
				t.Fatal(err)
			}
			var matrix []tried
			for _, a := range actions {
				for _, role := range strings.Fields(roleNames) {
					matrix = append(matrix, s.try(t, a, role))
				}
			}
			if with == "certs" {
				report(t, matrix)
			}
		})
	}
}

// try does an action as a user on a connection of its own.
func (s *secured) try(t *testing.T, a action, role string) tried {
	t.Helper()
	conn := s.connect(t, role)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := a.do(ctx, conn)
	out := tried{Role: role, Action: a.name, Allowed: slices.Contains(strings.Fields(a.may), role), Works: err == nil}
	if err != nil {
		out.Refusal = err.Error()
	}
	var denied *bus.PermissionError
	named := errors.As(err, &denied) && denied.Subject != "" || errors.Is(err, nats.ErrPermissionViolation) ||
		role == "operator" && err != nil && !errors.Is(err, context.DeadlineExceeded)
	switch {
	case out.Works != out.Allowed:
		t.Errorf("%s: %s: works %t (%v), want %t", role, a.name, out.Works, err, out.Allowed)
	case !out.Works && !named:
		t.Errorf("%s: %s: the refusal does not name what was denied: %v", role, a.name, err)
	}
	return out
}

// report prints the matrix.
func report(t *testing.T, matrix []tried) {
	t.Helper()
	if file := os.Getenv("LOCKSTEP_ROLES"); file != "" {
		data, err := json.Marshal(matrix)
		if err == nil {
			err = os.WriteFile(file, append(data, '\n'), 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	roles := strings.Fields(roleNames)
	text := fmt.Sprintf("%-30s", "")
	for _, r := range roles {
		text += fmt.Sprintf(" %-10s", r)
	}
	for i, cell := range matrix {
		if i%len(roles) == 0 {
			text += fmt.Sprintf("\n%-30s", cell.Action)
		}
		word := "refused"
		if cell.Works {
			word = "works"
		}
		text += fmt.Sprintf(" %-10s", word)
	}
	t.Log("role × action\n" + text)
	text = ""
	for _, cell := range matrix {
		if !cell.Works && (cell.Role == "predictor" || cell.Role == "worker") {
			text += fmt.Sprintf("\n%-10s %-30s %s", cell.Role, cell.Action, cell.Refusal)
		}
	}
	t.Log("attempts of predictor and worker that fail" + text)
}

// TestClusterConfig starts the three servers of cluster.conf, each in its own
// way to prove who one is: they find each other, and hold a log three times.
func TestClusterConfig(t *testing.T) {
	for _, with := range []string{"certs", "nkeys", "creds"} {
		t.Run(with, func(t *testing.T) { // not parallel: its servers read the environment
			servers, auth := startCluster(t, layOut(t, "--with", with))
			s := &secured{servers[0], auth, with}
			lockstep(t, append([]string{"init", "--replicas", "3"}, s.flags("operator")...)...)
			s.serve(t, "blue-1")
			s.server = servers[1]
			lockstep(t, append(append([]string{"teach"}, s.flags("teacher")...), lesson)...)
			if out := lockstep(t, append([]string{"verify", "--json"}, s.flags("operator")...)...); !strings.Contains(
				out, `"identical":true`,
			) {
				t.Error(out)
			}
		})
	}
}

// startCluster starts the three servers of a laid out cluster.conf.
func startCluster(t *testing.T, dir string) (servers []*natsserver.Server, auth string) {
	t.Helper()
	var ports []int
	for range 3 {
		ports = append(ports, unusedPort(t))
	}
	t.Setenv(
		"NATS_ROUTES",
		fmt.Sprintf("[tls://127.0.0.1:%d, tls://127.0.0.1:%d, tls://127.0.0.1:%d]", ports[0], ports[1], ports[2]),
	)
	t.Setenv("NATS_HTTP", "127.0.0.1:8222")
	for i, port := range ports {
		t.Setenv("NATS_NAME", fmt.Sprintf("nats-%d", i))
		servers = append(
			servers,
			startConfig(
				t, filepath.Join(dir, "cluster.conf"),
				func(o *natsserver.Options) { o.Cluster.Host, o.Cluster.Port = "127.0.0.1", port },
			),
		)
	}
	awaitCluster(t, servers)
	return servers, filepath.Join(dir, "auth")
}

// awaitCluster waits until servers have a leader of their streams.
func awaitCluster(t *testing.T, servers []*natsserver.Server) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		current, led := 0, false
		for _, s := range servers {
			led = led || s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(servers)
			if s.JetStreamIsCurrent() {
				current++
			}
		}
		if led && current == len(servers) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster does not begin")
		}
	}
}

// newCluster3 is a cluster without users.
func newCluster3(t *testing.T, change ...func(i int, o *natsserver.Options)) (url string, js jetstream.JetStream) {
	t.Helper()
	servers := startOpenCluster(t, change...)
	conn, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: servers[0].ClientURL(), Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if js, err = jetstream.New(conn.Conn); err != nil {
		t.Fatal(err)
	}
	return servers[0].ClientURL(), js
}

func startOpenCluster(t *testing.T, change ...func(i int, o *natsserver.Options)) (servers []*natsserver.Server) {
	t.Helper()
	var ports []int
	var routes []*url.URL
	for range 3 {
		ports = append(ports, unusedPort(t))
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[len(ports)-1])})
	}
	for i, port := range ports {
		servers = append(servers, startConfig(t, "../../deploy/nats/single.conf", func(o *natsserver.Options) {
			o.ServerName, o.Cluster, o.Routes = fmt.Sprintf(
				"n%d", i,
			), natsserver.ClusterOpts{
				Name: "open", Host: "127.0.0.1", Port: port,
			}, routes
			for _, f := range change {
				f(i, o)
			}
		}))
	}
	awaitCluster(t, servers)
	return servers
}

// unusedPort is a port of no one's at this moment.
func unusedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }
