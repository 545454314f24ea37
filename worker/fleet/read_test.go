package fleet

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"lockstep/bus/bustest"
	"lockstep/model"
)

// sum stands for a hash.
const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func attestation(replica string, seq uint64) Attestation {
	return Attestation{
		Replica: replica, Seq: seq, Identity: Identity{"i", sum, "e"}, LogChain: sum, StateChain: sum, Digest: sum,
	}
}

func put(t *testing.T, kv KV, key string, value any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err == nil {
		err = kv.Put(t.Context(), key, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHeartbeatsAreTheirReplicas: a heartbeat counts under its own replica's
// key only, and says what it folds.
func TestHeartbeatsAreTheirReplicas(t *testing.T) {
	t.Parallel()
	kv := bustest.NewBoard(0)
	good := Heartbeat{
		Replica: "a", State: "ready", Seq: 7, Identity: Identity{Contract: sum, Encoding: "e"}, LogChain: sum, StateChain: sum,
		Advisory: strings.Repeat("ü", maxAdvisory),
	}
	if err := PutHeartbeat(t.Context(), kv, good); err != nil {
		t.Fatal(err)
	}
	put(t, kv, "replica.b", good)
	put(t, kv, "replica.c", Heartbeat{Replica: "c"})
	put(t, kv, "replica.d", "junk")
	got, err := Heartbeats(t.Context(), kv)
	if err != nil || len(got) != 1 || got[0].Replica != "a" {
		t.Fatalf("got %+v, %v, want a's alone", got, err)
	}
	if text := got[0].Advisory; len(text) > maxAdvisory || !strings.HasSuffix(text, "ü…") {
		t.Errorf("got an advisory of %d bytes, want one clipped to %d", len(text), maxAdvisory)
	}
	if err := RemoveHeartbeat(t.Context(), kv, "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := Heartbeats(t.Context(), kv); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v after its removal, want none", got, err)
	}
}

// TestAttestationsAreTheirReplicas: an attestation counts under its own key
// only, and only if it says all of what it is of.
func TestAttestationsAreTheirReplicas(t *testing.T) {
	t.Parallel()
	kv := bustest.NewBoard(0)
	good := attestation("a", 7)
	later := attestation("a", 9)
	for _, a := range []Attestation{good, later} {
		if err := PutAttestation(t.Context(), kv, a); err != nil {
			t.Fatal(err)
		}
	}
	put(t, kv, AttestKey(7)+".b", good)
	put(t, kv, AttestKey(8)+".a", good)
	unsaid := attestation("c", 7)
	unsaid.Incarnation = ""
	put(t, kv, AttestKey(7)+".c", unsaid)
	got, err := AllAttestations(t.Context(), kv)
	if want := []Attestation{good, later}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := RemoveAttestation(t.Context(), kv, 7, "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := Attestations(t.Context(), kv, 7); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v of 7, want none", got, err)
	}
}

// TestPeers: who counts, who is furthest and who is first among those that
// vote.
func TestPeers(t *testing.T) {
	t.Parallel()
	own := identity
	all := []Heartbeat{
		{Replica: "a", Seq: 5, Votes: true, Identity: own},
		{Replica: "b", Seq: 9, Identity: own},
		{Replica: "c", Seq: 7, Votes: true, Identity: own},
		{Replica: "d", Seq: 99, Votes: true, Identity: Identity{"j", "c", "e"}},
		{Replica: "e", Seq: 6, Votes: true, Identity: Identity{"", "c", "e"}},
	}
	peers := Peers(all, own)
	if len(peers) != 4 || Furthest(peers) != 7 || Rank(peers, "c") != 1 || Rank(peers, "a") != 0 ||
		len(Voters(peers)) != 3 {
		t.Errorf("got %d peers, the furthest at %d, c of rank %d, a of %d, %d voters; want 4, 7, 1, 0, 3",
			len(peers), Furthest(peers), Rank(peers, "c"), Rank(peers, "a"), len(Voters(peers)))
	}
}

// TestUnreadable: what stands in the buckets and is not what it should be is
// skipped, and named with its reason; what is well is read.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	kv := bustest.NewBoard(0)
	skipped := map[string]string{}
	reads := 0
	reported := Reported{kv, func(_ string, all []Unreadable) {
		reads++
		for _, u := range all {
			skipped[u.Key] = u.Reason
		}
	}}
	heartbeat := Heartbeat{
		Replica: "well", State: "ready", Identity: Identity{Contract: sum, Encoding: "e"},
		LogChain: sum, StateChain: sum,
	}
	pointer := Snapshot{Attestation: attestation("well", 5), Object: "o-1", Size: 9, Attested: []string{"well"}}
	put(t, kv, "replica.well", heartbeat)
	put(t, kv, AttestKey(5)+".well", attestation("well", 5))
	put(t, kv, SnapshotKey(5), pointer)
	put(t, kv, "aside.o-1", RejectedSnapshot{Object: "o-1"})
	put(t, kv, "base.pinned", pointer)
	// edited is a good value with one field replaced by a JSON text, or left out.
	edited := func(value any, field, with string) string {
		var fields map[string]json.RawMessage
		data, err := json.Marshal(value)
		if err == nil {
			err = json.Unmarshal(data, &fields)
		}
		if fields[field] = json.RawMessage(with); with == "" {
			delete(fields, field)
		}
		if err == nil {
			data, err = json.Marshal(fields)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	named := func(replica string) Heartbeat { h := heartbeat; h.Replica = replica; return h }
	at := func(seq uint64) Snapshot { s := pointer; s.Seq = seq; return s }
	cases := []struct{ key, value, reason string }{
		{"replica.a", "", "not JSON"},
		{"replica.b", `{"replica":"b"`, "not JSON"},
		{"replica.c", "[]", "JSON array, and not an object"},
		{"replica.d", "null", "its replica is not a name"},
		{"replica.e", edited(named("e"), "seq", `"7"`), "its seq cannot be a JSON string"},
		{"replica.f", edited(named("f"), "seq", "1e300"), "its seq cannot be a JSON number"},
		{"replica.g", edited(named("g"), "seq", "-1"), "its seq cannot be a JSON number"},
		{"replica.h", edited(named("h"), "seq", strings.Repeat("9", 1000)), "its seq cannot be a JSON number"},
		{"replica.i", edited(named("i"), "state_chain", `"0123"`), "its state_chain is not 64 hexadecimal digits"},
		{"replica.j", edited(named("j"), "log_chain", ""), "its log_chain is not 64 hexadecimal digits"},
		{"replica.k", edited(named("k"), "digest", `"zz"`), "its digest is not 64 hexadecimal digits"},
		{
			"replica.l", edited(named("l"), "contract", `"`+strings.ToUpper(sum)+`"`),
			"its contract is not 64 hexadecimal digits",
		},
		{"replica.m", edited(named("m"), "state", `"\u001b[31m"`), "its state is not a name"},
		{"replica.n", edited(named("other"), "x", "1"), "not a value of this key"},
		{"replica.o.p", edited(named("o.p"), "x", "1"), "its replica is not a name"},
		{"replica.q", edited(named("q"), "votes", `"yes"`), "its votes cannot be a JSON string"},
		{"replica.r", edited(named("r"), "incarnation", `"a b"`), "its incarnation is not a name"},
		{"replica.s", edited(named("s"), "attested", "4096"), "its digest is not 64 hexadecimal digits"},
		{AttestKey(5) + ".a", edited(attestation("a", 5), "digest", `"0123"`), "its digest is not 64 hexadecimal digits"},
		{AttestKey(5) + ".b", edited(attestation("b", 6), "x", "1"), "not a value of this key"},
		{AttestKey(5) + ".c", edited(attestation("c", 5), "incarnation", ""), "its incarnation is missing"},
		{"attest.junk", "junk", "not JSON"},
		{"snapshot.junk", edited(at(0), "x", "1"), "not a value of this key"},
		{SnapshotKey(6), "{}", "its object is not a name"},
		{SnapshotKey(7), edited(at(7), "digest", `"ab"`), "its digest is not 64 hexadecimal digits"},
		{SnapshotKey(8), edited(at(8), "size", "-1"), "its size is negative"},
		{SnapshotKey(9), edited(at(9), "object", `""`), "its object is not a name"},
		{SnapshotKey(10), edited(at(10), "attested", `"a"`), "its attested cannot be a JSON string"},
		{SnapshotKey(11), edited(at(12), "x", "1"), "not a value of this key"},
		{"aside.o-2", edited(RejectedSnapshot{Object: "o-3"}, "x", "1"), "not a value of this key"},
		{"base.other", edited(pointer, "x", "1"), "not a value of this key"},
	}
	for _, c := range cases {
		if err := kv.Put(t.Context(), c.key, []byte(c.value)); err != nil {
			t.Fatal(err)
		}
	}
	heartbeats, err1 := Heartbeats(t.Context(), reported)
	attestations, err2 := AllAttestations(t.Context(), reported)
	snapshots, err3 := Snapshots(t.Context(), reported)
	rejected, err4 := RejectedSnapshots(t.Context(), reported)
	base, err5 := Base(t.Context(), reported)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	if len(heartbeats) != 1 || len(attestations) != 1 || len(snapshots) != 1 || len(rejected) != 1 || base == nil ||
		reads != 5 {
		t.Errorf(
			"got %d heartbeats, %d attestations, %d snapshots, %d rejected, base %v in %d reads, want one of each in 5",
			len(heartbeats), len(attestations), len(snapshots), len(rejected), base, reads,
		)
	}
	for _, c := range cases {
		if got := skipped[c.key]; !strings.Contains(got, c.reason) || len(got) > maxReason {
			t.Errorf("%s %.80s: got the reason %q, want %q", c.key, c.value, got, c.reason)
		}
		delete(skipped, c.key)
	}
	if len(skipped) > 0 {
		t.Errorf("skipped too: %v", skipped)
	}
}

// TestReadStatus: an answer for a status is taken only whole, and what could be
// read of another is there to show.
func TestReadStatus(t *testing.T) {
	t.Parallel()
	good := Status{
		Replica: "a", State: "ready", Seq: 7, Identity: Identity{"i", sum, "e"}, LogChain: sum,
		StateChain: sum, Digest: sum,
	}
	data, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	if got, reason := ReadStatus(data); reason != "" || !reflect.DeepEqual(got, good) {
		t.Errorf("got %+v, %q, want the status", got, reason)
	}
	for from, c := range map[string]struct{ to, reason string }{
		`"state_chain":"` + sum: {`"state_chain":"0123`, "its state_chain is not"},
		`"digest":"` + sum:      {`"digest":"`, "its digest is not"},
		`"seq":7`:               {`"seq":1e300`, "its seq cannot be a JSON number"},
		`"state":"ready"`:       {`"state":7`, "its state cannot be a JSON number"},
		`}`:                     {``, "not JSON"},
	} {
		text := strings.Replace(string(data), from, c.to, 1)
		if got, reason := ReadStatus([]byte(text)); !strings.Contains(reason, c.reason) {
			t.Errorf("%s: got %+v, %q, want %q", c.to, got, reason, c.reason)
		}
	}
}

// TestFullest is the vocabulary with the least room, which is nearly full from
// nine tenths on.
func TestFullest(t *testing.T) {
	t.Parallel()
	var s Status
	if v, nearly := s.Fullest(); v != nil || nearly {
		t.Errorf("of none: got %v %t, want none", v, nearly)
	}
	s.Vocabularies = []model.Vocabulary{{Name: "a", Values: 50, Most: 100}, {Name: "b", Values: 57, Most: 64}, {Name: "c"}}
	if v, nearly := s.Fullest(); v.Name != "b" || nearly {
		t.Errorf("57 of 64: got %v %t, want b, not nearly full", v, nearly)
	}
	s.Vocabularies[1].Values = 58
	if v, nearly := s.Fullest(); v.Name != "b" || !nearly {
		t.Errorf("58 of 64: got %v %t, want b, nearly full", v, nearly)
	}
}
