package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"lockstep/bus"
	"lockstep/model"
	"lockstep/worker/fleet"
)

// diagnose runs doctor, and returns what it says and its exit code.
func diagnose(t *testing.T, args ...string) (f bus.Findings, code int) {
	t.Helper()
	out, err := tryLockstep(t, append([]string{"doctor", "--json", "--timeout", "300ms"}, args...)...)
	var got examined
	line, _, _ := strings.Cut(out, "\n")
	if json.Unmarshal([]byte(line), &got) != nil {
		t.Fatalf("no JSON: %v: %s", err, out)
	}
	return got.Findings, exitCode(err)
}

// A fault is planted on a model's streams that nothing else ails.
type fault struct {
	name  string
	plant func(t *testing.T, p *patient)
	want  bus.Finding // parts of its text and fix
	code  int
}

// patient is a server with a model's streams, and how doctor reaches it.
type patient struct {
	url  string
	js   jetstream.JetStream
	args []string // instead of the url
}

func (p *patient) boards(t *testing.T) fleet.Buckets {
	t.Helper()
	b, err := fleet.BindBuckets(t.Context(), p.conn(t), "penguins")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *patient) conn(t *testing.T) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), bus.ConnectConfig{Server: p.url, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// put writes JSON on the board of the checkpoints.
func (p *patient) put(t *testing.T, key string, value any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err == nil {
		err = p.boards(t).Checkpoints.Put(t.Context(), key, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// says answers for workers that are not there: ready, and what is given.
func (p *patient) says(t *testing.T, all ...map[string]any) {
	t.Helper()
	contract := model.DefaultSpec().Contract()
	conn := p.conn(t)
	for i, given := range all {
		status := map[string]any{
			"replica": fmt.Sprint("blue-", i), "state": "ready", "seq": 10 + i, "version": "1.2.3",
			"contract": fmt.Sprintf("%x", contract), "incarnation": "i", "encoding": model.Encoding,
			"log_chain": hashOf("l"), "state_chain": hashOf("s"), "digest": hashOf("d"),
		}
		for key, value := range given { // order: each key once
			status[key] = value
		}
		data, err := json.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Subscribe("penguins.status", func(m *nats.Msg) { m.Respond(data) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func alteration(stream string, change func(*jetstream.StreamConfig)) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) { alter(t, p.js, stream, change) }
}

type status = map[string]any

func workers(all ...status) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) { p.says(t, all...) }
}

// monitor is a server's monitoring pages as they could be.
func monitor(t *testing.T, vars, jetStream string, health int) string {
	t.Helper()
	pages := http.NewServeMux()
	page := func(path, body string, code int) {
		pages.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		})
	}
	page("/varz", vars, 200)
	page("/jsz", jetStream, 200)
	page("/healthz", `{"status":"unavailable"}`, health)
	s := httptest.NewServer(pages)
	t.Cleanup(s.Close)
	return s.URL
}

func monitors(pages ...func(t *testing.T) string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		for _, page := range pages {
			p.args = append(p.args, "--monitor", page(t))
		}
	}
}

func forged(vars, jetStream string, health int) func(*testing.T) string {
	return func(t *testing.T) string { return monitor(t, vars, jetStream, health) }
}

const (
	goodVars = `{"server_id":"A","server_name":"n0","version":"2.15.2","host":"127.0.0.1"}`
	goodJS   = `{"config":{"sync_always":true,"store_dir":"/var/lib/nats"}}`
)

var faults = []fault{
	{"no server", func(t *testing.T, p *patient) {
		p.args = []string{"-s", fmt.Sprintf("nats://127.0.0.1:%d", unusedPort(t))}
	},
		bus.Finding{Check: "server", Level: bus.Fail, Text: "no NATS server at", Mend: "start the server"}, 3},
	{"JetStream is off", func(t *testing.T, p *patient) {
		p.args = []string{
			"-s",
			startConfig(t, "../../deploy/nats/single.conf", func(o *natsserver.Options) { o.JetStream = false }).ClientURL(),
		}
	}, bus.Finding{Check: "jetstream", Level: bus.Fail, Text: "no JetStream", Mend: "start the server with JetStream"}, 1},
	{"small messages only", func(t *testing.T, p *patient) {
		p.args = []string{
			"-s",
			startConfig(
				t, "../../deploy/nats/single.conf",
				func(o *natsserver.Options) { o.MaxPayload = 64 << 10 },
			).ClientURL(),
		}
	}, bus.Finding{Check: "max_payload", Level: bus.Fail, Text: "65536 bytes", Mend: "set max_payload"}, 1},
	{"nothing is made", func(t *testing.T, p *patient) {
		if err := p.js.DeleteStream(t.Context(), "PENGUINS"); err != nil {
			t.Fatal(err)
		}
	}, bus.Finding{Check: "stream PENGUINS", Level: bus.Fail, Text: "there is no such stream", Mend: "lockstep init"}, 1},
	{"a bucket is gone", func(t *testing.T, p *patient) {
		if err := p.js.DeleteKeyValue(t.Context(), "penguins_checkpoints"); err != nil {
			t.Fatal(err)
		}
	}, bus.Finding{Check: "stream KV_penguins_checkpoints", Level: bus.Fail, Text: "there is no such stream", Mend: "lockstep init"}, 1},
	{"the log's head will be cut", alteration("PENGUINS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }),
		bus.Finding{
			Check: "stream PENGUINS", Level: bus.Fail, Text: "max_age is 1h0m0s, and should be unlimited",
			Mend: "lockstep init",
		}, 1},
	{
		"the log drops what is old",
		alteration("PENGUINS", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }),
		bus.Finding{Check: "stream PENGUINS", Level: bus.Fail, Text: "discard is DiscardOld", Mend: "lockstep init"},
		1,
	},
	{
		"strangers append",
		alteration("PENGUINS", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "penguins.other") }),
		bus.Finding{
			Check: "stream PENGUINS", Level: bus.Fail, Text: "subject penguins.other is there",
			Mend: "nats stream edit",
		},
		1,
	},
	{
		"attestations expire",
		alteration(
			"KV_penguins_checkpoints",
			func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = time.Hour, time.Minute },
		),
		bus.Finding{Check: "stream KV_penguins_checkpoints", Level: bus.Fail, Text: "max_age", Mend: "lockstep init"},
		1,
	},
	{"the counter is none", func(t *testing.T, p *patient) {
		if err := p.js.DeleteStream(t.Context(), "PENGUINS_COUNTS"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "PENGUINS_COUNTS", Subjects: []string{"penguins.count.predicted"}}); err != nil {
			t.Fatal(err)
		}
	}, bus.Finding{Check: "stream PENGUINS_COUNTS", Level: bus.Fail, Text: "allow_msg_counter is false", Mend: "delete it, and make it anew"}, 1},
	{"the log was purged", func(t *testing.T, p *patient) {
		for range 5 {
			if _, err := p.js.Publish(t.Context(), "penguins.learn", []byte(lesson)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := p.js.Stream(t.Context(), "PENGUINS")
		if err == nil {
			err = s.Purge(t.Context(), jetstream.WithPurgeSequence(4))
		}
		if err != nil {
			t.Fatal(err)
		}
	}, bus.Finding{Check: "log", Level: bus.Fail, Text: "it begins at 4, and nobody keeps what came before", Mend: "restore the log"}, 1},
	{"another spec", func(t *testing.T, p *patient) { p.args = append(p.args, "--spec", renamedSpec(t)) },
		bus.Finding{
			Check: "contract", Level: bus.Fail, Text: "the log was made with the contract",
			Mend: "start workers with the log's spec",
		}, 1},
	{"no worker", func(*testing.T, *patient) {},
		bus.Finding{Check: "fleet", Level: bus.Fail, Text: "no worker runs", Mend: "lockstep worker"}, 1},
	{"a lone worker", workers(status{}),
		bus.Finding{Check: "fleet", Level: bus.Warn, Text: "one worker alone", Mend: "start a second one"}, 0},
	{"nobody is ready", workers(status{"state": "replaying", "lag": 77}, status{"state": "restoring"}),
		bus.Finding{Check: "fleet", Level: bus.Fail, Text: "none is ready", Mend: "lockstep status"}, 1},
	{"a quarantined worker", workers(status{"state": "quarantined"}, status{}, status{}),
		bus.Finding{Check: "worker blue-0", Level: bus.Fail, Text: "quarantined", Mend: "lockstep verify"}, 1},
	{"a slow worker", workers(status{"lag": 50_000}, status{}),
		bus.Finding{Check: "worker blue-0", Level: bus.Warn, Text: "50000 messages behind", Mend: "more CPU"}, 0},
	{"a worker in trouble", workers(status{"advisory": "the log cannot be read"}, status{}),
		bus.Finding{Check: "worker blue-0", Level: bus.Warn, Text: "the log cannot be read", Mend: "runbook"}, 0},
	{"an overrun worker", workers(status{"dropped": 3}, status{}),
		bus.Finding{Check: "worker blue-0", Level: bus.Warn, Text: "lost 3 requests", Mend: "start more workers"}, 0},
	{"a worker with another contract", workers(status{"contract": strings.Repeat("0", 64)}, status{}),
		bus.Finding{
			Check: "worker blue-0", Level: bus.Fail, Text: "has the contract 0000000000000000",
			Mend: "the log's spec",
		}, 1},
	{"two of one name", workers(status{"replica": "blue"}, status{"replica": "blue"}),
		bus.Finding{Check: "names", Level: bus.Fail, Text: "two workers have the name blue", Mend: "--name"}, 1},
	{"two versions", workers(status{}, status{"version": "1.3.0"}),
		bus.Finding{Check: "versions", Level: bus.Warn, Text: "run 1.2.3 and 1.3.0", Mend: "finish the upgrade"}, 0},
	{"two encodings", workers(status{}, status{"encoding": "e9"}),
		bus.Finding{
			Check: "agreement", Level: bus.Warn, Text: "encode their states differently",
			Mend: "finish the upgrade",
		}, 0},
	{"two logs", workers(status{}, status{"incarnation": "j"}),
		bus.Finding{Check: "agreement", Level: bus.Fail, Text: "fold two logs", Mend: "same servers"}, 1},
	{"two states", workers(status{"seq": 9}, status{"seq": 9, "digest": hashOf("other")}),
		bus.Finding{Check: "agreement", Level: bus.Fail, Text: "differ at sequence 9", Mend: "lockstep verify"}, 1},
	{"attestations differ", func(t *testing.T, p *patient) {
		p.put(t, fleet.AttestKey(5)+".blue", forgedAttestation("blue", 5, "a"))
		p.put(t, fleet.AttestKey(5)+".red", forgedAttestation("red", 5, "b"))
	}, bus.Finding{Check: "checkpoints", Level: bus.Fail, Text: "attested different states at sequence 5", Mend: "lockstep verify"}, 1},
	{"a snapshot was set aside", func(t *testing.T, p *patient) {
		p.put(t, "aside.x", fleet.RejectedSnapshot{Object: "x", Seq: 3, Replica: "blue", Reason: "damaged"})
	}, bus.Finding{Check: "snapshots", Level: bus.Warn, Text: "set aside by blue: damaged", Mend: "snapshot ls"}, 1},
	{"a snapshot is damaged", func(t *testing.T, p *patient) {
		p.put(t, fleet.SnapshotKey(3), fleet.Snapshot{Object: "gone", Attestation: forgedAttestation("blue", 3, "a")})
	}, bus.Finding{Check: "snapshots", Level: bus.Fail, Text: "the newest snapshot, of 3, cannot be used", Mend: "snapshot put"}, 1},

	{"not synced", monitors(forged(goodVars, `{"config":{"store_dir":"/a"}}`, 200)),
		bus.Finding{Check: "sync", Level: bus.Fail, Text: "not on the disk yet", Mend: "sync_interval: always"}, 1},
	{"a server that is not well", monitors(forged(goodVars, goodJS, 503)),
		bus.Finding{Check: "health", Level: bus.Fail, Text: "unavailable", Mend: "see its log"}, 1},
	{"an old server", monitors(forged(strings.Replace(goodVars, "2.15.2", "2.12.3", 1), goodJS, 200)),
		bus.Finding{Check: "version", Level: bus.Fail, Text: "n0 runs nats-server 2.12.3", Mend: "upgrade"}, 1},
	{"a server that is open to all", monitors(forged(strings.Replace(goodVars, "127.0.0.1", "0.0.0.0", 1), goodJS, 200)),
		bus.Finding{Check: "users", Level: bus.Fail, Text: "lets anybody in", Mend: "lockstep roles"}, 1},
	{"a full store", monitors(forged(goodVars, `{"config":{"sync_always":true,"max_storage":1000},"storage":990}`, 200)),
		bus.Finding{Check: "store", Level: bus.Fail, Text: "is full: 990 of 1000", Mend: "lockstep compact"}, 1},
	{
		"clients that do not read",
		monitors(forged(strings.Replace(goodVars, `"host"`, `"slow_consumers":2,"host"`, 1), goodJS, 200)),
		bus.Finding{Check: "slow consumers", Level: bus.Warn, Text: "2 clients", Mend: "report connections"}, 1,
	},
	{
		"two servers of different versions",
		monitors(
			forged(goodVars, goodJS, 200),
			forged(
				strings.NewReplacer(`"A"`, `"B"`, "2.15.2", "2.15.1").Replace(goodVars),
				`{"config":{"sync_always":true,"store_dir":"/b"}}`, 200,
			),
		),
		bus.Finding{Check: "version", Level: bus.Warn, Text: "2.15.2, and", Mend: "same version"}, 1,
	},
	{
		"a monitor that is not there",
		monitors(func(t *testing.T) string { return fmt.Sprintf("http://127.0.0.1:%d", unusedPort(t)) }),
		bus.Finding{Check: "monitor", Level: bus.Fail, Text: "refused", Mend: "whether the server runs"}, 1,
	},
	{"two servers on one store", func(t *testing.T, p *patient) {
		dir := t.TempDir()
		for range 2 {
			s := startConfig(t, "../../deploy/nats/single.conf", func(o *natsserver.Options) { o.StoreDir = dir })
			p.args = append(p.args, "--monitor", "http://"+s.MonitorAddr().String())
		}
	}, bus.Finding{Check: "store", Level: bus.Fail, Text: "write to the same store", Mend: "stop one of them at once"}, 1},
	{"a server that does not sync", func(t *testing.T, p *patient) {
		s := startConfig(
			t, "../../deploy/nats/single.conf",
			func(o *natsserver.Options) { o.SyncAlways, o.SyncInterval = false, time.Minute },
		)
		p.args = append(p.args, "--monitor", "http://"+s.MonitorAddr().String())
	}, bus.Finding{Check: "sync", Level: bus.Fail, Text: "not on the disk yet", Mend: "sync_interval: always"}, 1},

	{"no rights", func(t *testing.T, p *patient) {
		p.args = startSecured(t, "nkeys").flags("predictor")
	}, bus.Finding{Check: "stream PENGUINS", Level: bus.Unknown, Text: `"$JS.API.STREAM.INFO.PENGUINS" is not allowed`, Mend: "as an observer"}, 1},
	{"a stranger", func(t *testing.T, p *patient) {
		s := startSecured(t, "nkeys")
		stranger := startSecured(t, "nkeys")
		p.args = append(stranger.flags("worker"), "-s", s.url(), "--tlsca", filepath.Join(s.auth, "ca.pem"))
	}, bus.Finding{Check: "server", Level: bus.Fail, Text: "refuses these credentials", Mend: "who you are"}, 3},
	{"no inbox prefix", func(t *testing.T, p *patient) {
		p.args = append(startSecured(t, "nkeys").flags("observer"), "--inbox-prefix", "_INBOX.other")
	}, bus.Finding{Check: "jetstream", Level: bus.Fail, Text: "no answer can come", Mend: "--inbox-prefix"}, 1},
	{"certificates that end", func(t *testing.T, p *patient) {
		dir := layOut(t)
		ring := &keyring{dir: filepath.Join(dir, "auth")}
		if err := ring.openAuthority(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"server", "observer"} {
			key, err := ring.key(name + "-key.pem")
			if err != nil {
				t.Fatal(err)
			}
			c := template(name, 1)
			c.NotAfter, c.IPAddresses = time.Now().Add(73*time.Hour), []net.IP{net.IPv4(127, 0, 0, 1)}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			if err := ring.sign(name+".pem", c, key); err != nil {
				t.Fatal(err)
			}
		}
		s := &secured{startConfig(t, filepath.Join(dir, "secure.conf"), nil), filepath.Join(dir, "auth"), "certs"}
		p.args = s.flags("observer")
	}, bus.Finding{Check: "certificate", Level: bus.Warn, Text: "this user's certificate", Mend: "lockstep roles --out again"}, 1},
	{"creds that end", func(t *testing.T, p *patient) {
		s := startSecured(t, "creds")
		ring := &keyring{dir: s.auth}
		pair, err := ring.pair("observer.nk", nkeys.PrefixByteUser)
		account, err2 := ring.pair("issuer.account.nk", nkeys.PrefixByteAccount)
		signer, err3 := ring.pair("issuer.role.observer.nk", nkeys.PrefixByteAccount)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		claims := jwt.NewUserClaims(public(pair))
		claims.Name, claims.IssuerAccount, claims.Expires = "observer", public(account), time.Now().Add(49*time.Hour).Unix()
		claims.SetScoped(true)
		word, err := claims.Encode(signer)
		seed, err2 := pair.Seed()
		file, err3 := jwt.FormatUserConfig(word, seed)
		if err := errors.Join(err, err2, err3, ring.write("observer.creds", string(file))); err != nil {
			t.Fatal(err)
		}
		p.args = s.flags("observer")
	}, bus.Finding{Check: "certificate", Level: bus.Warn, Text: "in 2 days", Mend: "lockstep roles --out again"}, 1},
	{"one copy in a cluster", func(t *testing.T, p *patient) {
		url, _ := newCluster3(t)
		lockstep(t, "init", "-s", url)
		p.args = []string{"-s", url}
	}, bus.Finding{Check: "stream PENGUINS", Level: bus.Warn, Text: "on 1 server of a cluster", Mend: "lockstep init --replicas 3"}, 1},
	{"a server is down", func(t *testing.T, p *patient) {
		servers := startOpenCluster(t)
		lockstep(t, "init", "-s", servers[0].ClientURL(), "--replicas", "3")
		servers[2].Shutdown()
		p.args = []string{"-s", servers[0].ClientURL()}
		for deadline := time.Now().Add(time.Minute); ; { // the others notice by its silence
			f, _ := diagnose(t, p.args...)
			if found(f, bus.Finding{Level: bus.Fail, Text: "is down"}) || time.Now().After(deadline) {
				return
			}
		}
	}, bus.Finding{Check: "stream ", Level: bus.Fail, Text: "its server n2 is down", Mend: "start n2 again"}, 1},
}

// found reports whether a finding has the parts of another.
func found(f bus.Findings, want bus.Finding) bool {
	for _, one := range f {
		if strings.Contains(one.Check, want.Check) && one.Level == want.Level && strings.Contains(one.Text, want.Text) &&
			strings.Contains(one.Mend, want.Mend) {
			return true
		}
	}
	return false
}

// TestDoctorFinds plants faults, each on a patient of its own, and wants each
// found and its fix named.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	for _, x := range faults {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			url, js := newServer(t)
			lockstep(t, "init", "-s", url)
			p := &patient{url: url, js: js, args: []string{"-s", url}}
			x.plant(t, p)
			f, code := diagnose(t, p.args...)
			if !found(f, x.want) || code != x.code {
				t.Errorf("exit %d, want %d; there is no %+v among", code, x.code, x.want)
				for _, one := range f {
					t.Logf("%+v", one)
				}
			}
			for _, one := range f {
				if one.Level != bus.OK && one.Mend == "" {
					t.Errorf("no mend: %+v", one)
				}
			}
		})
	}
}

// TestDoctorFindsNothing: of a fleet that is well it says so, anyone who asks.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	s := startSecured(t, "certs")
	lockstep(t, append([]string{"init"}, s.flags("operator")...)...)
	s.serve(t, "blue-1")
	s.serve(t, "blue-2")
	lockstep(t, append([]string{"snapshot", "put"}, s.flags("operator")...)...)
	for _, user := range []string{"observer", "operator"} {
		f, code := diagnose(t, append(s.flags(user), "--monitor", "http://"+s.server.MonitorAddr().String())...)
		if code != 0 || f.Worst() != bus.OK {
			for _, one := range f {
				t.Errorf("%s: %+v", user, one)
			}
		}
	}
}

// someIdentity is what forged records are of.
var someIdentity = fleet.Identity{Incarnation: "i", Contract: hashOf("c"), Encoding: model.Encoding}

// hashOf is a hash that stands for a text.
func hashOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func forgedAttestation(replica string, seq uint64, digest string) fleet.Attestation {
	return fleet.Attestation{
		Replica: replica, Seq: seq, Identity: someIdentity, LogChain: hashOf("l"), StateChain: hashOf("s"), Digest: hashOf(digest),
	}
}
