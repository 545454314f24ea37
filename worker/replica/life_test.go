package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lockstep/bus"
	"lockstep/worker/fleet"
)

// lifeEvents are the events that a transcript names. The sequence that is
// applied stands before the event, after an @.
var lifeEvents = map[string]any{
	"started":           started{},
	"began to 10":       began{10},
	"log ends at 5":     logEnds{5},
	"confirmed":         confirmed{true},
	"other log":         confirmed{false},
	"reached":           reached{},
	"fleet at 10":       fleetAt{10},
	"fleet far ahead":   fleetAt{10 + 2*fleet.MaxBehind},
	"suspected":         suspected{base: 4},
	"reproduced":        reproduced{},
	"cleared":           cleared{},
	"condemned":         condemned{"a majority disagrees"},
	"doubted":           doubted{},
	"joined":            joined{},
	"could not join":    unjoined{errNoGroup},
	"interrupted":       ended{},
	"hole":              ended{err: &bus.GapError{Want: 3, Got: 7}},
	"rolled back":       ended{err: &bus.RolledBackError{Applied: 9}},
	"panicked":          ended{err: &PanicError{Seq: 8}},
	"another contract":  ended{err: ErrContract, final: true},
	"the log was wiped": ended{err: errors.New("wiped")},
	"stop asked for":    stopAsked{},
}

var errNoGroup = errors.New("no group")

// TestLife holds the table of transitions: for each event of a life, the state
// that it leads to and what the owner has to do.
func TestLife(t *testing.T) {
	for name, transcript := range map[string]string{
		"joins once it has caught up, and stops": `
			@0   started          restoring    show begin
			@0   began to 10      replaying    show
			@3   confirmed        replaying
			@10  reached          replaying    join
			@10  joined           ready        show
			@12  stop asked for   draining     show leave close interrupt
			@12  stop asked for   draining
			@12  interrupted      draining     finish
			@12  started          draining`,
		"has applied all before the log was seen to be its own": `
			@10  started          restoring    show begin
			@10  began to 10      replaying    show
			@10  confirmed        replaying    join`,
		"waits for a log that ends earlier than it did": `
			@0   started          restoring    show begin
			@0   began to 10      replaying    show
			@5   confirmed        replaying
			@5   log ends at 5    replaying    join`,
		"falls behind, and comes back": `
			@0   started          restoring    show begin
			@0   began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  joined           ready        show
			@10  fleet far ahead  replaying    show leave
			@10  confirmed        replaying
			@10  fleet at 10      replaying    join`,
		"meets another log": `
			@0   started          restoring    show begin
			@0   began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  joined           ready        show
			@10  doubted          ready        recheck
			@10  rolled back      restoring    close leave show begin
			@0   began to 10      replaying    show
			@10  other log        replaying
			@10  confirmed        replaying    join`,
		"goes on behind a hole": `
			@2   started          restoring    show begin
			@2   hole             restoring    close leave show begin`,
		"is put on trial, and heals": `
			@0   started          restoring    show begin
			@0   began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  joined           ready        show
			@10  suspected        ready        interrupt show
			@10  interrupted      restoring    close leave show begin
			@0   began to 10      replaying    show
			@10  confirmed        replaying
			@10  reproduced       replaying    show
			@10  cleared          replaying    show join`,
		"is condemned, and goes on replaying without a word": `
			@10  started          restoring    show begin
			@10  began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  joined           ready        show
			@10  suspected        ready        interrupt show
			@10  interrupted      restoring    close leave show begin
			@10  condemned        quarantined  leave show
			@10  began to 10      quarantined  show
			@10  confirmed        quarantined
			@10  cleared          quarantined  show
			@10  fleet far ahead  quarantined
			@10  hole             quarantined  close leave show begin
			@10  stop asked for   draining     show leave close interrupt
			@10  interrupted      draining     finish`,
		"has a component that panics": `
			@10  started          restoring    show begin
			@10  began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  joined           ready        show
			@8   panicked         failed       close leave show
			@8   confirmed        failed
			@8   condemned        failed
			@8   stop asked for   draining     show leave close finish`,
		"is condemned, and then panics": `
			@10  started          restoring    show begin
			@10  condemned        quarantined  leave show
			@10  panicked         failed       close leave show`,
		"cannot join": `
			@10  started          restoring    show begin
			@10  began to 10      replaying    show
			@10  confirmed        replaying    join
			@10  could not join   replaying    interrupt
			@10  interrupted      replaying    close leave finish`,
		"finds a log of another contract": `
			@0   started          restoring    show begin
			@0   another contract restoring    close leave finish`,
		"cannot read its log": `
			@0   started           restoring    show begin
			@0   the log was wiped restoring    close leave finish`,
	} {
		t.Run(name, func(t *testing.T) {
			l := &life{}
			for line := range strings.Lines(strings.TrimSpace(transcript)) {
				line = strings.Join(strings.Fields(line), " ")
				event, applied := "", uint64(0)
				for e := range lifeEvents {
					if _, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(rest, e+" ") && len(e) > len(event) {
						event = e
					}
				}
				if _, err := fmt.Sscanf(line, "@%d", &applied); err != nil || event == "" {
					t.Fatalf("%q names no event", line)
				}
				got := []string{fmt.Sprintf("@%d", applied), event}
				effects := l.step(lifeEvents[event], applied)
				got = append(got, l.state.String())
				for _, e := range effects {
					got = append(got, e.String())
					if e == beginReplay {
						l.plan()
					}
				}
				if got := strings.Join(got, " "); got != line {
					t.Fatalf("got:  %s\nwant: %s", got, line)
				}
			}
		})
	}
}

// TestNoLifeBreaksItsRules lives random lives: whatever comes in whatever
// order, one attempt runs at a time, only a fit replica joins, quarantine and
// failure are for good, and nothing comes after the end.
func TestNoLifeBreaksItsRules(t *testing.T) {
	names := make([]string, 0, len(lifeEvents))
	for name := range lifeEvents {
		if name != "started" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	seen := map[string]int{}
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l, applied := &life{}, uint64(0)
		running, over, condemnedBy := false, false, ""
		said := []string{"started"}
		event := any(started{})
		for range 60 {
			was := l.state
			for _, e := range l.step(event, applied) {
				seen[e.String()]++
				switch {
				case over:
					t.Fatalf("%s: %s after the end", said, e)
				case e == beginReplay && running:
					t.Fatalf("%s: two attempts at a time", said)
				case e == beginReplay:
					running = true
					l.plan()
				case e == join && (condemnedBy != "" || l.state != fleet.Replaying || l.doubt != noDoubt || applied < l.target):
					t.Fatalf("%s: joins while it is not fit: %s after %q", said, l.state, condemnedBy)
				case e == finish:
					over = true
				}
			}
			if (was == fleet.Quarantined || was == fleet.Failed) && l.state < was && l.state != fleet.Draining {
				t.Fatalf("%s: %s became %s", said, was, l.state)
			}
			if l.state == fleet.Quarantined || l.state == fleet.Failed {
				condemnedBy = said[len(said)-1]
			}
			seen[l.state.String()]++
			name := names[rng.IntN(len(names))]
			if _, ends := lifeEvents[name].(ended); ends && !running {
				continue // there is none that could end
			} else if ends {
				running = false
			}
			event, applied = lifeEvents[name], uint64(rng.IntN(20))
			said = append(said, name)
		}
	}
	for _, what := range []string{"join", "finish", "recheck", "interrupt", "ready", "quarantined", "failed", "draining"} {
		if seen[what] == 0 {
			t.Errorf("no life had %q: %v", what, seen)
		}
	}
}
