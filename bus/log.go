package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// MaxMessage is the most bytes of a message of the log.
	MaxMessage = 1 << 20
	// duplicateWindow is how long the server remembers ids.
	duplicateWindow = 2 * time.Minute
	// apiTimeout bounds each call of JetStream's API.
	apiTimeout = 5 * time.Second
	// retryWait is between two attempts at the same thing.
	retryWait = 50 * time.Millisecond
)

// ErrNoLog is returned when a model has no log on this server.
var ErrNoLog = errors.New("no log")

// Message is a message of the log. What Tail delivers is valid during the
// call only.
type Message struct {
	Seq     uint64 // the stream sequence
	Subject string
	ID      string // Nats-Msg-Id, or empty
	Data    []byte
	Time    time.Time // when the server stored it
	Pending uint64    // messages behind it in the log when it was sent
}

// Ack says where a message is stored.
type Ack struct {
	Seq uint64
	// Duplicate: the id was there before this call; its message is at Seq.
	Duplicate bool
}

// LogConfig names a model's log.
type LogConfig struct {
	Model    string // begins every subject
	Replicas int    // of the stream: 1 alone, 3 in a cluster; 0 is 1
	// Genesis makes the first message's data; asked for only if the log is new.
	Genesis func() []byte
}

// Stream is the name of the log's stream.
func (c LogConfig) Stream() string { return StreamName(c.Model) }

// StreamName is a model's name as its streams have it.
func StreamName(model string) string { return strings.ToUpper(model) }

func (c LogConfig) controlSubject(kind string) string { return c.Model + ".ctl." + kind }

func (c LogConfig) learnSubject() string { return c.Model + ".learn" }

// stream is the log's stream as the contract wants it.
func (c LogConfig) stream(subjects ...string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        c.Stream(),
		Description: "the learn events of " + c.Model,
		Subjects:    subjects,
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		DenyDelete:  true, // purge stays allowed: compaction needs it
		MaxMsgSize:  MaxMessage,
		Duplicates:  duplicateWindow,
		Replicas:    c.Replicas,
		AllowDirect: true,
	}
}

// Log is the ordered log of a model: a JetStream stream.
type Log struct {
	conn    *Conn
	js      jetstream.JetStream
	config  LogConfig
	genesis []byte

	maxMessage int // bytes that the stream takes, as it was when it was bound; 0 or less: any
}

// OpenLog binds a model's log, and creates it if there is none. It creates
// the stream with the control subjects alone, appends the genesis, and only
// then opens it for learning, so that no event can come first. Each step can
// be taken again after a crash, and by two at once.
func OpenLog(ctx context.Context, conn *Conn, config LogConfig) (*Log, error) {
	return openLog(ctx, conn, config, true)
}

func openLog(ctx context.Context, conn *Conn, config LogConfig, check bool) (*Log, error) {
	l, err := newLog(conn, config)
	if err != nil {
		return nil, err
	}
	stream, err := bindOrCreate(ctx, conn, l.js, config.stream(config.controlSubject(">")))
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", config.Stream(), err)
	}
	info := stream.CachedInfo()
	if err := config.check(info.Config); check && err != nil {
		return nil, err
	}
	l.maxMessage = int(info.Config.MaxMsgSize)
	first := false
	if info.State.LastSeq == 0 {
		if first, err = l.appendGenesis(ctx); err != nil {
			return nil, fmt.Errorf("log %s: genesis: %w", config.Stream(), err)
		}
	}
	if err := l.readGenesis(ctx); err != nil {
		return nil, err
	}
	return l, l.addLearn(ctx, first)
}

// addLearn opens the log for learning. Anyone who was first to append to it does
// so, and the others wait: where two update a stream at the same moment,
// nats-server 2.15.2 may subscribe twice to what they add, and from then on
// stores every message twice. Only if the first does not come does one of the
// others, after a time of its own.
func (l *Log) addLearn(ctx context.Context, first bool) error {
	patience := time.Now()
	if !first {
		patience = patience.Add(time.Second + rand.N(time.Second))
	}
	learn := l.config.learnSubject()
	for {
		info, err := l.info(ctx)
		if err != nil {
			return fmt.Errorf("log %s: %w", l.config.Stream(), err)
		}
		config := info.Config
		if slices.Contains(config.Subjects, learn) {
			return nil
		}
		if !time.Now().Before(patience) {
			config.Subjects = append(config.Subjects, learn)
			err := l.conn.do(ctx, l.conn.api, apiTimeout, func(ctx context.Context) error {
				_, err := l.js.UpdateStream(ctx, config)
				return err
			})
			if err != nil {
				err = fmt.Errorf("log %s: adding %s: %w", l.config.Stream(), learn, err)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryWait):
		}
	}
}

