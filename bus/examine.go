package bus

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go/jetstream"
)

// Level is how much a finding matters.
type Level string

// The levels. What could not be looked at is unknown.
const (
	OK      Level = "ok"
	Unknown Level = "unknown"
	Warn    Level = "warn"
	Fail    Level = "fail"
)

// Finding is what an examination says of one thing.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Mend  string `json:"mend,omitempty"` // what to do about it
}

// Findings collects them.
type Findings []Finding

// OK adds that something is as it should be.
func (f *Findings) OK(check, format string, args ...any) {
	*f = append(*f, Finding{check, OK, fmt.Sprintf(format, args...), ""})
}

// Add adds something that is not.
func (f *Findings) Add(level Level, check, mend, format string, args ...any) {
	*f = append(*f, Finding{check, level, fmt.Sprintf(format, args...), mend})
}

// Worst is the worst level of all.
func (f Findings) Worst() Level {
	worst := OK
	for _, level := range []Level{Unknown, Warn, Fail} {
		if slices.ContainsFunc(f, func(one Finding) bool { return one.Level == level }) {
			worst = level
		}
	}
	return worst
}

// Error adds that something could not be looked at.
func (f *Findings) Error(check string, err error) {
	var denied *PermissionError
	if errors.As(err, &denied) && denied.inbox() {
		f.Add(
			Fail, check,
			"give the user's own inbox prefix: --inbox-prefix, or its nats context (lockstep roles --out makes one)",
			"no answer can come: %v", denied,
		)
		return
	}
	if errors.As(err, &denied) {
		f.Add(
			Unknown, check, "examine it as an observer or operator (lockstep roles), or grant "+denied.Subject,
			"%v", denied,
		)
		return
	}
	f.Add(
		Fail, check, "see whether the servers are well: lockstep doctor --monitor URL, or their logs",
		"it does not answer: %v", err,
	)
}

// Limits of an examination.
const (
	skewWarn, skewFail = time.Second, 30 * time.Second
	expiryWarn         = 30 * 24 * time.Hour
	lagWarn            = 1000 // messages that a stream's follower is behind
	usedWarn, usedFail = 80, 95
)

// Examine looks at the server of a connection, and at what is kept there.
func Examine(ctx context.Context, conn *Conn, stores []Store) (f Findings) {
	f.examineServer(conn)
	f.examineTLS(conn, time.Now())
	js, err := conn.jetStream()
	if err != nil {
		f.Error("jetstream", err)
		return f
	}
	if !f.examineAccount(ctx, conn, js) {
		return f
	}
	clock := false
	for _, s := range stores {
		asked := time.Now()
		info, err := streamInfo(ctx, conn, js, s.Stream())
		f.examineStore(conn, s, info, err)
		if err == nil && !clock {
			clock = true
			f.examineClock(info.TimeStamp, asked, time.Now())
		}
	}
	return f
}

func (f *Findings) examineServer(conn *Conn) {
	rtt, err := conn.RTT()
	if err != nil {
		f.Error("server", err)
		return
	}
	f.OK("server", "%s answers within %s", conn.ConnectedUrlRedacted(), rtt.Round(10*time.Microsecond))
	f.examineVersion(conn.ConnectedServerName(), conn.ConnectedServerVersion())
	if limit := conn.MaxPayload(); limit < MaxMessage {
		f.Add(
			Fail, "max_payload", "set max_payload: 2MB in the server's config, and reload it",
			"the server takes messages of %d bytes, and one of the log has up to %d", limit, MaxMessage,
		)
	} else {
		f.OK("max_payload", "%d bytes", limit)
	}
}

// losing are versions of nats-server that are known to lose what they have
// acknowledged, with where that is written and when this line was.
var losing = []struct{ version, issue, noted string }{
	{"2.12.14", "https://github.com/nats-io/nats-server/issues/8449", "2026-11-26"},
	{"2.14.4", "https://github.com/nats-io/nats-server/issues/8449", "2026-11-26"},
}

