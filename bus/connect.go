// Package bus is everything Lockstep asks of NATS, and knows nothing of
// learning: connecting, the log and its tail, services, the fleet's counter
// and its notes.
package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// ConnectConfig says how to reach NATS. What is empty is taken from the
// environment (the nats CLI's own variables), then from the user's selected
// nats context, then it is nats://127.0.0.1:4222. With a Context the
// environment is left alone.
type ConnectConfig struct {
	Server      string // URLs, separated by commas
	Context     string // a nats context's name
	Creds       string // file
	NKey        string // file with the seed
	User        string
	Password    string
	TLSCert     string // file
	TLSKey      string // file
	TLSCA       string // file
	InboxPrefix string

	Bare   bool              // the server alone: nothing from the environment or a context
	Name   string            // how the connection shows on the server
	Wait   bool              // wait for a server instead of giving up
	Notice func(text string) // if set, is told when a server is waited for, lost and found
}

// PermissionError says which right a call lacked. Servers leave a denied
// call unanswered, and it would look like a time-out.
type PermissionError struct {
	Operation string // Publish or Subscription
	Subject   string
}

func (e *PermissionError) Error() string {
	hint := ""
	if e.inbox() {
		hint = ": give its inbox prefix, with --inbox-prefix or in the nats context"
	}
	return fmt.Sprintf("the right is missing: %s to %q is not allowed for this user%s", e.Operation, e.Subject, hint)
}

// inbox reports whether it is answers that cannot come.
func (e *PermissionError) inbox() bool {
	return strings.EqualFold(e.Operation, "subscription") && strings.HasPrefix(e.Subject, nats.InboxPrefix)
}

// Conn is a connection that notices denied calls.
type Conn struct {
	*nats.Conn
	config ConnectConfig
	saved  *natscontext.Context // how it was made
	api    string               // begins the subjects of JetStream's API: "$JS.API.", or the context's own

	mu      sync.Mutex
	waiting map[*call]bool             // calls under way; guarded by mu
	slow    map[*nats.Subscription]int // how many messages each has lost, as last known; guarded by mu
	backlog *backlog
	deaf    atomic.Pointer[PermissionError] // no answer can come: the inboxes are denied
	first   *Conn                           // whose dropped messages are counted with its own: this one, or what it is like
}

// call is a call under way that a missing right would leave unanswered.
type call struct {
	subject string // what it publishes to begins so
	cancel  context.CancelCauseFunc
}

// NewID is a random id, for messages and workers.
func NewID() string { return nuid.Next() }

// Connect connects as the config says. Without Wait it fails if no server
// can be reached, and the error says where it tried.
func Connect(ctx context.Context, config ConnectConfig) (*Conn, error) {
	if config.Context == "" && !config.Bare { // its credentials are for its own server
		config.fromEnvironment()
	}
	c, server, err := dial(config)
	if err != nil || !config.Wait || c.IsConnected() {
		return c, err
	}
	config.notice("waiting for a NATS server at " + withoutSecrets(server))
	return c, c.awaitServer(ctx)
}

// another is one more connection like this one, which waits for no server.
// What it drops counts here.
func (c *Conn) another(purpose string) (*Conn, error) {
	config := c.config
	config.Name, config.Notice, config.Wait = config.Name+" ("+purpose+")", nil, true // the first tells of the server
	more, _, err := dial(config)
	if err == nil {
		more.first = c
	}
	return more, err
}