// BindLog binds a model's log and changes nothing. It returns ErrNoLog if
// there is none.
func BindLog(ctx context.Context, conn *Conn, config LogConfig) (*Log, error) {
	l, err := newLog(conn, config)
	if err != nil {
		return nil, err
	}
	info, err := l.info(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf(
			"%w: there is no stream %s on this server; a first lockstep worker (or demo) makes it", ErrNoLog,
			config.Stream(),
		)
	case err != nil:
		return nil, fmt.Errorf("log %s: %w", config.Stream(), err)
	}
	if err := config.check(info.Config); err != nil {
		return nil, err
	}
	l.maxMessage = int(info.Config.MaxMsgSize)
	return l, l.readGenesis(ctx)
}

// UnboundLog is a model's log for who may append to it, and not look at it.
func UnboundLog(conn *Conn, config LogConfig) (*Log, error) { return newLog(conn, config) }

func newLog(conn *Conn, config LogConfig) (*Log, error) {
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	return &Log{conn: conn, js: js, config: config}, nil
}

func (l *Log) info(ctx context.Context) (info *jetstream.StreamInfo, err error) {
	err = l.conn.do(ctx, l.conn.api, apiTimeout, func(ctx context.Context) error {
		stream, err := l.js.Stream(ctx, l.config.Stream())
		if err == nil {
			info = stream.CachedInfo()
		}
		return err
	})
	return info, err
}

// bindOrCreate binds a stream, and makes it if there is none.
func bindOrCreate(
	ctx context.Context, conn *Conn, js jetstream.JetStream, config jetstream.StreamConfig,
) (stream jetstream.Stream, err error) {
	err = createOnce(ctx, conn, func(ctx context.Context) error {
		stream, err = js.Stream(ctx, config.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = js.CreateStream(ctx, config)
		}
		return err
	})
	var denied *PermissionError
	if errors.As(err, &denied) && strings.HasPrefix(denied.Subject, conn.api+"STREAM.CREATE.") {
		err = fmt.Errorf(
			"there is no stream %s, and this user may not make it: have an operator run lockstep init (%w)",
			config.Name, err,
		)
	}
	return stream, err
}

// createOnce binds or creates what others may create at the same moment.
func createOnce(ctx context.Context, conn *Conn, bindOrCreate func(context.Context) error) error {
	return conn.do(ctx, conn.api, apiTimeout, func(ctx context.Context) error {
		for attempt := 1; ; attempt++ {
			// A server may leave a request unanswered while a stream has no
			// leader: it is asked again long before the patience is over.
			err := conn.do(ctx, conn.api, attemptTimeout, bindOrCreate)
			unanswered := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
			if !unanswered && (!createdMeanwhile(err) || attempt >= 20) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(retryWait):
			}
		}
	})
}

// storeFailed is the server's word for a store that it can't make, and for
// one that another makes at the same moment (1 of 3,000 in a race of 16).
const storeFailed = 10049

// createdMeanwhile reports whether a stream may be there now, by another.
func createdMeanwhile(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound) ||
		errors.As(err, &api) && api.ErrorCode == storeFailed
}

// SettingsError says how a stream differs from what its use needs.
type SettingsError struct {
	Stream      string
	Differences []string
}

func (e *SettingsError) Error() string {
	return fmt.Sprintf(
		"the stream %s is not set up as a log: %s; mend it with lockstep init (as an operator) or nats stream edit %s, "+
			"or give the model another name",
		e.Stream, strings.Join(e.Differences, "; "), e.Stream,
	)
}

