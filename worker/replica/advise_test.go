package replica

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/worker/fleet"
)

// TestAnAdvisoryEndsWithItsCause, and its end is published; what happened, and
// cannot be undone, stays for a day.
func TestAnAdvisoryEndsWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, published := watched(t)
		l.fold(t, 2)
		has := func(want string) {
			t.Helper()
			if got := l.Advisory(); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("got the advisory %q, want %q", got, want)
			}
		}
		// Another worker of the same name, whose heartbeat is seen now and then.
		own := l.heartbeat()
		other := own
		other.Boot = "another"
		for _, seen := range []fleet.Heartbeat{other, own, own, other, own} {
			l.meet([]fleet.Heartbeat{seen}, true)
			has("has the name a too")
			wait(1)
		}
		wait(int(fleet.HeartbeatTTL / time.Second))
		l.meet([]fleet.Heartbeat{own}, true)
		has("")

		// Another replica that differs, until all agree at a later checkpoint.
		rule := func(seq uint64, ruling fleet.Ruling) {
			mine := fleet.Attestation{Replica: "a", Seq: seq, Digest: "x"}
			c := &checkpoint{Attestation: mine, at: time.Now().Add(-time.Minute), agree: []string{"a", "b"}}
			l.audit.settle(t.Context(), c, ruling, []fleet.Attestation{{Replica: "c", Seq: seq, Digest: "y"}}, nil)
		}
		rule(7, fleet.Upheld)
		has("agrees with the majority")
		rule(6, fleet.Unanimous) // an earlier one, settled late
		has("agrees with the majority")
		rule(8, fleet.Unanimous)
		has("")

		// A trial: what it found stays for a day.
		rule(9, fleet.Outvoted)
		has("folds anew")
		mine := fleet.Attestation{Replica: "a", Seq: 9, Digest: "x"}
		l.audit.trial.after = &mine
		rule(9, fleet.Upheld)
		has("was right")
		time.Sleep(newsAge + 2*endEvery)
		synctest.Wait()
		has("")
		for kind, want := range map[string]string{
			"same-name": "same-name begins, same-name ends",
			"diverged":  "diverged begins, diverged ends, diverged begins, diverged ends",
			"cleared":   "cleared begins, cleared ends",
		} {
			if got := published(kind); got != want {
				t.Errorf("published %q, want %q", got, want)
			}
		}
	})
}