// dial connects, and tells where.
func dial(config ConnectConfig) (c *Conn, server string, err error) {
	c = &Conn{config: config, waiting: map[*call]bool{}, slow: map[*nats.Subscription]int{}}
	c.first = c
	saved, err := config.context()
	if err != nil {
		return nil, "", err
	}
	options, err := saved.NATSOptions(c.options()...)
	if err != nil {
		return nil, "", fmt.Errorf("credentials: %w", err)
	}
	c.api, c.saved = apiPrefix(saved), saved
	server = saved.ServerURL()
	c.Conn, err = nats.Connect(server, options...)
	c.backlog = newBacklog(func() uint64 { return atomic.LoadUint64(&c.InMsgs) })
	var unread *url.Error
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, "", fmt.Errorf("a file for the connection cannot be read: %w", err)
	case errors.Is(err, nats.ErrAuthorization):
		return nil, "", fmt.Errorf("the NATS server at %s refuses these credentials: %w", withoutSecrets(server), err)
	case errors.As(err, &unread): // it quotes the URL, and what it takes for the port may be of the password
		return nil, "", fmt.Errorf("the NATS server's URL cannot be read%s: it is like nats://host:4222, "+
			"and in a password each of :/?#[]@,%% is written as %% and two hexadecimal digits", afterSecrets(server))
	case err != nil:
		return nil, "", fmt.Errorf(
			"no NATS server at %s: %w; start one (lockstep demo has its own), or say where it is with --server or --context",
			withoutSecrets(server), err,
		)
	}
	return c, server, nil
}

// withoutSecrets is a list of servers' URLs without users, passwords and
// tokens, for people and logs. Each URL can be parsed.
func withoutSecrets(servers string) string {
	urls := strings.Split(servers, ",")
	for i, u := range urls {
		scheme, rest, found := strings.Cut(u, "://")
		if !found {
			scheme, rest = "", u
		}
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			rest = "xxxxx" + rest[at:]
		}
		if urls[i] = rest; found {
			urls[i] = scheme + "://" + rest
		}
	}
	return strings.Join(urls, ",")
}

// afterSecrets is what of URLs that can't be parsed holds no secret for sure:
// what is behind the last @.
func afterSecrets(servers string) string {
	if at := strings.LastIndexByte(servers, '@'); at >= 0 {
		return fmt.Sprintf(" (%q at its end)", servers[at:])
	}
	return fmt.Sprintf(" (%q)", servers)
}