// check names every setting that could lose or reorder what was acknowledged.
func (c LogConfig) check(got jetstream.StreamConfig) error {
	var out []string
	differs := func(bad bool, format string, args ...any) {
		if bad {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	differs(got.Storage != jetstream.FileStorage, "storage is %s, not file", got.Storage)
	differs(got.Retention != jetstream.LimitsPolicy, "retention is %s, not limits", got.Retention)
	differs(got.Discard != jetstream.DiscardNew, "discard is %s, not new", got.Discard)
	differs(got.MaxAge > 0, "max age is %s and would cut the head", got.MaxAge)
	differs(got.MaxMsgs > 0, "max messages is %d", got.MaxMsgs)
	differs(got.MaxBytes > 0, "max bytes is %d", got.MaxBytes)
	differs(got.MaxMsgsPerSubject > 0, "max messages per subject is %d and would cut the head", got.MaxMsgsPerSubject)
	differs(!got.DenyDelete, "messages may be deleted")
	differs(got.AllowRollup, "a publisher may roll up, and so purge it")
	differs(got.AllowMsgTTL, "messages may expire")
	differs(got.SubjectTransform != nil, "subjects are rewritten")
	differs(got.PersistMode == jetstream.AsyncPersistMode, "messages are acknowledged before they are stored")
	differs(got.NoAck, "publishes are not acknowledged")
	differs(got.Sealed, "it is sealed")
	differs(got.Mirror != nil || len(got.Sources) > 0, "it copies another stream")
	differs(!slices.Contains(got.Subjects, c.controlSubject(">")), "subject %s is missing", c.controlSubject(">"))
	for _, subject := range got.Subjects {
		differs(subject != c.controlSubject(">") && subject != c.learnSubject(), "subject %s is not the log's", subject)
	}
	if len(out) > 0 {
		return &SettingsError{c.Stream(), out}
	}
	return nil
}

// appendGenesis appends the first message, and reports whether no one else has.
func (l *Log) appendGenesis(ctx context.Context) (first bool, err error) {
	if l.config.Genesis == nil {
		return false, errors.New("the log is empty")
	}
	data := l.config.Genesis()
	err = l.conn.do(ctx, l.config.controlSubject("genesis"), apiTimeout, func(ctx context.Context) error {
		_, err := l.js.Publish(
			ctx, l.config.controlSubject("genesis"), data, jetstream.WithExpectLastSequence(0),
			jetstream.WithMsgID(NewID()),
		)
		return err
	})
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return false, nil
	}
	return err == nil, err
}

func (l *Log) readGenesis(ctx context.Context) error {
	msg, err := l.Message(ctx, 1)
	if errors.Is(err, ErrNoMessage) {
		return nil // purged; anyone who replays finds the hole
	}
	if err != nil {
		return fmt.Errorf("log %s: genesis: %w", l.config.Stream(), err)
	}
	if msg.Subject != l.config.controlSubject("genesis") {
		return fmt.Errorf(
			"log %s: its first message is %s and not a genesis: it is not one of Lockstep's; delete it with nats stream rm "+
				"%[1]s, or give the model another name",
			l.config.Stream(), msg.Subject,
		)
	}
	l.genesis = msg.Data
	return nil
}

// Genesis is the first message's data, nil if it was purged.
func (l *Log) Genesis() []byte { return l.genesis }

// ErrNoMessage is returned when the log has no message at a sequence.
var ErrNoMessage = jetstream.ErrMsgNotFound

// Message reads one message of the log, or returns ErrNoMessage.
func (l *Log) Message(ctx context.Context, seq uint64) (msg *Message, err error) {
	err = l.conn.do(ctx, l.conn.api, apiTimeout, func(ctx context.Context) error {
		stream, err := l.js.Stream(ctx, l.config.Stream())
		if err != nil {
			return err
		}
		raw, err := stream.GetMsg(ctx, seq)
		if err == nil {
			msg = &Message{
				Seq: raw.Sequence, Subject: raw.Subject, ID: raw.Header.Get(nats.MsgIdHdr),
				Data: raw.Data, Time: raw.Time,
			}
		}
		return err
	})
	return msg, err
}

// End returns the first and the last sequence of the log.
func (l *Log) End(ctx context.Context) (first, last uint64, err error) {
	info, err := l.info(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fmt.Errorf("%w: %w", ErrNoLog, err)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("log %s: %w", l.config.Stream(), err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// MaxBody is the most bytes of data that the log takes in one message: what
// the server and the stream take, less room for a message's headers. For a user
// who may not look at the stream it is what Lockstep makes its streams with.
func (l *Log) MaxBody(ctx context.Context) (int, error) {
	const headers = 512
	most := int64(MaxMessage)
	info, err := l.info(ctx)
	var denied *PermissionError
	switch {
	case errors.As(err, &denied):
	case err != nil:
		return 0, fmt.Errorf("log %s: %w", l.config.Stream(), err)
	case info.Config.MaxMsgSize > 0:
		most = int64(info.Config.MaxMsgSize)
	}
	return int(min(most, l.conn.MaxPayload())) - headers, nil
}

// Cut removes the messages below a sequence.
func (l *Log) Cut(ctx context.Context, below uint64) error {
	return l.conn.do(ctx, l.conn.api, apiTimeout, func(ctx context.Context) error {
		stream, err := l.js.Stream(ctx, l.config.Stream())
		if err == nil {
			err = stream.Purge(ctx, jetstream.WithPurgeSequence(below))
		}
		return err
	})
}

// attemptTimeout bounds one attempt to append.
const attemptTimeout = time.Second

// Guard is a condition that the server checks before it stores a message: one
// of JetStream's Nats-Expected-* headers.
type Guard struct{ Header, Value string }

// RefusedError is returned when the server refused a message: nothing of it
// is stored. Code, ErrCode and Description are JetStream's own.
type RefusedError struct {
	Code, ErrCode int
	Description   string
	Err           error // what it is besides, as ErrTooLarge
}

// Body is the refusal as JetStream answers a publisher.
func (e *RefusedError) Body() []byte {
	type wireError struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	}
	body, err := json.Marshal(struct {
		Error wireError `json:"error"`
	}{wireError{e.Code, e.ErrCode, e.Description}})
	if err != nil {
		panic(err) // numbers and texts always marshal
	}
	return body
}

func (e *RefusedError) Error() string { return e.Err.Error() }

func (e *RefusedError) Unwrap() error { return e.Err }

// Append stores a message and returns once it is acknowledged. It retries
// under the same id until ctx ends; then the message may be stored or not.
// With guards it tries once: after a lost acknowledgement, a message that was
// stored may be why its own guard does not hold any more.
func (l *Log) Append(ctx context.Context, subject, id string, data []byte, guards ...Guard) (Ack, error) {
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}
	if id != "" {
		msg.Header.Set(nats.MsgIdHdr, id)
	}
	for _, g := range guards {
		msg.Header.Set(g.Header, g.Value)
	}
	for attempt := 1; ; attempt++ {
		ack, err := l.attempt(ctx, msg)
		if err == nil {
			// A retry's duplicate is most likely this call's own.
			return Ack{Seq: ack.Sequence, Duplicate: ack.Duplicate && attempt == 1}, nil
		}
		if !transient(err) || len(guards) > 0 {
			return Ack{}, refused(named(err), attempt)
		}
		select {
		case <-ctx.Done():
			return Ack{}, fmt.Errorf("%w (after %d attempts: %v)", ctx.Err(), attempt, err)
		case <-time.After(retryWait):
		}
	}
}

// refused makes a *RefusedError of an error which says that nothing was
// stored. An earlier attempt may have been, so only the first one's counts.
func refused(err error, attempt int) error {
	var api *jetstream.APIError
	switch {
	case attempt > 1 || transient(err):
	case errors.As(err, &api):
		return &RefusedError{api.Code, int(api.ErrorCode), api.Description, err}
	case errors.Is(err, nats.ErrMaxPayload):
		return &RefusedError{413, 0, err.Error(), err}
	}
	return err
}

func (l *Log) attempt(ctx context.Context, msg *nats.Msg) (ack *jetstream.PubAck, err error) {
	err = l.conn.do(ctx, msg.Subject, attemptTimeout, func(ctx context.Context) error {
		ack, err = l.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
		return err
	})
	return ack, err
}

// Limit is how many bytes a message may have, its headers included: what both
// the stream and the server take.
func (l *Log) Limit() int {
	limit := int(l.conn.MaxPayload())
	if l.maxMessage > 0 {
		limit = min(limit, l.maxMessage)
	}
	return limit
}

// inProcess reports whether a cluster answered that another message with the
// same id, or for the same subject, is being stored and may still fail
// (JSStreamDuplicateMessageConflict, JSStreamWrongLastSequenceConstantErr).
func inProcess(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == 10158 || api.ErrorCode == 10164)
}

// The server's words for having no room (of an account, a server, a stream),
// and for a message or its headers that are too large.
var (
	full     = []int{10002, 10023, 10077}
	tooLarge = []int{10054, 10097}
)

var (
	// ErrFull is returned when there is no room to store a message.
	ErrFull = errors.New("JetStream has no room left: make some, or raise its limits")
	// ErrTooLarge is returned when a message is larger than the log, or the
	// server, takes.
	ErrTooLarge = errors.New("the message is too large")
)

// named gives an error of the server's its name here.
func named(err error) error {
	var api *jetstream.APIError
	name := error(nil)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		name = ErrTooLarge
	case !errors.As(err, &api):
	case slices.Contains(full, int(api.ErrorCode)):
		name = ErrFull
	case slices.Contains(tooLarge, int(api.ErrorCode)):
		name = ErrTooLarge
	}
	if name == nil {
		return err
	}
	return fmt.Errorf("%w: %w", name, err)
}

