package fleet

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"lockstep/bus/bustest"
)

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
	good := Heartbeat{Replica: "a", Seq: 7, Identity: Identity{Contract: "c", Encoding: "e"}, Advisory: strings.Repeat("ü", maxAdvisory)}
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
	good := Attestation{Replica: "a", Seq: 7, Identity: identity, Digest: "x"}
	later := Attestation{Replica: "a", Seq: 9, Identity: identity}
	for _, a := range []Attestation{good, later} {
		if err := PutAttestation(t.Context(), kv, a); err != nil {
			t.Fatal(err)
		}
	}
	put(t, kv, AttestKey(7)+".b", good)
	put(t, kv, AttestKey(8)+".a", good)
	put(t, kv, AttestKey(7)+".c", Attestation{Replica: "c", Seq: 7, Identity: Identity{Contract: "c", Encoding: "e"}})
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
	if len(peers) != 4 || Furthest(peers) != 7 || Rank(peers, "c") != 1 || Rank(peers, "a") != 0 || len(Voters(peers)) != 3 {
		t.Errorf("got %d peers, the furthest at %d, c of rank %d, a of %d, %d voters; want 4, 7, 1, 0, 3",
			len(peers), Furthest(peers), Rank(peers, "c"), Rank(peers, "a"), len(Voters(peers)))
	}
}