// apiPrefix is where a context has JetStream's API.
func apiPrefix(saved *natscontext.Context) string {
	switch {
	case saved.JSAPIPrefix() != "":
		return strings.TrimSuffix(saved.JSAPIPrefix(), ".") + "."
	case saved.JSDomain() != "":
		return "$JS." + saved.JSDomain() + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

// jetStream is the connection's JetStream.
func (c *Conn) jetStream() (jetstream.JetStream, error) {
	return jetstream.NewWithAPIPrefix(c.Conn, c.api)
}

// awaitServer waits for the first connection.
func (c *Conn) awaitServer(ctx context.Context) error {
	for status := c.StatusChanged(nats.CONNECTED, nats.CLOSED); !c.IsConnected(); {
		select {
		case <-ctx.Done():
			c.Close()
			return ctx.Err()
		case <-status:
			if c.IsClosed() {
				return fmt.Errorf("connecting: %w", c.LastError())
			}
		}
	}
	return nil
}

// fromEnvironment fills what the flags left open.
func (c *ConnectConfig) fromEnvironment() {
	for _, v := range []struct {
		field *string
		name  string
	}{
		{&c.Server, "NATS_URL"}, {&c.Context, "NATS_CONTEXT"}, {&c.Creds, "NATS_CREDS"}, {&c.NKey, "NATS_NKEY"},
		{&c.User, "NATS_USER"}, {&c.Password, "NATS_PASSWORD"},
		{&c.TLSCert, "NATS_CERT"}, {&c.TLSKey, "NATS_KEY"}, {&c.TLSCA, "NATS_CA"},
	} {
		if *v.field == "" {
			*v.field = os.Getenv(v.name)
		}
	}
}

// context is the user's nats context with what was given put over it. A
// server that is named without a context is not mixed with the selected one.
func (c *ConnectConfig) context() (*natscontext.Context, error) {
	name := c.Context
	if name == "" && c.Server == "" && !c.Bare {
		name = natscontext.SelectedContext()
	}
	if name != "" && !natscontext.IsKnown(name) {
		known := strings.Join(natscontext.KnownContexts(), ", ")
		if known == "" {
			known = "none: make one with nats context add"
		}
		return nil, fmt.Errorf("there is no nats context %q; known are %s", name, known)
	}
	var over []natscontext.Option
	for _, o := range []struct {
		value string
		apply func(string) natscontext.Option
	}{
		{c.Server, natscontext.WithServerURL}, {c.Creds, natscontext.WithCreds}, {c.NKey, natscontext.WithNKey},
		{c.Password, natscontext.WithPassword}, {c.TLSCert, natscontext.WithCertificate}, {c.TLSKey, natscontext.WithKey},
		{c.TLSCA, natscontext.WithCA}, {c.InboxPrefix, natscontext.WithInboxPrefix},
	} {
		if o.value != "" {
			over = append(over, o.apply(o.value))
		}
	}
	if c.User != "" && c.Password == "" {
		over = append(over, natscontext.WithToken(c.User)) // as the nats CLI does
	} else if c.User != "" {
		over = append(over, natscontext.WithUser(c.User))
	}
	saved, err := natscontext.New(name, name != "", over...)
	if err != nil {
		return nil, fmt.Errorf("nats context %q: %w", name, err)
	}
	return saved, nil
}

func (c *Conn) options() []nats.Option {
	notice := c.config.notice
	return []nats.Option{
		nats.Name(c.config.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.RetryOnFailedConnect(c.config.Wait),
		nats.ErrorHandler(c.asyncError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				notice(fmt.Sprintf("lost the NATS server: %v", err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.deaf.Store(nil) // the server may allow it now
			notice("connected to the NATS server at " + nc.ConnectedUrlRedacted())
		}),
	}
}

func (c *ConnectConfig) notice(text string) {
	if c.Notice != nil {
		c.Notice(text)
	}
}

// violation is how a server words a denied call.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// denial is the missing right that an error speaks of, or nil.
func denial(err error) *PermissionError {
	if err == nil {
		return nil
	}
	if found := violation.FindStringSubmatch(err.Error()); found != nil {
		return &PermissionError{Operation: found[1], Subject: found[2]}
	}
	return nil
}

// dropped is how many messages came faster than they were taken, and were
// lost. It never falls: what a subscription lost is counted after its end too.
func (c *Conn) dropped() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sub, lost := range c.slow { // order: a sum
		if now, err := sub.Dropped(); err == nil { // an error: it has ended
			lost = now
			c.slow[sub] = lost
		}
		n += lost
	}
	return n
}

func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		lost, _ := sub.Dropped() // 1 or more, unless it has ended
		c.first.mu.Lock()
		c.first.slow[sub] = max(lost, c.first.slow[sub])
		c.first.mu.Unlock()
		err = fmt.Errorf("messages on %s came faster than they were taken, and some were dropped: %w", sub.Subject, err)
	}
	denied := denial(err)
	if denied == nil {
		c.config.notice("connection to NATS: " + err.Error())
		return
	}
	c.config.notice(denied.Error())
	if strings.EqualFold(denied.Operation, "subscription") && strings.HasPrefix(denied.Subject, c.inboxes()) {
		c.deaf.Store(denied)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiting { // order: each is told the same
		// A subscription that is denied is the inbox that answers come to.
		if strings.HasPrefix(denied.Subject, w.subject) || strings.EqualFold(denied.Operation, "subscription") {
			w.cancel(denied)
		}
	}
}

// inboxes begins the subjects that answers come to.
func (c *Conn) inboxes() string {
	if prefix := c.Opts.InboxPrefix; prefix != "" {
		return prefix + "."
	}
	return nats.InboxPrefix
}

// do runs a call that publishes to a subject, or to subjects that begin so,
// with a time-out. A right that is found missing meanwhile ends it at once,
// as a *PermissionError.
func (c *Conn) do(ctx context.Context, subject string, timeout time.Duration, f func(context.Context) error) error {
	if denied := c.deaf.Load(); denied != nil {
		return denied
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &call{subject, cancel}
	c.mu.Lock()
	c.waiting[w] = true
	c.mu.Unlock()
	err := f(ctx)
	c.mu.Lock()
	delete(c.waiting, w)
	c.mu.Unlock()
	var denied *PermissionError
	if err != nil && errors.As(context.Cause(ctx), &denied) {
		return denied
	}
	if subject == c.api && (errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled)) {
		return fmt.Errorf("this NATS server has no JetStream: start it with -js (%w)", err)
	}
	return err
}