// transient reports whether the same append may succeed later.
func transient(err error) bool {
	var denied *PermissionError
	var api *jetstream.APIError
	switch {
	case errors.As(err, &denied):
		return false
	case errors.As(err, &api):
		return inProcess(err) || api.Code == 503 && !slices.Contains(full, int(api.ErrorCode))
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrConnectionClosed):
		return false
	}
	return true
}

// Publisher appends many messages, several in flight, each acknowledged.
type Publisher struct {
	log      *Log
	ctx      context.Context
	subject  string
	outcome  func(tag int, ack Ack, err error)
	inFlight chan publication
	done     chan struct{} // closed when everything is accounted for
	failed   chan struct{} // closed when a message could not be stored
	err      error         // of the first that could not be stored; read after failed or done
}

type publication struct {
	future jetstream.PubAckFuture
	id     string
	data   []byte
	tag    int
}

// maxInFlight is how many messages a publisher sends ahead of their acks.
const maxInFlight = 64

// ErrUnacknowledged is returned for a message that was sent and not
// acknowledged: it may be stored, or not.
var ErrUnacknowledged = errors.New("no acknowledgement came")

// Publisher starts to append to a subject. outcome is called for each message
// in the order of their Publish, with the tag it was given and why it is not
// stored, from one goroutine that ends before Close returns. After the first
// message that could not be stored nothing more is sent, but what is in flight
// is still waited for.
func (l *Log) Publisher(ctx context.Context, subject string, outcome func(tag int, ack Ack, err error)) *Publisher {
	p := &Publisher{log: l, ctx: ctx, subject: subject, outcome: outcome, inFlight: make(chan publication, maxInFlight),
		done: make(chan struct{}), failed: make(chan struct{})}
	go p.collect()
	return p
}

