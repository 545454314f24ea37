package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Store is a stream that a model keeps something in, as the contract wants it.
type Store struct {
	Keeps  string // what
	config jetstream.StreamConfig
	log    *LogConfig // of the log; nil of any other
}

// Stream is the name of the store's stream.
func (s Store) Stream() string { return s.config.Name }

// LogStore is a model's log.
func LogStore(config LogConfig) Store {
	return Store{"the log", config.stream(config.controlSubject(">"), config.learnSubject()), &config}
}

// CounterStore is a counter's stream.
func CounterStore(stream, subject string, replicas int) Store {
	return Store{"a counter", counterStream(stream, subject, replicas), nil}
}

// NotesStore is the stream of the notes on a subject and below.
func NotesStore(stream, subject string, replicas int) Store {
	return Store{"notes", notesStream(stream, subject, replicas), nil}
}

// BoardStore is a board's bucket.
func BoardStore(config BoardConfig) Store { return Store{"a board", config.stream(), nil} }

// BlobsStore is the object store of blobs.
func BlobsStore(bucket, description string, replicas int) Store {
	return Store{"objects", blobsStream(bucket, description, replicas), nil}
}

// Difference is a setting of a stream that is not what the contract says.
type Difference struct {
	Setting string `json:"setting"`
	Have    string `json:"have"`
	Want    string `json:"want"`
	// Refused says why SetUp does not change it; empty if it does.
	Refused string `json:"refused,omitempty"`

	apply func(*jetstream.StreamConfig)
}

func (d Difference) String() string {
	text := fmt.Sprintf("%s is %s, and should be %s", d.Setting, d.Have, d.Want)
	if d.Refused != "" {
		text += " (" + d.Refused + ")"
	}
	return text
}

// Plan is what SetUp would do with one store.
type Plan struct {
	Stream      string       `json:"stream"`
	Create      bool         `json:"create"`
	Differences []Difference `json:"differences"`

	store Store
}

// Refused reports whether something differs that SetUp must not change.
func (p Plan) Refused() bool {
	return slices.ContainsFunc(p.Differences, func(d Difference) bool { return d.Refused != "" })
}

// Nothing reports whether the store is as it should be.
func (p Plan) Nothing() bool { return !p.Create && len(p.Differences) == 0 }

// PlanStores compares each store with what is there, and changes nothing. A
// store of 0 replicas wants as many as there are.
func PlanStores(ctx context.Context, conn *Conn, stores []Store) ([]Plan, error) {
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	var plans []Plan
	for _, s := range stores {
		p := Plan{Stream: s.Stream(), Differences: []Difference{}, store: s}
		info, err := streamInfo(ctx, conn, js, s.Stream())
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			p.Create = true
		case err != nil:
			return nil, fmt.Errorf("stream %s: %w", s.Stream(), err)
		default:
			p.Differences = s.differences(info)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

func streamInfo(
	ctx context.Context, conn *Conn, js jetstream.JetStream, name string,
) (info *jetstream.StreamInfo, err error) {
	err = conn.do(ctx, conn.api, apiTimeout, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, name)
		if err == nil {
			info = stream.CachedInfo()
		}
		return err
	})
	return info, err
}

// SetUp does what plans say: it makes what is not there and changes what
// differs. It changes nothing at all if a plan is refused. It can be run
// again after a crash, and by two at once.
func SetUp(ctx context.Context, conn *Conn, plans []Plan) error {
	for _, p := range plans {
		if p.Refused() {
			return &SettingsError{p.Stream, texts(p.Differences)}
		}
	}
	js, err := conn.jetStream()
	if err != nil {
		return err
	}
	for _, p := range plans {
		if p.store.log != nil { // no event may come before its genesis
			_, err = openLog(ctx, conn, *p.store.log, false)
		} else {
			_, err = bindOrCreate(ctx, conn, js, p.store.config)
		}
		if err == nil && !p.Create {
			err = p.store.mend(ctx, conn, js)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", p.Stream, err)
		}
	}
	return nil
}