// examineVersion knows which servers are too old: counters came with 2.12,
// and before 2.12.7 and 2.14.0 rights could be got around (advisories
// 2026-16 and 2026-18 of nats.io).
func (f *Findings) examineVersion(server, version string) {
	var major, minor, patch int
	_, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch)
	at := major*1_000_000 + minor*1_000 + patch
	release, _, _ := strings.Cut(version, "-")
	for _, l := range losing {
		if l.version == release {
			f.Add(
				Fail, "version", "upgrade to 2.15.2 or later, one server after the other, and compare: lockstep verify",
				"%s runs nats-server %s, which is known to lose messages: %s (noted %s)", server, version, l.issue, l.noted,
			)
			return
		}
	}
	switch {
	case err != nil:
		f.Add(Unknown, "version", "", "%s has the version %q", server, version)
	case at < 2_012_000:
		f.Add(
			Fail, "version", "upgrade to 2.15.2 or later, one server after the other",
			"%s runs nats-server %s, which has no counters", server, version,
		)
	case at < 2_012_007 || minor == 13:
		f.Add(
			Fail, "version", "upgrade to 2.15.2 or later, one server after the other",
			"%s runs nats-server %s, in which users can get around their rights (nats.io advisories 2026-16, 2026-18)",
			server, version,
		)
	default:
		f.OK("version", "%s runs nats-server %s", server, version)
	}
}

// examineTLS looks at how the connection is guarded, and when that ends.
func (f *Findings) examineTLS(conn *Conn, now time.Time) {
	if state, err := conn.TLSConnectionState(); err != nil {
		if !local(conn.ConnectedUrl()) {
			f.Add(
				Warn, "tls", "give the servers certificates: deploy/nats/secure.conf, lockstep roles",
				"the connection to %s is in the clear", conn.ConnectedUrlRedacted(),
			)
		}
	} else {
		for _, c := range state.PeerCertificates {
			f.examineExpiry("the server's certificate "+c.Subject.String(), c.NotAfter, now)
		}
	}
	if file := conn.saved.Certificate(); file != "" {
		if c, err := readCertificate(file); err != nil {
			f.Add(Unknown, "certificate", "", "%v", err)
		} else {
			f.examineExpiry("this user's certificate "+file, c.NotAfter, now)
		}
	}
	if file := conn.saved.Creds(); file != "" {
		if expires, err := credsExpiry(file); err != nil {
			f.Add(Unknown, "certificate", "", "%s: %v", file, err)
		} else if !expires.IsZero() {
			f.examineExpiry("these creds "+file, expires, now)
		}
	}
}

func (f *Findings) examineExpiry(what string, end, now time.Time) {
	day := end.UTC().Format(time.DateOnly)
	const mend = "renew it: run lockstep roles --out again, or have its authority do so, and reload the servers"
	switch left := end.Sub(now); {
	case left <= 0:
		f.Add(Fail, "certificate", mend, "%s ended on %s", what, day)
	case left < expiryWarn:
		f.Add(Warn, "certificate", mend, "%s ends on %s, in %d days", what, day, int(left.Hours()/24))
	default:
		f.OK("certificate", "%s is good until %s", what, day)
	}
}

func readCertificate(file string) (*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// credsExpiry is when creds end; zero: never.
func credsExpiry(file string) (end time.Time, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return end, err
	}
	word, err := jwt.ParseDecoratedJWT(data)
	if err != nil {
		return end, err
	}
	claims, err := jwt.DecodeUserClaims(word)
	if err == nil && claims.Expires > 0 {
		end = time.Unix(claims.Expires, 0)
	}
	return end, err
}