// Publish sends a message; it waits while too many are in flight. A message
// whose ack does not come is sent again under the same id.
func (p *Publisher) Publish(id string, data []byte, tag int) error {
	select {
	case <-p.failed:
		return p.err
	default:
	}
	future, err := p.log.js.PublishAsync(p.subject, data, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
	if err != nil {
		future = nil // collect appends it
	}
	// Even after a failure it goes the same way: the message is sent, and may
	// be stored.
	p.inFlight <- publication{future, id, data, tag}
	return nil
}

// Close waits until everything is acknowledged, and returns the first error.
func (p *Publisher) Close() error {
	close(p.inFlight)
	<-p.done
	return p.err
}

func (p *Publisher) collect() {
	defer close(p.done)
	for one := range p.inFlight {
		ack, err := p.await(one)
		p.outcome(one.tag, ack, err)
		if err != nil && p.err == nil {
			p.err = err
			close(p.failed)
		}
	}
}

func (p *Publisher) await(one publication) (Ack, error) {
	if one.future != nil {
		timeout := time.NewTimer(attemptTimeout)
		defer timeout.Stop()
		select {
		case ack := <-one.future.Ok():
			return Ack{Seq: ack.Sequence, Duplicate: ack.Duplicate}, nil
		case err := <-one.future.Err():
			if !transient(err) {
				return Ack{}, named(err)
			}
		case <-timeout.C:
		case <-p.ctx.Done():
			return Ack{}, fmt.Errorf("%w: %w", ErrUnacknowledged, context.Cause(p.ctx))
		}
	}
	if p.err != nil {
		return Ack{}, ErrUnacknowledged // nothing is sent again
	}
	ack, err := p.log.Append(p.ctx, p.subject, one.id, one.data)
	if err != nil && p.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrUnacknowledged, err)
	}
	ack.Duplicate = false // most likely the first attempt's own
	return ack, err
}