// fix changes what differs by now.
func (s Store) mend(ctx context.Context, conn *Conn, js jetstream.JetStream) error {
	info, err := streamInfo(ctx, conn, js, s.Stream())
	if err != nil {
		return err
	}
	differences := s.differences(info)
	if len(differences) == 0 {
		return nil
	}
	config := info.Config
	for _, d := range differences {
		if d.Refused != "" {
			return &SettingsError{s.Stream(), texts(differences)}
		}
		d.apply(&config)
	}
	return conn.do(ctx, conn.api, apiTimeout, func(ctx context.Context) error {
		_, err := js.UpdateStream(ctx, config)
		return err
	})
}

func texts(differences []Difference) (out []string) {
	for _, d := range differences {
		out = append(out, d.String())
	}
	return out
}

// Why a setting is left alone.
const (
	refusedFixed = "the server cannot change it: back up what is in it, delete it, and make it anew"
	refusedLater = "what is published there would be stored no more: take it away with nats stream edit if nobody needs it"
)

// differences lists what is not as the contract says. What a change would
// lose is refused.
func (s Store) differences(info *jetstream.StreamInfo) []Difference {
	want, have, state := s.config, info.Config, info.State
	out := []Difference{}
	add := func(setting string, have, want any, refused string, apply func(*jetstream.StreamConfig)) {
		if a, b := fmt.Sprint(have), fmt.Sprint(want); a != b {
			out = append(out, Difference{setting, a, b, refused, apply})
		}
	}
	unless := func(harmless bool, reason string) string {
		if harmless {
			return ""
		}
		return reason
	}
	add("storage", have.Storage, want.Storage, refusedFixed, nil)
	add("retention", have.Retention, want.Retention, refusedFixed, nil)
	add("sealed", have.Sealed, want.Sealed, refusedFixed, nil)
	add("deny_purge", have.DenyPurge, want.DenyPurge, refusedFixed, nil)
	add("allow_msg_ttl", have.AllowMsgTTL, want.AllowMsgTTL, refusedFixed, nil)
	add("allow_msg_counter", have.AllowMsgCounter, want.AllowMsgCounter, refusedFixed, nil)
	add("persist_mode", have.PersistMode, want.PersistMode, refusedFixed, nil)
	add(
		"mirrors or sources", have.Mirror != nil || len(have.Sources) > 0, false,
		"it holds another stream's messages: make it anew under this name", nil,
	)
	add(
		"subject_transform", have.SubjectTransform != nil, false, "",
		func(c *jetstream.StreamConfig) { c.SubjectTransform = nil },
	)
	add("no_ack", have.NoAck, want.NoAck, "", func(c *jetstream.StreamConfig) { c.NoAck = want.NoAck })
	add(
		"deny_delete", have.DenyDelete, want.DenyDelete, unless(want.DenyDelete, refusedFixed),
		func(c *jetstream.StreamConfig) { c.DenyDelete = want.DenyDelete },
	)
	add(
		"allow_rollup_hdrs", have.AllowRollup, want.AllowRollup, "",
		func(c *jetstream.StreamConfig) { c.AllowRollup = want.AllowRollup },
	)
	add(
		"allow_direct", have.AllowDirect, want.AllowDirect, "",
		func(c *jetstream.StreamConfig) { c.AllowDirect = want.AllowDirect },
	)
	add("discard", have.Discard, want.Discard, "", func(c *jetstream.StreamConfig) { c.Discard = want.Discard })
	add(
		"discard_new_per_subject", have.DiscardNewPerSubject, want.DiscardNewPerSubject, "",
		func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject = want.DiscardNewPerSubject },
	)
	if want.Duplicates > 0 {
		add(
			"duplicate_window", have.Duplicates, want.Duplicates, "",
			func(c *jetstream.StreamConfig) { c.Duplicates = want.Duplicates },
		)
	}

	// A tighter limit would cut what is over it.
	limits := func(setting string, have, want int64, cuts bool, apply func(*jetstream.StreamConfig)) {
		have, want = max(have, 0), max(want, 0)
		tighter := want > 0 && (have == 0 || want < have)
		add(
			setting, limitText(have), limitText(want),
			unless(
				!tighter || !cuts,
				"that would delete messages that are over it: take them away yourself first, with nats stream purge",
			),
			apply,
		)
	}
	old := info.TimeStamp.Sub(state.FirstTime)
	add(
		"max_age", ageText(have.MaxAge), ageText(want.MaxAge),
		unless(
			want.MaxAge == 0 || have.MaxAge > 0 && have.MaxAge <= want.MaxAge || state.Msgs == 0 || old < want.MaxAge,
			"that would delete messages that are older: take them away yourself first, with nats stream purge",
		),
		func(c *jetstream.StreamConfig) { c.MaxAge = want.MaxAge },
	)
	limits(
		"max_msgs", have.MaxMsgs, want.MaxMsgs, state.Msgs > uint64(max(want.MaxMsgs, 0)),
		func(c *jetstream.StreamConfig) { c.MaxMsgs = want.MaxMsgs },
	)
	limits(
		"max_bytes", have.MaxBytes, want.MaxBytes, state.Bytes > uint64(max(want.MaxBytes, 0)),
		func(c *jetstream.StreamConfig) { c.MaxBytes = want.MaxBytes },
	)
	limits(
		"max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject, state.Msgs > state.NumSubjects,
		func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = want.MaxMsgsPerSubject },
	)
	limits(
		"max_msg_size", int64(have.MaxMsgSize), int64(want.MaxMsgSize), false,
		func(c *jetstream.StreamConfig) { c.MaxMsgSize = want.MaxMsgSize },
	)
	limits(
		"max_consumers", int64(have.MaxConsumers), int64(want.MaxConsumers), false,
		func(c *jetstream.StreamConfig) { c.MaxConsumers = want.MaxConsumers },
	)

	if want.Replicas > 0 {
		add(
			"replicas", have.Replicas, want.Replicas,
			unless(
				want.Replicas > have.Replicas,
				"fewer servers would have what is stored: lower it with nats stream edit if you mean it",
			),
			func(c *jetstream.StreamConfig) { c.Replicas = want.Replicas },
		)
	}
	for _, subject := range want.Subjects {
		// Only the log's is added to what is there, once it has a genesis.
		opens := s.log != nil && subject == s.log.learnSubject()
		add(
			"subject "+subject, present(have.Subjects, subject), "there",
			unless(opens, "only an operator knows what it is for: add it with nats stream edit"),
			func(*jetstream.StreamConfig) {},
		)
	}
	for _, subject := range have.Subjects {
		if !slices.Contains(want.Subjects, subject) {
			add("subject "+subject, "there", "missing", refusedLater, nil)
		}
	}
	return out
}

