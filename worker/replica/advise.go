package replica

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// advisories is what an operator should know now, the newest of each kind. It
// is safe for concurrent use.
type advisories struct {
	mu  sync.Mutex
	all []advice // the newest last; guarded by mu
}

type advice struct {
	kind, text string
	at         time.Time
}

// news are the advisories of what has happened, which nothing can undo. They
// end after newsAge; all others end with their cause.
var news = []string{"rolled-back", "replaced", "jumped", "snapshot", "cleared", "healed"}

const newsAge = 24 * time.Hour

// raise adds an advisory, and reports whether it was there already.
func (a *advisories) raise(new advice) (known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(old advice) bool {
		known = known || old.kind == new.kind && old.text == new.text
		return old.kind == new.kind
	})
	a.all = append(a.all, new)
	return known
}

// old returns the kinds whose advisories are news from before a time.
func (a *advisories) old(before time.Time) (kinds []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, said := range a.all {
		if slices.Contains(news, said.kind) && said.at.Before(before) {
			kinds = append(kinds, said.kind)
		}
	}
	return kinds
}

// end removes the advisory of a kind, and returns it.
func (a *advisories) end(kind string) (ended advice, found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.all, func(old advice) bool { return old.kind == kind })
	if i < 0 {
		return advice{}, false
	}
	ended = a.all[i]
	a.all = slices.Delete(a.all, i, i+1)
	return ended, true
}

// has reports whether there is an advisory of a kind.
func (a *advisories) has(kind string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.all, func(old advice) bool { return old.kind == kind })
}

// text is all of them in one line, the newest first.
func (a *advisories) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var texts []string
	for _, advice := range slices.Backward(a.all) {
		texts = append(texts, advice.text)
	}
	return strings.Join(texts, "; ")
}

// Advisory is what an operator should know of the replica, in one line; empty
// if there is nothing.
func (r *Replica) Advisory() string { return r.advisories.text() }

// advise raises an advisory, logs it and publishes it. The same again says
// nothing new, but for one more loss of the log.
func (r *Replica) advise(kind, text string) {
	said := advice{kind, text, time.Now()}
	if r.advisories.raise(said) && kind != "rolled-back" {
		return
	}
	r.log.Warn("advisory", "kind", kind, "text", text)
	r.publishAdvice(said, false)
}

// settled ends what was said of a replica that differs: the fleet agrees
// again, or a trial has ended.
func (r *Replica) settled() {
	r.endAdvice("diverged")
	r.endAdvice("split")
}

// endNews ends the advisories of what happened long ago.
func (r *Replica) endNews() {
	for _, kind := range r.advisories.old(time.Now().Add(-newsAge)) {
		r.endAdvice(kind)
	}
}

// endAdvice ends the advisory of a kind: its cause is gone.
func (r *Replica) endAdvice(kind string) {
	if ended, found := r.advisories.end(kind); found {
		r.log.Info("advisory ended", "kind", kind, "text", ended.text)
		r.publishAdvice(ended, true)
	}
}

func (r *Replica) publishAdvice(a advice, ended bool) {
	if r.cfg.Advise == nil {
		return
	}
	fields := map[string]any{
		"type": a.kind, "replica": r.cfg.Name, "seq": r.Applied(), "text": a.text, "time": time.Now().UTC(),
	}
	if ended {
		fields["ended"] = true
	}
	if data, err := json.Marshal(fields); err == nil {
		r.cfg.Advise(r.cfg.Spec.Name+".advisory."+a.kind, data)
	}
}
