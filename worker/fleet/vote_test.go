package fleet

import (
	"slices"
	"strings"
	"testing"
)

var identity = Identity{Incarnation: "i", Contract: "c", Encoding: "e"}

// TestJudge: what a checkpoint's attestations mean for replica a.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		voters string // beside a
		votes  string // name and digest; a's is x
		want   Ruling
		differ int
	}{
		{"", "", Unanimous, 0},
		{"b", "", Undecided, 0},
		{"b", "bx", Unanimous, 0},
		{"b", "by", Split, 1},
		{"bc", "bx", Undecided, 0},
		{"bc", "bx cx", Unanimous, 0},
		{"bc", "bx cy", Upheld, 1},
		{"bc", "by", Split, 1},
		{"bc", "by cx", Upheld, 1},
		{"bc", "by cy", Outvoted, 2},
		{"bc", "by cz", Split, 2},
		{"bcd", "bx cy dy", Split, 2},
		{"bcde", "bx cx dy ey", Upheld, 2},
		{"bcde", "bx cy dy ey", Outvoted, 3},
		{"", "by", Unanimous, 0},            // b is dead, or quarantined
		{"b", "by Ax", Upheld, 1},           // an arbiter breaks the tie
		{"b", "by Ay", Outvoted, 2},         //
		{"b", "bx ay", Unanimous, 0},        // an attestation of a's own that stands there is none of another's
		{"b", "by!", Undecided, 0},          // of another log
		{"bcd", "bx cx", Undecided, 0},      // d may come
		{"bcd", "bx cx dy", Upheld, 1},      //
		{"bcdef", "bx cx dy", Undecided, 1}, // see below
	} {
		mine := Attestation{Replica: "a", Seq: 7, Identity: identity, Digest: "x"}
		voters := map[string]bool{"a": true}
		for _, name := range c.voters {
			voters[string(name)] = true
		}
		var votes []Attestation
		for _, v := range strings.Fields(c.votes) {
			a := Attestation{Replica: v[:1], Seq: 7, Identity: identity, Digest: v[1:2], Arbiter: v[:1] == "A"}
			if strings.HasSuffix(v, "!") {
				a.Incarnation = "another"
			}
			votes = append(votes, a)
		}
		want := c.want
		if len(c.voters) == 5 {
			want = Split // three of six are no strict majority
		}
		if got, differ := Judge(mine, votes, voters); got != want || len(differ) != c.differ {
			t.Errorf(
				"voters %q, votes %q: got %s and %d that differ, want %s and %d", c.voters, c.votes, got,
				len(differ), want, c.differ,
			)
		}
	}
}

// TestCurrent: what a replica attested in an earlier process or fold is not
// counted, what a replica attested that is gone is.
func TestCurrent(t *testing.T) {
	votes := []Attestation{
		{
			Replica: "a", Boot: "1", Fold: 1,
		}, {Replica: "b", Boot: "1", Fold: 0}, {Replica: "c", Boot: "0", Fold: 1}, {Replica: "gone"},
	}
	peers := []Heartbeat{
		{Replica: "a", Boot: "1", Fold: 1}, {Replica: "b", Boot: "1", Fold: 1},
		{Replica: "c", Boot: "1", Fold: 1},
	}
	var got []string
	for _, v := range Current(votes, peers) {
		got = append(got, v.Replica)
	}
	if want := []string{"a", "gone"}; !slices.Equal(got, want) {
		t.Errorf("got the votes of %v, want %v", got, want)
	}
}

// TestSameLog: a replica that has read another log neither votes nor counts.
func TestSameLog(t *testing.T) {
	mine := Attestation{Replica: "a", Seq: 7, Identity: identity, LogChain: "l"}
	other := Attestation{Replica: "b", Seq: 7, Identity: identity, LogChain: "m"}
	same := Attestation{Replica: "c", Seq: 7, Identity: identity, LogChain: "l"}
	voters := map[string]bool{"a": true, "b": true, "c": true}
	votes, left := SameLog(mine, []Attestation{mine, other, same}, voters)
	if len(votes) != 2 || votes[0].Replica != "a" || votes[1].Replica != "c" {
		t.Errorf("got the votes %+v, want those of a and c", votes)
	}
	if left["b"] || !left["a"] || !left["c"] || len(voters) != 3 {
		t.Errorf("got the voters %v of %v, want a and c of a, b and c", left, voters)
	}
	if got, want := Agreeing(mine, votes, left), []string{"a", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v that agree, want %v", got, want)
	}
}