func present(all []string, one string) string {
	if slices.Contains(all, one) {
		return "there"
	}
	return "missing"
}

func limitText(n int64) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func ageText(d time.Duration) string {
	if d == 0 {
		return "unlimited"
	}
	return d.String()
}

// DiffersError says how streams differ from the contract in what does no harm
// at once.
type DiffersError struct{ Plans []Plan }

func (e *DiffersError) Error() string {
	var parts []string
	for _, p := range e.Plans {
		parts = append(parts, p.Stream+": "+strings.Join(texts(p.Differences), "; "))
	}
	return "not set up as the contract says: " + strings.Join(parts, ". ") + "; see lockstep init --dry-run"
}

// VerifyStores returns a *DiffersError if stores differ from the contract.
func VerifyStores(ctx context.Context, conn *Conn, stores []Store) error {
	plans, err := PlanStores(ctx, conn, stores)
	if err != nil {
		return err
	}
	if plans = slices.DeleteFunc(plans, Plan.Nothing); len(plans) > 0 {
		return &DiffersError{plans}
	}
	return nil
}

// Genesis is the first message's data of a model's log, whose settings are
// not looked at; nil if it is not there.
func Genesis(ctx context.Context, conn *Conn, model string) ([]byte, error) {
	l, err := newLog(conn, LogConfig{Model: model})
	if err == nil {
		err = l.readGenesis(ctx)
	}
	if err != nil {
		return nil, err
	}
	return l.genesis, nil
}
