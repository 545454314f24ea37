package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"lockstep/bus"
)

// Unreadable is a value that stands in a bucket, or came as an answer, and is
// not what it should be: cut off, of other types, of a version of the program
// that writes it otherwise, or written by somebody else. Readers skip it.
type Unreadable struct {
	Key    string
	Reason string // as in "its digest is not 64 hexadecimal digits"
}

func (u Unreadable) String() string { return fmt.Sprintf("%q: %s", u.Key, u.Reason) }

// Reported is a bucket whose readers say what they skip. Report is called
// after each read with the key that was read below and with what was skipped
// there, which may be nothing. It is called from whichever goroutine reads.
type Reported struct {
	KV
	Report func(below string, skipped []Unreadable)
}

// read decodes the values below a key of a bucket. What does not decode, or
// what check has something against, is skipped, and reported if the bucket is
// Reported.
func read[T any](ctx context.Context, kv KV, key string, check func(key string, value *T) string) ([]T, error) {
	entries, err := kv.List(ctx, key)
	var out []T
	var skipped []Unreadable
	for _, e := range entries {
		value, reason := decode(e, check)
		if reason != "" {
			skipped = append(skipped, Unreadable{e.Key, reason})
			continue
		}
		out = append(out, value)
	}
	if r, ok := kv.(Reported); ok && err == nil {
		r.Report(key, skipped)
	}
	return out, err
}

func decode[T any](e bus.Entry, check func(key string, value *T) string) (value T, reason string) {
	if err := json.Unmarshal(e.Value, &value); err != nil {
		return value, describeJSON(err)
	}
	return value, check(e.Key, &value)
}

// describeJSON says what is wrong with a value, without the names of Go.
func describeJSON(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		if kind.Field == "" {
			return "it is a JSON " + kind.Value + ", and not an object"
		}
		field := kind.Field[strings.LastIndexByte(kind.Field, '.')+1:] // without the structs that Go has embedded
		return clip(fmt.Sprintf("its %s cannot be a JSON %s", field, kind.Value), maxReason)
	}
	return clip("it is not JSON: "+strings.TrimPrefix(err.Error(), "json: "), maxReason)
}

const maxReason = 200 // bytes

var (
	hash = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// word is what names of replicas, states and encodings look like, in every
	// version of the program.
	word = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// first returns the first reason that is one.
func first(reasons ...string) string {
	for _, r := range reasons {
		if r != "" {
			return r
		}
	}
	return ""
}

func needHash(name, text string) string {
	if hash.MatchString(text) {
		return ""
	}
	return fmt.Sprintf("its %s is not 64 hexadecimal digits", name)
}

func needWord(name, text string) string {
	if word.MatchString(text) {
		return ""
	}
	return fmt.Sprintf("its %s is not a name", name)
}

func needKey(given, own string) string {
	if given == own {
		return ""
	}
	return "it is not a value of this key"
}

// check is what is wrong with an identity; empty if nothing is.
func (i Identity) check() string {
	incarnation := ""
	if i.Incarnation != "" { // else the genesis was not read yet
		incarnation = needWord("incarnation", i.Incarnation)
	}
	return first(needHash("contract", i.Contract), needWord("encoding", i.Encoding), incarnation)
}

// check is what is wrong with what an attestation says of a state.
func (a *Attestation) check() string {
	reason := first(a.Identity.check(), needHash("log_chain", a.LogChain), needHash("state_chain", a.StateChain),
		needHash("digest", a.Digest))
	if reason == "" && a.Incarnation == "" {
		reason = "its incarnation is missing"
	}
	return reason
}

func checkAttestation(key string, a *Attestation) string {
	return first(needWord("replica", a.Replica), needKey(key, AttestKey(a.Seq)+"."+a.Replica), a.check())
}

func checkHeartbeat(key string, h *Heartbeat) string {
	digest := ""
	if h.Attested > 0 || h.Digest != "" {
		digest = needHash("digest", h.Digest)
	}
	return first(needWord("replica", h.Replica), needKey(key, KeyHeartbeats+"."+h.Replica), needWord("state", h.State),
		h.Identity.check(), needHash("log_chain", h.LogChain), needHash("state_chain", h.StateChain), digest)
}

func checkSnapshot(key string, s *Snapshot) string {
	switch {
	case s.Object == "" || strings.ContainsAny(s.Object, " .*>"):
		return "its object is not a name"
	case s.Size < 0:
		return "its size is negative"
	}
	return first(needKey(key, SnapshotKey(s.Seq)), s.Attestation.check())
}

func checkBase(key string, s *Snapshot) string {
	return first(needKey(key, keyBasePinned), checkSnapshot(SnapshotKey(s.Seq), s))
}

func checkRejected(key string, r *RejectedSnapshot) string {
	return needKey(key, keyRejected+"."+r.Object)
}

// ReadStatus decodes a replica's answer for its status. If it cannot be read,
// the reason says why, and the status has what could be read of it.
func ReadStatus(answer []byte) (s Status, reason string) {
	if err := json.Unmarshal(answer, &s); err != nil {
		return s, describeJSON(err)
	}
	return s, first(needWord("replica", s.Replica), needWord("state", s.State), s.Identity.check(),
		needHash("log_chain", s.LogChain), needHash("state_chain", s.StateChain), needHash("digest", s.Digest))
}