// local reports whether a URL is of this machine.
func local(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// examineAccount looks at JetStream's limits, and reports whether there is one.
func (f *Findings) examineAccount(ctx context.Context, conn *Conn, js jetstream.JetStream) bool {
	var account *jetstream.AccountInfo
	err := conn.do(ctx, conn.api, apiTimeout, func(ctx context.Context) (err error) {
		account, err = js.AccountInfo(ctx)
		return err
	})
	var denied *PermissionError
	switch {
	case errors.As(err, &denied):
		f.Error("jetstream", err)
		return !denied.inbox()
	case err != nil:
		f.Add(
			Fail, "jetstream",
			"start the server with JetStream: deploy/nats has configs; with accounts, enable it for this one",
			"%v", err,
		)
		return false
	}
	f.examineUse("jetstream", "the account's file store", account.Store, account.Limits.MaxStore)
	f.examineUse("jetstream", "the account's memory", account.Memory, account.Limits.MaxMemory)
	return true
}

func (f *Findings) examineUse(check, what string, used uint64, limit int64) {
	const mend = "make room: lockstep compact; or raise its limit"
	if limit <= 0 {
		f.OK(check, "%s holds %d bytes, and has no limit of its own", what, used)
		return
	}
	percent := used * 100 / uint64(limit)
	switch {
	case percent >= usedFail:
		f.Add(Fail, check, mend, "%s is full: %d of %d bytes (%d %%)", what, used, limit, percent)
	case percent >= usedWarn:
		f.Add(Warn, check, mend, "%s is nearly full: %d of %d bytes (%d %%)", what, used, limit, percent)
	default:
		f.OK(check, "%s holds %d of %d bytes (%d %%)", what, used, limit, percent)
	}
}

// harmless are settings that lose nothing at once if they differ.
var harmless = []string{"duplicate_window", "allow_direct", "max_msg_size", "max_consumers", "replicas"}

// examineStore looks at one stream: its settings, its servers, its room.
func (f *Findings) examineStore(conn *Conn, s Store, info *jetstream.StreamInfo, err error) {
	check := "stream " + s.Stream()
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		f.Add(Fail, check, "make it, as an operator: lockstep init", "there is no such stream, and %s has no place", s.Keeps)
		return
	}
	if err != nil {
		f.Error(check, err)
		return
	}
	before := len(*f)
	for _, d := range s.differences(info) {
		level, mend := Fail, "lockstep init"
		if slices.Contains(harmless, d.Setting) {
			level = Warn
		}
		if d.Refused != "" {
			mend = d.Refused
		}
		f.Add(level, check, mend, "%s is %s, and should be %s", d.Setting, d.Have, d.Want)
	}
	if limit := info.Config.MaxBytes; limit > 0 && info.State.Bytes*100 >= uint64(limit)*usedWarn {
		f.Add(
			Warn, check, "wait until the old ones end, or purge it: nats stream purge "+s.Stream(),
			"it is nearly full: %d of %d bytes", info.State.Bytes, limit,
		)
	}
	f.examineServers(conn, check, info)
	if len(*f) == before {
		f.OK(check, "%d messages, %d bytes, on %d servers", info.State.Msgs, info.State.Bytes, info.Config.Replicas)
	}
}

// examineServers looks at the servers that hold a stream.
func (f *Findings) examineServers(conn *Conn, check string, info *jetstream.StreamInfo) {
	if conn.ConnectedClusterName() != "" && info.Config.Replicas < 3 {
		f.Add(
			Warn, check, "hold it on three: lockstep init --replicas 3",
			"it is on %d server of a cluster, and gone with it", info.Config.Replicas,
		)
	}
	if info.Cluster == nil {
		return
	}
	if info.Cluster.Leader == "" {
		f.Add(
			Fail, check, "start the servers that are down: more than half must be up",
			"it has no leader, and takes nothing",
		)
	}
	for _, r := range info.Cluster.Replicas {
		switch {
		case r.Offline:
			f.Add(
				Fail, check, "start "+r.Name+" again; if it is gone for good: nats server raft peer-remove "+r.Name,
				"its server %s is down", r.Name,
			)
		case !r.Current || r.Lag > lagWarn:
			f.Add(
				Warn, check, "wait until it has caught up before another server is stopped",
				"its server %s is %d messages behind", r.Name, r.Lag,
			)
		}
	}
}

func (f *Findings) examineClock(server, asked, answered time.Time) {
	skew := time.Duration(0)
	switch {
	case server.Before(asked):
		skew = asked.Sub(server)
	case server.After(answered):
		skew = server.Sub(answered)
	}
	const mend = "set the clocks by NTP: ages of verdicts, heartbeats and certificates go by them"
	switch {
	case skew > skewFail:
		f.Add(Fail, "clock", mend, "this machine's clock and the server's are %s apart", skew.Round(time.Millisecond))
	case skew > skewWarn:
		f.Add(Warn, "clock", mend, "this machine's clock and the server's are %s apart", skew.Round(time.Millisecond))
	default:
		f.OK("clock", "this machine's clock and the server's agree")
	}
}

// monitored is what a server's monitoring pages say.
type monitored struct {
	url  string
	vars struct {
		ID           string `json:"server_id"`
		Name         string `json:"server_name"`
		Version      string `json:"version"`
		Host         string `json:"host"`
		AuthRequired bool   `json:"auth_required"`
		SlowConsumer int64  `json:"slow_consumers"`
	}
	jetStream struct {
		Config struct {
			MaxStore   int64  `json:"max_storage"`
			StoreDir   string `json:"store_dir"`
			SyncAlways bool   `json:"sync_always"`
		} `json:"config"`
		Store uint64 `json:"storage"`
	}
}

// ExamineMonitors looks at servers from their monitoring pages, which show
// what clients do not see: how they sync, and their own limits.
func ExamineMonitors(ctx context.Context, urls []string) (f Findings) {
	var all []monitored
	for _, u := range urls {
		m := monitored{url: strings.TrimSuffix(u, "/")}
		if err := errors.Join(m.get(ctx, "/varz", &m.vars), m.get(ctx, "/jsz", &m.jetStream)); err != nil {
			f.Add(Fail, "monitor", "see whether the server runs, and give the address of its http port", "%v", err)
			continue
		}
		name := m.vars.Name
		f.examineVersion(name, m.vars.Version)
		if err := m.get(ctx, "/healthz", nil); err != nil {
			f.Add(Fail, "health", "wait if it has just started; else see its log", "%s: %v", name, err)
		} else {
			f.OK("health", "%s is well", name)
		}
		if m.jetStream.Config.SyncAlways {
			f.OK("sync", "%s syncs every message before it acknowledges it", name)
		} else {
			f.Add(Fail, "sync", "set sync_interval: always in the server's jetstream block, and restart it", "%s acknowledges messages that are not on the disk yet: a power cut loses them", name)
		}
		f.examineUse("store", name+"'s file store", m.jetStream.Store, m.jetStream.Config.MaxStore)
		if !m.vars.AuthRequired && !local("//"+net.JoinHostPort(m.vars.Host, "")) {
			f.Add(
				Fail, "users", "give it users: lockstep roles, deploy/nats/secure.conf",
				"%s lets anybody in who reaches %s", name, m.vars.Host,
			)
		}
		if n := m.vars.SlowConsumer; n > 0 {
			f.Add(
				Warn, "slow consumers", "see which: nats server report connections --sort pending",
				"%s has cut off %d clients that did not read", name, n,
			)
		}
		for _, other := range all {
			if other.vars.ID == m.vars.ID {
				continue
			}
			if other.vars.Version != m.vars.Version {
				f.Add(
					Warn, "version", "bring all servers to the same version, one after the other",
					"%s runs %s, and %s %s", other.vars.Name, other.vars.Version, name, m.vars.Version,
				)
			}
			if sameHost(other.url, m.url) && other.jetStream.Config.StoreDir == m.jetStream.Config.StoreDir {
				f.Add(
					Fail, "store", "stop one of them at once, and give it a store_dir of its own",
					"%s and %s write to the same store %s: nats-server does not lock it", other.vars.Name, name,
					m.jetStream.Config.StoreDir,
				)
			}
		}
		all = append(all, m)
	}
	if len(urls) == 0 {
		f.Add(
			Unknown, "sync",
			"give the servers' monitoring addresses: --monitor http://127.0.0.1:8222, again for each",
			"whether messages are synced before they are acknowledged is not seen by clients",
		)
	}
	return f
}

func sameHost(a, b string) bool {
	u, err := url.Parse(a)
	v, err2 := url.Parse(b)
	return err == nil && err2 == nil && u.Hostname() == v.Hostname()
}

// maxPage bounds a monitoring page.
const maxPage = 1 << 20

func (m *monitored) get(ctx context.Context, page string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+page, nil)
	if err != nil { // it quotes the URL
		return errors.New("a monitoring page's URL cannot be read" + afterSecrets(m.url))
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxPage))
	switch {
	case err != nil:
		return err
	case answer.StatusCode != http.StatusOK:
		return errors.New(
			withoutSecrets(m.url) + page + ": " + strconv.Itoa(answer.StatusCode) + " " +
				strings.Join(strings.Fields(string(body)), " "),
		)
	case into == nil:
		return nil
	}
	return json.Unmarshal(body, into)
}
